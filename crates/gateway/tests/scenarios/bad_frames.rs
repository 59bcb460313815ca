//! Frames that break RFC 6455 or a limit, each beside one that differs in a byte or two and is fine.

use crate::support::client::{close_frame, frame, raw_frame, text_frame};
use crate::support::{Client, Ended, Gateway, Seen, Setup, on_every_driver};
use std::time::Duration;
use wire::ws::OpCode;

on_every_driver! {
    broken_frames_are_told_1002: Setup::dev(),
    bad_close_payloads_are_told_1002_or_1007_and_good_ones_are_answered: Setup::dev(),
    text_that_is_not_utf8_is_told_1007_wherever_it_is_cut: Setup::dev(),
    messages_over_a_limit_are_told_1009: Setup::dev().with(|s| s.limits.fragments_max = 8),
    a_length_over_the_limit_is_refused_before_its_payload_comes: Setup::dev(),
    what_follows_a_broken_frame_is_not_read: Setup::dev(),
    a_client_that_breaks_the_protocol_and_closes_its_half_is_still_told: Setup::dev(),
}

/// A message that both endpoints take: an echo, or a command that is answered.
const MESSAGE: &str = r#"{"id":7,"rpc":{"data":{}}}"#;

/// The same with spaces behind it.
fn padded(len: usize) -> Vec<u8> {
    let mut padded = MESSAGE.as_bytes().to_vec();
    padded.resize(len, b' ');
    padded
}

/// A client ready to send [`MESSAGE`] to either endpoint.
fn open(gateway: &Gateway, centrifugo: bool) -> Client {
    if centrifugo { gateway.centrifugo() } else { gateway.websocket("/echo") }
}

/// Each table is run on both endpoints.
fn on_both(mut check: impl FnMut(bool)) {
    check(false);
    check(true);
}

fn expect_failed(client: &mut Client, code: u16, what: &str) {
    assert_eq!(client.next(), Seen::Close(Some(code), String::new()), "{what}");
    // The stream cannot be read any further, so the client's own close frame is not waited for.
    assert_eq!(client.next(), Seen::End(Ended::Fin), "{what}");
}

/// Shows that the connection goes on.
fn expect_alive(client: &mut Client, what: &str) {
    client.write(frame(OpCode::Ping, true, b"alive?"));
    loop {
        match client.next() {
            Seen::Pong(payload) if payload == b"alive?" => return,
            Seen::Text(_) | Seen::Binary(_) | Seen::Pong(_) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn broken_frames_are_told_1002(gateway: &Gateway) {
    let (whole, half, rest) = (MESSAGE.as_bytes(), &MESSAGE.as_bytes()[..9], &MESSAGE.as_bytes()[9..]);
    let len = whole.len() as u8;
    let text = |first: u8| raw_frame(first, 0x80 | len, &[], whole);
    let mut table = vec![
        ("not masked", text(0x81), raw_frame(0x81, len, &[], whole)),
        ("continuation of nothing", text(0x81), text(0x80)),
        (
            "16-bit length of 125",
            raw_frame(0x81, 0xfe, &[0, 126], &padded(126)),
            raw_frame(0x81, 0xfe, &[0, 125], &padded(125)),
        ),
        (
            "64-bit length of 65535",
            raw_frame(0x81, 0xff, &65536u64.to_be_bytes(), &padded(65536)),
            raw_frame(0x81, 0xff, &65535u64.to_be_bytes(), &padded(65535)),
        ),
        (
            "64-bit length with its top bit set",
            raw_frame(0x81, 0xff, &65536u64.to_be_bytes(), &padded(65536)),
            raw_frame(0x81, 0xff, &(1 << 63 | 65536u64).to_be_bytes(), &padded(65536)),
        ),
        ("fragmented ping", frame(OpCode::Ping, true, b"p"), frame(OpCode::Ping, false, b"p")),
        ("fragmented pong", frame(OpCode::Pong, true, b"p"), frame(OpCode::Pong, false, b"p")),
        ("fragmented close", frame(OpCode::Pong, true, b""), frame(OpCode::Close, false, b"")),
        ("ping of 126 bytes", frame(OpCode::Ping, true, &[b'p'; 125]), frame(OpCode::Ping, true, &[b'p'; 126])),
        ("pong of 126 bytes", frame(OpCode::Pong, true, &[b'p'; 125]), frame(OpCode::Pong, true, &[b'p'; 126])),
        (
            "a message inside a message",
            [frame(OpCode::Text, false, half), frame(OpCode::Continuation, true, rest)].concat(),
            [frame(OpCode::Text, false, half), frame(OpCode::Text, true, rest)].concat(),
        ),
    ];
    for bits in 1..8u8 {
        table.push(("reserved bits", text(0x81), text(0x81 | bits << 4)));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        table.push(("reserved opcode", text(0x82), text(0x80 | opcode)));
    }
    on_both(|centrifugo| {
        // Good ones may share a connection.
        let mut twin = open(gateway, centrifugo);
        for (what, good, bad) in &table {
            twin.write(good);
            expect_alive(&mut twin, what);
            let mut client = open(gateway, centrifugo);
            client.write(bad);
            expect_failed(&mut client, 1002, what);
        }
    });
}

fn bad_close_payloads_are_told_1002_or_1007_and_good_ones_are_answered(gateway: &Gateway) {
    on_both(|centrifugo| {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            let mut client = open(gateway, centrifugo);
            client.write(close_frame(Some(code), ""));
            expect_failed(&mut client, 1002, &format!("close code {code}"));
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            let mut client = open(gateway, centrifugo);
            client.write(close_frame(Some(code), "reason"));
            assert_eq!(client.next(), Seen::Close(Some(code), String::new()), "the code comes back");
            assert_eq!(client.next(), Seen::End(Ended::Fin));
        }
        let table: [(&[u8], u16, &[u8]); 3] = [
            (b"", 1002, b"\x03"),
            (b"\x03\xe8\xc3\xa4", 1007, b"\x03\xe8\xc3\x24"),
            (b"\x03\xe8\xf0\x9f\x98\x80", 1007, b"\x03\xe8\xf0\x9f\x98"),
        ];
        for (good, code, bad) in table {
            let mut twin = open(gateway, centrifugo);
            twin.write(frame(OpCode::Close, true, good));
            let answer = if good.is_empty() { None } else { Some(1000) };
            assert_eq!(twin.next(), Seen::Close(answer, String::new()));
            assert_eq!(twin.next(), Seen::End(Ended::Fin));
            let mut client = open(gateway, centrifugo);
            client.write(frame(OpCode::Close, true, bad));
            expect_failed(&mut client, code, &format!("{bad:?}"));
        }
    });
}

fn text_that_is_not_utf8_is_told_1007_wherever_it_is_cut(gateway: &Gateway) {
    let pairs: [(&[u8], &[u8]); 5] = [
        (b"\xc3\xa4", b"\xc3\x24"),                 // a continuation byte is missing
        (b"\xed\x9f\xbf", b"\xed\xa0\x80"),         // a surrogate
        (b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"), // past the last character
        (b"\xe2\x82\xac", b"\xe2\x82"),             // cut short
        (b"\x41", b"\xc1"),                         // never a first byte
    ];
    let message = |part: &[u8]| [br#"{"id":7,"rpc":{"x":""#, part, br#""}}"#].concat();
    on_both(|centrifugo| {
        let mut twin = open(gateway, centrifugo);
        for (good, bad) in pairs {
            let (good, bad) = (message(good), message(bad));
            for cut in 0..=good.len() {
                let (a, b) = good.split_at(cut);
                twin.write([frame(OpCode::Text, false, a), frame(OpCode::Continuation, true, b)].concat());
            }
            expect_alive(&mut twin, "good UTF-8");
            // Cut into fragments at every place.
            for cut in 0..=bad.len() {
                let mut client = open(gateway, centrifugo);
                let (a, b) = bad.split_at(cut);
                client.write([frame(OpCode::Text, false, a), frame(OpCode::Continuation, true, b)].concat());
                expect_failed(&mut client, 1007, &format!("{bad:?} in fragments cut at {cut}"));
            }
            // Cut into packets, around the place in question.
            let bytes = frame(OpCode::Text, true, &bad);
            for cut in bytes.len() - 8..bytes.len() {
                let mut client = open(gateway, centrifugo);
                client.write(&bytes[..cut]);
                gateway.pass(Duration::from_millis(1));
                client.write(&bytes[cut..]);
                expect_failed(&mut client, 1007, &format!("{bad:?} in packets cut at {cut}"));
            }
        }
    });
}

fn messages_over_a_limit_are_told_1009(gateway: &Gateway) {
    let fragments = |count: usize| {
        let mut bytes = frame(OpCode::Text, false, b"");
        (2..count).for_each(|_| bytes.extend(frame(OpCode::Continuation, false, b"")));
        bytes.extend(frame(OpCode::Continuation, true, MESSAGE.as_bytes()));
        bytes
    };
    let in_two = |len: usize| {
        let message = padded(len);
        [frame(OpCode::Text, false, &message[..100]), frame(OpCode::Continuation, true, &message[100..])].concat()
    };
    let table = [
        ("one frame", frame(OpCode::Text, true, &padded(65536)), frame(OpCode::Text, true, &padded(65537))),
        ("two frames", in_two(65536), in_two(65537)),
        ("fragments", fragments(8), fragments(9)),
    ];
    on_both(|centrifugo| {
        for (what, good, bad) in &table {
            let mut twin = open(gateway, centrifugo);
            twin.write(good);
            expect_alive(&mut twin, what);
            let mut client = open(gateway, centrifugo);
            client.write(bad);
            expect_failed(&mut client, 1009, what);
        }
    });
}

fn a_length_over_the_limit_is_refused_before_its_payload_comes(gateway: &Gateway) {
    on_both(|centrifugo| {
        for len in [65537u64, 1 << 40, (1 << 63) - 1] {
            let mut client = open(gateway, centrifugo);
            client.write(raw_frame(0x82, 0xff, &len.to_be_bytes(), b""));
            expect_failed(&mut client, 1009, &format!("a length of {len}"));
        }
    });
}

fn what_follows_a_broken_frame_is_not_read(gateway: &Gateway) {
    on_both(|centrifugo| {
        let mut client = open(gateway, centrifugo);
        client.write([text_frame(MESSAGE), raw_frame(0x83, 0x80, &[], b""), text_frame(MESSAGE)].concat());
        let first = client.text();
        if !centrifugo {
            assert_eq!(first, MESSAGE, "what came before it was good");
        }
        expect_failed(&mut client, 1002, "bad opcode");
    });
}

fn a_client_that_breaks_the_protocol_and_closes_its_half_is_still_told(gateway: &Gateway) {
    on_both(|centrifugo| {
        let mut client = open(gateway, centrifugo);
        client.write(raw_frame(0x83, 0x80, &[], b""));
        client.shutdown_write();
        expect_failed(&mut client, 1002, "bad opcode, then FIN");
    });
    // A breach of the dialect, where our close frame awaits another.
    let mut client = gateway.centrifugo();
    client.write(text_frame("not JSON"));
    client.shutdown_write();
    assert_eq!(client.next(), Seen::Close(Some(3501), "bad request".into()));
    assert_eq!(client.next(), Seen::End(Ended::Fin));
}
