//! A client's decoded request, whatever the dialect it came in. Borrows from the received message.

use std::borrow::Cow;

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
    /// Answer to our ping.
    Pong,
    /// A one-way message to the backend.
    Send,
    /// Known to the protocol, without anybody here who handles it: `presence`, `presence_stats`, `history`, `rpc`,
    /// `refresh`, `sub_refresh`.
    Unavailable(&'static str),
    /// No request at all, or one that the protocol forbids (`ping` from a client).
    Unknown,
}

/// The connect request.
#[derive(Debug, Default)]
pub struct Connect<'a> {
    /// A connection token, empty without one.
    pub token: Cow<'a, str>,
    /// Channels wanted at once: the way a unidirectional client subscribes.
    pub channels: Vec<Cow<'a, str>>,
}

/// The subscribe request, as far as it changes the answer.
#[derive(Debug, Default)]
pub struct Subscribe<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// A subscription token, empty without one.
    pub token: Cow<'a, str>,
    /// "" or "fossil"; anything else is against the protocol.
    pub delta: Cow<'a, str>,
    /// A tags filter was sent.
    pub filtered: bool,
    /// 0 stream; other types need what is not configured here.
    pub kind: i32,
}
