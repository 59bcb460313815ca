//! A slab in pages: values under small numbers that stay theirs until removed.

/// Slots of one page. A page is allocated whole and never moves, so the largest piece of work of an insert is this
/// page; one `Vec` for everything would copy tens of megabytes when a worker reaches a million channels.
pub(crate) const PAGE_SLOTS: usize = 1024;

/// The free list's end. No slot has this number.
const NONE: u32 = u32::MAX;

/// Values of one kind. Memory follows the highest count there ever was; freed slots are used again, newest first.
pub(crate) struct Slots<T> {
    pages: Vec<Vec<Slot<T>>>,
    /// Head of the list of vacant slots.
    vacant: u32,
    len: u32,
}

/// One place for a value. For a `T` with a niche this is as large as `T`, which its users assert.
pub(crate) enum Slot<T> {
    Vacant { next: u32 },
    Occupied(T),
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { pages: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Puts `value` into a vacant slot.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let slot = self.vacant;
        if slot == NONE {
            return self.append(value);
        }
        let place = &mut self.pages[slot as usize / PAGE_SLOTS][slot as usize % PAGE_SLOTS];
        let Slot::Vacant { next } = *place else { unreachable!("the free list holds vacant slots") };
        self.vacant = next;
        *place = Slot::Occupied(value);
        slot
    }

    fn append(&mut self, value: T) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE_SLOTS) {
            self.pages.push(Vec::with_capacity(PAGE_SLOTS));
        }
        let before = (self.pages.len() - 1) * PAGE_SLOTS;
        let page = self.pages.last_mut().expect("a page with room was made above");
        let slot = u32::try_from(before + page.len()).ok().filter(|&slot| slot != NONE);
        page.push(Slot::Occupied(value));
        slot.expect("fewer than 2^32 - 1 slots: each takes at least 8 bytes of a worker's memory")
    }

    /// The value in `slot`, which must be occupied.
    pub(crate) fn at(&self, slot: u32) -> &T {
        match &self.pages[slot as usize / PAGE_SLOTS][slot as usize % PAGE_SLOTS] {
            Slot::Occupied(value) => value,
            Slot::Vacant { .. } => panic!("slot {slot} was used after its value was removed"),
        }
    }

    /// The value in `slot`, which must be occupied.
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut T {
        match &mut self.pages[slot as usize / PAGE_SLOTS][slot as usize % PAGE_SLOTS] {
            Slot::Occupied(value) => value,
            Slot::Vacant { .. } => panic!("slot {slot} was used after its value was removed"),
        }
    }

    /// The value in `slot`, if there is one.
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        match self.pages.get(slot as usize / PAGE_SLOTS)?.get(slot as usize % PAGE_SLOTS)? {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// The first slot that was never used.
    pub(crate) fn end(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE_SLOTS;
        (full + self.pages.last().map_or(0, Vec::len)) as u32
    }

    /// Takes the value out of `slot`, which must be occupied.
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        let place = &mut self.pages[slot as usize / PAGE_SLOTS][slot as usize % PAGE_SLOTS];
        match std::mem::replace(place, Slot::Vacant { next: self.vacant }) {
            Slot::Occupied(value) => {
                self.vacant = slot;
                self.len -= 1;
                value
            }
            Slot::Vacant { .. } => panic!("slot {slot} was removed twice"),
        }
    }

    /// Visits the values of the slots `from..from + limit` and says where to go on, or `None` at the end.
    pub(crate) fn walk(&self, from: u32, limit: usize, mut visit: impl FnMut(&T)) -> Option<u32> {
        let slots = self.end() as usize;
        let start = (from as usize).min(slots);
        let end = start.saturating_add(limit).min(slots);
        for slot in start..end {
            if let Slot::Occupied(value) = &self.pages[slot / PAGE_SLOTS][slot % PAGE_SLOTS] {
                visit(value);
            }
        }
        (end < slots).then_some(end as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_page_is_allocated_whole_and_never_grows() {
        let mut slots = Slots::new();
        for n in 0..3 * PAGE_SLOTS + 1 {
            slots.insert(n);
        }
        assert_eq!(slots.pages.len(), 4);
        assert!(slots.pages.iter().all(|page| page.capacity() == PAGE_SLOTS));
    }

    #[test]
    fn freed_slots_are_used_before_new_ones() {
        let mut slots = Slots::new();
        let ids: Vec<u32> = (0..PAGE_SLOTS).map(|n| slots.insert(n)).collect();
        for id in ids {
            slots.remove(id);
        }
        for n in 0..PAGE_SLOTS {
            slots.insert(n);
        }
        assert_eq!((slots.pages.len(), slots.len()), (1, PAGE_SLOTS));
    }

    #[test]
    #[should_panic(expected = "removed twice")]
    fn a_second_remove_is_caught() {
        let mut slots = Slots::new();
        let id = slots.insert(1);
        slots.remove(id);
        slots.remove(id);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn slots_equal_a_map(operations in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..300)) {
            let (mut slots, mut model) = (Slots::new(), BTreeMap::new());
            for (n, (insert, which)) in operations.into_iter().enumerate() {
                if insert || model.is_empty() {
                    prop_assert!(model.insert(slots.insert(n), n).is_none(), "an occupied slot was given out");
                } else {
                    let slot = *model.keys().nth(which.index(model.len())).expect("index is below len");
                    prop_assert_eq!(Some(slots.remove(slot)), model.remove(&slot));
                }
                prop_assert_eq!(slots.len(), model.len());
                for (&slot, value) in &model {
                    prop_assert_eq!(slots.at(slot), value);
                }
                let mut walked = Vec::new();
                prop_assert_eq!(slots.walk(0, usize::MAX, |&value| walked.push(value)), None);
                prop_assert_eq!(walked, model.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
