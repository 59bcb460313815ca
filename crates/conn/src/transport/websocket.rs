//! A WebSocket after its handshake (RFC 6455, sections 5 to 7): frames in, frames out, the closing handshake.

use crate::connection::CloseReport;
use crate::connection::Given;
use crate::disconnect::{ClientError, Disconnect};
use crate::encoded::Encoding;
use crate::ids::ClientId;
use crate::liveness::Liveness;
use crate::meter::Meter;
use crate::moment::Moment;
use crate::outbox::{Outbox, Outboxes};
use crate::session::{Held, Progress, Session};
use crate::shared::{Cx, End, Shared};
use crate::webhook::Answer;
use crate::{command::Connect, dialect::plain};
use hub::{HistoryPage, LocalId, Presence, Subscribed, SubscriberId};
use std::sync::Arc;
use wire::ws::deflate::Inflater;
use wire::ws::extension::Params;
use wire::ws::{CloseCode, Event, FrameError, Limits, MessageKind, OpCode, Reader, Role};

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Open {
    reader: Reader,
    pub(crate) liveness: Liveness,
    speaker: Speaker,
    /// Where input waits, or is limited.
    input: Option<Box<Input>>,
}

#[derive(Debug, Default)]
struct Input {
    /// Input that waits for an answer or for its time. Reads rest meanwhile, so it is at most one message and one chunk.
    held: Option<HeldInput>,
    meter: Meter,
}

#[derive(Debug)]
enum Speaker {
    /// Sends every message back.
    Echo,
    Session(Session),
}

#[derive(Debug, Default)]
struct HeldInput {
    /// Commands of the message that was being run.
    commands: Vec<u8>,
    /// Bytes behind that message, as they came.
    bytes: Vec<u8>,
}

/// What an open connection decides about itself.
#[derive(Debug)]
pub(crate) enum Fate {
    Stays,
    /// Our decision.
    Disconnect(Disconnect),
    /// The peer broke the protocol.
    Fail(FrameError),
    /// The peer's close frame came first.
    PeerClosed {
        code: Option<CloseCode>,
        reason: String,
    },
}

impl From<Result<(), Disconnect>> for Fate {
    fn from(result: Result<(), Disconnect>) -> Self {
        result.map_or_else(Self::Disconnect, |()| Self::Stays)
    }
}

impl Open {
    /// `/echo`.
    pub(crate) fn echo(cx: &mut Cx<'_>, deflate: Option<Params>) -> Self {
        let liveness = cx.first_ping();
        Self { reader: reader(deflate), liveness, speaker: Speaker::Echo, input: None }
    }

    /// An endpoint with sessions.
    pub(crate) fn session(cx: &Cx<'_>, deflate: Option<Params>, session: Session) -> Self {
        let by = Moment::after(cx.now, cx.shared.settings.times.stale_close_delay);
        let liveness = Liveness::Connect { by };
        Self { reader: reader(deflate), liveness, speaker: Speaker::Session(session), input: None }
    }

    /// A plain connect that came in the URL.
    pub(crate) fn connect_plain(&mut self, cx: &mut Cx<'_>, connect: Connect<'_>) -> Fate {
        let Speaker::Session(session) = &mut self.speaker else { return Fate::Stays };
        // Where its token has to wait, what is run again later is the request as it would have come in a message.
        let commands = if connect.token.is_empty() { Vec::new() } else { plain::connect_text(&connect) };
        let opened = session.open_plain(cx, &mut self.liveness, connect);
        if session.awaits_turn() {
            hold(&mut self.input, commands);
        }
        opened.into()
    }

    pub(crate) fn client(&self) -> Option<ClientId> {
        match &self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => Some(session.client()),
        }
    }

    /// Whether the client is one of Centrifugo's SDKs, or speaks like one.
    pub(crate) fn speaks_centrifugo(&self) -> bool {
        matches!(&self.speaker, Speaker::Session(session) if !session.is_plain())
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(&self.speaker, Speaker::Session(session) if session.is_connected())
    }

    /// Whether there is a session whose client waits for the answer to its connect or to a subscribe.
    pub(crate) fn is_joining(&self) -> bool {
        matches!(&self.speaker, Speaker::Session(session) if session.is_joining())
    }

    pub(crate) fn encoding(&self) -> Option<Encoding> {
        match &self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => Some(session.encoding()),
        }
    }

    /// Bytes that have just come.
    pub(crate) fn received(&mut self, bytes: &mut [u8], cx: &mut Cx<'_>) -> Fate {
        let limits = &cx.shared.settings.limits;
        if Meter::is_wanted(limits) {
            let meter = &mut self.input.get_or_insert_default().meter;
            cx.shared.counters.rests_for_bytes += u64::from(meter.bytes(cx.now, bytes.len(), limits.bytes));
        }
        self.take(bytes, cx)
    }

    /// Reads frames until the chunk ends, something is decided, or input has to wait.
    fn take(&mut self, bytes: &mut [u8], cx: &mut Cx<'_>) -> Fate {
        if cx.outbox.agreed().is_none() {
            return self.read(bytes, cx, None);
        }
        let mut inflater = cx.shared.compression.lend_inflater();
        let fate = self.read(bytes, cx, Some(&mut inflater));
        cx.shared.compression.take_back(inflater);
        fate
    }

    fn read(&mut self, bytes: &mut [u8], cx: &mut Cx<'_>, mut inflater: Option<&mut Inflater>) -> Fate {
        let (limits, rate) = (cx.shared.settings.limits.messages(), cx.shared.settings.limits.messages);
        let mut input = bytes;
        loop {
            if let Some(waiting) = &mut self.input {
                if waiting.held.is_none() && !input.is_empty() && waiting.meter.is_next_too_soon(cx.now, rate) {
                    cx.shared.counters.rests_for_messages += 1;
                    waiting.held = Some(HeldInput::default());
                }
                if let Some(held) = &mut waiting.held {
                    held.bytes.extend_from_slice(input);
                    return Fate::Stays;
                }
            }
            let mut frames = 0;
            let next = self.reader.next_counting(&mut input, &limits, inflater.as_deref_mut(), &mut frames);
            if let Some(waiting) = &mut self.input {
                waiting.meter.frames(cx.now, frames, rate);
            }
            let event = match next {
                Ok(Some(event)) => event,
                Ok(None) => return Fate::Stays,
                Err(error) => return Fate::Fail(error),
            };
            let fate = match event {
                Event::Message { kind, payload } => {
                    cx.shared.counters.messages_in += 1;
                    message(&mut self.speaker, &mut self.liveness, &mut self.input, cx, kind, payload)
                }
                Event::Ping(payload) => cx.frame(OpCode::Pong, payload).into(),
                Event::Pong(_) => {
                    // An unasked-for pong is legal (5.5.3).
                    if !self.speaker.wants_message_pong() {
                        self.liveness.ponged();
                    }
                    Fate::Stays
                }
                Event::Close { code, reason } => Fate::PeerClosed { code, reason: reason.to_owned() },
            };
            if !matches!(fate, Fate::Stays) {
                return fate;
            }
        }
    }

    pub(crate) fn holds_input(&self) -> bool {
        self.input.as_ref().is_some_and(|input| input.held.is_some() || input.meter.until().is_some())
    }

    pub(crate) fn has_resumable_input(&self) -> bool {
        let waits = self.input.as_ref().is_some_and(|input| input.held.is_some() && input.meter.until().is_none());
        waits && !matches!(&self.speaker, Speaker::Session(session) if session.holds_input())
    }

    /// Runs what was held: first the rest of its message, then the bytes behind.
    pub(crate) fn resume_input(&mut self, cx: &mut Cx<'_>) -> Fate {
        let Some(HeldInput { commands, mut bytes }) = self.input.as_mut().and_then(|input| input.held.take()) else {
            return Fate::Stays;
        };
        if !Meter::is_wanted(&cx.shared.settings.limits) {
            self.input = None;
        }
        let progress = match &mut self.speaker {
            Speaker::Session(session) if !commands.is_empty() => session.message(cx, &mut self.liveness, &commands),
            _ => Ok(Progress::Done),
        };
        match progressed(&mut self.input, progress) {
            Fate::Stays if bytes.is_empty() => Fate::Stays,
            Fate::Stays => self.take(&mut bytes, cx),
            fate => fate,
        }
    }

    /// Until when input rests, because too much of it came.
    pub(crate) fn rests_until(&self) -> Option<Moment> {
        self.input.as_ref().and_then(|input| input.meter.until())
    }

    /// Input has rested long enough. What of it is held goes on when the worker resumes it.
    pub(crate) fn go_on(&mut self, cx: &Cx<'_>) {
        if let Some(input) = &mut self.input {
            input.meter.go_on();
            self.liveness.resumed(cx.now, cx.shared.settings.times.pong_timeout);
        }
    }

    /// The liveness deadline has passed.
    pub(crate) fn late(&mut self, cx: &mut Cx<'_>) -> Fate {
        match self.liveness {
            Liveness::Connect { .. } => Fate::Disconnect(Disconnect::STALE),
            // Our own waiting keeps a pong unread; it gets its time again afterwards.
            Liveness::Pong { .. } | Liveness::Overdue { .. } if self.holds_input() => {
                self.liveness.resumed(cx.now, cx.shared.settings.times.pong_timeout);
                Fate::Stays
            }
            Liveness::Pong { .. } => {
                self.liveness.overdue(cx.now, cx.shared.settings.times.pong_timeout);
                Fate::Stays
            }
            Liveness::Overdue { .. } => Fate::Disconnect(Disconnect::NO_PONG),
            Liveness::Ping { .. } => {
                let (interval, timeout) =
                    (cx.shared.settings.times.ping_interval, cx.shared.settings.times.pong_timeout);
                self.liveness.pinged(cx.now, interval, timeout);
                cx.shared.counters.pings += 1;
                match &self.speaker {
                    Speaker::Echo => cx.frame(OpCode::Ping, b""),
                    Speaker::Session(session) => session.ping(cx),
                }
                .into()
            }
        }
    }

    /// When something has to happen next.
    pub(crate) fn deadline(&self) -> Moment {
        let expiry = match &self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => session.next_expiry(),
        };
        expiry.into_iter().chain(self.rests_until()).fold(self.liveness.deadline(), Ord::min)
    }

    /// When what a token allows ends next.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        match &self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => session.next_expiry(),
        }
    }

    /// Ends what is over by now.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_>) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.expire(cx).into(),
        }
    }

    /// A backend ends a subscription. `None`: there is none.
    pub(crate) fn unsubscribe(&mut self, cx: &mut Cx<'_>, channel: &str) -> Option<Fate> {
        match &mut self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => session.unsubscribed(cx, channel).map(Fate::from),
        }
    }

    /// A backend subscribes the session to a channel. `None`: there was nothing to do.
    pub(crate) fn subscribe(&mut self, cx: &mut Cx<'_>, given: &Given) -> Option<Fate> {
        match &mut self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => session.subscribed_by_server(cx, given).map(Fate::from),
        }
    }

    /// A backend says until when the session lasts.
    pub(crate) fn refresh(&mut self, cx: &mut Cx<'_>, until: Option<u64>) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.refreshed(cx, until).into(),
        }
    }

    pub(crate) fn verification_granted(&mut self) {
        if let Speaker::Session(session) = &mut self.speaker {
            session.verification_granted();
        }
    }

    /// The user id, "" for none.
    pub(crate) fn user(&self) -> &str {
        match &self.speaker {
            Speaker::Echo => "",
            Speaker::Session(session) => session.user(),
        }
    }

    /// What the session is subscribed to.
    pub(crate) fn channels(&self) -> impl Iterator<Item = LocalId> + '_ {
        let session = match &self.speaker {
            Speaker::Echo => None,
            Speaker::Session(session) => Some(session),
        };
        session.into_iter().flat_map(|session| session.channels())
    }

    /// Whether a pong is overdue that may wait unread.
    pub(crate) fn is_overdue(&self) -> bool {
        matches!(self.liveness, Liveness::Overdue { .. }) && !self.holds_input()
    }

    /// Nothing waits in the socket: a peer whose pong is overdue has not sent it.
    pub(crate) fn nothing_waits(&mut self) -> Fate {
        if self.is_overdue() { Fate::Disconnect(Disconnect::NO_PONG) } else { Fate::Stays }
    }

    pub(crate) fn hold(&mut self, held: Held, count: usize, bytes: usize) -> Result<(), Disconnect> {
        match &mut self.speaker {
            Speaker::Echo => Ok(()),
            Speaker::Session(session) => session.hold(held, count, bytes),
        }
    }

    /// Publications of a channel were skipped.
    pub(crate) fn skipped(&mut self, cx: &mut Cx<'_>, channel: u64) -> Result<(), Disconnect> {
        match &mut self.speaker {
            Speaker::Echo => Ok(()),
            Speaker::Session(session) => session.skipped(cx, channel),
        }
    }

    pub(crate) fn skipped_at_the_end(&self, cx: &mut Cx<'_>, channel: u64) {
        if let Speaker::Session(session) = &self.speaker {
            session.skipped_at_the_end(cx, channel);
        }
    }

    pub(crate) fn subscription_begun(&mut self, sequence: u32, local: LocalId) {
        if let Speaker::Session(session) = &mut self.speaker {
            session.begun(sequence, local);
        }
    }

    pub(crate) fn subscription_answered(
        &mut self,
        cx: &mut Cx<'_>,
        me: SubscriberId,
        sequence: u32,
        answer: Result<Subscribed, ClientError>,
    ) -> Option<(bool, Fate)> {
        let Speaker::Session(session) = &mut self.speaker else { return None };
        let (is_member, outcome) = session.answered(cx, &mut self.liveness, me, sequence, answer)?;
        Some((is_member, outcome.into()))
    }

    pub(crate) fn backend_answered(&mut self, cx: &mut Cx<'_>, number: u32, answer: Answer) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.backend_answered(cx, &mut self.liveness, number, answer).into(),
        }
    }

    pub(crate) fn missed_something(&mut self, cx: &mut Cx<'_>, local: LocalId) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.missed_something(cx, local).into(),
        }
    }

    pub(crate) fn history_read(
        &mut self,
        cx: &mut Cx<'_>,
        command: u32,
        answer: Result<HistoryPage, ClientError>,
    ) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.history_read(cx, command, answer).into(),
        }
    }

    pub(crate) fn presence_read(
        &mut self,
        cx: &mut Cx<'_>,
        command: u32,
        answer: Result<Presence, ClientError>,
    ) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.presence_read(cx, command, answer).into(),
        }
    }

    pub(crate) fn published(&mut self, cx: &mut Cx<'_>, command: u32, answer: Result<(), ClientError>) -> Fate {
        match &mut self.speaker {
            Speaker::Echo => Fate::Stays,
            Speaker::Session(session) => session.published(cx, command, answer).into(),
        }
    }

    /// Leaves every channel. The last thing an open connection does. Returns the user of a session that had connected.
    pub(crate) fn leave(&mut self, shared: &mut Shared) -> Option<Arc<str>> {
        let Speaker::Session(session) = &mut self.speaker else { return None };
        shared.counters.sessions -= u64::from(session.is_connected());
        let user = session.leave_all(shared);
        session.is_connected().then_some(user)
    }

    /// Tells a client that cannot see close codes why it goes: the `disconnect` push of the plain dialect.
    pub(crate) fn announce_disconnect(&self, why: &Disconnect, cx: &mut Cx<'_>) {
        if matches!(&self.speaker, Speaker::Session(session) if session.is_plain()) {
            // A full outbox has no room for it; the close frame says the same.
            let _ = cx.text(|out, _| plain::disconnect(out, why));
        }
    }

    /// Repeats the peer's close code (5.5.1), or answers an empty close with an empty one.
    pub(crate) fn answer_close(&self, code: Option<CloseCode>, outboxes: &mut Outboxes, outbox: &mut Outbox) {
        outboxes.write(outbox, |out| match code {
            Some(code) => wire::ws::write_close(out, code, "", None),
            None => wire::ws::write_frame(out, OpCode::Close, true, b"", None),
        });
    }

    /// Memory of what is half received or waits for its turn.
    pub(crate) fn input_bytes(&self) -> usize {
        let held = self.input.as_ref().and_then(|input| input.held.as_ref());
        let held = held.map_or(0, |held| held.commands.capacity() + held.bytes.capacity());
        self.reader.partial_bytes() + held
    }

    pub(crate) fn take_reader(&mut self) -> Reader {
        std::mem::replace(&mut self.reader, Reader::new(Role::Server))
    }
}

impl Speaker {
    /// Whether pongs are messages of the dialect rather than WebSocket pongs.
    fn wants_message_pong(&self) -> bool {
        matches!(self, Self::Session(session) if !session.is_plain() && !session.native_ping)
    }
}

/// The reader of a new connection.
fn reader(deflate: Option<Params>) -> Reader {
    deflate.map_or_else(|| Reader::new(Role::Server), |params| Reader::with_deflate(Role::Server, params))
}

/// One message for whoever speaks here. Free of `Open` because the payload may borrow from its reader.
fn message(
    speaker: &mut Speaker,
    liveness: &mut Liveness,
    input: &mut Option<Box<Input>>,
    cx: &mut Cx<'_>,
    kind: MessageKind,
    payload: &[u8],
) -> Fate {
    match speaker {
        Speaker::Echo => cx.frame(kind.opcode(), payload).into(),
        Speaker::Session(session) => {
            let progress = session.message(cx, liveness, payload);
            progressed(input, progress)
        }
    }
}

fn hold(input: &mut Option<Box<Input>>, commands: Vec<u8>) {
    input.get_or_insert_default().held = Some(HeldInput { commands, bytes: Vec::new() });
}

fn progressed(input: &mut Option<Box<Input>>, progress: Result<Progress<'_>, Disconnect>) -> Fate {
    match progress {
        Err(why) => Fate::Disconnect(why),
        Ok(Progress::Done) => Fate::Stays,
        Ok(Progress::Hold(rest)) => {
            hold(input, rest.to_vec());
            Fate::Stays
        }
    }
}

/// Our close frame is queued, the peer's is awaited.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) reader: Reader,
    pub(crate) by: Moment,
    pub(crate) report: CloseReport,
}

impl Closing {
    /// Reads on for the peer's close frame; its messages are dropped.
    pub(crate) fn received(&mut self, bytes: &mut [u8], shared: &mut Shared, may_be_compressed: bool) -> Option<End> {
        let limits = shared.settings.limits.messages();
        if !may_be_compressed {
            return self.read(bytes, &limits, None);
        }
        let mut inflater = shared.compression.lend_inflater();
        let end = self.read(bytes, &limits, Some(&mut inflater));
        shared.compression.take_back(inflater);
        end
    }

    fn read(&mut self, bytes: &mut [u8], limits: &Limits, mut inflater: Option<&mut Inflater>) -> Option<End> {
        let mut input = bytes;
        loop {
            // Not inflated a message would be an error, and its connection be closed before its close frame was read.
            let next = match &mut inflater {
                Some(inflater) => self.reader.next_inflating(&mut input, limits, inflater),
                None => self.reader.next(&mut input, limits),
            };
            match next {
                Ok(None) => return None,
                Ok(Some(Event::Close { .. })) => return Some(End::Finish),
                Err(_) => return Some(End::Flush),
                Ok(Some(_)) => {}
            }
        }
    }
}
