//! The channels one session is subscribed to: two inline, as most sessions have, more in a box.

use hub::{LocalId, MemberId};

/// One settled subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The channel's number in the hub's local half.
    pub(crate) channel: LocalId,
    /// The session's membership of it.
    pub(crate) member: MemberId,
}

/// A small set of subscriptions, in no promised order.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    inline: [Option<Subscription>; 2],
    /// Only allocated by the third subscription. Boxed: a `Vec` here would cost each connection 24 bytes.
    #[allow(clippy::box_collection)]
    more: Option<Box<Vec<Subscription>>>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Subscription> + '_ {
        self.inline.iter().flatten().copied().chain(self.more.iter().flat_map(|m| m.iter().copied()))
    }

    pub(crate) fn get(&self, channel: LocalId) -> Option<Subscription> {
        self.iter().find(|s| s.channel == channel)
    }

    pub(crate) fn contains(&self, channel: LocalId) -> bool {
        self.get(channel).is_some()
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) {
        match self.inline.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(subscription),
            None => self.more.get_or_insert_default().push(subscription),
        }
    }

    pub(crate) fn remove(&mut self, channel: LocalId) -> Option<Subscription> {
        for slot in &mut self.inline {
            if slot.is_some_and(|s| s.channel == channel) {
                return slot.take();
            }
        }
        let more = self.more.as_mut()?;
        let at = more.iter().position(|s| s.channel == channel)?;
        let removed = more.swap_remove(at);
        if more.is_empty() {
            self.more = None;
        }
        Some(removed)
    }
}
