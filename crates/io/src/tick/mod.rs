//! The phases of a tick, written once for all drivers over a small set of socket operations.

mod accept;
mod look;
mod sockets;
mod wait;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

pub(crate) use sockets::{Readiness, Sockets};
pub(crate) use wait::Waits;

use crate::batch::{Batch, SEND_BYTES_MAX};
use crate::handler::{Class, Closed, ConnId, Flow, Handler, Peer, PeerAddress};
use crate::options::{Budgets, Options};
use crate::slots::{State, flag};
use crate::state::{Accepting, CLOCK_CHECK, CLOCK_JUMP_MIN, Io};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ListenerState {
    Waiting,
    /// In the queue of listeners that may have connections.
    Ready,
    Closed,
}

/// One driver without its kernel.
#[derive(Debug)]
pub(crate) struct Core<S: Sockets> {
    pub(crate) io: Io,
    pub(crate) sockets: S,
    budgets: Budgets,
    full_answer: Vec<u8>,
    /// The receive buffer; empty where the driver has its own.
    pool: Box<[u8]>,
    /// The connections received from at a time, in turn.
    turns: Vec<u32>,
    batch: Batch,
    listeners: Vec<ListenerState>,
    ready_listeners: VecDeque<usize>,
    /// Accepting goes on at this time.
    accept_pause: Option<Duration>,
    draining: bool,
}

impl<S: Sockets> Core<S> {
    pub(crate) fn new(options: Options, sockets: S, listeners: usize, now: Duration) -> Core<S> {
        let io = Io::new(&options, now);
        Core {
            io,
            sockets,
            budgets: options.budgets,
            full_answer: options.full_answer,
            pool: vec![0; if S::RECVS_AHEAD > 1 { 0 } else { options.recv_bytes.max(1) }].into_boxed_slice(),
            turns: Vec::with_capacity(S::RECVS_AHEAD),
            batch: Batch::for_sends_of(S::SENDS_AHEAD_BYTES.max(SEND_BYTES_MAX)),
            listeners: vec![ListenerState::Waiting; listeners],
            ready_listeners: VecDeque::with_capacity(listeners),
            accept_pause: None,
            draining: false,
        }
    }

    /// When the next tick has to start at the latest; a time that has passed means that work is left.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let io = &self.io;
        let work = io.again
            || !io.readable.is_empty()
            || !io.reply.is_empty()
            || !io.broadcast.is_empty()
            || !io.looks.is_empty()
            || !io.ending.is_empty()
            || !io.connects.is_empty()
            || io.deadlines.unfinished()
            || (self.accept_pause.is_none() && self.wants_accept());
        if work {
            return Some(io.now);
        }
        let deadline = io.deadlines.next_step().map(|at| at.min(io.now + CLOCK_CHECK));
        [io.alarm, deadline, self.accept_pause].into_iter().flatten().min()
    }

    fn wants_accept(&self) -> bool {
        !self.ready_listeners.is_empty() || (self.io.accepting == Accepting::Draining && !self.draining)
    }

    /// Starts a tick at `now`, after the wait. `wake_at` is what [`Core::wake_at`] said before it.
    pub(crate) fn begin(&mut self, now: Duration, wake_at: Option<Duration>) {
        let late = wake_at.map_or(Duration::ZERO, |at| now.saturating_sub(at.max(self.io.now)));
        self.io.jump = Duration::ZERO;
        if late > CLOCK_JUMP_MIN {
            self.io.jump = late;
            self.io.deadlines.shift(late);
            self.io.counters.clock_jumps.add(1);
        }
        self.io.now = self.io.now.max(now);
    }

    /// The kernel has something new about a connection. Stale announcements are ignored.
    #[inline]
    pub(crate) fn announce(&mut self, id: ConnId, what: Readiness) {
        let Some(slot) = self.io.slots.find(id) else { return };
        if what.fin {
            slot.set(flag::FIN_COMING);
        }
        if what.failed {
            slot.set(flag::FAILED);
        }
        match slot.state {
            State::Connecting => self.io.queue_read(id.index()),
            State::Open | State::Flushing | State::Lingering | State::Refusing => {
                if what.writable && slot.has(flag::BLOCKED) {
                    slot.clear(flag::BLOCKED);
                    slot.set(flag::DIRTY);
                    self.io.queue_send(id.index(), Class::Reply);
                }
                // A pause is lifted by an unconditional receive, so input need not be remembered during it.
                if what.failed || ((what.readable || what.fin) && !self.io.slots.at(id.index()).has(flag::PAUSED)) {
                    self.io.queue_read(id.index());
                }
            }
            State::Free | State::Ending | State::Zombie => {}
        }
    }

    /// All phases of one tick.
    pub(crate) fn phases<H: Handler>(&mut self, handler: &mut H) {
        self.io.again = false;
        self.io.enough = false;
        if self.io.alarm.is_some_and(|at| at <= self.io.now) {
            self.io.alarm = None;
        }
        handler.woken(&mut self.io);
        self.finish_ending(handler);
        self.start_connects(handler);
        self.read(handler);
        self.finish_ending(handler);
        self.expire(handler);
        self.finish_ending(handler);
        self.look(handler);
        self.finish_ending(handler);
        self.flush(handler);
        self.finish_ending(handler);
        self.accept(handler);
        self.finish_ending(handler);
        handler.ticked(&mut self.io);
        self.finish_ending(handler);
    }

    fn start_connects<H: Handler>(&mut self, handler: &mut H) {
        for _ in 0..self.budgets.connects {
            let Some((id, target)) = self.io.connects.pop_front() else { break };
            // It may have been closed before it began.
            if !self.io.slots.find(id).is_some_and(|slot| slot.state == State::Connecting) {
                continue;
            }
            match self.sockets.connect(id, &target) {
                Ok(Some(address)) => self.open_outbound(handler, id, address),
                Ok(None) => {}
                Err(error) => self.io.end(id.index(), why(&error)),
            }
        }
        self.finish_ending(handler);
    }

    fn open_outbound<H: Handler>(&mut self, handler: &mut H, id: ConnId, address: PeerAddress) {
        let slot = self.io.slots.at(id.index());
        slot.state = State::Open;
        slot.clear(flag::BLOCKED);
        // Its first bytes may have come together with the news of the connect.
        self.io.queue_read(id.index());
        handler.opened(&mut self.io, id, Peer { address, listener: 0, outbound: true });
    }

    fn read<H: Handler>(&mut self, handler: &mut H) {
        let (mut reads, mut bytes) = (0, 0);
        while reads < self.budgets.reads
            && bytes < self.budgets.read_bytes
            && !self.io.enough
            && !self.io.readable.is_empty()
        {
            reads += self.take_turns(handler, self.budgets.reads - reads);
            if S::RECVS_AHEAD > 1 && !self.turns.is_empty() {
                self.sockets.recv_ahead(&self.turns);
            }
            for turn in 0..self.turns.len() {
                bytes += self.read_one(handler, turn);
            }
        }
    }

    /// Takes the connections for the next receives out of the queue. Returns how much of the budget that used.
    fn take_turns<H: Handler>(&mut self, handler: &mut H, reads_max: u32) -> u32 {
        self.turns.clear();
        let mut reads = 0;
        while reads < reads_max && self.turns.len() < S::RECVS_AHEAD {
            let Some(index) = self.io.readable.pop_front() else { break };
            let slot = self.io.slots.at(index);
            let readable = slot.has(flag::READABLE);
            slot.clear(flag::QUEUED_READ | flag::READABLE);
            match slot.state {
                _ if !readable => {}
                State::Open | State::Flushing | State::Lingering | State::Refusing => {
                    reads += 1;
                    if slot.has(flag::FIN) || (slot.has(flag::PAUSED) && slot.state == State::Open) {
                        // Nothing to receive, or nobody to receive it; but a broken connection is given up at once.
                        if slot.has(flag::FAILED) {
                            self.end_failed(index);
                        }
                    } else {
                        self.turns.push(index);
                    }
                }
                // The handler is called here, and must not pause, resume or close a connection whose turn is settled.
                State::Connecting if !self.turns.is_empty() => {
                    slot.set(flag::QUEUED_READ | flag::READABLE);
                    self.io.readable.push_front(index);
                    break;
                }
                State::Connecting => self.finish_connect(handler, index),
                State::Free | State::Ending | State::Zombie => {}
            }
        }
        reads
    }

    fn finish_connect<H: Handler>(&mut self, handler: &mut H, index: u32) {
        let id = self.io.slots.id(index);
        match self.sockets.connected(id) {
            Ok(address) => self.open_outbound(handler, id, address),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.io.end(index, why(&error)),
        }
    }

    /// One receive. One chunk per turn keeps the order fair: a connection with more goes to the end of the queue.
    fn read_one<H: Handler>(&mut self, handler: &mut H, turn: usize) -> usize {
        let index = self.turns[turn];
        self.io.counters.reads.add(1);
        // An earlier turn's handler may have closed this connection; what was received ahead goes with it.
        if matches!(self.io.slots.at(index).state, State::Free | State::Ending | State::Zombie) {
            return 0;
        }
        let full = self.sockets.recv_bytes(&self.pool);
        match self.sockets.recv(turn, index, &mut self.pool) {
            Ok([]) => self.received_fin(handler, index),
            Ok(bytes) => {
                let n = bytes.len();
                self.io.counters.read_bytes.add(n as u64);
                received(&mut self.io, handler, index, bytes, n == full);
                if let Some(bytes) = self.pool.get_mut(..n) {
                    self.sockets.consumed(bytes);
                }
                if self.io.slots.at(index).state == State::Refusing {
                    self.answer_refused(index);
                }
                return n;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => self.end_failed(index),
                io::ErrorKind::Interrupted => self.io.queue_read(index),
                _ => self.io.end(index, why(&error)),
            },
        }
        0
    }

    fn received_fin<H: Handler>(&mut self, handler: &mut H, index: u32) {
        let slot = self.io.slots.at(index);
        slot.set(flag::FIN);
        slot.clear(flag::FIN_COMING);
        match slot.state {
            State::Open => {
                let id = self.io.slots.id(index);
                handler.received(&mut self.io, id, &mut []);
            }
            State::Lingering => self.io.end(index, Closed::ByUs),
            State::Refusing => {
                // It sends no request, and may still read.
                self.answer_refused(index);
                self.io.end(index, Closed::ByUs);
            }
            _ => {}
        }
    }

    /// Ends the connection if the kernel announced an error and holds one.
    fn end_failed(&mut self, index: u32) {
        let slot = self.io.slots.at(index);
        if slot.has(flag::FAILED) {
            slot.clear(flag::FAILED);
            if let Some(error) = self.sockets.take_error(index) {
                self.io.end(index, why(&error));
            }
        }
    }

    fn expire<H: Handler>(&mut self, handler: &mut H) {
        let now = self.io.now;
        self.io.deadlines.begin_sweep(now);
        for _ in 0..self.budgets.deadlines {
            let Some(index) = self.io.deadlines.next_expired(now) else { break };
            self.io.counters.deadlines.add(1);
            let slot = self.io.slots.at(index);
            match slot.state {
                State::Open | State::Connecting => {
                    let id = self.io.slots.id(index);
                    handler.expired(&mut self.io, id);
                }
                State::Flushing => {
                    // The kernel's buffer is full of bytes that nobody takes: without RST it would keep them.
                    slot.set(flag::RESET);
                    self.io.end(index, Closed::LingerExpired);
                }
                State::Lingering => self.io.end(index, Closed::LingerExpired),
                State::Refusing => self.answer_refused(index),
                State::Free | State::Ending | State::Zombie => {}
            }
        }
    }

    fn flush<H: Handler>(&mut self, handler: &mut H) {
        let (mut sends, mut bytes) = (0, 0);
        while sends < self.budgets.sends && bytes < self.budgets.send_bytes {
            let index = if let Some(index) = self.io.reply.pop_front() {
                self.io.slots.at(index).clear(flag::QUEUED_REPLY);
                index
            } else if let Some(index) = self.io.broadcast.pop_front() {
                self.io.slots.at(index).clear(flag::QUEUED_BROADCAST);
                index
            } else {
                // What was set aside may make them dirty again when it is done.
                if self.finish_sends(handler) == 0 {
                    break;
                }
                continue;
            };
            let slot = self.io.slots.at(index);
            let sendable =
                matches!(slot.state, State::Open | State::Flushing) && !slot.has(flag::BLOCKED | flag::SENDING);
            if sendable && slot.has(flag::DIRTY) {
                sends += 1;
                bytes += self.flush_one(handler, index);
                if S::SENDS_AHEAD_BYTES > 0 && !self.batch.takes_another() {
                    self.finish_sends(handler);
                }
            }
        }
        self.finish_sends(handler);
    }

    /// Does the sends that were set aside. Returns their number.
    fn finish_sends<H: Handler>(&mut self, handler: &mut H) -> usize {
        if S::SENDS_AHEAD_BYTES == 0 {
            return 0;
        }
        let sends = self.sockets.submit_sends(&self.batch);
        self.batch.reset();
        for turn in 0..sends {
            let (id, result, gathered) = self.sockets.submitted(turn);
            self.completed(handler, id, result, gathered);
        }
        self.sockets.sends_finished();
        sends
    }

    /// One gather and at most one send.
    fn flush_one<H: Handler>(&mut self, handler: &mut H, index: u32) -> usize {
        let id = self.io.slots.id(index);
        self.io.slots.at(index).clear(flag::DIRTY);
        self.batch.clear();
        handler.gather(id, &mut self.batch);
        let gathered = self.batch.len();
        if gathered == 0 {
            if self.io.slots.at(index).state == State::Flushing {
                self.start_lingering(index);
            }
            return 0;
        }
        self.io.counters.sends.add(1);
        match self.sockets.send(id, &mut self.batch) {
            Ok(None) => self.io.slots.at(index).set(flag::SENDING),
            Ok(Some(sent)) => self.finish_send(handler, id, Ok(sent), gathered),
            Err(error) => self.finish_send(handler, id, Err(error), gathered),
        }
        gathered
    }

    /// An outstanding send came back, also one of a connection that was closed since.
    pub(crate) fn completed<H: Handler>(
        &mut self,
        handler: &mut H,
        id: ConnId,
        result: io::Result<usize>,
        gathered: usize,
    ) {
        let Some(slot) = self.io.slots.find(id) else { return };
        slot.clear(flag::SENDING);
        match slot.state {
            State::Zombie => self.io.slots.release(id.index()),
            State::Open | State::Flushing => self.finish_send(handler, id, result, gathered),
            State::Free | State::Connecting | State::Lingering | State::Refusing | State::Ending => {}
        }
    }

    fn finish_send<H: Handler>(&mut self, handler: &mut H, id: ConnId, result: io::Result<usize>, gathered: usize) {
        let index = id.index();
        let sent = match result {
            Ok(sent) => sent,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => 0,
                io::ErrorKind::Interrupted => {
                    self.io.slots.at(index).set(flag::DIRTY);
                    handler.sent(&mut self.io, id, 0);
                    self.requeue(index);
                    return;
                }
                _ => return self.io.end(index, why(&error)),
            },
        };
        self.io.counters.sent_bytes.add(sent as u64);
        if sent < gathered {
            self.io.counters.short_sends.add(1);
            self.io.slots.at(index).set(flag::BLOCKED);
            if let Err(error) = self.arm_writable(id) {
                return self.io.end(index, why(&error));
            }
        }
        handler.sent(&mut self.io, id, sent);
        let slot = self.io.slots.at(index);
        if slot.state == State::Flushing {
            slot.set(flag::DIRTY); // gather until there is nothing left
        }
        self.requeue(index);
    }

    /// A connection that became dirty while its send was outstanding was not queued then.
    fn requeue(&mut self, index: u32) {
        let slot = self.io.slots.at(index);
        if slot.has(flag::DIRTY)
            && matches!(slot.state, State::Open | State::Flushing)
            && !slot.has(flag::QUEUED_BROADCAST)
        {
            self.io.queue_send(index, Class::Reply);
        }
    }

    /// Most connections never fill their socket, so the kernel is asked only when one does.
    fn arm_writable(&mut self, id: ConnId) -> io::Result<()> {
        if !self.io.slots.at(id.index()).has(flag::WRITE_ARMED) {
            self.sockets.arm_writable(id)?;
            if S::WRITABLE_FOR_GOOD {
                self.io.slots.at(id.index()).set(flag::WRITE_ARMED);
            }
        }
        Ok(())
    }

    fn start_lingering(&mut self, index: u32) {
        let slot = self.io.slots.at(index);
        if slot.has(flag::FIN) {
            let why = if slot.has(flag::PEER_FIRST) { Closed::ByPeer } else { Closed::ByUs };
            return self.io.end(index, why);
        }
        if slot.has(flag::FINISH) && !slot.has(flag::READABLE) {
            return self.io.end(index, Closed::ByUs);
        }
        slot.state = State::Lingering;
        self.sockets.shutdown(index);
        self.io.deadlines.set(index, self.io.now + self.io.linger);
    }

    /// Closes and reports the connections that ended in this phase. Not done where they end, because a handler must not
    /// be called from within its own call of [`Io::close`].
    fn finish_ending<H: Handler>(&mut self, handler: &mut H) {
        while let Some((index, why)) = self.io.ending.pop_front() {
            let slot = self.io.slots.at(index);
            let (reset, refused) = (slot.has(flag::RESET), slot.has(flag::REFUSED));
            let id = self.io.slots.id(index);
            let busy = self.sockets.close(id, reset);
            if refused {
                self.io.refused -= 1;
            } else {
                self.io.open -= 1;
                self.io.counters.closed.add(1);
                self.io.counters.connections.set(self.io.open as u64);
                handler.closed(&mut self.io, id, why);
            }
            // Only now: whatever the handler opened meanwhile must not have got this slot.
            let slot = self.io.slots.at(index);
            if busy || slot.has(flag::SENDING) {
                slot.state = State::Zombie;
            } else {
                self.io.slots.release(index);
            }
        }
    }

    /// The kernel holds nothing of a closed connection any more.
    pub(crate) fn idle(&mut self, index: u32) {
        if self.io.slots.at(index).state == State::Zombie {
            self.io.slots.release(index);
        }
    }

    /// The kernel no longer watches the connection, which is of no use then.
    pub(crate) fn fail(&mut self, id: ConnId, errno: i32) {
        if let Some(slot) = self.io.slots.find(id)
            && !matches!(slot.state, State::Free | State::Ending | State::Zombie)
        {
            self.io.end(id.index(), Closed::Error(errno));
        }
    }

    /// Closes everything at once.
    pub(crate) fn shutdown<H: Handler>(&mut self, handler: &mut H) {
        self.io.connections_max = 0;
        self.io.connects.clear();
        self.ready_listeners.clear();
        for listener in 0..self.listeners.len() {
            if self.listeners[listener] != ListenerState::Closed {
                self.listeners[listener] = ListenerState::Closed;
                self.sockets.close_listener(listener);
            }
        }
        for index in 0..self.io.slots.len() as u32 {
            if !matches!(self.io.slots.at(index).state, State::Free | State::Ending | State::Zombie) {
                self.io.end(index, Closed::Shutdown);
            }
        }
        self.finish_ending(handler);
    }
}

/// Gives received bytes to the handler, if they are for it. `full`: they filled the buffer.
fn received<H: Handler>(io: &mut Io, handler: &mut H, index: u32, bytes: &mut [u8], full: bool) {
    let slot = io.slots.at(index);
    // A short read emptied the socket, and whatever comes later is announced. Not so a FIN or an error that was announced
    // together with these bytes.
    let open = slot.state == State::Open;
    if full || slot.has(flag::FIN_COMING | flag::FAILED) {
        io.queue_read(index);
    }
    if open {
        let id = io.slots.id(index);
        if handler.received(io, id, bytes) == Flow::Pause {
            io.pause(id);
        }
    }
}

/// What an error of a connection means to the handler.
fn why(error: &io::Error) -> Closed {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT) => Closed::Reset,
        Some(errno) => Closed::Error(errno),
        None => Closed::Error(0),
    }
}
