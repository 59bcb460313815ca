//! One connection of the fake server: HTTP, then WebSocket, and what it says on it.

use super::fault::Reaches;
use super::{Fake, Fault};
use io::{ConnId, How, Io};
use serde_json::{Value, json};
use std::net::IpAddr;
use wire::http::{self, HeadLimits, Response, Status};
use wire::ws::{self, CloseCode, Event, Limits, Reader, Role, handshake};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaks {
    Http,
    Centrifugo,
    Plain,
    Raw,
    Nats,
    NatsPublisher,
    Echo,
}

pub(super) struct Connection {
    pub(super) speaks: Speaks,
    pub(super) out: Vec<u8>,
    source: IpAddr,
    /// What came before the upgrade, or of a publisher, and was not understood yet.
    pub(super) http: Vec<u8>,
    reader: Reader,
    pub(super) channels: Vec<String>,
    /// Messages echoed.
    echoed: u32,
    /// An echo that is held back.
    held: Option<Vec<u8>>,
}

impl Connection {
    pub(super) fn new(source: IpAddr) -> Connection {
        Connection {
            speaks: Speaks::Http,
            out: Vec::new(),
            source,
            http: Vec::new(),
            reader: Reader::new(Role::Server),
            channels: Vec::new(),
            echoed: 0,
            held: None,
        }
    }
}

/// What a request turned out to be.
enum Asked {
    Publish { body: Value, len: usize },
    Upgrade { answer: Vec<u8>, speaks: Speaks, channels: Vec<String>, len: usize },
}

impl Fake {
    pub(super) fn bytes(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.speaks {
            Speaks::Http | Speaks::NatsPublisher => {
                connection.http.extend_from_slice(bytes);
                if connection.speaks == Speaks::NatsPublisher || self.begins_as_nats(io, id) {
                    self.nats_publisher(io, id);
                } else {
                    self.http(io, id);
                }
            }
            _ => self.frames(io, id, bytes),
        }
    }

    fn http(&mut self, io: &mut Io, id: ConnId) {
        while let Some(asked) = ask(&self.connections[&id].http) {
            match asked {
                Asked::Publish { body, len } => {
                    self.connections.get_mut(&id).unwrap().http.drain(..len);
                    self.publish(io, id, &body);
                }
                Asked::Upgrade { answer, speaks, channels, len } => {
                    let mut rest = self.connections.get_mut(&id).unwrap().http.split_off(len);
                    self.upgrade(io, id, &answer, speaks, channels);
                    return self.frames(io, id, &mut rest);
                }
            }
        }
    }

    fn upgrade(&mut self, io: &mut Io, id: ConnId, answer: &[u8], speaks: Speaks, channels: Vec<String>) {
        let victim = *self.victim.get_or_insert(id) == id;
        let source = self.connections[&id].source;
        self.seen().sources.insert(source);
        match self.fault {
            Fault::Silent if victim => return,
            Fault::RefuseUpgrade if victim => {
                self.write(io, id, |out| http::Refusal::unavailable(1).write(out, false));
                return io.close(id, How::Flush);
            }
            _ => {}
        }
        self.write(io, id, |out| out.extend_from_slice(answer));
        self.connections.get_mut(&id).unwrap().speaks = speaks;
        match speaks {
            Speaks::Plain => {
                let subs: serde_json::Map<_, _> = channels.iter().map(|c| (c.clone(), json!({}))).collect();
                self.text(io, id, json!({"connect": {"client": "x", "subs": subs}}).to_string().as_bytes());
                channels.iter().for_each(|channel| self.subscribe(id, channel));
                self.ping(io, id);
            }
            Speaks::Raw => channels.iter().for_each(|channel| self.subscribe(id, channel)),
            Speaks::Echo if self.fault == Fault::ForgetPings => {}
            Speaks::Echo => self.ping(io, id),
            Speaks::Nats => self.nats_frame(io, id, b"INFO {\"version\":\"0\"} \r\n"),
            Speaks::Centrifugo | Speaks::Http | Speaks::NatsPublisher => {}
        }
    }

    fn frames(&mut self, io: &mut Io, id: ConnId, mut input: &mut [u8]) {
        let mut reader =
            std::mem::replace(&mut self.connections.get_mut(&id).unwrap().reader, Reader::new(Role::Server));
        let mut messages = 0;
        while let Some(event) = reader.next(&mut input, &Limits::default()).expect("a client obeys the protocol") {
            match event {
                Event::Message { payload, .. } => {
                    messages += 1;
                    match self.connections[&id].speaks {
                        Speaks::Echo => self.echo(io, id, payload),
                        Speaks::Centrifugo => self.commands(io, id, payload),
                        Speaks::Nats => self.nats_client(io, id, payload),
                        other => panic!("{other:?} says nothing"),
                    }
                }
                Event::Pong(payload) => {
                    assert_eq!(payload, b"are you there");
                    self.seen().pongs += 1;
                }
                Event::Close { code, .. } => {
                    if code == Some(CloseCode::NORMAL) {
                        self.seen().closes += 1;
                    }
                    if self.fault == Fault::AbruptClose && self.is_victim(id) {
                        io.close(id, How::Now);
                    } else {
                        self.write(io, id, |out| ws::write_close(out, CloseCode::NORMAL, "", None));
                        io.close(id, How::Flush);
                    }
                }
                Event::Ping(_) => panic!("clients do not ping"),
            }
        }
        self.connections.get_mut(&id).unwrap().reader = reader;
        let mut seen = self.seen();
        seen.messages_per_read_max = seen.messages_per_read_max.max(messages);
    }

    fn is_victim(&self, id: ConnId) -> bool {
        self.victim == Some(id)
    }

    fn echo(&mut self, io: &mut Io, id: ConnId, message: &[u8]) {
        let victim = self.is_victim(id);
        let connection = self.connections.get_mut(&id).unwrap();
        connection.echoed += 1;
        let faulty = victim && connection.echoed == self.faulty;
        let before = connection.held.take();
        match self.fault {
            Fault::Drop if faulty => {}
            Fault::Swap if faulty => connection.held = Some(message.to_vec()),
            Fault::Close if faulty => self.close(io, id),
            Fault::Corrupt if faulty => self.text(io, id, &corrupted(message)),
            Fault::Duplicate if faulty => {
                self.text(io, id, message);
                self.text(io, id, message);
            }
            _ => self.text(io, id, message),
        }
        if let Some(held) = before {
            self.text(io, id, &held);
        }
    }

    fn close(&mut self, io: &mut Io, id: ConnId) {
        self.write(io, id, |out| ws::write_close(out, CloseCode::new(3008), "slow", None));
        io.close(id, How::Flush);
    }

    fn commands(&mut self, io: &mut Io, id: ConnId, message: &[u8]) {
        for line in message.split(|&byte| byte == b'\n') {
            let command: Value = serde_json::from_slice(line).expect("a command is JSON");
            let number = &command["id"];
            if command == json!({}) {
                self.seen().answers += 1;
            } else if command.get("connect").is_some() {
                self.text(
                    io,
                    id,
                    json!({"id": number, "connect": {"client": "x", "ping": 25, "pong": true}}).to_string().as_bytes(),
                );
            } else if let Some(channel) = command["subscribe"]["channel"].as_str() {
                if self.fault == Fault::RefuseSubscribe && self.is_victim(id) {
                    let error = json!({"id": number, "error": {"code": 103, "message": "permission denied"}});
                    self.text(io, id, error.to_string().as_bytes());
                    continue;
                }
                self.subscribe(id, channel);
                self.text(io, id, json!({"id": number, "subscribe": {}}).to_string().as_bytes());
                if number == 2 {
                    self.ping(io, id);
                }
            } else {
                panic!("unexpected command {command}");
            }
        }
    }

    pub(super) fn subscribe(&mut self, id: ConnId, channel: &str) {
        self.connections.get_mut(&id).unwrap().channels.push(channel.to_owned());
        *self.seen().subscribed.entry(channel.to_owned()).or_default() += 1;
        if !self.subscribers.contains(&id) {
            self.subscribers.push(id);
        }
    }

    pub(super) fn publish(&mut self, io: &mut Io, api: ConnId, body: &Value) {
        self.publications += 1;
        let faulty = self.publications == self.faulty;
        if faulty && self.fault == Fault::RefusePublication {
            return self.answer(io, api, &json!({"error": {"code": 100, "message": "internal server error"}}));
        }
        let channel = body["channel"].as_str().expect("a channel");
        let publisher = &body["data"].as_str().expect("our data is a string")[8..12];
        let only = match self.fault {
            Fault::LoseAnswer(reaches) if faulty => Some(reaches),
            _ => None,
        };
        for id in self.subscribers.clone() {
            let subscribed = self.connections[&id].channels.iter().any(|one| one == channel);
            let victim = self.is_victim(id);
            let kept = only == Some(Reaches::Nobody) || (victim && only == Some(Reaches::AllButVictim));
            if kept {
                continue;
            }
            let push = json!({"channel": channel, "pub": {"data": body["data"]}});
            if victim {
                self.deliver_to_victim(io, id, push, faulty, subscribed, publisher);
            } else if subscribed {
                self.push(io, id, push);
            }
        }
        if only.is_some() {
            io.close(api, How::Now);
        } else {
            self.answer(io, api, &json!({"result": {}}));
        }
    }

    fn deliver_to_victim(
        &mut self,
        io: &mut Io,
        id: ConnId,
        push: Value,
        faulty: bool,
        subscribed: bool,
        publisher: &str,
    ) {
        if !subscribed {
            if self.fault == Fault::Misdeliver && !std::mem::replace(&mut self.misdelivered, true) {
                self.push(io, id, push);
            }
            return;
        }
        let holds_this = self.held.iter().any(|(held, _)| held == publisher);
        match self.fault {
            Fault::Drop if faulty => {}
            Fault::Duplicate if faulty => {
                self.push(io, id, push.clone());
                self.push(io, id, push);
            }
            Fault::Close if faulty => self.close(io, id),
            Fault::Unsubscribe if faulty => {
                let why =
                    json!({"channel": push["channel"], "unsubscribe": {"code": 2500, "reason": "insufficient state"}});
                self.push(io, id, why);
            }
            Fault::Corrupt if faulty => {
                let data = corrupted(push["pub"]["data"].as_str().unwrap().as_bytes());
                let data = String::from_utf8(data).unwrap();
                self.push(io, id, json!({"channel": push["channel"], "pub": {"data": data}}));
            }
            Fault::Swap if faulty => self.held.push((publisher.to_owned(), push.to_string().into_bytes())),
            Fault::SwapPublishers if faulty || holds_this => {
                self.held.push((publisher.to_owned(), push.to_string().into_bytes()));
            }
            _ => {
                self.push(io, id, push);
                for (_, held) in std::mem::take(&mut self.held) {
                    self.push(io, id, serde_json::from_slice(&held).unwrap());
                }
            }
        }
    }

    fn push(&mut self, io: &mut Io, id: ConnId, push: Value) {
        let push = match self.connections[&id].speaks {
            Speaks::Centrifugo => json!({"push": push}),
            Speaks::Raw => push["pub"]["data"].clone(),
            Speaks::Nats => return self.nats_push(io, id, &push),
            _ => push,
        };
        self.text(io, id, push.to_string().as_bytes());
    }

    fn answer(&mut self, io: &mut Io, id: ConnId, body: &Value) {
        if self.connections[&id].speaks == Speaks::NatsPublisher {
            // The PONG that was asked for follows.
            let refusal: &[u8] = if body.get("error").is_some() { b"-ERR 'Permissions Violation'\r\n" } else { b"" };
            return self.write(io, id, |out| out.extend_from_slice(refusal));
        }
        let body = body.to_string();
        self.write(io, id, |out| Response::new(Status::OK).body(body.as_bytes()).write(out, true));
    }
}

/// The text with another last letter.
fn corrupted(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    *text.last_mut().unwrap() = b'!';
    text
}

/// Reads a request with its body; `None` while more has to come.
fn ask(bytes: &[u8]) -> Option<Asked> {
    let (request, len) = http::parse(bytes, &HeadLimits::default()).expect("a client's request is valid")?;
    if request.path() == "/api/publish" {
        let http::BodyKind::Length(body) = request.body() else { panic!("a publication has a length") };
        let body = bytes.get(len..len + body as usize)?;
        return Some(Asked::Publish { body: serde_json::from_slice(body).expect("JSON"), len: len + body.len() });
    }
    if let Some(channel) = request.path().strip_prefix("/pub/") {
        let http::BodyKind::Length(body) = request.body() else { panic!("a publication has a length") };
        let body = bytes.get(len..len + body as usize)?;
        let data: Value = serde_json::from_slice(body).expect("our data is JSON");
        return Some(Asked::Publish { body: json!({"channel": channel, "data": data}), len: len + body.len() });
    }
    let speaks = match request.path() {
        path if path.starts_with("/sub/") => Speaks::Raw,
        "/connection/websocket" => Speaks::Centrifugo,
        "/connection/uni_websocket" => Speaks::Plain,
        "/echo" => Speaks::Echo,
        "/" => Speaks::Nats,
        other => panic!("unexpected path {other}"),
    };
    let channels = request.query().and_then(|query| http::query_param(query, "channels"));
    let in_path = request.path().strip_prefix("/sub/").map(Into::into);
    let channels = channels.or(in_path).map_or(Vec::new(), |list| list.split(',').map(str::to_owned).collect());
    let mut answer = Vec::new();
    handshake::check(&request).expect("a client's handshake is valid").write_response(&mut answer, None);
    Some(Asked::Upgrade { answer, speaks, channels, len })
}
