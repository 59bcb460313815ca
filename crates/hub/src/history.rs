//! The recent publications of one channel.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Offset, Position};
use crate::publication::Publication;
use crate::recovery::Since;

/// Publications one channel may be told to keep. Dropping them all at once, when the channel is evicted, has to fit a tick.
pub const HISTORY_SIZE_MAX: u32 = 10_000;

/// What an entry costs beside its publication: its place in the ring, which may have grown to twice what is used.
pub const ENTRY_BYTES: usize = 2 * size_of::<Item>();

/// A ring this long stays while its only publication makes place for the next: the shortest that there is.
const SMALL_RING: usize = 4;

/// How much of a channel is kept, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Publications kept at most; at least 1.
    pub size: u32,
    /// How long each of them is kept.
    pub ttl: Duration,
    /// How long offset and epoch of a channel without subscribers outlive its last use.
    pub meta_ttl: Duration,
}

/// A ring of publications.
///
/// INVARIANT: the offsets are contiguous and in one epoch; the last one is the channel's newest, unless the ring is empty.
#[derive(Default)]
pub(crate) struct History {
    ring: VecDeque<Item>,
    /// What the entries cost together.
    bytes: usize,
}

struct Item {
    publication: Arc<Publication>,
    /// When it was published, in nanoseconds since the clock's origin. A `Duration` would be twice as long.
    at: u64,
}

const _: () = assert!(size_of::<Item>() == 16, "an entry is this and the publication");

/// What an entry for a publication of that cost counts as.
pub(crate) fn entry_cost(publication_cost: usize) -> usize {
    publication_cost + ENTRY_BYTES
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl History {
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the newest publication. The caller has made room.
    pub(crate) fn push(&mut self, now: Duration, publication: Arc<Publication>) {
        debug_assert!(
            self.ring.back().is_none_or(|last| last.publication.position.offset.next() == publication.position.offset),
            "a history is contiguous"
        );
        self.bytes += entry_cost(publication.cost());
        self.ring.push_back(Item { publication, at: nanos(now) });
    }

    /// Drops the oldest publication. Whether there was one.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let dropped = self.pop_oldest();
        self.drop_empty_ring();
        dropped
    }

    /// An idle channel must not hold the ring of its busiest time.
    pub(crate) fn drop_empty_ring(&mut self) {
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    /// Drops the oldest until one more makes `size`. The one more takes the place of one that went, also where that was
    /// the only one: a channel that keeps its newest publication allocates nothing for the next.
    pub(crate) fn make_place(&mut self, size: usize) {
        while self.ring.len() >= size && self.pop_oldest() {}
        if self.ring.is_empty() && self.ring.capacity() > SMALL_RING {
            self.ring = VecDeque::new();
        }
    }

    fn pop_oldest(&mut self) -> bool {
        let Some(item) = self.ring.pop_front() else { return false };
        self.bytes -= entry_cost(item.publication.cost());
        true
    }

    /// Drops what is older than `ttl`, at most `limit` publications. How many went.
    pub(crate) fn expire(&mut self, now: Duration, ttl: Duration, limit: usize) -> usize {
        let (now, ttl) = (nanos(now), nanos(ttl));
        let mut dropped = 0;
        while dropped < limit && self.ring.front().is_some_and(|item| item.at.saturating_add(ttl) <= now) {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    /// Drops the oldest until at most `size` are left.
    pub(crate) fn shrink(&mut self, size: usize) {
        while self.ring.len() > size {
            self.drop_oldest();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = History::default();
    }

    /// The last `count` publications, oldest first.
    pub(crate) fn newest_of(&self, count: usize) -> impl DoubleEndedIterator<Item = &Arc<Publication>> {
        self.ring.range(self.ring.len().saturating_sub(count)..).map(|item| &item.publication)
    }

    /// The place of the first publication above `offset`.
    fn above(&self, offset: Offset) -> usize {
        let Some(first) = self.first() else { return 0 };
        let place = offset.0.saturating_add(1).saturating_sub(first.0);
        usize::try_from(place).unwrap_or(usize::MAX).min(self.ring.len())
    }

    fn first(&self) -> Option<Offset> {
        self.ring.front().map(|item| item.publication.position.offset)
    }

    /// A page of the history: what `query` wants, as far as it is kept.
    pub(crate) fn page(&self, query: &HistoryQuery) -> Vec<Arc<Publication>> {
        let (mut left, mut bytes) = (query.publications_max, query.bytes_max);
        let mut fits = |publication: &Arc<Publication>| {
            let fits = left > 0 && publication.text_bytes() <= bytes;
            if fits {
                left -= 1;
                bytes -= publication.text_bytes();
            }
            fits
        };
        let all = |range: std::ops::Range<usize>| self.ring.range(range).map(|item| Arc::clone(&item.publication));
        let len = self.ring.len();
        if query.reverse {
            // Exclusive at this end too: offset 0 is before everything.
            let end =
                query.since.map_or(len, |since| since.offset.0.checked_sub(1).map_or(0, |n| self.above(Offset(n))));
            return all(0..end).rev().take_while(&mut fits).collect();
        }
        let start = query.since.map_or(0, |since| self.above(since.offset));
        all(start..len).take_while(&mut fits).collect()
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("first", &self.first()).field("len", &self.len()).finish()
    }
}

/// Which part of a channel's history is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryQuery {
    /// Only publications above this offset; below it where `reverse` is set. Without it, from the oldest on.
    pub since: Option<Since>,
    /// Newest first.
    pub reverse: bool,
    /// Publications at most; 0 asks for the position alone.
    pub publications_max: usize,
    /// Bytes of their texts at most: the page ends before the publication that would exceed it.
    pub bytes_max: usize,
}

/// A part of a channel's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryPage {
    /// In the order asked for.
    pub publications: Vec<Arc<Publication>>,
    /// The channel's newest position, whatever the page holds.
    pub position: Position,
}
