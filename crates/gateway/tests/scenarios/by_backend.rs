//! What a backend does to connected users: gives and takes channels, ends and prolongs connections.

use crate::support::client::{Format, push};
use crate::support::token::token;
use crate::support::{Gateway, Setup, in_every_format, on_every_driver, on_the_simulator};
use conn::auth::token::{Changed, ServerSide};
use conn::{Encoding, Given};
use gateway::letter::{Action, Matching};
use gateway::stats::Number;
use hub::{Channel, Offset, Presence, PresenceQuery, Since, SinceEpoch};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

in_every_format! {
    a_backend_ends_a_subscription: Setup::with_tokens().workers(2),
    a_backend_ends_a_connection_later_or_never: Setup::with_tokens(),
    a_backend_gives_a_channel: Setup::with_tokens().workers(2),
    a_given_channel_shows_what_it_was_given_with: Setup::with_tokens().workers(2),
    a_given_channel_recovers_by_its_position: Setup::with_tokens().workers(2),
    a_given_channel_goes_on_where_the_backend_says: Setup::with_tokens().workers(2),
    a_given_channel_ends_with_its_time: Setup::with_tokens(),
    a_backend_sees_whose_connections_there_are: Setup::with_tokens(),
}

on_every_driver! {
    a_channel_too_many_ends_the_connection: Setup::with_tokens().with(|s| s.limits.channels_max = 2),
    what_is_too_much_to_follow_a_given_channel_is_left_out: Setup::with_tokens().with(|s| s.limits.reply_bytes_max = 2048),
}

on_the_simulator! {
    a_subscribe_under_way_is_ended_as_well: Setup::with_tokens().workers(2),
    a_channel_under_way_is_given_once_and_may_be_taken: Setup::with_tokens().workers(2),
    a_channel_for_a_crowd_waits_for_room: Setup::with_tokens().workers(2).mailbox(64, 16),
    a_channel_that_no_home_grants_ends_the_connection: Setup::with_tokens().workers(2),
}

fn of_user(user: &str) -> Matching {
    Matching { user: Some(user.into()), ..Matching::default() }
}

fn a_backend_ends_a_subscription(gateway: &Gateway) {
    let unsubscribe = Action::Unsubscribe(Channel::new("open:a"));
    let ended = json!({"push": {"channel": "open:a", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}});
    let (mut first, mut given) =
        (gateway.user("42"), gateway.user_of(1, &json!({"sub": "42", "channels": ["open:a"]})).0);
    let (mut elsewhere, mut other) = (gateway.user("42"), gateway.user("7"));
    first.subscribe(2, "open:a");
    first.subscribe(3, "open:b");
    other.subscribe(2, "open:a");
    assert_eq!(gateway.act(&of_user("42"), &unsubscribe), 2, "one of the three was not subscribed");
    assert_eq!((first.json(), given.json()), (ended.clone(), ended));
    gateway.publish("open:a", &json!(1)).expect("published");
    gateway.publish("open:b", &json!(2)).expect("published");
    assert_eq!(other.json(), push("open:a", &json!(1)));
    assert_eq!(first.json(), push("open:b", &json!(2)), "the other one goes on");
    elsewhere.expect_silence(4);
    // It may come back where it may.
    first.subscribe(5, "open:a");

    let mut plain = gateway.websocket("/connection/uni_websocket");
    plain.send(&json!({"token": token(&json!({"sub": "8"})), "subs": {"open:a": {}}}));
    assert!(plain.json()["connect"].is_object());
    assert_eq!(gateway.act(&of_user("8"), &unsubscribe), 1);
    let told = json!({"channel": "open:a", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}});
    assert_eq!(plain.json(), told);
}

fn a_subscribe_under_way_is_ended_as_well(gateway: &Gateway) {
    let far = gateway.channel_in("open:", 1);
    let mut client = gateway.user("42");
    gateway.freeze(1, true);
    client.send_text(&format!(
        "{}\n{}\n{}\n",
        json!({"id": 2, "subscribe": {"channel": far}}),
        json!({"id": 3, "unsubscribe": {"channel": far}}),
        json!({"id": 4, "unsubscribe": {"channel": "open:x"}}),
    ));
    gateway.pass(Duration::from_millis(500));
    let matching = Matching { client: Some(client.name.clone()), ..Matching::default() };
    assert_eq!(gateway.act_on(0, &matching, &Action::Unsubscribe(Channel::new(&far))), 1);
    let refused = json!({"id": 2, "error": {"code": 103, "message": "permission denied"}});
    assert_eq!(
        [client.json(), client.json(), client.json()],
        [refused, json!({"id": 3, "unsubscribe": {}}), json!({"id": 4, "unsubscribe": {}}),]
    );
    gateway.freeze(1, false);
    gateway.publish(&far, &json!(1)).expect("published");
    client.expect_silence(5);
    client.subscribe(6, &far);
    gateway.publish(&far, &json!(2)).expect("published");
    assert_eq!(client.json(), push(&far, &json!(2)), "once");
}

fn a_backend_ends_a_connection_later_or_never(gateway: &Gateway) {
    let mut client = gateway.user("42");
    assert_eq!(gateway.act(&of_user("42"), &Action::Refresh(Some(gateway.unix() + 600))), 1);
    let told = client.json()["push"]["refresh"].take();
    let ttl = told["ttl"].as_u64().expect("a number");
    assert!(told["expires"] == json!(true) && (590..=600).contains(&ttl), "{told}");
    assert_eq!(gateway.act(&of_user("42"), &Action::Refresh(None)), 1);
    assert_eq!(client.json(), json!({"push": {"refresh": {}}}));
    assert_eq!(gateway.act(&of_user("42"), &Action::Refresh(Some(gateway.unix() + 1))), 1);
    assert_eq!(client.json()["push"]["refresh"]["ttl"], json!(1));
    client.expect_close(3005, "connection expired");
    let mut late = gateway.user("42");
    assert_eq!(gateway.act(&of_user("42"), &Action::Refresh(Some(gateway.unix() - 1))), 1);
    late.expect_close(3005, "connection expired");
}

fn channel(name: &str) -> ServerSide {
    ServerSide { channel: name.to_owned(), info: None, data: None, changed: Changed::default() }
}

fn giving(to: ServerSide, until: Option<u64>) -> Action {
    Action::Subscribe(Arc::new(Given { to, until, since: None }))
}

/// The push of a channel that nobody asked for.
fn given(channel: &str, result: &Value) -> Value {
    json!({"push": {"channel": channel, "subscribe": result}})
}

fn a_backend_gives_a_channel(gateway: &Gateway) {
    let name = "dialog:a";
    let (mut first, mut second) = (gateway.user("42"), gateway.user_of(1, &json!({"sub": "42"})).0);
    let (mut has, mut other) = (gateway.user_of(0, &json!({"sub": "42", "channels": [name]})).0, gateway.user("7"));
    let give = giving(channel(name), None);
    assert_eq!(gateway.act(&of_user("42"), &give), 2, "one of the three has it");
    assert_eq!((first.json(), second.json()), (given(name, &json!({})), given(name, &json!({}))));
    gateway.publish(name, &json!(1)).expect("published");
    for client in [&mut first, &mut second, &mut has] {
        assert_eq!(client.json(), push(name, &json!(1)));
    }
    other.expect_silence(2);
    assert_eq!(gateway.act(&of_user("42"), &give), 0, "all of them have it");
    // It is as good as one of its own: it may be left, and taken.
    first.unsubscribe(3, name);
    assert_eq!(gateway.act(&of_user("42"), &Action::Unsubscribe(Channel::new(name))), 2);
    assert_eq!(second.json()["push"]["unsubscribe"]["code"], json!(2000));
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("none:a"), None)), 0, "no such namespace");

    let mut plain = gateway.websocket("/connection/uni_websocket");
    plain.send(&json!({"token": token(&json!({"sub": "8"}))}));
    assert!(plain.json()["connect"].is_object());
    assert_eq!(gateway.act(&of_user("8"), &give), 1);
    assert_eq!(plain.json(), json!({"channel": name, "subscribe": {}}));
    gateway.publish(name, &json!(2)).expect("published");
    assert_eq!(plain.json(), json!({"channel": name, "pub": {"data": 2}}));
}

fn a_given_channel_shows_what_it_was_given_with(gateway: &Gateway) {
    let json = |text: &str| Some(Arc::from(text.as_bytes()));
    let mut client = gateway.user("42");
    let to = ServerSide { info: json(r#"{"role":"x"}"#), data: json(r#"{"a":[1]}"#), ..channel("told:a") };
    assert_eq!(gateway.act(&of_user("42"), &giving(to, None)), 1);
    assert_eq!(client.json(), given("told:a", &json!({"data": {"a": [1]}})));
    let Ok(Presence::Clients(present)) = gateway.presence("told:a", PresenceQuery::Clients) else { panic!("clients") };
    assert_eq!(present[0].chan_info.as_deref(), Some(&br#"{"role":"x"}"#[..]));
    assert_eq!(client.json()["push"]["join"]["info"]["chan_info"], json!({"role": "x"}));
}

fn a_given_channel_recovers_by_its_position(gateway: &Gateway) {
    gateway.publish("kept:a", &json!(1)).expect("published");
    let mut client = gateway.user("42");
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("kept:a"), None)), 1);
    let told = client.json()["push"]["subscribe"].take();
    let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(told, json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": 1}));
    gateway.publish("kept:a", &json!(2)).expect("published");
    assert_eq!(client.json()["push"]["pub"]["offset"], json!(2));
    let force_recovery = Some(false);
    let plainly = ServerSide { changed: Changed { force_recovery, ..Changed::default() }, ..channel("kept:b") };
    assert_eq!(gateway.act(&of_user("42"), &giving(plainly, None)), 1);
    assert_eq!(client.json(), given("kept:b", &json!({})));
}

/// A channel with a position that the backend knows; "" is an epoch that fits any.
fn giving_since(name: &str, offset: u64, epoch: &str) -> Action {
    let since = Some(Since { offset: Offset(offset), epoch: SinceEpoch::read(epoch) });
    Action::Subscribe(Arc::new(Given { to: channel(name), until: None, since }))
}

fn a_given_channel_goes_on_where_the_backend_says(gateway: &Gateway) {
    let name = "kept:a";
    for n in 1..=3 {
        gateway.publish(name, &json!(n)).expect("published");
    }
    let number = |push: &Value| {
        assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!(name), &push["pub"]["offset"]), "{push}");
        push["pub"]["offset"].as_u64().expect("a number")
    };
    let told = |offset: u64, epoch: &str| match offset {
        0 => json!({"recoverable": true, "positioned": true, "epoch": epoch}),
        offset => json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": offset}),
    };
    let mut asker = gateway.user("7");
    let epoch = asker.call(json!({"id": 2, "subscribe": {"channel": name}}))["subscribe"]["epoch"].take();
    let epoch = epoch.as_str().expect("an epoch");
    // (where the backend says the client is, the epoch, what the client is told, what follows)
    let stale = "nosuchep";
    for (offset, said, position, follow) in
        [(1, epoch, 1, 2..4), (0, "", 0, 1..4), (3, epoch, 3, 4..4), (1, stale, 3, 4..4), (4, epoch, 3, 4..4)]
    {
        let mut client = gateway.user("42");
        assert_eq!(gateway.act(&of_user("42"), &giving_since(name, offset, said)), 1);
        assert_eq!(client.json(), given(name, &told(position, epoch)), "{offset} {said}");
        follow.for_each(|n| assert_eq!(number(&client.json()["push"]), n, "{offset} {said}"));
        client.expect_silence(3);
        drop(client);
        gateway.until("it has left", || gateway.sum(Number::Sessions) == 1);
    }
    let (mut client, mut plain) = (gateway.user("42"), gateway.websocket("/connection/uni_websocket"));
    plain.send(&json!({"token": token(&json!({"sub": "42"}))}));
    assert!(plain.json()["connect"].is_object());
    assert_eq!(gateway.act(&of_user("42"), &giving_since(name, 2, epoch)), 2);
    assert_eq!(plain.json(), json!({"channel": name, "subscribe": told(2, epoch)}));
    assert_eq!(number(&plain.json()), 3);
    assert_eq!(client.json(), given(name, &told(2, epoch)));
    gateway.publish(name, &json!(4)).expect("published");
    assert_eq!([client.json(), client.json()].map(|message| number(&message["push"])), [3, 4]);
    assert_eq!(number(&plain.json()), 4);
}

fn what_is_too_much_to_follow_a_given_channel_is_left_out(gateway: &Gateway) {
    let name = "kept:a";
    let data = |bytes: usize| json!("d".repeat(bytes));
    gateway.publish(name, &data(800)).expect("published");
    gateway.publish(name, &data(800)).expect("published");
    let mut client = gateway.user("42");
    assert_eq!(gateway.act(&of_user("42"), &giving_since(name, 0, "")), 1);
    assert_eq!(client.json()["push"]["subscribe"]["offset"].take(), Value::Null, "0, and so not written");
    assert_eq!(client.json()["push"]["pub"]["offset"], json!(1));
    assert_eq!(client.json()["push"]["pub"]["offset"], json!(2));
    // The publications alone would fit, and with what is around them do not.
    gateway.publish(name, &data(350)).expect("published");
    let mut other = gateway.user("43");
    assert_eq!(gateway.act(&of_user("43"), &giving_since(name, 0, "")), 1);
    assert_eq!(other.json()["push"]["subscribe"]["offset"], json!(3));
    other.expect_silence(3);
    gateway.publish(name, &json!(4)).expect("published");
    assert_eq!(other.json()["push"]["pub"]["offset"], json!(4));
}

fn a_given_channel_ends_with_its_time(gateway: &Gateway) {
    let mut client = gateway.user("42");
    let until = |seconds: i64| Some(gateway.unix().saturating_add_signed(seconds));
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("open:a"), until(-1))), 0, "that time is over");
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("open:b"), until(600))), 1);
    assert_eq!(client.json(), given("open:b", &json!({})));
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("open:a"), until(1))), 1);
    assert_eq!(client.json(), given("open:a", &json!({})));
    client.expect_close(3006, "subscription expired");
}

fn a_channel_too_many_ends_the_connection(gateway: &Gateway) {
    let mut client = gateway.user("42");
    for name in ["open:a", "open:b"] {
        assert_eq!(gateway.act(&of_user("42"), &giving(channel(name), None)), 1);
        assert_eq!(client.json(), given(name, &json!({})));
    }
    assert_eq!(gateway.act(&of_user("42"), &giving(channel("open:c"), None)), 1);
    client.expect_close(3505, "channel limit");
}

fn a_channel_under_way_is_given_once_and_may_be_taken(gateway: &Gateway) {
    let far = gateway.channel_in("open:", 1);
    let give = giving(channel(&far), None);
    let (mut client, mut leaver) = (gateway.user("42"), gateway.user("43"));
    gateway.freeze(1, true);
    let on_first = |user: &str, action: &Action| gateway.act_on(0, &of_user(user), action);
    assert_eq!((on_first("42", &give), on_first("42", &give)), (1, 0));
    assert_eq!(on_first("43", &give), 1);
    leaver.send(&json!({"id": 2, "unsubscribe": {"channel": far}}));
    assert_eq!(on_first("42", &Action::Unsubscribe(Channel::new(&far))), 1);
    assert_eq!(on_first("42", &give), 1, "again");
    gateway.freeze(1, false);
    assert_eq!(client.json(), given(&far, &json!({})), "once");
    assert_eq!(leaver.json(), given(&far, &json!({})));
    assert_eq!(leaver.json(), json!({"id": 2, "unsubscribe": {}}));
    gateway.publish(&far, &json!(1)).expect("published");
    assert_eq!(client.json(), push(&far, &json!(1)));
    client.expect_silence(3);
    leaver.expect_silence(3);
}

fn a_channel_that_no_home_grants_ends_the_connection(gateway: &Gateway) {
    let far = gateway.channel_in("open:", 1);
    let mut client = gateway.user("42");
    gateway.freeze(1, true);
    assert_eq!(gateway.act_on(0, &of_user("42"), &giving(channel(&far), None)), 1);
    // The home hears of it when it is not worth doing any more.
    gateway.pass(Duration::from_secs(11));
    gateway.freeze(1, false);
    client.expect_close(3004, "internal server error");
}

fn a_backend_sees_whose_connections_there_are(gateway: &Gateway) {
    let (mut first, mut other) = (gateway.user("42"), gateway.user("7"));
    other.subscribe(2, "open:c");
    first.subscribe(2, "open:a");
    first.subscribe(3, "open:b");
    first.unsubscribe(4, "open:a");
    let mut plain = gateway.websocket("/connection/uni_websocket");
    plain.send(&json!({"token": token(&json!({"sub": "42"})), "subs": {"open:a": {}}}));
    assert!(plain.json()["connect"].is_object());
    let (count, mut found) = gateway.described_on(0, &of_user("42"), 9);
    found.sort_by_key(|one| one.encoding == Encoding::Plain);
    let seen: Vec<_> = found.iter().map(|one| (one.encoding, &*one.channels[0], one.channels.len())).collect();
    let speaks = match gateway.format() {
        Format::Json => Encoding::CentrifugoJson,
        Format::Protobuf => Encoding::CentrifugoProtobuf,
    };
    assert_eq!((count, seen), (2, vec![(speaks, "open:b", 1), (Encoding::Plain, "open:a", 1)]));
    assert!(found[0].client == first.name && found.iter().all(|one| one.user == "42"), "{found:?}");
    let (count, found) = gateway.described_on(0, &of_user("42"), 1);
    assert_eq!((count, found.len()), (1, 1), "the walk ends there");
    let one = Matching { client: Some(other.name.clone()), ..Matching::default() };
    assert_eq!(&*gateway.described_on(0, &one, 9).1[0].user, "7");
    // More than are described in a tick.
    let crowd: Vec<_> = (0..40).map(|_| gateway.user("many")).collect();
    let (count, found) = gateway.described_on(0, &of_user("many"), 99);
    let is_found = |name: &str| found.iter().any(|one| one.client == name);
    assert!(count == 40 && found.len() == 40 && crowd.iter().all(|client| is_found(&client.name)), "{count} {found:?}");
}

fn a_channel_for_a_crowd_waits_for_room(gateway: &Gateway) {
    let far = gateway.channel_in("open:", 1);
    let mut crowd: Vec<_> = (0..60).map(|_| gateway.user("many")).collect();
    assert_eq!(gateway.act_on(0, &of_user("many"), &giving(channel(&far), None)), 60);
    for client in &mut crowd {
        assert_eq!(client.json(), given(&far, &json!({})));
    }
    gateway.publish(&far, &json!(1)).expect("published");
    for client in &mut crowd {
        assert_eq!(client.json(), push(&far, &json!(1)));
    }
}
