//! Who is subscribed to a channel, by name, and what its subscribers are told of it.
//!
//! A home keeps *guests*: the subscriptions of channels whose namespace has presence or join and leave pushes, with what there
//! is to say of each. A guest [enters](Home::join) in the step that counts its subscription and goes with its
//! [withdrawal](Home::leave), so that who is present follows the same letters as interest does. Channels of other namespaces
//! have no part in it and cost nothing here.
//!
//! # Announcements
//!
//! Entering and leaving can be *announced* to the subscribers. Announcements are no publications: they have no offset, are in
//! no history, and missing one is no gap. Of one guest they alternate, the join first, but for what is left out:
//!
//! * They go out in the order in which they came about. While a mailbox on the way is full they wait in one line.
//! * A join that is not announced, because the channel has too many subscribers ([`HomeLimits::join_leave_subscribers_max`])
//!   or the line is full ([`ANNOUNCEMENTS_WAITING_MAX`]), has a leave that is not announced either.
//! * A leave whose join was announced always gets into the line. There are never more of these than there were guests when the
//!   line was full. It is left out where the channel has too many subscribers by then.
//!
//! [`HomeLimits::join_leave_subscribers_max`]: crate::HomeLimits::join_leave_subscribers_max

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::home::Home;
use crate::id::{Channel, ChannelHash, SubscriberId, WorkerId};
use crate::index::Index;
use crate::publication::ClientInfo;
use crate::slots::{Slot, Slots};

/// Guests that one answer names, and so the most that anything here visits at once. A channel with more of them can be counted
/// only.
pub const PRESENCE_CLIENTS_MAX: usize = 1024;

/// Announcements that wait for room in a mailbox before joins are not announced any more.
pub const ANNOUNCEMENTS_WAITING_MAX: usize = 65_536;

/// No slot has this number.
const NONE: u32 = u32::MAX;

/// Who a guest is to its home.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Guest {
    /// The worker that asked for the subscription.
    pub worker: WorkerId,
    /// The subscriber there.
    pub subscriber: SubscriberId,
}

/// Somebody has come or gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// Where.
    pub channel: Channel,
    /// Which of the two.
    pub change: Change,
    /// Who.
    pub info: Arc<ClientInfo>,
}

/// What an announcement says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A client has become a subscriber.
    Join,
    /// It is none any more.
    Leave,
}

impl Announcement {
    /// Bytes for which it counts in a mailbox: about what it occupies.
    #[must_use]
    pub fn cost(&self) -> usize {
        size_of::<Announcement>() + self.channel.len() + info_bytes(&self.info)
    }
}

/// The texts of an info.
fn info_bytes(info: &ClientInfo) -> usize {
    let json = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |bytes| bytes.len());
    size_of::<ClientInfo>() + info.user.len() + info.client.len() + json(&info.conn_info) + json(&info.chan_info)
}

/// Where announcements go: the mailboxes of the workers, as seen by one home.
pub trait Herald {
    /// Whether `worker`'s mailbox takes one more letter of so many bytes.
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool;

    /// Queues `announcement` for `worker`, behind everything queued for it before; `has_room` has just said yes.
    fn announce(&mut self, worker: WorkerId, announcement: Arc<Announcement>);
}

/// What a subscription brings along where its namespace wants to know who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entrance {
    /// What there is to say of it.
    pub info: Arc<ClientInfo>,
    /// The client takes no subscription that does not recover: then it never enters.
    pub only_recovered: bool,
    /// It is among those who are present. Who is not is known all the same, so that it can go.
    pub is_present: bool,
    /// The others are told that it comes and goes.
    pub announces: bool,
}

/// How many are present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PresenceStats {
    /// Subscriptions.
    pub clients: u32,
    /// Different users among them, the anonymous one included.
    pub users: u32,
}

/// Who is present, or how many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    /// All of them.
    Clients(Vec<Arc<ClientInfo>>),
    /// Their number.
    Stats(PresenceStats),
}

impl Presence {
    /// Guests that making or writing it visits.
    #[must_use]
    pub fn visits(&self) -> usize {
        match self {
            Presence::Clients(clients) => clients.len(),
            Presence::Stats(_) => 0,
        }
    }
}

/// Which of the two is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PresenceQuery {
    /// Who.
    Clients,
    /// How many.
    Stats,
}

/// More are present than one answer names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyPresent {
    /// How many.
    pub clients: u32,
}

impl fmt::Display for TooManyPresent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients are present, one answer names {PRESENCE_CLIENTS_MAX}", self.clients)
    }
}

impl std::error::Error for TooManyPresent {}

/// What was done about guests since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PresenceCounts {
    /// Joins and leaves handed to the mailboxes of all who want them.
    pub announced: u64,
    /// Joins and leaves left out, because of too many subscribers or too many announcements waiting.
    pub unannounced: u64,
}

impl Home {
    /// The subscription of `guest`, which was just counted, is to be known by name. Announced where `announces` is set and the
    /// limits allow.
    pub fn join(&mut self, channel: &Channel, guest: Guest, entrance: Entrance, herald: &mut impl Herald) {
        let Entrance { info, is_present, announces, .. } = entrance;
        let is_announced = announces && self.may_announce(channel) && self.waiting.len() < ANNOUNCEMENTS_WAITING_MAX;
        self.presence_counts.unannounced += u64::from(announces && !is_announced);
        let guests = if is_present { &mut self.guests } else { &mut self.unseen };
        guests.enter(channel, guest, Arc::clone(&info), is_announced);
        if is_announced {
            self.announce(Announcement { channel: channel.clone(), change: Change::Join, info }, herald);
        }
    }

    /// Withdraws the one subscription of `guest`, as [`Home::unsubscribe`] does, and forgets who it was.
    pub fn leave(&mut self, now: Duration, channel: &Channel, guest: Guest, herald: &mut impl Herald) {
        self.unsubscribe(now, channel, guest.worker, 1);
        let gone = self.guests.exit(channel, guest).or_else(|| self.unseen.exit(channel, guest));
        let Some((info, true)) = gone else { return };
        if self.may_announce(channel) {
            self.announce(Announcement { channel: channel.clone(), change: Change::Leave, info }, herald);
        } else {
            self.presence_counts.unannounced += 1;
        }
    }

    /// Whether the channel's subscribers are few enough to be told of each other.
    fn may_announce(&self, channel: &str) -> bool {
        let subscribers = self.subscribers(channel).unwrap_or(0);
        subscribers as usize <= self.limits.join_leave_subscribers_max
    }

    fn announce(&mut self, announcement: Announcement, herald: &mut impl Herald) {
        let announcement = Arc::new(announcement);
        if !self.waiting.is_empty() || !self.send(&announcement, herald) {
            self.waiting.push_back(announcement);
        }
    }

    /// Sends what waits for room, oldest first, at most `limit` of it. Call it again soon while [`Home::announcements_wait`].
    pub fn announce_waiting(&mut self, limit: usize, herald: &mut impl Herald) {
        for _ in 0..limit {
            let Some(first) = self.waiting.front().cloned() else { break };
            if !self.send(&first, herald) {
                return;
            }
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            // It is empty but after a jam, and a jam may have made it large.
            self.waiting = VecDeque::new();
        }
    }

    /// Whether announcements wait for room.
    #[must_use]
    pub fn announcements_wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends it to every worker that has subscribers, or to none.
    fn send(&mut self, announcement: &Arc<Announcement>, herald: &mut impl Herald) -> bool {
        let Some(slot) = self.shelf.find(&announcement.channel) else { return true };
        let (shares, bytes) = (self.shelf.at(slot).interest.shares(), announcement.cost());
        if !shares.iter().all(|share| herald.has_room(share.worker, bytes)) {
            return false;
        }
        shares.iter().for_each(|share| herald.announce(share.worker, Arc::clone(announcement)));
        self.presence_counts.announced += 1;
        true
    }

    /// Who is present in a channel, or how many. The number costs the same however many these are.
    pub fn presence(&self, channel: &str, query: PresenceQuery) -> Result<Presence, TooManyPresent> {
        let stats = self.guests.stats(channel);
        match query {
            PresenceQuery::Stats => Ok(Presence::Stats(stats)),
            PresenceQuery::Clients if stats.clients as usize > PRESENCE_CLIENTS_MAX => {
                Err(TooManyPresent { clients: stats.clients })
            }
            PresenceQuery::Clients => Ok(Presence::Clients(self.guests.infos(channel).cloned().collect())),
        }
    }

    /// How many subscriptions of a channel are known by name.
    #[must_use]
    pub fn present(&self, channel: &str) -> usize {
        self.guests.stats(channel).clients as usize
    }

    /// Guests of all channels together.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.guests.seats.len() + self.unseen.seats.len()
    }

    /// What was done about guests since the start.
    #[must_use]
    pub fn presence_counts(&self) -> PresenceCounts {
        self.presence_counts
    }
}

/// The guests of all channels of a home. No table here stalls while it grows, and a channel's guests are a list through their
/// seats, so that a channel with a hundred thousand of them is no special case.
pub(crate) struct Guests {
    hash: ChannelHash,
    rooms: Slots<Room>,
    rooms_by_name: Index,
    seats: Slots<Seat>,
    seats_by_guest: Index,
    users: Slots<User>,
    users_by_name: Index,
}

/// One channel with guests.
struct Room {
    channel: Channel,
    first: u32,
    last: u32,
    stats: PresenceStats,
}

/// One guest.
struct Seat {
    info: Arc<ClientInfo>,
    subscriber: SubscriberId,
    room: u32,
    user: u32,
    before: u32,
    behind: u32,
    worker: WorkerId,
    /// Its join was announced, so its leave has to be.
    is_announced: bool,
}

const _: () = assert!(size_of::<Slot<Seat>>() == 40, "one for each guest, beside its info");

/// One user in one room. Whose info has the name does not matter.
struct User {
    name: Arc<ClientInfo>,
    room: u32,
    clients: u32,
}

impl Guests {
    pub(crate) fn new(hash: ChannelHash) -> Guests {
        Guests {
            hash,
            rooms: Slots::new(),
            rooms_by_name: Index::new(),
            seats: Slots::new(),
            seats_by_guest: Index::new(),
            users: Slots::new(),
            users_by_name: Index::new(),
        }
    }

    fn room(&self, channel: &str) -> Option<u32> {
        let hash = self.hash.in_tables(channel);
        self.rooms_by_name.find(hash, |room| *self.rooms.at(room).channel == *channel)
    }

    fn seat(&self, room: u32, guest: Guest) -> Option<u32> {
        self.seats_by_guest.find(guest_hash(room, guest), |seat| {
            let seat = self.seats.at(seat);
            seat.room == room && seat.subscriber == guest.subscriber && seat.worker == guest.worker
        })
    }

    fn user_hash(&self, room: u32, name: &str) -> u32 {
        self.hash.in_tables(name) ^ room.wrapping_mul(0x9E37_79B1)
    }

    fn enter(&mut self, channel: &Channel, guest: Guest, info: Arc<ClientInfo>, is_announced: bool) {
        let room = self.room(channel).unwrap_or_else(|| {
            let room = Room { channel: channel.clone(), first: NONE, last: NONE, stats: PresenceStats::default() };
            let slot = self.rooms.insert(room);
            self.rooms_by_name.insert(self.hash.in_tables(channel), slot);
            slot
        });
        if self.seat(room, guest).is_some() {
            debug_assert!(false, "{guest:?} enters {channel:?} twice");
            return;
        }
        let user = self.count_user(room, &info);
        let last = self.rooms.at(room).last;
        let seat = self.seats.insert(Seat {
            info,
            subscriber: guest.subscriber,
            room,
            user,
            before: last,
            behind: NONE,
            worker: guest.worker,
            is_announced,
        });
        self.seats_by_guest.insert(guest_hash(room, guest), seat);
        match last {
            NONE => self.rooms.at_mut(room).first = seat,
            last => self.seats.at_mut(last).behind = seat,
        }
        let room = self.rooms.at_mut(room);
        room.last = seat;
        room.stats.clients += 1;
    }

    /// One more client of a user.
    fn count_user(&mut self, room: u32, info: &Arc<ClientInfo>) -> u32 {
        let hash = self.user_hash(room, &info.user);
        let known = self.users_by_name.find(hash, |user| {
            let user = self.users.at(user);
            user.room == room && user.name.user == info.user
        });
        if let Some(user) = known {
            self.users.at_mut(user).clients += 1;
            return user;
        }
        let user = self.users.insert(User { name: Arc::clone(info), room, clients: 1 });
        self.users_by_name.insert(hash, user);
        self.rooms.at_mut(room).stats.users += 1;
        user
    }

    /// Who has gone, and whether that has to be announced. `None` for one who never entered.
    fn exit(&mut self, channel: &str, guest: Guest) -> Option<(Arc<ClientInfo>, bool)> {
        let room = self.room(channel)?;
        let slot = self.seat(room, guest)?;
        let seat = self.seats.remove(slot);
        self.seats_by_guest.remove(guest_hash(room, guest), slot);
        match seat.before {
            NONE => self.rooms.at_mut(room).first = seat.behind,
            before => self.seats.at_mut(before).behind = seat.behind,
        }
        match seat.behind {
            NONE => self.rooms.at_mut(room).last = seat.before,
            behind => self.seats.at_mut(behind).before = seat.before,
        }
        let user = self.users.at_mut(seat.user);
        user.clients -= 1;
        if user.clients == 0 {
            self.users.remove(seat.user);
            self.users_by_name.remove(self.user_hash(room, &seat.info.user), seat.user);
            self.rooms.at_mut(room).stats.users -= 1;
        }
        let stats = &mut self.rooms.at_mut(room).stats;
        stats.clients -= 1;
        if stats.clients == 0 {
            self.rooms.remove(room);
            self.rooms_by_name.remove(self.hash.in_tables(channel), room);
        }
        Some((seat.info, seat.is_announced))
    }

    fn stats(&self, channel: &str) -> PresenceStats {
        self.room(channel).map_or_else(PresenceStats::default, |room| self.rooms.at(room).stats)
    }

    /// Of all guests of a channel, the one that came first in front.
    fn infos(&self, channel: &str) -> impl Iterator<Item = &Arc<ClientInfo>> {
        let first = self.room(channel).map_or(NONE, |room| self.rooms.at(room).first);
        let seat = |slot: u32| (slot != NONE).then(|| self.seats.at(slot));
        std::iter::successors(seat(first), move |before| seat(before.behind)).map(|seat| &seat.info)
    }
}

/// By what the tables find a guest. None of it is the client's choice.
fn guest_hash(room: u32, Guest { worker, subscriber }: Guest) -> u32 {
    let mixed = (subscriber.0 ^ u64::from(room) << 20 ^ u64::from(worker.0) << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").field("rooms", &self.rooms.len()).field("guests", &self.seats.len()).finish()
    }
}
