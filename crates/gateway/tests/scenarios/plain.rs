//! The plain dialect: a bare `new WebSocket(url)` that only listens.

use crate::support::client::{plain_push, text_frame};
use crate::support::{Client, Ended, Gateway, Seen, Setup, on_every_driver, on_the_simulator};
use conn::Disconnect;
use gateway::letter::Matching;
use serde_json::{Value, json};
use std::time::Duration;

on_every_driver! {
    the_connect_push_comes_first_and_names_the_channels: Setup::dev(),
    channels_can_be_wanted_in_three_ways: Setup::dev(),
    channels_that_are_not_allowed_are_left_out: Setup::configured(),
    publications_reach_both_dialects_alike: Setup::dev().workers(2),
    what_a_listener_says_is_not_heard: Setup::dev(),
    a_disconnect_is_pushed_before_the_close_frame: Setup::dev(),
    publications_beside_a_connect_come_behind_its_push: Setup::dev().workers(2),
}

on_the_simulator! {
    publications_are_held_until_every_channel_is_answered: two_workers(),
    too_many_held_publications_are_insufficient_state: two_workers().with(|s| s.limits.held_publications_max = 3),
    too_many_held_bytes_are_insufficient_state: two_workers().with(|s| s.limits.held_bytes_max = 1000),
    a_client_that_leaves_while_it_connects_leaves_nothing: two_workers(),
}

fn two_workers() -> Setup {
    Setup::dev().workers(2)
}

fn connect_push(client: &mut Client) -> (String, Value) {
    let mut push = client.json();
    let connect = push["connect"].as_object_mut().expect("the connect push is first");
    let id = connect.remove("client").expect("a client id");
    let session = connect.remove("session").expect("a session id");
    assert_eq!(session.as_str().map(str::len), Some(32), "{session}");
    assert!(connect.remove("version").is_some_and(|v| v.as_str().is_some_and(|v| v.starts_with("tidegate "))));
    (id.as_str().expect("a string").to_owned(), push)
}

fn the_connect_push_comes_first_and_names_the_channels(gateway: &Gateway) {
    let mut client = gateway.websocket("/connection/uni_websocket?channels=news,chat:1");
    let (id, rest) = connect_push(&mut client);
    assert_eq!(id.len(), 36);
    assert_eq!(rest, json!({"connect": {"subs": {"news": {}, "chat:1": {}}, "ping": 25}}));
    gateway.publish("chat:1", &json!({"t": "hi"})).expect("published");
    assert_eq!(client.text(), r#"{"channel":"chat:1","pub":{"data":{"t":"hi"}}}"#);

    let mut bare = gateway.websocket("/connection/uni_websocket?channels=");
    let (_, rest) = connect_push(&mut bare);
    assert_eq!(rest, json!({"connect": {"ping": 25}}), "no channels, no subs");
}

fn channels_can_be_wanted_in_three_ways(gateway: &Gateway) {
    let expected = json!({"connect": {"subs": {"a": {}, "b:c d": {}}, "ping": 25}});
    for query in [
        "channels=a,b:c%20d",
        "channels=a,,b:c+d,a",
        "cf_connect=%7B%22subs%22%3A%7B%22a%22%3A%7B%7D%2C%22b%3Ac%20d%22%3A%7B%7D%7D%7D",
        "channels=a&cf_connect={%22subs%22:{%22b:c%20d%22:{},%22a%22:{%22recover%22:true}}}",
        "other=1&channels=a%2Cb:c%20d",
    ] {
        let mut client = gateway.websocket(&format!("/connection/uni_websocket?{query}"));
        assert_eq!(connect_push(&mut client).1, expected, "{query}");
    }
    // Without either, the first message is the connect request.
    let mut client = gateway.websocket("/connection/uni_websocket");
    client.send_text(r#"{"subs":{"a":{},"b:c d":{}},"name":"page"}"#);
    assert_eq!(connect_push(&mut client).1, expected);
    gateway.publish("a", &json!(1)).expect("published");
    assert_eq!(client.json(), plain_push("a", &json!(1)));
}

fn channels_that_are_not_allowed_are_left_out(gateway: &Gateway) {
    let mut client =
        gateway.websocket("/connection/uni_websocket?channels=open:a,users:a,closed,unknown:a,$open:b,read:a");
    assert_eq!(connect_push(&mut client).1, json!({"connect": {"subs": {"open:a": {}, "read:a": {}}, "ping": 25}}));
    for refused in ["users:a", "closed", "unknown:a", "$open:b"] {
        gateway.publish(refused, &json!("not for you")).expect("published");
    }
    gateway.publish("read:a", &json!("for you")).expect("published");
    assert_eq!(client.json(), plain_push("read:a", &json!("for you")));
}

fn publications_reach_both_dialects_alike(gateway: &Gateway) {
    let mut listeners: Vec<Client> = (0..6).map(|i| gateway.plain_of(i % 2, "channels=c")).collect();
    let mut subscribers: Vec<Client> = (0..6).map(|i| gateway.subscriber_of(i % 2, "c")).collect();
    let mut other = gateway.plain("channels=d");
    for i in 0..10 {
        gateway.publish("c", &json!(i)).expect("published");
    }
    subscribers[0].send(&json!({"id": 9, "publish": {"channel": "c", "data": "mine"}}));
    let info = json!({"user": "", "client": subscribers[0].name});
    for listener in &mut listeners {
        (0..10).for_each(|i| assert_eq!(listener.json(), plain_push("c", &json!(i))));
        assert_eq!(listener.json(), json!({"channel": "c", "pub": {"data": "mine", "info": info}}));
    }
    for subscriber in &mut subscribers[1..] {
        (0..10).for_each(|i| assert_eq!(subscriber.json()["push"], plain_push("c", &json!(i))));
        assert_eq!(subscriber.json()["push"]["pub"]["info"], info);
    }
    gateway.publish("d", &json!("first")).expect("published");
    assert_eq!(other.json(), plain_push("d", &json!("first")), "nothing of the other channel came before");
}

fn what_a_listener_says_is_not_heard(gateway: &Gateway) {
    let mut client = gateway.plain("channels=a");
    let messages =
        ["not JSON", "{}", r#"{"id":1,"connect":{}}"#, r#"{"id":2,"publish":{"channel":"a","data":"said"}}"#, ""];
    client.write(messages.map(text_frame).concat());
    gateway.publish("a", &json!("heard")).expect("published");
    assert_eq!(client.json(), plain_push("a", &json!("heard")));
}

fn a_disconnect_is_pushed_before_the_close_frame(gateway: &Gateway) {
    let mut client = gateway.plain("channels=a");
    let matching = Matching { client: Some(client.name.clone()), ..Matching::default() };
    let why = Disconnect { code: 4242, reason: "go \"away\"".into() };
    assert_eq!(gateway.disconnect(&matching, &why), 1);
    assert_eq!(client.json(), json!({"disconnect": {"code": 4242, "reason": "go \"away\""}}));
    client.expect_close(4242, "go \"away\"");
}

fn publications_beside_a_connect_come_behind_its_push(gateway: &Gateway) {
    let (near, far) = (gateway.channel_of(0), gateway.channel_of(1));
    let mut number = 0u64;
    for _ in 0..20 {
        let mut client = gateway.client_of(0);
        let target = format!("/connection/uni_websocket?channels={near},{far}");
        client.write(crate::support::client::upgrade_request(&target, None, &[]));
        for _ in 0..5 {
            gateway.begin_publish(&near, &json!(number)).expect("room");
            number += 1;
        }
        client.await_upgrade(None);
        let (_, rest) = connect_push(&mut client);
        assert_eq!(rest["connect"]["subs"].as_object().map(serde_json::Map::len), Some(2));
        gateway.publish(&near, &json!("last")).expect("published");
        let mut previous: Option<u64> = None;
        while let Some(got) = client.json()["pub"]["data"].as_u64() {
            assert!(previous.is_none_or(|previous| got == previous + 1), "{got} after {previous:?}");
            previous = Some(got);
        }
        assert!(previous.is_none_or(|previous| previous + 1 == number), "{previous:?} was the last before {number}");
    }
}

/// A client whose first channel is answered and whose second is not, because its home stands still.
fn half_connected(gateway: &Gateway) -> (Client, String, String) {
    let (near, far) = (gateway.channel_of(0), gateway.channel_of(1));
    gateway.freeze(1, true);
    let client = gateway.websocket_of(0, &format!("/connection/uni_websocket?channels={near},{far}"));
    gateway.pass(Duration::from_millis(300));
    (client, near, far)
}

fn publications_are_held_until_every_channel_is_answered(gateway: &Gateway) {
    let (mut client, near, far) = half_connected(gateway);
    let mut live = gateway.plain_of(0, &format!("channels={near}"));
    for i in 0..3 {
        gateway.publish(&near, &json!(i)).expect("published");
        assert_eq!(live.json(), plain_push(&near, &json!(i)), "others do not wait");
    }
    gateway.freeze(1, false);
    assert_eq!(connect_push(&mut client).1, json!({"connect": {"subs": {&*near: {}, &*far: {}}, "ping": 25}}));
    (0..3).for_each(|i| assert_eq!(client.json(), plain_push(&near, &json!(i))));
    for channel in [&near, &far] {
        gateway.publish(channel, &json!("live")).expect("published");
        assert_eq!(client.json(), plain_push(channel, &json!("live")));
    }
}

fn publish_all(gateway: &Gateway, channel: &str, all: &[Value]) {
    for data in all {
        gateway.publish(channel, data).expect("published");
    }
}

fn expect_insufficient_state(gateway: &Gateway, enough: &[Value], one_more: &Value) {
    let (mut twin, near, _) = half_connected(gateway);
    publish_all(gateway, &near, enough);
    gateway.freeze(1, false);
    connect_push(&mut twin);
    enough.iter().for_each(|data| assert_eq!(twin.json(), plain_push(&near, data)));
    drop(twin);

    let (mut client, near, _) = half_connected(gateway);
    publish_all(gateway, &near, enough);
    publish_all(gateway, &near, std::slice::from_ref(one_more));
    assert_eq!(client.json(), json!({"disconnect": {"code": 3010, "reason": "insufficient state"}}));
    client.expect_close(3010, "insufficient state");
    gateway.freeze(1, false);
}

fn too_many_held_publications_are_insufficient_state(gateway: &Gateway) {
    expect_insufficient_state(gateway, &[json!(1), json!(2), json!(3)], &json!(4));
}

fn too_many_held_bytes_are_insufficient_state(gateway: &Gateway) {
    expect_insufficient_state(gateway, &[json!("x".repeat(500))], &json!("x".repeat(500)));
}

fn a_client_that_leaves_while_it_connects_leaves_nothing(gateway: &Gateway) {
    let (mut client, near, _) = half_connected(gateway);
    gateway.publish(&near, &json!("held")).expect("published");
    client.write(crate::support::client::close_frame(Some(1000), ""));
    assert_eq!(client.next(), Seen::Close(Some(1000), String::new()));
    assert_eq!(client.next(), Seen::End(Ended::Fin));
    gateway.publish(&near, &json!("for nobody")).expect("published");
    gateway.freeze(1, false);
}
