//! permessage-deflate (RFC 7692): one [`Compressor`] and one [`Inflater`] for all connections of a thread.
//!
//! A compression context per connection costs 137 to 380 KB. Nobody needs one here. What a server sends refers
//! either to nothing before it (*alone*), or to exactly one message before it (*after*), which went to many
//! connections: so one compression serves them all, and a connection remembers in its [`Marks`] which message its
//! client saw last. What a client sends may refer to what it sent before, so of clients that do send compressed
//! messages the last bytes are kept, in the [`crate::ws::Reader`].

mod inflate;
mod marks;

pub use inflate::{Counts, Inflater};
pub(super) use inflate::{History, InflateError};
pub use marks::{HistoryBudget, Mark, MarkSource, Marks};

use super::extension::WINDOW_BITS_MAX;
use std::fmt;
use zlib_rs::{Deflate, DeflateFlush, Status};

/// What a short text can grow by when it is compressed: the head and the end of its block, and the place for the
/// empty one that senders leave out.
pub const START_BYTES: usize = 6;

/// Ends what a compressor was made to flush; senders leave it out (7.2.1).
const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How hard to compress, 1 (fast) to 9 (small).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Level(u8);

impl Level {
    /// A level; `None` outside 1 to 9.
    pub const fn new(level: u8) -> Option<Level> {
        if matches!(level, 1..=9) { Some(Level(level)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Level {
    /// 6, as zlib.
    fn default() -> Level {
        Level(6)
    }
}

/// Compresses messages for any number of connections, one after another.
///
/// ```
/// use wire::ws::deflate::{Compressor, Level, MarkSource, Previous, START_BYTES};
/// use wire::ws::{self, OpCode};
///
/// let mut compressor = Compressor::new(Level::default());
/// let mut marks = MarkSource::default();
/// let (first, second) = (marks.draw(), marks.draw());
/// let (one, two) = (r#"{"bid":101.25,"ask":101.50,"size":7}"#, r#"{"bid":101.25,"ask":101.75,"size":7}"#);
///
/// let mut alone = Vec::new();
/// compressor.compress(two.as_bytes(), None, two.len() + START_BYTES, &mut alone).expect("a start may cost something");
/// let mut after = Vec::new();
/// let previous = Previous { mark: first, payload: one.as_bytes() };
/// let compressed = compressor.compress(two.as_bytes(), Some(previous), two.len() - 1, &mut after);
/// let compressed = compressed.expect("it gets smaller");
/// assert!(after.len() < alone.len());
/// // `compressed` says which connections can read it; see `Marks::accepts`. They get it as a frame:
/// let mut frame = Vec::new();
/// ws::write_compressed_header(&mut frame, OpCode::Text, after.len(), None);
/// frame.extend_from_slice(&after);
/// # let _ = (second, compressed);
/// ```
pub struct Compressor {
    deflate: Deflate,
    level: Level,
}

/// The message that a compressed one refers to.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// Its identity.
    pub mark: Mark,
    /// Its payload before compression.
    pub payload: &'a [u8],
}

/// Who can read a compressed message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compressed {
    /// The receiver must keep a window of so many bits.
    window_bits: u8,
    /// The message it refers to.
    after: Option<Mark>,
}

impl Compressor {
    /// Allocates some 300 KB once, so that no message allocates anything.
    pub fn new(level: Level) -> Compressor {
        Compressor { deflate: new(level), level }
    }

    /// Compresses a message and appends the payload of the one frame that carries it, for which
    /// [`super::write_compressed_header`] writes the header. With `previous` it may refer to that message.
    ///
    /// `None`, and nothing is appended, if that takes more than `bytes_max`: the message is then sent as it is. One
    /// byte less than the message has is the natural maximum, with one exception: the first of many short messages,
    /// which alone do not shrink, has to be compressed even so, or no later one can refer to it. [`START_BYTES`] more
    /// than the message are enough for that if it is ASCII of up to 4 KiB; what is not text had better go as it is.
    pub fn compress(
        &mut self,
        message: &[u8],
        previous: Option<Previous<'_>>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Compressed> {
        self.deflate.reset();
        let reach = message.len() + previous.map_or(0, |previous| previous.payload.len());
        if let Some(previous) = previous {
            self.deflate.set_dictionary(previous.payload).expect("a compressor that was just reset takes one");
        }
        let start = out.len();
        // The stream is always ended, then judged. A reset forgets how much output waits but not where it begins
        // (zlib-rs 0.6.8, `Pending::reset_keep`), so streams that are given up eat the buffer until it panics.
        out.resize(start + room_for(message.len()), 0);
        let status = self.deflate.compress(message, &mut out[start..], DeflateFlush::SyncFlush);
        let end = start + self.deflate.total_out() as usize;
        if status != Ok(Status::Ok) || end == out.len() || !out[start..end].ends_with(&FLUSH_TAIL) {
            debug_assert!(false, "{status:?}, {} bytes of {}", end - start, message.len());
            self.deflate = new(self.level);
            out.truncate(start);
            return None;
        }
        if end - FLUSH_TAIL.len() - start > bytes_max {
            out.truncate(start);
            return None;
        }
        out.truncate(end - FLUSH_TAIL.len());
        Some(Compressed { window_bits: bits_for(reach), after: previous.map(|previous| previous.mark) })
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

fn new(level: Level) -> Deflate {
    Deflate::new(i32::from(level.get()), false, WINDOW_BITS_MAX)
}

/// More than any message of this length takes: level 1 knows only the fixed code, which has up to nine bits for a byte;
/// the others store what does not shrink.
fn room_for(len: usize) -> usize {
    len + len / 8 + 64
}

/// The least window in which nothing of `reach` bytes is too far back. The compressor never looks back further than
/// the widest, whatever `reach` is.
fn bits_for(reach: usize) -> u8 {
    (8..WINDOW_BITS_MAX).find(|&bits| reach <= 1 << bits).unwrap_or(WINDOW_BITS_MAX)
}
