//! The machine that is real: workers on threads of their own, started as the program starts them, and loopback sockets.

use super::machine::{Ended, Machine};
use super::setup::{SECRETS, Setup};
use gateway::config::{Bytes, Config, Count, DriverChoice, Time};
use gateway::letter::{Letter, Order};
use gateway::mailbox::{Mailbox, Post as _};
use gateway::stats::WorkerStats;
use gateway::topology::{Layout, Start, Workers};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What a client's kernel keeps for it while it is not reading; small, so that a slow reader is soon noticed.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// The mailbox of the control thread; clients have the numbers below.
const MAIL: Token = Token(usize::MAX >> 1);

pub(crate) struct Real {
    workers: Workers,
    address: SocketAddr,
    clock: io::Clock,
    poll: Poll,
    events: Events,
    clients: Vec<Socketed>,
    introduction: &'static str,
    ended: usize,
}

/// A client; its socket is `None` once it was closed from its side.
#[derive(Default)]
struct Socketed {
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
    fin_wanted: bool,
    resting: bool,
    /// A send has taken the error that says so; receiving then only finds the end.
    broken: bool,
    ended: Option<Ended>,
}

impl Real {
    pub(crate) fn start(setup: &Setup, driver: DriverChoice) -> Self {
        let clock = io::Clock::start();
        let config =
            Config { workers: gateway::config::Workers { io: driver, ..config(setup).workers }, ..config(setup) };
        let layout = Layout {
            workers: usize::from(setup.workers),
            cores: Vec::new(),
            pinning: String::new(),
            files_max: 1024,
            // One driver with, one without, so that every scenario sees both.
            private_tables: driver == DriverChoice::Uring,
            connections_max: setup.connections_max as u64,
            connections_per_worker: setup.connections_max,
            memory_bytes_max: setup.memory_bytes_max,
        };
        let settings = Arc::new(setup.settings.clone());
        let memory = setup.memory();
        let start = Start { config: &config, layout: &layout, settings, secrets: SECRETS, clock, memory };
        let workers = start.workers().expect("the workers start");
        let io::Address::Ip(address) = workers.listening[0] else { unreachable!("the config lists an IP address") };
        let poll = Poll::new().expect("a poll");
        let mail = workers.wake.fd();
        poll.registry().register(&mut SourceFd(&mail), MAIL, Interest::READABLE).expect("the wake can be watched");
        let introduction = setup.introduction;
        let events = Events::with_capacity(64);
        Self { workers, address, clock, poll, events, clients: Vec::new(), introduction, ended: 0 }
    }

    fn try_connect(&self) -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.connect(&self.address.into())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// The part of the config that the start itself reads; the rest is in the settings.
fn config(setup: &Setup) -> Config {
    let mut config = Config::default();
    config.public.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    config.workers.count = Count::Fixed(u32::from(setup.workers));
    config.hub.mailbox_letters = setup.mailbox.letters as u32;
    config.hub.mailbox_bytes_max = Bytes::new(setup.mailbox.bytes as u64);
    config.hub.channels_max = setup.home.channels_max as u32;
    config.hub.history_bytes_max = Bytes::new(setup.home.history_bytes_max as u64);
    config.hub.join_leave_subscribers_max = setup.home.join_leave_subscribers_max as u32;
    config.hub.request_timeout = millis(setup.request_timeout);
    config.outbox.close_timeout = millis(setup.settings.times.close_timeout);
    config
}

fn millis(time: Duration) -> Time {
    Time::millis(time.as_millis() as u64)
}

impl Socketed {
    /// Sends what waits, as far as the kernel takes it.
    fn send(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(taken) => drop(self.unsent.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    self.unsent.clear();
                }
            }
        }
        if std::mem::take(&mut self.fin_wanted) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let Some(stream) = &mut self.stream else { return received };
        let mut chunk = [0; 16 * 1024];
        while !self.resting && self.ended.is_none() {
            match stream.read(&mut chunk) {
                Ok(0) => self.ended = Some(if self.broken { Ended::Reset } else { Ended::Fin }),
                Ok(n) => received.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = Some(Ended::Reset),
            }
        }
        received
    }
}

impl Machine for Real {
    fn connect(&mut self, _worker: usize) -> usize {
        let mut client = Socketed { unsent: self.introduction.into(), ..Socketed::default() };
        match self.try_connect() {
            Ok(socket) => {
                let mut stream = TcpStream::from_std(socket.into());
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(self.clients.len()), interest).expect("registered");
                client.stream = Some(stream);
            }
            // A listener that closes in the middle of a TCP handshake resets it; to the client that is a refusal too.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                client.ended = Some(Ended::Refused);
            }
            Err(error) => panic!("cannot connect: {error}"),
        }
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].unsent.extend_from_slice(bytes);
        self.clients[client].send();
    }

    fn read(&mut self, client: usize) -> Vec<u8> {
        self.clients[client].receive()
    }

    fn ended(&mut self, client: usize) -> Option<Ended> {
        self.clients[client].ended
    }

    fn set_reading(&mut self, client: usize, reading: bool) {
        self.clients[client].resting = !reading;
    }

    fn shutdown_write(&mut self, client: usize) {
        self.clients[client].fin_wanted = true;
        self.clients[client].send();
    }

    fn reset(&mut self, client: usize) {
        if let Some(stream) = self.clients[client].stream.take() {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        }
    }

    fn close(&mut self, client: usize) {
        self.clients[client].stream = None;
    }

    fn step(&mut self, until: Duration) {
        self.workers.mailbox.flush();
        self.workers.wake.begin_sleep();
        if !self.workers.mailbox.has_mail() {
            let most = until.saturating_sub(self.clock.now());
            if let Err(error) = self.poll.poll(&mut self.events, Some(most)) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
            }
        }
        self.workers.wake.end_sleep();
        self.clients.iter_mut().for_each(Socketed::send);
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn unix_origin(&self) -> Duration {
        gateway::topology::unix_origin(self.clock)
    }

    fn mailbox(&mut self) -> &mut Mailbox {
        &mut self.workers.mailbox
    }

    fn stats(&self) -> &[Arc<WorkerStats>] {
        &self.workers.stats
    }

    fn is_calm(&self) -> bool {
        true
    }

    fn freeze(&mut self, _worker: usize, _frozen: bool) {
        panic!("a thread cannot be held still: this scenario is for the simulator");
    }

    fn bodies_in_use(&self) -> usize {
        0
    }

    fn local_channels(&self) -> usize {
        0
    }

    fn has_ended(&mut self) -> bool {
        while let Ok(ended) = self.workers.ended.try_recv() {
            ended.expect("a worker ends well");
            self.ended += 1;
        }
        self.ended == self.workers.stats.len()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for worker in 0..self.workers.stats.len() {
            // Refused only by the full mailbox of a worker that has ended.
            let _ = self.workers.mailbox.request(worker, Letter::Order(Order::Stop));
        }
        self.workers.mailbox.flush();
    }
}
