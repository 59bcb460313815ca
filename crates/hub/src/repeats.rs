//! Publishes that carry an idempotency key: what the first of them was answered.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::history::nanos;
use crate::home::Published;
use crate::index::Index;
use crate::slots::Slots;

/// Answers by channel and key, for a while: at most `max` of them, the oldest go first.
///
/// Channels and keys are held as a keyed hash of 128 bits, so that an entry has one size whatever the publisher sends.
/// Nobody can find two keys with the same hash without knowing the process's own key.
pub(crate) struct Repeats {
    hash_key: (u64, u64),
    max: usize,
    ttl: Duration,
    entries: Slots<Repeat>,
    index: Index,
    /// Oldest first. All live equally long, so they also expire in this order.
    order: VecDeque<u32>,
}

struct Repeat {
    key: u128,
    expires: u64,
    answer: Published,
    /// Found expired before its turn in `order` came, and no longer in the index.
    is_dead: bool,
}

impl Repeats {
    pub(crate) fn new(seed: u64, max: usize, ttl: Duration) -> Repeats {
        let hash_key = (seed, !seed);
        Repeats { hash_key, max, ttl, entries: Slots::new(), index: Index::new(), order: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn key(&self, channel: &str, key: &str) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0, self.hash_key.1);
        hasher.write_usize(channel.len());
        hasher.write(channel.as_bytes());
        hasher.write(key.as_bytes());
        hasher.finish128().as_u128()
    }

    /// What was answered to the publish with this key.
    pub(crate) fn find(&mut self, now: Duration, key: u128) -> Option<Published> {
        let slot = self.index.find(key as u32, |slot| self.entries.at(slot).key == key)?;
        let repeat = self.entries.at_mut(slot);
        if repeat.expires > nanos(now) {
            return Some(repeat.answer);
        }
        // The older ones have expired as well. Dropping them all here could take longer than a tick.
        repeat.is_dead = true;
        self.index.remove(key as u32, slot);
        None
    }

    /// Remembers an answer. [`Repeats::find`] has just found none with this key.
    pub(crate) fn insert(&mut self, now: Duration, key: u128, answer: Published) {
        if self.max == 0 {
            return;
        }
        while self.order.len() >= self.max {
            self.drop_oldest();
        }
        let expires = nanos(now).saturating_add(nanos(self.ttl));
        let slot = self.entries.insert(Repeat { key, expires, answer, is_dead: false });
        self.index.insert(key as u32, slot);
        self.order.push_back(slot);
    }

    /// Drops what has expired, at most `limit` of it. How many went.
    pub(crate) fn expire(&mut self, now: Duration, limit: usize) -> usize {
        let now = nanos(now);
        let mut dropped = 0;
        while dropped < limit && self.order.front().is_some_and(|&slot| self.entries.at(slot).expires <= now) {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    fn drop_oldest(&mut self) {
        if let Some(slot) = self.order.pop_front() {
            let repeat = self.entries.remove(slot);
            if !repeat.is_dead {
                self.index.remove(repeat.key as u32, slot);
            }
        }
    }
}
