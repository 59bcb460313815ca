//! Limits of the whole process.

use super::Rules;
use crate::config::Config;
use crate::config::values::{Bytes, Ceiling};

/// The process itself takes some 20 MiB, and its threads as much again when there is something to do.
const MEMORY_BYTES_MIN: Bytes = Bytes::mib(64);

pub(super) fn check(rules: &mut Rules<'_>, config: &Config) {
    if let Ceiling::Fixed(bytes) = config.workers.memory_bytes_max {
        rules.holds(
            &["workers.memory_bytes_max"],
            bytes.get() == 0 || bytes >= MEMORY_BYTES_MIN,
            || format!("{bytes} is less than {MEMORY_BYTES_MIN}, below which nobody could be let in"),
            "write 0 for no ceiling, or \"auto\"",
        );
    }
}
