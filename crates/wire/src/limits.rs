//! Every maximum that keeps a peer from growing our memory or our work, with its default.
//!
//! Those a deployment may want to change are fields of [`crate::ws::Limits`] and
//! [`crate::http::HeadLimits`]; the others are fixed here.

/// Bytes of one WebSocket message, all its fragments together.
///
/// Clients send commands, which are small; a publication travels the same way, so this also bounds
/// what one client may publish.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Frames one WebSocket message may be cut into; empty ones count.
///
/// Without it a peer could keep a message open for ever with empty fragments.
pub const FRAGMENTS_MAX: u32 = 1024;

/// Bytes of one HTTP head: request line, headers and the empty line.
///
/// Browsers send all their cookies for the host; 8 KiB is a common limit on those alone.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers in one HTTP head. Also the size of the table that [`crate::http::Request`] holds, so a
/// larger value in [`crate::http::HeadLimits`] means this one.
pub const HEADERS_MAX: usize = 64;

/// Bytes of the target in the request line; tokens may travel in the query.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Bytes of chunk extensions and trailers in one chunked body, all together; they are skipped.
pub const BODY_OVERHEAD_BYTES_MAX: u16 = 4 * 1024;

/// Bits of window asked of clients whose compression takes a limit: 1 KiB is kept of what each sent.
///
/// Without a limit it would be 32 KiB. What clients send is small, and repeats itself within less.
pub const CLIENT_WINDOW_BITS: u8 = 10;

/// Bytes of what clients sent that one thread keeps so that their next messages can be inflated; a default for
/// [`crate::ws::deflate::HistoryBudget`]. Room for 65,536 clients that take a limit, or 2,048 that do not.
pub const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Blocks of one compressed message that may say they are the last one. A sender has a use for one per fragment at
/// most, and each makes us set up a window anew: two bytes of input for up to 32 KiB of copying.
pub const FINAL_BLOCKS_MAX: u32 = 128;

const _: () =
    assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "a target of the permitted length must leave room for headers");
