//! What threads tell each other. A letter is a value of at most 64 bytes; larger parts are boxed or shared.
//!
//! Three kinds, which differ in what happens when a mailbox is full:
//! *requests* may be refused, carry a moment after which they are not worth doing, and always get exactly one answer;
//! *answers* have room reserved from the moment the request was admitted;
//! *withdrawals* are state: they wait with the sender until there is room.
//! Publications under way ([`Letter::Deliver`]), orders of the control thread ([`Letter::Order`]) and notices for the backend
//! ([`Letter::Notices`]) have room checked first.

use conn::webhook::{Answer, Question};
use conn::{Disconnect, Encoding, Given, Settings};
use control::webhook::Notice;
use hub::{
    Announcement, Channel, Entrance, HistoryPage, HistoryQuery, LocalId, Presence, PresenceQuery, Publication, Recover,
    Subscribed, SubscriberId, Unnumbered,
};
use io::ConnId;
use std::sync::Arc;
use std::time::Duration;

/// One item in a mailbox.
#[derive(Debug)]
pub enum Letter {
    /// Request to a home: number and deliver.
    Publish(Publish),
    /// Request to a home: count a subscriber of the sender, take the position and what it missed, in one step.
    Subscribe {
        /// The channel.
        channel: Channel,
        /// Whose subscription it is; repeated in the answer with the next two.
        by: Subscriber,
        /// Not worth doing after it.
        expires: Duration,
        /// Where the subscription wants to go on, if it does.
        recover: Option<Box<Recover>>,
        /// Who it is, where the channel's namespace wants to know.
        entrance: Option<Box<Entrance>>,
    },
    /// Answer to [`Letter::Subscribe`].
    Subscribed {
        /// As in the request.
        by: Subscriber,
        /// The home knows the subscriber by name now: its withdrawal has to be [`Letter::Leave`].
        entered: bool,
        /// The position with what was missed, or why not.
        answer: Result<Subscribed, Refused>,
    },
    /// Answer to [`Letter::Publish`].
    Published {
        /// As in the request.
        ticket: Ticket,
        /// The place it got, or why not.
        answer: Result<hub::Published, Refused>,
    },
    /// Request to a home: read a part of a channel's history.
    History(Box<ReadHistory>),
    /// Answer to [`Letter::History`].
    HistoryRead(Box<HistoryRead>),
    /// Request of the control thread to a home: drop what a channel holds.
    RemoveHistory(Box<RemoveHistory>),
    /// Answer to [`Letter::RemoveHistory`].
    HistoryRemoved {
        /// As in the request.
        ticket: u64,
        /// Whether it was done.
        answer: Result<(), Refused>,
    },
    /// Withdrawal to a home: subscriptions of the sender are gone.
    Unsubscribe {
        /// The channel.
        channel: Channel,
        /// How many.
        count: u32,
    },
    /// The same of one subscription that the home knows by name.
    Leave {
        /// The channel.
        channel: Channel,
        /// Who goes.
        subscriber: SubscriberId,
    },
    /// From a home to an interested worker.
    Deliver(Arc<Publication>),
    /// The same of who has come or gone.
    Announce(Arc<Announcement>),
    /// Request to a home: say who is present in a channel, or how many.
    Presence(Box<ReadPresence>),
    /// Answer to [`Letter::Presence`].
    PresenceRead(Box<PresenceRead>),
    /// Request of the control thread: part of the channels of a home.
    List(Box<List>),
    /// Answer to [`Letter::List`].
    Listed(Box<Listed>),
    /// Request of the control thread: do something to whoever matches.
    Act(Box<Act>),
    /// Answer to [`Letter::Act`].
    Acted {
        /// As in the request.
        ticket: u64,
        /// How many it was done to.
        count: u64,
        /// They, where [`Action::Describe`] asked for them.
        described: Vec<Described>,
    },
    /// Request to the control thread: ask the backend.
    AskBackend(Box<AskBackend>),
    /// Answer to [`Letter::AskBackend`].
    BackendAnswered {
        /// The connection.
        conn: ConnId,
        /// As in the request.
        number: u32,
        /// What it says, or that it says nothing.
        answer: Box<Answer>,
    },
    /// To the control thread: what the backend wants to be told.
    Notices(Vec<Notice>),
    /// To the control thread: a token names a published key that is not known.
    FetchKeys,
    /// From the control thread: something about the process has changed.
    Order(Order),
}

const _: () = assert!(size_of::<Letter>() <= 64, "a mailbox is an array of these");

/// Whose subscription a letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The connection on the asking worker.
    pub conn: ConnId,
    /// Which of its subscribes.
    pub sequence: u32,
    /// The channel's number in the asking worker's local half.
    pub local: LocalId,
}

/// Whose publish an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A client's command.
    Client {
        /// The connection.
        conn: ConnId,
        /// The command's id.
        command: u32,
    },
    /// A call of the server API.
    Control(u64),
}

/// A publish request.
#[derive(Debug)]
pub struct Publish {
    /// Repeated in the answer.
    pub ticket: Ticket,
    /// What to publish.
    pub draft: Unnumbered,
    /// Not worth doing after it.
    pub expires: Duration,
}

/// A question of a connection to the backend.
#[derive(Debug)]
pub struct AskBackend {
    /// The connection.
    pub conn: ConnId,
    /// Repeated in the answer.
    pub number: u32,
    /// What.
    pub question: Question,
}

/// A request to read a history.
#[derive(Debug)]
pub struct ReadHistory {
    /// Repeated in the answer.
    pub ticket: Ticket,
    /// The channel.
    pub channel: Channel,
    /// What is wanted of it.
    pub query: HistoryQuery,
    /// Not worth doing after it.
    pub expires: Duration,
}

/// What was read of a history.
#[derive(Debug)]
pub struct HistoryRead {
    /// As in the request.
    pub ticket: Ticket,
    /// The page, or why not.
    pub answer: Result<HistoryPage, Refused>,
}

/// A request to say who is present.
#[derive(Debug)]
pub struct ReadPresence {
    /// Repeated in the answer.
    pub ticket: Ticket,
    /// The channel.
    pub channel: Channel,
    /// Who, or how many.
    pub query: PresenceQuery,
    /// Not worth doing after it.
    pub expires: Duration,
}

/// Who is present.
#[derive(Debug)]
pub struct PresenceRead {
    /// As in the request.
    pub ticket: Ticket,
    /// They or their number, or why not.
    pub answer: Result<Presence, Refused>,
}

/// A request to drop what a channel holds.
#[derive(Debug)]
pub struct RemoveHistory {
    /// Repeated in the answer.
    pub ticket: u64,
    /// The channel.
    pub channel: Channel,
    /// Not worth doing after it.
    pub expires: Duration,
}

/// Why a home did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A mailbox on the way has no room; trying again helps.
    Busy,
    /// The home numbers as many channels as it may.
    ChannelsMax,
    /// The request came after its time.
    Expired,
    /// The position asked for is of another epoch.
    Unrecoverable,
    /// The channel keeps no history.
    NoHistory,
    /// The channel does not know who is subscribed to it.
    NoPresence,
    /// More are present than one answer names.
    TooManyPresent,
}

/// A request for a page of a home's channels.
#[derive(Debug)]
pub struct List {
    /// Repeated in the answer.
    pub ticket: u64,
    /// 0 to begin with, then what the last page said.
    pub cursor: u32,
}

/// A page of a home's channels.
#[derive(Debug)]
pub struct Listed {
    /// As in the request.
    pub ticket: u64,
    /// Channels with the number of their subscribers.
    pub channels: Vec<(Channel, u32)>,
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
}

/// What a backend wants of some connections.
#[derive(Debug)]
pub struct Act {
    /// Repeated in the answer.
    pub ticket: u64,
    /// Which connections.
    pub matching: Matching,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of connections.
#[derive(Debug, Clone)]
pub enum Action {
    /// They are closed with this.
    Disconnect(Disconnect),
    /// They get this channel.
    Subscribe(Arc<Given>),
    /// They leave this channel, whoever had asked for it.
    Unsubscribe(Channel),
    /// They last until this Unix time in seconds, or for ever.
    Refresh(Option<u64>),
    /// They are described, until there are so many.
    Describe {
        /// The walk ends there.
        connections_max: usize,
    },
}

/// What a backend may know of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Client id.
    pub client: String,
    /// User id; "" for none.
    pub user: String,
    /// What the client reads.
    pub encoding: Encoding,
    /// What it is subscribed to, in any order.
    pub channels: Vec<Channel>,
}

/// Connections must match every condition given.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// User id; "" for clients without a user.
    pub user: Option<String>,
    /// Client id.
    pub client: Option<String>,
    /// Session id.
    pub session: Option<String>,
    /// Client ids that stay.
    pub whitelist: Vec<String>,
}

/// An order of the control thread; the newest counts.
#[derive(Debug)]
pub enum Order {
    /// What `/readyz` answers.
    Ready(bool),
    /// The configuration in force from now on.
    Settings(Arc<Settings>),
    /// The system's clock was set: Unix time at the workers' origin, for tokens.
    UnixOrigin(Duration),
    /// Stop accepting, close every connection within `over`, then end.
    Drain {
        /// The closes are spread over this time.
        over: Duration,
    },
    /// End at once.
    Stop,
}
