//! How a run went over time: what the plots of the report show.
//!
//! Memory is bounded whatever the run's length: when the slots are full, neighbours are put together and the period
//! doubles, so that a run of ten seconds has tenths and one of a day has minutes.

use crate::latency::{Histogram, Percentiles, Times};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Slots of a distribution each.
const SLOTS_MAX: usize = 512;

/// The period of a short run.
pub(crate) const PERIOD_MIN: Duration = Duration::from_millis(100);

/// Samples of the gauges and the server.
const SAMPLES_MAX: usize = 1_024;

/// Parts of a run; a scenario has fewer than ten.
const PARTS_MAX: usize = 64;

/// What is distributed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Series {
    /// From connect to ready.
    Opening,
    /// Of messages.
    Latency,
}

/// The state at one moment.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub(crate) struct Sample {
    /// Seconds since the clock's origin.
    pub(crate) at: f64,
    pub(crate) ready: u64,
    pub(crate) received: u64,
    pub(crate) pings: u64,
    /// The server's, where it is watched.
    pub(crate) server: Option<SampledUsage>,
    pub(crate) generator: Option<SampledUsage>,
}

/// What a process used up to one moment.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Debug)]
pub(crate) struct SampledUsage {
    pub(crate) rss_bytes: u64,
    pub(crate) cpu_seconds: f64,
}

/// Collects from all loops.
#[derive(Default, Debug)]
pub(crate) struct Timeline(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    period: Duration,
    opening: Vec<Option<Histogram>>,
    latency: Vec<Option<Histogram>>,
    samples: Vec<Sample>,
    /// Of so many samples offered one is kept.
    sample_step: u64,
    offered: u64,
    parts: Vec<Part>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            period: PERIOD_MIN,
            opening: Vec::new(),
            latency: Vec::new(),
            samples: Vec::new(),
            sample_step: 1,
            offered: 0,
            parts: Vec::new(),
        }
    }
}

/// A part of a run, such as `opening`.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Part {
    pub(crate) label: &'static str,
    /// Seconds since the clock's origin.
    pub(crate) from: f64,
}

/// A distribution of one period.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Slot {
    /// Seconds since the clock's origin at which it begins.
    pub(crate) at: f64,
    pub(crate) count: u64,
    #[serde(flatten)]
    pub(crate) percentiles: Percentiles,
}

/// All of it, ready to be drawn.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Curves {
    pub(crate) period_seconds: f64,
    pub(crate) opening: Vec<Slot>,
    pub(crate) latency: Vec<Slot>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) parts: Vec<Part>,
}

impl Timeline {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was recorded in the [`PERIOD_MIN`] that begins at `from`.
    pub(crate) fn add(&self, series: Series, from: Duration, times: &Histogram) {
        self.inner().add(series, from, times);
    }

    /// A part begins.
    pub(crate) fn begin(&self, label: &'static str, at: Duration) {
        let parts = &mut self.inner().parts;
        if parts.len() < PARTS_MAX {
            parts.push(Part { label, from: at.as_secs_f64() });
        }
    }

    /// Takes note of a sample; of a long run not of each.
    pub(crate) fn sample(&self, sample: Sample) {
        self.inner().sample(sample);
    }

    pub(crate) fn curves(&self) -> Curves {
        let inner = self.inner();
        Curves {
            period_seconds: inner.period.as_secs_f64(),
            opening: slots(&inner.opening, inner.period),
            latency: slots(&inner.latency, inner.period),
            samples: inner.samples.clone(),
            parts: inner.parts.clone(),
        }
    }
}

impl Inner {
    fn add(&mut self, series: Series, from: Duration, times: &Histogram) {
        while self.index(from) >= SLOTS_MAX {
            coarsen(&mut self.opening);
            coarsen(&mut self.latency);
            self.period *= 2;
        }
        let index = self.index(from);
        let slots = match series {
            Series::Opening => &mut self.opening,
            Series::Latency => &mut self.latency,
        };
        if index >= slots.len() {
            slots.resize(index + 1, None);
        }
        merge(&mut slots[index], Some(times.clone()));
    }

    fn index(&self, at: Duration) -> usize {
        (at.as_nanos() / self.period.as_nanos()) as usize
    }

    fn sample(&mut self, sample: Sample) {
        self.offered += 1;
        if !(self.offered - 1).is_multiple_of(self.sample_step) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut even = false;
            self.samples.retain(|_| {
                even = !even;
                even
            });
            self.sample_step *= 2;
        }
        self.samples.push(sample);
    }
}

fn merge(slot: &mut Option<Histogram>, more: Option<Histogram>) {
    match (slot.as_mut(), more) {
        (Some(slot), Some(more)) => slot.add(&more).expect("all have the same bounds"),
        (None, more) => *slot = more,
        (Some(_), None) => {}
    }
}

/// Puts neighbours together.
fn coarsen(slots: &mut Vec<Option<Histogram>>) {
    for index in 0..slots.len().div_ceil(2) {
        let mut slot = slots[2 * index].take();
        let next = slots.get_mut(2 * index + 1).and_then(Option::take);
        merge(&mut slot, next);
        slots[index] = slot;
    }
    slots.truncate(slots.len().div_ceil(2));
}

fn slots(slots: &[Option<Histogram>], period: Duration) -> Vec<Slot> {
    let filled = slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.as_ref()?)));
    let slot = |(index, times): (usize, &Histogram)| {
        let percentiles = times.percentiles()?;
        Some(Slot { at: index as f64 * period.as_secs_f64(), count: times.len(), percentiles })
    };
    filled.filter_map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::coarse;

    fn times(us: u64) -> Histogram {
        let mut times = coarse();
        times.record(us).unwrap();
        times
    }

    #[test]
    fn what_came_in_one_period_is_one_slot() {
        let timeline = Timeline::default();
        for (ms, us) in [(0, 10), (0, 30), (100, 50)] {
            timeline.add(Series::Latency, Duration::from_millis(ms), &times(us));
        }
        let curves = timeline.curves();
        let seen: Vec<_> = curves.latency.iter().map(|slot| (slot.at, slot.count, slot.percentiles.max)).collect();
        assert_eq!(seen, [(0.0, 2, 30), (0.1, 1, 50)]);
        assert_eq!(curves.opening, []);
    }

    #[test]
    fn a_long_run_has_longer_periods_and_loses_nothing() {
        let timeline = Timeline::default();
        for second in 0..9_000 {
            timeline.add(Series::Opening, Duration::from_secs(second), &times(second + 1));
            timeline.sample(Sample { at: second as f64, ..Sample::default() });
        }
        let curves = timeline.curves();
        assert!((SLOTS_MAX / 3..=SLOTS_MAX).contains(&curves.opening.len()), "{}", curves.opening.len());
        assert_eq!(curves.opening.iter().map(|slot| slot.count).sum::<u64>(), 9_000);
        assert!((SAMPLES_MAX / 2..=SAMPLES_MAX).contains(&curves.samples.len()));
        assert!(curves.samples.windows(2).all(|two| two[0].at < two[1].at));
        let gaps: Vec<f64> = curves.samples.windows(2).map(|two| two[1].at - two[0].at).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "evenly spread");
    }

    #[test]
    fn a_time_lies_in_the_slot_that_says_so_also_after_periods_doubled() {
        let timeline = Timeline::default();
        let early = Duration::from_millis(700);
        timeline.add(Series::Latency, early, &times(1));
        timeline.add(Series::Latency, Duration::from_secs(1_000), &times(2));
        let curves = timeline.curves();
        for (slot, at) in curves.latency.iter().zip([0.7, 1_000.0]) {
            assert!(slot.at <= at && at < slot.at + curves.period_seconds, "{slot:?}");
        }
    }
}
