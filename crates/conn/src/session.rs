//! A client after the handshake: what it may do, what it is subscribed to, what it waits for.
//!
//! ```text
//! Unconnected --connect--> Connected            (Centrifugo: nothing to wait for)
//! Unconnected --connect--> Connecting --every wanted channel answered--> Connected     (plain)
//! ```
//!
//! A subscription is *pending* from the command to the home's answer (it has a sequence number and lives in
//! [`Waiting`]), then *held* while the reply that announces it cannot be written yet (plain, until all are answered),
//! then *live*. Publications that arrive while it is held are kept in `Waiting::held` and follow the announcement.

mod joining;
mod reading;

use crate::command::{Command, Connect, Request, Subscribe};
use crate::dialect::centrifugo::{Done, Format, Malformed};
use crate::dialect::plain;
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::{Effect, Note};
use crate::encoded::Encoding;
use crate::ids::ClientId;
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::settings::Settings;
use crate::shared::Cx;
use crate::subscriptions::Subscriptions;
use hub::namespace::{Lacks, Namespace};
use hub::{Channel, ClientInfo, Draft, LocalId, Publication, Subscribed, SubscriberId};
use joining::{Settled, Wish};
use std::sync::Arc;
use std::time::Duration;
use wire::ws::OpCode;

/// Without tokens nobody has a user id.
const ANONYMOUS: bool = true;

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
}

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress<'m> {
    /// Go on with the next input.
    Done,
    /// Input has to wait for an answer; this much of the message is still to be run.
    Hold(&'m [u8]),
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientId,
    subscriptions: Subscriptions,
    /// Exists only while something is pending or held.
    waiting: Option<Box<Waiting>>,
    stage: Stage,
    dialect: Dialect,
    /// Pings are WebSocket pings, not messages.
    pub(crate) native_ping: bool,
}

/// The part of a session that exists only while an answer is due.
#[derive(Debug, Default)]
struct Waiting {
    pending: Vec<Pending>,
    /// An unsubscribe command whose channel's subscribe is still pending: command id and sequence.
    unsubscribe: Option<(u32, u32)>,
    /// Publications of held subscriptions, in order of arrival.
    held: Vec<Arc<Publication>>,
    held_bytes: usize,
    /// Channels that were accepted and cannot be announced yet.
    settled: Vec<(LocalId, Settled)>,
    /// Whether a wanted channel was refused for a passing reason.
    busy: bool,
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
    command: u32,
    channel: Channel,
    local: Option<LocalId>,
    wish: Wish,
}

impl Session {
    pub(crate) fn new(dialect: Dialect, client: ClientId, native_ping: bool) -> Self {
        let subscriptions = Subscriptions::default();
        Self { client, subscriptions, waiting: None, stage: Stage::Unconnected, dialect, native_ping }
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
        self.waiting.as_ref().is_some_and(|w| w.unsubscribe.is_some())
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
                self.connect_plain(cx, liveness, &request)?;
                Ok(Progress::Done)
            }
            // A unidirectional client has nothing more to say; what it sends is read and dropped.
            Dialect::Plain => Ok(Progress::Done),
        }
    }

    /// Runs commands until the message ends or one of them has to wait.
    pub(crate) fn commands<'m>(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        message: &'m [u8],
    ) -> Result<Progress<'m>, Disconnect> {
        let mut rest = message;
        let format = self.format();
        while let Some(command) = format.next_command(&mut rest) {
            cx.shared.counters.commands += 1;
            let command = command.map_err(|Malformed| Disconnect::BAD_REQUEST)?;
            self.command(cx, liveness, command)?;
            if self.holds_input() {
                return Ok(Progress::Hold(rest));
            }
        }
        Ok(Progress::Done)
    }

    fn command(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness, command: Command<'_>) -> Result<(), Disconnect> {
        let id = command.id;
        match (self.stage, command.request) {
            (Stage::Unconnected, Request::Connect(connect)) if id > 0 => self.connect(cx, liveness, id, &connect),
            (Stage::Unconnected | Stage::Connecting, _) | (_, Request::Connect(_)) => Err(Disconnect::BAD_REQUEST),
            // Each ping admits one pong; with WebSocket pings there is none to answer here.
            (_, Request::Pong) if !self.native_ping && liveness.ponged() => Ok(()),
            (_, Request::Pong | Request::Unknown) => Err(Disconnect::BAD_REQUEST),
            (_, Request::Send) => Err(Disconnect::NOT_AVAILABLE),
            (_, _) if id == 0 => Err(Disconnect::BAD_REQUEST),
            (_, Request::Subscribe(subscribe)) => self.subscribe(cx, id, &subscribe),
            (_, Request::Unsubscribe { channel }) => self.unsubscribe(cx, id, &channel),
            (_, Request::Publish { channel, data }) => self.publish(cx, id, &channel, &data),
            (_, Request::History(history)) => self.history(cx, id, &history),
            (_, Request::Unavailable(_)) => self.refuse(cx, id, ClientError::NOT_AVAILABLE),
        }
    }

    fn authenticate(&self, cx: &mut Cx<'_>, connect: &Connect<'_>) -> Result<(), Disconnect> {
        if !connect.token.is_empty() {
            cx.note(Note::TokenUnsupported);
            return Err(Disconnect::INVALID_TOKEN);
        }
        if !cx.shared.settings.anonymous && !cx.shared.settings.insecure {
            cx.note(Note::AnonymousRefused);
            return Err(Disconnect::BAD_REQUEST);
        }
        Ok(())
    }

    fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        id: u32,
        connect: &Connect<'_>,
    ) -> Result<(), Disconnect> {
        self.authenticate(cx, connect)?;
        self.become_connected(cx, liveness);
        let (client, native) = (self.client, self.native_ping);
        self.reply(cx, |format, out, settings| {
            let ping = (!native).then_some(settings.times.ping_interval.as_secs());
            format.connected(out, id, client, &settings.version, ping);
        })
    }

    /// Opens a plain session and asks for the wanted channels. Those it may not have are left out, as the protocol says.
    pub(crate) fn connect_plain(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        connect: &Connect<'_>,
    ) -> Result<(), Disconnect> {
        self.authenticate(cx, connect)?;
        if connect.channels.len() > cx.shared.settings.limits.channels_max {
            return Err(Disconnect::CHANNEL_LIMIT);
        }
        self.stage = Stage::Connecting;
        for wanted in &connect.channels {
            let (channel, recover) = (wanted.channel.clone(), wanted.recover.clone());
            let request = Subscribe { channel, recover, ..Subscribe::default() };
            if !request.channel.is_empty() && self.may_subscribe(cx, &request).is_ok() {
                self.ask(cx, 0, &request);
            }
        }
        self.announce_when_answered(cx, liveness)
    }

    fn become_connected(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness) {
        self.stage = Stage::Connected;
        cx.shared.counters.sessions += 1;
        *liveness = cx.first_ping();
    }

    fn refuse(&self, cx: &mut Cx<'_>, id: u32, error: ClientError) -> Result<(), Disconnect> {
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

    fn subscribe(&mut self, cx: &mut Cx<'_>, id: u32, request: &Subscribe<'_>) -> Result<(), Disconnect> {
        if request.channel.is_empty() || !matches!(&*request.delta, "" | "fossil") {
            return Err(Disconnect::BAD_REQUEST);
        }
        match self.may_subscribe(cx, request) {
            Ok(()) => {
                self.ask(cx, id, request);
                Ok(())
            }
            Err(error) => self.refuse(cx, id, error),
        }
    }

    /// The checks of a subscription, in the order in which Centrifugo makes them.
    fn may_subscribe(&self, cx: &mut Cx<'_>, request: &Subscribe<'_>) -> Result<(), ClientError> {
        let channel = &*request.channel;
        let limits = &cx.shared.settings.limits;
        if channel.len() > limits.channel_name_bytes_max || !channel.is_ascii() {
            return Err(ClientError::BAD_REQUEST);
        }
        if request.filtered || request.kind == 4 {
            return Err(ClientError::NOT_AVAILABLE);
        }
        if request.kind != 0 {
            return Err(ClientError::PERMISSION_DENIED);
        }
        if self.pending(channel).is_some() || self.subscription(cx, channel).is_some() {
            return Err(ClientError::ALREADY_SUBSCRIBED);
        }
        let wanted = self.waiting.as_ref().map_or(0, |w| w.pending.len());
        if self.subscriptions.len() + wanted >= limits.channels_max {
            return Err(ClientError::LIMIT_EXCEEDED);
        }
        if !request.token.is_empty() {
            cx.note(Note::TokenUnsupported);
            return Err(ClientError::PERMISSION_DENIED);
        }
        self.permit(cx, channel, |namespace| namespace.may_subscribe(ANONYMOUS))?;
        if channel.starts_with('$') && !cx.shared.settings.insecure {
            let option = "a subscription token, which a private channel needs";
            cx.note(Note::Denied { channel: channel.to_owned(), namespace: String::new(), option });
            return Err(ClientError::PERMISSION_DENIED);
        }
        Ok(())
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

    fn ask(&mut self, cx: &mut Cx<'_>, command: u32, request: &Subscribe<'_>) {
        let sequence = cx.shared.next_sequence();
        let channel = cx.channel(&request.channel);
        let (wish, recover) = Wish::granted(cx, request);
        let waiting = self.waiting.get_or_insert_default();
        waiting.pending.push(Pending { sequence, command, channel: channel.clone(), local: None, wish });
        cx.shared.effects.push(Effect::Subscribe { sequence, channel, recover });
    }

    /// The worker counts the pending subscriber under this number.
    pub(crate) fn begun(&mut self, sequence: u32, local: LocalId) {
        if let Some(pending) = self.pending_mut(sequence) {
            pending.local = Some(local);
        }
    }

    fn pending_mut(&mut self, sequence: u32) -> Option<&mut Pending> {
        self.waiting.as_mut()?.pending.iter_mut().find(|p| p.sequence == sequence)
    }

    /// The home has answered. `None`: nothing of that number is pending here, so the answer is stale. Otherwise whether the
    /// client became a member, and how the session goes on.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        me: SubscriberId,
        sequence: u32,
        answer: Result<Subscribed, ClientError>,
    ) -> Option<(bool, Result<(), Disconnect>)> {
        let waiting = self.waiting.as_mut()?;
        let at = waiting.pending.iter().position(|p| p.sequence == sequence && p.local.is_some())?;
        let Pending { command, local, wish, .. } = waiting.pending.remove(at);
        let local = local?;
        let settled = answer.map(|subscribed| wish.settle(subscribed));
        if self.stage != Stage::Connecting {
            let asked = Asked { command, sequence, local };
            return Some(self.reply_to_subscribe(cx, me, asked, settled));
        }
        let is_member = settled.is_ok();
        match settled {
            Ok(settled) => {
                self.admit(cx, me, local, &settled, true);
                self.waiting.get_or_insert_default().settled.push((local, settled));
            }
            Err(_) => self.waiting.get_or_insert_default().busy = true,
        }
        Some((is_member, self.announce_when_answered(cx, liveness)))
    }

    fn reply_to_subscribe(
        &mut self,
        cx: &mut Cx<'_>,
        me: SubscriberId,
        asked: Asked,
        settled: Result<Settled, ClientError>,
    ) -> (bool, Result<(), Disconnect>) {
        let Asked { command, sequence, local } = asked;
        let replied = match settled {
            Err(error) => self.refuse(cx, command, error).map(|()| false),
            Ok(mut settled) => {
                let replied = self.reply_subscribed(cx, command, &mut settled);
                if replied == Ok(true) {
                    self.admit(cx, me, local, &settled, false);
                }
                replied
            }
        };
        let is_member = match replied {
            Ok(is_member) => is_member,
            Err(why) => return (false, Err(why)),
        };
        let unsubscribe = self.waiting.as_mut().and_then(|w| w.unsubscribe.take_if(|(_, s)| *s == sequence));
        let mut outcome = Ok(());
        if let Some((id, _)) = unsubscribe {
            self.leave(cx, local);
            outcome = self.done(cx, id, Done::Unsubscribe);
        }
        self.drop_idle_waiting();
        (is_member, outcome)
    }

    /// Writes the connect push once no answer is due any more, then what was held, and lets the channels go live.
    fn announce_when_answered(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness) -> Result<(), Disconnect> {
        let waiting = match self.waiting.take() {
            Some(waiting) if !waiting.pending.is_empty() => {
                self.waiting = Some(waiting);
                return Ok(());
            }
            other => other.unwrap_or_default(),
        };
        if waiting.busy {
            return Err(Disconnect::INTERNAL);
        }
        self.become_connected(cx, liveness);
        self.announce_plain(cx, waiting.settled)?;
        for publication in &waiting.held {
            cx.shared.counters.deliveries += 1;
            // Whether its namespace compresses is asked where publications fan out; a few that were held need not be.
            cx.text_as_it_is(|out| plain::publication(out, publication))?;
        }
        self.subscriptions.iter().for_each(|s| cx.shared.local.go_live(s.member));
        Ok(())
    }

    /// The connect push, with what was missed where that fits.
    fn announce_plain(&self, cx: &mut Cx<'_>, mut settled: Vec<(LocalId, Settled)>) -> Result<(), Disconnect> {
        let session = cx.shared.ids.session_of(self.client);
        let names: Vec<Channel> = settled.iter().map(|(local, _)| cx.shared.local.channel(*local).clone()).collect();
        let write = |out: &mut Vec<u8>, settings: &Settings, settled: &[(LocalId, Settled)]| {
            let ping = settings.times.ping_interval.as_secs();
            let subs = names.iter().zip(settled).map(|(name, (_, s))| (&**name, s.result, s.missed.is_some()));
            plain::connected(out, self.client, session, &settings.version, ping, subs)
        };
        if settled.iter().any(|(_, s)| s.missed.is_some()) {
            let missed = settled.iter().filter_map(|(_, s)| s.missed.as_ref());
            let bodies: Vec<_> = missed.map(|missed| cx.missed(self.encoding(), missed)).collect();
            let mut text = Vec::new();
            let places = write(&mut text, &cx.shared.settings, &settled);
            let parts: Vec<_> = places.into_iter().zip(bodies.iter().copied()).collect();
            let fits = cx.composed(OpCode::Text, &text, &parts);
            bodies.into_iter().for_each(|body| cx.shared.outboxes.release(body));
            if fits {
                return Ok(());
            }
            // All or nothing: which of its channels could be recovered would depend on their order.
            for (_, settled) in settled.iter_mut().filter(|(_, s)| s.missed.is_some()) {
                cx.shared.counters.recoveries_too_large += 1;
                settled.give_up();
            }
        }
        cx.text(|out, settings| drop(write(out, settings, &settled)))
    }

    /// Keeps a publication of a subscription that is not announced yet.
    pub(crate) fn hold(
        &mut self,
        publication: &Arc<Publication>,
        count: usize,
        bytes: usize,
    ) -> Result<(), Disconnect> {
        let waiting = self.waiting.get_or_insert_default();
        waiting.held_bytes += publication.cost();
        if waiting.held.len() >= count || waiting.held_bytes > bytes {
            return Err(Disconnect::INSUFFICIENT_STATE);
        }
        waiting.held.push(publication.clone());
        Ok(())
    }

    fn unsubscribe(&mut self, cx: &mut Cx<'_>, id: u32, channel: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Some(sequence) = self.pending(channel) {
            self.waiting.get_or_insert_default().unsubscribe = Some((id, sequence));
            return Ok(());
        }
        if let Some(local) = self.subscription(cx, channel) {
            self.leave(cx, local);
        }
        self.done(cx, id, Done::Unsubscribe)
    }

    fn leave(&mut self, cx: &mut Cx<'_>, local: LocalId) {
        if let Some(subscription) = self.subscriptions.remove(local) {
            cx.shared.effects.push(Effect::Withdraw { member: subscription.member });
        }
    }

    fn publish(&mut self, cx: &mut Cx<'_>, id: u32, channel: &str, data: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        let too_long = channel.len() > cx.shared.settings.limits.channel_name_bytes_max;
        if data.is_empty() || too_long || !channel.is_ascii() {
            return self.refuse(cx, id, ClientError::BAD_REQUEST);
        }
        let subscribed = self.subscription(cx, channel).is_some();
        let permitted = self.permit(cx, channel, |namespace| namespace.may_publish(ANONYMOUS, subscribed));
        if let Err(error) = permitted {
            return self.refuse(cx, id, error);
        }
        let info =
            ClientInfo { user: "".into(), client: self.client.to_string().into(), conn_info: None, chan_info: None };
        let channel = cx.channel(channel);
        let draft =
            Draft { channel, data: data.as_bytes().into(), info: Some(Box::new(info)), tags: None, options: None };
        cx.shared.effects.push(Effect::Publish { command: id, draft: Box::new(draft) });
        Ok(())
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
            Err(error) => self.refuse(cx, id, error),
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

    /// Leaves every channel. Pending subscriptions are forgotten: their answers will find nobody and be withdrawn.
    pub(crate) fn leave_all(&mut self, effects: &mut Vec<Effect>) {
        let left = std::mem::take(&mut self.subscriptions);
        effects.extend(left.iter().map(|s| Effect::Withdraw { member: s.member }));
        self.waiting = None;
    }

    fn pending(&self, channel: &str) -> Option<u32> {
        let waiting = self.waiting.as_ref()?;
        waiting.pending.iter().find(|p| &*p.channel == channel).map(|p| p.sequence)
    }

    fn subscription(&self, cx: &Cx<'_>, channel: &str) -> Option<LocalId> {
        cx.shared.local.find(channel).filter(|&local| self.subscriptions.contains(local))
    }

    fn drop_idle_waiting(&mut self) {
        let idle = |w: &Waiting| w.pending.is_empty() && w.unsubscribe.is_none() && w.held.is_empty();
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
