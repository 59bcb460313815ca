//! Answers: each status with the headers that belong to it.

use wire::http::{CONTINUE, Missing, Refusal, Response, Status};

/// The head without its last empty line, and the body.
fn written(refusal: Refusal, keep_alive: bool) -> (String, String) {
    let mut out = Vec::new();
    refusal.write(&mut out, keep_alive);
    let text = String::from_utf8(out).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
    (head.to_owned(), body.to_owned())
}

fn has_line(head: &str, line: &str) -> bool {
    head.split("\r\n").any(|other| other == line)
}

#[test]
fn every_refusal_has_its_status_line_its_headers_and_a_body_of_the_stated_length() {
    let table: [(Refusal, &str, &[&str], bool); 13] = [
        (Refusal::bad_request("x"), "400 Bad Request", &[], true),
        (Refusal::bad_header("Host", "x"), "400 Bad Request", &[], true),
        (Refusal::forbidden("x"), "403 Forbidden", &[], false),
        (Refusal::not_found(), "404 Not Found", &[], false),
        (Refusal::method_not_allowed("GET, HEAD"), "405 Method Not Allowed", &["Allow: GET, HEAD"], false),
        (Refusal::timeout(), "408 Request Timeout", &[], true),
        (Refusal::too_large(), "413 Content Too Large", &[], true),
        (Refusal::uri_too_long(), "414 URI Too Long", &[], true),
        (
            Refusal::upgrade_required(Missing::default()),
            "426 Upgrade Required",
            &["Upgrade: websocket", "Sec-WebSocket-Version: 13"],
            false,
        ),
        (Refusal::too_many_requests(7), "429 Too Many Requests", &["Retry-After: 7"], false),
        (Refusal::head_too_large(), "431 Request Header Fields Too Large", &[], true),
        (Refusal::unavailable(30), "503 Service Unavailable", &["Retry-After: 30"], false),
        (Refusal::version_not_supported(), "505 HTTP Version Not Supported", &[], true),
    ];
    for (refusal, status, lines, closes) in table {
        let (head, body) = written(refusal, true);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        for line in lines {
            assert!(has_line(&head, line), "{line} is missing in {head}");
        }
        assert!(has_line(&head, &format!("Content-Length: {}", body.len())), "{head}");
        assert!(has_line(&head, "Content-Type: text/plain; charset=utf-8"), "{head}");
        assert!(body.starts_with(status) && body.ends_with(".\n") || status.starts_with("426"));
        assert_eq!(refusal.closes(), closes, "{status}");
        assert_eq!(head.contains("Connection: close"), closes, "{head}");
        assert!(written(refusal, false).0.contains("Connection: close"), "{status}");
        let (head_only, nothing) = written(refusal.without_body(), true);
        assert_eq!((head_only, nothing), (head, String::new()), "an answer to HEAD");
    }
}

#[test]
fn upgrade_required_names_exactly_what_is_missing_and_what_to_do() {
    let lines = ["HTTP/1.1 in the", "  Upgrade: w", "  Connection: U", "Version: 13", "Key: ("];
    for bits in 0..32_u8 {
        let is_set = |bit: usize| bits >> bit & 1 == 1;
        let missing = Missing {
            http_1_1: is_set(0),
            upgrade: is_set(1),
            connection: is_set(2),
            version: is_set(3),
            key: is_set(4),
        };
        let (head, body) = written(Refusal::upgrade_required(missing), true);
        for (bit, line) in lines.iter().enumerate() {
            assert_eq!(body.contains(line), is_set(bit), "{missing:?}: {body}");
        }
        assert_eq!(missing.any(), bits != 0);
        assert!(body.contains("proxy_set_header Upgrade $http_upgrade;"));
        // Upgrade concerns this hop only, and Connection must say so.
        assert!(has_line(&head, "Connection: keep-alive, Upgrade"), "{head}");
    }
}

#[test]
fn response_to_head_is_that_to_get_without_its_body() {
    let (mut get, mut head) = (Vec::new(), Vec::new());
    let response = Response::new(Status::OK).content_type("text/html").body(b"<p>");
    response.clone().write(&mut get, false);
    response.head_only(true).write(&mut head, false);
    assert_eq!(get, [&head[..], b"<p>"].concat());
    assert!(head.ends_with(b"Content-Length: 3\r\nConnection: close\r\n\r\n"));
}

#[test]
fn statuses_without_body_have_neither_body_nor_length() {
    for status in [Status::NO_CONTENT, Status::NOT_MODIFIED] {
        let mut out = Vec::new();
        Response::new(status).header("ETag", "\"1\"").body(b"never").write(&mut out, true);
        let expected = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn a_header_value_cannot_add_a_header() {
    let mut out = Vec::new();
    let location = "/a\r\nSet-Cookie: b\0";
    Response::new(Status::FOUND).header("Location", location).write(&mut out, true);
    let text = String::from_utf8(out).unwrap();
    assert!(has_line(&text, "Location: /a  Set-Cookie: b "), "{text}");
}

#[test]
fn statuses_have_three_digits() {
    assert_eq!(Status::new(404), Some(Status::NOT_FOUND));
    assert_eq!(Status::new(99), None);
    assert_eq!(Status::new(1000), None);
    assert_eq!(Status::new(599).map(Status::reason), Some(""));
    assert!(CONTINUE.starts_with(b"HTTP/1.1 100 ") && CONTINUE.ends_with(b"\r\n\r\n"));
}
