//! What the randomised tests share.

/// The seeds to run: `0..count`, or only the one in `TIDEGATE_SEED`. Each test says the seed when it fails.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("TIDEGATE_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}
