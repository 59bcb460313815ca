//! What the operator decided, as the connections see it. Shared by all workers, replaced whole on reload.

use crate::address::{Addresses, Trusted};
use crate::auth::host::HostPolicy;
use crate::auth::origin::OriginPolicy;
use crate::auth::token::Tokens;
use crate::outbox::slow::Room;
use crate::tls::ServerConfig;
use crate::webhook::Webhooks;
use hub::Namespaces;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use wire::ws::deflate::Level;

/// Everything a connection asks the configuration for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sent in the connect reply: "tidegate 0.1.0".
    pub version: String,
    /// Which of the endpoints answer.
    pub endpoints: Endpoints,
    /// Which web pages may open a connection.
    pub origins: OriginPolicy,
    /// Which Host headers are answered at all.
    pub hosts: HostPolicy,
    /// What tokens are checked with.
    pub tokens: Tokens,
    /// About what the backend is asked.
    pub webhooks: Webhooks,
    /// The backend is told who comes and goes.
    pub client_notices: bool,
    /// In which namespace each user is subscribed to a channel of its own, if in any: "" for none, `#42`.
    pub personal: Option<String>,
    /// Clients without a token are let in, as user "".
    pub anonymous: bool,
    /// Every channel may be subscribed and published to, also where no namespace is configured. Only `--dev` and
    /// `client.insecure` set it.
    pub insecure: bool,
    /// Options of channels by the prefix of their name.
    pub namespaces: Namespaces,
    /// What a client may make grow.
    pub limits: Limits,
    /// When a client is late.
    pub times: Times,
    /// permessage-deflate; `None`: it is not agreed to.
    pub compression: Option<Compression>,
    /// Who is believed when it speaks for the clients behind it.
    pub trusted_proxies: Trusted,
    /// What all workers know of their clients' addresses. The same for as long as the process runs.
    pub addresses: Arc<Addresses>,
    /// What is special about the public listeners, by their number; those beyond the end are plain.
    pub listeners: Vec<Listener>,
    /// Static pages of the public listener: the demo. Empty without it.
    pub pages: Vec<StaticPage>,
}

/// How the connections of one listener begin.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// They speak TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// They begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
}

/// Whether connections begin with a header of the PROXY protocol, in front of TLS and HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A header is a malformed request.
    #[default]
    Off,
    /// Those of trusted proxies may; to others it is off.
    Optional,
    /// All do, and only those of trusted proxies are taken.
    Required,
}

/// Which endpoints of the public listener are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `/connection/websocket`: Centrifugo's bidirectional protocol.
    pub websocket: bool,
    /// `/connection/uni_websocket`: the plain dialect.
    pub uni_websocket: bool,
    /// `/echo`: sends every message back.
    pub echo: bool,
}

/// Sizes and counts. Units are in the names.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Bytes of one client message; more is answered with close code 1009.
    pub message_bytes_max: usize,
    /// Frames of one client message.
    pub fragments_max: u32,
    /// Subscriptions of one connection.
    pub channels_max: usize,
    /// How many commands it may send; `None` is any number.
    pub commands: Option<Rate>,
    /// How many frames it may send, of whatever kind; `None` is any number.
    pub messages: Option<Rate>,
    /// How many bytes; `None` is any number.
    pub bytes: Option<Rate>,
    /// Connections of one address; `None` is any number.
    pub connections_per_address_max: Option<NonZeroU32>,
    /// WebSocket handshakes of one address; `None` is any number.
    pub handshakes_per_address: Option<Rate>,
    /// WebSocket handshakes of all, per second; `None` is any number.
    pub handshakes_per_second: Option<NonZeroU32>,
    /// Connections of one user on one worker; 0 for any number.
    pub connections_per_user_max: usize,
    /// Subscriptions of all connections of one user on one worker; 0 for any number.
    pub subscriptions_per_user_max: usize,
    /// Bytes of a channel name.
    pub channel_name_bytes_max: usize,
    /// Bytes waiting for one client, above which its publications are skipped or it is closed as slow.
    pub outbox_bytes_max: usize,
    /// Backlog from which the client counts as slow: its own input is not read any more, and values are conflated.
    pub outbox_high_water: usize,
    /// Backlog at which it does not any more; also what skipping leaves.
    pub outbox_low_water: usize,
    /// One reply may be this large; it always fits an outbox below low water.
    pub reply_bytes_max: usize,
    /// Publications that one recovery brings; who has missed more starts anew.
    pub recovery_publications_max: usize,
    /// Publications that one answer to a history command holds.
    pub history_publications_max: usize,
    /// Publications held back for a subscription that has not been announced yet.
    pub held_publications_max: usize,
    /// Bytes of those.
    pub held_bytes_max: usize,
    /// Bytes of publications that a worker keeps to make patches from.
    pub delta_bytes_max: usize,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second, for as long as anybody likes.
    pub per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the accept to the end of the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// From the first byte of a request head to its last; also an idle kept-alive connection.
    pub head_timeout: Duration,
    /// An idle kept-alive HTTP connection is closed after it.
    pub keep_alive_timeout: Duration,
    /// From the handshake to a successful connect.
    pub stale_close_delay: Duration,
    /// Beyond the end of a token, for the client to refresh it.
    pub expired_close_delay: Duration,
    /// Between two pings; whole seconds.
    pub ping_interval: Duration,
    /// From a ping to its pong.
    pub pong_timeout: Duration,
    /// Longest time without the client taking a byte while the backlog is above high water.
    pub write_timeout: Duration,
    /// Longest wait for the peer's close frame after ours.
    pub close_timeout: Duration,
}

/// What is compressed, and what that may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// How hard.
    pub level: Level,
    /// Shorter replies go as they are.
    pub reply_bytes_min: usize,
    /// Shorter publications go as they are. Bytes of the whole message, envelope included.
    pub publication_bytes_min: usize,
    /// Publications are also compressed after the one before in their channel.
    pub after_previous: bool,
    /// Bytes of publications that a worker keeps for that.
    pub previous_bytes_max: usize,
    /// Bytes that a worker reserves for what its clients' messages refer to. Beyond it nothing is agreed with new ones.
    pub client_history_bytes_max: usize,
}

/// A page kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct StaticPage {
    /// Absolute path, "/" for the index.
    pub path: &'static str,
    /// Content-Type with its charset.
    pub content_type: &'static str,
    /// The whole body.
    pub body: &'static [u8],
}

impl Settings {
    /// The channel that a user is subscribed to without asking.
    pub(crate) fn personal_channel(&self, user: &str) -> Option<String> {
        let namespace = self.personal.as_ref().filter(|_| !user.is_empty())?;
        let boundary = if namespace.is_empty() { "" } else { ":" };
        Some(format!("{namespace}{boundary}#{user}"))
    }
}

impl Limits {
    /// What an outbox takes.
    pub(crate) fn room(&self) -> Room {
        Room { bytes_max: self.outbox_bytes_max, low_water: self.outbox_low_water }
    }

    pub(crate) fn messages(&self) -> wire::ws::Limits {
        wire::ws::Limits { message_bytes_max: self.message_bytes_max, fragments_max: self.fragments_max }
    }
}
