//! The memory that a worker's TLS connections use in turn.

/// A buffer given back keeps its allocation up to this size: one send.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// All buffers waiting to be lent keep at most this much.
const KEPT_TOTAL_MAX: usize = 4 * 1024 * 1024;

/// Buffers for what has arrived and for what is sealed, lent to connections while they hold something, and one for plaintext on
/// its way through.
#[derive(Debug, Default)]
pub struct Records {
    spare: Vec<Vec<u8>>,
    /// Capacity of these.
    spare_bytes: usize,
    plain: Vec<u8>,
}

impl Records {
    /// Bytes that wait to be lent, for checks.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    /// An empty buffer.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer
    }

    /// `buffer`, exchanged for one with memory if it is empty.
    pub(super) fn lent<'a>(&mut self, buffer: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
        if buffer.capacity() == 0 {
            *buffer = self.lend();
        }
        buffer
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if bytes == 0 || bytes > KEPT_BYTES_MAX || self.spare_bytes + bytes > KEPT_TOTAL_MAX {
            return;
        }
        buffer.clear();
        self.spare_bytes += bytes;
        self.spare.push(buffer);
    }

    /// The buffer for plaintext, empty.
    pub(super) fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }

    /// Takes it back.
    pub(super) fn put_plain(&mut self, mut plain: Vec<u8>) {
        plain.clear();
        if plain.capacity() <= 2 * KEPT_BYTES_MAX {
            self.plain = plain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut records = Records::default();
        for _ in 0..1000 {
            records.give_back(Vec::with_capacity(KEPT_BYTES_MAX));
        }
        assert!(records.spare_bytes() <= KEPT_TOTAL_MAX);
        assert!(records.spare_bytes() > KEPT_TOTAL_MAX / 2);
        records.give_back(Vec::with_capacity(KEPT_BYTES_MAX + 1));
        let mut lent = 0;
        while records.spare_bytes() > 0 {
            lent += records.lend().capacity();
        }
        assert!(lent <= KEPT_TOTAL_MAX);
        assert_eq!(records.lend().capacity(), 0);
    }
}
