//! Opens clients and keeps them.

use super::{Watch, check_files, open, plan, report};
use crate::cli::HoldArgs;
use crate::crew::{Crew, Failure};
use crate::fleet::{Event, Script};
use crate::progress::Progress;
use crate::report::Report;
use io::Clock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Clients that only answer pings.
#[derive(Debug)]
struct Hold;

impl Script for Hold {}

pub(super) fn run(args: &HoldArgs) -> Result<Report, Failure> {
    let common = &args.common;
    check_files(common.connections, 0)?;
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let plan = plan(common, args.dialect, subscriptions, Some(args.open.open_rate))?;
    let mut watch = Watch::new(common.server_pid)?;
    let mut crew = Crew::start(plan, Hold, Clock::start())?;
    let opened = open(&mut crew, common.connections)?;
    watch.start(&crew);
    let started = Instant::now();
    if opened {
        let mut progress = Progress::begin("holding", args.duration.as_secs());
        crew.wait(Event::Empty, Some(started + args.duration), |gauges| {
            let (ready, pings) = (gauges.ready.load(Relaxed), gauges.pings.load(Relaxed));
            progress.at(started.elapsed().as_secs(), &format!("s, {ready} held, {pings} pings"));
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    watch.end(&crew);
    let received = crew.gauges().received.load(Relaxed);
    let outcome = crew.end()?;
    let mut report = report("hold", outcome.tally, &outcome.pings, &watch);
    report.seconds = seconds;
    report.received = received;
    report.latency_us = report.opening_us;
    Ok(report)
}
