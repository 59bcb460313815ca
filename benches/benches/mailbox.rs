//! What does it cost that workers share nothing and write letters instead?

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::letter::{Letter, Publish, Refused, Ticket};
use gateway::mailbox::{self, Mailbox, Post, Sizes};
use hub::{Channel, Draft, Epoch, Offset, Position, Publication};
use io::Wake;

const SIZES: Sizes = Sizes { letters: 4096, answers: 512, bytes: 64 * 1024 * 1024 };
/// Letters that become visible together, at the end of a tick.
const PER_TICK: u64 = 64;

fn mailboxes(parties: usize) -> Vec<Mailbox> {
    let wakes: Vec<Wake> = (0..parties).map(|_| Wake::new().expect("an eventfd")).collect();
    mailbox::connect(SIZES, &wakes)
}

fn publication() -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("news:europe"),
        data: vec![b'1'; 128].into(),
        info: None,
        tags: None,
        time: None,
        position: Position { offset: Offset(1), epoch: Epoch::from_seed(1) },
    })
}

/// Decides whether a letter to oneself may take the same queue as one to another worker, which keeps one order for all, or
/// needs a short cut. With 1 and 64 workers, because a receiver looks for mail of all of them.
fn to_oneself(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox/deliver_to_oneself");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(PER_TICK));
    for parties in [2, 65] {
        let mut boxes = mailboxes(parties);
        let me = &mut boxes[0];
        let publication = publication();
        group.bench_function(BenchmarkId::new("parties", parties), |bencher| {
            bencher.iter(|| {
                for _ in 0..PER_TICK {
                    assert!(me.has_room(0, publication.cost()));
                    me.deliver(0, Arc::clone(&publication));
                }
                me.flush();
                for _ in 0..PER_TICK {
                    black_box(me.next().expect("as many as were sent"));
                }
            });
        });
    }
    group.finish();
}

/// Decides whether answers with reserved room are affordable for every publish of a client: request, answer, and
/// the allocation.
fn request_and_answer(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox/request_and_answer");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let mut boxes = mailboxes(2);
    let draft = Draft::new(Channel::new("news:europe"), vec![b'1'; 128]);
    group.bench_function("same_thread", |bencher| {
        let [asking, answering] = &mut boxes[..] else { unreachable!("two were made") };
        bencher.iter(|| {
            let publish = Publish { ticket: Ticket::Control(1), draft: draft.clone().into(), expires: Duration::MAX };
            asking.request(1, Letter::Publish(publish)).expect("room for one");
            asking.flush();
            let (from, letter) = answering.next().expect("the request");
            let Letter::Publish(publish) = letter else { unreachable!("it was a publish") };
            answering.answer(from, Letter::Published { ticket: publish.ticket, answer: Err(Refused::Busy) });
            answering.flush();
            black_box(asking.next().expect("the answer"));
        });
    });
    group.finish();
}

/// Decides between a ring per pair of threads and one queue per destination: letters per second from one busy thread to
/// another, the wait for room included. A worker delivers at most one letter per publication and other worker, so this has
/// to stay far above the rate of publications.
fn between_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox/deliver_between_threads");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    group.bench_function("64_per_tick", |bencher| bencher.iter_custom(send_across));
    group.finish();
}

/// How long so many letters take until the last one was read.
fn send_across(letters: u64) -> Duration {
    let mut boxes = mailboxes(2);
    let (mut receiver, mut sender) = (boxes.pop().expect("two"), boxes.pop().expect("two"));
    let (received, ready) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reading = thread::spawn({
        let (received, ready) = (Arc::clone(&received), Arc::clone(&ready));
        move || {
            ready.store(true, Release);
            let mut count = 0;
            while count < letters {
                match receiver.next() {
                    Some(_) => count += 1,
                    None => thread::yield_now(),
                }
                received.store(count, Relaxed);
            }
        }
    });
    while !ready.load(Acquire) {
        thread::yield_now();
    }
    let publication = publication();
    let started = Instant::now();
    for number in 1..=letters {
        while !sender.has_room(1, publication.cost()) {
            sender.flush();
            thread::yield_now();
        }
        sender.deliver(1, Arc::clone(&publication));
        if number % PER_TICK == 0 {
            sender.flush();
        }
    }
    sender.flush();
    reading.join().expect("the reader ends");
    assert_eq!(received.load(Relaxed), letters);
    started.elapsed()
}

criterion_group!(benches, to_oneself, request_and_answer, between_threads);
criterion_main!(benches);
