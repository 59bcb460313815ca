//! Centrifugo's bidirectional client protocol, version 2, in its two formats: JSON in text messages, Protobuf in binary
//! ones. Sessions do not know which; they ask their [`Format`].

pub(crate) mod fossil;
mod json;
mod protobuf;

use super::{ConnectResult, SubResult, SubscribeResult};
use crate::command::Command;
use crate::disconnect::{ClientError, Unsubscribed};
use crate::ids::ClientId;
use hub::{Announcement, HistoryPage, Presence, Publication};
use std::sync::Arc;
use wire::ws::OpCode;

/// The message is not a list of commands: disconnect 3501.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a push says of a publication's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// All of it.
    Whole,
    /// All of it, to a subscription that takes deltas: in JSON a string, because a patch is none of JSON's values.
    Text,
    /// What makes it of the payload before.
    Patch(&'a str),
}

/// A command whose result has nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Unsubscribe,
    Publish,
}

/// How commands, replies and pushes are written. Chosen in the handshake, for the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// What messages to the client are. The kind of a client's own messages is not looked at.
    pub(crate) fn opcode(self) -> OpCode {
        match self {
            Self::Json => OpCode::Text,
            Self::Protobuf => OpCode::Binary,
        }
    }

    /// Takes the next command off the front of a message. `None` at its end.
    pub(crate) fn next_command<'a>(self, message: &mut &'a [u8]) -> Option<Result<Command<'a>, Malformed>> {
        match self {
            Self::Json => json::next_command(message),
            Self::Protobuf => protobuf::next_command(message),
        }
    }

    /// The ping, and the shape of the pong: a message without any field.
    pub(crate) fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => json::PING,
            Self::Protobuf => protobuf::PING,
        }
    }

    /// The reply to connect. Returns where in `out` what was recovered belongs, in the order of `subs`.
    pub(crate) fn connected(
        self,
        out: &mut Vec<u8>,
        id: u32,
        result: &ConnectResult<'_>,
        subs: &[SubResult<'_>],
    ) -> Vec<usize> {
        match self {
            Self::Json => json::connected(out, id, result, subs),
            Self::Protobuf => protobuf::connected(out, id, result, subs),
        }
    }

    /// The reply to refresh. `ttl` is `None` where the connection lasts for ever now.
    pub(crate) fn refreshed(self, out: &mut Vec<u8>, id: u32, client: ClientId, version: &str, ttl: Option<u32>) {
        match self {
            Self::Json => json::refreshed(out, id, client, version, ttl),
            Self::Protobuf => protobuf::refreshed(out, id, client, version, ttl),
        }
    }

    /// The reply to sub_refresh.
    pub(crate) fn sub_refreshed(self, out: &mut Vec<u8>, id: u32, ttl: Option<u32>) {
        match self {
            Self::Json => json::sub_refreshed(out, id, ttl),
            Self::Protobuf => protobuf::sub_refreshed(out, id, ttl),
        }
    }

    /// The reply to rpc.
    pub(crate) fn called(self, out: &mut Vec<u8>, id: u32, data: Option<&[u8]>) {
        match self {
            Self::Json => json::called(out, id, data),
            Self::Protobuf => protobuf::called(out, id, data),
        }
    }

    /// A reply whose result is empty.
    pub(crate) fn done(self, out: &mut Vec<u8>, id: u32, done: Done) {
        match self {
            Self::Json => json::done(out, id, done),
            Self::Protobuf => protobuf::done(out, id, done),
        }
    }

    /// The reply to a subscribe.
    pub(crate) fn subscribed(self, out: &mut Vec<u8>, id: u32, result: &SubscribeResult) {
        match self {
            Self::Json => json::subscribed(out, id, result),
            Self::Protobuf => protobuf::subscribed(out, id, result),
        }
    }

    /// The same around what was missed, which takes `missed` bytes as [`Format::missed`] writes it. Returns where in `out`
    /// it belongs: many clients share it, so it is not copied here.
    pub(crate) fn recovered(self, out: &mut Vec<u8>, id: u32, result: &SubscribeResult, missed: usize) -> usize {
        match self {
            Self::Json => json::recovered(out, id, result),
            Self::Protobuf => protobuf::recovered(out, id, result, missed),
        }
    }

    /// Publications as they stand in the reply to a subscribe; whole, also to one that takes deltas.
    pub(crate) fn missed(self, out: &mut Vec<u8>, publications: &[Arc<Publication>], takes_deltas: bool) {
        match self {
            Self::Json if takes_deltas => json::missed_texts(out, publications),
            Self::Json => super::json_publications(out, publications),
            Self::Protobuf => protobuf::missed(out, publications),
        }
    }

    /// The reply to history.
    pub(crate) fn history(self, out: &mut Vec<u8>, id: u32, page: &HistoryPage) {
        match self {
            Self::Json => json::history(out, id, page),
            Self::Protobuf => protobuf::history(out, id, page),
        }
    }

    /// The reply to presence, or to presence_stats.
    pub(crate) fn presence(self, out: &mut Vec<u8>, id: u32, presence: &Presence) {
        match self {
            Self::Json => json::presence(out, id, presence),
            Self::Protobuf => protobuf::presence(out, id, presence),
        }
    }

    /// The push that tells who has come or gone. Nothing in it may differ between two subscribers.
    pub(crate) fn announcement(self, out: &mut Vec<u8>, announcement: &Announcement) {
        match self {
            Self::Json => json::announcement(out, announcement),
            Self::Protobuf => protobuf::announcement(out, announcement),
        }
    }

    /// The push of a subscription that a backend has made.
    pub(crate) fn subscribe_push(self, out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
        match self {
            Self::Json => json::subscribe_push(out, channel, result),
            Self::Protobuf => protobuf::subscribe_push(out, channel, result),
        }
    }

    /// The push that ends a subscription.
    pub(crate) fn unsubscribed(self, out: &mut Vec<u8>, channel: &str, why: Unsubscribed) {
        match self {
            Self::Json => json::unsubscribed(out, channel, why),
            Self::Protobuf => protobuf::unsubscribed(out, channel, why),
        }
    }

    /// The push that tells until when the connection lasts now.
    pub(crate) fn refresh_push(self, out: &mut Vec<u8>, ttl: Option<u32>) {
        match self {
            Self::Json => json::refresh_push(out, ttl),
            Self::Protobuf => protobuf::refresh_push(out, ttl),
        }
    }

    /// A reply that is an error.
    pub(crate) fn error(self, out: &mut Vec<u8>, id: u32, error: &ClientError) {
        match self {
            Self::Json => json::error(out, id, error),
            Self::Protobuf => protobuf::error(out, id, error),
        }
    }

    /// The push of a publication. Nothing in it may differ between two subscribers.
    pub(crate) fn publication(self, out: &mut Vec<u8>, publication: &Publication, payload: Payload<'_>) {
        match self {
            Self::Json => json::publication(out, publication, payload),
            Self::Protobuf => protobuf::publication(out, publication, payload),
        }
    }
}
