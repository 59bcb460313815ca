//! Sends messages and checks that each comes back, once, in order, as it was.

use super::no_subscriptions;
use super::stage::Stage;
use crate::cli::EchoArgs;
use crate::crew::Failure;
use crate::dialect::Dialect;
use crate::fleet::{ClientNo, Event, Item, Net, Script};
use crate::latency::{Latencies, Recorder};
use crate::loops::Share;
use crate::payload::{self, Mark};
use crate::progress::Count;
use crate::report::Report;
use crate::timeline::{Series, Timeline};
use crate::track::{Arrival, Track};
use io::Io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Each client has so many under way: one that comes back releases the next.
    Window(u32),
    /// So many per second, all clients together, on a schedule that waits for nobody.
    Rate(f64),
}

/// The clients of one loop, which echo.
#[derive(Debug)]
pub(super) struct Echo {
    pace: Pace,
    size: usize,
    share: Share,
    /// Clients of all loops.
    clients: u32,
    lanes: Vec<Lane>,
    /// When the measured part began; `None` before it and after its end.
    running: Option<Duration>,
    /// Messages of this loop that were due by rate.
    due: u64,
    echoed: Echoed,
    latencies: Recorder,
    buffer: Vec<u8>,
}

/// One client's messages.
#[derive(Clone, Default, Debug)]
struct Lane {
    /// Number of the last one.
    sent: u32,
    track: Track,
}

/// What became of all messages.
#[derive(Clone, Default, Debug)]
pub(super) struct Echoed {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Did not come back.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) foreign: u64,
    pub(super) latencies: Latencies,
}

impl Echoed {
    /// Of all loops together.
    pub(super) fn of(loops: Vec<Echo>) -> Echoed {
        let mut all = Echoed::default();
        for echo in loops {
            all.sent += echo.echoed.sent;
            all.received += echo.echoed.received;
            all.lost += echo.lanes.iter().map(|lane| lane.track.missing(lane.sent)).sum::<u64>();
            all.duplicated += echo.echoed.duplicated;
            all.out_of_order += echo.echoed.out_of_order;
            all.foreign += echo.echoed.foreign;
            all.latencies.merge(&echo.latencies.finish());
        }
        all
    }
}

impl Echo {
    /// One loop's share of so many clients.
    pub(super) fn new(pace: Pace, size: usize, clients: u32, share: Share, timeline: Option<&Arc<Timeline>>) -> Echo {
        Echo {
            pace,
            size,
            share,
            clients,
            lanes: vec![Lane::default(); share.len(clients) as usize],
            running: None,
            due: 0,
            echoed: Echoed::default(),
            latencies: Recorder::new(timeline, Series::Latency),
            buffer: Vec::new(),
        }
    }

    /// When this loop's message number `due` is to be sent: clients take turns, over all loops.
    fn due_at(&self, started: Duration, due: u64, rate: f64) -> Duration {
        let len = self.lanes.len() as u64;
        let turn = due / len * u64::from(self.clients) + self.share.nth(due % len);
        started + Duration::from_secs_f64(turn as f64 / rate)
    }

    fn send(&mut self, net: &mut Net, io: &mut Io, no: ClientNo, at: Duration) {
        let lane = &mut self.lanes[no as usize];
        lane.sent += 1;
        self.echoed.sent += 1;
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
            Item::Publication(..) | Item::Subscribed(_) => None,
        };
        let Some(mark) = mark.filter(|mark| (1..=lane.sent).contains(&mark.sequence)) else {
            self.echoed.foreign += 1;
            return;
        };
        match lane.track.arrived(mark.sequence) {
            Arrival::Duplicate => {
                self.echoed.duplicated += 1;
                return;
            }
            Arrival::OutOfOrder => self.echoed.out_of_order += 1,
            Arrival::InOrder => {}
        }
        self.echoed.received += 1;
        self.latencies.record(now, now.saturating_sub(mark.at));
        if let (Pace::Window(_), Some(_)) = (self.pace, self.running)
            && net.is_ready(no)
        {
            self.send(net, io, no, now);
        }
    }

    fn go(&mut self, net: &mut Net, io: &mut Io, at: Duration) {
        self.running = Some(at);
        let Pace::Window(window) = self.pace else { return };
        for no in 0..net.len() {
            // All of them in one write: the loop sends what waits once per tick.
            for _ in 0..window {
                if net.is_ready(no) {
                    self.send(net, io, no, at);
                }
            }
        }
    }

    fn poll(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let (Pace::Rate(rate), Some(started)) = (self.pace, self.running) else { return None };
        loop {
            let at = self.due_at(started, self.due, rate);
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

pub(super) fn run(args: &EchoArgs, stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let clients = args.common.connections;
    let pace = args.rate.map_or(Pace::Window(args.pipeline), Pace::Rate);
    let plan = stage.plan(Dialect::None, no_subscriptions(), Some(&args.open), 0)?;
    let timeline = stage.timeline.clone();
    let mut crew = stage.start(plan, |share| Echo::new(pace, args.size, clients, share, timeline.as_ref()))?;
    let opened = stage.open(&mut crew)?;
    stage.measure(&crew);
    let started = Instant::now();
    crew.go();
    if opened {
        let mut progress = stage.timed("echoing", args.duration);
        crew.wait(Event::Empty, Some(started + args.duration), |reading| {
            progress.at(started.elapsed().as_secs(), &[Count::Growing("echoes", reading.received)]);
        })?;
    }
    crew.finish();
    let seconds = started.elapsed().as_secs_f64();
    stage.settle(&mut crew)?;
    stage.measured(&crew);
    let remains = stage.close(crew)?;
    let (mut report, loops) = stage.report("echo", remains);
    let echoed = Echoed::of(loops);
    report.sent = echoed.sent;
    report.received = echoed.received;
    report.lost = echoed.lost;
    report.duplicated = echoed.duplicated;
    report.out_of_order = echoed.out_of_order;
    report.foreign = echoed.foreign;
    report.seconds = seconds;
    report.latency_us = echoed.latencies.percentiles();
    Ok(report)
}
