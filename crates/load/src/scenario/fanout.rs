//! Subscribes clients, publishes through the server API, and checks that each client gets each publication once, in order.

use super::{Watch, check_files, open, plan, probe, report, settle};
use crate::cli::FanoutArgs;
use crate::crew::{Crew, Failure};
use crate::dialect::{Dialect, Subscriptions};
use crate::fleet::{ClientNo, Event, Item, Letter, Net, Script};
use crate::latency::Latencies;
use crate::payload;
use crate::progress::Progress;
use crate::publisher::{Published, Publishers, Publishing};
use crate::report::{Probes, PublishingReport, Report};
use crate::track::{Arrival, Track};
use io::{Clock, Io};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Clients that listen.
#[derive(Debug)]
struct Listen {
    run: u32,
    size: usize,
    publishers: usize,
    subscriptions: Subscriptions,
    /// Names of the shared channels.
    names: Arc<Vec<String>>,
    /// By client, then by publisher.
    tracks: Vec<Track>,
    /// By client.
    states: Vec<Listener>,
    latencies: Latencies,
    received: u64,
    duplicated: u64,
    out_of_order: u64,
    misdelivered: u64,
    foreign: u64,
    /// What was published; set before the letter to finish.
    published: Arc<OnceLock<Published>>,
}

#[derive(Clone, Default, Debug)]
struct Listener {
    /// It was ready when publishing began, so it is to get everything.
    is_member: bool,
    /// A digest of everything it got, in the order in which it came. Members of one channel must agree, whichever publisher
    /// was numbered first.
    order: u64,
}

/// What was wrong, all clients together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Verdict {
    lost: u64,
    /// Clients that got the same publications as others of their channel, in another order.
    disordered: u64,
}

impl Listen {
    fn new(
        args: &FanoutArgs,
        run: u32,
        subscriptions: Subscriptions,
        names: Arc<Vec<String>>,
        published: Arc<OnceLock<Published>>,
    ) -> Listen {
        let (clients, publishers) = (args.common.connections as usize, args.publishers as usize);
        Listen {
            run,
            size: args.size,
            publishers,
            subscriptions,
            names,
            tracks: vec![Track::default(); clients * publishers],
            states: vec![Listener::default(); clients],
            latencies: Latencies::new(),
            received: 0,
            duplicated: 0,
            out_of_order: 0,
            misdelivered: 0,
            foreign: 0,
            published,
        }
    }

    fn tracks(&self, no: ClientNo) -> &[Track] {
        &self.tracks[no as usize * self.publishers..][..self.publishers]
    }

    /// Accepted publications that a client lacks.
    fn missing(&self, no: ClientNo, published: &Published) -> u64 {
        let channel = self.subscriptions.number(no);
        let tracks = self.tracks(no).iter().zip(&published.last);
        let missing: u64 = tracks.map(|(track, last)| track.missing(last[channel as usize])).sum();
        let unknown = published.unknown.iter().filter(|unknown| unknown.channel == channel);
        let lacking = unknown.filter(|unknown| self.tracks(no)[unknown.publisher as usize].lacks(unknown.sequence));
        missing - lacking.count() as u64
    }

    fn members(&self) -> impl Iterator<Item = ClientNo> {
        (0..self.states.len() as ClientNo).filter(|&no| self.states[no as usize].is_member)
    }

    fn judge(&self, published: &Published) -> Verdict {
        let mut verdict = Verdict { lost: self.members().map(|no| self.missing(no, published)).sum(), disordered: 0 };
        // Nobody told us of these whether they were published; but if one member got it, all were to get it.
        for unknown in &published.unknown {
            let members = self.members().filter(|&no| self.subscriptions.number(no) == unknown.channel);
            let lacks = members.map(|no| self.tracks(no)[unknown.publisher as usize].lacks(unknown.sequence));
            let (lacking, having): (Vec<bool>, Vec<bool>) = lacks.partition(|&lacks| lacks);
            if !having.is_empty() {
                verdict.lost += lacking.len() as u64;
            }
        }
        if verdict.lost + self.duplicated + self.out_of_order == 0 {
            verdict.disordered = self.disordered();
        }
        verdict
    }

    /// Members that disagree with most of their channel on the order. Only of use where all got the same.
    fn disordered(&self) -> u64 {
        let mut orders: HashMap<u32, HashMap<u64, u64>> = HashMap::new();
        for no in self.members() {
            let channel = orders.entry(self.subscriptions.number(no)).or_default();
            *channel.entry(self.states[no as usize].order).or_default() += 1;
        }
        orders.values().map(|counts| counts.values().sum::<u64>() - counts.values().max().copied().unwrap_or(0)).sum()
    }
}

impl Script for Listen {
    fn go(&mut self, net: &mut Net, _: &mut Io, _: Duration) {
        for (no, state) in self.states.iter_mut().enumerate() {
            state.is_member = net.is_ready(no as ClientNo);
        }
    }

    fn received(&mut self, _: &mut Net, _: &mut Io, now: Duration, no: ClientNo, item: Item<'_>) {
        let Item::Publication(channel, data) = item else {
            self.foreign += 1;
            return;
        };
        let ours = payload::read_data(data, self.size).filter(|(origin, mark)| {
            origin.run == self.run && usize::from(origin.publisher) < self.publishers && mark.sequence > 0
        });
        let Some((origin, mark)) = ours else {
            self.foreign += 1;
            return;
        };
        let number = self.subscriptions.number(no);
        if origin.channel != number || channel != self.names[number as usize] {
            self.misdelivered += 1;
            return;
        }
        let track = &mut self.tracks[no as usize * self.publishers + usize::from(origin.publisher)];
        match track.arrived(mark.sequence) {
            Arrival::Duplicate => {
                self.duplicated += 1;
                return;
            }
            Arrival::OutOfOrder => self.out_of_order += 1,
            Arrival::InOrder => {}
        }
        self.received += 1;
        self.latencies.record(now.saturating_sub(mark.at));
        let state = &mut self.states[no as usize];
        let item = u64::from(origin.publisher) << 32 | u64::from(mark.sequence);
        // An odd factor near 2^64 divided by the golden ratio spreads every bit upwards; the rotation brings it down again.
        state.order = (state.order.rotate_left(23) ^ item).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn is_settled(&self, net: &Net) -> bool {
        let Some(published) = self.published.get() else { return true };
        !self.members().any(|no| net.is_ready(no) && self.missing(no, published) > 0)
    }
}

pub(super) fn run(args: &FanoutArgs) -> Result<Report, Failure> {
    let common = &args.common;
    if args.dialect == Dialect::None {
        return Err(Failure::usage("--dialect none subscribes to nothing: fanout needs centrifugo or plain"));
    }
    if args.baseline.is_some() && !probe::any(args) {
        return Err(Failure::usage("--baseline compares probes: give --echo-probe or --accept-probe"));
    }
    check_files(common.connections, u64::from(args.publishers) + probe::FILES)?;
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let names = Arc::new((0..subscriptions.channels).map(|number| subscriptions.shared(number)).collect::<Vec<_>>());
    let (clock, run, published) = (Clock::start(), fastrand::u32(..), Arc::default());
    let listen = Listen::new(args, run, subscriptions.clone(), Arc::clone(&names), Arc::clone(&published));
    let plan = plan(common, args.dialect, subscriptions, Some(args.open.open_rate))?;
    let mut watch = Watch::new(common.server_pid)?;
    let mut crew = Crew::start(plan, listen, clock)?;
    let opened = open(&mut crew, common.connections)?;
    crew.post(Letter::Go);
    let idle = if opened { idle_probes(args, clock, &mut crew)? } else { None };
    let probes = if opened && probe::any(args) { Some(probe::start(args, clock)?) } else { None };
    watch.start(&crew);
    let started = Instant::now();
    let was_published = publish(args, opened, run, &names, clock, &mut crew)?;
    let seconds = started.elapsed().as_secs_f64();
    let published = published.get_or_init(|| was_published);
    crew.post(Letter::Finish);
    settle(&mut crew, common.drain)?;
    watch.end(&crew);
    let loaded = probes.map(probe::Running::stop).transpose()?;
    let outcome = crew.end()?;
    let mut report = report("fanout", outcome.tally, &outcome.pings, &watch);
    report.seconds = seconds;
    report.probes = loaded.map(|loaded| Probes { idle, loaded });
    fill(&mut report, &outcome.script, published);
    Ok(report)
}

fn fill(report: &mut Report, listen: &Listen, published: &Published) {
    let verdict = listen.judge(published);
    report.sent = published.accepted;
    report.received = listen.received;
    report.lost = verdict.lost;
    report.duplicated = listen.duplicated;
    report.out_of_order = listen.out_of_order + verdict.disordered;
    report.misdelivered = listen.misdelivered;
    report.foreign = listen.foreign;
    report.latency_us = listen.latencies.percentiles();
    report.reasons.merge(&published.reasons);
    report.publishing = Some(PublishingReport {
        accepted: published.accepted,
        refused: published.refused,
        unknown: published.unknown.len() as u64,
        latency_us: published.latencies.percentiles(),
    });
}

/// Lets the probes run without a publication.
fn idle_probes(
    args: &FanoutArgs,
    clock: Clock,
    crew: &mut Crew<Listen>,
) -> Result<Option<crate::report::ProbeReport>, Failure> {
    let Some(baseline) = args.baseline else { return Ok(None) };
    let probes = probe::start(args, clock)?;
    let started = Instant::now();
    let mut progress = Progress::begin("baseline", baseline.as_secs());
    crew.wait(Event::Empty, Some(started + baseline), |_| progress.at(started.elapsed().as_secs(), "s"))?;
    probes.stop().map(Some)
}

/// Publishes everything; nothing if there is nobody to listen.
fn publish(
    args: &FanoutArgs,
    opened: bool,
    run: u32,
    names: &[String],
    clock: Clock,
    crew: &mut Crew<Listen>,
) -> Result<Published, Failure> {
    let wanted = args.publications.map_or_else(|| (args.duration.as_secs_f64() * args.rate).ceil() as u64, u64::from);
    let plan = Publishing {
        api: args.api.clone(),
        key: args.key.clone(),
        channels: names.to_vec(),
        publishers: args.publishers,
        rate: args.rate,
        publications: if opened { wanted } else { 0 },
        size: args.size,
        run,
    };
    let publishers = Publishers::start(plan, clock)
        .map_err(|error| Failure::runtime(format!("cannot start a publisher: {error}")))?;
    let mut progress = Progress::begin("publishing", wanted);
    while opened && !publishers.are_done() {
        let soon = Instant::now() + Duration::from_millis(20);
        let empty = crew.wait(Event::Empty, Some(soon), |gauges| {
            let (received, lost) = (gauges.received.load(Relaxed), gauges.lost.load(Relaxed));
            progress.at(publishers.done.load(Relaxed), &format!("{received} received, {lost} clients lost"));
        })?;
        if empty {
            publishers.stop.store(true, Relaxed);
        }
    }
    Ok(publishers.join())
}
