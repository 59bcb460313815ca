//! How long things took, as a distribution.

use crate::timeline::{PERIOD_MIN, Series, Timeline};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What takes longer counts as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Three significant digits: every value is right to 0.1 %.
const DIGITS: u8 = 3;
/// In plots: every value is right to 1 %, at a tenth of the memory.
const DIGITS_COARSE: u8 = 2;

/// A distribution for plots.
pub(crate) type Histogram = hdrhistogram::Histogram<u32>;

/// A distribution of times, from one microsecond to one hour.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(hdrhistogram::Histogram<u64>);

/// What is reported of it, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// What distributions have in common.
pub(crate) trait Times {
    /// `None` if nothing was recorded.
    fn percentiles(&self) -> Option<Percentiles>;
}

impl<C: hdrhistogram::Counter> Times for hdrhistogram::Histogram<C> {
    fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.value_at_quantile(quantile);
        (!self.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.max(),
        })
    }
}

/// An empty distribution for plots.
pub(crate) fn coarse() -> Histogram {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS_COARSE).expect("the bounds are in order")
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LATENCY_MAX_US)
}

impl Default for Latencies {
    fn default() -> Latencies {
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS);
        Latencies(histogram.expect("the bounds are in order"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(microseconds(time));
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// `None` if nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        self.0.percentiles()
    }
}

/// Records times of one loop, over the whole run and, where plots are wanted, over time.
#[derive(Debug)]
pub(crate) struct Recorder {
    total: Latencies,
    slice: Option<Slice>,
}

/// What was recorded since `from`, not yet in the timeline. Its lock is taken once per period.
#[derive(Debug)]
struct Slice {
    timeline: Arc<Timeline>,
    series: Series,
    from: Duration,
    times: Histogram,
}

impl Recorder {
    /// Without a timeline there is only the total.
    pub(crate) fn new(timeline: Option<&Arc<Timeline>>, series: Series) -> Recorder {
        let slice = |timeline: &Arc<Timeline>| Slice {
            timeline: Arc::clone(timeline),
            series,
            from: Duration::ZERO,
            times: coarse(),
        };
        Recorder { total: Latencies::default(), slice: timeline.map(slice) }
    }

    /// At `now` something ended that took `time`.
    pub(crate) fn record(&mut self, now: Duration, time: Duration) {
        self.total.record(time);
        if let Some(slice) = &mut self.slice {
            if now >= slice.from + PERIOD_MIN {
                slice.flush();
                slice.from = Duration::from_millis((now.as_millis() - now.as_millis() % PERIOD_MIN.as_millis()) as u64);
            }
            slice.times.saturating_record(microseconds(time));
        }
    }

    /// All that was recorded; the rest of it goes into the timeline.
    pub(crate) fn finish(mut self) -> Latencies {
        if let Some(slice) = &mut self.slice {
            slice.flush();
        }
        self.total
    }
}

impl Slice {
    fn flush(&mut self) {
        if !self.times.is_empty() {
            self.timeline.add(self.series, self.from, &self.times);
            self.times.reset();
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p999),
            ms(self.max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_thousandth() {
        let mut latencies = Latencies::default();
        (1..=10_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let percentiles = latencies.percentiles().unwrap();
        for (value, expected) in [(percentiles.p50, 5_000), (percentiles.p99, 9_900), (percentiles.max, 10_000)] {
            assert!(value.abs_diff(expected) <= expected / 900, "{value} for {expected}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_percentiles_and_too_long_is_cut() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), None);
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().unwrap().max >= LATENCY_MAX_US);
    }

    #[test]
    fn a_recorder_tells_the_timeline_what_it_told_the_total() {
        let timeline = Arc::new(Timeline::default());
        let mut recorder = Recorder::new(Some(&timeline), Series::Latency);
        for ms in [0, 99, 100, 350] {
            recorder.record(Duration::from_millis(ms), Duration::from_micros(ms + 1));
        }
        assert_eq!(recorder.finish().percentiles().unwrap().max, 351);
        let slots: Vec<_> = timeline.curves().latency.iter().map(|slot| (slot.at, slot.count)).collect();
        let expected = [(0.0, 2), (0.1, 1), (0.3, 1)];
        assert!(slots.iter().zip(expected).all(|(a, b)| (a.0 - b.0).abs() < 1e-9 && a.1 == b.1), "{slots:?}");
        assert_eq!(slots.len(), 3);
    }
}
