//! The claims, each run on every driver.

mod closing;
mod limits;
mod traffic;

use std::time::Duration;

use io::Closed;
use io::epoll::Epoll;
use io::uring::Uring;

use crate::harness::Ended;
use crate::real::{Real, Tcp, Unix};
use crate::simulated::{Calm, Late, SEED, Simulated, Storm};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Bytes in which a lost, doubled or swapped one shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

macro_rules! claims {
    ($($module:ident, $harness:ty, $seeds:expr, $reset:expr, $told:expr;)*) => {$(
        mod $module {
            use super::*;

            fn on_every_seed(claim: fn()) {
                let seeds: Vec<u64> = match std::env::var("IO_SEED") {
                    Ok(seed) => vec![seed.parse().expect("IO_SEED is a number")],
                    Err(_) => (0..$seeds).collect(),
                };
                for seed in seeds {
                    SEED.set(seed);
                    if let Err(panic) = std::panic::catch_unwind(claim) {
                        eprintln!("replay with IO_SEED={seed}");
                        std::panic::resume_unwind(panic);
                    }
                }
            }

            #[test]
            fn reset_is_a_reset() {
                on_every_seed(|| closing::reset_is_a_reset::<$harness>($reset));
            }

            #[test]
            fn flush_resets_a_peer_that_takes_nothing() {
                on_every_seed(|| closing::flush_resets_a_peer_that_takes_nothing::<$harness>($reset));
            }

            #[test]
            fn a_reset_by_the_peer_is_told() {
                on_every_seed(|| closing::a_reset_by_the_peer_is_told::<$harness>(&$told));
            }

            claims!(@each $harness, traffic:
                echo_returns_every_byte
                fragmented_input_arrives_in_order
                more_input_than_the_buffer_is_read_to_its_end
                input_that_came_during_a_pause_is_received_after_it
                resume_without_a_pause_changes_nothing
                a_slow_reader_gets_all_bytes_in_short_sends
                a_blocked_connection_still_receives
                many_connections_keep_their_bytes_apart
                churn_reuses_slots_and_loses_nothing
            );
            claims!(@each $harness, closing:
                a_half_closed_client_gets_its_response
                a_fin_alone_closes_nothing
                flush_sends_everything_then_fin
                finish_sends_everything_and_awaits_no_fin
                finish_discards_what_waits_to_be_received_and_does_not_reset
                finish_in_the_midst_of_more_input_does_not_reset
                flush_of_a_paused_connection_sees_the_peers_fin
                flush_waits_for_the_peers_fin_no_longer_than_linger
                a_harsher_close_overtakes_a_flush
                now_closes_at_once
                a_connection_can_be_closed_inside_any_call
                a_stale_id_does_nothing_to_the_next_tenant
                shutdown_reports_every_connection
                an_outbound_connection_works_like_an_accepted_one
                a_failed_connect_is_closed_without_being_opened
            );
            claims!(@each $harness, limits:
                a_deadline_fires_once_and_not_early
                an_alarm_wakes_the_driver_and_again_does_not_wait
                a_full_worker_answers_and_closes
                refused_connections_do_not_linger_for_ever
                a_refused_client_is_answered_behind_the_first_of_its_request
                a_refused_client_that_has_nothing_to_ask_is_answered_at_once
                stop_accepting_serves_the_queue_first
                replies_flush_before_broadcasts_and_both_in_order
                the_smallest_budgets_starve_nobody
                enough_ends_the_reads_of_a_tick_and_the_next_goes_on
                a_look_receives_out_of_turn_and_says_where_nothing_waits
                a_look_at_who_has_left_says_nothing
            );
        }
    )*};
    (@each $harness:ty, $group:ident: $($claim:ident)*) => {$(
        #[test]
        fn $claim() {
            on_every_seed($group::$claim::<$harness>);
        }
    )*};
}

claims! {
    epoll_tcp, Real<Epoll, Tcp>, 1, Ended::Reset, [Closed::Reset];
    // Unix sockets know no RST: the peer sees the end of the stream, or EPIPE when it sends.
    epoll_unix, Real<Epoll, Unix>, 1, Ended::Fin, [Closed::ByPeer, Closed::ByUs];
    uring_tcp, Real<Uring, Tcp>, 1, Ended::Reset, [Closed::Reset];
    uring_unix, Real<Uring, Unix>, 1, Ended::Fin, [Closed::ByPeer, Closed::ByUs];
    sim_calm, Simulated<Calm>, 1, Ended::Reset, [Closed::Reset];
    sim_late, Simulated<Late>, 1, Ended::Reset, [Closed::Reset];
    sim_storm, Simulated<Storm>, 20, Ended::Reset, [Closed::Reset];
}
