//! Opens and closes clients at a rate.

use super::{Watch, check_files, plan, report};
use crate::cli::ChurnArgs;
use crate::crew::{Crew, Failure};
use crate::fleet::{ClientNo, Event, Letter, Net, Script};
use crate::progress::Progress;
use crate::report::Report;
use crate::sources::TIME_WAIT_SECONDS;
use io::{Clock, Io};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Clients that come, are let in, and leave.
#[derive(Debug)]
pub(super) struct Churn {
    rate: f64,
    /// Clients that are not there now.
    free: Vec<ClientNo>,
    clients: usize,
    running: Option<Duration>,
    /// Clients that were sent.
    pub(super) attempts: u64,
}

impl Churn {
    pub(super) fn new(rate: f64, clients: u32) -> Churn {
        Churn { rate, free: (0..clients).rev().collect(), clients: clients as usize, running: None, attempts: 0 }
    }

    /// Ports that this many clients per second use, those in TIME_WAIT included.
    pub(super) fn ports(rate: f64, clients: u32) -> usize {
        clients as usize + (rate * TIME_WAIT_SECONDS).ceil() as usize
    }
}

impl Script for Churn {
    fn ready(&mut self, net: &mut Net, io: &mut Io, _: Duration, no: ClientNo) {
        net.close(io, no);
    }

    fn gone(&mut self, _: &mut Net, no: ClientNo) {
        self.free.push(no);
    }

    fn go(&mut self, _: &mut Net, _: &mut Io, now: Duration) {
        self.running = Some(now);
    }

    fn poll(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let started = self.running?;
        loop {
            let at = started + Duration::from_secs_f64(self.attempts as f64 / self.rate);
            if at > now {
                return Some(at);
            }
            // With all of them under way the next one comes late, and its latency counts from when it was due.
            let no = self.free.pop()?;
            self.attempts += 1;
            if !net.open(io, no, at) {
                self.free.push(no);
            }
        }
    }

    fn finish(&mut self) {
        self.running = None;
    }

    fn is_settled(&self, _: &Net) -> bool {
        self.free.len() == self.clients
    }
}

pub(super) fn run(args: &ChurnArgs) -> Result<Report, Failure> {
    let common = &args.common;
    check_files(common.connections, 0)?;
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let mut plan = plan(common, args.dialect, subscriptions, None)?;
    plan.ports = Churn::ports(args.rate, common.connections);
    let mut watch = Watch::new(common.server_pid)?;
    let mut crew = Crew::start(plan, Churn::new(args.rate, common.connections), Clock::start())?;
    crew.wait(Event::Opened, None, |_| {})?;
    watch.start(&crew);
    let started = Instant::now();
    crew.post(Letter::Go);
    let mut progress = Progress::begin("churning", args.duration.as_secs());
    let look = |gauges: &crate::fleet::Gauges, progress: &mut Progress| {
        let (opened, failed) = (gauges.opened.load(Relaxed), gauges.failed.load(Relaxed));
        progress.at(started.elapsed().as_secs(), &format!("s, {opened} accepted, {failed} failed"));
    };
    crew.wait(Event::Empty, Some(started + args.duration), |gauges| look(gauges, &mut progress))?;
    crew.post(Letter::Finish);
    let seconds = started.elapsed().as_secs_f64();
    crew.wait(Event::Settled, None, |gauges| look(gauges, &mut progress))?;
    drop(progress);
    watch.end(&crew);
    let outcome = crew.end()?;
    let accepted = outcome.tally.opened;
    let mut report = report("churn", outcome.tally, &outcome.pings, &watch);
    report.sent = outcome.script.attempts;
    report.received = accepted;
    report.seconds = seconds;
    report.latency_us = report.opening_us;
    Ok(report)
}
