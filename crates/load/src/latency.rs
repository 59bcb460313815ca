//! How long things took, as a distribution.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// What takes longer counts as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Three significant digits: every value is right to 0.1 %.
const DIGITS: u8 = 3;

/// A distribution of times, from one microsecond to one hour.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// What is reported of it, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LATENCY_MAX_US));
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// `None` if nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        })
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
        let mut latencies = Latencies::new();
        (1..=10_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let percentiles = latencies.percentiles().unwrap();
        for (value, expected) in [(percentiles.p50, 5_000), (percentiles.p99, 9_900), (percentiles.max, 10_000)] {
            assert!(value.abs_diff(expected) <= expected / 900, "{value} for {expected}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_percentiles_and_too_long_is_cut() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().unwrap().max >= LATENCY_MAX_US);
    }
}
