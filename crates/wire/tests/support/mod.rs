//! What the tests of frames share: owned events, a way to feed bytes, seeded properties, messages to compress.
#![allow(dead_code, reason = "every test binary uses its own part")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use std::hash::{BuildHasher, RandomState};
use wire::http::{self, HeadLimits};
use wire::ws::extension::{Params, Policy};
use wire::ws::{Event, FrameError, Limits, MessageKind, Reader, Role, client, handshake};

/// An event that outlives its chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Got {
    fn from(event: Event<'_>) -> Got {
        match event {
            Event::Message { kind: MessageKind::Text, payload } => {
                Got::Text(String::from_utf8(payload.to_vec()).expect("the reader checked it"))
            }
            Event::Message { kind: MessageKind::Binary, payload } => Got::Binary(payload.to_vec()),
            Event::Ping(payload) => Got::Ping(payload.to_vec()),
            Event::Pong(payload) => Got::Pong(payload.to_vec()),
            Event::Close { code, reason } => Got::Close(code.map(|code| code.get()), reason.to_owned()),
        }
    }
}

pub(crate) fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

/// Limits that no test meets by accident.
pub(crate) const WIDE: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1000 };

/// Feeds one chunk and collects its events; those before an error are kept.
pub(crate) fn feed(reader: &mut Reader, chunk: &[u8], limits: &Limits, got: &mut Vec<Got>) -> Result<(), FrameError> {
    let mut chunk = chunk.to_vec();
    let mut input = &mut chunk[..];
    while let Some(event) = reader.next(&mut input, limits)? {
        got.push(event.into());
    }
    assert!(input.is_empty(), "everything must be consumed before the reader says None");
    Ok(())
}

/// What a new reader makes of these chunks: events, then perhaps an error and the number of the
/// chunk that had it.
pub(crate) fn read<'c>(
    role: Role,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    limits: &Limits,
) -> (Vec<Got>, Option<(FrameError, usize)>) {
    let mut reader = Reader::new(role);
    let mut got = Vec::new();
    for (number, chunk) in chunks.into_iter().enumerate() {
        if let Err(error) = feed(&mut reader, chunk, limits, &mut got) {
            return (got, Some((error, number)));
        }
    }
    (got, None)
}

/// Cuts `bytes` at every position of `cuts` that falls inside.
pub(crate) fn split<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut ends: Vec<usize> = cuts.iter().copied().filter(|&cut| cut < bytes.len()).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    let mut chunks = Vec::new();
    for end in ends {
        chunks.push(&bytes[start..end]);
        start = end;
    }
    chunks
}

/// Runs a property from a random seed, or from the one in `TIDEGATE_SEED`. A failure names its
/// seed, and the smallest input that fails.
pub(crate) fn property<S: Strategy>(strategy: S, claim: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let seed = match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => seed.parse().expect("TIDEGATE_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(&strategy, claim) {
        panic!("{failure}\nto replay: TIDEGATE_SEED={seed}");
    }
}

/// What a server agrees on with a client that offers this.
pub(crate) fn params(offer: &str) -> Params {
    let mut head = Vec::new();
    let extra = [("Sec-WebSocket-Extensions", offer)];
    client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    let policy = Policy { client_window_bits: 15 };
    handshake::check(&request).expect("a good request").deflate(&policy).expect("an acceptable offer")
}

/// Words that repeat, noise that does not, and much of the same.
pub(crate) fn message() -> impl Strategy<Value = Vec<u8>> {
    let words = vec(prop::sample::select(vec!["bid", "ask", "\"price\":", "101.25", "{", "}", ",", "size"]), 0..200);
    prop_oneof![
        8 => words.prop_map(|words| words.concat().into_bytes()),
        3 => vec(any::<u8>(), 0..2000),
        2 => (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}
