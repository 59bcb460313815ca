//! What a client got, and whether it had to be so.

use crate::script::Script;
use crate::world::World;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use wire::http::HeadLimits;
use wire::ws::client::ResponseError;
use wire::ws::{self, Event, Limits, Reader, Role};

/// The messages that a client got, and whether it was told to close.
struct Got {
    messages: Vec<Vec<u8>>,
    closed: Option<u16>,
}

/// Reads the handshake's answer and the frames behind it. What is not well formed fails.
fn read(world: &World) -> Option<Got> {
    let head_len = match ws::client::check_response(&world.output, &[7; 16], None, &HeadLimits::default()) {
        Ok(head_len) => head_len?,
        // Time may pass in the middle of a head.
        Err(ResponseError::Status(408)) => return None,
        Err(error) => panic!("a good handshake is granted: {error}"),
    };
    let mut bytes = world.output[head_len..].to_vec();
    let mut input = &mut bytes[..];
    let mut reader = Reader::new(Role::Client);
    let mut got = Got { messages: Vec::new(), closed: None };
    while let Some(event) = reader.next(&mut input, &Limits::default()).expect("well-formed frames") {
        assert_eq!(got.closed, None, "nothing comes behind a close frame");
        match event {
            Event::Message { payload, .. } => got.messages.push(payload.to_vec()),
            Event::Close { code, .. } => got.closed = Some(code.expect("we always give a code").get()),
            Event::Ping(_) | Event::Pong(_) => {}
        }
    }
    assert!(input.is_empty(), "nothing comes behind a close frame");
    assert!(reader.is_idle() || world.is_closed, "only a broken connection ends inside a frame");
    Some(got)
}

/// The numbers of the publications that a client of the Centrifugo dialect got, and the code it was closed with.
pub(crate) fn publications(world: &World) -> (Vec<u64>, Option<u16>) {
    let got = read(world).expect("a granted handshake");
    let messages = got.messages.iter().map(|message| parse(message));
    (messages.filter_map(|message| message.get("push").map(number)).collect(), got.closed)
}

fn parse(message: &[u8]) -> Value {
    serde_json::from_slice(message).expect("messages are JSON")
}

/// The number that the world gave a publication.
fn number(publication: &Value) -> u64 {
    publication["pub"]["data"][0].as_u64().expect("a publication of the test")
}

/// The command's one request, by name, with its channel.
fn request(command: &Value) -> (&str, &str) {
    let (name, body) = command.as_object().expect("an object").iter().find(|(key, _)| *key != "id").expect("a request");
    (name, body["channel"].as_str().unwrap_or_default())
}

pub(crate) fn check_centrifugo(script: &Script, world: &World) {
    let Some(got) = read(world) else { return };
    let (mut answered, mut subscribed, mut last) = (HashSet::new(), HashSet::new(), HashMap::new());
    let mut pushes = 0;
    for message in got.messages.iter().map(|message| parse(message)) {
        if message == serde_json::json!({}) {
            continue; // a ping
        }
        if let Some(push) = message.get("push") {
            let channel = push["channel"].as_str().expect("a channel").to_owned();
            assert!(subscribed.contains(&channel), "{push} outside of a subscription");
            let number = number(push);
            assert!(last.insert(channel, number).is_none_or(|last| last < number), "{push} out of order");
            pushes += 1;
            continue;
        }
        let id = message["id"].as_u64().expect("a reply repeats its id");
        let command = &script.commands[id as usize - 1];
        assert!(answered.insert(id), "a second reply to {command}");
        assert!(id == 1 || answered.contains(&1), "connect is answered first");
        let (name, channel) = request(command);
        if message.get("error").is_none() {
            assert!(message.get(name).is_some(), "{message} does not answer {command}");
            match name {
                "subscribe" => assert!(subscribed.insert(channel.to_owned()), "subscribed twice to {channel}"),
                "unsubscribe" => drop(subscribed.remove(channel)),
                _ => {}
            }
        }
    }
    if world.is_finished && got.closed.is_none() {
        assert_eq!(answered.len(), script.commands.len(), "every command is answered");
        assert_eq!(pushes, world.delivered - world.left_out, "everything accepted for the client reaches it");
    }
}

pub(crate) fn check_plain(world: &World) {
    let Some(got) = read(world) else { return };
    let mut messages = got.messages.iter().map(|message| parse(message)).filter(|m| *m != serde_json::json!({}));
    let Some(first) = messages.next() else { return };
    let mut last: HashMap<String, u64> = HashMap::new();
    let (mut pushes, mut disconnect) = (0, first.get("disconnect").cloned());
    assert!(first.get("connect").is_some() || disconnect.is_some(), "{first} is first");
    for push in messages {
        assert_eq!(disconnect, None, "nothing but the close frame comes behind a disconnect push");
        disconnect = push.get("disconnect").cloned();
        if disconnect.is_some() {
            continue;
        }
        let channel = push["channel"].as_str().expect("a channel").to_owned();
        assert!(first["connect"]["subs"].get(&channel).is_some(), "{push} of a channel that was not announced");
        let number = number(&push);
        assert!(last.insert(channel, number).is_none_or(|last| last < number), "{push} out of order");
        pushes += 1;
    }
    if world.is_finished && got.closed.is_none() {
        assert_eq!(pushes, world.delivered - world.left_out, "everything accepted for the client reaches it");
    }
}

pub(crate) fn check_echo(script: &Script, world: &World) {
    let Some(got) = read(world) else { return };
    assert!(got.messages.len() <= script.messages.len(), "more came back than was sent");
    assert!(got.messages == script.messages[..got.messages.len()], "something else came back");
    if world.is_finished && got.closed.is_none() {
        assert_eq!(got.messages.len(), script.messages.len(), "everything comes back");
    }
}
