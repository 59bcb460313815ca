//! The mailbox of a worker with a tap on it: notes every publication as its home numbers it, and plants bugs.

use crate::recovering::is_kept;
use gateway::letter::{Letter, Ticket};
use gateway::mailbox::{Counts, Mailbox, Party, Post};
use hub::{
    Announcement, Change, Channel, Epoch, Missed, Position, Publication, Recovery, SinceEpoch, Subscribed, SubscriberId,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The tag whose values are conflated each for itself.
pub const TAG: &str = "t";

/// The bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// A delivery is lost between home and worker.
    Drop,
    /// A delivery comes twice.
    Double,
    /// Two deliveries change places.
    Swap,
    /// A delivery goes to the subscribers of another channel.
    WrongRecipient,
    /// Interest ends when the last live subscriber leaves, although a subscribe is pending.
    NaiveInterest,
    /// A channel that is made again has the epoch that it had.
    EpochKept,
    /// One of the publications that a recovery should bring is left out.
    SkipRecovered,
    /// A publication that the outbox of a slow client was free to drop gets lost on its way, and nobody notices: what comes
    /// next may be a patch on it.
    PatchBehindDrop,
    /// The same with one that was compressed, before it is inflated: what comes next may have been compressed after it.
    CompressedBehindDrop,
    /// What was opened of TLS does not reach the client.
    LostRecord,
    /// Nobody is told that somebody has left.
    LostLeave,
    /// Subscribers are told twice that somebody has come.
    DoubleJoin,
    /// Deliveries are lost, in channels with a history only: no bug of the gateway, but something it has to notice.
    Lossy,
}

/// What homes have numbered, in their order: payload ids by channel and epoch.
#[derive(Debug, Default)]
pub struct Log {
    numbered: HashMap<(String, String), Vec<(u64, u64)>>,
    /// Payload id and time by channel, epoch and offset.
    places: HashMap<(String, String, u64), (u64, Duration)>,
    /// Values of [`TAG`] by payload id.
    tags: HashMap<u64, String>,
    /// The time, to within a step of the world; never late.
    pub now: Duration,
    /// Nothing is lost any more.
    pub is_calm: bool,
    /// A place that was given out twice.
    pub finding: Option<String>,
    /// Deliveries lost on purpose.
    pub lost: u64,
}

impl Log {
    fn note(&mut self, channel: &Channel, position: Position, id: u64) {
        let (key, offset) = ((channel.to_string(), position.epoch.to_string()), position.offset.0);
        let place = (key.0.clone(), key.1.clone(), offset);
        let (first, _) = *self.places.entry(place).or_insert((id, self.now));
        if first != id {
            self.finding = Some(format!("{channel} numbered {first} and {id} at {offset} of one epoch"));
        }
        let numbered = self.numbered.entry(key).or_default();
        // One note for each interested worker; the first counts.
        if numbered.last().is_none_or(|(last, _)| *last < offset) {
            numbered.push((offset, id));
        }
    }

    /// The tag of a publication.
    pub fn tag(&self, id: u64) -> Option<&str> {
        self.tags.get(&id).map(String::as_str)
    }

    /// What was numbered at a place, and when.
    pub fn at(&self, channel: &str, epoch: &str, offset: u64) -> Option<(u64, Duration)> {
        self.places.get(&(channel.to_owned(), epoch.to_owned(), offset)).copied()
    }

    /// The numbering that holds this publication, and its place in it.
    pub fn place(&self, channel: &str, id: u64) -> Option<(&[(u64, u64)], usize)> {
        self.numbered.iter().filter(|((name, _), _)| name == channel).find_map(|(_, numbered)| {
            numbered.iter().position(|(_, known)| *known == id).map(|place| (&numbered[..], place))
        })
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Balance {
    pending: u32,
    live: u32,
    /// Withdrawals that the plant has sent too early, to be swallowed later.
    early: u32,
}

#[derive(Debug)]
pub struct Planted {
    inner: Mailbox,
    plant: Plant,
    log: Rc<RefCell<Log>>,
    random: fastrand::Rng,
    channels: Vec<Channel>,
    kept: Option<(Party, Arc<Publication>)>,
    balance: HashMap<Channel, Balance>,
    /// Channels of subscribes that wait for their answer, by sequence.
    asked: HashMap<u32, Channel>,
    /// Publishes that this home was asked for and has not answered.
    publishing: Vec<(Party, Ticket, Channel, u64)>,
}

impl Planted {
    pub fn new(inner: Mailbox, plant: Plant, log: Rc<RefCell<Log>>, seed: u64, channels: Vec<Channel>) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (balance, asked, publishing) = (HashMap::new(), HashMap::new(), Vec::new());
        Self { inner, plant, log, random, channels, kept: None, balance, asked, publishing }
    }

    /// The position in a channel with a history, as clients see it.
    fn seen(&self, position: Position) -> Position {
        match self.plant {
            Plant::EpochKept => Position { epoch: Epoch::from_seed(0), ..position },
            _ => position,
        }
    }

    /// What clients are told to have missed.
    fn told(&self, recovery: Recovery) -> Recovery {
        match (recovery, self.plant) {
            (Recovery::Recovered(Some(missed)), Plant::SkipRecovered) if missed.publications.len() > 1 => {
                let publications = missed.publications[1..].into();
                let Missed { channel, to, .. } = &*missed;
                Recovery::Recovered(Some(Arc::new(Missed { channel: channel.clone(), to: *to, publications })))
            }
            (recovery, _) => recovery,
        }
    }

    fn strikes(&mut self, plant: Plant) -> bool {
        self.plant == plant && self.random.u32(..20) == 0
    }

    fn deliver_for(&mut self, to: Party, publication: Arc<Publication>) {
        if self.strikes(Plant::Drop) {
            return;
        }
        if self.strikes(Plant::Lossy) && is_kept(&publication.channel) && !self.log.borrow().is_calm {
            self.log.borrow_mut().lost += 1;
            return;
        }
        if self.strikes(Plant::WrongRecipient) {
            let other = self.channels[self.random.usize(..self.channels.len())].clone();
            let moved = Publication { channel: other, ..Publication::clone(&publication) };
            return self.inner.deliver(to, Arc::new(moved));
        }
        if self.strikes(Plant::Double) && self.inner.has_room(to, 2 * publication.cost()) {
            self.inner.deliver(to, publication.clone());
            if self.inner.has_room(to, publication.cost()) {
                self.inner.deliver(to, publication);
            }
            return;
        }
        if self.strikes(Plant::Swap) && self.kept.is_none() {
            self.kept = Some((to, publication));
            return;
        }
        let follower = self.kept.take_if(|(kept_for, kept)| *kept_for == to && kept.channel == publication.channel);
        self.inner.deliver(to, publication);
        if let Some((to, late)) = follower
            && self.inner.has_room(to, late.cost())
        {
            self.inner.deliver(to, late);
        }
    }
}

/// The payload id of `{"n":7}`.
pub fn payload_id(data: &[u8]) -> u64 {
    let tree: serde_json::Value = serde_json::from_slice(data).expect("payloads are JSON");
    tree["n"].as_u64().expect("payloads are numbered")
}

impl Post for Planted {
    fn request(&mut self, to: Party, letter: Letter) -> Result<(), Letter> {
        let asked = match &letter {
            Letter::Subscribe { channel, by, .. } => Some((by.sequence, channel.clone())),
            _ => None,
        };
        self.inner.request(to, letter)?;
        if let Some((sequence, channel)) = asked {
            self.balance.entry(channel.clone()).or_default().pending += 1;
            self.asked.insert(sequence, channel);
        }
        Ok(())
    }

    fn has_room_for_more(&mut self, to: Party) -> bool {
        self.inner.has_room_for_more(to)
    }

    fn answer(&mut self, to: Party, letter: Letter) {
        let letter = match letter {
            Letter::Subscribed { by, entered, answer: Ok(Subscribed { position, recovery }) } => {
                let (position, recovery) = (self.seen(position), self.told(recovery));
                Letter::Subscribed { by, entered, answer: Ok(Subscribed { position, recovery }) }
            }
            Letter::Published { ticket, answer } => {
                let at = self.publishing.iter().position(|(from, t, ..)| (*from, *t) == (to, ticket));
                let (.., channel, id) = self.publishing.swap_remove(at.expect("answers belong to requests"));
                if let Ok(published) = answer
                    && published.recorded
                {
                    self.log.borrow_mut().note(&channel, self.seen(published.position), id);
                }
                Letter::Published { ticket, answer }
            }
            letter => letter,
        };
        self.inner.answer(to, letter);
    }

    fn withdraw(&mut self, to: Party, channel: Channel) {
        let balance = self.balance.entry(channel.clone()).or_default();
        balance.live = balance.live.saturating_sub(1);
        if balance.early > 0 {
            balance.early -= 1;
            return;
        }
        let naive = self.plant == Plant::NaiveInterest && balance.live == 0;
        let early = if naive { balance.pending } else { 0 };
        balance.early += early;
        for _ in 0..=early {
            self.inner.withdraw(to, channel.clone());
        }
    }

    fn leave(&mut self, to: Party, channel: Channel, subscriber: SubscriberId) {
        let balance = self.balance.entry(channel.clone()).or_default();
        balance.live = balance.live.saturating_sub(1);
        self.inner.leave(to, channel, subscriber);
    }

    fn announce(&mut self, to: Party, announcement: Arc<Announcement>) {
        if announcement.change == Change::Leave && self.strikes(Plant::LostLeave) {
            return;
        }
        let twice = announcement.change == Change::Join && self.strikes(Plant::DoubleJoin);
        self.inner.announce(to, announcement.clone());
        if twice && self.inner.has_room(to, announcement.cost()) {
            self.inner.announce(to, announcement);
        }
    }

    fn has_room(&mut self, to: Party, bytes: usize) -> bool {
        self.inner.has_room(to, bytes)
    }

    fn deliver(&mut self, to: Party, publication: Arc<Publication>) {
        let kept = is_kept(&publication.channel);
        let position = if kept { self.seen(publication.position) } else { publication.position };
        let id = payload_id(&publication.data);
        self.log.borrow_mut().note(&publication.channel, position, id);
        if let Some(value) = publication.tags.as_ref().and_then(|tags| tags.get(TAG)) {
            self.log.borrow_mut().tags.insert(id, value.clone());
        }
        let seen = if position == publication.position {
            publication
        } else {
            Arc::new(Publication { position, ..Publication::clone(&publication) })
        };
        self.deliver_for(to, seen);
    }

    fn next(&mut self) -> Option<(Party, Letter)> {
        let (from, mut letter) = self.inner.next()?;
        if let Letter::Publish(publish) = &letter {
            let id = payload_id(publish.draft.data());
            self.publishing.push((from, publish.ticket, publish.draft.channel().clone(), id));
        }
        if let (Letter::Subscribe { recover: Some(recover), .. }, Plant::EpochKept) = (&mut letter, self.plant) {
            recover.since.epoch = SinceEpoch::Any;
        }
        if let Letter::Subscribed { by, answer, .. } = &letter {
            let channel = self.asked.remove(&by.sequence).expect("answers belong to requests");
            let balance = self.balance.entry(channel).or_default();
            balance.pending -= 1;
            balance.live += u32::from(answer.is_ok());
        }
        Some((from, letter))
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn has_mail(&self) -> bool {
        self.inner.has_mail()
    }

    fn counts(&self) -> Counts {
        self.inner.counts()
    }
}
