//! `[compression]`.

use super::values::{Bytes, whole};
use serde::{Deserialize, Serialize};

/// `[compression]`: permessage-deflate on the public listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// It is agreed to where a client offers it.
    pub enabled: bool,
    /// How hard, 1 to 9.
    #[serde(deserialize_with = "whole")]
    pub level: u32,
    /// Publications are also compressed after the one before in their channel.
    pub after_previous: bool,
    /// Shorter publications go as they are.
    pub publication_bytes_min: Bytes,
    /// Shorter replies go as they are.
    pub reply_bytes_min: Bytes,
    /// Bytes of publications that a worker keeps for `after_previous`.
    pub previous_bytes_max: Bytes,
    /// Bytes that a worker reserves for what its clients' compressed messages refer to.
    pub client_history_bytes_max: Bytes,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            enabled: false,
            level: 6,
            after_previous: true,
            publication_bytes_min: Bytes::new(64),
            reply_bytes_min: Bytes::new(256),
            previous_bytes_max: Bytes::mib(16),
            client_history_bytes_max: Bytes::mib(64),
        }
    }
}
