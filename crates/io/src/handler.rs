//! The two sides of the contract: what a driver calls ([`Handler`]) and what a program calls ([`Driver`]).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::batch::Batch;
use crate::state::Io;

/// Names one connection of one driver, also after it is gone: a slot is reused, its generation is not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    pub(crate) const fn new(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    /// The slot. Two connections open at the same time have different ones, so it may index a table beside the driver's.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Which tenant of the slot this is. Never 0.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The id as one number, never 0.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The inverse of [`ConnId::to_bits`]. A made-up number gives an id that names no connection.
    #[must_use]
    pub const fn from_bits(bits: u64) -> ConnId {
        ConnId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// The other end of a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: PeerAddress,
    /// Which listener accepted it, in the order given to the driver; 0 for an outbound connection.
    pub listener: u16,
    /// We connected to it ([`Io::connect`]).
    pub outbound: bool,
}

/// The address of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerAddress {
    /// IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix socket; its clients have no name.
    Unix,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Ip(address) => address.fmt(f),
            PeerAddress::Unix => f.write_str("unix"),
        }
    }
}

/// Where to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// IPv4 or IPv6, optionally from a given source address. With port 0 there the kernel chooses one at connect time
    /// (`IP_BIND_ADDRESS_NO_PORT`), so each (source, destination) pair has the whole port range.
    Ip {
        /// The destination.
        to: SocketAddr,
        /// The source, if it matters.
        from: Option<SocketAddr>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Whether to go on reading a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Read on.
    Continue,
    /// Read nothing until [`Io::resume`]; the kernel's buffer fills and TCP slows the peer down.
    Pause,
}

/// Why a connection has bytes to send. Reply-dirty connections are flushed before broadcast-dirty ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Made dirty by its own input.
    Reply,
    /// Made dirty by a fan-out.
    Broadcast,
}

/// How to close a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Send all that [`Handler::gather`] gives, send FIN, discard input until the peer's FIN, close. Sending and the
    /// wait for the FIN are each bounded by [`Options::linger`](crate::Options::linger); a peer that does not take its bytes in that time is
    /// reset.
    Flush,
    /// Send all that [`Handler::gather`] gives, then close: for a peer that has said that it sends no more, such as one
    /// whose close frame came. Nobody waits for its FIN. What it sends all the same can cost it the last of our bytes,
    /// so a connection from which something waits to be received is closed as by [`How::Flush`].
    Finish,
    /// Close at once. The kernel sends FIN, or RST if input waits unread.
    Now,
    /// Close at once with RST; the kernel drops what it holds.
    Reset,
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// We asked for it first.
    ByUs,
    /// The peer's FIN came first; then we closed.
    ByPeer,
    /// The peer (or the network) broke it: ECONNRESET, EPIPE or a timeout.
    Reset,
    /// Any other error, as `errno`. A failed connect too.
    Error(i32),
    /// The peer took too long over [`How::Flush`].
    LingerExpired,
    /// The driver was shut down.
    Shutdown,
}

/// Which driver this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Real sockets through epoll.
    Epoll,
    /// Real sockets through io_uring.
    Uring,
    /// The simulated network.
    Sim,
}

impl Kind {
    /// The name as used in flags, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Epoll => "epoll",
            Kind::Uring => "uring",
            Kind::Sim => "sim",
        }
    }
}

/// What a driver calls. All calls come from [`Driver::tick`] (or [`Driver::shutdown`]), never from within a method of
/// [`Io`].
pub trait Handler {
    /// A connection was accepted, or an outbound connect succeeded.
    fn opened(&mut self, io: &mut Io, id: ConnId, peer: Peer);

    /// Bytes came. They lie in the worker's pool and are valid for this call only; all count as consumed. An empty slice
    /// is the peer's FIN, given once; the connection can still send, and nothing closes it but the handler (or an error).
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow;

    /// The socket may take bytes: append at most [`Batch::room`] of what waits. Nothing appended means nothing to send,
    /// and `sent` does not follow. There are never two gathers for one connection without `sent` or `closed` between them.
    fn gather(&mut self, id: ConnId, batch: &mut Batch);

    /// The kernel took the first `bytes` of the gathered bytes. If these were fewer than gathered, the driver gathers
    /// again by itself once the socket can take more. If they were all and more waits, mark the connection dirty again.
    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize);

    /// The deadline set by [`Io::deadline`] has passed; it was cleared before this call.
    fn expired(&mut self, io: &mut Io, id: ConnId);

    /// What [`Io::look`] asked for: nothing waited to be received. Who never looks needs no answer.
    fn nothing_waits(&mut self, io: &mut Io, id: ConnId) {
        let _ = (io, id);
    }

    /// The connection is gone: exactly once for each `opened`, and once without `opened` for a failed connect. The id
    /// names nothing any more.
    fn closed(&mut self, io: &mut Io, id: ConnId, why: Closed);

    /// The first phase of every tick: read mailboxes, within a budget of the handler's own; [`Io::again`] if more waits.
    fn woken(&mut self, io: &mut Io);

    /// Whether letters wait. Asked after the worker announced that it sleeps, so a letter cannot slip in between.
    fn has_mail(&self) -> bool;

    /// The last phase of every tick: post wakes, counters.
    fn ticked(&mut self, io: &mut Io);
}

/// An event loop of one worker.
pub trait Driver {
    /// Waits until there is something to do, at most `wait_max` (`None`: as long as it takes), and does one tick of it.
    ///
    /// # Errors
    /// Only when the wait itself fails, which means that the driver is unusable. A connection's errors go to
    /// [`Handler::closed`].
    fn tick<H: Handler>(&mut self, handler: &mut H, wait_max: Option<Duration>) -> std::io::Result<()>;

    /// What the handler also gets, for calls between ticks.
    fn io(&mut self) -> &mut Io;

    /// Which driver this is.
    fn kind(&self) -> Kind;

    /// Closes all listeners and connections at once; each connection is reported as [`Closed::Shutdown`].
    fn shutdown<H: Handler>(&mut self, handler: &mut H);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_bits() {
        for (index, generation) in [(0, 1), (u32::MAX, u32::MAX), (7, 9)] {
            let id = ConnId::new(index, generation);
            assert_eq!(ConnId::from_bits(id.to_bits()), id);
            assert_ne!(id.to_bits(), 0);
        }
        assert_eq!(size_of::<ConnId>(), 8);
    }
}
