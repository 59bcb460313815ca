//! What do channels cost, one of a million as well as one of a few?

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use hub::{
    Channel, ChannelHash, Draft, Home, HomeLimits, Local, MemberId, Publication, Route, SubscriberId, Unnumbered,
    WorkerId,
};
use rustix::time::{ClockId, clock_gettime};

const NOW: Duration = Duration::ZERO;
const ME: WorkerId = WorkerId(0);
/// A channel for each of a million users is the commonest large shape.
const PERSONAL: usize = 1_000_000;
/// Letters that a worker reads in one tick at most; so many channels can come in one.
const PER_TICK: usize = 512;

/// Takes every publication and forgets it.
struct Nowhere;

impl Route for Nowhere {
    fn has_room(&mut self, _: WorkerId, _: usize) -> bool {
        true
    }
    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
        black_box((worker, publication));
    }
}

/// Both halves of one worker's hub.
struct Hub {
    home: Home,
    local: Local,
}

impl Hub {
    fn new() -> Hub {
        let hash = ChannelHash::new([7; 16]);
        Hub { home: Home::new(hash, HomeLimits::default(), 1), local: Local::new(hash) }
    }

    fn with_personal_channels(count: usize) -> Hub {
        let mut hub = Hub::new();
        for number in 0..count {
            hub.subscribe(&personal(number), number as u64);
        }
        hub
    }

    /// What happens between a client's command and its reply, without the letters.
    fn subscribe(&mut self, name: &str, subscriber: u64) -> MemberId {
        let (id, channel) = self.local.begin(name);
        self.home.subscribe(NOW, &channel, ME, None, None).expect("below the limit of channels");
        self.local.admit(id, SubscriberId(subscriber), 0, false)
    }

    fn unsubscribe(&mut self, member: MemberId) {
        let channel = self.local.remove(member);
        self.home.unsubscribe(NOW, &channel, ME, 1);
    }
}

fn personal(number: usize) -> String {
    format!("user:{number}")
}

/// Decides whether a home may look up each publication's channel by a keyed hash of its name, and how interest is kept:
/// inline for one worker, as a list for more. 0 workers is a channel without subscribers.
fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub/publish");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for workers in [0, 1, 8] {
        let mut home = Home::new(ChannelHash::new([7; 16]), HomeLimits::default(), 1);
        let channel = Channel::new("news:europe");
        for worker in 0..workers {
            home.subscribe(NOW, &channel, WorkerId(worker), None, None).expect("below the limit of channels");
        }
        let draft = Draft::new(channel, vec![b'1'; 128]);
        group.bench_function(BenchmarkId::new("interested_workers", workers), |bencher| {
            bencher.iter_batched(
                || Unnumbered::from(draft.clone()),
                |draft| home.publish(NOW, draft, None, &mut Nowhere).expect("there is room"),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Decides whether one dense table per worker does for a million channels, or needs shards: a channel comes and goes, both
/// halves of the hub, in a small table and in a large one, whose entries are in no cache.
fn come_and_go(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub/subscribe_and_unsubscribe");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for channels in [1_000, PERSONAL] {
        let mut hub = None;
        let names: Vec<String> = (0..4096).map(|number| personal(PERSONAL + number)).collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("channels", channels), |bencher| {
            let hub = hub.get_or_insert_with(|| Hub::with_personal_channels(channels));
            bencher.iter(|| {
                turn = (turn + 1) % names.len();
                let member = hub.subscribe(&names[turn], 1);
                hub.unsubscribe(member);
            });
        });
    }
    group.finish();
}

/// Decides how the members of a channel are kept: leaving must not search among 250,000 of them.
fn join_and_leave(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub/join_and_leave");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for members in [1_000, 250_000] {
        let mut hub = Hub::new();
        for number in 0..members {
            hub.subscribe("news:europe", number);
        }
        group.bench_function(BenchmarkId::new("members", members), |bencher| {
            bencher.iter(|| {
                let member = hub.subscribe("news:europe", u64::MAX);
                hub.unsubscribe(member);
            });
        });
    }
    group.finish();
}

/// Decides how tables grow. `worst_tick` is the longest time that 512 of a million new channels took, which is what other
/// connections wait for: one large map that is hashed again as a whole took seconds. `all` is the time for the whole million.
/// Both are CPU time, because the worst of 2,000 ticks would else be the one in which another process had the core.
fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub/growth_to_a_million_channels");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(5));
    let names: Vec<String> = (0..PERSONAL).map(personal).collect();
    group.bench_function("worst_tick", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| grow(&names).into_iter().max().expect("ticks")).sum());
    });
    group.throughput(Throughput::Elements(PERSONAL as u64));
    group.bench_function("all", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| grow(&names).into_iter().sum::<Duration>()).sum());
    });
    group.finish();
}

/// The time that this thread has had a core.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// How long each tick took in which [`PER_TICK`] channels came.
fn grow(names: &[String]) -> Vec<Duration> {
    let mut hub = Hub::new();
    let mut number = 0;
    let ticks = names.chunks(PER_TICK).map(|chunk| {
        let before = cpu_time();
        for name in chunk {
            number += 1;
            hub.subscribe(name, number);
        }
        cpu_time() - before
    });
    let ticks = ticks.collect();
    assert_eq!(hub.home.channels(), names.len());
    ticks
}

criterion_group!(benches, publish, come_and_go, join_and_leave, growth);
criterion_main!(benches);
