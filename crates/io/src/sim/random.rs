//! The simulator's only source of chance.

use std::ops::RangeInclusive;
use std::time::Duration;

/// SplitMix64: small, seedable with any number, and never changes under us as a library's generator may between two
/// versions, which would make recorded seeds worthless.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The bias of a 64-bit product is far below anything a test could see.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        // Nothing is drawn for a fault that is off, so that switching one off leaves the others' dice alone only as far
        // as their order goes; a seed is replayed with the same faults.
        probability > 0.0 && (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= probability
    }

    pub(super) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let (low, high) = (*range.start(), *range.end());
        let spread = high.saturating_sub(low).as_nanos() as u64;
        low + Duration::from_nanos(if spread == 0 { 0 } else { self.below(spread + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut random = Random::seeded(1234567);
        assert_eq!((random.next(), random.next()), (6457827717110365317, 3203168211198807973));
    }

    #[test]
    fn chance_keeps_to_its_probability() {
        let mut random = Random::seeded(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| !random.chance(0.0)) && (0..1000).all(|_| random.chance(1.0)));
    }
}
