//! A bare loop on epoll: wait, receive, send.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::{Door, Job, KEPT_BYTES_MAX, Phase, Then};

/// Events taken per wait.
const EVENTS: usize = 1024;
/// Bytes taken per receive.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Not subscribed.
const NOWHERE: usize = usize::MAX;

struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// Received, but not whole yet.
    rest: Vec<u8>,
    /// Not taken by the socket yet.
    unsent: Vec<u8>,
    /// Its place among the subscribers, or [`NOWHERE`].
    subscriber: usize,
    /// It goes as soon as everything was sent.
    closing: bool,
}

struct Loop<J> {
    job: J,
    poll: Poll,
    connections: Slab<Connection>,
    /// Keys of `connections`.
    subscribers: Vec<usize>,
    out: Vec<u8>,
}

/// Serves until something fails that concerns more than one connection.
///
/// # Errors
/// Whatever failed.
pub fn serve<J: Job>(job: J, doors: Vec<Door>) -> io::Result<Infallible> {
    let poll = Poll::new()?;
    let mut listeners = Vec::new();
    for (number, door) in doors.into_iter().enumerate() {
        let mut listener = mio::net::TcpListener::from_std(TcpListener::from(door.listener.into_fd()));
        poll.registry().register(&mut listener, Token(usize::MAX - 1 - number), Interest::READABLE)?;
        listeners.push((listener, door.side));
    }
    let mut this = Loop { job, poll, connections: Slab::new(), subscribers: Vec::new(), out: Vec::new() };
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        match this.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let Token(key) = event.token();
            if let Some((listener, side)) = listeners.get(usize::MAX - 1 - key) {
                this.accept(listener, Phase::from(*side))?;
                continue;
            }
            if event.is_writable() {
                this.send_rest(key)?;
            }
            if event.is_readable() {
                this.receive(key, &mut buffer, event.is_read_closed())?;
            }
        }
        this.broadcast()?;
    }
}

impl<J: Job> Loop<J> {
    fn accept(&mut self, listener: &mio::net::TcpListener, phase: Phase) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The peer has left already.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            self.poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
            let (rest, unsent) = (Vec::new(), Vec::new());
            entry.insert(Connection { stream, phase, rest, unsent, subscriber: NOWHERE, closing: false });
        }
    }

    /// `ends`: the peer's end was announced together with what it sent before, and is not announced again.
    fn receive(&mut self, key: usize, buffer: &mut [u8], ends: bool) -> io::Result<()> {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
            let len = match connection.stream.read(buffer) {
                Ok(0) => return self.close(key),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.close(key),
            };
            let then = if connection.rest.is_empty() {
                let (used, then) = self.job.received(&mut connection.phase, &mut buffer[..len], &mut self.out);
                connection.rest.extend_from_slice(&buffer[used..len]);
                then
            } else {
                connection.rest.extend_from_slice(&buffer[..len]);
                let (used, then) = self.job.received(&mut connection.phase, &mut connection.rest, &mut self.out);
                connection.rest.drain(..used);
                then
            };
            if connection.rest.len() > KEPT_BYTES_MAX {
                return self.close(key);
            }
            if then == Then::Subscribe && connection.subscriber == NOWHERE {
                connection.subscriber = self.subscribers.len();
                self.subscribers.push(key);
            }
            connection.closing |= then == Then::Close;
            if !self.out.is_empty() || connection.closing {
                let out = std::mem::take(&mut self.out);
                self.send(key, &out)?;
                self.out = out;
                self.out.clear();
            }
            if len < buffer.len() && !ends {
                return Ok(());
            }
        }
    }

    fn send(&mut self, key: usize, bytes: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[key];
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return if connection.unsent.len() > KEPT_BYTES_MAX { self.close(key) } else { Ok(()) };
        }
        let sent = match connection.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(_) => return self.close(key),
        };
        if sent < bytes.len() {
            connection.unsent.extend_from_slice(&bytes[sent..]);
            let both = Interest::READABLE | Interest::WRITABLE;
            return self.poll.registry().reregister(&mut connection.stream, Token(key), both);
        }
        if connection.closing { self.close(key) } else { Ok(()) }
    }

    /// Sends what the socket did not take before. From then on room in it is announced, which costs nothing.
    fn send_rest(&mut self, key: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.unsent.is_empty()) else {
            return Ok(());
        };
        let unsent = std::mem::take(&mut connection.unsent);
        self.send(key, &unsent)
    }

    /// Gives what the job has for all subscribers to each of them.
    fn broadcast(&mut self) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        while self.job.broadcast(&mut out) {
            // From the last to the first, because closing one moves the last one into its place.
            for number in (0..self.subscribers.len()).rev() {
                self.send(self.subscribers[number], &out)?;
            }
            out.clear();
        }
        self.out = out;
        Ok(())
    }

    fn close(&mut self, key: usize) -> io::Result<()> {
        let place = self.connections.remove(key).subscriber;
        if place != NOWHERE {
            self.subscribers.swap_remove(place);
            if let Some(moved) = self.subscribers.get(place) {
                self.connections[*moved].subscriber = place;
            }
        }
        Ok(())
    }
}
