//! The operations that make a driver: everything else is shared.

use std::io;

use crate::batch::Batch;
use crate::handler::{ConnId, PeerAddress, Target};

/// The operations a driver supplies. None blocks; `index` is the connection's slot.
///
/// Readiness is an edge: after [`Sockets::recv`] gave fewer bytes than asked for, or `WouldBlock`, the driver announces
/// the next arrival through [`Core::announce`](super::Core::announce); it need not announce what it announced before.
pub(crate) trait Sockets {
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
    /// Closes a listener; later calls for it are not made.
    fn close_listener(&mut self, listener: usize);
    /// Starts to connect. `None`: an announcement follows.
    fn connect(&mut self, id: ConnId, target: &Target) -> io::Result<Option<PeerAddress>>;
    /// The outcome of a connect that was announced as ready; `WouldBlock` if there is none yet.
    fn connected(&mut self, index: u32) -> io::Result<PeerAddress>;
    /// Receives; 0 is the peer's FIN.
    fn recv(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize>;
    /// Sends. `None`: [`Core::completed`](super::Core::completed) follows, and the driver has swapped the batch for an empty one of its own.
    fn send(&mut self, index: u32, batch: &mut Batch) -> io::Result<Option<usize>>;
    /// Asks for announcements of room to send, which from now on come whenever a full socket empties.
    fn arm_writable(&mut self, id: ConnId) -> io::Result<()>;
    /// Sends FIN.
    fn shutdown(&mut self, index: u32);
    /// Closes, with RST or as the kernel does. An outstanding send still completes.
    fn close(&mut self, index: u32, reset: bool);
    /// The error that the kernel holds for the socket, taken from it.
    fn take_error(&mut self, index: u32) -> Option<io::Error>;
    /// The handler is done with these received bytes.
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
