//! Properties of frames: what is written is read, however it is cut.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::{Got, WIDE, property, read, split};
use wire::ws::{FrameError, OpCode, Role, write_frame};

/// A message, where it is fragmented, and the pings between its fragments.
#[derive(Clone, Debug)]
struct Item {
    message: Got,
    cuts: Vec<usize>,
    pings: Vec<Vec<u8>>,
    key: [u8; 4],
}

fn item() -> impl Strategy<Value = Item> {
    let message = prop_oneof![
        8 => ".{0,80}".prop_map(Got::Text),
        8 => vec(any::<u8>(), 0..300).prop_map(Got::Binary),
        8 => "\\PC{120,140}".prop_map(Got::Text),
        // Rare, because some properties go byte by byte.
        1 => Just(Got::Binary(vec![0xa5; 65_600])),
    ];
    let pings = vec(vec(any::<u8>(), 0..126), 0..3);
    (message, vec(0..320_usize, 0..4), pings, any::<[u8; 4]>()).prop_map(|(message, cuts, pings, key)| Item {
        message,
        cuts,
        pings,
        key,
    })
}

/// Writes an item as its sender would, and says what its receiver must see.
fn write(item: &Item, from: Role, out: &mut Vec<u8>, expected: &mut Vec<Got>) {
    let mask = match from {
        Role::Client => Some(item.key),
        Role::Server => None,
    };
    let (opcode, payload) = match &item.message {
        Got::Text(text) => (OpCode::Text, text.as_bytes()),
        Got::Binary(bytes) => (OpCode::Binary, &bytes[..]),
        other => unreachable!("{other:?} is no message"),
    };
    let fragments = split(payload, &item.cuts);
    for (number, fragment) in fragments.iter().enumerate() {
        let opcode = if number == 0 { opcode } else { OpCode::Continuation };
        write_frame(out, opcode, number + 1 == fragments.len(), fragment, mask);
        if number + 1 < fragments.len()
            && let Some(ping) = item.pings.get(number)
        {
            write_frame(out, OpCode::Ping, true, ping, mask);
            expected.push(Got::Ping(ping.clone()));
        }
    }
    expected.push(item.message.clone());
}

fn stream() -> impl Strategy<Value = (bool, Vec<Item>, Vec<usize>)> {
    (any::<bool>(), vec(item(), 1..6), vec(0..2000_usize, 0..12))
}

fn roles(to_server: bool) -> (Role, Role) {
    if to_server { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) }
}

#[test]
fn what_one_role_writes_the_other_reads_however_it_is_fragmented_and_cut() {
    property(stream(), |(to_server, items, cuts)| {
        let (from, to) = roles(to_server);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for item in &items {
            write(item, from, &mut bytes, &mut expected);
        }
        let outcome = read(to, split(&bytes, &cuts), &WIDE);
        prop_assert_eq!(outcome, (expected, None));
        Ok(())
    });
}

#[test]
fn damaged_streams_mean_the_same_however_they_are_cut() {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    property((stream(), damage), |((to_server, items, cuts), damage)| {
        let (from, to) = roles(to_server);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for item in &items {
            write(item, from, &mut bytes, &mut expected);
        }
        for (index, byte) in damage {
            *index.get_mut(&mut bytes[..]) = byte;
        }
        let whole = read(to, [&bytes[..]], &WIDE);
        let whole = (whole.0, whole.1.map(|(error, _)| error));
        for chunks in [split(&bytes, &cuts), bytes.chunks(1).collect()] {
            let pieces = read(to, chunks, &WIDE);
            prop_assert_eq!((pieces.0, pieces.1.map(|(error, _)| error)), whole.clone());
        }
        Ok(())
    });
}

/// The first octet after which no continuation makes `text` UTF-8, by std.
fn first_bad_octet(text: &[u8]) -> Option<usize> {
    (0..text.len()).find(|&at| {
        let verdict = std::str::from_utf8(&text[..=at]);
        verdict.is_err_and(|error| error.error_len().is_some())
    })
}

/// Pieces of text, most of them good, whose concatenation often breaks in interesting places.
fn mostly_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => ".{0,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..4),
        1 => prop::sample::select(vec![
            b"\xc0\x80".to_vec(), b"\xe0\x80\x80".to_vec(), b"\xed\xa0\x80".to_vec(),
            b"\xf4\x90\x80\x80".to_vec(), b"\xf0\x9d\x84".to_vec(), b"\xf5".to_vec(),
            b"\xe2\x82".to_vec(), b"\x80".to_vec(),
        ]),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn utf8_verdict_comes_with_the_chunk_that_has_the_first_bad_octet() {
    property((mostly_text(), vec(0..150_usize, 0..9), any::<bool>()), |(text, cuts, to_server)| {
        let mut bytes = Vec::new();
        // What is masked takes another way: the pass that unmasks it may find that it is ASCII.
        let (role, mask) = if to_server { (Role::Server, Some([0x51, 0xc2, 0x93, 4])) } else { (Role::Client, None) };
        write_frame(&mut bytes, OpCode::Text, true, &text, mask);
        let header_len = bytes.len() - text.len();
        for chunks in [split(&bytes, &cuts), bytes.chunks(1).collect()] {
            let mut ends = chunks.iter().scan(0, |end, chunk| {
                *end += chunk.len();
                Some(*end)
            });
            let bad_chunk =
                first_bad_octet(&text).map(|octet| ends.position(|end| end > header_len + octet).expect("is in one"));
            let (got, error) = read(role, chunks.iter().copied(), &WIDE);
            match (bad_chunk, std::str::from_utf8(&text)) {
                (Some(number), _) => {
                    prop_assert_eq!(error, Some((FrameError::TextUtf8, number)));
                }
                (None, Ok(text)) => prop_assert_eq!(got, vec![Got::Text(text.to_owned())]),
                (None, Err(_)) => {
                    // Cut inside its last character: proven by the end of the message.
                    let last = chunks.iter().rposition(|chunk| !chunk.is_empty());
                    prop_assert_eq!(error, last.map(|last| (FrameError::TextUtf8, last)));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn utf8_verdict_is_that_of_std_for_every_split_of_short_texts() {
    let texts: [&[u8]; 12] = [
        "aé€𝄞z".as_bytes(),
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"a\xf0\x9d\x84",
        b"a\xf0\x9d\x84z",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\xbf\xbf",
        b"\xe0\xa0\x80\xe0\x9f\x80",
        b"\xc1\xbf",
        b"\xf8\x88\x80\x80\x80",
        b"ab\xc3\xa4\xa4",
        b"\xef\xbb\xbf\xff",
        b"",
    ];
    for text in texts {
        let bad = first_bad_octet(text);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut bytes = Vec::new();
                write_frame(&mut bytes, OpCode::Text, false, text, Some([0x51, 0xc2, 0x93, 4]));
                // FIN is missing: only octets, never the end, can prove the text bad.
                let chunks = split(&bytes, &[6 + first, 6 + second]);
                let (_, error) = read(Role::Server, chunks, &WIDE);
                let expected = bad.map(|octet| {
                    let cuts = [first, second];
                    let inside = cuts.iter().filter(|&&cut| cut <= octet && cut < text.len());
                    (FrameError::TextUtf8, inside.count())
                });
                assert_eq!(error, expected, "{text:x?} cut at {first} and {second}");
            }
        }
    }
}
