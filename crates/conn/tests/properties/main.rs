//! One connection under random input, cut and answered in random ways, held against what must always be so.
//!
//! `TIDEGATE_SEED` replays a run whose seed a failure has named.

mod corpus;
#[path = "../../../fuzz/src/connection.rs"]
mod fuzzed;
mod output;
#[path = "../schema/mod.rs"]
mod schema;
mod script;
mod world;

use output::{check_centrifugo, check_echo, check_plain};
use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use script::{Script, centrifugo, echo, hostile, plain};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use world::{Op, World, op};

/// Operations on one connection.
const OPS: std::ops::Range<usize> = 1..120;

/// Runs a property from a random seed, or from the one in `TIDEGATE_SEED`.
fn property<S: Strategy>(strategy: S, claim: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let seed = match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => seed.parse().expect("TIDEGATE_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    let config = Config { cases: 1000, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(&strategy, claim) {
        panic!("{failure}\nto replay: TIDEGATE_SEED={seed}");
    }
}

/// How many lives came how far, so that a property that has become vacuous is noticed.
#[derive(Default)]
struct Lives {
    all: Cell<u32>,
    finished: Cell<u32>,
    ended_early: Cell<u32>,
    with_publications: Cell<u32>,
}

impl Lives {
    fn count(&self, world: &World) {
        let add = |cell: &Cell<u32>, is_so: bool| cell.set(cell.get() + u32::from(is_so));
        add(&self.all, true);
        add(&self.finished, world.is_finished);
        add(&self.ended_early, world.is_closed);
        add(&self.with_publications, world.delivered > 0);
    }

    /// Each of these in one life of twenty at least.
    fn expect(&self, publications: bool) {
        let share = self.all.get() / 20;
        assert!(self.finished.get() > share, "{} of {} lives were finished", self.finished.get(), self.all.get());
        assert!(self.ended_early.get() > share, "{} of {} ended early", self.ended_early.get(), self.all.get());
        let with = self.with_publications.get();
        assert!(!publications || with > share, "{with} of {} got publications", self.all.get());
    }
}

/// Lives through everything; what the world itself claims is asserted on the way.
fn live(script: &Script, ops: &[Op]) -> World {
    let mut world = World::new(&script.bytes);
    ops.iter().for_each(|op| world.apply(op));
    world.settle();
    world
}

#[test]
fn a_centrifugo_session_answers_each_command_once_and_delivers_what_it_announced() {
    let lives = Lives::default();
    property((centrifugo(), vec(op(), OPS)), |(script, ops)| {
        let mut world = live(&script, &ops);
        lives.count(&world);
        check_centrifugo(&script, &world);
        world.close();
        Ok(())
    });
    lives.expect(true);
}

#[test]
fn a_plain_session_announces_its_channels_before_it_delivers_every_publication_in_order() {
    let lives = Lives::default();
    property((plain(), vec(op(), OPS)), |(script, ops)| {
        let mut world = live(&script, &ops);
        lives.count(&world);
        check_plain(&world);
        world.close();
        Ok(())
    });
    lives.expect(true);
}

#[test]
fn an_echo_sends_back_what_it_got_in_order() {
    let lives = Lives::default();
    property((echo(), vec(op(), OPS)), |(script, ops)| {
        let mut world = live(&script, &ops);
        lives.count(&world);
        check_echo(&script, &world);
        world.close();
        Ok(())
    });
    lives.expect(false);
}

#[test]
fn hostile_bytes_do_no_more_than_end_their_connection() {
    property((hostile(), vec(op(), OPS)), |(script, ops)| {
        let mut world = live(&script, &ops);
        world.close();
        Ok(())
    });
}
