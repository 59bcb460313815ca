//! nats-server as far as clients and publishers need it. Every frame to a client is cut in two, at another place each time.

use super::Fake;
use super::connection::Speaks;
use io::{ConnId, Io};
use serde_json::{Value, json};
use wire::ws::{self, OpCode};

impl Fake {
    /// What a client says on its WebSocket: whole lines.
    pub(super) fn nats_client(&mut self, io: &mut Io, id: ConnId, lines: &[u8]) {
        for line in std::str::from_utf8(lines).expect("text").split_terminator("\r\n") {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["CONNECT", _] => {}
                ["SUB", channel, _] => self.subscribe(id, channel),
                ["PING"] => {
                    self.nats_frame(io, id, b"PONG\r\n");
                    self.nats_frame(io, id, b"PING\r\n");
                }
                ["PONG"] => self.seen().answers += 1,
                _ => panic!("unexpected line {line}"),
            }
        }
    }

    pub(super) fn nats_push(&mut self, io: &mut Io, id: ConnId, push: &Value) {
        let channel = push["channel"].as_str().expect("a name");
        let data = push["pub"]["data"].to_string();
        let sid = self.connections[&id].channels.iter().position(|one| one == channel).map_or(0, |at| at + 1);
        self.nats_frame(io, id, format!("MSG {channel} {sid} {}\r\n{data}\r\n", data.len()).as_bytes());
    }

    pub(super) fn nats_frame(&mut self, io: &mut Io, id: ConnId, bytes: &[u8]) {
        self.cuts += 1;
        let (before, after) = bytes.split_at(self.cuts % bytes.len());
        self.write(io, id, |out| {
            ws::write_frame(out, OpCode::Binary, true, before, None);
            ws::write_frame(out, OpCode::Binary, true, after, None);
        });
    }

    /// What a publisher says over TCP.
    pub(super) fn nats_publisher(&mut self, io: &mut Io, id: ConnId) {
        loop {
            let received = &mut self.connections.get_mut(&id).unwrap().http;
            let Some(end) = received.windows(2).position(|two| two == b"\r\n") else { return };
            let line = String::from_utf8(received[..end].to_vec()).expect("text");
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["CONNECT", _] => drop(received.drain(..end + 2)),
                ["PING"] => {
                    received.drain(..end + 2);
                    self.write(io, id, |out| out.extend_from_slice(b"PONG\r\n"));
                }
                ["PUB", channel, len] => {
                    let whole = end + 2 + len.parse::<usize>().expect("a length") + 2;
                    if received.len() < whole {
                        return;
                    }
                    let data: Value = serde_json::from_slice(&received[end + 2..whole]).expect("our data is JSON");
                    received.drain(..whole);
                    self.publish(io, id, &json!({"channel": channel, "data": data}));
                }
                _ => panic!("unexpected line {line}"),
            }
        }
    }

    /// Whether a connection begins as no HTTP request does.
    pub(super) fn begins_as_nats(&mut self, io: &mut Io, id: ConnId) -> bool {
        let connection = self.connections.get_mut(&id).unwrap();
        let begins = connection.http.starts_with(b"CONNECT {");
        if begins {
            connection.speaks = Speaks::NatsPublisher;
            self.write(io, id, |out| out.extend_from_slice(b"INFO {\"version\":\"0\"} \r\n"));
        }
        begins
    }
}
