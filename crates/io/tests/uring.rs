//! What is io_uring's alone: the probe, bursts larger than its queues, and what it leaves to the kernel.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use io::uring::{Unavailable, Uring};
use io::{Address, Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, How, Io, Options, Peer, Wake, listener};

#[derive(Default)]
struct Echo {
    opened: Vec<ConnId>,
    received: usize,
    outboxes: std::collections::HashMap<ConnId, Vec<u8>>,
    closed: usize,
    /// Closed as soon as anything is received, by each other.
    pairs: bool,
    /// A connection stays when its client has gone.
    keeps_ended: bool,
    ends: usize,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) {
        self.opened.push(id);
        self.outboxes.insert(id, Vec::new());
    }
    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        assert!(self.outboxes.contains_key(&id), "received after its close was reported");
        if bytes.is_empty() {
            self.ends += 1;
            if !self.keeps_ended {
                io.close(id, How::Now);
            }
            return Flow::Continue;
        }
        self.received += bytes.len();
        if self.pairs {
            let others: Vec<_> = self.opened.iter().copied().filter(|other| *other != id).collect();
            others.into_iter().for_each(|other| io.close(other, How::Now));
        }
        self.outboxes.get_mut(&id).unwrap().extend_from_slice(bytes);
        io.dirty(id, Class::Reply);
        Flow::Continue
    }
    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        batch.push(&self.outboxes[&id]);
    }
    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        let outbox = self.outboxes.get_mut(&id).unwrap();
        outbox.drain(..bytes);
        if !outbox.is_empty() {
            io.dirty(id, Class::Reply);
        }
    }
    fn expired(&mut self, _: &mut Io, _: ConnId) {}
    fn closed(&mut self, _: &mut Io, id: ConnId, _: Closed) {
        assert!(self.outboxes.remove(&id).is_some());
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
    let ready = Uring::probe().expect("these tests need io_uring");
    (Uring::new(ready, options, vec![listener], Clock::start(), Wake::new().unwrap().receiver()).unwrap(), address)
}

fn until(driver: &mut Uring, echo: &mut Echo, what: &str, mut done: impl FnMut(&Echo, &mut Io) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !done(echo, driver.io()) {
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        driver.tick(echo, Some(Duration::from_millis(5))).unwrap();
    }
}

/// The calling thread, and only it, gets `errno` from io_uring_setup.
fn forbid_io_uring(errno: i32) {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the system call's number
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: these take no pointer, and `program` with its filter, which the kernel copies, lives across the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn a_seccomp_filter_is_told_as_such_and_its_twin_for_another_call_lets_the_probe_pass() {
    for (errno, expected) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "ENOSYS"), (libc::ENOMEM, "RLIMIT_MEMLOCK")] {
        let why = std::thread::spawn(move || {
            Uring::probe().expect("not forbidden yet");
            forbid_io_uring(errno);
            Uring::probe().expect_err("forbidden")
        });
        let why = why.join().unwrap();
        match errno {
            libc::EPERM => assert!(matches!(why, Unavailable::Forbidden), "{why:?}"),
            libc::ENOSYS => assert!(matches!(why, Unavailable::NoSystemCall), "{why:?}"),
            _ => assert!(matches!(why, Unavailable::NoMemory), "{why:?}"),
        }
        assert!(why.to_string().contains(expected), "{why}");
    }
    Uring::probe().expect("the other threads' filters are not ours");
}

#[test]
fn a_burst_of_connections_beyond_every_queue_is_served_or_refused_to_the_last() {
    const BURST: usize = 1500;
    let options = Options { connections_max: 1000, full_answer: b"full".to_vec(), ..Options::default() };
    let (mut driver, address) = driver(options);
    let mut echo = Echo::default();
    let mut clients: Vec<_> = (0..BURST).map(|_| TcpStream::connect(address).unwrap()).collect();
    until(&mut driver, &mut echo, "all are admitted or refused", |echo, io| {
        echo.opened.len() + io.counters().refused_full.load() as usize == BURST
    });
    assert_eq!(echo.opened.len(), 1000);
    // All of them readable at once: more than a batch, and more than the kernel tells in one call.
    clients.iter_mut().take(1000).for_each(|client| client.write_all(b"tide").unwrap());
    until(&mut driver, &mut echo, "all is received", |echo, _| echo.received == 4000);
    until(&mut driver, &mut echo, "all is sent", |echo, _| echo.outboxes.values().all(Vec::is_empty));
    for client in clients.iter_mut().take(1000) {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"tide");
    }
    // All closed at once: more operations than the submission queue holds.
    drop(clients);
    until(&mut driver, &mut echo, "all are closed", |echo, _| echo.closed == 1000);
    let (late, id) = (TcpStream::connect(address).unwrap(), echo.opened.len());
    until(&mut driver, &mut echo, "the late one is served", |echo, _| echo.opened.len() > id);
    drop(late);
}

#[test]
fn closing_more_connections_in_a_tick_than_the_submission_queue_holds_closes_them_all() {
    let (mut driver, address) = driver(Options::default());
    let mut echo = Echo::default();
    let mut clients: Vec<_> = (0..1200).map(|_| TcpStream::connect(address).unwrap()).collect();
    until(&mut driver, &mut echo, "all open", |echo, _| echo.opened.len() == 1200);
    driver.shutdown(&mut echo);
    assert_eq!(echo.closed, 1200);
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "FIN, at once");
    }
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

/// How many operations and calls it takes to close each of ten of so many connections, one by one.
fn cost_of_ten_closes(connections: usize) -> (Vec<u64>, u64) {
    let (mut driver, address) = driver(Options { connections_max: connections, ..Options::default() });
    let mut echo = Echo { keeps_ended: true, ..Echo::default() };
    for chunk in (0..connections).collect::<Vec<_>>().chunks(500) {
        // Their clients leave at once, since a process has descriptors for one end of so many only; the poll stays armed.
        chunk.iter().for_each(|_| drop(TcpStream::connect(address).unwrap()));
        until(&mut driver, &mut echo, "all open", |echo, _| echo.opened.len() == chunk[chunk.len() - 1] + 1);
    }
    until(&mut driver, &mut echo, "every end is seen", |echo, _| echo.ends == connections);
    let counters = driver.io().counters();
    let mut operations = Vec::new();
    let enters = counters.enters.load();
    for number in 0..10 {
        let (before, id) = (counters.operations.load(), echo.opened[number * connections / 10]);
        driver.io().close(id, How::Now);
        until(&mut driver, &mut echo, "it is closed", |echo, _| echo.closed > number);
        // Its slot is given to the next one when the kernel is done with it.
        driver.tick(&mut echo, Some(Duration::ZERO)).unwrap();
        operations.push(counters.operations.load() - before);
    }
    (operations, counters.enters.load() - enters)
}

#[test]
fn closing_one_of_ten_thousand_connections_asks_the_kernel_for_no_more_than_one_of_ten() {
    let few = cost_of_ten_closes(10);
    let many = cost_of_ten_closes(10_000);
    assert_eq!(many.0, [2; 10], "one poll taken off by its tag, one socket closed");
    assert_eq!(few.0, many.0);
    assert!(many.1 <= few.1.max(20) + 10, "{} calls, {} with ten", many.1, few.1);
}

#[test]
fn a_connection_closed_by_anothers_input_in_the_same_batch_is_not_told_of_its_own() {
    let (mut driver, address) = driver(Options::default());
    let mut echo = Echo { pairs: true, ..Echo::default() };
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    until(&mut driver, &mut echo, "all open", |echo, _| echo.opened.len() == 20);
    clients.iter_mut().for_each(|client| client.write_all(b"tide").unwrap());
    until(&mut driver, &mut echo, "one is left", |echo, _| echo.closed == 19);
    assert_eq!(echo.received, 4, "the first one's only");
}

#[test]
fn a_dropped_driver_leaves_no_socket_open() {
    let (mut driver, address) = driver(Options::default());
    let mut echo = Echo::default();
    let mut client = TcpStream::connect(address).unwrap();
    let mut queued = TcpStream::connect(address).unwrap();
    until(&mut driver, &mut echo, "one open", |echo, _| !echo.opened.is_empty());
    drop(driver);
    for client in [&mut client, &mut queued] {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "FIN or RST");
    }
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}
