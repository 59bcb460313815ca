//! Many clients, dealt out to event loops. A [`Script`] decides what those of one loop do.

mod alarm;
mod letters;
mod net;

pub(crate) use letters::{Census, Event, Gauges, Letter, Letters, Reading};
pub(crate) use net::{ClientNo, Net, Tally};

use crate::dialect::{Dialect, Heard, Subscribed, Subscriptions};
use crate::endpoint::Endpoint;
use crate::loops::{Loops, Share};
use crate::timeline::Timeline;
use crate::tls;
use alarm::Alarm;
use io::epoll::Epoll;
use io::{Batch, Class, Clock, Closed, ConnId, Counters, Driver, Flow, Handler, Io, Options, Peer};
use net::{State, Upgrade};
use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use wire::http::HeadLimits;
use wire::ws::{self, OpCode, Reader, Role};

/// Bytes of one message from the server.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that wait to be sent for one client. Only a server that stops reading lets so much pile up.
const OUT_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(OUT_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX, "one whole message must always fit");

/// Clients of a fleet that are on their way at one time. The kernel queues 4,096 for a usual listener, and a connection that finds the
/// queue full waits a second.
const PENDING_MAX: usize = 1_000;

/// How long a client waits for the server's close frame, and then for its FIN.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Clients are opened and closed in bursts so far apart, at high rates.
const TURN_CHECK: Duration = Duration::from_millis(1);

/// How often it is looked whether everything awaited has come.
const SETTLED_CHECK: Duration = Duration::from_millis(10);

/// What is due sooner is not slept for.
const SPIN_MAX: Duration = Duration::from_micros(100);

/// What a fleet is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Name of its thread.
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    /// For clients of a URL with TLS.
    pub(crate) tls: Option<tls::Common>,
    pub(crate) dialect: Dialect,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) clients: u32,
    pub(crate) loops: Loops,
    /// Connections opened per second at the start, and closed per second at the end, by all loops together. `None`: the
    /// script opens them, and they close all at once.
    pub(crate) open_rate: Option<f64>,
    /// From a client's connect until it is ready.
    pub(crate) timeout: Duration,
    /// From [`Letter::Finish`] to [`Event::Settled`].
    pub(crate) drain: Duration,
    /// First of the source addresses.
    pub(crate) source: Ipv4Addr,
    /// Ports in use at one time, those in TIME_WAIT included.
    pub(crate) ports: usize,
    /// Where plots are wanted.
    pub(crate) timeline: Option<Arc<Timeline>>,
}

/// What a loop has in common with its conductor.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) clock: Clock,
    /// When the fleet began, the same for all its loops.
    pub(crate) started: Duration,
    pub(crate) letters: Letters,
    pub(crate) events: Sender<(u32, Event)>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) census: Arc<Census>,
}

/// Something for a script.
#[derive(Debug)]
pub(crate) enum Item<'m> {
    /// A message, where there is no protocol that would say what it is.
    Message(&'m [u8]),
    /// A publication: its channel, its data, and its offset.
    Publication(Cow<'m, str>, &'m [u8], u64),
    /// A subscription with a position began. The client becomes ready after it.
    Subscribed(Subscribed<'m>),
}

/// What the clients of one loop do. `now` is always the time of the call, since the clock's origin.
pub(crate) trait Script: Send + 'static {
    /// What a client says first, instead of what its dialect would, and how many replies that gets.
    fn greeting(&mut self, _net: &Net, _no: ClientNo) -> Option<(String, u32)> {
        None
    }
    /// Whether clients that are gone come back, so that none being there is not the end.
    fn comes_back(&self) -> bool {
        false
    }
    /// A client has become ready.
    fn ready(&mut self, _net: &mut Net, _io: &mut Io, _now: Duration, _no: ClientNo) {}
    /// A client has received something.
    fn received(&mut self, _net: &mut Net, _io: &mut Io, _now: Duration, _no: ClientNo, _item: Item<'_>) {}
    /// A client has no connection any more, ready or not.
    fn gone(&mut self, _net: &mut Net, _no: ClientNo) {}
    /// The measured part began at `at`, which all loops are told alike.
    fn go(&mut self, _net: &mut Net, _io: &mut Io, _at: Duration) {}
    /// Does what is due, and says when the next is.
    fn poll(&mut self, _net: &mut Net, _io: &mut Io, _now: Duration) -> Option<Duration> {
        None
    }
    /// The measured part has ended.
    fn measured(&mut self, _net: &Net) {}
    /// Nothing new is to be begun.
    fn finish(&mut self) {}
    /// After `finish`: whether nothing is awaited any more.
    fn is_settled(&self, _net: &Net) -> bool {
        true
    }
}

/// What remains of a loop.
#[derive(Debug)]
pub(crate) struct Outcome<S> {
    pub(crate) tally: Tally,
    /// Pings that each client got.
    pub(crate) pings: Vec<u32>,
    pub(crate) script: S,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Opening {
        /// Clients opened so far.
        begun: u32,
    },
    Open,
    Finishing {
        until: Duration,
    },
    Settled,
    Closing {
        /// Clients told to leave so far.
        begun: u32,
        /// When the first one was.
        started: Duration,
        /// When those that have not left by then are given up.
        until: Duration,
    },
}

struct Fleet<S> {
    net: Net,
    share: Share,
    script: S,
    phase: Phase,
    clock: Clock,
    started: Duration,
    letters: Letters,
    events: Sender<(u32, Event)>,
    alarm: Alarm,
    /// When the script has something to do.
    due: Option<Duration>,
    settled_check: Duration,
    empty_told: bool,
    limits: ws::Limits,
    counters: Arc<Counters>,
    /// What was in the records of one read; used again.
    plain: Vec<u8>,
}

/// Runs one loop of a fleet until [`Letter::Close`] is done. To be called first thing on the loop's thread.
///
/// # Errors
/// When the kernel refuses the event loop or its table of descriptors.
pub(crate) fn run<S: Script>(plan: Arc<Plan>, share: Share, script: S, post: Post) -> std::io::Result<Outcome<S>> {
    let Post { clock, started, letters, events, gauges, census } = post;
    if plan.loops.private {
        // Before anything is opened here. The alarm's thread, started from this one, shares the new table.
        io::descriptors::take_private_table(&[letters.wake.fd()])?;
    }
    let connections_max = share.len(plan.clients) as usize;
    let options = Options { connections_max, linger: CLOSE_TIMEOUT, ..Options::default() };
    let mut driver = Epoll::new(options, Vec::new(), clock, letters.wake.receiver())?;
    let alarm = Alarm::start(clock, letters.wake.clone())?;
    let phase = if plan.open_rate.is_some() { Phase::Opening { begun: 0 } } else { Phase::Open };
    let limits = ws::Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..ws::Limits::default() };
    let mut fleet = Fleet {
        net: Net::new(plan, share, gauges, census),
        share,
        script,
        phase,
        clock,
        started,
        letters,
        events,
        alarm,
        due: None,
        settled_check: Duration::ZERO,
        empty_told: false,
        limits,
        counters: driver.io().counters(),
        plain: Vec::new(),
    };
    if fleet.phase == Phase::Open {
        fleet.tell(Event::Opened);
    }
    // The first tick has nothing to wait for.
    driver.io().again();
    while !fleet.is_over(driver.io()) {
        driver.tick(&mut fleet, None)?;
    }
    driver.shutdown(&mut fleet);
    let (tally, pings) = fleet.net.finish();
    Ok(Outcome { tally, pings, script: fleet.script })
}

impl<S: Script> Fleet<S> {
    fn tell(&self, event: Event) {
        // Nobody listens any more when the conductor has given up; then the letter to close follows.
        let _ = self.events.send((self.share.number, event));
    }

    fn is_over(&self, io: &Io) -> bool {
        match self.phase {
            Phase::Closing { until, .. } => io.connections() == 0 || io.now() >= until,
            _ => false,
        }
    }

    /// Whether it is over when no client is left.
    fn may_end(&self) -> bool {
        self.net.plan.open_rate.is_some() && !self.script.comes_back()
    }

    fn read_letters(&mut self, io: &mut Io, now: Duration) {
        while let Some(letter) = self.letters.take() {
            match letter {
                Letter::Go { at } => self.script.go(&mut self.net, io, at),
                Letter::Measured => self.script.measured(&self.net),
                Letter::Finish => {
                    self.script.finish();
                    self.phase = Phase::Finishing { until: now + self.net.plan.drain };
                }
                Letter::Close { at } => {
                    self.phase = Phase::Closing { begun: 0, started: at, until: Duration::MAX };
                }
            }
        }
    }

    /// When the client with this number in the loop has its turn, of a turn of all that began at `from`.
    fn turn(&self, from: Duration, begun: u32) -> Duration {
        let rate = self.net.plan.open_rate.unwrap_or(f64::INFINITY);
        from + Duration::from_secs_f64(f64::from(self.share.global(begun)) / rate)
    }

    /// Opens as many clients as are due.
    fn open_more(&mut self, io: &mut Io, now: Duration) {
        let Phase::Opening { mut begun } = self.phase else { return };
        let pending_max = PENDING_MAX.div_ceil(self.share.of as usize);
        while begun < self.net.len() && self.turn(self.started, begun) <= now && self.net.pending < pending_max {
            self.net.open(io, begun, now);
            begun += 1;
        }
        self.phase = Phase::Opening { begun };
        if begun < self.net.len() {
            // Its turn has passed where too many are on their way.
            io.alarm(self.turn(self.started, begun).max(now + TURN_CHECK));
        } else if self.net.pending == 0 {
            self.phase = Phase::Open;
            self.tell(Event::Opened);
        }
    }

    /// Lets as many clients leave as are due: in the order and at the rate in which they came, so that all have stayed for
    /// the same time and the server meets no more at once than before.
    fn close_more(&mut self, io: &mut Io, now: Duration) {
        let Phase::Closing { mut begun, started, mut until } = self.phase else { return };
        while begun < self.net.len() && (self.net.is_gone(begun) || self.turn(started, begun) <= now) {
            self.net.close(io, begun);
            // Those on their way are of no interest any more, and no fault of anybody.
            self.net.abandon(io, begun);
            begun += 1;
        }
        if begun < self.net.len() {
            io.alarm(self.turn(started, begun).max(now + TURN_CHECK));
        } else if until == Duration::MAX {
            until = now + 2 * CLOSE_TIMEOUT;
        }
        self.phase = Phase::Closing { begun, started, until };
    }

    fn check(&mut self, io: &mut Io, now: Duration) {
        match self.phase {
            Phase::Open if self.may_end() && self.net.ready == 0 && !self.empty_told => {
                self.empty_told = true;
                self.tell(Event::Empty);
            }
            Phase::Finishing { until } => {
                if now >= self.settled_check {
                    self.settled_check = now + SETTLED_CHECK;
                    if now >= until || self.script.is_settled(&self.net) {
                        self.phase = Phase::Settled;
                        self.tell(Event::Settled);
                        return;
                    }
                }
                io.alarm(self.settled_check);
            }
            Phase::Closing { until, .. } if until != Duration::MAX => io.alarm(until),
            _ => {}
        }
    }

    fn play(&mut self, io: &mut Io, now: Duration) {
        if matches!(self.phase, Phase::Closing { .. }) {
            self.due = None;
            return;
        }
        self.due = self.script.poll(&mut self.net, io, now);
        match self.due {
            Some(at) if at <= now + SPIN_MAX => io.again(),
            Some(at) => self.alarm.set(at),
            None => {}
        }
    }

    /// The answer to the upgrade request, or its beginning. Gives what follows it.
    fn upgrade(&mut self, io: &mut Io, now: Duration, no: ClientNo, bytes: &[u8]) -> Option<Vec<u8>> {
        let State::Upgrading(upgrade) = &mut self.net.clients[no as usize].state else { return None };
        upgrade.head.extend_from_slice(bytes);
        match ws::client::check_response(&upgrade.head, &upgrade.key, None, &HeadLimits::default()) {
            Ok(None) => None,
            Ok(Some(len)) => {
                let rest = upgrade.head.split_off(len);
                self.greet(io, now, no);
                Some(rest)
            }
            Err(error) => {
                self.net.fail(io, no, &error.to_string());
                None
            }
        }
    }

    fn greet(&mut self, io: &mut Io, now: Duration, no: ClientNo) {
        let plan = Arc::clone(&self.net.plan);
        let net = &mut self.net;
        let client = net.global(no);
        let replies = match self.script.greeting(net, no) {
            Some((words, replies)) => {
                net.send(io, no, words.as_bytes());
                replies
            }
            None => plan.dialect.greeting(&plan.subscriptions, client, |text| net.send(io, no, text.as_bytes())),
        };
        self.net.clients[no as usize].state = State::Greeting { replies };
        if replies == 0 {
            self.become_ready(io, now, no);
        }
    }

    fn become_ready(&mut self, io: &mut Io, now: Duration, no: ClientNo) {
        self.net.become_ready(io, no, now);
        self.script.ready(&mut self.net, io, now, no);
    }

    /// Frames of one client.
    fn frames(&mut self, io: &mut Io, now: Duration, no: ClientNo, mut input: &mut [u8]) {
        // Out of the table while the events borrow it, so that scripts can have the table.
        let mut reader = std::mem::replace(&mut self.net.clients[no as usize].reader, Reader::new(Role::Client));
        while !matches!(self.net.clients[no as usize].state, State::Ended | State::Idle) {
            match reader.next(&mut input, &self.limits) {
                Ok(Some(event)) => self.event(io, now, no, event),
                Ok(None) => break,
                Err(error) => self.net.fail(io, no, &format!("the server broke the protocol: {error}")),
            }
        }
        self.net.clients[no as usize].reader = reader;
    }

    /// Plain bytes of one client.
    fn heed(&mut self, io: &mut Io, now: Duration, no: ClientNo, bytes: &mut [u8]) {
        if matches!(self.net.clients[no as usize].state, State::Upgrading(_)) {
            if let Some(mut rest) = self.upgrade(io, now, no, bytes) {
                self.frames(io, now, no, &mut rest);
            }
        } else {
            self.frames(io, now, no, bytes);
        }
    }

    fn event(&mut self, io: &mut Io, now: Duration, no: ClientNo, event: ws::Event<'_>) {
        match event {
            ws::Event::Message { payload, .. } => {
                let dialect = self.net.plan.dialect;
                let mut rest = self.net.take_rest(no);
                dialect.listen(payload, &mut rest, |heard| self.heard(io, now, no, heard));
                self.net.keep_rest(no, rest);
            }
            ws::Event::Ping(payload) => {
                if self.net.pinged(no) {
                    self.net.frame(io, no, OpCode::Pong, payload);
                }
            }
            ws::Event::Pong(_) => {}
            ws::Event::Close { code, reason } => self.net.closed_by_server(io, no, code, reason),
        }
    }

    fn heard(&mut self, io: &mut Io, now: Duration, no: ClientNo, heard: Heard<'_>) {
        match heard {
            Heard::Message(message) => {
                self.net.gauges.received.add(1);
                self.script.received(&mut self.net, io, now, no, Item::Message(message));
            }
            Heard::Publication { channel, data, offset } => {
                self.net.gauges.received.add(1);
                self.script.received(&mut self.net, io, now, no, Item::Publication(channel, data, offset));
            }
            Heard::Ping { answer } => {
                if self.net.pinged(no) && answer {
                    let pong = self.net.plan.dialect.pong();
                    self.net.send(io, no, pong.as_bytes());
                }
            }
            Heard::Connected(channels) if channels < self.net.plan.subscriptions.count() => {
                let wanted = self.net.plan.subscriptions.count();
                self.net.fail(io, no, &format!("connected with {channels} of {wanted} subscriptions"));
            }
            Heard::Reply | Heard::Connected(_) => self.replied(io, now, no),
            Heard::Subscribed(subscribed) => {
                self.net.gauges.received.add(subscribed.publications.len() as u64);
                self.script.received(&mut self.net, io, now, no, Item::Subscribed(subscribed));
                self.replied(io, now, no);
            }
            Heard::Refused(reason) => self.net.fail(io, no, &reason),
            Heard::Other => {}
        }
    }

    /// One of the replies to the greeting has come.
    fn replied(&mut self, io: &mut Io, now: Duration, no: ClientNo) {
        if let State::Greeting { replies } = &mut self.net.clients[no as usize].state {
            *replies -= 1;
            if *replies == 0 {
                self.become_ready(io, now, no);
            }
        }
    }
}

impl<S: Script> Handler for Fleet<S> {
    fn opened(&mut self, io: &mut Io, id: ConnId, _: Peer) {
        let no = self.net.owner(id);
        let key = self.net.key();
        let plan = Arc::clone(&self.net.plan);
        let target = plan.dialect.target(&plan.endpoint.target, &plan.subscriptions, self.net.global(no));
        let client = &mut self.net.clients[no as usize];
        if matches!(client.state, State::Connecting) {
            client.state = State::Upgrading(Box::new(Upgrade { key, head: Vec::new() }));
            ws::client::write_request(&mut client.out, &plan.endpoint.host, &target, &key, None, &[]);
            io.dirty(id, Class::Reply);
        }
    }

    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        let no = self.net.owner(id);
        if bytes.is_empty() {
            self.net.fin(io, no);
            return Flow::Continue;
        }
        // Not the tick's time: what lies in front in the same tick has taken its own.
        let now = self.clock.now();
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        match &mut self.net.clients[no as usize].tls {
            None => self.heed(io, now, no, bytes),
            Some(tls) => match tls.open(bytes, &mut plain) {
                Err(error) => self.net.fail(io, no, &format!("TLS: {error}")),
                Ok(has_more_to_send) => {
                    if has_more_to_send {
                        io.dirty(id, Class::Reply);
                    }
                    if !plain.is_empty() {
                        self.heed(io, now, no, &mut plain);
                    }
                }
            },
        }
        self.plain = plain;
        if self.net.is_paused(no) {
            return Flow::Pause;
        }
        Flow::Continue
    }

    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        let no = self.net.owner(id);
        let client = &mut self.net.clients[no as usize];
        match &mut client.tls {
            None => _ = batch.push(&client.out[client.out_sent..]),
            Some(tls) => {
                _ = batch.push(tls.seal(&client.out[client.out_sent..]));
                client.out.clear();
                client.out_sent = 0;
            }
        }
    }

    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        let no = self.net.owner(id);
        if self.net.sent(no, bytes) {
            io.dirty(id, Class::Reply);
        }
    }

    fn expired(&mut self, io: &mut Io, id: ConnId) {
        let no = self.net.owner(id);
        self.net.expired(io, no);
    }

    fn closed(&mut self, io: &mut Io, id: ConnId, why: Closed) {
        let no = self.net.owner(id);
        self.net.gone(no, why);
        self.script.gone(&mut self.net, no);
        // A script that waited for a free client can go on.
        io.again();
    }

    fn woken(&mut self, io: &mut Io) {
        let now = self.clock.now();
        self.read_letters(io, now);
        self.open_more(io, now);
        self.close_more(io, now);
        self.play(io, now);
        self.check(io, now);
    }

    fn has_mail(&self) -> bool {
        !self.letters.is_empty() || self.due.is_some_and(|at| at <= self.clock.now())
    }

    fn ticked(&mut self, io: &mut Io) {
        if self.net.pending == 0 && matches!(self.phase, Phase::Opening { begun } if begun == self.net.len()) {
            // Nothing else may happen that would start another tick.
            io.again();
        }
        let (tally, gauges) = (&self.net.tally, &self.net.gauges);
        gauges.opened.set(tally.opened);
        gauges.ready.set(self.net.ready as u64);
        gauges.failed.set(tally.failed);
        gauges.lost.set(tally.lost);
        gauges.busy_ns.set(self.counters.tick_nanoseconds.load());
    }
}
