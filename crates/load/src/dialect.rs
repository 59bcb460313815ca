//! What a client says first and what it hears, on each kind of endpoint.

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Bytes of commands put into one message; a server limits its messages, 64 KiB being usual.
const COMMANDS_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a request's path and query; servers limit those too, 8 KiB being usual.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// What the clients of a fleet speak.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Centrifugo's bidirectional protocol in JSON
    Centrifugo,
    /// Centrifugo's unidirectional WebSocket, channels in the URL
    Plain,
    /// A WebSocket without a protocol on it
    None,
}

/// The channels of each client of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Subscriptions {
    /// Name of the shared channel, or the front of all names.
    pub(crate) channel: String,
    /// Shared channels, at least one.
    pub(crate) channels: u32,
    /// Further channels per client.
    pub(crate) personal: u32,
}

impl Subscriptions {
    /// The shared channel with this number.
    pub(crate) fn shared(&self, number: u32) -> String {
        if self.channels == 1 { self.channel.clone() } else { format!("{}.{number}", self.channel) }
    }

    /// The number of the shared channel that a client has.
    pub(crate) fn number(&self, client: u32) -> u32 {
        client % self.channels
    }

    /// How many channels each client has.
    pub(crate) fn count(&self) -> usize {
        1 + self.personal as usize
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
            Dialect::None => "/echo",
        }
    }

    /// Whether it has channels.
    pub(crate) fn subscribes(self) -> bool {
        self != Dialect::None
    }

    /// What a client asks for in its upgrade request.
    pub(crate) fn target(self, path: &str, subscriptions: &Subscriptions, client: u32) -> String {
        match self {
            Dialect::Plain => {
                let separator = if path.contains('?') { '&' } else { '?' };
                let channels: Vec<String> = subscriptions.of(client).collect();
                format!("{path}{separator}channels={}", channels.join(","))
            }
            Dialect::Centrifugo | Dialect::None => path.to_owned(),
        }
    }

    /// Whether a client can ask for so many channels.
    pub(crate) fn check(self, subscriptions: &Subscriptions, clients: u32) -> Result<(), String> {
        if self == Dialect::Plain {
            // The last client has the longest names, but for the path.
            let len = self.target(self.path(), subscriptions, clients.saturating_sub(1)).len();
            if len > TARGET_BYTES_MAX {
                return Err(format!(
                    "so many personal channels do not fit into a URL ({len} bytes): use --dialect centrifugo"
                ));
            }
        }
        Ok(())
    }

    /// The messages with which a client introduces itself, and how many replies they get.
    pub(crate) fn greeting(self, subscriptions: &Subscriptions, client: u32, mut send: impl FnMut(&str)) -> u32 {
        match self {
            Dialect::Centrifugo => {
                let mut commands = "{\"id\":1,\"connect\":{}}".to_owned();
                let mut id = 1;
                for channel in subscriptions.of(client) {
                    id += 1;
                    if commands.len() > COMMANDS_BYTES_MAX {
                        send(&commands);
                        commands.clear();
                    } else {
                        commands.push('\n');
                    }
                    write!(commands, "{{\"id\":{id},\"subscribe\":{{\"channel\":\"{channel}\"}}}}")
                        .expect("a string takes everything");
                }
                send(&commands);
                id
            }
            // The push that tells that it is connected counts as the reply.
            Dialect::Plain => 1,
            Dialect::None => 0,
        }
    }

    /// Calls `hear` for every part of a received message.
    pub(crate) fn listen<'m>(self, message: &'m [u8], mut hear: impl FnMut(Heard<'m>)) {
        match self {
            Dialect::None => hear(Heard::Message(message)),
            Dialect::Plain => hear(plain(message)),
            Dialect::Centrifugo => {
                let lines = message.strip_suffix(b"\n").unwrap_or(message).split(|&byte| byte == b'\n');
                lines.for_each(|line| hear(centrifugo(line)));
            }
        }
    }
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
        /// What, as JSON.
        data: &'m [u8],
    },
    /// Are you there?
    Ping {
        /// The client is to answer with the same.
        answer: bool,
    },
    /// The reply to one command of the greeting.
    Reply,
    /// Connected, and subscribed to so many channels.
    Connected(usize),
    /// The client will not get what it wants; the reason.
    Refused(String),
    /// Of no concern here.
    Other,
}

const PING: &[u8] = b"{}";

#[derive(Deserialize)]
struct RawReply<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    error: Option<RawError<'a>>,
    #[serde(borrow)]
    push: Option<RawPush<'a>>,
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
}

#[derive(Deserialize)]
struct RawConnect {
    subs: Option<BTreeMap<String, IgnoredAny>>,
}

fn centrifugo(line: &[u8]) -> Heard<'_> {
    if line == PING {
        return Heard::Ping { answer: true };
    }
    match serde_json::from_slice::<RawReply<'_>>(line) {
        Ok(RawReply { push: Some(push), .. }) => push.heard(),
        Ok(RawReply { error: Some(error), id, .. }) => {
            let command = if id == 1 { "connect" } else { "subscribe" };
            Heard::Refused(format!("{command} refused: {error}"))
        }
        Ok(RawReply { id: 1.., .. }) => Heard::Reply,
        Ok(_) => Heard::Other,
        Err(error) => Heard::Refused(format!("the server's message is not of the protocol: {error}")),
    }
}

fn plain(message: &[u8]) -> Heard<'_> {
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
            return Heard::Publication { channel: self.channel, data: publication.data.get().as_bytes() };
        }
        match (self.unsubscribe, self.disconnect) {
            (Some(why), _) => Heard::Refused(format!("unsubscribed by the server: {why}")),
            (_, Some(why)) => Heard::Refused(format!("disconnected by the server: {why}")),
            _ => Heard::Other,
        }
    }
}

impl std::fmt::Display for RawError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions(channels: u32, personal: u32) -> Subscriptions {
        Subscriptions { channel: "ns:a".to_owned(), channels, personal }
    }

    fn heard(dialect: Dialect, message: &str) -> Vec<Heard<'_>> {
        let mut all = Vec::new();
        dialect.listen(message.as_bytes(), |heard| all.push(heard));
        all
    }

    #[test]
    fn channels_have_names_of_their_own() {
        assert_eq!(subscriptions(1, 0).of(7).collect::<Vec<_>>(), ["ns:a"]);
        assert_eq!(subscriptions(3, 2).of(7).collect::<Vec<_>>(), ["ns:a.1", "ns:a.7.0", "ns:a.7.1"]);
    }

    #[test]
    fn a_centrifugo_client_connects_and_subscribes_in_one_message() {
        let mut messages = Vec::new();
        let replies = Dialect::Centrifugo.greeting(&subscriptions(1, 1), 4, |m| messages.push(m.to_owned()));
        assert_eq!(replies, 3);
        let [message] = &messages[..] else { panic!("{messages:?}") };
        let lines: Vec<serde_json::Value> = message.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0], serde_json::json!({"id": 1, "connect": {}}));
        assert_eq!(lines[2], serde_json::json!({"id": 3, "subscribe": {"channel": "ns:a.4.0"}}));
    }

    #[test]
    fn many_subscriptions_are_split_into_messages_of_whole_commands() {
        let mut ids = Vec::new();
        let replies = Dialect::Centrifugo.greeting(&subscriptions(1, 2_000), 0, |message| {
            assert!(message.len() < COMMANDS_BYTES_MAX + 128);
            ids.extend(message.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].as_u64()));
        });
        assert_eq!(ids, (1..=2_002).map(Some).collect::<Vec<_>>());
        assert_eq!(replies, 2_002);
    }

    #[test]
    fn a_plain_client_puts_its_channels_into_the_url() {
        let target = |path| Dialect::Plain.target(path, &subscriptions(1, 1), 3);
        assert_eq!(target("/uni"), "/uni?channels=ns:a,ns:a.3.0");
        assert_eq!(target("/uni?x=1"), "/uni?x=1&channels=ns:a,ns:a.3.0");
        assert!(Dialect::Plain.check(&subscriptions(1, 10), 1000).is_ok());
        assert!(Dialect::Plain.check(&subscriptions(1, 1000), 1000).is_err());
    }

    #[test]
    fn replies_pings_and_publications_are_told_apart() {
        let message =
            "{\"id\":1,\"connect\":{\"client\":\"x\"}}\n{}\n{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":[1, 2]}}}\n";
        let data: &[u8] = b"[1, 2]";
        let publication = Heard::Publication { channel: "c".into(), data };
        assert_eq!(heard(Dialect::Centrifugo, message), [Heard::Reply, Heard::Ping { answer: true }, publication]);
        let publication = Heard::Publication { channel: "c".into(), data };
        assert_eq!(heard(Dialect::Plain, "{\"channel\":\"c\",\"pub\":{\"data\":[1, 2]}}"), [publication]);
        assert_eq!(heard(Dialect::Plain, "{}"), [Heard::Ping { answer: false }]);
        assert_eq!(heard(Dialect::None, "{}"), [Heard::Message(b"{}")]);
    }

    #[test]
    fn refusals_say_what_was_refused_and_why() {
        let reason = |dialect, message: &str| match &heard(dialect, message)[..] {
            [Heard::Refused(reason)] => reason.clone(),
            other => panic!("{other:?}"),
        };
        let refused = "{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}";
        assert_eq!(reason(Dialect::Centrifugo, refused), "subscribe refused: 103 permission denied");
        let gone = "{\"push\":{\"channel\":\"c\",\"unsubscribe\":{\"code\":2500,\"reason\":\"insufficient state\"}}}";
        assert_eq!(reason(Dialect::Centrifugo, gone), "unsubscribed by the server: 2500 insufficient state");
        assert!(reason(Dialect::Centrifugo, "{\"id\":").contains("not of the protocol"));
        assert_eq!(heard(Dialect::Plain, "{\"connect\":{\"client\":\"x\"}}"), [Heard::Connected(0)]);
        assert_eq!(heard(Dialect::Plain, "{\"connect\":{\"subs\":{\"a\":{}}}}"), [Heard::Connected(1)]);
    }
}
