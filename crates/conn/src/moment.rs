//! A point in time in 4 bytes.

use std::num::NonZeroU32;
use std::time::Duration;

const _: () = assert!(size_of::<Option<Moment>>() == 4);

/// Tenths of a second since the clock's origin, rounded up: never early. Holds 13 years. Kept as one more than they are, so that
/// having none of them costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU32);

impl Moment {
    /// `delay` after `now`.
    pub(crate) fn after(now: Duration, delay: Duration) -> Self {
        let at = now + delay;
        let tenths = at.as_secs().saturating_mul(10).saturating_add(u64::from(at.subsec_nanos().div_ceil(100_000_000)));
        Self(NonZeroU32::MIN.saturating_add(tenths.min(u64::from(u32::MAX)) as u32))
    }

    /// Back to a time since the origin.
    pub(crate) fn time(self) -> Duration {
        Duration::from_millis(u64::from(self.0.get() - 1) * 100)
    }

    /// Whether it has come.
    pub(crate) fn is_due(self, now: Duration) -> bool {
        self.time() <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_never_early_and_less_than_a_tenth_late() {
        let delay = Duration::from_millis(300);
        for nanos in [0, 1, 999_999, 1_000_000, 50_000_000, 99_999_999, 100_000_000, 100_000_001, 999_999_999] {
            let now = Duration::new(7, nanos);
            let late = Moment::after(now, delay).time().checked_sub(now + delay).expect("never early");
            assert!(late < Duration::from_millis(100), "{nanos}: {late:?}");
        }
    }

    #[test]
    fn a_time_beyond_the_range_is_its_end() {
        assert_eq!(Moment::after(Duration::from_secs(u64::MAX / 2), Duration::ZERO), Moment(NonZeroU32::MAX));
    }
}
