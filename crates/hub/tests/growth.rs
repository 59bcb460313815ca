//! A million personal channels: what each costs, and that no single subscribe does a large piece of work.
//!
//! Both are counted at the allocator, so a busy machine cannot change the verdict.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use hub::{Channel, ChannelHash, Draft, Home, HomeLimits, Local, MemberId, Publication, Retention, Route};
use hub::{SubscriberId, WorkerId};

/// What the current thread asked of the allocator; tests run on threads of their own.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Bytes asked for and not given back.
    live: i64,
    /// Bytes asked for since the last reset.
    asked: u64,
    /// The largest single request since the last reset.
    largest: u64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { live: 0, asked: 0, largest: 0 }) };
}

struct Counting;

fn count(asked: usize, returned: usize) {
    COUNTS.with(|cell| {
        let mut counts = cell.get();
        counts.live += asked as i64 - returned as i64;
        counts.asked += asked as u64;
        counts.largest = counts.largest.max(asked as u64);
        cell.set(counts);
    });
}

// SAFETY: every call is handed to `System` unchanged, so its guarantees hold; counting touches only a constant-initialised
// thread local without a destructor, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's duties for `layout` are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: `block` came from `System` through this allocator, with `layout`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: `block` came from `System` through this allocator, with `layout`; `size` is the caller's duty.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> i64 {
    COUNTS.get().live
}

/// Runs one operation and gives the bytes it asked for and its largest request.
fn work<T>(operation: impl FnOnce() -> T) -> (T, u64, u64) {
    COUNTS.set(Counts { asked: 0, largest: 0, ..COUNTS.get() });
    let result = operation();
    (result, COUNTS.get().asked, COUNTS.get().largest)
}

const NOW: Duration = Duration::ZERO;
const WORKER: WorkerId = WorkerId(0);
const CHANNELS: u64 = 1_000_000;
/// The budget of a further channel with one subscriber and no history.
const CHANNEL_BYTES_MAX: i64 = 250;
/// The largest block that one subscribe may fill: a table of 8,192 keys of 8 bytes with their control bytes.
const BLOCK_BYTES_MAX: u64 = 80_000;
/// All that one subscribe may ask for: a page in each slab and one grown table in each half.
const SUBSCRIBE_BYTES_MAX: u64 = 4 * BLOCK_BYTES_MAX;

struct Worker {
    home: Home,
    local: Local,
}

impl Worker {
    fn new() -> Worker {
        let hash = ChannelHash::new([5; 16]);
        Worker { home: Home::new(hash, HomeLimits::default(), 1), local: Local::new(hash) }
    }

    fn subscribe(&mut self, channel: &str, subscriber: u64) -> MemberId {
        let (id, channel) = self.local.begin(channel);
        self.home.subscribe(NOW, &channel, WORKER, None, None).expect("below the limit");
        self.local.admit(id, SubscriberId(subscriber), 0, false)
    }

    fn unsubscribe(&mut self, member: MemberId) {
        let channel = self.local.remove(member);
        self.home.unsubscribe(NOW, &channel, WORKER, 1);
    }
}

#[test]
fn a_million_personal_channels_cost_little_each_and_none_stalls() {
    let mut members = Vec::with_capacity(CHANNELS as usize);
    let before = live();
    let mut worker = Worker::new();
    let (mut largest, mut most) = (0, 0);
    for n in 0..CHANNELS {
        let name = format!("personal:#{n}");
        let (member, asked, block) = work(|| worker.subscribe(&name, n));
        members.push(member);
        most = most.max(asked);
        largest = largest.max(block);
    }
    assert_eq!((worker.home.channels(), worker.local.channels()), (CHANNELS as usize, CHANNELS as usize));
    let each = (live() - before) / CHANNELS as i64;
    println!("{each} B per personal channel; one subscribe asked for at most {most} B, in one block {largest} B");
    assert!(each <= CHANNEL_BYTES_MAX, "{each} B per personal channel");
    assert!(largest <= BLOCK_BYTES_MAX, "one subscribe filled a block of {largest} B");
    assert!(most <= SUBSCRIBE_BYTES_MAX, "one subscribe asked for {most} B");

    // The same number of other channels takes the places of those that left.
    let full = live();
    for (n, &member) in members.iter().enumerate() {
        worker.unsubscribe(member);
        let name = format!("personal:@{n}");
        let (_, asked, block) = work(|| worker.subscribe(&name, n as u64));
        assert!(asked <= SUBSCRIBE_BYTES_MAX && block <= BLOCK_BYTES_MAX, "{asked} B, {block} B at once");
    }
    assert_eq!(worker.home.channels(), CHANNELS as usize);
    let grown = live() - full;
    println!("a full turnover of the channels added {grown} B");
    assert!(grown < full / 20, "a turnover added {grown} B to {full} B");
}

#[test]
fn a_further_subscription_of_a_channel_costs_a_few_words() {
    for (audience, bytes_max) in [(100_000_i64, 25), (1_000, 28), (100, 30)] {
        let mut worker = Worker::new();
        // Channels enough that the fixed pages do not matter, each with its first subscriber there already.
        let channels = (1_000_000 / audience).min(1_000);
        for channel in 0..channels {
            worker.subscribe(&format!("shared:{channel}"), 0);
        }
        let (before, mut most) = (live(), 0);
        for channel in 0..channels {
            let name = format!("shared:{channel}");
            for n in 1..audience {
                most = most.max(work(|| worker.subscribe(&name, n as u64)).1);
            }
        }
        let each = (live() - before) as f64 / (channels * (audience - 1)) as f64;
        println!(
            "{each:.1} B per further subscription of channels with {audience}; at most {most} B asked for at once"
        );
        assert!(each <= f64::from(bytes_max), "{each} B per further subscription of channels with {audience}");
        assert!(most <= SUBSCRIBE_BYTES_MAX, "one subscribe asked for {most} B");
    }
}

struct Nowhere;

impl Route for Nowhere {
    fn has_room(&mut self, _: WorkerId, _: usize) -> bool {
        true
    }

    fn deliver(&mut self, _: WorkerId, _: std::sync::Arc<Publication>) {}
}

const KEPT: Retention = Retention { size: 100, ttl: Duration::from_secs(60), meta_ttl: Duration::from_secs(3600) };

/// What is counted is what the limit of bytes holds, so it must not be less than what is there.
#[test]
fn a_kept_publication_counts_for_no_less_than_it_costs() {
    const CHANNELS: usize = 1000;
    let mut home = Home::new(ChannelHash::new([9; 16]), HomeLimits::default(), 1);
    let channels: Vec<Channel> = (0..CHANNELS).map(|n| Channel::new(&format!("kept:{n}"))).collect();
    for channel in &channels {
        home.subscribe(NOW, channel, WORKER, Some(KEPT), None).expect("below the limit");
    }
    let empty = live();
    // More than are kept, so that the rings have gone round.
    for n in 0..150_usize {
        for channel in &channels {
            let draft = Draft::new(channel.clone(), vec![b'1'; n % 40 + 1]);
            home.publish(NOW, draft, Some(KEPT), &mut Nowhere).expect("room");
        }
    }
    let stock = home.stock();
    assert_eq!(stock.publications, 100 * CHANNELS);
    let (cost, counted) = (live() - empty, stock.bytes as i64);
    println!("{} B a publication of 20 B, counted as {}", cost / 100_000, counted / 100_000);
    assert!(cost <= counted, "{cost} B are there and {counted} B were counted");
    assert!(counted <= cost * 2, "{cost} B are there and {counted} B were counted");
    channels.iter().for_each(|channel| home.remove_history(channel));
    assert!(live() - empty <= 100 * CHANNELS as i64, "{} B stay behind", live() - empty);
}

#[test]
fn a_channel_that_only_remembers_its_position_costs_little() {
    const CHANNELS: i64 = 100_000;
    let mut home = Home::new(ChannelHash::new([9; 16]), HomeLimits::default(), 1);
    let before = live();
    for n in 0..CHANNELS {
        let channel = Channel::new(&format!("kept:{n}"));
        home.subscribe(NOW, &channel, WORKER, Some(KEPT), None).expect("below the limit");
        home.unsubscribe(NOW, &channel, WORKER, 1);
    }
    assert_eq!((home.stock().channels, home.stock().idle), (CHANNELS as usize, CHANNELS as usize));
    let bytes = (live() - before) / CHANNELS;
    println!("{bytes} B a channel that is remembered");
    assert!(bytes <= 300, "{bytes} B a channel that is remembered");
}
