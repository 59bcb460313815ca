//! Subscribes clients, publishes through the server's API, and checks that each client gets each publication once, in order.

use super::listen::{Announced, Listen, Verdict};
use super::probe;
use super::publish::{fill, publish};
use super::stage::Stage;
use crate::cli::FanoutArgs;
use crate::crew::{Crew, Failure};
use crate::dialect::{Dialect, Subscriptions};
use crate::fleet::Event;
use crate::publisher::{Api, Publishing};
use crate::report::{ProbeReport, Probes, Report};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub(super) fn run(args: &FanoutArgs, stage: &mut Stage<'_>) -> Result<Report, Failure> {
    if args.dialect == Dialect::None {
        return Err(Failure::usage("--dialect none subscribes to nothing: fanout needs one that has channels"));
    }
    if args.baseline.is_some() && !probe::any(args) {
        return Err(Failure::usage("--baseline compares probes: give --echo-probe or --accept-probe"));
    }
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let mut publishing = publishing(args, &subscriptions)?;
    let published = Arc::new(OnceLock::new());
    let announced =
        Announced::of(&publishing, args.common.connections, &subscriptions, &published, stage.timeline.clone());
    let others = u64::from(args.publishers) + probe::FILES;
    let plan = stage.plan(args.dialect, subscriptions, Some(&args.open), others)?;
    let mut crew = stage.start(plan, |share| Listen::new(announced.clone(), share))?;
    let opened = stage.open(&mut crew)?;
    crew.go();
    let idle = if opened { idle_probes(args, stage, &mut crew)? } else { None };
    let probes = if opened && probe::any(args) { Some(probe::start(args, stage.clock)?) } else { None };
    stage.measure(&crew);
    let started = Instant::now();
    if !opened {
        // Nobody listens.
        publishing.publications = 0;
    }
    let was_published = publish(stage, &mut crew, publishing)?;
    let seconds = started.elapsed().as_secs_f64();
    let published = published.get_or_init(|| was_published);
    crew.finish();
    stage.settle(&mut crew)?;
    stage.measured(&crew);
    let loaded = probes.map(probe::Running::stop).transpose()?;
    let remains = stage.close(crew)?;
    let (mut report, loops) = stage.report("fanout", remains);
    report.seconds = seconds;
    report.probes = loaded.map(|loaded| Probes { idle, loaded });
    fill(&mut report, &Verdict::over(loops, published), published);
    Ok(report)
}

/// What is to be published.
fn publishing(args: &FanoutArgs, subscriptions: &Subscriptions) -> Result<Publishing, Failure> {
    let (api, key) = (args.api.clone(), args.key.clone());
    let wanted = args.publications.map_or_else(|| (args.duration.as_secs_f64() * args.rate).ceil() as u64, u64::from);
    Ok(Publishing {
        api: Api::new(args.dialect, api, key, subscriptions.channels).map_err(Failure::usage)?,
        channels: subscriptions.all_shared(),
        publishers: args.publishers,
        rate: args.rate,
        burst: args.burst,
        publications: wanted,
        size: args.size,
        run: fastrand::u32(..),
    })
}

/// Lets the probes run without a publication.
fn idle_probes(args: &FanoutArgs, stage: &Stage<'_>, crew: &mut Crew<Listen>) -> Result<Option<ProbeReport>, Failure> {
    let Some(baseline) = args.baseline else { return Ok(None) };
    let probes = probe::start(args, stage.clock)?;
    let started = Instant::now();
    let mut progress = stage.timed("baseline", baseline);
    crew.wait(Event::Empty, Some(started + baseline), |_| progress.at(started.elapsed().as_secs(), &[]))?;
    probes.stop().map(Some)
}
