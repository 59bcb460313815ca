//! What a client says, drawn at random: the bytes of its whole life, handshake first.

use crate::schema;
use conn::settings::Compression;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt;
use wire::ws::deflate::Level;
use wire::ws::{self, OpCode};

/// The channels of a world. Few, so that commands meet.
pub(crate) const CHANNELS: [&str; 3] = ["a", "b", "ns:c"];

/// Compresses whatever a client takes so.
pub(crate) const COMPRESSION: Compression = Compression {
    level: Level::new(6).unwrap(),
    reply_bytes_min: 1,
    publication_bytes_min: 1,
    after_previous: true,
    previous_bytes_max: 1 << 16,
    client_history_bytes_max: 1 << 16,
};

const MASK: [u8; 4] = [9, 0x80, 0xff, 1];

/// A client's life.
#[derive(Clone)]
pub(crate) struct Script {
    /// Everything it sends.
    pub(crate) bytes: Vec<u8>,
    /// Its commands and their replies are Protobuf.
    pub(crate) protobuf: bool,
    /// Its commands by id, the first of which is 1. Of the Centrifugo dialect only.
    pub(crate) commands: Vec<Value>,
    /// Its messages, in order. Of an echo only.
    pub(crate) messages: Vec<Vec<u8>>,
}

impl fmt::Debug for Script {
    /// Short enough to be read when a property fails.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: Vec<String> = self.commands.iter().map(Value::to_string).collect();
        let messages: Vec<usize> = self.messages.iter().map(Vec::len).collect();
        write!(f, "{} bytes {:?}", self.bytes.len(), String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(80)]))?;
        write!(f, ", commands {}, messages of {messages:?}", commands.join(" "))
    }
}

fn handshake(target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    ws::client::write_request(&mut out, "localhost", target, &[7; 16], None, &[]);
    out
}

/// A message in one frame or two, with a ping between them.
fn put_message(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], cut: Option<usize>) {
    let Some(cut) = cut else { return ws::write_frame(out, opcode, true, payload, Some(MASK)) };
    let (first, rest) = payload.split_at(cut % (payload.len() + 1));
    ws::write_frame(out, opcode, false, first, Some(MASK));
    ws::write_frame(out, OpCode::Ping, true, b"between", Some(MASK));
    ws::write_frame(out, OpCode::Continuation, true, rest, Some(MASK));
}

fn request() -> impl Strategy<Value = Value> {
    let channel = prop::sample::select(&CHANNELS[..]);
    prop_oneof![
        4 => channel.clone().prop_map(|c| json!({"subscribe": {"channel": c, "join_leave": c == "a"}})),
        4 => channel.clone().prop_map(|c| json!({"unsubscribe": {"channel": c}})),
        3 => position().prop_map(|mut p| {
            p["channel"] = json!("ns:c");
            json!({ "subscribe": p })
        }),
        2 => (channel.clone(), -1..9i32, position(), any::<[bool; 2]>()).prop_map(|(c, limit, since, [some, reverse])| {
            let since = if some { since } else { Value::Null };
            json!({"history": {"channel": c, "limit": limit, "since": since, "reverse": reverse}})
        }),
        2 => (channel.clone(), 0..200usize).prop_map(|(c, n)| json!({"publish": {"channel": c, "data": "p".repeat(n)}})),
        1 => channel.clone().prop_map(|c| json!({"presence": {"channel": c}})),
        1 => channel.clone().prop_map(|c| json!({"presence_stats": {"channel": c}})),
        1 => Just(json!({"rpc": {}})),
        1 => (0..2500usize).prop_map(|n| json!({"rpc": {"method": "say", "data": "r".repeat(n)}})),
        1 => Just(json!({"subscribe": {"channel": "an unknown namespace: refused"}})),
        1 => Just(json!({"publish": {"channel": "x".repeat(300), "data": 1}})),
    ]
}

/// Where a client could be, and what it may ask for beside.
fn position() -> impl Strategy<Value = Value> {
    let epoch = prop::sample::select(&["", "", "", "_", "abcdefgh", "\u{e9}\n"][..]);
    (any::<bool>(), 0..12u64, epoch, 0..4i64).prop_map(|(recover, offset, epoch, flag)| {
        json!({"recover": recover, "offset": offset, "epoch": epoch, "flag": flag, "positioned": recover})
    })
}

/// Well-behaved: connects, then sends messages of one or more commands, in JSON or in Protobuf.
pub(crate) fn centrifugo() -> impl Strategy<Value = Script> {
    let message = (vec(request(), 1..6), prop::option::of(0..400usize));
    (any::<bool>(), vec(message, 0..25)).prop_map(|(protobuf, messages)| {
        let target = if protobuf { "/connection/websocket?format=protobuf" } else { "/connection/websocket" };
        let mut script = Script { bytes: handshake(target), protobuf, commands: Vec::new(), messages: Vec::new() };
        let connect = vec![(vec![json!({"connect": {}})], None)];
        for (requests, cut) in connect.into_iter().chain(messages) {
            let mut lines = Vec::new();
            for mut request in requests {
                request["id"] = json!(script.commands.len() + 1);
                lines.push(request.to_string());
                script.commands.push(request);
            }
            let lines = lines.join("\n");
            if protobuf {
                put_message(&mut script.bytes, OpCode::Binary, &schema::commands(&lines), cut);
            } else {
                put_message(&mut script.bytes, OpCode::Text, lines.as_bytes(), cut);
            }
        }
        script
    })
}

/// Subscribes to a channel and publishes to it so many times.
pub(crate) fn publisher(channel: &str, times: usize) -> Script {
    let mut script = Script {
        bytes: handshake("/connection/websocket"),
        commands: Vec::new(),
        messages: Vec::new(),
        protobuf: false,
    };
    let publish = std::iter::repeat_n(json!({"publish": {"channel": channel, "data": 1}}), times);
    let before = [json!({"connect": {}}), json!({"subscribe": {"channel": channel}})];
    for mut request in before.into_iter().chain(publish) {
        request["id"] = json!(script.commands.len() + 1);
        put_message(&mut script.bytes, OpCode::Text, request.to_string().as_bytes(), None);
        script.commands.push(request);
    }
    script
}

/// Subscribes to some channels, to the last of them with deltas.
pub(crate) fn with_deltas(channels: &[&str]) -> Script {
    let mut script = publisher(channels[0], 0);
    for (i, channel) in channels.iter().enumerate().skip(1) {
        let delta = if i + 1 == channels.len() { "fossil" } else { "" };
        let subscribe = json!({"id": i + 2, "subscribe": {"channel": channel, "delta": delta}});
        put_message(&mut script.bytes, OpCode::Text, subscribe.to_string().as_bytes(), None);
        script.commands.push(subscribe);
    }
    script
}

/// Subscribes to a channel; then, in one message that waits for the home's answer in the middle, asks much and leaves it.
pub(crate) fn leaver(channel: &str, other: &str) -> Script {
    let mut script = publisher(channel, 0);
    let about = |what: &str, channel: &str| json!({what: {"channel": channel}});
    let asks = std::iter::repeat_n(json!({"presence": {"channel": "an unknown namespace: refused"}}), 8);
    let leave = [about("subscribe", other), about("unsubscribe", other)].into_iter().chain(asks);
    let mut lines = Vec::new();
    for mut request in leave.chain([about("unsubscribe", channel)]) {
        request["id"] = json!(script.commands.len() + 1);
        lines.push(request.to_string());
        script.commands.push(request);
    }
    put_message(&mut script.bytes, OpCode::Text, lines.join("\n").as_bytes(), None);
    script
}

/// Wants some channels, by one way or another, and may say something that is not heard.
pub(crate) fn plain() -> impl Strategy<Value = Script> {
    let channels = prop::sample::subsequence(CHANNELS.to_vec(), 0..=CHANNELS.len());
    (channels, any::<bool>(), vec(0..300usize, 0..5), position()).prop_map(|(channels, in_url, noise, position)| {
        let mut bytes = if in_url {
            handshake(&format!("/connection/uni_websocket?channels={}", channels.join(",")))
        } else {
            let subs: serde_json::Map<String, Value> =
                channels.iter().map(|&c| (c.to_owned(), position.clone())).collect();
            let mut bytes = handshake("/connection/uni_websocket");
            put_message(&mut bytes, OpCode::Text, json!({ "subs": subs }).to_string().as_bytes(), Some(5));
            bytes
        };
        noise.iter().for_each(|&len| put_message(&mut bytes, OpCode::Binary, &vec![b'n'; len], None));
        Script { bytes, protobuf: false, commands: Vec::new(), messages: Vec::new() }
    })
}

/// Messages of any size, in one frame or more.
pub(crate) fn echo() -> impl Strategy<Value = Script> {
    let message = (vec(any::<u8>(), 0..1500), prop::option::of(0..1500usize));
    vec(message, 0..25).prop_map(|messages| {
        let bytes = handshake("/echo");
        let mut script = Script { bytes, protobuf: false, commands: Vec::new(), messages: Vec::new() };
        for (payload, cut) in messages {
            put_message(&mut script.bytes, OpCode::Binary, &payload, cut);
            script.messages.push(payload);
        }
        script
    })
}

/// A good life with some bytes changed, cut out or put in, anywhere; also in the handshake.
pub(crate) fn hostile() -> impl Strategy<Value = Script> {
    let edit = (any::<prop::sample::Index>(), vec(any::<u8>(), 0..4), 0..4usize);
    (prop_oneof![centrifugo(), plain(), echo()], vec(edit, 1..4)).prop_map(|(mut script, edits)| {
        for (at, new, removed) in edits {
            let at = at.index(script.bytes.len() + 1);
            let end = (at + removed).min(script.bytes.len());
            script.bytes.splice(at..end, new);
        }
        script
    })
}
