//! A client after the handshake: what it may do, what it is subscribed to, what it waits for.
//!
//! ```text
//! Unconnected --connect--> Connected                         (no channel to wait for)
//! Unconnected --connect--> Connecting --every channel of the token or the request answered--> Connected
//! Unconnected --connect, answered with an error--> Refused   (nothing but a close follows)
//! ```
//!
//! A subscription is *pending* from the command to the home's answer (it has a sequence number and lives in
//! [`Waiting`]), then *held* while the reply that announces it cannot be written yet (channels of a connect, until all are answered),
//! then *live*. Publications that arrive while it is held are kept in `Waiting::held` and follow the announcement.

mod asking;
mod connecting;
mod identity;
mod joining;
mod presence;
mod reading;
mod subscribing;

use crate::command::{Command, Connect, Request};
use crate::dialect::centrifugo::{Done, Format, Malformed};
use crate::dialect::plain;
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::{Effect, Note};
use crate::encoded::Encoding;
use crate::ids::ClientId;
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::pace::{Pace, Paced};
use crate::settings::Settings;
use crate::shared::{Cx, Shared};
use crate::subscriptions::Subscriptions;
use crate::webhook::Event;
use asking::Due;
use connecting::Opening;
use hub::namespace::{Lacks, Namespace};
use hub::{Announcement, Channel, Draft, LocalId, PresenceQuery, Publication, PublishOptions, Tags};
use identity::{Grant, Identity, Refusal, Turn};
use joining::{Settled, Wish};
use std::sync::Arc;
use std::time::Duration;
use wire::ws::OpCode;

/// A client protocol with sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Centrifugo(Format),
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unconnected,
    Connecting,
    Connected,
    /// The connect command was answered with an error.
    Refused,
}

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress<'m> {
    /// Go on with the next input.
    Done,
    /// Input has to wait for an answer, or for the next tick; this much of the message is still to be run.
    Hold(&'m [u8]),
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientId,
    subscriptions: Subscriptions,
    /// Exists only while something is pending or held.
    waiting: Option<Box<Waiting>>,
    /// Who the client is; none for one without a token.
    identity: Option<Box<Identity>>,
    stage: Stage,
    dialect: Dialect,
    pace: Pace,
    /// Pings are WebSocket pings, not messages.
    pub(crate) native_ping: bool,
}

/// The part of a session that exists only while an answer is due.
#[derive(Debug, Default)]
struct Waiting {
    pending: Vec<Pending>,
    /// An unsubscribe command whose channel's subscribe is still pending: command id and sequence.
    unsubscribe: Option<(u32, u32)>,
    /// Whether a token waits to be checked.
    turn: Turn,
    /// What a command has made the session ask its backend. Input waits for the answer, so that what a client sends is done
    /// in that order.
    question: Option<Box<Due>>,
    /// What the reply to connect will say.
    opening: Opening,
    /// What has come for held subscriptions, in order of arrival.
    held: Vec<Held>,
    held_bytes: usize,
    /// Channels that were accepted and cannot be announced yet.
    settled: Vec<(LocalId, Settled)>,
    /// Whether a wanted channel was refused for a passing reason.
    busy: bool,
}

/// What follows the announcement of a held subscription.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    Publication(Arc<Publication>),
    Announcement(Arc<Announcement>),
}

impl Held {
    fn cost(&self) -> usize {
        match self {
            Self::Publication(publication) => publication.cost(),
            Self::Announcement(announcement) => announcement.cost(),
        }
    }
}

/// Which subscribe was answered.
struct Asked {
    command: u32,
    sequence: u32,
    local: LocalId,
}

#[derive(Debug)]
struct Pending {
    sequence: u32,
    /// 0 where the client has not asked for it with a command: at connect, and by its backend.
    command: u32,
    channel: Channel,
    local: Option<LocalId>,
    wish: Wish,
    grant: Grant,
}

impl Session {
    pub(crate) fn new(dialect: Dialect, client: ClientId, native_ping: bool) -> Self {
        let subscriptions = Subscriptions::default();
        Self {
            client,
            subscriptions,
            waiting: None,
            identity: None,
            stage: Stage::Unconnected,
            dialect,
            pace: Pace::default(),
            native_ping,
        }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.dialect == Dialect::Plain
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.stage == Stage::Connected
    }

    /// Whether the client waits for the answer to its connect or to a subscribe.
    pub(crate) fn is_joining(&self) -> bool {
        !self.is_connected() || self.waiting.is_some()
    }

    /// How replies are written. What the plain dialect says is JSON, too.
    fn format(&self) -> Format {
        match self.dialect {
            Dialect::Centrifugo(format) => format,
            Dialect::Plain => Format::Json,
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self.dialect {
            Dialect::Centrifugo(Format::Json) => Encoding::CentrifugoJson,
            Dialect::Centrifugo(Format::Protobuf) => Encoding::CentrifugoProtobuf,
            Dialect::Plain => Encoding::Plain,
        }
    }

    /// Whether input has to wait.
    pub(crate) fn holds_input(&self) -> bool {
        // What follows a connect in its message may be about channels that the reply is going to name.
        let is_opening = self.stage == Stage::Connecting && !self.is_plain();
        is_opening
            || self.waiting.as_ref().is_some_and(|w| {
                // A plain client has nothing to say behind its connect.
                w.unsubscribe.is_some() || w.awaits_turn() || w.question.is_some() && !self.is_plain()
            })
    }

    /// Whether the command that was run last has to be run again, because its token waits to be checked.
    pub(crate) fn awaits_turn(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.awaits_turn())
    }

    /// One whole message from the client.
    pub(crate) fn message<'m>(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        message: &'m [u8],
    ) -> Result<Progress<'m>, Disconnect> {
        match self.dialect {
            Dialect::Centrifugo(_) if message.is_empty() => Err(Disconnect::BAD_REQUEST),
            Dialect::Centrifugo(_) => self.commands(cx, liveness, message),
            Dialect::Plain if self.stage == Stage::Unconnected => {
                let request = plain::connect(message).ok_or(Disconnect::BAD_REQUEST)?;
                self.open_plain(cx, liveness, request)?;
                // A connect whose token waits for its turn is run again as it came.
                Ok(if self.awaits_turn() { Progress::Hold(message) } else { Progress::Done })
            }
            // A unidirectional client has nothing more to say; what it sends is read and dropped.
            Dialect::Plain => Ok(Progress::Done),
        }
    }

    /// A plain connect, from a message or from the URL.
    pub(crate) fn open_plain(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        request: Connect<'_>,
    ) -> Result<(), Disconnect> {
        let done = self.connect(cx, liveness, 0, request);
        self.answer_connect(cx, 0, done)
    }

    /// Runs commands until the message ends, one of them has to wait, or the tick has run enough.
    fn commands<'m>(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        message: &'m [u8],
    ) -> Result<Progress<'m>, Disconnect> {
        let mut rest = message;
        let format = self.format();
        loop {
            if cx.shared.commands_left == 0 && !rest.is_empty() {
                return Ok(Progress::Hold(rest));
            }
            let before = rest;
            let Some(command) = format.next_command(&mut rest) else { return Ok(Progress::Done) };
            cx.shared.commands_left -= 1;
            cx.shared.counters.commands += 1;
            let command = command.map_err(|Malformed| Disconnect::BAD_REQUEST)?;
            self.command(cx, liveness, command)?;
            if self.awaits_turn() {
                cx.shared.counters.commands -= 1;
                return Ok(Progress::Hold(before));
            }
            if self.holds_input() {
                return Ok(Progress::Hold(rest));
            }
        }
    }

    fn command(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness, command: Command<'_>) -> Result<(), Disconnect> {
        let id = command.id;
        // What has waited for its token's turn is run again, and was counted when it came.
        let is_run_again = self.waiting.as_ref().is_some_and(|waiting| waiting.turn == Turn::Come);
        if self.stage == Stage::Connected && !is_run_again && !self.is_in_time(cx, &command)? {
            return self.refuse(cx, id, &ClientError::TOO_MANY_REQUESTS);
        }
        if cx.shared.is_short_of_memory && id > 0 && matches!(command.request, Request::Subscribe(_)) {
            cx.shared.counters.subscribes_short += 1;
            return self.refuse(cx, id, &ClientError::TOO_MANY_REQUESTS);
        }
        match (self.stage, command.request) {
            (Stage::Unconnected, Request::Connect(connect)) if id > 0 => {
                let done = self.connect(cx, liveness, id, connect);
                self.answer_connect(cx, id, done)
            }
            (Stage::Unconnected | Stage::Connecting | Stage::Refused, _) | (_, Request::Connect(_)) => {
                Err(Disconnect::BAD_REQUEST)
            }
            // Each ping admits one pong; with WebSocket pings there is none to answer here.
            (_, Request::Pong) if !self.native_ping && liveness.ponged() => Ok(()),
            (_, Request::Pong | Request::Unknown) => Err(Disconnect::BAD_REQUEST),
            (_, Request::Send) => Err(Disconnect::NOT_AVAILABLE),
            (_, _) if id == 0 => Err(Disconnect::BAD_REQUEST),
            (_, Request::Subscribe(subscribe)) => self.subscribe(cx, id, subscribe),
            (_, Request::Unsubscribe { channel }) => self.unsubscribe(cx, id, &channel),
            (_, Request::Publish { channel, data }) => self.publish(cx, id, &channel, &data),
            (_, Request::History(history)) => self.history(cx, id, &history),
            (_, Request::Presence { channel }) => self.presence(cx, id, &channel, PresenceQuery::Clients),
            (_, Request::PresenceStats { channel }) => self.presence(cx, id, &channel, PresenceQuery::Stats),
            (_, Request::Refresh(refresh)) => {
                let done = self.refresh(cx, id, &refresh);
                self.answer_refusal(cx, id, done)
            }
            (_, Request::SubRefresh(refresh)) => {
                let done = self.sub_refresh(cx, id, &refresh);
                self.answer_refusal(cx, id, done)
            }
            (_, Request::Rpc(rpc)) => self.rpc(cx, id, &rpc),
        }
    }

    /// Whether a command comes no faster than it may. What the protocol answers by itself takes no part.
    fn is_in_time(&mut self, cx: &mut Cx<'_>, command: &Command<'_>) -> Result<bool, Disconnect> {
        use Request::{Connect, Pong, Send, Unknown, Unsubscribe};
        if command.id == 0 || matches!(command.request, Connect(_) | Pong | Send | Unknown) {
            return Ok(true);
        }
        match self.pace.spend(cx.now, cx.shared.settings.limits.commands) {
            Paced::Run => Ok(true),
            // It makes less work later, and SDKs reconnect where it is refused.
            Paced::Refuse if matches!(command.request, Unsubscribe { .. }) => Ok(true),
            Paced::Refuse => {
                cx.shared.counters.commands_refused += 1;
                Ok(false)
            }
            Paced::End => Err(Disconnect::TOO_MANY_REQUESTS),
        }
    }

    /// The same of a connect, behind which nothing else is done.
    fn answer_connect(&mut self, cx: &mut Cx<'_>, id: u32, done: Result<(), Refusal>) -> Result<(), Disconnect> {
        match (self.dialect, done) {
            (Dialect::Plain, Err(Refusal::Error(error))) => Err(error.as_disconnect()),
            (_, done) => {
                if matches!(done, Err(Refusal::Error(_))) {
                    self.stage = Stage::Refused;
                }
                self.answer_refusal(cx, id, done)
            }
        }
    }

    /// Says what has to be said where a command was not done.
    fn answer_refusal(&self, cx: &mut Cx<'_>, id: u32, done: Result<(), Refusal>) -> Result<(), Disconnect> {
        match done {
            Ok(()) | Err(Refusal::NotYet) => Ok(()),
            Err(Refusal::Error(error)) => self.refuse(cx, id, &error),
            Err(Refusal::Disconnect(why)) => Err(why),
        }
    }

    fn refuse(&self, cx: &mut Cx<'_>, id: u32, error: &ClientError) -> Result<(), Disconnect> {
        self.reply(cx, |format, out, _| format.error(out, id, error))
    }

    /// The answer to a command that went well and has nothing to say.
    fn done(&self, cx: &mut Cx<'_>, id: u32, done: Done) -> Result<(), Disconnect> {
        self.reply(cx, |format, out, _| format.done(out, id, done))
    }

    /// Queues a message in the session's format.
    fn reply(&self, cx: &mut Cx<'_>, fill: impl FnOnce(Format, &mut Vec<u8>, &Settings)) -> Result<(), Disconnect> {
        let format = self.format();
        cx.message(format.opcode(), |out, settings| fill(format, out, settings))
    }

    /// Asks the options of a channel's namespace.
    fn permit(
        &self,
        cx: &mut Cx<'_>,
        channel: &str,
        may: impl FnOnce(&Namespace) -> Result<(), Lacks>,
    ) -> Result<(), ClientError> {
        let settings = cx.shared.settings.clone();
        if settings.insecure {
            return Ok(());
        }
        let Some((_, namespace)) = settings.namespaces.of(channel) else {
            cx.note(Note::UnknownNamespace { channel: channel.to_owned() });
            return Err(ClientError::UNKNOWN_CHANNEL);
        };
        let Err(Lacks(option)) = may(namespace) else { return Ok(()) };
        let namespace = namespace.name.clone();
        cx.note(Note::Denied { channel: channel.to_owned(), namespace, option });
        Err(ClientError::PERMISSION_DENIED)
    }

    fn leave(&mut self, cx: &mut Cx<'_>, local: LocalId) {
        if let Some(subscription) = self.subscriptions.remove(local) {
            self.drop_terms(local);
            self.count_subscriptions(cx.shared);
            cx.shared.effects.push(Effect::Withdraw { member: subscription.member });
        }
    }

    fn publish(&mut self, cx: &mut Cx<'_>, id: u32, channel: &str, data: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        let too_long = channel.len() > cx.shared.settings.limits.channel_name_bytes_max;
        if data.is_empty() || too_long || !channel.is_ascii() {
            return self.refuse(cx, id, &ClientError::BAD_REQUEST);
        }
        if cx.asks(Event::Publish, channel) {
            self.ask_whether_to_publish(cx, id, channel, data);
            return Ok(());
        }
        let (anonymous, subscribed) = (self.is_anonymous(), self.subscription(cx, channel).is_some());
        let permitted = self.permit(cx, channel, |namespace| namespace.may_publish(anonymous, subscribed));
        if let Err(error) = permitted {
            return self.refuse(cx, id, &error);
        }
        self.publish_now(cx, id, channel, data.as_bytes().into(), (None, None));
        Ok(())
    }

    /// Has the home publish, with these labels and wishes.
    fn publish_now(
        &self,
        cx: &mut Cx<'_>,
        id: u32,
        channel: &str,
        data: Box<[u8]>,
        (tags, options): (Option<Box<Tags>>, Option<Box<PublishOptions>>),
    ) {
        let info = Some(Box::new(self.info(self.subscription(cx, channel))));
        let draft = Draft { channel: cx.channel(channel), data, info, tags, options };
        cx.shared.effects.push(Effect::Publish { command: id, draft: Box::new(draft) });
    }

    /// The home has numbered the publication of that command, or not.
    pub(crate) fn published(
        &mut self,
        cx: &mut Cx<'_>,
        id: u32,
        answer: Result<(), ClientError>,
    ) -> Result<(), Disconnect> {
        match answer {
            Ok(()) => self.done(cx, id, Done::Publish),
            Err(error) => self.refuse(cx, id, &error),
        }
    }

    /// Writes the session's own ping, where it has one.
    pub(crate) fn ping(&self, cx: &mut Cx<'_>) -> Result<(), Disconnect> {
        match self.dialect {
            Dialect::Centrifugo(_) if self.native_ping => cx.frame(OpCode::Ping, b""),
            Dialect::Centrifugo(format) => cx.frame(format.opcode(), format.ping()),
            // The message tells the page; only the WebSocket ping is answered by a browser.
            Dialect::Plain => {
                cx.frame(OpCode::Text, plain::PING)?;
                cx.frame(OpCode::Ping, b"")
            }
        }
    }

    /// What the client is subscribed to.
    pub(crate) fn channels(&self) -> impl Iterator<Item = LocalId> + '_ {
        self.subscriptions.iter().map(|subscription| subscription.channel)
    }

    /// Leaves every channel. Pending subscriptions are forgotten: their answers will find nobody and be withdrawn.
    /// Returns the user.
    pub(crate) fn leave_all(&mut self, shared: &mut Shared) -> Arc<str> {
        let user = self.forget_identity(shared);
        let left = std::mem::take(&mut self.subscriptions);
        shared.effects.extend(left.iter().map(|s| Effect::Withdraw { member: s.member }));
        self.waiting = None;
        user
    }

    fn pending(&self, channel: &str) -> Option<u32> {
        let waiting = self.waiting.as_ref()?;
        waiting.pending.iter().find(|p| &*p.channel == channel).map(|p| p.sequence)
    }

    fn subscription(&self, cx: &Cx<'_>, channel: &str) -> Option<LocalId> {
        cx.shared.local.find(channel).filter(|&local| self.subscriptions.contains(local))
    }

    fn drop_idle_waiting(&mut self) {
        let idle = |w: &Waiting| {
            let asks = w.turn != Turn::None || w.question.is_some();
            w.pending.is_empty() && w.unsubscribe.is_none() && w.held.is_empty() && !asks
        };
        if self.waiting.as_ref().is_some_and(|w| idle(w)) {
            self.waiting = None;
        }
    }
}

impl Cx<'_> {
    /// The first ping comes after a random half to whole interval, so that a million clients that reconnected together
    /// are not pinged together.
    pub(crate) fn first_ping(&mut self) -> Liveness {
        let interval = self.shared.settings.times.ping_interval;
        let half = (interval / 2).as_millis() as u64;
        let jitter = Duration::from_millis(self.shared.ids.next_below(half + 1));
        Liveness::Ping { at: Moment::after(self.now, interval / 2 + jitter) }
    }

    /// The shared name where this worker knows the channel, else a new one.
    fn channel(&self, name: &str) -> Channel {
        let local = &self.shared.local;
        local.find(name).map_or_else(|| Channel::new(name), |id| local.channel(id).clone())
    }
}
