//! Connections that the gateway ends: all of them when it is drained, some of them when a backend asks.

use crate::support::client::{close_frame, frame, request};
use crate::support::{
    Client, Ended, Gateway, Seen, Setup, on_every_driver, on_the_simulator, over_tls_on_real_sockets,
};
use conn::{Disconnect, Side};
use gateway::letter::{Matching, Order};
use serde_json::json;
use std::time::Duration;
use wire::ws::OpCode;

on_every_driver! {
    each_protocol_is_told_in_its_own_words: Setup::dev(),
    closes_are_spread_over_the_time_given: Setup::dev(),
    whoever_has_just_come_is_let_in_before_it_has_to_go: Setup::dev(),
    what_waits_for_a_client_reaches_it_before_it_has_to_go: patient(),
    a_client_that_does_not_answer_does_not_hold_the_end: Setup::dev().with(|s| s.times.close_timeout = SHORT),
    nobody_gets_in_after_the_drain_has_begun: Setup::dev().workers(2),
    a_client_is_disconnected_by_its_id: Setup::dev().workers(2),
    a_client_is_disconnected_by_its_session: Setup::dev().workers(2),
    everybody_is_disconnected_but_those_listed: Setup::dev().workers(2),
}

over_tls_on_real_sockets! {
    each_protocol_is_told_in_its_own_words: Setup::dev(),
    closes_are_spread_over_the_time_given: Setup::dev(),
    a_client_that_does_not_answer_does_not_hold_the_end: Setup::dev().with(|s| s.times.close_timeout = SHORT),
}

/// Room for much that waits, and time to read it over a bad network.
fn patient() -> Setup {
    Setup::dev().with(|s| {
        s.limits.outbox_bytes_max = 64 << 20;
        s.times.close_timeout = Duration::from_secs(600);
    })
}

on_the_simulator! {
    whoever_subscribes_is_answered_before_it_has_to_go: Setup::dev().workers(2),
}

const SHORT: Duration = Duration::from_millis(300);

fn drain(gateway: &Gateway, over: Duration) {
    gateway.order(|| Order::Drain { over });
}

fn each_protocol_is_told_in_its_own_words(gateway: &Gateway) {
    let mut centrifugo = gateway.subscriber("a");
    let mut unconnected = gateway.websocket("/connection/websocket");
    let mut plain = gateway.plain("channels=a");
    let mut echo = gateway.websocket("/echo");
    let mut idle = gateway.client();
    idle.write(request("GET", "/health"));
    assert_eq!(idle.response().status, 200);
    drain(gateway, Duration::ZERO);
    centrifugo.expect_close(3001, "shutdown");
    unconnected.expect_close(3001, "shutdown");
    assert_eq!(plain.json(), json!({"disconnect": {"code": 3001, "reason": "shutdown"}}));
    plain.expect_close(1001, "shutdown");
    echo.expect_close(1001, "shutdown");
    assert_eq!(idle.end(), Ended::Fin);
    // Without clients there is nothing to wait for.
    drop((centrifugo, unconnected, plain, echo, idle));
    gateway.until_ended();
}

fn closes_are_spread_over_the_time_given(gateway: &Gateway) {
    const CLIENTS: usize = 20;
    let over = Duration::from_millis(1000);
    // Some of each kind; slots are asked in their order.
    let mut clients: Vec<(Client, u16)> = (0..CLIENTS)
        .map(|i| if i % 2 == 0 { (gateway.centrifugo(), 3001) } else { (gateway.websocket("/echo"), 1001) })
        .collect();
    drain(gateway, over);
    let begun = gateway.now();
    let mut times = Vec::new();
    for (client, code) in &mut clients {
        client.expect_close(*code, "shutdown");
        times.push(gateway.now() - begun);
    }
    let early = times.iter().filter(|time| **time < over / 2).count();
    assert!((CLIENTS / 5..=CLIENTS * 3 / 4).contains(&early), "about half go in the first half: {times:?}");
    assert!(times[CLIENTS - 1] >= over * 3 / 4, "the last does not go long before the end: {times:?}");
    gateway.until_ended();
}

fn whoever_has_just_come_is_let_in_before_it_has_to_go(gateway: &Gateway) {
    const CLIENTS: usize = 10;
    // Its slot is the first, so its turn would be the first, too.
    let mut late = gateway.websocket("/connection/websocket");
    let mut never = gateway.websocket("/connection/websocket");
    let mut others: Vec<Client> = (0..CLIENTS).map(|_| gateway.centrifugo()).collect();
    let begun = gateway.now();
    let over = Duration::from_millis(2000);
    drain(gateway, over);
    others.remove(0).expect_close(3001, "shutdown");
    late.send_text(r#"{"id":1,"connect":{}}"#);
    assert!(late.json()["connect"]["client"].is_string(), "it is told that it is in");
    late.expect_close(3001, "shutdown");
    others.iter_mut().for_each(|client| client.expect_close(3001, "shutdown"));
    never.expect_close(3001, "shutdown");
    assert!(gateway.now() - begun >= over, "who does not connect goes last");
    gateway.until_ended();
}

fn whoever_subscribes_is_answered_before_it_has_to_go(gateway: &Gateway) {
    let channel = gateway.channel_of(1);
    let mut client = gateway.centrifugo_of(0);
    let mut other = gateway.centrifugo_of(0);
    gateway.freeze(1, true);
    client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
    client.write(frame(OpCode::Ping, true, b""));
    assert_eq!(client.next(), Seen::Pong(Vec::new()), "the command was read");
    drain(gateway, Duration::from_millis(2000));
    other.expect_close(3001, "shutdown");
    gateway.freeze(1, false);
    assert_eq!(client.json(), json!({"id": 2, "subscribe": {}}));
    client.expect_close(3001, "shutdown");
    gateway.until_ended();
}

fn what_waits_for_a_client_reaches_it_before_it_has_to_go(gateway: &Gateway) {
    // More than the kernel keeps for one connection.
    const PUBLICATIONS: u64 = 400;
    let mut slow = gateway.subscriber("a");
    let mut healthy = gateway.subscriber("a");
    slow.set_reading(false);
    let data = |number: u64| json!([number, "x".repeat(32 * 1024)]);
    for number in 0..PUBLICATIONS {
        gateway.publish("a", &data(number)).expect("published");
        assert_eq!(healthy.json()["push"]["pub"]["data"][0], number);
    }
    drain(gateway, Duration::ZERO);
    healthy.expect_close(3001, "shutdown");
    gateway.until("the close of the slow client is queued", || gateway.closes(Side::Ours, 3001) >= 1);
    slow.set_reading(true);
    for number in 0..PUBLICATIONS {
        assert_eq!(slow.json()["push"]["pub"]["data"], data(number));
    }
    slow.expect_close(3001, "shutdown");
    gateway.until_ended();
}

fn a_client_that_does_not_answer_does_not_hold_the_end(gateway: &Gateway) {
    let mut silent = gateway.centrifugo();
    drain(gateway, Duration::ZERO);
    gateway.until_ended();
    assert_eq!(silent.next(), Seen::Close(Some(3001), "shutdown".into()));
    assert!(matches!(silent.next(), Seen::End(_)));
}

fn nobody_gets_in_after_the_drain_has_begun(gateway: &Gateway) {
    let mut stays: Vec<Client> = (0..4).map(|i| gateway.websocket_of(i % 2, "/echo")).collect();
    drain(gateway, Duration::from_millis(500));
    // One worker may be a little later than the other, and serves whoever it has accepted until then.
    gateway.until("connects are refused", || gateway.client_of(0).is_refused() && gateway.client_of(1).is_refused());
    for client in &mut stays {
        client.expect_close(1001, "shutdown");
    }
    gateway.until_ended();
}

fn force() -> Disconnect {
    Disconnect::FORCE_NO_RECONNECT
}

fn a_client_is_disconnected_by_its_id(gateway: &Gateway) {
    let mut clients: Vec<Client> = (0..4).map(|i| gateway.subscriber_of(i % 2, "a")).collect();
    let unconnected = gateway.websocket("/connection/websocket");
    let mut victim = clients.remove(1);
    let matching = Matching { client: Some(victim.name.clone()), ..Matching::default() };
    assert_eq!(gateway.disconnect(&matching, &force()), 1);
    victim.expect_close(3503, "force disconnect");
    gateway.until("the close is counted", || gateway.closes(Side::Ours, 3503) == 1);
    assert_eq!(gateway.disconnect(&matching, &force()), 0, "it is gone");
    let nobody = Matching { client: Some("nobody".into()), ..Matching::default() };
    assert_eq!(gateway.disconnect(&nobody, &force()), 0);
    clients.iter_mut().for_each(|client| client.expect_silence(3));
    drop(unconnected);
}

fn a_client_is_disconnected_by_its_session(gateway: &Gateway) {
    let mut client = gateway.websocket("/connection/uni_websocket?channels=a");
    let session = client.json()["connect"]["session"].as_str().expect("a session").to_owned();
    let mut other = gateway.plain_of(1, "channels=a");
    let wrong = Matching { session: Some(session.replace(|c: char| c.is_ascii_digit(), "f")), ..Matching::default() };
    assert_eq!(gateway.disconnect(&wrong, &force()), 0);
    let right = Matching { session: Some(session), ..Matching::default() };
    assert_eq!(gateway.disconnect(&right, &force()), 1);
    assert_eq!(client.json()["disconnect"]["code"], 3503);
    client.expect_close(3503, "force disconnect");
    gateway.publish("a", &json!(1)).expect("published");
    assert_eq!(other.json()["pub"]["data"], 1);
}

fn everybody_is_disconnected_but_those_listed(gateway: &Gateway) {
    let mut clients: Vec<Client> = (0..6).map(|i| gateway.centrifugo_of(i % 2)).collect();
    let mut echo = gateway.websocket("/echo");
    let whitelist = vec![clients[0].name.clone(), clients[3].name.clone()];
    let users = |user: &str| Matching { user: Some(user.into()), whitelist: whitelist.clone(), ..Matching::default() };
    assert_eq!(gateway.disconnect(&users("77"), &force()), 0, "nobody is called so");
    // A count of connections that were told, so it is exact though they have not all gone yet.
    assert_eq!(gateway.disconnect(&users(""), &Disconnect { code: 4000, reason: "".into() }), 4);
    for (number, client) in clients.iter_mut().enumerate() {
        if number == 0 || number == 3 {
            client.expect_silence(2);
            continue;
        }
        assert_eq!(client.next(), Seen::Close(Some(4000), String::new()));
        client.write(close_frame(Some(4000), ""));
        assert_eq!(client.next(), Seen::End(Ended::Fin));
    }
    echo.send_text("has no user");
    assert_eq!(echo.text(), "has no user");
}
