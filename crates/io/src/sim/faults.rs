//! What goes wrong in a simulated network, and how often it did.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::random::Random;

/// How often what goes wrong. Probabilities are between 0 and 1.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Per chunk sent by either side: it arrives in two parts, at different times (and each part again).
    pub split_read: f64,
    /// Per send of a driver: fewer bytes are taken than there was room for.
    pub short_write: f64,
    /// Per send of a driver: its outcome is told later, as io_uring does; at 0 every send completes at once, as with
    /// epoll.
    pub late_completion: f64,
    /// How late, at most.
    pub completion_delay_max: Duration,
    /// Per chunk sent by either side: the connection breaks.
    pub reset: f64,
    /// Per accept: the kernel has no memory.
    pub no_memory: f64,
    /// Per tick run by [`Net::run_until`](super::Net::run_until): the worker then stands still for a while.
    pub stall: f64,
    /// For how long, at most. More than two seconds make a jump of the worker's clock.
    pub stall_max: Duration,
    /// How long a chunk is under way; never overtaking the one before it.
    pub latency: RangeInclusive<Duration>,
}

impl Faults {
    /// A quick network in which nothing goes wrong.
    #[must_use]
    pub fn none() -> Faults {
        let latency = Duration::from_micros(50);
        Faults {
            split_read: 0.0,
            short_write: 0.0,
            late_completion: 0.0,
            completion_delay_max: Duration::from_millis(5),
            reset: 0.0,
            no_memory: 0.0,
            stall: 0.0,
            stall_max: Duration::ZERO,
            latency: latency..=latency,
        }
    }

    /// A bad network, drawn from the seed: each kind of fault is on in most seeds and off in some, since one fault may
    /// hide what another would show. No resets; add them where the test can tell a reset from a bug.
    #[must_use]
    pub fn drawn(seed: u64) -> Faults {
        let mut random = Random::seeded(seed ^ 0x0BAD_5EED);
        let mut draw = |most: f64| if random.below(4) == 0 { 0.0 } else { most * (1 + random.below(8)) as f64 / 8.0 };
        let (split_read, short_write, no_memory, stall) = (draw(0.5), draw(0.5), draw(0.2), draw(0.02));
        // A third of the seeds each: as epoll, as io_uring, mixed.
        let late_completion = [0.0, 1.0, 0.5][random.below(3) as usize];
        let latency = Duration::from_micros(10)..=Duration::from_micros(10 + random.below(30_000));
        let stall_max = Duration::from_millis(50);
        Faults { split_read, short_write, late_completion, no_memory, stall, stall_max, latency, ..Faults::none() }
    }
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::none()
    }
}

/// How often each fault was injected.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Chunks that were cut.
    pub split_reads: u64,
    /// Sends cut although there was room.
    pub short_writes: u64,
    /// Sends cut or refused because the peer's window was full.
    pub full_windows: u64,
    /// Sends that completed later.
    pub late_completions: u64,
    /// Sends that completed after their connection was closed.
    pub orphaned_completions: u64,
    /// Buffers overwritten after their use.
    pub poisoned: u64,
    /// Connections broken.
    pub resets: u64,
    /// Accepts without memory.
    pub no_memory: u64,
    /// Times a worker stood still.
    pub stalls: u64,
    /// Connects refused because nobody listens.
    pub refused: u64,
}
