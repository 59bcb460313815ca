//! What may go from the outbox of a client that reads too slowly, so that neither its memory nor its delay grows.
//!
//! An outbox above high water is *watched* from the first publication on that a policy may drop: a [`Watch`] knows the nodes
//! that may go, so that each push, skip and conflation costs the same however many wait, and no other connection is looked
//! at. Building it walks the outbox once, which the pushes that filled it have paid for. Back at low water it is given up.
//!
//! Two rules hold for every policy. What a client gets is what was pushed, in its order, with some of it left out; only a
//! conflated value may move ahead, into the place of the one it replaces, and never over a reply. And what
//! [`Outboxes::gather`] has handed out is not touched until [`Outboxes::sent`] tells that the kernel has taken nothing of it.

use super::{BodyId, NONE, Outbox, Outboxes, Standing};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Holes go with the nodes in front of them; from this many on they go earlier when they outnumber what waits.
const HOLES_KEPT_MAX: usize = 64;

/// A watch that is given up keeps tables of this many entries at most.
const ENTRIES_KEPT_MAX: usize = 4096;

/// How much an outbox takes, and how far it is emptied when that is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may wait.
    pub bytes_max: usize,
    /// Skipping ends when no more than this waits. Well below the limit: a client that skips ahead to the limit would
    /// stay just as late and miss something with every publication.
    pub low_water: usize,
}

/// What became of a publication for a slow reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits. Others may have gone for it.
    Queued,
    /// It was left out itself: all that waits is of a kind that stays.
    Skipped,
    /// It does not fit, and may not be left out.
    Full,
}

/// The keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// The newest value of a key.
#[derive(Clone, Copy, Debug)]
struct Newest {
    node: u32,
    /// Replies queued until then, as far as that is known.
    replies: Option<u32>,
}

/// What a slow reader's outbox holds that may go.
///
/// INVARIANT: the tables name nodes of this outbox that are no holes and not handed out, `oldest` in their order.
#[derive(Debug, Default)]
pub(super) struct Watch {
    oldest: VecDeque<u32>,
    latest: HashMap<u64, Newest, BuildHasherDefault<KeyHasher>>,
    /// Replies in the outbox since the watch began. A value does not move over one: the client may have left the channel there.
    replies: u32,
    /// Nodes of the outbox, holes included.
    nodes: usize,
    holes: usize,
    /// Channels of which something was skipped and whose subscriptions were not told yet.
    lost: Vec<u64>,
}

impl Watch {
    #[cold]
    pub(super) fn wrote_reply(&mut self) {
        self.replies = self.replies.wrapping_add(1);
    }

    #[cold]
    pub(super) fn appended(&mut self, node: u32, standing: Standing) {
        self.nodes += 1;
        match standing {
            Standing::Firm => {}
            Standing::Oldest { .. } => self.oldest.push_back(node),
            Standing::Latest { key, .. } => {
                self.latest.insert(key, Newest { node, replies: Some(self.replies) });
            }
        }
    }

    #[cold]
    pub(super) fn freed(&mut self, hole: bool) {
        self.nodes -= 1;
        self.holes -= usize::from(hole);
    }

    /// A node's first byte is in somebody else's hands.
    #[cold]
    pub(super) fn handed_out(&mut self, node: u32, standing: Standing) {
        match standing {
            Standing::Firm => {}
            Standing::Oldest { .. } => {
                if self.oldest.front() == Some(&node) {
                    self.oldest.pop_front();
                }
            }
            Standing::Latest { key, .. } => {
                if self.latest.get(&key).is_some_and(|newest| newest.node == node) {
                    self.latest.remove(&key);
                }
            }
        }
    }
}

impl Outboxes {
    /// Publications left out by `drop_oldest` since the start.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Publications replaced by `conflate` since the start.
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    /// Puts a shared body at the end of an outbox above high water, if need be in place of others.
    pub fn offer(&mut self, outbox: &mut Outbox, body: BodyId, room: Room) -> Offered {
        let (len, standing) = (self.len_of(body), self.bodies[body.0 as usize].standing);
        let fits = |outbox: &Outbox| outbox.backlog() + len <= room.bytes_max;
        if standing != Standing::Firm || !fits(outbox) {
            self.watch(outbox);
        }
        if let Standing::Latest { key, in_place } = standing
            && let Some(newest) = self.watches[outbox.watch as usize].latest.remove(&key)
        {
            self.conflated += 1;
            if in_place && self.replace(outbox, newest, key, body, room) {
                return Offered::Queued;
            }
            self.make_hole(outbox, newest.node);
        }
        if !fits(outbox) {
            self.skip(outbox, room.low_water);
        }
        match standing {
            _ if fits(outbox) => {
                self.push(outbox, body);
                Offered::Queued
            }
            Standing::Oldest { channel } => {
                self.skipped += 1;
                self.dropped += 1;
                let lost = &mut self.watches[outbox.watch as usize].lost;
                if !lost.contains(&channel) {
                    lost.push(channel);
                }
                Offered::Skipped
            }
            Standing::Firm | Standing::Latest { .. } => Offered::Full,
        }
    }

    /// Leaves out the oldest publications that may go until no more than `low_water` waits, or none is left.
    pub fn skip(&mut self, outbox: &mut Outbox, low_water: usize) {
        self.watch(outbox);
        while outbox.backlog() > low_water {
            let Some(node) = self.watches[outbox.watch as usize].oldest.pop_front() else { break };
            if let Standing::Oldest { channel } = self.standing_at(node) {
                self.watches[outbox.watch as usize].lost.push(channel);
            }
            self.skipped += 1;
            self.make_hole(outbox, node);
        }
        let lost = &mut self.watches[outbox.watch as usize].lost;
        lost.sort_unstable();
        lost.dedup();
    }

    /// Leaves out everything of a channel that may go: what its subscription has missed is in front of all of it.
    pub fn skip_channel(&mut self, outbox: &mut Outbox, channel: u64) {
        self.watch(outbox);
        let mut oldest = std::mem::take(&mut self.watches[outbox.watch as usize].oldest);
        oldest.retain(|&node| {
            let stays = self.standing_at(node) != Standing::Oldest { channel };
            if !stays {
                self.skipped += 1;
                self.make_hole(outbox, node);
            }
            stays
        });
        self.watches[outbox.watch as usize].oldest = oldest;
    }

    /// Whether [`Outboxes::next_lost`] has something.
    pub fn has_lost(&self, outbox: &Outbox) -> bool {
        self.watches.get(outbox.watch as usize).is_some_and(|watch| !watch.lost.is_empty())
    }

    /// A channel of which something was skipped, each once.
    pub fn next_lost(&mut self, outbox: &Outbox) -> Option<u64> {
        self.watch_of(outbox)?.lost.pop()
    }

    /// The reader has caught up. Holes stay where they are.
    #[cold]
    pub fn caught_up(&mut self, outbox: &mut Outbox) {
        if outbox.watch != NONE && !self.has_lost(outbox) {
            self.unwatch(outbox);
        }
    }

    pub(super) fn watch_of(&mut self, outbox: &Outbox) -> Option<&mut Watch> {
        self.watches.get_mut(outbox.watch as usize)
    }

    fn standing_at(&self, node: u32) -> Standing {
        self.bodies[self.nodes[node as usize].body as usize].standing
    }

    /// Looks what there is that may go, unless that is known.
    fn watch(&mut self, outbox: &mut Outbox) {
        if outbox.watch != NONE {
            return;
        }
        outbox.watch = self.free_watches.pop().unwrap_or_else(|| {
            self.watches.push(Watch::default());
            (self.watches.len() - 1) as u32
        });
        let mut started = outbox.head_sent as usize + outbox.in_flight as usize;
        let mut at = outbox.head;
        while at != NONE {
            let node = self.nodes[at as usize];
            let watch = &mut self.watches[outbox.watch as usize];
            if node.body == NONE {
                watch.nodes += 1;
                watch.holes += 1;
            } else {
                let body = &self.bodies[node.body as usize];
                let standing = if started > 0 { Standing::Firm } else { body.standing };
                if !body.publication {
                    watch.wrote_reply();
                }
                if let Standing::Latest { key, .. } = standing
                    && let Some(older) = watch.latest.remove(&key)
                {
                    watch.appended(at, standing);
                    self.conflated += 1;
                    self.make_hole_of(outbox, older.node);
                } else {
                    watch.appended(at, standing);
                }
            }
            started = started.saturating_sub(self.len_at(node));
            at = node.next;
        }
    }

    pub(super) fn unwatch(&mut self, outbox: &mut Outbox) {
        let at = std::mem::replace(&mut outbox.watch, NONE);
        let Some(watch) = self.watches.get_mut(at as usize) else { return };
        if watch.oldest.capacity().max(watch.latest.capacity()) > ENTRIES_KEPT_MAX {
            *watch = Watch::default();
        } else {
            let Watch { oldest, latest, replies, nodes, holes, lost } = watch;
            oldest.clear();
            latest.clear();
            lost.clear();
            (*replies, *nodes, *holes) = (0, 0, 0);
        }
        self.free_watches.push(at);
    }

    /// The kernel did not take what was handed out last: these nodes may go again, but for the one it took a part of.
    #[cold]
    pub(super) fn take_back(&mut self, outbox: &mut Outbox, untaken: usize) {
        let mut nodes = std::mem::take(&mut self.taken_back);
        let (mut left, mut skip, mut at) = (untaken, outbox.head_sent as usize, outbox.head);
        while left > 0 && at != NONE {
            let node = self.nodes[at as usize];
            if skip == 0 && node.body != NONE {
                nodes.push(at);
            }
            left = left.saturating_sub(self.len_at(node) - skip);
            skip = 0;
            at = node.next;
        }
        // Newest first: each is in front of all that is known by then.
        for node in nodes.drain(..).rev() {
            let standing = self.standing_at(node);
            let watch = &mut self.watches[outbox.watch as usize];
            match standing {
                Standing::Firm => {}
                Standing::Oldest { .. } => watch.oldest.push_front(node),
                Standing::Latest { key, .. } if watch.latest.contains_key(&key) => {
                    self.conflated += 1;
                    self.make_hole_of(outbox, node);
                }
                Standing::Latest { key, .. } => {
                    watch.latest.insert(key, Newest { node, replies: None });
                }
            }
        }
        self.taken_back = nodes;
    }

    /// Puts a value in the place of an older one. Not where a reply is between them, and not where it does not fit.
    fn replace(&mut self, outbox: &mut Outbox, older: Newest, key: u64, body: BodyId, room: Room) -> bool {
        let old = self.nodes[older.node as usize].body;
        let backlog = outbox.backlog() - self.len_at(self.nodes[older.node as usize]) + self.len_of(body);
        let watch = &mut self.watches[outbox.watch as usize];
        if older.replies != Some(watch.replies) || backlog > room.bytes_max {
            return false;
        }
        // Behind the old one, if it was not compressed, may wait a message that refers to the compressed one before it. There
        // must be none between the two.
        if self.bodies[body.0 as usize].mark.is_some() && self.bodies[old as usize].mark.is_none() {
            return false;
        }
        outbox.forget_mark();
        watch.latest.insert(key, older);
        outbox.bytes = backlog as u32;
        self.nodes[older.node as usize].body = body.0;
        self.hold(body);
        self.dropped += 1;
        self.drop_ref(old);
        true
    }

    /// Lets a node's body go; the node stays until the list has moved on, or until there are too many like it.
    fn make_hole(&mut self, outbox: &mut Outbox, node: u32) {
        self.make_hole_of(outbox, node);
        let Watch { nodes, holes, .. } = self.watches[outbox.watch as usize];
        if holes > HOLES_KEPT_MAX && holes * 2 > nodes {
            self.close_holes(outbox);
        }
    }

    fn make_hole_of(&mut self, outbox: &mut Outbox, node: u32) {
        let body = std::mem::replace(&mut self.nodes[node as usize].body, NONE);
        outbox.forget_mark();
        outbox.bytes -= self.bodies[body as usize].bytes.len() as u32;
        self.watches[outbox.watch as usize].holes += 1;
        self.dropped += 1;
        self.drop_ref(body);
    }

    /// Walks the outbox once for at least half as many holes as there are nodes, each of which a drop has paid for.
    fn close_holes(&mut self, outbox: &mut Outbox) {
        let (mut kept, mut at) = (NONE, outbox.head);
        while at != NONE {
            let node = self.nodes[at as usize];
            if node.body == NONE {
                self.unlink(outbox, kept, at);
                self.watches[outbox.watch as usize].freed(true);
            } else {
                kept = at;
            }
            at = node.next;
        }
        outbox.tail = kept;
    }
}
