//! The worker as the driver sees it.

use super::Worker;
use crate::mailbox::Post;
use conn::{COMMANDS_PER_TICK, Connection, Directions, End, Urgency};
use hub::Home;
use io::{Batch, Class, Closed, ConnId, Flow, Handler, How, Io, Peer, PeerAddress};
use std::panic::{AssertUnwindSafe, catch_unwind};

impl<P: Post> Handler for Worker<P> {
    fn opened(&mut self, io: &mut Io, id: ConnId, peer: Peer) {
        let address = match peer.address {
            PeerAddress::Ip(address) => Some(address.ip()),
            PeerAddress::Unix => None,
        };
        let (connection, directions) = Connection::accepted(io.now(), peer.listener.into(), address, &mut self.shared);
        self.table.insert(id, connection);
        self.carry_out(io, id, directions);
    }

    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        self.guarded(io, id, |connection, now, shared| connection.received(now, bytes, shared));
        if self.shared.commands_left == 0 {
            io.enough();
        }
        Flow::Continue
    }

    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        if let Some(connection) = self.table.find(id) {
            connection.gather(&mut self.shared, |bytes| batch.push(bytes));
        }
    }

    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        self.guarded(io, id, |connection, now, shared| connection.sent(now, bytes, shared));
    }

    fn expired(&mut self, io: &mut Io, id: ConnId) {
        let Some(connection) = self.table.find(id) else { return };
        let directions = connection.expired(io.now(), &mut self.shared);
        self.carry_out(io, id, directions);
    }

    fn nothing_waits(&mut self, io: &mut Io, id: ConnId) {
        let now = io.now();
        let Some(connection) = self.table.find(id) else { return };
        let directions = connection.nothing_waits(now, &mut self.shared);
        self.carry_out(io, id, directions);
    }

    fn closed(&mut self, io: &mut Io, id: ConnId, why: Closed) {
        let Some(connection) = self.table.remove(id) else { return };
        let age = connection.age(io.now());
        let report = connection.closed(&mut self.shared);
        self.apply_effects(io, id);
        self.closes.count(&report);
        self.client_left(io, &report);
        tracing::debug!(
            side = ?report.side,
            code = report.code,
            reason = %report.reason,
            client = report.client.map(tracing::field::display),
            age_ms = age.as_millis() as u64,
            socket = ?why,
            "connection closed"
        );
    }

    fn woken(&mut self, io: &mut Io) {
        // Half a tick's commands for those who wait since an earlier one, the rest for whoever comes: neither can keep the
        // other waiting for long.
        self.heed_memory(io);
        self.shared.verifications.renew();
        self.shared.commands_left = COMMANDS_PER_TICK / 2;
        self.go_on_with_held(io);
        self.shared.commands_left += COMMANDS_PER_TICK / 2;
        self.read_letters(io);
        self.work_on_jobs(io);
    }

    fn has_mail(&self) -> bool {
        self.postponed.is_some() || self.post.has_mail()
    }

    fn ticked(&mut self, io: &mut Io) {
        self.shake_hands(io);
        self.verify_some(io);
        let notices_wait = self.hand_over_notices();
        self.post.flush();
        if notices_wait || self.post.counts().waiting > 0 || self.home.announcements_wait() {
            // Nobody tells when a full mailbox has room again; look again soon.
            io.alarm(io.now() + super::RETRY_AFTER);
        }
        self.drop_expired(io);
        self.weigh(io);
        self.publish_stats();
    }
}

impl<P: Post> Worker<P> {
    /// Calls into a connection with its peer's input. A panic there costs that connection, and no other.
    pub(super) fn guarded(
        &mut self,
        io: &mut Io,
        id: ConnId,
        call: impl FnOnce(&mut Connection, std::time::Duration, &mut conn::Shared) -> Directions,
    ) {
        let now = io.now();
        let Some(connection) = self.table.find(id) else { return };
        let shared = &mut self.shared;
        let directions = match catch_unwind(AssertUnwindSafe(|| call(connection, now, shared))) {
            Ok(directions) => directions,
            Err(_) => {
                self.panics += 1;
                shared.effects.clear();
                tracing::error!("a panic inside a connection was caught; it is closed with 1011");
                connection.panicked(now, shared)
            }
        };
        self.carry_out(io, id, directions);
    }

    /// Goes on with input that an earlier tick had no time for.
    fn go_on_with_held(&mut self, io: &mut Io) {
        for _ in 0..self.held.len() {
            if self.shared.commands_left == 0 {
                break;
            }
            let Some(id) = self.held.pop_front() else { break };
            if self.table.find(id).is_some_and(|connection| connection.has_resumable_input()) {
                self.guarded(io, id, |connection, now, shared| connection.resume_input(now, shared));
            }
        }
        if !self.held.is_empty() {
            io.again();
        }
    }

    /// Goes on with TLS handshakes, a few per tick and after everything else in it: clients that connect must not delay those
    /// that are connected.
    fn shake_hands(&mut self, io: &mut Io) {
        for _ in 0..super::HANDSHAKES_PER_TICK {
            let Some(id) = self.handshakes.pop_front() else { return };
            self.guarded(io, id, |connection, now, shared| connection.shake_hands(now, shared));
        }
        if !self.handshakes.is_empty() {
            io.again();
        }
    }

    /// Lets those who have waited the longest have their tokens checked, as many as this tick has time for, and after
    /// everything else in it: a crowd that comes back does not keep those waiting who are here.
    fn verify_some(&mut self, io: &mut Io) {
        while let Some(&(id, cost)) = self.verifying.front() {
            let Some(connection) = self.table.find(id) else {
                self.verifying.pop_front();
                self.shared.verifications.forget_next();
                continue;
            };
            if !self.shared.verifications.spend_on_next(cost) {
                return io.again();
            }
            self.verifying.pop_front();
            connection.verification_granted();
            if connection.has_resumable_input() {
                self.guarded(io, id, |connection, now, shared| connection.resume_input(now, shared));
            }
        }
    }

    /// Frees what has expired, a slice per interval, while there is anything that can expire.
    fn drop_expired(&mut self, io: &mut Io) {
        if !self.home.needs_sweeps() && self.shared.recoveries.is_empty() {
            return;
        }
        let now = io.now();
        if now >= self.next_sweep {
            self.next_sweep = now + Home::SWEEP_INTERVAL;
            self.home.sweep(now);
            self.shared.recoveries.expire(now, &mut self.shared.outboxes);
        }
        io.alarm(self.next_sweep);
    }

    /// Does what a call into a connection asked of the driver, applies what it left behind, and goes on with what that
    /// brought about: requests refused at once are answered, and input that had waited runs.
    ///
    /// Each of these can bring about the next, as often as a message has commands, so they are worked off in a loop by
    /// the outermost call: the depth of the stack must not be the peer's choice.
    pub(super) fn carry_out(&mut self, io: &mut Io, id: ConnId, directions: Directions) {
        self.direct(io, id, directions);
        self.apply_effects(io, id);
        if self.table.find(id).is_some_and(|connection| connection.has_resumable_input()) {
            if self.shared.commands_left > 0 {
                self.resumable.push(id);
            } else {
                self.held.push_back(id);
                io.again();
            }
        }
        if !std::mem::replace(&mut self.settling, true) {
            while self.answer_one_refused(io) || self.resume_one(io) {}
            self.settling = false;
        }
    }

    /// Whether there was a connection that might go on.
    fn resume_one(&mut self, io: &mut Io) -> bool {
        let Some(id) = self.resumable.pop() else { return false };
        if self.shared.commands_left == 0 {
            self.held.push_back(id);
            io.again();
        } else if self.table.find(id).is_some_and(|connection| connection.has_resumable_input()) {
            self.guarded(io, id, |connection, now, shared| connection.resume_input(now, shared));
        }
        true
    }

    fn direct(&mut self, io: &mut Io, id: ConnId, directions: Directions) {
        match directions.reading {
            Some(true) => io.resume(id),
            Some(false) => io.pause(id),
            None => {}
        }
        if directions.look {
            io.look(id);
        }
        if directions.handshake {
            self.handshakes.push_back(id);
        }
        if let Some(urgency) = directions.flush {
            io.dirty(id, if urgency == Urgency::Reply { Class::Reply } else { Class::Broadcast });
        }
        let Some(connection) = self.table.find(id) else { return };
        match directions.end {
            None => io.deadline(id, connection.deadline()),
            Some(End::Flush) => io.close(id, How::Flush),
            Some(End::Finish) => io.close(id, How::Finish),
            Some(End::Now) => io.close(id, How::Now),
            Some(End::Reset) => io.close(id, How::Reset),
        }
    }
}
