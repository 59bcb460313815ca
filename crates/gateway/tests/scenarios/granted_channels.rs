//! Which channels a user has: by its name, by a token for one of them, or without asking.

use crate::support::client::push;
use crate::support::token::{signed_with, token};
use crate::support::{Client, Gateway, Seen, Setup, in_every_format, on_every_driver, on_the_simulator};
use hub::{Presence, PresenceQuery};
use serde_json::{Value, json};
use std::time::Duration;

in_every_format! {
    users_in_a_name_are_the_only_ones: Setup::with_tokens(),
    a_subscription_token_opens_its_channel_to_its_user: Setup::with_tokens(),
    a_subscription_ends_with_its_token: Setup::with_tokens(),
    a_refreshed_subscription_goes_on: Setup::with_tokens(),
    a_refresh_of_a_subscription_is_checked_as_well: Setup::with_tokens(),
    the_channels_of_a_token_come_with_the_connect_reply: Setup::with_tokens().workers(3),
    a_server_side_subscription_recovers: Setup::with_tokens().workers(2),
    users_are_told_apart_by_presence: Setup::with_tokens().workers(2),
    a_token_may_hide_who_comes: Setup::with_tokens().workers(2),
}

on_every_driver! {
    each_user_has_a_channel_of_its_own: Setup::with_tokens().with(|s| s.personal = Some(String::new())),
    the_own_channel_may_have_a_namespace: Setup::with_tokens().with(|s| s.personal = Some("open".into())),
    a_token_that_grants_too_much_is_refused: Setup::with_tokens().with(|s| s.limits.channels_max = 3),
    a_channel_that_was_given_may_be_left: Setup::with_tokens(),
}

on_the_simulator! {
    commands_behind_a_connect_wait_for_its_channels: Setup::with_tokens().workers(2),
    publications_beside_a_connect_follow_its_reply: Setup::with_tokens().workers(2),
}

/// What a subscribe is told.
fn subscribe(client: &mut Client, channel: &str, token: &str) -> Value {
    client.call(json!({"id": 2, "subscribe": {"channel": channel, "token": token}}))
}

fn error(client: &mut Client, channel: &str, token: &str) -> Value {
    subscribe(client, channel, token)["error"]["code"].take()
}

fn users_in_a_name_are_the_only_ones(gateway: &Gateway) {
    for (user, channel, code) in [
        ("42", "dialog:a#42,43", Value::Null),
        ("43", "dialog:a#42,43", Value::Null),
        ("4", "dialog:a#42,43", json!(103)),
        ("42", "dialog:a#4,43", json!(103)),
        ("42", "dialog:a", json!(103)),
        ("42", "#42", Value::Null),
        ("42", "#4", json!(103)),
        // Where the namespace gives it no meaning, "#" is a character.
        ("4", "open:a#42", Value::Null),
    ] {
        let mut client = gateway.user(user);
        assert_eq!(error(&mut client, channel, ""), code, "{user} {channel}");
        client.unsubscribe(3, channel);
    }
    let (mut anonymous, _) = gateway.user_of(0, &json!({}));
    assert_eq!(error(&mut anonymous, "dialog:#", ""), json!(103), "nobody is not the user \"\"");
}

fn a_subscription_token_opens_its_channel_to_its_user(gateway: &Gateway) {
    let now = gateway.unix();
    let of = |user: &str, channel: &str| token(&json!({"sub": user, "channel": channel}));
    let mut client = gateway.user("42");
    assert_eq!(error(&mut client, "$open:a", ""), json!(103), "private");
    assert_eq!(error(&mut client, "dialog:a", ""), json!(103), "not allowed");
    let bad = signed_with("another", &json!({"alg": "HS256"}), &json!({"sub": "42", "channel": "$open:a"}));
    assert_eq!(error(&mut client, "$open:a", &bad), json!(103), "another secret");
    let late = token(&json!({"sub": "42", "channel": "$open:a", "exp": now - 1}));
    assert_eq!(error(&mut client, "$open:a", &late), json!(109), "expired");
    let over = token(&json!({"sub": "42", "channel": "$open:a", "expire_at": now - 1}));
    assert_eq!(error(&mut client, "$open:a", &over), json!(110), "over");
    assert_eq!(error(&mut client, "$none:a", &of("42", "$none:a")), json!(102), "no such namespace");
    let said = token(&json!({"sub": "42", "channel": "$open:a", "data": {"a": 1}, "client": client.name}));
    assert_eq!(subscribe(&mut client, "$open:a", &said)["subscribe"], json!({"data": {"a": 1}}));
    assert_eq!(subscribe(&mut client, "dialog:a", &of("42", "dialog:a"))["subscribe"], json!({}));
    gateway.publish("$open:a", &json!(1)).expect("published");
    assert_eq!(client.json(), push("$open:a", &json!(1)));

    for (user, channel, named) in [("43", "$open:a", None), ("42", "$open:b", None), ("42", "$open:a", Some("x"))] {
        let mut client = gateway.user("42");
        let token = token(&json!({"sub": user, "channel": channel, "client": named}));
        client.send(&json!({"id": 2, "subscribe": {"channel": "$open:a", "token": token}}));
        client.expect_close(3500, "invalid token");
    }
}

fn expired(channel: &str) -> Value {
    json!({"push": {"channel": channel, "unsubscribe": {"code": 2501, "reason": "subscription expired"}}})
}

fn a_subscription_ends_with_its_token(gateway: &Gateway) {
    let begun = gateway.now();
    let mut client = gateway.user("42");
    client.subscribe(3, "open:a");
    let token = token(&json!({"sub": "42", "channel": "$open:a", "exp": gateway.unix() + 2}));
    let reply = subscribe(&mut client, "$open:a", &token);
    let ttl = reply["subscribe"]["ttl"].as_u64().expect("a number");
    assert!(reply["subscribe"]["expires"] == json!(true) && (1..=2).contains(&ttl), "{reply}");
    assert_eq!(client.json(), expired("$open:a"));
    assert!(gateway.now() - begun >= Duration::from_secs(3), "{:?}", gateway.now() - begun);
    gateway.publish("$open:a", &json!(1)).expect("published");
    gateway.publish("open:a", &json!(2)).expect("published");
    assert_eq!(client.json(), push("open:a", &json!(2)), "the other one goes on");
}

fn sub_refresh(client: &mut Client, channel: &str, claims: &Value) -> Value {
    client.call(json!({"id": 4, "sub_refresh": {"channel": channel, "token": token(claims)}}))
}

fn a_refreshed_subscription_goes_on(gateway: &Gateway) {
    let mut client = gateway.user("42");
    let until = |seconds| json!({"sub": "42", "channel": "$open:a", "exp": gateway.unix() + seconds});
    subscribe(&mut client, "$open:a", &token(&until(1)));
    let told = sub_refresh(&mut client, "$open:a", &until(600))["sub_refresh"].take();
    let ttl = told["ttl"].as_u64().expect("a number");
    assert!(told["expires"] == json!(true) && (590..=600).contains(&ttl), "{told}");
    gateway.pass(Duration::from_secs(4));
    client.expect_silence(5);
    gateway.publish("$open:a", &json!(1)).expect("published");
    assert_eq!(client.json(), push("$open:a", &json!(1)));
    let forever = json!({"sub": "42", "channel": "$open:a"});
    assert_eq!(sub_refresh(&mut client, "$open:a", &forever)["sub_refresh"], json!({}));
}

fn a_refresh_of_a_subscription_is_checked_as_well(gateway: &Gateway) {
    let now = gateway.unix();
    let good = json!({"sub": "42", "channel": "$open:a"});
    let mut client = gateway.user("42");
    assert_eq!(sub_refresh(&mut client, "$open:a", &good)["error"]["code"], json!(103), "not subscribed");
    subscribe(&mut client, "$open:a", &token(&good));
    let empty = client.call(json!({"id": 4, "sub_refresh": {"channel": "$open:a", "token": ""}}));
    assert_eq!(empty["error"]["code"], json!(107));
    for (claims, code, reason) in [
        (json!({"sub": "42", "channel": "$open:a", "exp": now - 1}), 3006, "subscription expired"),
        (json!({"sub": "43", "channel": "$open:a"}), 3500, "invalid token"),
        (json!({"sub": "42", "channel": "$open:b"}), 3500, "invalid token"),
    ] {
        let mut client = gateway.user("42");
        subscribe(&mut client, "$open:a", &token(&good));
        client.send(&json!({"id": 4, "sub_refresh": {"channel": "$open:a", "token": token(&claims)}}));
        client.expect_close(code, reason);
    }
    let mut client = gateway.user("42");
    subscribe(&mut client, "$open:a", &token(&good));
    let other = signed_with("another", &json!({"alg": "HS256"}), &good);
    client.send(&json!({"id": 4, "sub_refresh": {"channel": "$open:a", "token": other}}));
    client.expect_close(3500, "invalid token");
}

fn the_channels_of_a_token_come_with_the_connect_reply(gateway: &Gateway) {
    for (claims, expected) in [
        (json!({"sub": "42", "channels": ["open:b", "$open:a", "open:b"]}), json!({"open:b": {}, "$open:a": {}})),
        (
            json!({"sub": "42", "channels": ["open:c"], "subs": {"open:b": {"data": {"x": 1}}, "dialog:a": null}}),
            json!({"open:b": {"data": {"x": 1}}, "dialog:a": {}}),
        ),
    ] {
        let (mut client, told) = gateway.user_of(0, &claims);
        assert_eq!(told["subs"], expected, "{claims}");
        for channel in expected.as_object().expect("channels").keys() {
            gateway.publish(channel, &json!(1)).expect("published");
            assert_eq!(client.json(), push(channel, &json!(1)));
        }
        let reply = client.call(json!({"id": 2, "subscribe": {"channel": "open:b"}}));
        assert_eq!(reply["error"]["code"], json!(105), "subscribed already");
    }
    let (_, told) = gateway.user_of(0, &json!({"sub": "42", "channels": []}));
    assert!(told.get("subs").is_none(), "{told}");
}

fn a_server_side_subscription_recovers(gateway: &Gateway) {
    let claims = json!({"sub": "42", "channels": ["kept:a", "open:b"]});
    let (client, told) = gateway.user_of(0, &claims);
    let epoch = told["subs"]["kept:a"]["epoch"].as_str().expect("an epoch").to_owned();
    drop(client);
    for n in 1..=3 {
        gateway.publish("kept:a", &json!(n)).expect("published");
    }
    let mut client = gateway.unconnected();
    let position = json!({"recover": true, "offset": 1, "epoch": epoch});
    let mut reply = client.call(json!({"id": 1, "connect": {"token": token(&claims), "subs": {"kept:a": position}}}));
    for publication in reply["connect"]["subs"]["kept:a"]["publications"].as_array_mut().expect("some") {
        assert!(publication.as_object_mut().and_then(|fields| fields.remove("time")).is_some());
    }
    assert_eq!(
        reply["connect"]["subs"],
        json!({"open:b": {}, "kept:a": {
            "recoverable": true, "positioned": true, "recovered": true, "was_recovering": true, "epoch": epoch,
            "offset": 1, "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
        }})
    );
    gateway.publish("kept:a", &json!(4)).expect("published");
    let live = client.json()["push"]["pub"].take();
    assert_eq!((&live["data"], &live["offset"]), (&json!(4), &json!(4)));
}

fn users_are_told_apart_by_presence(gateway: &Gateway) {
    let (mut first, told) =
        gateway.user_of(0, &json!({"sub": "42", "info": {"n": 1}, "subs": {"told:a": {"info": {"c": 2}}}}));
    assert!(told["subs"].get("told:a").is_some(), "{told}");
    let of_first = json!({"user": "42", "client": first.name, "conn_info": {"n": 1}, "chan_info": {"c": 2}});
    let joined = |info: &Value| json!({"push": {"channel": "told:a", "join": {"info": info}}});
    assert_eq!(first.json(), joined(&of_first), "its own join follows the connect reply");
    let (mut second, _) = gateway.user_of(1, &json!({"sub": "42"}));
    second.subscribe(2, "told:a");
    let of_second = json!({"user": "42", "client": second.name});
    assert_eq!((first.json(), second.json()), (joined(&of_second), joined(&of_second)));
    let reply = second.call(json!({"id": 3, "presence": {"channel": "told:a"}}));
    let present = json!({&*first.name: of_first, &*second.name: of_second});
    assert_eq!(reply["presence"]["presence"], present);
    let stats = second.call(json!({"id": 4, "presence_stats": {"channel": "told:a"}}));
    assert_eq!(stats["presence_stats"], json!({"num_clients": 2, "num_users": 1}));
    let Ok(Presence::Stats(stats)) = gateway.presence("told:a", PresenceQuery::Stats) else { panic!("no answer") };
    assert_eq!((stats.clients, stats.users), (2, 1));
}

fn each_user_has_a_channel_of_its_own(gateway: &Gateway) {
    let (mut client, told) = gateway.user_of(0, &json!({"sub": "42"}));
    assert_eq!(told["subs"], json!({"#42": {}}));
    let (_other, told) = gateway.user_of(0, &json!({"sub": "7", "channels": ["#7", "open:a"]}));
    assert_eq!(told["subs"], json!({"#7": {}, "open:a": {}}), "once");
    let (_nobody, told) = gateway.user_of(0, &json!({}));
    assert!(told.get("subs").is_none(), "{told}");
    gateway.publish("#42", &json!(1)).expect("published");
    assert_eq!(client.json(), push("#42", &json!(1)));
}

fn the_own_channel_may_have_a_namespace(gateway: &Gateway) {
    let (_, told) = gateway.user_of(0, &json!({"sub": "42"}));
    assert_eq!(told["subs"], json!({"open:#42": {}}));
}

fn a_token_that_grants_too_much_is_refused(gateway: &Gateway) {
    let names = |count: usize| (0..count).map(|n| format!("open:{n}")).collect::<Vec<_>>();
    let (_client, told) = gateway.user_of(0, &json!({"sub": "42", "channels": names(3)}));
    assert_eq!(told["subs"].as_object().map(serde_json::Map::len), Some(3));
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "42", "channels": names(4)}))}}));
    client.expect_close(3505, "channel limit");
    for (channel, code) in [("none:a", 102), ("", 107)] {
        let mut client = gateway.unconnected();
        let refused = client.call(json!({"id": 1, "connect": {"token": token(&json!({"channels": [channel]}))}}));
        assert_eq!(refused["error"]["code"], json!(code), "{channel}");
        // Nothing but an end follows: SDKs close, others are closed.
        client.send(&json!({"id": 2, "subscribe": {"channel": "open:a"}}));
        assert_eq!(client.next(), Seen::Close(Some(3501), "bad request".into()));
    }
}

fn a_channel_that_was_given_may_be_left(gateway: &Gateway) {
    // A client may leave a channel that it was given, and come back to it where it may.
    let (mut client, _) = gateway.user_of(0, &json!({"sub": "42", "channels": ["open:a", "dialog:b"]}));
    for (channel, code) in [("open:a", Value::Null), ("dialog:b", json!(103))] {
        client.unsubscribe(2, channel);
        gateway.publish(channel, &json!(1)).expect("published");
        client.expect_silence(3);
        assert_eq!(error(&mut client, channel, ""), code, "{channel}");
    }
}

fn commands_behind_a_connect_wait_for_its_channels(gateway: &Gateway) {
    let channel = gateway.channel_in("open:", 1);
    gateway.freeze(1, true);
    let mut client = gateway.unconnected();
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "42", "channels": [channel]}))}});
    let publish = json!({"id": 2, "publish": {"channel": channel, "data": 7}});
    client.send_text(&format!("{connect}\n{publish}\n"));
    gateway.pass(Duration::from_millis(500));
    gateway.freeze(1, false);
    assert_eq!(client.json()["connect"]["subs"], json!({&*channel: {}}));
    let mut rest = [client.json(), client.json()];
    rest.sort_by_key(|message| message["id"].as_u64());
    assert_eq!(rest[0]["push"]["pub"]["data"], json!(7), "it was subscribed when it published");
    assert_eq!(rest[1], json!({"id": 2, "publish": {}}));
}

fn publications_beside_a_connect_follow_its_reply(gateway: &Gateway) {
    let (near, far) = (gateway.channel_in("open:", 0), gateway.channel_in("open:", 1));
    gateway.freeze(1, true);
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "42", "channels": [near, far]}))}}));
    gateway.pass(Duration::from_millis(500));
    gateway.publish(&near, &json!("early")).expect("published");
    gateway.pass(Duration::from_millis(100));
    gateway.freeze(1, false);
    assert_eq!(client.json()["connect"]["subs"], json!({&*near: {}, &*far: {}}));
    assert_eq!(client.json(), push(&near, &json!("early")));
}

fn a_token_may_hide_who_comes(gateway: &Gateway) {
    let off = json!({"value": false});
    let with = |changed: &Value| json!({"sub": "7", "subs": {"told:a": {"override": changed}}});
    let mut other = gateway.user("42");
    let join = |client: &Client, user: &str| json!({"push": {"channel": "told:a", "join": {"info": {"client": client.name, "user": user}}}});
    other.subscribe(2, "told:a");
    assert_eq!(other.json(), join(&other, "42"));
    // Whoever comes next is told of, so nothing was told of those before.
    let (_hidden, _) = gateway.user_of(1, &with(&json!({"presence": off, "join_leave": off})));
    let (unseen, _) = gateway.user_of(1, &with(&json!({"presence": off})));
    assert_eq!(other.json(), join(&unseen, "7"));
    let (silent, _) = gateway.user_of(1, &with(&json!({"join_leave": off})));
    let (mut deaf, _) = gateway.user_of(1, &with(&json!({"force_push_join_leave": off})));
    assert_eq!(other.json(), join(&deaf, "7"));
    let present = other.call(json!({"id": 3, "presence": {"channel": "told:a"}}));
    let mut clients: Vec<_> = present["presence"]["presence"].as_object().expect("clients").keys().cloned().collect();
    let mut expected = [&other, &silent, &deaf].map(|client| client.name.clone());
    clients.sort_unstable();
    expected.sort_unstable();
    assert_eq!(clients, expected);
    let leave = json!({"info": {"client": unseen.name, "user": "7"}});
    drop(unseen);
    assert_eq!(other.json()["push"]["leave"], leave);
    deaf.expect_silence(4);
}
