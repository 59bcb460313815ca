//! Limits of the whole process, and how much a client may send.

use super::Rules;
use crate::config::Config;
use crate::config::values::{Bytes, Ceiling};

/// The process itself takes some 20 MiB, and its threads as much again when there is something to do.
const MEMORY_BYTES_MIN: Bytes = Bytes::mib(64);

/// Rates and bursts of bytes are counted in 32 bits.
const BYTES_LIMIT: Bytes = Bytes::mib(1024);

pub(super) fn check(rules: &mut Rules<'_>, config: &Config) {
    if let Ceiling::Fixed(bytes) = config.workers.memory_bytes_max {
        rules.holds(
            &["workers.memory_bytes_max"],
            bytes.get() == 0 || bytes >= MEMORY_BYTES_MIN,
            || format!("{bytes} is less than {MEMORY_BYTES_MIN}, below which nobody could be let in"),
            "write 0 for no ceiling, or \"auto\"",
        );
    }
    let client = &config.client;
    rules.count("client.messages_per_second", client.messages_per_second.into(), 0, 100_000);
    rules.count("client.messages_burst", client.messages_burst.into(), 1, 1 << 20);
    if client.bytes_per_second.get() > 0 {
        rules.within("client.bytes_per_second", client.bytes_per_second, &(Bytes::kib(1)..=BYTES_LIMIT));
    }
    rules.within("client.bytes_burst", client.bytes_burst, &(Bytes::kib(1)..=BYTES_LIMIT));
    let bursts = [
        (
            "client.messages_burst",
            u64::from(client.messages_burst),
            "client.messages_per_second",
            u64::from(client.messages_per_second),
        ),
        (
            "client.bytes_burst",
            client.bytes_burst.get() as u64,
            "client.bytes_per_second",
            client.bytes_per_second.get() as u64,
        ),
    ];
    for (burst_key, burst, rate_key, rate) in bursts {
        rules.holds(
            &[burst_key, rate_key],
            burst >= rate / 2,
            || format!("{burst} is less than half of {rate_key}, which is {rate}"),
            "a pause can last 300 ms: with a smaller burst a client would not get the rate",
        );
    }
}
