//! Delivering allocates nothing: what the workers ask of the heap for 120,000 deliveries is counted, and it is exactly zero,
//! with slow readers behind whose sockets backlogs form and drain.
//!
//! Two real workers on loopback, on each driver that the machine has, and an allocator that counts for threads named
//! `worker-N` alone: what publishes and what reads may use the heap as it likes.
#![allow(unsafe_code)] // a global allocator cannot be written without

use gateway::config::{Config, Count, DriverChoice};
use gateway::letter::{Letter, Order, Publish, Ticket};
use gateway::mailbox::Post;
use gateway::memory::Memory;
use gateway::stats::Number;
use gateway::topology::{self, Layout, Machine, Secrets, Start, Workers};
use hub::{Channel, ChannelHash, Draft};
use socket2::{Domain, Socket, Type};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static ARMED: AtomicBool = AtomicBool::new(false);
static ON_WORKERS: AtomicU64 = AtomicU64::new(0);

struct Counting;

/// Asks the kernel, because whatever the standard library keeps about a thread may itself be allocated.
fn is_worker() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the terminating zero included, to where its argument points.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"worker-")
}

fn count() {
    if ARMED.load(Ordering::Relaxed) && is_worker() {
        ON_WORKERS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(block) }
    }

    unsafe fn alloc_zeroed(&self, block: Block) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(block) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, block: Block) {
        // SAFETY: as above; `memory` came from `System`.
        unsafe { System.dealloc(memory, block) }
    }

    unsafe fn realloc(&self, memory: *mut u8, block: Block, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `memory` came from `System`.
        unsafe { System.realloc(memory, block, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` makes the workers allocate.
fn allocations_during(work: impl FnOnce()) -> u64 {
    let before = ON_WORKERS.load(Ordering::Relaxed);
    ARMED.store(true, Ordering::SeqCst);
    work();
    ARMED.store(false, Ordering::SeqCst);
    ON_WORKERS.load(Ordering::Relaxed) - before
}

const WORKERS: u32 = 2;
const FAST: usize = 225;
const SLOW: usize = 75;
const AUDIENCE: usize = FAST + SLOW;

/// Slow clients read after each lump only. A lump is several times what the kernel takes for one of them, and stays below
/// the limit of an outbox.
const LUMP: u64 = 100;
const LUMPS: u64 = 4;
const DATA_BYTES: usize = 2048;
const _: () = assert!(LUMP * LUMPS * AUDIENCE as u64 >= 100_000, "what is claimed");

/// The longest backlog of the warm-up: longer than any after it, whatever the kernel takes of each.
const WARM_UP: u64 = 2 * LUMP;

/// What a slow client's kernel keeps for it.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// Two workers, and how to publish as a backend does.
struct Rig {
    workers: Workers,
    address: SocketAddr,
    hash: ChannelHash,
    tickets: u64,
    /// Whoever has subscribed stays to the end: what closing costs falls into no count.
    audiences: Vec<Audience>,
}

impl Rig {
    fn start(driver: DriverChoice) -> Rig {
        let text = r#"
            [public]
            uni_websocket = true
            [client]
            anonymous = true
            # No ping falls into what is counted, however slow the machine.
            ping_interval = "3600s"
            [outbox]
            kernel_bytes_max = "8KiB"
            high_water = "32KiB"
            low_water = "8KiB"
            [compression]
            enabled = true
            [[namespaces]]
            name = "live"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            [[namespaces]]
            name = "packed"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            [[namespaces]]
            name = "kept"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            history_size = 20
            history_ttl = "600s"
            [[namespaces]]
            name = "newest"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            history_size = 1
            history_ttl = "600s"
        "#;
        let mut config: Config = toml::from_str(text).expect("a config");
        config.public.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        config.workers.count = Count::Fixed(WORKERS);
        config.workers.io = driver;
        let layout = Layout::decide(&config, &Machine::probe().expect("limits")).expect("enough files");
        let settings = Arc::new(topology::settings(&config, false).expect("a checked config"));
        let secrets = Secrets::draw().expect("random");
        let hash = ChannelHash::new(secrets.hash);
        let start = Start {
            config: &config,
            layout: &layout,
            settings,
            secrets,
            clock: io::Clock::start(),
            memory: Arc::new(Memory::new(1 << 40)),
        };
        let workers = start.workers().expect("it starts");
        let io::Address::Ip(address) = workers.listening[0] else { panic!("TCP was asked for") };
        Rig { workers, address, hash, tickets: 0, audiences: Vec::new() }
    }

    /// Publishes and waits until the publication is numbered and accepted.
    fn publish(&mut self, channel: &str) {
        self.tickets += 1;
        let data = format!("\"{}\"", "x".repeat(DATA_BYTES));
        let draft = Draft::new(Channel::new(channel), data.into_bytes()).into();
        let publish = Publish { ticket: Ticket::Control(self.tickets), draft, expires: Duration::MAX };
        let home = usize::from(self.hash.home(channel, WORKERS as u16).0);
        self.workers.mailbox.request(home, Letter::Publish(publish)).expect("room for one");
        self.workers.mailbox.flush();
        loop {
            match self.workers.mailbox.next() {
                Some((_, Letter::Published { answer: Ok(_), .. })) => return,
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        }
    }

    /// Publishes to everybody, read along by the fast, and afterwards by the slow.
    fn lump(&mut self, audience: &mut Audience, publications: u64) {
        for _ in 0..publications {
            self.publish(&audience.channel);
            audience.fast.iter_mut().for_each(read_frame);
        }
        for client in &mut audience.slow {
            (0..publications).for_each(|_| read_frame(client));
        }
    }

    /// Sends of each worker of which the kernel did not take all.
    fn short_sends(&self) -> Vec<u64> {
        self.workers.stats.iter().map(|stats| stats.io.short_sends.load()).collect()
    }

    fn stop(mut self) {
        for worker in 0..WORKERS as usize {
            self.workers.mailbox.request(worker, Letter::Order(Order::Stop)).expect("room for an order");
        }
        self.workers.mailbox.flush();
        for _ in 0..WORKERS {
            assert!(matches!(self.workers.ended.blocking_recv(), Some(Ok(_))), "a worker ends as it was told");
        }
    }
}

/// Who is subscribed to one channel.
struct Audience {
    channel: String,
    fast: Vec<TcpStream>,
    slow: Vec<TcpStream>,
}

impl Audience {
    fn of(rig: &Rig, channel: &str) -> Audience {
        let fast = (0..FAST).map(|_| subscribe(rig.address, channel, false)).collect();
        let slow = (0..SLOW).map(|_| subscribe(rig.address, channel, true)).collect();
        Audience { channel: channel.to_owned(), fast, slow }
    }
}

fn subscribe(address: SocketAddr, channel: &str, slow: bool) -> TcpStream {
    subscribe_offering(address, channel, slow, "")
}

fn subscribe_offering(address: SocketAddr, channel: &str, slow: bool, offer: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if slow {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("settable");
    }
    socket.connect(&address.into()).expect("the workers listen");
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("settable");
    let head = format!(
        "GET /connection/uni_websocket?channels={channel} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    );
    socket.write_all(head.as_bytes()).expect("writable");
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"}}}}") && !seen.ends_with(b"\"}}") {
        socket.read_exact(&mut byte).expect("the connect push");
        seen.push(byte[0]);
    }
    socket
}

/// Reads one publication's frame, the length of which takes two bytes.
fn read_frame(client: &mut TcpStream) {
    let mut frame = [0; 4 + DATA_BYTES + 512];
    client.read_exact(&mut frame[..4]).expect("a frame comes");
    assert_eq!((frame[0], frame[1]), (0x81, 126), "one text frame");
    let len = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    client.read_exact(&mut frame[4..4 + len]).expect("the whole frame");
}

/// The same for clients that take compressed messages, which are short. Few are enough to reach every worker.
fn compressed_allocations(rig: &mut Rig) -> u64 {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut clients: Vec<TcpStream> =
        (0..16).map(|_| subscribe_offering(rig.address, "packed:c", false, offer)).collect();
    let mut publish = |rig: &mut Rig, count| {
        for _ in 0..count {
            rig.publish("packed:c");
            clients.iter_mut().for_each(read_compressed_frame);
        }
    };
    publish(rig, 50);
    let allocations = allocations_during(|| publish(rig, 400));
    let after: u64 = rig.workers.stats.iter().map(|stats| stats.number(Number::AfterMessages)).sum();
    assert!(after >= 400 * 16, "each after the one before: {after}");
    allocations
}

fn read_compressed_frame(client: &mut TcpStream) {
    let mut frame = [0; 2 + 125];
    client.read_exact(&mut frame[..2]).expect("a frame comes");
    assert!(frame[0] == 0xc1 && frame[1] < 126, "a compressed text in one short frame: {:x?}", &frame[..2]);
    let len = usize::from(frame[1]);
    client.read_exact(&mut frame[..len]).expect("the whole frame");
}

/// What the workers allocated for so many lumps, after the warm-up.
fn allocations_of(rig: &mut Rig, lumps: u64, channel: &str) -> u64 {
    let mut audience = Audience::of(rig, channel);
    rig.lump(&mut audience, WARM_UP);
    let before = rig.short_sends();
    let allocations = allocations_during(|| (0..lumps).for_each(|_| rig.lump(&mut audience, LUMP)));
    let short: Vec<u64> = rig.short_sends().iter().zip(before).map(|(now, before)| now - before).collect();
    println!("{channel}: {allocations} allocations, short sends of the workers: {short:?}");
    assert!(short.iter().all(|&sends| sends >= lumps * 10), "backlogs formed on every worker: {short:?} short sends");
    rig.audiences.push(audience);
    allocations
}

fn workers_allocate_nothing(driver: DriverChoice) {
    let mut rig = Rig::start(driver);
    assert_eq!(allocations_of(&mut rig, LUMPS, "live:c"), 0, "for {} deliveries", LUMPS * LUMP * AUDIENCE as u64);
    assert_eq!(allocations_of(&mut rig, 1, "kept:c"), 0, "a full history lets one go for each that comes");
    assert_eq!(allocations_of(&mut rig, 1, "newest:c"), 0, "also one that holds a single publication");
    assert_eq!(compressed_allocations(&mut rig), 0, "also compressed");
    // The twin: what does have to be allocated on a worker is seen.
    let mut newcomer = None;
    let first_of_its_channel = allocations_during(|| newcomer = Some(subscribe(rig.address, "live:new", false)));
    assert!(first_of_its_channel > 0, "a channel's name is allocated by the worker of its first subscriber");
    rig.stop();
}

/// One test, because everything in a process shares the counting.
#[test]
fn workers_allocate_nothing_for_100_000_deliveries() {
    workers_allocate_nothing(DriverChoice::Epoll);
    match io::uring::Uring::probe() {
        Ok(_) => workers_allocate_nothing(DriverChoice::Uring),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "no io_uring here: {why}");
            println!("skipped on io_uring: {why}");
        }
    }
}
