//! What became of calls.

use super::Fault;
use crate::metrics::WebhookSample;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Outcome {
    /// An answer that counts.
    Ok,
    /// An answer that is none.
    Ill,
    /// [`Fault::Status`]
    Status,
    /// [`Fault::TooLarge`]
    TooLarge,
    /// [`Fault::Timeout`]
    Timeout,
    /// [`Fault::Unreachable`]
    Unreachable,
    /// [`Fault::Down`]
    Down,
    /// [`Fault::Busy`]
    Busy,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::Ill,
        Outcome::Status,
        Outcome::TooLarge,
        Outcome::Timeout,
        Outcome::Unreachable,
        Outcome::Down,
        Outcome::Busy,
    ];

    /// Its name in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Ill => "ill",
            Outcome::Status => "status",
            Outcome::TooLarge => "too_large",
            Outcome::Timeout => "timeout",
            Outcome::Unreachable => "unreachable",
            Outcome::Down => "down",
            Outcome::Busy => "busy",
        }
    }
}

impl From<&Fault> for Outcome {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Down => Outcome::Down,
            Fault::Busy => Outcome::Busy,
            Fault::Timeout => Outcome::Timeout,
            Fault::Unreachable(_) => Outcome::Unreachable,
            Fault::Status(_) => Outcome::Status,
            Fault::TooLarge => Outcome::TooLarge,
        }
    }
}

/// Calls about one event since the start.
#[derive(Debug, Default)]
pub struct Counts {
    ended: [AtomicU64; Outcome::ALL.len()],
    micros: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn count(&self, outcome: Outcome, took: Duration) {
        self.ended[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// As `/metrics` shows it.
    pub fn sample(&self, event: &'static str) -> WebhookSample {
        let ended = Outcome::ALL.map(|outcome| (outcome.word(), self.ended[outcome as usize].load(Ordering::Relaxed)));
        let time = Duration::from_micros(self.micros.load(Ordering::Relaxed));
        WebhookSample { event, ended: ended.to_vec(), time }
    }
}
