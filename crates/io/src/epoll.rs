//! The driver on real sockets, through epoll.
//!
//! Everything is edge-triggered and registered once. A connection costs one `epoll_ctl` when it comes; the second one, for
//! writability, is made only if its socket ever fills. In steady state an echo costs one `epoll_wait` (shared by all that
//! is ready), one `recv`, one `send`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::connector::{self, SocketOptions};
use crate::handler::{ConnId, Driver, Handler, Kind, PeerAddress, Target};
use crate::listener::{Listener, ListenerSocket, SocketFile};
use crate::options::Options;
use crate::refusal;
use crate::state::{CONNECTIONS_MAX, Io, REFUSED_MAX};
use crate::tick::{Core, Readiness, Sockets, Waits};
use crate::wake::WakeReceiver;

/// How many events one wait fetches; more are fetched by the next, which does not wait.
const EVENTS_MAX: usize = 1024;

/// Tokens above all connection indices; a connection's token has its generation, never 0, in the upper half.
const WAKE_TOKEN: Token = Token(CONNECTIONS_MAX + 0xF_0000);
const LISTENER_TOKEN: usize = CONNECTIONS_MAX;

/// Listeners of one driver; their number is 16 bits in [`Peer::listener`](crate::Peer::listener).
const LISTENERS_MAX: usize = 1 << 15;

const _: () = assert!(size_of::<Option<OwnedFd>>() == 4, "the descriptor column costs 4 bytes per connection");
const _: () = assert!(LISTENER_TOKEN + LISTENERS_MAX <= WAKE_TOKEN.0);
const _: () = assert!(CONNECTIONS_MAX + REFUSED_MAX <= u32::MAX as usize && usize::BITS == 64);

/// One worker's event loop.
///
/// Made on the thread that runs it, so that the descriptors are that thread's also where descriptor tables are private.
pub struct Epoll {
    core: Core<EpollSockets>,
    events: Events,
    clock: Clock,
    wake: WakeReceiver,
    spin: Duration,
    /// A descriptor table and an event loop belong to one thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

struct EpollSockets {
    poll: Poll,
    listeners: Vec<Option<EpollListener>>,
    /// By slot.
    sockets: Vec<Option<OwnedFd>>,
    /// Given up for a moment when descriptors run out, so that a waiting connection can be told so.
    spare: Option<File>,
    options: SocketOptions,
}

struct EpollListener {
    socket: MioListener,
    /// Removes the file of a Unix socket with its last listener.
    _file: Option<Arc<SocketFile>>,
}

enum MioListener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Epoll {
    /// A driver that accepts from `listeners` (their order is [`Peer::listener`](crate::Peer::listener)) and is woken
    /// through `wake`.
    ///
    /// # Errors
    /// When the kernel refuses the epoll instance, a socket option or a descriptor.
    pub fn new(options: Options, listeners: Vec<Listener>, clock: Clock, wake: WakeReceiver) -> io::Result<Epoll> {
        if listeners.len() > LISTENERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many listeners"));
        }
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&wake.fd()), WAKE_TOKEN, Interest::READABLE)?;
        let socket_options =
            SocketOptions { send_buffer_max: options.send_buffer_max, user_timeout: options.user_timeout };
        let listeners = listeners
            .into_iter()
            .enumerate()
            .map(|(number, listener)| register_listener(&poll, number, listener, &socket_options).map(Some))
            .collect::<io::Result<Vec<_>>>()?;
        let count = listeners.len();
        let sockets = EpollSockets {
            poll,
            listeners,
            sockets: Vec::with_capacity(options.connections_max.min(CONNECTIONS_MAX) + REFUSED_MAX),
            spare: Some(refusal::spare()?),
            options: socket_options,
        };
        let spin = options.spin;
        // What is queued already is announced too: registering a descriptor looks at it.
        let core = Core::new(options, sockets, count, clock.now());
        let events = Events::with_capacity(EVENTS_MAX);
        Ok(Epoll { core, events, clock, wake, spin, _not_send: std::marker::PhantomData })
    }

    fn announce_events(&mut self) {
        for event in &self.events {
            let token = event.token();
            if token == WAKE_TOKEN {
                self.core.io.counters.wakes.add(1);
            } else if token.0 >> 32 == 0 {
                self.core.announce_listener(token.0 - LISTENER_TOKEN);
            } else {
                let what = Readiness {
                    readable: event.is_readable(),
                    writable: event.is_writable(),
                    fin: event.is_read_closed(),
                    failed: event.is_error(),
                };
                self.core.announce(ConnId::from_bits(token.0 as u64), what);
            }
        }
    }
}

impl Waits for Epoll {
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.core.sockets.poll.poll(&mut self.events, timeout) {
            // A signal: the tick does what there is to do, which may be nothing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
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

impl Driver for Epoll {
    fn tick<H: Handler>(&mut self, handler: &mut H, wait_max: Option<Duration>) -> io::Result<()> {
        let wake_at = self.wait(handler, wait_max)?;
        let began = self.clock.now();
        self.core.begin(began, wake_at);
        self.announce_events();
        self.events.clear();
        self.core.phases(handler);
        self.core.io.counters.ticked(self.clock.now().saturating_sub(began));
        Ok(())
    }

    fn io(&mut self) -> &mut Io {
        &mut self.core.io
    }

    fn kind(&self) -> Kind {
        Kind::Epoll
    }

    fn shutdown<H: Handler>(&mut self, handler: &mut H) {
        self.core.shutdown(handler);
    }
}

fn register_listener(
    poll: &Poll,
    number: usize,
    listener: Listener,
    options: &SocketOptions,
) -> io::Result<EpollListener> {
    let token = Token(LISTENER_TOKEN + number);
    let socket = match listener.socket {
        ListenerSocket::Tcp(socket) => {
            options.apply(&SockRef::from(&socket), true)?;
            let mut socket = mio::net::TcpListener::from_std(socket);
            poll.registry().register(&mut socket, token, Interest::READABLE)?;
            MioListener::Tcp(socket)
        }
        ListenerSocket::Unix(socket) => {
            options.apply(&SockRef::from(&socket), false)?;
            let mut socket = mio::net::UnixListener::from_std(socket);
            poll.registry().register(&mut socket, token, Interest::READABLE)?;
            MioListener::Unix(socket)
        }
    };
    Ok(EpollListener { socket, _file: listener.file })
}

impl EpollSockets {
    /// The socket of a slot in use. Descriptors come and go with [`Sockets::adopt`], [`Sockets::connect`] and
    /// [`Sockets::close`], and the phases call nothing for a slot without one, so the error is never seen.
    #[inline]
    fn socket(&self, index: u32) -> io::Result<SockRef<'_>> {
        match self.sockets.get(index as usize) {
            Some(Some(socket)) => Ok(SockRef::from(socket)),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn keep(&mut self, id: ConnId, socket: OwnedFd, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token(id), interest)?;
        let index = id.index() as usize;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        debug_assert!(self.sockets[index].is_none());
        self.sockets[index] = Some(socket);
        Ok(())
    }
}

fn token(id: ConnId) -> Token {
    Token(id.to_bits() as usize)
}

impl Sockets for EpollSockets {
    type Accepted = OwnedFd;

    fn accept(&mut self, listener: usize) -> io::Result<(OwnedFd, PeerAddress)> {
        match self.listeners[listener].as_ref().map(|listener| &listener.socket) {
            // mio's accept gives a non-blocking socket that closes on exec, in one system call.
            Some(MioListener::Tcp(socket)) => socket.accept().map(|(s, peer)| (s.into(), PeerAddress::Ip(peer))),
            Some(MioListener::Unix(socket)) => socket.accept().map(|(s, _)| (s.into(), PeerAddress::Unix)),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn adopt(&mut self, id: ConnId, socket: OwnedFd) -> io::Result<()> {
        self.keep(id, socket, Interest::READABLE)
    }

    fn answer(&mut self, index: u32, answer: &[u8]) {
        if let Ok(socket) = self.socket(index) {
            refusal::answer(&socket, answer);
        }
    }

    fn refuse(&mut self, socket: OwnedFd, answer: &[u8]) {
        refusal::refuse(&SockRef::from(&socket), answer);
    }

    fn refuse_with_spare(&mut self, listener: usize, answer: &[u8]) -> bool {
        self.spare = None;
        let refused = self.accept(listener).map(|(socket, _)| self.refuse(socket, answer)).is_ok();
        self.spare = refusal::spare().ok();
        refused
    }

    fn close_listener(&mut self, listener: usize) {
        self.listeners[listener] = None;
    }

    fn connect(&mut self, id: ConnId, target: &Target) -> io::Result<Option<PeerAddress>> {
        let (socket, done) = connector::start(target, &self.options)?;
        let address = done.then(|| connector::peer_address(&SockRef::from(&socket))).transpose()?;
        self.keep(id, socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(address)
    }

    fn connected(&mut self, id: ConnId) -> io::Result<PeerAddress> {
        let socket = self.socket(id.index())?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match connector::peer_address(&socket) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
            result => result,
        }
    }

    #[inline]
    fn recv<'a>(&'a mut self, _: usize, index: u32, pool: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let received = (&*self.socket(index)?).read(pool)?;
        Ok(&mut pool[..received])
    }

    #[inline]
    fn send(&mut self, id: ConnId, batch: &mut Batch) -> io::Result<Option<usize>> {
        self.socket(id.index())?.send_with_flags(batch.bytes(), libc::MSG_NOSIGNAL).map(Some)
    }

    fn arm_writable(&mut self, id: ConnId) -> io::Result<()> {
        let fd = self.socket(id.index())?.as_raw_fd();
        // This looks at the socket anew, so room that came since the short send is announced too.
        self.poll.registry().reregister(&mut SourceFd(&fd), token(id), Interest::READABLE | Interest::WRITABLE)
    }

    fn shutdown(&mut self, index: u32) {
        if let Ok(socket) = self.socket(index) {
            // Fails only when the connection is broken already, which the next receive tells.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, id: ConnId, reset: bool) -> bool {
        let index = id.index();
        // None for a connect that failed or never began. The close also ends the registration.
        if let Some(socket) = self.sockets.get_mut(index as usize).and_then(Option::take)
            && reset
        {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        false
    }

    fn take_error(&mut self, index: u32) -> Option<io::Error> {
        self.socket(index).and_then(|socket| socket.take_error()).unwrap_or_else(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Closed, Flow, How, Peer};
    use crate::{Address, Wake, listener};

    #[derive(Default)]
    struct Opened(Vec<ConnId>);

    impl Handler for Opened {
        fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) {
            self.0.push(id);
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

    fn driver(options: Options) -> (Epoll, Address) {
        let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_address().clone();
        let wake = Wake::new().unwrap().receiver();
        (Epoll::new(options, vec![listener], Clock::start(), wake).unwrap(), address)
    }

    #[test]
    fn accepted_and_outbound_sockets_have_the_same_options() {
        let options = Options {
            send_buffer_max: Some(50_000),
            user_timeout: Some(Duration::from_millis(12_345)),
            ..Options::default()
        };
        let (mut driver, address) = driver(options);
        let Address::Ip(to) = address else { unreachable!() };
        let from = Some("127.0.0.5:0".parse().unwrap());
        driver.io().connect(&Target::Ip { to, from }).unwrap();
        let mut handler = Opened::default();
        while handler.0.len() < 2 {
            driver.tick(&mut handler, None).unwrap();
        }
        let mut peers = Vec::new();
        for id in &handler.0 {
            let socket = driver.core.sockets.socket(id.index()).unwrap();
            assert!(socket.tcp_nodelay().unwrap() && socket.nonblocking().unwrap());
            assert_eq!(socket.send_buffer_size().unwrap(), 100_000, "the kernel doubles it");
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
            peers.push(socket.peer_addr().unwrap().as_socket().unwrap().ip().to_string());
        }
        peers.sort();
        assert_eq!(peers, ["127.0.0.1", "127.0.0.5"], "the source address was used");
    }

    #[test]
    fn a_closed_connection_leaves_no_descriptor_behind() {
        let (mut driver, address) = driver(Options::default());
        let Address::Ip(to) = address else { unreachable!() };
        let mut handler = Opened::default();
        let _client = std::net::TcpStream::connect(to).unwrap();
        while handler.0.is_empty() {
            driver.tick(&mut handler, None).unwrap();
        }
        let id = handler.0[0];
        assert!(driver.core.sockets.sockets[id.index() as usize].is_some());
        driver.io().close(id, How::Now);
        driver.tick(&mut handler, None).unwrap();
        assert!(driver.core.sockets.sockets[id.index() as usize].is_none());
    }

    #[test]
    fn the_columns_never_grow_beyond_what_was_reserved() {
        let (driver, _) = driver(Options { connections_max: 1000, ..Options::default() });
        assert!(driver.core.sockets.sockets.capacity() >= 1000 + REFUSED_MAX);
    }
}
