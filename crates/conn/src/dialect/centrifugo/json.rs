//! Centrifugo's protocol as JSON: one object a line, one or more lines a message.
//!
//! Unknown fields are ignored, absent fields are zero, and we leave zero values out. Payloads (`data`) stay text from
//! end to end: they are borrowed from the message as they stand and never become a tree.

use super::super::{
    ConnectResult, REJECT_UNRECOVERED, RawConnect, SubResult, SubscribeResult, json_about_publication,
    json_announcement, json_data, json_info, json_publication, json_publications, json_string, json_subs,
    json_subscribe_push, json_subscribe_result, put,
};
use super::super::{raw, text};
use super::{Done, Malformed, Payload};
use crate::command::{Command, History, Position, Refresh, Request, Rpc, SubRefresh, Subscribe};
use crate::disconnect::{ClientError, Unsubscribed};
use crate::ids::ClientId;
use hub::PresenceStats;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// Takes the next command off the front of a message. `None` at its end.
pub(super) fn next_command<'a>(message: &mut &'a [u8]) -> Option<Result<Command<'a>, Malformed>> {
    if message.is_empty() {
        return None;
    }
    let line = match message.iter().position(|&b| b == b'\n') {
        Some(end) => {
            let line = &message[..end];
            *message = &message[end + 1..];
            line
        }
        None => std::mem::take(message),
    };
    Some(serde_json::from_slice::<RawCommand<'a>>(line).map(RawCommand::into_command).map_err(|_| Malformed))
}

#[derive(Deserialize)]
struct RawCommand<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    connect: Option<RawConnect<'a>>,
    #[serde(borrow)]
    subscribe: Option<RawSubscribe<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<RawChannel<'a>>,
    #[serde(borrow)]
    publish: Option<RawPublish<'a>>,
    #[serde(borrow)]
    presence: Option<RawChannel<'a>>,
    #[serde(borrow)]
    presence_stats: Option<RawChannel<'a>>,
    #[serde(borrow)]
    history: Option<RawHistory<'a>>,
    #[serde(borrow)]
    rpc: Option<RawRpc<'a>>,
    send: Option<Present>,
    #[serde(borrow)]
    refresh: Option<RawToken<'a>>,
    #[serde(borrow)]
    sub_refresh: Option<RawToken<'a>>,
    ping: Option<Present>,
}

/// An object whose content does not matter here.
#[derive(Deserialize)]
struct Present {}

#[derive(Deserialize)]
struct RawRpc<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
}

/// What refresh and sub_refresh bring.
#[derive(Deserialize)]
struct RawToken<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    token: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawChannel<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawPublish<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawSubscribe<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(borrow, default)]
    delta: Cow<'a, str>,
    tf: Option<Present>,
    #[serde(default, rename = "type")]
    kind: i32,
    #[serde(default)]
    recover: bool,
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    positioned: bool,
    #[serde(default)]
    recoverable: bool,
    #[serde(default)]
    join_leave: bool,
    #[serde(default)]
    flag: i64,
    #[serde(borrow, default, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawHistory<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(default)]
    limit: i32,
    #[serde(borrow)]
    since: Option<RawPosition<'a>>,
    #[serde(default)]
    reverse: bool,
}

#[derive(Deserialize)]
struct RawPosition<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
}

impl<'a> From<RawPosition<'a>> for Position<'a> {
    fn from(RawPosition { offset, epoch }: RawPosition<'a>) -> Self {
        Position { offset, epoch }
    }
}

impl<'a> From<RawSubscribe<'a>> for Subscribe<'a> {
    fn from(s: RawSubscribe<'a>) -> Self {
        Subscribe {
            channel: s.channel,
            token: s.token.into(),
            delta: s.delta,
            filtered: s.tf.is_some(),
            kind: s.kind,
            recover: s.recover.then_some(Position { offset: s.offset, epoch: s.epoch }),
            recoverable: s.recoverable,
            positioned: s.positioned,
            join_leave: s.join_leave,
            reject_unrecovered: s.flag as u64 & REJECT_UNRECOVERED != 0,
            data: text(s.data),
        }
    }
}

impl<'a> RawCommand<'a> {
    /// Where several requests are set, the first in this order wins.
    fn into_command(self) -> Command<'a> {
        let request = if let Some(connect) = self.connect {
            Request::Connect(connect.into())
        } else if let Some(subscribe) = self.subscribe {
            Request::Subscribe(subscribe.into())
        } else if let Some(unsubscribe) = self.unsubscribe {
            Request::Unsubscribe { channel: unsubscribe.channel }
        } else if let Some(publish) = self.publish {
            Request::Publish { channel: publish.channel, data: text(publish.data) }
        } else if let Some(RawChannel { channel }) = self.presence {
            Request::Presence { channel }
        } else if let Some(RawChannel { channel }) = self.presence_stats {
            Request::PresenceStats { channel }
        } else if let Some(RawHistory { channel, limit, since, reverse }) = self.history {
            Request::History(History { channel, limit, since: since.map(Position::from), reverse })
        } else if let Some(RawRpc { method, data }) = self.rpc {
            Request::Rpc(Rpc { method, data: text(data) })
        } else if self.send.is_some() {
            Request::Send
        } else if let Some(RawToken { token, .. }) = self.refresh {
            Request::Refresh(Refresh { token: token.into() })
        } else if let Some(RawToken { channel, token }) = self.sub_refresh {
            Request::SubRefresh(SubRefresh { channel, token: token.into() })
        } else if self.ping.is_none() && self.id == 0 {
            Request::Pong
        } else {
            Request::Unknown
        };
        Command { id: self.id, request }
    }
}

/// The ping, and the shape of the pong: an empty object.
pub(super) const PING: &[u8] = b"{}";

/// `{"id":1,"connect":{…}}`
pub(super) fn connected(out: &mut Vec<u8>, id: u32, result: &ConnectResult<'_>, subs: &[SubResult<'_>]) -> Vec<usize> {
    put(out, format_args!("{{\"id\":{id},\"connect\":{{\"client\":\"{}\",\"version\":", result.client));
    json_string(out, result.version);
    let places = json_subs(out, subs);
    if let Some(ttl) = result.ttl {
        put(out, format_args!(",\"expires\":true,\"ttl\":{ttl}"));
    }
    if let Some(seconds) = result.ping_seconds {
        put(out, format_args!(",\"ping\":{seconds},\"pong\":true"));
    }
    json_data(out, result.data);
    out.extend_from_slice(b"}}");
    places
}

/// `{"id":10,"refresh":{"client":…,"version":…,"expires":true,"ttl":600}}`
pub(super) fn refreshed(out: &mut Vec<u8>, id: u32, client: ClientId, version: &str, ttl: Option<u32>) {
    put(out, format_args!("{{\"id\":{id},\"refresh\":{{\"client\":\"{client}\",\"version\":"));
    json_string(out, version);
    if let Some(ttl) = ttl {
        put(out, format_args!(",\"expires\":true,\"ttl\":{ttl}"));
    }
    out.extend_from_slice(b"}}");
}

/// `{"id":11,"sub_refresh":{"expires":true,"ttl":600}}`
pub(super) fn sub_refreshed(out: &mut Vec<u8>, id: u32, ttl: Option<u32>) {
    put(out, format_args!("{{\"id\":{id},\"sub_refresh\":{{"));
    if let Some(ttl) = ttl {
        put(out, format_args!("\"expires\":true,\"ttl\":{ttl}"));
    }
    out.extend_from_slice(b"}}");
}

/// `{"id":2,"subscribe":{}}`: an answer whose result has nothing to say.
pub(super) fn done(out: &mut Vec<u8>, id: u32, done: Done) {
    let field = match done {
        Done::Unsubscribe => "unsubscribe",
        Done::Publish => "publish",
    };
    put(out, format_args!("{{\"id\":{id},\"{field}\":{{}}}}"));
}

/// `{"id":9,"rpc":{"data":…}}`
pub(super) fn called(out: &mut Vec<u8>, id: u32, data: Option<&[u8]>) {
    put(out, format_args!("{{\"id\":{id},\"rpc\":{{"));
    if let Some(data) = data {
        out.extend_from_slice(b"\"data\":");
        out.extend_from_slice(data);
    }
    out.extend_from_slice(b"}}");
}

/// `{"id":2,"subscribe":{…}}`
pub(super) fn subscribed(out: &mut Vec<u8>, id: u32, result: &SubscribeResult) {
    put(out, format_args!("{{\"id\":{id},\"subscribe\":{{"));
    json_subscribe_result(out, result);
    out.extend_from_slice(b"}}");
}

/// The same around publications, whose place is returned.
pub(super) fn recovered(out: &mut Vec<u8>, id: u32, result: &SubscribeResult) -> usize {
    subscribed(out, id, result);
    out.truncate(out.len() - 2);
    out.extend_from_slice(b",\"publications\":[");
    let at = out.len();
    out.extend_from_slice(b"]}}");
    at
}

/// `{"id":8,"history":{"publications":[…],"epoch":"kPzQwRtb","offset":57}}`
pub(super) fn history(out: &mut Vec<u8>, id: u32, page: &hub::HistoryPage) {
    put(out, format_args!("{{\"id\":{id},\"history\":{{\"publications\":["));
    json_publications(out, &page.publications);
    let hub::Position { offset, epoch } = page.position;
    put(out, format_args!("],\"epoch\":\"{epoch}\",\"offset\":{}}}}}", offset.0));
}

/// `{"id":6,"presence":{"presence":{"<client>":{…}}}}` or `{"id":7,"presence_stats":{"num_clients":3,"num_users":2}}`
pub(super) fn presence(out: &mut Vec<u8>, id: u32, presence: &hub::Presence) {
    match presence {
        hub::Presence::Clients(clients) => {
            put(out, format_args!("{{\"id\":{id},\"presence\":{{\"presence\":{{"));
            for (i, info) in clients.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json_string(out, &info.client);
                out.push(b':');
                json_info(out, info);
            }
            out.extend_from_slice(b"}}}");
        }
        hub::Presence::Stats(PresenceStats { clients, users }) => {
            let stats = format_args!("{{\"num_clients\":{clients},\"num_users\":{users}}}");
            put(out, format_args!("{{\"id\":{id},\"presence_stats\":{stats}}}"));
        }
    }
}

/// `{"push":{"channel":"c","join":{"info":{…}}}}`
pub(super) fn announcement(out: &mut Vec<u8>, announcement: &hub::Announcement) {
    out.extend_from_slice(b"{\"push\":");
    json_announcement(out, announcement);
    out.push(b'}');
}

/// `{"push":{"channel":"c","subscribe":{"recoverable":true,"positioned":true,"epoch":"kPzQwRtb","offset":57}}}`
pub(super) fn subscribe_push(out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
    out.extend_from_slice(b"{\"push\":");
    json_subscribe_push(out, channel, result);
    out.push(b'}');
}

/// `{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`
pub(super) fn unsubscribed(out: &mut Vec<u8>, channel: &str, why: Unsubscribed) {
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    json_string(out, channel);
    put(out, format_args!(",\"unsubscribe\":{{\"code\":{},\"reason\":\"{}\"}}}}}}", why.code, why.reason));
}

/// `{"push":{"refresh":{"expires":true,"ttl":600}}}`
pub(super) fn refresh_push(out: &mut Vec<u8>, ttl: Option<u32>) {
    match ttl {
        Some(ttl) => put(out, format_args!("{{\"push\":{{\"refresh\":{{\"expires\":true,\"ttl\":{ttl}}}}}}}")),
        None => out.extend_from_slice(b"{\"push\":{\"refresh\":{}}}"),
    }
}

/// `{"id":2,"error":{"code":103,"message":"permission denied"}}`
pub(super) fn error(out: &mut Vec<u8>, id: u32, error: &ClientError) {
    put(out, format_args!("{{\"id\":{id},\"error\":{{\"code\":{},\"message\":", error.code));
    json_string(out, &error.message);
    if error.temporary {
        out.extend_from_slice(b",\"temporary\":true");
    }
    out.extend_from_slice(b"}}");
}

/// `{"push":{"channel":"c","pub":{"data":…}}}`, and `{"data":"…","delta":true}` of a patch.
pub(super) fn publication(out: &mut Vec<u8>, publication: &hub::Publication, payload: Payload<'_>) {
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    json_string(out, &publication.channel);
    out.extend_from_slice(b",\"pub\":{");
    match payload {
        Payload::Whole => json_publication(out, publication),
        Payload::Text => text_publication(out, publication),
        Payload::Patch(patch) => {
            out.extend_from_slice(b"\"data\":");
            json_string(out, patch);
            json_about_publication(out, publication);
            out.extend_from_slice(b",\"delta\":true");
        }
    }
    out.extend_from_slice(b"}}}");
}

/// A publication for a subscription that takes deltas, whole: the text of its payload as a string.
fn text_publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    out.extend_from_slice(b"\"data\":");
    json_string(out, &String::from_utf8_lossy(&publication.data));
    json_about_publication(out, publication);
}

/// Publications as they stand in the reply to a subscribe that takes deltas.
pub(super) fn missed_texts(out: &mut Vec<u8>, publications: &[Arc<hub::Publication>]) {
    for (i, publication) in publications.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
        text_publication(out, publication);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Command<'_>, Malformed> {
        let mut rest = text.as_bytes();
        next_command(&mut rest).expect("one command")
    }

    #[test]
    fn commands_are_split_at_newlines_and_one_may_trail() {
        let mut rest: &[u8] = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n";
        let ids: Vec<u32> =
            std::iter::from_fn(|| next_command(&mut rest)).map(|c| c.expect("well formed").id).collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn empty_lines_and_broken_json_are_malformed_and_their_twins_are_not() {
        for bad in ["\n{}", "{\"id\":1,}", "[]", "{\"id\":-1}", "{\"id\":1}}", "{\"id\":1,\"subscribe\":[1]}"] {
            assert!(one(bad).is_err(), "{bad}");
        }
        for good in ["{}", "{\"id\":1}", " {} ", "{\"id\":1,\"later\":[1]}"] {
            assert!(one(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_first_request_in_protocol_order_wins() {
        let text = "{\"id\":3,\"rpc\":{},\"unsubscribe\":{\"channel\":\"u\"},\"publish\":{\"channel\":\"p\"}}";
        assert!(matches!(one(text).unwrap().request, Request::Unsubscribe { channel } if channel == "u"));
        assert!(matches!(one("{\"id\":3,\"send\":{},\"rpc\":{}}").unwrap().request, Request::Rpc(_)));
        assert!(matches!(one("{\"id\":3,\"ping\":{}}").unwrap().request, Request::Unknown));
        assert!(matches!(one("{\"send\":{}}").unwrap().request, Request::Send));
        assert!(matches!(one("{}").unwrap().request, Request::Pong));
    }

    #[test]
    fn a_null_request_is_absent_and_a_null_payload_is_a_payload() {
        assert!(matches!(one("{\"connect\":null}").unwrap().request, Request::Pong));
        let data = |text| match one(text).unwrap().request {
            Request::Publish { data, .. } => data.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(data("{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":null}}"), "null");
        assert_eq!(data("{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":{\"x\" : 1.0}}}"), "{\"x\" : 1.0}");
        assert_eq!(data("{\"id\":1,\"publish\":{\"channel\":\"a\"}}"), "");
    }

    #[test]
    fn escaped_channel_names_are_decoded_and_encoded_again() {
        let Request::Unsubscribe { channel } =
            one(r#"{"id":1,"unsubscribe":{"channel":"a\"\u00e9"}}"#).unwrap().request
        else {
            panic!()
        };
        assert_eq!(channel, "a\"é");
        let mut out = Vec::new();
        json_string(&mut out, &channel);
        assert_eq!(out, "\"a\\\"é\"".as_bytes());
    }

    #[test]
    fn replies_are_valid_json_without_zero_values() {
        let mut out = Vec::new();
        error(&mut out, 7, &ClientError::INTERNAL);
        assert_eq!(out, br#"{"id":7,"error":{"code":100,"message":"internal server error","temporary":true}}"#);
        out.clear();
        subscribed(&mut out, 2, &SubscribeResult::default());
        assert_eq!(out, br#"{"id":2,"subscribe":{}}"#);
        out.clear();
        subscribed(&mut out, 2, &SubscribeResult { delta: true, ..SubscribeResult::default() });
        assert_eq!(out, br#"{"id":2,"subscribe":{"delta":true}}"#);
        out.clear();
        let theirs = ClientError { code: 400, message: "not \"you\"".into(), temporary: false };
        error(&mut out, 7, &theirs);
        called(&mut out, 8, Some(b"[1]"));
        called(&mut out, 9, None);
        let expected =
            br#"{"id":7,"error":{"code":400,"message":"not \"you\""}}{"id":8,"rpc":{"data":[1]}}{"id":9,"rpc":{}}"#;
        assert_eq!(out, expected);
    }
}
