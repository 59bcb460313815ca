//! What `world.rs` wants of the tests that it is part of.

/// The channels of a world.
pub(crate) const CHANNELS: [&str; 3] = ["a", "b", "ns:c"];
