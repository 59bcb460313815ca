//! What a connection asks of the rest of its worker. Values, applied by the worker after the call that made them, so
//! that a panic inside a connection cannot leave the hub half changed.

use crate::address::{Address, name_of};
use crate::encoded::Encoding;
use crate::ids::ClientId;
use crate::webhook::Question;
use hub::{Channel, Draft, Entrance, HistoryQuery, MemberId, PresenceQuery, Recover};
use std::fmt;
use std::sync::Arc;
use wire::proxy::ProxyError;

/// One request to the worker.
#[derive(Debug)]
pub enum Effect {
    /// Count a pending subscriber, tell the connection its number with `subscription_begun`, and ask the home.
    Subscribe {
        /// Repeated by the answer; a connection never uses one twice while an answer is due.
        sequence: u32,
        /// The channel.
        channel: Channel,
        /// Where it wants to go on, if it does.
        recover: Option<Box<Recover>>,
        /// Who it is, where the channel's namespace wants to know.
        entrance: Option<Box<Entrance>>,
    },
    /// The subscription is over here: remove the member and withdraw it at the home.
    Withdraw {
        /// The member to remove.
        member: MemberId,
    },
    /// Have the home publish, and answer with `published`.
    Publish {
        /// The command's id, for the reply.
        command: u32,
        /// What to publish.
        draft: Box<Draft>,
    },
    /// Have the home read a channel's history, and answer with `history_read`.
    History {
        /// The command's id, for the reply.
        command: u32,
        /// The channel.
        channel: Channel,
        /// What is wanted of it.
        query: HistoryQuery,
    },
    /// Have the home say who is present in a channel, or how many, and answer with `presence_read`.
    Presence {
        /// The command's id, for the reply.
        command: u32,
        /// The channel.
        channel: Channel,
        /// Who, or how many.
        query: PresenceQuery,
    },
    /// The session has connected, and the backend wants to be told. By now it may have ended again.
    Connected {
        /// Who.
        client: ClientId,
        /// The user, "" for none.
        user: Arc<str>,
        /// What it reads.
        encoding: Encoding,
    },
    /// A token names a published key that is not known: have them fetched.
    FetchKeys,
    /// Have the backend asked, and answer with `backend_answered`.
    AskBackend {
        /// Repeated by the answer.
        number: u32,
        /// What.
        question: Box<Question>,
    },
    /// Call `verification_granted` when a tick has this much to spend.
    AwaitVerification {
        /// What the token costs to check.
        cost: u32,
    },
    /// Something the operator should be able to read in the log.
    Note(Note),
}

/// Why a client was told no, naming the option that would have allowed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Error 102.
    UnknownNamespace {
        /// As the client wrote it.
        channel: String,
    },
    /// Error 103.
    Denied {
        /// As the client wrote it.
        channel: String,
        /// The namespace, empty for channels without one.
        namespace: String,
        /// The option that is off.
        option: &'static str,
    },
    /// Close code 3500 or error 103: a token that does not count.
    TokenInvalid {
        /// What the client was told.
        code: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Close code 3501: no token, and `client.anonymous` is off.
    AnonymousRefused,
    /// Status 403: a page of another site.
    OriginRefused {
        /// The Origin header.
        origin: String,
    },
    /// Status 403: a name that is neither this machine's nor listed, where only such are answered.
    HostRefused {
        /// The Host header.
        host: String,
    },
    /// A connection from somebody who is no trusted proxy, where only such are taken.
    ProxyNotTrusted {
        /// From where.
        peer: Address,
    },
    /// A trusted proxy sent no header of the PROXY protocol, or a bad one.
    ProxyHeaderRefused {
        /// From where.
        peer: Address,
        /// What is wrong with it.
        error: ProxyError,
    },
    /// A TLS connection that could not go on.
    TlsFailed {
        /// What rustls says.
        error: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace { channel } => {
                write!(
                    f,
                    "102: channel {channel:?} has a namespace that is not configured: add it under [[namespaces]]"
                )
            }
            Self::Denied { channel, namespace, option } if namespace.is_empty() => {
                write!(f, "103: channel {channel:?}: `channels` lacks `{option}`")
            }
            Self::Denied { channel, namespace, option } => {
                write!(f, "103: channel {channel:?}: namespace `{namespace}` lacks `{option}`")
            }
            Self::TokenInvalid { code, why } => write!(f, "{code}: a client's token does not count: {why}"),
            Self::AnonymousRefused => {
                f.write_str("3501: a client came without a token: set `client.anonymous = true` to let it in")
            }
            Self::OriginRefused { origin } => {
                write!(f, "403: a page from origin {origin:?}: add it to `public.origins` to let it in")
            }
            Self::HostRefused { host } => {
                write!(f, "403: Host {host:?} is no name of this machine: add it to `public.hosts` to answer to it")
            }
            Self::ProxyNotTrusted { peer } => write!(
                f,
                "a connection from {} was closed: only proxies may connect to that listener: add it to \
                 `public.trusted_proxies` if it is one",
                name_of(*peer)
            ),
            Self::ProxyHeaderRefused { peer, error } => {
                write!(f, "a connection from {} was closed: {error}", name_of(*peer))
            }
            Self::TlsFailed { error } => write!(f, "a TLS connection was closed: {error}"),
        }
    }
}
