//! The slab of connections: one slot of 8 bytes each, reused with a new generation.

use crate::handler::ConnId;

/// Where a connection is in its life, as far as the kernel is concerned.
///
/// ```text
/// Free -> Connecting -> Open -> Flushing -> Lingering -> Ending -> Free
///   \---(accepted)------^ |        |            |        ^  \-> Zombie -> Free
///                         \--------+------------+--------/
/// Free -> Refusing -> Lingering
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// No connection.
    Free,
    /// An outbound connect is under way.
    Connecting,
    /// Carries traffic.
    Open,
    /// Asked to close after its outbox is sent; input is discarded.
    Flushing,
    /// Our FIN is sent; input is discarded until the peer's.
    Lingering,
    /// Over the limit: is answered when the first of its request comes, or some time later without it.
    Refusing,
    /// To be closed and reported at the end of this phase.
    Ending,
    /// Closed and reported, but the kernel still holds an operation; the slot must not be reused before it completes.
    Zombie,
}

/// What is known of a slot. The `QUEUED_` bits belong to the slot, not to its tenant: they say that the index is in a
/// queue, so that each queue holds an index at most once, and they outlive the tenant.
pub(crate) mod flag {
    /// There may be something to receive.
    pub(crate) const READABLE: u16 = 1 << 0;
    pub(crate) const QUEUED_READ: u16 = 1 << 1;
    /// The handler does not want input.
    pub(crate) const PAUSED: u16 = 1 << 2;
    /// The kernel announced a FIN that was not read yet: read until it comes, since it is announced once.
    pub(crate) const FIN_COMING: u16 = 1 << 3;
    /// The kernel announced an error.
    pub(crate) const FAILED: u16 = 1 << 4;
    /// The peer's FIN was read.
    pub(crate) const FIN: u16 = 1 << 5;
    /// The handler may have bytes to send.
    pub(crate) const DIRTY: u16 = 1 << 6;
    pub(crate) const QUEUED_REPLY: u16 = 1 << 7;
    pub(crate) const QUEUED_BROADCAST: u16 = 1 << 8;
    /// The socket is full; wait until it is writable.
    pub(crate) const BLOCKED: u16 = 1 << 9;
    /// A send is outstanding.
    pub(crate) const SENDING: u16 = 1 << 10;
    /// Over the limit: unknown to the handler.
    pub(crate) const REFUSED: u16 = 1 << 11;
    /// The peer's FIN was read before we asked to close.
    pub(crate) const PEER_FIRST: u16 = 1 << 12;
    /// The kernel was asked to announce writability. Asked for at the first short send and never taken back.
    pub(crate) const WRITE_ARMED: u16 = 1 << 13;
    /// Close with RST.
    pub(crate) const RESET: u16 = 1 << 14;
    /// Close without waiting for the peer's FIN.
    pub(crate) const FINISH: u16 = 1 << 15;

    pub(crate) const OF_THE_SLOT: u16 = QUEUED_READ | QUEUED_REPLY | QUEUED_BROADCAST;
}

/// One connection, or none.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) flags: u16,
    pub(crate) state: State,
}

const _: () = assert!(size_of::<Slot>() == 8, "with its deadline and descriptor a connection costs 16 bytes here");

impl Slot {
    #[inline]
    pub(crate) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    #[inline]
    pub(crate) fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }
}

/// All slots. Reserved once, so that growing never copies; pages not yet touched cost nothing.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    max: usize,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Slots {
        Slots { slots: Vec::with_capacity(max), free: Vec::new(), max }
    }

    /// How many slots were ever used.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot, the most recently freed one first, since it is in the cache.
    pub(crate) fn allocate(&mut self, state: State, flags: u16) -> Option<ConnId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.max => {
                self.slots.push(Slot { generation: 1, flags: 0, state: State::Free });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.state == State::Free && slot.flags & !flag::OF_THE_SLOT == 0);
        slot.state = state;
        slot.flags |= flags;
        Some(ConnId::new(index, slot.generation))
    }

    /// Gives the slot back. Its tenant's ids are stale from here on.
    pub(crate) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.state != State::Free);
        slot.state = State::Free;
        slot.flags &= flag::OF_THE_SLOT;
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(index);
    }

    /// The slot of `id`, unless that connection is gone.
    #[inline]
    pub(crate) fn find(&mut self, id: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        (slot.generation == id.generation() && slot.state != State::Free).then_some(slot)
    }

    /// The same to look at.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Slot> {
        let slot = self.slots.get(id.index() as usize)?;
        (slot.generation == id.generation() && slot.state != State::Free).then_some(slot)
    }

    /// The slot at `index`, which the caller took from a queue or column.
    #[inline]
    pub(crate) fn at(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    #[inline]
    pub(crate) fn id(&self, index: u32) -> ConnId {
        ConnId::new(index, self.slots[index as usize].generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_has_a_new_generation_and_none_of_its_past() {
        let mut slots = Slots::new(1);
        let first = slots.allocate(State::Open, 0).unwrap();
        assert_eq!(slots.allocate(State::Open, 0), None, "the table is full");
        slots.at(first.index()).set(flag::PAUSED | flag::QUEUED_READ);
        slots.release(first.index());
        assert!(slots.find(first).is_none());
        let second = slots.allocate(State::Open, 0).unwrap();
        assert_eq!(second.index(), first.index());
        assert!(slots.find(first).is_none());
        let slot = slots.find(second).unwrap();
        assert!(!slot.has(flag::PAUSED), "belongs to the tenant");
        assert!(slot.has(flag::QUEUED_READ), "belongs to the slot");
    }

    #[test]
    fn generations_skip_zero_when_they_wrap() {
        let mut slots = Slots::new(1);
        let id = slots.allocate(State::Open, 0).unwrap();
        slots.at(id.index()).generation = u32::MAX;
        slots.release(id.index());
        assert_eq!(slots.allocate(State::Open, 0).unwrap().generation(), 1);
    }
}
