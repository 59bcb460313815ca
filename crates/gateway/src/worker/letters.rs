//! Letters in, and what connections ask of the hub.

use super::Worker;
use super::presence::is_entered;
use crate::letter::{
    AskBackend, HistoryRead, Letter, Order, PresenceRead, Publish, ReadHistory, Refused, Subscriber, Ticket,
};
use crate::mailbox::{Party, Post};
use conn::webhook::Answer;
use conn::{COMMANDS_PER_TICK, ClientError, Effect};
use hub::{
    Channel, Entrance, HistoryPage, HistoryRefusal, MemberId, PRESENCE_CLIENTS_MAX, Publication, PublishRefusal,
    Recover, Retention, Route, Subscribed, SubscriberId, WorkerId,
};
use io::{ConnId, Io};
use std::sync::Arc;
use std::time::Duration;

/// Letters read in one tick, and subscribers visited by their fan-outs: less than 1 ms of work.
const LETTERS_PER_TICK: usize = 256;
const VISITS_PER_TICK: usize = 20_000;

/// A command becomes a letter, and so does the answer: workers that run commands as fast as they may still read faster than
/// they write, so that a crowd that comes back waits in the kernel and is not refused for want of room in a mailbox.
const _: () = assert!(LETTERS_PER_TICK >= 2 * COMMANDS_PER_TICK as usize);

/// The home's way to the other workers.
pub(super) struct ByMail<'a, P>(pub(super) &'a mut P);

impl<P: Post> Route for ByMail<'_, P> {
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool {
        self.0.has_room(usize::from(worker.0), bytes)
    }

    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
        self.0.deliver(usize::from(worker.0), publication);
    }
}

impl<P: Post> Worker<P> {
    pub(super) fn read_letters(&mut self, io: &mut Io) {
        self.announce_waiting();
        let (mut visits, mut guests) = (0, 0);
        for _ in 0..LETTERS_PER_TICK {
            let Some((from, letter)) = self.postponed.take().or_else(|| self.post.next()) else { return };
            let more = self.guests_of(&letter);
            if guests > 0 && guests + more > PRESENCE_CLIENTS_MAX {
                self.postponed = Some((from, letter));
                break;
            }
            guests += more;
            visits += self.read_letter(io, from, letter);
            if visits >= VISITS_PER_TICK {
                break;
            }
        }
        io.again();
    }

    /// Returns how many subscribers were visited.
    fn read_letter(&mut self, io: &mut Io, from: Party, letter: Letter) -> usize {
        match letter {
            Letter::Deliver(publication) => return self.fan_out(io, &publication),
            Letter::Announce(announcement) => return self.fan_out_announcement(io, &announcement),
            Letter::Publish(publish) => self.publish_here(io, from, publish),
            Letter::Published { ticket: Ticket::Client { conn, command }, answer } => {
                let answer = answer.map(|_| ()).map_err(|_| ClientError::INTERNAL);
                self.tell_published(io, conn, command, answer);
            }
            Letter::Subscribe { channel, by, expires, recover, entrance } => {
                let answer = if io.now() > expires {
                    Err(Refused::Expired)
                } else {
                    let (worker, retention) = (WorkerId(from as u16), self.retention_of(&channel));
                    let subscribed = self.home.subscribe(io.now(), &channel, worker, retention, recover.as_deref());
                    subscribed.map_err(|_| Refused::ChannelsMax)
                };
                if answer.is_ok() {
                    self.subscriber_came(io, &channel);
                }
                let entrance = entrance.filter(|entrance| is_entered(entrance, &answer));
                self.post.answer(from, Letter::Subscribed { by, entered: entrance.is_some(), answer });
                // Behind the answer, so that a client gets its own join after the reply.
                if let Some(entrance) = entrance {
                    self.guest_enters(from, by.conn, &channel, *entrance);
                }
            }
            Letter::Subscribed { by, entered, answer } => self.subscribe_answered(io, by, entered, answer),
            Letter::Presence(read) => self.read_presence(io, from, *read),
            Letter::PresenceRead(read) => {
                let PresenceRead { ticket, answer } = *read;
                if let Ticket::Client { conn, command } = ticket {
                    self.tell_presence(io, conn, command, answer);
                }
            }
            Letter::History(read) => self.read_history(io, from, *read),
            Letter::HistoryRead(read) => {
                let HistoryRead { ticket, answer } = *read;
                if let Ticket::Client { conn, command } = ticket {
                    self.tell_history(io, conn, command, answer);
                }
            }
            Letter::RemoveHistory(remove) => {
                let answer = if io.now() > remove.expires { Err(Refused::Expired) } else { Ok(()) };
                if answer.is_ok() {
                    self.home.remove_history(&remove.channel);
                }
                self.post.answer(from, Letter::HistoryRemoved { ticket: remove.ticket, answer });
            }
            Letter::Unsubscribe { channel, count } => {
                self.home.unsubscribe(io.now(), &channel, WorkerId(from as u16), count);
                self.subscribers_left(io, &channel);
            }
            Letter::Leave { channel, subscriber } => {
                self.guest_leaves(io, from, &channel, subscriber);
                self.subscribers_left(io, &channel);
            }
            Letter::List(list) => self.list(from, &list),
            Letter::Act(act) => self.begin_act(io, from, *act),
            Letter::Order(order) => self.obey(io, order),
            Letter::BackendAnswered { conn, number, answer } => self.tell_backend_answered(io, conn, number, *answer),
            Letter::AskBackend(_) | Letter::Notices(_) | Letter::FetchKeys => {
                debug_assert!(false, "a worker got what is for the control thread");
            }
            // Answers to the control thread's requests come to its mailbox only.
            Letter::Published { ticket: Ticket::Control(_), .. }
            | Letter::HistoryRemoved { .. }
            | Letter::Listed(_)
            | Letter::Acted { .. } => {
                debug_assert!(false, "a worker got an answer that is the control thread's");
            }
        }
        0
    }

    fn publish_here(&mut self, io: &mut Io, from: Party, publish: Publish) {
        let Publish { ticket, draft, expires } = publish;
        let answer = if io.now() > expires {
            Err(Refused::Expired)
        } else {
            let retention = self.retention_of(draft.channel());
            self.home.publish(io.now(), draft, retention, &mut ByMail(&mut self.post)).map_err(Refused::from)
        };
        self.publications += u64::from(answer.is_ok());
        self.post.answer(from, Letter::Published { ticket, answer });
    }

    fn read_history(&mut self, io: &mut Io, from: Party, read: ReadHistory) {
        let ReadHistory { ticket, channel, query, expires } = read;
        let answer = match self.retention_of(&channel) {
            _ if io.now() > expires => Err(Refused::Expired),
            None => Err(Refused::NoHistory),
            Some(retention) => self.home.history(io.now(), &channel, retention, &query).map_err(Refused::from),
        };
        self.post.answer(from, Letter::HistoryRead(Box::new(HistoryRead { ticket, answer })));
    }

    /// What the channel's namespace says now about its history.
    fn retention_of(&self, channel: &str) -> Option<Retention> {
        self.shared.settings.namespaces.of(channel).and_then(|(_, namespace)| namespace.history)
    }

    fn list(&mut self, from: Party, list: &crate::letter::List) {
        let mut channels = Vec::new();
        let next = self.home.page(list.cursor, super::SLOTS_PER_PAGE, |channel, subscribers| {
            channels.push((channel.clone(), subscribers));
        });
        let listed = crate::letter::Listed { ticket: list.ticket, channels, next };
        self.post.answer(from, Letter::Listed(Box::new(listed)));
    }

    fn obey(&mut self, io: &mut Io, order: Order) {
        match order {
            Order::Ready(ready) => self.shared.ready = ready,
            Order::Settings(settings) => self.shared.settings = settings,
            Order::UnixOrigin(origin) => self.shared.unix_origin = origin,
            Order::Drain { over } => self.begin_drain(io, over),
            Order::Stop => self.stopped = true,
        }
    }

    /// Applies what the connection `id` asked for. Makes no further effects.
    pub(super) fn apply_effects(&mut self, io: &mut Io, id: ConnId) {
        if self.shared.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.shared.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Subscribe { sequence, channel, recover, entrance } => {
                    self.ask_for_subscription(io, id, sequence, &channel, (recover, entrance));
                }
                Effect::Withdraw { member } => self.withdraw(member),
                Effect::Publish { command, draft } => {
                    let ticket = Ticket::Client { conn: id, command };
                    let expires = io.now() + self.request_timeout;
                    let home = self.home_of(&draft.channel);
                    let letter = Letter::Publish(Publish { ticket, draft: (*draft).into(), expires });
                    if self.post.request(home, letter).is_err() {
                        self.refused.push((id, command, Refusable::Publish));
                    }
                }
                Effect::History { command, channel, query } => {
                    let ticket = Ticket::Client { conn: id, command };
                    let (home, expires) = (self.home_of(&channel), io.now() + self.request_timeout);
                    let letter = Letter::History(Box::new(ReadHistory { ticket, channel, query, expires }));
                    if self.post.request(home, letter).is_err() {
                        self.refused.push((id, command, Refusable::History));
                    }
                }
                Effect::Presence { command, channel, query } => self.ask_for_presence(io, id, command, channel, query),
                Effect::Connected { client, user, encoding } => self.client_came(io, client, &user, encoding),
                Effect::FetchKeys => self.ask_for_keys(io),
                Effect::AskBackend { number, question } => {
                    let ask = AskBackend { conn: id, number, question: *question };
                    if self.post.request(self.control(), Letter::AskBackend(Box::new(ask))).is_err() {
                        self.refused.push((id, number, Refusable::Question));
                    }
                }
                Effect::AwaitVerification { cost } => {
                    self.shared.verifications.queue();
                    self.verifying.push_back((id, cost));
                    io.again();
                }
                Effect::Note(note) => tracing::info!("{note}"),
            }
        }
        // Nothing above makes effects, so the vector taken is the only one; its memory is used again.
        debug_assert!(self.shared.effects.is_empty());
        self.shared.effects = effects;
    }

    /// Not more often than once a second, and not at all where there is no room: the next such token asks again.
    fn ask_for_keys(&mut self, io: &Io) {
        if io.now() >= self.keys_wanted_again {
            self.keys_wanted_again = io.now() + Duration::from_secs(1);
            let _ = self.post.request(self.control(), Letter::FetchKeys);
        }
    }

    /// Tells one client at once that the way to the home is full. Whether there was one to tell.
    pub(super) fn answer_one_refused(&mut self, io: &mut Io) -> bool {
        if let Some((conn, command, what)) = self.refused.pop() {
            match what {
                Refusable::Publish => self.tell_published(io, conn, command, Err(ClientError::INTERNAL)),
                Refusable::History => self.tell_history(io, conn, command, Err(Refused::Busy)),
                Refusable::Presence => self.tell_presence(io, conn, command, Err(Refused::Busy)),
                Refusable::Question => self.tell_backend_answered(io, conn, command, Answer::None),
            }
            return true;
        }
        let Some(by) = self.refused_subscribes.pop() else { return false };
        self.subscribe_answered(io, by, false, Err(Refused::Busy));
        true
    }

    fn ask_for_subscription(
        &mut self,
        io: &mut Io,
        id: ConnId,
        sequence: u32,
        channel: &Channel,
        (recover, entrance): (Option<Box<Recover>>, Option<Box<Entrance>>),
    ) {
        let Some(connection) = self.table.find(id) else { return };
        let (local, channel) = self.shared.local.begin(channel);
        connection.subscription_begun(sequence, local);
        let by = Subscriber { conn: id, sequence, local };
        let home = self.home_of(&channel);
        let expires = io.now() + self.request_timeout;
        if self.post.request(home, Letter::Subscribe { channel, by, expires, recover, entrance }).is_err() {
            self.refused_subscribes.push(by);
        }
    }

    fn withdraw(&mut self, member: MemberId) {
        let (channel, guest) = self.shared.remove(member);
        self.withdraw_at_home(channel, guest);
    }

    fn withdraw_at_home(&mut self, channel: Channel, guest: Option<SubscriberId>) {
        let home = self.home_of(&channel);
        match guest {
            Some(subscriber) => self.post.leave(home, channel, subscriber),
            None => self.post.withdraw(home, channel),
        }
    }

    fn tell_published(&mut self, io: &mut Io, id: ConnId, command: u32, answer: Result<(), ClientError>) {
        let now = io.now();
        let Some(connection) = self.table.find(id) else { return };
        let directions = connection.published(now, command, answer, &mut self.shared);
        self.carry_out(io, id, directions);
    }

    fn tell_backend_answered(&mut self, io: &mut Io, id: ConnId, number: u32, answer: Answer) {
        self.guarded(io, id, |connection, now, shared| connection.backend_answered(now, number, answer, shared));
    }

    fn tell_history(&mut self, io: &mut Io, id: ConnId, command: u32, answer: Result<HistoryPage, Refused>) {
        let now = io.now();
        let answer = answer.map_err(|refused| match refused {
            Refused::Unrecoverable => ClientError::UNRECOVERABLE_POSITION,
            Refused::NoHistory => ClientError::NOT_AVAILABLE,
            _ => ClientError::INTERNAL,
        });
        let Some(connection) = self.table.find(id) else { return };
        let directions = connection.history_read(now, command, answer, &mut self.shared);
        self.carry_out(io, id, directions);
    }

    fn subscribe_answered(&mut self, io: &mut Io, by: Subscriber, entered: bool, answer: Result<Subscribed, Refused>) {
        let now = io.now();
        let subscriber = SubscriberId(by.conn.to_bits());
        let was_granted = answer.is_ok();
        let for_client = answer.map_err(|_| ClientError::INTERNAL);
        let taken = self.table.find(by.conn).and_then(|connection| {
            connection.subscription_answered(now, subscriber, by.sequence, for_client, &mut self.shared)
        });
        let is_member = taken.is_some_and(|(is_member, _)| is_member);
        if !is_member {
            // Nobody became a member: the pending count goes, and the home forgets what it counted for a connection that
            // is dead or has declined.
            let channel = self.shared.local.channel(by.local).clone();
            self.shared.local.abandon(by.local);
            if was_granted {
                self.withdraw_at_home(channel, entered.then_some(subscriber));
            }
        }
        if let Some((_, directions)) = taken {
            self.carry_out(io, by.conn, directions);
        }
    }

    /// The control thread: the party behind the last worker.
    pub(super) fn control(&self) -> Party {
        self.workers.into()
    }

    pub(super) fn home_of(&self, channel: &str) -> Party {
        usize::from(self.hash.home(channel, self.workers).0)
    }
}

/// A request that was refused on the spot and is answered after the effects are applied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusable {
    Publish,
    History,
    Presence,
    Question,
}

impl From<PublishRefusal> for Refused {
    fn from(refusal: PublishRefusal) -> Self {
        match refusal {
            PublishRefusal::MailboxFull { .. } => Self::Busy,
            PublishRefusal::ChannelsMax(_) => Self::ChannelsMax,
        }
    }
}

impl From<HistoryRefusal> for Refused {
    fn from(refusal: HistoryRefusal) -> Self {
        match refusal {
            HistoryRefusal::Unrecoverable => Self::Unrecoverable,
            HistoryRefusal::ChannelsMax(_) => Self::ChannelsMax,
        }
    }
}
