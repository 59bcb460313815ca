//! The frame reader, and messages that are compressed.

use crate::naive::Receiver;
use wire::http::{self, HeadLimits};
use wire::ws::deflate::{Compressor, Inflater, Level, MarkSource, Previous, START_BYTES};
use wire::ws::extension::{Params, Policy};
use wire::ws::{
    Event, FrameError, Limits, MessageKind, OpCode, Reader, Role, client, handshake, write_compressed_header,
    write_frame,
};

const LIMITS: Limits = Limits { message_bytes_max: 5000, fragments_max: 12 };

/// An event that outlives its chunk, written down.
type Got = (String, Vec<u8>);

fn params(offer: &str) -> Params {
    let mut head = Vec::new();
    let extra = [("Sec-WebSocket-Extensions", offer)];
    client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    let policy = Policy { client_window_bits: 15 };
    handshake::check(&request).expect("a good request").deflate(&policy).expect("an acceptable offer")
}

/// Reads chunks; what came, and the error that ended it.
fn read<'c>(mut reader: Reader, chunks: impl Iterator<Item = &'c [u8]>) -> (Vec<Got>, Option<FrameError>) {
    let (mut inflater, mut got) = (Inflater::new(), Vec::new());
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut input = &mut chunk[..];
        loop {
            match reader.next_inflating(&mut input, &LIMITS, &mut inflater) {
                Ok(Some(event)) => got.push(written(event)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next_inflating(&mut input, &LIMITS, &mut inflater), Ok(None));
                    return (got, Some(error));
                }
            }
        }
        assert!(input.is_empty(), "all of a chunk is consumed");
    }
    (got, None)
}

fn written(event: Event<'_>) -> Got {
    let (name, bytes) = match event {
        Event::Message { kind, payload } => {
            assert!(payload.len() <= LIMITS.message_bytes_max, "{} bytes", payload.len());
            assert!(kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok(), "text is UTF-8");
            (format!("{kind:?}"), payload)
        }
        Event::Ping(payload) => ("ping".into(), payload),
        Event::Pong(payload) => ("pong".into(), payload),
        Event::Close { code, reason } => {
            assert!(code.is_none_or(|code| code.is_valid_on_wire()));
            (format!("close {code:?}"), reason.as_bytes())
        }
    };
    assert!(matches!(event, Event::Message { .. }) || bytes.len() <= 125, "control frames are short");
    (name, bytes.to_vec())
}

/// Whatever a peer sends as frames means the same however it is cut, and keeps to the limits.
pub fn stream(data: &[u8]) {
    let Some((&[how, cut], bytes)) = data.split_first_chunk::<2>() else { return };
    let role = if how & 1 == 0 { Role::Server } else { Role::Client };
    let reader = || match how >> 1 & 3 {
        0 | 1 => Reader::new(role),
        2 => Reader::with_deflate(role, params("permessage-deflate")),
        _ => Reader::with_deflate(
            role,
            params("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ),
    };
    let whole = read(reader(), [bytes].into_iter());
    for chunk_len in [1, usize::from(cut) + 2] {
        let mut in_chunks = read(reader(), bytes.chunks(chunk_len));
        if cfg!(feature = "planted") {
            in_chunks.0.retain(|got| !is_lost(got));
        }
        assert_eq!(in_chunks, whole, "chunks of {chunk_len}");
    }
}

/// The planted bug: a pong with a payload gets lost where it comes in chunks. No input that is kept has one.
fn is_lost((name, payload): &Got) -> bool {
    name == "pong" && !payload.is_empty()
}

/// A compressed message that is read means what RFC 1951 says, word for word; what is no message is refused.
pub fn inflate(data: &[u8]) {
    let Some((&how, payload)) = data.split_first() else { return };
    if payload.is_empty() {
        return;
    }
    // Twice, so that the second may refer to the first.
    let mut bytes = Vec::new();
    for _ in 0..2 {
        write_compressed_header(&mut bytes, OpCode::Binary, payload.len(), None);
        bytes.extend_from_slice(payload);
    }
    let agreed =
        params(if how & 1 == 0 { "permessage-deflate" } else { "permessage-deflate; server_max_window_bits=10" });
    let bits = agreed.incoming(Role::Client).window_bits();
    let (got, _) = read(Reader::with_deflate(Role::Client, agreed), [&bytes[..]].into_iter());
    // A message that refers further back than agreed is read as long as what it means is still there, as elsewhere.
    let mut naive = Receiver::new(bits, false);
    naive.reach_bits = 15;
    for (name, mut message) in got {
        assert_eq!(name, "Binary");
        // The planted bug: of a message of 29 bytes, the last one is lost.
        if cfg!(feature = "planted") && message.len() == 29 {
            message.pop();
        }
        let before = naive.clone();
        if naive.receive(payload).as_ref() != Some(&message) {
            // What ends in a last block has no place for the bytes that senders leave out.
            naive = before;
            assert_eq!(naive.receive(&[payload, &[0]].concat()), Some(message));
        }
    }
}

/// What is compressed, alone or after the one before, is read by a naive reader and by ours.
pub fn deflate(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let mut compressor = Compressor::new(Level::new(how % 9 + 1).expect("1 to 9"));
    let (mut marks, mut before) = (MarkSource::default(), None);
    let mut naive = Receiver::new(15, false);
    let (mut frames, mut expected) = (Vec::new(), Vec::new());
    for message in rest.chunks(usize::from(how / 9) * 16 + 1).take(16) {
        let mut out = Vec::new();
        let Some(compressed) = compressor.compress(message, before, message.len() + START_BYTES, &mut out) else {
            continue;
        };
        assert!(out.len() <= message.len() + START_BYTES, "{compressed:?}");
        // The planted bug: a long message that is the one before once more is marked as ended by a last block.
        if cfg!(feature = "planted") && message.len() > 30 && before.is_some_and(|before| before.payload == message) {
            out[0] |= 1;
        }
        assert_eq!(naive.receive(&out).as_deref(), Some(message));
        write_compressed_header(&mut frames, OpCode::Binary, out.len(), Some([1, 2, 3, how]));
        let start = frames.len();
        frames.extend_from_slice(&out);
        wire::ws::apply_mask(&mut frames[start..], [1, 2, 3, how]);
        expected.push(("Binary".to_owned(), message.to_vec()));
        before = Some(Previous { mark: marks.draw(), payload: message });
    }
    let reader = Reader::with_deflate(Role::Server, params("permessage-deflate"));
    assert_eq!(read(reader, [&frames[..]].into_iter()), (expected, None));
}

/// Frames that we write are read, however they are fragmented and cut.
pub fn write(data: &[u8]) {
    let Some((&[how, cut, key @ ..], payload)) = data.split_first_chunk::<6>() else { return };
    let mut bytes = Vec::new();
    let pieces = payload.chunks(usize::from(how) + 1).take(12);
    let sent: Vec<u8> = pieces.clone().flatten().copied().collect();
    let last = pieces.len().saturating_sub(1);
    for (number, piece) in pieces.enumerate() {
        let opcode = if number == 0 { OpCode::Binary } else { OpCode::Continuation };
        write_frame(&mut bytes, opcode, number == last, piece, Some(key));
        // The planted bug: the first fragment that needs a long length is masked with a key that is one bit off.
        if cfg!(feature = "planted") && piece.len() == 126 {
            let at = bytes.len() - piece.len() - 1;
            bytes[at] ^= 1;
        }
    }
    let expected = if payload.is_empty() { vec![] } else { vec![("Binary".to_owned(), sent)] };
    let chunks = bytes.chunks(usize::from(cut) + 1);
    assert_eq!(read(Reader::new(Role::Server), chunks), (expected, None));
}
