//! Request heads: what is taken, and for each refusal the accepted twin one byte away.

use wire::http::{BodyKind, HeadLimits, Method, Refusal, Request, Status, Version, parse};

/// Parses a whole head; the request must end where the bytes do.
fn whole<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<Request<'a>, Status> {
    match parse(bytes, limits) {
        Ok(Some((request, head_len))) => {
            assert_eq!(head_len, bytes.len(), "{}", bytes.escape_ascii());
            Ok(request)
        }
        Ok(None) => panic!("incomplete: {}", bytes.escape_ascii()),
        Err(refusal) => Err(refusal.status),
    }
}

fn good(bytes: &[u8]) -> Request<'_> {
    match whole(bytes, &HeadLimits::default()) {
        Ok(request) => request,
        Err(status) => panic!("{status}: {}", bytes.escape_ascii()),
    }
}

#[test]
fn a_request_of_a_browser_is_read() {
    let request = good(
        b"GET /a/b?c=d HTTP/1.1\r\nhost: example.org:8000\r\nAccept:text/html\r\n\
          X-Empty:\r\naccept: \t*/* \t\r\n\r\n",
    );
    assert_eq!(request.method(), Method::Get);
    assert_eq!(request.method_str(), "GET");
    assert_eq!(request.target(), "/a/b?c=d");
    assert_eq!(request.path(), "/a/b");
    assert_eq!(request.query(), Some("c=d"));
    assert_eq!(request.version(), Version::Http11);
    assert_eq!(request.host(), Some("example.org:8000"));
    assert_eq!(request.header("ACCEPT"), Some(&b"text/html"[..]));
    assert_eq!(request.headers("Accept").collect::<Vec<_>>(), [&b"text/html"[..], b"*/*"]);
    assert_eq!(request.header("X-Empty"), Some(&b""[..]));
    assert_eq!(request.header("Origin"), None);
    assert_eq!(request.body(), BodyKind::None);
    assert!(request.keep_alive());
    assert!(!request.expects_continue());
}

#[test]
fn methods_are_told_apart_and_their_case_counts() {
    let cases = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("OPTIONS", Method::Options),
        ("get", Method::Other),
        ("DELETE", Method::Other),
    ];
    for (name, method) in cases {
        let head = format!("{name} / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(good(head.as_bytes()).method(), method);
        assert_eq!(good(head.as_bytes()).method_str(), name);
    }
}

/// Whether two heads differ in one byte that is changed, added or taken away.
fn one_byte_away(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..], &b[front..]);
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    a.len().max(b.len()) - back == 1
}

/// Fills `bad` and `good` in for the `{}` of `head`: the first is refused, the second taken.
fn refused_with_twin(head: &str, bad: &str, good_part: &str, status: Status) {
    let twin = head.replace("{}", good_part);
    let head = head.replace("{}", bad);
    assert!(one_byte_away(&head, &twin), "{head:?} {twin:?}");
    let limits = HeadLimits::default();
    assert_eq!(whole(head.as_bytes(), &limits).map(drop), Err(status), "{head:?}");
    assert_eq!(whole(twin.as_bytes(), &limits).map(drop), Ok(()), "the twin {twin:?}");
    // However the bytes arrive, nobody ever sees a request.
    for end in 0..head.len() {
        assert!(!matches!(parse(&head.as_bytes()[..end], &limits), Ok(Some(_))), "{head:?} {end}");
    }
    for end in 0..twin.len() {
        assert!(matches!(parse(&twin.as_bytes()[..end], &limits), Ok(None)), "{twin:?} {end}");
    }
}

#[test]
#[rustfmt::skip] // a table
fn heads_that_leave_the_end_of_the_body_in_doubt_are_refused() {
    let table = [
        ("{}ontent-Length: 5\r\nTransfer-Encoding: chunked", "C", "X"),
        ("Transfer-Encoding: chunked\r\nContent-Lengt{}: 0", "h", "s"),
        ("Content-Length: 5\r\nContent-Lengt{}: 6", "h", "s"),
        ("content-length: 5\r\nCONTENT-LENGT{}: 5", "H", "S"),
        ("Content-Length: 5{}5", ",", "5"),
        ("Content-Length: {}5", "+", "0"),
        ("Content-Length: {}1", "-", "0"),
        ("Content-Length: 5{}5", " ", "5"),
        ("Content-Length: {}", "x", "5"),
        ("Content-Length: {}", "", "5"),
        ("Content-Length: 1844674407370955161{}", "6", "5"),
        ("{}ransfer-Encoding: gzip, chunked", "T", "X"),
        ("Transfer-Encoding: {}chunked", "x", " "),
        ("Transfer-Encoding: chunked{}", ",", " "),
        ("Transfer-Encoding: chunked\r\n{}ransfer-Encoding: chunked", "T", "X"),
        ("{}ransfer-Encoding: identity", "T", "X"),
    ];
    for (headers, bad, good) in table {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n");
        refused_with_twin(&head, bad, good, Status::BAD_REQUEST);
    }
    let head = "POST / HTTP/1.{}\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused_with_twin(head, "0", "1", Status::BAD_REQUEST);
}

#[test]
#[rustfmt::skip] // a table
fn malformed_lines_are_refused() {
    let table = [
        // Two parsers may disagree about these.
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n{}c: d\r\n\r\n", " ", "x"),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n{}c: d\r\n\r\n", "\t", "x"),
        ("GET / HTTP/1.1\r\n{}Host: h\r\n\r\n", " ", ""),
        ("GET / HTTP/1.1\r\nHost{}: h\r\n\r\n", " ", ""),
        ("GET / HTTP/1.1\r\nHost: h\r\nA{}:b\r\n\r\n", "\t", "x"),
        ("GET / HTTP/1.1\r\nHost: h{}\nA: b\r\n\r\n", "", "\r"),
        ("GET / HTTP/1.1{}\nHost: h\r\n\r\n", "", "\r"),
        ("GET / HTTP/1.1\r\nHost: h\r\n{}\n", "", "\r"),
        ("{}\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "", "\r"),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b{}c\r\n\r\n", "\r", " "),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b{}c\r\n\r\n", "\0", "x"),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b{}c\r\n\r\n", "\x7f", "x"),
        ("GET / HTTP/1.1\r\nHost: h\r\nA{}b: c\r\n\r\n", "(", "!"),
        ("GET / HTTP/1.1\r\nHost: h\r\n{}: c\r\n\r\n", "", "A"),
        ("GET / HTTP/1.1\r\nHost: h\r\nA{}\r\n\r\n", "b", ":"),
        // Host
        ("GET / HTTP/1.1\r\nHos{}: h\r\n\r\n", "s", "t"),
        ("GET / HTTP/1.1\r\nHost: h\r\nHos{}: h\r\n\r\n", "t", "s"),
        ("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "", "h"),
        ("GET / HTTP/1.1\r\nHost: a{}b\r\n\r\n", "@", "."),
        ("GET / HTTP/1.1\r\nHost: a{}b\r\n\r\n", "/", "."),
        ("GET / HTTP/1.1\r\nHost: a{}b\r\n\r\n", " ", "."),
        ("GET / HTTP/1.1\r\nHost: a:6553{}\r\n\r\n", "6", "5"),
        ("GET / HTTP/1.1\r\nHost: [::{}]\r\n\r\n", "x", "1"),
        ("GET http://a/ HTTP/1.1\r\nHos{}: h\r\n\r\n", "s", "t"),
        ("GET / HTTP/1.0\r\nHost: h\r\nHos{}: h\r\n\r\n", "t", "s"),
        // The request line
        ("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", "a", "/"),
        ("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", "*", "/"),
        ("GET /a{}b HTTP/1.1\r\nHost: h\r\n\r\n", "#", "_"),
        ("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "\x7f", "_"),
        ("GET {}/ HTTP/1.1\r\nHost: h\r\n\r\n", " ", "/"),
        ("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", " ", "x"),
        ("GET {}ttp://a/ HTTP/1.1\r\nHost: h\r\n\r\n", "x", "h"),
        ("G{}T / HTTP/1.1\r\nHost: h\r\n\r\n", "(", "E"),
        ("GET / HTTP/1.1{}\r\nHost: h\r\n\r\n", " ", ""),
        ("GET / {}TTP/1.1\r\nHost: h\r\n\r\n", "h", "H"),
        ("GET http://{}a/ HTTP/1.1\r\nHost: h\r\n\r\n", "@", "b"),
    ];
    for (head, bad, good) in table {
        refused_with_twin(head, bad, good, Status::BAD_REQUEST);
    }
}

#[test]
fn non_ascii_bytes_are_refused_where_they_could_mislead() {
    let head = |target: &[u8], host: &[u8], other: &[u8]| {
        let parts = [b"GET ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\nA: ", other, b"\r\n\r\n"];
        whole(&parts.concat(), &HeadLimits::default()).map(drop)
    };
    assert_eq!(head(b"/", b"h", b"caf\xc3\xa9 \xff"), Ok(()), "a value may have them");
    assert_eq!(head("/é".as_bytes(), b"h", b""), Err(Status::BAD_REQUEST));
    assert_eq!(head(b"/\xff", b"h", b""), Err(Status::BAD_REQUEST));
    assert_eq!(head(b"/", "hé".as_bytes(), b""), Err(Status::BAD_REQUEST));
}

#[test]
fn other_versions_get_505_and_nonsense_400() {
    let table = [("HTTP/2.0", 505), ("HTTP/1.2", 505), ("HTTP/0.9", 505), ("HTTP/11", 400)];
    for (version, code) in table {
        let head = format!("GET / {version}\r\nHost: h\r\n\r\n");
        let refused = whole(head.as_bytes(), &HeadLimits::default()).map(drop).unwrap_err();
        assert_eq!(refused.code(), code, "{version}");
    }
    refused_with_twin("GET / HTTP/{}.1\r\nHost: h\r\n\r\n", "3", "1", Status::VERSION_NOT_SUPPORTED);
    // A TLS client on a plain port is told early, not after a timeout.
    assert!(parse(b"\x16\x03\x01\x02\x00\x01", &HeadLimits::default()).is_err());
}

#[test]
fn each_limit_is_exact_and_its_refusal_comes_before_the_head_is_whole() {
    let limits = HeadLimits { head_bytes_max: 200, headers_max: 3, target_bytes_max: 20 };
    let refused = |head: &str| whole(head.as_bytes(), &limits).map(drop);
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "t".repeat(len - 1));
    assert_eq!(refused(&target(20)), Ok(()));
    assert_eq!(refused(&target(21)), Err(Status::URI_TOO_LONG));
    let headers = |n: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    assert_eq!(refused(&headers(3)), Ok(()));
    assert_eq!(refused(&headers(4)), Err(Status::HEAD_TOO_LARGE));
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "a".repeat(len - 32));
    assert_eq!((head(200).len(), head(201).len()), (200, 201));
    assert_eq!(refused(&head(200)), Ok(()));
    assert_eq!(refused(&head(201)), Err(Status::HEAD_TOO_LARGE));

    let status = |bytes: &str| parse(bytes.as_bytes(), &limits).unwrap_err().status;
    assert!(matches!(parse(&target(21).as_bytes()[..24], &limits), Ok(None)));
    assert_eq!(status(&target(21)[..25]), Status::URI_TOO_LONG);
    assert!(matches!(parse(&head(201).as_bytes()[..199], &limits), Ok(None)));
    assert_eq!(status(&head(201)[..200]), Status::HEAD_TOO_LARGE);
    assert_eq!(status(&"G".repeat(200)), Status::HEAD_TOO_LARGE);
    assert_eq!(status(&"\r\n".repeat(100)), Status::HEAD_TOO_LARGE);
}

#[test]
fn more_headers_than_the_table_holds_are_refused_whatever_the_limit_says() {
    let limits = HeadLimits { headers_max: 1000, ..HeadLimits::default() };
    let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    assert!(whole(head(wire::limits::HEADERS_MAX).as_bytes(), &limits).is_ok());
    let over = head(wire::limits::HEADERS_MAX + 1);
    assert_eq!(whole(over.as_bytes(), &limits).map(drop), Err(Status::HEAD_TOO_LARGE));
}

#[test]
fn pipelined_requests_are_read_one_after_another() {
    let bytes = b"\r\nGET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /3 HT";
    let limits = HeadLimits::default();
    let (first, first_len) = parse(bytes, &limits).unwrap().unwrap();
    assert_eq!(first.path(), "/1");
    let rest = &bytes[first_len..];
    let (second, second_len) = parse(rest, &limits).unwrap().unwrap();
    assert_eq!(second.path(), "/2");
    assert!(parse(&rest[second_len..], &limits).unwrap().is_none());
}

#[test]
fn connection_is_kept_exactly_when_version_and_header_say_so() {
    let table = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Upgrade, CLOSE\r\n", false),
        ("1.1", "Connection: upgrade\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: upgrade\r\n", false),
    ];
    for (version, header, kept) in table {
        let head = format!("GET / HTTP/{version}\r\nHost: h\r\n{header}\r\n");
        assert_eq!(good(head.as_bytes()).keep_alive(), kept, "{head:?}");
    }
}

#[test]
fn http_1_0_needs_no_host_and_an_absolute_target_overrides_it() {
    assert_eq!(good(b"GET / HTTP/1.0\r\n\r\n").host(), None);
    assert_eq!(good(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n").host(), Some("h"));
    let request = good(b"GET http://real:1/p?q HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(request.host(), Some("real:1"));
    assert_eq!((request.path(), request.query()), ("/p", Some("q")));
    assert_eq!(request.target(), "http://real:1/p?q");
    assert_eq!(good(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").path(), "*");
}

#[test]
fn bodies_are_announced_by_length_or_chunks() {
    let body = |headers: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        good(head.as_bytes()).body()
    };
    assert_eq!(body(""), BodyKind::None);
    assert_eq!(body("Content-Length: 0\r\n"), BodyKind::Length(0));
    assert_eq!(body("Content-Length: 00042\r\n"), BodyKind::Length(42));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), BodyKind::Chunked);
}

#[test]
fn continue_is_expected_only_of_http_1_1() {
    let expects = |version: &str, value: &str| {
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\nExpect: {value}\r\n\r\n");
        good(head.as_bytes()).expects_continue()
    };
    assert!(expects("1.1", "100-Continue"));
    assert!(!expects("1.0", "100-continue"));
    assert!(!expects("1.1", "200-ok"));
}

#[test]
fn headers_that_decide_about_access_must_come_once_and_in_ascii() {
    let only = |headers: &[u8]| {
        let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", headers, b"\r\n"].concat();
        let origin = good(&head).only("Origin").map(|value| value.map(str::to_owned));
        origin.map_err(|refusal: Refusal| refusal.to_string())
    };
    assert_eq!(only(b""), Ok(None));
    assert_eq!(only(b"origin: https://a\r\n"), Ok(Some("https://a".to_owned())));
    let repeated = Err("400 Bad Request: Origin is repeated".to_owned());
    assert_eq!(only(b"Origin: https://a\r\nORIGIN: https://a\r\n"), repeated);
    assert_eq!(only(b"Origin: \xff\r\n"), Err("400 Bad Request: Origin is not ASCII".to_owned()));
}

#[test]
fn debug_output_has_no_header_values() {
    let request = good(b"GET /?token=secret HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n");
    assert!(!format!("{request:?}").contains("secret"));
}
