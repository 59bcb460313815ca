//! Deltas: subscribers that ask for it get what has changed, and have the whole payload all the same.

use crate::support::client::Format;
use crate::support::{Client, Gateway, Seen, Setup, fossil, in_every_format, schema};
use gateway::stats::Number;
use hub::{Namespace, Namespaces, Retention, SlowClient};
use prost::Message as _;
use serde_json::{Value, json};
use std::time::Duration;

in_every_format! {
    patches_make_every_payload_and_the_first_is_whole: with_deltas(),
    whoever_comes_later_begins_with_a_whole_payload: with_deltas().workers(2),
    a_patch_is_made_once_for_everybody: with_deltas(),
    what_a_patch_does_not_shorten_is_sent_whole: with_deltas(),
    a_channel_without_room_for_its_newest_publication_gets_no_patches: with_deltas().with(|s| s.limits.delta_bytes_max = 2000),
    deltas_that_are_not_allowed_are_left_out: Setup::dev(),
    a_subscriber_that_left_gets_nothing_and_one_that_returns_begins_anew: with_deltas(),
    what_is_recovered_is_whole_and_patches_go_on_live: with_deltas(),
    who_skips_gets_no_patch_behind_the_gap_and_patches_again_later: slow_with_deltas(),
    who_is_conflated_gets_no_patch_behind_the_gap_and_patches_again_later: slow_with_deltas(),
    who_skips_with_a_position_recovers_whole_payloads: slow_with_deltas(),
}

/// The same with each message compressed, alone or after the one before.
mod compressed {
    use super::*;

    in_every_format! {
        patches_make_every_payload_and_the_first_is_whole: with_deltas().compressing(),
        whoever_comes_later_begins_with_a_whole_payload: with_deltas().workers(2).compressing(),
        what_is_recovered_is_whole_and_patches_go_on_live: with_deltas().compressing(),
    }
}

/// Deltas everywhere. `kept:` has a history beside, `skip:` drops the oldest, `newest:` conflates, `keptskip:` does two of it.
fn with_deltas() -> Setup {
    let named = |name: &str, slow_client| Namespace {
        name: name.into(),
        slow_client,
        allow_fossil_deltas: true,
        delta_publish: true,
        compress: true,
        ..Namespace::default()
    };
    let (ttl, meta_ttl) = (Duration::from_secs(600), Duration::from_secs(600));
    let kept = |name: &str, slow_client| Namespace {
        history: Some(Retention { size: 1000, ttl, meta_ttl }),
        force_recovery: true,
        ..named(name, slow_client)
    };
    let all = vec![
        kept("kept", SlowClient::Disconnect),
        kept("keptskip", SlowClient::DropOldest),
        named("skip", SlowClient::DropOldest),
        named("newest", SlowClient::Conflate),
    ];
    let namespaces = Namespaces::new(named("", SlowClient::Disconnect), all).expect("good namespaces");
    Setup::dev().with(|s| s.namespaces = namespaces.accepting_unknown())
}

/// The same with small outboxes, and replies as large as all that a client may have missed.
fn slow_with_deltas() -> Setup {
    with_deltas().with(|s| {
        s.limits.outbox_bytes_max = 400 * 1024;
        s.limits.outbox_high_water = 200 * 1024;
        s.limits.outbox_low_water = 100 * 1024;
        s.limits.reply_bytes_max = 16 * 1024 * 1024;
    })
}

/// A client that subscribes with deltas, and what it made of the last publication.
struct Reader {
    client: Client,
    payload: Option<Vec<u8>>,
}

/// A payload of some length that differs from others by a few bytes.
fn weather(degrees: u32) -> Value {
    json!({"place": "Übersee 🌊", "forecast": "rain in the morning, sun in the afternoon", "degrees": degrees})
}

impl Reader {
    fn new(gateway: &Gateway, worker: usize, channel: &str) -> Self {
        let mut client = gateway.centrifugo_of(worker);
        let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel, "delta": "fossil"}}));
        assert_eq!(reply, json!({"id": 2, "subscribe": {"delta": true}}));
        Self { client, payload: None }
    }

    /// The same with a position; the result of the subscribe, with the payloads of what was recovered.
    fn recovering(gateway: &Gateway, mut request: Value) -> (Self, Value) {
        let mut client = gateway.centrifugo();
        request["delta"] = json!("fossil");
        let mut result = client.call(json!({"id": 2, "subscribe": request}))["subscribe"].take();
        assert_eq!(result["delta"], true, "{result}");
        for publication in result["publications"].as_array_mut().into_iter().flatten() {
            assert_eq!(publication.get("delta"), None, "what is recovered is whole");
            if gateway.format() == Format::Json {
                let text = publication["data"].as_str().expect("with deltas every payload is a string");
                publication["data"] = serde_json::from_str(text).expect("payloads are JSON");
            }
        }
        (Self { client, payload: None }, result)
    }

    /// The next publication, and whether it came as a patch.
    fn read(&mut self) -> (Value, bool) {
        let next = self.client.next();
        self.understand(next)
    }

    fn understand(&mut self, next: Seen) -> (Value, bool) {
        let (data, is_patch) = match next {
            Seen::Text(text) => {
                let push: Value = serde_json::from_str(&text).expect("JSON");
                let publication = &push["push"]["pub"];
                let data = publication["data"].as_str().expect("with deltas every payload is a string");
                (data.as_bytes().to_vec(), publication.get("delta").is_some())
            }
            Seen::Binary(message) => {
                let reply = schema::Reply::decode_length_delimited(&message[..]).expect("Protobuf");
                let publication = reply.push.expect("a push").publication.expect("a publication");
                (publication.data, publication.delta)
            }
            other => panic!("{other:?} instead of a publication"),
        };
        let whole = match (is_patch, &self.payload) {
            (false, _) => data,
            (true, Some(before)) => fossil::apply(before, &data).expect("a patch of the publication before"),
            (true, None) => panic!("a patch of nothing"),
        };
        let value = serde_json::from_slice(&whole).expect("payloads are JSON");
        self.payload = Some(whole);
        (value, is_patch)
    }
}

fn publish(gateway: &Gateway, channel: &str, data: &Value) {
    gateway.publish(channel, data).expect("published");
}

fn patches_make_every_payload_and_the_first_is_whole(gateway: &Gateway) {
    let mut reader = Reader::new(gateway, 0, "c");
    let mut without = gateway.subscriber("c");
    let mut plain = gateway.plain("channels=c");
    for degrees in 0..20 {
        publish(gateway, "c", &weather(degrees));
        assert_eq!(reader.read(), (weather(degrees), degrees > 0));
        assert_eq!(without.json()["push"], json!({"channel": "c", "pub": {"data": weather(degrees)}}));
        assert_eq!(plain.json()["pub"]["data"], weather(degrees), "others see no deltas");
    }
    // A client's publication keeps its name beside a patch.
    let name = without.name.clone();
    without.send(&json!({"id": 3, "publish": {"channel": "c", "data": weather(99)}}));
    assert_eq!(reader.read(), (weather(99), true));
    assert_eq!(plain.json()["pub"]["info"], json!({"user": "", "client": name}));
}

fn whoever_comes_later_begins_with_a_whole_payload(gateway: &Gateway) {
    let mut readers: Vec<Reader> = Vec::new();
    for degrees in 0..6 {
        readers.push(Reader::new(gateway, degrees as usize % 2, "c"));
        publish(gateway, "c", &weather(degrees));
        let last = readers.len() - 1;
        for (number, reader) in readers.iter_mut().enumerate() {
            assert_eq!(reader.read(), (weather(degrees), number < last), "reader {number}");
        }
    }
}

fn a_patch_is_made_once_for_everybody(gateway: &Gateway) {
    let mut readers: Vec<Reader> = (0..8).map(|_| Reader::new(gateway, 0, "c")).collect();
    let mut round = |degrees: u32, encodings: u64| {
        let before = gateway.sum(Number::Encodings);
        publish(gateway, "c", &weather(degrees));
        readers.iter_mut().for_each(|reader| assert_eq!(reader.read().0, weather(degrees)));
        gateway.until("it is counted", || gateway.sum(Number::Encodings) >= before + encodings);
        assert_eq!(gateway.sum(Number::Encodings), before + encodings);
    };
    round(1, 1);
    round(2, 1);
    // One without deltas: another encoding.
    let mut without = gateway.subscriber("c");
    round(3, 2);
    assert_eq!(without.json()["push"]["pub"]["data"], weather(3));
}

fn what_a_patch_does_not_shorten_is_sent_whole(gateway: &Gateway) {
    let mut reader = Reader::new(gateway, 0, "c");
    let something_else = json!({"nothing": ["of", "this", "was", "there", "before", 1, 2, 3]});
    for (data, is_patch) in [
        (weather(1), false),
        (weather(2), true),
        (something_else.clone(), false),
        (weather(2), false),
        (weather(2), true),
        (json!(1), false),
        (json!(1), false),
        (Value::Null, false),
    ] {
        publish(gateway, "c", &data);
        assert_eq!(reader.read(), (data, is_patch));
    }
}

fn a_channel_without_room_for_its_newest_publication_gets_no_patches(gateway: &Gateway) {
    let (mut small, mut large) = (Reader::new(gateway, 0, "small"), Reader::new(gateway, 0, "large"));
    let novel = |n: u32| json!([n, "x".repeat(3000)]);
    for n in 0..4 {
        publish(gateway, "small", &weather(n));
        assert_eq!(small.read(), (weather(n), n > 0));
        publish(gateway, "large", &novel(n));
        assert_eq!(large.read(), (novel(n), false));
    }
}

fn deltas_that_are_not_allowed_are_left_out(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let reply = client.call(json!({"id": 2, "subscribe": {"channel": "c", "delta": "fossil"}}));
    assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
    for degrees in 0..3 {
        publish(gateway, "c", &weather(degrees));
        assert_eq!(client.json()["push"]["pub"], json!({"data": weather(degrees)}));
    }
}

fn a_subscriber_that_left_gets_nothing_and_one_that_returns_begins_anew(gateway: &Gateway) {
    let (mut leaver, mut stayer) = (Reader::new(gateway, 0, "c"), Reader::new(gateway, 0, "c"));
    for round in 0..3 {
        publish(gateway, "c", &weather(round));
        assert_eq!((leaver.read(), stayer.read().0), ((weather(round), false), weather(round)));
        leaver.client.unsubscribe(3, "c");
        publish(gateway, "c", &weather(round + 100));
        assert_eq!(stayer.read(), (weather(round + 100), true));
        leaver.client.expect_silence(4);
        let reply = leaver.client.call(json!({"id": 5, "subscribe": {"channel": "c", "delta": "fossil"}}));
        assert_eq!(reply, json!({"id": 5, "subscribe": {"delta": true}}));
    }
    // Another client of the same channel that takes no deltas, and one of the other format.
    let other = if gateway.format() == Format::Json { Format::Protobuf } else { Format::Json };
    let mut other = gateway.connected_of(0, other);
    other.subscribe(2, "c");
    publish(gateway, "c", &weather(7));
    assert_eq!(other.json()["push"]["pub"]["data"], weather(7));
}

fn position(result: &Value, channel: &str, offset: u64) -> Value {
    json!({"channel": channel, "recover": true, "epoch": result["epoch"], "offset": offset})
}

fn payloads(result: &Value) -> Vec<Value> {
    let publications = result["publications"].as_array();
    publications.into_iter().flatten().map(|publication| publication["data"].clone()).collect()
}

fn what_is_recovered_is_whole_and_patches_go_on_live(gateway: &Gateway) {
    let (mut first, subscribed) = Reader::recovering(gateway, json!({"channel": "kept:c"}));
    for degrees in 1..=3 {
        publish(gateway, "kept:c", &weather(degrees));
        assert_eq!(first.read(), (weather(degrees), degrees > 1));
    }
    drop(first);
    (4..=6).for_each(|degrees| publish(gateway, "kept:c", &weather(degrees)));
    let (mut back, result) = Reader::recovering(gateway, position(&subscribed, "kept:c", 3));
    assert_eq!((&result["recovered"], payloads(&result)), (&json!(true), (4..=6).map(weather).collect()));
    publish(gateway, "kept:c", &weather(7));
    assert_eq!(back.read(), (weather(7), false), "no patch on what was recovered");
    publish(gateway, "kept:c", &weather(8));
    assert_eq!(back.read(), (weather(8), true));
    // One that has missed nothing, and one without deltas that missed the same.
    let (mut empty, result) = Reader::recovering(gateway, position(&subscribed, "kept:c", 8));
    assert_eq!((&result["recovered"], payloads(&result).len()), (&json!(true), 0));
    let request = position(&subscribed, "kept:c", 3);
    let without = gateway.centrifugo().call(json!({"id": 2, "subscribe": request}));
    assert_eq!(payloads(&without["subscribe"]), (4..=8).map(weather).collect::<Vec<_>>());
    publish(gateway, "kept:c", &weather(9));
    assert_eq!((back.read(), empty.read()), ((weather(9), true), (weather(9), false)));
}

/// Too large for many to wait, also as a patch on the one before, which has a quarter of it.
fn heavy(number: u64) -> Value {
    json!({"number": number, "other": format!("{number:04}").repeat(6 * 1024), "same": "x".repeat(8 * 1024)})
}

/// Publishes to a client that does not read, and to one that does, until something is so.
fn publish_to_slow(gateway: &Gateway, channel: &str, slow: &Client, number: Number) -> u64 {
    let mut healthy = gateway.centrifugo();
    healthy.call(json!({"id": 2, "subscribe": {"channel": channel}}));
    slow.set_reading(false);
    let (mut published, mut more) = (0, 8);
    while more > 0 {
        // The kernel's buffers take some first.
        assert!(published < 2000, "it must come to that at some time");
        publish(gateway, channel, &heavy(published));
        assert_eq!(healthy.json()["push"]["pub"]["data"], heavy(published));
        published += 1;
        more -= u32::from(gateway.sum(number) > 0);
    }
    slow.set_reading(true);
    published
}

fn who_skips_gets_no_patch_behind_the_gap_and_patches_again_later(gateway: &Gateway) {
    expect_no_patch_behind_a_gap(gateway, "skip:c", Number::Skipped);
}

fn who_is_conflated_gets_no_patch_behind_the_gap_and_patches_again_later(gateway: &Gateway) {
    expect_no_patch_behind_a_gap(gateway, "newest:c", Number::Conflated);
}

fn expect_no_patch_behind_a_gap(gateway: &Gateway, channel: &str, number: Number) {
    let mut slow = Reader::new(gateway, 0, channel);
    let mut published = publish_to_slow(gateway, channel, &slow.client, number);
    let (mut gaps, mut expected) = (0, 0);
    while expected < published {
        let (data, is_patch) = slow.read();
        let number = data["number"].as_u64().expect("a number");
        assert!(number >= expected && data == heavy(number), "whole and in order");
        assert!(number == expected || !is_patch, "{number} behind {expected} is a patch on what it did not get");
        gaps += u32::from(number > expected);
        expected = number + 1;
    }
    assert!(gaps > 0, "something was left out");
    // It reads all now, so what comes next comes alone.
    for _ in 0..100 {
        publish(gateway, channel, &heavy(published));
        let (data, is_patch) = slow.read();
        assert_eq!(data, heavy(published));
        published += 1;
        if is_patch {
            return;
        }
    }
    panic!("no patch to a client that keeps up");
}

fn who_skips_with_a_position_recovers_whole_payloads(gateway: &Gateway) {
    let (mut slow, subscribed) = Reader::recovering(gateway, json!({"channel": "keptskip:c"}));
    let published = publish_to_slow(gateway, "keptskip:c", &slow.client, Number::Skipped);
    let mut got = 0;
    loop {
        let next = slow.client.next();
        let is_end = match &next {
            Seen::Text(text) => text.contains("\"unsubscribe\""),
            Seen::Binary(message) => schema::Reply::decode_length_delimited(&message[..])
                .expect("Protobuf")
                .push
                .expect("a push")
                .publication
                .is_none(),
            other => panic!("{other:?}"),
        };
        if is_end {
            break;
        }
        assert_eq!(slow.understand(next).0, heavy(got));
        got += 1;
    }
    assert!(got < published, "something was left out");
    let (mut back, result) = Reader::recovering(gateway, position(&subscribed, "keptskip:c", got));
    assert_eq!(payloads(&result), (got..published).map(heavy).collect::<Vec<_>>());
    publish(gateway, "keptskip:c", &heavy(published));
    assert_eq!(back.read(), (heavy(published), false));
}
