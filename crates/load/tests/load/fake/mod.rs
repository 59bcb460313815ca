//! A small gateway to put load on, and the faults that it can be told to make.
//!
//! It serves everything on one address: `/connection/websocket`, `/connection/uni_websocket`, `/sub/CHANNEL`, NATS on `/`
//! and `/echo`; and for publishing `/api/publish`, `/pub/CHANNEL`, and NATS without HTTP.
//! Faults hit the first client only (the **victim**), so that every other client is the accepted twin.

mod connection;
mod fault;
mod nats;

pub(crate) use fault::{Fault, Reaches};

use connection::{Connection, Speaks};
use io::epoll::Epoll;
use io::{Batch, Class, Clock, Closed, ConnId, Driver, Flow, Handler, How, Io, Options, Peer, PeerAddress, Wake};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The publication or message, from 1, that a fault hits.
const FAULTY: u32 = 3;

/// Between two pings where they come often.
const PING_PERIOD: Duration = Duration::from_millis(5);

/// What the server saw.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    /// Source addresses of clients.
    pub(crate) sources: BTreeSet<IpAddr>,
    /// WebSocket pongs with the payload of our ping.
    pub(crate) pongs: u32,
    /// `{}` answers to our `{}`.
    pub(crate) answers: u32,
    /// Close frames, with 1000.
    pub(crate) closes: u32,
    /// The most messages of one client that one read brought.
    pub(crate) messages_per_read_max: u32,
    /// Subscriptions by channel.
    pub(crate) subscribed: HashMap<String, u32>,
}

/// A running server.
pub(crate) struct Server {
    address: String,
    over: Arc<AtomicBool>,
    wake: Wake,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// How a run of tidegate-load ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    /// The last line of stdout.
    pub(crate) report: serde_json::Value,
    pub(crate) stderr: String,
}

impl Run {
    /// A number of the report.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("{name} is not in {}\n{}", self.report, self.stderr))
    }

    /// The faults that it counts, by name, those that are zero left out.
    pub(crate) fn faults(&self) -> Vec<(&'static str, u64)> {
        const NAMES: [&str; 8] =
            ["lost", "duplicated", "out_of_order", "misdelivered", "foreign", "failed", "disconnected", "unclean"];
        NAMES.iter().map(|&name| (name, self.number(name))).filter(|&(_, count)| count > 0).collect()
    }
}

/// Runs tidegate-load with these arguments.
pub(crate) fn load(arguments: &[&str]) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_tidegate-load")).args(arguments))
}

/// The same where a table of descriptors may hold only so many.
pub(crate) fn load_with_files(limit: u32, arguments: &[&str]) -> Run {
    let program = env!("CARGO_BIN_EXE_tidegate-load");
    run(Command::new("sh").args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), program]).args(arguments))
}

fn run(command: &mut Command) -> Run {
    let output = command.output().expect("it can be run");
    let stdout = String::from_utf8(output.stdout).expect("text");
    let stderr = String::from_utf8(output.stderr).expect("text");
    let report = stdout.lines().last().map_or(serde_json::Value::Null, |line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    Run { code: output.status.code().expect("it was not killed"), report, stderr }
}

impl Server {
    /// Starts one that makes this fault.
    pub(crate) fn start(fault: Fault) -> Server {
        Server::start_with(fault, FAULTY)
    }

    /// Starts one that makes this fault with the publication or message of this number.
    pub(crate) fn start_with(fault: Fault, faulty: u32) -> Server {
        let listener = io::listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_address().to_string();
        let (wake, over, seen) = (Wake::new().unwrap(), Arc::new(AtomicBool::new(false)), Arc::default());
        let (receiver, stop) = (wake.receiver(), Arc::clone(&over));
        let mut handler = Fake { fault, faulty, seen: Arc::clone(&seen), stop: Arc::clone(&over), ..Fake::default() };
        let thread = std::thread::spawn(move || {
            let mut driver = Epoll::new(Options::default(), vec![listener], Clock::start(), receiver).unwrap();
            while !stop.load(Relaxed) {
                driver.tick(&mut handler, None).unwrap();
            }
        });
        Server { address, over, wake, seen, thread: Some(thread) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    pub(crate) fn api(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn nats(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        self.wake.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("it was started").expect("the server did not panic");
        }
    }
}

/// The server's side of all connections.
#[derive(Default)]
struct Fake {
    fault: Fault,
    /// Number of the publication or message that it hits.
    faulty: u32,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    connections: HashMap<ConnId, Connection>,
    subscribers: Vec<ConnId>,
    /// The first client that asked for an upgrade.
    victim: Option<ConnId>,
    publications: u32,
    misdelivered: bool,
    /// Publishers whose publications are held back from the victim, and these.
    held: Vec<(String, Vec<u8>)>,
    next_ping: Duration,
    /// Frames that were cut in two.
    cuts: usize,
}

impl Fake {
    /// Pings every client without a dialect but the victim, now and then.
    fn ping_often(&mut self, io: &mut Io) {
        if io.now() >= self.next_ping {
            self.next_ping = io.now() + PING_PERIOD;
            let pinged = |(id, connection): (&ConnId, &Connection)| {
                (connection.speaks == Speaks::Echo && self.victim != Some(*id)).then_some(*id)
            };
            let ids: Vec<ConnId> = self.connections.iter().filter_map(pinged).collect();
            ids.into_iter().for_each(|id| self.ping(io, id));
        }
        io.alarm(self.next_ping);
    }

    fn write(&mut self, io: &mut Io, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.connections.get_mut(&id) {
            write(&mut connection.out);
            io.dirty(id, Class::Reply);
        }
    }

    fn text(&mut self, io: &mut Io, id: ConnId, text: &[u8]) {
        self.write(io, id, |out| wire::ws::write_frame(out, wire::ws::OpCode::Text, true, text, None));
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// A client has become of use: ping it in both ways.
    fn ping(&mut self, io: &mut Io, id: ConnId) {
        self.write(io, id, |out| wire::ws::write_frame(out, wire::ws::OpCode::Ping, true, b"are you there", None));
        if self.connections.get(&id).is_some_and(|connection| connection.speaks != Speaks::Echo) {
            self.text(io, id, b"{}");
        }
    }
}

impl Handler for Fake {
    fn opened(&mut self, _: &mut Io, id: ConnId, peer: Peer) {
        if let PeerAddress::Ip(address) = peer.address {
            self.connections.insert(id, Connection::new(address.ip()));
        }
    }

    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        if bytes.is_empty() {
            io.close(id, How::Flush);
        } else {
            self.bytes(io, id, bytes);
        }
        Flow::Continue
    }

    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        batch.push(&self.connections[&id].out);
    }

    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        let out = &mut self.connections.get_mut(&id).unwrap().out;
        out.drain(..bytes);
        if !out.is_empty() {
            io.dirty(id, Class::Reply);
        }
    }

    fn expired(&mut self, _: &mut Io, _: ConnId) {}

    fn closed(&mut self, _: &mut Io, id: ConnId, _: Closed) {
        self.connections.remove(&id);
        self.subscribers.retain(|subscriber| *subscriber != id);
    }

    fn woken(&mut self, io: &mut Io) {
        if self.fault == Fault::ForgetPings {
            self.ping_often(io);
        }
    }

    fn has_mail(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn ticked(&mut self, _: &mut Io) {}
}
