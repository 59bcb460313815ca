//! One deadline per connection: a dense column of 4 bytes each, swept bit by bit.
//!
//! A timer wheel would have to be touched at every activity of every connection. Here setting a deadline is one store, and
//! the price is a sweep: a tenth of the column every 100 ms, a few hundred microseconds a second at 250,000 connections.
//! A deadline is never reported early. It is reported up to 200 ms late, or up to 1.1 s late in a column longer than
//! [`SWEEP_MIN`].

use std::time::Duration;

/// One unit of the column and one step of the sweep.
pub(crate) const UNIT: Duration = Duration::from_millis(100);

/// In how many steps a long column is swept.
const STEPS: usize = 10;

/// A column up to this long is swept whole at every step: 32 KiB, a microsecond or two.
const SWEEP_MIN: usize = 8192;

/// No deadline.
const NONE: u32 = 0;

#[derive(Debug)]
pub(crate) struct Deadlines {
    /// In units since the clock's origin, rounded up; [`NONE`] for none.
    at: Vec<u32>,
    /// How many are set.
    armed: usize,
    /// Where the sweep goes on.
    cursor: usize,
    /// How many entries of the present step are left.
    left: usize,
    /// The unit of the last step.
    swept: u32,
    /// No deadline is earlier than this; nothing needs sweeping before it.
    earliest: u32,
    /// The earliest deadline seen or set since the cursor last was at 0: the next `earliest`.
    earliest_of_round: u32,
}

fn floor(at: Duration) -> u32 {
    u32::try_from(at.as_millis() / UNIT.as_millis()).unwrap_or(u32::MAX)
}

fn ceil(at: Duration) -> u32 {
    u32::try_from(at.as_millis().div_ceil(UNIT.as_millis())).unwrap_or(u32::MAX).max(1)
}

impl Deadlines {
    pub(crate) fn new(max: usize) -> Deadlines {
        Deadlines {
            at: Vec::with_capacity(max),
            armed: 0,
            cursor: 0,
            left: 0,
            swept: 0,
            earliest: u32::MAX,
            earliest_of_round: u32::MAX,
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, index: u32, at: Duration) {
        // Sub-millisecond parts round up as well: never early.
        let at =
            if at.subsec_nanos().is_multiple_of(1_000_000) { at } else { at.saturating_add(Duration::from_millis(1)) };
        let unit = ceil(at);
        let index = index as usize;
        if index >= self.at.len() {
            self.at.resize(index + 1, NONE);
        }
        if self.at[index] == NONE {
            self.armed += 1;
        }
        self.at[index] = unit;
        self.earliest = self.earliest.min(unit);
        self.earliest_of_round = self.earliest_of_round.min(unit);
    }

    #[inline]
    pub(crate) fn clear(&mut self, index: u32) {
        if let Some(at) = self.at.get_mut(index as usize)
            && *at != NONE
        {
            *at = NONE;
            self.armed -= 1;
        }
    }

    /// Starts the steps that are due, on top of what a spent budget left over.
    pub(crate) fn begin_sweep(&mut self, now: Duration) {
        let now = floor(now);
        let steps = now.saturating_sub(self.swept) as usize;
        self.swept = self.swept.max(now);
        if steps == 0 || self.armed == 0 || self.earliest > now {
            return;
        }
        if self.cursor == 0 {
            // The round that begins here will see all there is, so it forgets what was set and cleared before it.
            self.earliest_of_round = u32::MAX;
        }
        let step = self.at.len().div_ceil(STEPS).max(SWEEP_MIN);
        self.left = self.left.saturating_add(step.saturating_mul(steps)).min(self.at.len());
    }

    /// The next expired connection of the sweep begun; its deadline is cleared.
    pub(crate) fn next_expired(&mut self, now: Duration) -> Option<u32> {
        let now = floor(now);
        while self.left > 0 {
            if self.cursor >= self.at.len() {
                self.begin_round();
            }
            let index = self.cursor;
            let at = self.at[index];
            self.cursor += 1;
            self.left -= 1;
            if at != NONE && at <= now {
                self.at[index] = NONE;
                self.armed -= 1;
                return Some(index as u32);
            }
            if at != NONE {
                self.earliest_of_round = self.earliest_of_round.min(at);
            }
        }
        if self.cursor >= self.at.len() {
            self.begin_round();
        }
        None
    }

    /// Every deadline was seen in the round that ends here, or set during it.
    fn begin_round(&mut self) {
        self.cursor = 0;
        self.earliest = self.earliest_of_round;
        self.earliest_of_round = u32::MAX;
    }

    /// A sweep was interrupted by its budget.
    pub(crate) fn unfinished(&self) -> bool {
        self.left > 0
    }

    /// When the next step is worth making.
    pub(crate) fn next_step(&self) -> Option<Duration> {
        (self.armed > 0).then(|| UNIT * self.earliest.max(self.swept.saturating_add(1)))
    }

    /// Moves all deadlines into the future.
    pub(crate) fn shift(&mut self, by: Duration) {
        let by = ceil(by);
        for at in &mut self.at {
            if *at != NONE {
                *at = at.saturating_add(by);
            }
        }
        self.earliest = self.earliest.saturating_add(by);
        self.earliest_of_round = self.earliest_of_round.saturating_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sweep(column: &mut Deadlines, now: Duration) -> Vec<u32> {
        column.begin_sweep(now);
        std::iter::from_fn(|| column.next_expired(now)).collect()
    }

    #[test]
    fn a_deadline_is_reported_once_and_never_early() {
        let mut column = Deadlines::new(4);
        column.set(2, ms(250) + Duration::from_nanos(1));
        assert_eq!(sweep(&mut column, ms(250)), []);
        assert_eq!(column.next_step(), Some(ms(300)));
        assert_eq!(sweep(&mut column, ms(299)), []);
        assert_eq!(sweep(&mut column, ms(300)), [2]);
        assert_eq!(sweep(&mut column, ms(900)), []);
        assert_eq!(column.next_step(), None);
    }

    #[test]
    fn a_cleared_or_moved_deadline_is_not_reported_at_its_old_time() {
        let mut column = Deadlines::new(4);
        column.set(0, ms(100));
        column.set(1, ms(100));
        column.set(2, ms(100));
        column.clear(0);
        column.set(1, ms(500));
        assert_eq!(sweep(&mut column, ms(200)), [2]);
        assert_eq!(sweep(&mut column, ms(600)), [1]);
    }

    #[test]
    fn a_jump_of_the_clock_moves_every_deadline() {
        let mut column = Deadlines::new(4);
        column.set(0, ms(100));
        column.shift(ms(3000));
        assert_eq!(sweep(&mut column, ms(3000)), []);
        assert_eq!(sweep(&mut column, ms(3100)), [0]);
    }

    #[test]
    fn an_expired_deadline_causes_no_step_afterwards() {
        let mut column = Deadlines::new(4);
        column.set(0, ms(100));
        column.set(1, ms(5000));
        assert_eq!(sweep(&mut column, ms(100)), [0]);
        assert_eq!(column.next_step(), Some(ms(5000)));
    }

    #[test]
    fn a_long_column_is_swept_whole_within_a_second() {
        let count = 10 * SWEEP_MIN as u32;
        let mut column = Deadlines::new(count as usize);
        (0..count).for_each(|index| column.set(index, ms(1000)));
        let mut seen = vec![0u32; count as usize];
        for step in 0..=10 {
            let expired = sweep(&mut column, ms(1000 + 100 * step));
            assert!(expired.len() <= 10 * SWEEP_MIN, "a stall sweeps nothing twice");
            expired.iter().for_each(|&index| seen[index as usize] += 1);
        }
        assert!(seen.iter().all(|&n| n == 1));
    }

    #[test]
    fn a_spent_budget_goes_on_where_it_stopped() {
        let mut column = Deadlines::new(4);
        (0..4).for_each(|index| column.set(index, ms(100)));
        column.begin_sweep(ms(100));
        assert_eq!(column.next_expired(ms(100)), Some(0));
        assert!(column.unfinished());
        column.begin_sweep(ms(100));
        assert_eq!(std::iter::from_fn(|| column.next_expired(ms(100))).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(!column.unfinished());
    }

    proptest! {
        /// Against a sorted map: never early, never twice, never lost, at most 200 ms late when swept in time.
        #[test]
        fn agrees_with_a_naive_map(operations in prop::collection::vec((0u32..40, 0u64..3000, 0u8..4), 1..200)) {
            let mut column = Deadlines::new(40);
            let mut naive = BTreeMap::new();
            let mut now = Duration::ZERO;
            for (index, delay, what) in operations {
                match what {
                    0 => { column.clear(index); naive.remove(&index); }
                    1 => {
                        let until = now + ms(delay);
                        while let Some(next) = column.next_step().filter(|&next| next <= until) {
                            now = now.max(next);
                            for expired in sweep(&mut column, now) {
                                let at = naive.remove(&expired).expect("reported once, and only if set");
                                prop_assert!(at <= now && now <= at + ms(200), "{at:?} reported at {now:?}");
                            }
                        }
                        now = until;
                        prop_assert!(naive.values().all(|&at| now <= at + ms(200)), "a deadline was lost");
                    }
                    _ => { column.set(index, now + ms(delay)); naive.insert(index, now + ms(delay)); }
                }
            }
        }
    }
}
