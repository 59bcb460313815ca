//! A bare loop on io_uring: multishot accept, one armed receive per connection, sends as they come; one system call per
//! turn submits everything and waits for the next completion.
//!
//! INVARIANT, on which every `unsafe` here rests: memory given to the kernel in an operation is neither moved, changed nor
//! freed before that operation's completion was taken. It lies on the heap, in [`Connection::buffer`] and
//! [`Connection::out`] of a connection that is freed at zero operations, or in a [`Body`] that is freed at zero uses; and
//! all of it is leaked, not freed, when the loop ends with operations under way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use slab::Slab;

use super::{Door, Job, KEPT_BYTES_MAX, Phase, Side, Then};

/// Operations submitted with one call at most.
const SUBMISSIONS: u32 = 4096;
/// Completions that the ring holds; a broadcast of 10,000 makes so many at once.
const COMPLETIONS: u32 = 32 * 1024;
/// Bytes taken per receive.
const RECEIVE_BYTES: usize = 4096;
/// Not subscribed.
const NOWHERE: usize = usize::MAX;
/// A send that sends bytes of the connection's own.
const NO_BODY: u32 = (1 << 24) - 1;

struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// What a receive writes into.
    buffer: Box<[u8]>,
    /// Received, but not whole yet.
    rest: Vec<u8>,
    /// What a send of bytes of its own reads from.
    out: Vec<u8>,
    /// To be sent after the send under way.
    waiting: Vec<u8>,
    sending: bool,
    receiving: bool,
    /// Its place among the subscribers, or [`NOWHERE`].
    subscriber: usize,
    /// It goes as soon as everything was sent and nothing is under way.
    closing: bool,
}

/// Bytes that many sends read.
struct Body {
    bytes: Vec<u8>,
    uses: usize,
}

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Accept { listener: u32 },
    Receive { key: u32 },
    Send { key: u32, body: u32 },
}

impl Tag {
    fn to_bits(self) -> u64 {
        match self {
            Tag::Accept { listener } => u64::from(listener),
            Tag::Receive { key } => 1 << 56 | u64::from(key),
            Tag::Send { key, body } => 2 << 56 | u64::from(body) << 32 | u64::from(key),
        }
    }

    fn from_bits(bits: u64) -> Tag {
        let key = bits as u32;
        match bits >> 56 {
            0 => Tag::Accept { listener: key },
            1 => Tag::Receive { key },
            _ => Tag::Send { key, body: (bits >> 32) as u32 & NO_BODY },
        }
    }
}

struct Loop<J> {
    job: J,
    ring: IoUring,
    listeners: Vec<(TcpListener, Side)>,
    connections: ManuallyDrop<Slab<Connection>>,
    bodies: ManuallyDrop<Slab<Body>>,
    /// Keys of `connections`.
    subscribers: Vec<usize>,
    out: Vec<u8>,
}

/// Serves until something fails that concerns more than one connection.
///
/// # Errors
/// Whatever failed; also when there is no io_uring here, or one older than Linux 6.1.
pub fn serve<J: Job>(job: J, doors: Vec<Door>) -> io::Result<Infallible> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
        .map_err(|error| io::Error::new(error.kind(), format!("no io_uring here: {error}")))?;
    let listeners = doors.into_iter().map(|door| (TcpListener::from(door.listener.into_fd()), door.side)).collect();
    let mut this = Loop {
        job,
        ring,
        listeners,
        connections: ManuallyDrop::new(Slab::new()),
        bodies: ManuallyDrop::new(Slab::new()),
        subscribers: Vec::new(),
        out: Vec::new(),
    };
    for listener in 0..this.listeners.len() {
        this.accept(listener)?;
    }
    let mut completions = VecDeque::with_capacity(COMPLETIONS as usize);
    loop {
        match this.ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        completions.extend(this.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        while let Some((bits, result, flags)) = completions.pop_front() {
            match Tag::from_bits(bits) {
                Tag::Accept { listener } => this.accepted(listener as usize, result, cqueue::more(flags))?,
                Tag::Receive { key } => this.received(key as usize, result)?,
                Tag::Send { key, body } => this.sent(key as usize, body, result)?,
            }
        }
        this.broadcast()?;
    }
}

impl Connection {
    /// Keeps bytes until the send under way is done.
    fn wait_with(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() > KEPT_BYTES_MAX {
            // The send under way fails, and with it the connection ends.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

impl<J: Job> Loop<J> {
    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        loop {
            // SAFETY: the memory that `entry` names, if any, is governed by the module's invariant: each caller takes it
            // from a place named there and has just marked it as in use.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let fd = types::Fd(self.listeners[listener].0.as_raw_fd());
        let tag = Tag::Accept { listener: listener as u32 };
        self.push(&opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build().user_data(tag.to_bits()))
    }

    fn accepted(&mut self, listener: usize, result: i32, more: bool) -> io::Result<()> {
        if !more {
            self.accept(listener)?;
        }
        if result < 0 {
            // The peer has left already; anything else concerns us all.
            let gone = matches!(-result, libc::ECONNABORTED | libc::EINTR);
            return if gone { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) };
        }
        // SAFETY: a completed accept gives a new descriptor, which nobody else knows.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) });
        stream.set_nodelay(true)?;
        let key = self.connections.insert(Connection {
            stream,
            phase: Phase::from(self.listeners[listener].1),
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            rest: Vec::new(),
            out: Vec::new(),
            waiting: Vec::new(),
            sending: false,
            receiving: false,
            subscriber: NOWHERE,
            closing: false,
        });
        self.receive(key)
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        debug_assert!(!connection.receiving, "two receives into one buffer");
        connection.receiving = true;
        let (fd, buffer) = (types::Fd(connection.stream.as_raw_fd()), &mut connection.buffer);
        let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build();
        self.push(&entry.user_data(Tag::Receive { key: key as u32 }.to_bits()))
    }

    fn received(&mut self, key: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[key];
        connection.receiving = false;
        if result <= 0 || connection.closing {
            self.close(key);
            return Ok(());
        }
        let input = &mut connection.buffer[..result as usize];
        let then = if connection.rest.is_empty() {
            let (used, then) = self.job.received(&mut connection.phase, input, &mut self.out);
            connection.rest.extend_from_slice(&input[used..]);
            then
        } else {
            connection.rest.extend_from_slice(input);
            let (used, then) = self.job.received(&mut connection.phase, &mut connection.rest, &mut self.out);
            connection.rest.drain(..used);
            then
        };
        if then == Then::Subscribe && connection.subscriber == NOWHERE {
            connection.subscriber = self.subscribers.len();
            self.subscribers.push(key);
        }
        let too_much = connection.rest.len() > KEPT_BYTES_MAX;
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.send(key, &out)?;
            self.out = out;
            self.out.clear();
        }
        if then == Then::Close || too_much {
            self.close(key);
            return Ok(());
        }
        self.receive(key)
    }

    /// Sends bytes of the connection's own, after those under way.
    fn send(&mut self, key: usize, bytes: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[key];
        if connection.sending {
            connection.wait_with(bytes);
            return Ok(());
        }
        connection.out.clear();
        connection.out.extend_from_slice(bytes);
        self.send_out(key)
    }

    fn send_out(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        connection.sending = true;
        let fd = types::Fd(connection.stream.as_raw_fd());
        let entry = opcode::Send::new(fd, connection.out.as_ptr(), connection.out.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.push(&entry.user_data(Tag::Send { key: key as u32, body: NO_BODY }.to_bits()))
    }

    fn sent(&mut self, key: usize, body: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[key];
        connection.sending = false;
        let sent = usize::try_from(result).unwrap_or(0);
        if body == NO_BODY {
            connection.out.drain(..sent);
        } else {
            let shared = &mut self.bodies[body as usize];
            connection.out.clear();
            connection.out.extend_from_slice(&shared.bytes[sent..]);
            shared.uses -= 1;
            if shared.uses == 0 {
                self.bodies.remove(body as usize);
            }
        }
        if result < 0 {
            connection.out.clear();
            connection.waiting.clear();
            self.close(key);
            return Ok(());
        }
        connection.out.append(&mut connection.waiting);
        if !connection.out.is_empty() {
            return self.send_out(key);
        }
        if connection.closing {
            self.close(key);
        }
        Ok(())
    }

    /// Gives what the job has for all subscribers to each of them.
    fn broadcast(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.job.broadcast(&mut bytes) {
            let body = self.bodies.insert(Body { bytes: std::mem::take(&mut bytes), uses: 0 });
            for number in 0..self.subscribers.len() {
                self.send_body(self.subscribers[number], body)?;
            }
            if self.bodies[body].uses == 0 {
                self.bodies.remove(body);
            }
        }
        Ok(())
    }

    fn send_body(&mut self, key: usize, body: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let shared = &mut self.bodies[body];
        if connection.sending {
            connection.wait_with(&shared.bytes);
            return Ok(());
        }
        assert!(body < NO_BODY as usize, "a body for each blocked subscriber and one more, fewer than there are files");
        shared.uses += 1;
        connection.sending = true;
        let fd = types::Fd(connection.stream.as_raw_fd());
        let entry =
            opcode::Send::new(fd, shared.bytes.as_ptr(), shared.bytes.len() as u32).flags(libc::MSG_NOSIGNAL).build();
        self.push(&entry.user_data(Tag::Send { key: key as u32, body: body as u32 }.to_bits()))
    }

    /// Closes the connection, now or when what is under way has come back.
    fn close(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        connection.closing = true;
        let place = std::mem::replace(&mut connection.subscriber, NOWHERE);
        if connection.receiving && !connection.sending {
            // Nothing more is to be sent, so the receive may end too.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        if !connection.receiving && !connection.sending {
            self.connections.remove(key);
        }
        if place != NOWHERE {
            self.subscribers.swap_remove(place);
            if let Some(moved) = self.subscribers.get(place) {
                self.connections[*moved].subscriber = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_its_bits() {
        let tags = [
            Tag::Accept { listener: 1 },
            Tag::Receive { key: u32::MAX },
            Tag::Send { key: 7, body: NO_BODY },
            Tag::Send { key: u32::MAX, body: 0 },
        ];
        assert!(tags.iter().all(|tag| Tag::from_bits(tag.to_bits()) == *tag));
    }
}
