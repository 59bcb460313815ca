//! Clients whose connections are cut and who stop reading, at random, while publications go on. Whoever comes back gets what
//! it missed, or is told that it cannot: a silent gap is a fault.

use super::listen::{Announced, Listen, Verdict};
use super::publish::{fill, publish};
use super::stage::Stage;
use crate::cli::RecoverArgs;
use crate::crew::Failure;
use crate::dialect::{Dialect, Since, Subscribed, Subscriptions, Tokens, positioned_greeting};
use crate::fleet::{ClientNo, Item, Net, Script};
use crate::latency::{Latencies, Recorder};
use crate::loops::Share;
use crate::publisher::{Api, Publishing};
use crate::report::{RecoveryReport, Report};
use crate::sources::TIME_WAIT_SECONDS;
use crate::timeline::Series;
use io::Io;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a client that was refused waits before it asks again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What happens to the clients, the same for all loops.
#[derive(Clone, Debug)]
struct Weather {
    seed: u64,
    /// Per second, all loops together.
    resets: Option<f64>,
    pauses: Option<f64>,
    pause: Duration,
    away: Duration,
    storm: Option<Storm>,
}

/// All clients are cut in one moment.
#[derive(Clone, Copy, Debug)]
struct Storm {
    /// That long after publishing began.
    after: Duration,
    /// They come back in one moment too, that long afterwards; without it as all others do.
    away: Option<Duration>,
}

/// Where a client is in its channel.
#[derive(Clone, Default, Debug)]
struct Position {
    epoch: String,
    offset: u64,
    /// Publications of which it was told that it misses them.
    announced: u64,
    /// It had a position before.
    is_known: bool,
}

/// What is to be done with a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Errand {
    Open,
    Resume,
}

/// The clients of one loop.
#[derive(Debug)]
struct Recover {
    listen: Listen,
    weather: Weather,
    share: Share,
    subscriptions: Subscriptions,
    random: fastrand::Rng,
    positions: Vec<Position>,
    /// When each client first tried to come back.
    left: Vec<Option<Duration>>,
    /// Clients that are gone and have no errand yet.
    gone: Vec<ClientNo>,
    errands: BinaryHeap<Reverse<(Duration, ClientNo, Errand)>>,
    /// Whoever goes before this stays away until then.
    storm_is_away_until: Option<Duration>,
    /// When the measured part began, and how much of the weather is over.
    running: Option<Running>,
    returning: Recorder,
    counts: RecoveryReport,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    since: Duration,
    resets: u64,
    pauses: u64,
    storm_is_over: bool,
}

impl Recover {
    fn new(announced: Announced, weather: Weather, share: Share) -> Recover {
        let clients = share.len(announced.clients) as usize;
        Recover {
            subscriptions: announced.subscriptions.clone(),
            random: fastrand::Rng::with_seed(weather.seed ^ u64::from(share.number)),
            positions: vec![Position::default(); clients],
            left: vec![None; clients],
            errands: BinaryHeap::new(),
            storm_is_away_until: None,
            running: None,
            // The plot has these among all openings.
            returning: Recorder::new(None, Series::Opening),
            gone: Vec::new(),
            counts: RecoveryReport::default(),
            listen: Listen::new(announced, share),
            weather,
            share,
        }
    }

    fn somebody(&mut self) -> ClientNo {
        self.random.u32(..self.positions.len() as u32)
    }

    fn within(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.f64())
    }

    /// Cuts one client's connection; the client comes back later.
    fn cut(&mut self, net: &mut Net, io: &mut Io, no: ClientNo) {
        if net.is_ready(no) {
            self.counts.resets += 1;
            net.reset(io, no);
        }
    }

    fn pause(&mut self, net: &mut Net, now: Duration, no: ClientNo) {
        if net.is_ready(no) {
            self.counts.pauses += 1;
            net.pause(no);
            let until = now + self.within(self.weather.pause);
            self.errands.push(Reverse((until, no, Errand::Resume)));
        }
    }

    /// Lets happen what is due, and says when the next is.
    fn rain(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let mut running = self.running?;
        let share = self.share;
        let due = |rate: Option<f64>, done: u64| {
            rate.map(|rate| running.since + Duration::from_secs_f64(share.nth(done) as f64 / rate))
        };
        let storm = self.weather.storm.map(|storm| running.since + storm.after).filter(|_| !running.storm_is_over);
        while due(self.weather.resets, running.resets).is_some_and(|at| at <= now) {
            running.resets += 1;
            let no = self.somebody();
            self.cut(net, io, no);
        }
        while due(self.weather.pauses, running.pauses).is_some_and(|at| at <= now) {
            running.pauses += 1;
            let no = self.somebody();
            self.pause(net, now, no);
        }
        if storm.is_some_and(|at| at <= now) {
            running.storm_is_over = true;
            self.storm_is_away_until = self.weather.storm.and_then(|storm| storm.away).map(|away| now + away);
            (0..self.positions.len() as ClientNo).for_each(|no| self.cut(net, io, no));
        }
        self.running = Some(running);
        let storm = storm.filter(|_| !running.storm_is_over);
        [due(self.weather.resets, running.resets), due(self.weather.pauses, running.pauses), storm]
            .into_iter()
            .flatten()
            .min()
    }

    fn run_errands(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        while let Some(no) = self.gone.pop() {
            // It has tried in vain where it is gone before it was subscribed.
            let back = match self.storm_is_away_until.filter(|&until| until > now) {
                Some(until) => until,
                None => {
                    let pause = if self.left[no as usize].is_some() { AGAIN_AFTER } else { Duration::ZERO };
                    now + pause + self.within(self.weather.away)
                }
            };
            self.errands.push(Reverse((back, no, Errand::Open)));
        }
        while let Some(&Reverse((at, no, errand))) = self.errands.peek() {
            if at > now {
                return Some(at);
            }
            self.errands.pop();
            match errand {
                Errand::Resume => net.resume(io, no),
                Errand::Open => {
                    self.left[no as usize].get_or_insert(now);
                    if !net.open(io, no, now) {
                        self.errands.push(Reverse((now + AGAIN_AFTER, no, Errand::Open)));
                    }
                }
            }
        }
        None
    }

    /// A publication with its place in the history.
    fn publication(&mut self, now: Duration, no: ClientNo, channel: Option<&str>, data: &[u8], offset: u64) {
        let position = &mut self.positions[no as usize];
        if offset != position.offset + 1 {
            self.counts.silent_gaps += 1;
        }
        position.offset = offset;
        self.listen.publication(now, no, channel, data);
    }

    fn subscribed(&mut self, now: Duration, no: ClientNo, subscribed: &Subscribed<'_>) {
        if let Some(left) = self.left[no as usize].take() {
            self.returning.record(now, now.saturating_sub(left));
        }
        let Subscribed { recovered, epoch, offset, publications } = subscribed;
        let position = &mut self.positions[no as usize];
        if !position.is_known {
            position.offset = *offset;
        } else if *recovered {
            self.counts.recovered += 1;
            self.counts.recovered_publications += publications.len() as u64;
            // It is told where it was; what follows leads to where the channel is.
            self.counts.silent_gaps += u64::from(*offset != position.offset);
        } else {
            self.counts.gaps += 1;
            // In another epoch nobody knows how many.
            self.counts.other_epochs += u64::from(position.epoch != **epoch);
            let missing = offset.saturating_sub(position.offset);
            position.announced += missing;
            self.counts.announced_missing += missing;
            position.offset = *offset;
        }
        position.is_known = true;
        position.epoch.clear();
        position.epoch.push_str(epoch);
        for &(offset, data) in publications {
            self.publication(now, no, None, data, offset);
        }
    }
}

impl Script for Recover {
    fn greeting(&mut self, net: &Net, no: ClientNo) -> Option<(String, u32)> {
        let position = &self.positions[no as usize];
        let since = Since { epoch: &position.epoch, offset: position.offset };
        let channel = self.subscriptions.shared(self.subscriptions.number(net.global(no)));
        Some((positioned_greeting(&channel, position.is_known.then_some(since)), 2))
    }

    fn comes_back(&self) -> bool {
        true
    }

    fn received(&mut self, _: &mut Net, _: &mut Io, now: Duration, no: ClientNo, item: Item<'_>) {
        match item {
            Item::Publication(channel, data, offset) => self.publication(now, no, Some(&channel), data, offset),
            Item::Subscribed(subscribed) => self.subscribed(now, no, &subscribed),
            Item::Message(_) => {}
        }
    }

    fn gone(&mut self, _: &mut Net, no: ClientNo) {
        // Those that fail at the start stay away: they have no position yet. At the end everybody leaves for good.
        if self.positions[no as usize].is_known {
            self.gone.push(no);
        }
    }

    fn go(&mut self, net: &mut Net, io: &mut Io, at: Duration) {
        self.listen.go(net, io, at);
        self.running = Some(Running { since: at, resets: 0, pauses: 0, storm_is_over: false });
    }

    fn poll(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let weather = self.rain(net, io, now);
        let errand = self.run_errands(net, io, now);
        [weather, errand].into_iter().flatten().min()
    }

    fn finish(&mut self) {
        // Calm from here on: who is away comes back, who is paused reads on.
        self.running = None;
    }

    fn is_settled(&self, net: &Net) -> bool {
        let Some(published) = self.listen.published() else { return true };
        // Who does not read cannot take leave either.
        let all_are_back = self.errands.is_empty() && self.gone.is_empty();
        let has_all =
            |no| net.is_ready(no) && self.listen.missing(no, published) <= self.positions[no as usize].announced;
        all_are_back && self.listen.members().all(has_all)
    }
}

pub(super) fn run(args: &RecoverArgs, stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let subscriptions = Subscriptions {
        channel: args.channel.clone(),
        channels: args.channels,
        personal: 0,
        tokens: Tokens::default(),
    };
    let weather = weather(args);
    let mut publishing = Publishing {
        api: Api::new(Dialect::Centrifugo, args.api.clone(), args.key.clone(), args.channels)
            .map_err(Failure::usage)?,
        channels: subscriptions.all_shared(),
        publishers: args.publishers,
        rate: args.rate,
        publications: (args.duration.as_secs_f64() * args.rate).ceil() as u64,
        burst: 1,
        size: args.size,
        run: fastrand::u32(..),
    };
    let published = Arc::new(OnceLock::new());
    let announced =
        Announced::of(&publishing, args.common.connections, &subscriptions, &published, stage.timeline.clone());
    let mut plan = stage.plan(Dialect::Centrifugo, subscriptions, Some(&args.open), u64::from(args.publishers))?;
    plan.ports = ports(args);
    let mut crew = stage.start(plan, |share| Recover::new(announced.clone(), weather.clone(), share))?;
    if !stage.open(&mut crew)? {
        // Nobody listens, and the reasons say why.
        publishing.publications = 0;
    }
    crew.go();
    stage.measure(&crew);
    let started = Instant::now();
    let was_published = publish(stage, &mut crew, publishing)?;
    let seconds = started.elapsed().as_secs_f64();
    let published = published.get_or_init(|| was_published);
    crew.finish();
    stage.settle(&mut crew)?;
    stage.measured(&crew);
    let remains = stage.close(crew)?;
    let (mut report, loops) = stage.report("recover", remains);
    report.seconds = seconds;
    judge(&mut report, loops, published, weather.seed);
    Ok(report)
}

fn weather(args: &RecoverArgs) -> Weather {
    Weather {
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        resets: args.resets,
        pauses: args.pauses,
        pause: args.pause,
        away: args.away,
        storm: args.storm.map(|after| Storm { after, away: args.storm_away }),
    }
}

/// Ports in use at one time, those in TIME_WAIT included. A reset leaves none behind, but the server may end connections too.
fn ports(args: &RecoverArgs) -> usize {
    let again = args.resets.unwrap_or(0.0) + args.pauses.unwrap_or(0.0);
    let storm = if args.storm.is_some() { args.common.connections as usize } else { 0 };
    args.common.connections as usize + storm + (again * TIME_WAIT_SECONDS).ceil() as usize
}

/// Puts into the report what came of it all.
fn judge(report: &mut Report, loops: Vec<Recover>, published: &crate::publisher::Published, seed: u64) {
    let mut recovery = RecoveryReport { seed, ..RecoveryReport::default() };
    let mut latencies = Latencies::default();
    let mut listens = Vec::new();
    let mut excused = 0;
    for recover in loops {
        for no in recover.listen.members() {
            let missing = recover.listen.missing(no, published);
            let announced = recover.positions[no as usize].announced;
            excused += missing.min(announced);
        }
        let counts = &recover.counts;
        recovery.resets += counts.resets;
        recovery.pauses += counts.pauses;
        recovery.recovered += counts.recovered;
        recovery.recovered_publications += counts.recovered_publications;
        recovery.gaps += counts.gaps;
        recovery.announced_missing += counts.announced_missing;
        recovery.other_epochs += counts.other_epochs;
        recovery.silent_gaps += counts.silent_gaps;
        latencies.merge(&recover.returning.finish());
        listens.push(recover.listen);
    }
    let verdict = Verdict::over(listens, published);
    fill(report, &verdict, published);
    // The verdict knows of no announcements, but of publications of which nobody told us whether they exist.
    report.lost = verdict.lost - excused;
    recovery.latency_us = latencies.percentiles();
    // The server may end slow clients; they came back, or publications are missing and counted.
    recovery.ended_by_server = report.disconnected;
    report.disconnected = 0;
    report.recovery = Some(recovery);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::Loops;
    use crate::payload::{self, Mark, Origin};

    const RUN: u32 = 7;
    const SIZE: usize = 64;

    /// One client that is a member of one channel.
    fn one() -> Recover {
        let announced = Announced {
            run: RUN,
            size: SIZE,
            publishers: 1,
            clients: 1,
            subscriptions: Subscriptions {
                channel: "c".to_owned(),
                channels: 1,
                personal: 0,
                tokens: Tokens::default(),
            },
            names: Arc::new(vec!["c".to_owned()]),
            published: Arc::default(),
            timeline: None,
        };
        let calm =
            Weather { seed: 1, resets: None, pauses: None, pause: Duration::ZERO, away: Duration::ZERO, storm: None };
        let share = Share { number: 0, of: Loops::ONE.count };
        Recover::new(announced, calm, share)
    }

    fn data(sequence: u32) -> Vec<u8> {
        let mut data = Vec::new();
        let origin = Origin { run: RUN, publisher: 0, channel: 0 };
        payload::write_data(&mut data, origin, Mark { sequence, at: Duration::ZERO }, SIZE);
        data
    }

    /// A subscribe reply with these publications, whose offsets are their numbers.
    fn reply(recover: &mut Recover, recovered: bool, epoch: &str, offset: u64, numbers: &[u32]) {
        let all: Vec<Vec<u8>> = numbers.iter().map(|&number| data(number)).collect();
        let publications = numbers.iter().zip(&all).map(|(&number, data)| (u64::from(number), &data[..])).collect();
        let subscribed = Subscribed { recovered, epoch: epoch.into(), offset, publications };
        recover.subscribed(Duration::ZERO, 0, &subscribed);
    }

    fn live(recover: &mut Recover, numbers: &[u32]) {
        for &number in numbers {
            recover.publication(Duration::ZERO, 0, Some("c"), &data(number), u64::from(number));
        }
    }

    /// Subscribed at the start, received two, and away then.
    fn away_after_two() -> Recover {
        let mut recover = one();
        reply(&mut recover, false, "e", 0, &[]);
        live(&mut recover, &[1, 2]);
        recover
    }

    #[test]
    fn who_recovers_everything_has_no_gap() {
        let mut recover = away_after_two();
        reply(&mut recover, true, "e", 2, &[3, 4]);
        live(&mut recover, &[5]);
        let counts = &recover.counts;
        assert_eq!((counts.silent_gaps, counts.recovered, counts.recovered_publications, counts.gaps), (0, 1, 2, 0));
        assert_eq!(recover.positions[0].offset, 5);
    }

    #[test]
    fn a_publication_left_out_of_a_recovery_or_behind_it_or_sent_twice_is_found() {
        for (recovered, behind) in
            [(&[4][..], &[5][..]), (&[3], &[5]), (&[3, 4], &[4, 5]), (&[2, 3, 4], &[5]), (&[4, 3], &[5])]
        {
            let mut recover = away_after_two();
            reply(&mut recover, true, "e", 2, recovered);
            live(&mut recover, behind);
            assert!(recover.counts.silent_gaps > 0, "{recovered:?} {behind:?}");
        }
    }

    #[test]
    fn a_gap_that_is_told_is_none_of_the_silent_ones_and_another_epoch_is_counted() {
        for (epoch, others) in [("e", 0), ("f", 1)] {
            let mut recover = away_after_two();
            reply(&mut recover, false, epoch, 6, &[]);
            live(&mut recover, &[7]);
            let counts = &recover.counts;
            assert_eq!((counts.silent_gaps, counts.gaps, counts.announced_missing), (0, 1, 4));
            assert_eq!(counts.other_epochs, others);
        }
    }
}
