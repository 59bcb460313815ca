//! A client of the simulation: speaks one of the dialects, checks all it is sent.

use crate::checker::{MayMiss, Received};
use crate::compressing::Compressing;
use crate::coverage::Seen;
use crate::fossil;
use crate::line::Line;
use crate::planted::Log;
use crate::present::Others;
use crate::recovering::{Place, View, is_kept, judge};
use crate::schema;
use io::sim::ClosedBy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use wire::http::HeadLimits;
use wire::ws::extension::Offer;
use wire::ws::{CloseCode, Event, Limits, MessageKind, OpCode, Reader, Role};

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1 };
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x08];
const KEY: &[u8; 16] = b"the sample nonce";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Centrifugo,
    CentrifugoProtobuf,
    Plain,
}

impl Dialect {
    /// Whether it has commands; the plain one only listens.
    pub(crate) fn has_commands(self) -> bool {
        self != Self::Plain
    }
}

#[derive(Debug)]
enum Membership {
    /// The command is under way.
    Asked { command: u32 },
    /// Told so.
    Subscribed(Received),
    /// The unsubscribe command is under way; publications may still come.
    Leaving { command: u32, received: Received },
    /// Unsubscribed while the subscribe was under way.
    AskedAndLeaving { subscribe: u32, unsubscribe: u32 },
}

#[derive(Debug)]
pub struct SimClient {
    socket: Line,
    dialect: Dialect,
    reader: Reader,
    head: Vec<u8>,
    is_upgraded: bool,
    pub is_connected: bool,
    /// It has not read for a while, so it may be closed for that.
    was_paused: bool,
    is_reading: bool,
    close_code: Option<u16>,
    next_command: u32,
    wanted: Vec<String>,
    memberships: BTreeMap<String, Membership>,
    publishing: BTreeSet<u32>,
    /// Where it is, or was, in channels with a history.
    places: BTreeMap<String, Place>,
    /// Channels that it comes back to because something was skipped.
    told_of_skips: BTreeSet<String>,
    /// It asks for deltas; of each channel the payload that the next patch is for.
    takes_deltas: bool,
    payloads: BTreeMap<String, Vec<u8>>,
    /// Its id, once it is connected.
    id: Option<String>,
    /// It asks to be told who comes and goes.
    pub asks_for_others: bool,
    others: Others,
    /// Some of what its channels' policy may drop does not reach it.
    drops: Option<fastrand::Rng>,
    offer: Option<Offer>,
    /// The same of what was compressed, before it is inflated.
    drops_compressed: Option<fastrand::Rng>,
    compressing: Option<Compressing>,
}

impl SimClient {
    /// A client that has been in `places` before.
    pub fn connect(
        socket: Line,
        dialect: Dialect,
        wanted: Vec<String>,
        places: BTreeMap<String, Place>,
        takes_deltas: bool,
        offer: Option<Offer>,
    ) -> Self {
        let target = match dialect {
            Dialect::Centrifugo => "/connection/websocket".to_owned(),
            Dialect::CentrifugoProtobuf => "/connection/websocket?format=protobuf".to_owned(),
            Dialect::Plain => format!("/connection/uni_websocket?channels={}", wanted.join(",")),
        };
        let offered = offer.map(|offer| offer.to_string());
        let extra = offered.as_deref().map(|offered| ("Sec-WebSocket-Extensions", offered));
        let mut head = Vec::new();
        wire::ws::client::write_request(&mut head, "localhost", &target, KEY, None, extra.as_slice());
        socket.write(&head);
        let mut client = Self {
            socket,
            dialect,
            reader: Reader::new(Role::Client),
            head: Vec::new(),
            is_upgraded: false,
            is_connected: false,
            was_paused: false,
            is_reading: true,
            close_code: None,
            next_command: 0,
            wanted,
            memberships: BTreeMap::new(),
            publishing: BTreeSet::new(),
            places,
            told_of_skips: BTreeSet::new(),
            takes_deltas,
            payloads: BTreeMap::new(),
            id: None,
            asks_for_others: false,
            others: Others::default(),
            drops: None,
            offer,
            drops_compressed: None,
            compressing: None,
        };
        if dialect.has_commands() {
            let id = client.command_id();
            client.send(&format!("{{\"id\":{id},\"connect\":{{}}}}"));
        }
        client
    }

    /// From now on some publications are lost on their way to it.
    pub fn drop_some(&mut self, seed: u64) {
        self.drops = Some(fastrand::Rng::with_seed(seed));
    }

    /// From now on some compressed publications are lost on their way to it.
    pub fn drop_compressed(&mut self, seed: u64) {
        self.drops_compressed = Some(fastrand::Rng::with_seed(seed));
    }

    fn is_dropped(&mut self, channel: &str) -> bool {
        MayMiss::of(channel).within() && self.drops.as_mut().is_some_and(|random| random.u32(..20) == 0)
    }

    /// What it would remember if it came back.
    pub fn places(&self) -> &BTreeMap<String, Place> {
        &self.places
    }

    fn command_id(&mut self) -> u32 {
        self.next_command += 1;
        self.next_command
    }

    /// Sends one command, given as JSON.
    fn send(&mut self, text: &str) {
        let (opcode, payload) = match self.dialect {
            Dialect::CentrifugoProtobuf => (OpCode::Binary, schema::commands(text)),
            _ => (OpCode::Text, text.as_bytes().to_vec()),
        };
        let frame = match &mut self.compressing {
            Some(compressing) => compressing.frame(opcode, &payload, MASK),
            None => {
                let mut out = Vec::new();
                wire::ws::write_frame(&mut out, opcode, true, &payload, Some(MASK));
                out
            }
        };
        self.socket.write(&frame);
    }

    fn speaks_commands(&self) -> bool {
        self.dialect.has_commands() && self.close_code.is_none()
    }

    /// Subscribes, or leaves where it is or will be subscribed.
    pub fn toggle(&mut self, channel: &str) {
        if !self.speaks_commands() {
            return;
        }
        let id = self.command_id();
        let next = match self.memberships.remove(channel) {
            None => {
                // The first publication of a new subscription must be whole.
                self.payloads.remove(channel);
                let plain = serde_json::json!({ "channel": channel });
                let mut request = self.places.get(channel).map_or(plain, |place| place.request(channel));
                if self.takes_deltas {
                    request["delta"] = "fossil".into();
                }
                if self.asks_for_others {
                    request["join_leave"] = true.into();
                }
                self.send(&serde_json::json!({"id": id, "subscribe": request}).to_string());
                Membership::Asked { command: id }
            }
            Some(Membership::Subscribed(received)) => {
                self.send(&format!("{{\"id\":{id},\"unsubscribe\":{{\"channel\":\"{channel}\"}}}}"));
                Membership::Leaving { command: id, received }
            }
            Some(Membership::Asked { command }) => {
                self.send(&format!("{{\"id\":{id},\"unsubscribe\":{{\"channel\":\"{channel}\"}}}}"));
                Membership::AskedAndLeaving { subscribe: command, unsubscribe: id }
            }
            Some(other) => other,
        };
        self.memberships.insert(channel.to_owned(), next);
    }

    /// Publishes; false where the dialect cannot.
    pub fn publish(&mut self, channel: &str, payload: u64) -> bool {
        if !self.speaks_commands() {
            return false;
        }
        let id = self.command_id();
        self.publishing.insert(id);
        let data = crate::world::payload(payload);
        self.send(&format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{data}}}}}"));
        true
    }

    pub fn set_reading(&mut self, reading: bool) {
        self.was_paused |= !reading;
        self.is_reading = reading;
        self.socket.set_reading(reading);
    }

    pub fn is_reading(&self) -> bool {
        self.is_reading
    }

    pub fn socket(&self) -> &Line {
        &self.socket
    }

    /// Whether a subscribe, unsubscribe or connect is under way.
    pub fn is_pending(&self) -> bool {
        !self.is_connected || self.memberships.values().any(|m| !matches!(m, Membership::Subscribed(_)))
    }

    pub fn is_gone(&self) -> bool {
        self.close_code.is_some() || self.socket.is_closed().is_some()
    }

    /// Reads and checks all that has come.
    pub fn check(&mut self, view: &View<'_>, seen: &mut Seen) -> Result<(), String> {
        let mut bytes = self.socket.read()?;
        if !self.is_upgraded {
            self.head.append(&mut bytes);
            let (offer, limits) = (self.offer.as_ref(), HeadLimits::default());
            let answer = wire::ws::client::check_response_with(&self.head, KEY, None, offer, &limits);
            let answer = answer.map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&self.head)))?;
            let Some(answer) = answer else { return Ok(()) };
            bytes = self.head.split_off(answer.head_len);
            self.is_upgraded = true;
            let drops = self.drops_compressed.take();
            self.compressing = answer.deflate.map(|params| Compressing::new(params, drops));
        }
        if let Some(compressing) = &mut self.compressing {
            bytes = compressing.plain(&bytes)?;
            seen.inflated += std::mem::take(&mut compressing.inflated);
        }
        let mut input = &mut bytes[..];
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(Role::Client));
        loop {
            let event = reader.next(&mut input, &LIMITS).map_err(|error| format!("a bad frame: {error}"))?;
            match event {
                None => break,
                Some(Event::Message { kind, payload }) => {
                    for message in self.messages(kind, payload)? {
                        self.message(&message, view, seen)?;
                    }
                }
                Some(Event::Ping(payload)) => {
                    seen.pings += 1;
                    let mut out = Vec::new();
                    wire::ws::write_frame(&mut out, OpCode::Pong, true, payload, Some(MASK));
                    self.socket.write(&out);
                }
                Some(Event::Pong(_)) => return Err("a pong without a ping".into()),
                Some(Event::Close { code, .. }) => self.server_closes(code, seen)?,
            }
        }
        self.reader = reader;
        Ok(())
    }

    fn server_closes(&mut self, code: Option<CloseCode>, seen: &mut Seen) -> Result<(), String> {
        let code = code.map_or(1005, CloseCode::get);
        let was_refused = self.close_code.replace(code).is_some();
        let expected = match code {
            // Commands behind a connect that was refused.
            3501 => was_refused,
            // The outbox of the simulated worker is small.
            3008 => true,
            // Held publications over their limit; a mailbox too full to connect.
            3004 | 3010 => self.dialect == Dialect::Plain,
            3009 | 3012 => self.was_paused,
            _ => false,
        };
        seen.closed_slow += u64::from(code == 3008);
        seen.closed_otherwise += u64::from(code != 3008);
        let mut out = Vec::new();
        wire::ws::write_close(&mut out, CloseCode::new(code), "", Some(MASK));
        self.socket.write(&out);
        if expected { Ok(()) } else { Err(format!("closed with {code} for no reason")) }
    }

    /// The replies and pushes of one message.
    fn messages(&self, kind: MessageKind, payload: &[u8]) -> Result<Vec<Value>, String> {
        if self.dialect == Dialect::CentrifugoProtobuf && kind == MessageKind::Binary {
            return schema::replies(payload).map_err(|error| format!("not Protobuf: {error}"));
        }
        let parse = |line| serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"));
        payload.split(|&b| b == b'\n').map(parse).collect()
    }

    fn message(&mut self, tree: &Value, view: &View<'_>, seen: &mut Seen) -> Result<(), String> {
        if *tree == serde_json::json!({}) {
            if self.dialect.has_commands() {
                seen.pings += 1;
                self.send("{}");
            }
            return Ok(());
        }
        let push = if self.dialect == Dialect::Plain { tree } else { &tree["push"] };
        if let Some(publication) = push.get("pub") {
            let channel = push["channel"].as_str().ok_or("a publication without a channel")?;
            if self.is_dropped(channel) {
                return Ok(());
            }
            let data = self.whole(channel, publication, seen)?;
            let id = data["n"].as_u64().ok_or("a publication that is not ours")?;
            seen.publications += 1;
            seen.publications_in_protobuf += u64::from(self.dialect == Dialect::CentrifugoProtobuf);
            if self.dialect.has_commands() && is_kept(channel) {
                let place = self.places.get_mut(channel).ok_or("a publication before the position")?;
                place.live(view, channel, publication, id)?;
            }
            return match self.memberships.get_mut(channel) {
                Some(Membership::Subscribed(received) | Membership::Leaving { received, .. }) => {
                    let missed = received.take(view.log, channel, id)?;
                    match MayMiss::of(channel) {
                        MayMiss::Nothing | MayMiss::Announced => {}
                        MayMiss::Oldest => seen.missed_oldest += missed,
                        MayMiss::ButTheNewest => seen.missed_but_the_newest += missed,
                    }
                    Ok(())
                }
                other => Err(format!("{channel} brought {id} to a client that is not subscribed: {other:?}")),
            };
        }
        for (field, has_come) in [("join", true), ("leave", false)] {
            let Some(about) = push.get(field) else { continue };
            let channel = push["channel"].as_str().ok_or("a join or leave without a channel")?;
            *(if has_come { &mut seen.joins } else { &mut seen.leaves }) += 1;
            let is_asked = self.asks_for_others && self.dialect.has_commands() || view.rules.tells_all;
            return match self.memberships.get(channel) {
                Some(Membership::Subscribed(_) | Membership::Leaving { .. }) if is_asked => {
                    self.others.take(channel, has_come, about)
                }
                other => Err(format!("{channel} brought a {field} to a client that does not listen: {other:?}")),
            };
        }
        if let Some(connected) = push.get("connect") {
            return self.plain_connected(connected, view.next_id, seen);
        }
        if push.get("disconnect").is_some() {
            return Ok(());
        }
        if let Some(why) = push.get("unsubscribe") {
            let channel = push["channel"].as_str().ok_or("an unsubscribe push without a channel")?.to_owned();
            return self.told_of_gap(&channel, why, view, seen);
        }
        let id = tree["id"].as_u64().ok_or_else(|| format!("neither reply nor push: {tree}"))? as u32;
        self.reply(id, tree, view, seen)
    }

    /// The gateway noticed that something was missing: the client comes back at once with its position.
    fn told_of_gap(&mut self, channel: &str, why: &Value, view: &View<'_>, seen: &mut Seen) -> Result<(), String> {
        let is_skipped = MayMiss::of(channel) == MayMiss::Announced;
        if !view.rules.loses && !is_skipped || why["code"] != 2500 {
            return Err(format!("{channel}: told that something is missing for no reason: {why}"));
        }
        seen.told_of_gaps += 1;
        if is_skipped && !view.rules.loses {
            seen.told_of_skips += 1;
            self.told_of_skips.insert(channel.to_owned());
        }
        // Where it was about to leave it has left now, and the reply is still to come.
        if matches!(self.memberships.get(channel), Some(Membership::Subscribed(_))) {
            self.memberships.remove(channel);
            self.toggle(channel);
        }
        Ok(())
    }

    /// Whole payloads are strings, too.
    fn takes_texts(&self) -> bool {
        self.takes_deltas && self.dialect == Dialect::Centrifugo
    }

    /// The payload of a publication, made of the one before where it is a patch.
    fn whole(&mut self, channel: &str, publication: &Value, seen: &mut Seen) -> Result<Value, String> {
        let (data, is_patch) = (&publication["data"], publication.get("delta").is_some());
        let bytes = match data.as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => data.to_string().into_bytes(),
        };
        let whole = match (is_patch, self.payloads.get(channel)) {
            (false, _) if data.is_string() != self.takes_texts() => {
                return Err(format!("{channel} brought {data} to a client with deltas: {}", self.takes_deltas));
            }
            (false, _) => bytes,
            (true, None) => return Err(format!("{channel} brought a patch of nothing")),
            (true, Some(before)) => {
                seen.patches += 1;
                fossil::apply(before, &bytes).ok_or_else(|| format!("{channel} brought a patch of something else"))?
            }
        };
        let value = serde_json::from_slice(&whole).map_err(|error| format!("{channel}: not JSON: {error}"))?;
        if self.takes_deltas {
            self.payloads.insert(channel.to_owned(), whole);
        }
        Ok(value)
    }

    fn plain_connected(&mut self, connected: &Value, next_id: u64, seen: &mut Seen) -> Result<(), String> {
        self.is_connected = true;
        self.id = connected["client"].as_str().map(str::to_owned);
        for channel in &self.wanted {
            if connected["subs"].get(channel).is_none() {
                return Err(format!("{channel} was wanted and allowed, and is not among the subs"));
            }
            seen.subscribed += 1;
            self.memberships.insert(channel.clone(), Membership::Subscribed(Received::new(next_id)));
        }
        Ok(())
    }

    /// The subscription that a reply announces, with what was recovered.
    fn subscribed(
        &mut self,
        channel: &str,
        tree: &Value,
        view: &View<'_>,
        seen: &mut Seen,
    ) -> Result<Received, String> {
        self.others.begin(channel);
        let (mut received, mut result) = (Received::new(view.next_id), tree["subscribe"].clone());
        if (result["delta"] == true) != self.takes_deltas {
            return Err(format!("{channel}: {result} to a client with deltas: {}", self.takes_deltas));
        }
        for publication in result["publications"].as_array_mut().into_iter().flatten() {
            publication["data"] = self.whole(channel, publication, seen)?;
        }
        if is_kept(channel) {
            let (place, ids) = judge(view, channel, self.places.get(channel), &result, seen)?;
            self.places.insert(channel.to_owned(), place);
            seen.recovered_from_skips += u64::from(self.told_of_skips.remove(channel) && !ids.is_empty());
            ids.into_iter().try_for_each(|id| received.take(view.log, channel, id).map(drop))?;
        }
        Ok(received)
    }

    fn reply(&mut self, id: u32, tree: &Value, view: &View<'_>, seen: &mut Seen) -> Result<(), String> {
        if let Some(connected) = tree.get("connect") {
            self.is_connected = true;
            self.id = connected["client"].as_str().map(str::to_owned);
            return Ok(());
        }
        if id == 1 && tree["error"]["code"] == 100 {
            // There is no room for a question to the backend. An SDK closes and comes again.
            seen.connects_refused += 1;
            self.close_code = Some(1000);
            return Ok(());
        }
        if self.publishing.remove(&id) {
            seen.publishes_refused += u64::from(tree.get("error").is_some());
            return Ok(());
        }
        let is_about = |m: &Membership| match m {
            Membership::Asked { command } | Membership::Leaving { command, .. } => *command == id,
            Membership::AskedAndLeaving { subscribe, unsubscribe } => *subscribe == id || *unsubscribe == id,
            Membership::Subscribed(_) => false,
        };
        let Some(channel) = self.memberships.iter().find(|(_, m)| is_about(m)).map(|(name, _)| name.clone()) else {
            return Err(format!("a reply that nobody asked for: {tree}"));
        };
        let refused = tree.get("error").is_some();
        if refused && tree["error"]["code"] != 100 {
            return Err(format!("an error for no reason: {tree}"));
        }
        let next = match self.memberships.remove(&channel) {
            Some(Membership::Asked { .. }) if refused => {
                seen.subscribes_refused += 1;
                None
            }
            Some(Membership::Asked { .. }) => {
                seen.subscribed += 1;
                Some(Membership::Subscribed(self.subscribed(&channel, tree, view, seen)?))
            }
            Some(Membership::AskedAndLeaving { subscribe, unsubscribe }) if subscribe == id && !refused => {
                seen.left_while_pending += 1;
                let received = self.subscribed(&channel, tree, view, seen)?;
                Some(Membership::Leaving { command: unsubscribe, received })
            }
            Some(Membership::AskedAndLeaving { subscribe, unsubscribe }) if subscribe == id => {
                Some(Membership::AskedAndLeaving { subscribe: 0, unsubscribe })
            }
            Some(Membership::AskedAndLeaving { .. }) => None,
            Some(Membership::Leaving { received, .. }) => {
                seen.unsubscribed += 1;
                received.end_early(view.log, &channel)?;
                None
            }
            Some(Membership::Subscribed(_)) | None => None,
        };
        if let Some(next) = next {
            self.memberships.insert(channel, next);
        }
        Ok(())
    }

    /// Its id, once it knows it.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it was told that it is subscribed.
    pub fn is_subscribed(&self, channel: &str) -> bool {
        matches!(self.memberships.get(channel), Some(Membership::Subscribed(_)))
    }

    /// It is quiet: what it was told of others in a channel is so.
    pub fn agree(&self, channel: &str, present: &BTreeSet<String>, tells_all: bool) -> Result<(), String> {
        let listens = tells_all || self.asks_for_others && self.dialect.has_commands();
        match &self.id {
            Some(me) if listens && self.is_subscribed(channel) => self.others.agree(channel, me, present),
            _ => Ok(()),
        }
    }

    /// The client is gone: what it has received must have been whole up to there.
    pub fn end_early(&self, log: &Log) -> Result<(), String> {
        self.memberships.iter().try_for_each(|(channel, membership)| match membership {
            Membership::Subscribed(received) | Membership::Leaving { received, .. } => received.end_early(log, channel),
            Membership::Asked { .. } | Membership::AskedAndLeaving { .. } => Ok(()),
        })
    }

    /// The world ends quietly with this client in it: nothing may be open, nothing may be missing.
    pub fn end_complete(&self, log: &Log, sentinel: impl Fn(&str) -> Option<u64>) -> Result<(), String> {
        if !self.is_connected {
            return Err("a client that never got its connect reply".into());
        }
        if !self.publishing.is_empty() {
            return Err(format!("publishes that were never answered: {:?}", self.publishing));
        }
        self.memberships.iter().try_for_each(|(channel, membership)| match (membership, sentinel(channel)) {
            // It came back with a gap behind the last one, and knows that.
            (Membership::Subscribed(received), Some(sentinel)) if self.is_at(log, channel, received, sentinel) => {
                Ok(())
            }
            (Membership::Subscribed(received), Some(sentinel)) => received.end_complete(log, channel, sentinel),
            (Membership::Subscribed(received), None) => received.end_early(log, channel),
            (other, _) => Err(format!("{channel}: a command that was never answered: {other:?}")),
        })
    }

    /// Whether its position in a channel with a history is that of this publication, or the beginning of a numbering that
    /// came after it: the channel was forgotten meanwhile, which was judged when the client came back.
    fn is_at(&self, log: &Log, channel: &str, received: &Received, id: u64) -> bool {
        let Some(place) = self.places.get(channel) else { return false };
        match log.at(channel, &place.epoch, place.offset) {
            Some((at, _)) => at == id,
            None => received.is_after(id) && place.offset == 0 && log.at(channel, &place.epoch, 1).is_none(),
        }
    }

    pub fn was_reset(&self) -> bool {
        self.socket.is_closed() == Some(ClosedBy::Reset)
    }
}
