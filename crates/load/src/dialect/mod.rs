//! What a client says first and what it hears, on each kind of endpoint.

mod centrifugo;
pub(crate) mod nats;
#[cfg(test)]
mod tests;

use clap::ValueEnum;
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use wire::ws::OpCode;

/// Bytes of commands put into one message; a server limits its messages, 64 KiB being usual.
const COMMANDS_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a request's path and query; servers limit those too, 8 KiB being usual.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Stands for the channel in the URLs of [`Dialect::Raw`].
pub(crate) const CHANNEL_PLACE: &str = "{channel}";

/// What the clients of a fleet speak.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Centrifugo's bidirectional protocol in JSON
    Centrifugo,
    /// Centrifugo's unidirectional WebSocket, channels in the URL
    Plain,
    /// Publications as they are, a WebSocket per channel: nchan and servers written by hand ({channel} in the URL)
    #[value(alias = "nchan")]
    Raw,
    /// The client protocol of nats-server, on its WebSocket listener
    Nats,
    /// A WebSocket without a protocol on it
    None,
}

/// The tokens that clients connect with, in turns; none without any.
pub(crate) type Tokens = Arc<[String]>;

/// The channels of each client of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Subscriptions {
    /// Name of the shared channel, or the front of all names.
    pub(crate) channel: String,
    /// Shared channels, at least one.
    pub(crate) channels: u32,
    /// Further channels per client.
    pub(crate) personal: u32,
    pub(crate) tokens: Tokens,
}

impl Subscriptions {
    /// The shared channel with this number.
    pub(crate) fn shared(&self, number: u32) -> String {
        if self.channels == 1 { self.channel.clone() } else { format!("{}.{number}", self.channel) }
    }

    /// The names of all shared channels, by number.
    pub(crate) fn all_shared(&self) -> Vec<String> {
        (0..self.channels).map(|number| self.shared(number)).collect()
    }

    /// The number of the shared channel that a client has.
    pub(crate) fn number(&self, client: u32) -> u32 {
        client % self.channels
    }

    /// How many channels each client has.
    pub(crate) fn count(&self) -> usize {
        1 + self.personal as usize
    }

    fn token(&self, client: u32) -> Option<&String> {
        let turn = (client as usize).checked_rem(self.tokens.len())?;
        self.tokens.get(turn)
    }

    fn of(&self, client: u32) -> impl Iterator<Item = String> {
        // Two dots, so that no personal channel has the name of a shared one.
        let personal = (0..self.personal).map(move |k| format!("{}.{client}.{k}", self.channel));
        std::iter::once(self.shared(self.number(client))).chain(personal)
    }
}

impl Dialect {
    /// The path where servers offer it.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Dialect::Centrifugo => "/connection/websocket",
            Dialect::Plain => "/connection/uni_websocket",
            Dialect::Raw => "/sub/{channel}",
            Dialect::Nats => "/",
            Dialect::None => "/echo",
        }
    }

    /// Whether it has channels.
    pub(crate) fn subscribes(self) -> bool {
        self != Dialect::None
    }

    /// The kind of message that clients send.
    pub(crate) fn opcode(self) -> OpCode {
        if self == Dialect::Nats { OpCode::Binary } else { OpCode::Text }
    }

    /// The answer to the dialect's own ping.
    pub(crate) fn pong(self) -> &'static str {
        if self == Dialect::Nats { nats::PONG } else { "{}" }
    }

    /// What a client asks for in its upgrade request.
    pub(crate) fn target(self, path: &str, subscriptions: &Subscriptions, client: u32) -> String {
        match self {
            Dialect::Plain => {
                let separator = if path.contains('?') { '&' } else { '?' };
                let channels: Vec<String> = subscriptions.of(client).collect();
                format!("{path}{separator}channels={}", channels.join(","))
            }
            Dialect::Raw => path.replace(CHANNEL_PLACE, &subscriptions.shared(subscriptions.number(client))),
            Dialect::Centrifugo | Dialect::Nats | Dialect::None => path.to_owned(),
        }
    }

    /// Whether clients can ask for such channels at `path`.
    pub(crate) fn check(self, path: &str, subscriptions: &Subscriptions, clients: u32) -> Result<(), String> {
        match self {
            _ if !subscriptions.tokens.is_empty() && self != Dialect::Centrifugo => {
                Err("tokens are for --dialect centrifugo".to_owned())
            }
            Dialect::Raw if subscriptions.personal > 0 => {
                Err("--dialect raw has one channel per client: leave out --personal".to_owned())
            }
            Dialect::Raw if subscriptions.channels > 1 && !path.contains(CHANNEL_PLACE) => {
                Err(format!("--dialect raw with several --channels needs {CHANNEL_PLACE} in --url"))
            }
            Dialect::Plain => {
                // The last client has the longest names.
                let len = self.target(path, subscriptions, clients.saturating_sub(1)).len();
                if len <= TARGET_BYTES_MAX {
                    return Ok(());
                }
                Err(format!("so many personal channels do not fit into a URL ({len} bytes): use --dialect centrifugo"))
            }
            _ => Ok(()),
        }
    }

    /// The messages with which a client introduces itself, and how many replies they get.
    pub(crate) fn greeting(self, subscriptions: &Subscriptions, client: u32, send: impl FnMut(&str)) -> u32 {
        match self {
            Dialect::Centrifugo => {
                let mut id = 1;
                let token = subscriptions.token(client);
                let connect = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
                let first = json!({ "id": 1, "connect": connect }).to_string();
                let subscribe = |commands: &mut String, channel: &str| {
                    id += 1;
                    if !commands.is_empty() {
                        commands.push('\n');
                    }
                    write!(commands, "{{\"id\":{id},\"subscribe\":{{\"channel\":\"{channel}\"}}}}")
                };
                send_commands(first, subscriptions.of(client), subscribe, "", send);
                id
            }
            Dialect::Nats => {
                let mut sid = 0;
                let subscribe = |commands: &mut String, channel: &str| {
                    sid += 1;
                    write!(commands, "SUB {channel} {sid}\r\n")
                };
                send_commands(nats::CONNECT.to_owned(), subscriptions.of(client), subscribe, nats::PING, send);
                // One PONG for all of them.
                1
            }
            // The push that tells that it is connected counts as the reply.
            Dialect::Plain => 1,
            Dialect::Raw | Dialect::None => 0,
        }
    }

    /// Calls `hear` for every part of a received message. `rest` is what an earlier one left: a dialect whose parts do not
    /// end with messages keeps a beginning there.
    pub(crate) fn listen(self, message: &[u8], rest: &mut Vec<u8>, mut hear: impl FnMut(Heard<'_>)) {
        match self {
            Dialect::None | Dialect::Raw => hear(Heard::Message(message)),
            Dialect::Plain => hear(centrifugo::unidirectional(message)),
            Dialect::Centrifugo => {
                let lines = message.strip_suffix(b"\n").unwrap_or(message).split(|&byte| byte == b'\n');
                lines.for_each(|line| hear(centrifugo::bidirectional(line)));
            }
            Dialect::Nats => {
                let before = std::mem::take(rest);
                let bytes = if before.is_empty() { Cow::Borrowed(message) } else { [&before, message].concat().into() };
                match nats::parse(&bytes, &mut hear) {
                    Ok(used) => *rest = bytes[used..].to_vec(),
                    Err(what) => hear(Heard::Refused(format!("the server's message is not of the protocol: {what}"))),
                }
            }
        }
    }
}

/// Sends `commands`, a subscription to each channel, and `last`, in messages of a bounded length.
fn send_commands(
    mut commands: String,
    channels: impl Iterator<Item = String>,
    mut subscribe: impl FnMut(&mut String, &str) -> std::fmt::Result,
    last: &str,
    mut send: impl FnMut(&str),
) {
    for channel in channels {
        if commands.len() > COMMANDS_BYTES_MAX {
            send(&commands);
            commands.clear();
        }
        subscribe(&mut commands, &channel).expect("a string takes everything");
    }
    commands.push_str(last);
    send(&commands);
}

/// The reply to a subscribe command that asked for a position.
#[derive(PartialEq, Debug)]
pub(crate) struct Subscribed<'m> {
    /// Whether `publications` are all that was missed.
    pub(crate) recovered: bool,
    pub(crate) epoch: Cow<'m, str>,
    /// Of the last publication in the channel.
    pub(crate) offset: u64,
    /// Offset and data of each.
    pub(crate) publications: Vec<(u64, &'m [u8])>,
}

/// Since when a client wants to recover.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) offset: u64,
}

/// The first words of a Centrifugo client that asks for a position in `channel`, or recovers from one it had. They get two
/// replies.
pub(crate) fn positioned_greeting(channel: &str, since: Option<Since<'_>>) -> String {
    let recover = since.map_or_else(String::new, |Since { epoch, offset }| {
        format!(",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}")
    });
    format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\",\"positioned\":true,\
         \"recoverable\":true{recover}}}}}"
    )
}

/// One thing that a server said.
#[derive(PartialEq, Debug)]
pub(crate) enum Heard<'m> {
    /// A message without a protocol.
    Message(&'m [u8]),
    /// A publication.
    Publication {
        /// Where.
        channel: Cow<'m, str>,
        /// What, as it was published.
        data: &'m [u8],
        /// Its place in the channel's history; 0 where it has none.
        offset: u64,
    },
    /// Are you there?
    Ping {
        /// The client is to answer with [`Dialect::pong`].
        answer: bool,
    },
    /// The reply to one command of the greeting.
    Reply,
    /// The same, with a position.
    Subscribed(Subscribed<'m>),
    /// Connected, and subscribed to so many channels.
    Connected(usize),
    /// The client will not get what it wants; the reason.
    Refused(String),
    /// Of no concern here.
    Other,
}
