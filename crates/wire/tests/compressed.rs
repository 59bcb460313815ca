//! permessage-deflate, sending: what is compressed is read by others, alone and after another message. Receiving:
//! deflate.rs.

#[path = "support/naive.rs"]
mod naive;
mod support;

use flate2::{Decompress, FlushDecompress};
use naive::Receiver;
use proptest::collection::vec;
use proptest::prelude::*;
use support::{message, params, property};
use wire::limits::HISTORY_BYTES_MAX;
use wire::ws::deflate::{Compressor, HistoryBudget, Level, MarkSource, Marks, Previous, START_BYTES};
use wire::ws::extension::Params;
use wire::ws::{Reader, Role};

#[test]
fn what_is_compressed_alone_is_read_by_another_and_smaller_or_not_compressed_at_all() {
    property((message(), 1..10_u8), |(message, level)| {
        let mut compressor = Compressor::new(Level::new(level).expect("1 to 9"));
        let mut out = b"before".to_vec();
        let compressed = compressor.compress(&message, None, message.len().saturating_sub(1), &mut out);
        let payload = out.strip_prefix(b"before").expect("what was there is kept");
        if compressed.is_some() {
            prop_assert!(payload.len() < message.len());
            let mut inflated = Vec::with_capacity(message.len() + 64);
            let tailed = [payload, &[0, 0, 0xff, 0xff]].concat();
            Decompress::new(false).decompress_vec(&tailed, &mut inflated, FlushDecompress::Sync).expect("good");
            prop_assert_eq!(&inflated, &message);
            prop_assert_eq!(Receiver::new(15, true).receive(payload), Some(message));
        } else {
            prop_assert!(payload.is_empty());
        }
        Ok(())
    });
}

#[test]
fn messages_that_do_not_shrink_leave_no_trace_however_many_come_in_a_row() {
    for level in 1..=9 {
        let mut compressor = Compressor::new(Level::new(level).expect("1 to 9"));
        let mut seed = 1_u64;
        let mut noise = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        let mut out = Vec::new();
        // 300 KB that are given up; zlib-rs has 64 KB of room for what it has not put out.
        for number in 0..600 {
            let message: Vec<u8> = (0..500).map(|_| noise()).collect();
            assert!(compressor.compress(&message, None, 250, &mut out).is_none(), "message {number} of noise");
        }
        assert!(out.is_empty());
        let text = b"what repeats, what repeats, what repeats";
        compressor.compress(text, None, text.len(), &mut out).expect("it shrinks");
        assert_eq!(Receiver::new(15, false).receive(&out).as_deref(), Some(&text[..]), "level {level}");
    }
}

#[test]
fn any_short_ascii_text_can_be_a_start() {
    property((vec(0..128_u8, 0..4096), 1..10_u8), |(noise, level)| {
        let (mut compressor, mut out) = (Compressor::new(Level::new(level).expect("1 to 9")), Vec::new());
        prop_assert!(compressor.compress(&noise, None, noise.len() + START_BYTES, &mut out).is_some());
        prop_assert_eq!(Receiver::new(15, false).receive(&out), Some(noise));
        Ok(())
    });
}

#[test]
fn what_repeats_is_compressed_and_noise_is_not() {
    let mut compressor = Compressor::new(Level::default());
    let mut out = Vec::new();
    assert!(compressor.compress(&b"tick ".repeat(20), None, 99, &mut out).is_some());
    assert!(out.len() < 20);
    out.clear();
    for noise in [&b""[..], b"x", b"xy", b"0123456789abcdef", &[7, 99, 3, 250, 14, 77, 180, 33, 9, 201, 66, 5]] {
        assert!(compressor.compress(noise, None, noise.len().saturating_sub(1), &mut out).is_none(), "{noise:x?}");
        assert!(out.is_empty());
    }
}

/// A connection that gets the messages of a channel, some of them, some compressed, and some replies.
struct Subscriber {
    marks: Marks,
    receiver: Receiver,
}

impl Subscriber {
    fn new(offer: &str) -> Subscriber {
        let params = params(offer);
        let direction = params.outgoing(Role::Server);
        let receiver = Receiver::new(direction.window_bits(), direction.forgets());
        Subscriber { marks: Marks::new(params, Role::Server), receiver }
    }
}

const OFFERS: [&str; 5] = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=12; client_no_context_takeover",
];

/// What one publication of [`broadcast`] means for one connection.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    Dropped,
    /// A reply of its own goes before it.
    AfterReply,
    Plain,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Delivered), 1 => Just(Fate::Dropped), 1 => Just(Fate::AfterReply), 1 => Just(Fate::Plain)]
}

/// Publishes on two channels to five connections that share two compressions per publication, and counts how often
/// each was used: alone, after the one before.
fn broadcast(publications: &[(bool, Vec<u8>, Vec<Fate>)]) -> Result<(usize, usize), TestCaseError> {
    let mut compressor = Compressor::new(Level::default());
    let mut source = MarkSource::default();
    let mut subscribers = OFFERS.map(Subscriber::new);
    let mut before = [None, None];
    let mut used = (0, 0);
    for (channel, message, fates) in publications {
        let mark = source.draw();
        let (mut alone, mut after) = (Vec::new(), Vec::new());
        let as_alone = compressor.compress(message, None, message.len() + START_BYTES, &mut alone);
        let previous: &mut Option<(_, Vec<u8>)> = &mut before[usize::from(*channel)];
        let as_after = previous.as_ref().and_then(|(mark, payload)| {
            let previous = Previous { mark: *mark, payload };
            compressor.compress(message, Some(previous), message.len().saturating_sub(1), &mut after)
        });
        for (subscriber, fate) in subscribers.iter_mut().zip(fates) {
            match fate {
                Fate::Dropped | Fate::Plain => continue,
                Fate::AfterReply => {
                    let (reply, mut out) = (b"{\"reply\":{},\"reply\":{},\"reply\":{}}", Vec::new());
                    if let Some(compressed) = compressor.compress(reply, None, reply.len() - 1, &mut out)
                        && subscriber.marks.accepts(&compressed)
                    {
                        prop_assert_eq!(subscriber.receiver.receive(&out), Some(reply.to_vec()));
                        subscriber.marks.forget();
                    }
                }
                Fate::Delivered => {}
            }
            let chosen = [(&as_after, &after), (&as_alone, &alone)].into_iter().find_map(|(compressed, payload)| {
                compressed.filter(|compressed| subscriber.marks.accepts(compressed)).map(|_| payload)
            });
            if let Some(payload) = chosen {
                let received = subscriber.receiver.receive(payload);
                prop_assert_eq!(received.as_ref(), Some(message), "{:?}", subscriber.receiver);
                subscriber.marks.sent(mark);
                *if payload == &after { &mut used.1 } else { &mut used.0 } += 1;
            }
        }
        *previous = Some((mark, message.clone()));
    }
    Ok(used)
}

#[test]
fn every_subscriber_reads_every_message_whatever_it_missed() {
    let publication = (any::<bool>(), message(), vec(fate(), OFFERS.len()));
    property(vec(publication, 1..20), |publications| broadcast(&publications).map(drop));
}

#[test]
fn a_steady_subscriber_gets_all_but_the_first_after_the_one_before() {
    let tick =
        |n: usize| format!("{{\"symbol\":\"ACME\",\"bid\":{n}.25,\"ask\":{n}.50,\"size\":{}}}", n * 7).into_bytes();
    let steady: Vec<_> = (0..20).map(|n| (false, tick(n), vec![Fate::Delivered; OFFERS.len()])).collect();
    // Only the one whose context is forgotten gets each alone; the others their first.
    let (alone, after) = broadcast(&steady).expect("all is read");
    assert_eq!(after, 19 * (OFFERS.len() - 1));
    assert_eq!(alone, 20 + OFFERS.len() - 1);
}

/// What would happen without [`Marks`]: the reason why every drop must be said.
#[test]
fn after_a_drop_the_next_message_would_be_read_as_another_one() {
    let ticks =
        ["{\"bid\":101.25,\"ask\":101.50}", "{\"bid\":102.75,\"ask\":103.00}", "{\"bid\":102.80,\"ask\":103.00}"];
    let mut compressor = Compressor::new(Level::default());
    let mut source = MarkSource::default();
    let marks: Vec<_> = ticks.iter().map(|_| source.draw()).collect();
    let mut subscriber = Subscriber::new("permessage-deflate");
    let mut first = Vec::new();
    compressor.compress(ticks[0].as_bytes(), None, ticks[0].len() + START_BYTES, &mut first).expect("enough room");
    assert_eq!(subscriber.receiver.receive(&first).as_deref(), Some(ticks[0].as_bytes()));
    subscriber.marks.sent(marks[0]);
    let mut third = Vec::new();
    let previous = Previous { mark: marks[1], payload: ticks[1].as_bytes() };
    let compressed =
        compressor.compress(ticks[2].as_bytes(), Some(previous), ticks[2].len(), &mut third).expect("it shrinks");
    assert!(!subscriber.marks.accepts(&compressed));
    let misread = subscriber.receiver.receive(&third).expect("nothing tells it that this is wrong");
    assert_ne!(misread, ticks[2].as_bytes());
    let mut steady = Subscriber::new("permessage-deflate");
    steady.marks.sent(marks[1]);
    assert!(steady.marks.accepts(&compressed));
}

#[test]
fn a_message_larger_than_a_window_is_not_for_that_window() {
    let mut compressor = Compressor::new(Level::default());
    for bits in 9..=15 {
        let marks = Marks::new(params(&format!("permessage-deflate; server_max_window_bits={bits}")), Role::Server);
        for (len, fits) in [((1 << bits), true), ((1 << bits) + 1, bits == 15)] {
            // The end refers to the very beginning.
            let mut message = vec![0; len];
            let noise = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8);
            message.iter_mut().zip(noise).take(len / 2).for_each(|(byte, noise)| *byte = noise);
            message.copy_within(0..40, len - 40);
            let mut out = Vec::new();
            let compressed = compressor.compress(&message, None, len, &mut out).expect("half of it is zeros");
            assert_eq!(marks.accepts(&compressed), fits, "{len} bytes in {bits} bits");
            if fits {
                assert_eq!(Receiver::new(bits, false).receive(&out), Some(message));
            }
        }
    }
}

#[test]
fn history_is_reserved_in_full_and_given_back() {
    let wide = params("permessage-deflate").incoming(Role::Server);
    let narrow = params("permessage-deflate; client_max_window_bits=10").incoming(Role::Server);
    let none = params("permessage-deflate; client_no_context_takeover").incoming(Role::Server);
    let mut budget = HistoryBudget::new(40 * 1024);
    assert!(budget.reserve(wide));
    assert!(!budget.reserve(wide), "64 KiB are more than 40");
    for _ in 0..8 {
        assert!(budget.reserve(narrow));
    }
    assert_eq!(budget.reserved(), 40 * 1024);
    assert!(!budget.reserve(narrow) && budget.reserve(none));
    budget.release(none);
    budget.release(wide);
    assert_eq!(budget.reserved(), 8 * 1024);
    assert!(budget.reserve(wide));
    budget.set_bytes_max(HISTORY_BYTES_MAX);
    assert!(budget.reserve(wide));
}

#[test]
fn compression_costs_a_connection_at_most_eight_bytes_beside_its_reader() {
    assert!(size_of::<Option<Marks>>() <= 8);
    assert_eq!(size_of::<Reader>(), 32);
    assert_eq!(size_of::<Option<Params>>(), 2);
}
