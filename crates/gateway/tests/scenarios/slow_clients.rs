//! Clients that do not take what they are sent: what becomes of them, and that nobody else notices.

use crate::support::client::{frame, request};
use crate::support::{
    Client, Ended, Gateway, Seen, Setup, on_every_driver, on_the_simulator, over_tls_on_real_sockets,
};
use conn::Side;
use gateway::stats::Number;
use serde_json::{Value, json};
use std::time::Duration;
use wire::ws::OpCode;

on_every_driver! {
    a_slow_subscriber_is_told_3008_and_others_miss_nothing: small_outboxes(),
    a_slow_subscriber_that_never_reads_is_reset: small_outboxes().with(|s| s.times.close_timeout = SHORT),
    input_rests_while_its_answers_wait_and_goes_on_afterwards: small_outboxes(),
    a_client_that_takes_nothing_in_time_is_reset: small_outboxes().with(|s| s.times.write_timeout = SHORT),
    a_client_whose_input_rests_is_not_asked_for_pongs: impatient(),
    requests_that_wait_for_a_slow_reader_are_not_late: small_outboxes().with(|s| {
        s.times.keep_alive_timeout = SHORT;
        s.times.head_timeout = SHORT;
    }),
    a_client_that_leaves_with_a_full_outbox_leaves_nothing: small_outboxes(),
}

over_tls_on_real_sockets! {
    a_slow_subscriber_is_told_3008_and_others_miss_nothing: small_outboxes(),
    a_slow_subscriber_that_never_reads_is_reset: small_outboxes().with(|s| s.times.close_timeout = SHORT),
    input_rests_while_its_answers_wait_and_goes_on_afterwards: small_outboxes(),
    a_client_that_takes_nothing_in_time_is_reset: small_outboxes().with(|s| s.times.write_timeout = SHORT),
    a_client_that_leaves_with_a_full_outbox_leaves_nothing: small_outboxes(),
}

on_the_simulator! {
    a_client_that_takes_a_little_now_and_then_stays: patient_with_a_large_outbox(),
}

const SHORT: Duration = Duration::from_millis(300);

const HIGH_WATER: usize = 64 * 1024;

fn small_outboxes() -> Setup {
    Setup::dev().with(|s| {
        s.limits.outbox_bytes_max = 256 * 1024;
        s.limits.outbox_high_water = HIGH_WATER;
        s.limits.outbox_low_water = HIGH_WATER / 4;
    })
}

fn impatient() -> Setup {
    small_outboxes().with(|s| {
        s.times.ping_interval = SHORT;
        s.times.pong_timeout = SHORT;
    })
}

/// It takes many small steps from the high-water mark to the low one.
fn patient_with_a_large_outbox() -> Setup {
    Setup::dev().with(|s| {
        s.limits.outbox_bytes_max = 4 << 20;
        s.limits.outbox_high_water = 2 << 20;
        s.limits.outbox_low_water = 16 * 1024;
        s.times.write_timeout = SHORT;
    })
}

/// Publishes until the gateway has given up the subscriber that does not read. The other one reads along.
fn publish_until_one_is_gone(gateway: &Gateway, healthy: &mut Client) -> u64 {
    let mut published = 0;
    // The kernel's buffers take some megabytes first.
    while gateway.sum(Number::Sessions) == 2 {
        assert!(published < 1000, "a client that does not read must be given up at some time");
        gateway.publish("c", &data(published)).expect("published");
        assert_eq!(healthy.json()["push"]["pub"]["data"], data(published));
        published += 1;
    }
    published
}

fn data(number: u64) -> Value {
    json!([number, "x".repeat(32 * 1024)])
}

fn a_slow_subscriber_is_told_3008_and_others_miss_nothing(gateway: &Gateway) {
    let mut slow = gateway.subscriber("c");
    let mut healthy = gateway.subscriber("c");
    slow.set_reading(false);
    let published = publish_until_one_is_gone(gateway, &mut healthy);
    slow.set_reading(true);
    // What it gets is whole and in order up to where it stops, and then it is told why.
    slow.is_told_too_slow(published);
    slow.write(crate::support::client::close_frame(Some(3008), ""));
    assert_eq!(slow.next(), Seen::End(Ended::Fin));
    gateway.publish("c", &json!("after")).expect("published");
    assert_eq!(healthy.json()["push"]["pub"]["data"], "after");
    assert!(gateway.sum(Number::OutboxDropped) > 0, "what it did not get is counted");
}

fn a_slow_subscriber_that_never_reads_is_reset(gateway: &Gateway) {
    let mut slow = gateway.subscriber("c");
    let mut healthy = gateway.subscriber("c");
    slow.set_reading(false);
    publish_until_one_is_gone(gateway, &mut healthy);
    gateway.until("the connection is given up", || gateway.sum(Number::Connections) == 1);
    gateway.until("the close is counted", || gateway.closes(Side::Ours, 3008) == 1);
    slow.set_reading(true);
    assert_eq!(slow.end_after_anything(), Ended::Reset);
    healthy.expect_silence(3);
}

/// Messages that fill every buffer on the way there and back.
const MESSAGES: usize = 500;

fn message(number: usize) -> Vec<u8> {
    let mut message = vec![b'm'; 20_000];
    message[..8].copy_from_slice(&(number as u64).to_be_bytes());
    message
}

fn stuff(client: &Client) {
    client.set_reading(false);
    for number in 0..MESSAGES {
        client.write(frame(OpCode::Binary, true, &message(number)));
    }
}

/// Waits until the gateway does not read a client any more.
fn until_input_rests(gateway: &Gateway) {
    let mut last = None;
    gateway.until("nothing is read any more", || {
        let read = gateway.count(|c| &c.read_bytes);
        let rests = last == Some(read) && gateway.count(|c| &c.short_sends) > 0;
        last = Some(read);
        // Long enough for a network that is merely slow.
        gateway.pass(Duration::from_millis(100));
        rests
    });
}

fn input_rests_while_its_answers_wait_and_goes_on_afterwards(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    let mut other = gateway.websocket("/echo");
    stuff(&client);
    until_input_rests(gateway);
    let (read, sent) = (gateway.count(|c| &c.read_bytes), gateway.count(|c| &c.sent_bytes));
    assert!(read < (MESSAGES * 20_000) as u64, "the gateway must not read on for a client that takes nothing");
    // Above high water by no more than one chunk of input and one message that it completed.
    let held = read as usize - sent as usize;
    assert!(held < HIGH_WATER + 64 * 1024 + 20_000 + 1000, "{held} bytes are held");
    for round in 0..20 {
        other.send_text(&format!("round {round}"));
        assert_eq!(other.text(), format!("round {round}"), "others do not wait");
    }
    client.set_reading(true);
    for number in 0..MESSAGES {
        assert!(client.next() == Seen::Binary(message(number)), "message {number} is not what was sent");
    }
}

fn a_client_that_takes_nothing_in_time_is_reset(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    let mut other = gateway.websocket("/echo");
    let begun = gateway.now();
    stuff(&client);
    gateway.until("it is given up", || gateway.closes(Side::Ours, 3009) == 1);
    assert!(gateway.now() - begun >= SHORT, "not before its time, but after {:?}", gateway.now() - begun);
    client.set_reading(true);
    assert_eq!(client.end_after_anything(), Ended::Reset);
    other.send_text("still here");
    assert_eq!(other.text(), "still here");
}

fn a_client_that_takes_a_little_now_and_then_stays(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    stuff(&client);
    gateway.pass(SHORT / 3);
    let read = gateway.count(|c| &c.read_bytes);
    let begun = gateway.now();
    let mut number = 0;
    // Only simulated kernels have buffers so small that each of these steps is one for the gateway.
    while gateway.now() - begun < SHORT * 4 {
        gateway.pass(SHORT / 3);
        client.set_reading(true);
        assert!(client.next() == Seen::Binary(message(number)), "message {number} is not what was sent");
        client.set_reading(false);
        number += 1;
    }
    assert_eq!(gateway.count(|c| &c.read_bytes), read, "all the time its input rested");
    client.set_reading(true);
    for number in number..MESSAGES {
        assert!(client.next() == Seen::Binary(message(number)), "message {number} is not what was sent");
    }
}

fn a_client_whose_input_rests_is_not_asked_for_pongs(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    stuff(&client);
    // Many pings' time. Its pongs would wait behind what is not read.
    gateway.pass(SHORT * 5);
    client.set_reading(true);
    let mut number = 0;
    while number < MESSAGES {
        match client.next() {
            Seen::Binary(bytes) => {
                assert!(bytes == message(number), "message {number} is not what was sent");
                number += 1;
            }
            Seen::Ping(_) => client.write(frame(OpCode::Pong, true, b"")),
            other => panic!("{other:?} after {number} messages"),
        }
    }
    // Afterwards it is asked again.
    assert_eq!(client.next(), Seen::Ping(Vec::new()));
}

/// So many that their answers fill every buffer on the way.
const REQUESTS: usize = 6_000;

fn requests_that_wait_for_a_slow_reader_are_not_late(gateway: &Gateway) {
    let mut client = gateway.client();
    client.set_reading(false);
    for _ in 0..REQUESTS {
        client.write(request("GET", "/health"));
    }
    until_input_rests(gateway);
    assert!(gateway.sum(Number::HttpRequests) < REQUESTS as u64, "some wait");
    gateway.pass(SHORT * 4);
    client.set_reading(true);
    for number in 0..REQUESTS {
        assert_eq!(client.response().status, 200, "request {number}");
    }
    // With nothing left to ask it is closed as any other.
    assert_eq!(client.end(), Ended::Fin);
}

fn a_client_that_leaves_with_a_full_outbox_leaves_nothing(gateway: &Gateway) {
    for leave in [Client::reset, |client: &Client| client.shutdown_write()] {
        let client = gateway.websocket("/echo");
        stuff(&client);
        gateway.until("the socket is full", || gateway.count(|c| &c.short_sends) > 0);
        leave(&client);
    }
}
