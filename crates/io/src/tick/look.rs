//! Receives out of turn, for deadlines that are about input: what waits in a socket counts before they do.

use super::{Core, Sockets};
use crate::handler::Handler;
use crate::slots::{State, flag};

impl<S: Sockets> Core<S> {
    /// Receives once from each connection that the handler asked about, and says where nothing was. One tick looks at as many
    /// connections as it reads from in turn; the rest is left to the next.
    pub(super) fn look<H: Handler>(&mut self, handler: &mut H) {
        let mut looks = self.budgets.reads;
        while looks > 0 && !self.io.looks.is_empty() {
            looks -= self.take_looks(looks);
            if S::RECVS_AHEAD > 1 && !self.turns.is_empty() {
                self.sockets.recv_ahead(&self.turns);
            }
            for turn in 0..self.turns.len() {
                let index = self.turns[turn];
                if self.read_one(handler, turn) > 0 {
                    continue;
                }
                // It may have ended, got its FIN, or been interrupted, which puts it into the queue again.
                let slot = self.io.slots.at(index);
                if slot.state == State::Open && !slot.has(flag::FIN | flag::PAUSED | flag::READABLE) {
                    let id = self.io.slots.id(index);
                    handler.nothing_waits(&mut self.io, id);
                }
            }
        }
    }

    /// Takes the connections for the next receives. Returns how many places of the queue that took, at most `looks_max`.
    fn take_looks(&mut self, looks_max: u32) -> u32 {
        self.turns.clear();
        let mut looks = 0;
        while looks < looks_max && self.turns.len() < S::RECVS_AHEAD {
            let Some(id) = self.io.looks.pop_front() else { break };
            looks += 1;
            let Some(slot) = self.io.slots.find(id) else { continue };
            let receives = slot.state == State::Open && !slot.has(flag::FIN | flag::PAUSED);
            if receives && !self.turns.contains(&id.index()) {
                // Its turn in the queue of those with input would find nothing any more.
                slot.clear(flag::READABLE);
                self.turns.push(id.index());
            }
        }
        looks
    }
}
