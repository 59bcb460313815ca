//! Wakes a loop at an instant, to some tens of microseconds. Epoll's own timeout counts in milliseconds and is rounded up, which
//! would add half a millisecond to every latency that is measured against an intended time.

use io::{Clock, Wake};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Nothing is due.
const NEVER: u64 = u64::MAX;
/// The thread is to end.
const OVER: u64 = u64::MAX - 1;

/// A thread that sleeps until the instant and then wakes the loop; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Nanoseconds since the clock's origin.
    due: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    pub(super) fn start(clock: Clock, wake: Wake) -> std::io::Result<Alarm> {
        let due = Arc::new(AtomicU64::new(NEVER));
        let shared = Arc::clone(&due);
        let thread = std::thread::Builder::new().name("alarm".to_owned()).spawn(move || run(clock, &wake, &shared))?;
        Ok(Alarm { due, thread: Some(thread) })
    }

    /// Wakes the loop at `at`, and not at the instant set before.
    pub(super) fn set(&self, at: Duration) {
        let at = u64::try_from(at.as_nanos()).unwrap_or(OVER - 1).min(OVER - 1);
        if self.due.swap(at, SeqCst) != at {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.due.store(OVER, SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that could panic.
            let _ = thread.join();
        }
    }
}

fn run(clock: Clock, wake: &Wake, due: &AtomicU64) {
    loop {
        // An `unpark` between the load and the park makes the park return at once, so no change is slept over.
        let at = due.load(SeqCst);
        let now = clock.now().as_nanos() as u64;
        match at {
            OVER => return,
            NEVER => std::thread::park(),
            at if at > now => std::thread::park_timeout(Duration::from_nanos(at - now)),
            at => {
                // Only if it still stands: the loop may have set the next one meanwhile.
                let _ = due.compare_exchange(at, NEVER, SeqCst, SeqCst);
                wake.wake();
            }
        }
    }
}
