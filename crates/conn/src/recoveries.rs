//! What clients have missed, encoded once for all that missed the same.
//!
//! When a network comes back, thousands of clients ask for the same publications within seconds. Each reply has its own
//! beginning; the publications in it are one body.

use crate::encoded::Encoding;
use crate::outbox::{BodyId, Outboxes};
use hub::{Channel, Missed, Position};
use std::collections::VecDeque;
use std::time::Duration;

/// Runs of publications that one worker remembers the encoding of.
pub const RECOVERIES_MAX: usize = 64;
/// Bytes of these.
pub const RECOVERIES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One that nobody asked for during this time is forgotten.
pub const RECOVERY_IDLE: Duration = Duration::from_secs(5);

/// The encodings of one worker.
#[derive(Debug, Default)]
pub struct Recoveries {
    /// The one used last at the back.
    entries: VecDeque<Entry>,
    bytes: usize,
    counts: Counts,
}

#[derive(Debug)]
struct Entry {
    /// With the number of publications this says which they are: an epoch belongs to one channel's one numbering. The
    /// name is compared all the same, an epoch being random.
    to: Position,
    count: usize,
    channel: Channel,
    encoding: Encoding,
    body: BodyId,
    bytes: usize,
    used: Duration,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs encoded.
    pub encoded: u64,
    /// Uses of one that was there.
    pub shared: u64,
}

impl Recoveries {
    /// The body of a run, held for the caller.
    pub(crate) fn body(
        &mut self,
        now: Duration,
        outboxes: &mut Outboxes,
        encoding: Encoding,
        missed: &Missed,
    ) -> BodyId {
        // Two that look alike share one.
        let encoding = Encoding::looks_like(false)[encoding as usize];
        let is_it = |entry: &Entry| {
            entry.to == missed.to
                && entry.count == missed.publications.len()
                && entry.encoding == encoding
                && entry.channel == missed.channel
        };
        if let Some(mut entry) = self.entries.iter().position(is_it).and_then(|at| self.entries.remove(at)) {
            self.counts.shared += 1;
            entry.used = now;
            let body = entry.body;
            outboxes.hold(body);
            self.entries.push_back(entry);
            return body;
        }
        self.counts.encoded += 1;
        let body = outboxes.part(|out| encoding.missed(missed, out));
        let bytes = outboxes.len_of(body);
        if bytes > RECOVERIES_BYTES_MAX {
            return body;
        }
        while self.entries.len() >= RECOVERIES_MAX || self.bytes + bytes > RECOVERIES_BYTES_MAX {
            self.forget_first(outboxes);
        }
        outboxes.hold(body);
        self.bytes += bytes;
        let (to, count, channel) = (missed.to, missed.publications.len(), missed.channel.clone());
        self.entries.push_back(Entry { to, count, channel, encoding, body, bytes, used: now });
        body
    }

    /// Forgets what nobody has asked for lately.
    pub fn expire(&mut self, now: Duration, outboxes: &mut Outboxes) {
        while self.entries.front().is_some_and(|entry| entry.used + RECOVERY_IDLE <= now) {
            self.forget_first(outboxes);
        }
    }

    fn forget_first(&mut self, outboxes: &mut Outboxes) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes;
            outboxes.release(entry.body);
        }
    }

    /// How many are remembered; each holds one body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was done since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
