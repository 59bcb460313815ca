//! The simulated network: links, what is under way on them, and the virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::{Counts, Faults};
use super::random::Random;
use crate::handler::ConnId;
use crate::tick::Readiness;

/// How many bytes one end of a link holds unread, unless told otherwise; a common size of a TCP window.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;

/// The parts of a chunk that was cut arrive at least this far apart.
const SPLIT_GAP: Duration = Duration::from_micros(1);

/// First port of a simulated driver's listeners.
const LISTENER_PORT: u16 = 8000;

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) links: Vec<[End; 2]>,
    pub(super) drivers: Vec<Station>,
    /// What will happen, by time and then in the order of planning.
    events: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    trace: u64,
}

/// What the world knows of a driver.
#[derive(Debug, Default)]
pub(super) struct Station {
    /// News for the driver's next tick.
    pub(super) posted: VecDeque<Posted>,
    pub(super) listeners: Vec<ListenerQueue>,
    pub(super) stalled_until: Duration,
}

#[derive(Debug)]
pub(super) struct ListenerQueue {
    pub(super) open: bool,
    pub(super) queue: VecDeque<usize>,
}

#[derive(Debug)]
pub(super) enum Posted {
    Listener(usize),
    Ready(ConnId, Readiness),
    Completed(ConnId),
}

/// Which end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Side {
    pub(super) link: usize,
    /// 0 connected, 1 was connected to.
    pub(super) end: usize,
}

impl Side {
    pub(super) fn other(self) -> Side {
        Side { link: self.link, end: 1 - self.end }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A test's client.
    Client,
    /// Nobody yet: on its way to the listener, or in its queue.
    Listener {
        driver: usize,
        listener: usize,
    },
    Driver {
        driver: usize,
        id: ConnId,
    },
    /// Closed.
    Nobody,
}

/// One end of a link: a socket.
#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// Arrived and unread.
    pub(super) inbox: VecDeque<u8>,
    /// What a client's application has read; not used by drivers.
    pub(super) received: Vec<u8>,
    /// A client's application reads whatever comes.
    pub(super) reading: bool,
    /// The most bytes unread and under way to this end.
    pub(super) window: usize,
    under_way: usize,
    /// The latest arrival planned for this end.
    last_arrival: Duration,
    pub(super) established: bool,
    pub(super) fin_arrived: bool,
    pub(super) fin_sent: bool,
    /// The error that the socket holds until somebody takes it.
    pub(super) error: Option<i32>,
    /// The connection is broken, also after the error was taken.
    pub(super) broken: bool,
    /// A send of this end found less room than it needed.
    blocked: bool,
    /// Where a driver connected to.
    pub(super) target: Option<SocketAddr>,
}

impl End {
    pub(super) fn new(owner: Owner) -> End {
        End {
            owner,
            inbox: VecDeque::new(),
            received: Vec::new(),
            reading: true,
            window: WINDOW_BYTES,
            under_way: 0,
            last_arrival: Duration::ZERO,
            established: false,
            fin_arrived: false,
            fin_sent: false,
            error: None,
            broken: false,
            blocked: false,
            target: None,
        }
    }
}

#[derive(Debug)]
enum Event {
    Arrive(Side, Packet),
    Writable(Side),
    Complete { driver: usize, id: ConnId },
}

#[derive(Debug)]
pub(super) enum Packet {
    Syn,
    SynAck,
    Refused,
    Data(Vec<u8>),
    Fin,
    Reset,
}

impl World {
    pub(super) fn seeded(seed: u64) -> World {
        World {
            now: Duration::ZERO,
            random: Random::seeded(seed),
            faults: Faults::none(),
            counts: Counts::default(),
            links: Vec::new(),
            drivers: Vec::new(),
            events: BTreeMap::new(),
            planned: 0,
            trace: 0xCBF2_9CE4_8422_2325,
        }
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Mixes what happened into the trace (FNV-1a over words).
    pub(super) fn note(&mut self, what: &'static str, side: Side, amount: usize) {
        let words = [self.now.as_nanos() as u64, side.link as u64 * 2 + side.end as u64, amount as u64];
        let tag = what.bytes().fold(0u64, |tag, byte| tag << 8 | u64::from(byte));
        for word in words.into_iter().chain([tag]) {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(29);
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.links[side.link][side.end]
    }

    /// The address of a driver's listener.
    pub(super) fn listener_address(driver: usize, listener: usize) -> SocketAddr {
        let [high, low] = (driver as u16).to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), LISTENER_PORT + listener as u16)
    }

    fn find_listener(&self, address: SocketAddr) -> Option<(usize, usize)> {
        let all = self.drivers.iter().enumerate();
        all.flat_map(|(driver, station)| (0..station.listeners.len()).map(move |listener| (driver, listener)))
            .find(|&(driver, listener)| Self::listener_address(driver, listener) == address)
    }

    /// The address from which the link's connecting end comes.
    pub(super) fn client_address(link: usize) -> SocketAddr {
        let [_, _, high, low] = (link as u32 / 50_000).to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, high, low)), 10_000 + (link % 50_000) as u16)
    }

    /// A new link whose SYN is on its way.
    pub(super) fn connect(&mut self, from: Owner, driver: usize, listener: usize) -> Side {
        let link = self.links.len();
        self.links.push([End::new(from), End::new(Owner::Listener { driver, listener })]);
        let side = Side { link, end: 0 };
        self.note("syn", side, listener);
        self.transmit_packet(side, Packet::Syn);
        side
    }

    pub(super) fn connect_to_address(&mut self, from: Owner, to: SocketAddr) -> Side {
        // An address without a listener belongs to nobody; the SYN finds that out when it arrives.
        let (driver, listener) = self.find_listener(to).unwrap_or((usize::MAX, 0));
        let side = self.connect(from, driver, listener);
        self.end(side).target = Some(to);
        side
    }

    fn plan(&mut self, at: Duration, event: Event) {
        self.events.insert((at, self.planned), event);
        self.planned += 1;
    }

    pub(super) fn plan_completion(&mut self, driver: usize, id: ConnId) {
        let delay = self.random.duration(&(Duration::ZERO..=self.faults.completion_delay_max));
        self.plan(self.now + delay, Event::Complete { driver, id });
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets time pass; whatever was planned for it happens.
    pub(super) fn advance_to(&mut self, until: Duration) {
        while let Some(entry) = self.events.first_entry() {
            let at = entry.key().0;
            if at > until {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(side, packet) => self.arrive(side, packet),
            Event::Writable(side) => self.post(side, Readiness { writable: true, ..Readiness::default() }),
            Event::Complete { driver, id } => self.drivers[driver].posted.push_back(Posted::Completed(id)),
        }
    }

    /// Tells the driver that owns this end, if one does.
    pub(super) fn post(&mut self, side: Side, what: Readiness) {
        if let Owner::Driver { driver, id } = self.end(side).owner {
            self.drivers[driver].posted.push_back(Posted::Ready(id, what));
        }
    }

    /// What the kernel would say about this end now, for a socket that is registered after things have happened.
    pub(super) fn readiness(&mut self, side: Side) -> Readiness {
        let end = self.end(side);
        let failed = end.error.is_some();
        let fin = end.fin_arrived || end.broken;
        Readiness { readable: fin || failed || !end.inbox.is_empty(), writable: end.established, fin, failed }
    }

    fn arrive(&mut self, side: Side, packet: Packet) {
        match packet {
            Packet::Syn => self.arrive_syn(side),
            Packet::SynAck => {
                self.end(side).established = true;
                self.post(side, Readiness { writable: true, ..Readiness::default() });
            }
            Packet::Data(bytes) => self.arrive_data(side, &bytes),
            Packet::Fin if self.end(side).broken => {}
            Packet::Fin => {
                self.note("fin", side, 0);
                self.end(side).fin_arrived = true;
                self.post(side, Readiness { readable: true, fin: true, ..Readiness::default() });
            }
            Packet::Refused => self.break_end(side, libc::ECONNREFUSED),
            Packet::Reset => self.break_end(side, libc::ECONNRESET),
        }
    }

    fn arrive_syn(&mut self, side: Side) {
        let Owner::Listener { driver, listener } = self.end(side).owner else { return };
        let queue = self.drivers.get_mut(driver).and_then(|station| station.listeners.get_mut(listener));
        match queue {
            Some(queue) if queue.open => {
                queue.queue.push_back(side.link);
                self.drivers[driver].posted.push_back(Posted::Listener(listener));
                self.end(side).established = true;
                self.transmit_packet(side, Packet::SynAck);
            }
            _ => {
                self.counts.refused += 1;
                self.end(side).owner = Owner::Nobody;
                self.transmit_packet(side, Packet::Refused);
            }
        }
    }

    fn arrive_data(&mut self, side: Side, bytes: &[u8]) {
        self.note("data", side, bytes.len());
        let end = self.end(side);
        end.under_way -= bytes.len().min(end.under_way);
        if end.broken {
            return;
        }
        if end.owner == Owner::Nobody {
            // Nobody will ever read this: the kernel answers with RST.
            end.broken = true;
            return self.transmit_packet(side, Packet::Reset);
        }
        if end.owner == Owner::Client && end.reading {
            end.received.extend_from_slice(bytes);
            return self.room_made(side);
        }
        end.inbox.extend(bytes);
        self.post(side, Readiness { readable: true, ..Readiness::default() });
    }

    fn break_end(&mut self, side: Side, errno: i32) {
        self.note("break", side, errno as usize);
        let end = self.end(side);
        if !end.broken {
            end.broken = true;
            end.error = Some(errno);
            self.post(side, Readiness { readable: true, writable: true, fin: true, failed: true });
        }
    }

    /// This end was read: whoever waits to send to it may.
    pub(super) fn room_made(&mut self, side: Side) {
        let sender = side.other();
        if std::mem::take(&mut self.end(sender).blocked) {
            let at = self.now + self.random.duration(&self.faults.latency.clone());
            self.plan(at, Event::Writable(sender));
        }
    }

    /// How much this end may send now.
    fn room(&mut self, side: Side) -> usize {
        let to = self.end(side.other());
        to.window.saturating_sub(to.inbox.len() + to.under_way)
    }

    /// A driver's send: takes what fits, or less.
    pub(super) fn send(&mut self, side: Side, bytes: &[u8]) -> io::Result<usize> {
        let end = self.end(side);
        if let Some(errno) = end.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if end.broken || end.fin_sent {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let mut taken = bytes.len().min(self.room(side));
        if taken < bytes.len() {
            self.counts.full_windows += 1;
            self.end(side).blocked = true;
        } else if taken > 1 && self.random.chance(self.faults.short_write) {
            self.counts.short_writes += 1;
            taken = 1 + self.random.below(taken as u64 - 1) as usize;
            let at = self.now + self.random.duration(&self.faults.latency.clone());
            self.plan(at, Event::Writable(side));
        }
        self.note("send", side, taken);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.transmit(side, &bytes[..taken]);
        Ok(taken)
    }

    /// Puts bytes on their way, in one part or several, or breaks the connection over them.
    pub(super) fn transmit(&mut self, from: Side, mut bytes: &[u8]) {
        if self.random.chance(self.faults.reset) {
            self.counts.resets += 1;
            self.transmit_packet(from, Packet::Reset);
            self.transmit_packet(from.other(), Packet::Reset);
            return;
        }
        let to = from.other();
        while bytes.len() > 1 && self.random.chance(self.faults.split_read) {
            self.counts.split_reads += 1;
            let cut = 1 + self.random.below(bytes.len() as u64 - 1) as usize;
            let (part, rest) = bytes.split_at(cut);
            self.end(to).under_way += part.len();
            self.transmit_packet(from, Packet::Data(part.to_vec()));
            self.end(to).last_arrival += SPLIT_GAP;
            bytes = rest;
        }
        self.end(to).under_way += bytes.len();
        self.transmit_packet(from, Packet::Data(bytes.to_vec()));
    }

    /// Puts one packet on its way; it arrives after all packets before it.
    pub(super) fn transmit_packet(&mut self, from: Side, packet: Packet) {
        let latency = self.random.duration(&self.faults.latency.clone());
        let arrival = (self.now + latency).max(self.end(from.other()).last_arrival);
        self.end(from.other()).last_arrival = arrival;
        self.plan(arrival, Event::Arrive(from.other(), packet));
    }

    pub(super) fn shutdown(&mut self, side: Side) {
        if !std::mem::replace(&mut self.end(side).fin_sent, true) {
            self.transmit_packet(side, Packet::Fin);
        }
    }

    /// Closes an end as the kernel does: RST if asked for or if input waits unread, else FIN.
    pub(super) fn close(&mut self, side: Side, reset: bool) {
        self.note("close", side, usize::from(reset));
        let end = self.end(side);
        end.owner = Owner::Nobody;
        let unread = !std::mem::take(&mut end.inbox).is_empty();
        if end.broken {
            return;
        }
        if reset || unread {
            end.broken = true;
            self.transmit_packet(side, Packet::Reset);
        } else {
            self.shutdown(side);
        }
    }
}
