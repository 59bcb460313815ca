//! Connections and handshakes by address, against naive maps.

use conn::address::{Addresses, Entered, Paced, Place};
use conn::settings::Rate;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not 0")
}

fn addresses(connections_max: u64) -> Addresses {
    let addresses = Addresses::new([7; 16], connections_max);
    addresses.prepare(true, true);
    addresses
}

/// Few addresses, so that they meet: IPv4, and IPv6 of which two at a time are of one /64.
fn address(number: u8) -> IpAddr {
    let subnet = u16::from(number / 2);
    match number {
        ..128 => [192, 0, 2, number].into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, number.into()).into(),
    }
}

/// What is counted as one.
fn counted_as(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Open(u8),
    Close(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let number = prop_oneof![0..6u8, 128..136u8, any::<u8>()];
    prop_oneof![3 => number.prop_map(Op::Open), 2 => any::<usize>().prop_map(Op::Close)]
}

proptest! {
    /// Whoever comes and goes in whatever order: an address has as many places as a map says, and in the end there is none.
    #[test]
    fn places_are_those_of_a_naive_map(ops in prop::collection::vec(op(), 0..400), max in 1..5u32) {
        let addresses = addresses(4096);
        let mut naive: HashMap<u128, u32> = HashMap::new();
        let mut open: Vec<(u128, Place)> = Vec::new();
        for op in ops {
            match op {
                Op::Open(number) => {
                    let ip = address(number);
                    let count = naive.entry(counted_as(ip)).or_default();
                    match addresses.enter(ip, some(max)) {
                        Entered::Counted(place) => {
                            prop_assert!(*count < max, "{} has {}", ip, count);
                            *count += 1;
                            open.push((counted_as(ip), place));
                        }
                        Entered::Full => prop_assert_eq!(*count, max, "{}", ip),
                        Entered::Crowded => prop_assert!(false, "half of the table is empty"),
                    }
                }
                Op::Close(which) if !open.is_empty() => {
                    let (ip, place) = open.swap_remove(which % open.len());
                    addresses.leave(place);
                    *naive.get_mut(&ip).expect("it is open") -= 1;
                }
                Op::Close(_) => {}
            }
            prop_assert_eq!(addresses.counted(), open.len() as u64);
        }
        open.into_iter().for_each(|(_, place)| addresses.leave(place));
        prop_assert_eq!(addresses.counted(), 0);
    }

    /// A table that is full counts no more and forgets nothing.
    #[test]
    fn a_full_table_lets_strangers_pass(numbers in prop::collection::vec(any::<u8>(), 0..200)) {
        let addresses = addresses(4);
        let mut open = Vec::new();
        for number in numbers {
            match addresses.enter(address(number), some(1)) {
                Entered::Counted(place) => open.push((address(number), place)),
                Entered::Full => {}
                Entered::Crowded => prop_assert_eq!(addresses.counted(), 8),
            }
            prop_assert!(open.iter().all(|(ip, _)| addresses.enter(*ip, some(1)) == Entered::Full));
        }
        open.into_iter().for_each(|(_, place)| addresses.leave(place));
        prop_assert_eq!(addresses.counted(), 0);
    }

    /// At whatever times handshakes come, an address has the rate and the burst that a bucket of its own would give.
    #[test]
    fn handshakes_are_those_of_naive_buckets(
        steps in prop::collection::vec((0..4u8, 0..400u64), 1..300), per_second in 1..50u32, burst in 1..20u32,
    ) {
        let (addresses, rate) = (addresses(64), Rate { per_second: some(per_second), burst: some(burst) });
        let mut naive: HashMap<u8, u64> = HashMap::new();
        let mut now = Duration::from_secs(1000);
        for (number, millis) in steps {
            now += Duration::from_millis(millis);
            // A bucket's level in handshakes since the beginning: it never lies behind what has flowed in.
            let flowed = now.as_millis() as u64 * u64::from(per_second) / 1000;
            let level = naive.entry(number).or_default();
            let is_fine = level.saturating_sub(flowed) < u64::from(burst);
            let expected = if is_fine { Paced::Fine } else { Paced::TooFast };
            prop_assert_eq!(addresses.handshake(now, address(number), rate), expected, "{:?}", now);
            if is_fine {
                *level = flowed.max(*level) + 1;
            }
        }
    }
}

#[test]
fn all_together_have_a_rate_whose_burst_is_a_second_long() {
    let addresses = addresses(64);
    let run = |at: Duration| (0..50).filter(|_| addresses.any_handshake(at, some(10))).count();
    assert_eq!(run(Duration::from_secs(5)), 10);
    assert_eq!(run(Duration::from_millis(5500)), 5);
    assert_eq!(run(Duration::from_secs(7)), 10);
    assert_eq!(run(Duration::from_secs(86_400)), 10);
}

#[test]
fn a_rate_that_is_changed_counts_from_then_on() {
    let (addresses, now) = (addresses(64), Duration::from_secs(1000));
    let run = |per_second, burst| {
        let rate = Rate { per_second: some(per_second), burst: some(burst) };
        (0..50).filter(|_| addresses.handshake(now, address(1), rate) == Paced::Fine).count()
    };
    assert_eq!((run(10, 5), run(10, 5)), (5, 0));
    // What was owed by the old rate is forgotten, and nobody is shut out for long.
    assert_eq!((run(1, 5), run(1, 5)), (5, 0));
    assert_eq!((run(100, 7), run(100, 7)), (7, 0));
}

#[test]
fn nothing_is_counted_before_there_are_tables() {
    let (addresses, rate) = (Addresses::new([7; 16], 64), Rate { per_second: some(1), burst: some(1) });
    for _ in 0..3 {
        assert_eq!(addresses.enter(address(1), some(1)), Entered::Counted(Place::NONE));
        assert_eq!(addresses.handshake(Duration::ZERO, address(1), rate), Paced::Fine);
    }
    // Who came before leaves nothing behind.
    addresses.prepare(true, true);
    addresses.leave(Place::NONE);
    let Entered::Counted(place) = addresses.enter(address(1), some(1)) else { panic!("the first one") };
    assert_eq!(addresses.enter(address(1), some(1)), Entered::Full);
    addresses.leave(place);
    assert_eq!(addresses.counted(), 0);
}

/// Workers on threads of their own, in a table where everybody meets: nobody's place is lost, and none is left.
#[test]
fn threads_that_meet_leave_nothing_behind() {
    const EACH: u8 = 5;
    let addresses = Arc::new(addresses(16));
    let workers: Vec<_> = (0..4u32)
        .map(|worker| {
            let addresses = Arc::clone(&addresses);
            std::thread::spawn(move || {
                let mut open: Vec<Place> = Vec::new();
                let mut seed = worker + 1;
                for _ in 0..200_000 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if seed >> 31 == 0 {
                        if let Entered::Counted(place) = addresses.enter(address((seed >> 16) as u8 % EACH), some(3)) {
                            open.push(place);
                        }
                    } else if let Some(place) = open.pop() {
                        addresses.leave(place);
                    }
                }
                open.into_iter().for_each(|place| addresses.leave(place));
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    assert_eq!(addresses.counted(), 0);
    for number in 0..EACH {
        let places: Vec<_> = (0..4).map(|_| addresses.enter(address(number), some(3))).collect();
        assert_eq!(places.iter().filter(|entered| **entered == Entered::Full).count(), 1, "{number}");
    }
}
