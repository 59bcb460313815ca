//! Who is subscribed, by name: guests at home, and what subscribers here are told of those who come and go.

use super::Worker;
use super::letters::{ByMail, Refusable};
use crate::letter::{Letter, PresenceRead, ReadPresence, Refused, Ticket};
use crate::mailbox::{Party, Post};
use conn::encoded::Encoding;
use conn::outbox::BodyId;
use conn::{ClientError, Delivered, Disconnect};
use hub::{
    Announcement, Channel, Entrance, Guest, Herald, PRESENCE_CLIENTS_MAX, Part, Presence, PresenceQuery, Recovery,
    SlowClient, Subscribed, SubscriberId, WorkerId,
};
use io::{Class, ConnId, Io};
use std::sync::Arc;

/// Announcements that had waited for room and are sent in one tick.
const ANNOUNCEMENTS_PER_TICK: usize = 512;

impl<P: Post> Herald for ByMail<'_, P> {
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool {
        self.0.has_room(usize::from(worker.0), bytes)
    }

    fn announce(&mut self, worker: WorkerId, announcement: Arc<Announcement>) {
        self.0.announce(usize::from(worker.0), announcement);
    }
}

/// Whether a subscription that a home has counted, or not, makes a guest. Who takes none without a recovery will not stay.
pub(super) fn is_entered(entrance: &Entrance, answer: &Result<Subscribed, Refused>) -> bool {
    let is_declined = |subscribed: &Subscribed| entrance.only_recovered && subscribed.recovery == Recovery::Failed;
    answer.as_ref().is_ok_and(|subscribed| !is_declined(subscribed))
}

/// What became of an announcement for one member, where that is not the usual.
#[derive(Clone, Copy, Debug)]
enum Aside {
    Held,
    Attend,
    Slow,
}

impl<P: Post> Worker<P> {
    /// Guests that doing what a letter asks visits. No tick visits more than [`PRESENCE_CLIENTS_MAX`].
    pub(super) fn guests_of(&self, letter: &Letter) -> usize {
        match letter {
            Letter::Presence(read) if read.query == PresenceQuery::Clients => {
                self.home.present(&read.channel).min(PRESENCE_CLIENTS_MAX)
            }
            Letter::PresenceRead(read) => read.answer.as_ref().map_or(0, Presence::visits),
            _ => 0,
        }
    }

    pub(super) fn guest_enters(&mut self, from: Party, conn: ConnId, channel: &Channel, entrance: Entrance) {
        let guest = Guest { worker: WorkerId(from as u16), subscriber: SubscriberId(conn.to_bits()) };
        self.home.join(channel, guest, entrance, &mut ByMail(&mut self.post));
    }

    pub(super) fn guest_leaves(&mut self, io: &Io, from: Party, channel: &Channel, subscriber: SubscriberId) {
        let guest = Guest { worker: WorkerId(from as u16), subscriber };
        self.home.leave(io.now(), channel, guest, &mut ByMail(&mut self.post));
    }

    pub(super) fn announce_waiting(&mut self) {
        if self.home.announcements_wait() {
            self.home.announce_waiting(ANNOUNCEMENTS_PER_TICK, &mut ByMail(&mut self.post));
        }
    }

    pub(super) fn read_presence(&mut self, io: &Io, from: Party, read: ReadPresence) {
        let ReadPresence { ticket, channel, query, expires } = read;
        let namespace = self.shared.settings.namespaces.of(&channel);
        let answer = match namespace {
            _ if io.now() > expires => Err(Refused::Expired),
            Some((_, namespace)) if namespace.presence => {
                let presence = self.home.presence(&channel, query);
                if let Ok(presence) = &presence {
                    self.presence_visits += presence.visits() as u64;
                }
                presence.map_err(|_| Refused::TooManyPresent)
            }
            _ => Err(Refused::NoPresence),
        };
        self.post.answer(from, Letter::PresenceRead(Box::new(PresenceRead { ticket, answer })));
    }

    pub(super) fn ask_for_presence(
        &mut self,
        io: &Io,
        id: ConnId,
        command: u32,
        channel: Channel,
        query: PresenceQuery,
    ) {
        let ticket = Ticket::Client { conn: id, command };
        let (home, expires) = (self.home_of(&channel), io.now() + self.request_timeout);
        let letter = Letter::Presence(Box::new(ReadPresence { ticket, channel, query, expires }));
        if self.post.request(home, letter).is_err() {
            self.refused.push((id, command, Refusable::Presence));
        }
    }

    pub(super) fn tell_presence(&mut self, io: &mut Io, id: ConnId, command: u32, answer: Result<Presence, Refused>) {
        let now = io.now();
        if let Ok(presence) = &answer {
            self.presence_visits += presence.visits() as u64;
        }
        let answer = answer.map_err(|refused| match refused {
            Refused::NoPresence => ClientError::NOT_AVAILABLE,
            Refused::TooManyPresent => ClientError::LIMIT_EXCEEDED,
            _ => ClientError::INTERNAL,
        });
        let Some(connection) = self.table.find(id) else { return };
        let directions = connection.presence_read(now, command, answer, &mut self.shared);
        self.carry_out(io, id, directions);
    }

    /// Tells those members of the channel here that want to know who has come or gone. Returns how many were visited.
    ///
    /// It is made once per format. A client that reads so slowly that its namespace's policy leaves out publications is not
    /// told; another one is closed when its outbox is full, as with a publication.
    pub(super) fn fan_out_announcement(&mut self, io: &mut Io, announcement: &Arc<Announcement>) -> usize {
        let Some(channel) = self.shared.local.find(&announcement.channel) else { return 0 };
        let settings = Arc::clone(&self.shared.settings);
        let namespace = settings.namespaces.of(&announcement.channel);
        let stays = namespace.is_none_or(|(_, namespace)| namespace.slow_client == SlowClient::Disconnect);
        let mut bodies: [Option<BodyId>; Encoding::COUNT] = [None; Encoding::COUNT];
        let (mut visited, mut pushed, mut skipped) = (0, 0, 0);
        let (mut aside, mut scratch) = (Vec::new(), Vec::new());
        for member in self.shared.local.members(channel) {
            visited += 1;
            if member.part != Part::Listener {
                continue;
            }
            let id = ConnId::from_bits(member.subscriber.0);
            if member.held {
                aside.push((id, Aside::Held));
                continue;
            }
            let Some(connection) = self.table.find(id) else { continue };
            if !stays && connection.backlog() > settings.limits.outbox_high_water {
                skipped += 1;
                continue;
            }
            let Some(encoding) = Encoding::from_number(member.encoding).map(Encoding::of_announcements) else {
                continue;
            };
            let outboxes = &mut self.shared.outboxes;
            let body = *bodies[encoding as usize]
                .get_or_insert_with(|| outboxes.shared(|out| encoding.announcement(announcement, &mut scratch, out)));
            match connection.deliver(body, outboxes, &settings.limits) {
                Delivered::Queued => pushed += 1,
                Delivered::First => {
                    pushed += 1;
                    io.dirty(id, Class::Broadcast);
                }
                Delivered::Attend => {
                    pushed += 1;
                    aside.push((id, Aside::Attend));
                }
                Delivered::Skipped => aside.push((id, Aside::Attend)),
                Delivered::Slow => aside.push((id, Aside::Slow)),
                Delivered::Gone => {}
            }
        }
        bodies.into_iter().flatten().for_each(|body| self.shared.outboxes.release(body));
        let counters = &mut self.shared.counters;
        counters.join_leave_pushes += pushed;
        counters.join_leave_skipped += skipped;
        counters.messages_out += pushed;
        for (id, aside) in aside {
            self.handle_announcement_aside(io, id, aside, announcement);
        }
        visited
    }

    fn handle_announcement_aside(&mut self, io: &mut Io, id: ConnId, aside: Aside, announcement: &Arc<Announcement>) {
        let now = io.now();
        let Some(connection) = self.table.find(id) else { return };
        let directions = match aside {
            Aside::Held => connection.hold_announcement(now, announcement, &mut self.shared),
            Aside::Attend => connection.attend(now, &mut self.shared),
            Aside::Slow => {
                self.shared.counters.slow_by_firm += 1;
                connection.disconnect(now, Disconnect::SLOW, &mut self.shared)
            }
        };
        self.carry_out(io, id, directions);
    }
}
