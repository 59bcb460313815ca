//! Centrifugo's protocol as Protobuf: messages of the schema in `client.proto`, each with its length in front, one or
//! more in a WebSocket message. What is common to both formats is in the parent module.
//!
//! Reading borrows from the received message, as the JSON twin does; writing goes straight into the buffer that is sent.
//! The structs that a generator would make own their texts: decoding a subscribe or publish command into those of the
//! crate `prost` took 182 and 124 ns and three allocations each, against 91 and 52 ns and none here. The tests use that
//! crate as the oracle.
//!
//! # A field more
//!
//! Add its number to `field.rs` (a test holds it against `client.proto`), then
//! * in a request: an arm in its `merge` function below, which puts the value where the JSON twin puts it;
//! * in a reply or push: a `put_…` in its function. Zero and empty values leave themselves out.
//!
//! Then name it in `crates/conn/tests/schema/mod.rs`, which is what the tests' clients speak.

mod field;
#[cfg(test)]
mod tests;
mod wire;

use super::super::{ConnectResult, REJECT_UNRECOVERED, SubResult, SubscribeResult};
use super::{Done, Malformed, Payload};
use crate::command::{Command, Connect, History, Position, Refresh, Request, Rpc, SubRefresh, Subscribe, Wanted};
use crate::disconnect::{ClientError, Unsubscribed};
use crate::ids::ClientId;
use hub::{Announcement, Change, ClientInfo, HistoryPage, Presence, Publication};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use wire::{Fields, put_bytes, put_delimited, put_length, put_message, put_number, put_varint};

/// Bytes of a publication's envelope around channel and data, about: see [`put_message`].
const ENVELOPE_BYTES: usize = 8;

/// The ping, and the shape of the pong: an empty message, which is its length alone.
pub(super) const PING: &[u8] = &[0];

/// Takes the next command off the front of a message. `None` at its end.
pub(super) fn next_command<'a>(message: &mut &'a [u8]) -> Option<Result<Command<'a>, Malformed>> {
    if message.is_empty() {
        return None;
    }
    Some(wire::delimited(message).and_then(command))
}

/// Requests that have nobody here, in the order in which the first one wins.
const OTHERS: [(u32, Request<'static>); 2] =
    [(field::command::SEND, Request::Send), (field::command::PING, Request::Unknown)];

/// How many of them win over a refresh.
const BEFORE_REFRESH: usize = 1;

#[derive(Default)]
struct Publish<'a> {
    channel: &'a str,
    data: &'a [u8],
}

/// Where several requests are set, the first in the order of the protocol wins, which is not that of the numbers.
fn command(bytes: &[u8]) -> Result<Command<'_>, Malformed> {
    let mut id = 0;
    let (mut connect, mut subscribe, mut unsubscribe, mut publish, mut history) = (None, None, None, None, None);
    let (mut presence, mut presence_stats, mut rpc, mut refresh, mut sub_refresh) = (None, None, None, None, None);
    let mut other = OTHERS.len();
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::command::ID => id = value.number()? as u32,
            field::command::CONNECT => merge_connect(connect.get_or_insert_default(), value.bytes()?)?,
            field::command::SUBSCRIBE => merge_subscribe(subscribe.get_or_insert_default(), value.bytes()?)?,
            field::command::UNSUBSCRIBE => merge_channel(unsubscribe.get_or_insert_default(), value.bytes()?)?,
            field::command::PUBLISH => merge_publish(publish.get_or_insert_default(), value.bytes()?)?,
            field::command::PRESENCE => merge_channel(presence.get_or_insert_default(), value.bytes()?)?,
            field::command::PRESENCE_STATS => merge_channel(presence_stats.get_or_insert_default(), value.bytes()?)?,
            field::command::HISTORY => merge_history(history.get_or_insert_default(), value.bytes()?)?,
            field::command::RPC => merge_rpc(rpc.get_or_insert_default(), value.bytes()?)?,
            field::command::REFRESH => merge_refresh(refresh.get_or_insert_default(), value.bytes()?)?,
            field::command::SUB_REFRESH => merge_sub_refresh(sub_refresh.get_or_insert_default(), value.bytes()?)?,
            number => {
                if let Some(at) = OTHERS.iter().position(|(of, _)| *of == number) {
                    Fields(value.bytes()?).try_for_each(|field| field.map(drop))?;
                    other = other.min(at);
                }
            }
        }
    }
    let request = if let Some(connect) = connect {
        Request::Connect(connect)
    } else if let Some(subscribe) = subscribe {
        Request::Subscribe(subscribe)
    } else if let Some(channel) = unsubscribe {
        Request::Unsubscribe { channel: Cow::Borrowed(channel) }
    } else if let Some(Publish { channel, data }) = publish {
        Request::Publish { channel: Cow::Borrowed(channel), data: one_line(data) }
    } else if let Some(channel) = presence {
        Request::Presence { channel: Cow::Borrowed(channel) }
    } else if let Some(channel) = presence_stats {
        Request::PresenceStats { channel: Cow::Borrowed(channel) }
    } else if let Some(history) = history {
        Request::History(history)
    } else if let Some(rpc) = rpc {
        Request::Rpc(rpc)
    } else if let Some(refresh) = refresh.filter(|_| other >= BEFORE_REFRESH) {
        Request::Refresh(refresh)
    } else if let Some(refresh) = sub_refresh.filter(|_| other >= BEFORE_REFRESH) {
        Request::SubRefresh(refresh)
    } else if let Some((_, request)) = OTHERS.into_iter().nth(other) {
        request
    } else if id == 0 {
        Request::Pong
    } else {
        Request::Unknown
    };
    Ok(Command { id, request })
}

fn merge_connect<'a>(into: &mut Connect<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::connect_request::TOKEN => into.token = Cow::Borrowed(value.text()?).into(),
            field::connect_request::SUBS => into.channels.push(wanted(value.bytes()?)?),
            field::connect_request::DATA => into.data = one_line(value.bytes()?),
            field::connect_request::NAME => into.name = Cow::Borrowed(value.text()?),
            field::connect_request::VERSION => into.version = Cow::Borrowed(value.text()?),
            field::connect_request::HEADERS => into.headers.push(header(value.bytes()?)?),
            _ => {}
        }
    }
    Ok(())
}

/// An entry of the map of positions in a connect request.
fn wanted(bytes: &[u8]) -> Result<Wanted<'_>, Malformed> {
    let (mut channel, mut sub) = (Cow::Borrowed(""), Subscribe::default());
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::MAP_KEY => channel = Cow::Borrowed(value.text()?),
            field::MAP_VALUE => merge_subscribe(&mut sub, value.bytes()?)?,
            _ => {}
        }
    }
    Ok(Wanted { channel, recover: sub.recover })
}

/// An entry of the map of headers in a connect request.
fn header(bytes: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), Malformed> {
    let mut header = <(Cow<'_, str>, Cow<'_, str>)>::default();
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::MAP_KEY => header.0 = Cow::Borrowed(value.text()?),
            field::MAP_VALUE => header.1 = Cow::Borrowed(value.text()?),
            _ => {}
        }
    }
    Ok(header)
}

fn merge_rpc<'a>(into: &mut Rpc<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::rpc_request::METHOD => into.method = Cow::Borrowed(value.text()?),
            field::rpc_request::DATA => into.data = one_line(value.bytes()?),
            _ => {}
        }
    }
    Ok(())
}

fn merge_refresh<'a>(into: &mut Refresh<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        if let (field::refresh_request::TOKEN, value) = field? {
            into.token = Cow::Borrowed(value.text()?).into();
        }
    }
    Ok(())
}

fn merge_sub_refresh<'a>(into: &mut SubRefresh<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::sub_refresh_request::CHANNEL => into.channel = Cow::Borrowed(value.text()?),
            field::sub_refresh_request::TOKEN => into.token = Cow::Borrowed(value.text()?).into(),
            _ => {}
        }
    }
    Ok(())
}

/// A request that is repeated by mistake is read on as if it were one, so what has been read before stays.
fn merge_subscribe<'a>(into: &mut Subscribe<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    let (mut recover, mut position) = (into.recover.is_some(), into.recover.take().unwrap_or_default());
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::subscribe_request::CHANNEL => into.channel = Cow::Borrowed(value.text()?),
            field::subscribe_request::TOKEN => into.token = Cow::Borrowed(value.text()?).into(),
            field::subscribe_request::DELTA => into.delta = Cow::Borrowed(value.text()?),
            field::subscribe_request::TF => into.filtered = value.bytes().map(|_| true)?,
            field::subscribe_request::TYPE => into.kind = value.number()? as i32,
            field::subscribe_request::RECOVER => recover = value.number()? != 0,
            field::subscribe_request::EPOCH => position.epoch = Cow::Borrowed(value.text()?),
            field::subscribe_request::OFFSET => position.offset = value.number()?,
            field::subscribe_request::POSITIONED => into.positioned = value.number()? != 0,
            field::subscribe_request::RECOVERABLE => into.recoverable = value.number()? != 0,
            field::subscribe_request::JOIN_LEAVE => into.join_leave = value.number()? != 0,
            field::subscribe_request::DATA => into.data = one_line(value.bytes()?),
            field::subscribe_request::FLAG => into.reject_unrecovered = value.number()? & REJECT_UNRECOVERED != 0,
            _ => {}
        }
    }
    into.recover = recover.then_some(position);
    Ok(())
}

fn merge_history<'a>(into: &mut History<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::history_request::CHANNEL => into.channel = Cow::Borrowed(value.text()?),
            field::history_request::LIMIT => into.limit = value.number()? as i32,
            field::history_request::SINCE => merge_position(into.since.get_or_insert_default(), value.bytes()?)?,
            field::history_request::REVERSE => into.reverse = value.number()? != 0,
            _ => {}
        }
    }
    Ok(())
}

fn merge_position<'a>(into: &mut Position<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::stream_position::OFFSET => into.offset = value.number()?,
            field::stream_position::EPOCH => into.epoch = Cow::Borrowed(value.text()?),
            _ => {}
        }
    }
    Ok(())
}

/// Of every request that is a channel and nothing else; the number is the same in all of them.
fn merge_channel<'a>(into: &mut &'a str, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        if let (field::unsubscribe_request::CHANNEL, value) = field? {
            *into = value.text()?;
        }
    }
    Ok(())
}

fn merge_publish<'a>(into: &mut Publish<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            field::publish_request::CHANNEL => into.channel = value.text()?,
            field::publish_request::DATA => into.data = value.bytes()?,
            _ => {}
        }
    }
    Ok(())
}

/// A payload as JSON text without line breaks. Empty where it is not JSON: a channel may have JSON subscribers, too, and
/// what is no JSON would break their messages.
fn one_line(data: &[u8]) -> Cow<'_, str> {
    let Ok(json) = serde_json::from_slice::<&RawValue>(data) else { return Cow::Borrowed("") };
    if json.get().contains(['\n', '\r']) {
        // Inside of strings JSON has them escaped, so all of these stand between tokens.
        Cow::Owned(json.get().replace(['\n', '\r'], ""))
    } else {
        Cow::Borrowed(json.get())
    }
}

/// A reply with its id, whose rest `body` writes.
fn reply(out: &mut Vec<u8>, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    put_delimited(out, 0, |out| {
        put_number(out, field::reply::ID, u64::from(id));
        body(out);
    });
}

/// What was missed is counted in every length around it without being there, as in [`recovered`].
pub(super) fn connected(out: &mut Vec<u8>, id: u32, result: &ConnectResult<'_>, subs: &[SubResult<'_>]) -> Vec<usize> {
    use field::connect_result::{CLIENT, DATA, EXPIRES, PING, PONG, SUBS, TTL, VERSION};
    let (mut body, mut places, mut missed_bytes) = (Vec::new(), Vec::new(), 0);
    put_bytes(&mut body, CLIENT, result.client.to_string().as_bytes());
    put_bytes(&mut body, VERSION, result.version.as_bytes());
    put_number(&mut body, EXPIRES, u64::from(result.ttl.is_some()));
    put_number(&mut body, TTL, u64::from(result.ttl.unwrap_or_default()));
    put_bytes(&mut body, DATA, result.data.unwrap_or_default());
    put_number(&mut body, PING, result.ping_seconds.unwrap_or_default());
    put_number(&mut body, PONG, u64::from(result.ping_seconds.is_some()));
    for sub in subs {
        let (mut fields, mut entry) = (Vec::new(), Vec::new());
        put_subscribe_result(&mut fields, sub.result);
        let missed = sub.missed.unwrap_or_default();
        put_bytes(&mut entry, field::MAP_KEY, sub.channel.as_bytes());
        put_length(&mut entry, field::MAP_VALUE, fields.len() + missed);
        put_length(&mut body, SUBS, entry.len() + fields.len() + missed);
        body.extend_from_slice(&entry);
        body.extend_from_slice(&fields);
        places.extend(sub.missed.map(|_| body.len()));
        missed_bytes += missed;
    }
    let mut head = Vec::new();
    put_number(&mut head, field::reply::ID, u64::from(id));
    put_length(&mut head, field::reply::CONNECT, body.len() + missed_bytes);
    put_varint(out, (head.len() + body.len() + missed_bytes) as u64);
    out.extend_from_slice(&head);
    let start = out.len();
    out.extend_from_slice(&body);
    places.into_iter().map(|place| start + place).collect()
}

pub(super) fn refreshed(out: &mut Vec<u8>, id: u32, client: ClientId, version: &str, ttl: Option<u32>) {
    use field::refresh_result::{CLIENT, EXPIRES, TTL, VERSION};
    reply(out, id, |out| {
        put_message(out, field::reply::REFRESH, 0, |out| {
            put_bytes(out, CLIENT, client.to_string().as_bytes());
            put_bytes(out, VERSION, version.as_bytes());
            put_number(out, EXPIRES, u64::from(ttl.is_some()));
            put_number(out, TTL, u64::from(ttl.unwrap_or_default()));
        });
    });
}

pub(super) fn sub_refreshed(out: &mut Vec<u8>, id: u32, ttl: Option<u32>) {
    use field::sub_refresh_result::{EXPIRES, TTL};
    reply(out, id, |out| {
        put_message(out, field::reply::SUB_REFRESH, 0, |out| {
            put_number(out, EXPIRES, u64::from(ttl.is_some()));
            put_number(out, TTL, u64::from(ttl.unwrap_or_default()));
        });
    });
}

pub(super) fn called(out: &mut Vec<u8>, id: u32, data: Option<&[u8]>) {
    reply(out, id, |out| {
        put_message(out, field::reply::RPC, 0, |out| {
            put_bytes(out, field::rpc_result::DATA, data.unwrap_or_default());
        });
    });
}

pub(super) fn done(out: &mut Vec<u8>, id: u32, done: Done) {
    let field = match done {
        Done::Unsubscribe => field::reply::UNSUBSCRIBE,
        Done::Publish => field::reply::PUBLISH,
    };
    reply(out, id, |out| put_message(out, field, 0, |_| {}));
}

pub(super) fn subscribed(out: &mut Vec<u8>, id: u32, result: &SubscribeResult) {
    reply(out, id, |out| put_message(out, field::reply::SUBSCRIBE, 0, |out| put_subscribe_result(out, result)));
}

/// What was missed stands last in the result, whose length counts it without it being there.
pub(super) fn recovered(out: &mut Vec<u8>, id: u32, result: &SubscribeResult, missed: usize) -> usize {
    let (mut fields, mut head) = (Vec::new(), Vec::new());
    put_subscribe_result(&mut fields, result);
    put_number(&mut head, field::reply::ID, u64::from(id));
    put_length(&mut head, field::reply::SUBSCRIBE, fields.len() + missed);
    put_varint(out, (head.len() + fields.len() + missed) as u64);
    out.extend_from_slice(&head);
    out.extend_from_slice(&fields);
    out.len()
}

pub(super) fn missed(out: &mut Vec<u8>, publications: &[Arc<Publication>]) {
    put_publications(out, field::subscribe_result::PUBLICATIONS, publications);
}

fn put_publications(out: &mut Vec<u8>, field: u32, publications: &[Arc<Publication>]) {
    for publication in publications {
        let expected = publication.data.len() + ENVELOPE_BYTES;
        put_message(out, field, expected, |out| {
            put_bytes(out, field::publication::DATA, &publication.data);
            put_about_publication(out, publication);
        });
    }
}

/// All but the publications.
fn put_subscribe_result(out: &mut Vec<u8>, result: &SubscribeResult) {
    use field::subscribe_result::{
        DATA, DELTA, EPOCH, EXPIRES, OFFSET, POSITIONED, RECOVERABLE, RECOVERED, TTL, WAS_RECOVERING,
    };
    put_number(out, EXPIRES, u64::from(result.ttl.is_some()));
    put_number(out, TTL, u64::from(result.ttl.unwrap_or_default()));
    put_bytes(out, DATA, result.data.as_deref().unwrap_or_default());
    put_number(out, RECOVERABLE, u64::from(result.recoverable));
    put_number(out, RECOVERED, u64::from(result.recovered));
    put_number(out, POSITIONED, u64::from(result.positioned));
    put_number(out, WAS_RECOVERING, u64::from(result.was_recovering));
    put_number(out, DELTA, u64::from(result.delta));
    if let Some(hub::Position { offset, epoch }) = result.position {
        put_bytes(out, EPOCH, epoch.to_string().as_bytes());
        put_number(out, OFFSET, offset.0);
    }
}

pub(super) fn history(out: &mut Vec<u8>, id: u32, page: &HistoryPage) {
    use field::history_result::{EPOCH, OFFSET, PUBLICATIONS};
    reply(out, id, |out| {
        put_message(out, field::reply::HISTORY, 0, |out| {
            put_publications(out, PUBLICATIONS, &page.publications);
            put_bytes(out, EPOCH, page.position.epoch.to_string().as_bytes());
            put_number(out, OFFSET, page.position.offset.0);
        });
    });
}

pub(super) fn presence(out: &mut Vec<u8>, id: u32, presence: &Presence) {
    use field::{
        presence_result::PRESENCE,
        presence_stats_result::{NUM_CLIENTS, NUM_USERS},
    };
    reply(out, id, |out| match presence {
        Presence::Clients(clients) => put_message(out, field::reply::PRESENCE, 0, |out| {
            for info in clients {
                put_message(out, PRESENCE, 0, |out| {
                    put_bytes(out, field::MAP_KEY, info.client.as_bytes());
                    put_info(out, field::MAP_VALUE, info);
                });
            }
        }),
        Presence::Stats(stats) => put_message(out, field::reply::PRESENCE_STATS, 0, |out| {
            put_number(out, NUM_CLIENTS, u64::from(stats.clients));
            put_number(out, NUM_USERS, u64::from(stats.users));
        }),
    });
}

pub(super) fn announcement(out: &mut Vec<u8>, announcement: &Announcement) {
    let (field, info) = match announcement.change {
        Change::Join => (field::push::JOIN, field::join::INFO),
        Change::Leave => (field::push::LEAVE, field::leave::INFO),
    };
    put_delimited(out, 0, |out| {
        put_message(out, field::reply::PUSH, 0, |out| {
            put_bytes(out, field::push::CHANNEL, announcement.channel.as_bytes());
            put_message(out, field, 0, |out| put_info(out, info, &announcement.info));
        });
    });
}

fn put_info(out: &mut Vec<u8>, field: u32, info: &ClientInfo) {
    put_message(out, field, 0, |out| {
        put_bytes(out, field::client_info::USER, info.user.as_bytes());
        put_bytes(out, field::client_info::CLIENT, info.client.as_bytes());
        put_bytes(out, field::client_info::CONN_INFO, info.conn_info.as_deref().unwrap_or_default());
        put_bytes(out, field::client_info::CHAN_INFO, info.chan_info.as_deref().unwrap_or_default());
    });
}

pub(super) fn subscribe_push(out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
    use field::subscribe::{DATA, EPOCH, OFFSET, POSITIONED, RECOVERABLE};
    put_delimited(out, 0, |out| {
        put_message(out, field::reply::PUSH, 0, |out| {
            put_bytes(out, field::push::CHANNEL, channel.as_bytes());
            put_message(out, field::push::SUBSCRIBE, 0, |out| {
                put_number(out, RECOVERABLE, u64::from(result.recoverable));
                if let Some(hub::Position { offset, epoch }) = result.position {
                    put_bytes(out, EPOCH, epoch.to_string().as_bytes());
                    put_number(out, OFFSET, offset.0);
                }
                put_number(out, POSITIONED, u64::from(result.positioned));
                put_bytes(out, DATA, result.data.as_deref().unwrap_or_default());
            });
        });
    });
}

pub(super) fn unsubscribed(out: &mut Vec<u8>, channel: &str, why: Unsubscribed) {
    put_delimited(out, 0, |out| {
        put_message(out, field::reply::PUSH, 0, |out| {
            put_bytes(out, field::push::CHANNEL, channel.as_bytes());
            put_message(out, field::push::UNSUBSCRIBE, 0, |out| {
                put_number(out, field::unsubscribe::CODE, u64::from(why.code));
                put_bytes(out, field::unsubscribe::REASON, why.reason.as_bytes());
            });
        });
    });
}

pub(super) fn refresh_push(out: &mut Vec<u8>, ttl: Option<u32>) {
    put_delimited(out, 0, |out| {
        put_message(out, field::reply::PUSH, 0, |out| {
            put_message(out, field::push::REFRESH, 0, |out| {
                put_number(out, field::refresh::EXPIRES, u64::from(ttl.is_some()));
                put_number(out, field::refresh::TTL, u64::from(ttl.unwrap_or_default()));
            });
        });
    });
}

pub(super) fn error(out: &mut Vec<u8>, id: u32, error: &ClientError) {
    reply(out, id, |out| {
        put_message(out, field::reply::ERROR, 0, |out| {
            put_number(out, field::error::CODE, u64::from(error.code));
            put_bytes(out, field::error::MESSAGE, error.message.as_bytes());
            put_number(out, field::error::TEMPORARY, u64::from(error.temporary));
        });
    });
}

pub(super) fn publication(out: &mut Vec<u8>, publication: &Publication, payload: Payload<'_>) {
    let (data, is_patch) = match payload {
        Payload::Whole | Payload::Text => (&*publication.data, false),
        Payload::Patch(patch) => (patch.as_bytes(), true),
    };
    let (channel, expected) = (publication.channel.as_bytes(), data.len() + ENVELOPE_BYTES);
    put_delimited(out, expected + channel.len(), |out| {
        put_message(out, field::reply::PUSH, expected + channel.len(), |out| {
            put_bytes(out, field::push::CHANNEL, channel);
            put_message(out, field::push::PUB, expected, |out| {
                put_bytes(out, field::publication::DATA, data);
                put_about_publication(out, publication);
                put_number(out, field::publication::DELTA, u64::from(is_patch));
            });
        });
    });
}

/// The fields of a publication but its payload.
fn put_about_publication(out: &mut Vec<u8>, publication: &Publication) {
    use field::publication::{INFO, OFFSET, TAGS, TIME};
    if let Some(info) = &publication.info {
        put_info(out, INFO, info);
    }
    if let (Some(offset), Some(time)) = (publication.offset(), publication.time) {
        put_number(out, OFFSET, offset.0);
        put_number(out, TIME, time.get());
    }
    for (key, value) in publication.tags.iter().flat_map(|tags| tags.iter()) {
        put_message(out, TAGS, 0, |out| {
            put_bytes(out, field::MAP_KEY, key.as_bytes());
            put_bytes(out, field::MAP_VALUE, value.as_bytes());
        });
    }
}
