//! Which workers have subscriptions of a channel, and how many.

use std::num::NonZeroU32;

use crate::id::WorkerId;

/// One worker's part in a channel: the subscriptions the home accepted from it and has not seen withdrawn. Pending ones
/// are among them, which is what keeps interest alive while an answer is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    pub(crate) worker: WorkerId,
    pub(crate) count: NonZeroU32,
}

/// The shares of a channel. A personal channel has one worker, so that shape needs no allocation.
pub(crate) enum Interest {
    /// Nobody: the channel exists for what it keeps.
    None,
    One(Share),
    /// Two or more, in the order of their arrival. Searched one by one: there are as many as workers.
    #[expect(clippy::box_collection, reason = "a Vec in place would add 16 B to each of a million personal channels")]
    Many(Box<Vec<Share>>),
}

const _: () = assert!(size_of::<Interest>() == 16, "one per channel");

/// What a withdrawal left of the interest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Some,
    /// The last subscription is gone. Without a history that was the reason to keep the channel.
    Nothing,
}

impl Interest {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Interest::None)
    }

    pub(crate) fn shares(&self) -> &[Share] {
        match self {
            Interest::None => &[],
            Interest::One(share) => std::slice::from_ref(share),
            Interest::Many(shares) => shares,
        }
    }

    fn shares_mut(&mut self) -> &mut [Share] {
        match self {
            Interest::None => &mut [],
            Interest::One(share) => std::slice::from_mut(share),
            Interest::Many(shares) => shares,
        }
    }

    /// One more subscription of `worker`.
    pub(crate) fn add(&mut self, worker: WorkerId) {
        if let Some(share) = self.shares_mut().iter_mut().find(|share| share.worker == worker) {
            share.count = share.count.checked_add(1).expect("a worker's memory ends far below 2^32 subscriptions");
            return;
        }
        let new = Share { worker, count: NonZeroU32::MIN };
        match self {
            Interest::None => *self = Interest::One(new),
            Interest::One(first) => *self = Interest::Many(Box::new(vec![*first, new])),
            Interest::Many(shares) => shares.push(new),
        }
    }

    /// `count` subscriptions of `worker` fewer.
    pub(crate) fn withdraw(&mut self, worker: WorkerId, count: u32) -> Left {
        let Some(at) = self.shares().iter().position(|share| share.worker == worker) else {
            debug_assert!(count == 0, "{worker:?} withdrew {count} subscriptions but has none");
            return if self.is_none() { Left::Nothing } else { Left::Some };
        };
        let share = &mut self.shares_mut()[at];
        debug_assert!(count <= share.count.get(), "{worker:?} withdrew {count} subscriptions of {share:?}");
        if let Some(rest) = NonZeroU32::new(share.count.get().saturating_sub(count)) {
            share.count = rest;
            return Left::Some;
        }
        let Interest::Many(shares) = self else {
            *self = Interest::None;
            return Left::Nothing;
        };
        shares.swap_remove(at);
        if let [last] = shares[..] {
            *self = Interest::One(last);
        }
        Left::Some
    }

    pub(crate) fn subscriptions(&self) -> u32 {
        self.shares().iter().fold(0, |sum, share| sum.saturating_add(share.count.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(worker: WorkerId) -> Interest {
        let mut interest = Interest::None;
        interest.add(worker);
        interest
    }

    #[test]
    fn a_withdrawal_ends_interest_only_when_it_covers_every_subscription() {
        let worker = WorkerId(3);
        for (withdrawn, left) in [(2, Left::Some), (3, Left::Nothing)] {
            let mut interest = of(worker);
            interest.add(worker);
            interest.add(worker);
            assert_eq!(interest.withdraw(worker, withdrawn), left);
        }
    }

    #[test]
    fn the_last_worker_left_is_kept_without_an_allocation() {
        let mut interest = of(WorkerId(0));
        interest.add(WorkerId(1));
        assert!(matches!(interest, Interest::Many(_)));
        assert_eq!(interest.withdraw(WorkerId(0), 1), Left::Some);
        assert!(matches!(interest, Interest::One(Share { worker: WorkerId(1), .. })));
        assert_eq!(interest.withdraw(WorkerId(1), 1), Left::Nothing);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "withdrew 2 subscriptions")]
    fn withdrawing_more_than_was_counted_is_caught() {
        of(WorkerId(0)).withdraw(WorkerId(0), 2);
    }
}
