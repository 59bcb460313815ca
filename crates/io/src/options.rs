//! What a driver can be told at its start.

use std::time::Duration;

/// Settings of one driver.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections open at the same time. One more is accepted, gets `full_answer` when it has begun to send, or after a
    /// second, and is closed. Up to [`REFUSED_MAX`](crate::REFUSED_MAX) descriptors beside these are used for that.
    pub connections_max: usize,
    /// How long [`How::Flush`](crate::How::Flush) may take to send, and then again to wait for the peer's FIN.
    pub linger: Duration,
    /// Size of the worker's one receive buffer, and so of the largest chunk given to
    /// [`Handler::received`](crate::Handler::received).
    pub recv_bytes: usize,
    /// What a connection over the limit is sent before it is closed. Keep it below a few hundred bytes: it is sent
    /// with one send that is not repeated. Empty: it is closed without a word.
    pub full_answer: Vec<u8>,
    /// How much one tick does.
    pub budgets: Budgets,
    /// Cap of the kernel's send buffer of each connection (`SO_SNDBUF`; the kernel doubles it). `None`: its own tuning.
    pub send_buffer_max: Option<usize>,
    /// How long sent bytes may stay unacknowledged before the kernel breaks the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// How long to poll for events before going to sleep. Costs that much CPU per sleep, saves the 20-35 µs that waking
    /// an idle core takes.
    pub spin: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections_max: 10_000,
            linger: Duration::from_secs(5),
            recv_bytes: 64 * 1024,
            full_answer: Vec::new(),
            budgets: Budgets::default(),
            send_buffer_max: None,
            user_timeout: None,
            spin: Duration::ZERO,
        }
    }
}

/// How much each phase of one tick does at most; the rest goes on in the next tick, which does not wait. The defaults
/// keep a tick of small messages near 1 ms. Counts, not times, so that the simulator replays them exactly.
///
/// Letters have no entry: [`Handler::woken`](crate::Handler::woken) bounds itself and calls [`Io::again`](crate::Io::again).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Receive calls.
    pub reads: u32,
    /// Bytes received.
    pub read_bytes: usize,
    /// Deadlines reported.
    pub deadlines: u32,
    /// Connections flushed. More than `reads`, so that replies alone cannot starve broadcasts.
    pub sends: u32,
    /// Bytes sent.
    pub send_bytes: usize,
    /// Connections accepted (or refused); a budget of its own, spent after the established connections were served.
    pub accepts: u32,
    /// Outbound connects begun.
    pub connects: u32,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            reads: 256,
            read_bytes: 1024 * 1024,
            deadlines: 256,
            sends: 512,
            send_bytes: 2 * 1024 * 1024,
            accepts: 64,
            connects: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_get_a_share_of_the_flush_even_when_every_read_makes_a_reply() {
        let budgets = Budgets::default();
        assert!(budgets.sends >= budgets.reads * 2);
    }
}
