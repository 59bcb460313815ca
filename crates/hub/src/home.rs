//! The channels that this worker numbers.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::history::{HistoryPage, HistoryQuery, Retention, entry_cost};
use crate::id::{Channel, ChannelHash, Epoch, Offset, Position, WorkerId};
use crate::interest::Left;
use crate::presence::{Announcement, Guests, PresenceCounts};
use crate::publication::{Publication, PublishOptions, Unnumbered};
use crate::recovery::{Missed, Recover, Recovery, Verdict, judge};
use crate::repeats::Repeats;
use crate::shelf::{Entry, Shelf, Stock};

/// Slots that one [`Home::sweep`] looks at, and publications, channels and keys that it drops: well below a millisecond.
const SLOTS_PER_SWEEP: u32 = 8192;
const DROPS_PER_SWEEP: usize = 4096;

/// Idle channels that one publication may empty to make room for itself. What it needs is mostly one; the limit is for a
/// large publication among many tiny histories.
const EMPTIED_PER_PUBLISH: usize = 1024;

/// The numbering half of a worker's hub.
///
/// A channel without a history exists here from its first subscription until its last one is withdrawn; nothing of it is
/// kept afterwards, and the next subscription starts a new numbering under a new epoch. One with a history exists from its
/// first use on, and without subscriptions for as long as [`Retention::meta_ttl`] says and the limits allow.
///
/// Every input carries `now`, the time since the process's clock origin, and what the channel's namespace says now about its
/// history; `None` is no history.
///
/// At a limit, channels with a subscription are never touched by others:
///
/// * A further channel, beyond [`HomeLimits::channels_max`]: the idle channel that was used longest ago is forgotten, one that
///   holds no publication if there is one. Without idle channels the new one is refused.
/// * A further publication, beyond [`HomeLimits::history_bytes_max`]: the idle channels that were used longest ago are
///   emptied. If that is not enough, the channel's own oldest publications go; if it is too large alone, it is delivered
///   and not kept.
/// * A further idempotency key, beyond [`HomeLimits::idempotency_keys_max`]: the oldest is forgotten.
pub struct Home {
    pub(crate) limits: HomeLimits,
    pub(crate) shelf: Shelf,
    pub(crate) guests: Guests,
    /// The same of those that are not to be seen.
    pub(crate) unseen: Guests,
    /// Announcements that wait for room in a mailbox.
    pub(crate) waiting: VecDeque<Arc<Announcement>>,
    pub(crate) presence_counts: PresenceCounts,
    epochs: Epochs,
    repeats: Repeats,
    /// Unix time at the clock's origin.
    unix_origin: Duration,
    /// The slot that the next sweep begins with.
    cursor: u32,
    counts: HomeCounts,
}

/// What a home keeps at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HomeLimits {
    /// Channels one worker numbers at the same time.
    pub channels_max: usize,
    /// What the publications kept cost together: [`Publication::cost`] and [`ENTRY_BYTES`](crate::ENTRY_BYTES) each.
    pub history_bytes_max: usize,
    /// Idempotency keys remembered.
    pub idempotency_keys_max: usize,
    /// How long each of them is.
    pub idempotency_ttl: Duration,
    /// Subscribers of a channel above which nobody is told who comes and goes.
    pub join_leave_subscribers_max: usize,
}

impl Default for HomeLimits {
    /// Two million channels, which with one subscriber each are about 380 MB, those of the subscribing side included; 256 MiB
    /// of publications; 65,536 keys of 80 B for five minutes; 1,000 subscribers who are told of each other.
    fn default() -> HomeLimits {
        HomeLimits {
            channels_max: 2_000_000,
            history_bytes_max: 256 * 1024 * 1024,
            idempotency_keys_max: 65_536,
            idempotency_ttl: Duration::from_secs(300),
            join_leave_subscribers_max: 1000,
        }
    }
}

/// What a home has done beside numbering, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HomeCounts {
    /// Publishes answered from an idempotency key.
    pub repeated: u64,
    /// Publishes left out because a newer version was published before.
    pub outdated: u64,
    /// Idle channels forgotten to make room for others.
    pub evicted: u64,
    /// Idle channels emptied to make room for publications.
    pub emptied: u64,
    /// Publications that had to leave a channel in use early, or were not kept at all, for want of room.
    pub cut: u64,
    /// Subscriptions that recovered.
    pub recovered: u64,
    /// Subscriptions that wanted to and could not.
    pub unrecovered: u64,
}

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
    /// It is part of the channel's history, so that the place means something to its publisher.
    pub recorded: bool,
}

/// Why a publication was not accepted. Nothing was numbered and nobody got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishRefusal {
    /// The mailbox of an interested worker is full; temporary.
    MailboxFull {
        /// The first such worker.
        worker: WorkerId,
    },
    /// The channel would be kept, and there is no room for one more; temporary.
    ChannelsMax(ChannelsMax),
}

impl fmt::Display for PublishRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishRefusal::MailboxFull { worker } => {
                write!(f, "the mailbox of worker {} is full", worker.0)
            }
            PublishRefusal::ChannelsMax(full) => full.fmt(f),
        }
    }
}

impl std::error::Error for PublishRefusal {}

impl From<ChannelsMax> for PublishRefusal {
    fn from(full: ChannelsMax) -> PublishRefusal {
        PublishRefusal::ChannelsMax(full)
    }
}

/// The home numbers as many channels as it may, and none of them is idle; temporary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelsMax {
    /// [`HomeLimits::channels_max`].
    pub limit: usize,
}

impl fmt::Display for ChannelsMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker numbers {} channels already", self.limit)
    }
}

impl std::error::Error for ChannelsMax {}

/// Why a subscription was not accepted. It was not counted and must not be withdrawn.
pub type SubscribeRefusal = ChannelsMax;

/// A subscription was counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// All that is published later has a higher offset in this epoch.
    pub position: Position,
    /// What became of the wish to recover.
    pub recovery: Recovery,
}

/// Why a history was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryRefusal {
    /// The position asked for is of another epoch: what it stands for is gone.
    Unrecoverable,
    /// There is no room for one more channel; temporary.
    ChannelsMax(ChannelsMax),
}

impl fmt::Display for HistoryRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryRefusal::Unrecoverable => f.write_str("the position is of another epoch"),
            HistoryRefusal::ChannelsMax(full) => full.fmt(f),
        }
    }
}

impl std::error::Error for HistoryRefusal {}

impl Home {
    /// A home without channels. `epoch_seed` must differ between workers and between runs of the process, for epochs to.
    #[must_use]
    pub fn new(hash: ChannelHash, limits: HomeLimits, epoch_seed: u64) -> Home {
        Home {
            limits,
            shelf: Shelf::new(hash),
            guests: Guests::new(hash),
            unseen: Guests::new(hash),
            waiting: VecDeque::new(),
            presence_counts: PresenceCounts::default(),
            epochs: Epochs { seed: epoch_seed, drawn: 0 },
            repeats: Repeats::new(epoch_seed, limits.idempotency_keys_max, limits.idempotency_ttl),
            unix_origin: Duration::ZERO,
            cursor: 0,
            counts: HomeCounts::default(),
        }
    }

    /// The same with the Unix time at the clock's origin, from which publications get their time.
    #[must_use]
    pub fn with_unix_origin(self, unix_origin: Duration) -> Home {
        Home { unix_origin, ..self }
    }

    /// Numbers a publication, keeps it, and delivers it to every worker that has subscriptions, or refuses it whole.
    ///
    /// All interested workers are asked for room first, so that a refused publication leaves no hole in the numbering
    /// and is known to no worker. A channel without subscribers and history is treated as created and forgotten at once: the
    /// answer is offset 1 in an epoch of its own, and no memory is spent.
    pub fn publish(
        &mut self,
        now: Duration,
        publication: impl Into<Unnumbered>,
        retention: Option<Retention>,
        route: &mut impl Route,
    ) -> Result<Published, PublishRefusal> {
        let publication = publication.into();
        let key = publication.options().and_then(|options| options.idempotency_key.as_deref());
        let key = key.map(|key| self.repeats.key(publication.channel(), key));
        if let Some(before) = key.and_then(|key| self.repeats.find(now, key)) {
            self.counts.repeated += 1;
            return Ok(before);
        }
        let published = self.number(now, publication, retention, route)?;
        if let Some(key) = key {
            self.repeats.insert(now, key, published);
        }
        Ok(published)
    }

    fn number(
        &mut self,
        now: Duration,
        publication: Unnumbered,
        retention: Option<Retention>,
        route: &mut impl Route,
    ) -> Result<Published, PublishRefusal> {
        let Some(slot) = self.enter(now, publication.channel(), retention)? else {
            let position = Position { offset: Offset::default().next(), epoch: self.epochs.draw() };
            return Ok(Published { position, workers: 0, recorded: false });
        };
        let version = publication.options().map_or((0, 0), |options| self.version_of(options));
        let skip_history = publication.options().is_some_and(|options| options.skip_history);
        let entry = self.shelf.at_mut(slot);
        if entry.kept().is_some_and(|kept| is_outdated(version, kept.version)) {
            self.counts.outdated += 1;
            return Ok(Published { position: entry.position(), workers: 0, recorded: true });
        }
        let bytes = publication.cost();
        for share in entry.interest.shares() {
            if !route.has_room(share.worker, bytes) {
                return Err(PublishRefusal::MailboxFull { worker: share.worker });
            }
        }
        let recorded = entry.kept().is_some() && !skip_history;
        if recorded || entry.kept().is_none() {
            entry.offset = entry.offset.next();
        }
        let position = entry.position();
        let time = recorded.then(|| unix_time(self.unix_origin + now));
        let publication = publication.numbered(position, time);
        for share in entry.interest.shares() {
            route.deliver(share.worker, Arc::clone(&publication));
        }
        let workers = entry.interest.shares().len() as u16;
        if recorded {
            if version.0 > 0 {
                self.shelf.change(slot, |kept| kept.version = version);
            }
            self.keep(now, slot, publication);
        }
        Ok(Published { position, workers, recorded })
    }

    /// A version with the hash of its epoch.
    fn version_of(&self, options: &PublishOptions) -> (u64, u64) {
        let epoch = options.version_epoch.as_deref().unwrap_or("");
        let hash = || SipHasher13::new_with_keys(self.epochs.seed, 1).hash(epoch.as_bytes());
        (options.version, if epoch.is_empty() { 0 } else { hash() })
    }

    /// Puts the newest publication of a channel into its history, and makes room for it.
    fn keep(&mut self, now: Duration, slot: u32, publication: Arc<Publication>) {
        let cost = entry_cost(publication.cost());
        self.shelf.change(slot, |kept| kept.history.make_place(kept.retention.size as usize));
        let bytes_max = self.limits.history_bytes_max;
        let is_over = |shelf: &Shelf| shelf.stock().bytes + cost > bytes_max;
        for _ in 0..EMPTIED_PER_PUBLISH {
            if !is_over(&self.shelf) {
                break;
            }
            let Some(idle) = self.shelf.first_to_empty(slot) else { break };
            self.shelf.change(idle, |kept| kept.history.clear());
            self.counts.emptied += 1;
        }
        while is_over(&self.shelf) && self.shelf.change(slot, |kept| kept.history.drop_oldest()) {
            self.counts.cut += 1;
        }
        if is_over(&self.shelf) {
            self.counts.cut += 1;
            // Nothing comes into the place that was made.
            self.shelf.change(slot, |kept| kept.history.drop_empty_ring());
            return;
        }
        self.shelf.change(slot, |kept| kept.history.push(now, publication));
    }

    /// Counts one subscription of `worker`, takes the position and what was missed, in one step: all that is published
    /// later is delivered to `worker`, and has a higher offset.
    ///
    /// The caller queues the answer before anything else that this home sends to `worker`.
    pub fn subscribe(
        &mut self,
        now: Duration,
        channel: &Channel,
        worker: WorkerId,
        retention: Option<Retention>,
        recover: Option<&Recover>,
    ) -> Result<Subscribed, SubscribeRefusal> {
        let slot = match self.enter(now, channel, retention)? {
            Some(slot) => slot,
            None => self.create(channel, None)?,
        };
        self.shelf.at_mut(slot).interest.add(worker);
        self.shelf.touch(now, slot);
        let recovery = recover.map_or(Recovery::NotAsked, |recover| self.recover(slot, recover));
        Ok(Subscribed { position: self.shelf.at(slot).position(), recovery })
    }

    fn recover(&mut self, slot: u32, recover: &Recover) -> Recovery {
        let entry = self.shelf.at(slot);
        let (channel, to) = (entry.channel.clone(), entry.position());
        let verdict = entry.kept().map_or(Verdict::Failed, |kept| judge(&kept.history, to, recover));
        let Verdict::Recovered { newest } = verdict else {
            self.counts.unrecovered += 1;
            return Recovery::Failed;
        };
        self.counts.recovered += 1;
        if newest == 0 {
            return Recovery::Recovered(None);
        }
        Recovery::Recovered(Some(self.shelf.change(slot, |kept| {
            let shared = kept.missed.upgrade();
            if let Some(missed) = shared.filter(|missed| missed.to == to && missed.publications.len() == newest) {
                return missed;
            }
            let publications = kept.history.newest_of(newest).cloned().collect();
            let missed = Arc::new(Missed { channel, to, publications });
            kept.missed = Arc::downgrade(&missed);
            missed
        })))
    }

    /// Withdraws `count` subscriptions of `worker`. A sender may add up withdrawals of a channel while its letters wait;
    /// only those whose subscription was accepted may be among them. At zero subscriptions a channel without a history is
    /// forgotten.
    pub fn unsubscribe(&mut self, now: Duration, channel: &str, worker: WorkerId, count: u32) {
        let Some(slot) = self.shelf.find(channel) else {
            debug_assert!(count == 0, "{worker:?} withdrew {count} subscriptions of an unknown channel {channel:?}");
            return;
        };
        let entry = self.shelf.at_mut(slot);
        if entry.interest.withdraw(worker, count) == Left::Some {
            return;
        }
        if entry.kept().is_some() {
            self.shelf.touch(now, slot);
        } else {
            self.shelf.remove(slot);
        }
    }

    /// Reads a part of a channel's history. A channel that is not there is made, so that the position named stays good.
    pub fn history(
        &mut self,
        now: Duration,
        channel: &Channel,
        retention: Retention,
        query: &HistoryQuery,
    ) -> Result<HistoryPage, HistoryRefusal> {
        let slot = self.enter(now, channel, Some(retention)).map_err(HistoryRefusal::ChannelsMax)?;
        let slot = slot.expect("a channel with a history is made where it is not there");
        let entry = self.shelf.at(slot);
        let position = entry.position();
        if query.since.is_some_and(|since| !since.epoch.accepts(position.epoch)) {
            return Err(HistoryRefusal::Unrecoverable);
        }
        let publications = entry.kept().map_or_else(Vec::new, |kept| kept.history.page(query));
        Ok(HistoryPage { publications, position })
    }

    /// Drops what a channel holds. Its numbering goes on, so that clients that are up to date stay so.
    pub fn remove_history(&mut self, channel: &str) {
        let Some(slot) = self.shelf.find(channel) else { return };
        if self.shelf.keeps(slot) {
            self.shelf.change(slot, |kept| kept.history.clear());
        }
    }

    /// The channel as its namespace wants it now, without what has expired: it is about to be used. `None`: it is not there
    /// and keeps no history.
    fn enter(
        &mut self,
        now: Duration,
        channel: &Channel,
        retention: Option<Retention>,
    ) -> Result<Option<u32>, ChannelsMax> {
        if let Some(slot) = self.shelf.find(channel) {
            let is_over = self.shelf.is_over(now, slot);
            self.shelf.set_retention(slot, retention);
            let is_unused = retention.is_none() && self.shelf.at(slot).interest.is_none();
            if !is_unused && !is_over {
                if let Some(Retention { ttl, .. }) = retention {
                    self.shelf.change(slot, |kept| kept.history.expire(now, ttl, usize::MAX));
                }
                self.shelf.touch(now, slot);
                return Ok(Some(slot));
            }
            self.shelf.remove(slot);
        }
        if retention.is_none() {
            return Ok(None);
        }
        let slot = self.create(channel, retention)?;
        self.shelf.touch(now, slot);
        Ok(Some(slot))
    }

    /// A new channel under a new epoch; an idle one may have to go for it.
    fn create(&mut self, channel: &Channel, retention: Option<Retention>) -> Result<u32, ChannelsMax> {
        let limit = self.limits.channels_max;
        if self.shelf.len() >= limit {
            let idle = self.shelf.first_to_go().ok_or(ChannelsMax { limit })?;
            self.shelf.remove(idle);
            self.counts.evicted += 1;
        }
        let slot = self.shelf.insert(channel.clone(), self.epochs.draw());
        self.shelf.set_retention(slot, retention);
        Ok(slot)
    }

    /// Drops some of what has expired. Whatever is used drops its own, so this only frees memory. Call it every
    /// [`Home::SWEEP_INTERVAL`] while [`Home::needs_sweeps`].
    pub fn sweep(&mut self, now: Duration) {
        self.repeats.expire(now, DROPS_PER_SWEEP);
        let end = self.shelf.end();
        if self.cursor >= end {
            self.cursor = 0;
        }
        let last = end.min(self.cursor + SLOTS_PER_SWEEP);
        let mut left = DROPS_PER_SWEEP;
        while self.cursor < last && left > 0 {
            let slot = self.cursor;
            if self.shelf.is_over(now, slot) {
                left -= self.shelf.at(slot).kept().map_or(0, |kept| kept.history.len()).clamp(1, left);
                self.shelf.remove(slot);
            } else if self.shelf.keeps(slot) {
                left -= self.shelf.change(slot, |kept| kept.history.expire(now, kept.retention.ttl, left));
            }
            self.cursor += 1;
        }
    }

    /// How often [`Home::sweep`] wants to be called. The largest table is through in half a minute.
    pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

    /// Whether there is anything that can expire.
    #[must_use]
    pub fn needs_sweeps(&self) -> bool {
        self.shelf.stock().channels > 0 || self.repeats.len() > 0
    }

    /// How many channels this worker numbers, idle ones included.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.shelf.len()
    }

    /// What is kept of all channels together.
    #[must_use]
    pub fn stock(&self) -> Stock {
        self.shelf.stock()
    }

    /// Idempotency keys remembered.
    #[must_use]
    pub fn idempotency_keys(&self) -> usize {
        self.repeats.len()
    }

    /// What was done since the start.
    #[must_use]
    pub fn counts(&self) -> HomeCounts {
        self.counts
    }

    /// How many subscriptions `channel` has on all workers together, pending ones included; `None` for a channel that does
    /// not exist.
    #[must_use]
    pub fn subscribers(&self, channel: &str) -> Option<u32> {
        let slot = self.shelf.find(channel)?;
        Some(self.shelf.at(slot).interest.subscriptions())
    }

    /// One page of a walk over all channels that have subscriptions: start with cursor 0, go on with the cursor returned,
    /// stop at `None`. A page looks at `limit` slots (at least one), so a huge table can be walked in pieces that fit a tick,
    /// and holds at most so many channels.
    ///
    /// A channel that exists during the whole walk is visited exactly once, whatever comes and goes between the pages. One
    /// that is forgotten and created anew meanwhile may be visited never or twice.
    pub fn page(&self, cursor: u32, limit: usize, mut visit: impl FnMut(&Channel, u32)) -> Option<u32> {
        self.shelf.walk(cursor, limit.max(1), |entry: &Entry| {
            if !entry.interest.is_none() {
                visit(&entry.channel, entry.interest.subscriptions());
            }
        })
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("shelf", &self.shelf).field("limits", &self.limits).finish()
    }
}

/// Whether a version is not newer than the one published last. Version 0 is no version; epochs that differ do not compare,
/// except that none at all compares with every one.
fn is_outdated((version, epoch): (u64, u64), (last, last_epoch): (u64, u64)) -> bool {
    version > 0 && (epoch == 0 || epoch == last_epoch) && version <= last
}

fn unix_time(time: Duration) -> NonZeroU64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    NonZeroU64::new(millis).unwrap_or(NonZeroU64::MIN)
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
