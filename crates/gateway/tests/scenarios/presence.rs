//! Who is subscribed: asked for by command, and told as others come and go.

use crate::support::{Client, Gateway, Setup, in_every_format, on_every_driver};
use gateway::letter::Refused;
use gateway::stats::Number;
use hub::{Presence, PresenceQuery, PresenceStats};
use serde_json::{Value, json};

in_every_format! {
    who_is_present_is_who_is_subscribed: Setup::with_presence().workers(3),
    presence_is_for_whom_the_namespace_says: Setup::with_presence(),
    everybody_who_listens_is_told_who_comes_and_goes_and_nobody_else: Setup::with_presence().workers(3),
    a_client_is_told_of_its_own_join_behind_its_reply: Setup::with_presence().workers(2),
}

on_every_driver! {
    a_client_that_dies_is_gone: Setup::with_presence().workers(2),
    a_client_that_dies_before_its_answer_leaves_nobody_behind: Setup::with_presence().workers(2),
    a_plain_client_is_told_where_everybody_is: Setup::with_presence().workers(2),
    above_a_number_of_subscribers_nobody_is_told: few_listeners(),
    what_is_known_of_nobody_costs_nothing: Setup::with_presence().workers(2),
    an_answer_that_is_larger_than_a_reply_may_be_is_an_error: Setup::with_presence().with(|s| s.limits.reply_bytes_max = 440),
    backends_ask_the_same: Setup::with_presence().workers(2),
    a_client_that_rejects_gaps_is_never_announced: with_history(),
    a_slow_client_is_spared_where_its_policy_leaves_out: Setup::with_presence().with(small_outbox),
}

fn few_listeners() -> Setup {
    let mut setup = Setup::with_presence();
    setup.home.join_leave_subscribers_max = 2;
    setup
}

fn with_history() -> Setup {
    let mut setup = Setup::with_history();
    setup = setup.with(|s| {
        let kept = s.namespaces.of("kept:a").expect("a namespace").1.clone();
        let told = hub::Namespace { presence: true, join_leave: true, force_push_join_leave: true, ..kept };
        s.namespaces = hub::Namespaces::new(hub::Namespace::default(), vec![told]).expect("good options");
    });
    setup
}

fn small_outbox(settings: &mut conn::Settings) {
    settings.limits.outbox_bytes_max = 400 * 1024;
    settings.limits.outbox_high_water = 200 * 1024;
    settings.limits.outbox_low_water = 100 * 1024;
}

/// Subscribes and listens, where that is asked for.
fn subscribe(client: &mut Client, channel: &str, listens: bool) {
    let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel, "join_leave": listens}}));
    assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
}

fn unsubscribe(client: &mut Client, channel: &str) {
    assert_eq!(client.call(json!({"id": 3, "unsubscribe": {"channel": channel}})), json!({"id": 3, "unsubscribe": {}}));
}

/// Whose ids a presence command brings, sorted.
fn present(client: &mut Client, channel: &str) -> Vec<String> {
    let reply = client.call(json!({"id": 6, "presence": {"channel": channel}}));
    let Some(present) = reply["presence"].get("presence").and_then(Value::as_object) else { return Vec::new() };
    let names = present.iter().map(|(id, info)| {
        assert_eq!(info, &json!({ "user": "", "client": id }), "an anonymous client");
        id.clone()
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn stats(client: &mut Client, channel: &str) -> Value {
    client.call(json!({"id": 7, "presence_stats": {"channel": channel}}))["presence_stats"].take()
}

fn counted(clients: u32, users: u32) -> Value {
    json!({"num_clients": clients, "num_users": users})
}

fn error(client: &mut Client, command: &str, channel: &str) -> Value {
    client.call(json!({"id": 8, command: {"channel": channel}}))["error"]["code"].take()
}

fn told(field: &str, channel: &str, who: &str) -> Value {
    json!({"push": {"channel": channel, field: {"info": {"user": "", "client": who}}}})
}

fn names(clients: &[&Client]) -> Vec<String> {
    let mut names: Vec<String> = clients.iter().map(|client| client.name.clone()).collect();
    names.sort();
    names
}

/// An unsubscribe is answered before the channel's home has heard of it, and another worker's question may come first.
fn until_guests(gateway: &Gateway, count: u64) {
    gateway.until("the homes have heard of it", || gateway.sum(Number::Guests) == count);
}

fn who_is_present_is_who_is_subscribed(gateway: &Gateway) {
    let (mut first, mut second, mut third) =
        (gateway.centrifugo_of(0), gateway.centrifugo_of(1), gateway.centrifugo_of(2));
    assert!(present(&mut first, "list:a").is_empty());
    assert_eq!(stats(&mut first, "list:a"), counted(0, 0));
    subscribe(&mut first, "list:a", false);
    subscribe(&mut second, "list:a", false);
    // Who asks need not be there.
    assert_eq!(present(&mut third, "list:a"), names(&[&first, &second]));
    assert_eq!(stats(&mut third, "list:a"), counted(2, 1));
    subscribe(&mut third, "list:a", false);
    subscribe(&mut third, "list:b", false);
    unsubscribe(&mut first, "list:a");
    until_guests(gateway, 3);
    assert_eq!(present(&mut first, "list:a"), names(&[&second, &third]));
    assert_eq!(present(&mut first, "list:b"), names(&[&third]));
    unsubscribe(&mut second, "list:a");
    unsubscribe(&mut third, "list:a");
    until_guests(gateway, 1);
    assert!(present(&mut first, "list:a").is_empty());
    // And again: the same connection comes back.
    subscribe(&mut second, "list:a", false);
    assert_eq!((present(&mut first, "list:a"), stats(&mut first, "list:a")), (names(&[&second]), counted(1, 1)));
}

fn presence_is_for_whom_the_namespace_says(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let long = format!("list:{}", "x".repeat(300));
    for command in ["presence", "presence_stats"] {
        for (channel, code) in [
            ("list:a", Value::Null),
            ("room:a", json!(103)),
            ("hall:a", json!(103)),
            ("gone:a", json!(108)),
            ("skip:a", json!(108)),
            ("none:a", json!(102)),
            (&*long, json!(107)),
        ] {
            assert_eq!(error(&mut client, command, channel), code, "{command} {channel}");
        }
    }
    subscribe(&mut client, "room:a", false);
    assert_eq!(error(&mut client, "presence", "room:a"), Value::Null);
    assert_eq!(error(&mut client, "presence", "room:b"), json!(103), "of another channel");
    unsubscribe(&mut client, "room:a");
    assert_eq!(error(&mut client, "presence", "room:a"), json!(103));
    client.send(&json!({"id": 9, "presence": {"channel": ""}}));
    client.expect_close(3501, "bad request");
}

fn everybody_who_listens_is_told_who_comes_and_goes_and_nobody_else(gateway: &Gateway) {
    let (mut listener, mut deaf) = (gateway.centrifugo_of(0), gateway.centrifugo_of(1));
    let (mut stranger, mut guest) = (gateway.centrifugo_of(0), gateway.centrifugo_of(2));
    subscribe(&mut listener, "room:a", true);
    assert_eq!(listener.json(), told("join", "room:a", &listener.name));
    subscribe(&mut deaf, "room:a", false);
    assert_eq!(listener.json(), told("join", "room:a", &deaf.name));
    subscribe(&mut stranger, "room:b", true);
    assert_eq!(stranger.json(), told("join", "room:b", &stranger.name));
    for _ in 0..2 {
        subscribe(&mut guest, "room:a", false);
        assert_eq!(listener.json(), told("join", "room:a", &guest.name));
        unsubscribe(&mut guest, "room:a");
        assert_eq!(listener.json(), told("leave", "room:a", &guest.name));
    }
    // A namespace that tells everybody, and one that tells nobody who asks.
    subscribe(&mut guest, "hall:a", false);
    assert_eq!(guest.json(), told("join", "hall:a", &guest.name));
    subscribe(&mut guest, "list:a", true);
    for client in [&mut listener, &mut deaf, &mut stranger, &mut guest] {
        client.expect_silence(50);
    }
    gateway.until("all pushes are counted", || gateway.sum(Number::JoinLeavePushes) == 8);
}

fn a_client_is_told_of_its_own_join_behind_its_reply(gateway: &Gateway) {
    for worker in 0..2 {
        let mut client = gateway.centrifugo_of(worker);
        let channel = gateway.channel_in("hall:", 0);
        client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
        assert_eq!(client.json(), json!({"id": 2, "subscribe": {}}));
        assert_eq!(client.json(), told("join", &channel, &client.name));
        unsubscribe(&mut client, &channel);
        client.expect_silence(60);
    }
}

fn a_client_that_dies_is_gone(gateway: &Gateway) {
    let mut listener = gateway.centrifugo_of(0);
    subscribe(&mut listener, "hall:a", false);
    assert_eq!(listener.json(), told("join", "hall:a", &listener.name));
    let mut guest = gateway.centrifugo_of(1);
    subscribe(&mut guest, "hall:a", false);
    let name = guest.name.clone();
    assert_eq!(listener.json(), told("join", "hall:a", &name));
    guest.reset();
    assert_eq!(listener.json(), told("leave", "hall:a", &name));
}

fn a_client_that_dies_before_its_answer_leaves_nobody_behind(gateway: &Gateway) {
    let channel = gateway.channel_in("hall:", 0);
    let mut listener = gateway.centrifugo_of(0);
    subscribe(&mut listener, &channel, false);
    assert_eq!(listener.json(), told("join", &channel, &listener.name));
    let guest = gateway.centrifugo_of(1);
    let name = guest.name.clone();
    guest.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
    guest.reset();
    drop(guest);
    gateway.until("the guest is gone", || gateway.sum(Number::Connections) == 1);
    // Whether it had come at all is a matter of luck.
    gateway.until("its withdrawal has come", || gateway.sum(Number::Guests) == 1);
    let mut last = gateway.centrifugo_of(1);
    subscribe(&mut last, &channel, false);
    let mut pushes = vec![listener.json()];
    while pushes[pushes.len() - 1] != told("join", &channel, &last.name) {
        pushes.push(listener.json());
    }
    pushes.pop();
    assert!(
        pushes.is_empty() || pushes == [told("join", &channel, &name), told("leave", &channel, &name)],
        "{pushes:?}"
    );
}

fn a_plain_client_is_told_where_everybody_is(gateway: &Gateway) {
    let mut plain = gateway.websocket_of(0, "/connection/uni_websocket?channels=hall:a,room:a");
    let connected = plain.json();
    let name = connected["connect"]["client"].as_str().expect("an id").to_owned();
    let of = |field: &str, who: &str| json!({"channel": "hall:a", field: {"info": {"user": "", "client": who}}});
    assert_eq!(plain.json(), of("join", &name), "its own, behind the connect push");
    let mut guest = gateway.centrifugo_of(1);
    subscribe(&mut guest, "room:a", false);
    subscribe(&mut guest, "hall:a", false);
    assert_eq!(plain.json(), of("join", &guest.name));
    assert_eq!(guest.json(), told("join", "hall:a", &guest.name));
    unsubscribe(&mut guest, "hall:a");
    assert_eq!(plain.json(), of("leave", &guest.name));
}

fn above_a_number_of_subscribers_nobody_is_told(gateway: &Gateway) {
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.centrifugo()).collect();
    for client in &mut clients {
        subscribe(client, "hall:a", false);
    }
    assert_eq!(clients[0].json(), told("join", "hall:a", &clients[0].name.clone()));
    assert_eq!(clients[0].json(), told("join", "hall:a", &clients[1].name.clone()));
    assert_eq!(clients[1].json(), told("join", "hall:a", &clients[1].name.clone()));
    gateway.until("two are not announced", || gateway.sum(Number::Unannounced) == 2);
    // Two leave whose joins nobody was told of; then one whose join was told.
    unsubscribe(&mut clients[3], "hall:a");
    unsubscribe(&mut clients[2], "hall:a");
    unsubscribe(&mut clients[1], "hall:a");
    assert_eq!(clients[0].json(), told("leave", "hall:a", &clients[1].name.clone()));
    clients.iter_mut().for_each(|client| client.expect_silence(70));
}

fn what_is_known_of_nobody_costs_nothing(gateway: &Gateway) {
    let client = gateway.subscriber_of(1, "gone:a");
    assert_eq!(gateway.sum(Number::Guests), 0);
    let mut known = gateway.centrifugo();
    subscribe(&mut known, "list:a", true);
    gateway.until("it is known", || gateway.sum(Number::Guests) == 1);
    assert_eq!(gateway.sum(Number::Announced), 0);
    drop((client, known));
}

fn an_answer_that_is_larger_than_a_reply_may_be_is_an_error(gateway: &Gateway) {
    let mut clients: Vec<Client> = (0..5).map(|_| gateway.centrifugo()).collect();
    for (count, client) in clients.iter_mut().enumerate() {
        subscribe(client, "list:a", false);
        let code = error(client, "presence", "list:a");
        assert_eq!(code, if count < 4 { Value::Null } else { json!(106) }, "{count}");
        assert_eq!(stats(client, "list:a"), counted(count as u32 + 1, 1));
    }
}

fn backends_ask_the_same(gateway: &Gateway) {
    let mut client = gateway.centrifugo_of(1);
    subscribe(&mut client, "hall:a", false);
    let Ok(Presence::Clients(clients)) = gateway.presence("hall:a", PresenceQuery::Clients) else { panic!("clients") };
    assert_eq!(clients.iter().map(|info| &*info.client).collect::<Vec<_>>(), [&*client.name]);
    let stats = PresenceStats { clients: 1, users: 1 };
    assert_eq!(gateway.presence("hall:a", PresenceQuery::Stats), Ok(Presence::Stats(stats)));
    assert_eq!(gateway.presence("gone:a", PresenceQuery::Clients), Err(Refused::NoPresence));
}

fn a_client_that_rejects_gaps_is_never_announced(gateway: &Gateway) {
    let mut listener = gateway.centrifugo();
    let reply = listener.call(json!({"id": 2, "subscribe": {"channel": "kept:a"}}));
    let epoch = reply["subscribe"]["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(listener.json(), told("join", "kept:a", &listener.name));
    let mut guest = gateway.centrifugo();
    let asks = |epoch: &str| json!({"channel": "kept:a", "recover": true, "epoch": epoch, "flag": 2});
    let refused = guest.call(json!({"id": 2, "subscribe": asks("elsewhr")}));
    assert_eq!(refused["error"]["code"], 112);
    let granted = guest.call(json!({"id": 3, "subscribe": asks(&epoch)}));
    assert_eq!(granted["subscribe"]["recovered"], true);
    assert_eq!(listener.json(), told("join", "kept:a", &guest.name), "the first it hears of it");
    listener.expect_silence(80);
    gateway.until("both are known", || gateway.sum(Number::Guests) == 2);
}

fn a_slow_client_is_spared_where_its_policy_leaves_out(gateway: &Gateway) {
    let mut slow = gateway.centrifugo();
    subscribe(&mut slow, "skip:a", false);
    slow.set_reading(false);
    let mut rounds = 0;
    while gateway.sum(Number::JoinLeaveSkipped) == 0 {
        rounds += 1;
        // The kernel's buffers take some first.
        assert!(rounds < 2000, "it must come to that at some time");
        gateway.publish("skip:a", &json!("x".repeat(32 * 1024))).expect("published");
        let mut guest = gateway.centrifugo();
        subscribe(&mut guest, "skip:a", false);
        unsubscribe_behind_own_join(&mut guest, "skip:a");
    }
    slow.set_reading(true);
    let mut last = gateway.centrifugo();
    // It is told again once it has caught up, and was never closed.
    let mut told_of_last = false;
    while !told_of_last {
        subscribe(&mut last, "skip:a", false);
        unsubscribe_behind_own_join(&mut last, "skip:a");
        gateway.publish("skip:a", &json!("a fence")).expect("published");
        loop {
            let push = slow.json();
            told_of_last |= push == told("join", "skip:a", &last.name);
            if push["push"]["pub"]["data"] == "a fence" {
                break;
            }
        }
    }
    assert_eq!(gateway.closes(conn::Side::Ours, 3008), 0);
}

fn unsubscribe_behind_own_join(client: &mut Client, channel: &str) {
    assert_eq!(client.json(), told("join", channel, &client.name));
    unsubscribe(client, channel);
}
