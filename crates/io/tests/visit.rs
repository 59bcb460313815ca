//! What a connection costs that comes, says two things, and leaves with its second answer: as a WebSocket that is opened and
//! closed. Calls of the kernel are counted, not timed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, How, Io, Options, Peer, Wake, listener};

const VISITS: u64 = 50;

/// Answers; the second answer is the last. One connection at a time.
#[derive(Default)]
struct Host {
    heard: u32,
    unsent: usize,
    opened: u64,
    closed: u64,
    leave: Option<How>,
}

impl Handler for Host {
    fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {
        self.opened += 1;
        self.heard = 0;
    }
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        if !bytes.is_empty() {
            self.heard += 1;
            self.unsent += bytes.len();
            io.dirty(id, Class::Reply);
        }
        match self.leave {
            Some(how) if self.heard == 2 => io.close(id, how),
            _ => {}
        }
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, batch: &mut Batch) {
        batch.push(&vec![b'x'; self.unsent]);
    }
    fn sent(&mut self, _: &mut Io, _: ConnId, bytes: usize) {
        self.unsent -= bytes;
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, why: Closed) {
        assert_eq!(why, Closed::ByUs);
        self.closed += 1;
    }
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

/// Receives, sends and operations of a visit. The client waits for each answer, and for the end.
fn cost(driver: &mut impl Driver, address: std::net::SocketAddr, how: How) -> [u64; 3] {
    let mut host = Host { leave: Some(how), ..Host::default() };
    let counters = driver.io().counters();
    let counts = || [&counters.reads, &counters.sends, &counters.operations].map(|of| of.load());
    let mut before = counts();
    for visit in 0..=VISITS {
        if visit == 1 {
            before = counts(); // The first one came while the driver was being set up.
        }
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        while host.opened == visit {
            driver.tick(&mut host, None).unwrap();
        }
        for heard in 1..=2 {
            client.write_all(b"x").unwrap();
            while host.heard < heard || host.unsent > 0 {
                driver.tick(&mut host, None).unwrap();
            }
            client.read_exact(&mut [0]).unwrap();
        }
        let mut client = Some(client).filter(|_| how == How::Finish);
        while host.closed == visit {
            driver.tick(&mut host, None).unwrap();
        }
        // The kernel's last word about it.
        driver.tick(&mut host, Some(Duration::ZERO)).unwrap();
        if let Some(client) = &mut client {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "FIN, that has not waited for the client's");
        }
    }
    let after = counts();
    std::array::from_fn(|n| {
        assert_eq!((after[n] - before[n]) % VISITS, 0, "all visits are alike");
        (after[n] - before[n]) / VISITS
    })
}

/// A driver on a listener of its own.
fn at_a_listener<D: Driver>(start: impl FnOnce(io::Listener, &Wake) -> D) -> (D, std::net::SocketAddr) {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let Address::Ip(address) = *listener.local_address() else { unreachable!() };
    (start(listener, &Wake::new().unwrap()), address)
}

#[test]
fn a_visit_costs_a_receive_and_a_send_for_each_answer_and_one_more_receive_for_a_fin_that_is_awaited() {
    let (mut epoll, address) = at_a_listener(|listener, wake| {
        Epoll::new(Options::default(), vec![listener], Clock::start(), wake.receiver()).unwrap()
    });
    assert_eq!(cost(&mut epoll, address, How::Finish), [2, 2, 0]);
    assert_eq!(cost(&mut epoll, address, How::Flush), [3, 2, 0]);
    let (mut uring, address) = at_a_listener(|listener, wake| {
        let ready = Uring::probe().expect("these tests need io_uring");
        Uring::new(ready, Options::default(), vec![listener], Clock::start(), wake.receiver()).unwrap()
    });
    // Beside them a poll, its end and the close.
    assert_eq!(cost(&mut uring, address, How::Finish), [2, 2, 4 + 3]);
    assert_eq!(cost(&mut uring, address, How::Flush), [3, 2, 5 + 3]);
}
