//! The bytes of one send, gathered from an outbox.

/// The most bytes that one send carries. Larger sends gain nothing (the per-call cost is long amortised) and let one
/// connection hold the flush phase.
pub const SEND_BYTES_MAX: usize = 64 * 1024;

/// The most sends of different connections that are gathered before they are done.
pub(crate) const SENDS_MAX: usize = 512;

/// A reusable buffer that a handler appends to; sent with one contiguous send.
///
/// A driver that sends for many connections at a time has their bytes in one buffer, one behind the other. What a handler
/// sees of it is the part of its own connection.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the present connection's bytes begin.
    start: usize,
    /// How many were set aside.
    sealed: usize,
    capacity: usize,
}

impl Batch {
    /// An empty batch; its one allocation is made here.
    #[must_use]
    pub fn new() -> Batch {
        Batch::for_sends_of(SEND_BYTES_MAX)
    }

    /// An empty batch that holds the sends of many connections, `capacity` bytes in all.
    pub(crate) fn for_sends_of(capacity: usize) -> Batch {
        assert!(capacity >= SEND_BYTES_MAX, "one send must fit");
        Batch { bytes: Vec::with_capacity(capacity), start: 0, sealed: 0, capacity }
    }

    /// Appends as much of `bytes` as there is room for and says how much that was.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// How many more bytes fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        SEND_BYTES_MAX - self.len()
    }

    /// How many bytes were appended.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Nothing was appended.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was appended.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Sets the present connection's bytes aside and begins with the next one's. Tells where they lie in
    /// [`Batch::all`].
    pub(crate) fn seal(&mut self) -> std::ops::Range<usize> {
        let sealed = self.start..self.bytes.len();
        self.start = sealed.end;
        self.sealed += 1;
        sealed
    }

    /// Whether another connection's send fits behind those set aside.
    pub(crate) fn takes_another(&self) -> bool {
        self.capacity - self.start >= SEND_BYTES_MAX && self.sealed < SENDS_MAX
    }

    /// The bytes of all connections.
    pub(crate) fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the bytes of all connections.
    pub(crate) fn reset(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.sealed = 0;
    }

    /// Overwrites all bytes, so that whoever reads them after the send was completed reads garbage.
    pub(crate) fn poison(&mut self) {
        self.bytes.fill(0xdb);
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_takes_what_fits_and_no_more() {
        let mut batch = Batch::new();
        assert_eq!(batch.push(&vec![1; SEND_BYTES_MAX - 1]), SEND_BYTES_MAX - 1);
        assert_eq!(batch.room(), 1);
        assert_eq!(batch.push(b"ab"), 1);
        assert_eq!((batch.room(), batch.push(b"c"), batch.len()), (0, 0, SEND_BYTES_MAX));
        assert_eq!(batch.bytes().last(), Some(&b'a'));
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn sealed_sends_lie_one_behind_the_other_and_never_move() {
        let mut batch = Batch::for_sends_of(3 * SEND_BYTES_MAX);
        let memory = batch.all().as_ptr();
        batch.push(b"one");
        assert_eq!(batch.seal(), 0..3);
        assert!(batch.is_empty() && batch.room() == SEND_BYTES_MAX);
        batch.push(b"dropped");
        batch.clear();
        batch.push(b"second");
        assert_eq!(batch.bytes(), b"second");
        assert_eq!(batch.seal(), 3..9);
        assert_eq!(batch.all(), b"onesecond");
        let mut sends = 2;
        while batch.takes_another() {
            batch.push(&vec![7; SEND_BYTES_MAX]);
            batch.seal();
            sends += 1;
        }
        assert_eq!(sends, 4, "two short sends and two of the largest");
        assert_eq!(batch.all().as_ptr(), memory, "the buffer was reserved whole");
        batch.reset();
        assert!(batch.is_empty() && batch.takes_another());
    }
}
