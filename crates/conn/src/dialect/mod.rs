//! The client protocols. Each turns received messages into [`crate::command::Command`]s and our answers into messages;
//! none knows sockets, subscriptions or limits.

pub(crate) mod centrifugo;
pub(crate) mod plain;

use crate::auth::token::Json;
use crate::command::{Connect, Position, Wanted};
use crate::ids::ClientId;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

/// In `flag` of a subscribe: where it cannot recover, the client wants error 112.
const REJECT_UNRECOVERED: u64 = 1 << 1;

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string into memory cannot fail");
}

/// Appends formatted text.
pub(crate) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into memory cannot fail");
}

/// Appends the members of a JSON `Publication` object, without its braces.
pub(crate) fn json_publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    out.extend_from_slice(b"\"data\":");
    out.extend_from_slice(&publication.data);
    json_about_publication(out, publication);
}

/// The same but for `data`, which comes first.
pub(crate) fn json_about_publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        json_info(out, info);
    }
    if let Some(tags) = &publication.tags {
        out.extend_from_slice(b",\"tags\":{");
        for (i, (key, value)) in tags.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json_string(out, key);
            out.push(b':');
            json_string(out, value);
        }
        out.push(b'}');
    }
    if let (Some(offset), Some(time)) = (publication.offset(), publication.time) {
        put(out, format_args!(",\"offset\":{},\"time\":{time}", offset.0));
    }
}

/// Appends a JSON `ClientInfo` object.
pub(crate) fn json_info(out: &mut Vec<u8>, info: &hub::ClientInfo) {
    out.extend_from_slice(b"{\"user\":");
    json_string(out, &info.user);
    out.extend_from_slice(b",\"client\":");
    json_string(out, &info.client);
    for (key, raw) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if let Some(raw) = raw {
            put(out, format_args!(",\"{key}\":"));
            out.extend_from_slice(raw);
        }
    }
    out.push(b'}');
}

/// Appends the JSON object of a join or leave push.
pub(crate) fn json_announcement(out: &mut Vec<u8>, announcement: &hub::Announcement) {
    out.extend_from_slice(b"{\"channel\":");
    json_string(out, &announcement.channel);
    out.extend_from_slice(match announcement.change {
        hub::Change::Join => b",\"join\":{\"info\":",
        hub::Change::Leave => b",\"leave\":{\"info\":",
    });
    json_info(out, &announcement.info);
    out.extend_from_slice(b"}}");
}

/// Appends JSON `Publication` objects with commas between them.
pub(crate) fn json_publications(out: &mut Vec<u8>, publications: &[std::sync::Arc<hub::Publication>]) {
    for (i, publication) in publications.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
        json_publication(out, publication);
        out.push(b'}');
    }
}

/// What a client is told when it has connected, without the channels.
pub(crate) struct ConnectResult<'a> {
    pub(crate) client: ClientId,
    pub(crate) version: &'a str,
    /// Seconds after which the client should refresh; `None`: never.
    pub(crate) ttl: Option<u32>,
    /// `None` where native WebSocket pings are used: then neither `ping` nor `pong` is sent.
    pub(crate) ping_seconds: Option<u64>,
    /// What its backend says to the client: JSON.
    pub(crate) data: Option<&'a [u8]>,
}

/// A channel that a client is told of when it has connected.
pub(crate) struct SubResult<'a> {
    pub(crate) channel: &'a str,
    pub(crate) result: &'a SubscribeResult,
    /// Bytes of the publications that were recovered, if there are any. They are not written, but their place is returned.
    pub(crate) missed: Option<usize>,
}

/// The result of a subscribe, without the publications that were recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubscribeResult {
    /// The client may recover from its position later.
    pub(crate) recoverable: bool,
    /// The client is told when it misses something.
    pub(crate) positioned: bool,
    /// Where the subscription begins; only for subscriptions of the two kinds above.
    pub(crate) position: Option<hub::Position>,
    /// The client wanted to recover.
    pub(crate) was_recovering: bool,
    /// It did.
    pub(crate) recovered: bool,
    /// Payloads may be patches.
    pub(crate) delta: bool,
    /// Seconds after which the client should refresh; `None`: never.
    pub(crate) ttl: Option<u32>,
    /// What the token says to the client: JSON.
    pub(crate) data: Option<Json>,
}

/// Appends the members of a JSON `SubscribeResult` object, without its braces and without `publications`.
pub(crate) fn json_subscribe_result(out: &mut Vec<u8>, result: &SubscribeResult) {
    let start = out.len();
    for (name, is_on) in [
        ("recoverable", result.recoverable),
        ("positioned", result.positioned),
        ("was_recovering", result.was_recovering),
        ("recovered", result.recovered),
        ("delta", result.delta),
    ] {
        if is_on {
            put(out, format_args!(",\"{name}\":true"));
        }
    }
    if let Some(hub::Position { offset, epoch }) = result.position {
        put(out, format_args!(",\"epoch\":\"{epoch}\""));
        if offset.0 > 0 {
            put(out, format_args!(",\"offset\":{}", offset.0));
        }
    }
    if let Some(ttl) = result.ttl {
        put(out, format_args!(",\"expires\":true,\"ttl\":{ttl}"));
    }
    json_data(out, result.data.as_deref());
    if out.len() > start {
        out.remove(start);
    }
}

/// Appends `,"data":…` where there is any.
pub(crate) fn json_data(out: &mut Vec<u8>, data: Option<&[u8]>) {
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
}

/// Appends `{"channel":"c","subscribe":{…}}`, of a subscription that a backend has made: without what such a push has no
/// field for (its end, and whether something was recovered).
pub(crate) fn json_subscribe_push(out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
    out.extend_from_slice(b"{\"channel\":");
    json_string(out, channel);
    out.extend_from_slice(b",\"subscribe\":{");
    let (recoverable, positioned, position) = (result.recoverable, result.positioned, result.position);
    let data = result.data.clone();
    let told = SubscribeResult { recoverable, positioned, position, data, ..SubscribeResult::default() };
    json_subscribe_result(out, &told);
    out.extend_from_slice(b"}}");
}

/// Appends `,"subs":{…}` where there are any. Returns the places of what was recovered, in order.
pub(crate) fn json_subs(out: &mut Vec<u8>, subs: &[SubResult<'_>]) -> Vec<usize> {
    let mut places = Vec::new();
    for (i, sub) in subs.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b",\"subs\":{" } else { b"," });
        json_string(out, sub.channel);
        out.extend_from_slice(b":{");
        let start = out.len();
        json_subscribe_result(out, sub.result);
        if sub.missed.is_some() {
            out.extend_from_slice(if out.len() > start { b",\"publications\":[" } else { b"\"publications\":[" });
            places.push(out.len());
            out.push(b']');
        }
        out.push(b'}');
    }
    if !subs.is_empty() {
        out.push(b'}');
    }
    places
}

/// The connect request in JSON, with or without an envelope.
#[derive(Deserialize)]
pub(crate) struct RawConnect<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
    #[serde(default, deserialize_with = "Subs::null_as_empty")]
    subs: Subs,
    #[serde(borrow, default, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    headers: Option<BTreeMap<String, String>>,
}

impl<'a> From<RawConnect<'a>> for Connect<'a> {
    fn from(raw: RawConnect<'a>) -> Self {
        let headers = raw.headers.unwrap_or_default().into_iter();
        Connect {
            token: raw.token.into(),
            channels: raw.subs.into_wanted(),
            data: text(raw.data),
            name: raw.name,
            version: raw.version,
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }
}

/// Keeps `null` as the payload that it is; only an absent field is `None`.
pub(crate) fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A payload as it stands, empty where there is none.
pub(crate) fn text(data: Option<&RawValue>) -> Cow<'_, str> {
    Cow::Borrowed(data.map_or("", RawValue::get))
}

/// Channels of a connect request with where the client left off.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub(crate) struct Subs(BTreeMap<String, Option<RawSub>>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSub {
    recover: bool,
    epoch: String,
    offset: u64,
}

impl Subs {
    pub(crate) fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Option::unwrap_or_default)
    }

    pub(crate) fn into_wanted<'a>(self) -> Vec<Wanted<'a>> {
        let wanted = self.0.into_iter().map(|(name, sub)| {
            let RawSub { recover, epoch, offset } = sub.unwrap_or_default();
            let recover = recover.then_some(Position { offset, epoch: Cow::Owned(epoch) });
            Wanted { channel: Cow::Owned(name), recover }
        });
        wanted.collect()
    }
}
