//! The process's clock: time since one origin, shared by all threads.

use std::time::{Duration, Instant};

/// Tells the time since its origin. Copies share the origin, so times of different threads compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now, at zero.
    #[must_use]
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// The time since the origin. Never goes back.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}
