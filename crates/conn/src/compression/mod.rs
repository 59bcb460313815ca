//! permessage-deflate (RFC 7692) for all connections of a worker: one compressor, one inflater, none per connection.
//!
//! What is sent is compressed either *alone*, so that every receiver can read it, or *after* the publication before it in its
//! channel, which only those can read whose last compressed message was exactly that one. A connection remembers which one
//! that was in its [`Agreed`], 8 bytes in its outbox. So two compressions serve a publication's whole audience
//! ([`frames`]), and the worker keeps the newest compressed publication of a channel ([`previous`]).
//!
//! After a message that may still be dropped nothing is compressed: its receiver would read nonsense, and would not notice.
//! The outbox forgets its mark with whatever it drops, and [`frames`] asks whether what waits can go.

pub mod frames;
mod previous;

use crate::settings;
use previous::Previous;
use wire::ws::Role;
use wire::ws::deflate::{self, Compressor, HistoryBudget, Inflater, Level, MarkSource, Marks};
use wire::ws::extension::{Direction, Params};

/// A buffer that was larger than this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// What a connection remembers about compression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    /// Which compressed message it was sent last.
    pub(crate) marks: Marks,
    /// How what it sends is to be read.
    incoming: Direction,
}

const _: () = assert!(size_of::<Option<Agreed>>() == 8, "8 bytes of compression state per connection");

/// What a worker's connections share to compress and to inflate. Nothing of it is made before it is needed.
#[derive(Debug)]
pub struct Compression {
    compressor: Option<(Level, Box<Compressor>)>,
    inflater: Option<Box<Inflater>>,
    marks: MarkSource,
    budget: HistoryBudget,
    previous: Previous,
    /// What is to be compressed of the publication that is fanned out, by encoding.
    payloads: [Vec<u8>; crate::Encoding::COUNT],
    /// What came out of the compressor last.
    packed: Vec<u8>,
    counts: Counts,
    /// What inflaters read that are gone, and what this one has.
    received: [deflate::Counts; 2],
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that agreed on compression, so far.
    pub agreed: u64,
    /// Offers that could have been accepted, had there been room for what the client sends ([`Compression::reserved`]).
    pub refused: u64,
    /// Publications that were compressed at all, once per encoding.
    pub publications: u64,
    /// Runs of the compressor for publications: at most two for each of these.
    pub publication_runs: u64,
    /// Runs of the compressor for replies.
    pub reply_runs: u64,
    /// Publications sent alone.
    pub alone: Sent,
    /// Publications sent after the one before.
    pub after: Sent,
    /// Replies sent compressed.
    pub replies: Sent,
    /// Publications and replies that went as they are to connections that agreed on compression.
    pub as_they_are: u64,
}

/// Messages to one client each, by the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many.
    pub messages: u64,
    /// Before compression.
    pub bytes_before: u64,
    /// As they were sent.
    pub bytes_after: u64,
}

impl Sent {
    fn count(&mut self, before: usize, after: usize) {
        self.messages += 1;
        self.bytes_before += before as u64;
        self.bytes_after += after as u64;
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            compressor: None,
            inflater: None,
            marks: MarkSource::default(),
            budget: HistoryBudget::new(0),
            previous: Previous::default(),
            payloads: Default::default(),
            packed: Vec::new(),
            counts: Counts::default(),
            received: Default::default(),
        }
    }
}

impl Compression {
    /// Reserves what messages of a client may need that were agreed to be compressed. If that is more than there is room for,
    /// nothing is agreed on.
    pub(crate) fn agree(&mut self, params: Params, rules: &settings::Compression) -> Option<Agreed> {
        self.budget.set_bytes_max(rules.client_history_bytes_max);
        let incoming = params.incoming(Role::Server);
        if !self.budget.reserve(incoming) {
            self.counts.refused += 1;
            return None;
        }
        self.counts.agreed += 1;
        Some(Agreed { marks: Marks::new(params, Role::Server), incoming })
    }

    /// The connection is gone.
    pub(crate) fn disagree(&mut self, agreed: &Agreed) {
        self.budget.release(agreed.incoming);
    }

    /// The inflater, for as long as one call into a connection. It is made anew if a panic keeps it from coming back.
    pub(crate) fn lend_inflater(&mut self) -> Box<Inflater> {
        self.inflater.take().unwrap_or_else(|| {
            self.received[0] = self.received();
            self.received[1] = deflate::Counts::default();
            Box::default()
        })
    }

    /// See [`Compression::lend_inflater`].
    pub(crate) fn take_back(&mut self, inflater: Box<Inflater>) {
        self.received[1] = inflater.counts();
        self.inflater = Some(inflater);
    }

    /// Compresses a reply alone; what came out, if it is shorter and this client can read it.
    pub(crate) fn reply(&mut self, payload: &[u8], agreed: &Agreed, rules: &settings::Compression) -> Option<&[u8]> {
        let Some(bytes_max) = payload.len().checked_sub(1).filter(|_| payload.len() >= rules.reply_bytes_min) else {
            self.counts.as_they_are += 1;
            return None;
        };
        self.counts.reply_runs += 1;
        clear(&mut self.packed);
        let compressor = compressor(&mut self.compressor, rules.level);
        let packed = compressor.compress(payload, None, bytes_max, &mut self.packed);
        if packed.is_none_or(|packed| !agreed.marks.accepts(&packed)) {
            self.counts.as_they_are += 1;
            return None;
        }
        self.counts.replies.count(payload.len(), self.packed.len());
        Some(&self.packed)
    }

    /// The last member of a channel has left.
    pub(crate) fn forget(&mut self, channel: hub::LocalId) {
        self.previous.forget(channel);
    }

    /// What was done since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What clients have sent compressed, since the start.
    pub fn received(&self) -> deflate::Counts {
        let [gone, present] = self.received;
        deflate::Counts {
            messages: gone.messages + present.messages,
            bytes_before: gone.bytes_before + present.bytes_before,
            bytes_after: gone.bytes_after + present.bytes_after,
        }
    }

    /// Bytes reserved for what clients send: their messages refer to those before.
    pub fn reserved(&self) -> usize {
        self.budget.reserved()
    }

    /// Bytes of publications kept, because the next ones refer to them.
    pub fn previous_bytes(&self) -> usize {
        self.previous.bytes()
    }
}

/// The compressor of that level.
fn compressor(slot: &mut Option<(Level, Box<Compressor>)>, level: Level) -> &mut Compressor {
    if slot.as_ref().is_none_or(|(made_with, _)| *made_with != level) {
        *slot = Some((level, Box::new(Compressor::new(level))));
    }
    &mut slot.as_mut().expect("just made").1
}

/// Empties a buffer that is used again and again.
fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES_MAX);
}

#[cfg(test)]
mod tests;
