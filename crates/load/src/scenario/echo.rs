//! Sends messages and checks that each comes back, once, in order, as it was.

use super::{Watch, check_files, no_subscriptions, open, plan, report, settle};
use crate::cli::EchoArgs;
use crate::crew::{Crew, Failure};
use crate::dialect::Dialect;
use crate::fleet::{ClientNo, Event, Item, Letter, Net, Script};
use crate::latency::Latencies;
use crate::payload::{self, Mark};
use crate::progress::Progress;
use crate::report::Report;
use crate::track::{Arrival, Track};
use io::{Clock, Io};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Each client has so many under way: one that comes back releases the next.
    Window(u32),
    /// So many per second, all clients together, on a schedule that waits for nobody.
    Rate(f64),
}

/// Clients that echo.
#[derive(Debug)]
pub(super) struct Echo {
    pace: Pace,
    size: usize,
    lanes: Vec<Lane>,
    /// When the measured part began; `None` before it and after its end.
    running: Option<Duration>,
    /// Messages that were due by rate.
    due: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) foreign: u64,
    pub(super) latencies: Latencies,
    buffer: Vec<u8>,
}

/// One client's messages.
#[derive(Clone, Default, Debug)]
struct Lane {
    /// Number of the last one.
    sent: u32,
    track: Track,
}

impl Echo {
    pub(super) fn new(pace: Pace, size: usize, clients: u32) -> Echo {
        Echo {
            pace,
            size,
            lanes: vec![Lane::default(); clients as usize],
            running: None,
            due: 0,
            sent: 0,
            received: 0,
            duplicated: 0,
            out_of_order: 0,
            foreign: 0,
            latencies: Latencies::new(),
            buffer: Vec::new(),
        }
    }

    /// Messages that did not come back.
    pub(super) fn lost(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.track.missing(lane.sent)).sum()
    }

    fn send(&mut self, net: &mut Net, io: &mut Io, no: ClientNo, at: Duration) {
        let lane = &mut self.lanes[no as usize];
        lane.sent += 1;
        self.sent += 1;
        self.buffer.clear();
        payload::write_echo(&mut self.buffer, Mark { sequence: lane.sent, at }, self.size);
        net.send(io, no, &self.buffer);
    }
}

impl Script for Echo {
    fn received(&mut self, net: &mut Net, io: &mut Io, now: Duration, no: ClientNo, item: Item<'_>) {
        let lane = &mut self.lanes[no as usize];
        let mark = match item {
            Item::Message(message) => payload::read_echo(message, self.size),
            Item::Publication(..) => None,
        };
        let Some(mark) = mark.filter(|mark| (1..=lane.sent).contains(&mark.sequence)) else {
            self.foreign += 1;
            return;
        };
        match lane.track.arrived(mark.sequence) {
            Arrival::Duplicate => {
                self.duplicated += 1;
                return;
            }
            Arrival::OutOfOrder => self.out_of_order += 1,
            Arrival::InOrder => {}
        }
        self.received += 1;
        self.latencies.record(now.saturating_sub(mark.at));
        if let (Pace::Window(_), Some(_)) = (self.pace, self.running)
            && net.is_ready(no)
        {
            self.send(net, io, no, now);
        }
    }

    fn go(&mut self, net: &mut Net, io: &mut Io, now: Duration) {
        self.running = Some(now);
        let Pace::Window(window) = self.pace else { return };
        for no in 0..net.len() {
            for _ in 0..window {
                if net.is_ready(no) {
                    self.send(net, io, no, now);
                }
            }
        }
    }

    fn poll(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let (Pace::Rate(rate), Some(started)) = (self.pace, self.running) else { return None };
        loop {
            let at = started + Duration::from_secs_f64(self.due as f64 / rate);
            if at > now {
                return Some(at);
            }
            let no = (self.due % u64::from(net.len())) as ClientNo;
            self.due += 1;
            if net.is_ready(no) {
                self.send(net, io, no, at);
            }
        }
    }

    fn finish(&mut self) {
        self.running = None;
    }

    fn is_settled(&self, net: &Net) -> bool {
        let awaits = |(no, lane): (usize, &Lane)| net.is_ready(no as ClientNo) && lane.track.missing(lane.sent) > 0;
        !self.lanes.iter().enumerate().any(awaits)
    }
}

pub(super) fn run(args: &EchoArgs) -> Result<Report, Failure> {
    let common = &args.common;
    check_files(common.connections, 0)?;
    let pace = args.rate.map_or(Pace::Window(args.pipeline), Pace::Rate);
    let plan = plan(common, Dialect::None, no_subscriptions(), Some(args.open.open_rate))?;
    let mut watch = Watch::new(common.server_pid)?;
    let mut crew = Crew::start(plan, Echo::new(pace, args.size, common.connections), Clock::start())?;
    let opened = open(&mut crew, common.connections)?;
    watch.start(&crew);
    let started = Instant::now();
    crew.post(Letter::Go);
    if opened {
        let mut progress = Progress::begin("echoing", args.duration.as_secs());
        crew.wait(Event::Empty, Some(started + args.duration), |gauges| {
            let received = gauges.received.load(Relaxed);
            let rate = received as f64 / started.elapsed().as_secs_f64();
            progress.at(started.elapsed().as_secs(), &format!("s, {received} echoes, {rate:.0}/s"));
        })?;
    }
    crew.post(Letter::Finish);
    let seconds = started.elapsed().as_secs_f64();
    settle(&mut crew, common.drain)?;
    watch.end(&crew);
    let outcome = crew.end()?;
    let echo = outcome.script;
    let mut report = report("echo", outcome.tally, &outcome.pings, &watch);
    report.sent = echo.sent;
    report.received = echo.received;
    report.lost = echo.lost();
    report.duplicated = echo.duplicated;
    report.out_of_order = echo.out_of_order;
    report.foreign = echo.foreign;
    report.seconds = seconds;
    report.latency_us = echo.latencies.percentiles();
    Ok(report)
}
