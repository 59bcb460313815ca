//! What a driver counts, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the tick-length buckets in microseconds; a last bucket takes what is longer.
pub const TICK_BUCKETS_US: [u64; 8] = [100, 250, 500, 1_000, 2_000, 5_000, 20_000, 100_000];

/// One number with a single writer, so that counting needs no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value, as of some moment not long ago when asked from another thread.
    #[inline]
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Only the driver's own thread may call this: two writers would lose counts.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// The counters of one driver. All count up from zero except [`Counters::connections`].
///
/// Aligned so that two workers' counters never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Ticks.
    pub ticks: Counter,
    /// Ticks by the time they worked (waiting not included): see [`TICK_BUCKETS_US`].
    pub tick_lengths: [Counter; TICK_BUCKETS_US.len() + 1],
    /// The time worked in all ticks, in nanoseconds.
    pub tick_nanoseconds: Counter,
    /// Times the kernel was entered for completions or to submit operations; io_uring only.
    pub enters: Counter,
    /// Operations given to the kernel; io_uring only.
    pub operations: Counter,
    /// Times the wait was ended by another thread's wake.
    pub wakes: Counter,
    /// Times the clock jumped and deadlines were moved.
    pub clock_jumps: Counter,
    /// Connections open now, refused ones not included.
    pub connections: Counter,
    /// Connections accepted and opened.
    pub accepts: Counter,
    /// Connections over the limit (ours or that of file descriptors): answered and closed.
    pub refused_full: Counter,
    /// Connections answered so because the handler wanted nobody new.
    pub refused_asked: Counter,
    /// Times accepting paused because the kernel had no memory.
    pub enomem_pauses: Counter,
    /// Outbound connects begun.
    pub connects: Counter,
    /// Connections reported as closed.
    pub closed: Counter,
    /// Receive calls, those that found nothing included.
    pub reads: Counter,
    /// Bytes received.
    pub read_bytes: Counter,
    /// Sends.
    pub sends: Counter,
    /// Sends of which the kernel took less than all, nothing included.
    pub short_sends: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Deadlines reported.
    pub deadlines: Counter,
}

impl Counters {
    pub(crate) fn ticked(&self, worked: Duration) {
        self.ticks.add(1);
        self.tick_nanoseconds.add(worked.as_nanos() as u64);
        let us = worked.as_micros() as u64;
        let bucket = TICK_BUCKETS_US.iter().position(|&bound| us <= bound).unwrap_or(TICK_BUCKETS_US.len());
        self.tick_lengths[bucket].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_counts_in_the_first_bucket_that_holds_it() {
        let counters = Counters::default();
        counters.ticked(Duration::from_micros(100));
        counters.ticked(Duration::from_micros(101));
        counters.ticked(Duration::from_secs(1));
        let lengths: Vec<u64> = counters.tick_lengths.iter().map(Counter::load).collect();
        assert_eq!(lengths, [1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counters.ticks.load(), 3);
    }
}
