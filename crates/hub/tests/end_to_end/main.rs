//! Homes and locals of several workers joined by queues that stall and fill up, under storms of subscribes,
//! unsubscribes, deaths and publications.
//!
//! What must hold: after the answer to its subscribe a client gets each publication of the channel once, in order, and
//! nothing else. The checker is shown to find what it is there for by planting each fault in turn.

mod checker;
#[path = "../support/mod.rs"]
mod support;
mod world;

use checker::Fault;
use world::{Counts, Plant, World};

const STEPS: u32 = 3_000;

fn run(seed: u64, plant: Plant) -> (Counts, Vec<Fault>) {
    let mut world = World::new(seed, plant);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.verdict()
}

#[test]
fn nothing_is_lost_doubled_swapped_or_misdirected() {
    let mut total = Counts::default();
    let seeds = support::seeds(150);
    for &seed in &seeds {
        let (counts, faults) = run(seed, Plant::Nothing);
        assert!(faults.is_empty(), "TIDEGATE_SEED={seed}: {:?}", &faults[..faults.len().min(5)]);
        total.add(&counts);
    }
    println!("{total:#?}");
    if seeds.len() > 1 {
        for (name, count) in total.named() {
            assert!(count > 0, "no run had any {name}");
        }
    }
}

/// For each planted fault: some seed shows it, by the right name, and the same seed shows the same again.
#[test]
fn the_checker_finds_each_planted_fault() {
    type IsIt = fn(&Fault) -> bool;
    let plants: [(Plant, IsIt); 6] = [
        (Plant::Drop, |fault| matches!(fault, Fault::Gap { .. } | Fault::Missing { .. })),
        (Plant::Double, |fault| matches!(fault, Fault::Repeated { .. })),
        (Plant::Swap, |fault| matches!(fault, Fault::Gap { .. })),
        (Plant::WrongRecipient, |fault| matches!(fault, Fault::Stranger { .. })),
        (Plant::NaiveInterest, |fault| matches!(fault, Fault::Missing { .. } | Fault::Epoch { .. })),
        (Plant::NumberBeforeRoom, |fault| matches!(fault, Fault::Gap { .. } | Fault::Missing { .. })),
    ];
    for (plant, is_it) in plants {
        let found = (0..50).find(|&seed| run(seed, plant).1.iter().any(is_it));
        let seed = found.unwrap_or_else(|| panic!("{plant:?} was never found"));
        assert_eq!(run(seed, plant).1, run(seed, plant).1, "seed {seed} replays");
        println!("{plant:?} was found with seed {seed}");
    }
}
