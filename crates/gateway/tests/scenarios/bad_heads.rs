//! Handshakes that are refused, each beside one that is granted and differs in one place.

use crate::support::client::{HOST, request};
use crate::support::{Client, Ended, Gateway, Setup, on_every_driver};

on_every_driver! {
    bad_handshakes_are_refused_by_name: Setup::dev(),
    limits_of_a_head_are_exact: Setup::dev(),
    requests_that_could_be_read_in_two_ways_are_refused: Setup::dev(),
    queries_of_the_plain_dialect_are_checked: Setup::dev(),
}

const ENDPOINTS: [&str; 3] = ["/echo", "/connection/websocket", "/connection/uni_websocket"];

/// The lines of a good handshake.
fn good(target: &str) -> Vec<String> {
    let headers = [
        format!("Host: {HOST}"),
        "Upgrade: websocket".into(),
        "Connection: Upgrade".into(),
        "Sec-WebSocket-Version: 13".into(),
        "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcy4uLg==".into(),
    ];
    std::iter::once(format!("GET {target} HTTP/1.1")).chain(headers).collect()
}

fn bytes(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\r\n");
    text.push_str("\r\n\r\n");
    text.into_bytes()
}

enum Edit {
    /// Leaves out the header.
    Without(&'static str),
    /// Sends the header twice.
    Twice(&'static str),
    /// Replaces a part of the head.
    With(&'static str, &'static str),
    /// Adds a line.
    And(&'static str),
}
use Edit::{And, Twice, With, Without};

impl Edit {
    fn apply(&self, target: &str) -> Vec<u8> {
        let mut lines = good(target);
        let find = |lines: &[String], name: &str| lines.iter().position(|l| l.starts_with(name)).expect("a header");
        match self {
            Without(name) => drop(lines.remove(find(&lines, name))),
            Twice(name) => lines.push(lines[find(&lines, name)].clone()),
            With(old, new) => {
                let text = lines.join("\r\n");
                assert!(text.contains(old), "{old} is not in\n{text}");
                return [text.replacen(old, new, 1).as_bytes(), b"\r\n\r\n"].concat();
            }
            And(line) => lines.push((*line).to_owned()),
        }
        bytes(&lines)
    }
}

/// Sends a head that must be granted.
fn expect_granted(gateway: &Gateway, head: &[u8], what: &str) -> Client {
    let mut client = gateway.client();
    client.write(head);
    let answer = client.await_upgrade(None);
    assert_eq!(answer.status, 101, "{what}");
    client
}

/// Sends a head that must be refused; whether the connection then has to close.
fn expect_refused(gateway: &Gateway, head: &[u8], status: u16, what: &str) {
    let mut client = gateway.client();
    client.write(head);
    let answer = client.response();
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    assert_ne!(answer.body, "", "{what}: the answer says why");
    let closes = matches!(status, 400 | 414 | 431 | 505);
    let connection = answer.header("Connection").expect("Connection is always sent");
    assert_eq!(connection.starts_with("close"), closes, "{what}: {connection}");
    match status {
        426 => assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "{what}"),
        405 => assert_eq!(answer.header("Allow"), Some("GET"), "{what}"),
        _ => {}
    }
    if closes {
        assert_eq!(client.end(), Ended::Fin, "{what}");
    } else {
        client.write(request("GET", "/health"));
        assert_eq!(client.response().status, 200, "{what}: the connection stays");
    }
}

fn bad_handshakes_are_refused_by_name(gateway: &Gateway) {
    let refused = [
        (400, Without("Host")),
        (426, Without("Upgrade")),
        (426, Without("Connection")),
        (426, Without("Sec-WebSocket-Version")),
        (400, Without("Sec-WebSocket-Key")),
        (400, Twice("Host")),
        (400, Twice("Sec-WebSocket-Version")),
        (400, Twice("Sec-WebSocket-Key")),
        (426, With("Version: 13", "Version: 12")),
        (426, With("Version: 13", "Version: 8")),
        (426, With("Upgrade: websocket", "Upgrade: websockets")),
        (426, With("Connection: Upgrade", "Connection: Upgraded")),
        (400, With("cy4uLg==", "cy4u")),
        (400, With("cy4uLg==", "cy4uLg=")),
        (400, With("c2l4dG", "c2l4d_")),
        (400, With("Host: localhost", "Host: local host")),
        (400, And("Origin: http://localhost\r\nOrigin: http://localhost")),
        (400, And("Sec-WebSocket-Protocol: a b")),
        (405, With("GET", "POST")),
        (505, With("HTTP/1.1", "HTTP/2.0")),
        (400, With("HTTP/1.1", "HTTP/1.x")),
    ];
    let granted = [
        With("Upgrade: websocket", "upgrade: WebSocket"),
        With("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        With("Host: localhost", "Host: localhost:80"),
        And("Origin: http://localhost"),
        And("Sec-WebSocket-Protocol: a, b"),
        And("Sec-WebSocket-Extensions: permessage-deflate"),
        And("X-Unknown: anything"),
    ];
    for target in ENDPOINTS {
        expect_granted(gateway, &bytes(&good(target)), target);
        for edit in &granted {
            let head = edit.apply(target);
            expect_granted(gateway, &head, &String::from_utf8_lossy(&head));
        }
        for (status, edit) in &refused {
            let head = edit.apply(target);
            expect_refused(gateway, &head, *status, &String::from_utf8_lossy(&head));
        }
    }
}

fn limits_of_a_head_are_exact(gateway: &Gateway) {
    for target in ENDPOINTS {
        // 16 KiB of head, its empty line included.
        let padded = |len: usize| {
            let mut lines = good(target);
            let rest = len - bytes(&lines).len() - "X: \r\n".len();
            lines.push(format!("X: {}", "x".repeat(rest)));
            bytes(&lines)
        };
        assert_eq!(padded(16384).len(), 16384);
        expect_granted(gateway, &padded(16384), "16384 bytes of head");
        expect_refused(gateway, &padded(16385), 431, "16385 bytes of head");

        let with_headers = |count: usize| {
            let mut lines = good(target);
            lines.extend((lines.len() - 1..count).map(|i| format!("X-{i}: x")));
            bytes(&lines)
        };
        expect_granted(gateway, &with_headers(64), "64 headers");
        expect_refused(gateway, &with_headers(65), 431, "65 headers");

        let with_query = |len: usize| bytes(&good(&format!("{target}?{}", "q".repeat(len - target.len() - 1))));
        expect_granted(gateway, &with_query(8192), "8192 bytes of target");
        expect_refused(gateway, &with_query(8193), 414, "8193 bytes of target");
    }
}

fn requests_that_could_be_read_in_two_ways_are_refused(gateway: &Gateway) {
    for target in ENDPOINTS {
        let edit = |edit: Edit| edit.apply(target);
        let pairs = [
            (And("Content-Length: 0"), And("Content-Length: 0\r\nTransfer-Encoding: chunked")),
            (And("Content-Length: 0"), And("Content-Length: 5")),
            (And("Content-Length: 0"), And("Content-Length: 0\r\nContent-Length: 0")),
            (And("Content-Length: 0"), And("Content-Length: +0")),
            (And("X: chunked"), And("Transfer-Encoding: chunked")),
            (And("X: a"), And("X: a\r\n b")),
            (And("X: a"), And("X : a")),
            (And("X: a"), And("X: a\rb")),
            (And("X: a"), And("X: a\0b")),
            (With("13\r\n", "13 \r\n"), With("13\r\n", "13\n")),
        ];
        for (accepted, refused) in pairs {
            let (accepted, refused) = (edit(accepted), edit(refused));
            expect_granted(gateway, &accepted, &String::from_utf8_lossy(&accepted));
            expect_refused(gateway, &refused, 400, &String::from_utf8_lossy(&refused));
        }
    }
}

fn queries_of_the_plain_dialect_are_checked(gateway: &Gateway) {
    let target = |query: &str| format!("/connection/uni_websocket?cf_connect={query}");
    for (good_query, bad_query) in [("%7B%7D", "%7B"), ("%7B%22subs%22:%7B%7D%7D", "%7B%22subs%22:1%7D"), ("{}", "")] {
        expect_granted(gateway, &bytes(&good(&target(good_query))), good_query);
        expect_refused(gateway, &bytes(&good(&target(bad_query))), 400, bad_query);
    }
}
