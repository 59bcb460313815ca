//! How many connections each address has, and how fast it makes handshakes, over all workers.
//!
//! SO_REUSEPORT spreads the clients of one address over all workers, so a worker alone cannot tell. The tables are the one
//! thing that workers share: as many slots as were made once, each a number that is changed by itself. Nobody waits for
//! anybody, and nothing grows.
//!
//! ```text
//! connections   mark of the address : 40 | how many : 24          0: free
//! paces         mark of the address : 24 | when it is at rest : 40    free when that time has come
//! ```
//!
//! An address has its slot among the eight of one bucket, which a keyed hash finds; the mark is another part of that hash. Where
//! all eight are others' it is not counted: to refuse it would let those others, who may be one attacker, keep strangers out.

use super::{Address, Trusted};
use crate::settings::Rate;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Slots of one table: 32 MB.
const SLOTS_MAX: usize = 1 << 22;

/// Slots in which an address may be: one line of a core's cache.
const BUCKET: usize = 8;

/// What two workers try that have given one address two slots in the same moment.
const TRIES_MAX: u32 = 8;

const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// What all workers know of their clients' addresses.
#[derive(Debug, Default)]
pub struct Addresses {
    key: [u8; 16],
    slots: usize,
    connections: OnceLock<Box<[AtomicU64]>>,
    paces: OnceLock<Box<[AtomicU64]>>,
    /// The pace of all together.
    all: AtomicU64,
}

/// A connection's place among those of its address. Whoever has it gives it back, once.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Place(u32);

impl Place {
    /// Nothing is counted.
    pub const NONE: Place = Place(0);
    /// The connection was turned away and is still told so.
    pub(crate) const TURNED_AWAY: Place = Place(u32::MAX);

    fn of(slot: usize) -> Place {
        Place(slot as u32 + 1)
    }

    fn slot(&self) -> Option<usize> {
        (*self != Place::TURNED_AWAY).then_some(self.0).filter(|place| *place > 0).map(|place| place as usize - 1)
    }
}

const _: () = assert!(SLOTS_MAX < u32::MAX as usize - 1, "a place is a slot or one of two other things");

/// What came of asking for a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// It has one.
    Counted(Place),
    /// The address has as many connections as it may.
    Full,
    /// Its bucket has no slot for it.
    Crowded,
}

/// What came of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// In time.
    Fine,
    /// Too soon after the others of its address.
    TooFast,
    /// Its bucket has no slot for it.
    Crowded,
}

/// What is counted of an address: IPv4 as it is, IPv6 by its /64, which one customer of a provider has whole. `None`: this machine
/// and proxies, which are no clients, and Unix sockets, which have no address.
pub(crate) fn client_of(address: Address, trusted: &Trusted) -> Option<IpAddr> {
    address.filter(|ip| !ip.is_loopback() && !trusted.contains(address))
}

impl Addresses {
    /// For so many connections; `key` is secret. Nothing is counted before [`Addresses::prepare`].
    pub fn new(key: [u8; 16], connections_max: u64) -> Self {
        let wanted = usize::try_from(connections_max).unwrap_or(SLOTS_MAX).min(SLOTS_MAX / 2) * 2;
        Self { key, slots: wanted.next_power_of_two().max(BUCKET), ..Self::default() }
    }

    /// Makes the tables that are asked for and not there yet. Takes a while, and is no work for a worker.
    pub fn prepare(&self, connections: bool, paces: bool) {
        for (is_wanted, table) in [(connections, &self.connections), (paces, &self.paces)] {
            if is_wanted {
                table.get_or_init(|| (0..self.slots).map(|_| AtomicU64::new(0)).collect());
            }
        }
    }

    /// Connections that are counted, for checks.
    pub fn counted(&self) -> u64 {
        self.connections.get().into_iter().flatten().map(|slot| slot.load(SeqCst) & COUNT_MASK).sum()
    }

    /// Where the slots of an address begin, and its mark, which is not 0.
    fn find(&self, ip: IpAddr, mark_bits: u32) -> (usize, u64) {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match ip {
            IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
            IpAddr::V6(ip) => hasher.write_u64((ip.to_bits() >> 64) as u64),
        }
        let hash = hasher.finish();
        let bucket = hash as usize % (self.slots / BUCKET);
        (bucket * BUCKET, (hash >> (64 - mark_bits)).max(1))
    }

    /// One connection more, unless there are `max`.
    pub fn enter(&self, ip: IpAddr, max: NonZeroU32) -> Entered {
        let Some(table) = self.connections.get() else { return Entered::Counted(Place::NONE) };
        let (first, mark) = self.find(ip, 64 - COUNT_BITS);
        let bucket = &table[first..first + BUCKET];
        for _ in 0..TRIES_MAX {
            for (number, slot) in bucket.iter().enumerate() {
                let mut seen = slot.load(SeqCst);
                while seen >> COUNT_BITS == mark {
                    if seen & COUNT_MASK >= u64::from(max.get()).min(COUNT_MASK) {
                        return Entered::Full;
                    }
                    match slot.compare_exchange_weak(seen, seen + 1, SeqCst, SeqCst) {
                        Ok(_) => return Entered::Counted(Place::of(first + number)),
                        Err(now) => seen = now,
                    }
                }
            }
            let own = mark << COUNT_BITS | 1;
            let taken = bucket.iter().position(|slot| slot.compare_exchange(0, own, SeqCst, SeqCst).is_ok());
            let Some(number) = taken else { return Entered::Crowded };
            let place = Place::of(first + number);
            let is_twice =
                |(other, slot): (usize, &AtomicU64)| other != number && slot.load(SeqCst) >> COUNT_BITS == mark;
            if !bucket.iter().enumerate().any(is_twice) {
                return Entered::Counted(place);
            }
            // Another worker has given the address a slot in the same moment: one of the two has to do.
            self.leave(place);
        }
        Entered::Crowded
    }

    /// The connection with that place is gone.
    #[expect(clippy::needless_pass_by_value, reason = "who has left has no place any more")]
    pub fn leave(&self, place: Place) {
        let slot = place.slot().and_then(|slot| self.connections.get()?.get(slot));
        let Some(slot) = slot else { return };
        let _ = slot.fetch_update(SeqCst, SeqCst, |seen| {
            debug_assert!(seen & COUNT_MASK > 0, "somebody has left twice");
            Some(if seen & COUNT_MASK <= 1 { 0 } else { seen - 1 })
        });
    }

    /// One handshake more of an address.
    pub fn handshake(&self, now: Duration, ip: IpAddr, rate: Rate) -> Paced {
        let Some(table) = self.paces.get() else { return Paced::Fine };
        let (first, mark) = self.find(ip, 64 - TIME_BITS);
        let bucket = &table[first..first + BUCKET];
        let own = bucket.iter().find(|slot| slot.load(SeqCst) >> TIME_BITS == mark);
        if let Some(slot) = own
            && let Some(is_fine) = spend(slot, mark, now, rate)
        {
            return if is_fine { Paced::Fine } else { Paced::TooFast };
        }
        let is_taken = |slot: &&AtomicU64| {
            let seen = slot.load(SeqCst);
            let fresh = mark << TIME_BITS | (ticks(now, rate) + 1) & TIME_MASK;
            owed(seen, now, rate) == 0 && slot.compare_exchange(seen, fresh, SeqCst, SeqCst).is_ok()
        };
        if bucket.iter().any(|slot| is_taken(&slot)) { Paced::Fine } else { Paced::Crowded }
    }

    /// One handshake more of all: a second's worth at once. Whether that is in time.
    pub fn any_handshake(&self, now: Duration, per_second: NonZeroU32) -> bool {
        let rate = Rate { per_second, burst: per_second };
        // It is nobody's: its mark is 0 and stays so.
        spend(&self.all, 0, now, rate).unwrap_or(true)
    }
}

/// Now, in what one handshake takes to come back.
fn ticks(now: Duration, rate: Rate) -> u64 {
    (now.as_micros() * u128::from(rate.per_second.get()) / 1_000_000) as u64 & TIME_MASK
}

/// Handshakes that have not come back. More than there can be means that the rate was another one, or that it was long ago.
fn owed(seen: u64, now: Duration, rate: Rate) -> u64 {
    let owed = (seen & TIME_MASK).wrapping_sub(ticks(now, rate)) & TIME_MASK;
    if owed <= u64::from(rate.burst.get()) { owed } else { 0 }
}

/// One handshake more, in time or not; `None`: the slot is another's by now.
fn spend(slot: &AtomicU64, mark: u64, now: Duration, rate: Rate) -> Option<bool> {
    let mut seen = slot.load(SeqCst);
    while seen >> TIME_BITS == mark {
        let owed = owed(seen, now, rate);
        if owed >= u64::from(rate.burst.get()) {
            return Some(false);
        }
        let next = mark << TIME_BITS | (ticks(now, rate) + owed + 1) & TIME_MASK;
        match slot.compare_exchange_weak(seen, next, SeqCst, SeqCst) {
            Ok(_) => return Some(true),
            Err(now) => seen = now,
        }
    }
    None
}
