//! One stream of numbered messages as one client receives it: what came, what did not, what came twice or too late.

/// Gaps that are remembered per stream. A stream with more has lost its oldest for good; should that still come, it counts
/// as doubled.
const GAPS_MAX: usize = 256;

/// What the arrival of one number means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It is the next one, or further ahead: what lies between is missing for now.
    InOrder,
    /// It was missing: a later one came first.
    OutOfOrder,
    /// It was here before.
    Duplicate,
}

/// Numbers from 1 on. Costs 16 bytes while all is well.
#[derive(Clone, Default, Debug)]
pub(crate) struct Track {
    /// The highest number that came.
    highest: u32,
    /// Numbers below it that did not come.
    gaps: Option<Box<Gaps>>,
}

#[derive(Clone, Default, Debug)]
struct Gaps {
    /// First and last, ascending.
    ranges: Vec<(u32, u32)>,
    /// Numbers in gaps that are not remembered any more.
    forgotten: u64,
}

impl Track {
    /// Takes note of a number.
    pub(crate) fn arrived(&mut self, sequence: u32) -> Arrival {
        // Numbers start at 1, and the highest starts at 0: a 0 is nothing we sent, so it can only be a fault.
        if sequence > self.highest {
            if sequence > self.highest + 1 {
                self.gaps.get_or_insert_default().add(self.highest + 1, sequence - 1);
            }
            self.highest = sequence;
            return Arrival::InOrder;
        }
        let was_missing = self.gaps.as_mut().is_some_and(|gaps| gaps.fill(sequence));
        if was_missing { Arrival::OutOfOrder } else { Arrival::Duplicate }
    }

    /// How many of the numbers up to `last` did not come.
    pub(crate) fn missing(&self, last: u32) -> u64 {
        let behind = u64::from(last.saturating_sub(self.highest));
        let Some(gaps) = &self.gaps else { return behind };
        let open: u64 = gaps.ranges.iter().map(|&(first, last)| u64::from(last - first) + 1).sum();
        behind + open + gaps.forgotten
    }

    /// Whether this number did not come.
    pub(crate) fn lacks(&self, sequence: u32) -> bool {
        let in_gap = |&(first, last): &(u32, u32)| (first..=last).contains(&sequence);
        sequence > self.highest || self.gaps.as_ref().is_some_and(|gaps| gaps.ranges.iter().any(in_gap))
    }
}

impl Gaps {
    fn add(&mut self, first: u32, last: u32) {
        if self.ranges.len() == GAPS_MAX {
            let (first, last) = self.ranges.remove(0);
            self.forgotten += u64::from(last - first) + 1;
        }
        self.ranges.push((first, last));
    }

    fn fill(&mut self, sequence: u32) -> bool {
        let Some(at) = self.ranges.iter().position(|&(first, last)| (first..=last).contains(&sequence)) else {
            return false;
        };
        let (first, last) = self.ranges[at];
        let left = (first < sequence).then(|| (first, sequence - 1));
        let right = (sequence < last).then(|| (sequence + 1, last));
        self.ranges.splice(at..=at, left.into_iter().chain(right));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn track(numbers: &[u32]) -> (Track, Vec<Arrival>) {
        let mut track = Track::default();
        let arrivals = numbers.iter().map(|&n| track.arrived(n)).collect();
        (track, arrivals)
    }

    #[test]
    fn a_complete_stream_in_order_has_no_fault() {
        let (track, arrivals) = track(&[1, 2, 3, 4]);
        assert!(arrivals.iter().all(|&a| a == Arrival::InOrder));
        assert_eq!((track.missing(4), track.missing(5)), (0, 1));
        assert!(!track.lacks(4) && track.lacks(5));
        assert_eq!(size_of::<Track>(), 16);
    }

    #[test]
    fn a_drop_is_missing_and_nothing_else() {
        let (track, arrivals) = track(&[1, 3, 4]);
        assert_eq!(arrivals, [Arrival::InOrder; 3]);
        assert_eq!(track.missing(4), 1);
        assert!(track.lacks(2) && !track.lacks(3));
    }

    #[test]
    fn a_swap_is_out_of_order_and_nothing_is_missing() {
        let (track, arrivals) = track(&[1, 3, 2, 4]);
        assert_eq!(arrivals, [Arrival::InOrder, Arrival::InOrder, Arrival::OutOfOrder, Arrival::InOrder]);
        assert_eq!(track.missing(4), 0);
    }

    #[test]
    fn a_double_is_a_duplicate_also_of_one_that_came_late() {
        let (track, arrivals) = track(&[1, 1, 3, 2, 2, 3]);
        use Arrival::{Duplicate, InOrder, OutOfOrder};
        assert_eq!(arrivals, [InOrder, Duplicate, InOrder, OutOfOrder, Duplicate, Duplicate]);
        assert_eq!(track.missing(3), 0);
    }

    #[test]
    fn gaps_beyond_the_limit_stay_lost_and_cost_no_memory() {
        let odd: Vec<u32> = (0..2_000).map(|n| 2 * n + 1).collect();
        let (track, _) = track(&odd);
        assert_eq!(track.missing(3_999), 1_999);
        assert!(track.gaps.unwrap().ranges.len() <= GAPS_MAX);
    }

    #[test]
    fn any_arrival_order_is_judged_as_a_set_would_judge_it() {
        let seed =
            std::env::var("TIDEGATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        println!("TIDEGATE_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let (mut track, mut seen) = (Track::default(), BTreeSet::new());
            for _ in 0..random.usize(..120) {
                let number = random.u32(1..60);
                let highest = seen.last().copied().unwrap_or(0);
                let expected = match seen.insert(number) {
                    false => Arrival::Duplicate,
                    true if number > highest => Arrival::InOrder,
                    true => Arrival::OutOfOrder,
                };
                assert_eq!(track.arrived(number), expected);
            }
            for number in 1..70 {
                assert_eq!(track.lacks(number), !seen.contains(&number));
            }
            let last = seen.last().copied().unwrap_or(0);
            assert_eq!(track.missing(last + 3), u64::from(last) + 3 - seen.len() as u64);
        }
    }
}
