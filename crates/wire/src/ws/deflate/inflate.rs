//! Compressed messages to what they were (RFC 7692, 7.2.2).
//!
//! The output is written behind the history in one buffer, so that what a final block makes the inflater forget, and
//! what is to be kept for the next message, are both simply the end of what is there.

use super::FLUSH_TAIL;
use crate::limits::FINAL_BLOCKS_MAX;
use crate::ws::extension::{Direction, WINDOW_BITS_MAX};
use std::fmt;
use zlib_rs::{Inflate, InflateFlush, Status};

/// An empty final block: a stream that is fed it ends, with no further output, exactly if it was between two blocks.
const END: [u8; 2] = [0x03, 0x00];

/// The least that the buffer grows by.
const GROWTH_BYTES_MIN: usize = 4096;

/// Inflates messages of any number of connections, one after another.
///
/// Its buffer grows to the largest message that came, at most the limit that the caller names, and stays.
pub struct Inflater {
    inflate: Inflate,
    /// History, then output; initialised as far as it ever was used.
    buffer: Vec<u8>,
    /// End of the output.
    filled: usize,
    counts: Counts,
}

/// What an [`Inflater`] has read, and what it was before it was compressed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Messages that were good.
    pub messages: u64,
    /// Their payloads as they came.
    pub bytes_before: u64,
    /// Their payloads inflated.
    pub bytes_after: u64,
}

/// The last bytes that a peer sent in compressed messages.
#[derive(Default, Debug)]
pub(crate) struct History {
    bytes: Vec<u8>,
}

/// Why a compressed message has no meaning, or none that is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InflateError {
    /// Not the output of a compressor, or not all of it.
    Corrupt,
    /// Longer than permitted.
    TooLong,
    /// More than [`FINAL_BLOCKS_MAX`] blocks say that they are the last.
    FinalBlocks,
}

impl Inflater {
    /// Allocates some 50 KB once.
    pub fn new() -> Inflater {
        Inflater {
            inflate: Inflate::new(false, WINDOW_BITS_MAX),
            buffer: Vec::new(),
            filled: 0,
            counts: Counts::default(),
        }
    }

    /// What was read since it was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The message in `compressed`, the payload of all its frames, and keeps of it what the next one may refer to.
    pub(crate) fn message(
        &mut self,
        compressed: &[u8],
        direction: Direction,
        history: &mut Option<Box<History>>,
        message_bytes_max: usize,
    ) -> Result<&[u8], InflateError> {
        let before = history.as_ref().map_or(&[][..], |history| &history.bytes);
        let start = before.len();
        if self.buffer.len() < start {
            self.buffer.resize(start, 0);
        }
        self.buffer[..start].copy_from_slice(before);
        self.filled = start;
        self.begin();
        // Other implementations take a message without a single byte for an empty one.
        if !compressed.is_empty() {
            // One byte more than permitted proves that the message is too long, whatever follows.
            self.run(compressed, start.saturating_add(message_bytes_max).saturating_add(1))?;
        }
        if self.filled > start && !direction.forgets() {
            let keep = self.filled.min(direction.history_bytes_max());
            history.get_or_insert_default().replace(&self.buffer[self.filled - keep..self.filled], direction);
        }
        self.counts.messages += 1;
        self.counts.bytes_before += compressed.len() as u64;
        self.counts.bytes_after += (self.filled - start) as u64;
        Ok(&self.buffer[start..self.filled])
    }

    /// A new stream, whose window is what has been put out.
    fn begin(&mut self) {
        self.inflate.reset(false);
        let window = self.filled.min(1 << WINDOW_BITS_MAX);
        if window > 0 {
            let dictionary = &self.buffer[self.filled - window..self.filled];
            self.inflate.set_dictionary(dictionary).expect("an inflater without a header takes one at any time");
        }
    }

    /// Inflates the whole message, up to `end` in the buffer.
    fn run(&mut self, compressed: &[u8], end: usize) -> Result<(), InflateError> {
        let mut rest = compressed;
        let mut final_blocks = 0;
        loop {
            if self.feed(&mut rest, end)? {
                // A block said that it is the last one. What follows is a new stream with the same window (7.2.3.4).
                final_blocks += 1;
                if rest.is_empty() {
                    return Ok(());
                }
                if final_blocks > FINAL_BLOCKS_MAX {
                    return Err(InflateError::FinalBlocks);
                }
                self.begin();
            } else {
                break;
            }
        }
        let mut tail = &FLUSH_TAIL[..];
        if self.feed(&mut tail, end)? {
            return Err(InflateError::Corrupt);
        }
        // A message that was cut short goes on into whatever follows it, and might by chance find an end there.
        let (mut proof, filled) = (&END[..], self.filled);
        let ended = self.feed(&mut proof, end)? && proof.is_empty() && self.filled == filled;
        if ended { Ok(()) } else { Err(InflateError::Corrupt) }
    }

    /// Inflates until a final block ends (`true`) or all of `input` is consumed (`false`).
    fn feed(&mut self, input: &mut &[u8], end: usize) -> Result<bool, InflateError> {
        loop {
            self.make_room(end);
            let room_end = self.buffer.len().min(end);
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status =
                self.inflate.decompress(input, &mut self.buffer[self.filled..room_end], InflateFlush::SyncFlush);
            *input = &input[(self.inflate.total_in() - read) as usize..];
            self.filled += (self.inflate.total_out() - written) as usize;
            if self.filled == end {
                return Err(InflateError::TooLong);
            }
            match status {
                Ok(Status::StreamEnd) => return Ok(true),
                // More output may wait, which only room can tell.
                Ok(Status::Ok | Status::BufError) if self.filled == room_end => {}
                Ok(Status::Ok | Status::BufError) if input.is_empty() => return Ok(false),
                _ => return Err(InflateError::Corrupt),
            }
        }
    }

    /// Sees to it that there is room behind the output, which ends before `end`.
    fn make_room(&mut self, end: usize) {
        if self.buffer.len() == self.filled {
            let doubled = self.filled.saturating_mul(2).max(self.filled + GROWTH_BYTES_MIN);
            let len = doubled.min(end);
            self.buffer.reserve_exact(len - self.filled);
            self.buffer.resize(len, 0);
        }
    }
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("buffer_bytes", &self.buffer.capacity()).finish_non_exhaustive()
    }
}

impl History {
    fn replace(&mut self, bytes: &[u8], direction: Direction) {
        self.bytes.clear();
        if self.bytes.capacity() < bytes.len() {
            // Doubling up to the window: few steps, and no room that can never be used.
            let doubled = self.bytes.capacity().saturating_mul(2);
            self.bytes.reserve_exact(bytes.len().max(doubled).min(direction.history_bytes_max()));
        }
        self.bytes.extend_from_slice(bytes);
    }
}
