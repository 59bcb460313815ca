//! What a client got, and whether it had to be so.

use crate::schema;
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

/// The numbers of the publications that a client of the Centrifugo dialect got up to the end of a subscription, the code it
/// ended with, and what came behind that.
pub(crate) fn publications(world: &World) -> (Vec<u64>, Option<u64>, usize) {
    let got = read(world).expect("a granted handshake");
    assert_eq!(got.closed, None, "the connection goes on");
    let pushes: Vec<Value> = got.messages.iter().filter_map(|message| parse(message).get("push").cloned()).collect();
    let end = pushes.iter().position(|push| push.get("unsubscribe").is_some()).unwrap_or(pushes.len());
    let code = pushes.get(end).and_then(|push| push["unsubscribe"]["code"].as_u64());
    (pushes[..end].iter().map(number).collect(), code, pushes.len().saturating_sub(end + 1))
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

fn offsets(result: &Value) -> Vec<u64> {
    let publications = result["publications"].as_array().map_or(&[][..], Vec::as_slice);
    publications.iter().map(|publication| publication["offset"].as_u64().expect("an offset")).collect()
}

fn steps_by_one(result: &Value, reverse: bool) -> bool {
    offsets(result).windows(2).all(|pair| if reverse { pair[0] == pair[1] + 1 } else { pair[0] + 1 == pair[1] })
}

/// What a subscribe result says about recovery, against its request. The number of the newest publication in it.
fn recovered(result: &Value, request: &Value) -> Option<u64> {
    let offset = result["offset"].as_u64().unwrap_or(0);
    if request["channel"] == "ns:c" {
        assert!(result["recoverable"] == true && result["positioned"] == true, "{result}");
        assert_eq!(result["was_recovering"] == true, request["recover"] == true, "{result}");
        let rejects = request["flag"].as_i64().is_some_and(|flag| flag & 2 != 0);
        assert!(result["recovered"] == true || request["recover"] != true || !rejects, "112 was asked for");
    }
    if result["recovered"] != true {
        assert_eq!(result["publications"], Value::Null, "{result}");
        return None;
    }
    assert_eq!(offset, request["offset"].as_u64().unwrap_or(0), "counted on from where the client was");
    assert!(steps_by_one(result, false), "{result}");
    let first = offsets(result).first().copied();
    assert!(first.is_none_or(|first| first == offset + 1), "{result}");
    result["publications"].as_array().and_then(|all| all.last()?["data"][0].as_u64())
}

pub(crate) fn check_centrifugo(script: &Script, world: &World) {
    let Some(got) = read(world) else { return };
    let (mut answered, mut subscribed, mut last) = (HashSet::new(), HashSet::new(), HashMap::new());
    let mut pushes = 0;
    let parse = |message: &Vec<u8>| match script.protobuf {
        true => schema::replies(message).expect("messages are Protobuf"),
        false => vec![parse(message)],
    };
    for message in got.messages.iter().flat_map(parse) {
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
                "subscribe" => {
                    assert!(subscribed.insert(channel.to_owned()), "subscribed twice to {channel}");
                    if let Some(newest) = recovered(&message["subscribe"], &command["subscribe"]) {
                        // Older ones may come again: the client may have named any position.
                        last.insert(channel.to_owned(), newest);
                    }
                }
                "history" => {
                    let reverse = command["history"]["reverse"] == true;
                    assert!(steps_by_one(&message["history"], reverse), "{message}");
                }
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
    let recovered = &first["connect"]["subs"]["ns:c"];
    assert!(steps_by_one(recovered, false), "{first}");
    if let Some(newest) = recovered["publications"].as_array().and_then(|all| all.last()) {
        last.insert("ns:c".into(), newest["data"][0].as_u64().expect("a number"));
    }
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
