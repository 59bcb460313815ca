//! What all connections of a worker use together, and what one call hands back to the worker.

use crate::address::Place;
use crate::compression::Compression;
use crate::deltas::Deltas;
use crate::disconnect::Disconnect;
use crate::effect::Effect;
use crate::encoded::Encoding;
use crate::ids::IdSource;
use crate::outbox::{BodyId, Outbox, Outboxes};
use crate::recoveries::Recoveries;
use crate::settings::Settings;
use crate::tls::Records;
use crate::users::Users;
use crate::verifications::Verifications;
use hub::{Channel, Local, Member, MemberId, Missed, Part, SubscriberId};
use std::sync::Arc;
use std::time::Duration;
use wire::ws::OpCode;

/// Commands of clients that a worker runs in one tick: with what the hub does for them, less than 1 ms of work. One message may
/// bring thousands.
pub const COMMANDS_PER_TICK: u32 = 128;

/// One worker's part that every connection needs while it works.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force.
    pub settings: Arc<Settings>,
    /// Everything that waits to be sent.
    pub outboxes: Outboxes,
    /// The hub's local half. Connections look up here; the worker changes it.
    pub local: Local,
    /// What patches are made from.
    pub deltas: Deltas,
    /// Filled by a call into a connection, emptied by the worker right after it.
    pub effects: Vec<Effect>,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// What was counted since the worker started.
    pub counters: Counters,
    /// Where client and session ids come from.
    pub ids: IdSource,
    /// What messages are compressed and inflated with.
    pub compression: Compression,
    /// What clients that come back have missed, encoded.
    pub recoveries: Recoveries,
    /// Memory that TLS connections use in turn.
    pub records: Records,
    /// Commands that may still be run in this tick; the worker sets it, to [`COMMANDS_PER_TICK`] in all. At 0 a session's input
    /// has to wait.
    pub commands_left: u32,
    /// The users with sessions here.
    pub users: Users,
    /// How many tokens may be checked in this tick.
    pub verifications: Verifications,
    /// The process holds as much as it may: nobody new is let in, and nobody subscribes to more.
    pub is_short_of_memory: bool,
    /// Unix time at the clock's origin: tokens are about the time of the outside world.
    pub unix_origin: Duration,
    /// The place that the connection has taken whose turn it is: kept here, so that a panic does not lose it.
    pub(crate) entering: Place,
    /// Connections that are told why they were turned away.
    pub(crate) turned_away: usize,
    pub(crate) sequence: u32,
    pub(crate) scratch: Vec<u8>,
}

impl Shared {
    /// An empty worker.
    pub fn new(settings: Arc<Settings>, local: Local, ids: IdSource) -> Self {
        Self {
            settings,
            outboxes: Outboxes::default(),
            local,
            deltas: Deltas::default(),
            effects: Vec::new(),
            ready: false,
            counters: Counters::default(),
            ids,
            compression: Compression::default(),
            recoveries: Recoveries::default(),
            records: Records::default(),
            commands_left: COMMANDS_PER_TICK,
            users: Users::default(),
            verifications: Verifications::default(),
            is_short_of_memory: false,
            unix_origin: Duration::ZERO,
            entering: Place::NONE,
            turned_away: 0,
            sequence: 0,
            scratch: Vec::new(),
        }
    }

    /// Ends an admitted subscription. The channel returned names it in the withdrawal that the home has to get, the subscriber
    /// as well where that is given.
    pub fn remove(&mut self, member: MemberId) -> (Channel, Option<SubscriberId>) {
        let Member { subscriber, part, .. } = self.local.member(member);
        let channel = self.local.local_of(member);
        if Encoding::takes_deltas(self.local.encoding(member)) {
            self.deltas.leave(channel);
        }
        if self.local.live(channel) == 1 {
            self.compression.forget(channel);
        }
        (self.local.remove(member), (part != Part::None).then_some(subscriber))
    }

    /// A publication that its channel has had did not and will not reach this member: a patch on it would mean nothing, so
    /// the next one has to be whole.
    pub fn publication_missed(&mut self, member: MemberId) {
        self.local.set_encoding(member, Encoding::set_back(self.local.encoding(member)));
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Running totals of one worker's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole client messages.
    pub messages_in: u64,
    /// Frames queued for one client each: replies, pushes, echoes, pings.
    pub messages_out: u64,
    /// Publications queued for a subscriber each.
    pub deliveries: u64,
    /// Publications made into frames: at most once per publication and encoding.
    pub encodings: u64,
    /// Tokens checked.
    pub verifications: u64,
    /// Commands of the client protocols.
    pub commands: u64,
    /// Of these, refused because they came too fast.
    pub commands_refused: u64,
    /// Times that input rested because frames came too fast.
    pub rests_for_messages: u64,
    /// Times that it rested because bytes did.
    pub rests_for_bytes: u64,
    /// WebSocket handshakes answered with 101.
    pub handshakes: u64,
    /// HTTP requests answered without an upgrade.
    pub http_requests: u64,
    /// Requests refused for their Origin.
    pub origins_refused: u64,
    /// Headers of the PROXY protocol that were taken.
    pub proxy_headers: u64,
    /// Connections refused because the header was missing, bad, or from somebody who is not trusted.
    pub proxy_headers_refused: u64,
    /// Connections and handshakes turned away because their address has as many connections as it may.
    pub full_addresses: u64,
    /// Handshakes refused because they came too soon after others of their address.
    pub fast_addresses: u64,
    /// Handshakes refused because all clients together made too many.
    pub handshakes_refused: u64,
    /// Handshakes refused because the process holds as much as it may.
    pub handshakes_short: u64,
    /// Subscribes refused for that.
    pub subscribes_short: u64,
    /// Connections closed for that.
    pub shed: u64,
    /// Connections and handshakes not counted for want of room in a table.
    pub addresses_uncounted: u64,
    /// Pings sent.
    pub pings: u64,
    /// Recoveries that the home could serve and the reply or the outbox had no room for.
    pub recoveries_too_large: u64,
    /// Positioned subscriptions ended because something was missing before the next publication.
    pub gaps: u64,
    /// Clients closed as slow by a publication that no policy may drop.
    pub slow_by_firm: u64,
    /// Clients closed as slow by the newest values alone.
    pub slow_by_conflated: u64,
    /// Clients closed as slow by their own replies and pings.
    pub slow_by_reply: u64,
    /// Joins and leaves queued for a subscriber each.
    pub join_leave_pushes: u64,
    /// Joins and leaves not queued, because the subscriber reads too slowly.
    pub join_leave_skipped: u64,
    /// TLS handshakes completed.
    pub tls_handshakes: u64,
    /// Of these, shortened by a ticket.
    pub tls_resumed: u64,
    /// TLS connections ended because of what the client sent, most of them in the handshake.
    pub tls_failed: u64,
    /// Sessions that have connected and are still here (now, not in total).
    pub sessions: u64,
}

/// What the worker has to do for a connection after a call into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Directions {
    /// Bytes wait: ask `gather` for them.
    pub flush: Option<Urgency>,
    /// Whether input is wanted from now on; `None` leaves it as it is.
    pub reading: Option<bool>,
    /// Receive what waits in the socket, out of turn; if nothing does, say so by `nothing_waits`.
    pub look: bool,
    /// Bytes of a TLS handshake wait: call `shake_hands` when established connections have had their turn.
    pub handshake: bool,
    /// The connection is done for.
    pub end: Option<End>,
}

/// Which flush queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The answer to the connection's own input.
    Reply,
    /// A publication.
    Broadcast,
}

/// How the socket goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After everything waiting has been sent.
    Flush,
    /// The same, and nothing is awaited of the peer, who has said its last.
    Finish,
    /// At once.
    Now,
    /// At once, with a reset: the peer does not take what we send.
    Reset,
}

/// What one call into a session works with.
pub(crate) struct Cx<'a> {
    pub(crate) now: Duration,
    pub(crate) shared: &'a mut Shared,
    pub(crate) outbox: &'a mut Outbox,
}

impl Cx<'_> {
    /// Queues a text message that is not compressed.
    ///
    /// # Errors
    /// As [`Cx::text`].
    pub(crate) fn text_as_it_is(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Disconnect> {
        let mut scratch = std::mem::take(&mut self.shared.scratch);
        scratch.clear();
        fill(&mut scratch);
        let queued = self.admit(scratch.len());
        if queued.is_ok() {
            self.write_as_it_is(OpCode::Text, &scratch);
        }
        self.shared.scratch = scratch;
        queued
    }

    /// Queues a text message.
    ///
    /// # Errors
    /// [`Disconnect::SLOW`] when the outbox cannot take it. Below low water one reply always fits.
    pub(crate) fn text(&mut self, fill: impl FnOnce(&mut Vec<u8>, &Settings)) -> Result<(), Disconnect> {
        self.message(OpCode::Text, fill)
    }

    /// Queues a message of that kind; see [`Cx::text`].
    pub(crate) fn message(
        &mut self,
        opcode: OpCode,
        fill: impl FnOnce(&mut Vec<u8>, &Settings),
    ) -> Result<(), Disconnect> {
        let mut scratch = std::mem::take(&mut self.shared.scratch);
        scratch.clear();
        fill(&mut scratch, &self.shared.settings);
        let queued = self.frame(opcode, &scratch);
        self.shared.scratch = scratch;
        queued
    }

    /// Queues a frame; see [`Cx::text`]. Messages are compressed where that was agreed and pays.
    pub(crate) fn frame(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Disconnect> {
        self.admit(payload.len())?;
        let Shared { settings, compression, outboxes, .. } = &mut *self.shared;
        if let Some(rules) = &settings.compression
            && matches!(opcode, OpCode::Text | OpCode::Binary)
            && let Some(agreed) = self.outbox.agreed()
            && let Some(packed) = compression.reply(payload, agreed, rules)
        {
            self.outbox.forget_mark();
            outboxes.write(self.outbox, |out| {
                wire::ws::write_compressed_header(out, opcode, packed.len(), None);
                out.extend_from_slice(packed);
            });
            return Ok(());
        }
        self.write_as_it_is(opcode, payload);
        Ok(())
    }

    fn write_as_it_is(&mut self, opcode: OpCode, payload: &[u8]) {
        self.shared.outboxes.write(self.outbox, |out| wire::ws::write_frame(out, opcode, true, payload, None));
    }

    /// Whether a frame of so many bytes may be queued; then it is counted.
    fn admit(&mut self, bytes: usize) -> Result<(), Disconnect> {
        if bytes > self.shared.settings.limits.reply_bytes_max {
            return Err(Disconnect::INTERNAL);
        }
        if !self.has_room(bytes) {
            self.shared.counters.slow_by_reply += 1;
            return Err(Disconnect::SLOW);
        }
        self.shared.counters.messages_out += 1;
        Ok(())
    }

    /// Queues a frame whose payload is `text` with shared bodies in it, each in front of the byte at its place. Nothing is
    /// queued and `false` returned where it does not fit.
    pub(crate) fn composed(&mut self, opcode: OpCode, text: &[u8], parts: &[(usize, BodyId)]) -> bool {
        let bytes = text.len() + parts.iter().map(|(_, body)| self.shared.outboxes.len_of(*body)).sum::<usize>();
        if bytes > self.shared.settings.limits.reply_bytes_max || !self.has_room(bytes) {
            return false;
        }
        self.shared.counters.messages_out += 1;
        let outboxes = &mut self.shared.outboxes;
        outboxes.write(self.outbox, |out| wire::ws::write_header(out, opcode, true, bytes, None));
        let mut from = 0;
        for &(at, body) in parts {
            outboxes.write(self.outbox, |out| out.extend_from_slice(&text[from..at]));
            outboxes.push(self.outbox, body);
            from = at;
        }
        outboxes.write(self.outbox, |out| out.extend_from_slice(&text[from..]));
        true
    }

    /// Queues so many whole frames, which are answered for like one reply. Nothing is queued and `false` returned where they
    /// do not fit.
    pub(crate) fn frames(&mut self, frames: &[u8], count: usize) -> bool {
        if frames.len() > self.shared.settings.limits.reply_bytes_max || !self.has_room(frames.len()) {
            return false;
        }
        self.shared.counters.messages_out += count as u64;
        self.shared.outboxes.write(self.outbox, |out| out.extend_from_slice(frames));
        true
    }

    /// Whether a reply of so many bytes may be queued. Publications that may go make room for it.
    fn has_room(&mut self, bytes: usize) -> bool {
        let limits = &self.shared.settings.limits;
        let (low_water, bytes_max) = (limits.outbox_low_water, limits.outbox_bytes_max);
        let fits = |outbox: &Outbox| outbox.backlog() <= low_water || outbox.backlog() + bytes <= bytes_max;
        if !fits(self.outbox) {
            self.shared.outboxes.skip(self.outbox, low_water);
        }
        fits(self.outbox)
    }

    /// What was missed as a body, held for the caller.
    pub(crate) fn missed(&mut self, encoding: Encoding, missed: &Missed) -> BodyId {
        self.shared.recoveries.body(self.now, &mut self.shared.outboxes, encoding, missed)
    }

    pub(crate) fn note(&mut self, note: crate::effect::Note) {
        self.shared.effects.push(Effect::Note(note));
    }
}
