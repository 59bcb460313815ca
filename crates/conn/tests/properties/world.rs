//! A worker with one connection: what a driver, a hub and time do to it, and what must be so after each of these.

use crate::script::CHANNELS;
use crate::settings::{HISTORY, settings};
use conn::outbox::Standing;
use conn::webhook::{About, Answer, Question, Rewritten, Verdict};
use conn::{ClientError, Connection, Delivered, Directions, Disconnect, Effect, Encoding, End, IdSource, Shared};
use hub::{Channel, ChannelHash, Draft, Epoch, Home, HomeLimits, Local, LocalId, Publication};
use hub::{HistoryQuery, MemberId, Offset, Position, PresenceQuery, PublishOptions, Recover, Retention, Route};
use hub::{SubscriberId, WorkerId};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const ME: SubscriberId = SubscriberId(1 << 32);

/// Something that happens to the connection.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// So many bytes come from the client, if input is wanted.
    Feed(usize),
    /// The socket can take so many bytes, if the connection asked for it.
    Gather(usize),
    /// The kernel took this share of what was gathered, in percent.
    Complete(usize),
    /// The home answers one of the pending subscribes.
    Subscribed { which: usize, ok: bool },
    /// The home answers one of the pending publishes.
    Published { which: usize, ok: bool },
    /// The home answers one of the pending history commands.
    HistoryRead { which: usize, ok: bool },
    /// The backend answers one of the questions.
    BackendAnswered { which: usize, answer: u8 },
    /// A publication of so many bytes comes in a channel.
    Deliver { channel: usize, bytes: usize },
    /// From now on requests find a full mailbox, or not any more.
    Busy(bool),
    /// Time passes.
    Pass(Duration),
    /// The gateway ends it.
    Disconnect(u16),
    /// The process is drained.
    Drain,
    /// The client closes its half.
    Fin,
    /// The connection breaks.
    Break,
}

/// Mostly bytes in and out; what ends a connection is rare, so that lives are long.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0..400usize).prop_map(Op::Feed),
        30 => (0..4000usize).prop_map(Op::Feed),
        60 => (1..3000usize).prop_map(Op::Gather),
        60 => prop_oneof![Just(100), 0..=100usize].prop_map(Op::Complete),
        40 => (0..8usize, prop::bool::weighted(0.8)).prop_map(|(which, ok)| Op::Subscribed { which, ok }),
        20 => (0..8usize, prop::bool::weighted(0.8)).prop_map(|(which, ok)| Op::Published { which, ok }),
        20 => (0..8usize, prop::bool::weighted(0.8)).prop_map(|(which, ok)| Op::HistoryRead { which, ok }),
        20 => (0..8usize, 0..60u8).prop_map(|(which, answer)| Op::BackendAnswered { which, answer }),
        60 => (0..CHANNELS.len(), prop_oneof![3 => 0..200usize, 1 => 0..2500usize])
            .prop_map(|(channel, bytes)| Op::Deliver { channel, bytes }),
        8 => any::<bool>().prop_map(Op::Busy),
        20 => (0..400u64).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
        1 => (0..40u64).prop_map(|s| Op::Pass(Duration::from_secs(s))),
        1 => prop_oneof![Just(1011), Just(3503), Just(4000)].prop_map(Op::Disconnect),
        1 => Just(Op::Drain),
        1 => Just(Op::Fin),
        1 => Just(Op::Break),
    ]
}

/// A home that numbers publications for one worker; delivery is the test's own.
struct Numbering {
    home: Home,
    last: Option<Arc<Publication>>,
}

struct Catch<'a>(&'a mut Option<Arc<Publication>>);

impl Route for Catch<'_> {
    fn has_room(&mut self, _: WorkerId, _: usize) -> bool {
        true
    }

    fn deliver(&mut self, _: WorkerId, publication: Arc<Publication>) {
        *self.0 = Some(publication);
    }
}

fn retention(channel: &str) -> Option<Retention> {
    channel.contains(':').then_some(HISTORY)
}

impl Numbering {
    fn new(hash: ChannelHash) -> Self {
        let mut home = Home::new(hash, HomeLimits::default(), 1);
        for channel in CHANNELS {
            let subscribed =
                home.subscribe(Duration::ZERO, &Channel::new(channel), WorkerId(0), retention(channel), None);
            subscribed.expect("room for three channels");
        }
        Self { home, last: None }
    }

    fn publish(&mut self, now: Duration, channel: &str, bytes: usize, number: u64) -> Arc<Publication> {
        let data = json!([number, "d".repeat(bytes)]).to_string();
        let draft = Draft::new(Channel::new(channel), data.into_bytes());
        self.home.publish(now, draft, retention(channel), &mut Catch(&mut self.last)).expect("room");
        self.last.take().expect("delivered to the one worker")
    }
}

/// The connection and all around it.
pub(crate) struct World {
    now: Duration,
    shared: Shared,
    connection: Option<Connection>,
    numbering: Numbering,
    input: Vec<u8>,
    fed: usize,
    /// What the driver knows: input is wanted, bytes wait, a send is under way, how the socket is to go.
    reading: bool,
    dirty: bool,
    in_flight: Option<Vec<u8>>,
    end: Option<End>,
    /// The connection wants to know whether something waits unread.
    looks: bool,
    busy: bool,
    subscribing: Vec<(u32, LocalId, Option<Box<Recover>>)>,
    histories: Vec<(u32, Channel, HistoryQuery)>,
    presences: Vec<(u32, PresenceQuery)>,
    publishing: Vec<u32>,
    asking: Vec<(u32, Box<Question>)>,
    refused: Vec<(u32, LocalId, Option<Box<Recover>>)>,
    refused_publishes: Vec<u32>,
    connected: usize,
    admitted: usize,
    withdrawn: usize,
    publications: u64,
    /// All bytes that the client got.
    pub(crate) output: Vec<u8>,
    /// Publications that were accepted for the client: by its outbox, or held.
    pub(crate) delivered: usize,
    /// Of these, publications that were left out afterwards: skipped, or replaced by a newer one.
    pub(crate) left_out: usize,
    /// The socket is closed.
    pub(crate) is_closed: bool,
    /// Everything the client had to say was read, and everything it asked for was answered.
    pub(crate) is_finished: bool,
}

impl World {
    pub(crate) fn new(input: &[u8]) -> Self {
        let hash = ChannelHash::new([1; 16]);
        let mut shared = Shared::new(Arc::new(settings()), Local::new(hash), IdSource::new([2; 16], 0));
        let now = Duration::from_millis(1234);
        let (connection, _) = Connection::accepted(now, 0, Some([192, 0, 2, 7].into()), &mut shared);
        Self {
            now,
            shared,
            connection: Some(connection),
            numbering: Numbering::new(hash),
            input: input.to_vec(),
            fed: 0,
            reading: true,
            looks: false,
            dirty: false,
            in_flight: None,
            end: None,
            busy: false,
            subscribing: Vec::new(),
            histories: Vec::new(),
            presences: Vec::new(),
            publishing: Vec::new(),
            asking: Vec::new(),
            refused: Vec::new(),
            refused_publishes: Vec::new(),
            connected: 0,
            admitted: 0,
            withdrawn: 0,
            publications: 0,
            output: Vec::new(),
            delivered: 0,
            left_out: 0,
            is_closed: false,
            is_finished: false,
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Feed(bytes) => self.feed(bytes),
            Op::Gather(room) => self.gather(room),
            Op::Complete(percent) => self.complete(percent),
            Op::Subscribed { which, ok } if !self.subscribing.is_empty() => {
                let which = which % self.subscribing.len();
                let (sequence, local, recover) = self.subscribing.remove(which);
                self.subscribed(sequence, local, recover, ok);
            }
            Op::Published { which, ok } if !self.publishing.is_empty() => {
                let which = which % self.publishing.len();
                let command = self.publishing.remove(which);
                self.published(command, ok);
            }
            Op::HistoryRead { which, ok } if !self.histories.is_empty() => {
                let which = which % self.histories.len();
                self.read(which, ok);
            }
            Op::BackendAnswered { which, answer } if !self.asking.is_empty() => {
                let which = which % self.asking.len();
                let (number, question) = self.asking.remove(which);
                self.backend_answered(number, &question, answer);
            }
            Op::Subscribed { .. } | Op::Published { .. } | Op::HistoryRead { .. } | Op::BackendAnswered { .. } => {}
            Op::Deliver { channel, bytes } => self.deliver(CHANNELS[channel], bytes),
            Op::Busy(busy) => self.busy = busy,
            Op::Pass(time) => self.pass(time),
            Op::Disconnect(code) => {
                let why = Disconnect { code, reason: "because".into() };
                self.call(|connection, now, shared| connection.disconnect(now, why, shared));
            }
            Op::Drain => self.call(Connection::drain),
            Op::Fin => self.receive(&mut []),
            Op::Break => self.socket_closed(),
        }
        self.check();
    }

    fn feed(&mut self, bytes: usize) {
        let end = (self.fed + bytes).min(self.input.len());
        if !self.reading || self.end.is_some() || self.is_closed || end == self.fed {
            return;
        }
        let mut chunk = self.input[self.fed..end].to_vec();
        self.fed = end;
        self.receive(&mut chunk);
    }

    /// As from the driver: nothing while reads are paused, nothing after a close.
    fn receive(&mut self, chunk: &mut [u8]) {
        if self.reading && self.end.is_none() {
            self.call(|connection, now, shared| connection.received(now, chunk, shared));
        }
    }

    pub(crate) fn call(&mut self, call: impl FnOnce(&mut Connection, Duration, &mut Shared) -> Directions) {
        let Some(connection) = &mut self.connection else { return };
        let directions = call(connection, self.now, &mut self.shared);
        self.carry_out(directions);
        // As the worker does: what was refused at once is answered, and what waited for that goes on.
        loop {
            if let Some((sequence, local, recover)) = self.refused.pop() {
                self.subscribed(sequence, local, recover, false);
            } else if let Some((command, query)) = self.presences.pop() {
                self.tell_presence(command, query);
            } else if let Some(command) = self.refused_publishes.pop() {
                self.published(command, false);
            } else if self.connection.as_ref().is_some_and(Connection::has_resumable_input) {
                let connection = self.connection.as_mut().expect("just seen");
                if self.shared.commands_left == 0 {
                    self.shared.commands_left = conn::COMMANDS_PER_TICK;
                }
                let directions = connection.resume_input(self.now, &mut self.shared);
                self.carry_out(directions);
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, directions: Directions) {
        self.reading = directions.reading.unwrap_or(self.reading);
        self.dirty |= directions.flush.is_some();
        self.looks |= directions.look;
        // A second close counts only if it is harsher.
        self.end = match (self.end, directions.end) {
            (None | Some(End::Flush | End::Finish), Some(end)) => Some(end),
            (before, _) => before,
        };
        self.apply_effects();
        if matches!(self.end, Some(End::Now | End::Reset)) {
            self.socket_closed();
        }
    }

    fn apply_effects(&mut self) {
        for effect in std::mem::take(&mut self.shared.effects) {
            match effect {
                Effect::AwaitVerification { .. } => unreachable!("no key is configured, so each token costs the least"),
                Effect::Subscribe { sequence, channel, recover, .. } => {
                    let Some(connection) = &mut self.connection else { continue };
                    let (local, _) = self.shared.local.begin(&channel);
                    connection.subscription_begun(sequence, local);
                    let queue = if self.busy { &mut self.refused } else { &mut self.subscribing };
                    queue.push((sequence, local, recover));
                }
                Effect::Withdraw { member } => {
                    self.withdrawn += 1;
                    // Panics if it was removed before.
                    self.shared.remove(member);
                }
                Effect::Publish { command, draft } => {
                    let name = draft.channel.as_bytes();
                    assert!(name.is_ascii() && (1..=255).contains(&name.len()), "{draft:?}");
                    serde_json::from_slice::<serde::de::IgnoredAny>(&draft.data).expect("what is published is JSON");
                    let queue = if self.busy { &mut self.refused_publishes } else { &mut self.publishing };
                    queue.push(command);
                }
                Effect::FetchKeys => unreachable!("nobody publishes keys"),
                Effect::Connected { .. } => self.connected += 1,
                Effect::AskBackend { number, question } => {
                    serde_json::from_slice::<serde_json::Value>(&question.to_json()).expect("a question is JSON");
                    assert!(self.asking.is_empty() || self.connection.is_none(), "one command asks at a time");
                    self.asking.push((number, question));
                }
                Effect::History { command, channel, query } => self.histories.push((command, channel, query)),
                Effect::Presence { command, query, .. } => self.presences.push((command, query)),
                Effect::Note(note) => assert!(!note.to_string().is_empty()),
            }
        }
    }

    /// The home answers a history command.
    fn read(&mut self, which: usize, ok: bool) {
        let (command, channel, query) = self.histories.remove(which);
        let page = self.numbering.home.history(self.now, &channel, HISTORY, &query);
        let answer = page.map_err(|_| ClientError::UNRECOVERABLE_POSITION).and_then(|page| {
            assert!(page.publications.len() <= 6, "the limit of the settings");
            if ok { Ok(page) } else { Err(ClientError::INTERNAL) }
        });
        self.call(|connection, now, shared| connection.history_read(now, command, answer, shared));
    }

    fn subscribed(&mut self, sequence: u32, local: LocalId, recover: Option<Box<Recover>>, ok: bool) {
        let channel = self.shared.local.channel(local).clone();
        let home = &mut self.numbering.home;
        let granted = home.subscribe(self.now, &channel, WorkerId(0), retention(&channel), recover.as_deref());
        let granted = granted.expect("room for three channels");
        let answer = if ok { Ok(granted) } else { Err(ClientError::INTERNAL) };
        let taken = self
            .connection
            .as_mut()
            .and_then(|connection| connection.subscription_answered(self.now, ME, sequence, answer, &mut self.shared));
        let is_member = taken.is_some_and(|(is_member, _)| is_member);
        assert!(ok || !is_member, "nobody becomes a member of what was refused");
        self.admitted += usize::from(is_member);
        if !is_member {
            self.shared.local.abandon(local);
        }
        if let Some((_, directions)) = taken {
            self.call(|_, _, _| directions);
        }
    }

    fn published(&mut self, command: u32, ok: bool) {
        let answer = if ok { Ok(()) } else { Err(ClientError::INTERNAL) };
        self.call(|connection, now, shared| connection.published(now, command, answer, shared));
    }

    /// Mostly well; what it says repeats the question.
    fn backend_answered(&mut self, number: u32, question: &Question, answer: u8) {
        let verdict = match &question.about {
            About::Rpc { data, .. } => Verdict::Rpc(data.clone()),
            About::Publish { .. } if answer.is_multiple_of(2) => Verdict::Publish(Rewritten::default()),
            About::Publish { data, .. } => {
                let options = Some(Box::new(PublishOptions { skip_history: true, ..PublishOptions::default() }));
                Verdict::Publish(Rewritten { data: Some(data.clone()), tags: None, options })
            }
            other => panic!("nothing else is asked: {other:?}"),
        };
        let answer = match answer {
            0 => Answer::Disconnect(Disconnect { code: 4001, reason: "because".into() }),
            1..5 => Answer::Error(ClientError { code: 400, message: "a \"no\"".into(), temporary: false }),
            5..10 => Answer::None,
            10 => Answer::Result(Verdict::Connect(None)),
            _ => Answer::Result(verdict),
        };
        self.call(|connection, now, shared| connection.backend_answered(now, number, answer, shared));
    }

    fn deliver(&mut self, channel: &str, bytes: usize) {
        self.publications += 1;
        let publication = self.numbering.publish(self.now, channel, bytes, self.publications);
        let Some(local) = self.shared.local.find(channel) else { return };
        let Some(member) = self.shared.local.members(local).next() else { return };
        assert_eq!(self.shared.local.live(local), 1, "one connection is one member");
        let Some(connection) = &mut self.connection else { panic!("a member without a connection") };
        if member.held {
            self.call(|connection, now, shared| connection.hold(now, &publication, shared));
            self.delivered += usize::from(self.connection.as_ref().is_some_and(|c| c.encoding().is_some()));
            return;
        }
        let encoding = Encoding::from_number(member.encoding).expect("a number of an encoding");
        let own = connection.encoding().expect("it is open");
        assert!(encoding == own || Encoding::set_back(member.encoding) == own.first() as u8, "{encoding:?} to {own:?}");
        let standing = match channel {
            "b" => Standing::Oldest { channel: self.shared.ids.channel_key(channel) },
            "ns:c" => Standing::Latest { key: 3, in_place: true },
            _ => Standing::Firm,
        };
        let body = self
            .shared
            .outboxes
            .shared_as(standing, |out| encoding.publication(&publication, None, &mut Vec::new(), out));
        let limits = self.shared.settings.limits;
        let outcome = connection.deliver(body, &mut self.shared.outboxes, &limits);
        self.shared.outboxes.release(body);
        self.delivered += usize::from(!matches!(outcome, Delivered::Slow | Delivered::Gone));
        assert!(outcome != Delivered::Slow || channel != "b", "what may be skipped does not disconnect");
        match outcome {
            Delivered::Queued => {}
            Delivered::First => self.dirty = true,
            Delivered::Attend | Delivered::Skipped => self.call(Connection::attend),
            Delivered::Slow => {
                self.call(|connection, now, shared| connection.disconnect(now, Disconnect::SLOW, shared))
            }
            Delivered::Gone => panic!("a member of a connection that is closing"),
        }
    }

    /// The home has named a position to the one member of a channel.
    pub(crate) fn follow(&mut self, channel: &str) {
        let (member, _) = self.member(channel);
        self.shared.local.follow(member, Position { offset: Offset(0), epoch: Epoch::from_seed(1) });
    }

    /// The one member of a channel has got a publication, as the fan-out notes it: from now on it reads patches.
    pub(crate) fn begin_patches(&mut self, channel: &str) {
        let (member, encoding) = self.member(channel);
        let next = Encoding::after_first(encoding).expect("it takes deltas and has had none");
        self.shared.local.set_encoding(member, next as u8);
    }

    /// Whether the one member of a channel reads patches.
    pub(crate) fn reads_patches(&self, channel: &str) -> bool {
        let (_, encoding) = self.member(channel);
        Encoding::set_back(encoding) != encoding
    }

    fn member(&self, channel: &str) -> (MemberId, u8) {
        let local = self.shared.local.find(channel).expect("subscribed to");
        let member = self.shared.local.members(local).next().expect("subscribed to");
        (member.member, member.encoding)
    }

    /// Whether a publication of so many bytes would not fit.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        let limit = self.shared.settings.limits.outbox_bytes_max;
        self.connection.as_ref().is_none_or(|connection| connection.backlog() + bytes > limit)
    }

    /// Whether the gateway has ended it.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| !connection.is_connected())
    }

    fn gather(&mut self, room: usize) {
        let ends = matches!(self.end, Some(End::Flush | End::Finish));
        if !(self.dirty || ends) || self.in_flight.is_some() {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        self.dirty = false;
        let mut batch = Vec::new();
        connection.gather(&mut self.shared, |bytes| {
            let taken = bytes.len().min(room - batch.len());
            batch.extend_from_slice(&bytes[..taken]);
            taken
        });
        if !batch.is_empty() {
            self.in_flight = Some(batch);
        } else if ends {
            self.socket_closed();
        }
    }

    fn complete(&mut self, percent: usize) {
        let Some(batch) = self.in_flight.take() else { return };
        let sent = batch.len() * percent / 100;
        self.output.extend_from_slice(&batch[..sent]);
        // The driver waits for the socket and gathers again by itself.
        self.dirty |= sent < batch.len();
        self.call(|connection, now, shared| connection.sent(now, sent, shared));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let due = |c: &Connection| c.deadline().is_some_and(|at| at <= self.now);
        if self.end.is_none() && self.connection.as_ref().is_some_and(due) {
            self.call(Connection::expired);
            if std::mem::take(&mut self.looks) && self.end.is_none() {
                self.call(Connection::nothing_waits);
            }
        }
    }

    fn socket_closed(&mut self) {
        self.is_closed = true;
        self.in_flight = None;
        if let Some(connection) = self.connection.take() {
            let report = connection.closed(&mut self.shared);
            assert_eq!(usize::from(report.user.is_some()), self.connected, "who has come goes, once each");
            self.apply_effects();
        }
    }

    /// What must be so at every moment.
    fn check(&mut self) {
        self.left_out = (self.shared.outboxes.skipped() + self.shared.outboxes.conflated()) as usize;
        assert!(self.shared.effects.is_empty());
        let subscriptions = self.shared.local.subscriptions();
        let counted = self.shared.settings.addresses.counted();
        assert_eq!(counted, u64::from(self.connection.is_some()), "a connection is counted once, until it is gone");
        assert_eq!(self.admitted - self.withdrawn, subscriptions, "each member is withdrawn once");
        let Some(connection) = &self.connection else {
            assert_eq!((subscriptions, self.bodies()), (0, 0), "left by a connection that is gone");
            return;
        };
        let limits = &self.shared.settings.limits;
        let most = limits.outbox_bytes_max + limits.reply_bytes_max + limits.message_bytes_max;
        assert!(connection.backlog() <= most, "{} bytes wait", connection.backlog());
        if self.end.is_none() {
            assert!(connection.deadline().is_some(), "without a deadline a dead peer stays for ever");
            let asked = self.dirty || self.in_flight.is_some();
            assert!(asked || connection.backlog() == 0, "bytes wait and nobody was told");
        }
    }

    /// Bodies that belong to outboxes.
    fn bodies(&self) -> usize {
        self.shared.outboxes.bodies_in_use() - self.shared.recoveries.len()
    }

    /// Answers everything, lets the rest of the input in and the rest of the output out.
    pub(crate) fn settle(&mut self) {
        self.busy = false;
        for _ in 0..10_000 {
            let at_home = self.subscribing.is_empty() && self.publishing.is_empty() && self.histories.is_empty();
            let quiet = at_home && self.asking.is_empty() && self.in_flight.is_none() && !self.dirty;
            if self.is_closed || (quiet && self.end.is_none() && self.reading && self.fed == self.input.len()) {
                break;
            }
            if quiet && !self.reading {
                // What came too fast rests for a while.
                self.apply(&Op::Pass(Duration::from_millis(100)));
            }
            self.apply(&Op::Complete(100));
            self.apply(&Op::Subscribed { which: 0, ok: true });
            self.apply(&Op::Published { which: 0, ok: true });
            self.apply(&Op::HistoryRead { which: 0, ok: true });
            self.apply(&Op::BackendAnswered { which: 0, answer: 20 });
            self.apply(&Op::Gather(60_000));
            self.apply(&Op::Feed(500));
        }
        if !self.is_closed {
            let connection = self.connection.as_ref().expect("not closed");
            assert_eq!(connection.backlog(), 0, "everything goes out");
            assert!(self.reading, "with an empty outbox and nothing pending input is wanted");
            self.is_finished = self.fed == self.input.len();
            assert!(self.is_finished, "the input was read to its end");
        }
    }

    /// The end of every life: nothing may be left.
    pub(crate) fn close(&mut self) {
        self.socket_closed();
        self.check();
        // Answers that find nobody any more.
        for (sequence, local, recover) in std::mem::take(&mut self.subscribing) {
            self.subscribed(sequence, local, recover, true);
        }
        assert_eq!(self.shared.local.channels(), 0, "pending subscriptions are forgotten with their answer");
        assert_eq!(self.shared.counters.sessions, 0, "no session is counted any more");
        assert_eq!(self.bodies(), 0);
        self.shared.recoveries.expire(self.now + conn::recoveries::RECOVERY_IDLE, &mut self.shared.outboxes);
        assert_eq!(self.shared.outboxes.bodies_in_use(), 0, "shared recoveries are forgotten in the end");
    }
}
