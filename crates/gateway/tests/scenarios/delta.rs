//! Deltas: subscribers that ask for it get what has changed, and have the whole payload all the same.

use crate::support::client::Format;
use crate::support::{Client, Gateway, Seen, Setup, fossil, in_every_format, schema};
use gateway::stats::Number;
use hub::{Namespace, Namespaces};
use prost::Message as _;
use serde_json::{Value, json};

in_every_format! {
    patches_make_every_payload_and_the_first_is_whole: with_deltas(),
    whoever_comes_later_begins_with_a_whole_payload: with_deltas().workers(2),
    a_patch_is_made_once_for_everybody: with_deltas(),
    what_a_patch_does_not_shorten_is_sent_whole: with_deltas(),
    a_channel_without_room_for_its_newest_publication_gets_no_patches: with_deltas().with(|s| s.limits.delta_bytes_max = 2000),
    deltas_that_are_not_allowed_are_left_out: Setup::dev(),
    a_subscriber_that_left_gets_nothing_and_one_that_returns_begins_anew: with_deltas(),
}

fn with_deltas() -> Setup {
    Setup::dev().with(|s| {
        let open = Namespace { allow_fossil_deltas: true, delta_publish: true, ..Namespace::default() };
        s.namespaces = Namespaces::new(open, Vec::new()).expect("a good namespace").accepting_unknown();
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

    /// The next publication, and whether it came as a patch.
    fn read(&mut self) -> (Value, bool) {
        let (data, is_patch) = match self.client.next() {
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
    assert_eq!(plain.json()["pub"]["info"], json!({"client": name}));
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
