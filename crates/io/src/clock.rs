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

/// CLOCK_MONOTONIC as the kernel counts it, for other processes to compare with; [`Instant`] does not tell its number.
#[must_use]
#[allow(unsafe_code)]
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, into memory that is one.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "every Linux has CLOCK_MONOTONIC");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_goes_as_instant_goes() {
        let (outer, inner) = (monotonic(), Instant::now());
        while inner.elapsed() < Duration::from_millis(2) {}
        let inner = inner.elapsed();
        assert!(monotonic() - outer >= inner, "it was read before and after the other");
    }
}
