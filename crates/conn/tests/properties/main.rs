//! One connection under random input, cut and answered in random ways, held against what must always be so.
//!
//! `TIDEGATE_SEED` replays a run whose seed a failure has named.

mod corpus;
#[allow(unexpected_cfgs, reason = "the planted bug is a feature of the fuzz crate")]
#[allow(unreachable_pub, reason = "the fuzzers use it as a public module")]
#[path = "../../../fuzz/src/connection.rs"]
mod fuzzed;
mod output;
mod presence;
#[path = "../schema/mod.rs"]
mod schema;
mod script;
mod settings;
mod world;

use output::{check_centrifugo, check_echo, check_plain, publications};
use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use script::{CHANNELS, Script, centrifugo, echo, hostile, leaver, plain, publisher, with_deltas};
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
    left_out: Cell<u32>,
}

impl Lives {
    fn count(&self, world: &World) {
        let add = |cell: &Cell<u32>, is_so: bool| cell.set(cell.get() + u32::from(is_so));
        add(&self.all, true);
        add(&self.finished, world.is_finished);
        add(&self.ended_early, world.is_closed);
        add(&self.with_publications, world.delivered > 0);
        add(&self.left_out, world.left_out > 0);
    }

    /// Each of these in one life of twenty at least.
    fn expect(&self, publications: bool) {
        let share = self.all.get() / 20;
        assert!(self.finished.get() > share, "{} of {} lives were finished", self.finished.get(), self.all.get());
        assert!(self.ended_early.get() > share, "{} of {} ended early", self.ended_early.get(), self.all.get());
        let with = self.with_publications.get();
        assert!(!publications || with > share, "{with} of {} got publications", self.all.get());
        assert!(!publications || self.left_out.get() > 0, "a policy has never acted");
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

/// The replies come when the outbox is all but full: what may go makes room for them, what may not does not.
#[test]
fn a_reply_disconnects_only_among_publications_that_may_not_go() {
    for (channel, is_closed) in [(1, false), (0, true)] {
        let script = publisher(CHANNELS[channel], 40);
        let mut world = World::new(&script.bytes);
        for _ in 0..20 {
            world.apply(&Op::Feed(400));
            world.apply(&Op::Subscribed { which: 0, ok: true });
        }
        while !world.is_full_for(100) {
            world.apply(&Op::Deliver { channel, bytes: 20 });
        }
        (0..40).for_each(|_| world.apply(&Op::Published { which: 0, ok: true }));
        assert_eq!((world.is_disconnected(), world.left_out > 0), (is_closed, !is_closed), "{}", CHANNELS[channel]);
        world.settle();
        check_centrifugo(&script, &world);
        world.close();
    }
}

#[test]
fn a_positioned_subscription_gets_nothing_behind_what_was_skipped() {
    for is_positioned in [false, true] {
        let script = publisher("b", 0);
        let mut world = World::new(&script.bytes);
        (0..4).for_each(|_| world.apply(&Op::Feed(400)));
        world.apply(&Op::Subscribed { which: 0, ok: true });
        if is_positioned {
            world.follow("b");
        }
        // Two get through; then the client reads no more.
        (0..2).for_each(|_| world.apply(&Op::Deliver { channel: 1, bytes: 100 }));
        world.apply(&Op::Gather(60_000));
        world.apply(&Op::Complete(100));
        while world.left_out == 0 {
            world.apply(&Op::Deliver { channel: 1, bytes: 100 });
        }
        world.settle();
        let (numbers, ended, behind) = publications(&world);
        if is_positioned {
            assert_eq!((&*numbers, ended, behind), (&[1, 2][..], Some(2500), 0), "it recovers from 2 on");
        } else {
            assert!(ended.is_none() && numbers.len() > 2 && numbers[2] > 3, "it skips ahead: {numbers:?}");
        }
        world.close();
    }
}

/// It leaves in the call in which the replies to its other commands made room among its publications: nobody is there any
/// more who could be told, and what is left of them would come behind a gap.
#[test]
fn who_leaves_a_channel_gets_nothing_behind_what_was_skipped_meanwhile() {
    let script = leaver("b", "a");
    let mut world = World::new(&script.bytes);
    (0..2).for_each(|_| world.apply(&Op::Feed(300)));
    world.apply(&Op::Subscribed { which: 0, ok: true });
    world.follow("b");
    (0..2).for_each(|_| world.apply(&Op::Deliver { channel: 1, bytes: 100 }));
    world.apply(&Op::Gather(60_000));
    world.apply(&Op::Complete(100));
    world.apply(&Op::Feed(2000));
    while !world.is_full_for(300) {
        world.apply(&Op::Deliver { channel: 1, bytes: 100 });
    }
    assert_eq!(world.left_out, 0);
    world.apply(&Op::Subscribed { which: 0, ok: true });
    world.settle();
    let (numbers, ended, _) = publications(&world);
    assert_eq!((&*numbers, ended), (&[1, 2][..], None));
    assert!(world.left_out > 0);
    check_centrifugo(&script, &world);
    world.close();
}

/// Nothing of a channel waits, and what comes next for it is skipped: a later patch would be on that.
#[test]
fn a_subscription_with_deltas_reads_no_patches_behind_what_was_skipped() {
    for (firm, reads_patches) in [(5, false), (4, true)] {
        let script = with_deltas(&["a", "b"]);
        let mut world = World::new(&script.bytes);
        (0..2).for_each(|_| world.apply(&Op::Feed(400)));
        (0..2).for_each(|_| world.apply(&Op::Subscribed { which: 0, ok: true }));
        world.apply(&Op::Deliver { channel: 1, bytes: 100 });
        world.begin_patches("b");
        world.apply(&Op::Gather(60_000));
        world.apply(&Op::Complete(100));
        (0..firm).for_each(|_| world.apply(&Op::Deliver { channel: 0, bytes: 1000 }));
        world.apply(&Op::Deliver { channel: 1, bytes: 1000 });
        assert_eq!((world.left_out > 0, world.reads_patches("b")), (!reads_patches, reads_patches));
        world.settle();
        world.close();
    }
}

#[test]
fn hostile_bytes_do_no_more_than_end_their_connection() {
    property((hostile(), vec(op(), OPS)), |(script, ops)| {
        let mut world = live(&script, &ops);
        world.close();
        Ok(())
    });
}
