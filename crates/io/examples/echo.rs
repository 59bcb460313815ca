//! What do the drivers cost over a bare epoll loop? All echo the same messages in turn, in one process and on the same
//! cores; printed is the server thread's CPU time per echo. Decides whether a driver's bookkeeping may grow, and which
//! driver to prefer.
//!
//! `cargo run --release -p tidegate-io --example echo -- [--io epoll|uring|both] [CONNECTIONS [MESSAGE_BYTES [ROUNDS]]]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, How, Io, Options, Peer, Wake, listener};
use mio::{Events, Interest, Poll, Token};

/// How long one server is measured at a time; they take turns so that a change of the machine's mood hits both.
const TURN: Duration = Duration::from_millis(500);

/// Runs a server until told to stop.
type Serve = fn(io::Listener, &Shared);

struct Shared {
    stop: AtomicBool,
    echoes: AtomicU64,
}

/// Outboxes by slot; a message fits its socket here, so an outbox is empty after its send.
#[derive(Default)]
struct Echo {
    outboxes: Vec<Vec<u8>>,
    echoes: u64,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) {
        let index = id.index() as usize;
        if self.outboxes.len() <= index {
            self.outboxes.resize_with(index + 1, Vec::new);
        }
    }
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        if bytes.is_empty() {
            io.close(id, How::Now);
        } else {
            self.outboxes[id.index() as usize].extend_from_slice(bytes);
            io.dirty(id, Class::Reply);
        }
        Flow::Continue
    }
    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        batch.push(&self.outboxes[id.index() as usize]);
    }
    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        let outbox = &mut self.outboxes[id.index() as usize];
        outbox.drain(..bytes);
        self.echoes += 1;
        if !outbox.is_empty() {
            io.dirty(id, Class::Reply);
        }
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, id: ConnId, _: Closed) {
        self.outboxes[id.index() as usize].clear();
    }
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

fn serve_epoll(listener: io::Listener, shared: &Shared) {
    let wake = Wake::new().expect("a descriptor");
    let driver = Epoll::new(Options::default(), vec![listener], Clock::start(), wake.receiver()).expect("a driver");
    serve_driver(driver, shared);
}

fn serve_uring(listener: io::Listener, shared: &Shared) {
    let ready = Uring::probe().unwrap_or_else(|why| panic!("no io_uring here: {why}"));
    let wake = Wake::new().expect("a descriptor");
    let driver = Uring::new(ready, Options::default(), vec![listener], Clock::start(), wake.receiver());
    serve_driver(driver.expect("a driver"), shared);
}

fn serve_driver(mut driver: impl Driver, shared: &Shared) {
    let mut echo = Echo::default();
    while !shared.stop.load(Relaxed) {
        driver.tick(&mut echo, Some(Duration::from_millis(20))).expect("a tick");
        shared.echoes.store(echo.echoes, Relaxed);
    }
}

/// The least that an epoll server can do: wait, receive once, send once.
fn serve_bare(listener: io::Listener, shared: &Shared) {
    let mut poll = Poll::new().expect("epoll");
    let mut events = Events::with_capacity(1024);
    let mut listener = mio::net::TcpListener::from_std(std::net::TcpListener::from(listener.into_fd()));
    let accept = Token(usize::MAX);
    poll.registry().register(&mut listener, accept, Interest::READABLE).expect("registers");
    let mut streams: Vec<mio::net::TcpStream> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut echoes = 0;
    while !shared.stop.load(Relaxed) {
        poll.poll(&mut events, Some(Duration::from_millis(20))).expect("waits");
        for event in &events {
            if event.token() == accept {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true).expect("an option");
                    poll.registry().register(&mut stream, Token(streams.len()), Interest::READABLE).expect("registers");
                    streams.push(stream);
                }
            } else {
                let stream = &mut streams[event.token().0];
                if let Ok(n @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..n]).expect("room for one message");
                    echoes += 1;
                }
            }
        }
        shared.echoes.store(echoes, Relaxed);
    }
}

/// CPU time of the calling thread so far, in nanoseconds.
fn cpu_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with schedstats");
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).expect("the first number is time on CPU")
}

/// One message outstanding per connection, all of them at once.
fn load(address: SocketAddr, connections: usize, bytes: usize) {
    let message = vec![b'x'; bytes];
    let mut answer = vec![0; bytes];
    let connect = || {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("an option");
        stream
    };
    let mut streams: Vec<_> = (0..connections).map(|_| connect()).collect();
    let until = Instant::now() + TURN;
    while Instant::now() < until {
        streams.iter_mut().for_each(|stream| stream.write_all(&message).expect("writes"));
        streams.iter_mut().for_each(|stream| stream.read_exact(&mut answer).expect("reads"));
    }
}

/// Nanoseconds per echo.
fn measure(serve: Serve, connections: usize, bytes: usize) -> f64 {
    let listener = listener::bind(&"127.0.0.1:0".parse().expect("an address"), false).expect("listens");
    let Address::Ip(address) = *listener.local_address() else { unreachable!("TCP was asked for") };
    let shared = Arc::new(Shared { stop: AtomicBool::new(false), echoes: AtomicU64::new(0) });
    let server = std::thread::spawn({
        let shared = Arc::clone(&shared);
        move || {
            let before = cpu_nanoseconds();
            serve(listener, &shared);
            cpu_nanoseconds() - before
        }
    });
    load(address, connections, bytes);
    shared.stop.store(true, Relaxed);
    let spent = server.join().expect("the server ends");
    spent as f64 / shared.echoes.load(Relaxed) as f64
}

fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut drivers = vec!["epoll", "uring"];
    if arguments.first().is_some_and(|first| first == "--io") {
        let chosen = arguments.drain(..2).nth(1).expect("a driver behind --io");
        drivers.retain(|driver| chosen == "both" || chosen == *driver);
    }
    let mut numbers = arguments.iter().map(|text| text.parse().expect("a number"));
    let connections = numbers.next().unwrap_or(64);
    let bytes = numbers.next().unwrap_or(100);
    let rounds = numbers.next().unwrap_or(9);
    let mut servers: Vec<(&str, Serve)> = vec![("bare epoll", serve_bare)];
    servers.extend(drivers.iter().map(|driver| match *driver {
        "epoll" => ("epoll", serve_epoll as Serve),
        _ => ("uring", serve_uring as Serve),
    }));
    let mut results = vec![Vec::new(); servers.len()];
    for _ in 0..rounds {
        for (result, (_, serve)) in results.iter_mut().zip(&servers) {
            result.push(measure(*serve, connections, bytes));
        }
    }
    println!("{connections} connections, {bytes} B, {rounds} turns each; server CPU per echo, median (least - most):");
    results.iter_mut().for_each(|all: &mut Vec<f64>| all.sort_by(f64::total_cmp));
    let (median, least) = (results[0][rounds / 2], results[0][0]);
    for (all, (name, _)) in results.iter().zip(&servers) {
        let (middle, low, high) = (all[rounds / 2], all[0], all[rounds - 1]);
        let (of_medians, of_least) = (middle / median, low / least);
        println!(
            "{name:10} {middle:7.0} ns ({low:.0} - {high:.0})  ratio {of_medians:.3} of medians, {of_least:.3} of the least"
        );
    }
}
