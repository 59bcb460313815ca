//! What an echo costs in steady state: no allocation, one receive, one send. Counted are the driver's thread's allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{
    Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, Io, Listener, Options, Peer, Wake, listener,
};

struct Counting;

thread_local! {
    /// Of this thread: the test runner's own threads allocate when they like.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

/// All messages are alike, so it keeps none.
#[derive(Default)]
struct Echo {
    received: usize,
    deadline: Duration,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {}
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        assert_eq!(bytes, MESSAGE);
        self.received += bytes.len();
        io.dirty(id, Class::Reply);
        self.deadline = io.now() + Duration::from_secs(25);
        io.deadline(id, Some(self.deadline));
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, batch: &mut Batch) {
        batch.push(&MESSAGE);
    }
    fn sent(&mut self, _: &mut Io, _: ConnId, bytes: usize) {
        assert_eq!(bytes, MESSAGE.len());
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

const MESSAGE: [u8; 100] = [7; 100];
const CLIENTS: usize = 4;

struct Setup<D> {
    driver: D,
    clients: Vec<TcpStream>,
    echo: Echo,
}

fn setup<D: Driver>(start: impl FnOnce(Listener) -> D) -> Setup<D> {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let Address::Ip(address) = *listener.local_address() else { unreachable!() };
    let driver = start(listener);
    let clients = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    Setup { driver, clients, echo: Echo::default() }
}

impl<D: Driver> Setup<D> {
    /// Every client sends, `together` or one after the other's echo; the driver works until all is echoed.
    fn round(&mut self, together: bool) {
        let mut answer = [0; MESSAGE.len()];
        let turns = if together { CLIENTS } else { 1 };
        for clients in self.clients.chunks_mut(turns) {
            clients.iter_mut().for_each(|client| client.write_all(&MESSAGE).unwrap());
            self.echo.received = 0;
            while self.echo.received < MESSAGE.len() * turns {
                self.driver.tick(&mut self.echo, None).unwrap();
            }
            clients.iter_mut().for_each(|client| client.read_exact(&mut answer).unwrap());
        }
    }

    /// What one echo costs.
    fn claims(mut self) {
        const ROUNDS: u64 = 125;
        (0..3).for_each(|_| self.round(true));
        let counters = self.driver.io().counters();
        let counts = || [&counters.reads, &counters.sends, &counters.enters, &counters.ticks].map(|of| of.load());
        for together in [false, true] {
            self.round(together);
            let (before, allocations) = (counts(), ALLOCATIONS.get());
            (0..ROUNDS).for_each(|_| self.round(together));
            let (after, allocations) = (counts(), ALLOCATIONS.get() - allocations);
            let [reads, sends, enters, ticks] = std::array::from_fn(|n| after[n] - before[n]);
            assert_eq!(allocations, 0);
            assert_eq!(reads, ROUNDS * CLIENTS as u64, "a short read ends the reading");
            assert_eq!(sends, ROUNDS * CLIENTS as u64);
            match self.driver.kind() {
                io::Kind::Uring => assert!(enters > 0 && enters <= 3 * ticks, "{enters} calls in {ticks} ticks"),
                _ => assert_eq!(enters, 0),
            }
            if together {
                // The clients wrote before the first tick, so each round is one batch, and perhaps one more tick.
                assert!(ticks <= 2 * ROUNDS, "{ticks} ticks");
            }
        }
        assert_eq!(counters.connections.load(), CLIENTS as u64);
    }
}

#[test]
fn an_echo_costs_one_receive_one_send_and_no_allocation() {
    let wake = Wake::new().unwrap();
    let options = Options::default;
    setup(|listener| Epoll::new(options(), vec![listener], Clock::start(), wake.receiver()).unwrap()).claims();
    let wake = Wake::new().unwrap();
    setup(|listener| {
        let ready = Uring::probe().expect("these tests need io_uring");
        Uring::new(ready, options(), vec![listener], Clock::start(), wake.receiver()).unwrap()
    })
    .claims();
}
