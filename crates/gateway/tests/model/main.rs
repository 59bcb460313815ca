//! Whole workers on a simulated network, checked against a model: whoever was told *subscribed* gets every publication of
//! the channel once and in order until it leaves, and nobody gets anything else. Whoever comes back to a channel with a
//! history within its size, times and limits is *recovered* with all it missed; a gap needs a reason. Where a namespace lets a
//! slow client miss some, what it gets is in order all the same and ends with the newest, and what it misses is counted; with a
//! history it is told of the gap and recovers. Whenever it is quiet, who is present is who is subscribed, and subscribers that
//! are told who comes and goes know the same.
//!
//! Each seed makes its own world: 1 to 4 workers with small mailboxes, three dialects, a hostile network, in half of them a
//! backend that decides who comes, stays, subscribes and publishes, and some hundred random operations. `TIDEGATE_SEED=N` runs one seed; `TIDEGATE_SEEDS=N` that many instead of 1,000.

// A test binary has no API.
#![allow(unreachable_pub)]

mod asking;
mod checker;
mod clients;
mod compressing;
mod coverage;
#[path = "../support/fossil.rs"]
mod fossil;
mod line;
#[path = "../../../wire/tests/support/naive.rs"]
mod naive;
mod planted;
mod present;
mod recovering;
#[path = "../../../conn/tests/schema/mod.rs"]
mod schema;
mod sealed;
mod world;

use coverage::Coverage;
use line::Network;
use planted::Plant;
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Runs one seed; a finding names the seed.
fn run(seed: u64, plant: Plant) -> Result<Coverage, String> {
    run_over(seed, plant, Network::Clear)
}

fn run_over(seed: u64, plant: Plant, network: Network) -> Result<Coverage, String> {
    let outcome = std::panic::catch_unwind(|| World::new(seed, plant, network).run());
    let outcome = outcome.unwrap_or_else(|_| Err("a panic".into()));
    outcome.map_err(|finding| format!("TIDEGATE_SEED={seed}: {finding}"))
}

#[test]
fn nothing_is_lost_doubled_swapped_or_sent_to_the_wrong_client() {
    if let Some(seed) = number("TIDEGATE_SEED") {
        println!("{:#?}", run(seed, Plant::Nothing).unwrap_or_else(|finding| panic!("{finding}")));
        return;
    }
    let seeds = number("TIDEGATE_SEEDS").unwrap_or(SEEDS);
    let halves: Vec<_> = (0..2)
        .map(|half| {
            std::thread::spawn(move || {
                let mut total = Coverage::default();
                for seed in (0..seeds).filter(|seed| seed % 2 == half) {
                    total += run(seed, Plant::Nothing)?;
                }
                Ok::<_, String>(total)
            })
        })
        .collect();
    let mut total = Coverage::default();
    for half in halves {
        total += half.join().expect("findings are values").unwrap_or_else(|finding| panic!("{finding}"));
    }
    println!("{seeds} seeds: {total:#?}");
    if seeds >= SEEDS {
        let missing = total.missing();
        assert!(missing.is_empty(), "these never happened, so nothing is known about them: {missing:?}");
    }
}

/// A checker that finds nothing proves nothing: each bug is planted in the mail between workers and must be found, and its
/// seed must find it again.
fn is_found(plant: Plant) {
    let found = (0..SEEDS).find_map(|seed| run(seed, plant).err().map(|finding| (seed, finding)));
    let (seed, finding) = found.unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS} seeds"));
    println!("{plant:?}: {finding}");
    assert!(!finding.contains("a panic"), "found by an assertion of the gateway, not by the checker: {finding}");
    assert_eq!(run(seed, plant).expect_err("the seed replays"), finding);
}

/// Found in itself, and not by what is missing in the end.
fn is_found_as(plant: Plant, what: &str) {
    is_found(plant);
    let mut findings = (0..SEEDS).filter_map(|seed| run(seed, plant).err());
    assert!(findings.any(|finding| finding.contains(what)), "{plant:?} is never found as {what:?}");
}

#[test]
fn a_dropped_publication_is_found() {
    is_found(Plant::Drop);
}

#[test]
fn a_doubled_publication_is_found() {
    is_found(Plant::Double);
}

#[test]
fn swapped_publications_are_found() {
    is_found(Plant::Swap);
}

#[test]
fn a_wrong_recipient_is_found() {
    is_found(Plant::WrongRecipient);
}

#[test]
fn interest_cleared_while_a_subscribe_is_pending_is_found() {
    is_found(Plant::NaiveInterest);
}

#[test]
fn an_epoch_that_is_not_renewed_is_found() {
    is_found(Plant::EpochKept);
}

#[test]
fn a_publication_left_out_of_a_recovery_is_found() {
    is_found(Plant::SkipRecovered);
}

#[test]
fn a_patch_behind_a_dropped_publication_is_found() {
    is_found_as(Plant::PatchBehindDrop, "brought a patch of");
}

#[test]
fn a_message_compressed_after_a_dropped_one_is_found() {
    is_found_as(Plant::CompressedBehindDrop, "not JSON");
}

#[test]
fn a_lost_leave_is_found() {
    is_found(Plant::LostLeave);
}

#[test]
fn a_doubled_join_is_found() {
    is_found(Plant::DoubleJoin);
}

/// Where letters are lost, those who are positioned are told and recover: they end with the whole sequence all the same.
#[test]
fn a_lost_delivery_is_noticed_and_recovered() {
    let mut total = Coverage::default();
    for seed in 0..SEEDS / 5 {
        total += run(seed, Plant::Lossy).unwrap_or_else(|finding| panic!("{finding}"));
    }
    println!("{total:#?}");
    assert!(total.deliveries_lost > 0 && total.seen.told_of_gaps > 0 && total.seen.recovered_publications > 0);
}

#[test]
fn the_same_seed_makes_the_same_world() {
    for seed in 0..20 {
        assert_eq!(run(seed, Plant::Nothing), run(seed, Plant::Nothing));
    }
}
