//! Opens and closes clients at a rate.

use super::stage::Stage;
use crate::cli::ChurnArgs;
use crate::crew::{Crew, Failure};
use crate::fleet::{ClientNo, Event, Net, Reading, Script};
use crate::loops::Share;
use crate::progress::{Count, Progress};
use crate::report::Report;
use crate::sources::TIME_WAIT_SECONDS;
use io::Io;
use std::time::{Duration, Instant};

/// The clients of one loop, which come, are let in, and leave.
#[derive(Debug)]
pub(super) struct Churn {
    /// Of all loops together.
    rate: f64,
    share: Share,
    /// Clients that are not there now.
    free: Vec<ClientNo>,
    clients: usize,
    running: Option<Duration>,
    /// Clients that were sent.
    pub(super) attempts: u64,
}

impl Churn {
    /// One loop's share of so many clients.
    pub(super) fn new(rate: f64, clients: u32, share: Share) -> Churn {
        let clients = share.len(clients);
        Churn { rate, share, free: (0..clients).rev().collect(), clients: clients as usize, running: None, attempts: 0 }
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

    fn go(&mut self, _: &mut Net, _: &mut Io, at: Duration) {
        self.running = Some(at);
    }

    fn poll(&mut self, net: &mut Net, io: &mut Io, now: Duration) -> Option<Duration> {
        let started = self.running?;
        loop {
            let at = started + Duration::from_secs_f64(self.share.nth(self.attempts) as f64 / self.rate);
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

pub(super) fn run(args: &ChurnArgs, stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let clients = args.common.connections;
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let mut plan = stage.plan(args.dialect, subscriptions, None, 0)?;
    plan.ports = Churn::ports(args.rate, clients);
    let mut crew = stage.start(plan, |share| Churn::new(args.rate, clients, share))?;
    crew.wait(Event::Opened, None, |_| {})?;
    stage.measure(&crew);
    let seconds = churn(args.duration, stage, &mut crew)?;
    stage.measured(&crew);
    let remains = stage.close(crew)?;
    let accepted = remains.tally.opened;
    let (mut report, loops) = stage.report("churn", remains);
    report.sent = loops.iter().map(|churn| churn.attempts).sum();
    report.received = accepted;
    report.seconds = seconds;
    report.latency_us = report.opening_us;
    Ok(report)
}

/// Lets clients come, and the last ones leave. Returns for how many seconds they came.
fn churn(duration: Duration, stage: &Stage<'_>, crew: &mut Crew<Churn>) -> Result<f64, Failure> {
    let started = Instant::now();
    crew.go();
    let mut progress = stage.timed("churning", duration);
    let look = |&Reading { opened, failed, .. }: &Reading, progress: &mut Progress| {
        let counts = [Count::Growing("accepted", opened), Count::Still("failed", failed)];
        progress.at(started.elapsed().as_secs(), &counts);
    };
    crew.wait(Event::Empty, Some(started + duration), |reading| look(reading, &mut progress))?;
    crew.finish();
    let seconds = started.elapsed().as_secs_f64();
    crew.wait(Event::Settled, None, |reading| look(reading, &mut progress))?;
    Ok(seconds)
}
