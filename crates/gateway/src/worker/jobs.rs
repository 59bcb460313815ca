//! Work on many connections, a slice per tick: what a backend wants of some, and the drain.

use super::Worker;
use crate::letter::{Act, Action, Described, Letter, Matching};
use crate::mailbox::{Party, Post};
use conn::{COMMANDS_PER_TICK, Connection};
use io::{ConnId, Io};
use std::time::Duration;

/// Connections visited per tick.
pub(super) const VISITS_PER_TICK: usize = 1024;

/// How often the drain looks what is due.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Jobs under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    acts: std::collections::VecDeque<ActJob>,
    drain: Option<Drain>,
}

#[derive(Debug)]
struct ActJob {
    from: Party,
    act: Act,
    next_slot: usize,
    count: u64,
    described: Vec<Described>,
}

#[derive(Debug)]
struct Drain {
    since: Duration,
    over: Duration,
    /// Connections there were when it began.
    total: usize,
    asked: usize,
    next_slot: usize,
}

impl<P: Post> Worker<P> {
    pub(super) fn begin_act(&mut self, io: &mut Io, from: Party, act: Act) {
        self.jobs.acts.push_back(ActJob { from, act, next_slot: 0, count: 0, described: Vec::new() });
        io.again();
    }

    pub(super) fn begin_drain(&mut self, io: &mut Io, over: Duration) {
        io.stop_accepting();
        self.shared.ready = false;
        let total = self.table.len();
        self.jobs.drain = Some(Drain { since: io.now(), over, total, asked: 0, next_slot: 0 });
        io.again();
    }

    /// Whether the drain is over: nobody is left, or time is up.
    pub fn is_drained(&self, now: Duration) -> bool {
        self.jobs.drain.as_ref().is_some_and(|drain| {
            self.table.len() == 0 || now > drain.since + drain.over + self.shared.settings.times.close_timeout
        })
    }

    pub(super) fn work_on_jobs(&mut self, io: &mut Io) {
        if let Some(mut job) = self.jobs.acts.pop_front() {
            match self.act_on_some(io, &mut job) {
                Walk::Over => {
                    let ActJob { count, described, .. } = job;
                    let answer = Letter::Acted { ticket: job.act.ticket, count, described };
                    self.post.answer(job.from, answer);
                    if !self.jobs.acts.is_empty() {
                        io.again();
                    }
                }
                Walk::GoesOn => {
                    self.jobs.acts.push_back(job);
                    io.again();
                }
                Walk::Waits => {
                    self.jobs.acts.push_back(job);
                    // Nobody tells when the home has room again.
                    io.alarm(io.now() + super::RETRY_AFTER);
                }
            }
        }
        if let Some(mut drain) = self.jobs.drain.take() {
            self.drain_some(io, &mut drain);
            self.jobs.drain = Some(drain);
        }
    }

    /// Visits some slots.
    fn act_on_some(&mut self, io: &mut Io, job: &mut ActJob) -> Walk {
        let end = (job.next_slot + VISITS_PER_TICK).min(self.table.slots());
        let count_max = job.count + job.act.action.per_tick();
        while job.next_slot < end && job.count < count_max {
            let slot = job.next_slot;
            let matching = self.table.at(slot).filter(|(_, connection)| self.matches(connection, &job.act.matching));
            match (&job.act.action, matching) {
                (_, None) => {}
                (Action::Describe { connections_max }, Some((_, connection))) => {
                    if job.described.len() >= *connections_max {
                        return Walk::Over;
                    }
                    job.described.extend(self.describe(connection));
                    job.count += 1;
                }
                (action, Some((generation, _))) => {
                    if !self.has_room_for(action) {
                        return Walk::Waits;
                    }
                    job.count += u64::from(self.act_on(io, conn_id(slot, generation), action));
                }
            }
            job.next_slot += 1;
        }
        if job.next_slot < self.table.slots() { Walk::GoesOn } else { Walk::Over }
    }

    /// A client whose subscribe no home takes is closed, so the walk waits until one does.
    fn has_room_for(&mut self, action: &Action) -> bool {
        let Action::Subscribe(given) = action else { return true };
        let home = self.home_of(&given.to.channel);
        self.post.has_room_for_more(home)
    }

    /// Whether there was something to do.
    fn act_on(&mut self, io: &mut Io, id: ConnId, action: &Action) -> bool {
        let (now, shared) = (io.now(), &mut self.shared);
        let Some(connection) = self.table.find(id) else { return false };
        let directions = match action {
            Action::Disconnect(why) => Some(connection.disconnect(now, why.clone(), shared)),
            // A reload may have taken the namespace since the request was looked at.
            Action::Subscribe(given) if shared.settings.namespaces.of(&given.to.channel).is_none() => None,
            Action::Subscribe(given) => connection.subscribe(now, given, shared),
            Action::Unsubscribe(channel) => connection.unsubscribe(now, channel, shared),
            Action::Refresh(until) => Some(connection.refresh(now, *until, shared)),
            Action::Describe { .. } => None,
        };
        let Some(directions) = directions else { return false };
        self.carry_out(io, id, directions);
        true
    }

    fn describe(&self, connection: &Connection) -> Option<Described> {
        let (client, encoding) = (connection.client()?.to_string(), connection.encoding()?);
        let channels = connection.channels().map(|channel| self.shared.local.channel(channel).clone()).collect();
        Some(Described { client, user: connection.user().to_owned(), encoding, channels })
    }

    fn matches(&self, connection: &Connection, matching: &Matching) -> bool {
        // Only sessions have users.
        let Some(client) = connection.client().filter(|_| connection.is_connected()) else { return false };
        let name = client.to_string();
        matching.user.as_ref().is_none_or(|user| *user == connection.user())
            && matching.client.as_ref().is_none_or(|wanted| *wanted == name)
            && matching.session.as_ref().is_none_or(|s| *s == format!("{:032x}", self.shared.ids.session_of(client)))
            && !matching.whitelist.contains(&name)
    }

    /// Asks as many connections to go as are due by now. Those that are still joining are left for a later walk over the
    /// table: whoever has just come is told that it is in, also in its channels, before it is told to go.
    fn drain_some(&mut self, io: &mut Io, drain: &mut Drain) {
        let elapsed = io.now().saturating_sub(drain.since);
        let is_over = elapsed >= drain.over;
        // At the end everybody goes, also who came with the last of the accept queue.
        let due = if is_over { usize::MAX } else { drain.due(elapsed) };
        let end = (drain.next_slot + VISITS_PER_TICK).min(self.table.slots());
        while drain.next_slot < end && drain.asked < due {
            let slot = drain.next_slot;
            drain.next_slot += 1;
            let Some((generation, connection)) = self.table.at(slot) else { continue };
            if !connection.is_going_on() || connection.is_joining() && !is_over {
                continue;
            }
            let id = conn_id(slot, generation);
            let Some(connection) = self.table.find(id) else { continue };
            drain.asked += 1;
            let directions = connection.drain(io.now(), &mut self.shared);
            self.carry_out(io, id, directions);
        }
        if drain.next_slot < self.table.slots() && drain.asked < due {
            return io.again();
        }
        if drain.next_slot == self.table.slots() {
            drain.next_slot = 0;
        }
        io.alarm(io.now() + DRAIN_STEP);
    }
}

/// How a walk over the table stands after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    GoesOn,
    /// For room in another's mailbox.
    Waits,
    Over,
}

impl Action {
    /// To how many connections it may be done in a tick.
    fn per_tick(&self) -> u64 {
        match self {
            // Each names its channels, of which there may be hundreds.
            Self::Describe { .. } => 32,
            // As many as clients may ask for in a tick.
            Self::Subscribe { .. } => COMMANDS_PER_TICK as u64,
            Self::Disconnect(_) | Self::Unsubscribe(_) | Self::Refresh(_) => VISITS_PER_TICK as u64,
        }
    }
}

impl Drain {
    /// How many should have been asked after that time, of those there were.
    fn due(&self, elapsed: Duration) -> usize {
        (self.total as f64 * elapsed.as_secs_f64() / self.over.as_secs_f64()).ceil() as usize
    }
}

pub(super) fn conn_id(slot: usize, generation: u32) -> ConnId {
    ConnId::from_bits(u64::from(generation) << 32 | slot as u64)
}
