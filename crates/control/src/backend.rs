//! What the server API asks of the workers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use hub::{Channel, Draft, HistoryPage, HistoryQuery, Namespaces, Presence, PresenceQuery, Published, Since};
use serde::Serialize;

use crate::glob::Glob;
use crate::metrics::NodeSample;

/// The workers as the control thread sees them. The gateway implements it with letters, the tests with a fake.
///
/// Every call has a deadline of its own ([`crate::ApiSettings::backend_timeout`]); a future that is dropped
/// because of it must leave nothing behind, but what it asked for may still happen.
pub trait Backend: Send + Sync + 'static {
    /// Numbers one publication at its channel's home and hands it to every interested worker.
    fn publish(&self, draft: Draft) -> impl Future<Output = Result<Published, BackendError>> + Send;

    /// Reads a part of a channel's history at its home.
    fn history(
        &self,
        channel: Channel,
        query: HistoryQuery,
    ) -> impl Future<Output = Result<HistoryPage, BackendError>> + Send;

    /// Drops what a channel's history holds; its position stays.
    fn remove_history(&self, channel: Channel) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Says who is subscribed to a channel, or how many are.
    fn presence(
        &self,
        channel: Channel,
        query: PresenceQuery,
    ) -> impl Future<Output = Result<Presence, BackendError>> + Send;

    /// Channels that have subscribers on this node, with their number, in any order: at most `limit` of those that
    /// match (all without a pattern). More than it can list is the caller's to notice, by asking for one too many.
    fn channels(
        &self,
        pattern: Option<Glob>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Channel, u32)>, BackendError>> + Send;

    /// Does something to every matching connection; the answer is to how many.
    fn act(&self, clients: Clients, action: ClientAction) -> impl Future<Output = Result<u64, BackendError>> + Send;

    /// The matching connections, in any order: at most `limit`. More than it can list is the caller's to notice, by asking
    /// for one too many.
    fn connections(
        &self,
        clients: Clients,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<ConnectionInfo>, BackendError>> + Send;

    /// This node now.
    fn info(&self) -> NodeInfo;

    /// The namespaces in force: publishing needs a known one. A reload replaces them.
    fn namespaces(&self) -> Arc<Namespaces>;

    /// Whether this node wants new clients; false while it drains.
    fn ready(&self) -> bool;

    /// The figures behind `/metrics` now.
    fn sample(&self) -> NodeSample;
}

/// Why the workers did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// A mailbox is full; nothing was done, trying again later helps.
    Busy,
    /// No answer within the deadline; it may have been done.
    Timeout,
    /// The channel's namespace is not configured.
    UnknownChannel,
    /// The channel keeps no history.
    NoHistory,
    /// The channel does not know who is subscribed to it.
    NoPresence,
    /// More are present than one answer names.
    TooManyPresent,
    /// The position asked for is of another epoch.
    Unrecoverable,
    /// The process is ending.
    ShuttingDown,
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendError::Busy => "a mailbox is full, nothing was done",
            BackendError::Timeout => "no answer in time, it may have been done",
            BackendError::UnknownChannel => "unknown channel",
            BackendError::NoHistory => "the channel keeps no history",
            BackendError::NoPresence => "the channel has no presence",
            BackendError::TooManyPresent => "more clients are present than one answer names",
            BackendError::Unrecoverable => "the position is of another epoch",
            BackendError::ShuttingDown => "the node is shutting down",
        })
    }
}

impl std::error::Error for BackendError {}

/// Which connections. They must match every condition given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// The user; `Some("")` means the anonymous ones, `None` any (only together with `client` or `session`).
    pub user: Option<String>,
    /// Only this client id.
    pub client: Option<String>,
    /// Only this session.
    pub session: Option<String>,
    /// Client ids that stay.
    pub whitelist: Vec<String>,
}

/// What becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// They are closed.
    Disconnect {
        /// Close code, 3000 to 4999.
        code: u16,
        /// Close reason, at most [`crate::limits::CLOSE_REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// They get this channel.
    Subscribe(Box<ServerSide>),
    /// They leave this channel.
    Unsubscribe(String),
    /// They last until this Unix time in seconds, or for ever.
    Refresh(Option<u64>),
}

/// A channel that clients get without having asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSide {
    /// The channel, of a namespace that exists.
    pub channel: String,
    /// JSON that others in the channel are told of them.
    pub info: Option<Box<[u8]>>,
    /// JSON that they are told with the subscription.
    pub data: Option<Box<[u8]>>,
    /// When it ends, in Unix seconds.
    pub expire_at: Option<u64>,
    /// Where they are in the channel: what came since then is sent behind the news that they have it.
    pub recover_since: Option<Since>,
    /// `presence` where it is not what the namespace says.
    pub presence: Option<bool>,
    /// The same of `join_leave`.
    pub join_leave: Option<bool>,
    /// The same of `force_recovery`.
    pub force_recovery: Option<bool>,
    /// The same of `force_positioning`.
    pub force_positioning: Option<bool>,
    /// The same of `force_push_join_leave`.
    pub force_push_join_leave: Option<bool>,
}

/// A connection, as a backend sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Client id.
    pub client: String,
    /// User id; "" for none.
    pub user: String,
    /// `websocket`, or `uni_websocket` for a client that only listens.
    pub transport: &'static str,
    /// `json` or `protobuf`.
    pub protocol: &'static str,
    /// What it is subscribed to, in any order.
    pub channels: Vec<Channel>,
}

/// What `info` tells about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// Random identity of this process.
    pub uid: String,
    /// Configured or host name.
    pub name: String,
    /// Version of the binary.
    pub version: String,
    /// Connected clients.
    pub num_clients: u64,
    /// Distinct users among them.
    pub num_users: u64,
    /// Channels with at least one subscriber.
    pub num_channels: u64,
    /// Subscriptions of all clients.
    pub num_subs: u64,
    /// Seconds since the process started.
    pub uptime: u64,
}
