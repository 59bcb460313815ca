//! What waits to be sent: per connection a list of small nodes, per worker the bodies they point at.
//!
//! A publication's frame is one shared body however many connections it goes to; a connection's part of it is a node
//! of 8 bytes. Replies go to private bodies that grow while they wait, so that a burst of pipelined replies is one
//! body and one send. In steady state nothing is allocated: nodes and bodies are taken from and returned to free lists.

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
    /// A policy may drop it.
    publication: bool,
    /// Next free body, valid while `refs` is 0.
    next_free: u32,
}

/// One connection's queue: the head of its list and how far the head has gone out. 20 bytes.
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
}

const _: () = assert!(size_of::<Outbox>() == 20);

impl Default for Outbox {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, bytes: 0, head_sent: 0, in_flight: 0 }
    }
}

impl Outbox {
    /// Bytes waiting (the backlog), shared bodies counted in full.
    pub fn backlog(&self) -> usize {
        self.bytes as usize
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
    /// Nodes dropped unsent since the start.
    dropped: u64,
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
            dropped: 0,
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
        fill(&mut body.bytes);
        BodyId(id)
    }

    /// The same for a part of replies: no policy drops it, because bytes around it depend on it.
    pub fn part(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> BodyId {
        let body = self.shared(fill);
        self.bodies[body.0 as usize].publication = false;
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
        if outbox.tail != NONE {
            let body = &mut self.bodies[self.nodes[outbox.tail as usize].body as usize];
            if body.private && body.bytes.len() < PRIVATE_BYTES_MAX {
                let before = body.bytes.len();
                fill(&mut body.bytes);
                outbox.bytes += (body.bytes.len() - before) as u32;
                return;
            }
        }
        let id = self.take_body();
        let body = &mut self.bodies[id as usize];
        body.private = true;
        body.publication = false;
        fill(&mut body.bytes);
        let len = body.bytes.len();
        body.refs = 1;
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
            let bytes = &self.bodies[node.body as usize].bytes[skip..];
            let taken = take(bytes);
            outbox.in_flight += taken as u32;
            if taken < bytes.len() {
                break;
            }
            skip = 0;
            at = node.next;
        }
    }

    /// The kernel took `bytes` of what was gathered; bodies sent to their end are let go.
    pub fn sent(&mut self, outbox: &mut Outbox, bytes: usize) {
        debug_assert!(bytes <= outbox.in_flight as usize, "more sent than gathered");
        outbox.in_flight = 0;
        outbox.bytes -= bytes as u32;
        let mut left = bytes + outbox.head_sent as usize;
        while outbox.head != NONE {
            let node = self.nodes[outbox.head as usize];
            let len = self.bodies[node.body as usize].bytes.len();
            if left < len {
                break;
            }
            left -= len;
            self.free_first(outbox, node);
        }
        outbox.head_sent = left as u32;
        debug_assert!(outbox.head != NONE || outbox.bytes == 0);
    }

    /// Drops the publications of which no byte has been handed out. Replies stay (the answer to the handshake may be among
    /// them), and so does what is partly sent or in flight: the stream must remain whole for the close frame that follows.
    pub fn drop_publications(&mut self, outbox: &mut Outbox) {
        let mut started = outbox.head_sent as usize + outbox.in_flight as usize;
        let (mut kept, mut at) = (NONE, outbox.head);
        while at != NONE {
            let Node { body, next } = self.nodes[at as usize];
            let len = self.bodies[body as usize].bytes.len();
            if started > 0 || !self.bodies[body as usize].publication {
                kept = at;
            } else {
                match kept {
                    NONE => outbox.head = next,
                    before => self.nodes[before as usize].next = next,
                }
                outbox.bytes -= len as u32;
                self.free_node_at(at);
            }
            started = started.saturating_sub(len);
            at = next;
        }
        outbox.tail = kept;
    }

    /// Drops everything: the connection is gone.
    pub fn clear(&mut self, outbox: &mut Outbox) {
        let mut at = outbox.head;
        while at != NONE {
            at = self.free_node_at(at);
        }
        *outbox = Outbox::default();
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
            let tail = &mut self.nodes[outbox.tail as usize];
            tail.next = at;
            self.bodies[tail.body as usize].private = false;
        }
        outbox.tail = at;
        outbox.bytes += len as u32;
    }

    fn free_first(&mut self, outbox: &mut Outbox, node: Node) {
        let first = outbox.head;
        outbox.head = node.next;
        if outbox.head == NONE {
            outbox.tail = NONE;
        }
        self.nodes[first as usize].next = self.free_node;
        self.free_node = first;
        self.drop_ref(node.body);
    }

    /// Frees a node and its reference; returns the node behind it.
    fn free_node_at(&mut self, at: u32) -> u32 {
        let Node { body, next } = self.nodes[at as usize];
        self.dropped += 1;
        self.nodes[at as usize].next = self.free_node;
        self.free_node = at;
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

    fn drop_ref(&mut self, id: u32) {
        let body = &mut self.bodies[id as usize];
        body.refs -= 1;
        if body.refs > 0 {
            return;
        }
        self.bodies_in_use -= 1;
        let capacity = body.bytes.capacity();
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
mod tests {
    use super::*;

    /// Gathers up to `room` bytes and reports `taken` of them as sent; returns those.
    fn send(boxes: &mut Outboxes, outbox: &mut Outbox, room: usize, taken: usize) -> Vec<u8> {
        let mut out = Vec::new();
        boxes.gather(outbox, |bytes| {
            let n = bytes.len().min(room - out.len());
            out.extend_from_slice(&bytes[..n]);
            n
        });
        out.truncate(taken);
        boxes.sent(outbox, out.len());
        out
    }

    #[test]
    fn bytes_come_out_in_order_under_every_short_write() {
        for room in 1..12 {
            for taken in 0..=room {
                let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
                let shared = boxes.shared(|b| b.extend_from_slice(b"shared"));
                boxes.write(&mut outbox, |b| b.extend_from_slice(b"one"));
                boxes.write(&mut outbox, |b| b.extend_from_slice(b"two"));
                boxes.push(&mut outbox, shared);
                boxes.write(&mut outbox, |b| b.extend_from_slice(b"three"));
                boxes.release(shared);
                assert_eq!(outbox.backlog(), 17);
                let mut all = send(&mut boxes, &mut outbox, room, taken);
                while !outbox.is_empty() {
                    all.extend(send(&mut boxes, &mut outbox, room, room));
                }
                assert_eq!(all, b"onetwosharedthree", "room {room}, taken {taken}");
                assert_eq!(boxes.bodies_in_use(), 0);
            }
        }
    }

    #[test]
    fn a_burst_of_replies_is_one_body() {
        let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
        for _ in 0..100 {
            boxes.write(&mut outbox, |b| b.extend_from_slice(b"reply"));
        }
        assert_eq!(boxes.bodies_in_use(), 1);
        assert_eq!(outbox.backlog(), 500);
    }

    #[test]
    fn a_reply_behind_a_publication_does_not_grow_the_one_before_it() {
        let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
        let shared = boxes.shared(|b| b.extend_from_slice(b"P"));
        boxes.write(&mut outbox, |b| b.extend_from_slice(b"a"));
        boxes.push(&mut outbox, shared);
        boxes.write(&mut outbox, |b| b.extend_from_slice(b"b"));
        assert_eq!(send(&mut boxes, &mut outbox, 9, 9), b"aPb");
    }

    #[test]
    fn dropping_keeps_what_has_started_and_what_is_in_flight() {
        let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
        for text in [b"aaaa", b"bbbb", b"cccc"] {
            let body = boxes.shared(|b| b.extend_from_slice(text));
            boxes.push(&mut outbox, body);
            boxes.release(body);
        }
        assert_eq!(send(&mut boxes, &mut outbox, 2, 2), b"aa");
        // Three bytes in flight reach into the second body.
        let mut room = 3;
        boxes.gather(&mut outbox, |b| {
            let n = b.len().min(room);
            room -= n;
            n
        });
        boxes.drop_publications(&mut outbox);
        assert_eq!(outbox.backlog(), 6);
        boxes.write(&mut outbox, |b| b.push(b'!'));
        boxes.sent(&mut outbox, 3);
        assert_eq!(send(&mut boxes, &mut outbox, 9, 9), b"bbb!");
        assert_eq!(boxes.bodies_in_use(), 0);
    }

    #[test]
    fn dropping_leaves_replies_where_they_are() {
        for order in ["rprpp", "pprrp", "ppp", "rrr", "r", "p"] {
            let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
            for (i, kind) in order.bytes().enumerate() {
                let text = [kind, b'0' + i as u8];
                if kind == b'r' {
                    boxes.write(&mut outbox, |b| b.extend_from_slice(&text));
                } else {
                    let body = boxes.shared(|b| b.extend_from_slice(&text));
                    boxes.push(&mut outbox, body);
                    boxes.release(body);
                }
            }
            boxes.drop_publications(&mut outbox);
            boxes.write(&mut outbox, |b| b.extend_from_slice(b"close"));
            let replies: String =
                order.char_indices().filter(|(_, kind)| *kind == 'r').map(|(i, kind)| format!("{kind}{i}")).collect();
            assert_eq!(send(&mut boxes, &mut outbox, 64, 64), format!("{replies}close").as_bytes(), "{order}");
            assert_eq!(boxes.dropped(), order.matches('p').count() as u64);
            assert_eq!(boxes.bodies_in_use(), 0);
        }
    }

    #[test]
    fn steady_state_reuses_nodes_and_bodies() {
        let mut boxes = Outboxes::default();
        let mut outboxes: Vec<Outbox> = (0..50).map(|_| Outbox::default()).collect();
        for _ in 0..100 {
            let body = boxes.shared(|b| b.extend_from_slice(b"publication"));
            outboxes.iter_mut().for_each(|o| boxes.push(o, body));
            boxes.release(body);
            for o in &mut outboxes {
                assert_eq!(send(&mut boxes, o, 64, 64), b"publication");
            }
        }
        assert_eq!((boxes.nodes.len(), boxes.bodies.len()), (50, 1));
    }
}
