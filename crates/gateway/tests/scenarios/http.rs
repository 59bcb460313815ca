//! HTTP on the public listener: answers, keep-alive and pipelining, and clients that are slow.

use crate::support::client::{Client, request, upgrade_request};
use crate::support::{Ended, Gateway, Setup, on_every_driver, on_the_simulator, over_tls_on_real_sockets};
use conn::settings::StaticPage;
use gateway::letter::Order;
use gateway::stats::Number;
use std::time::Duration;

on_the_simulator! {
    who_reads_an_answer_slowly_may_ask_again: in_a_hurry_with_a_huge_page(),
}

on_every_driver! {
    health_is_an_empty_object: Setup::dev(),
    readiness_follows_the_order: Setup::dev(),
    an_unknown_path_is_404_and_the_connection_stays: Setup::dev(),
    a_wrong_method_is_405_and_told_the_right_ones: Setup::dev(),
    a_plain_get_of_a_websocket_path_is_told_what_is_missing: Setup::dev(),
    an_endpoint_that_is_off_does_not_exist: Setup::dev().with(|s| s.endpoints.echo = false),
    pipelined_requests_are_answered_in_order: Setup::dev(),
    pipelined_requests_wait_for_a_slow_reader: with_a_large_page(),
    head_is_answered_without_the_body: Setup::dev(),
    http_1_0_is_closed_unless_kept_alive: Setup::dev(),
    http_1_0_cannot_upgrade: Setup::dev(),
    a_client_that_closes_its_half_still_gets_its_answer: Setup::dev(),
    a_body_is_never_read_as_the_next_request: Setup::dev(),
    frames_behind_the_handshake_in_one_packet_are_read: Setup::dev(),
    a_slow_head_is_408: Setup::dev().with(|s| s.times.head_timeout = SHORT),
    dripping_bytes_do_not_prolong_a_head: Setup::dev().with(|s| s.times.head_timeout = SHORT),
    a_connection_that_says_nothing_is_closed_without_a_word: Setup::dev().with(|s| s.times.head_timeout = SHORT),
    an_idle_kept_alive_connection_is_closed_without_a_word: Setup::dev().with(|s| s.times.keep_alive_timeout = SHORT),
}

over_tls_on_real_sockets! {
    pipelined_requests_wait_for_a_slow_reader: with_a_large_page(),
    a_client_that_closes_its_half_still_gets_its_answer: Setup::dev(),
    frames_behind_the_handshake_in_one_packet_are_read: Setup::dev(),
}

const SHORT: Duration = Duration::from_millis(300);

fn get(client: &mut Client, target: &str) -> crate::support::Response {
    client.write(request("GET", target));
    client.response()
}

fn health_is_an_empty_object(gateway: &Gateway) {
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = get(&mut client, "/health");
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert_eq!(answer.header("Connection"), Some("keep-alive"));
    }
}

fn readiness_follows_the_order(gateway: &Gateway) {
    let mut client = gateway.client();
    for ready in [true, false, true] {
        gateway.order(|| Order::Ready(!ready));
        let answer = get(&mut client, "/readyz");
        assert_eq!(
            (answer.status, answer.header("Retry-After").is_some()),
            if ready { (503, true) } else { (200, false) }
        );
    }
}

fn an_unknown_path_is_404_and_the_connection_stays(gateway: &Gateway) {
    let mut client = gateway.client();
    for target in ["/healthy", "/Health", "/health/", "//health", "/connection/websocket/", "/api/publish"] {
        assert_eq!(get(&mut client, target).status, 404, "{target}");
    }
    assert_eq!(get(&mut client, "/health?any=query").status, 200);
}

fn a_wrong_method_is_405_and_told_the_right_ones(gateway: &Gateway) {
    let mut client = gateway.client();
    for (target, allow) in
        [("/health", "GET, HEAD"), ("/readyz", "GET, HEAD"), ("/connection/websocket", "GET"), ("/echo", "GET")]
    {
        for method in ["POST", "DELETE", "OPTIONS", "get"] {
            client.write(request(method, target));
            let answer = client.response();
            assert_eq!((answer.status, answer.header("Allow")), (405, Some(allow)), "{method} {target}");
        }
    }
    assert_eq!(get(&mut client, "/health").status, 200);
}

fn a_plain_get_of_a_websocket_path_is_told_what_is_missing(gateway: &Gateway) {
    let mut client = gateway.client();
    for target in ["/connection/websocket", "/connection/uni_websocket", "/echo"] {
        let answer = get(&mut client, target);
        assert_eq!(answer.status, 426);
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(answer.header("Connection"), Some("keep-alive, Upgrade"));
        for line in
            ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key", "proxy"]
        {
            assert!(answer.body.contains(line), "the body should name {line}:\n{}", answer.body);
        }
    }
    // The connection was kept: what was missing can be sent now.
    client.upgrade("/echo", None);
    client.send_text("works");
    assert_eq!(client.text(), "works");
}

fn an_endpoint_that_is_off_does_not_exist(gateway: &Gateway) {
    let mut client = gateway.client();
    client.write(upgrade_request("/echo", None, &[]));
    assert_eq!(client.response().status, 404);
    client.upgrade("/connection/uni_websocket", None);
}

fn pipelined_requests_are_answered_in_order(gateway: &Gateway) {
    let mut client = gateway.client();
    let last = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let requests =
        [request("GET", "/health"), request("HEAD", "/health"), request("POST", "/health"), request("GET", "/nothing")];
    client.write(requests.concat() + last + &request("GET", "/health"));
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response_to_head().status, 200);
    assert_eq!(client.response().status, 405);
    assert_eq!(client.response().status, 404);
    let answer = client.response();
    assert_eq!((answer.status, answer.header("Connection")), (503, Some("close")));
    // Behind `Connection: close` nothing is answered.
    assert_eq!(client.end(), Ended::Fin);
}

/// More than all kernel buffers of a connection hold, when it is asked for some hundred times.
static PAGE: [u8; 32 * 1024] = [b'.'; 32 * 1024];

fn with_a_large_page() -> Setup {
    Setup::dev().with(|s| s.pages = vec![StaticPage { path: "/page", content_type: "text/plain", body: &PAGE }])
}

fn pipelined_requests_wait_for_a_slow_reader(gateway: &Gateway) {
    const REQUESTS: u64 = 400;
    let mut client = gateway.client();
    client.set_reading(false);
    for i in 0..REQUESTS {
        client.write(request("GET", if i % 2 == 0 { "/page" } else { "/health" }));
    }
    client.shutdown_write();
    gateway.until("the socket is full", || gateway.count(|c| &c.short_sends) > 0);
    assert!(gateway.sum(Number::HttpRequests) < REQUESTS, "answers must not pile up for a client that takes none");
    // Another client does not notice.
    assert_eq!(get(&mut gateway.client(), "/health").status, 200);

    client.set_reading(true);
    for i in 0..REQUESTS {
        let answer = client.response();
        assert_eq!((answer.status, answer.body.len()), (200, if i % 2 == 0 { PAGE.len() } else { 2 }), "answer {i}");
    }
    assert_eq!(client.end(), Ended::Fin);
}

static HUGE: [u8; 1 << 20] = [b'.'; 1 << 20];

/// A page that is over high water by itself, and little time between requests.
fn in_a_hurry_with_a_huge_page() -> Setup {
    Setup::dev().with(|s| {
        s.pages = vec![StaticPage { path: "/page", content_type: "text/plain", body: &HUGE }];
        s.times.keep_alive_timeout = SHORT;
    })
}

fn who_reads_an_answer_slowly_may_ask_again(gateway: &Gateway) {
    let mut client = gateway.client();
    client.set_reading(false);
    client.write(request("GET", "/page"));
    gateway.until("the answer is under way", || gateway.count(|c| &c.short_sends) > 0);
    gateway.pass(SHORT * 4);
    client.set_reading(true);
    assert_eq!(client.response().body.len(), HUGE.len());
    assert_eq!(get(&mut client, "/health").status, 200);
    assert_eq!(client.end(), Ended::Fin);
}

fn head_is_answered_without_the_body(gateway: &Gateway) {
    let mut client = gateway.client();
    for (target, status) in [("/health", 200), ("/", 200), ("/nothing", 404), ("/readyz", 503)] {
        let with_body = get(&mut client, target);
        client.write(request("HEAD", target));
        let head = client.response_to_head();
        assert_eq!(head.status, status, "{target}");
        assert_eq!(head.header("Content-Length"), with_body.header("Content-Length"), "{target}");
        assert_ne!(with_body.body, "", "{target}");
    }
    // Had a body come, this answer would not begin where it must.
    assert_eq!(get(&mut client, "/health").status, 200);
}

fn http_1_0_is_closed_unless_kept_alive(gateway: &Gateway) {
    let mut client = gateway.client();
    client.write("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("keep-alive")));
    client.write("GET /health HTTP/1.0\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    assert_eq!(client.end(), Ended::Fin);
}

fn http_1_0_cannot_upgrade(gateway: &Gateway) {
    let as_1_1 = String::from_utf8(upgrade_request("/echo", None, &[])).expect("ASCII");
    let mut client = gateway.client();
    client.write(as_1_1.replacen("HTTP/1.1", "HTTP/1.0", 1));
    let answer = client.response();
    assert_eq!(answer.status, 426);
    assert!(answer.body.contains("HTTP/1.1 in the request line"), "{}", answer.body);

    let mut twin = gateway.client();
    twin.write(as_1_1);
    twin.await_upgrade(None);
}

fn a_client_that_closes_its_half_still_gets_its_answer(gateway: &Gateway) {
    for requests in [1, 3] {
        let mut client = gateway.client();
        client.write(request("GET", "/health").repeat(requests));
        client.shutdown_write();
        for _ in 0..requests {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(client.end(), Ended::Fin);
    }
}

fn a_body_is_never_read_as_the_next_request(gateway: &Gateway) {
    let smuggled = request("GET", "/smuggled");
    let bodies = [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
    ];
    for body in bodies {
        let mut client = gateway.client();
        client.write(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{body}"));
        let answer = client.response();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
        assert_eq!(client.end(), Ended::Fin);
    }
    // Without a length it is no body.
    let mut twin = gateway.client();
    twin.write(request("GET", "/health") + &smuggled);
    assert_eq!((twin.response().status, twin.response().status), (200, 404));
}

fn frames_behind_the_handshake_in_one_packet_are_read(gateway: &Gateway) {
    let mut client = gateway.client();
    let mut bytes = request("GET", "/health").into_bytes();
    bytes.extend(upgrade_request("/echo", None, &[]));
    for i in 0..3 {
        bytes.extend(crate::support::client::text_frame(&format!("early {i}")));
    }
    client.write(bytes);
    assert_eq!(client.response().status, 200);
    client.await_upgrade(None);
    for i in 0..3 {
        assert_eq!(client.text(), format!("early {i}"));
    }
}

fn a_slow_head_is_408(gateway: &Gateway) {
    let (start, rest) = ("GET /health HTTP/1.1\r\nHost: loc", "alhost\r\n\r\n");
    let mut twin = gateway.client();
    twin.write(start);
    gateway.pass(SHORT / 4);
    twin.write(rest);
    assert_eq!(twin.response().status, 200);

    let mut client = gateway.client();
    let begun = gateway.now();
    client.write(start);
    let answer = client.response();
    assert_eq!((answer.status, answer.header("Connection")), (408, Some("close")));
    assert!(gateway.now() - begun >= SHORT, "not before its time");
    assert_eq!(client.end(), Ended::Fin);
}

fn dripping_bytes_do_not_prolong_a_head(gateway: &Gateway) {
    let mut client = gateway.client();
    let begun = gateway.now();
    client.write("GET /health HTTP/1.1\r\nHost: localhost\r\nX: ");
    // A byte now and then, each well within the time for a head, for four times as long.
    while gateway.now() - begun < SHORT * 4 {
        client.write("x");
        gateway.pass(SHORT / 6);
    }
    assert_eq!(client.response().status, 408);
    assert!(
        gateway.now() - begun < SHORT * 14 / 3,
        "the answer was there before the last bytes: {:?}",
        gateway.now() - begun
    );
    client.end();
}

fn a_connection_that_says_nothing_is_closed_without_a_word(gateway: &Gateway) {
    let mut client = gateway.client();
    let begun = gateway.now();
    assert_eq!(client.end(), Ended::Fin);
    assert!(gateway.now() - begun >= SHORT, "not before its time");
}

fn an_idle_kept_alive_connection_is_closed_without_a_word(gateway: &Gateway) {
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "/health").status, 200);
    let answered = gateway.now();
    gateway.pass(SHORT / 4);
    assert_eq!(get(&mut client, "/health").status, 200, "its time has not come yet");
    assert_eq!(client.end(), Ended::Fin);
    assert!(gateway.now() - answered >= SHORT, "not before its time");
}

/// The answer of a full worker is the kernel loop's own, so this is about the text that the gateway gives it.
#[test]
fn a_full_worker_answers_503_on_epoll() {
    crate::support::on_epoll(&Setup { connections_max: 1, ..Setup::dev() }, |gateway| {
        let mut first = gateway.client();
        assert_eq!(get(&mut first, "/health").status, 200);
        let mut second = gateway.client();
        let answer = second.response();
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
        assert!(answer.body.ends_with("\n"), "{:?}", answer.body);
        assert_eq!(second.end(), Ended::Fin);
    });
}
