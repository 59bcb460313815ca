//! A point in time in 4 bytes.

use std::time::Duration;

/// Tenths of a second since the clock's origin, rounded up: never early. Holds 13 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u32);

impl Moment {
    /// `delay` after `now`.
    pub(crate) fn after(now: Duration, delay: Duration) -> Self {
        Self((now + delay).as_millis().div_ceil(100).min(u128::from(u32::MAX)) as u32)
    }

    /// Back to a time since the origin.
    pub(crate) fn time(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 100)
    }

    /// Whether it has come.
    pub(crate) fn is_due(self, now: Duration) -> bool {
        self.time() <= now
    }
}
