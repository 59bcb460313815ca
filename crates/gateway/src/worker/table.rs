//! The worker's connections, in the slots that the driver gave them.

use conn::Connection;
use io::ConnId;

#[derive(Debug)]
struct Entry {
    generation: u32,
    connection: Connection,
}

/// Connections by [`ConnId`]. Memory for the limit is reserved once, so growth never copies; pages that were never
/// touched cost nothing.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Option<Entry>>,
    len: usize,
}

impl Table {
    pub(crate) fn with_capacity(connections_max: usize) -> Self {
        Self { slots: Vec::with_capacity(connections_max), len: 0 }
    }

    pub(crate) fn insert(&mut self, id: ConnId, connection: Connection) {
        let index = id.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        debug_assert!(self.slots[index].is_none(), "the driver reuses a slot only after `closed`");
        self.slots[index] = Some(Entry { generation: id.generation(), connection });
        self.len += 1;
    }

    /// The connection, unless it is gone or the slot has a new tenant.
    pub(crate) fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        let entry = self.slots.get_mut(id.index() as usize)?.as_mut()?;
        (entry.generation == id.generation()).then_some(&mut entry.connection)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.find(id)?;
        self.len -= 1;
        self.slots[id.index() as usize].take().map(|entry| entry.connection)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots to walk over with [`Table::at`].
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Who sits in a slot now.
    pub(crate) fn at(&self, slot: usize) -> Option<(u32, &Connection)> {
        self.slots.get(slot)?.as_ref().map(|entry| (entry.generation, &entry.connection))
    }
}
