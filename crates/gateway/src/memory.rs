//! How much memory the process holds, how much it may, and whether that is exceeded: one [`Memory`] for all threads.
//!
//! Two things are put together. What the workers *count*, the bytes that wait for clients first of all, is true to the tick. What is
//! *resident* is true to the byte, also for what nobody counts, but has to be asked of the kernel, and says nothing about memory
//! that is free again and that the allocator has kept. So the control thread reads it ten times a second and notes by how
//! much it is more than what was counted then ([`Watch`]); in use is that difference and what is counted now.

mod kept;
mod system;

pub use system::available;

use kept::Kept;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How often what is resident is read. In this time clients can bring what their lines carry; an eighth of the ceiling is
/// kept free for it.
pub const LOOK_AT_MEMORY: Duration = Duration::from_millis(100);

/// The ceiling, as a share of what there is, where it is found out from the machine. The last quarter is for what the
/// kernel keeps for sockets where no cgroup tells it, for what the allocator has kept, and for other programs.
const SHARE: (u64, u64) = (3, 4);

/// Being short ends when no more than this share of the ceiling is in use.
const LOW_WATER: (u64, u64) = (7, 8);

/// Being short lasts that long at least: whoever hovers around the ceiling does not fill the log.
const SHORT_MIN: Duration = Duration::from_secs(1);

/// What an idle connection costs, and a subscription. Less than it is: to count what is freed as more than it was would hide
/// memory that is in use.
const CONNECTION_BYTES: u64 = 512;
const SUBSCRIPTION_BYTES: u64 = 64;

/// How much the process holds, and how much it may.
#[derive(Debug, Default)]
pub struct Memory {
    /// 0: anything.
    ceiling: AtomicU64,
    /// What the workers count.
    counted: AtomicI64,
    /// What is resident beyond that, where it is read: 0 in a simulation.
    beside: AtomicI64,
    /// When it began to be short, in milliseconds since the clock's origin and one more; 0: it is not.
    short_since: AtomicU64,
}

impl Memory {
    /// Nothing is held yet. A ceiling of 0 is none.
    pub fn new(ceiling: u64) -> Self {
        Self { ceiling: AtomicU64::new(ceiling), ..Self::default() }
    }

    /// The ceiling that a machine with so much memory gets.
    pub fn ceiling_of(available: u64) -> u64 {
        available / SHARE.1 * SHARE.0
    }

    /// The ceiling; 0: there is none.
    pub fn ceiling(&self) -> u64 {
        self.ceiling.load(Relaxed)
    }

    /// Another one counts from now on.
    pub fn set_ceiling(&self, ceiling: u64) {
        self.ceiling.store(ceiling, Relaxed);
    }

    /// Bytes in use.
    pub fn in_use(&self) -> u64 {
        (self.counted.load(Relaxed) + self.beside.load(Relaxed)).max(0) as u64
    }

    /// Whether nobody new is to be let in.
    pub fn is_short(&self) -> bool {
        self.short_since.load(Relaxed) > 0
    }

    /// Whether it is short and something has to go.
    pub fn must_free(&self) -> bool {
        self.is_short() && self.in_use() > self.low_water()
    }

    fn low_water(&self) -> u64 {
        self.ceiling() / LOW_WATER.1 * LOW_WATER.0
    }

    /// A worker that counted `before` counts `after` now.
    pub(crate) fn count(&self, before: u64, after: u64) {
        if before != after {
            self.counted.fetch_add(after.wrapping_sub(before) as i64, Relaxed);
        }
    }

    /// What nobody counts has been let go of, and is resident until the next reading says otherwise.
    pub(crate) fn let_go(&self, bytes: u64) {
        if self.beside.load(Relaxed) > 0 {
            self.counted.fetch_sub(bytes as i64, Relaxed);
        }
    }

    /// Looks whether it has become short or is it no more, which whoever sees it first says. Whether it is short.
    pub(crate) fn look(&self, now: Duration) -> bool {
        let (ceiling, since) = (self.ceiling(), self.short_since.load(Relaxed));
        if ceiling == 0 && since == 0 {
            return false;
        }
        let (in_use, now) = (self.in_use(), now.as_millis() as u64);
        if since == 0 {
            let began = in_use > ceiling && self.turns(0, now + 1);
            if began {
                tracing::warn!(
                    in_use,
                    ceiling,
                    "memory: over the ceiling; newcomers get 503, the heaviest backlogs go"
                );
            }
            return began || self.is_short();
        }
        let is_over = ceiling == 0 || in_use <= self.low_water() && now >= since - 1 + SHORT_MIN.as_millis() as u64;
        if is_over && self.turns(since, 0) {
            tracing::warn!(in_use, ceiling, "memory: below the ceiling again; newcomers are let in");
        }
        self.is_short()
    }

    fn turns(&self, from: u64, to: u64) -> bool {
        self.short_since.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }
}

/// What a worker's connections and subscriptions count, beside what waits for them.
pub(crate) fn cost_of(connections: usize, subscriptions: usize) -> u64 {
    connections as u64 * CONNECTION_BYTES + subscriptions as u64 * SUBSCRIPTION_BYTES
}

/// The control thread's part.
#[derive(Debug)]
pub(crate) struct Watch {
    memory: Arc<Memory>,
    system: system::System,
    kept: Kept,
}

impl Watch {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, system: system::System::find(), kept: Kept::default() }
    }

    /// Reads what is resident, unless nobody wants to know.
    pub(crate) fn look(&mut self, connections: u64) {
        if self.memory.ceiling() == 0 && !self.memory.is_short() {
            return;
        }
        let Some(resident) = self.system.resident() else { return };
        let counted = self.memory.counted.load(Relaxed);
        let kept = self.kept.note(resident as i64, counted);
        let total = resident as i64 - kept + self.system.kernel(connections) as i64;
        self.memory.beside.store(total - counted, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_short_from_above_the_ceiling_to_low_water() {
        let memory = Memory::new(800);
        memory.count(0, 800);
        assert!(!memory.look(SECOND), "as much as it may");
        memory.count(800, 801);
        assert!(memory.look(SECOND) && memory.must_free());
        memory.count(801, 701);
        assert!(memory.look(SECOND * 9) && memory.must_free());
        memory.count(701, 700);
        assert!(!memory.must_free() && !memory.look(SECOND * 9));
    }

    #[test]
    fn it_is_short_for_a_second_at_least() {
        let memory = Memory::new(800);
        memory.count(0, 900);
        assert!(memory.look(SECOND));
        memory.count(900, 0);
        assert!(memory.look(SECOND * 2 - Duration::from_millis(1)) && !memory.must_free());
        assert!(!memory.look(SECOND * 2));
    }

    #[test]
    fn without_a_ceiling_it_is_never_short_and_taking_the_ceiling_away_ends_it() {
        let memory = Memory::new(0);
        memory.count(0, 1 << 40);
        assert!(!memory.look(SECOND));
        memory.set_ceiling(1);
        assert!(memory.look(SECOND));
        memory.set_ceiling(0);
        assert!(!memory.look(SECOND));
    }

    #[test]
    fn a_reading_corrects_what_was_counted_and_counting_goes_on_from_there() {
        let memory = Arc::new(Memory::new(1 << 50));
        memory.count(0, 1000);
        memory.let_go(500);
        assert_eq!(memory.in_use(), 1000, "what was never counted is not let go of");
        let mut watch = Watch::new(memory.clone());
        watch.look(10);
        let read = memory.in_use();
        assert!(read > 1 << 20, "a process has more than a megabyte, not {read}");
        memory.count(1000, 5000);
        assert_eq!(memory.in_use(), read + 4000);
        memory.let_go(1000);
        assert_eq!(memory.in_use(), read + 3000);
    }
}
