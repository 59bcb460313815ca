//! Where batches of receives put their bytes.

/// Receives of one batch.
pub(super) const RECVS: usize = 128;

/// The largest chunk. Smaller than epoll's, since there are many; a peer that sends more gets further turns in the same
/// tick.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Bytes between two buffers. Buffers at multiples of a power of two would all have their first bytes, the ones that small
/// messages use, in the same few sets of the processor's cache.
const GAP: usize = 3 * 64;

/// One receive buffer for each turn of a batch, always used from the first on, so that the ones in use stay in the cache.
///
/// Plain buffers named in each receive, not a ring of provided ones: nothing here is ever armed, so the kernel need not
/// choose a buffer later, and none can run out.
pub(super) struct Buffers {
    memory: Box<[u8]>,
    chunk: usize,
}

impl Buffers {
    /// `recv_bytes` is the largest chunk that the handler wants. Untouched buffers cost no memory.
    pub(super) fn new(recv_bytes: usize) -> Buffers {
        let chunk = recv_bytes.clamp(1, CHUNK_BYTES_MAX);
        Buffers { memory: vec![0; RECVS * (chunk + GAP)].into_boxed_slice(), chunk }
    }

    /// The size of each.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// The buffer of a turn.
    pub(super) fn at(&mut self, turn: usize) -> &mut [u8] {
        let start = turn * (self.chunk + GAP);
        &mut self.memory[start..start + self.chunk]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_has_a_buffer_of_its_own() {
        let mut buffers = Buffers::new(1000);
        (0..RECVS).for_each(|turn| buffers.at(turn).fill(turn as u8));
        for turn in 0..RECVS {
            assert!(buffers.at(turn).len() == 1000 && buffers.at(turn).iter().all(|byte| *byte == turn as u8));
        }
        assert_eq!(Buffers::new(0).chunk(), 1);
        assert_eq!(Buffers::new(usize::MAX).chunk(), CHUNK_BYTES_MAX);
    }
}
