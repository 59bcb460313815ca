//! Connection tokens: who a client is, until when, and what becomes of tokens that do not count.

use crate::support::client::push;
use crate::support::token::{ES256, P256, SECRET, signed_with, token};
use crate::support::{Client, Ended, Gateway, Seen, Setup, in_every_format, on_every_driver, on_the_simulator};
use conn::Disconnect;
use conn::auth::token::{Key, Tokens};
use conn::settings::Rate;
use gateway::letter::{Matching, Order};
use gateway::stats::Number;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

in_every_format! {
    a_token_says_who_publishes: Setup::with_tokens(),
    a_token_that_does_not_count_is_refused: Setup::with_tokens(),
    the_end_of_a_token_is_told_in_seconds: Setup::with_tokens(),
    a_refreshed_connection_goes_on: Setup::with_tokens(),
    a_refresh_that_does_not_count_ends_the_connection: Setup::with_tokens(),
    one_users_channels_are_counted_over_all_connections:
        Setup::with_tokens().with(|s| s.limits.subscriptions_per_user_max = 3),
    who_connects_again_and_again_reaches_the_limit: Setup::with_tokens().with(|s| s.limits.connections_per_user_max = 2),
}

on_every_driver! {
    without_a_token_nobody_comes_in: Setup::with_tokens(),
    tokens_count_also_where_nobody_needs_one: Setup::with_tokens().with(|s| s.anonymous = true),
    a_connection_ends_with_its_token: Setup::with_tokens(),
    a_plain_client_brings_a_token_too: Setup::with_tokens(),
    a_backend_disconnects_a_user: Setup::with_tokens().workers(2),
    tokens_are_judged_by_a_clock_that_was_set: Setup::with_tokens(),
    a_crowd_with_signatures_comes_in_one_after_the_other: with_a_public_key(),
    who_leaves_before_its_turn_leaves_nothing: with_a_public_key(),
    a_plain_crowd_comes_in_as_well: with_a_public_key(),
    who_brings_an_unknown_key_is_told_to_come_again: without_its_published_key(),
}

on_the_simulator! {
    commands_behind_a_connect_wait_for_its_turn: with_a_public_key(),
    a_command_that_waits_for_its_turn_counts_once: with_a_public_key().with(two_at_once),
}

/// Of each of its tokens so many fit into a tick: 512 units, and 32 for a signature.
const SIGNATURES_PER_TICK: usize = 16;

fn with_a_public_key() -> Setup {
    Setup::with_tokens().with(|s| {
        s.tokens = Tokens { keys: vec![Key::ecdsa(P256).expect("a key")], ..Tokens::default() };
    })
}

/// An identity provider publishes keys, and none of them is known yet.
fn without_its_published_key() -> Setup {
    Setup::with_tokens().with(|s| s.tokens = Tokens { published: Some(Vec::new()), ..Tokens::default() })
}

fn two_at_once(settings: &mut conn::Settings) {
    let [per_second, burst] = [1, 2].map(|n| NonZeroU32::new(n).expect("not 0"));
    settings.limits.commands = Some(Rate { per_second, burst });
}

/// What a connect with this token is told.
fn connect(gateway: &Gateway, token: &str) -> (Client, Value) {
    let mut client = gateway.unconnected();
    let reply = client.call(json!({"id": 1, "connect": {"token": token}}));
    (client, reply)
}

/// Shows that a token counts.
fn expect_accepted(gateway: &Gateway, token: &str, what: &str) {
    let (_, reply) = connect(gateway, token);
    assert!(reply["connect"]["client"].is_string(), "{what}: {reply}");
}

/// Shows that a token is one that SDKs do not come back with.
fn expect_invalid(gateway: &Gateway, token: &str, what: &str) {
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {"token": token}}));
    assert_eq!(client.next(), Seen::Close(Some(3500), "invalid token".into()), "{what}");
}

fn a_token_says_who_publishes(gateway: &Gateway) {
    let (mut sender, told) = gateway.user_of(0, &json!({"sub": "42", "info": {"name": "Ada"}}));
    assert!(told.get("expires").is_none() && told.get("ttl").is_none(), "a token without an end: {told}");
    let mut other = gateway.user("7");
    sender.subscribe(2, "open:a");
    other.subscribe(2, "open:a");
    sender.send(&json!({"id": 3, "publish": {"channel": "open:a", "data": {"t": 1}}}));
    let info = json!({"user": "42", "client": sender.name, "conn_info": {"name": "Ada"}});
    assert_eq!(other.json()["push"]["pub"]["info"], info);
    let mut both = [sender.json(), sender.json()];
    both.sort_by_key(|message| message["id"].as_u64());
    assert_eq!(both[0]["push"]["pub"]["info"], info);
    assert_eq!(both[1], json!({"id": 3, "publish": {}}));
}

fn a_token_that_does_not_count_is_refused(gateway: &Gateway) {
    let now = gateway.unix();
    let (hs256, claims) = (json!({"alg": "HS256"}), json!({"sub": "42"}));
    let good = signed_with(SECRET, &hs256, &claims);
    expect_accepted(gateway, &good, "signed as it should be");
    expect_invalid(gateway, &signed_with("b secret of at least thirty-two bytes", &hs256, &claims), "another secret");
    expect_invalid(gateway, &signed_with(SECRET, &json!({"alg": "none"}), &claims), "alg none");
    expect_invalid(gateway, &signed_with(SECRET, &json!({"alg": "RS256"}), &claims), "no key of that kind");
    let (message, _) = good.rsplit_once('.').expect("three parts");
    expect_invalid(gateway, &format!("{message}."), "no signature");
    let mut tampered = good.clone().into_bytes();
    let at = good.find('.').expect("three parts") + 3;
    tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
    expect_invalid(gateway, &String::from_utf8(tampered).expect("still ASCII"), "one byte changed");
    expect_invalid(gateway, "x", "no token");
    expect_invalid(gateway, &token(&json!({"sub": "42", "channel": "open:a"})), "a subscription token");
    expect_accepted(gateway, &token(&json!({"iat": now})), "an anonymous one");
    expect_accepted(gateway, &token(&json!({"sub": "42", "pad": "x".repeat(20_000)})), "a long one");
    expect_invalid(gateway, &token(&json!({"sub": "42", "pad": "x".repeat(30_000)})), "one that is too long");

    let error = |claims: Value| connect(gateway, &token(&claims)).1["error"]["code"].take();
    assert_eq!(error(json!({"sub": "42", "exp": now + 60})), Value::Null);
    assert_eq!(error(json!({"sub": "42", "exp": now - 60})), json!(109));
    assert_eq!(error(json!({"sub": "42", "nbf": now - 60})), Value::Null);
    assert_eq!(error(json!({"sub": "42", "nbf": now + 60})), json!(109));
    assert_eq!(error(json!({"sub": "42", "exp": now + 60, "expire_at": now - 60})), json!(110));
    assert_eq!(error(json!({"sub": "42", "exp": now + 60, "expire_at": 0})), Value::Null);
}

fn one_users_channels_are_counted_over_all_connections(gateway: &Gateway) {
    let (mut first, mut second, mut other) = (gateway.user("42"), gateway.user("42"), gateway.user("7"));
    let code = |client: &mut Client, id: u32, channel: &str| {
        let reply = client.call(json!({"id": id, "subscribe": {"channel": channel}}));
        assert!(reply["subscribe"].is_object() != reply["error"].is_object(), "{reply}");
        reply["error"]["code"].as_u64().unwrap_or_default()
    };
    first.subscribe(2, "open:a");
    first.subscribe(3, "open:b");
    assert_eq!(code(&mut second, 2, "closed"), 103, "what is refused does not count");
    second.subscribe(3, "open:a");
    assert_eq!((code(&mut second, 4, "open:b"), code(&mut first, 4, "open:c")), (106, 106));
    ["open:a", "open:b", "open:c", "open:d"].iter().zip(2..).for_each(|(name, id)| match id {
        5 => assert_eq!(code(&mut other, id, name), 106, "another user has a count of its own"),
        _ => other.subscribe(id, name),
    });
    first.unsubscribe(5, "open:a");
    second.subscribe(5, "open:b");
    assert_eq!(code(&mut first, 6, "open:c"), 106);
    gateway.until("they are counted", || gateway.sum(Number::Sessions) == 3);
    drop(first);
    gateway.until("the first has left", || gateway.sum(Number::Sessions) == 2);
    second.subscribe(6, "open:c");
    assert_eq!(code(&mut second, 7, "open:d"), 106);
    // What a token brings counts as well.
    let bringing = |channels: &[&str]| token(&json!({"sub": "43", "channels": channels}));
    let (_kept, reply) = connect(gateway, &bringing(&["open:a", "open:b"]));
    assert_eq!(reply["connect"]["subs"].as_object().map(serde_json::Map::len), Some(2), "{reply}");
    let mut refused = gateway.unconnected();
    refused.send(&json!({"id": 1, "connect": {"token": bringing(&["open:a", "open:b"])}}));
    assert_eq!(refused.next(), Seen::Close(Some(3505), "channel limit".into()));
    let (_also, reply) = connect(gateway, &bringing(&["open:a"]));
    assert_eq!(reply["connect"]["subs"].as_object().map(serde_json::Map::len), Some(1), "{reply}");
}

fn the_end_of_a_token_is_told_in_seconds(gateway: &Gateway) {
    let (_, told) = gateway.user_of(0, &json!({"sub": "42", "exp": gateway.unix() + 600}));
    let ttl = told["ttl"].as_u64().expect("a number");
    assert!(told["expires"] == json!(true) && (590..=600).contains(&ttl), "{told}");
    let (_, told) = gateway.user_of(0, &json!({"sub": "42", "exp": gateway.unix() + 600, "expire_at": 0}));
    assert!(told.get("expires").is_none(), "`expire_at` wins: {told}");
}

fn a_connection_ends_with_its_token(gateway: &Gateway) {
    let begun = gateway.now();
    let (mut client, _) = gateway.user_of(0, &json!({"sub": "42", "exp": gateway.unix() + 2}));
    client.subscribe(2, "open:a");
    gateway.publish("open:a", &json!(1)).expect("published");
    assert_eq!(client.json(), push("open:a", &json!(1)));
    client.expect_close(3005, "connection expired");
    // The token's second may have begun before; two seconds more are for refreshing it.
    assert!(gateway.now() - begun >= Duration::from_secs(3), "{:?}", gateway.now() - begun);
}

fn a_refreshed_connection_goes_on(gateway: &Gateway) {
    let (mut client, _) = gateway.user_of(0, &json!({"sub": "42", "exp": gateway.unix() + 1}));
    let refresh = |claims| json!({"id": 2, "refresh": {"token": token(&claims)}});
    let mut reply = client.call(refresh(json!({"sub": "42", "exp": gateway.unix() + 600})));
    let told = reply["refresh"].take();
    let ttl = told["ttl"].as_u64().expect("a number");
    assert!(told["expires"] == json!(true) && (590..=600).contains(&ttl) && told["client"] == client.name, "{told}");
    gateway.pass(Duration::from_secs(4));
    let mut reply = client.call(refresh(json!({"sub": "42"})));
    assert!(reply["refresh"].take().get("ttl").is_none(), "for ever from now on");
    client.expect_silence(3);
}

fn a_refresh_that_does_not_count_ends_the_connection(gateway: &Gateway) {
    let now = gateway.unix();
    for (refresh, code, reason) in [
        (token(&json!({"sub": "42", "exp": now - 1})), 3005, "connection expired"),
        (token(&json!({"sub": "42", "exp": now + 60, "expire_at": now - 1})), 3005, "connection expired"),
        (token(&json!({"sub": "43", "exp": now + 60})), 3500, "invalid token"),
        (signed_with("another secret", &json!({"alg": "HS256"}), &json!({"sub": "42"})), 3500, "invalid token"),
        (String::new(), 3501, "bad request"),
    ] {
        let mut client = gateway.user("42");
        client.send(&json!({"id": 2, "refresh": {"token": refresh}}));
        client.expect_close(code, reason);
    }
}

fn who_connects_again_and_again_reaches_the_limit(gateway: &Gateway) {
    let (first, _second, _other) = (gateway.user("42"), gateway.user("42"), gateway.user("7"));
    let mut third = gateway.unconnected();
    third.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "42"}))}}));
    third.expect_close(3504, "connection limit");
    gateway.until("they are counted", || gateway.sum(Number::Sessions) == 3);
    assert_eq!((gateway.sum(Number::Users), gateway.sum(Number::UserSessions)), (2, 3));
    drop(first);
    gateway.until("the first has left", || gateway.sum(Number::Sessions) == 2);
    gateway.user("42");
}

fn without_a_token_nobody_comes_in(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {}}));
    client.expect_close(3501, "bad request");
    gateway.user("42").expect_silence(2);
}

fn tokens_count_also_where_nobody_needs_one(gateway: &Gateway) {
    gateway.centrifugo().expect_silence(2);
    gateway.user("42").expect_silence(2);
    expect_invalid(gateway, &signed_with("another", &json!({"alg": "HS256"}), &json!({"sub": "42"})), "another secret");
}

fn a_plain_client_brings_a_token_too(gateway: &Gateway) {
    let now = gateway.unix();
    let open = |token: &str| {
        let client = gateway.websocket("/connection/uni_websocket");
        client.send(&json!({"token": token, "subs": {"open:a": {}, "dialog:b#42": {}, "dialog:c#7": {}}}));
        client
    };
    let mut client = open(&token(&json!({"sub": "42", "exp": now + 3600, "channels": ["told:d"]})));
    let told = client.json()["connect"].take();
    let channels: Vec<_> = told["subs"].as_object().expect("channels").keys().collect();
    assert_eq!(channels, ["dialog:b#42", "open:a", "told:d"], "what the user may have, and what the token says");
    assert!(told["expires"] == json!(true) && told["ttl"].is_u64(), "{told}");
    for (token, code, reason) in [
        (token(&json!({"sub": "42", "exp": now - 1})), 3005, "connection expired"),
        ("x".to_owned(), 3500, "invalid token"),
        (String::new(), 3501, "bad request"),
    ] {
        let mut client = open(&token);
        let disconnect = client.json();
        assert_eq!(disconnect, json!({"disconnect": {"code": code, "reason": reason}}));
        assert_eq!(client.next(), Seen::Close(Some(code), reason.into()));
    }
}

fn a_backend_disconnects_a_user(gateway: &Gateway) {
    let of = |worker, user: &str| gateway.user_of(worker, &json!({"sub": user})).0;
    let (mut first, mut second, mut other) = (of(0, "42"), of(1, "42"), of(1, "4"));
    let spared = of(0, "42");
    let matching = Matching { user: Some("42".into()), whitelist: vec![spared.name.clone()], ..Matching::default() };
    assert_eq!(gateway.disconnect(&matching, &Disconnect::FORCE_NO_RECONNECT), 2);
    first.expect_close(3503, "force disconnect");
    second.expect_close(3503, "force disconnect");
    other.expect_silence(2);
}

fn tokens_are_judged_by_a_clock_that_was_set(gateway: &Gateway) {
    let set = |unix: u64| {
        gateway.order(|| Order::UnixOrigin(Duration::from_secs(unix).saturating_sub(gateway.now())));
        // Answered by the same worker, which has read the order before.
        gateway.publish("open:fence", &json!(1)).expect("published");
    };
    let now = gateway.unix();
    let until = token(&json!({"sub": "42", "exp": now + 600}));
    expect_accepted(gateway, &until, "ten minutes are left");
    let (mut client, told) = gateway.user_of(0, &json!({"sub": "42", "exp": now + 600}));
    assert!(told["ttl"].as_u64().is_some_and(|ttl| ttl > 590), "{told}");
    set(now + 3600);
    assert_eq!(connect(gateway, &until).1["error"]["code"], json!(109), "an hour later");
    // Who is connected keeps the time that it was told.
    client.expect_silence(2);
    set(now);
    expect_accepted(gateway, &until, "and back");
}

fn a_crowd_with_signatures_comes_in_one_after_the_other(gateway: &Gateway) {
    let count = SIGNATURES_PER_TICK * 4;
    let mut crowd: Vec<Client> = (0..count).map(|_| gateway.unconnected()).collect();
    for client in &crowd {
        client.send(&json!({"id": 1, "connect": {"token": ES256.trim()}}));
    }
    for client in &mut crowd {
        let reply = client.json();
        assert!(reply["id"] == json!(1) && reply["connect"]["client"].is_string(), "{reply}");
    }
    crowd.iter_mut().for_each(|client| client.expect_silence(2));
    assert_eq!(gateway.sum(Number::Sessions), count as u64);
    let (_, reply) = connect(gateway, ES256.trim());
    assert!(reply["connect"]["client"].is_string(), "{reply}");
}

fn who_leaves_before_its_turn_leaves_nothing(gateway: &Gateway) {
    let crowd: Vec<Client> = (0..SIGNATURES_PER_TICK * 4).map(|_| gateway.unconnected()).collect();
    for client in &crowd {
        client.send(&json!({"id": 1, "connect": {"token": ES256.trim()}}));
    }
    drop(crowd);
    let (mut client, reply) = connect(gateway, ES256.trim());
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    client.expect_silence(2);
}

fn a_plain_crowd_comes_in_as_well(gateway: &Gateway) {
    let connect = json!({"token": ES256.trim(), "subs": {"open:a": {}}}).to_string();
    let query: String = connect.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let target = format!("/connection/uni_websocket?cf_connect={query}");
    let mut crowd: Vec<Client> = (0..SIGNATURES_PER_TICK * 3).map(|_| gateway.client()).collect();
    for client in &crowd {
        client.write(crate::support::client::upgrade_request(&target, None, &[]));
    }
    for client in &mut crowd {
        client.await_upgrade(None);
        let told = client.json();
        assert_eq!(told["connect"]["subs"], json!({"open:a": {}}), "{told}");
    }
    gateway.publish("open:a", &json!(1)).expect("published");
    for client in &mut crowd {
        assert_eq!(client.json(), json!({"channel": "open:a", "pub": {"data": 1}}));
    }
}

fn a_command_that_waits_for_its_turn_counts_once(gateway: &Gateway) {
    let (mut client, _) = connect(gateway, ES256.trim());
    let crowd: Vec<Client> = (0..SIGNATURES_PER_TICK * 4).map(|_| gateway.unconnected()).collect();
    for one in &crowd {
        one.send(&json!({"id": 1, "connect": {"token": ES256.trim()}}));
    }
    let begun = gateway.now();
    let refreshed = client.call(json!({"id": 2, "refresh": {"token": ES256.trim()}}));
    assert!(refreshed["refresh"].is_object(), "{refreshed}");
    let subscribed = client.call(json!({"id": 3, "subscribe": {"channel": "open:a"}}));
    // A bad network may have taken so long that a third command has come back.
    if gateway.now() - begun < Duration::from_secs(1) {
        assert_eq!(subscribed, json!({"id": 3, "subscribe": {}}), "the second of two");
        let refused = client.call(json!({"id": 4, "subscribe": {"channel": "open:b"}}));
        assert_eq!(refused["error"]["code"], json!(111), "the third");
    }
}

fn commands_behind_a_connect_wait_for_its_turn(gateway: &Gateway) {
    let mut crowd: Vec<Client> = (0..SIGNATURES_PER_TICK * 2).map(|_| gateway.unconnected()).collect();
    let connect = json!({"id": 1, "connect": {"token": ES256.trim()}});
    let subscribe = json!({"id": 2, "subscribe": {"channel": "open:a"}});
    let publish = json!({"id": 3, "unsubscribe": {"channel": "open:a"}});
    for client in &crowd {
        client.send_text(&format!("{connect}\n{subscribe}\n{publish}\n"));
        client.send(&json!({"id": 4, "subscribe": {"channel": "open:b"}}));
    }
    for client in &mut crowd {
        let ids: Vec<_> = (0..4).map(|_| client.json()["id"].as_u64().expect("a reply")).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
    }
    let mut last = crowd.pop().expect("a client");
    last.write(crate::support::client::close_frame(Some(1000), ""));
    assert_eq!(last.next(), Seen::Close(Some(1000), String::new()));
    assert_eq!(last.next(), Seen::End(Ended::Fin));
}

fn who_brings_an_unknown_key_is_told_to_come_again(gateway: &Gateway) {
    let temporary = json!({"id": 1, "error": {"code": 100, "message": "internal server error", "temporary": true}});
    let (mut client, reply) = connect(gateway, ES256.trim());
    assert_eq!(reply, temporary);
    gateway.expect_keys_wanted();
    client.send(&json!({"id": 2, "connect": {}}));
    client.expect_close(3501, "bad request");
    let mut plain = gateway.websocket("/connection/uni_websocket");
    plain.send(&json!({"token": ES256.trim()}));
    assert_eq!(plain.json()["disconnect"]["code"], json!(3004), "it comes again");
    // The keys have come.
    let key = Key::ecdsa(P256).expect("a key");
    gateway.reload(|s| s.tokens.published = Some(vec![key]));
    gateway.until("the new keys count", || connect(gateway, ES256.trim()).1["connect"].is_object());
}
