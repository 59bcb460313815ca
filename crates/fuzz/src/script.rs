//! What `world.rs` wants of the tests that it is part of.

use conn::settings::Compression;
use wire::ws::deflate::Level;

/// The channels of a world.
pub(crate) const CHANNELS: [&str; 3] = ["a", "b", "ns:c"];

/// Compresses whatever a client takes so.
pub(crate) const COMPRESSION: Compression = Compression {
    level: Level::new(6).unwrap(),
    reply_bytes_min: 1,
    publication_bytes_min: 1,
    after_previous: true,
    previous_bytes_max: 1 << 16,
    client_history_bytes_max: 1 << 16,
};
