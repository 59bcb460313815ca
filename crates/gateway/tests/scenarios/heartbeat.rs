//! Pings and pongs of each protocol, and clients that are late with something.

use crate::support::client::{Format, frame};
use crate::support::{Client, Ended, Gateway, Seen, Setup, in_every_format, on_every_driver, on_simulator};
use conn::Side;
use gateway::stats::Number;
use serde_json::json;
use std::time::Duration;
use wire::ws::OpCode;

in_every_format! {
    a_client_that_answers_is_pinged_again_and_again: quick_pings(),
    a_client_that_does_not_answer_is_closed_with_3012: quick_pings(),
    a_native_pong_is_no_answer_to_a_message: quick_pings(),
    each_ping_admits_one_pong: quick_pings(),
}

on_every_driver! {
    native_pings_replace_the_messages_where_asked_for: quick_pings(),
    a_plain_client_is_pinged_in_both_ways: quick_pings(),
    a_plain_client_that_does_not_answer_is_told_why_it_goes: quick_pings(),
    an_echo_client_is_pinged_natively: quick_pings(),
    a_client_that_never_connects_is_stale: Setup::dev().with(|s| s.times.stale_close_delay = SHORT),
    a_client_that_does_not_answer_our_close_is_dropped: Setup::dev().with(|s| s.times.close_timeout = SHORT),
}

const INTERVAL: Duration = Duration::from_millis(600);
const SHORT: Duration = Duration::from_millis(300);

fn quick_pings() -> Setup {
    Setup::dev().with(|s| {
        s.times.ping_interval = INTERVAL;
        s.times.pong_timeout = SHORT;
    })
}

/// Notes when pings come, after answering each with `pong`.
fn times_of_pings(gateway: &Gateway, client: &mut Client, pings: &[Seen], pong: &[u8]) -> Vec<Duration> {
    let begun = gateway.now();
    let mut times = vec![begun];
    for _ in 0..3 {
        for ping in pings {
            assert_eq!(client.next(), *ping);
        }
        times.push(gateway.now());
        client.write(pong);
    }
    times.windows(2).map(|two| two[1] - two[0]).collect()
}

fn expect_cadence(between: &[Duration]) {
    // The network may have been quicker with a later ping than with an earlier one, but not by this much.
    let soonest = INTERVAL - Duration::from_millis(150);
    assert!(
        between[0] >= INTERVAL / 2 - Duration::from_millis(150),
        "the first comes after half an interval: {between:?}"
    );
    assert!(between[1..].iter().all(|gap| *gap >= soonest), "{between:?}");
    assert!(between.iter().all(|gap| *gap < INTERVAL * 10), "{between:?}");
}

fn message_ping() -> Seen {
    Seen::Text("{}".into())
}

/// The ping of a client that [`Gateway::centrifugo`] makes, and its pong.
fn ping_in(format: Format) -> Seen {
    match format {
        Format::Json => message_ping(),
        Format::Protobuf => Seen::Binary(vec![0]),
    }
}

fn pong_in(format: Format) -> Vec<u8> {
    match format {
        Format::Json => message_pong(),
        Format::Protobuf => frame(OpCode::Binary, true, &[0]),
    }
}

fn native_ping() -> Seen {
    Seen::Ping(Vec::new())
}

fn message_pong() -> Vec<u8> {
    frame(OpCode::Text, true, b"{}")
}

fn native_pong() -> Vec<u8> {
    frame(OpCode::Pong, true, b"")
}

fn a_client_that_answers_is_pinged_again_and_again(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    expect_cadence(&times_of_pings(gateway, &mut client, &[ping_in(gateway.format())], &pong_in(gateway.format())));
    client.expect_silence(2);
}

fn a_client_that_does_not_answer_is_closed_with_3012(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    assert_eq!(client.next(), ping_in(gateway.format()));
    let pinged = gateway.now();
    // Talking is not answering.
    client.expect_silence(2);
    assert_eq!(client.next(), Seen::Close(Some(3012), "no pong".into()));
    assert!(gateway.now() - pinged >= SHORT - Duration::from_millis(150), "not before its time");
}

fn native_pings_replace_the_messages_where_asked_for(gateway: &Gateway) {
    let native = "/connection/websocket?cf_ws_frame_ping_pong=true";
    let mut client = gateway.websocket(native);
    let reply = client.call(json!({"id": 1, "connect": {}}));
    let fields: Vec<&String> = reply["connect"].as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["client", "version"], "neither ping nor pong is announced");
    expect_cadence(&times_of_pings(gateway, &mut client, &[native_ping()], &native_pong()));
    // A message that would be a pong is none here, ping or not.
    assert_eq!(client.next(), native_ping());
    client.write(message_pong());
    client.expect_close(3501, "bad request");

    let mut silent = gateway.websocket(native);
    silent.call(json!({"id": 1, "connect": {}}));
    assert_eq!(silent.next(), native_ping());
    assert_eq!(silent.next(), Seen::Close(Some(3012), "no pong".into()));
    // Any other value means no.
    let mut twin = gateway.websocket("/connection/websocket?cf_ws_frame_ping_pong=false");
    assert_eq!(twin.call(json!({"id": 1, "connect": {}}))["connect"]["pong"], true);
}

fn a_native_pong_is_no_answer_to_a_message(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    assert_eq!(client.next(), ping_in(gateway.format()));
    client.write(native_pong());
    assert_eq!(client.next(), Seen::Close(Some(3012), "no pong".into()));
}

fn a_plain_client_is_pinged_in_both_ways(gateway: &Gateway) {
    let mut client = gateway.plain("channels=a");
    expect_cadence(&times_of_pings(gateway, &mut client, &[message_ping(), native_ping()], &native_pong()));
    gateway.publish("a", &json!(1)).expect("published");
    assert_eq!(client.json(), json!({"channel": "a", "pub": {"data": 1}}));
}

fn a_plain_client_that_does_not_answer_is_told_why_it_goes(gateway: &Gateway) {
    let mut client = gateway.plain("channels=");
    assert_eq!((client.next(), client.next()), (message_ping(), native_ping()));
    // What it says does not count: only the WebSocket's own pong does.
    client.write(message_pong());
    assert_eq!(client.json(), json!({"disconnect": {"code": 3012, "reason": "no pong"}}));
    client.expect_close(3012, "no pong");
}

fn an_echo_client_is_pinged_natively(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    expect_cadence(&times_of_pings(gateway, &mut client, &[native_ping()], &native_pong()));
    assert_eq!(client.next(), native_ping());
    assert_eq!(client.next(), Seen::Close(Some(3012), "no pong".into()));
}

fn each_ping_admits_one_pong(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    assert_eq!(client.next(), ping_in(gateway.format()));
    client.write([pong_in(gateway.format()), pong_in(gateway.format())].concat());
    client.expect_close(3501, "bad request");
}

fn a_client_that_never_connects_is_stale(gateway: &Gateway) {
    let begun = gateway.now();
    let mut silent = gateway.websocket("/connection/websocket");
    let mut busy = gateway.websocket("/connection/websocket");
    busy.write(frame(OpCode::Ping, true, b"still here"));
    assert_eq!(busy.next(), Seen::Pong(b"still here".to_vec()));
    let mut connected = gateway.centrifugo();
    silent.expect_close(3502, "stale");
    busy.expect_close(3502, "stale");
    assert!(gateway.now() - begun >= SHORT, "not before its time");

    let mut plain = gateway.websocket("/connection/uni_websocket");
    assert_eq!(plain.json(), json!({"disconnect": {"code": 3502, "reason": "stale"}}));
    plain.expect_close(3502, "stale");
    connected.expect_silence(2);
}

fn a_client_that_does_not_answer_our_close_is_dropped(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    client.send_text("bad");
    assert_eq!(client.next(), Seen::Close(Some(3501), "bad request".into()));
    let closed = gateway.now();
    assert_eq!(client.next(), Seen::End(Ended::Reset));
    assert!(gateway.now() - closed >= SHORT - Duration::from_millis(150), "not before its time");
    gateway.until("the close is counted", || gateway.closes(Side::Ours, 3501) == 1);
    // The twin answers and is let go at once.
    let mut twin = gateway.centrifugo();
    twin.send_text("bad");
    twin.expect_close(3501, "bad request");
}

/// More clients than a worker reads from in one tick.
const CROWD: usize = 400;

/// All have been pinged before the first one's pong is due.
fn pinged_together() -> Setup {
    Setup { connections_max: CROWD + 10, ..Setup::dev() }.with(|s| {
        s.times.ping_interval = Duration::from_secs(1);
        s.times.pong_timeout = Duration::from_millis(1_500);
    })
}

#[test]
fn pongs_that_wait_unread_count_after_a_stall_that_looks_like_work() {
    on_simulator(&pinged_together(), |gateway| pongs_wait_unread(gateway, Duration::from_millis(1_800)));
}

#[test]
fn pongs_that_wait_unread_count_after_a_stall_of_twenty_seconds() {
    on_simulator(&pinged_together(), |gateway| pongs_wait_unread(gateway, Duration::from_secs(20)));
}

/// The worker does nothing until every pong is overdue, though all but one are in its sockets.
fn pongs_wait_unread(gateway: &Gateway, stall: Duration) {
    let mut clients: Vec<Client> = (0..CROWD).map(|_| gateway.centrifugo()).collect();
    let mut silent = gateway.centrifugo();
    let mut talking = gateway.centrifugo();
    for client in clients.iter_mut().chain([&mut silent, &mut talking]) {
        assert_eq!(client.next(), message_ping());
    }
    gateway.freeze(0, true);
    // The other way round than the deadlines are looked through, so that those come first that are read last.
    clients.iter().rev().for_each(|client| client.write(message_pong()));
    // Its look finds something, which is no pong.
    talking.write(frame(OpCode::Pong, true, b""));
    gateway.pass(stall);
    let resumed = gateway.now();
    gateway.freeze(0, false);
    silent.expect_close(3012, "no pong");
    talking.expect_close(3012, "no pong");
    assert!(gateway.now() - resumed <= stall + Duration::from_secs(3), "not much later than without the stall");
    assert_eq!(gateway.sum(Number::Sessions), CROWD as u64, "whoever has answered stays");
    for client in &mut clients {
        assert_eq!(client.next(), message_ping(), "and is pinged again");
    }
}
