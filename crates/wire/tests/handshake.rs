//! The opening handshake, both sides, and every request that is not quite one.

use wire::http::{self, HeadLimits};
use wire::ws::client::{ResponseError, check_response, write_request};
use wire::ws::handshake::{check, wants_upgrade};

/// The client's request of RFC 6455, 1.2, as lines that tests take away, change or repeat.
const LINES: [&str; 7] = [
    "GET /chat HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Version: 13",
];

fn head(lines: &[&str]) -> Vec<u8> {
    let mut head = lines.join("\r\n").into_bytes();
    head.extend(b"\r\n\r\n");
    head
}

/// The 101 with this subprotocol, or the status and body of the refusal.
fn answer(lines: &[&str], subprotocol: Option<&str>) -> Result<String, (u16, String)> {
    let head = head(lines);
    let (request, _) = http::parse(&head, &HeadLimits::default()).unwrap().unwrap();
    let mut out = Vec::new();
    match check(&request) {
        Ok(upgrade) => {
            assert!(wants_upgrade(&request));
            upgrade.write_response(&mut out, subprotocol);
            Ok(String::from_utf8(out).unwrap())
        }
        Err(refusal) => {
            refusal.write(&mut out, true);
            Err((refusal.status.code(), String::from_utf8(out).unwrap()))
        }
    }
}

/// [`LINES`] with one line replaced; an empty one is taken away.
fn with(line: usize, replacement: &'static str) -> Vec<&'static str> {
    let mut lines = LINES.to_vec();
    lines[line] = replacement;
    lines.retain(|line| !line.is_empty());
    lines
}

fn refused(lines: &[&str]) -> u16 {
    answer(lines, None).expect_err("this is no handshake").0
}

#[test]
fn example_of_the_rfc_1_3_is_answered() {
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: chat\r\n\r\n";
    assert_eq!(answer(&LINES, Some("chat")).as_deref(), Ok(expected));
    let without = expected.replace("Sec-WebSocket-Protocol: chat\r\n", "");
    assert_eq!(answer(&LINES, None), Ok(without));
}

#[test]
fn what_browsers_and_proxies_vary_is_taken() {
    let variants = [
        with(2, "upgrade: WebSocket"),
        with(2, "Upgrade: h2c, websocket"),
        with(3, "Connection: keep-alive, Upgrade"),
        with(3, "connection: keep-alive\r\nConnection: upgrade"),
        // The example in 4.1, item 7, has bits in its last character that mean nothing.
        with(4, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="),
        with(5, ""),
        with(5, "Sec-WebSocket-Protocol:"),
        with(6, "Sec-WebSocket-Version: 13\r\nContent-Length: 0"),
        with(6, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate"),
    ];
    for lines in variants {
        assert!(answer(&lines, None).is_ok(), "{lines:?}");
    }
}

/// Whether two texts differ in one byte that is changed, added or taken away.
fn one_byte_away(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..], &b[front..]);
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    a.len().max(b.len()) - back == 1
}

#[test]
#[rustfmt::skip] // a table
fn each_flaw_has_its_status_and_a_twin_one_byte_away() {
    // Line, its flawed text, its good text, status.
    let table = [
        (0, "GET /chat HTTP/1.0", "GET /chat HTTP/1.1", 426),
        (0, "GeT /chat HTTP/1.1", "GET /chat HTTP/1.1", 405),
        (2, "Upgrade: websockets", "Upgrade: websocket", 426),
        (2, "Upgrades: websocket", "Upgrade: websocket", 426),
        (3, "Connection: Upgrades", "Connection: Upgrade", 426),
        (3, "Connection: keep-alive Upgrade", "Connection: keep-alive,Upgrade", 426),
        (3, "Connections: Upgrade", "Connection: Upgrade", 426),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ_==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ/==", 400),
        (4, "Sec-WebSocket-Kez: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: a", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Kex: a", 400),
        (5, "Sec-WebSocket-Protocol: ch at", "Sec-WebSocket-Protocol: ch,at", 400),
        (5, "Sec-WebSocket-Protocol: chat;", "Sec-WebSocket-Protocol: chat,", 400),
        (6, "Sec-WebSocket-Version: 12", "Sec-WebSocket-Version: 13", 426),
        (6, "Sec-WebSocket-Version: 013", "Sec-WebSocket-Version: 13", 426),
        (6, "Sec-WebSocket-Versiom: 13", "Sec-WebSocket-Version: 13", 426),
        (6, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Versiom: 13", 400),
        (6, "Sec-WebSocket-Version: 13\r\nContent-Length: 1", "Sec-WebSocket-Version: 13\r\nContent-Length: 0", 400),
        (6, "Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked", "Sec-WebSocket-Version: 13\r\nTransfer-Encodinh: chunked", 400),
    ];
    for (line, flawed, good, status) in table {
        assert!(one_byte_away(flawed, good), "{flawed}");
        assert_eq!(refused(&with(line, flawed)), status, "{flawed}");
        assert!(answer(&with(line, good), None).is_ok(), "the twin {good}");
    }
}

#[test]
fn only_get_can_be_upgraded() {
    for method in ["HEAD", "POST", "OPTIONS", "PUT"] {
        let line = format!("{method} /chat HTTP/1.1");
        let mut lines = LINES.to_vec();
        lines[0] = &line;
        let (status, text) = answer(&lines, None).unwrap_err();
        assert_eq!(status, 405);
        assert!(text.contains("\r\nAllow: GET\r\n"), "{text}");
    }
}

#[test]
fn lines_that_are_missing_are_refused() {
    for (line, status) in [(2, 426), (3, 426), (4, 400), (6, 426)] {
        assert_eq!(refused(&with(line, "")), status, "without {}", LINES[line]);
    }
    assert!(answer(&LINES, None).is_ok(), "with all of them");
}

#[test]
fn a_refusal_names_the_lines_a_proxy_dropped() {
    let hop_by_hop_gone: Vec<_> = LINES.into_iter().filter(|line| !line.contains("pgrade")).collect();
    let (status, text) = answer(&hop_by_hop_gone, None).unwrap_err();
    assert_eq!(status, 426);
    assert!(text.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
    assert!(text.contains("\n  Upgrade: websocket\n  Connection: Upgrade\nIf your"), "{text}");

    let (status, text) = answer(&with(0, "GET /chat HTTP/1.0"), None).unwrap_err();
    assert_eq!(status, 426);
    assert!(text.contains("arrived here:\n  HTTP/1.1 in the request line\nIf your"), "{text}");

    let (_, text) = answer(&["GET / HTTP/1.1", "Host: h"], None).unwrap_err();
    assert!(text.contains("  Sec-WebSocket-Version: 13\n  Sec-WebSocket-Key: ("), "{text}");
}

#[test]
fn a_websocket_is_meant_by_any_of_its_headers() {
    let wants = |line: &str| {
        let head = head(&["GET / HTTP/1.1", "Host: h", line]);
        wants_upgrade(&http::parse(&head, &HeadLimits::default()).unwrap().unwrap().0)
    };
    assert!(wants("Upgrade: WebSocket"));
    assert!(wants("Connection: keep-alive, Upgrade"));
    assert!(wants("Sec-WebSocket-Key: x"));
    assert!(!wants("Upgrade: h2c"));
    assert!(!wants("Connection: keep-alive"));
    assert!(!wants("Accept: websocket"));
}

#[test]
fn subprotocols_are_offered_in_lists_and_lines_and_their_case_counts() {
    let lines = with(5, "Sec-WebSocket-Protocol: a,,b\r\nsec-websocket-protocol: C.d");
    let head_with = head(&lines);
    let head_without = head(&with(5, "Sec-WebSocket-Protocol: ,"));
    let limits = HeadLimits::default();
    let (request, _) = http::parse(&head_with, &limits).unwrap().unwrap();
    let upgrade = check(&request).unwrap();
    assert!(upgrade.has_offers());
    for (name, offered) in [("a", true), ("b", true), ("C.d", true), ("c.d", false), ("", false)] {
        assert_eq!(upgrade.offers(name), offered, "{name}");
    }
    let (request, _) = http::parse(&head_without, &limits).unwrap().unwrap();
    assert!(!check(&request).unwrap().has_offers());
}

const KEY: &[u8; 16] = b"the sample nonce";

/// The server's answer of RFC 6455, 1.2.
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: chat\r\n\r\n";

fn judged(answer: &str, offered: Option<&str>) -> Result<Option<usize>, ResponseError> {
    check_response(answer.as_bytes(), KEY, offered, &HeadLimits::default())
}

#[test]
fn a_client_request_is_that_of_the_rfc_and_our_server_grants_it() {
    let mut request = Vec::new();
    let extra = [("Origin", "http://a\r\nX: injected")];
    write_request(&mut request, "h:1", "/p?q", KEY, Some("chat"), &extra);
    let text = str::from_utf8(&request).unwrap();
    assert_eq!(
        text,
        "GET /p?q HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: chat\r\nOrigin: http://a  X: injected\r\n\r\n"
    );
    let (request, _) = http::parse(&request, &HeadLimits::default()).unwrap().unwrap();
    let mut answer = Vec::new();
    check(&request).unwrap().write_response(&mut answer, Some("chat"));
    assert_eq!(str::from_utf8(&answer), Ok(ANSWER));
    assert_eq!(judged(ANSWER, Some("chat")), Ok(Some(ANSWER.len())));
}

#[test]
fn frames_may_follow_the_answer_at_once_and_a_cut_answer_waits() {
    let with_frame = format!("{ANSWER}\u{1}\u{2}");
    assert_eq!(judged(&with_frame, Some("x, chat")), Ok(Some(ANSWER.len())));
    for end in 0..ANSWER.len() {
        assert_eq!(judged(&ANSWER[..end], Some("chat")), Ok(None), "{end} bytes");
    }
}

#[test]
fn each_flaw_of_an_answer_is_told() {
    let table = [
        ("HTTP/1.1", "XTTP/1.1", ResponseError::Malformed),
        ("101", "200", ResponseError::Status(200)),
        ("101", "503", ResponseError::Status(503)),
        ("Upgrade: w", "Upgrade: x", ResponseError::Upgrade),
        ("Upgrade: websocket\r\n", "", ResponseError::Upgrade),
        ("Connection: Upgrade", "Connection: Upgrades", ResponseError::Connection),
        ("s3pPL", "s3pPl", ResponseError::Accept),
        ("Sec-WebSocket-Accept", "Sec-WebSocket-Accepts", ResponseError::Accept),
        ("Protocol: chat", "Protocol: chats", ResponseError::Subprotocol),
        ("Protocol: chat", "Extensions: x", ResponseError::Extension),
    ];
    for (good, bad, error) in table {
        assert_eq!(judged(&ANSWER.replacen(good, bad, 1), Some("chat")), Err(error), "{bad}");
    }
    assert_eq!(judged(ANSWER, None), Err(ResponseError::Subprotocol), "none was offered");
    let without = ANSWER.replace("Sec-WebSocket-Protocol: chat\r\n", "");
    assert_eq!(judged(&without, Some("chat")), Ok(Some(without.len())), "a server may decline");
}

#[test]
fn an_endless_answer_is_refused() {
    let limits = HeadLimits { head_bytes_max: ANSWER.len(), ..HeadLimits::default() };
    let judged = |bytes: &[u8]| check_response(bytes, KEY, Some("chat"), &limits);
    assert_eq!(judged(ANSWER.as_bytes()), Ok(Some(ANSWER.len())));
    let longer = ANSWER.replace("chat", " chat");
    assert_eq!(judged(longer.as_bytes()), Err(ResponseError::TooLarge));
    assert_eq!(judged(&longer.as_bytes()[..ANSWER.len()]), Err(ResponseError::TooLarge));
    let many = format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(65));
    assert_eq!(check_response(many.as_bytes(), KEY, None, &HeadLimits::default()), Err(ResponseError::TooLarge));
}
