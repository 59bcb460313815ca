//! What can be done to a server, one file each. This runs on the main thread and conducts the fleets.

mod churn;
mod echo;
mod fanout;
mod hold;
mod probe;

use crate::cli::{CommonArgs, Scenario, SubscribeArgs};
use crate::crew::{Crew, Failure};
use crate::dialect::{Dialect, Subscriptions};
use crate::fleet::{Event, Plan, Script};
use crate::progress::Progress;
use crate::report::{Report, ServerReport};
use crate::server::{Server, Usage};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Files that are no clients: standard streams, event loops, `/proc`.
const FILES_OTHER: u64 = 32;

/// Where the sources of the large fleet begin. 127.0.0.1 is left to everybody else on the machine.
const SOURCE_FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Runs a scenario to its end and prints the report. Whether nothing went wrong.
pub(crate) fn run(scenario: &Scenario) -> Result<bool, Failure> {
    let (report, json) = match scenario {
        Scenario::Hold(args) => (hold::run(args)?, args.common.json),
        Scenario::Echo(args) => (echo::run(args)?, args.common.json),
        Scenario::Fanout(args) => (fanout::run(args)?, args.common.json),
        Scenario::Churn(args) => (churn::run(args)?, args.common.json),
    };
    report.print(json).map_err(|error| Failure::runtime(format!("cannot write the report: {error}")))?;
    Ok(report.is_clean())
}

/// The plan of the large fleet.
fn plan(
    common: &CommonArgs,
    dialect: Dialect,
    subscriptions: Subscriptions,
    open_rate: Option<f64>,
) -> Result<Plan, Failure> {
    dialect.check(&subscriptions, common.connections).map_err(Failure::usage)?;
    Ok(Plan {
        name: "clients",
        endpoint: common.url.or_path(dialect.path()),
        dialect,
        subscriptions,
        clients: common.connections,
        open_rate,
        timeout: common.timeout,
        drain: common.drain,
        source: SOURCE_FIRST,
        ports: common.connections as usize,
    })
}

impl SubscribeArgs {
    /// The subscriptions of clients that speak `dialect`.
    fn subscriptions(&self, dialect: Dialect) -> Result<Subscriptions, Failure> {
        if dialect.subscribes() {
            return Ok(Subscriptions {
                channel: self.channel.clone(),
                channels: self.channels,
                personal: self.personal,
            });
        }
        if self.channels > 1 || self.personal > 0 {
            return Err(Failure::usage("--dialect none subscribes to nothing: leave out --channels and --personal"));
        }
        Ok(no_subscriptions())
    }
}

/// The subscriptions of clients that have none.
fn no_subscriptions() -> Subscriptions {
    Subscriptions { channel: String::new(), channels: 1, personal: 0 }
}

/// Refuses to begin what the limit on open files would break in the middle.
fn check_files(clients: u32, others: u64) -> Result<(), Failure> {
    let limit = io::affinity::raise_fd_limit()
        .map_err(|error| Failure::runtime(format!("cannot read the limit on open files: {error}")))?;
    let needed = u64::from(clients) + others + FILES_OTHER;
    if needed > limit.soft {
        let message = format!(
            "{needed} open files are needed, {} are allowed: raise `ulimit -n` or lower --connections",
            limit.soft
        );
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// What is watched during the measured part: the server, if asked for, and ourselves.
struct Watch {
    server: Option<Server>,
    before: Option<Usage>,
    start: Option<Usage>,
    end: Option<Usage>,
    /// When the part began, and how long the clients' loop had worked by then.
    began: (Instant, u64),
    /// Share of its time that the loop worked.
    busy: f64,
}

impl Watch {
    /// To be made before the first client comes.
    fn new(pid: Option<u32>) -> Result<Watch, Failure> {
        let server = pid.map(Server::new);
        let before = server.as_ref().map(Server::usage).transpose();
        let before = before.map_err(|error| Failure::usage(format!("--server-pid: {error}")))?;
        Ok(Watch { server, before, start: None, end: None, began: (Instant::now(), 0), busy: 0.0 })
    }

    fn usage(&self) -> Option<Usage> {
        // A server that has died meanwhile shows in everything else.
        self.server.as_ref().and_then(|server| server.usage().ok())
    }

    /// The measured part begins.
    fn start<S: Script>(&mut self, crew: &Crew<S>) {
        self.start = self.usage();
        self.began = (Instant::now(), crew.gauges().busy_ns.load(Relaxed));
    }

    /// It ends.
    fn end<S: Script>(&mut self, crew: &Crew<S>) {
        self.end = self.usage();
        let (began, busy_before) = self.began;
        let busy = crew.gauges().busy_ns.load(Relaxed).saturating_sub(busy_before);
        self.busy = busy as f64 / 1e9 / began.elapsed().as_secs_f64().max(1e-9);
    }

    fn report(&self, connections: u64) -> Option<ServerReport> {
        Some(ServerReport::new(self.before?, self.start?, self.end?, connections))
    }
}

/// Waits until all clients are ready or have failed. Whether there is one that is.
fn open<S: Script>(crew: &mut Crew<S>, clients: u32) -> Result<bool, Failure> {
    let mut progress = Progress::begin("opening", u64::from(clients));
    crew.wait(Event::Opened, None, |gauges| {
        let (opened, failed) = (gauges.opened.load(Relaxed), gauges.failed.load(Relaxed));
        progress.at(opened + failed, &format!("failed {failed}"));
    })?;
    Ok(crew.gauges().ready.load(Relaxed) > 0)
}

/// Waits until nothing is awaited any more.
fn settle<S: Script>(crew: &mut Crew<S>, drain: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    let mut progress = Progress::begin("draining", drain.as_secs());
    crew.wait(Event::Settled, None, |gauges| {
        let received = gauges.received.load(Relaxed);
        progress.at(started.elapsed().as_secs(), &format!("s, {received} received"));
    })?;
    Ok(())
}

/// A report of a fleet's clients and of the server.
fn report(scenario: &'static str, tally: crate::fleet::Tally, pings: &[u32], watch: &Watch) -> Report {
    let mut report = Report::new(scenario, tally, pings);
    report.server = watch.report(report.connections);
    report.generator_busy = (watch.busy * 1000.0).round() / 1000.0;
    report
}
