//! What a connection tells its worker: how it ended, and what became of a delivery.

use crate::ids::ClientId;
use std::borrow::Cow;
use std::sync::Arc;

/// How a connection ended, for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReport {
    /// Who began it.
    pub side: Side,
    /// The close code; 1006 where no close frame was seen; 0 for plain HTTP.
    pub code: u16,
    /// The close reason.
    pub reason: Cow<'static, str>,
    /// The protocol's id of the client, once it had one.
    pub client: Option<ClientId>,
    /// The user, "" for none, of a client that had connected.
    pub user: Option<Arc<str>>,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The gateway.
    Ours,
    /// The client.
    Peer,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Queued behind other bytes.
    Queued,
    /// Queued as the first: the connection has to be marked dirty.
    First,
    /// Queued, and the connection has to be attended to with [`crate::Connection::attend`]: the backlog has just crossed high
    /// water, or other publications were skipped for this one.
    Attend,
    /// Skipped, because the outbox is full. The connection has to be attended to as well.
    Skipped,
    /// Refused: the outbox is full. The connection has to be disconnected as slow.
    Slow,
    /// Refused: it is closing.
    Gone,
}
