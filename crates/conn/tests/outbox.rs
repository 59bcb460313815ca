//! The outbox against a naive one: the same pushes, short sends, skips and conflations, compared byte for byte.
//!
//! `TIDEGATE_SEED` replays a run whose seed a failure has named.

use conn::outbox::slow::{Offered, Room};
use conn::outbox::{Outbox, Outboxes, Standing};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

const ROOM: Room = Room { bytes_max: 400, low_water: 120 };
const HIGH_WATER: usize = 250;

#[derive(Clone, Debug)]
enum Op {
    Reply(usize),
    Publish(Kind, usize),
    Gather(usize),
    /// Percent of what is in flight.
    Sent(usize),
    SkipChannel(usize),
    /// The connection is closed as slow.
    Disconnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reply,
    Firm,
    Oldest(usize),
    Latest(u64),
    /// Latest, of which two of one channel may wait, so that none takes another's place.
    Tagged(u64),
}

impl Kind {
    fn key(self) -> Option<u64> {
        match self {
            Kind::Latest(key) | Kind::Tagged(key) => Some(key),
            Kind::Reply | Kind::Firm | Kind::Oldest(_) => None,
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        2 => Just(Kind::Firm),
        4 => (0..3usize).prop_map(Kind::Oldest),
        4 => (0..4u64).prop_map(Kind::Latest),
        2 => (10..13u64).prop_map(Kind::Tagged),
    ];
    prop_oneof![
        10 => (1..40usize).prop_map(Op::Reply),
        60 => (kind, 1..60usize).prop_map(|(kind, len)| Op::Publish(kind, len)),
        20 => (1..300usize).prop_map(Op::Gather),
        20 => prop_oneof![Just(100), Just(0), 0..=100usize].prop_map(Op::Sent),
        1 => (0..3usize).prop_map(Op::SkipChannel),
        1 => Just(Op::Disconnect),
    ]
}

#[derive(Clone, Debug)]
struct Item {
    kind: Kind,
    bytes: Vec<u8>,
    /// When it was pushed, counted over all items.
    number: usize,
    taken: usize,
    in_flight: bool,
    /// Replies before it, as far as the outbox knows: nobody knows for what came back from the kernel.
    replies: Option<usize>,
}

impl Item {
    fn is_untouched(&self) -> bool {
        self.taken == 0 && !self.in_flight
    }
}

/// What the outbox should hold, found by looking at everything each time.
#[derive(Default)]
struct Naive {
    items: Vec<Item>,
    in_flight: usize,
    is_watched: bool,
    replies: usize,
    numbers: usize,
    skipped: u64,
    conflated: u64,
    lost: Vec<usize>,
    /// Items that are out, in their order.
    out: Vec<Item>,
}

impl Naive {
    fn backlog(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len() - item.taken).sum()
    }

    fn append(&mut self, kind: Kind, bytes: Vec<u8>) {
        self.numbers += 1;
        self.replies += usize::from(kind == Kind::Reply);
        let (number, replies) = (self.numbers, Some(self.replies));
        self.items.push(Item { kind, bytes, number, taken: 0, in_flight: false, replies });
    }

    fn watch(&mut self) {
        if !std::mem::replace(&mut self.is_watched, true) {
            let is_reply = |item: &Item| item.kind == Kind::Reply;
            let mut replies = self.replies - self.items.iter().filter(|item| is_reply(item)).count();
            for item in &mut self.items {
                replies += usize::from(is_reply(item));
                item.replies = Some(replies);
            }
            self.conflate_all();
        }
    }

    /// Of each key only the newest stays.
    fn conflate_all(&mut self) {
        for at in (0..self.items.len()).rev() {
            let item = &self.items[at];
            let newer = |other: &Item| other.is_untouched() && other.kind.key() == item.kind.key();
            if item.kind.key().is_some() && item.is_untouched() && self.items[at + 1..].iter().any(newer) {
                self.items.remove(at);
                self.conflated += 1;
            }
        }
    }

    fn offer(&mut self, kind: Kind, bytes: Vec<u8>) -> Offered {
        let len = bytes.len();
        if kind != Kind::Firm || self.backlog() + len > ROOM.bytes_max {
            self.watch();
        }
        if let Some(at) =
            self.items.iter().position(|i| i.is_untouched() && i.kind.key().is_some_and(|k| kind.key() == Some(k)))
        {
            self.conflated += 1;
            let fits = self.backlog() - self.items[at].bytes.len() + len <= ROOM.bytes_max;
            if matches!(kind, Kind::Latest(_)) && self.items[at].replies == Some(self.replies) && fits {
                self.numbers += 1;
                self.items[at] = Item { bytes, number: self.numbers, ..self.items[at].clone() };
                return Offered::Queued;
            }
            self.items.remove(at);
        }
        if self.backlog() + len > ROOM.bytes_max {
            self.skip();
        }
        match kind {
            _ if self.backlog() + len <= ROOM.bytes_max => {
                self.append(kind, bytes);
                Offered::Queued
            }
            Kind::Oldest(channel) => {
                self.skipped += 1;
                self.lost.push(channel);
                Offered::Skipped
            }
            _ => Offered::Full,
        }
    }

    fn skip(&mut self) {
        while self.backlog() > ROOM.low_water {
            let oldest = self.items.iter().position(|i| i.is_untouched() && matches!(i.kind, Kind::Oldest(_)));
            let Some(at) = oldest else { return };
            let Kind::Oldest(channel) = self.items.remove(at).kind else { unreachable!() };
            self.skipped += 1;
            self.lost.push(channel);
        }
    }

    fn gather(&mut self, mut room: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for item in &mut self.items {
            let taken = room.min(item.bytes.len() - item.taken);
            item.in_flight = taken > 0;
            out.extend_from_slice(&item.bytes[item.taken..item.taken + taken]);
            room -= taken;
        }
        self.in_flight = out.len();
        out
    }

    fn sent(&mut self, mut bytes: usize) {
        self.in_flight = 0;
        for item in &mut self.items {
            let taken = bytes.min(item.bytes.len() - item.taken);
            item.taken += taken;
            bytes -= taken;
            if std::mem::take(&mut item.in_flight) {
                item.replies = None;
            }
        }
        while self.items.first().is_some_and(|item| item.taken == item.bytes.len()) {
            self.out.push(self.items.remove(0));
        }
        if self.is_watched {
            self.conflate_all();
        }
    }
}

/// How often what happened, over all runs.
#[derive(Debug, Default)]
struct Seen {
    skipped: u64,
    conflated: u64,
    left_out: u64,
    full: u64,
    taken_back: u64,
}

/// Both outboxes.
struct Pair {
    real: Outboxes,
    outbox: Outbox,
    naive: Naive,
    output: Vec<u8>,
    expected: Vec<u8>,
    in_flight: Vec<u8>,
    closed: bool,
}

impl Pair {
    fn new() -> Self {
        Self {
            real: Outboxes::default(),
            outbox: Outbox::default(),
            naive: Naive::default(),
            output: Vec::new(),
            expected: Vec::new(),
            in_flight: Vec::new(),
            closed: false,
        }
    }

    fn apply(&mut self, op: &Op, seen: &mut Seen) {
        match *op {
            // As connections do it: into a full outbox nothing is written before room was made.
            Op::Reply(len) => {
                if self.outbox.backlog() > ROOM.low_water && self.outbox.backlog() + len > ROOM.bytes_max {
                    self.real.skip(&mut self.outbox, ROOM.low_water);
                    self.naive.watch();
                    self.naive.skip();
                }
                let bytes = self.bytes(len);
                self.real.write(&mut self.outbox, |out| out.extend_from_slice(&bytes));
                self.naive.append(Kind::Reply, bytes);
            }
            Op::Publish(_, _) if self.closed => {}
            Op::Publish(kind, len) => self.publish(kind, len, seen),
            Op::Gather(_) if self.naive.in_flight > 0 => {}
            Op::Gather(room) => self.gather(room),
            Op::Sent(percent) => {
                let sent = self.in_flight.len() * percent / 100;
                seen.taken_back += u64::from(sent < self.in_flight.len() && self.naive.is_watched);
                self.sent(sent);
            }
            Op::SkipChannel(channel) => {
                self.real.skip_channel(&mut self.outbox, channel as u64);
                self.naive.watch();
                let before = self.naive.items.len();
                self.naive.items.retain(|item| item.kind != Kind::Oldest(channel) || !item.is_untouched());
                self.naive.skipped += (before - self.naive.items.len()) as u64;
            }
            Op::Disconnect => {
                self.closed = true;
                self.real.drop_publications(&mut self.outbox);
                self.naive.items.retain(|item| item.kind == Kind::Reply || !item.is_untouched());
                self.naive.is_watched = false;
            }
        }
        self.lost();
        self.check();
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        // Distinct, so that no two items look alike.
        let mut bytes = format!("<{}.", self.naive.numbers).into_bytes();
        bytes.resize(bytes.len() + len, b'x');
        bytes
    }

    fn publish(&mut self, kind: Kind, len: usize, seen: &mut Seen) {
        let bytes = self.bytes(len);
        let standing = match kind {
            Kind::Reply | Kind::Firm => Standing::Firm,
            Kind::Oldest(channel) => Standing::Oldest { channel: channel as u64 },
            Kind::Latest(key) => Standing::Latest { key, in_place: true },
            Kind::Tagged(key) => Standing::Latest { key, in_place: false },
        };
        let body = self.real.shared_as(standing, |out| out.extend_from_slice(&bytes));
        if self.naive.is_watched || self.outbox.backlog() + bytes.len() > HIGH_WATER {
            let offered = self.naive.offer(kind, bytes);
            assert_eq!(self.real.offer(&mut self.outbox, body, ROOM), offered, "{kind:?}");
            seen.left_out += u64::from(offered == Offered::Skipped);
            seen.full += u64::from(offered == Offered::Full);
            assert!(self.outbox.backlog() <= ROOM.bytes_max || offered != Offered::Queued);
        } else {
            self.real.push(&mut self.outbox, body);
            self.naive.append(kind, bytes);
        }
        self.real.release(body);
    }

    fn gather(&mut self, room: usize) {
        let mut out = Vec::new();
        self.real.gather(&mut self.outbox, |bytes| {
            let taken = bytes.len().min(room - out.len());
            out.extend_from_slice(&bytes[..taken]);
            taken
        });
        assert_eq!(out, self.naive.gather(room));
        self.in_flight = out;
    }

    fn sent(&mut self, bytes: usize) {
        self.real.sent(&mut self.outbox, bytes);
        self.naive.sent(bytes);
        self.output.extend_from_slice(&self.in_flight[..bytes]);
        self.in_flight.clear();
        if self.outbox.backlog() <= ROOM.low_water {
            self.real.caught_up(&mut self.outbox);
            self.naive.is_watched = false;
        }
    }

    fn lost(&mut self) {
        let mut lost = Vec::new();
        while let Some(channel) = self.real.next_lost(&self.outbox) {
            lost.push(channel as usize);
        }
        lost.sort_unstable();
        let mut expected = std::mem::take(&mut self.naive.lost);
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(lost, expected, "channels that lost something are named once each");
    }

    fn check(&self) {
        assert_eq!(self.outbox.backlog(), self.naive.backlog());
        assert!(self.real.held_bytes() >= self.outbox.backlog(), "what waits is held");
        assert_eq!((self.real.skipped(), self.real.conflated()), (self.naive.skipped, self.naive.conflated));
    }

    /// Everything out; then what came out is judged without the naive outbox's rules.
    fn finish(mut self, seen: &mut Seen) {
        self.sent(self.in_flight.len());
        while !self.outbox.is_empty() {
            self.gather(97);
            self.sent(self.in_flight.len());
        }
        assert_eq!((self.real.bodies_in_use(), self.real.held_bytes()), (0, 0));
        self.naive.out.iter().for_each(|item| self.expected.extend_from_slice(&item.bytes));
        assert_eq!(self.output, self.expected, "whole items only");
        for (at, item) in self.naive.out.iter().enumerate() {
            let before = &self.naive.out[..at];
            let overtook = |other: &Item| other.number > item.number;
            match item.kind {
                Kind::Latest(_) => {
                    let same = before.iter().filter(|other| other.kind == item.kind);
                    assert!(!same.clone().any(overtook), "values of a key keep their order");
                }
                _ => {
                    let conflated = |other: &Item| matches!(other.kind, Kind::Latest(_));
                    let overtakers: Vec<_> = before.iter().filter(|o| overtook(o)).collect();
                    assert!(overtakers.iter().all(|o| conflated(o)), "only a value may move ahead");
                    assert!(item.kind != Kind::Reply || overtakers.is_empty(), "nothing moves ahead of a reply");
                }
            }
        }
        seen.skipped += self.naive.skipped;
        seen.conflated += self.naive.conflated;
    }
}

#[test]
fn what_comes_out_is_what_a_naive_outbox_gives() {
    let seed = match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => seed.parse().expect("TIDEGATE_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    let config = Config { cases: 3000, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let seen = RefCell::new(Seen::default());
    let outcome = TestRunner::new(config).run(&vec(op(), 1..250), |ops| {
        let (mut pair, seen) = (Pair::new(), &mut *seen.borrow_mut());
        ops.iter().for_each(|op| pair.apply(op, seen));
        pair.finish(seen);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\nto replay: TIDEGATE_SEED={seed}");
    }
    println!("{:?}", seen.borrow());
    let Seen { skipped, conflated, left_out, full, taken_back } = seen.into_inner();
    assert!([skipped, conflated, left_out, full, taken_back].iter().all(|&count| count > 1000), "too little happened");
}
