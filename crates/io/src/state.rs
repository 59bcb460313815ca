//! [`Io`]: what a handler may ask of its driver, and the state that all drivers share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::Counters;
use crate::deadlines::Deadlines;
use crate::handler::{Class, Closed, ConnId, How, Target};
use crate::options::Options;
use crate::slots::{Slots, State, flag};

/// Connections over the limit that one driver keeps at a time until their request has come and their answer was read, each
/// with a descriptor. More than these are answered and closed at once, so that their answer may be lost to an RST.
pub const REFUSED_MAX: usize = 64;

/// The most connections of one driver; indices above it name listeners and the like.
pub(crate) const CONNECTIONS_MAX: usize = 0xFFF0_0000;

/// A later tick than asked for by more than this is a jump of the clock: the machine (or this thread) was stopped.
pub(crate) const CLOCK_JUMP_MIN: Duration = Duration::from_secs(2);

/// While deadlines are set the driver ticks at least this often. A jump can only be told from a sleep by being later than
/// the sleep was to end, so this bounds by how much a jump is underrated.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// Room of each queue of connections from the start, 4 KiB. Of a few hundred connections any number may get something to do in
/// the same tick, also when they never did before, and that must not cost an allocation. Beyond it a queue grows to the
/// most that ever waited; it holds a connection once.
const QUEUE_ROOM: usize = 1024;

/// What becomes of the listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accepting {
    /// New connections are served.
    Open,
    /// What the kernel has queued is still served, then the listeners are closed.
    Draining,
}

/// A worker's connections, as a handler sees them. Every method is cheap, allocates nothing in steady state and ignores
/// a stale id; none calls the handler.
#[derive(Debug)]
pub struct Io {
    pub(crate) now: Duration,
    pub(crate) slots: Slots,
    pub(crate) deadlines: Deadlines,
    /// Indices that may have something to receive.
    pub(crate) readable: VecDeque<u32>,
    /// Indices with bytes to send; see [`Class`].
    pub(crate) reply: VecDeque<u32>,
    pub(crate) broadcast: VecDeque<u32>,
    /// Connections whose handler wants to know whether something waits in their sockets.
    pub(crate) looks: VecDeque<ConnId>,
    /// Connections in [`State::Ending`].
    pub(crate) ending: VecDeque<(u32, Closed)>,
    /// Connects asked for.
    pub(crate) connects: VecDeque<(ConnId, Target)>,
    pub(crate) accepting: Accepting,
    /// The handler wants nobody new for now.
    pub(crate) refusing: bool,
    pub(crate) again: bool,
    pub(crate) enough: bool,
    pub(crate) alarm: Option<Duration>,
    pub(crate) jump: Duration,
    pub(crate) open: usize,
    pub(crate) refused: usize,
    pub(crate) connections_max: usize,
    pub(crate) linger: Duration,
    pub(crate) counters: Arc<Counters>,
}

impl Io {
    pub(crate) fn new(options: &Options, now: Duration) -> Io {
        let connections_max = options.connections_max.min(CONNECTIONS_MAX);
        let slots = connections_max + REFUSED_MAX;
        Io {
            now,
            slots: Slots::new(slots),
            deadlines: Deadlines::new(slots),
            readable: VecDeque::with_capacity(QUEUE_ROOM.min(slots)),
            reply: VecDeque::with_capacity(QUEUE_ROOM.min(slots)),
            broadcast: VecDeque::with_capacity(QUEUE_ROOM.min(slots)),
            looks: VecDeque::new(),
            ending: VecDeque::new(),
            connects: VecDeque::new(),
            accepting: Accepting::Open,
            refusing: false,
            again: false,
            enough: false,
            alarm: None,
            jump: Duration::ZERO,
            open: 0,
            refused: 0,
            connections_max,
            linger: options.linger,
            counters: Arc::default(),
        }
    }

    /// The time of this tick, since the clock's origin. The same during a whole tick.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The connection has bytes to send: it will be asked for them in this tick's flush, or when its socket can take
    /// them. Marking it again before that changes nothing, except that a broadcast-dirty connection can become
    /// reply-dirty.
    #[inline]
    pub fn dirty(&mut self, id: ConnId, class: Class) {
        if let Some(slot) = self.slots.find(id)
            && matches!(slot.state, State::Open | State::Flushing)
        {
            slot.set(flag::DIRTY);
            self.queue_send(id.index(), class);
        }
    }

    /// Sets the one deadline of the connection, or clears it. [`Handler::expired`](crate::Handler::expired) is called
    /// once, not before `at`, and some hundred milliseconds after it (1.1 s on a worker with very many connections).
    /// A connection that is being closed has the driver's own deadline and ignores this.
    #[inline]
    pub fn deadline(&mut self, id: ConnId, at: Option<Duration>) {
        if let Some(slot) = self.slots.find(id)
            && matches!(slot.state, State::Open | State::Connecting)
        {
            match at {
                Some(at) => self.deadlines.set(id.index(), at),
                None => self.deadlines.clear(id.index()),
            }
        }
    }

    /// Receives from the connection now, out of turn and whether input was announced or not, in this tick or, if many ask, in
    /// the next: [`Handler::received`](crate::Handler::received) follows with what waited, or
    /// [`Handler::nothing_waits`](crate::Handler::nothing_waits). Neither follows while it is paused and after its FIN.
    ///
    /// For a deadline that the peer's silence has let pass: a loop that is behind has input in its sockets for which it had
    /// no time, and then the silence is its own.
    pub fn look(&mut self, id: ConnId) {
        if self.slots.find(id).is_some_and(|slot| slot.state == State::Open) {
            self.looks.push_back(id);
        }
    }

    /// Reads nothing more from the connection until [`Io::resume`]. A broken connection is still reported.
    ///
    /// Called from within [`Handler::received`](crate::Handler::received) of *another* connection it may come too late for
    /// one chunk: a driver may have received from several connections at a time, and bytes that left the kernel are
    /// delivered.
    pub fn pause(&mut self, id: ConnId) {
        if let Some(slot) = self.slots.find(id)
            && matches!(slot.state, State::Open | State::Connecting)
        {
            slot.set(flag::PAUSED);
        }
    }

    /// Reads on. Whatever came in the meantime is received in this tick or the next.
    pub fn resume(&mut self, id: ConnId) {
        if let Some(slot) = self.slots.find(id)
            && slot.has(flag::PAUSED)
        {
            slot.clear(flag::PAUSED);
            // Its readiness may have been announced while it was paused, and it is announced once.
            self.queue_read(id.index());
        }
    }

    /// Closes the connection; [`Handler::closed`](crate::Handler::closed) follows. From here on it receives nothing and
    /// its deadline is gone. A second close counts only if it is [`How::Now`] or [`How::Reset`].
    pub fn close(&mut self, id: ConnId, how: How) {
        let Some(slot) = self.slots.find(id) else { return };
        if slot.state == State::Open && slot.has(flag::FIN) {
            slot.set(flag::PEER_FIRST);
        }
        let peer_first = slot.has(flag::PEER_FIRST);
        match (slot.state, how) {
            (State::Ending | State::Zombie | State::Free, _) => {}
            (State::Open, How::Flush | How::Finish) => {
                let paused = slot.has(flag::PAUSED);
                slot.state = State::Flushing;
                slot.set(flag::DIRTY);
                slot.clear(flag::PAUSED);
                if how == How::Finish {
                    slot.set(flag::FINISH);
                }
                self.deadlines.set(id.index(), self.now + self.linger);
                self.queue_send(id.index(), Class::Reply);
                if paused {
                    self.queue_read(id.index()); // discards what came meanwhile, which is announced no more
                }
            }
            (State::Flushing | State::Lingering | State::Refusing, How::Flush | How::Finish) => {}
            (_, How::Now | How::Reset) | (State::Connecting, How::Flush | How::Finish) => {
                if how == How::Reset {
                    slot.set(flag::RESET);
                }
                self.end(id.index(), if peer_first { Closed::ByPeer } else { Closed::ByUs });
            }
        }
    }

    /// More work waits in the handler: the next tick does not wait and calls
    /// [`Handler::woken`](crate::Handler::woken) again.
    #[inline]
    pub fn again(&mut self) {
        self.again = true;
    }

    /// What the handler has read is enough work for one tick: no connection is read from before the next one, which does not wait.
    /// (A driver that receives ahead still hands over what it has received.)
    #[inline]
    pub fn enough(&mut self) {
        self.enough = true;
    }

    /// The next tick starts no later than `at`. Of several alarms the earliest counts; it is gone once reached. (Every
    /// tick calls [`Handler::woken`](crate::Handler::woken).)
    pub fn alarm(&mut self, at: Duration) {
        self.alarm = Some(self.alarm.map_or(at, |set| set.min(at)));
    }

    /// Connects to `target`: [`Handler::opened`](crate::Handler::opened) or, if it fails,
    /// [`Handler::closed`](crate::Handler::closed) follows, never before this returns. There is no time limit but the
    /// kernel's: set a deadline and close the connection when it expires.
    ///
    /// # Errors
    /// `QuotaExceeded` when the driver has as many connections as it may have.
    pub fn connect(&mut self, target: &Target) -> std::io::Result<ConnId> {
        if self.open >= self.connections_max {
            return Err(std::io::ErrorKind::QuotaExceeded.into());
        }
        let id = self.slots.allocate(State::Connecting, 0).ok_or(std::io::ErrorKind::QuotaExceeded)?;
        self.open += 1;
        self.counters.connects.add(1);
        self.counters.connections.set(self.open as u64);
        self.connects.push_back((id, target.clone()));
        Ok(id)
    }

    /// How many connections there are: open, connecting, and those being closed that were not reported yet.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    /// How many connections there may be.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// By how much this tick moved the deadlines into the future, because the clock jumped. Zero in almost all ticks.
    /// Times that the handler keeps by itself want the same.
    #[must_use]
    pub fn clock_jump(&self) -> Duration {
        self.jump
    }

    /// Serves the connections that the kernel has queued, then closes the listeners.
    pub fn stop_accepting(&mut self) {
        self.accepting = Accepting::Draining;
    }

    /// From now on whoever connects is answered as if there were no room, or is let in again.
    #[inline]
    pub fn refuse_newcomers(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Whether something of the connection is left from an earlier tick because its socket was full, or is so again and again. A
    /// broadcast that has not come to it yet is not meant.
    #[must_use]
    pub fn is_behind(&self, id: ConnId) -> bool {
        self.slots.get(id).is_some_and(|slot| slot.has(flag::BLOCKED | flag::SENDING | flag::QUEUED_REPLY))
    }

    /// This driver's counters, for whoever reports them.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Puts the connection into the read queue, once.
    #[inline]
    pub(crate) fn queue_read(&mut self, index: u32) {
        let slot = self.slots.at(index);
        slot.set(flag::READABLE);
        if !slot.has(flag::QUEUED_READ) {
            slot.set(flag::QUEUED_READ);
            self.readable.push_back(index);
        }
    }

    /// Puts the connection into a dirty queue, once, unless it has to wait for the kernel anyway.
    #[inline]
    pub(crate) fn queue_send(&mut self, index: u32, class: Class) {
        let slot = self.slots.at(index);
        if slot.has(flag::BLOCKED | flag::SENDING | flag::QUEUED_REPLY) {
            return;
        }
        match class {
            Class::Reply => {
                slot.set(flag::QUEUED_REPLY);
                self.reply.push_back(index);
            }
            Class::Broadcast if !slot.has(flag::QUEUED_BROADCAST) => {
                slot.set(flag::QUEUED_BROADCAST);
                self.broadcast.push_back(index);
            }
            Class::Broadcast => {}
        }
    }

    /// Ends the connection at the end of this phase.
    pub(crate) fn end(&mut self, index: u32, why: Closed) {
        let slot = self.slots.at(index);
        debug_assert!(!matches!(slot.state, State::Free | State::Ending | State::Zombie));
        slot.state = State::Ending;
        self.deadlines.clear(index);
        self.ending.push_back((index, why));
    }
}
