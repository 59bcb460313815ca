//! Waking a worker that sleeps, without a system call while it does not.
//!
//! The two sides race: a sender puts a letter into a mailbox and looks whether the worker sleeps; the worker announces
//! that it sleeps and looks whether a letter is there. Each side writes one thing and then reads the other's, so both
//! need a full fence in between; then at least one of them sees the other, and no letter is left lying beside a sleeping
//! worker. Without the fences both reads may be served before both writes are visible; the model below finds that.
//!
//! The model: `RUSTFLAGS="--cfg loom" cargo test -p tidegate-io --lib wake` (with a target directory of its own).

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[cfg(not(loom))]
use crate::eventfd::EventFd;
#[cfg(loom)]
use tests::EventFd;

#[derive(Debug)]
struct Shared {
    sleeping: AtomicBool,
    event: EventFd,
}

/// Wakes one sleeper. Clones wake the same one.
#[derive(Clone, Debug)]
pub struct Wake {
    shared: Arc<Shared>,
}

/// The sleeper's side: given to a driver, or used by hand around any other wait.
///
/// ```
/// # fn has_mail() -> bool { true }
/// # fn wait_for(_: std::os::fd::RawFd) {}
/// # let receiver = io::Wake::new()?.receiver();
/// receiver.begin_sleep();
/// if !has_mail() {
///     wait_for(receiver.fd());
/// }
/// receiver.end_sleep();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct WakeReceiver {
    shared: Arc<Shared>,
}

impl Wake {
    /// A wake with its eventfd. Where workers have private descriptor tables, make all of these before the first worker.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn new() -> io::Result<Wake> {
        Ok(Wake { shared: Arc::new(Shared { sleeping: AtomicBool::new(false), event: EventFd::new()? }) })
    }

    /// The number of its eventfd: what every thread with a private descriptor table keeps, see
    /// [`take_private_table`](crate::descriptors::take_private_table).
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// The sleeper's side. For one sleeper only: of two, only one would be woken.
    #[must_use]
    pub fn receiver(&self) -> WakeReceiver {
        WakeReceiver { shared: Arc::clone(&self.shared) }
    }

    /// Wakes the sleeper if it sleeps, or is about to. Call it after the letter is in the mailbox. At most one eventfd
    /// write per sleep, whoever calls.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::SeqCst) && self.shared.sleeping.swap(false, Ordering::SeqCst) {
            self.shared.event.write();
        }
    }
}

impl WakeReceiver {
    /// Announces the sleep. After this, and before the wait, look into the mailboxes once more.
    pub fn begin_sleep(&self) {
        // A swap rather than a store, for the same price on x86: it reads the last sender's swap, so the order of the two
        // needs no reasoning about modification orders (and loom, whose idea of them is partial, can check it).
        self.shared.sleeping.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The sleep is over, or did not happen.
    pub fn end_sleep(&self) {
        // Release is enough and costs nothing: a wake that still sees `true` writes one event too many, no more.
        self.shared.sleeping.store(false, Ordering::Release);
    }

    /// The descriptor to wait for; readable after a wake. Every wake is an edge, so an edge-triggered wait need not read
    /// it; others call [`WakeReceiver::clear`].
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// Makes the descriptor unreadable again, for level-triggered waits.
    pub fn clear(&self) {
        self.shared.event.clear();
    }
}

impl AsFd for WakeReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl AsRawFd for WakeReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use mio::{Events, Interest, Poll, Token, unix::SourceFd};
    use std::time::Duration;

    fn written(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn a_wake_writes_once_per_sleep_and_never_to_one_awake() {
        let wake = Wake::new().unwrap();
        let receiver = wake.receiver();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut SourceFd(&receiver.fd()), Token(0), Interest::READABLE).unwrap();
        wake.wake();
        assert!(!written(&mut poll), "awake");
        for _ in 0..3 {
            receiver.begin_sleep();
            wake.clone().wake();
            assert!(written(&mut poll), "asleep; edge-triggered, and nobody reads the eventfd");
            wake.wake();
            assert!(!written(&mut poll), "woken already");
            receiver.end_sleep();
        }
        receiver.begin_sleep();
        receiver.end_sleep();
        wake.wake();
        assert!(!written(&mut poll), "awake again");
    }
}

#[cfg(loom)]
mod tests {
    use super::*;
    use loom::sync::Notify;

    /// Stands in for the kernel's: loom sees who waits, and reports a deadlock when nobody writes.
    #[derive(Debug)]
    pub(super) struct EventFd(Notify);

    impl EventFd {
        pub(super) fn new() -> io::Result<EventFd> {
            Ok(EventFd(Notify::new()))
        }

        pub(super) fn write(&self) {
            self.0.notify();
        }

        pub(super) fn clear(&self) {
            unreachable!("the model waits by edge");
        }

        #[cfg(test)]
        fn wait(&self) {
            self.0.wait();
        }
    }

    impl AsFd for EventFd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            unreachable!("the model has no descriptors")
        }
    }

    impl AsRawFd for EventFd {
        fn as_raw_fd(&self) -> RawFd {
            unreachable!("the model has no descriptors")
        }
    }

    /// A mailbox as weak as any real one: its letters are published with Release and looked for with Acquire.
    #[cfg(test)]
    fn no_letter_is_left_beside_a_sleeper(senders: usize) {
        use loom::sync::atomic::AtomicUsize;
        let mut model = loom::model::Builder::new();
        // Two senders without a bound take minutes; loom's authors found two preemptions to show nearly every bug.
        model.preemption_bound = (senders > 1).then_some(3);
        model.check(move || {
            let wake = Wake::new().unwrap();
            let receiver = wake.receiver();
            let letters: Vec<_> = (0..senders).map(|_| Arc::new(AtomicUsize::new(0))).collect();
            let threads: Vec<_> = letters
                .iter()
                .map(|letter| {
                    let (wake, letter) = (wake.clone(), Arc::clone(letter));
                    loom::thread::spawn(move || {
                        letter.store(1, Ordering::Release);
                        wake.wake();
                    })
                })
                .collect();
            let arrived = || letters.iter().filter(|letter| letter.load(Ordering::Acquire) == 1).count();
            let mut seen = arrived();
            while seen < senders {
                receiver.begin_sleep();
                if arrived() == seen {
                    receiver.shared.event.wait();
                }
                receiver.end_sleep();
                seen = arrived();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[cfg(test)]
    #[test]
    fn no_letter_of_one_sender_is_left_beside_a_sleeper() {
        no_letter_is_left_beside_a_sleeper(1);
    }

    #[cfg(test)]
    #[test]
    fn no_letter_of_two_senders_is_left_beside_a_sleeper() {
        no_letter_is_left_beside_a_sleeper(2);
    }
}
