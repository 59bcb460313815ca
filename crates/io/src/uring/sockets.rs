//! The socket operations of the io_uring driver.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::buffers::{Buffers, RECVS};
use super::listening::Listening;
use super::ring::{Kind, Ring, Tag};
use crate::batch::Batch;
use crate::connector::{self, SocketOptions};
use crate::handler::{ConnId, PeerAddress, Target};
use crate::refusal;
use crate::tick::Sockets;

/// Bytes of sends that are gathered before they are done. Small sends come by hundreds into one submission; large ones
/// by a few.
const SENDS_BYTES: usize = 512 * 1024;

/// A slot's socket and what the kernel holds of it.
#[derive(Default)]
struct Held {
    /// `None`: none, or given to the kernel to be closed.
    socket: Option<OwnedFd>,
    /// Operations whose last completion has not come.
    operations: u8,
    /// A poll for room is one of them.
    polls_output: bool,
}

const _: () = assert!(size_of::<Held>() == 8, "this column costs 8 bytes per connection");

/// A send that was set aside.
struct Send {
    id: ConnId,
    bytes: Range<usize>,
}

pub(super) struct UringSockets {
    pub(super) ring: Ring,
    pub(super) listeners: Vec<Listening>,
    /// By slot.
    held: Vec<Held>,
    buffers: Buffers,
    sends: Vec<Send>,
    /// Given up for a moment when descriptors run out.
    spare: Option<File>,
    options: SocketOptions,
}

impl UringSockets {
    pub(super) fn new(
        ring: Ring,
        listeners: Vec<Listening>,
        slots: usize,
        recv_bytes: usize,
        options: SocketOptions,
    ) -> io::Result<UringSockets> {
        Ok(UringSockets {
            ring,
            listeners,
            held: Vec::with_capacity(slots),
            buffers: Buffers::new(recv_bytes),
            sends: Vec::with_capacity(crate::batch::SENDS_MAX),
            spare: Some(refusal::spare()?),
            options,
        })
    }

    /// The socket of a slot in use. The phases call nothing for a slot without one, so the error is never seen.
    pub(super) fn socket(&self, index: u32) -> io::Result<&OwnedFd> {
        let held = self.held.get(index as usize);
        held.and_then(|held| held.socket.as_ref()).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn keep(&mut self, id: ConnId, socket: OwnedFd) {
        let index = id.index() as usize;
        if index >= self.held.len() {
            self.held.resize_with(index + 1, Held::default);
        }
        let held = &mut self.held[index];
        debug_assert!(held.socket.is_none() && held.operations == 0, "the slot is freed when the kernel is done");
        held.socket = Some(socket);
        self.poll_input(id);
    }

    /// Arms the connection's multishot poll. It looks at the socket, so what came before is announced too.
    pub(super) fn poll_input(&mut self, id: ConnId) {
        let held = &mut self.held[id.index() as usize];
        if let Some(socket) = &held.socket {
            self.ring.poll_input(socket.as_fd(), Tag::of(Kind::Poll, id));
            held.operations += 1;
        }
    }

    fn poll_output(&mut self, id: ConnId) {
        let held = &mut self.held[id.index() as usize];
        if let Some(socket) = &held.socket
            && !held.polls_output
        {
            self.ring.poll_output(socket.as_fd(), Tag::of(Kind::PollOut, id));
            held.operations += 1;
            held.polls_output = true;
        }
    }

    /// An operation of the slot is over. Whether it was the last one of a socket that is closed.
    pub(super) fn operation_ended(&mut self, index: u32, kind: Kind) -> bool {
        let Some(held) = self.held.get_mut(index as usize) else { return false };
        if kind == Kind::PollOut {
            held.polls_output = false;
        }
        debug_assert!(held.operations > 0);
        held.operations = held.operations.saturating_sub(1);
        held.operations == 0 && held.socket.is_none()
    }

    /// Has all closes done that were asked for, and leaves nothing armed if `disarm`.
    pub(super) fn settle(&mut self, disarm: bool) {
        if disarm {
            self.ring.cancel_all();
        }
        let _ = self.ring.enter(0, None);
        while self.ring.closes() > 0 && self.ring.enter(self.ring.closes(), None).is_ok() {}
    }
}

impl Drop for UringSockets {
    /// Closing a ring takes its operations off some time later, and until then they hold the sockets open.
    fn drop(&mut self) {
        self.settle(true);
        while let Some(news) = self.ring.next_news() {
            drop(Ring::accepted(&news));
            Ring::close_failed(news);
        }
    }
}

impl Sockets for UringSockets {
    const RECVS_AHEAD: usize = RECVS;
    const SENDS_AHEAD_BYTES: usize = SENDS_BYTES;
    const WRITABLE_FOR_GOOD: bool = false;

    type Accepted = OwnedFd;

    fn accept(&mut self, listener: usize) -> io::Result<(OwnedFd, PeerAddress)> {
        self.listeners[listener].accept(&mut self.ring, listener)
    }

    fn adopt(&mut self, id: ConnId, socket: OwnedFd) -> io::Result<()> {
        self.keep(id, socket);
        Ok(())
    }

    fn answer(&mut self, index: u32, answer: &[u8]) {
        if let Ok(socket) = self.socket(index) {
            refusal::answer(&SockRef::from(socket), answer);
        }
    }

    fn refuse(&mut self, socket: OwnedFd, answer: &[u8]) {
        refusal::refuse(&SockRef::from(&socket), answer);
    }

    fn refuse_with_spare(&mut self, listener: usize, answer: &[u8]) -> bool {
        self.spare = None;
        let refused = self.listeners[listener].accept_directly();
        let refused = refused.map(|(socket, _)| self.refuse(socket, answer)).is_ok();
        self.spare = refusal::spare().ok();
        refused
    }

    fn drain_listener(&mut self, listener: usize) {
        self.listeners[listener].stop(&mut self.ring, listener);
    }

    fn close_listener(&mut self, listener: usize) {
        self.listeners[listener].close(&mut self.ring, listener);
    }

    fn connect(&mut self, id: ConnId, target: &Target) -> io::Result<Option<PeerAddress>> {
        let (socket, done) = connector::start(target, &self.options)?;
        let address = done.then(|| connector::peer_address(&SockRef::from(&socket))).transpose()?;
        self.keep(id, socket);
        if !done {
            self.poll_output(id);
        }
        Ok(address)
    }

    fn connected(&mut self, id: ConnId) -> io::Result<PeerAddress> {
        let socket = SockRef::from(self.socket(id.index())?);
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match connector::peer_address(&socket) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.poll_output(id);
                Err(io::ErrorKind::WouldBlock.into())
            }
            result => result,
        }
    }

    fn recv_ahead(&mut self, indices: &[u32]) {
        let held = &self.held;
        let sockets = indices.iter().map(|index| socket(held, *index));
        self.ring.receive(sockets, &mut self.buffers);
    }

    fn recv<'a>(&'a mut self, turn: usize, _: u32, _: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let received = self.ring.result(turn)?;
        Ok(&mut self.buffers.at(turn)[..received])
    }

    fn recv_bytes(&self, _: &[u8]) -> usize {
        self.buffers.chunk()
    }

    fn send(&mut self, id: ConnId, batch: &mut Batch) -> io::Result<Option<usize>> {
        self.sends.push(Send { id, bytes: batch.seal() });
        Ok(None)
    }

    fn submit_sends(&mut self, batch: &Batch) -> usize {
        if !self.sends.is_empty() {
            let held = &self.held;
            let sends = self.sends.iter().map(|send| (socket(held, send.id.index()), &batch.all()[send.bytes.clone()]));
            self.ring.send(sends);
        }
        self.sends.len()
    }

    fn submitted(&mut self, turn: usize) -> (ConnId, io::Result<usize>, usize) {
        let Send { id, bytes } = &self.sends[turn];
        (*id, self.ring.result(turn), bytes.len())
    }

    fn sends_finished(&mut self) {
        self.sends.clear();
    }

    fn arm_writable(&mut self, id: ConnId) -> io::Result<()> {
        self.poll_output(id);
        Ok(())
    }

    fn shutdown(&mut self, index: u32) {
        if let Ok(socket) = self.socket(index) {
            // By system call: the operation would be handed to a thread of the kernel's. It fails only when the connection
            // is broken already, which the next receive tells.
            let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, id: ConnId, reset: bool) -> bool {
        // None for a connect that failed or never began.
        let Some(held) = self.held.get_mut(id.index() as usize) else { return false };
        let Some(socket) = held.socket.take() else { return false };
        if reset {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        held.operations += 1;
        let polls = [Tag::of(Kind::Poll, id), Tag::of(Kind::PollOut, id)];
        let armed = if held.polls_output { &polls[..] } else { &polls[..1] };
        self.ring.cancel_and_close(socket, armed, id.index());
        true
    }

    fn take_error(&mut self, index: u32) -> Option<io::Error> {
        self.socket(index).and_then(|socket| SockRef::from(socket).take_error()).unwrap_or_else(Some)
    }
}

/// The socket of a connection that the phases have chosen to receive from or send to.
fn socket(held: &[Held], index: u32) -> BorrowedFd<'_> {
    held[index as usize].socket.as_ref().expect("an open connection has a socket").as_fd()
}
