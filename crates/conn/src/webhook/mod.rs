//! What a session asks of its backend while it runs: Centrifugo's event proxy.
//!
//! A session makes a [`Question`] and waits for the [`Answer`]; who carries them is not its business. The question's JSON
//! is made and the answer's is read here, where neither needs a session, so that it can be done off the worker's thread.

mod answer;
mod question;

pub use answer::{Admission, Answer, Given, Ill, Renewal, Rewritten, Verdict};
pub use question::{About, Header, Headers, Question};

use std::time::Duration;

/// What a backend is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    /// A client without a token connects.
    Connect,
    /// The time of a connection is over.
    Refresh,
    /// A client subscribes.
    Subscribe,
    /// A client publishes.
    Publish,
    /// The time of a subscription is over.
    SubRefresh,
    /// A client calls the backend.
    Rpc,
}

impl Event {
    /// All of them, in the order of their numbers.
    pub const ALL: [Event; 6] =
        [Event::Connect, Event::Refresh, Event::Subscribe, Event::Publish, Event::SubRefresh, Event::Rpc];

    /// Its name in the configuration and the metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Event::Connect => "connect",
            Event::Refresh => "refresh",
            Event::Subscribe => "subscribe",
            Event::Publish => "publish",
            Event::SubRefresh => "sub_refresh",
            Event::Rpc => "rpc",
        }
    }
}

/// Which questions there is somebody to answer, and what goes with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    events: u8,
    pub(crate) headers: Vec<String>,
    pub(crate) emulated_headers: Vec<String>,
}

/// How long a connection or subscription goes on whose backend was asked about its end: until the answer, and where there
/// is none until it is asked again.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Webhooks {
    /// The same where somebody answers this as well.
    #[must_use]
    pub fn with(mut self, event: Event) -> Self {
        self.events |= 1 << event as u8;
        self
    }

    /// The same with these headers of a client's handshake, by their names in lower case, and those of the others that a client
    /// says it would have sent: its own words, never in the place of a real one.
    #[must_use]
    pub fn passing_on(self, headers: Vec<String>, emulated_headers: Vec<String>) -> Self {
        Self { headers, emulated_headers, ..self }
    }

    /// Whether there is somebody.
    #[must_use]
    pub fn answer(&self, event: Event) -> bool {
        self.events >> event as u8 & 1 == 1
    }

    /// Whether anything of a handshake has to be kept.
    pub(crate) fn want_headers(&self) -> bool {
        self.events != 0 && !self.headers.is_empty()
    }
}
