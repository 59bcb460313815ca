//! Centrifugo's JSON protocol, both ways ([`bidirectional`]) and one way ([`unidirectional`]).

use super::{Heard, Subscribed};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

const PING: &[u8] = b"{}";

#[derive(Deserialize)]
struct RawReply<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    error: Option<RawError<'a>>,
    #[serde(borrow)]
    push: Option<RawPush<'a>>,
    #[serde(borrow)]
    subscribe: Option<RawSubscribe<'a>>,
}

/// An error, a disconnect or an unsubscribe.
#[derive(Deserialize)]
struct RawError<'a> {
    #[serde(default)]
    code: u32,
    #[serde(borrow, default, alias = "reason")]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawPush<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, rename = "pub")]
    publication: Option<RawPublication<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<RawError<'a>>,
    #[serde(borrow)]
    disconnect: Option<RawError<'a>>,
    connect: Option<RawConnect>,
}

#[derive(Deserialize)]
struct RawPublication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
struct RawSubscribe<'a> {
    #[serde(default)]
    positioned: bool,
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    recovered: bool,
    #[serde(borrow, default)]
    publications: Vec<RawPublication<'a>>,
}

#[derive(Deserialize)]
struct RawConnect {
    subs: Option<BTreeMap<String, IgnoredAny>>,
}

/// One line of a message from the server.
pub(super) fn bidirectional(line: &[u8]) -> Heard<'_> {
    if line == PING {
        return Heard::Ping { answer: true };
    }
    match serde_json::from_slice::<RawReply<'_>>(line) {
        Ok(RawReply { push: Some(push), .. }) => push.heard(),
        Ok(RawReply { error: Some(error), id, .. }) => {
            let command = if id == 1 { "connect" } else { "subscribe" };
            Heard::Refused(format!("{command} refused: {error}"))
        }
        Ok(RawReply { subscribe: Some(result), .. }) if result.positioned => Heard::Subscribed(result.heard()),
        Ok(RawReply { id: 1.., .. }) => Heard::Reply,
        Ok(_) => Heard::Other,
        Err(error) => Heard::Refused(format!("the server's message is not of the protocol: {error}")),
    }
}

/// A message from the server.
pub(super) fn unidirectional(message: &[u8]) -> Heard<'_> {
    if message == PING {
        return Heard::Ping { answer: false };
    }
    match serde_json::from_slice::<RawPush<'_>>(message) {
        // A channel that is not granted is left out in silence.
        Ok(RawPush { connect: Some(connect), .. }) => Heard::Connected(connect.subs.map_or(0, |subs| subs.len())),
        Ok(push) => push.heard(),
        Err(error) => Heard::Refused(format!("the server's message is not of the protocol: {error}")),
    }
}

impl<'m> RawPush<'m> {
    fn heard(self) -> Heard<'m> {
        if let Some(publication) = self.publication {
            let RawPublication { data, offset } = publication;
            return Heard::Publication { channel: self.channel, data: data.get().as_bytes(), offset };
        }
        match (self.unsubscribe, self.disconnect) {
            (Some(why), _) => Heard::Refused(format!("unsubscribed by the server: {why}")),
            (_, Some(why)) => Heard::Refused(format!("disconnected by the server: {why}")),
            _ => Heard::Other,
        }
    }
}

impl<'m> RawSubscribe<'m> {
    fn heard(self) -> Subscribed<'m> {
        let publications = self.publications.iter().map(|publication| {
            let data: &'m RawValue = publication.data;
            (publication.offset, data.get().as_bytes())
        });
        Subscribed {
            recovered: self.recovered,
            offset: self.offset,
            publications: publications.collect(),
            epoch: self.epoch,
        }
    }
}

impl std::fmt::Display for RawError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}
