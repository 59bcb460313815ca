//! The least that a server can do to put the same bytes on the wire: bare loops, to divide Tidegate's cost by.
//!
//! ```text
//! job.rs     what is done with received bytes: echo, accept, fan-out      no socket
//! bytes.rs   frames, heads and publications as bytes                       no socket
//! epoll.rs   wait, accept, receive, send                                   one system call each
//! uring.rs   the same through one io_uring                                 one system call per turn
//! ```
//!
//! A loop believes what it is told: it checks no UTF-8, no origin, no limit of the protocol; it has no deadlines, no pings
//! and no metrics. It must survive bad input all the same, so that a mistake shows in the client and not as a crash here:
//! whatever it cannot read it waits for or closes, and what it keeps is bounded by [`KEPT_BYTES_MAX`].

mod bytes;
pub mod epoll;
mod job;
#[allow(unsafe_code)] // the kernel reads and writes memory that it was told of
pub mod uring;

pub use job::{Accept, Batching, Echo, Fanout, Job};

use io::Listener;

/// Bytes of one connection that are kept: a frame or request that is not whole yet, or what its socket did not take. One
/// with more is closed.
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who connects to a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// WebSocket clients.
    Public,
    /// Publishers, by HTTP.
    Api,
}

/// A listener and who connects to it.
#[derive(Debug)]
pub struct Door {
    /// It, as Tidegate makes its own: the same backlog.
    pub listener: Listener,
    /// Who comes.
    pub side: Side,
}

/// What becomes of a connection after what it sent was handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// It goes on.
    Continue,
    /// It gets every publication from now on.
    Subscribe,
    /// It is closed when what was written to it has been sent.
    Close,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A client before its upgrade.
    Head,
    /// A client that speaks Centrifugo's JSON protocol and has not introduced itself yet.
    Greeting,
    /// A WebSocket.
    Open,
    /// A publisher.
    Publisher,
}

impl From<Side> for Phase {
    fn from(side: Side) -> Phase {
        match side {
            Side::Public => Phase::Head,
            Side::Api => Phase::Publisher,
        }
    }
}
