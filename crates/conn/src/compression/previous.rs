//! The newest compressed publication of each channel and encoding: what the next one may refer to.

use hub::{Channel, LocalId};
use std::collections::{BTreeMap, VecDeque};
use wire::ws::deflate::Mark;

/// The widest window: of what is longer, nobody could refer to the beginning.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024;

/// What an entry costs beside its payload, about.
const ENTRY_BYTES: usize = 160;

/// A channel of this worker, and the number of an encoding.
type Key = (LocalId, u8);

/// The dictionaries of one worker.
#[derive(Debug, Default)]
pub(super) struct Previous {
    kept: BTreeMap<Key, Kept>,
    /// Entries in the order of their beginning, by serial number; some are gone already.
    order: VecDeque<(u64, Key)>,
    serial: u64,
    bytes: usize,
}

/// One compressed publication.
#[derive(Debug)]
pub(super) struct Kept {
    serial: u64,
    /// Numbers of channels are used again, and text of one channel must not show in the size of another's messages.
    channel: Channel,
    /// Used since it was last at the front of `order`.
    used: bool,
    /// Who was sent it.
    pub(super) mark: Mark,
    /// No policy drops it, so that it may be referred to while it waits.
    pub(super) stays: bool,
    /// Before compression, without the frame around it.
    pub(super) payload: Vec<u8>,
}

impl Previous {
    pub(super) fn find(&mut self, local: LocalId, encoding: u8, channel: &Channel) -> Option<&Kept> {
        let kept = self.kept.get_mut(&(local, encoding)).filter(|kept| kept.channel == *channel)?;
        kept.used = true;
        Some(kept)
    }

    /// Keeps a copy in place of what was kept before. At most `bytes_max` are kept in all; beyond it the channels go without
    /// that have not been used for the longest time, about.
    pub(super) fn keep(
        &mut self,
        (local, encoding): Key,
        channel: &Channel,
        (mark, stays): (Mark, bool),
        payload: &[u8],
        bytes_max: usize,
    ) {
        let key = (local, encoding);
        if payload.len() > PAYLOAD_BYTES_MAX || ENTRY_BYTES + payload.len() > bytes_max {
            return self.remove(key);
        }
        if !self.kept.contains_key(&key) {
            self.begin(key, channel, mark);
        }
        let Some(kept) = self.kept.get_mut(&key) else { return };
        self.bytes -= kept.payload.capacity();
        if kept.channel != *channel {
            kept.channel = channel.clone();
        }
        (kept.mark, kept.stays, kept.used) = (mark, stays, true);
        kept.payload.clear();
        // One large publication must not hold its memory for ever.
        kept.payload.shrink_to(payload.len() * 4);
        kept.payload.reserve_exact(payload.len());
        kept.payload.extend_from_slice(payload);
        self.bytes += kept.payload.capacity();
        while self.bytes > bytes_max && self.evict_one() {}
    }

    fn begin(&mut self, key: Key, channel: &Channel, mark: Mark) {
        self.serial += 1;
        let serial = self.serial;
        let channel = channel.clone();
        self.kept.insert(key, Kept { serial, channel, used: true, mark, stays: false, payload: Vec::new() });
        self.bytes += ENTRY_BYTES;
        self.order.push_back((serial, key));
        // What is gone from the map is dropped here when it is most of this.
        if self.order.len() > 2 * self.kept.len() + 64 {
            let kept = &self.kept;
            self.order.retain(|(serial, key)| kept.get(key).is_some_and(|entry| entry.serial == *serial));
        }
    }

    /// The channel has no members any more.
    pub(super) fn forget(&mut self, local: LocalId) {
        while let Some((&key, _)) = self.kept.range((local, 0)..=(local, u8::MAX)).next() {
            self.remove(key);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, key: Key) {
        if let Some(kept) = self.kept.remove(&key) {
            self.bytes -= ENTRY_BYTES + kept.payload.capacity();
        }
    }

    /// Lets one entry go that was not used since its last turn. `false`: there is none at all.
    fn evict_one(&mut self) -> bool {
        while let Some((serial, key)) = self.order.pop_front() {
            match self.kept.get_mut(&key).filter(|kept| kept.serial == serial) {
                None => {}
                Some(kept) if kept.used => {
                    kept.used = false;
                    self.order.push_back((serial, key));
                }
                Some(_) => {
                    self.remove(key);
                    return true;
                }
            }
        }
        false
    }
}
