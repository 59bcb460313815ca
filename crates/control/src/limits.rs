//! Every limit of the API listener: the defaults of the settings, and the fixed ones.

use std::time::Duration;

/// Connections that one answer of `connections` names; of more the caller is told to ask for less.
pub const CONNECTIONS_LISTED_MAX: usize = 1_000;

/// Bytes of one request body. With [`CONNECTIONS_MAX`] it bounds what bodies can hold in memory: 256 MiB.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Time for a body to arrive: 1 MiB at 0.8 Mbit/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one publication's data. Half of a client's outbox (1 MiB), so that one publication alone never disconnects
/// a client that keeps up.
pub const DATA_BYTES_MAX: usize = 512 * 1024;

const _: () = assert!(DATA_BYTES_MAX <= BODY_BYTES_MAX, "the largest publication must fit a body");

/// Bytes of a channel name, as in Centrifugo.
pub const CHANNEL_BYTES_MAX: usize = 255;

/// Time for the workers to answer. They answer in well under a millisecond; seconds mean that something is wrong.
pub const BACKEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Channels of one `broadcast`.
pub const BROADCAST_CHANNELS_MAX: usize = 10_000;

/// Publications of one `broadcast` that wait for an answer at once. Each holds its own copy of the data.
pub const BROADCAST_IN_FLIGHT_MAX: usize = 64;

/// Channels that `channels` lists; more is an error and not a cut list, since there is no paging to get the rest.
pub const CHANNELS_LISTED_MAX: usize = 100_000;

/// Commands in one body of the legacy `POST /api`.
pub const LEGACY_COMMANDS_MAX: usize = 1_000;

/// Commands of one `batch`.
pub const BATCH_COMMANDS_MAX: usize = 1_000;

/// Commands of one `batch` with `parallel` that run at once.
pub const BATCH_IN_FLIGHT_MAX: usize = 64;

/// Bytes of the answers of one `batch`, above which no further command is run. Those that run at once may exceed it.
pub const BATCH_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Publications of one answer of `history`.
pub const HISTORY_PUBLICATIONS_MAX: usize = 300;

/// Bytes of what their publishers wrote. The answer is cut before the publication that would exceed it.
pub const HISTORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Tags of one publication.
pub const TAGS_MAX: usize = 64;

/// Bytes of a close reason: what fits a close frame beside its code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Client ids in the whitelist of one `disconnect`.
pub const WHITELIST_MAX: usize = 1_000;

/// Bytes of one request head; above it 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of one request; above it 431.
pub const HEADERS_MAX: usize = 64;

/// Time for a request head to arrive, counted from the connection's start or the previous answer; so it also ends
/// connections that are kept alive unused.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time a peer may take no byte of an answer.
pub const WRITE_STALL: Duration = Duration::from_secs(10);

/// Time for the peer to close after us, during which its bytes are discarded. Closing with unread bytes resets the
/// connection and can destroy the answer (a 413) before it is read.
pub const LINGER: Duration = Duration::from_millis(500);

/// Connections of the API listeners together; above it 503.
pub const CONNECTIONS_MAX: usize = 256;

/// Connections over the limit that are being told so at once; further ones are closed without a word.
pub const REFUSALS_MAX: usize = 32;

/// Time for requests under way to finish after the shutdown was asked for.
pub const GRACE: Duration = Duration::from_secs(5);
