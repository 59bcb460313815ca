//! Centrifugo's protocol on a WebSocket: connect, subscribe, publish, unsubscribe, and what may come in which order.

use crate::support::client::{Format, frame, push, upgrade_request};
use crate::support::schema;
use crate::support::{
    Client, Gateway, Seen, Setup, in_every_format, on_every_driver, on_the_simulator, over_tls_on_real_sockets,
};
use gateway::letter::Refused;
use gateway::stats::Number;
use prost::Message as _;
use serde_json::{Value, json};
use std::time::Duration;
use wire::ws::OpCode;

in_every_format! {
    the_connect_reply_has_exactly_these_fields: Setup::dev(),
    commands_behind_connect_in_one_frame_are_run: Setup::dev(),
    a_publication_of_a_backend_reaches_subscribers_and_nobody_else: Setup::dev(),
    a_publication_of_a_client_names_it_and_reaches_itself_too: Setup::dev(),
    nothing_comes_after_unsubscribe: Setup::dev(),
    unsubscribing_without_a_subscription_is_answered: Setup::dev(),
    an_unsubscribe_behind_its_subscribe_waits_for_it_and_so_does_the_rest: Setup::dev(),
    no_publication_comes_before_the_subscribe_reply: Setup::dev(),
    what_finds_a_full_mailbox_is_refused_for_now: Setup::dev().mailbox(1, 1),
    refusals_in_a_row_need_no_deeper_stack: long_messages().mailbox(1, 1),
    publications_cross_workers_in_order: Setup::dev().workers(3),
    clients_publish_across_workers: Setup::dev().workers(3),
}

on_every_driver! {
    a_payload_arrives_as_it_was_written: Setup::dev(),
    the_format_is_chosen_in_the_handshake: Setup::dev(),
    formats_meet_on_one_channel: Setup::dev().workers(2),
    a_publication_is_encoded_once_for_each_encoding_that_someone_reads: Setup::dev(),
}

over_tls_on_real_sockets! {
    a_publication_of_a_backend_reaches_subscribers_and_nobody_else: Setup::dev(),
    a_publication_of_a_client_names_it_and_reaches_itself_too: Setup::dev(),
    publications_cross_workers_in_order: Setup::dev().workers(3),
    clients_publish_across_workers: Setup::dev().workers(3).in_protobuf(),
    a_payload_arrives_as_it_was_written: Setup::dev(),
}

on_the_simulator! {
    a_client_that_dies_while_it_subscribes_leaves_nothing: Setup::dev().workers(2),
    an_answer_that_comes_too_late_is_an_error_for_now: with_impatient_requests(),
    input_behind_a_waiting_unsubscribe_is_kept: Setup::dev().workers(2),
}

fn the_connect_reply_has_exactly_these_fields(gateway: &Gateway) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.unconnected();
        let mut reply =
            client.call(json!({"id": 7, "connect": {"name": "js", "version": "1", "data": {"any": 1}, "later": 1}}));
        let id = reply["connect"]["client"].take();
        let id = id.as_str().expect("a string").to_owned();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "a UUID");
        let version = reply["connect"]["version"].take();
        assert!(version.as_str().is_some_and(|v| v.starts_with("tidegate ")), "{version}");
        assert_eq!(reply, json!({"id": 7, "connect": {"client": null, "version": null, "ping": 25, "pong": true}}));
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "ids are unique: {ids:?}");
}

fn commands_behind_connect_in_one_frame_are_run(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    let subscribe = |id: u32, channel: &str| json!({"id": id, "subscribe": {"channel": channel, "flag": 1}});
    client.send_text(&format!("{{\"id\":1,\"connect\":{{}}}}\n{}\n{}\n", subscribe(2, "a"), subscribe(3, "b")));
    assert_eq!(client.json()["id"], 1, "connect is answered first");
    let mut rest = [client.json(), client.json()];
    rest.sort_by_key(|reply| reply["id"].as_u64());
    assert_eq!(rest, [json!({"id": 2, "subscribe": {}}), json!({"id": 3, "subscribe": {}})]);
    for channel in ["a", "b"] {
        gateway.publish(channel, &json!("hi")).expect("published");
        assert_eq!(client.json(), push(channel, &json!("hi")));
    }
}

fn a_publication_of_a_backend_reaches_subscribers_and_nobody_else(gateway: &Gateway) {
    let mut subscribers: Vec<Client> = (0..4).map(|_| gateway.subscriber("news")).collect();
    let mut others = [gateway.subscriber("new"), gateway.subscriber("newss"), gateway.centrifugo()];
    for i in 1..=5u64 {
        let published = gateway.publish("news", &json!({"n": i})).expect("published");
        assert_eq!((published.position.offset.0, published.workers), (i, 1));
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.json(), push("news", &json!({"n": i})));
        }
    }
    others.iter_mut().for_each(|other| other.expect_silence(9));
    assert_eq!(gateway.publish("nobody", &json!(1)).expect("published").workers, 0);
}

fn a_publication_of_a_client_names_it_and_reaches_itself_too(gateway: &Gateway) {
    let (mut alice, mut bob) = (gateway.subscriber("chat"), gateway.subscriber("chat"));
    let mut outsider = gateway.centrifugo();
    alice.send(&json!({"id": 3, "publish": {"channel": "chat", "data": {"x": 1}}}));
    let info = json!({"user": "", "client": alice.name});
    let expected = json!({"push": {"channel": "chat", "pub": {"data": {"x": 1}, "info": info}}});
    assert_eq!(bob.json(), expected);
    // Her reply and her own publication come in either order.
    let both = [alice.json(), alice.json()];
    assert!(both.contains(&expected) && both.contains(&json!({"id": 3, "publish": {}})), "{both:?}");
    // Whoever is not subscribed gets the reply alone.
    assert_eq!(
        outsider.call(json!({"id": 2, "publish": {"channel": "chat", "data": 2}})),
        json!({"id": 2, "publish": {}})
    );
    assert_eq!(alice.json()["push"]["pub"]["info"]["client"], outsider.name.as_str());
    outsider.expect_silence(3);
}

fn a_payload_arrives_as_it_was_written(gateway: &Gateway) {
    let mut client = gateway.subscriber("raw");
    for data in [r#"{"b" : 1.0,"a":1e3, "a":"\u00e9é"}"#, "null", r#""line\nbreak""#, "[]", "12345678901234567890123"]
    {
        client.send_text(&format!(r#"{{"id":3,"publish":{{"channel":"raw","data":{data}}}}}"#));
        let texts = [client.text(), client.text()];
        let push = texts.iter().find(|text| text.contains("push")).expect("a push");
        assert!(push.contains(&format!("\"data\":{data}")), "{data} is not in {push}");
    }
}

fn nothing_comes_after_unsubscribe(gateway: &Gateway) {
    let (mut leaver, mut stayer) = (gateway.subscriber("c"), gateway.subscriber("c"));
    for round in 0..5u32 {
        gateway.publish("c", &json!(["before", round])).expect("published");
        assert_eq!(leaver.json(), push("c", &json!(["before", round])));
        assert_eq!(stayer.json(), push("c", &json!(["before", round])));
        leaver.unsubscribe(10, "c");
        gateway.publish("c", &json!(["without", round])).expect("published");
        // When one subscriber has it, all of this worker do.
        assert_eq!(stayer.json(), push("c", &json!(["without", round])));
        leaver.expect_silence(11);
        leaver.subscribe(12, "c");
    }
}

fn unsubscribing_without_a_subscription_is_answered(gateway: &Gateway) {
    let mut client = gateway.subscriber("a");
    client.unsubscribe(3, "b");
    client.unsubscribe(4, "a");
    client.unsubscribe(5, "a");
    client.unsubscribe(6, &"x".repeat(1000));
}

fn an_unsubscribe_behind_its_subscribe_waits_for_it_and_so_does_the_rest(gateway: &Gateway) {
    let mut stayer = gateway.subscriber("c");
    let mut client = gateway.centrifugo();
    let subscribe = |id: u32| json!({"id": id, "subscribe": {"channel": "c"}}).to_string();
    let unsubscribe = |id: u32| json!({"id": id, "unsubscribe": {"channel": "c"}}).to_string();
    let rpc = |id: u32| json!({"id": id, "rpc": {}}).to_string();
    let first = [subscribe(2), unsubscribe(3), rpc(4), subscribe(5), unsubscribe(6), subscribe(7)].join("\n");
    client.write([client.frame_of(&first), client.frame_of(&unsubscribe(8)), client.frame_of(&rpc(9))].concat());
    for id in 2..=9 {
        let reply = client.json();
        assert_eq!(reply["id"], id, "in the order of the commands: {reply}");
        assert_eq!(reply["error"]["code"].as_u64(), (id == 4 || id == 9).then_some(108), "{reply}");
    }
    gateway.publish("c", &json!(1)).expect("published");
    assert_eq!(stayer.json(), push("c", &json!(1)));
    client.expect_silence(10);
}

fn no_publication_comes_before_the_subscribe_reply(gateway: &Gateway) {
    let mut subscribers: Vec<Client> = (0..20).map(|_| gateway.centrifugo()).collect();
    let mut number = 0u64;
    let mut publish = |count: u64| {
        for _ in 0..count {
            gateway.begin_publish("busy", &json!(number)).expect("room");
            number += 1;
        }
    };
    for subscriber in &subscribers {
        publish(2);
        subscriber.send(&json!({"id": 2, "subscribe": {"channel": "busy"}}));
        publish(2);
    }
    let last = 80;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.json(), json!({"id": 2, "subscribe": {}}), "the reply is first");
    }
    gateway.publish("busy", &json!(last)).expect("published");
    for subscriber in &mut subscribers {
        let mut previous: Option<u64> = None;
        while previous != Some(last) {
            let got = subscriber.json()["push"]["pub"]["data"].as_u64().expect("a publication");
            assert!(previous.is_none_or(|previous| got == previous + 1), "{got} after {previous:?}");
            previous = Some(got);
        }
    }
}

fn error_100(id: u32) -> Value {
    json!({"id": id, "error": {"code": 100, "message": "internal server error", "temporary": true}})
}

fn what_finds_a_full_mailbox_is_refused_for_now(gateway: &Gateway) {
    let publish = |id: u32| json!({"id": id, "publish": {"channel": "c", "data": id}}).to_string();
    let subscribe = |id: u32, channel: &str| json!({"id": id, "subscribe": {"channel": channel}}).to_string();
    let mut client = gateway.centrifugo();
    // The first takes the only place; what comes with it is refused at once, and so answered before it.
    client.send_text(&[publish(2), publish(3), subscribe(4, "c")].join("\n"));
    let mut replies = [client.json(), client.json(), client.json()];
    assert_eq!(replies[2], json!({"id": 2, "publish": {}}));
    replies.sort_by_key(|reply| reply["id"].as_u64());
    assert_eq!(replies[1..], [error_100(3), error_100(4)]);
    // Later there is room again.
    client.subscribe(5, "c");
    gateway.publish("c", &json!("hi")).expect("published");
    assert_eq!(client.json(), push("c", &json!("hi")));
    // The control thread has no more places than anybody else.
    let first = gateway.begin_publish("d", &json!(1));
    let second = gateway.begin_publish("d", &json!(2));
    assert!(first.is_ok() && second == Err(Refused::Busy), "{first:?} {second:?}");
    // A plain client cannot be told of one refused channel, so it is asked to come back.
    let mut plain = gateway.websocket("/connection/uni_websocket?channels=a,b");
    assert_eq!(plain.json()["disconnect"]["code"], 3004);
    plain.expect_close(3004, "internal server error");
}

/// Messages that are larger than any production would allow, and replies that fit them.
fn long_messages() -> Setup {
    Setup::dev().with(|s| {
        s.limits.message_bytes_max = 2 << 20;
        s.limits.outbox_bytes_max = 64 << 20;
    })
}

fn refusals_in_a_row_need_no_deeper_stack(gateway: &Gateway) {
    const PAIRS: u64 = 4000;
    let mut message = String::from(r#"{"id":2,"publish":{"channel":"c","data":1}}"#);
    for i in 0..PAIRS {
        // The place is taken by the publish, so each subscribe is refused, which lets the unsubscribe behind it go on.
        message += &format!("\n{{\"id\":{},\"subscribe\":{{\"channel\":\"c\"}}}}", 3 + i * 2);
        message += &format!("\n{{\"id\":{},\"unsubscribe\":{{\"channel\":\"c\"}}}}", 4 + i * 2);
    }
    let mut client = gateway.centrifugo();
    client.send_text(&message);
    let mut refused = 0;
    let mut answered = 0;
    while answered < 1 + 2 * PAIRS {
        let reply = client.json();
        answered += 1;
        refused += u64::from(reply["error"]["code"] == 100);
    }
    assert!(refused > 0, "nothing was refused, so this shows nothing");
    client.expect_silence(1);
}

fn the_format_is_chosen_in_the_handshake(gateway: &Gateway) {
    const URL: &str = "/connection/websocket";
    let (json, protobuf) = (Some("centrifuge-json"), Some("centrifuge-protobuf"));
    let either = Some("centrifuge-protobuf, centrifuge-json");
    for (query, offered, chosen, is_binary) in [
        ("", None, None, false),
        ("", json, json, false),
        ("", Some("other, centrifuge-json"), json, false),
        ("", Some("other"), None, false),
        ("", protobuf, protobuf, true),
        ("", either, json, false),
        ("?format=protobuf", None, None, true),
        ("?cf_protocol=protobuf", None, None, true),
        ("?cf_protocol=protobuf", protobuf, protobuf, true),
        ("?cf_protocol=protobuf", either, protobuf, true),
        ("?cf_protocol=protobuf", Some("other"), None, true),
        ("?cf_protocol=json&format=json", None, None, false),
        ("?cf_protocol=protobuf1", None, None, false),
    ] {
        let mut client = gateway.client();
        let answer = client.upgrade(&format!("{URL}{query}"), offered);
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{query} {offered:?}");
        let connect = r#"{"id":1,"connect":{}}"#;
        match is_binary {
            true => client.write(frame(OpCode::Binary, true, &schema::commands(connect))),
            false => client.send_text(connect),
        }
        match client.next() {
            Seen::Text(text) => assert!(!is_binary && text.contains("connect"), "{query} {offered:?}: {text}"),
            Seen::Binary(reply) => {
                assert!(is_binary, "{query} {offered:?}");
                assert!(schema::replies(&reply).expect("Protobuf")[0]["connect"].is_object());
            }
            other => panic!("{query} {offered:?}: {other:?}"),
        }
    }
    // Asking for both is refused before the handshake.
    let mut client = gateway.client();
    client.write(upgrade_request(&format!("{URL}?format=protobuf"), json, &[]));
    assert_eq!(client.response().status, 400);
    client.end();
}

/// What one client publishes in its format reaches each of the others in theirs.
fn formats_meet_on_one_channel(gateway: &Gateway) {
    let subscribe = json!({"id": 2, "subscribe": {"channel": "c"}});
    let mut clients: Vec<Client> = (0..4)
        .map(|i| {
            let mut client = gateway.connected_of(i / 2, if i % 2 == 0 { Format::Json } else { Format::Protobuf });
            assert_eq!(client.call(subscribe.clone()), json!({"id": 2, "subscribe": {}}));
            client
        })
        .collect();
    let mut plain = gateway.plain("channels=c");
    for publisher in 0..clients.len() {
        let name = clients[publisher].name.clone();
        let data = json!({"from": publisher, "text": "ü\u{2028}\n\"", "many": [1, -2.5e3, null]});
        clients[publisher].send(&json!({"id": 3, "publish": {"channel": "c", "data": data}}));
        let expected = json!({"channel": "c", "pub": {"data": data, "info": {"user": "", "client": name}}});
        for (number, client) in clients.iter_mut().enumerate() {
            let mut got = client.json();
            if number == publisher {
                let next = client.json();
                let (reply, push) = if got.get("push").is_some() { (next, got) } else { (got, next) };
                assert_eq!(reply, json!({"id": 3, "publish": {}}));
                got = push;
            }
            assert_eq!(got, json!({"push": expected}), "client {number}");
        }
        assert_eq!(plain.json(), expected);
    }
    // Of a backend, too; and a payload over many lines is one line to those who read lines.
    let text = "{\n  \"a\":\r\n  [1]\n}";
    clients[1].write(frame(OpCode::Binary, true, &publish_raw("c", text.as_bytes())));
    for client in &mut clients {
        let got = client.json();
        let got = if got["id"] == 4 { client.json() } else { got };
        assert_eq!(got["push"]["pub"]["data"], json!({"a": [1]}));
    }
    assert_eq!(plain.json()["pub"]["data"], json!({"a": [1]}));
}

fn a_publication_is_encoded_once_for_each_encoding_that_someone_reads(gateway: &Gateway) {
    let mut json: Vec<Client> = (0..5).map(|_| gateway.connected_of(0, Format::Json)).collect();
    let mut protobuf: Vec<Client> = (0..5).map(|_| gateway.connected_of(0, Format::Protobuf)).collect();
    let mut plain: Vec<Client> = (0..5).map(|_| gateway.plain("channels=all,plain-only")).collect();
    let mut encodings = 0;
    let mut expect = |channel: &str, readers: &mut [&mut Vec<Client>]| {
        for _ in 0..3 {
            gateway.publish(channel, &json!("x")).expect("published");
            let clients = readers.iter_mut().flat_map(|clients| clients.iter_mut());
            clients.for_each(|client| assert!(client.json().to_string().contains("\"x\"")));
        }
        encodings += 3 * readers.len() as u64;
        gateway.until("it is counted", || gateway.sum(Number::Encodings) >= encodings);
        assert_eq!(gateway.sum(Number::Encodings), encodings, "{channel}");
    };
    expect("nobody", &mut []);
    expect("plain-only", &mut [&mut plain]);
    json.iter_mut().for_each(|client| client.subscribe(2, "all"));
    expect("all", &mut [&mut plain, &mut json]);
    protobuf.iter_mut().for_each(|client| client.subscribe(2, "all"));
    expect("all", &mut [&mut plain, &mut json, &mut protobuf]);
    json.clear();
    gateway.until("they have gone", || gateway.sum(Number::Sessions) == 10);
    expect("all", &mut [&mut plain, &mut protobuf]);
}

/// A publish command with a payload that may be no JSON.
fn publish_raw(channel: &str, data: &[u8]) -> Vec<u8> {
    let publish = schema::PublishRequest { channel: channel.to_owned(), data: data.to_vec() };
    schema::Command { id: 4, publish: Some(publish), ..Default::default() }.encode_length_delimited_to_vec()
}

/// Subscribers of one channel on every worker, and one of another channel.
fn subscribers_everywhere(gateway: &Gateway, channel: &str) -> (Vec<Client>, Client) {
    let subscribers = (0..9).map(|i| gateway.subscriber_of(i % 3, channel)).collect();
    (subscribers, gateway.subscriber_of(1, "other"))
}

fn publications_cross_workers_in_order(gateway: &Gateway) {
    for home in 0..gateway.workers() {
        let channel = gateway.channel_of(home);
        let (mut subscribers, mut other) = subscribers_everywhere(gateway, &channel);
        for i in 0..20 {
            let published = gateway.publish(&channel, &json!(i)).expect("published");
            assert_eq!(published.position.offset.0, i + 1, "numbered by the one home");
        }
        for subscriber in &mut subscribers {
            (0..20).for_each(|i| assert_eq!(subscriber.json(), push(&channel, &json!(i))));
        }
        // Half of them leave; the rest goes on as before.
        for leaver in subscribers.iter_mut().step_by(2) {
            leaver.unsubscribe(3, &channel);
        }
        gateway.publish(&channel, &json!("more")).expect("published");
        for stayer in subscribers.iter_mut().skip(1).step_by(2) {
            assert_eq!(stayer.json(), push(&channel, &json!("more")));
        }
        subscribers.iter_mut().step_by(2).for_each(|leaver| leaver.expect_silence(4));
        other.expect_silence(5);
    }
}

fn clients_publish_across_workers(gateway: &Gateway) {
    for home in 0..gateway.workers() {
        let channel = gateway.channel_of(home);
        let (mut subscribers, _) = subscribers_everywhere(gateway, &channel);
        for publisher in 0..3 {
            let mut publisher = gateway.centrifugo_of(publisher);
            let publish = json!({"id": 2, "publish": {"channel": channel, "data": "from afar"}});
            assert_eq!(publisher.call(publish), json!({"id": 2, "publish": {}}));
            for subscriber in &mut subscribers {
                assert_eq!(subscriber.json()["push"]["pub"]["info"]["client"], publisher.name.as_str());
            }
        }
    }
}

fn a_client_that_dies_while_it_subscribes_leaves_nothing(gateway: &Gateway) {
    let channel = gateway.channel_of(1);
    for kill in [Client::reset, Client::shutdown_write] {
        let mut client = gateway.centrifugo_of(0);
        gateway.freeze(1, true);
        client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
        client.write(frame(OpCode::Ping, true, b""));
        assert_eq!(client.next(), Seen::Pong(Vec::new()), "the command was read");
        kill(&client);
        gateway.pass(Duration::from_millis(500));
        // Another one takes its slot and subscribes before the first one's answer comes.
        let mut next = gateway.centrifugo_of(0);
        next.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
        gateway.freeze(1, false);
        assert_eq!(next.json(), json!({"id": 2, "subscribe": {}}));
        gateway.publish(&channel, &json!(1)).expect("published");
        assert_eq!(next.json(), push(&channel, &json!(1)));
        next.expect_silence(3);
    }
}

fn with_impatient_requests() -> Setup {
    Setup { request_timeout: Duration::from_millis(100), ..Setup::dev().workers(2) }
}

fn an_answer_that_comes_too_late_is_an_error_for_now(gateway: &Gateway) {
    let channel = gateway.channel_of(1);
    let mut client = gateway.centrifugo_of(0);
    gateway.freeze(1, true);
    client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
    client.send(&json!({"id": 3, "publish": {"channel": channel, "data": 1}}));
    gateway.pass(Duration::from_millis(500));
    gateway.freeze(1, false);
    assert_eq!([client.json(), client.json()], [error_100(2), error_100(3)]);
    client.subscribe(4, &channel);
}

fn input_behind_a_waiting_unsubscribe_is_kept(gateway: &Gateway) {
    let channel = gateway.channel_of(1);
    let mut client = gateway.centrifugo_of(0);
    gateway.freeze(1, true);
    client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
    client.send(&json!({"id": 3, "unsubscribe": {"channel": channel}}));
    gateway.pass(Duration::from_millis(300));
    let read_before = gateway.count(|c| &c.read_bytes);
    for id in 4..1004 {
        client.send(&json!({"id": id, "rpc": {}}));
    }
    gateway.pass(Duration::from_millis(300));
    assert_eq!(gateway.count(|c| &c.read_bytes), read_before, "reads rest while input is held");
    gateway.freeze(1, false);
    for id in 2..1004 {
        assert_eq!(client.json()["id"], id);
    }
}
