//! How much of what is resident the allocator has kept: free, and used again before more is asked of the kernel.
//!
//! Without it a gateway that has let go of a hundred megabytes would, where their pages stay, see no difference, let go of a
//! hundred more, and so on until nobody is left.

/// What two readings in a row tell about it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    last: Option<Reading>,
    bytes: i64,
    /// The most that was ever counted: no more than what has been used can have been kept.
    peak: i64,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    resident: i64,
    counted: i64,
}

impl Kept {
    /// One more reading. Returns what is kept by now.
    pub(super) fn note(&mut self, resident: i64, counted: i64) -> i64 {
        let Some(last) = self.last.replace(Reading { resident, counted }) else {
            self.peak = counted;
            return 0;
        };
        self.peak = self.peak.max(counted);
        let taken = counted - last.counted;
        let more = resident - last.resident - taken;
        if more < 0 {
            // Taken from what was kept, or given back by now.
            self.bytes += more;
        } else if taken < 0 {
            // Less is counted, and not as much less resident.
            self.bytes += more.min(-taken);
        }
        self.bytes = self.bytes.clamp(0, self.peak - counted);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes (resident, counted) one after the other; returns what is in use by each.
    fn in_use(readings: &[(i64, i64)]) -> Vec<i64> {
        let mut kept = Kept::default();
        readings.iter().map(|&(resident, counted)| resident - kept.note(resident, counted)).collect()
    }

    #[test]
    fn what_goes_counts_as_gone_whether_its_pages_go_or_not() {
        assert_eq!(in_use(&[(150, 50), (200, 100), (150, 50)]), [150, 200, 150]);
        assert_eq!(in_use(&[(150, 50), (200, 100), (200, 50)]), [150, 200, 150]);
        assert_eq!(in_use(&[(150, 50), (200, 100), (170, 50)]), [150, 200, 150]);
    }

    #[test]
    fn pages_that_go_later_are_not_counted_as_gone_twice() {
        assert_eq!(in_use(&[(200, 100), (200, 50), (180, 50), (150, 50), (150, 50)]), [200, 150, 150, 150, 150]);
    }

    #[test]
    fn what_was_kept_is_used_again() {
        assert_eq!(in_use(&[(200, 100), (200, 50), (200, 80), (200, 100), (210, 110)]), [200, 150, 180, 200, 210]);
        // Up and down many times leaves nothing over.
        let waves: Vec<_> = (0..100).map(|i| (200, if i % 2 == 0 { 100 } else { 20 })).collect();
        assert_eq!(in_use(&waves)[98..], [200, 120]);
    }

    #[test]
    fn what_nobody_counts_is_never_taken_for_kept() {
        assert_eq!(in_use(&[(200, 100), (300, 100), (400, 100)]), [200, 300, 400]);
        assert_eq!(in_use(&[(200, 100), (250, 110), (350, 120)]), [200, 250, 350]);
        // Less counted, and something else has grown at the same time: at most what went is kept.
        assert_eq!(in_use(&[(200, 100), (300, 90)]), [200, 290]);
        // More than was ever counted cannot be.
        let drifting: Vec<_> = (0..50).map(|i| (200 + 10 * i, if i % 2 == 0 { 100 } else { 90 })).collect();
        let last = in_use(&drifting)[49];
        assert!(last >= 200 + 490 - 10, "{last}");
    }
}
