//! What an echo costs in steady state: no allocation, one receive, one send. One test, since it counts for the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use io::epoll::Epoll;
use io::{Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, Io, Options, Peer, Wake, listener};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout, by the caller's contract and `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One outbox for all: each message is sent before the next is received.
#[derive(Default)]
struct Echo {
    outbox: Vec<u8>,
    received: usize,
    deadline: Duration,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {}
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        self.received += bytes.len();
        self.outbox.extend_from_slice(bytes);
        io.dirty(id, Class::Reply);
        self.deadline = io.now() + Duration::from_secs(25);
        io.deadline(id, Some(self.deadline));
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, batch: &mut Batch) {
        batch.push(&self.outbox);
    }
    fn sent(&mut self, _: &mut Io, _: ConnId, bytes: usize) {
        assert_eq!(bytes, self.outbox.len());
        self.outbox.clear();
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

#[test]
fn an_echo_costs_one_receive_one_send_and_no_allocation() {
    const MESSAGE: [u8; 100] = [7; 100];
    const MESSAGES: usize = 500;
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let Address::Ip(address) = *listener.local_address() else { unreachable!() };
    let wake = Wake::new().unwrap();
    let mut driver = Epoll::new(Options::default(), vec![listener], Clock::start(), wake.receiver()).unwrap();
    let mut echo = Echo::default();
    let mut clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut answer = [0; MESSAGE.len()];
    let mut round = |driver: &mut Epoll| {
        for client in &mut clients {
            client.write_all(&MESSAGE).unwrap();
            echo.received = 0;
            while echo.received < MESSAGE.len() {
                driver.tick(&mut echo, None).unwrap();
            }
            client.read_exact(&mut answer).unwrap();
        }
    };
    round(&mut driver);
    let counters = driver.io().counters();
    let before = (counters.reads.load(), counters.sends.load(), ALLOCATIONS.load(Relaxed));
    for _ in 0..MESSAGES / 4 {
        round(&mut driver);
    }
    let after = (counters.reads.load(), counters.sends.load(), ALLOCATIONS.load(Relaxed));
    assert_eq!(after.2 - before.2, 0, "allocations");
    assert_eq!(after.0 - before.0, MESSAGES as u64, "a short read ends the reading");
    assert_eq!(after.1 - before.1, MESSAGES as u64);
    assert_eq!(counters.connections.load(), 4);
}
