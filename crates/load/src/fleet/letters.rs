//! What the conductor tells a fleet, and what comes back.

use io::Wake;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// An order to a fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Letter {
    /// The measured part begins.
    Go,
    /// Nothing new is begun; what is under way may end.
    Finish,
    /// Leave, politely, and end the thread.
    Close,
}

/// News from a fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Every client is ready or has failed.
    Opened,
    /// After [`Letter::Finish`]: everything that was awaited has come, or the time for it is over.
    Settled,
    /// Not one client is left.
    Empty,
}

/// The fleet's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Letters {
    queue: Arc<Mutex<VecDeque<Letter>>>,
    pub(super) wake: Wake,
}

impl Letters {
    pub(crate) fn new() -> std::io::Result<Letters> {
        Ok(Letters { queue: Arc::default(), wake: Wake::new()? })
    }

    pub(crate) fn post(&self, letter: Letter) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(letter);
        self.wake.wake();
    }

    pub(super) fn take(&self) -> Option<Letter> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// What a fleet shows while it runs. Written by its thread alone.
#[derive(Default, Debug)]
pub(crate) struct Gauges {
    /// Clients that became ready, ever.
    pub(crate) opened: AtomicU64,
    /// Clients that are ready now.
    pub(crate) ready: AtomicU64,
    /// Clients that never became ready.
    pub(crate) failed: AtomicU64,
    /// Clients that were ready and were lost.
    pub(crate) lost: AtomicU64,
    /// Messages or publications received.
    pub(crate) received: AtomicU64,
    /// Pings received.
    pub(crate) pings: AtomicU64,
    /// Nanoseconds that the loop has worked, waiting not included.
    pub(crate) busy_ns: AtomicU64,
}
