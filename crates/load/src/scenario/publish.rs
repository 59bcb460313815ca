//! Publishes while a fleet listens.

use super::listen::Verdict;
use super::stage::Stage;
use crate::crew::{Crew, Failure};
use crate::fleet::{Event, Script};
use crate::progress::Count;
use crate::publisher::{Published, Publishers, Publishing};
use crate::report::{PublishingReport, Report};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often it is looked whether all is published.
const DONE_CHECK: Duration = Duration::from_millis(20);

/// Publishes everything that is planned; less when no listener is left.
pub(super) fn publish<S: Script>(
    stage: &Stage<'_>,
    crew: &mut Crew<S>,
    plan: Publishing,
) -> Result<Published, Failure> {
    let mut progress = stage.counting("publishing", plan.publications);
    let publishers = Publishers::start(plan, stage.clock)
        .map_err(|error| Failure::runtime(format!("cannot start a publisher: {error}")))?;
    while !publishers.are_done() {
        let empty = crew.wait(Event::Empty, Some(Instant::now() + DONE_CHECK), |reading| {
            let done = publishers.done.load(Relaxed);
            let received = Count::Growing("received", reading.received);
            progress
                .at(done, &[Count::Growing("published", done), received, Count::Still("clients lost", reading.lost)]);
        })?;
        if empty {
            publishers.stop.store(true, Relaxed);
            break;
        }
    }
    Ok(publishers.join())
}

/// Puts into a report what was published and what came of it.
pub(super) fn fill(report: &mut Report, verdict: &Verdict, published: &Published) {
    report.sent = published.accepted;
    report.received = verdict.counts.received;
    report.lost = verdict.lost;
    report.duplicated = verdict.counts.duplicated;
    report.out_of_order = verdict.counts.out_of_order + verdict.disordered;
    report.misdelivered = verdict.counts.misdelivered;
    report.foreign = verdict.counts.foreign;
    report.latency_us = verdict.latencies.percentiles();
    report.reasons.merge(&published.reasons);
    report.publishing = Some(PublishingReport {
        accepted: published.accepted,
        refused: published.refused,
        unknown: published.unknown.len() as u64,
        latency_us: published.latencies.percentiles(),
    });
}
