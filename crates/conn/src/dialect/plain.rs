//! The plain dialect: Centrifugo's unidirectional WebSocket, for a bare `new WebSocket(url)`.
//!
//! The client says which channels it wants, in the URL (`?channels=a,b` or `?cf_connect={"subs":{"a":{}}}`) or in its
//! first message, and from then on only listens. We send bare pushes, one a text frame: first `connect`, then
//! publications, `{}` as ping, and `disconnect` before the close frame.

use super::{
    ConnectResult, RawConnect, SubResult, SubscribeResult, json_announcement, json_data, json_publication, json_string,
    json_subs, json_subscribe_push, put,
};
use crate::command::Connect;
use crate::disconnect::{Disconnect, Unsubscribed};
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The ping push.
pub(crate) const PING: &[u8] = b"{}";

/// A connect request without a command envelope. `None`: it is not one.
pub(crate) fn connect(json: &[u8]) -> Option<Connect<'_>> {
    serde_json::from_slice::<RawConnect<'_>>(json).ok().map(Connect::from)
}

/// The request as text that [`connect`] reads.
pub(crate) fn connect_text(connect: &Connect<'_>) -> Vec<u8> {
    let subs = connect.channels.iter().map(|wanted| {
        let position = wanted.recover.as_ref();
        let sub = position.map(|at| json!({"recover": true, "offset": at.offset, "epoch": at.epoch}));
        (wanted.channel.to_string(), sub.unwrap_or_else(|| json!({})))
    });
    let subs: serde_json::Map<_, _> = subs.collect();
    let headers = connect.headers.iter().map(|(name, value)| (name.to_string(), json!(value)));
    let headers: serde_json::Map<_, _> = headers.collect();
    let Connect { token, name, version, .. } = connect;
    let rest =
        json!({"token": &**token, "subs": subs, "name": name, "version": version, "headers": headers}).to_string();
    match serde_json::from_str::<&RawValue>(&connect.data) {
        Ok(data) => format!("{{\"data\":{},{}", data.get(), &rest[1..]).into_bytes(),
        Err(_) => rest.into_bytes(),
    }
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
pub(crate) fn connected(
    out: &mut Vec<u8>,
    result: &ConnectResult<'_>,
    session: u128,
    subs: &[SubResult<'_>],
) -> Vec<usize> {
    put(out, format_args!("{{\"connect\":{{\"client\":\"{}\",\"version\":", result.client));
    json_string(out, result.version);
    let places = json_subs(out, subs);
    if let Some(ttl) = result.ttl {
        put(out, format_args!(",\"expires\":true,\"ttl\":{ttl}"));
    }
    let ping = result.ping_seconds.unwrap_or_default();
    put(out, format_args!(",\"ping\":{ping},\"session\":\"{session:032x}\""));
    json_data(out, result.data);
    out.extend_from_slice(b"}}");
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

/// `{"channel":"a","subscribe":{}}`
pub(crate) fn subscribed(out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
    json_subscribe_push(out, channel, result);
}

/// `{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}`
pub(crate) fn unsubscribed(out: &mut Vec<u8>, channel: &str, why: Unsubscribed) {
    out.extend_from_slice(b"{\"channel\":");
    json_string(out, channel);
    put(out, format_args!(",\"unsubscribe\":{{\"code\":{},\"reason\":\"{}\"}}}}", why.code, why.reason));
}

/// `{"refresh":{"expires":true,"ttl":600}}`
pub(crate) fn refreshed(out: &mut Vec<u8>, ttl: Option<u32>) {
    match ttl {
        Some(ttl) => put(out, format_args!("{{\"refresh\":{{\"expires\":true,\"ttl\":{ttl}}}}}")),
        None => out.extend_from_slice(b"{\"refresh\":{}}"),
    }
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
        assert_eq!(&*request.token, "t");
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
    fn a_request_is_read_again_as_it_was_written() {
        let text = br#"{"token":"t.\"","subs":{"a":{"recover":true,"offset":3,"epoch":"e"},"b":{}},"data":{"v": 2.0},
            "name":"page","version":"7","headers":{"x":"y"}}"#;
        let (once, again) = (connect(text).expect("connect"), connect_text(&connect(text).expect("connect")));
        let again = connect(&again).expect("connect");
        assert_eq!((&*once.token, &once.headers), (&*again.token, &again.headers));
        assert_eq!(format!("{once:?}"), format!("{again:?}"));
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
            let result = SubscribeResult::default();
            let subs: Vec<_> =
                names.iter().map(|channel| SubResult { channel, result: &result, missed: None }).collect();
            let told = ConnectResult { client, version: "tidegate", ttl: Some(9), ping_seconds: Some(25), data: None };
            connected(&mut out, &told, 7, &subs);
            let tree: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(tree["connect"]["subs"].as_object().map_or(0, serde_json::Map::len), names.len());
            assert_eq!(tree["connect"]["ping"], 25);
            assert_eq!((&tree["connect"]["expires"], &tree["connect"]["ttl"]), (&true.into(), &9.into()));
        }
    }
}
