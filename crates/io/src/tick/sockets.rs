//! The operations that make a driver: everything else is shared.

use std::io;

use crate::batch::Batch;
use crate::handler::{ConnId, PeerAddress, Target};

/// The operations a driver supplies. None blocks; `index` is the connection's slot.
///
/// Readiness is an edge: after [`Sockets::recv`] gave fewer bytes than asked for, or `WouldBlock`, the driver announces
/// the next arrival through [`Core::announce`](super::Core::announce); it need not announce what it announced before.
pub(crate) trait Sockets {
    /// How many receives are done at a time; if more than one, [`Sockets::recv_ahead`] does them.
    const RECVS_AHEAD: usize = 1;
    /// How many bytes of sends are gathered before [`Sockets::submit_sends`] does them; 0 where each is done at once.
    const SENDS_AHEAD_BYTES: usize = 0;
    /// After [`Sockets::arm_writable`] room is announced whenever there is some again, not only once.
    const WRITABLE_FOR_GOOD: bool = true;

    /// A socket that has no slot yet.
    type Accepted;

    /// Takes one connection from the listener's queue; `WouldBlock` when it is empty.
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Accepted, PeerAddress)>;
    /// Binds a socket to its slot and asks for announcements of input, what came before included.
    fn adopt(&mut self, id: ConnId, socket: Self::Accepted) -> io::Result<()>;
    /// Sends `answer` as far as that goes with one send, then FIN.
    fn answer(&mut self, index: u32, answer: &[u8]);
    /// The same for a socket without a slot, which is then closed.
    fn refuse(&mut self, socket: Self::Accepted, answer: &[u8]);
    /// Out of file descriptors: takes one connection from the queue by means of the spare one and refuses it. False if
    /// there was none to take.
    fn refuse_with_spare(&mut self, listener: usize, answer: &[u8]) -> bool;
    /// No more connections are wanted from the kernel but those it has queued; [`Sockets::accept`] gives them all before
    /// it says `WouldBlock`.
    fn drain_listener(&mut self, _listener: usize) {}
    /// Closes a listener; later calls for it are not made.
    fn close_listener(&mut self, listener: usize);
    /// Starts to connect. `None`: an announcement follows.
    fn connect(&mut self, id: ConnId, target: &Target) -> io::Result<Option<PeerAddress>>;
    /// The outcome of a connect that was announced as ready; `WouldBlock` if there is none yet.
    fn connected(&mut self, id: ConnId) -> io::Result<PeerAddress>;
    /// The next receives will be of these slots, in this order.
    fn recv_ahead(&mut self, _indices: &[u32]) {}
    /// Receives, into `pool` or a buffer of the driver's own (then `pool` is empty); no bytes are the peer's FIN. `turn`
    /// is the place among those of [`Sockets::recv_ahead`].
    fn recv<'a>(&'a mut self, turn: usize, index: u32, pool: &'a mut [u8]) -> io::Result<&'a mut [u8]>;
    /// The most bytes that one receive gives.
    fn recv_bytes(&self, pool: &[u8]) -> usize {
        pool.len()
    }
    /// Sends. `None`: [`Core::completed`](super::Core::completed) follows, and the driver has swapped the batch for an
    /// empty one of its own or set its bytes aside ([`Batch::seal`]).
    fn send(&mut self, id: ConnId, batch: &mut Batch) -> io::Result<Option<usize>>;
    /// Does the sends that were set aside and tells their number.
    fn submit_sends(&mut self, _batch: &Batch) -> usize {
        0
    }
    /// All of them were asked for.
    fn sends_finished(&mut self) {}
    /// What became of one of them, and how many bytes it had.
    fn submitted(&mut self, _turn: usize) -> (ConnId, io::Result<usize>, usize) {
        unreachable!("nothing was set aside")
    }
    /// Asks for an announcement of room to send.
    fn arm_writable(&mut self, id: ConnId) -> io::Result<()>;
    /// Sends FIN.
    fn shutdown(&mut self, index: u32);
    /// Closes, with RST or as the kernel does. An outstanding send still completes. True: the kernel holds the slot's
    /// operations for some time, and [`Core::idle`](super::Core::idle) follows.
    fn close(&mut self, id: ConnId, reset: bool) -> bool;
    /// The error that the kernel holds for the socket, taken from it.
    fn take_error(&mut self, index: u32) -> Option<io::Error>;
    /// The handler is done with these received bytes of the pool.
    fn consumed(&mut self, _bytes: &mut [u8]) {}
}

/// What the kernel said about a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer's FIN came.
    pub(crate) fin: bool,
    pub(crate) failed: bool,
}
