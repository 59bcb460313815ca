//! Running out of file descriptors. One test in a process of its own, since it takes all there are.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Batch, Clock, Closed, ConnId, Driver, Flow, Handler, Io, Listener, Options, Peer, Wake, listener};

#[derive(Default)]
struct Count {
    opened: usize,
}

impl Handler for Count {
    fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {
        self.opened += 1;
    }
    fn received(&mut self, _: &mut Io, _: ConnId, _: &mut [u8]) -> Flow {
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, _: &mut Batch) {}
    fn sent(&mut self, _: &mut Io, _: ConnId, _: usize) {}
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

/// One test, since the table of descriptors is the process's.
#[test]
fn without_descriptors_a_connection_is_told_so_and_the_next_one_is_served() {
    check(|options, listener, wake| Epoll::new(options, vec![listener], Clock::start(), wake.receiver()).unwrap());
    check(|options, listener, wake| {
        let ready = Uring::probe().expect("these tests need io_uring");
        Uring::new(ready, options, vec![listener], Clock::start(), wake.receiver()).unwrap()
    });
}

fn check<D: Driver>(start: impl FnOnce(Options, Listener, &Wake) -> D) {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let Address::Ip(address) = *listener.local_address() else { unreachable!() };
    let options = Options { full_answer: b"503 no descriptors".to_vec(), ..Options::default() };
    let wake = Wake::new().unwrap();
    let mut driver = start(options, listener, &wake);
    let mut handler = Count::default();
    let mut client = TcpStream::connect(address).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    let counters = driver.io().counters();
    while counters.refused_full.load() == 0 {
        driver.tick(&mut handler, Some(Duration::from_millis(10))).unwrap();
    }
    drop(hoard);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!((answer.as_str(), handler.opened), ("503 no descriptors", 0));
    let _client = TcpStream::connect(address).unwrap();
    while handler.opened == 0 {
        driver.tick(&mut handler, Some(Duration::from_millis(10))).unwrap();
    }
    assert_eq!(counters.refused_full.load(), 1);
}
