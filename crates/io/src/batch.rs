//! The bytes of one send, gathered from an outbox.

/// The most bytes that one send carries. Larger sends gain nothing (the per-call cost is long amortised) and let one
/// connection hold the flush phase.
pub const SEND_BYTES_MAX: usize = 64 * 1024;

/// A reusable buffer that a handler appends to; sent with one contiguous send.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty batch; its one allocation is made here.
    #[must_use]
    pub fn new() -> Batch {
        Batch { bytes: Vec::with_capacity(SEND_BYTES_MAX) }
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
        SEND_BYTES_MAX - self.bytes.len()
    }

    /// How many bytes were appended.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing was appended.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was appended.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
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
}
