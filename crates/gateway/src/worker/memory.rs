//! What a worker does about memory: it counts what it holds, and where the process is short, the heaviest of its clients go.

use super::Worker;
use super::jobs::{VISITS_PER_TICK, conn_id};
use crate::mailbox::Post;
use crate::memory::{self, LOOK_AT_MEMORY};
use io::{ConnId, Io};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The heaviest that one walk over the table finds. More go with the next walk.
const FOUND_MAX: usize = 256;

/// Whoever makes us hold less is left alone: the kernel holds as much for a connection on which nothing happens.
const SPARED_BYTES: usize = 4096;

/// A walk over the table, a slice per tick.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    next_slot: usize,
    /// The lightest of the heaviest in front.
    heaviest: BinaryHeap<Reverse<(usize, u64)>>,
    /// A walk found nobody, so there is none before it.
    next_walk: Duration,
    /// What the process was told that this worker holds.
    counted: u64,
}

impl<P: Post> Worker<P> {
    /// At the begin of a tick.
    pub(super) fn heed_memory(&mut self, io: &mut Io) {
        let is_short = self.memory.look(io.now());
        self.shared.is_short_of_memory = is_short;
        io.refuse_newcomers(is_short);
        if is_short {
            self.shed_some(io);
        }
    }

    /// At its end.
    pub(super) fn weigh(&mut self, io: &mut Io) {
        self.count_memory();
        if self.memory.look(io.now()) {
            // Whether it is over is looked at also where nothing happens. A walk that is due does not wait.
            let at = io.now() + LOOK_AT_MEMORY;
            io.alarm(if self.memory.must_free() { self.shedding.next_walk.min(at) } else { at });
        }
    }

    /// The process has ended for this worker.
    pub(super) fn hold_nothing(&mut self) {
        self.memory.count(std::mem::take(&mut self.shedding.counted), 0);
    }

    fn count_memory(&mut self) {
        let held = self.shared.outboxes.held_bytes() + self.home.stock().bytes;
        let counted = held as u64 + memory::cost_of(self.table.len(), self.shared.local.subscriptions());
        self.memory.count(std::mem::replace(&mut self.shedding.counted, counted), counted);
    }

    /// Looks at some connections, and behind the last of them lets go of the heaviest that were found.
    fn shed_some(&mut self, io: &mut Io) {
        if !self.memory.must_free() || io.now() < self.shedding.next_walk {
            return;
        }
        let end = (self.shedding.next_slot + VISITS_PER_TICK).min(self.table.slots());
        let heaviest = &mut self.shedding.heaviest;
        for slot in self.shedding.next_slot..end {
            let Some((generation, connection)) = self.table.at(slot) else { continue };
            let id = conn_id(slot, generation);
            let weight = connection.weight(io.is_behind(id));
            if weight <= SPARED_BYTES {
                continue;
            }
            heaviest.push(Reverse((weight, id.to_bits())));
            if heaviest.len() > FOUND_MAX {
                heaviest.pop();
            }
        }
        self.shedding.next_slot = end;
        if end < self.table.slots() {
            return;
        }
        self.shedding.next_slot = 0;
        let found = std::mem::take(&mut self.shedding.heaviest).into_sorted_vec();
        if found.is_empty() {
            self.shedding.next_walk = io.now() + LOOK_AT_MEMORY;
        }
        for Reverse((_, id)) in found {
            if !self.memory.must_free() {
                return;
            }
            self.shed(io, ConnId::from_bits(id));
        }
    }

    fn shed(&mut self, io: &mut Io, id: ConnId) {
        let Some(connection) = self.table.find(id) else { return };
        let input = connection.input_bytes();
        let directions = connection.shed(io.now(), &mut self.shared);
        self.carry_out(io, id, directions);
        self.memory.let_go(input as u64);
        self.count_memory();
    }
}
