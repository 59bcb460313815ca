//! A delivery allocates nothing: what a publication costs the heap does not depend on how many receive it.
//!
//! One real epoll worker on loopback, a counting allocator around everything in this process.
#![allow(unsafe_code)] // a global allocator cannot be written without

use gateway::config::{Inputs, load};
use gateway::letter::{Letter, Order, Publish, Ticket};
use gateway::mailbox::Post;
use gateway::topology::{self, Layout, Machine, Secrets, Start};
use hub::{Channel, Draft};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, block: Block) {
        // SAFETY: as above; `memory` came from `System`.
        unsafe { System.dealloc(memory, block) }
    }

    unsafe fn realloc(&self, memory: *mut u8, block: Block, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; `memory` came from `System`.
        unsafe { System.realloc(memory, block, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SUBSCRIBERS: [usize; 2] = [10, 300];
const PUBLICATIONS: u64 = 200;

/// Allocations that one publication may cost: its letter, its data, its `Arc`, and what the test itself needs.
const PER_PUBLICATION_MAX: u64 = 12;

fn subscribe(address: SocketAddr, channel: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the worker listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("settable");
    let head = format!(
        "GET /connection/uni_websocket?channels={channel} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).expect("writable");
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"\"}}") {
        socket.read_exact(&mut byte).expect("the connect push");
        seen.push(byte[0]);
    }
    socket
}

#[test]
fn a_delivery_allocates_nothing_however_many_receive_it() {
    let loaded = load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults of --dev");
    let mut config = loaded.config;
    config.public.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    config.workers.count = gateway::config::Count::Fixed(1);
    let layout = Layout::decide(&config, &Machine::probe().expect("limits")).expect("enough files");
    let settings = Arc::new(topology::settings(&config, true).expect("a checked config"));
    let clock = io::Clock::start();
    let start = Start { config: &config, layout: &layout, settings, secrets: Secrets::draw().expect("random"), clock };
    let mut workers = start.workers().expect("it starts");
    let io::Address::Ip(address) = workers.listening[0] else { panic!("TCP was asked for") };

    let mut costs = Vec::new();
    for count in SUBSCRIBERS {
        let channel = format!("heard-by-{count}");
        let mut clients: Vec<TcpStream> = (0..count).map(|_| subscribe(address, &channel)).collect();
        let mut frame = [0; 256];
        let mut round = |number: u64| {
            let draft = Draft::new(Channel::new(&channel), b"{\"text\":\"the same for everybody\"}".as_slice());
            let publish = Publish { ticket: Ticket::Control(number), draft, expires: Duration::MAX };
            workers.mailbox.request(0, Letter::Publish(Box::new(publish))).expect("room for one");
            workers.mailbox.flush();
            for client in &mut clients {
                client.read_exact(&mut frame[..2]).expect("a frame");
                let len = usize::from(frame[1]);
                client.read_exact(&mut frame[..len]).expect("the whole frame");
            }
            while workers.mailbox.next().is_none() {
                std::thread::yield_now();
            }
        };
        (0..50).for_each(&mut round);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..PUBLICATIONS).for_each(&mut round);
        costs.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
    }
    println!("{PUBLICATIONS} publications to {SUBSCRIBERS:?} subscribers: {costs:?} allocations");
    for (count, cost) in SUBSCRIBERS.iter().zip(&costs) {
        assert!(*cost <= PUBLICATIONS * PER_PUBLICATION_MAX, "{cost} allocations for {count} subscribers each");
    }
    assert_eq!(costs[0], costs[1], "{} deliveries more cost nothing more", 290 * PUBLICATIONS);

    workers.mailbox.request(0, Letter::Order(Order::Stop)).expect("room for an order");
    workers.mailbox.flush();
    assert_eq!(workers.ended.blocking_recv(), Some(Ok(0)));
}
