//! Why nothing on a thread with its own table of descriptors may write by a number that another thread gave it: a log
//! line written so reaches whichever client has that number here. Shown to go wrong, and to go right by message.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::mpsc;
use std::time::Duration;

use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, How, Io, Listener, Options, Peer, Wake};
use io::{descriptors, listener};

const CLIENTS: usize = 64;
const LINE: &[u8] = b"a line of the log\n";

/// How the handler writes its log.
enum Log {
    /// By the number that the main thread opened it under: wrong.
    Number(RawFd),
    /// Through the thread that owns it.
    Message(mpsc::Sender<&'static [u8]>),
}

impl Log {
    fn write(&self) {
        match self {
            Log::Number(fd) => {
                // SAFETY: this is the mistake under test; the number is only written to, and given back at once.
                let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(*fd) });
                let _ = (&*file).write(LINE);
            }
            Log::Message(owner) => owner.send(LINE).expect("the owner listens"),
        }
    }
}

struct Echo {
    outboxes: HashMap<ConnId, Vec<u8>>,
    log: Log,
    left: usize,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) {
        self.outboxes.insert(id, Vec::new());
    }
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        if bytes.is_empty() {
            io.close(id, How::Flush);
        } else {
            self.log.write();
            self.outboxes.entry(id).or_default().extend_from_slice(bytes);
            io.dirty(id, Class::Reply);
        }
        Flow::Continue
    }
    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        batch.push(&self.outboxes[&id]);
    }
    fn sent(&mut self, _: &mut Io, id: ConnId, bytes: usize) {
        self.outboxes.entry(id).or_default().drain(..bytes);
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, id: ConnId, _: Closed) {
        self.outboxes.remove(&id);
        self.left += 1;
    }
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

type Start<D> = fn(Listener, &Wake) -> D;

fn epoll(listener: Listener, wake: &Wake) -> Epoll {
    Epoll::new(Options::default(), vec![listener], Clock::start(), wake.receiver()).unwrap()
}

fn uring(listener: Listener, wake: &Wake) -> Uring {
    let ready = Uring::probe().expect("these tests need io_uring");
    Uring::new(ready, Options::default(), vec![listener], Clock::start(), wake.receiver()).unwrap()
}

/// Serves [`CLIENTS`] clients from a thread with its own table and counts those that got a foreign byte, and the lines
/// that reached the log.
fn foreign<D: Driver + 'static>(start: Start<D>, by_number: bool) -> (usize, usize) {
    let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let Address::Ip(address) = *listener.local_address() else { unreachable!() };
    let wake = Wake::new().unwrap();
    // The worker leaves these behind, so that its own descriptors come below the log's number and a client gets that.
    let _left_behind: Vec<_> = (0..20).map(|_| File::open("/dev/null").unwrap()).collect();
    let mut log = tempfile::tempfile().unwrap();
    let (number, kept) = (log.as_raw_fd(), [listener.fd(), wake.fd()]);
    let (lines, written) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        descriptors::take_private_table(&kept).unwrap();
        let log = if by_number { Log::Number(number) } else { Log::Message(lines) };
        let mut echo = Echo { outboxes: HashMap::new(), log, left: 0 };
        let mut driver = start(listener, &wake);
        while echo.left < CLIENTS {
            driver.tick(&mut echo, Some(Duration::from_secs(30))).unwrap();
        }
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"tide").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Its own echo is there before the next one speaks, and with it every stray line that this one caused.
        client.read_exact(&mut [0]).unwrap();
    }
    let mut strayed = 0;
    for client in &mut clients {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        strayed += usize::from(rest != b"ide");
    }
    worker.join().unwrap();
    written.iter().for_each(|line| log.write_all(line).unwrap());
    let length = log.metadata().unwrap().len() as usize;
    (strayed, length / LINE.len())
}

#[test]
fn a_log_line_written_by_number_reaches_a_client_and_one_sent_to_its_owner_the_log() {
    for (name, by_number, by_message) in
        [("epoll", foreign(epoll, true), foreign(epoll, false)), ("uring", foreign(uring, true), foreign(uring, false))]
    {
        assert!(by_number.0 > 0, "{name}: the mistake shows, or this test sees nothing");
        assert_eq!(by_number.1, 0, "{name}: and the log is empty");
        assert_eq!(by_message, (0, CLIENTS), "{name}");
    }
}
