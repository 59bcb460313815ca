//! Limits by the address of clients: connections, and how fast handshakes may come.

use crate::support::client::{request, upgrade_request};
use crate::support::on_the_simulator;
use crate::support::{Client, Ended, Gateway, Response, Setup, on_every_driver, on_every_driver_in_the_clear};
use conn::address::Trusted;
use conn::settings::{Listener, ProxyProtocol, Rate};
use gateway::stats::Number;
use std::num::NonZeroU32;
use std::time::Duration;

on_every_driver_in_the_clear! {
    an_address_has_as_many_connections_as_it_may: introduced(2).workers(2),
    a_subnet_is_one_address: introduced(2).workers(2),
    who_is_turned_away_over_tls_gets_an_alert: introduced(1).raw_tls(),
    too_many_to_be_told_are_closed_without_a_word: introduced(1),
    a_reload_changes_the_limit_and_forgets_nobody: introduced(1),
}

on_every_driver! {
    behind_a_proxy_its_clients_are_counted_and_not_the_proxy: behind(2).workers(2),
    an_address_that_is_too_fast_waits_and_others_do_not: behind(0).with(|s| s.limits.handshakes_per_address = rate(1, 3)),
    all_together_have_a_rate: behind(0).with(|s| s.limits.handshakes_per_second = NonZeroU32::new(3)),
}

on_the_simulator! {
    a_client_without_a_proxy_is_counted_from_its_accept: direct(1),
    who_is_turned_away_and_says_nothing_is_told_soon: direct(1),
    who_waits_has_a_handshake_again: behind(0).with(|s| s.limits.handshakes_per_address = rate(1, 3)),
}

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
}

/// Nobody is trusted, so all clients of the simulator are strangers.
fn direct(max: u32) -> Setup {
    Setup::dev().with(|settings| settings.limits.connections_per_address_max = NonZeroU32::new(max))
}

/// All clients are proxies.
fn behind(max: u32) -> Setup {
    direct(max).with(|settings| {
        let trusted = ["127.0.0.0/8", "198.18.0.0/15"].map(|text| text.parse().expect(text));
        settings.trusted_proxies = Trusted::new(trusted.to_vec());
    })
}

/// Proxies that begin with a header.
fn introduced(max: u32) -> Setup {
    behind(max).with(|settings| {
        settings.listeners = vec![Listener { proxy_protocol: ProxyProtocol::Required, ..Listener::default() }];
    })
}

/// A connection of that worker behind which that client is.
fn of(gateway: &Gateway, worker: usize, client: &str) -> Client {
    let one = gateway.client_of(worker);
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let server = if client.contains(':') { "::1" } else { "10.0.0.1" };
    one.write(format!("PROXY {family} {client} {server} 56324 443\r\n"));
    one
}

fn handshake_of(gateway: &Gateway, worker: usize, client: &str) -> Client {
    let one = of(gateway, worker, client);
    one.write(upgrade_request("/echo", None, &[]));
    one
}

/// One that has to get in.
fn enter(gateway: &Gateway, worker: usize, client: &str) -> Client {
    let mut one = handshake_of(gateway, worker, client);
    one.await_upgrade(None);
    one
}

/// The answer to one that must not.
fn turned_away(gateway: &Gateway, worker: usize, client: &str) {
    let mut one = handshake_of(gateway, worker, client);
    expect_429(&one.response(), "close");
    assert_eq!(one.end(), Ended::Fin);
}

fn expect_429(answer: &Response, connection: &str) {
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert_eq!(answer.header("Retry-After"), Some("5"));
    assert_eq!(answer.header("Connection").unwrap_or("keep-alive"), connection, "{}", answer.head);
}

/// Waits until so many are counted.
fn until_counted(gateway: &Gateway, count: u64) {
    gateway.until("those who have gone are counted no more", || gateway.counted_by_address() == count);
}

fn an_address_has_as_many_connections_as_it_may(gateway: &Gateway) {
    let mut first = enter(gateway, 0, "192.0.2.7");
    let second = enter(gateway, 1, "192.0.2.7");
    turned_away(gateway, 0, "192.0.2.7");
    turned_away(gateway, 1, "192.0.2.7");
    let other = enter(gateway, 0, "192.0.2.8");
    assert_eq!(gateway.counted_by_address(), 3);
    first.send_text("still there");
    assert_eq!(first.text(), "still there");
    gateway.until("they are counted", || gateway.sum(Number::FullAddresses) == 2);

    // However it ends, a connection makes room for one, and for one only.
    second.reset();
    until_counted(gateway, 2);
    let third = enter(gateway, 0, "192.0.2.7");
    turned_away(gateway, 1, "192.0.2.7");
    drop((first, third, other));
    until_counted(gateway, 0);
    // A request that is none, a bad one, and half of one.
    for rest in ["", "GET", "GET / HTTP/9.9\r\n\r\n"] {
        let one = of(gateway, 0, "192.0.2.7");
        one.write(rest);
        until_counted(gateway, 1);
        drop(one);
        until_counted(gateway, 0);
    }
}

fn a_subnet_is_one_address(gateway: &Gateway) {
    let held = [enter(gateway, 0, "2001:db8::7"), enter(gateway, 1, "2001:db8::ffff:8")];
    turned_away(gateway, 0, "2001:db8:0:0:1::9");
    let next = enter(gateway, 0, "2001:db8:0:1::9");
    // IPv4 in the clothes of IPv6 is IPv4.
    let fourth = [enter(gateway, 0, "::ffff:192.0.2.7"), enter(gateway, 1, "192.0.2.7")];
    turned_away(gateway, 0, "::ffff:192.0.2.7");
    let other = enter(gateway, 0, "::ffff:192.0.2.8");
    assert_eq!(gateway.counted_by_address(), 6);
    drop((held, next, fourth, other));
}

fn who_is_turned_away_over_tls_gets_an_alert(gateway: &Gateway) {
    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01";
    let first = of(gateway, 0, "192.0.2.7");
    first.write(HELLO);
    until_counted(gateway, 1);
    let mut second = of(gateway, 0, "192.0.2.7");
    second.write(HELLO);
    assert_eq!(second.raw_until_end(), (b"\x15\x03\x03\x00\x02\x02\x31".to_vec(), Ended::Fin));
    let third = of(gateway, 0, "192.0.2.8");
    third.write(HELLO);
    until_counted(gateway, 2);
    assert_eq!(gateway.sum(Number::TlsFailed), 0);
}

fn too_many_to_be_told_are_closed_without_a_word(gateway: &Gateway) {
    let held = enter(gateway, 0, "192.0.2.7");
    let waiting: Vec<_> = (0..64).map(|_| of(gateway, 0, "192.0.2.7")).collect();
    gateway.until("they are there", || gateway.sum(Number::FullAddresses) == 64);
    let mut next = handshake_of(gateway, 0, "192.0.2.7");
    let (said, _) = next.raw_until_end();
    assert_eq!(said, b"", "no time for that");
    let other = enter(gateway, 0, "192.0.2.8");
    drop(waiting);
    gateway.until("they are gone", || gateway.sum(Number::Connections) == 2);
    turned_away(gateway, 0, "192.0.2.7");
    drop((held, other));
}

fn a_reload_changes_the_limit_and_forgets_nobody(gateway: &Gateway) {
    let first = enter(gateway, 0, "192.0.2.7");
    turned_away(gateway, 0, "192.0.2.7");
    gateway.reload(|settings| settings.limits.connections_per_address_max = NonZeroU32::new(2));
    let second = enter(gateway, 0, "192.0.2.7");
    turned_away(gateway, 0, "192.0.2.7");
    gateway.reload(|settings| settings.limits.connections_per_address_max = None);
    let third = enter(gateway, 0, "192.0.2.7");
    gateway.reload(|settings| settings.limits.connections_per_address_max = NonZeroU32::new(2));
    turned_away(gateway, 0, "192.0.2.7");
    drop(first);
    until_counted(gateway, 1);
    drop((second, third));
}

/// Sends a handshake that comes from there by the word of the proxy.
fn forwarded(one: &Client, client: &str) {
    one.write(upgrade_request("/echo", None, &[("X-Forwarded-For", client)]));
}

fn behind_a_proxy_its_clients_are_counted_and_not_the_proxy(gateway: &Gateway) {
    let mut clients: Vec<Client> = Vec::new();
    for (worker, client) in [(0, "192.0.2.7"), (1, "192.0.2.7"), (0, "192.0.2.8"), (1, "203.0.113.9, 192.0.2.8")] {
        let mut one = gateway.client_of(worker);
        forwarded(&one, client);
        one.await_upgrade(None);
        clients.push(one);
    }
    // The connection is the proxy's, which goes on to use it for others.
    let mut pooled = gateway.client_of(1);
    pooled.write(request("GET", "/health"));
    assert_eq!(pooled.response().status, 200);
    for _ in 0..3 {
        forwarded(&pooled, "192.0.2.7");
        expect_429(&pooled.response(), "keep-alive");
        forwarded(&pooled, "203.0.113.9, 192.0.2.8");
        expect_429(&pooled.response(), "keep-alive");
    }
    forwarded(&pooled, "192.0.2.9");
    pooled.await_upgrade(None);
    assert_eq!(gateway.counted_by_address(), 5);
    // The proxy itself, for as many as it likes.
    for worker in [0, 1, 0, 1, 0] {
        let mut one = gateway.client_of(worker);
        one.upgrade("/echo", None);
        clients.push(one);
    }
    assert_eq!(gateway.counted_by_address(), 5);
    drop(clients.swap_remove(0));
    until_counted(gateway, 4);
    let mut again = gateway.client_of(0);
    forwarded(&again, "192.0.2.7");
    again.await_upgrade(None);
}

/// Twenty handshakes of one client, one after the other: how many were answered with that status.
fn twenty(gateway: &Gateway, client: &str, status: u16) -> usize {
    let answers = (0..20).map(|_| {
        let mut one = gateway.client();
        forwarded(&one, client);
        one.response_to_head()
    });
    answers
        .filter(|answer| {
            assert!(answer.status == 101 || answer.status == status, "{}", answer.head);
            assert_eq!(answer.header("Retry-After"), (answer.status != 101).then_some("5"));
            answer.status == status
        })
        .count()
}

fn an_address_that_is_too_fast_waits_and_others_do_not(gateway: &Gateway) {
    // Of a burst of three, at one a second: for all to be in time this would have to take 17 s.
    let refused = twenty(gateway, "192.0.2.7", 429);
    assert!((1..=17).contains(&refused), "{refused}");
    let mut other = gateway.client();
    forwarded(&other, "192.0.2.8");
    other.await_upgrade(None);
    gateway.until("they are counted", || gateway.sum(Number::FastAddresses) == refused as u64);
    // The proxy itself.
    for _ in 0..20 {
        gateway.client().upgrade("/echo", None);
    }
}

fn all_together_have_a_rate(gateway: &Gateway) {
    let refused = (0..4).map(|last| twenty(gateway, &format!("192.0.2.{last}"), 503)).sum::<usize>();
    assert!((1..=77).contains(&refused), "{refused}");
    gateway.until("they are counted", || gateway.sum(Number::HandshakesRefused) == refused as u64);
    // What is no handshake is none.
    let mut one = gateway.client();
    for _ in 0..20 {
        one.write(request("GET", "/health"));
        assert_eq!(one.response().status, 200);
    }
}

fn a_client_without_a_proxy_is_counted_from_its_accept(gateway: &Gateway) {
    let first = gateway.client();
    until_counted(gateway, 1);
    let mut second = gateway.client();
    second.write(request("GET", "/health"));
    expect_429(&second.response(), "close");
    assert_eq!(second.end(), Ended::Fin);
    drop(first);
    until_counted(gateway, 0);
    let mut third = gateway.client();
    third.upgrade("/echo", None);
    // What it says of others is nothing to anybody.
    let mut fourth = gateway.client();
    forwarded(&fourth, "192.0.2.7");
    expect_429(&fourth.response(), "close");
}

fn who_is_turned_away_and_says_nothing_is_told_soon(gateway: &Gateway) {
    let _first = gateway.client();
    until_counted(gateway, 1);
    let mut second = gateway.client();
    let began = gateway.now();
    expect_429(&second.response(), "close");
    let took = gateway.now() - began;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(second.end(), Ended::Fin);
}

fn who_waits_has_a_handshake_again(gateway: &Gateway) {
    assert!(twenty(gateway, "192.0.2.7", 429) > 0);
    for _ in 0..3 {
        gateway.pass(Duration::from_secs(1));
        let mut one = gateway.client();
        forwarded(&one, "192.0.2.7");
        one.await_upgrade(None);
    }
}
