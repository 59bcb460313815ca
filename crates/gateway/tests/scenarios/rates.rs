//! Clients that send more than they may: they are read more slowly, lose nothing, and others do not notice.

use crate::support::client::{frame, text_frame};
use crate::support::{Client, Gateway, Seen, Setup, in_every_format, on_every_driver};
use conn::settings::Rate;
use gateway::stats::Number;
use serde_json::json;
use std::num::NonZeroU32;
use std::time::Duration;
use wire::ws::OpCode;

on_every_driver! {
    a_burst_of_messages_goes_through_and_one_more_waits: messages(2, 8),
    frames_of_every_kind_count: messages(2, 8),
    a_burst_of_bytes_goes_through_and_more_waits: bytes(40_000, 60_000),
    a_client_that_rests_has_time_for_its_pong: messages(1, 4).with(|s| {
        s.times.ping_interval = SECOND;
        s.times.pong_timeout = Duration::from_millis(300);
    }),
    who_leaves_in_the_middle_leaves_nothing: messages(1, 8),
    a_reload_lets_input_go_on_and_limits_who_is_there: messages(0, 1),
}

in_every_format! {
    commands_wait_in_their_order: messages(10, 8),
}

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
}

fn messages(per_second: u32, burst: u32) -> Setup {
    Setup::dev().with(|s| s.limits.messages = rate(per_second, burst))
}

fn bytes(per_second: u32, burst: u32) -> Setup {
    Setup::dev().with(|s| s.limits.bytes = rate(per_second, burst))
}

fn send(client: &Client, numbers: std::ops::Range<usize>) {
    client.write(numbers.flat_map(|number| text_frame(&number.to_string())).collect::<Vec<u8>>());
}

fn expect(client: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(client.text(), number.to_string());
    }
}

/// Shows that the worker is at work for others.
fn expect_no_wait(other: &mut Client) {
    other.send_text("other");
    assert_eq!(other.text(), "other");
}

fn a_burst_of_messages_goes_through_and_one_more_waits(gateway: &Gateway) {
    let (mut client, mut other) = (gateway.websocket("/echo"), gateway.websocket("/echo"));
    let began = gateway.now();
    send(&client, 0..8);
    expect(&mut client, 0..8);
    // Slow networks and machines give it some of its next ones meanwhile.
    if gateway.is_calm() && gateway.now() - began < SECOND / 4 {
        assert_eq!(gateway.sum(Number::RestsForMessages), 0);
    }
    send(&client, 8..11);
    expect_no_wait(&mut other);
    expect(&mut client, 8..11);
    let took = gateway.now() - began;
    assert!(took >= SECOND * 3 / 2, "three more at two a second came after {took:?}");
    gateway.until("the rests are counted", || gateway.sum(Number::RestsForMessages) > 0);
    // After a pause there is a burst again.
    gateway.pass(SECOND * 4);
    let rests = gateway.sum(Number::RestsForMessages);
    send(&client, 0..8);
    expect(&mut client, 0..8);
    assert_eq!(gateway.sum(Number::RestsForMessages), rests);
    assert_eq!(gateway.sum(Number::RestsForBytes), 0);
}

fn frames_of_every_kind_count(gateway: &Gateway) {
    let ping = || frame(OpCode::Ping, true, b"");
    let pong = || frame(OpCode::Pong, true, b"");
    // Seven frames each, one of them of a message; nothing comes back but what is named.
    let fragments = [vec![frame(OpCode::Text, false, b"")], vec![frame(OpCode::Continuation, false, b""); 6]].concat();
    let kinds: [(Vec<Vec<u8>>, usize); 3] = [(vec![ping(); 7], 7), (vec![pong(); 7], 0), (fragments, 0)];
    for (flood, answers) in kinds {
        let is_message = flood[0][0] == OpCode::Text as u8;
        let last = if is_message { frame(OpCode::Continuation, true, b"end") } else { text_frame("end") };
        let mut client = gateway.websocket("/echo");
        let began = gateway.now();
        client.write([flood.concat(), last].concat());
        for _ in 0..answers {
            assert_eq!(client.next(), Seen::Pong(Vec::new()));
        }
        // The eighth is in time; the ninth is not.
        assert_eq!(client.text(), "end");
        client.send_text("ninth");
        assert_eq!(client.text(), "ninth");
        let took = gateway.now() - began;
        assert!(took >= SECOND / 2, "the ninth came after {took:?}");
    }
}

fn a_burst_of_bytes_goes_through_and_more_waits(gateway: &Gateway) {
    let (mut client, mut other) = (gateway.websocket("/echo"), gateway.websocket("/echo"));
    let message = |number: usize| vec![number as u8; 9_992];
    let began = gateway.now();
    // With its head of eight bytes each is 10,000.
    (0..6).for_each(|number| client.write(frame(OpCode::Binary, true, &message(number))));
    (0..6).for_each(|number| assert!(client.next() == Seen::Binary(message(number))));
    assert_eq!(gateway.sum(Number::RestsForBytes), 0, "not a byte too much");
    (6..20).for_each(|number| client.write(frame(OpCode::Binary, true, &message(number))));
    expect_no_wait(&mut other);
    (6..20).for_each(|number| assert!(client.next() == Seen::Binary(message(number)), "{number}"));
    // 200,000 less the burst and what comes at a time, which is owed.
    let took = gateway.now() - began;
    assert!(took >= SECOND, "{took:?}");
    gateway.until("the rests are counted", || gateway.sum(Number::RestsForBytes) > 0);
    assert_eq!(gateway.sum(Number::RestsForMessages), 0);
}

fn a_client_that_rests_has_time_for_its_pong(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    let (mut got, mut pings) = (0, 0);
    // Its pong waits behind four of these, for longer than a pong may take twice.
    send(&client, 0..8);
    while got < 8 {
        match client.next() {
            Seen::Ping(_) => {
                pings += 1;
                client.write(frame(OpCode::Pong, true, b""));
            }
            Seen::Text(text) => {
                assert_eq!(text, got.to_string());
                got += 1;
            }
            other => panic!("{other:?} after {got}"),
        }
    }
    assert!(pings > 0, "nothing is shown without a ping");
}

fn who_leaves_in_the_middle_leaves_nothing(gateway: &Gateway) {
    for leave in [Client::reset, |client: &Client| client.shutdown_write()] {
        let mut client = gateway.websocket("/echo");
        send(&client, 0..12);
        expect(&mut client, 0..8);
        gateway.until("its input rests", || gateway.sum(Number::RestsForMessages) > 0);
        leave(&client);
    }
}

fn a_reload_lets_input_go_on_and_limits_who_is_there(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    send(&client, 0..50);
    expect(&mut client, 0..50);
    gateway.reload(|s| s.limits.messages = rate(1, 8));
    expect_no_wait(&mut gateway.websocket("/echo"));
    let began = gateway.now();
    send(&client, 50..60);
    expect(&mut client, 50..60);
    assert!(gateway.now() - began >= SECOND * 2, "{:?}", gateway.now() - began);
    // A minute's worth, which goes on at once when it may.
    let began = gateway.now();
    send(&client, 60..120);
    gateway.reload(|s| s.limits.messages = None);
    expect(&mut client, 60..120);
    assert!(gateway.now() - began < SECOND * 20, "{:?}", gateway.now() - began);
}

fn commands_wait_in_their_order(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let began = gateway.now();
    for id in 2..20 {
        client.send(&json!({"id": id, "unsubscribe": {"channel": "c"}}));
    }
    for id in 2..20 {
        assert_eq!(client.json(), json!({"id": id, "unsubscribe": {}}));
    }
    // With the connect 19 frames, of which 8 are a burst.
    assert!(gateway.now() - began >= SECOND * 8 / 10, "{:?}", gateway.now() - began);
}
