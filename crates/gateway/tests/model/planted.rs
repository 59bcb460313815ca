//! The mailbox of a worker with a tap on it: notes every publication as its home numbers it, and plants bugs.

use gateway::letter::Letter;
use gateway::mailbox::{Counts, Mailbox, Party, Post};
use hub::{Channel, Publication};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

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
}

/// What homes have numbered, in their order: payload ids by channel and epoch.
#[derive(Debug, Default)]
pub struct Log {
    numbered: HashMap<(String, String), Vec<(u64, u64)>>,
}

impl Log {
    fn note(&mut self, publication: &Publication, id: u64) {
        let key = (publication.channel.to_string(), publication.position.epoch.to_string());
        let numbered = self.numbered.entry(key).or_default();
        let offset = publication.position.offset.0;
        // One note for each interested worker; the first counts.
        if numbered.last().is_none_or(|(last, _)| *last < offset) {
            numbered.push((offset, id));
        }
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
}

impl Planted {
    pub fn new(inner: Mailbox, plant: Plant, log: Rc<RefCell<Log>>, seed: u64, channels: Vec<Channel>) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { inner, plant, log, random, channels, kept: None, balance: HashMap::new(), asked: HashMap::new() }
    }

    fn strikes(&mut self, plant: Plant) -> bool {
        self.plant == plant && self.random.u32(..20) == 0
    }

    fn deliver_for(&mut self, to: Party, publication: Arc<Publication>) {
        if self.strikes(Plant::Drop) {
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

    fn answer(&mut self, to: Party, letter: Letter) {
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

    fn has_room(&mut self, to: Party, bytes: usize) -> bool {
        self.inner.has_room(to, bytes)
    }

    fn deliver(&mut self, to: Party, publication: Arc<Publication>) {
        self.log.borrow_mut().note(&publication, payload_id(&publication.data));
        self.deliver_for(to, publication);
    }

    fn next(&mut self) -> Option<(Party, Letter)> {
        let (from, letter) = self.inner.next()?;
        if let Letter::Subscribed { by, answer } = &letter {
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
