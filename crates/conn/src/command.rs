//! A client's decoded request, whatever the dialect it came in. Borrows from the received message.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

/// One command. `id` repeats in its reply.
#[derive(Debug)]
pub struct Command<'a> {
    /// The client's number for it; 0 where the command has no reply.
    pub id: u32,
    /// What is asked.
    pub request: Request<'a>,
}

/// What a command asks for.
#[derive(Debug)]
pub enum Request<'a> {
    /// Open the session.
    Connect(Connect<'a>),
    /// Become a subscriber.
    Subscribe(Subscribe<'a>),
    /// Stop being one.
    Unsubscribe {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// Publish into a channel.
    Publish {
        /// The channel.
        channel: Cow<'a, str>,
        /// JSON text without line breaks, empty where it was absent or is not JSON.
        data: Cow<'a, str>,
    },
    /// Read a part of a channel's history.
    History(History<'a>),
    /// Ask who is subscribed.
    Presence {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// Ask how many are.
    PresenceStats {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// Prolong the connection.
    Refresh(Refresh<'a>),
    /// Prolong a subscription.
    SubRefresh(SubRefresh<'a>),
    /// Answer to our ping.
    Pong,
    /// A one-way message to the backend.
    Send,
    /// Have the backend do something.
    Rpc(Rpc<'a>),
    /// No request at all, or one that the protocol forbids (`ping` from a client).
    Unknown,
}

/// A client's token, empty where it brings none. Whoever has it can pass for the client, so `Debug` does not show it, and a copy
/// is overwritten when it is dropped.
#[derive(Default)]
pub struct Token<'a>(Cow<'a, str>);

impl ZeroizeOnDrop for Token<'_> {}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

impl Token<'_> {
    fn into_owned(mut self) -> Token<'static> {
        match &mut self.0 {
            Cow::Owned(text) => Token(Cow::Owned(std::mem::take(text))),
            Cow::Borrowed(text) => Token(Cow::Owned((*text).to_owned())),
        }
    }
}

impl<'a> From<Cow<'a, str>> for Token<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(text)
    }
}

impl Deref for Token<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "Token(..)" })
    }
}

/// The connect request.
#[derive(Default)]
pub struct Connect<'a> {
    /// A connection token, empty without one.
    pub token: Token<'a>,
    /// Channels wanted at once: the way a unidirectional client subscribes, and where another one left off in channels
    /// that it does not ask for.
    pub channels: Vec<Wanted<'a>>,
    /// JSON text for the backend; empty where it was absent or is not JSON.
    pub data: Cow<'a, str>,
    /// What the application calls itself.
    pub name: Cow<'a, str>,
    /// Its version.
    pub version: Cow<'a, str>,
    /// What stands in for headers where a browser cannot set any: the client's own words.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Connect")
            .field("token", &self.token)
            .field("channels", &self.channels)
            .field("data", &self.data)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("headers", &headers)
            .finish()
    }
}

impl Connect<'_> {
    /// The same without a borrow.
    pub fn into_owned(self) -> Connect<'static> {
        let headers = self.headers.into_iter().map(|(name, value)| (owned(name), owned(value)));
        Connect {
            token: self.token.into_owned(),
            channels: self.channels.into_iter().map(Wanted::into_owned).collect(),
            data: owned(self.data),
            name: owned(self.name),
            version: owned(self.version),
            headers: headers.collect(),
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// A call of the backend.
#[derive(Debug, Default)]
pub struct Rpc<'a> {
    /// What it is to do; empty where nothing is named.
    pub method: Cow<'a, str>,
    /// JSON text, empty where it was absent or is not JSON.
    pub data: Cow<'a, str>,
}

/// A new connection token.
#[derive(Debug, Default)]
pub struct Refresh<'a> {
    /// The token.
    pub token: Token<'a>,
}

/// A new subscription token.
#[derive(Debug, Default)]
pub struct SubRefresh<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// The token.
    pub token: Token<'a>,
}

/// A channel wanted at connect.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Where the client left off, if it wants to go on there.
    pub recover: Option<Position<'a>>,
}

impl Wanted<'_> {
    /// The same without a borrow.
    pub fn into_owned(self) -> Wanted<'static> {
        Wanted { channel: owned(self.channel), recover: self.recover.map(Position::into_owned) }
    }
}

/// A position in a channel, as a client names it.
#[derive(Debug, Default, Clone)]
pub struct Position<'a> {
    /// The last publication seen.
    pub offset: u64,
    /// Any text; empty for whatever epoch there is.
    pub epoch: Cow<'a, str>,
}

impl Position<'_> {
    /// As the hub judges it.
    pub fn since(&self) -> hub::Since {
        hub::Since { offset: hub::Offset(self.offset), epoch: hub::SinceEpoch::read(&self.epoch) }
    }

    fn into_owned(self) -> Position<'static> {
        Position { offset: self.offset, epoch: owned(self.epoch) }
    }
}

/// The history request.
#[derive(Debug, Default)]
pub struct History<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Publications at most: 0 asks for the position alone, below 0 for as many as one answer may hold.
    pub limit: i32,
    /// Only what follows this position, or precedes it where `reverse` is set.
    pub since: Option<Position<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// The subscribe request, as far as it changes the answer.
#[derive(Debug, Default)]
pub struct Subscribe<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// A subscription token, empty without one.
    pub token: Token<'a>,
    /// "" or "fossil"; anything else is against the protocol.
    pub delta: Cow<'a, str>,
    /// A tags filter was sent.
    pub filtered: bool,
    /// 0 stream; other types need what is not configured here.
    pub kind: i32,
    /// Where the client left off, if it wants to go on there.
    pub recover: Option<Position<'a>>,
    /// The client wants to be able to recover later.
    pub recoverable: bool,
    /// The client wants to be told when it misses something.
    pub positioned: bool,
    /// The client wants to be told who comes and goes.
    pub join_leave: bool,
    /// Where it cannot recover, the client wants an error rather than the subscription.
    pub reject_unrecovered: bool,
    /// JSON text for the backend; empty where it was absent or is not JSON.
    pub data: Cow<'a, str>,
}

impl Subscribe<'_> {
    /// The same without a borrow.
    pub fn into_owned(self) -> Subscribe<'static> {
        Subscribe {
            channel: owned(self.channel),
            token: self.token.into_owned(),
            delta: owned(self.delta),
            recover: self.recover.map(Position::into_owned),
            data: owned(self.data),
            filtered: self.filtered,
            kind: self.kind,
            recoverable: self.recoverable,
            positioned: self.positioned,
            join_leave: self.join_leave,
            reject_unrecovered: self.reject_unrecovered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Headers;

    #[test]
    fn debug_shows_neither_tokens_nor_values_of_headers() {
        const fn is_overwritten_when_dropped<T: ZeroizeOnDrop>() {}
        is_overwritten_when_dropped::<Token<'static>>();
        let hidden = || Token::from(Cow::from("hidden"));
        let headers = vec![("x-name".into(), "hidden".into())];
        let connect = Connect { token: hidden(), headers, name: "page".into(), ..Connect::default() };
        let subscribe = Subscribe { token: hidden(), ..Subscribe::default() };
        let shown = [
            format!("{:?}", Command { id: 1, request: Request::Connect(connect.into_owned()) }),
            format!("{:?}", Command { id: 1, request: Request::Subscribe(subscribe.into_owned()) }),
            format!("{:?}", Refresh { token: hidden() }),
            format!("{:?}", SubRefresh { channel: "news".into(), token: hidden() }),
            format!("{:?}", Headers::from_iter([("x-name".into(), Box::<str>::from("hidden").into())])),
        ];
        for shown in &shown {
            assert!(!shown.contains("hidden"), "{shown}");
        }
        assert!(
            shown[0].contains("Token(..)") && shown[0].contains("x-name") && shown[0].contains("page"),
            "{shown:?}"
        );
        assert!(shown[4].contains("x-name"), "{shown:?}");
        assert!(format!("{:?}", Refresh::default()).contains("none"), "who brings none is told from who does");
    }
}
