//! The clients of a fleet: their connections from the first SYN to the last close frame.
//!
//! ```text
//!          open            opened            101               all replies           close          peer's close, FIN
//!   Idle --------> Connecting ---> Upgrading -----> Greeting ------------> Ready ----------> Closing ------> Ended ---> Idle
//!                      |               |               |                     |                  |              ^   closed
//!                      +---------------+---------------+---------- fault ----+------------------+--------------+
//! ```

use super::letters::{Census, Gauges};
use super::{CLOSE_TIMEOUT, OUT_BYTES_MAX, Plan};
use crate::latency::{Latencies, Recorder};
use crate::loops::Share;
use crate::reasons::Reasons;
use crate::sources::Sources;
use crate::timeline::Series;
use crate::tls;
use io::{Class, Closed, ConnId, How, Io, Target};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use wire::ws::{self, CloseCode, OpCode, Reader, Role};

/// Sent bytes that are kept in front of the unsent ones before these are moved.
const OUT_BYTES_SENT_MAX: usize = 1024 * 1024;

/// Names a client of a loop, from 0. [`Net::global`] names it in the whole fleet.
pub(crate) type ClientNo = u32;

/// Where a client is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// It has no connection.
    Idle,
    /// TCP.
    Connecting,
    /// HTTP.
    Upgrading(Box<Upgrade>),
    /// The dialect's first words.
    Greeting {
        /// Replies to come.
        replies: u32,
    },
    /// Of use.
    Ready,
    /// Our close frame is sent.
    Closing,
    /// Nothing that comes counts any more.
    Ended,
}

#[derive(Debug)]
pub(super) struct Upgrade {
    pub(super) key: [u8; 16],
    /// What came of the answer.
    pub(super) head: Vec<u8>,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: Option<ConnId>,
    pub(super) state: State,
    pub(super) reader: Reader,
    /// Bytes to send, of which the first `out_sent` were sent.
    pub(super) out: Vec<u8>,
    pub(super) out_sent: usize,
    /// What these pass through, for a URL with TLS.
    pub(super) tls: Option<Box<tls::Client>>,
    /// When it was to be opened.
    pub(super) since: Duration,
    pub(super) pings: u32,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            id: None,
            state: State::Idle,
            reader: Reader::new(Role::Client),
            out: Vec::new(),
            out_sent: 0,
            tls: None,
            since: Duration::ZERO,
            pings: 0,
        }
    }
}

const _: () = assert!(size_of::<Client>() <= 120, "a million clients: 120 B is 120 MB");

/// What became of the clients.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    /// Became ready.
    pub(crate) opened: u64,
    /// Did not.
    pub(crate) failed: u64,
    /// Were ready, and lost their connection before we closed it.
    pub(crate) lost: u64,
    /// Closed as they should: a close frame each way.
    pub(crate) closed: u64,
    /// Did not answer our close frame in time or as they should.
    pub(crate) unclean: u64,
    /// Why clients failed or were lost.
    pub(crate) reasons: Reasons,
    /// From the moment a client was to be opened until it was ready.
    pub(crate) opening: Latencies,
}

impl Tally {
    pub(crate) fn merge(&mut self, other: Tally) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.lost += other.lost;
        self.closed += other.closed;
        self.unclean += other.unclean;
        self.reasons.merge(&other.reasons);
        self.opening.merge(&other.opening);
    }
}

/// All clients of one loop.
#[derive(Debug)]
pub(crate) struct Net {
    pub(super) plan: Arc<Plan>,
    share: Share,
    pub(super) clients: Vec<Client>,
    /// By slot of the driver.
    owners: Vec<ClientNo>,
    sources: Sources,
    pub(super) tally: Tally,
    opening: Recorder,
    pub(super) gauges: Arc<Gauges>,
    census: Arc<Census>,
    /// What dialects keep for the next message of a client; few have any at one time.
    rests: HashMap<ClientNo, Vec<u8>>,
    /// Clients that read nothing for now.
    paused: HashSet<ClientNo>,
    /// Connecting, upgrading or greeting.
    pub(super) pending: usize,
    /// Ready.
    pub(super) ready: usize,
    /// Whoever makes masks and keys. They need not be hard to guess: nothing here is a browser.
    random: fastrand::Rng,
}

impl Net {
    pub(super) fn new(plan: Arc<Plan>, share: Share, gauges: Arc<Gauges>, census: Arc<Census>) -> Net {
        let mut clients = Vec::new();
        clients.resize_with(share.len(plan.clients) as usize, Client::default);
        Net {
            clients,
            share,
            owners: Vec::new(),
            sources: Sources::new(plan.endpoint.address, plan.source, plan.ports, share),
            tally: Tally::default(),
            opening: Recorder::new(plan.timeline.as_ref(), Series::Opening),
            gauges,
            census,
            rests: HashMap::new(),
            paused: HashSet::new(),
            pending: 0,
            ready: 0,
            random: fastrand::Rng::new(),
            plan,
        }
    }

    /// What became of the clients, and how many pings each got.
    pub(super) fn finish(mut self) -> (Tally, Vec<u32>) {
        self.tally.opening = self.opening.finish();
        (self.tally, self.clients.iter().map(|client| client.pings).collect())
    }

    /// A client's number in the whole fleet.
    pub(crate) fn global(&self, no: ClientNo) -> u32 {
        self.share.global(no)
    }

    /// Pings that a client got so far.
    pub(crate) fn pings(&self, no: ClientNo) -> u32 {
        self.clients[no as usize].pings
    }

    /// How many clients this loop has.
    pub(crate) fn len(&self) -> u32 {
        self.clients.len() as u32
    }

    /// Whether the client is of use now.
    pub(crate) fn is_ready(&self, no: ClientNo) -> bool {
        matches!(self.clients[no as usize].state, State::Ready)
    }

    /// Whether the client has no connection.
    pub(super) fn is_gone(&self, no: ClientNo) -> bool {
        self.clients[no as usize].id.is_none()
    }

    /// Opens an idle client, which was to be done at `since`. False if that failed at once.
    pub(crate) fn open(&mut self, io: &mut Io, no: ClientNo, since: Duration) -> bool {
        let target = Target::Ip { to: self.plan.endpoint.address, from: self.sources.take() };
        let client = &mut self.clients[no as usize];
        debug_assert!(matches!(client.state, State::Idle));
        client.since = since;
        client.reader = Reader::new(Role::Client);
        client.out.clear();
        client.out_sent = 0;
        client.state = State::Connecting;
        self.pending += 1;
        match self.plan.tls.as_ref().map(tls::Common::client).transpose() {
            Ok(tls) => client.tls = tls.map(Box::new),
            Err(error) => {
                self.end(no, &format!("TLS: {error}"));
                self.clients[no as usize].state = State::Idle;
                return false;
            }
        }
        match io.connect(&target) {
            Ok(id) => {
                client.id = Some(id);
                io.deadline(id, Some(io.now() + self.plan.timeout));
                let index = id.index() as usize;
                if index >= self.owners.len() {
                    self.owners.resize(index + 1, 0);
                }
                self.owners[index] = no;
                true
            }
            Err(error) => {
                self.end(no, &format!("connect: {error}"));
                self.clients[no as usize].state = State::Idle;
                false
            }
        }
    }

    /// Sends a message, as the dialect has them.
    pub(crate) fn send(&mut self, io: &mut Io, no: ClientNo, message: &[u8]) {
        self.frame(io, no, self.plan.dialect.opcode(), message);
    }

    /// Closes a client that is ready, politely.
    pub(crate) fn close(&mut self, io: &mut Io, no: ClientNo) {
        let client = &mut self.clients[no as usize];
        let (State::Ready, Some(id)) = (&client.state, client.id) else { return };
        client.state = State::Closing;
        self.ready -= 1;
        self.census.left();
        let mask = self.random.u32(..).to_ne_bytes();
        ws::write_close(&mut client.out, CloseCode::NORMAL, "", Some(mask));
        io.dirty(id, Class::Reply);
        io.deadline(id, Some(io.now() + CLOSE_TIMEOUT));
    }

    /// Cuts a ready client's connection without a word, as a network does. It is nobody's fault and counts nowhere.
    pub(crate) fn reset(&mut self, io: &mut Io, no: ClientNo) {
        let client = &mut self.clients[no as usize];
        let (State::Ready, Some(id)) = (&client.state, client.id) else { return };
        client.state = State::Ended;
        self.ready -= 1;
        self.census.left();
        io.close(id, How::Reset);
    }

    /// Lets a client read nothing, from behind what comes next, until [`Net::resume`].
    pub(crate) fn pause(&mut self, no: ClientNo) {
        self.paused.insert(no);
    }

    /// Lets it read on.
    pub(crate) fn resume(&mut self, io: &mut Io, no: ClientNo) {
        if self.paused.remove(&no)
            && let Some(id) = self.clients[no as usize].id
        {
            io.resume(id);
        }
    }

    pub(super) fn is_paused(&self, no: ClientNo) -> bool {
        !self.paused.is_empty() && self.paused.contains(&no)
    }

    pub(super) fn frame(&mut self, io: &mut Io, no: ClientNo, opcode: OpCode, payload: &[u8]) {
        let mask = self.random.u32(..).to_ne_bytes();
        let client = &mut self.clients[no as usize];
        let Some(id) = client.id else { return };
        ws::write_frame(&mut client.out, opcode, true, payload, Some(mask));
        io.dirty(id, Class::Reply);
        if client.out.len() - client.out_sent > OUT_BYTES_MAX {
            self.fail(io, no, "the server does not take what is sent to it");
        }
    }

    /// The kernel took bytes. True if more wait.
    pub(super) fn sent(&mut self, no: ClientNo, bytes: usize) -> bool {
        let client = &mut self.clients[no as usize];
        if let Some(tls) = &mut client.tls {
            return tls.sent(bytes) || !client.out.is_empty();
        }
        client.out_sent += bytes;
        if client.out_sent == client.out.len() {
            client.out.clear();
            client.out_sent = 0;
        } else if client.out_sent > OUT_BYTES_SENT_MAX {
            client.out.drain(..client.out_sent);
            client.out_sent = 0;
        }
        !client.out.is_empty()
    }

    pub(super) fn owner(&self, id: ConnId) -> ClientNo {
        self.owners[id.index() as usize]
    }

    pub(super) fn key(&mut self) -> [u8; 16] {
        self.random.u128(..).to_ne_bytes()
    }

    /// What the dialect kept of the client's last message.
    pub(super) fn take_rest(&mut self, no: ClientNo) -> Vec<u8> {
        // For most dialects there is never any.
        if self.rests.is_empty() { Vec::new() } else { self.rests.remove(&no).unwrap_or_default() }
    }

    /// Keeps it, unless the client has ended meanwhile.
    pub(super) fn keep_rest(&mut self, no: ClientNo, rest: Vec<u8>) {
        if !rest.is_empty() && !matches!(self.clients[no as usize].state, State::Ended | State::Idle) {
            self.rests.insert(no, rest);
        }
    }

    /// A ping came. Whether it may be answered: nothing follows a close frame.
    pub(super) fn pinged(&mut self, no: ClientNo) -> bool {
        let client = &mut self.clients[no as usize];
        client.pings += 1;
        self.gauges.pings.add(1);
        matches!(client.state, State::Greeting { .. } | State::Ready)
    }

    /// The client is of use from now on.
    pub(super) fn become_ready(&mut self, io: &mut Io, no: ClientNo, now: Duration) {
        let client = &mut self.clients[no as usize];
        client.state = State::Ready;
        if client.out_sent == client.out.len() {
            // What its first words needed; most clients only listen from here on.
            client.out = Vec::new();
            client.out_sent = 0;
        }
        if let Some(id) = client.id {
            io.deadline(id, None);
        }
        self.pending -= 1;
        self.ready += 1;
        self.census.came();
        self.tally.opened += 1;
        self.opening.record(now, now.saturating_sub(client.since));
    }

    /// The end of a client's life as far as we count it; `reason` where it came too early. Later calls change nothing.
    pub(super) fn end(&mut self, no: ClientNo, reason: &str) {
        let client = &mut self.clients[no as usize];
        match std::mem::replace(&mut client.state, State::Ended) {
            State::Idle => client.state = State::Idle,
            State::Ended => {}
            State::Connecting | State::Upgrading(_) | State::Greeting { .. } => {
                self.pending -= 1;
                self.tally.failed += 1;
                self.tally.reasons.add(reason);
            }
            State::Ready => {
                self.ready -= 1;
                self.census.left();
                self.tally.lost += 1;
                self.tally.reasons.add(reason);
            }
            State::Closing => {
                self.tally.unclean += 1;
                self.tally.reasons.add(&format!("while closing: {reason}"));
            }
        }
    }

    /// The client is of no use any more, and it is not our doing.
    pub(super) fn fail(&mut self, io: &mut Io, no: ClientNo, reason: &str) {
        self.end(no, reason);
        if let Some(id) = self.clients[no as usize].id {
            io.close(id, How::Reset);
        }
    }

    /// Gives up a client that is not ready; it counts as neither.
    pub(super) fn abandon(&mut self, io: &mut Io, no: ClientNo) {
        let client = &mut self.clients[no as usize];
        let (State::Connecting | State::Upgrading(_) | State::Greeting { .. }, Some(id)) = (&client.state, client.id)
        else {
            return;
        };
        client.state = State::Ended;
        self.pending -= 1;
        io.close(id, How::Reset);
    }

    /// The server's close frame.
    pub(super) fn closed_by_server(&mut self, io: &mut Io, no: ClientNo, code: Option<CloseCode>, reason: &str) {
        let client = &mut self.clients[no as usize];
        let Some(id) = client.id else { return };
        if matches!(client.state, State::Closing) {
            client.state = State::Ended;
            self.tally.closed += 1;
            // The server closes the connection first (RFC 6455, 7.1.1), so that TIME_WAIT is on its side; the deadline of the
            // closing still stands.
            return;
        }
        let mask = self.random.u32(..).to_ne_bytes();
        match code {
            Some(code) => ws::write_close(&mut client.out, code, "", Some(mask)),
            None => ws::write_frame(&mut client.out, OpCode::Close, true, b"", Some(mask)),
        }
        let code = code.map_or("without a code".to_owned(), |code| code.get().to_string());
        self.end(no, format!("closed by the server: {code} {reason}").trim_end());
        io.close(id, How::Flush);
    }

    /// The server's FIN.
    pub(super) fn fin(&mut self, io: &mut Io, no: ClientNo) {
        self.end(no, "the server closed the connection without a word");
        if let Some(id) = self.clients[no as usize].id {
            io.close(id, How::Now);
        }
    }

    /// A client is late.
    pub(super) fn expired(&mut self, io: &mut Io, no: ClientNo) {
        let late = match self.clients[no as usize].state {
            State::Connecting => "no TCP connection in time",
            State::Upgrading(_) => "no answer to the upgrade request in time",
            State::Greeting { .. } => "no reply to connect or subscribe in time",
            State::Closing => "no close frame in time",
            State::Ended | State::Idle | State::Ready => "the connection did not end in time",
        };
        self.fail(io, no, late);
    }

    /// The connection is gone.
    pub(super) fn gone(&mut self, no: ClientNo, why: Closed) {
        let reason = match why {
            Closed::Error(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            Closed::Reset => "connection reset".to_owned(),
            Closed::ByPeer => "the server closed the connection".to_owned(),
            Closed::ByUs | Closed::LingerExpired | Closed::Shutdown => "given up".to_owned(),
        };
        self.end(no, &reason);
        let client = &mut self.clients[no as usize];
        client.state = State::Idle;
        client.id = None;
        client.out = Vec::new();
        client.out_sent = 0;
        client.tls = None;
        self.paused.remove(&no);
        self.take_rest(no);
    }
}
