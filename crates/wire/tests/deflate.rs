//! permessage-deflate: what is compressed is read by others, and what others compress is read.

#[path = "support/naive.rs"]
mod naive;
mod support;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use naive::Receiver;
use proptest::collection::vec;
use proptest::prelude::*;
use support::{Got, WIDE, property, split, text};
use wire::http::{self, HeadLimits};
use wire::limits::{CLIENT_WINDOW_BITS, FINAL_BLOCKS_MAX, HISTORY_BYTES_MAX};
use wire::ws::deflate::{Compressor, HistoryBudget, Inflater, Level, MarkSource, Marks, Previous, START_BYTES};
use wire::ws::extension::{Params, Policy};
use wire::ws::{
    CloseCode, FrameError, Limits, OpCode, Reader, Role, apply_mask, client, handshake, write_compressed_header,
    write_frame,
};

/// What a server agrees on with a client that offers this.
fn params(offer: &str) -> Params {
    let mut head = Vec::new();
    let extra = [("Sec-WebSocket-Extensions", offer)];
    client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    let policy = Policy { client_window_bits: 15 };
    handshake::check(&request).expect("a good request").deflate(&policy).expect("an acceptable offer")
}

/// A compressed frame without a mask, as a server sends it.
fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_compressed_header(&mut out, opcode, payload.len(), None);
    [out, payload.to_vec()].concat()
}

/// What a client makes of these chunks.
fn read<'c>(
    params: Params,
    limits: &Limits,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> (Vec<Got>, Option<FrameError>) {
    let mut reader = Reader::with_deflate(Role::Client, params);
    let mut inflater = Inflater::new();
    let mut got = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut input = &mut chunk[..];
        loop {
            match reader.next_inflating(&mut input, limits, &mut inflater) {
                Ok(Some(event)) => got.push(event.into()),
                Ok(None) => break,
                Err(error) => return (got, Some(error)),
            }
        }
    }
    (got, None)
}

fn read_plain(bytes: &[u8]) -> (Vec<Got>, Option<FrameError>) {
    read(params("permessage-deflate"), &WIDE, [bytes])
}

/// A peer that keeps its context, as most do.
fn compressed_by_another(context: &mut Compress, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() * 2 + 64);
    context.compress_vec(message, &mut out, FlushCompress::Sync).expect("a good stream");
    assert!(out.len() < out.capacity(), "there was room for everything");
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

#[test]
fn examples_of_rfc_7692_are_read() {
    let examples: [(&str, &[u8]); 7] = [
        ("7.2.3.1, one frame", b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"),
        ("7.2.3.1, two frames", b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"),
        ("7.2.3.3, a block without compression", b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"),
        ("7.2.3.4, BFINAL", b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
        ("BFINAL and nothing behind it", b"\xc1\x07\xf3\x48\xcd\xc9\xc9\x07\x00"),
        ("7.2.3.5, two blocks", b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
        ("not compressed", b"\x81\x05Hello"),
    ];
    for (name, bytes) in examples {
        assert_eq!(read_plain(bytes), (vec![text("Hello")], None), "{name}");
        let again = [bytes, bytes].concat();
        assert_eq!(read_plain(&again), (vec![text("Hello"), text("Hello")], None), "{name}, twice");
    }
    // 7.2.3.2: the second message refers to the first.
    let shared = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
    assert_eq!(read_plain(shared), (vec![text("Hello"), text("Hello")], None));
    let (got, error) = read(params("permessage-deflate; server_no_context_takeover"), &WIDE, [&shared[..]]);
    assert_eq!((got, error), (vec![text("Hello")], Some(FrameError::Corrupt)), "which has been forgotten");
}

#[test]
fn empty_messages_are_read_however_they_are_written() {
    // 7.2.3.6, a final block, several blocks, fragments without bytes, and no byte at all.
    let empty: [&[u8]; 6] = [
        b"\xc1\x01\x00",
        b"\xc1\x02\x03\x00",
        b"\xc1\x02\x02\x00",
        b"\xc1\x06\x00\x00\x00\xff\xff\x00",
        b"\x41\x00\x00\x01\x00\x80\x00",
        b"\xc1\x00",
    ];
    for bytes in empty {
        let behind = [bytes, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", bytes].concat();
        assert_eq!(read_plain(&behind), (vec![text(""), text("Hello"), text("")], None), "{bytes:x?}");
    }
}

#[test]
fn rsv1_belongs_on_the_first_frame_of_a_message_and_only_if_agreed() {
    use FrameError::ReservedBits;
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    // The frame that is bad, and its first byte if it were good.
    let table: [(&str, Vec<u8>, usize, u8, u8); 7] = [
        ("RSV2", frame(OpCode::Text, hello), 0, 0xe1, 2 | 4),
        ("RSV3", frame(OpCode::Text, hello), 0, 0xd1, 1 | 4),
        ("RSV1 on a ping", b"\x89\x00".to_vec(), 0, 0xc9, 4),
        ("RSV1 on a close", b"\x88\x00".to_vec(), 0, 0xc8, 4),
        ("RSV1 on a continuation", b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00".to_vec(), 5, 0xc0, 4),
        ("RSV1 on a plain message's continuation", b"\x01\x00\x80\x00".to_vec(), 2, 0xc0, 4),
        ("RSV1 on a ping in a message", b"\x41\x00\x89\x00\x80\x01\x00".to_vec(), 2, 0xc9, 4),
    ];
    for (name, good, at, byte, bits) in table {
        let (got, error) = read_plain(&good);
        assert!(error.is_none() && !got.is_empty(), "the twin of: {name}");
        let mut bad = good;
        bad[at] = byte;
        assert_eq!(read_plain(&bad).1, Some(ReservedBits(bits)), "{name}");
        assert_eq!(ReservedBits(bits).close_code(), CloseCode::PROTOCOL);
    }
    let unasked = support::read(Role::Client, [&frame(OpCode::Text, hello)[..]], &WIDE);
    assert_eq!(unasked, (vec![], Some((ReservedBits(4), 0))), "nothing was agreed");
    let mut reader = Reader::with_deflate(Role::Client, params("permessage-deflate"));
    let mut bytes = frame(OpCode::Text, hello);
    assert_eq!(reader.next(&mut &mut bytes[..], &WIDE), Err(ReservedBits(4)), "no inflater is there");
    let mut reader = Reader::with_deflate(Role::Client, params("permessage-deflate"));
    let mut begun = b"\x41\x03\xf2\x48\xcd".to_vec();
    assert_eq!(reader.next_inflating(&mut &mut begun[..], &WIDE, &mut Inflater::new()), Ok(None));
    let mut rest = b"\x80\x04\xc9\xc9\x07\x00".to_vec();
    assert_eq!(reader.next(&mut &mut rest[..], &WIDE), Err(ReservedBits(4)), "the inflater has gone");
}

#[test]
fn a_message_that_is_cut_or_damaged_is_refused_with_1007() {
    let mut context = Compress::new(Compression::default(), false);
    let message = compressed_by_another(&mut context, "Grüße ".repeat(40).as_bytes());
    assert!(matches!(&read_plain(&frame(OpCode::Binary, &message)).0[..], [Got::Binary(_)]));
    for cut in 1..message.len() - 1 {
        let outcome = read_plain(&frame(OpCode::Binary, &message[..cut]));
        assert_eq!(outcome, (vec![], Some(FrameError::Corrupt)), "cut at {cut} of {}", message.len());
    }
    for (name, payload) in [
        ("a block type that does not exist", &b"\x06\x00"[..]),
        ("a length without its inverse", b"\x00\x05\x00\xfb\xffHello\x00"),
        ("a distance before the beginning", b"\xf2\x00\x11\x00\x00"),
        ("a block that would end in what we append to see the end", b"\x03\x10\xf2\x00\x6c"),
        ("garbage behind the last block", b"\xf3\x48\xcd\xc9\xc9\x07\x00\xff"),
        ("the tail that senders leave out", b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x01"),
    ] {
        assert_eq!(read_plain(&frame(OpCode::Text, payload)), (vec![], Some(FrameError::Corrupt)), "{name}");
    }
    assert_eq!(FrameError::Corrupt.close_code(), CloseCode::INVALID_PAYLOAD);
}

#[test]
fn nothing_is_read_behind_a_message_that_was_refused() {
    let (mut reader, mut inflater) =
        (Reader::with_deflate(Role::Client, params("permessage-deflate")), Inflater::new());
    let mut bytes = [frame(OpCode::Text, b"\x06\x00"), b"\x81\x05Hello".to_vec()].concat();
    let mut input = &mut bytes[..];
    assert_eq!(reader.next_inflating(&mut input, &WIDE, &mut inflater), Err(FrameError::Corrupt));
    assert_eq!(reader.next_inflating(&mut input, &WIDE, &mut inflater), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn compressed_text_must_be_utf8_and_compressed_binary_need_not() {
    for (bytes, is_good) in [(&b"gr\xc3\xbc\xc3\x9fe"[..], true), (b"gr\xc3", false), (b"\xff", false), (b"", true)] {
        let payload = compressed_by_another(&mut Compress::new(Compression::default(), false), bytes);
        let (got, error) = read_plain(&frame(OpCode::Text, &payload));
        assert_eq!(error, (!is_good).then_some(FrameError::TextUtf8), "{bytes:x?}");
        assert_eq!(got.len(), usize::from(is_good));
        assert_eq!(read_plain(&frame(OpCode::Binary, &payload)), (vec![Got::Binary(bytes.to_vec())], None));
    }
}

#[test]
fn a_bomb_is_stopped_at_the_message_limit_with_1009() {
    for bytes_max in [0_usize, 1, 100, 4095, 4096, 4097, 65_536] {
        let limits = Limits { message_bytes_max: bytes_max, fragments_max: 9 };
        for (len, fits) in [(bytes_max, true), (bytes_max + 1, false), (bytes_max + 100_000, false)] {
            let payload = compressed_by_another(&mut Compress::new(Compression::best(), false), &vec![b'x'; len]);
            let bytes = frame(OpCode::Binary, &payload);
            for chunk_len in [1, bytes.len()] {
                let outcome = read(params("permessage-deflate"), &limits, bytes.chunks(chunk_len));
                let too_long = FrameError::MessageTooLong(bytes_max as u64 + 1);
                match (outcome, fits) {
                    ((got, None), true) => assert_eq!(got, [Got::Binary(vec![b'x'; len])]),
                    ((got, Some(error)), false) if got.is_empty() => {
                        // With so low a limit even the compressed bytes are too many, which their header says.
                        assert!(error == too_long || bytes_max < 100 && error.close_code() == CloseCode::TOO_BIG);
                    }
                    (outcome, _) => panic!("{len} of {bytes_max} bytes: {outcome:?}"),
                }
            }
        }
    }
    // What cannot be compressed may take more bytes than the message has, and is still read.
    let limits = Limits { message_bytes_max: 50_000, fragments_max: 9 };
    let noise: Vec<u8> =
        (0..50_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i >> 3) as u8).collect();
    let payload = compressed_by_another(&mut Compress::new(Compression::none(), false), &noise);
    assert!(payload.len() > noise.len());
    let bytes = frame(OpCode::Binary, &payload);
    assert_eq!(read(params("permessage-deflate"), &limits, [&bytes[..]]), (vec![Got::Binary(noise)], None));
}

#[test]
fn so_many_blocks_may_say_they_are_the_last() {
    let ends = |count: u32| frame(OpCode::Binary, &b"\x03\x00".repeat(count as usize));
    assert_eq!(read_plain(&ends(FINAL_BLOCKS_MAX)), (vec![Got::Binary(vec![])], None));
    assert_eq!(read_plain(&ends(FINAL_BLOCKS_MAX + 2)), (vec![], Some(FrameError::TooManyFinalBlocks)));
    assert_eq!(FrameError::TooManyFinalBlocks.close_code(), CloseCode::TOO_BIG);
}

/// Words that repeat, noise that does not, and much of the same.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let words = vec(prop::sample::select(vec!["bid", "ask", "\"price\":", "101.25", "{", "}", ",", "size"]), 0..200);
    prop_oneof![
        8 => words.prop_map(|words| words.concat().into_bytes()),
        3 => vec(any::<u8>(), 0..2000),
        2 => (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

#[test]
fn what_another_compresses_in_its_context_is_read_however_it_is_cut() {
    let strategy = (vec((message(), vec(0..400_usize, 0..4)), 1..12), vec(0..4000_usize, 0..20), 0..10_u32);
    property(strategy, |(messages, cuts, level)| {
        let mut context = Compress::new(Compression::new(level), false);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (number, (message, fragments)) in messages.iter().enumerate() {
            if number % 4 == 3 {
                write_frame(&mut bytes, OpCode::Binary, true, message, None);
            } else {
                let payload = compressed_by_another(&mut context, message);
                for (place, fragment) in split(&payload, fragments).iter().enumerate() {
                    let start = bytes.len();
                    let opcode = if place == 0 { OpCode::Binary } else { OpCode::Continuation };
                    let fin = place == split(&payload, fragments).len() - 1;
                    write_frame(&mut bytes, opcode, fin, fragment, None);
                    bytes[start] |= if place == 0 { 0x40 } else { 0 };
                    if !fin {
                        write_frame(&mut bytes, OpCode::Ping, true, b"in between", None);
                        expected.push(Got::Ping(b"in between".to_vec()));
                    }
                }
            }
            expected.push(Got::Binary(message.clone()));
        }
        let outcome = read(params("permessage-deflate"), &WIDE, split(&bytes, &cuts));
        prop_assert_eq!(outcome, (expected, None));
        Ok(())
    });
}

#[test]
fn every_split_of_a_short_stream_means_the_same() {
    let mut context = Compress::new(Compression::default(), false);
    let mut bytes = Vec::new();
    for message in ["Hello, hello", "", "hello again: Hello, hello"] {
        bytes.extend(frame(OpCode::Text, &compressed_by_another(&mut context, message.as_bytes())));
    }
    let whole = read_plain(&bytes);
    assert_eq!(whole.0.len(), 3);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let outcome = read(params("permessage-deflate"), &WIDE, split(&bytes, &[first, second]));
            assert_eq!(outcome, whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn damaged_streams_end_in_an_error_or_a_message_and_mean_the_same_however_they_are_cut() {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    property((vec(message(), 1..4), damage, vec(0..4000_usize, 0..9)), |(messages, damage, cuts)| {
        let mut context = Compress::new(Compression::default(), false);
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.extend(frame(OpCode::Text, &compressed_by_another(&mut context, message)));
        }
        for (index, byte) in damage {
            *index.get_mut(&mut bytes[..]) = byte;
        }
        let whole = read_plain(&bytes);
        prop_assert_eq!(read(params("permessage-deflate"), &WIDE, split(&bytes, &cuts)), whole);
        Ok(())
    });
}

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
fn a_server_reads_what_a_client_compresses_and_masks() {
    let params = params("permessage-deflate; client_max_window_bits=10");
    let (mut server, mut inflater) = (Reader::with_deflate(Role::Server, params), Inflater::new());
    let mut compressor = Compressor::new(Level::default());
    let mut got = Vec::new();
    for message in ["one one one one one one one", "two two two two two two two"] {
        let (mut payload, mut bytes) = (Vec::new(), Vec::new());
        let compressed =
            compressor.compress(message.as_bytes(), None, message.len(), &mut payload).expect("it shrinks");
        assert!(Marks::new(params, Role::Client).accepts(&compressed));
        write_compressed_header(&mut bytes, OpCode::Text, payload.len(), Some([1, 2, 3, 4]));
        apply_mask(&mut payload, [1, 2, 3, 4]);
        bytes.extend(payload);
        let mut input = &mut bytes[..];
        while let Some(event) = server.next_inflating(&mut input, &WIDE, &mut inflater).expect("good frames") {
            got.push(Got::from(event));
        }
    }
    assert_eq!(got, [text("one one one one one one one"), text("two two two two two two two")]);
}

#[test]
fn a_client_may_refer_as_far_back_as_agreed_and_no_further() {
    // A stored block of noise, then a reference to its first bytes over the whole window.
    for bits in [CLIENT_WINDOW_BITS, 12, 15] {
        let params = params(&format!("permessage-deflate; server_max_window_bits={bits}"));
        let window = 1_usize << bits;
        for (distance, is_good) in [(window - 300, true), (window, true), (window + 300, false)] {
            let noise: Vec<u8> = (0..distance as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
            let mut far = Compress::new(Compression::none(), false);
            let first = frame(OpCode::Binary, &compressed_by_another(&mut far, &noise));
            let Some(second) = reference(distance) else {
                assert!(!is_good, "every distance within a window can be written");
                continue;
            };
            let bytes = [first, frame(OpCode::Binary, &second)].concat();
            let expected = if is_good { Ok(Got::Binary(noise[..3].to_vec())) } else { Err(FrameError::Corrupt) };
            let (got, error) = read(params, &WIDE, [&bytes[..]]);
            assert_eq!(got.get(1).cloned().ok_or(error), expected.map_err(Some), "{distance} of {window}");
        }
    }
}

#[test]
fn what_came_before_counts_from_its_first_byte_and_across_a_last_block() {
    let three_back = reference(3).expect("can be written");
    let stored = b"\x00\x03\x00\xfc\xffabc\x00";
    let bytes = [frame(OpCode::Text, stored), frame(OpCode::Text, &three_back)].concat();
    assert_eq!(read_plain(&bytes), (vec![text("abc"), text("abc")], None));
    // "Hello" in a block that says it is the last one; the next stream still has it in its window.
    let both = [&b"\xf3\x48\xcd\xc9\xc9\x07\x00"[..], &reference(5).expect("can be written")].concat();
    assert_eq!(read_plain(&frame(OpCode::Text, &both)), (vec![text("HelloHel")], None));
}

/// A message that is three bytes from so far back, in the fixed code; `None` if that cannot be written.
fn reference(distance: usize) -> Option<Vec<u8>> {
    let mut bits: Vec<bool> = vec![false, true, false];
    bits.extend([false, false, false, false, false, false, true]); // length code 257: three bytes
    let (code, base, extra) = (0..30).rev().find_map(|code: usize| {
        let extra = (code / 2).saturating_sub(1);
        let base = if code < 2 { code + 1 } else { ((2 + code % 2) << extra) + 1 };
        (base <= distance && distance < base + (1 << extra)).then_some((code, base, extra))
    })?;
    bits.extend((0..5).rev().map(|place| code >> place & 1 == 1));
    bits.extend((0..extra).map(|place| (distance - base) >> place & 1 == 1));
    bits.extend([false; 7]); // end of block
    bits.extend([false; 3]); // and the stored block whose rest senders leave out
    Some(bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect())
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
