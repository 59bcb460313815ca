//! From a channel's name to its slot: a hash table that never stalls while it grows.

use hashbrown::HashTable;

/// Tables that share the keys by their hash. A table doubles by moving what it holds; in one table of a million
/// channels that took longer than two seconds with names compared through memory, in 256 it moves a few thousand
/// 8-byte keys.
const SPLITS: usize = 256;
/// The hash bits above these choose the split.
const SPLIT_SHIFT: u32 = u32::BITS - SPLITS.trailing_zeros();
const _: () = assert!(SPLITS.is_power_of_two());

/// The slot of each channel. The names stay in the slots; the caller compares.
pub(crate) struct Index {
    splits: Box<[HashTable<Key>]>,
}

/// The hash is kept beside the slot, so that growing reads this table only: without it every key moved costs a cache
/// miss for the slot and one more for the name.
#[derive(Clone, Copy)]
struct Key {
    hash: u32,
    slot: u32,
}

const _: () = assert!(size_of::<Key>() == 8, "9 bytes a bucket with the control byte");

impl Index {
    pub(crate) fn new() -> Index {
        Index { splits: (0..SPLITS).map(|_| HashTable::new()).collect() }
    }

    /// The slot with this hash for which `is` says yes.
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = &self.splits[(hash >> SPLIT_SHIFT) as usize];
        table.find(widen(hash), |key| key.hash == hash && is(key.slot)).map(|key| key.slot)
    }

    /// Adds a slot that is not there yet.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        let table = &mut self.splits[(hash >> SPLIT_SHIFT) as usize];
        table.insert_unique(widen(hash), Key { hash, slot }, |key| widen(key.hash));
    }

    /// Removes a slot that is there.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let table = &mut self.splits[(hash >> SPLIT_SHIFT) as usize];
        match table.find_entry(widen(hash), |key| key.slot == slot) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => panic!("slot {slot} was removed from the index twice"),
        }
    }
}

/// The table takes its bucket from the low bits and a tag from the top seven. Multiplying by an odd number keeps the low
/// bits as even as they were and mixes all of them into the tag.
fn widen(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChannelHash;

    /// Keys that growth moved at once, at most, while a million channels were inserted and every second one removed and
    /// inserted anew.
    #[test]
    fn growing_to_a_million_never_moves_more_than_8192_keys_at_once() {
        let hash = ChannelHash::new([9; 16]);
        let mut index = Index::new();
        let (mut moved_max, mut moves) = (0, 0);
        let mut insert = |index: &mut Index, slot: u32| {
            let hash = hash.in_tables(&format!("personal:{slot}"));
            let split = (hash >> SPLIT_SHIFT) as usize;
            let (capacity, len) = (index.splits[split].capacity(), index.splits[split].len());
            index.insert(hash, slot);
            if index.splits[split].capacity() != capacity {
                moves += 1;
                moved_max = moved_max.max(len);
            }
        };
        (0..1_000_000).for_each(|slot| insert(&mut index, slot));
        for slot in (0..1_000_000).step_by(2) {
            index.remove(hash.in_tables(&format!("personal:{slot}")), slot);
            insert(&mut index, slot);
        }
        assert!(moved_max <= 8192, "{moved_max} keys moved at once");
        assert!(moves > SPLITS, "the tables did grow: {moves} times");
        assert_eq!(index.splits.iter().map(HashTable::len).sum::<usize>(), 1_000_000);
    }

    #[test]
    fn equal_hashes_are_told_apart_by_the_caller() {
        let mut index = Index::new();
        index.insert(5, 1);
        index.insert(5, 2);
        assert_eq!(index.find(5, |slot| slot == 2), Some(2));
        assert_eq!(index.find(5, |slot| slot == 1), Some(1));
        index.remove(5, 1);
        assert_eq!(index.find(5, |slot| slot == 1), None);
        assert_eq!(index.find(5, |slot| slot == 2), Some(2));
        assert_eq!(index.find(6, |_| true), None);
    }
}
