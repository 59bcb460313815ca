//! Waking a sleeping driver from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Batch, Clock, Closed, ConnId, Driver, Flow, Handler, Io, Options, Peer, Wake, WakeReceiver};

/// A mailbox that only counts its letters.
struct Mail {
    waiting: Arc<AtomicUsize>,
    seen: usize,
}

impl Handler for Mail {
    fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {}
    fn received(&mut self, _: &mut Io, _: ConnId, _: &mut [u8]) -> Flow {
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, _: &mut Batch) {}
    fn sent(&mut self, _: &mut Io, _: ConnId, _: usize) {}
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
    fn woken(&mut self, _: &mut Io) {
        self.seen += self.waiting.swap(0, Ordering::Acquire);
    }
    fn has_mail(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
    fn ticked(&mut self, _: &mut Io) {}
}

fn epoll(options: Options, wake: WakeReceiver) -> Epoll {
    Epoll::new(options, Vec::new(), Clock::start(), wake).unwrap()
}

fn uring(options: Options, wake: WakeReceiver) -> Uring {
    let ready = Uring::probe().expect("these tests need io_uring");
    Uring::new(ready, options, Vec::new(), Clock::start(), wake).unwrap()
}

fn every_letter_is_seen<D: Driver>(start: fn(Options, WakeReceiver) -> D, spin: Duration) {
    const LETTERS: usize = 20_000;
    let wake = Wake::new().unwrap();
    let waiting = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (wake, waiting) = (wake.clone(), Arc::clone(&waiting));
            std::thread::spawn(move || {
                for letter in 0..LETTERS / 2 {
                    waiting.fetch_add(1, Ordering::Release);
                    wake.wake();
                    if letter % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let options = Options { spin, ..Options::default() };
    let mut driver = start(options, wake.receiver());
    let mut mail = Mail { waiting, seen: 0 };
    while mail.seen < LETTERS {
        // No time limit: a lost wake would hang here for ever.
        driver.tick(&mut mail, None).unwrap();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counters = driver.io().counters();
    assert!(counters.wakes.load() <= counters.ticks.load());
}

#[test]
fn no_wake_is_lost() {
    every_letter_is_seen(epoll, Duration::ZERO);
    every_letter_is_seen(uring, Duration::ZERO);
}

#[test]
fn no_wake_is_lost_while_spinning() {
    every_letter_is_seen(epoll, Duration::from_micros(50));
    every_letter_is_seen(uring, Duration::from_micros(50));
}

fn no_sleep_beside_a_letter<D: Driver>(start: fn(Options, WakeReceiver) -> D) {
    let wake = Wake::new().unwrap();
    let mut driver = start(Options::default(), wake.receiver());
    let waiting = Arc::new(AtomicUsize::new(1)); // and nobody calls wake()
    let mut mail = Mail { waiting, seen: 0 };
    driver.tick(&mut mail, None).unwrap();
    assert_eq!(mail.seen, 1);
}

#[test]
fn a_letter_that_was_there_before_the_sleep_prevents_it() {
    no_sleep_beside_a_letter(epoll);
    no_sleep_beside_a_letter(uring);
}
