//! The plain dialect: Centrifugo's unidirectional WebSocket, for a bare `new WebSocket(url)`.
//!
//! The client says which channels it wants, in the URL (`?channels=a,b` or `?cf_connect={"subs":{"a":{}}}`) or in its
//! first message, and from then on only listens. We send bare pushes, one a text frame: first `connect`, then
//! publications, `{}` as ping, and `disconnect` before the close frame.

use super::{json_publication, json_string, put};
use crate::command::Connect;
use crate::disconnect::Disconnect;
use crate::ids::ClientId;
use serde::de::IgnoredAny;
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
    subs: BTreeMap<String, IgnoredAny>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, IgnoredAny>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A connect request without a command envelope. `None`: it is not one.
pub(crate) fn connect(json: &[u8]) -> Option<Connect<'_>> {
    let raw: RawConnect<'_> = serde_json::from_slice(json).ok()?;
    Some(Connect { token: raw.token, channels: raw.subs.into_keys().map(Cow::Owned).collect() })
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
pub(crate) fn connected<'c>(
    out: &mut Vec<u8>,
    client: ClientId,
    session: u128,
    version: &str,
    ping_seconds: u64,
    channels: impl Iterator<Item = &'c str>,
) {
    put(out, format_args!("{{\"connect\":{{\"client\":\"{client}\",\"version\":"));
    json_string(out, version);
    let mut first = true;
    for channel in channels {
        out.extend_from_slice(if first { b",\"subs\":{" } else { b"," });
        first = false;
        json_string(out, channel);
        out.extend_from_slice(b":{}");
    }
    if !first {
        out.push(b'}');
    }
    put(out, format_args!(",\"ping\":{ping_seconds},\"session\":\"{session:032x}\"}}}}"));
}

/// `{"channel":"a","pub":{"data":…}}`
pub(crate) fn publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    out.extend_from_slice(b"{\"channel\":");
    json_string(out, &publication.channel);
    out.extend_from_slice(b",\"pub\":{");
    json_publication(out, publication);
    out.extend_from_slice(b"}}");
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
        assert_eq!(request.channels, ["a", "b"]);
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
            connected(&mut out, client, 7, "tidegate", 25, names.iter().copied());
            let tree: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(tree["connect"]["subs"].as_object().map_or(0, serde_json::Map::len), names.len());
            assert_eq!(tree["connect"]["ping"], 25);
        }
    }
}
