//! What patches are made from: the newest publication of each channel that has subscribers here who take deltas.
//!
//! A patch turns one publication into the next, so it is only for those who have the one before. That is said by a member's
//! encoding in the hub: it begins as one that reads whole payloads ([`Encoding::first`]), and goes on to one that reads
//! patches once it has got a publication ([`Encoding::after_first`]). Whatever keeps a publication from a member must set it
//! back with [`Shared::publication_missed`](crate::Shared::publication_missed); then the next one is whole again.
//!
//! [`Encoding::first`]: crate::Encoding::first
//! [`Encoding::after_first`]: crate::Encoding::after_first

use crate::dialect::centrifugo::fossil::Fossil;
use hub::{LocalId, Publication};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A patch that was larger than this gives its memory back.
const KEPT_PATCH_BYTES_MAX: usize = 64 * 1024;

/// What makes a publication of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch<'a> {
    /// In the format of the client protocol.
    pub text: &'a str,
    /// The one before stays in every outbox until it is sent. Where it does not, a policy may still drop it, so that the patch
    /// is only for those who have it already: whose outbox is empty.
    pub base_stays: bool,
}

/// The channels of one worker with subscribers who take deltas.
#[derive(Debug, Default)]
pub struct Deltas {
    channels: BTreeMap<LocalId, Kept>,
    /// The channels that have a newest publication, the one that got it first in front.
    ages: BTreeMap<u64, LocalId>,
    age: u64,
    bytes: usize,
    fossil: Fossil,
    patch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Kept {
    subscribers: u32,
    newest: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    /// Its place in `ages`.
    age: u64,
    publication: Arc<Publication>,
    stays: bool,
}

impl Deltas {
    /// One more subscriber of a channel takes deltas.
    pub(crate) fn join(&mut self, channel: LocalId) {
        self.channels.entry(channel).or_default().subscribers += 1;
    }

    /// One of them has left.
    pub(crate) fn leave(&mut self, channel: LocalId) {
        let Some(kept) = self.channels.get_mut(&channel) else { return };
        kept.subscribers -= 1;
        if kept.subscribers == 0 {
            self.forget(channel);
            self.channels.remove(&channel);
        }
    }

    /// `publication` is the newest of its channel from now on; `stays` tells that no policy drops it. Returns what makes it of
    /// the one before, if anybody could want that and it is shorter.
    ///
    /// At most `bytes_max` are kept here, counted as [`Publication::cost`] does; beyond it the channels go without that have
    /// been quiet the longest, and their next publication is sent whole.
    pub fn advance(
        &mut self,
        channel: LocalId,
        publication: &Arc<Publication>,
        stays: bool,
        bytes_max: usize,
    ) -> Option<Patch<'_>> {
        let before =
            self.channels.get(&channel)?.newest.as_ref().map(|newest| (newest.publication.clone(), newest.stays));
        self.keep(channel, publication, stays, bytes_max);
        let (before, base_stays) = before?;
        self.patch.clear();
        self.patch.shrink_to(KEPT_PATCH_BYTES_MAX);
        let (source, target) = (str::from_utf8(&before.data).ok()?, str::from_utf8(&publication.data).ok()?);
        self.fossil.delta(source, target, &mut self.patch).then_some(())?;
        Some(Patch { text: str::from_utf8(&self.patch).ok()?, base_stays })
    }

    fn keep(&mut self, channel: LocalId, publication: &Arc<Publication>, stays: bool, bytes_max: usize) {
        self.forget(channel);
        let cost = publication.cost();
        if cost > bytes_max {
            return;
        }
        while self.bytes + cost > bytes_max {
            let Some((_, oldest)) = self.ages.first_key_value() else { return };
            self.forget(*oldest);
        }
        let Some(kept) = self.channels.get_mut(&channel) else { return };
        self.age += 1;
        self.bytes += cost;
        kept.newest = Some(Newest { age: self.age, publication: publication.clone(), stays });
        self.ages.insert(self.age, channel);
    }

    fn forget(&mut self, channel: LocalId) {
        if let Some(newest) = self.channels.get_mut(&channel).and_then(|kept| kept.newest.take()) {
            self.ages.remove(&newest.age);
            self.bytes -= newest.publication.cost();
        }
    }

    /// Channels with subscribers who take deltas.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// What is kept, counted as [`Publication::cost`] does.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::{Channel, ChannelHash, Epoch, Local, Offset, Position};

    fn publication(text: &str) -> Arc<Publication> {
        let position = Position { offset: Offset(1), epoch: Epoch::from_seed(1) };
        let (channel, data) = (Channel::new("c"), text.as_bytes().into());
        Arc::new(Publication { channel, data, info: None, tags: None, position, time: None })
    }

    /// The text of the patch, where nothing is ever dropped.
    fn advance(deltas: &mut Deltas, channel: LocalId, next: &Arc<Publication>, bytes_max: usize) -> Option<String> {
        deltas.advance(channel, next, true, bytes_max).map(|patch| {
            assert!(patch.base_stays);
            patch.text.to_owned()
        })
    }

    fn channels<const N: usize>() -> [LocalId; N] {
        let mut local = Local::new(ChannelHash::new([1; 16]));
        std::array::from_fn(|i| local.begin(&format!("c{i}")).0)
    }

    #[test]
    fn a_patch_needs_a_subscriber_and_a_publication_before_and_a_gain() {
        let [a, b] = channels();
        let mut deltas = Deltas::default();
        let text = |n: u32| publication(&format!("\"the temperature of the kitchen is {n} degrees\""));
        assert_eq!(advance(&mut deltas, a, &text(1), 1 << 20), None);
        assert_eq!(advance(&mut deltas, a, &text(2), 1 << 20), None, "nobody takes deltas, so nothing was kept");
        deltas.join(a);
        assert_eq!(advance(&mut deltas, a, &text(3), 1 << 20), None, "the first has nothing before it");
        assert!(advance(&mut deltas, a, &text(4), 1 << 20).is_some_and(|patch| patch.contains(":4")));
        assert_eq!(advance(&mut deltas, b, &text(5), 1 << 20), None, "another channel");
        assert_eq!(advance(&mut deltas, a, &publication("1"), 1 << 20), None, "no gain");
        assert_eq!(advance(&mut deltas, a, &text(6), 1 << 20), None, "no gain either");
        assert!(advance(&mut deltas, a, &text(7), 1 << 20).is_some());
    }

    #[test]
    fn a_patch_tells_whether_the_one_before_may_still_be_dropped() {
        let [a] = channels();
        let mut deltas = Deltas::default();
        deltas.join(a);
        let text = publication("\"the same in each of them, so that a patch is shorter\"");
        let mut base_stays = |stays| deltas.advance(a, &text, stays, 1 << 20).map(|patch| patch.base_stays);
        assert_eq!([true, false, true, true].map(&mut base_stays), [None, Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn what_is_kept_goes_with_the_last_subscriber() {
        let [a] = channels();
        let mut deltas = Deltas::default();
        deltas.join(a);
        deltas.join(a);
        advance(&mut deltas, a, &publication("1"), 1 << 20);
        deltas.leave(a);
        assert_eq!((deltas.channels(), deltas.bytes()), (1, publication("1").cost()));
        deltas.leave(a);
        assert_eq!((deltas.channels(), deltas.bytes()), (0, 0));
    }

    #[test]
    fn at_the_limit_the_channels_that_were_quiet_the_longest_go_without() {
        let [a, b, c] = channels();
        let mut deltas = Deltas::default();
        [a, b, c].into_iter().for_each(|channel| deltas.join(channel));
        let text = publication(&"the same ".repeat(20));
        let room = 2 * text.cost();
        let patched = |deltas: &mut Deltas, channel| advance(deltas, channel, &text, room).is_some();
        assert!(!patched(&mut deltas, a) && !patched(&mut deltas, b));
        assert!(patched(&mut deltas, a) && patched(&mut deltas, b), "two have room");
        assert!(!patched(&mut deltas, c));
        assert_eq!(deltas.bytes(), room);
        assert!(patched(&mut deltas, b) && patched(&mut deltas, c), "these are the newer ones");
        assert!(!patched(&mut deltas, a), "this one had to go");
        let large = publication(&"x".repeat(room));
        assert_eq!(advance(&mut deltas, b, &large, room), None);
        assert_eq!(deltas.bytes(), room, "too large to keep, so nothing had to go for it");
        assert!(!patched(&mut deltas, b));
    }
}
