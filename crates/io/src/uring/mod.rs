//! The driver on real sockets, through io_uring.
//!
//! A connection has one operation armed: a multishot poll for input and FIN, 256 B of kernel memory (an armed receive
//! takes 864 B). Those that it announces are received from in one batch, and those that are dirty are sent to in one
//! batch. Both carry MSG_DONTWAIT, so they are done when the call that submits them returns: the kernel never holds an
//! address of ours while other code runs, and no send can overtake another. In steady state a tick costs one call to
//! receive and one to send, however many connections have a part in it; the polls that became due meanwhile come back
//! with these calls, so that only an idle driver makes one to wait.
//!
//! A close takes the poll off and is linked to that; a slot is free again when the kernel has reported the last of its
//! operations.
//!
//! [`probe`] tells whether all this works here. Where it does not, [`Epoll`](crate::epoll::Epoll) does.

mod buffers;
mod listening;
mod probe;
mod ring;
mod sockets;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

pub use probe::{Ready, Unavailable, probe};

use crate::clock::Clock;
use crate::connector::SocketOptions;
use crate::handler::{Driver, Handler, Kind};
use crate::listener::Listener;
use crate::options::Options;
use crate::state::{CONNECTIONS_MAX, Io, REFUSED_MAX};
use crate::tick::{Core, Readiness, Waits};
use crate::wake::WakeReceiver;
use listening::Listening;
use ring::{News, Ring, Tag};
use sockets::UringSockets;

/// Listeners of one driver; their number is 16 bits in [`Peer::listener`](crate::Peer::listener).
const LISTENERS_MAX: usize = 1 << 15;

/// One worker's event loop.
///
/// Made on the thread that runs it, by the kernel's rule for such rings.
pub struct Uring {
    core: Core<UringSockets>,
    clock: Clock,
    /// Behind the ring, which polls its descriptor.
    wake: WakeReceiver,
    spin: Duration,
    /// A ring belongs to one thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Uring {
    /// Whether io_uring can be used here; see [`probe`].
    ///
    /// # Errors
    /// When it cannot.
    pub fn probe() -> Result<Ready, Unavailable> {
        probe()
    }

    /// A driver on a ring that was tried out on this thread. It accepts from `listeners` (their order is
    /// [`Peer::listener`](crate::Peer::listener)) and is woken through `wake`.
    ///
    /// # Errors
    /// When the kernel refuses a socket option or a descriptor.
    pub fn new(
        ready: Ready,
        options: Options,
        listeners: Vec<Listener>,
        clock: Clock,
        wake: WakeReceiver,
    ) -> io::Result<Uring> {
        if listeners.len() > LISTENERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many listeners"));
        }
        let socket_options =
            SocketOptions { send_buffer_max: options.send_buffer_max, user_timeout: options.user_timeout };
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|listener| Listening::new(listener, &socket_options))
            .collect::<io::Result<_>>()?;
        let count = listeners.len();
        let slots = options.connections_max.min(CONNECTIONS_MAX) + REFUSED_MAX;
        let sockets = UringSockets::new(ready.ring, listeners, slots, options.recv_bytes, socket_options)?;
        let spin = options.spin;
        let core = Core::new(options, sockets, count, clock.now());
        let mut driver = Uring { core, clock, wake, spin, _not_send: std::marker::PhantomData };
        driver.arm();
        Ok(driver)
    }

    fn arm(&mut self) {
        let sockets = &mut self.core.sockets;
        sockets.ring.count_into(self.core.io.counters());
        for (number, listener) in sockets.listeners.iter_mut().enumerate() {
            listener.arm(&mut sockets.ring, number);
        }
        self.poll_wake();
    }

    fn poll_wake(&mut self) {
        self.core.sockets.ring.poll_input(self.wake.as_fd(), Tag::new(ring::Kind::Wake, 0));
    }

    fn announce_news(&mut self) {
        while let Some(news) = self.core.sockets.ring.next_news() {
            let index = news.tag.index();
            match news.tag.kind() {
                Some(ring::Kind::Poll | ring::Kind::PollOut) => self.announce_poll(news),
                Some(ring::Kind::Close) => {
                    Ring::close_failed(news);
                    self.operation_ended(index, ring::Kind::Close);
                }
                Some(ring::Kind::Accept) => {
                    let accepted = Ring::accepted(&news);
                    let sockets = &mut self.core.sockets;
                    sockets.listeners[index as usize].take(&mut sockets.ring, news, accepted);
                    self.core.announce_listener(index as usize);
                }
                Some(ring::Kind::Wake) => {
                    self.core.io.counters.wakes.add(1);
                    if news.last {
                        self.poll_wake();
                    }
                }
                Some(ring::Kind::Cancel | ring::Kind::Batch) | None => {}
            }
        }
    }

    fn operation_ended(&mut self, index: u32, kind: ring::Kind) {
        if self.core.sockets.operation_ended(index, kind) {
            self.core.idle(index);
        }
    }

    fn announce_poll(&mut self, news: News) {
        let index = news.tag.index();
        let id = self.core.io.slots.id(index);
        if !news.tag.is_of(id) {
            debug_assert!(false, "a slot is not reused before its polls have ended");
            return;
        }
        let kind = news.tag.kind().unwrap_or(ring::Kind::Poll);
        if news.last {
            self.operation_ended(index, kind);
        }
        if self.core.sockets.socket(index).is_err() {
            return; // closed
        }
        // We cancel the polls of closed connections only. The kernel ends a multishot poll when it has no room for its
        // news, some versions by cancelling it; the new one looks at the socket, so nothing is lost.
        let events = if news.result == -libc::ECANCELED { 0 } else { news.result };
        if events < 0 {
            return self.core.fail(id, -events);
        }
        if news.last && kind == ring::Kind::Poll {
            self.core.sockets.poll_input(id);
        }
        self.core.announce(id, readiness(events, kind == ring::Kind::PollOut));
    }
}

/// Says what the events of a poll mean. A poll for room that ended is room, or an error that the send will tell.
fn readiness(events: i32, output: bool) -> Readiness {
    let any = |of: libc::c_short| events & i32::from(of) != 0;
    Readiness {
        readable: any(libc::POLLIN),
        writable: output,
        fin: any(libc::POLLRDHUP | libc::POLLHUP),
        failed: any(libc::POLLERR),
    }
}

impl Waits for Uring {
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let ring = &mut self.core.sockets.ring;
        // Closes are done at once, so waiting for them is no wait.
        let closes = ring.closes();
        match timeout {
            Some(Duration::ZERO) => ring.enter(closes, None),
            timeout => ring.enter(closes.max(1), timeout),
        }
    }

    /// News comes back with a tick's batches too. What is queued to be submitted goes with the next ones, or with the
    /// next wait.
    fn has_events(&self) -> bool {
        self.core.sockets.ring.has_news()
    }

    fn wake_at(&self) -> Option<Duration> {
        self.core.wake_at()
    }

    fn wake(&self) -> &WakeReceiver {
        &self.wake
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn spin(&self) -> Duration {
        self.spin
    }
}

impl Driver for Uring {
    fn tick<H: Handler>(&mut self, handler: &mut H, wait_max: Option<Duration>) -> io::Result<()> {
        let wake_at = self.wait(handler, wait_max)?;
        let began = self.clock.now();
        self.core.begin(began, wake_at);
        self.announce_news();
        self.core.phases(handler);
        self.core.io.counters.ticked(self.clock.now().saturating_sub(began));
        Ok(())
    }

    fn io(&mut self) -> &mut Io {
        &mut self.core.io
    }

    fn kind(&self) -> Kind {
        Kind::Uring
    }

    fn shutdown<H: Handler>(&mut self, handler: &mut H) {
        self.core.shutdown(handler);
        self.core.sockets.settle(false);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;
    use crate::batch::Batch;
    use crate::handler::{Class, Closed, ConnId, Flow, How, Peer, Target};
    use crate::{Address, Wake, listener};

    /// Echoes one short message at a time.
    #[derive(Default)]
    struct Echo {
        opened: Vec<ConnId>,
        outbox: Vec<u8>,
        closed: usize,
    }

    impl Handler for Echo {
        fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) {
            self.opened.push(id);
        }
        fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
            self.outbox.extend_from_slice(bytes);
            io.dirty(id, Class::Reply);
            Flow::Continue
        }
        fn gather(&mut self, _: ConnId, batch: &mut Batch) {
            batch.push(&self.outbox);
        }
        fn sent(&mut self, _: &mut Io, _: ConnId, bytes: usize) {
            self.outbox.drain(..bytes);
        }
        fn expired(&mut self, _: &mut Io, _: ConnId) {}
        fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {
            self.closed += 1;
        }
        fn woken(&mut self, _: &mut Io) {}
        fn has_mail(&self) -> bool {
            false
        }
        fn ticked(&mut self, _: &mut Io) {}
    }

    fn driver(options: Options) -> (Uring, std::net::SocketAddr) {
        let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
        let Address::Ip(address) = *listener.local_address() else { unreachable!() };
        let wake = Wake::new().unwrap().receiver();
        (Uring::new(probe().unwrap(), options, vec![listener], Clock::start(), wake).unwrap(), address)
    }

    fn echoes(driver: &mut Uring, handler: &mut Echo, client: &mut TcpStream) {
        client.write_all(b"tide").unwrap();
        client.set_nonblocking(true).unwrap();
        let mut answer = [0; 4];
        while client.read(&mut answer).map_err(|error| error.kind()) == Err(io::ErrorKind::WouldBlock) {
            driver.tick(handler, Some(Duration::from_millis(10))).unwrap();
        }
        assert_eq!(&answer, b"tide");
    }

    #[test]
    fn accepted_and_outbound_sockets_have_the_same_options() {
        let options = Options {
            send_buffer_max: Some(50_000),
            user_timeout: Some(Duration::from_millis(12_345)),
            ..Options::default()
        };
        let (mut driver, to) = driver(options);
        let from = Some("127.0.0.5:0".parse().unwrap());
        driver.io().connect(&Target::Ip { to, from }).unwrap();
        let mut handler = Echo::default();
        while handler.opened.len() < 2 {
            driver.tick(&mut handler, None).unwrap();
        }
        let mut peers = Vec::new();
        for id in &handler.opened {
            let socket = SockRef::from(driver.core.sockets.socket(id.index()).unwrap());
            assert!(socket.tcp_nodelay().unwrap() && socket.nonblocking().unwrap());
            assert_eq!(socket.send_buffer_size().unwrap(), 100_000, "the kernel doubles it");
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
            peers.push(socket.peer_addr().unwrap().as_socket().unwrap().ip().to_string());
        }
        peers.sort();
        assert_eq!(peers, ["127.0.0.1", "127.0.0.5"], "the source address was used");
    }

    #[test]
    fn polls_and_accepts_that_the_kernel_ended_are_armed_again() {
        let (mut driver, address) = driver(Options::default());
        let mut handler = Echo::default();
        let mut client = TcpStream::connect(address).unwrap();
        echoes(&mut driver, &mut handler, &mut client);
        let id = handler.opened[0];
        let accept = Tag::new(ring::Kind::Accept, 0);
        for tag in [Tag::of(ring::Kind::Poll, id), accept, Tag::new(ring::Kind::Wake, 0)] {
            driver.core.sockets.ring.cancel(tag);
        }
        echoes(&mut driver, &mut handler, &mut client);
        let mut second = TcpStream::connect(address).unwrap();
        echoes(&mut driver, &mut handler, &mut second);
        assert_eq!((handler.opened.len(), handler.closed), (2, 0));
    }

    #[test]
    fn news_of_an_earlier_connection_of_a_slot_is_not_taken_for_the_present_ones() {
        let (mut driver, address) = driver(Options::default());
        let mut handler = Echo::default();
        let mut clients = Vec::new();
        for round in 0..2 {
            clients.push(TcpStream::connect(address).unwrap());
            while handler.opened.len() <= round {
                driver.tick(&mut handler, None).unwrap();
            }
            if round == 0 {
                driver.io().close(handler.opened[0], How::Now);
                // Reported at once, free when the kernel is done with it.
                while handler.closed == 0 || driver.core.sockets.ring.closes() > 0 {
                    driver.tick(&mut handler, Some(Duration::ZERO)).unwrap();
                }
                driver.tick(&mut handler, Some(Duration::ZERO)).unwrap();
            }
        }
        let [old, new] = handler.opened[..] else { unreachable!() };
        assert_eq!(old.index(), new.index(), "the slot is used again");
        assert!(!Tag::of(ring::Kind::Poll, old).is_of(new));
        assert!(Tag::of(ring::Kind::Poll, new).is_of(new));
        echoes(&mut driver, &mut handler, &mut clients[1]);
    }
}
