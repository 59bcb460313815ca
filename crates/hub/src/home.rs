//! The channels that this worker numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::id::{Channel, ChannelHash, Epoch, Offset, Position, WorkerId};
use crate::index::Index;
use crate::interest::{Interest, Left};
use crate::publication::{Draft, Publication};
use crate::slots::{Slot, Slots};

/// The numbering half of a worker's hub.
///
/// A channel exists here from its first subscription until its last one is withdrawn; nothing of it is kept afterwards,
/// and the next subscription starts a new numbering under a new epoch.
///
/// Every input carries `now`, the time since the process's clock origin, though channels without history do not age.
pub struct Home {
    hash: ChannelHash,
    limits: HomeLimits,
    channels: Slots<Entry>,
    index: Index,
    epochs: Epochs,
}

/// What a home keeps at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HomeLimits {
    /// Channels one worker numbers at the same time. Beyond it new channels are refused; those that exist go on.
    pub channels_max: usize,
}

impl Default for HomeLimits {
    /// Two million channels, which with one subscriber each are about 330 MB, those of the subscribing side included.
    fn default() -> HomeLimits {
        HomeLimits { channels_max: 2_000_000 }
    }
}

/// A channel with subscribers. Whatever only some channels need belongs behind one box beside these fields, not among
/// them: a personal channel per user makes a million of these.
struct Entry {
    channel: Channel,
    epoch: Epoch,
    /// The newest publication's.
    offset: Offset,
    interest: Interest,
}

const _: () = assert!(size_of::<Slot<Entry>>() == 48, "48 B a channel; the name is shared with the subscribing worker");

/// Where publications go: the mailboxes of the workers, as seen by one home.
pub trait Route {
    /// Whether `worker`'s mailbox takes one more letter with `bytes` of publication. A yes holds for the one
    /// [`Route::deliver`] to that worker that may follow before the next question.
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool;

    /// Queues `publication` for `worker`, behind everything queued for it before.
    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>);
}

/// A publication was numbered and handed to every interested worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// The place it got.
    pub position: Position,
    /// The workers it was delivered to.
    pub workers: u16,
}

/// Why a publication was not accepted. Nothing was numbered and nobody got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishRefusal {
    /// The mailbox of an interested worker is full; temporary.
    MailboxFull {
        /// The first such worker.
        worker: WorkerId,
    },
}

impl fmt::Display for PublishRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishRefusal::MailboxFull { worker } => {
                write!(f, "the mailbox of worker {} is full", worker.0)
            }
        }
    }
}

impl std::error::Error for PublishRefusal {}

/// Why a subscription was not accepted. It was not counted and must not be withdrawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscribeRefusal {
    /// The home numbers as many channels as it may; temporary.
    ChannelsMax {
        /// [`HomeLimits::channels_max`].
        limit: usize,
    },
}

impl fmt::Display for SubscribeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeRefusal::ChannelsMax { limit } => {
                write!(f, "the worker numbers {limit} channels already")
            }
        }
    }
}

impl std::error::Error for SubscribeRefusal {}

impl Home {
    /// A home without channels. `epoch_seed` must differ between workers and between runs of the process, for epochs to.
    #[must_use]
    pub fn new(hash: ChannelHash, limits: HomeLimits, epoch_seed: u64) -> Home {
        let epochs = Epochs { seed: epoch_seed, drawn: 0 };
        Home { hash, limits, channels: Slots::new(), index: Index::new(), epochs }
    }

    /// Numbers a publication and delivers it to every worker that has subscriptions, or refuses it whole.
    ///
    /// All interested workers are asked for room first, so that a refused publication leaves no hole in the numbering
    /// and is known to no worker. A channel without subscribers is treated as created and forgotten at once: the answer
    /// is offset 1 in an epoch of its own, and no memory is spent.
    pub fn publish(
        &mut self,
        _now: Duration,
        publication: Draft,
        route: &mut impl Route,
    ) -> Result<Published, PublishRefusal> {
        let Some(slot) = self.find(&publication.channel, self.hash.in_tables(&publication.channel)) else {
            let position = Position { offset: Offset::default().next(), epoch: self.epochs.draw() };
            return Ok(Published { position, workers: 0 });
        };
        let entry = self.channels.at_mut(slot);
        let bytes = publication.cost();
        for share in entry.interest.shares() {
            if !route.has_room(share.worker, bytes) {
                return Err(PublishRefusal::MailboxFull { worker: share.worker });
            }
        }
        entry.offset = entry.offset.next();
        let position = entry.position();
        let publication = Arc::new(publication.numbered(position));
        for share in entry.interest.shares() {
            route.deliver(share.worker, Arc::clone(&publication));
        }
        Ok(Published { position, workers: entry.interest.shares().len() as u16 })
    }

    /// Counts one subscription of `worker` and takes the position, in one step: all that is published later is delivered
    /// to `worker`, and has a higher offset.
    ///
    /// The caller queues the answer before anything else that this home sends to `worker`.
    pub fn subscribe(
        &mut self,
        _now: Duration,
        channel: &Channel,
        worker: WorkerId,
    ) -> Result<Position, SubscribeRefusal> {
        let hash = self.hash.in_tables(channel);
        if let Some(slot) = self.find(channel, hash) {
            let entry = self.channels.at_mut(slot);
            entry.interest.add(worker);
            return Ok(entry.position());
        }
        if self.channels.len() >= self.limits.channels_max {
            return Err(SubscribeRefusal::ChannelsMax { limit: self.limits.channels_max });
        }
        let entry = Entry {
            channel: channel.clone(),
            epoch: self.epochs.draw(),
            offset: Offset::default(),
            interest: Interest::of(worker),
        };
        let position = entry.position();
        let slot = self.channels.insert(entry);
        self.index.insert(hash, slot);
        Ok(position)
    }

    /// Withdraws `count` subscriptions of `worker`. A sender may add up withdrawals of a channel while its letters wait;
    /// only those whose subscription was accepted may be among them. At zero subscriptions the channel is forgotten.
    pub fn unsubscribe(&mut self, _now: Duration, channel: &str, worker: WorkerId, count: u32) {
        let hash = self.hash.in_tables(channel);
        let Some(slot) = self.find(channel, hash) else {
            debug_assert!(count == 0, "{worker:?} withdrew {count} subscriptions of an unknown channel {channel:?}");
            return;
        };
        if self.channels.at_mut(slot).interest.withdraw(worker, count) == Left::Nothing {
            self.index.remove(hash, slot);
            self.channels.remove(slot);
        }
    }

    /// How many channels this worker numbers.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many subscriptions `channel` has on all workers together, pending ones included; `None` for a channel that does
    /// not exist.
    #[must_use]
    pub fn subscribers(&self, channel: &str) -> Option<u32> {
        let slot = self.find(channel, self.hash.in_tables(channel))?;
        Some(self.channels.at(slot).interest.subscriptions())
    }

    /// One page of a walk over all channels with their subscriptions: start with cursor 0, go on with the cursor
    /// returned, stop at `None`. A page looks at `limit` slots (at least one), so a huge table can be walked in pieces
    /// that fit a tick, and holds at most so many channels.
    ///
    /// A channel that exists during the whole walk is visited exactly once, whatever comes and goes between the pages. One
    /// that is forgotten and created anew meanwhile may be visited never or twice.
    pub fn page(&self, cursor: u32, limit: usize, mut visit: impl FnMut(&Channel, u32)) -> Option<u32> {
        self.channels.walk(cursor, limit.max(1), |entry| visit(&entry.channel, entry.interest.subscriptions()))
    }

    fn find(&self, channel: &str, hash: u32) -> Option<u32> {
        self.index.find(hash, |slot| *self.channels.at(slot).channel == *channel)
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("channels", &self.channels.len()).field("limits", &self.limits).finish()
    }
}

impl Entry {
    fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch }
    }
}

/// A stream of epochs from one seed.
struct Epochs {
    seed: u64,
    drawn: u64,
}

impl Epochs {
    fn draw(&mut self) -> Epoch {
        self.drawn += 1;
        Epoch::from_seed(SipHasher13::new_with_keys(self.seed, 0).hash(&self.drawn.to_le_bytes()))
    }
}
