//! One client connection from accept to close.
//!
//! ```text
//! Http --101--> Open --our close frame--> Closing --peer's close frame or deadline--> Ended
//!   |             |--peer's close frame (answered)---------------------------------->  |
//!   '-----------------------request refused, head too slow-------------------------->  |
//! ```
//!
//! Inputs are `received`, `sent`, `expired`, `deliver` and the answers from the hub; each returns [`Directions`] for the
//! worker and may leave [`crate::Effect`]s in [`Shared`]. Output bytes are asked for with `gather`.

mod answers;
mod introduction;
mod orders;
mod report;
mod weight;

pub use orders::Given;
pub use report::{CloseReport, Delivered, Side};

use crate::address::Place;
use crate::compression::Agreed;
use crate::disconnect::Disconnect;
use crate::encoded::Encoding;
use crate::ids::ClientId;
use crate::moment::Moment;
use crate::outbox::slow::Offered;
use crate::outbox::{BodyId, Outbox, Outboxes};
use crate::settings::Limits;
use crate::shared::{Cx, Directions, End, Shared, Urgency};
use crate::tls::Tls;
use crate::transport::http::{Http, Outcome};
use crate::transport::websocket::{Closing, Fate, Open};
use std::borrow::Cow;
use std::time::Duration;
use wire::ws::CloseCode;

/// One socket's protocol state. Owns no buffer while idle.
#[derive(Debug)]
pub struct Connection {
    pub(crate) outbox: Outbox,
    opened: Moment,
    /// The backlog is above high water: input rests, and a byte has to go out by then.
    stalled: Option<Moment>,
    /// What the driver was told last.
    reading: bool,
    /// Among the connections of its address.
    pub(crate) place: Place,
    phase: Phase,
    /// TLS, on a listener that speaks it.
    pub(crate) tls: Option<Box<Tls>>,
}

/// The table of a million connections is an array of these.
const _: () = assert!(size_of::<Connection>() <= 176);

#[derive(Debug)]
enum Phase {
    /// Requests are read; everything a request needs lives in the box and goes with it.
    Http(Box<Http>),
    /// The handshake is done.
    Open(Open),
    /// Our close frame is queued; the peer's is awaited.
    Closing(Box<Closing>),
    /// Nothing more is read or queued; the driver closes the socket.
    Ended(Box<CloseReport>),
}

impl Connection {
    /// Nothing will be queued any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// How long it has been there.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.opened.time())
    }

    /// The client's id, after the handshake of an endpoint with sessions.
    pub fn client(&self) -> Option<ClientId> {
        match &self.phase {
            Phase::Open(open) => open.client(),
            Phase::Closing(closing) => closing.report.client,
            Phase::Ended(report) => report.client,
            Phase::Http(_) => None,
        }
    }

    /// The client's user id, "" for none.
    pub fn user(&self) -> &str {
        match &self.phase {
            Phase::Open(open) => open.user(),
            _ => "",
        }
    }

    /// What its session is subscribed to.
    pub fn channels(&self) -> impl Iterator<Item = hub::LocalId> + '_ {
        let open = match &self.phase {
            Phase::Open(open) => Some(open),
            _ => None,
        };
        open.into_iter().flat_map(|open| open.channels())
    }

    /// A tick has time for the token that this connection's input waits for.
    pub fn verification_granted(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.verification_granted();
        }
    }

    /// Whether a session is open and has connected.
    pub fn is_connected(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.is_connected())
    }

    /// Whether the client has come and does not know yet whether it is in: between its first byte and the connect reply, or
    /// while one of its subscribes waits for the answer.
    pub fn is_joining(&self) -> bool {
        match &self.phase {
            Phase::Http(_) => true,
            Phase::Open(open) => open.is_joining(),
            Phase::Closing(_) | Phase::Ended(_) => false,
        }
    }

    /// Whether nothing has ended the connection yet.
    pub fn is_going_on(&self) -> bool {
        matches!(self.phase, Phase::Http(_) | Phase::Open(_))
    }

    /// Bytes waiting to be sent.
    pub fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    /// What was agreed about compression.
    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        self.outbox.agreed()
    }

    /// When the worker has to call `expired`.
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match &self.phase {
            // While input rests neither a head nor a pong could be read: the write deadline stands in for them.
            Phase::Http(_) if self.stalled.is_some() => None,
            // A token's end is another matter: reading slowly must not prolong it.
            Phase::Open(open) if self.stalled.is_some() => open.next_expiry(),
            Phase::Http(http) => Some(http.deadline()),
            Phase::Open(open) => Some(open.deadline()),
            Phase::Closing(closing) => Some(closing.by),
            Phase::Ended(_) => None,
        };
        phase.into_iter().chain(self.stalled).min().map(Moment::time)
    }

    /// Bytes from the socket; an empty slice is the peer's FIN.
    pub fn received(&mut self, now: Duration, bytes: &mut [u8], shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let end = if self.awaits_proxy_header() && !bytes.is_empty() {
            self.introduced(now, bytes, shared)
        } else {
            self.take_in(now, bytes, shared)
        };
        let handshake = self.asks_for_handshake();
        Directions { handshake, ..self.directions(now, was_empty, Urgency::Reply, end, shared) }
    }

    fn take_in(&mut self, now: Duration, bytes: &mut [u8], shared: &mut Shared) -> Option<End> {
        if self.place == Place::TURNED_AWAY && !bytes.is_empty() && !self.has_ended() {
            return Some(self.say_why_turned_away(shared));
        }
        if self.tls.is_some() {
            self.received_sealed(now, bytes, shared)
        } else {
            self.received_plain(now, bytes, shared)
        }
    }

    pub(crate) fn received_plain(&mut self, now: Duration, bytes: &mut [u8], shared: &mut Shared) -> Option<End> {
        match &mut self.phase {
            Phase::Ended(_) => None,
            _ if bytes.is_empty() => self.peer_finished(shared),
            Phase::Http(_) => self.requests(now, bytes, shared),
            Phase::Open(open) => {
                let fate = open.received(bytes, &mut Cx { now, shared, outbox: &mut self.outbox });
                self.settle(now, fate, shared)
            }
            Phase::Closing(closing) => {
                let end = closing.received(bytes, shared, self.outbox.agreed().is_some());
                end.map(|end| self.end(end, shared))
            }
        }
    }

    fn peer_finished(&mut self, shared: &mut Shared) -> Option<End> {
        let end = match &self.phase {
            // A client that closes its half after the request still wants the answer, and one that we are closing
            // wants to know why.
            Phase::Http(_) | Phase::Closing(_) => End::Flush,
            _ => End::Now,
        };
        Some(self.end(end, shared))
    }

    fn requests(&mut self, now: Duration, bytes: &[u8], shared: &mut Shared) -> Option<End> {
        let Phase::Http(http) = &mut self.phase else { return None };
        let outcome = http.received(bytes, &mut Cx { now, shared, outbox: &mut self.outbox });
        match outcome {
            Outcome::More => None,
            Outcome::Finished => Some(self.end(End::Flush, shared)),
            Outcome::Upgraded { mut open, mut rest, mut fate } => {
                self.take_place(shared);
                if matches!(fate, Fate::Stays) && !rest.is_empty() {
                    fate = open.received(&mut rest, &mut Cx { now, shared, outbox: &mut self.outbox });
                }
                self.phase = Phase::Open(*open);
                self.settle(now, fate, shared)
            }
        }
    }

    /// Carries out what an open connection has decided about itself.
    fn settle(&mut self, now: Duration, fate: Fate, shared: &mut Shared) -> Option<End> {
        match fate {
            Fate::Stays => self.tell_skipped(now, shared),
            Fate::Disconnect(why) => self.disconnect_now(now, why, shared),
            Fate::Fail(error) => self.close_with(now, error.close_code().get(), Cow::Borrowed(""), shared, true),
            Fate::PeerClosed { code, reason } => {
                self.cut_behind_gaps(now, shared);
                let Phase::Open(open) = &mut self.phase else { return None };
                let user = open.leave(shared);
                open.answer_close(code, &mut shared.outboxes, &mut self.outbox);
                let (client, code) = (open.client(), code.map_or(1005, |c| c.get()));
                let report = CloseReport { side: Side::Peer, code, reason: reason.into(), client, user };
                self.phase = Phase::Ended(Box::new(report));
                Some(End::Finish)
            }
        }
    }

    /// Tells the subscriptions of which something was skipped, as far as they have to know.
    fn tell_skipped(&mut self, now: Duration, shared: &mut Shared) -> Option<End> {
        while let Some(channel) = shared.outboxes.next_lost(&self.outbox) {
            let Phase::Open(open) = &mut self.phase else { continue };
            let told = open.skipped(&mut Cx { now, shared, outbox: &mut self.outbox }, channel);
            if let Err(why) = told {
                return self.disconnect_now(now, why, shared);
            }
        }
        None
    }

    /// The same for a connection that ends: whoever comes back with a position must not have got anything behind a gap.
    fn cut_behind_gaps(&mut self, now: Duration, shared: &mut Shared) {
        while let Some(channel) = shared.outboxes.next_lost(&self.outbox) {
            if let Phase::Open(open) = &self.phase {
                open.skipped_at_the_end(&mut Cx { now, shared, outbox: &mut self.outbox }, channel);
            }
        }
    }

    /// Ends the connection because the process is going to: 3001 for SDKs, which know it; 1001 for everybody else.
    pub fn drain(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let end = match &mut self.phase {
            Phase::Open(open) if !open.speaks_centrifugo() => {
                open.announce_disconnect(&Disconnect::SHUTDOWN, &mut Cx { now, shared, outbox: &mut self.outbox });
                self.close_with(now, CloseCode::GOING_AWAY.get(), Disconnect::SHUTDOWN.reason, shared, false)
            }
            _ => self.disconnect_now(now, Disconnect::SHUTDOWN, shared),
        };
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    /// Ends the connection from our side with a close frame where there is one to send.
    pub fn disconnect(&mut self, now: Duration, why: Disconnect, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let end = self.disconnect_now(now, why, shared);
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    fn disconnect_now(&mut self, now: Duration, why: Disconnect, shared: &mut Shared) -> Option<End> {
        match &mut self.phase {
            Phase::Http(_) => Some(self.end(End::Flush, shared)),
            Phase::Closing(_) | Phase::Ended(_) => None,
            Phase::Open(open) => {
                if why == Disconnect::SLOW || why == Disconnect::WRITE_ERROR {
                    shared.outboxes.drop_publications(&mut self.outbox);
                }
                open.announce_disconnect(&why, &mut Cx { now, shared, outbox: &mut self.outbox });
                self.close_with(now, why.code, why.reason, shared, false)
            }
        }
    }

    /// Queues our close frame. `fatal`: the stream cannot be read any further, so nothing is awaited.
    fn close_with(
        &mut self,
        now: Duration,
        code: u16,
        reason: Cow<'static, str>,
        shared: &mut Shared,
        fatal: bool,
    ) -> Option<End> {
        self.cut_behind_gaps(now, shared);
        let Phase::Open(open) = &mut self.phase else { return None };
        let user = open.leave(shared);
        let client = open.client();
        let code_on_wire = CloseCode::new(code);
        shared.outboxes.write(&mut self.outbox, |out| wire::ws::write_close(out, code_on_wire, &reason, None));
        let report = CloseReport { side: Side::Ours, code, reason, client, user };
        if fatal {
            self.phase = Phase::Ended(Box::new(report));
            return Some(End::Flush);
        }
        let reader = open.take_reader();
        let by = Moment::after(now, shared.settings.times.close_timeout);
        self.stalled = None;
        self.phase = Phase::Closing(Box::new(Closing { reader, by, report }));
        None
    }

    /// The socket goes; the report keeps what is known about why.
    pub(crate) fn end(&mut self, end: End, shared: &mut Shared) -> End {
        let report = match &mut self.phase {
            Phase::Http(_) => CloseReport { side: Side::Ours, code: 0, reason: "".into(), client: None, user: None },
            Phase::Open(open) => {
                let user = open.leave(shared);
                CloseReport { side: Side::Peer, code: 1006, reason: "".into(), client: open.client(), user }
            }
            Phase::Closing(closing) => closing.report.clone(),
            Phase::Ended(_) => return end,
        };
        self.stalled = None;
        self.phase = Phase::Ended(Box::new(report));
        end
    }

    /// A panic was caught inside this connection: its state is not to be trusted, and it closes with 1011.
    pub fn panicked(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        self.take_place(shared);
        let was_empty = self.outbox.is_empty();
        let end = match &self.phase {
            // What TLS has left behind may not be able to seal a frame.
            Phase::Open(_) if self.tls.is_none() => {
                self.close_with(now, 1011, Cow::Borrowed("internal error"), shared, true)
            }
            _ => Some(self.end(End::Now, shared)),
        };
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    /// The deadline has passed.
    pub fn expired(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let stalled = self.stalled.is_some_and(|by| by.is_due(now));
        let mut look = false;
        let end = match &mut self.phase {
            Phase::Http(_) if stalled => Some(self.end(End::Reset, shared)),
            Phase::Http(http) if self.place == Place::TURNED_AWAY && http.deadline().is_due(now) => {
                Some(self.say_why_turned_away(shared))
            }
            Phase::Http(http) if self.stalled.is_none() && http.deadline().is_due(now) => {
                http.timed_out(&mut Cx { now, shared, outbox: &mut self.outbox });
                Some(self.end(End::Flush, shared))
            }
            Phase::Open(_) if stalled => {
                // Not a byte went out for the whole write timeout, so no close frame would either.
                self.disconnect_now(now, Disconnect::WRITE_ERROR, shared);
                Some(self.end(End::Reset, shared))
            }
            Phase::Open(open) if open.next_expiry().is_some_and(|at| at.is_due(now)) => {
                let fate = open.expire(&mut Cx { now, shared, outbox: &mut self.outbox });
                self.settle(now, fate, shared)
            }
            Phase::Open(open) if open.rests_until().is_some_and(|at| at.is_due(now)) => {
                open.go_on(&Cx { now, shared, outbox: &mut self.outbox });
                None
            }
            Phase::Open(open) if self.stalled.is_none() && open.liveness.deadline().is_due(now) => {
                let fate = open.late(&mut Cx { now, shared, outbox: &mut self.outbox });
                look = matches!(fate, Fate::Stays) && open.is_overdue();
                self.settle(now, fate, shared)
            }
            Phase::Closing(closing) if closing.by.is_due(now) => Some(self.end(End::Reset, shared)),
            _ => None,
        };
        Directions { look, ..self.directions(now, was_empty, Urgency::Reply, end, shared) }
    }

    /// What [`Directions::look`] asked for: nothing waits in the socket.
    pub fn nothing_waits(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, _| open.nothing_waits())
    }

    /// The kernel took `bytes`.
    pub fn sent(&mut self, now: Duration, bytes: usize, shared: &mut Shared) -> Directions {
        let broken = self.account_for(bytes, shared);
        if let Some(by) = &mut self.stalled {
            if bytes > 0 {
                *by = Moment::after(now, shared.settings.times.write_timeout);
            }
            // A skip alone is no progress: a dead client in a busy channel must meet its deadline.
            if bytes > 0 && self.outbox.backlog() <= shared.settings.limits.outbox_low_water {
                self.stalled = None;
                match &mut self.phase {
                    Phase::Open(open) => open.liveness.resumed(now, shared.settings.times.pong_timeout),
                    Phase::Http(http) => http.resumed(now, &shared.settings.times),
                    Phase::Closing(_) | Phase::Ended(_) => {}
                }
            }
        }
        if self.outbox.is_watched() && self.outbox.backlog() <= shared.settings.limits.outbox_low_water {
            shared.outboxes.caught_up(&mut self.outbox);
        }
        let was_empty = true; // whatever is left has to be asked for again
        let end = match &self.phase {
            Phase::Http(http) if self.stalled.is_none() && http.holds_input() => self.requests(now, &[], shared),
            _ => None,
        };
        let end = broken.or(end);
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    /// Queues a shared publication body.
    pub fn deliver(&mut self, body: BodyId, outboxes: &mut Outboxes, limits: &Limits) -> Delivered {
        if !matches!(self.phase, Phase::Open(_)) {
            return Delivered::Gone;
        }
        let backlog = self.outbox.backlog();
        if backlog + outboxes.len_of(body) > limits.outbox_high_water || self.outbox.is_watched() {
            return self.deliver_slowly(body, outboxes, limits);
        }
        outboxes.push(&mut self.outbox, body);
        if backlog == 0 { Delivered::First } else { Delivered::Queued }
    }

    /// The same where the reader does not keep up, or where this is what tells so.
    #[cold]
    fn deliver_slowly(&mut self, body: BodyId, outboxes: &mut Outboxes, limits: &Limits) -> Delivered {
        match outboxes.offer(&mut self.outbox, body, limits.room()) {
            Offered::Full => Delivered::Slow,
            Offered::Skipped => Delivered::Skipped,
            Offered::Queued => {
                let crossed = self.outbox.backlog() > limits.outbox_high_water && self.stalled.is_none();
                if crossed || outboxes.has_lost(&self.outbox) { Delivered::Attend } else { Delivered::Queued }
            }
        }
    }

    /// Whether input was held back and can go on: the worker calls `resume_input`, as guarded as `received`.
    pub fn has_resumable_input(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.has_resumable_input())
    }

    /// Runs the input that was held back.
    pub fn resume_input(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        self.with_open(now, Urgency::Reply, shared, Open::resume_input)
    }

    /// How the connection's publications have to look.
    pub fn encoding(&self) -> Option<Encoding> {
        match &self.phase {
            Phase::Open(open) => open.encoding(),
            _ => None,
        }
    }

    /// The socket is gone: leaves every channel, frees the outbox, says how it ended.
    pub fn closed(mut self, shared: &mut Shared) -> CloseReport {
        self.end(End::Now, shared);
        self.give_place_back(shared);
        if let Some(agreed) = self.outbox.agreed() {
            shared.compression.disagree(agreed);
        }
        shared.outboxes.clear(&mut self.outbox);
        if let Some(tls) = &mut self.tls {
            tls.clear(&mut shared.records);
        }
        match self.phase {
            Phase::Ended(report) => *report,
            _ => unreachable!("`end` leaves the connection ended"),
        }
    }

    /// What follows from a delivery to a reader that does not keep up.
    pub fn attend(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        let end = self.tell_skipped(now, shared);
        self.directions(now, true, Urgency::Broadcast, end, shared)
    }

    /// Input waits here for something else to happen first.
    pub(crate) fn holds_input(&self) -> bool {
        match &self.phase {
            Phase::Http(http) => http.holds_input(),
            Phase::Open(open) => open.holds_input(),
            Phase::Closing(_) | Phase::Ended(_) => false,
        }
    }

    /// Compares what the connection is now with what the driver was told.
    pub(crate) fn directions(
        &mut self,
        now: Duration,
        was_empty: bool,
        urgency: Urgency,
        end: Option<End>,
        shared: &Shared,
    ) -> Directions {
        let over = self.outbox.backlog() > shared.settings.limits.outbox_high_water;
        if over && self.stalled.is_none() && matches!(self.phase, Phase::Open(_) | Phase::Http(_)) {
            self.stalled = Some(Moment::after(now, shared.settings.times.write_timeout));
        }
        let waits = self.tls.as_ref().is_some_and(|tls| tls.waits_for_its_turn());
        let wants = self.stalled.is_none() && !self.holds_input() && !waits;
        let reading = (wants != self.reading).then_some(wants);
        self.reading = wants;
        let unsent = (was_empty && !self.outbox.is_empty()) || self.tls.as_ref().is_some_and(|tls| tls.has_sealed());
        let flush = unsent.then_some(urgency);
        Directions { flush, reading, look: false, handshake: false, end }
    }
}
