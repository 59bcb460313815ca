//! Where a scenario is played: what all of them do alike with their large fleet, from the files it needs to its report.

use super::watch::{Sampler, Watch};
use crate::cli::{CommonArgs, OpenArgs};
use crate::crew::{Crew, Failure, Remains};
use crate::dialect::{Dialect, Subscriptions};
use crate::fleet::{Event, Plan, Reading, Script};
use crate::loops::{Files, Loops, Share};
use crate::progress::{Count, Progress};
use crate::report::{Pings, Report, page};
use crate::timeline::Timeline;
use crate::tls;
use io::Clock;
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the sources of the large fleet begin. 127.0.0.1 is left to everybody else on the machine.
const SOURCE_FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// TLS of those who connect to the server's URL, if any.
pub(super) fn tls(common: &CommonArgs) -> Result<Option<tls::Common>, Failure> {
    tls::Common::new(&common.url, common.ca.as_deref(), common.resume).map_err(Failure::usage)
}

/// The stage of one run.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) common: &'a CommonArgs,
    pub(super) clock: Clock,
    /// Where plots are wanted.
    pub(super) timeline: Option<Arc<Timeline>>,
    /// Where to.
    page: Option<File>,
    watch: Watch,
    sampler: Option<Sampler>,
    loops: Loops,
}

impl<'a> Stage<'a> {
    pub(super) fn new(common: &'a CommonArgs) -> Result<Stage<'a>, Failure> {
        // Better now than after the run.
        let page = common.report.as_ref().map(File::create).transpose();
        let page = page.map_err(|error| Failure::usage(format!("--report: {error}")))?;
        Ok(Stage {
            common,
            clock: Clock::start(),
            timeline: page.is_some().then(Arc::default),
            page,
            watch: Watch::new(common.server_pid)?,
            sampler: None,
            loops: Loops::ONE,
        })
    }

    /// The plan of the large fleet. Beside it, `others` files are needed. Without a rate its script opens the clients.
    pub(super) fn plan(
        &mut self,
        dialect: Dialect,
        subscriptions: Subscriptions,
        open: Option<&OpenArgs>,
        others: u64,
    ) -> Result<Plan, Failure> {
        let common = self.common;
        let endpoint = common.url.or_path(dialect.path());
        dialect.check(&endpoint.target, &subscriptions, common.connections).map_err(Failure::usage)?;
        self.loops = loops(common, others)?;
        let tls = tls(common)?;
        Ok(Plan {
            name: "clients",
            endpoint,
            tls,
            dialect,
            subscriptions,
            clients: common.connections,
            loops: self.loops,
            open_rate: open.map(|open| open.open_rate),
            timeout: common.timeout,
            drain: common.drain,
            source: SOURCE_FIRST,
            ports: common.connections as usize,
            timeline: self.timeline.clone(),
        })
    }

    /// Starts the large fleet.
    pub(super) fn start<S: Script>(&mut self, plan: Plan, script: impl FnMut(Share) -> S) -> Result<Crew<S>, Failure> {
        let crew = Crew::start(plan, script, self.clock)?;
        if let Some(timeline) = &self.timeline {
            let (gauges, pid) = (crew.gauges().to_vec(), self.common.server_pid);
            let sampler = Sampler::start(Arc::clone(timeline), gauges, pid, self.clock);
            self.sampler = Some(sampler.map_err(|error| Failure::runtime(format!("cannot sample: {error}")))?);
        }
        Ok(crew)
    }

    /// Waits until all clients are ready or have failed. Whether there is one that is.
    pub(super) fn open<S: Script>(&self, crew: &mut Crew<S>) -> Result<bool, Failure> {
        let mut progress = self.counting("opening", u64::from(self.common.connections));
        crew.wait(Event::Opened, None, |&Reading { opened, failed, .. }| {
            progress.at(opened + failed, &[Count::Growing("opened", opened), Count::Still("failed", failed)]);
        })?;
        Ok(crew.reading().ready > 0)
    }

    /// The measured part begins.
    pub(super) fn measure<S: Script>(&mut self, crew: &Crew<S>) {
        self.watch.start(crew);
    }

    /// The measured part has ended.
    pub(super) fn measured<S: Script>(&mut self, crew: &Crew<S>) {
        self.watch.end(crew);
    }

    /// Waits until nothing is awaited any more.
    pub(super) fn settle<S: Script>(&self, crew: &mut Crew<S>) -> Result<(), Failure> {
        let started = Instant::now();
        let mut progress = self.timed("draining", self.common.drain);
        crew.wait(Event::Settled, None, |reading| {
            progress.at(started.elapsed().as_secs(), &[Count::Growing("received", reading.received)]);
        })?;
        Ok(())
    }

    /// Lets all clients leave.
    pub(super) fn close<S: Script>(&mut self, crew: Crew<S>) -> Result<Remains<S>, Failure> {
        let ready = crew.reading().ready;
        let mut progress = self.counting("closing", ready);
        let remains = crew.end(|reading| {
            let left = ready.saturating_sub(reading.ready);
            progress.at(left, &[Count::Growing("closed", left)]);
        })?;
        self.sampler = None;
        Ok(remains)
    }

    /// A part of the run that is done when `total` things are.
    pub(super) fn counting(&self, label: &'static str, total: u64) -> Progress {
        self.begin(label);
        Progress::counting(label, total)
    }

    /// A part of the run that is over after so long.
    pub(super) fn timed(&self, label: &'static str, duration: Duration) -> Progress {
        self.begin(label);
        Progress::timed(label, duration)
    }

    fn begin(&self, label: &'static str) {
        if let Some(timeline) = &self.timeline {
            timeline.begin(label, self.clock.now());
        }
    }

    /// A report of the clients and of the server; and what the scripts were.
    pub(super) fn report<S>(&self, scenario: &'static str, remains: Remains<S>) -> (Report, Vec<S>) {
        let Remains { tally, ready_max, pings, scripts } = remains;
        let mut report = Report::new(scenario, tally, ready_max, Pings::of(pings));
        report.server = self.watch.server_report(ready_max);
        report.generator = self.watch.generator_report(ready_max, self.loops.count);
        (report, scripts)
    }

    /// Writes the page with the plots, if there is to be one.
    pub(super) fn write_page(&self, report: &Report) -> Result<(), Failure> {
        let (Some(page), Some(timeline)) = (&self.page, &self.timeline) else { return Ok(()) };
        page::write(page, report, &timeline.curves(), self.common.server_pid)
            .map_err(|error| Failure::runtime(format!("cannot write the page: {error}")))
    }
}

/// Refuses to begin what the limit on open files would break in the middle.
fn loops(common: &CommonArgs, others: u64) -> Result<Loops, Failure> {
    let limit = io::affinity::raise_fd_limit()
        .map_err(|error| Failure::runtime(format!("cannot read the limit on open files: {error}")))?;
    let files = Files { clients: common.connections, others, limit: limit.soft };
    Loops::fit(common.loops, files, io::descriptors::try_private_table).map_err(Failure::usage)
}
