//! Listeners: the kernel accepts by itself, and what it accepted waits here for the accept phase.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::ring::{Kind, News, Ring, Tag};
use crate::connector::{self, SocketOptions};
use crate::handler::PeerAddress;
use crate::listener::{Listener, ListenerSocket, SocketFile};

/// Accepted connections that may wait for the accept phase. With more the kernel is told to stop, and they wait in its
/// own queue, as on epoll, without taking descriptors.
const WAITING_MAX: usize = 256;

/// How long to wait for the end of an accept that was cancelled, which takes no time.
const CANCEL_MAX: Duration = Duration::from_millis(100);

/// One listener.
pub(super) struct Listening {
    /// `None`: closed.
    socket: Option<Socket>,
    unix: bool,
    /// Removes the file of a Unix socket with its last listener.
    file: Option<Arc<SocketFile>>,
    /// Accepted by the kernel, not yet by us.
    waiting: VecDeque<OwnedFd>,
    /// Why the kernel gave up accepting.
    failed: Option<i32>,
    accepting: Accepting,
}

/// What the kernel does with a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepting {
    /// Nothing.
    No,
    /// A multishot accept is armed.
    Armed,
    /// It was told to stop and has not said yet that it did.
    Stopping,
    /// Nothing, and from now on we take the queue's rest ourselves.
    Never,
}

impl Listening {
    pub(super) fn new(listener: Listener, options: &SocketOptions) -> io::Result<Listening> {
        let (socket, unix) = match listener.socket {
            ListenerSocket::Tcp(socket) => (Socket::from(socket), false),
            ListenerSocket::Unix(socket) => (Socket::from(socket), true),
        };
        options.apply(&SockRef::from(&socket), !unix)?;
        Ok(Listening {
            socket: Some(socket),
            unix,
            file: listener.file,
            waiting: VecDeque::new(),
            failed: None,
            accepting: Accepting::No,
        })
    }

    /// One connection of those that wait. If there are none the kernel is set to accept, if it does not already; it then
    /// looks at its queue, so nothing that came meanwhile is lost.
    pub(super) fn accept(&mut self, ring: &mut Ring, number: usize) -> io::Result<(OwnedFd, PeerAddress)> {
        if let Some(socket) = self.waiting.pop_front() {
            return self.with_address(socket);
        }
        if let Some(errno) = self.failed.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if self.accepting == Accepting::Never {
            return self.accept_directly();
        }
        self.arm(ring, number);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Has the kernel accept.
    pub(super) fn arm(&mut self, ring: &mut Ring, number: usize) {
        if let Some(socket) = &self.socket
            && self.accepting == Accepting::No
        {
            ring.accept(socket.as_fd(), tag(number));
            self.accepting = Accepting::Armed;
        }
    }

    /// By system call.
    pub(super) fn accept_directly(&mut self) -> io::Result<(OwnedFd, PeerAddress)> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::WouldBlock.into()) };
        let (socket, _) = socket.accept()?;
        self.with_address(socket.into())
    }

    fn with_address(&self, socket: OwnedFd) -> io::Result<(OwnedFd, PeerAddress)> {
        if self.unix {
            return Ok((socket, PeerAddress::Unix));
        }
        match connector::peer_address(&SockRef::from(&socket)) {
            Ok(address) => Ok((socket, address)),
            // The peer broke it while it waited here.
            Err(_) => Err(io::Error::from_raw_os_error(libc::ECONNABORTED)),
        }
    }

    /// What the kernel has to say. `accepted` is the connection of a positive result.
    pub(super) fn take(&mut self, ring: &mut Ring, news: News, accepted: Option<OwnedFd>) {
        match accepted {
            Some(socket) if self.socket.is_some() => self.waiting.push_back(socket),
            Some(_) => {} // closed here too
            None if news.result != -libc::ECANCELED => self.failed = Some(-news.result),
            None => {}
        }
        if news.last {
            if self.accepting != Accepting::Never {
                self.accepting = Accepting::No;
            }
        } else if self.waiting.len() >= WAITING_MAX && self.accepting == Accepting::Armed {
            ring.cancel(news.tag);
            self.accepting = Accepting::Stopping;
        }
    }

    /// Ends the kernel's accepting; [`Listening::accept`] goes on with what is queued.
    pub(super) fn stop(&mut self, ring: &mut Ring, number: usize) {
        if self.accepting == Accepting::Armed {
            ring.cancel(tag(number));
        }
        while matches!(self.accepting, Accepting::Armed | Accepting::Stopping) {
            for news in ring.take_news_of(tag(number)) {
                let accepted = Ring::accepted(&news);
                self.take(ring, news, accepted);
                if news.last {
                    self.accepting = Accepting::No;
                }
            }
            if self.accepting == Accepting::No || ring.enter(1, Some(CANCEL_MAX)).is_err() {
                break;
            }
            // `take` may see more than enough wait and cancel once more, which does no harm.
        }
        self.accepting = Accepting::Never;
    }

    /// Closes it, and what waits.
    pub(super) fn close(&mut self, ring: &mut Ring, number: usize) {
        // Otherwise the kernel's accept would keep the socket listening.
        self.stop(ring, number);
        self.waiting.clear();
        self.socket = None;
        self.file = None;
    }
}

fn tag(number: usize) -> Tag {
    Tag::new(Kind::Accept, number as u32)
}
