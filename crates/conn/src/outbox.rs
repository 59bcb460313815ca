//! What waits to be sent: per connection a list of small nodes, per worker the bodies they point at.
//!
//! A publication's frame is one shared body however many connections it goes to; a connection's part of it is a node
//! of 8 bytes. Replies go to private bodies that grow while they wait, so that a burst of pipelined replies is one
//! body and one send. In steady state nothing is allocated: nodes and bodies are taken from and returned to free lists.
//!
//! What happens to publications for a client that reads too slowly is in [`slow`]; a client that keeps up pays one compare
//! for it.

pub mod slow;

use crate::compression::Agreed;
use slow::Watch;
use wire::ws::deflate::Mark;

/// Index that means "none" in the lists below.
const NONE: u32 = u32::MAX;

/// A private body stops growing here, so that one connection's burst does not become one huge allocation.
const PRIVATE_BYTES_MAX: usize = 32 * 1024;

/// A free body keeps its allocation up to this size; larger ones go back to the allocator.
const KEPT_BYTES_MAX: usize = 32 * 1024;

/// All free bodies of a worker together keep at most this much.
const KEPT_TOTAL_MAX: usize = 8 * 1024 * 1024;

/// A body shared by any number of outboxes. Holding the number does not keep the body alive; [`Outboxes::hold`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyId(u32);

/// How a publication may go that waits for a client that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It stays until it is sent, or until the connection is closed.
    #[default]
    Firm,
    /// It may be skipped, the oldest of its kind first, when the outbox is full.
    Oldest {
        /// The channel that has a gap then, by its [`channel_key`](crate::IdSource::channel_key). Not by its number here: that
        /// may be another channel's by the time.
        channel: u64,
    },
    /// A later one with the same key replaces it.
    Latest {
        /// What the two have in common; made once per publication, unlikely enough to be met by chance.
        key: u64,
        /// The later one may take the other's place, so that a value which changes often is not always the last to be sent.
        /// Only where nothing else of its channel can wait between the two.
        in_place: bool,
    },
}

/// A node whose body is [`NONE`] is a *hole*: its publication was dropped, and it goes with the nodes in front of it.
#[derive(Debug, Clone, Copy)]
struct Node {
    body: u32,
    next: u32,
}

#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    /// Nodes pointing here, plus one for each hold. 0: on the free list.
    refs: u32,
    /// Only one outbox points here, as its last node, so replies may still be appended.
    private: bool,
    /// It goes when its reader is disconnected as slow.
    publication: bool,
    /// What its namespace's policy may do with it.
    standing: Standing,
    /// It is one compressed message, which others may refer to by this.
    mark: Option<Mark>,
    /// Next free body, valid while `refs` is 0.
    next_free: u32,
}

/// One connection's queue: the head of its list and how far the head has gone out. 32 bytes.
#[derive(Debug)]
pub struct Outbox {
    head: u32,
    tail: u32,
    /// Bytes waiting, those in flight included.
    bytes: u32,
    /// Bytes of the head body that the kernel has taken.
    head_sent: u32,
    /// Bytes handed out by `gather` and not yet reported by `sent`.
    in_flight: u32,
    /// Its entry in [`Outboxes::watches`], while its reader is slow and a policy may act.
    watch: u32,
    /// What was agreed about compression, and which compressed message is the last one here. Kept here so that nothing can
    /// be dropped without its being noticed.
    agreed: Option<Agreed>,
}

const _: () = assert!(size_of::<Outbox>() == 32);

impl Default for Outbox {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, bytes: 0, head_sent: 0, in_flight: 0, watch: NONE, agreed: None }
    }
}

impl Outbox {
    /// Bytes waiting (the backlog), shared bodies counted in full.
    pub fn backlog(&self) -> usize {
        self.bytes as usize
    }

    /// Whether what may go of it is known, as it is once a policy may have to act.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch != NONE
    }

    /// What was agreed about compression.
    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// The connection may be sent compressed messages from now on.
    pub(crate) fn agree(&mut self, agreed: Agreed) {
        self.agreed = Some(agreed);
    }

    /// The next compressed message does not follow one that others can refer to: a reply was put in between, or something
    /// that waited was left out.
    pub(crate) fn forget_mark(&mut self) {
        if let Some(agreed) = &mut self.agreed {
            agreed.marks.forget();
        }
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// The node and body store of one worker.
#[derive(Debug)]
pub struct Outboxes {
    nodes: Vec<Node>,
    free_node: u32,
    bodies: Vec<Body>,
    free_body: u32,
    /// Capacity kept by free bodies, in bytes.
    kept_bytes: usize,
    bodies_in_use: usize,
    /// Memory of the bodies alive, in bytes.
    held_bytes: usize,
    /// Nodes dropped unsent since the start.
    dropped: u64,
    /// Of the outboxes whose readers are slow. Entries nobody uses are kept for the next one, and are empty.
    watches: Vec<Watch>,
    free_watches: Vec<u32>,
    /// Memory reused from one short send to the next.
    taken_back: Vec<u32>,
    skipped: u64,
    conflated: u64,
}

impl Default for Outboxes {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free_node: NONE,
            bodies: Vec::new(),
            free_body: NONE,
            kept_bytes: 0,
            bodies_in_use: 0,
            held_bytes: 0,
            dropped: 0,
            watches: Vec::new(),
            free_watches: Vec::new(),
            taken_back: Vec::new(),
            skipped: 0,
            conflated: 0,
        }
    }
}

impl Outboxes {
    /// Makes a shared body with `fill` and holds it once; give the hold back with [`Outboxes::release`].
    pub fn shared(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> BodyId {
        let id = self.take_body();
        let body = &mut self.bodies[id as usize];
        body.refs = 1;
        body.private = false;
        body.publication = true;
        body.standing = Standing::Firm;
        body.mark = None;
        fill(&mut body.bytes);
        self.held_bytes += body.bytes.capacity();
        BodyId(id)
    }

    /// The same for a part of replies: no policy drops it, because bytes around it depend on it.
    pub fn part(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> BodyId {
        let body = self.shared(fill);
        self.bodies[body.0 as usize].publication = false;
        body
    }

    /// The same for a publication that its namespace's policy may drop.
    pub fn shared_as(&mut self, standing: Standing, fill: impl FnOnce(&mut Vec<u8>)) -> BodyId {
        let body = self.shared(fill);
        self.bodies[body.0 as usize].standing = standing;
        body
    }

    /// The same for one that is a compressed message.
    pub(crate) fn shared_compressed(
        &mut self,
        standing: Standing,
        mark: Mark,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> BodyId {
        let body = self.shared_as(standing, fill);
        self.bodies[body.0 as usize].mark = Some(mark);
        body
    }

    /// One more hold on a body that is alive.
    pub fn hold(&mut self, body: BodyId) {
        self.bodies[body.0 as usize].refs += 1;
    }

    /// Gives back one hold.
    pub fn release(&mut self, body: BodyId) {
        self.drop_ref(body.0);
    }

    /// Length of a live body in bytes.
    pub fn len_of(&self, body: BodyId) -> usize {
        self.bodies[body.0 as usize].bytes.len()
    }

    /// Bodies alive, for metrics and leak checks.
    pub fn bodies_in_use(&self) -> usize {
        self.bodies_in_use
    }

    /// Memory of the bodies alive, in bytes; what is shared is counted once.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Entries dropped unsent since the start: with a connection that died, or of a slow one.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Puts a shared body at the end of an outbox.
    pub fn push(&mut self, outbox: &mut Outbox, body: BodyId) {
        let len = self.len_of(body);
        if len == 0 {
            return;
        }
        self.bodies[body.0 as usize].refs += 1;
        self.append_node(outbox, body.0, len);
    }

    /// Writes private bytes at the end of an outbox; appends to the last body where that is private too.
    pub fn write(&mut self, outbox: &mut Outbox, fill: impl FnOnce(&mut Vec<u8>)) {
        if let Some(watch) = self.watch_of(outbox) {
            watch.wrote_reply();
        }
        if let Some(body) = self.last_body(outbox).filter(|body| body.private && body.bytes.len() < PRIVATE_BYTES_MAX) {
            let (before, capacity) = (body.bytes.len(), body.bytes.capacity());
            fill(&mut body.bytes);
            outbox.bytes += (body.bytes.len() - before) as u32;
            let grown = body.bytes.capacity() - capacity;
            self.held_bytes += grown;
            return;
        }
        let id = self.take_body();
        let body = &mut self.bodies[id as usize];
        body.private = true;
        body.publication = false;
        body.standing = Standing::Firm;
        body.mark = None;
        fill(&mut body.bytes);
        let len = body.bytes.len();
        body.refs = 1;
        self.held_bytes += body.bytes.capacity();
        if len == 0 {
            self.drop_ref(id);
            return;
        }
        self.append_node(outbox, id, len);
    }

    /// Hands the waiting bytes to `take`, oldest first, until it takes less than it is offered. Not to be called again
    /// before [`Outboxes::sent`] has reported.
    pub fn gather(&mut self, outbox: &mut Outbox, mut take: impl FnMut(&[u8]) -> usize) {
        debug_assert_eq!(outbox.in_flight, 0, "a second gather before the first was reported");
        let mut skip = outbox.head_sent as usize;
        let mut at = outbox.head;
        while at != NONE {
            let node = self.nodes[at as usize];
            // A hole's body is out of bounds: the check that indexing makes anyhow finds it.
            if let Some(body) = self.bodies.get(node.body as usize) {
                let bytes = &body.bytes[skip..];
                let taken = take(bytes);
                outbox.in_flight += taken as u32;
                if outbox.watch != NONE && taken > 0 {
                    self.watches[outbox.watch as usize].handed_out(at, body.standing);
                }
                if taken < bytes.len() {
                    break;
                }
                skip = 0;
            }
            at = node.next;
        }
    }

    /// The kernel took `bytes` of what was gathered; bodies sent to their end are let go.
    pub fn sent(&mut self, outbox: &mut Outbox, bytes: usize) {
        debug_assert!(bytes <= outbox.in_flight as usize, "more sent than gathered");
        let untaken = outbox.in_flight as usize - bytes;
        outbox.in_flight = 0;
        outbox.bytes -= bytes as u32;
        let mut left = bytes + outbox.head_sent as usize;
        while outbox.head != NONE {
            let node = self.nodes[outbox.head as usize];
            let len = self.len_at(node);
            if left < len {
                break;
            }
            left -= len;
            self.free_first(outbox, node);
        }
        outbox.head_sent = left as u32;
        debug_assert!(outbox.head != NONE || outbox.bytes == 0);
        if untaken > 0 && outbox.watch != NONE {
            self.take_back(outbox, untaken);
        }
    }

    /// Drops the publications of which no byte has been handed out. Replies stay (the answer to the handshake may be among
    /// them), and so does what is partly sent or in flight: the stream must remain whole for the close frame that follows.
    pub fn drop_publications(&mut self, outbox: &mut Outbox) {
        let mut started = outbox.head_sent as usize + outbox.in_flight as usize;
        let (mut kept, mut at) = (NONE, outbox.head);
        while at != NONE {
            let node = self.nodes[at as usize];
            let len = self.len_at(node);
            let is_kept = node.body != NONE && (started > 0 || !self.bodies[node.body as usize].publication);
            if is_kept {
                kept = at;
            } else {
                self.unlink(outbox, kept, at);
            }
            started = started.saturating_sub(len);
            at = node.next;
        }
        outbox.tail = kept;
        // What stays is firm, or in flight and out of the watch's hands.
        self.unwatch(outbox);
    }

    /// Drops everything: the connection is gone.
    pub fn clear(&mut self, outbox: &mut Outbox) {
        let mut at = outbox.head;
        while at != NONE {
            at = self.free_node_at(at);
        }
        self.unwatch(outbox);
        *outbox = Outbox::default();
    }

    /// Drops everything that waits, also what is half sent: the connection is about to be reset.
    pub(crate) fn drop_all(&mut self, outbox: &mut Outbox) {
        let agreed = outbox.agreed.take();
        self.clear(outbox);
        outbox.agreed = agreed;
    }

    /// Length of what a node points at; a hole has none.
    fn len_at(&self, node: Node) -> usize {
        self.bodies.get(node.body as usize).map_or(0, |body| body.bytes.len())
    }

    fn last_body(&mut self, outbox: &Outbox) -> Option<&mut Body> {
        let last = self.nodes.get(outbox.tail as usize)?.body;
        self.bodies.get_mut(last as usize)
    }

    /// Takes a node that was not sent out of the list; `before` is the one in front of it. The tail is the caller's.
    fn unlink(&mut self, outbox: &mut Outbox, before: u32, at: u32) {
        let node = self.nodes[at as usize];
        outbox.forget_mark();
        outbox.bytes -= self.len_at(node) as u32;
        match before {
            NONE => outbox.head = node.next,
            before => self.nodes[before as usize].next = node.next,
        }
        self.free_node_at(at);
    }

    fn append_node(&mut self, outbox: &mut Outbox, body: u32, len: usize) {
        let node = Node { body, next: NONE };
        let at = if self.free_node == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let at = self.free_node;
            self.free_node = self.nodes[at as usize].next;
            self.nodes[at as usize] = node;
            at
        };
        if outbox.tail == NONE {
            outbox.head = at;
        } else {
            // A body that is no longer the last one must not grow.
            if let Some(last) = self.last_body(outbox) {
                last.private = false;
            }
            self.nodes[outbox.tail as usize].next = at;
        }
        outbox.tail = at;
        outbox.bytes += len as u32;
        if let Some(agreed) = &mut outbox.agreed
            && let Some(mark) = self.bodies[body as usize].mark
        {
            agreed.marks.sent(mark);
        }
        if outbox.watch != NONE {
            self.watches[outbox.watch as usize].appended(at, self.bodies[body as usize].standing);
        }
    }

    fn free_first(&mut self, outbox: &mut Outbox, node: Node) {
        let first = outbox.head;
        outbox.head = node.next;
        if outbox.head == NONE {
            outbox.tail = NONE;
        }
        self.nodes[first as usize].next = self.free_node;
        self.free_node = first;
        if outbox.watch != NONE {
            self.watches[outbox.watch as usize].freed(node.body == NONE);
        }
        self.drop_ref(node.body);
    }

    /// Frees a node and its reference; returns the node behind it.
    fn free_node_at(&mut self, at: u32) -> u32 {
        let Node { body, next } = self.nodes[at as usize];
        self.nodes[at as usize].next = self.free_node;
        self.free_node = at;
        self.dropped += u64::from(body != NONE);
        self.drop_ref(body);
        next
    }

    fn take_body(&mut self) -> u32 {
        self.bodies_in_use += 1;
        if self.free_body == NONE {
            self.bodies.push(Body::default());
            return (self.bodies.len() - 1) as u32;
        }
        let id = self.free_body;
        let body = &mut self.bodies[id as usize];
        self.free_body = body.next_free;
        self.kept_bytes -= body.bytes.capacity();
        id
    }

    /// One node or hold less; nothing for a hole.
    fn drop_ref(&mut self, id: u32) {
        let Some(body) = self.bodies.get_mut(id as usize) else { return };
        body.refs -= 1;
        if body.refs > 0 {
            return;
        }
        self.bodies_in_use -= 1;
        let capacity = body.bytes.capacity();
        self.held_bytes -= capacity;
        if capacity > KEPT_BYTES_MAX || self.kept_bytes + capacity > KEPT_TOTAL_MAX {
            body.bytes = Vec::new();
        } else {
            body.bytes.clear();
            self.kept_bytes += capacity;
        }
        body.next_free = self.free_body;
        self.free_body = id;
    }
}

#[cfg(test)]
mod tests;
