//! The channels of a home and what they keep, with the sums and the order in which they have to make room.
//!
//! A channel with a history is *idle* while it has no subscription. Idle channels stand in one of two queues: *bare* ones
//! remember a position only, *stocked* ones hold publications. A channel goes to the back of its queue when it is used and
//! when it changes queues, so that the one in front has been there longest.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use crate::history::{History, Retention, nanos};
use crate::id::{Channel, ChannelHash, Epoch, Offset, Position};
use crate::index::Index;
use crate::interest::Interest;
use crate::recovery::Missed;
use crate::slots::{Slot, Slots};

/// No slot has this number.
const NONE: u32 = u32::MAX;

/// One channel. Whatever only some channels need belongs behind the box, not beside it: a personal channel per user makes a
/// million of these.
pub(crate) struct Entry {
    pub(crate) channel: Channel,
    pub(crate) epoch: Epoch,
    /// The newest publication's.
    pub(crate) offset: Offset,
    pub(crate) interest: Interest,
    /// Only channels with a history have it. Without it a channel exists for its subscriptions alone.
    kept: Option<Box<Kept>>,
}

const _: () = assert!(size_of::<Slot<Entry>>() == 56, "56 B a channel; the name is shared with the subscribing worker");

/// What a channel with a history has beside the others.
pub(crate) struct Kept {
    pub(crate) history: History,
    pub(crate) retention: Retention,
    /// The version that was published last, and the hash of its epoch.
    pub(crate) version: (u64, u64),
    /// The run of publications that was recovered last, as long as somebody still holds it: clients that come back
    /// together miss the same.
    pub(crate) missed: Weak<Missed>,
    /// When it was last used, in nanoseconds since the clock's origin.
    used: u64,
    /// Neighbours in the queue that it stands in, if it does.
    before: u32,
    behind: u32,
    queue: Option<Queue>,
}

const _: () = assert!(size_of::<Kept>() <= 168, "one for each channel with a history");

/// The queues of idle channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    Bare,
    Stocked,
}

#[derive(Clone, Copy)]
struct Ends {
    front: u32,
    back: u32,
    len: u32,
}

/// What is kept, all channels together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stock {
    /// Channels with a history, whether they hold anything or not.
    pub channels: usize,
    /// Those of them without a subscription.
    pub idle: usize,
    /// Publications held.
    pub publications: usize,
    /// What these cost; never more than [`HomeLimits::history_bytes_max`](crate::HomeLimits::history_bytes_max).
    pub bytes: usize,
}

pub(crate) struct Shelf {
    hash: ChannelHash,
    entries: Slots<Entry>,
    index: Index,
    bare: Ends,
    stocked: Ends,
    stock: Stock,
}

impl Entry {
    pub(crate) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch }
    }

    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }
}

impl Shelf {
    pub(crate) fn new(hash: ChannelHash) -> Shelf {
        let ends = Ends { front: NONE, back: NONE, len: 0 };
        let (entries, index, stock) = (Slots::new(), Index::new(), Stock::default());
        Shelf { hash, entries, index, bare: ends, stocked: ends, stock }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn stock(&self) -> Stock {
        Stock { idle: (self.bare.len + self.stocked.len) as usize, ..self.stock }
    }

    pub(crate) fn find(&self, channel: &str) -> Option<u32> {
        self.index.find(self.hash.in_tables(channel), |slot| *self.entries.at(slot).channel == *channel)
    }

    pub(crate) fn at(&self, slot: u32) -> &Entry {
        self.entries.at(slot)
    }

    /// The entry, for everything but what it keeps: that goes through [`Shelf::change`], which keeps the sums.
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Entry {
        self.entries.at_mut(slot)
    }

    /// Adds a channel that is not there yet, without subscriptions.
    pub(crate) fn insert(&mut self, channel: Channel, epoch: Epoch) -> u32 {
        let hash = self.hash.in_tables(&channel);
        let offset = Offset::default();
        let slot = self.entries.insert(Entry { channel, epoch, offset, interest: Interest::None, kept: None });
        self.index.insert(hash, slot);
        slot
    }

    /// Forgets a channel and all it keeps.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.set_retention(slot, None);
        let entry = self.entries.remove(slot);
        self.index.remove(self.hash.in_tables(&entry.channel), slot);
    }

    /// Makes a channel keep what its namespace says now: more, less, or nothing any more.
    pub(crate) fn set_retention(&mut self, slot: u32, retention: Option<Retention>) {
        let kept = self.entries.at(slot).kept().map(|kept| kept.retention);
        match (kept, retention) {
            (before, after) if before == after => {}
            (Some(_), Some(retention)) => self.change(slot, |kept| {
                kept.retention = retention;
                kept.history.shrink(retention.size as usize);
            }),
            (None, Some(retention)) => {
                let kept = Kept {
                    history: History::default(),
                    retention,
                    version: (0, 0),
                    missed: Weak::new(),
                    used: 0,
                    before: NONE,
                    behind: NONE,
                    queue: None,
                };
                self.entries.at_mut(slot).kept = Some(Box::new(kept));
                self.stock.channels += 1;
                self.settle(slot);
            }
            (_, None) => {
                self.change(slot, |kept| kept.history.clear());
                self.leave_queue(slot);
                self.entries.at_mut(slot).kept = None;
                self.stock.channels -= 1;
            }
        }
    }

    /// Works on what a channel keeps; it must keep something.
    pub(crate) fn change<T>(&mut self, slot: u32, work: impl FnOnce(&mut Kept) -> T) -> T {
        let kept = self.links(slot);
        let (len, bytes) = (kept.history.len(), kept.history.bytes());
        let result = work(kept);
        let (new_len, new_bytes) = (kept.history.len(), kept.history.bytes());
        self.stock.publications = self.stock.publications - len + new_len;
        self.stock.bytes = self.stock.bytes - bytes + new_bytes;
        if (len == 0) != (new_len == 0) {
            self.settle(slot);
        }
        result
    }

    /// The channel was used, or its subscriptions came or went: it goes where it now belongs, to the back.
    pub(crate) fn touch(&mut self, now: Duration, slot: u32) {
        if let Some(kept) = self.entries.at_mut(slot).kept.as_deref_mut() {
            kept.used = nanos(now);
            self.settle(slot);
        }
    }

    /// Puts a channel at the back of the queue that it belongs to, if it belongs to one.
    fn settle(&mut self, slot: u32) {
        self.leave_queue(slot);
        let entry = self.entries.at(slot);
        if !entry.interest.is_none() {
            return;
        }
        let Some(kept) = entry.kept() else { return };
        let queue = if kept.history.len() == 0 { Queue::Bare } else { Queue::Stocked };
        let ends = self.ends(queue);
        let last = std::mem::replace(&mut ends.back, slot);
        ends.len += 1;
        if last == NONE {
            ends.front = slot;
        } else {
            self.links(last).behind = slot;
        }
        let kept = self.links(slot);
        (kept.before, kept.behind, kept.queue) = (last, NONE, Some(queue));
    }

    fn leave_queue(&mut self, slot: u32) {
        let Some(kept) = self.entries.at_mut(slot).kept.as_deref_mut() else { return };
        let Some(queue) = kept.queue.take() else { return };
        let (before, behind) = (kept.before, kept.behind);
        self.ends(queue).len -= 1;
        match before {
            NONE => self.ends(queue).front = behind,
            before => self.links(before).behind = behind,
        }
        match behind {
            NONE => self.ends(queue).back = before,
            behind => self.links(behind).before = before,
        }
    }

    fn ends(&mut self, queue: Queue) -> &mut Ends {
        match queue {
            Queue::Bare => &mut self.bare,
            Queue::Stocked => &mut self.stocked,
        }
    }

    fn links(&mut self, slot: u32) -> &mut Kept {
        self.entries.at_mut(slot).kept.as_deref_mut().expect("the caller knows that it has a history")
    }

    /// The idle channel that is the first to go when there are too many: bare ones before stocked ones.
    pub(crate) fn first_to_go(&self) -> Option<u32> {
        [self.bare.front, self.stocked.front].into_iter().find(|&slot| slot != NONE)
    }

    /// The idle channel that is the first to give up its publications, unless that is `spared`, which was just used.
    pub(crate) fn first_to_empty(&self, spared: u32) -> Option<u32> {
        Some(self.stocked.front).filter(|&slot| slot != NONE && slot != spared)
    }

    /// Whether an idle channel's position has outlived its time.
    pub(crate) fn is_over(&self, now: Duration, slot: u32) -> bool {
        let is_over = |kept: &Kept| kept.used.saturating_add(nanos(kept.retention.meta_ttl)) <= nanos(now);
        self.entries.get(slot).is_some_and(|entry| entry.interest.is_none() && entry.kept().is_some_and(is_over))
    }

    /// Whether there is a channel with a history in `slot`.
    pub(crate) fn keeps(&self, slot: u32) -> bool {
        self.entries.get(slot).is_some_and(|entry| entry.kept.is_some())
    }

    /// The first slot that was never used.
    pub(crate) fn end(&self) -> u32 {
        self.entries.end()
    }

    pub(crate) fn walk(&self, from: u32, limit: usize, visit: impl FnMut(&Entry)) -> Option<u32> {
        self.entries.walk(from, limit, visit)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("channels", &self.len()).field("stock", &self.stock()).finish()
    }
}
