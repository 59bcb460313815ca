//! The frame reader against RFC 6455: its examples, and every way to break it.

mod support;

use support::{Got, WIDE, feed, read, text};
use wire::ws::{CloseCode, FrameError, Limits, OpCode, Reader, Role, write_close, write_frame};

/// A masking key that changes nothing, so that tables show payloads as they are.
const CLEAR: [u8; 4] = [0; 4];

/// A frame of a client, masked with [`CLEAR`].
fn client_frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, opcode, fin, payload, Some(CLEAR));
    out
}

fn server_reads(bytes: &[u8]) -> (Vec<Got>, Option<FrameError>) {
    let (got, error) = read(Role::Server, [bytes], &WIDE);
    (got, error.map(|(error, _)| error))
}

#[test]
fn examples_of_the_rfc_5_7_are_read() {
    let masked_hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let from_server: [(&[u8], Got); 4] = [
        (b"\x81\x05Hello", text("Hello")),
        (b"\x01\x03Hel\x80\x02lo", text("Hello")),
        (b"\x89\x05Hello", Got::Ping(b"Hello".to_vec())),
        (b"\x8a\x05Hello", Got::Pong(b"Hello".to_vec())),
    ];
    for (bytes, expected) in from_server {
        assert_eq!(read(Role::Client, [bytes], &WIDE), (vec![expected], None));
    }
    assert_eq!(server_reads(masked_hello), (vec![text("Hello")], None));
    let medium = [&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat();
    let long = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &[7; 65536]].concat();
    for (bytes, len) in [(medium, 256), (long, 65536)] {
        let expected = vec![Got::Binary(vec![7; len])];
        assert_eq!(read(Role::Client, [&bytes[..]], &WIDE), (expected, None));
    }
}

/// One way to break the protocol.
struct Bad {
    name: &'static str,
    /// Ends in the frame that is bad.
    bytes: Vec<u8>,
    error: FrameError,
    /// The error must come with this byte, not later.
    proven_by: usize,
    /// Changing this byte to this value makes everything good.
    twin: (usize, u8),
    limits: Limits,
}

impl Bad {
    fn new(name: &'static str, bytes: &[u8], error: FrameError, proven_by: usize, twin: (usize, u8)) -> Bad {
        Bad { name, bytes: bytes.to_vec(), error, proven_by, twin, limits: WIDE }
    }

    fn within(mut self, message_bytes_max: usize, fragments_max: u32) -> Bad {
        self.limits = Limits { message_bytes_max, fragments_max };
        self
    }

    /// Checks it in one chunk and byte by byte, behind a good message, which must not be lost.
    fn check(&self, role: Role, before: &[u8]) {
        let bytes = [before, &self.bytes].concat();
        let (got, error) = read(role, [&bytes[..]], &self.limits);
        assert_eq!(got.first(), Some(&text("ok")), "{}", self.name);
        assert_eq!(error, Some((self.error, 0)), "{}", self.name);
        let (got, error) = read(role, bytes.chunks(1), &self.limits);
        assert_eq!(got.first(), Some(&text("ok")), "{}", self.name);
        let proven_by = before.len() + self.proven_by;
        assert_eq!(error, Some((self.error, proven_by)), "{}, byte by byte", self.name);

        let mut twin = bytes.clone();
        assert_ne!(twin[before.len() + self.twin.0], self.twin.1, "{}", self.name);
        twin[before.len() + self.twin.0] = self.twin.1;
        for chunk_len in [1, twin.len()] {
            let (got, error) = read(role, twin.chunks(chunk_len), &self.limits);
            assert_eq!(error, None, "the twin of: {}", self.name);
            assert!(got.len() > 1, "the twin of: {}", self.name);
        }
    }
}

const fn code(code: u16) -> FrameError {
    FrameError::CloseCode(CloseCode::new(code))
}

#[rustfmt::skip] // a table
fn bad_headers() -> Vec<Bad> {
    use FrameError::*;
    let long = |header: &[u8], len| [header, &CLEAR, &vec![b'a'; len]].concat();
    vec![
        Bad::new("RSV1", b"\xc1\x80\0\0\0\0", ReservedBits(4), 0, (0, 0x81)),
        Bad::new("RSV2", b"\xa1\x80\0\0\0\0", ReservedBits(2), 0, (0, 0x81)),
        Bad::new("RSV3", b"\x91\x80\0\0\0\0", ReservedBits(1), 0, (0, 0x81)),
        Bad::new("all RSV on a ping", b"\xf9\x80\0\0\0\0", ReservedBits(7), 0, (0, 0x89)),
        Bad::new("opcode 3", b"\x83\x80\0\0\0\0", ReservedOpCode(3), 0, (0, 0x82)),
        Bad::new("opcode 7", b"\x87\x80\0\0\0\0", ReservedOpCode(7), 0, (0, 0x82)),
        Bad::new("opcode 11", b"\x8b\x80\0\0\0\0", ReservedOpCode(11), 0, (0, 0x8a)),
        Bad::new("opcode 15", b"\x8f\x80\0\0\0\0", ReservedOpCode(15), 0, (0, 0x8a)),
        Bad::new("no mask", b"\x81\x00\0\0\0\0", MaskMissing, 1, (1, 0x80)),
        Bad::new("ping without FIN", b"\x09\x80\0\0\0\0", ControlFragmented(OpCode::Ping), 0, (0, 0x89)),
        Bad::new("pong without FIN", b"\x0a\x80\0\0\0\0", ControlFragmented(OpCode::Pong), 0, (0, 0x8a)),
        Bad::new("close without FIN", b"\x08\x80\0\0\0\0", ControlFragmented(OpCode::Close), 0, (0, 0x88)),
        Bad::new("ping of 126", &long(b"\x89\xfe\x00\x7e", 126), ControlTooLong(OpCode::Ping), 1, (0, 0x82)),
        Bad::new("close of 64 bits", &long(b"\x88\xff\0\0\0\0\0\x01\0\0", 65536), ControlTooLong(OpCode::Close), 1, (0, 0x81)),
        Bad::new("125 in 16 bits", &long(b"\x82\xfe\x00\x7d", 126), LengthNotMinimal(125), 3, (3, 0x7e)),
        Bad::new("65535 in 64 bits", &long(b"\x82\xff\0\0\0\0\0\0\xff\xff", 131_071), LengthNotMinimal(65535), 9, (7, 1)),
        Bad::new("top bit", &long(b"\x82\xff\x80\0\0\0\0\x01\0\0", 65536), LengthTopBit(1 << 63 | 65536), 9, (2, 0)),
        Bad::new("continuation of nothing", b"\x80\x80\0\0\0\0", ContinuationUnexpected, 0, (0, 0x82)),
        Bad::new("first fragment as continuation", b"\x00\x80\0\0\0\0\x80\x80\0\0\0\0", ContinuationUnexpected, 0, (0, 0x01)),
        Bad::new("text in a message", b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", ContinuationExpected(OpCode::Text), 6, (6, 0x80)),
        Bad::new("binary in a message", b"\x02\x80\0\0\0\0\x02\x80\0\0\0\0\x80\x80\0\0\0\0", ContinuationExpected(OpCode::Binary), 6, (6, 0x00)),
        Bad::new("17 bytes of 16", b"\x82\x91\0\0\0\0aaaaaaaaaaaaaaaa\x82", MessageTooLong(17), 1, (1, 0x90)).within(16, 9),
        Bad::new("17 bytes of 16 in two", b"\x02\x90\0\0\0\0aaaaaaaaaaaaaaaa\x80\x81\0\0\0\0\x82", MessageTooLong(17), 23, (23, 0x80)).within(16, 9),
        Bad::new("2^62 bytes and more", &long(b"\x82\xff\x40\0\0\0\0\x01\0\x10", 65552), MessageTooLong((1 << 62) + 65552), 9, (2, 0)),
        Bad::new("3 fragments of 2", b"\x02\x80\0\0\0\0\x00\x80\0\0\0\0\x80\x80\0\0\0\0", TooManyFragments(3), 12, (12, 0x8a)).within(16, 2),
    ]
}

#[rustfmt::skip] // a table
fn bad_payloads() -> Vec<Bad> {
    use FrameError::*;
    vec![
        Bad::new("close of one byte", b"\x88\x81\0\0\0\0\x03", CloseCodeCut, 6, (0, 0x8a)),
        Bad::new("close 999", b"\x88\x82\0\0\0\0\x03\xe7", code(999), 7, (7, 0xe8)),
        Bad::new("close 1004", b"\x88\x82\0\0\0\0\x03\xec", code(1004), 7, (7, 0xeb)),
        Bad::new("close 1005", b"\x88\x82\0\0\0\0\x03\xed", code(1005), 7, (7, 0xeb)),
        Bad::new("close 1006", b"\x88\x82\0\0\0\0\x03\xee", code(1006), 7, (7, 0xef)),
        Bad::new("close 1015", b"\x88\x82\0\0\0\0\x03\xf7", code(1015), 7, (7, 0xf6)),
        Bad::new("close 2999", b"\x88\x82\0\0\0\0\x0b\xb7", code(2999), 7, (7, 0xb8)),
        Bad::new("close 5000", b"\x88\x82\0\0\0\0\x13\x88", code(5000), 7, (7, 0x87)),
        Bad::new("close 0", b"\x88\x82\0\0\0\0\x00\xe8", code(0xe8), 7, (6, 0x03)),
        Bad::new("close reason", b"\x88\x83\0\0\0\0\x03\xe8\xff", CloseReasonUtf8, 8, (8, b'a')),
        Bad::new("close reason cut", b"\x88\x84\0\0\0\0\x03\xe8a\xc3", CloseReasonUtf8, 9, (9, b'a')),
        Bad::new("FF", b"\x81\x82\0\0\0\0\xffa", TextUtf8, 6, (6, b'a')),
        Bad::new("overlong", b"\x81\x82\0\0\0\0\xc0\x80", TextUtf8, 6, (6, 0xc2)),
        Bad::new("overlong of three", b"\x81\x83\0\0\0\0\xe0\x80\x80", TextUtf8, 7, (7, 0xa0)),
        Bad::new("surrogate", b"\x81\x83\0\0\0\0\xed\xa0\x80", TextUtf8, 7, (7, 0x9f)),
        Bad::new("beyond 10FFFF", b"\x81\x84\0\0\0\0\xf4\x90\x80\x80", TextUtf8, 7, (7, 0x8f)),
        Bad::new("lone continuation byte", b"\x81\x81\0\0\0\0\x80", TextUtf8, 6, (6, 0x7f)),
        Bad::new("text ends in a character", b"\x81\x82\0\0\0\0a\xc3", TextUtf8, 7, (7, b'b')),
        Bad::new("fragmented text ends in a character", b"\x01\x81\0\0\0\0\xe2\x80\x81\0\0\0\0\x82", TextUtf8, 13, (6, 0xc3)),
    ]
}

#[test]
fn each_bad_frame_is_refused_at_once_behind_a_good_message_and_its_twin_is_taken() {
    let before = client_frame(OpCode::Text, true, b"ok");
    let mut table = bad_headers();
    table.extend(bad_payloads());
    // The last row's twin is the two-byte character C3 82.
    for bad in table {
        bad.check(Role::Server, &before);
    }
    let masked = FrameError::MaskPresent;
    let bad = Bad::new("masked by a server", b"\x81\x84\0\0\0\0", masked, 1, (1, 0x04));
    bad.check(Role::Client, b"\x81\x02ok");
}

#[test]
fn close_codes_follow_from_the_error() {
    let cases = [
        (FrameError::ReservedBits(1), CloseCode::PROTOCOL),
        (FrameError::CloseCode(CloseCode::new(1005)), CloseCode::PROTOCOL),
        (FrameError::LengthTopBit(u64::MAX), CloseCode::PROTOCOL),
        (FrameError::TextUtf8, CloseCode::INVALID_PAYLOAD),
        (FrameError::CloseReasonUtf8, CloseCode::INVALID_PAYLOAD),
        (FrameError::MessageTooLong(9), CloseCode::TOO_BIG),
        (FrameError::TooManyFragments(9), CloseCode::TOO_BIG),
    ];
    for (error, code) in cases {
        assert_eq!(error.close_code(), code, "{error}");
    }
}

#[test]
fn control_frames_between_fragments_come_first_and_leave_the_message_whole() {
    let mut bytes = client_frame(OpCode::Text, false, "grü".as_bytes());
    bytes.extend(client_frame(OpCode::Ping, true, b"1"));
    bytes.extend(client_frame(OpCode::Continuation, false, b""));
    bytes.extend(client_frame(OpCode::Pong, true, &[b'p'; 125]));
    bytes.extend(client_frame(OpCode::Ping, true, b""));
    bytes.extend(client_frame(OpCode::Continuation, true, "ße".as_bytes()));
    bytes.extend(client_frame(OpCode::Binary, true, b"next"));
    let expected = vec![
        Got::Ping(b"1".to_vec()),
        Got::Pong(vec![b'p'; 125]),
        Got::Ping(Vec::new()),
        text("grüße"),
        Got::Binary(b"next".to_vec()),
    ];
    for chunk_len in 1..=bytes.len() {
        let outcome = read(Role::Server, bytes.chunks(chunk_len), &WIDE);
        assert_eq!(outcome, (expected.clone(), None), "chunks of {chunk_len}");
    }
}

#[test]
fn a_character_may_be_cut_by_fragments_anywhere() {
    let character = "𝄞".as_bytes();
    for first in 0..=4 {
        for second in first..=4 {
            let mut bytes = client_frame(OpCode::Text, false, &character[..first]);
            bytes.extend(client_frame(OpCode::Continuation, false, &character[first..second]));
            bytes.extend(client_frame(OpCode::Continuation, true, &character[second..]));
            assert_eq!(server_reads(&bytes), (vec![text("𝄞")], None), "{first} {second}");
        }
    }
}

#[test]
fn bad_text_in_an_early_fragment_fails_before_the_next_fragment() {
    // Autobahn 6.4.1 to 6.4.4: good octets, then a bad one, then good ones again.
    let good = "κόσμε".as_bytes();
    let bad = [good, b"\xf4\x90\x80\x80", good].concat();
    let fragment = client_frame(OpCode::Text, false, &bad);
    let mut reader = Reader::new(Role::Server);
    let mut got = Vec::new();
    let good_len = 6 + good.len() + 1;
    assert_eq!(feed(&mut reader, &fragment[..good_len], &WIDE, &mut got), Ok(()));
    let next = &fragment[good_len..good_len + 1];
    assert_eq!(feed(&mut reader, next, &WIDE, &mut got), Err(FrameError::TextUtf8));
    assert_eq!(got, []);
    let (got, error) = server_reads(&fragment);
    assert_eq!((got, error), (vec![], Some(FrameError::TextUtf8)), "no need to see FIN");
}

#[test]
fn binary_messages_are_not_checked_for_utf8() {
    let bytes = client_frame(OpCode::Binary, true, b"\xff\xfe");
    assert_eq!(server_reads(&bytes), (vec![Got::Binary(b"\xff\xfe".to_vec())], None));
}

#[test]
fn nothing_is_read_behind_a_close_frame() {
    let mut bytes = Vec::new();
    write_close(&mut bytes, CloseCode::GOING_AWAY, "bye", Some([1, 2, 3, 4]));
    let close_len = bytes.len();
    bytes.extend(client_frame(OpCode::Text, true, b"late"));
    bytes.extend(b"\xff\xff");
    let expected = vec![Got::Close(Some(1001), "bye".to_owned())];
    for cut in 0..=bytes.len() {
        let chunks = [&bytes[..cut], &bytes[cut..]];
        assert_eq!(read(Role::Server, chunks, &WIDE), (expected.clone(), None), "cut at {cut}");
    }
    let mut reader = Reader::new(Role::Server);
    let mut got = Vec::new();
    assert_eq!(feed(&mut reader, &bytes[..close_len], &WIDE, &mut got), Ok(()));
    assert!(reader.is_idle());
}

#[test]
fn close_during_a_fragmented_message_discards_it() {
    let mut bytes = client_frame(OpCode::Text, false, b"half");
    bytes.extend(client_frame(OpCode::Close, true, b""));
    for chunk_len in [1, bytes.len()] {
        let mut reader = Reader::new(Role::Server);
        let mut got = Vec::new();
        for chunk in bytes.chunks(chunk_len) {
            assert_eq!(feed(&mut reader, chunk, &WIDE, &mut got), Ok(()));
        }
        assert_eq!(got, [Got::Close(None, String::new())]);
        assert!(reader.is_idle(), "chunks of {chunk_len}");
    }
}

#[test]
fn nothing_is_read_behind_an_error() {
    let mut reader = Reader::new(Role::Server);
    let mut got = Vec::new();
    assert!(feed(&mut reader, b"\xff", &WIDE, &mut got).is_err());
    let good = client_frame(OpCode::Text, true, b"late");
    assert_eq!(feed(&mut reader, &good, &WIDE, &mut got), Ok(()));
    assert_eq!(got, []);
}

#[test]
fn limits_hold_for_the_whole_message_and_start_again_with_the_next() {
    let limits = Limits { message_bytes_max: 4, fragments_max: 2 };
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(client_frame(OpCode::Text, false, b"ab"));
        bytes.extend(client_frame(OpCode::Continuation, true, b"cd"));
        bytes.extend(client_frame(OpCode::Text, true, b"abcd"));
    }
    let (got, error) = read(Role::Server, [&bytes[..]], &limits);
    assert_eq!((got.len(), error), (6, None));
    // Control frames do not count: 125 bytes are fine between two fragments of 2.
    let mut bytes = client_frame(OpCode::Text, false, b"ab");
    bytes.extend(client_frame(OpCode::Ping, true, &[0; 125]));
    bytes.extend(client_frame(OpCode::Continuation, true, b"cd"));
    let (got, error) = read(Role::Server, [&bytes[..]], &limits);
    assert_eq!((got.len(), error), (2, None));
}

#[test]
fn reader_is_idle_exactly_between_messages() {
    let mut bytes = client_frame(OpCode::Text, false, b"ab");
    bytes.extend(client_frame(OpCode::Ping, true, b"x"));
    bytes.extend(client_frame(OpCode::Continuation, true, b"cd"));
    let mut reader = Reader::new(Role::Server);
    assert!(reader.is_idle());
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(feed(&mut reader, &[*byte], &WIDE, &mut Vec::new()), Ok(()));
        assert_eq!(reader.is_idle(), at + 1 == bytes.len(), "after byte {at}");
    }
}

#[test]
fn each_frame_is_counted_once_however_it_is_cut() {
    let frames = [
        client_frame(OpCode::Text, false, b""),
        client_frame(OpCode::Ping, true, b"here?"),
        client_frame(OpCode::Continuation, false, b""),
        client_frame(OpCode::Continuation, true, &[b'x'; 200]),
        client_frame(OpCode::Binary, true, b"whole"),
        client_frame(OpCode::Pong, true, b""),
        client_frame(OpCode::Close, true, b""),
    ];
    let bytes = frames.concat();
    for step in 1..=bytes.len() {
        let (mut reader, mut counted, mut begun) = (Reader::new(Role::Server), 0, 0);
        for (number, chunk) in bytes.chunks(step).enumerate() {
            let mut chunk = chunk.to_vec();
            let mut input = &mut chunk[..];
            while reader.next_counting(&mut input, &WIDE, None, &mut counted).expect("good frames").is_some() {}
            let fed = (number + 1) * step;
            // A header has six bytes here, and eight where the payload is long.
            let heads = frames.iter().scan(0, |at, frame| {
                let head = *at + if frame.len() > 131 { 8 } else { 6 };
                *at += frame.len();
                Some(head)
            });
            begun = heads.filter(|head| *head <= fed).count() as u32;
            assert_eq!(counted, begun, "cut every {step} bytes, after {fed}");
        }
        assert_eq!(begun, 7);
    }
}
