//! A client of the gateway: raw bytes, then HTTP answers, then WebSocket frames.

use super::gateway::PATIENCE;
use super::machine::{Ended, Machine};
use super::schema;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use wire::http::HeadLimits;
use wire::ws::deflate::Inflater;
use wire::ws::extension::{Offer, Params};
use wire::ws::{self, Event, Limits, MessageKind, OpCode, Reader, Role};

/// What clients call the gateway, on every machine.
pub(crate) const HOST: &str = "localhost";

/// A client chooses it at random; nothing here depends on that.
const KEY: &[u8; 16] = b"sixteen bytes...";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// After it a connect has succeeded or failed, on a bad network, too.
const CONNECT_TIME: Duration = Duration::from_millis(200);

/// Clients take whatever comes: it is the gateway that is tested.
const WIDE: Limits = Limits { message_bytes_max: 64 << 20, fragments_max: u32::MAX };

/// How a client of Centrifugo's protocol writes. What a scenario says and sees is JSON either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

/// What a WebSocket client saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// The connection ended.
    End(Ended),
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// The value of a header that comes at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (key, value) = line.split_once(": ").expect("a header line");
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} is repeated:\n{}", self.head);
        value
    }
}

/// A connection. Dropping it closes it.
pub(crate) struct Client {
    machine: Rc<RefCell<Box<dyn Machine>>>,
    id: usize,
    /// Received and not understood yet.
    received: Vec<u8>,
    reader: Option<Reader>,
    /// What it says about compression, what came of that, and what it inflates with.
    pub(crate) offer: Option<Offer>,
    pub(crate) deflate: Option<Params>,
    inflater: Inflater,
    seen: VecDeque<Seen>,
    pub(super) format: Format,
    /// Its id in the session protocols.
    pub(crate) name: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Borrowed already only when a panic in the machine itself unwinds.
        if let Ok(mut machine) = self.machine.try_borrow_mut() {
            machine.close(self.id);
        }
    }
}

impl Client {
    pub(super) fn new(machine: Rc<RefCell<Box<dyn Machine>>>, id: usize, offer: Option<Offer>) -> Self {
        Self {
            machine,
            id,
            received: Vec::new(),
            reader: None,
            offer,
            deflate: None,
            inflater: Inflater::new(),
            seen: VecDeque::new(),
            format: Format::Json,
            name: String::new(),
        }
    }

    /// Messages that came compressed.
    pub(crate) fn inflated(&self) -> u64 {
        self.inflater.counts().messages
    }

    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) {
        self.machine.borrow_mut().write(self.id, bytes.as_ref());
    }

    pub(crate) fn shutdown_write(&self) {
        self.machine.borrow_mut().shutdown_write(self.id);
    }

    pub(crate) fn reset(&self) {
        self.machine.borrow_mut().reset(self.id);
    }

    pub(crate) fn set_reading(&self, reading: bool) {
        self.machine.borrow_mut().set_reading(self.id, reading);
    }

    /// Whether nobody listened. Only known once it is.
    pub(crate) fn is_refused(&mut self) -> bool {
        let give_up = self.now() + CONNECT_TIME;
        while self.pull().is_none() && self.now() < give_up {
            self.machine.borrow_mut().step(give_up);
        }
        self.pull() == Some(Ended::Refused)
    }

    fn now(&self) -> Duration {
        self.machine.borrow().now()
    }

    /// Takes over what came. How the connection ended, if nothing can follow any more.
    fn pull(&mut self) -> Option<Ended> {
        let (mut bytes, ended) = {
            let mut machine = self.machine.borrow_mut();
            // In this order: a real socket tells of its end by being read.
            (machine.read(self.id), machine.ended(self.id))
        };
        let Some(reader) = &mut self.reader else {
            self.received.append(&mut bytes);
            return ended;
        };
        let mut input = &mut bytes[..];
        loop {
            match reader.next_inflating(&mut input, &WIDE, &mut self.inflater) {
                Ok(Some(event)) => self.seen.push_back(event.into()),
                Ok(None) => return ended,
                Err(error) => panic!("the gateway broke the protocol: {error}; before it {:?}", self.seen),
            }
        }
    }

    /// Waits until `look` finds something in what came, which it may take away.
    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self, Option<Ended>) -> Option<T>) -> T {
        let give_up = self.now() + PATIENCE;
        loop {
            let ended = self.pull();
            if let Some(found) = look(self, ended) {
                return found;
            }
            let received = String::from_utf8_lossy(&self.received);
            assert!(ended.is_none(), "{ended:?} instead of {what}; before it {:?} {received:?}", self.seen);
            assert!(self.now() < give_up, "waited in vain for {what}; got {:?} {received:?}", self.seen);
            self.machine.borrow_mut().step(give_up);
        }
    }

    /// Waits for the end, expecting nothing before it.
    pub(crate) fn end(&mut self) -> Ended {
        self.wait("the end", |client, ended| {
            assert!(client.received.is_empty(), "before the end: {:?}", String::from_utf8_lossy(&client.received));
            assert!(client.seen.is_empty(), "before the end: {:?}", client.seen);
            ended
        })
    }

    /// The first so many bytes, as they came.
    pub(crate) fn raw_at_least(&mut self, len: usize) -> Vec<u8> {
        self.wait("some bytes", |client, _| {
            (client.received.len() >= len).then(|| std::mem::take(&mut client.received))
        })
    }

    /// All bytes until the end, as they came.
    pub(crate) fn raw_until_end(&mut self) -> (Vec<u8>, Ended) {
        self.wait("the end", |client, ended| ended.map(|ended| (std::mem::take(&mut client.received), ended)))
    }

    /// The end, whatever comes before it.
    pub(crate) fn end_after_anything(&mut self) -> Ended {
        self.wait("the end", |_, ended| ended)
    }

    /// The next HTTP answer.
    pub(crate) fn response(&mut self) -> Response {
        self.wait("an answer", |client, _| client.take_response(true))
    }

    /// The next HTTP answer, to a HEAD.
    pub(crate) fn response_to_head(&mut self) -> Response {
        self.wait("an answer to HEAD", |client, _| client.take_response(false))
    }

    fn take_response(&mut self, with_body: bool) -> Option<Response> {
        let head_len = self.received.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.received[..head_len]).expect("a head is ASCII").to_owned();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let mut response = Response { status: status.expect("a status line"), head, body: String::new() };
        let body_len = match response.header("Content-Length") {
            Some(len) if with_body => len.parse().expect("a number"),
            _ => 0,
        };
        let end = head_len + 4 + body_len;
        if self.received.len() < end {
            return None;
        }
        response.body = String::from_utf8(self.received[head_len + 4..end].to_vec()).expect("bodies are UTF-8");
        self.received.drain(..end);
        Some(response)
    }

    /// The opening handshake. Returns the head of the answer.
    pub(crate) fn upgrade(&mut self, target: &str, subprotocol: Option<&str>) -> Response {
        let offer = self.offer.map(|offer| offer.to_string());
        let extra = offer.as_deref().map(|offer| ("Sec-WebSocket-Extensions", offer));
        self.write(upgrade_request(target, subprotocol, extra.as_slice()));
        self.await_upgrade(subprotocol)
    }

    /// Waits for the answer to an upgrade request already sent.
    pub(crate) fn await_upgrade(&mut self, subprotocol: Option<&str>) -> Response {
        let response = self.wait("101", |client, _| {
            let (offer, limits) = (client.offer.as_ref(), HeadLimits::default());
            match ws::client::check_response_with(&client.received, KEY, subprotocol, offer, &limits) {
                Ok(Some(answer)) => {
                    client.deflate = answer.deflate;
                    client.take_response(false)
                }
                Ok(None) => None,
                Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&client.received)),
            }
        });
        let plain = || Reader::new(Role::Client);
        self.reader = Some(self.deflate.map_or_else(plain, |deflate| Reader::with_deflate(Role::Client, deflate)));
        // Frames may have come together with the head.
        let mut bytes = std::mem::take(&mut self.received);
        let mut input = &mut bytes[..];
        let reader = self.reader.as_mut().expect("just made");
        while let Some(event) = reader.next_inflating(&mut input, &WIDE, &mut self.inflater).expect("good frames") {
            self.seen.push_back(event.into());
        }
        response
    }

    /// The next frame, message or the end.
    pub(crate) fn next(&mut self) -> Seen {
        self.wait("a frame", |client, ended| client.seen.pop_front().or(ended.map(Seen::End)))
    }

    /// Reads until the close frame of a client that is too slow. The publications before it are whole and in order, and fewer
    /// than were published; the first element of each is its number.
    pub(crate) fn is_told_too_slow(&mut self, published: u64) {
        let mut got = 0;
        loop {
            match self.next() {
                Seen::Text(text) => {
                    let push: Value = serde_json::from_str(&text).expect("whole publications only");
                    assert_eq!(push["push"]["pub"]["data"][0], got);
                    got += 1;
                }
                Seen::Close(code, reason) => {
                    assert_eq!((code, &*reason), (Some(3008), "slow"));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(got < published, "it cannot have got all {published}");
    }

    pub(crate) fn text(&mut self) -> String {
        match self.next() {
            Seen::Text(text) => text,
            other => panic!("{other:?} instead of a text"),
        }
    }

    /// The next message, of whatever protocol: one reply or push.
    pub(crate) fn json(&mut self) -> Value {
        match (self.format, self.next()) {
            (Format::Json, Seen::Text(text)) => serde_json::from_str(&text).expect("JSON"),
            (Format::Protobuf, Seen::Binary(message)) => {
                let mut replies = schema::replies(&message).expect("Protobuf");
                assert_eq!(replies.len(), 1, "one reply a message: {replies:?}");
                replies.remove(0)
            }
            (format, other) => panic!("{other:?} instead of a message in {format:?}"),
        }
    }

    /// Sends a command and takes the next message for its answer.
    pub(crate) fn call(&mut self, command: Value) -> Value {
        self.send(&command);
        let reply = self.json();
        assert_eq!(reply["id"], command["id"], "the next message is the reply: {reply}");
        reply
    }

    pub(crate) fn subscribe(&mut self, id: u32, channel: &str) {
        let reply = self.call(json!({"id": id, "subscribe": {"channel": channel}}));
        assert_eq!(reply, json!({"id": id, "subscribe": {}}));
    }

    pub(crate) fn unsubscribe(&mut self, id: u32, channel: &str) {
        let reply = self.call(json!({"id": id, "unsubscribe": {"channel": channel}}));
        assert_eq!(reply, json!({"id": id, "unsubscribe": {}}));
    }

    /// Shows that nothing waits: the next message is the answer to a question asked now.
    pub(crate) fn expect_silence(&mut self, id: u32) {
        self.unsubscribe(id, "never-subscribed");
    }

    pub(crate) fn send(&self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Sends a message. To a client that speaks Protobuf `text` is commands, one a line.
    pub(crate) fn send_text(&self, text: &str) {
        self.write(self.frame_of(text));
    }

    /// The frame of such a message.
    pub(crate) fn frame_of(&self, text: &str) -> Vec<u8> {
        match self.format {
            Format::Json => text_frame(text),
            Format::Protobuf => frame(OpCode::Binary, true, &schema::commands(text)),
        }
    }

    /// The close frame must come next, then the end of the connection as soon as it is answered.
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) {
        assert_eq!(self.next(), Seen::Close(Some(code), reason.to_owned()));
        self.write(close_frame(Some(code), ""));
        assert_eq!(self.next(), Seen::End(Ended::Fin));
    }
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind: MessageKind::Text, payload } => {
                Self::Text(String::from_utf8(payload.to_vec()).expect("the reader has checked it"))
            }
            Event::Message { kind: MessageKind::Binary, payload } => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close { code, reason } => Self::Close(code.map(|code| code.get()), reason.to_owned()),
        }
    }
}

/// A publication as a subscriber of Centrifugo's protocol gets it.
pub(crate) fn push(channel: &str, data: &Value) -> Value {
    json!({"push": {"channel": channel, "pub": {"data": data}}})
}

/// The same in the plain dialect.
pub(crate) fn plain_push(channel: &str, data: &Value) -> Value {
    json!({"channel": channel, "pub": {"data": data}})
}

/// A request without a body.
pub(crate) fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// A complete upgrade request.
pub(crate) fn upgrade_request(target: &str, subprotocol: Option<&str>, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    ws::client::write_request(&mut out, HOST, target, KEY, subprotocol, extra);
    out
}

/// One frame as a client sends it, allowed or not.
pub(crate) fn frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let first = opcode as u8 | u8::from(fin) << 7;
    match payload.len() {
        len @ ..126 => raw_frame(first, 0x80 | len as u8, &[], payload),
        len @ 126..0x1_0000 => raw_frame(first, 0xfe, &(len as u16).to_be_bytes(), payload),
        len => raw_frame(first, 0xff, &(len as u64).to_be_bytes(), payload),
    }
}

pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    frame(OpCode::Text, true, text.as_bytes())
}

/// A close frame as a client sends it, with any code.
pub(crate) fn close_frame(code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
    payload.extend_from_slice(reason.as_bytes());
    frame(OpCode::Close, true, &payload)
}

/// A frame whose two first bytes and extended length are as given. The payload is masked if the second byte says so.
pub(crate) fn raw_frame(first: u8, second: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, second];
    out.extend_from_slice(length);
    if second & 0x80 != 0 {
        out.extend_from_slice(&MASK);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if second & 0x80 != 0 {
        ws::apply_mask(&mut out[start..], MASK);
    }
    out
}
