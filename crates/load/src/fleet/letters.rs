//! What the conductor tells a loop, and what comes back.

use io::Wake;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An order to a loop. Its time is the same for all loops, whenever they come to read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Letter {
    /// The measured part begins.
    Go {
        /// When, since the clock's origin.
        at: Duration,
    },
    /// The measured part has ended; more may come that is not measured.
    Measured,
    /// Nothing new is begun; what is under way may end.
    Finish,
    /// Leave, politely, at the rate of the opening, and end the thread.
    Close {
        /// When the first one leaves, since the clock's origin.
        at: Duration,
    },
}

/// News from a loop. Each comes at most once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Every client is ready or has failed.
    Opened,
    /// After [`Letter::Finish`]: everything that was awaited has come, or the time for it is over.
    Settled,
    /// Not one client is left.
    Empty,
    /// The thread has ended.
    Over,
}

impl Event {
    /// How many there are; [`Event::Over`] is the last.
    pub(crate) const COUNT: usize = Event::Over as usize + 1;
}

/// A loop's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Letters {
    queue: Arc<Mutex<VecDeque<Letter>>>,
    pub(super) wake: Wake,
}

impl Letters {
    /// To be made by the main thread, before the first loop has a table of descriptors of its own.
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

/// A number that one thread writes and others read.
#[derive(Default, Debug)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Without a locked instruction: there is one writer.
    pub(super) fn add(&self, more: u64) {
        self.set(self.load() + more);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// What a loop shows while it runs. Written by its thread alone.
#[derive(Default, Debug)]
#[repr(align(128))] // two loops' gauges share no cache line
pub(crate) struct Gauges {
    /// Clients that became ready, ever.
    pub(crate) opened: Gauge,
    /// Clients that are ready now.
    pub(crate) ready: Gauge,
    /// Clients that never became ready.
    pub(crate) failed: Gauge,
    /// Clients that were ready and were lost.
    pub(crate) lost: Gauge,
    /// Messages or publications received.
    pub(crate) received: Gauge,
    /// Pings received.
    pub(crate) pings: Gauge,
    /// Nanoseconds that the loop has worked, waiting not included.
    pub(crate) busy_ns: Gauge,
}

/// The gauges of all loops together, as of some moment not long ago.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Reading {
    pub(crate) opened: u64,
    pub(crate) ready: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) received: u64,
    pub(crate) pings: u64,
}

impl Reading {
    pub(crate) fn of(loops: &[Arc<Gauges>]) -> Reading {
        let sum = |gauge: fn(&Gauges) -> &Gauge| loops.iter().map(|gauges| gauge(gauges).load()).sum();
        Reading {
            opened: sum(|gauges| &gauges.opened),
            ready: sum(|gauges| &gauges.ready),
            failed: sum(|gauges| &gauges.failed),
            lost: sum(|gauges| &gauges.lost),
            received: sum(|gauges| &gauges.received),
            pings: sum(|gauges| &gauges.pings),
        }
    }
}

/// How many clients of a fleet are ready, over all its loops.
#[derive(Default, Debug)]
pub(crate) struct Census {
    ready: AtomicU64,
    most: AtomicU64,
}

impl Census {
    pub(super) fn came(&self) {
        let ready = self.ready.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(ready, Relaxed);
    }

    pub(super) fn left(&self) {
        self.ready.fetch_sub(1, Relaxed);
    }

    /// The most that were ready at one time.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }
}
