//! permessage-deflate, receiving: what others compress is read, and no more of it than agreed. Sending: compressed.rs.

mod support;

use flate2::{Compress, Compression, FlushCompress};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{Got, WIDE, message, params, property, split, text};
use wire::limits::{CLIENT_WINDOW_BITS, FINAL_BLOCKS_MAX};
use wire::ws::deflate::{Compressor, Inflater, Level, Marks};
use wire::ws::extension::Params;
use wire::ws::{CloseCode, FrameError, Limits, OpCode, Reader, Role, apply_mask, write_compressed_header, write_frame};

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
