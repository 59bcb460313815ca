//! A client of the simulation: speaks one of the dialects, checks all it is sent.

use crate::checker::{MayMiss, Received};
use crate::planted::Log;
use io::sim::{Client, ClosedBy};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use wire::ws::{CloseCode, Event, Limits, OpCode, Reader, Role};

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 1 };
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x08];
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Centrifugo,
    Plain,
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

/// What clients have seen, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub subscribed: u64,
    pub subscribes_refused: u64,
    pub unsubscribed: u64,
    pub left_while_pending: u64,
    pub publications: u64,
    /// Missing between two that came, by what may be.
    pub missed_oldest: u64,
    pub missed_but_the_newest: u64,
    pub publishes_refused: u64,
    pub pings: u64,
    pub closed_slow: u64,
    pub closed_otherwise: u64,
}

#[derive(Debug)]
pub struct SimClient {
    socket: Client,
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
}

impl SimClient {
    pub fn connect(socket: Client, dialect: Dialect, wanted: Vec<String>) -> Self {
        let target = match dialect {
            Dialect::Centrifugo => "/connection/websocket".to_owned(),
            Dialect::Plain => format!("/connection/uni_websocket?channels={}", wanted.join(",")),
        };
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        socket.write(head.as_bytes());
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
        };
        if dialect == Dialect::Centrifugo {
            let id = client.command_id();
            client.send(&format!("{{\"id\":{id},\"connect\":{{}}}}"));
        }
        client
    }

    fn command_id(&mut self) -> u32 {
        self.next_command += 1;
        self.next_command
    }

    fn send(&self, text: &str) {
        let mut out = Vec::new();
        wire::ws::write_frame(&mut out, OpCode::Text, true, text.as_bytes(), Some(MASK));
        self.socket.write(&out);
    }

    fn speaks_commands(&self) -> bool {
        self.dialect == Dialect::Centrifugo && self.close_code.is_none()
    }

    /// Subscribes, or leaves where it is or will be subscribed.
    pub fn toggle(&mut self, channel: &str) {
        if !self.speaks_commands() {
            return;
        }
        let id = self.command_id();
        let next = match self.memberships.remove(channel) {
            None => {
                self.send(&format!("{{\"id\":{id},\"subscribe\":{{\"channel\":\"{channel}\"}}}}"));
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
        self.send(&format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{{\"n\":{payload}}}}}}}"));
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

    pub fn socket(&self) -> &Client {
        &self.socket
    }

    /// Whether a subscribe, unsubscribe or connect is under way.
    pub fn is_pending(&self) -> bool {
        !self.is_connected || self.memberships.values().any(|m| !matches!(m, Membership::Subscribed(_)))
    }

    pub fn is_gone(&self) -> bool {
        self.close_code.is_some() || self.socket.is_closed().is_some()
    }

    /// Reads and checks all that has come. `next_id` is the payload id that the test gives out next.
    pub fn check(&mut self, log: &Log, next_id: u64, seen: &mut Seen) -> Result<(), String> {
        let mut bytes = self.socket.read();
        if !self.is_upgraded {
            self.head.append(&mut bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            if !self.head.starts_with(b"HTTP/1.1 101") {
                return Err(format!("refused: {}", String::from_utf8_lossy(&self.head)));
            }
            bytes = self.head.split_off(end + 4);
            self.is_upgraded = true;
        }
        let mut input = &mut bytes[..];
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(Role::Client));
        loop {
            let event = reader.next(&mut input, &LIMITS).map_err(|error| format!("a bad frame: {error}"))?;
            match event {
                None => break,
                Some(Event::Message { payload, .. }) => {
                    for line in payload.split(|&b| b == b'\n') {
                        self.message(line, log, next_id, seen)?;
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
        self.close_code = Some(code);
        let expected = match code {
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

    fn message(&mut self, line: &[u8], log: &Log, next_id: u64, seen: &mut Seen) -> Result<(), String> {
        let tree: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
        if tree == serde_json::json!({}) {
            if self.dialect == Dialect::Centrifugo {
                seen.pings += 1;
                self.send("{}");
            }
            return Ok(());
        }
        let push = if self.dialect == Dialect::Plain { &tree } else { &tree["push"] };
        if let Some(publication) = push.get("pub") {
            let channel = push["channel"].as_str().ok_or("a publication without a channel")?;
            let id = publication["data"]["n"].as_u64().ok_or("a publication that is not ours")?;
            seen.publications += 1;
            return match self.memberships.get_mut(channel) {
                Some(Membership::Subscribed(received) | Membership::Leaving { received, .. }) => {
                    let missed = received.take(log, channel, id)?;
                    match MayMiss::of(channel) {
                        MayMiss::Nothing => {}
                        MayMiss::Oldest => seen.missed_oldest += missed,
                        MayMiss::ButTheNewest => seen.missed_but_the_newest += missed,
                    }
                    Ok(())
                }
                other => Err(format!("{channel} brought {id} to a client that is not subscribed: {other:?}")),
            };
        }
        if let Some(connected) = push.get("connect") {
            return self.plain_connected(connected, next_id, seen);
        }
        if push.get("disconnect").is_some() {
            return Ok(());
        }
        let id = tree["id"].as_u64().ok_or_else(|| format!("neither reply nor push: {tree}"))? as u32;
        self.reply(id, &tree, log, next_id, seen)
    }

    fn plain_connected(&mut self, connected: &Value, next_id: u64, seen: &mut Seen) -> Result<(), String> {
        self.is_connected = true;
        for channel in &self.wanted {
            if connected["subs"].get(channel).is_none() {
                return Err(format!("{channel} was wanted and allowed, and is not among the subs"));
            }
            seen.subscribed += 1;
            self.memberships.insert(channel.clone(), Membership::Subscribed(Received::new(next_id)));
        }
        Ok(())
    }

    fn reply(&mut self, id: u32, tree: &Value, log: &Log, next_id: u64, seen: &mut Seen) -> Result<(), String> {
        if tree.get("connect").is_some() {
            self.is_connected = true;
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
                Some(Membership::Subscribed(Received::new(next_id)))
            }
            Some(Membership::AskedAndLeaving { subscribe, unsubscribe }) if subscribe == id && !refused => {
                seen.left_while_pending += 1;
                Some(Membership::Leaving { command: unsubscribe, received: Received::new(next_id) })
            }
            Some(Membership::AskedAndLeaving { subscribe, unsubscribe }) if subscribe == id => {
                Some(Membership::AskedAndLeaving { subscribe: 0, unsubscribe })
            }
            Some(Membership::AskedAndLeaving { .. }) => None,
            Some(Membership::Leaving { received, .. }) => {
                seen.unsubscribed += 1;
                received.end_early(log, &channel)?;
                None
            }
            Some(Membership::Subscribed(_)) | None => None,
        };
        if let Some(next) = next {
            self.memberships.insert(channel, next);
        }
        Ok(())
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
            (Membership::Subscribed(received), Some(sentinel)) => received.end_complete(log, channel, sentinel),
            (Membership::Subscribed(received), None) => received.end_early(log, channel),
            (other, _) => Err(format!("{channel}: a command that was never answered: {other:?}")),
        })
    }

    pub fn was_reset(&self) -> bool {
        self.socket.is_closed() == Some(ClosedBy::Reset)
    }
}
