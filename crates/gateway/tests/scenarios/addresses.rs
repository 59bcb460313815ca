//! Who a client is by its address: what proxies say, and whom they have to be for it to count.

use crate::support::client::{request, upgrade_request};
use crate::support::{Client, Ended, Gateway, Setup, on_every_driver, on_every_driver_in_the_clear, on_the_simulator};
use conn::Settings;
use conn::address::Trusted;
use conn::settings::{Listener, ProxyProtocol};
use conn::webhook::Event;
use gateway::stats::Number;
use serde_json::json;
use std::time::Duration;

const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

on_every_driver_in_the_clear! {
    clients_are_who_their_proxy_says: behind(ProxyProtocol::Required),
    bad_headers_are_refused: behind(ProxyProtocol::Required),
    a_header_that_may_come_is_believed: behind(ProxyProtocol::Optional),
    a_stranger_is_not_taken_where_proxies_are_due: before(ProxyProtocol::Required),
    a_stranger_is_not_believed_where_proxies_may_come: before(ProxyProtocol::Optional),
    a_header_means_nothing_where_none_may_come: before(ProxyProtocol::Off),
}

on_every_driver! {
    a_header_comes_before_everything_else: behind(ProxyProtocol::Required).introduced(LINE),
    a_list_of_proxies_leads_to_the_client: behind(ProxyProtocol::Off),
    a_list_of_a_stranger_leads_nowhere: before(ProxyProtocol::Off),
    a_proxy_that_was_introduced_may_have_a_list: behind(ProxyProtocol::Required)
        .introduced("PROXY TCP4 198.18.255.7 198.51.100.1 56324 443\r\n"),
}

on_the_simulator! {
    a_header_has_as_long_as_a_request: behind(ProxyProtocol::Required),
}

/// A gateway that tells its backend the addresses of clients.
fn setup(proxy_protocol: ProxyProtocol, trusted: &[&str]) -> Setup {
    Setup::with_webhooks().with(|settings| {
        let headers = ["forwarded", "x-real-ip", "x-forwarded-for"].map(str::to_owned).to_vec();
        settings.webhooks = settings.webhooks.clone().passing_on(headers, Vec::new());
        settings.listeners = vec![Listener { proxy_protocol, ..Listener::default() }];
        trust(settings, trusted);
    })
}

fn trust(settings: &mut Settings, trusted: &[&str]) {
    settings.trusted_proxies = Trusted::new(trusted.iter().map(|text| text.parse().expect(text)).collect());
}

/// One that trusts the clients of all drivers.
fn behind(proxy_protocol: ProxyProtocol) -> Setup {
    setup(proxy_protocol, &["127.0.0.0/8", "198.18.0.0/15"])
}

/// One that trusts somebody else.
fn before(proxy_protocol: ProxyProtocol) -> Setup {
    setup(proxy_protocol, &["10.0.0.0/8"])
}

/// A binary header with these bytes behind its length.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &len, rest].concat()
}

/// What the backend is told of a client that has sent its handshake.
fn told(gateway: &Gateway, mut client: Client) -> String {
    client.await_upgrade(None);
    client.send(&json!({"id": 1, "connect": {}}));
    let (asked, _) = gateway.asked(Event::Connect);
    let header = |name: &str| {
        let headers = asked.ask.question.headers.as_deref().expect("headers are wanted");
        headers.iter().find(|(known, _)| **known == *name).expect("an address").1.to_string()
    };
    gateway.backend_says(&asked, &json!({"result": {"user": "42"}}));
    client.json();
    let ip = header("x-forwarded-for");
    assert_eq!(header("x-real-ip"), ip);
    let in_brackets = format!("for=\"[{ip}]\"");
    assert_eq!(header("forwarded"), if ip.contains(':') { in_brackets } else { format!("for={ip}") });
    ip
}

/// The same of one that begins with `first`, then says that it was forwarded for that.
fn told_after(gateway: &Gateway, first: &[u8], forwarded: &[&str]) -> String {
    let client = gateway.client();
    client.write(first);
    let lines: Vec<_> = forwarded.iter().map(|value| ("X-Forwarded-For", *value)).collect();
    client.write(upgrade_request("/connection/websocket", None, &lines));
    told(gateway, client)
}

/// Where clients come from, of all drivers.
fn is_own(address: &str) -> bool {
    address == "127.0.0.1" || address.starts_with("198.18.0.")
}

fn clients_are_who_their_proxy_says(gateway: &Gateway) {
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
    let named = [four.as_slice(), &[2, 0, 4, b'n', b'a', b'm', b'e']].concat();
    let six = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]; 2].concat();
    let table: [(Vec<u8>, &str); 6] = [
        (LINE.into(), "192.0.2.7"),
        ("PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".into(), "2001:db8::7"),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n".into(), "192.0.2.7"),
        (binary(0x21, 0x11, &four), "192.0.2.7"),
        (binary(0x21, 0x11, &named), "192.0.2.7"),
        (binary(0x21, 0x21, &[six, vec![0; 4]].concat()), "2001:db8::7"),
    ];
    for (header, client) in &table {
        assert_eq!(told_after(gateway, header, &[]), *client, "{}", String::from_utf8_lossy(header));
        // Not even a client whose proxy is trusted may say so: it is not the proxy.
        assert_eq!(told_after(gateway, header, &["203.0.113.9"]), *client);
    }
    for own in [b"PROXY UNKNOWN\r\n".to_vec(), binary(0x20, 0x11, &four), binary(0x21, 0, &[])] {
        assert!(is_own(&told_after(gateway, &own, &[])));
    }
    assert_eq!(gateway.sum(Number::ProxyHeadersRefused), 0);
    gateway.until("they are counted", || gateway.sum(Number::ProxyHeaders) == 15);
}

fn bad_headers_are_refused(gateway: &Gateway) {
    let bad: [Vec<u8>; 6] = [
        LINE.replace("TCP4", "TCP5").into(),
        LINE.replace('\r', "").into(),
        LINE.replace("192.0.2.7", "192.0.2.256").into(),
        binary(0x22, 0x11, &[0; 12]),
        binary(0x21, 0x11, &[0; 11]),
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf1".as_slice(), &[0; 64]].concat(),
    ];
    for header in &bad {
        let mut client = gateway.client();
        client.write(header);
        client.write(request("GET", "/health"));
        assert_eq!(client.end(), Ended::Fin, "{}", String::from_utf8_lossy(header));
    }
    let mut client = gateway.client();
    client.write(request("GET", "/health"));
    let answer = client.response();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("PROXY protocol"), "{}", answer.body);
    assert_eq!(client.end(), Ended::Fin);

    let mut client = gateway.client();
    client.write(LINE);
    client.write(request("GET", "/health"));
    assert_eq!(client.response().status, 200);
    // One for each connection: behind the first there are requests only.
    client.write(LINE);
    assert_eq!(client.response().status, 400);
    gateway.until("they are counted", || gateway.sum(Number::ProxyHeadersRefused) == 7);
    assert_eq!(gateway.sum(Number::ProxyHeaders), 1);
}

fn a_header_that_may_come_is_believed(gateway: &Gateway) {
    assert_eq!(told_after(gateway, LINE.as_bytes(), &[]), "192.0.2.7");
    assert!(is_own(&told_after(gateway, b"", &[])));
    assert_eq!(told_after(gateway, b"", &["192.0.2.9"]), "192.0.2.9");
    let mut client = gateway.client();
    client.write(LINE.replace("TCP4", "TCP5"));
    assert_eq!(client.end(), Ended::Fin);
    gateway.until("one was good", || gateway.sum(Number::ProxyHeaders) == 1);
    gateway.until("one was not", || gateway.sum(Number::ProxyHeadersRefused) == 1);
}

fn a_stranger_is_not_taken_where_proxies_are_due(gateway: &Gateway) {
    let mut client = gateway.client();
    client.write(LINE);
    client.write(request("GET", "/health"));
    client.end_after_anything();
    gateway.until("it is counted", || gateway.sum(Number::ProxyHeadersRefused) == 1);
    gateway.reload(|settings| trust(settings, &["127.0.0.0/8", "198.18.0.0/15"]));
    assert_eq!(told_after(gateway, LINE.as_bytes(), &[]), "192.0.2.7");
}

fn a_stranger_is_not_believed_where_proxies_may_come(gateway: &Gateway) {
    for header in [LINE.as_bytes().to_vec(), binary(0x21, 0x11, &[192; 12])] {
        let mut client = gateway.client();
        client.write(header);
        assert_eq!(client.response().status, 400);
        client.end();
    }
    assert!(is_own(&told_after(gateway, b"", &["192.0.2.7"])));
    assert_eq!(gateway.sum(Number::ProxyHeaders), 0);
}

fn a_header_means_nothing_where_none_may_come(gateway: &Gateway) {
    a_stranger_is_not_believed_where_proxies_may_come(gateway);
}

fn a_header_comes_before_everything_else(gateway: &Gateway) {
    assert_eq!(told_after(gateway, b"", &[]), "192.0.2.7");
    assert_eq!(told_after(gateway, b"", &["203.0.113.9"]), "192.0.2.7");
}

fn a_list_of_proxies_leads_to_the_client(gateway: &Gateway) {
    assert_eq!(told_after(gateway, b"", &["192.0.2.7"]), "192.0.2.7");
    assert_eq!(told_after(gateway, b"", &["203.0.113.9, 192.0.2.7", "198.18.0.9"]), "192.0.2.7");
    assert_eq!(told_after(gateway, b"", &["2001:db8::7"]), "2001:db8::7");
    assert!(is_own(&told_after(gateway, b"", &[])));
    assert!(is_own(&told_after(gateway, b"", &["192.0.2.7, unknown"])));
}

fn a_list_of_a_stranger_leads_nowhere(gateway: &Gateway) {
    assert!(is_own(&told_after(gateway, b"", &["192.0.2.7"])));
    gateway.reload(|settings| trust(settings, &["127.0.0.0/8", "198.18.0.0/15"]));
    assert_eq!(told_after(gateway, b"", &["192.0.2.7"]), "192.0.2.7");
}

fn a_proxy_that_was_introduced_may_have_a_list(gateway: &Gateway) {
    assert_eq!(told_after(gateway, b"", &["192.0.2.7"]), "192.0.2.7");
    assert_eq!(told_after(gateway, b"", &["203.0.113.9, 192.0.2.7"]), "192.0.2.7");
}

fn a_header_has_as_long_as_a_request(gateway: &Gateway) {
    let mut silent = gateway.client();
    let mut slow = gateway.client();
    slow.write(&LINE[..LINE.len() - 1]);
    let began = gateway.now();
    gateway.pass(Duration::from_secs(5));
    let mut good = gateway.client();
    gateway.pass(Duration::from_secs(4));
    good.write(LINE);
    assert_eq!(silent.end(), Ended::Fin);
    assert_eq!(slow.end(), Ended::Fin);
    let took = gateway.now() - began;
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(12), "{took:?}");
    gateway.pass(Duration::from_secs(5));
    // The header was in time, and the request has a time of its own.
    good.write(request("GET", "/health"));
    assert_eq!(good.response().status, 200);
}
