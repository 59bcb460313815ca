//! The accept phase: admitting connections, and refusing them politely when the worker is full.

use std::io;
use std::time::Duration;

use super::{Core, ListenerState, Sockets};
use crate::handler::{Handler, Peer, PeerAddress};
use crate::slots::{State, flag};
use crate::state::{Accepting, REFUSED_MAX};

/// How long accepting pauses when the kernel has no memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a refused peer may take to send the first of its request; then it is answered without.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// How long a refused peer may take to read its answer and close.
const REFUSED_LINGER: Duration = Duration::from_secs(1);

impl<S: Sockets> Core<S> {
    /// A listener may have connections queued.
    pub(crate) fn announce_listener(&mut self, listener: usize) {
        if self.listeners[listener] == ListenerState::Waiting {
            self.listeners[listener] = ListenerState::Ready;
            self.ready_listeners.push_back(listener);
        }
    }

    pub(super) fn accept<H: Handler>(&mut self, handler: &mut H) {
        if self.accept_pause.is_some_and(|until| self.io.now < until) {
            return;
        }
        self.accept_pause = None;
        if self.io.accepting == Accepting::Draining && !self.draining {
            self.draining = true;
            for listener in 0..self.listeners.len() {
                if self.listeners[listener] != ListenerState::Closed {
                    self.sockets.drain_listener(listener);
                }
                self.announce_listener(listener);
            }
        }
        for _ in 0..self.budgets.accepts {
            let Some(listener) = self.ready_listeners.pop_front() else { return };
            match self.sockets.accept(listener) {
                Ok((socket, address)) => self.admit(handler, listener, socket, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[listener] = ListenerState::Waiting;
                    if self.draining {
                        self.listeners[listener] = ListenerState::Closed;
                        self.sockets.close_listener(listener);
                    }
                    continue;
                }
                Err(error) => self.accept_failed(listener, &error),
            }
            // To the end: no listener starves another.
            self.ready_listeners.push_back(listener);
            if self.accept_pause.is_some() {
                return;
            }
        }
    }

    fn accept_failed(&mut self, listener: usize, error: &io::Error) {
        match error.raw_os_error().unwrap_or(0) {
            // The peer gave up while it waited, or its packet met an error on the way: the next one may be fine.
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENOPROTOOPT
            | libc::EPERM => {}
            libc::EMFILE | libc::ENFILE => {
                if self.sockets.refuse_with_spare(listener, &self.full_answer) {
                    self.io.counters.refused_full.add(1);
                } else {
                    self.pause_accepting();
                }
            }
            libc::ENOMEM | libc::ENOBUFS => {
                self.io.counters.enomem_pauses.add(1);
                self.pause_accepting();
            }
            // Unknown: do not spin on it.
            _ => self.pause_accepting(),
        }
    }

    fn pause_accepting(&mut self) {
        self.accept_pause = Some(self.io.now + ACCEPT_PAUSE);
    }

    fn admit<H: Handler>(&mut self, handler: &mut H, listener: usize, socket: S::Accepted, address: PeerAddress) {
        if self.io.refusing {
            self.io.counters.refused_asked.add(1);
            return self.admit_refused(socket);
        }
        let slot = if self.io.open < self.io.connections_max { self.io.slots.allocate(State::Open, 0) } else { None };
        let Some(id) = slot else {
            self.io.counters.refused_full.add(1);
            return self.admit_refused(socket);
        };
        if self.sockets.adopt(id, socket).is_err() {
            // The kernel has no memory to watch it, or a limit on watches is reached.
            self.io.slots.release(id.index());
            self.io.counters.enomem_pauses.add(1);
            return self.pause_accepting();
        }
        self.io.open += 1;
        self.io.counters.accepts.add(1);
        self.io.counters.connections.set(self.io.open as u64);
        handler.opened(&mut self.io, id, Peer { address, listener: listener as u16, outbound: false });
    }

    /// Over the limit, or not wanted. An answer that comes before the request is no answer to some proxies: nginx 1.22 takes the
    /// connection for broken and blames the next server for it. And a close with the request unread would send RST, which
    /// can destroy the answer on its way. So up to [`REFUSED_MAX`] of these wait in slots of their own, unknown to the
    /// handler, for the first bytes of the request, and then for the peer's FIN, each for a bounded time.
    fn admit_refused(&mut self, socket: S::Accepted) {
        let slot =
            if self.io.refused < REFUSED_MAX { self.io.slots.allocate(State::Refusing, flag::REFUSED) } else { None };
        let Some(id) = slot else { return self.sockets.refuse(socket, &self.full_answer) };
        if self.sockets.adopt(id, socket).is_err() {
            self.io.slots.release(id.index());
            return;
        }
        self.io.refused += 1;
        self.io.deadlines.set(id.index(), self.io.now + REFUSED_WAIT);
    }

    /// The refused peer has sent some of its request, or will not.
    pub(super) fn answer_refused(&mut self, index: u32) {
        self.sockets.answer(index, &self.full_answer);
        self.io.slots.at(index).state = State::Lingering;
        self.io.deadlines.set(index, self.io.now + REFUSED_LINGER);
    }
}
