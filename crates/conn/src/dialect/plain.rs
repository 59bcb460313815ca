//! The plain dialect: Centrifugo's unidirectional WebSocket, for a bare `new WebSocket(url)`.
//!
//! The client says which channels it wants, in the URL (`?channels=a,b` or `?cf_connect={"subs":{"a":{}}}`) or in its
//! first message, and from then on only listens. We send bare pushes, one a text frame: first `connect`, then
//! publications, `{}` as ping, and `disconnect` before the close frame.

use super::{SubscribeResult, json_announcement, json_publication, json_string, json_subscribe_result, put};
use crate::command::{Connect, Position, Wanted};
use crate::disconnect::Disconnect;
use crate::ids::ClientId;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The ping push.
pub(crate) const PING: &[u8] = b"{}";

#[derive(Deserialize, Default)]
struct RawConnect<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_empty")]
    subs: Subs,
}

/// Wanted channels with where the client left off.
type Subs = BTreeMap<String, Option<RawSub>>;

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSub {
    recover: bool,
    epoch: String,
    offset: u64,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subs, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A connect request without a command envelope. `None`: it is not one.
pub(crate) fn connect(json: &[u8]) -> Option<Connect<'_>> {
    let raw: RawConnect<'_> = serde_json::from_slice(json).ok()?;
    let channels = raw.subs.into_iter().map(|(name, sub)| {
        let RawSub { recover, epoch, offset } = sub.unwrap_or_default();
        let recover = recover.then_some(Position { offset, epoch: Cow::Owned(epoch) });
        Wanted { channel: Cow::Owned(name), recover }
    });
    Some(Connect { token: raw.token, channels: channels.collect() })
}

/// `a,b` of `?channels=a,b`; empty names are skipped and doubles taken once.
pub(crate) fn channels(list: &str) -> Vec<Cow<'static, str>> {
    let mut names: Vec<Cow<'static, str>> = Vec::new();
    for name in list.split(',').filter(|n| !n.is_empty()) {
        if !names.iter().any(|n| n == name) {
            names.push(Cow::Owned(name.to_owned()));
        }
    }
    names
}

/// The first push: `{"connect":{"client":…,"version":…,"subs":{"a":{}},"ping":25,"session":…}}`.
///
/// Of a channel with something recovered the publications are left out; the places returned, in order, are where they
/// belong.
pub(crate) fn connected<'c>(
    out: &mut Vec<u8>,
    client: ClientId,
    session: u128,
    version: &str,
    ping_seconds: u64,
    channels: impl Iterator<Item = (&'c str, SubscribeResult, bool)>,
) -> Vec<usize> {
    let mut places = Vec::new();
    put(out, format_args!("{{\"connect\":{{\"client\":\"{client}\",\"version\":"));
    json_string(out, version);
    let mut first = true;
    for (channel, result, has_publications) in channels {
        out.extend_from_slice(if first { b",\"subs\":{" } else { b"," });
        first = false;
        json_string(out, channel);
        out.extend_from_slice(b":{");
        json_subscribe_result(out, &result);
        if has_publications {
            out.extend_from_slice(b",\"publications\":[");
            places.push(out.len());
            out.push(b']');
        }
        out.push(b'}');
    }
    if !first {
        out.push(b'}');
    }
    put(out, format_args!(",\"ping\":{ping_seconds},\"session\":\"{session:032x}\"}}}}"));
    places
}

/// `{"channel":"a","pub":{"data":…}}`
pub(crate) fn publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    out.extend_from_slice(b"{\"channel\":");
    json_string(out, &publication.channel);
    out.extend_from_slice(b",\"pub\":{");
    json_publication(out, publication);
    out.extend_from_slice(b"}}");
}

/// `{"channel":"a","join":{"info":{…}}}`
pub(crate) fn announcement(out: &mut Vec<u8>, announcement: &hub::Announcement) {
    json_announcement(out, announcement);
}

/// `{"disconnect":{"code":3001,"reason":"shutdown"}}`
pub(crate) fn disconnect(out: &mut Vec<u8>, why: &Disconnect) {
    put(out, format_args!("{{\"disconnect\":{{\"code\":{},\"reason\":", why.code));
    json_string(out, &why.reason);
    out.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_channels_come_from_subs() {
        let request = connect(br#"{"token":"t","subs":{"b":{"recover":true},"a":{}},"name":"x"}"#).expect("connect");
        assert_eq!(request.token, "t");
        assert_eq!(request.channels.iter().map(|wanted| &*wanted.channel).collect::<Vec<_>>(), ["a", "b"]);
        assert!(request.channels[0].recover.is_none() && request.channels[1].recover.is_some());
        let text = br#"{"subs":{"a":{"recover":true,"offset":3,"epoch":"e"},"b":null,"c":{"offset":3}}}"#;
        let wanted = connect(text).expect("connect").channels;
        let position = wanted[0].recover.as_ref().expect("a position");
        assert_eq!((position.offset, &*position.epoch), (3, "e"));
        assert!(wanted[1].recover.is_none() && wanted[2].recover.is_none(), "only who asks recovers");
        assert!(connect(b"{}").expect("empty connect").channels.is_empty());
        assert!(connect(br#"{"subs":null}"#).expect("null subs").channels.is_empty());
        assert!(connect(b"[]{}").is_none() && connect(b"{\"subs\":1}").is_none());
    }

    #[test]
    fn a_channel_list_is_split_at_commas_once_each() {
        assert_eq!(channels("a,b,,a,c:1"), ["a", "b", "c:1"]);
        assert!(channels("").is_empty());
    }

    #[test]
    fn the_connect_push_is_valid_json_with_and_without_channels() {
        let client = crate::ids::IdSource::new([1; 16], 0).next_client();
        for names in [vec![], vec!["a"], vec!["a", "q\"uote"]] {
            let mut out = Vec::new();
            connected(
                &mut out,
                client,
                7,
                "tidegate",
                25,
                names.iter().map(|name| (*name, SubscribeResult::default(), false)),
            );
            let tree: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(tree["connect"]["subs"].as_object().map_or(0, serde_json::Map::len), names.len());
            assert_eq!(tree["connect"]["ping"], 25);
        }
    }
}
