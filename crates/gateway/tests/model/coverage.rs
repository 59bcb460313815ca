//! What happened in the worlds, so that what never did is noticed.

use io::sim::Counts;
use std::ops::AddAssign;

/// What happened, summed over seeds: what never happened was never tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pub seen: Seen,
    pub net: Counts,
    pub published: u64,
    pub publishes_refused: u64,
    pub letters_refused: u64,
    pub withdrawals_waited: u64,
    pub deaths_while_pending: u64,
    pub deaths: u64,
    pub slots_reused: u64,
    pub clock_jumps: u64,
    pub slow_readers: u64,
    pub complete_subscriptions: u64,
    pub resets_by_us: u64,
    pub channels_evicted: u64,
    pub channels_emptied: u64,
    pub histories_cut: u64,
    pub recoveries_too_large: u64,
    pub recoveries_shared: u64,
    /// Only where they are lost on purpose.
    pub deliveries_lost: u64,
    pub skipped: u64,
    pub conflated: u64,
    /// Times that presence was held against the clients' subscriptions, and clients found present then.
    pub quiet_points: u64,
    pub present: u64,
    pub join_leave_skipped: u64,
    pub slow_by_firm: u64,
    pub slow_by_conflated: u64,
    pub compressed_alone: u64,
    pub compressed_after: u64,
    pub compressed_replies: u64,
    pub compressed_by_clients: u64,
    pub compression_refused: u64,
    /// Only over TLS: handshakes, those shortened by a ticket, and those that failed.
    pub tls_handshakes: u64,
    pub tls_resumed: u64,
    pub tls_failed: u64,
    /// Questions to the backend, those that it did not answer, and connections that it prolonged.
    pub backend_asked: u64,
    pub backend_silent: u64,
    pub backend_renewed: u64,
}

/// What clients have seen, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub subscribed: u64,
    pub connects_refused: u64,
    pub subscribes_refused: u64,
    pub unsubscribed: u64,
    pub left_while_pending: u64,
    pub publications: u64,
    pub joins: u64,
    pub leaves: u64,
    pub publications_in_protobuf: u64,
    pub patches: u64,
    pub inflated: u64,
    /// Missing between two that came, by what may be.
    pub missed_oldest: u64,
    pub missed_but_the_newest: u64,
    pub publishes_refused: u64,
    pub pings: u64,
    pub closed_slow: u64,
    pub closed_otherwise: u64,
    pub recovered: u64,
    pub recovered_publications: u64,
    pub gaps_by_size: u64,
    pub gaps_by_time: u64,
    pub gaps_by_epoch: u64,
    pub gaps_by_room: u64,
    /// Subscriptions that we ended because something was missing.
    pub told_of_gaps: u64,
    /// Of these, because the client read too slowly; and how many of them recovered what was skipped.
    pub told_of_skips: u64,
    pub recovered_from_skips: u64,
}

macro_rules! counters {
    ($($($field:ident).+),*; only summed: $($($summed:ident).+),* $(,)?) => {
        impl Coverage {
            /// What never happened.
            pub fn missing(&self) -> Vec<&'static str> {
                [$((stringify!($($field).+), self.$($field).+)),*]
                    .into_iter()
                    .filter_map(|(name, count)| (count == 0).then_some(name))
                    .collect()
            }
        }

        impl AddAssign for Coverage {
            fn add_assign(&mut self, other: Self) {
                $(self.$($field).+ += other.$($field).+;)*
                $(self.$($summed).+ += other.$($summed).+;)*
            }
        }
    };
}

counters!(
    seen.subscribed,
    seen.connects_refused,
    seen.subscribes_refused,
    seen.unsubscribed,
    seen.left_while_pending,
    seen.publications,
    seen.joins,
    seen.leaves,
    seen.publications_in_protobuf,
    seen.patches,
    seen.inflated,
    seen.missed_oldest,
    seen.missed_but_the_newest,
    seen.told_of_skips,
    seen.recovered_from_skips,
    seen.publishes_refused,
    seen.pings,
    seen.closed_slow,
    seen.closed_otherwise,
    seen.recovered,
    seen.recovered_publications,
    seen.gaps_by_size,
    seen.gaps_by_time,
    seen.gaps_by_epoch,
    seen.gaps_by_room,
    channels_evicted,
    channels_emptied,
    histories_cut,
    recoveries_too_large,
    recoveries_shared,
    net.split_reads,
    net.short_writes,
    net.full_windows,
    net.late_completions,
    net.orphaned_completions,
    net.poisoned,
    net.resets,
    net.no_memory,
    net.stalls,
    published,
    publishes_refused,
    letters_refused,
    withdrawals_waited,
    deaths_while_pending,
    deaths,
    slots_reused,
    clock_jumps,
    slow_readers,
    complete_subscriptions,
    resets_by_us,
    skipped,
    conflated,
    quiet_points,
    present,
    join_leave_skipped,
    slow_by_firm,
    slow_by_conflated,
    compressed_alone,
    compressed_after,
    compressed_replies,
    compressed_by_clients,
    compression_refused,
    backend_asked,
    backend_silent,
    backend_renewed;
    only summed: seen.told_of_gaps, deliveries_lost, tls_handshakes, tls_resumed, tls_failed,
);
