//! The harness on epoll and io_uring: loopback TCP and Unix sockets, with non-blocking clients in the same thread.

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Clock, Driver, Io, Listener, Options, Target, Wake, WakeReceiver, listener};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{Client, Ended, Harness};
use crate::probe::Probe;

/// Which kind of socket the suite runs on.
pub(crate) trait Family {
    fn address() -> Address;
}

pub(crate) struct Tcp;

impl Family for Tcp {
    fn address() -> Address {
        "127.0.0.1:0".parse().unwrap()
    }
}

pub(crate) struct Unix;

impl Family for Unix {
    fn address() -> Address {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-io-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Address::Unix(std::env::temp_dir().join(name))
    }
}

/// Which kernel interface the suite runs on.
pub(crate) trait Kernel: Driver {
    const RECEIVES_AHEAD: usize = 1;
    fn start(options: Options, listeners: Vec<Listener>, clock: Clock, wake: WakeReceiver) -> Self;
}

impl Kernel for Epoll {
    fn start(options: Options, listeners: Vec<Listener>, clock: Clock, wake: WakeReceiver) -> Epoll {
        Epoll::new(options, listeners, clock, wake).unwrap()
    }
}

impl Kernel for Uring {
    const RECEIVES_AHEAD: usize = 128;

    fn start(options: Options, listeners: Vec<Listener>, clock: Clock, wake: WakeReceiver) -> Uring {
        let ready = Uring::probe().expect("these tests need io_uring");
        Uring::new(ready, options, listeners, clock, wake).unwrap()
    }
}

pub(crate) struct Real<K, F> {
    driver: K,
    probe: Probe,
    clock: Clock,
    address: Address,
    _family: std::marker::PhantomData<F>,
}

fn target(address: &Address) -> Target {
    match address {
        Address::Ip(to) => Target::Ip { to: *to, from: None },
        Address::Unix(path) => Target::Unix(path.clone()),
    }
}

impl<K: Kernel, F: Family> Harness for Real<K, F> {
    type Client = RealClient;
    const RECEIVES_AHEAD: usize = K::RECEIVES_AHEAD;

    fn start(options: Options) -> Self {
        let clock = Clock::start();
        let listener = listener::bind(&F::address(), false).unwrap();
        let address = listener.local_address().clone();
        // Small kernel buffers, so that a slow reader is noticed before megabytes.
        let options = Options { send_buffer_max: Some(32 * 1024), ..options };
        let driver = K::start(options, vec![listener], clock, Wake::new().unwrap().receiver());
        Real { driver, probe: Probe::default(), clock, address, _family: std::marker::PhantomData }
    }

    fn connect(&mut self) -> RealClient {
        let (domain, address) = match &self.address {
            Address::Ip(ip) => (Domain::for_address(*ip), SockAddr::from(*ip)),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
        };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        let refused = socket.connect(&address).is_err();
        socket.set_nonblocking(true).unwrap();
        RealClient {
            socket,
            unsent: Vec::new(),
            received: Vec::new(),
            reading: true,
            fin_wanted: false,
            ended: refused.then_some(Ended::Refused),
        }
    }

    fn target(&self) -> Target {
        target(&self.address)
    }

    fn dead_target(&self) -> Target {
        match &self.address {
            // A port that was free a moment ago; the listener on it is closed again.
            Address::Ip(_) => target(listener::bind(&Tcp::address(), false).unwrap().local_address()),
            Address::Unix(_) => Target::Unix(PathBuf::from("/nonexistent/socket")),
        }
    }

    fn probe(&mut self) -> &mut Probe {
        &mut self.probe
    }

    fn both(&mut self) -> (&mut Probe, &mut Io) {
        (&mut self.probe, self.driver.io())
    }

    fn step(&mut self) {
        self.driver.tick(&mut self.probe, Some(Duration::from_millis(2))).unwrap();
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn shutdown(&mut self) {
        self.driver.shutdown(&mut self.probe);
    }

    fn is_calm(&self) -> bool {
        true
    }
}

pub(crate) struct RealClient {
    socket: Socket,
    unsent: Vec<u8>,
    received: Vec<u8>,
    reading: bool,
    fin_wanted: bool,
    ended: Option<Ended>,
}

impl RealClient {
    fn pump(&mut self) {
        while !self.unsent.is_empty() {
            match (&self.socket).write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(_) => break,
            }
        }
        if self.fin_wanted && self.unsent.is_empty() {
            self.fin_wanted = false;
            let _ = self.socket.shutdown(std::net::Shutdown::Write);
        }
        let mut buffer = [0; 16 * 1024];
        while self.reading && self.ended.is_none() {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => self.ended = Some(Ended::Fin),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = Some(Ended::Reset),
            }
        }
    }
}

impl Client for RealClient {
    fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.pump();
    }

    fn received(&mut self) -> &[u8] {
        self.pump();
        &self.received
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
        self.pump();
    }

    fn shutdown_write(&mut self) {
        self.fin_wanted = true;
        self.pump();
    }

    fn reset(&mut self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
        // The socket is closed by putting another one in its place.
        self.socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        self.ended = Some(Ended::Reset);
    }

    fn ended(&mut self) -> Option<Ended> {
        self.pump();
        self.ended
    }

    fn close(self) {}
}
