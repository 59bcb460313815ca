//! The same worlds with clients that speak TLS, 1.2 or 1.3, and come back with tickets.

use crate::coverage::Coverage;
use crate::line::Network;
use crate::planted::Plant;
use crate::{number, run_over};

/// Seeds of an ordinary run: a fifth of those in the clear, as each takes longer.
const SEEDS: u64 = 200;

fn run(seed: u64, plant: Plant) -> Result<Coverage, String> {
    run_over(seed, plant, Network::Tls)
}

#[test]
fn nothing_is_lost_doubled_swapped_or_sent_to_the_wrong_client_over_tls() {
    if let Some(seed) = number("TIDEGATE_SEED") {
        println!("{:#?}", run(seed, Plant::Nothing).unwrap_or_else(|finding| panic!("{finding}")));
        return;
    }
    let seeds = number("TIDEGATE_SEEDS").unwrap_or(SEEDS);
    let mut total = Coverage::default();
    for seed in 0..seeds {
        total += run(seed, Plant::Nothing).unwrap_or_else(|finding| panic!("{finding}"));
    }
    println!("{seeds} seeds: {total:#?}");
    if seeds >= SEEDS {
        let missing = total.missing();
        assert!(missing.is_empty(), "these never happened, so nothing is known about them: {missing:?}");
        assert!(total.tls_handshakes > 0 && total.tls_resumed > 0, "{total:?}");
    }
}

/// As in the clear: found by the checker, and found again.
fn is_found(plant: Plant) {
    let found = (0..SEEDS).find_map(|seed| run(seed, plant).err().map(|finding| (seed, finding)));
    let (seed, finding) = found.unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS} seeds"));
    println!("{plant:?}: {finding}");
    let by_others = ["a panic", "TLS"].iter().any(|words| finding.contains(words));
    assert!(!by_others, "found by an assertion of the gateway or by the library, not by the checker: {finding}");
    assert_eq!(run(seed, plant).expect_err("the seed replays"), finding);
}

#[test]
fn what_is_lost_behind_tls_is_found() {
    is_found(Plant::LostRecord);
}

#[test]
fn what_is_lost_doubled_or_swapped_in_front_of_tls_is_found() {
    for plant in [Plant::Drop, Plant::Double, Plant::Swap, Plant::WrongRecipient, Plant::SkipRecovered] {
        is_found(plant);
    }
}

#[test]
fn the_same_seed_makes_the_same_world_over_tls() {
    for seed in 0..20 {
        assert_eq!(run(seed, Plant::Nothing), run(seed, Plant::Nothing));
    }
}
