//! Small fleets beside the large one, each with a thread and a loop of its own: what they wait for is the server, not the
//! clients in front of them.

use super::churn::Churn;
use super::echo::{Echo, Echoed, Pace};
use super::no_subscriptions;
use crate::cli::FanoutArgs;
use crate::crew::{Crew, Failure};
use crate::dialect::Dialect;
use crate::endpoint::{Endpoint, Scheme};
use crate::fleet::{Event, Plan};
use crate::loops::Loops;
use crate::report::{AcceptProbe, EchoProbe, ProbeReport};
use io::Clock;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Messages per second of the echo probe.
const ECHO_RATE: f64 = 100.0;

/// Clients that the accept probe has under way at most.
const ACCEPT_CLIENTS: u32 = 128;

/// Files that the probes need.
pub(super) const FILES: u64 = ACCEPT_CLIENTS as u64 + 16;

/// The probes' source addresses, away from those of the large fleet.
const SOURCE_ECHO: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const SOURCE_ACCEPT: Ipv4Addr = Ipv4Addr::new(127, 1, 1, 1);

/// Probes at work.
#[derive(Debug)]
pub(super) struct Running {
    echo: Option<Crew<Echo>>,
    accept: Option<Crew<Churn>>,
    started: Instant,
}

/// Whether any is asked for.
pub(super) fn any(args: &FanoutArgs) -> bool {
    args.echo_probe.is_some() || args.accept_probe.is_some()
}

/// Starts what is asked for.
pub(super) fn start(args: &FanoutArgs, clock: Clock) -> Result<Running, Failure> {
    let plan = |name, endpoint: &Endpoint, tls, path, clients, open_rate, source, ports| Plan {
        name,
        endpoint: endpoint.or_path(path),
        tls,
        dialect: Dialect::None,
        subscriptions: no_subscriptions(),
        clients,
        loops: Loops::ONE,
        open_rate,
        timeout: args.common.timeout,
        drain: args.common.drain,
        source,
        ports,
        timeline: None,
    };
    if args.echo_probe.as_ref().is_some_and(|url| url.scheme == Scheme::Tls) {
        return Err(Failure::usage("--echo-probe does not speak TLS: give the address behind it"));
    }
    let tls = super::stage::tls(&args.common)?;
    let size = crate::payload::MARK_BYTES;
    let echo = args.echo_probe.as_ref().map(|url| {
        let plan = plan("echo probe", url, None, Dialect::None.path(), 1, Some(1.0), SOURCE_ECHO, 1);
        Crew::start(plan, |share| Echo::new(Pace::Rate(ECHO_RATE), size, 1, share, None), clock)
    });
    let accept = args.accept_probe.map(|rate| {
        // The subscribers' own endpoint: what one more of them would meet.
        let (path, ports) = (args.dialect.path(), Churn::ports(rate, ACCEPT_CLIENTS));
        let plan =
            plan("accept probe", &args.common.url, tls.clone(), path, ACCEPT_CLIENTS, None, SOURCE_ACCEPT, ports);
        Crew::start(plan, |share| Churn::new(rate, ACCEPT_CLIENTS, share), clock)
    });
    let mut running = Running { echo: echo.transpose()?, accept: accept.transpose()?, started: Instant::now() };
    if let Some(echo) = &mut running.echo {
        echo.wait(Event::Opened, None, |_| {})?;
        echo.go();
    }
    if let Some(accept) = &running.accept {
        accept.go();
    }
    running.started = Instant::now();
    Ok(running)
}

impl Running {
    /// Ends them and says what they saw.
    pub(super) fn stop(self) -> Result<ProbeReport, Failure> {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(echo) = &self.echo {
            echo.finish();
        }
        if let Some(accept) = &self.accept {
            accept.finish();
        }
        Ok(ProbeReport {
            echo: self.echo.map(end_echo).transpose()?,
            accept: self.accept.map(|crew| end_accept(crew, seconds)).transpose()?,
        })
    }
}

fn end_echo(mut crew: Crew<Echo>) -> Result<EchoProbe, Failure> {
    crew.wait(Event::Settled, None, |_| {})?;
    let remains = crew.end(|_| {})?;
    let (echo, tally) = (Echoed::of(remains.scripts), remains.tally);
    let messages = echo.lost + echo.duplicated + echo.out_of_order + echo.foreign;
    Ok(EchoProbe {
        sent: echo.sent,
        received: echo.received,
        faults: messages + tally.failed + tally.lost + tally.unclean,
        latency_us: echo.latencies.percentiles(),
        reasons: tally.reasons,
    })
}

fn end_accept(mut crew: Crew<Churn>, seconds: f64) -> Result<AcceptProbe, Failure> {
    crew.wait(Event::Settled, None, |_| {})?;
    let remains = crew.end(|_| {})?;
    let tally = remains.tally;
    Ok(AcceptProbe {
        attempts: remains.scripts.iter().map(|churn| churn.attempts).sum(),
        accepted: tally.opened,
        per_second: (tally.opened as f64 / seconds * 10.0).round() / 10.0,
        faults: tally.failed + tally.lost + tally.unclean,
        latency_us: tally.opening.percentiles(),
        reasons: tally.reasons,
    })
}
