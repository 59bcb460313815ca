//! The workers, their queues and their clients, driven by one seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use hub::{
    Channel, ChannelHash, Draft, Home, HomeLimits, Local, LocalId, MemberId, Position, Publication, Route,
    SubscribeRefusal, SubscriberId, WorkerId,
};

use crate::checker::{Checker, Fault};

const NOW: Duration = Duration::ZERO;
const WORKERS: usize = 4;
const CLIENTS: usize = 24;
const CHANNELS: usize = 8;
/// Few enough that a home is sometimes full.
const CHANNELS_MAX: usize = 2;
/// Letters of one queue beyond which requests and publications are refused and withdrawals wait.
const QUEUE_LETTERS_MAX: usize = 6;
/// One in so many opportunities gets the planted fault.
const PLANT_EVERY: u32 = 50;

/// A fault built in on purpose, to see that the checker finds it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Plant {
    Nothing,
    /// A delivery disappears on its way to a worker.
    Drop,
    /// A delivery is queued twice.
    Double,
    /// Two deliveries of a channel change places.
    Swap,
    /// A publication goes to a client other than the subscriber.
    WrongRecipient,
    /// A worker ends its interest when no member is left, whatever is pending.
    NaiveInterest,
    /// A publication is numbered although one of the mailboxes is full.
    NumberBeforeRoom,
}

enum Letter {
    Subscribe { channel: Channel, local: LocalId, who: SubscriberId, sequence: u32 },
    Answer { channel: Channel, local: LocalId, who: SubscriberId, sequence: u32, answer: Answer },
    Publish { channel: Channel, data: u64 },
    Deliver(Arc<Publication>),
    Withdraw { channel: Channel, count: u32 },
    Uninterested { channel: Channel },
}

/// What the home said, and when it did.
type Answer = Result<(Position, u64), SubscribeRefusal>;

struct Worker {
    home: Home,
    local: Local,
    stalled: bool,
    /// Withdrawals that found a full queue, added up by channel.
    waiting: BTreeMap<Channel, u32>,
    /// What this home counted, by channel and worker; only the planted naive rule needs it.
    counted: BTreeMap<(Channel, usize), u32>,
}

struct Client {
    generation: u32,
    alive: bool,
    encoding: u8,
    sequence: u32,
    subscriptions: BTreeMap<usize, Subscription>,
}

enum Subscription {
    Pending { sequence: u32 },
    Held { member: MemberId, kept: Vec<Arc<Publication>> },
    Live { member: MemberId },
}

/// How often each kind of event happened, by name.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

const EVENTS: [&str; 16] = [
    "worker stall",
    "publish accepted",
    "publish refused by a full mailbox",
    "publish to nobody",
    "subscribe refused by a full queue",
    "subscribe refused by channels_max",
    "withdrawal delayed",
    "withdrawals added up",
    "death while pending",
    "death while held",
    "death while live",
    "stale answer",
    "slot reuse",
    "publication kept while held",
    "delivery without a member",
    "publication received",
];

impl Counts {
    fn bump(&mut self, event: &'static str) {
        assert!(EVENTS.contains(&event), "{event} is not in the list");
        *self.0.entry(event).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        other.0.iter().for_each(|(event, count)| *self.0.entry(event).or_default() += count);
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        EVENTS.into_iter().map(|event| (event, self.0.get(event).copied().unwrap_or(0)))
    }
}

pub(crate) struct World {
    random: Rng,
    plant: Plant,
    hash: ChannelHash,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    /// By sender, then receiver; letters to oneself pass the same way.
    queues: Vec<Vec<VecDeque<Letter>>>,
    published: u64,
    checker: Checker,
    counts: Counts,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Plant) -> World {
        let mut random = Rng::with_seed(seed);
        let hash = ChannelHash::new(random.u128(..).to_le_bytes());
        let limits = HomeLimits { channels_max: CHANNELS_MAX, ..HomeLimits::default() };
        let workers = (0..WORKERS)
            .map(|_| Worker {
                home: Home::new(hash, limits, random.u64(..)),
                local: Local::new(hash),
                stalled: false,
                waiting: BTreeMap::new(),
                counted: BTreeMap::new(),
            })
            .collect();
        let clients = (0..CLIENTS)
            .map(|n| Client {
                generation: 0,
                alive: true,
                encoding: (n % 2) as u8,
                sequence: 0,
                subscriptions: BTreeMap::new(),
            })
            .collect();
        let queues = (0..WORKERS).map(|_| (0..WORKERS).map(|_| VecDeque::new()).collect()).collect();
        let (checker, counts) = (Checker::default(), Counts::default());
        World { random, plant, hash, workers, clients, queues, published: 0, checker, counts }
    }

    pub(crate) fn step(&mut self) {
        let client = self.random.usize(..CLIENTS);
        let channel = self.random.usize(..CHANNELS);
        match self.random.u32(..100) {
            0..40 => self.read_some(),
            40..62 => self.publish(channel),
            62..78 => self.subscribe(client, channel),
            78..86 => self.unsubscribe(client, channel),
            86..92 => (0..CHANNELS).for_each(|channel| self.go_live(client, channel)),
            92..95 => self.die(client),
            95..99 => self.revive(client),
            _ => self.stall(),
        }
        self.send_waiting();
    }

    /// Reads all letters, lets every subscription go live, and checks; then ends every client and checks that nothing
    /// stays behind.
    pub(crate) fn settle(&mut self) {
        self.read_all();
        for client in 0..CLIENTS {
            (0..CHANNELS).for_each(|channel| self.go_live(client, channel));
        }
        self.checker.settled();
        (0..CLIENTS).for_each(|client| self.die(client));
        self.read_all();
        for (at, worker) in self.workers.iter().enumerate() {
            let (home, local) = (worker.home.channels(), worker.local.channels());
            if (home, local) != (0, 0) {
                self.checker.faults.push(Fault::Leak { worker: at, home, local });
            }
        }
    }

    pub(crate) fn verdict(mut self) -> (Counts, Vec<Fault>) {
        self.counts.0.insert("publication received", self.checker.received);
        (self.counts, self.checker.faults)
    }

    fn planted(&mut self, plant: Plant) -> bool {
        self.plant == plant && self.random.u32(..PLANT_EVERY) == 0
    }

    fn name(channel: usize) -> Channel {
        Channel::new(&format!("channel:{channel}"))
    }

    fn home_of(&self, channel: &str) -> usize {
        usize::from(self.hash.home(channel, WORKERS as u16).0)
    }

    fn id_of(&self, client: usize) -> SubscriberId {
        SubscriberId(u64::from(self.clients[client].generation) << 32 | client as u64)
    }

    fn worker_of(client: usize) -> usize {
        client % WORKERS
    }
}

/// What clients and backends do.
impl World {
    fn publish(&mut self, channel: usize) {
        let (channel, from) = (Self::name(channel), self.random.usize(..WORKERS));
        let home = self.home_of(&channel);
        if self.queues[from][home].len() < QUEUE_LETTERS_MAX {
            self.published += 1;
            self.queues[from][home].push_back(Letter::Publish { channel, data: self.published });
        }
    }

    fn subscribe(&mut self, client: usize, channel: usize) {
        if !self.clients[client].alive || self.clients[client].subscriptions.contains_key(&channel) {
            return;
        }
        let (worker, who) = (Self::worker_of(client), self.id_of(client));
        let (local, name) = self.workers[worker].local.begin(&Self::name(channel));
        let home = self.home_of(&name);
        if self.queues[worker][home].len() >= QUEUE_LETTERS_MAX {
            self.counts.bump("subscribe refused by a full queue");
            self.workers[worker].local.abandon(local);
            return;
        }
        let client = &mut self.clients[client];
        client.sequence += 1;
        let sequence = client.sequence;
        client.subscriptions.insert(channel, Subscription::Pending { sequence });
        self.queues[worker][home].push_back(Letter::Subscribe { channel: name, local, who, sequence });
    }

    fn unsubscribe(&mut self, client: usize, channel: usize) {
        let Some(subscription) = self.clients[client].subscriptions.remove(&channel) else { return };
        // A pending one is forgotten by the client only; its answer, now stale, does the rest.
        if let Subscription::Held { member, .. } | Subscription::Live { member } = subscription {
            let worker = Self::worker_of(client);
            self.checker.unsubscribed(self.id_of(client), &Self::name(channel));
            let name = self.workers[worker].local.remove(member);
            self.withdraw(worker, name);
        }
    }

    fn go_live(&mut self, client: usize, channel: usize) {
        let who = self.id_of(client);
        let Some(subscription) = self.clients[client].subscriptions.get_mut(&channel) else { return };
        if let Subscription::Held { member, kept } = subscription {
            let (member, kept) = (*member, std::mem::take(kept));
            *subscription = Subscription::Live { member };
            self.workers[Self::worker_of(client)].local.go_live(member);
            kept.iter().for_each(|publication| self.checker.received(who, publication));
        }
    }

    fn die(&mut self, client: usize) {
        for channel in 0..CHANNELS {
            match self.clients[client].subscriptions.get(&channel) {
                Some(Subscription::Pending { .. }) => self.counts.bump("death while pending"),
                Some(Subscription::Held { .. }) => self.counts.bump("death while held"),
                Some(Subscription::Live { .. }) => self.counts.bump("death while live"),
                None => {}
            }
            self.unsubscribe(client, channel);
        }
        self.clients[client].alive = false;
    }

    /// Another client takes the place of a dead one.
    fn revive(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if !client.alive {
            self.counts.bump("slot reuse");
            client.alive = true;
            client.generation += 1;
            // Sequence numbers start over on purpose: the generation alone has to tell the answers apart.
            client.sequence = 0;
        }
    }

    fn stall(&mut self) {
        let worker = self.random.usize(..WORKERS);
        self.workers[worker].stalled = self.random.u32(..4) == 0;
        if self.workers[worker].stalled {
            self.counts.bump("worker stall");
        }
    }
}

/// Letters.
impl World {
    /// One subscription that the home counted is over.
    fn withdraw(&mut self, worker: usize, channel: Channel) {
        if self.plant == Plant::NaiveInterest {
            let local = &self.workers[worker].local;
            if local.find(&channel).is_none_or(|id| local.live(id) == 0) {
                let home = self.home_of(&channel);
                self.queues[worker][home].push_back(Letter::Uninterested { channel });
            }
            return;
        }
        let count = self.workers[worker].waiting.entry(channel).or_default();
        *count += 1;
        if *count > 1 {
            self.counts.bump("withdrawals added up");
        }
    }

    fn send_waiting(&mut self) {
        for worker in 0..WORKERS {
            for (channel, count) in std::mem::take(&mut self.workers[worker].waiting) {
                let home = self.home_of(&channel);
                if self.queues[worker][home].len() < QUEUE_LETTERS_MAX {
                    self.queues[worker][home].push_back(Letter::Withdraw { channel, count });
                } else {
                    self.counts.bump("withdrawal delayed");
                    self.workers[worker].waiting.insert(channel, count);
                }
            }
        }
    }

    fn read_some(&mut self) {
        let to = self.random.usize(..WORKERS);
        if self.workers[to].stalled {
            return;
        }
        let first = self.random.usize(..WORKERS);
        for from in (0..WORKERS).map(|n| (first + n) % WORKERS) {
            for _ in 0..self.random.usize(..6) {
                self.read(from, to);
            }
        }
    }

    fn read_all(&mut self) {
        let busy = |world: &World| {
            world.queues.iter().flatten().any(|queue| !queue.is_empty())
                || world.workers.iter().any(|worker| !worker.waiting.is_empty())
        };
        while busy(self) {
            for (from, to) in (0..WORKERS * WORKERS).map(|n| (n / WORKERS, n % WORKERS)) {
                self.read(from, to);
            }
            self.send_waiting();
        }
    }

    fn read(&mut self, from: usize, to: usize) {
        match self.queues[from][to].pop_front() {
            Some(Letter::Subscribe { channel, local, who, sequence }) => {
                let answer = self.workers[to].home.subscribe(NOW, &channel, WorkerId(from as u16), None, None);
                let answer = answer.map(|subscribed| subscribed.position);
                match answer {
                    Ok(_) => *self.workers[to].counted.entry((channel.clone(), from)).or_default() += 1,
                    Err(_) => self.counts.bump("subscribe refused by channels_max"),
                }
                let answer = answer.map(|position| (position, self.checker.clock()));
                self.queues[to][from].push_back(Letter::Answer { channel, local, who, sequence, answer });
            }
            Some(Letter::Answer { channel, local, who, sequence, answer }) => {
                self.answered(to, &channel, local, who, sequence, answer);
            }
            Some(Letter::Publish { channel, data }) => self.number(to, channel, data),
            Some(Letter::Deliver(publication)) => self.fan_out(to, &publication),
            Some(Letter::Withdraw { channel, count }) => {
                self.workers[to].home.unsubscribe(NOW, &channel, WorkerId(from as u16), count);
            }
            Some(Letter::Uninterested { channel }) => {
                let all = self.workers[to].counted.remove(&(channel.clone(), from)).unwrap_or(0);
                self.workers[to].home.unsubscribe(NOW, &channel, WorkerId(from as u16), all);
            }
            None => {}
        }
    }

    fn answered(
        &mut self,
        worker: usize,
        channel: &Channel,
        local: LocalId,
        who: SubscriberId,
        sequence: u32,
        answer: Answer,
    ) {
        let client = who.0 as u32 as usize;
        let number = (0..CHANNELS).find(|&n| Self::name(n) == *channel).expect("one of ours");
        let waits = self.id_of(client) == who
            && matches!(
                self.clients[client].subscriptions.get(&number),
                Some(Subscription::Pending { sequence: mine }) if *mine == sequence
            );
        match (waits, answer) {
            (true, Ok((position, taken))) => {
                let held = self.random.bool();
                let encoding = self.clients[client].encoding;
                let member = self.workers[worker].local.admit(local, who, encoding, held);
                let subscription = match held {
                    true => Subscription::Held { member, kept: Vec::new() },
                    false => Subscription::Live { member },
                };
                self.clients[client].subscriptions.insert(number, subscription);
                self.checker.subscribed(who, channel, position, taken);
            }
            (true, Err(_)) => {
                self.workers[worker].local.abandon(local);
                self.clients[client].subscriptions.remove(&number);
            }
            (false, answer) => {
                self.counts.bump("stale answer");
                self.workers[worker].local.abandon(local);
                if answer.is_ok() {
                    self.withdraw(worker, channel.clone());
                }
            }
        }
    }

    fn number(&mut self, home: usize, channel: Channel, data: u64) {
        let draft = Draft::new(channel.clone(), data.to_string().into_bytes());
        let (drop, double) = (self.planted(Plant::Drop), self.planted(Plant::Double));
        let swap = self.planted(Plant::Swap);
        let ignore_full = self.plant == Plant::NumberBeforeRoom;
        let mut route = Queues { queues: &mut self.queues[home], ignore_full, drop, double };
        match self.workers[home].home.publish(NOW, draft, None, &mut route) {
            Ok(published) => {
                self.counts.bump(if published.workers == 0 { "publish to nobody" } else { "publish accepted" });
                self.checker.published(&channel, published.position, data);
            }
            Err(_) => self.counts.bump("publish refused by a full mailbox"),
        }
        if swap {
            self.queues[home].iter_mut().for_each(swap_last_two);
        }
    }

    fn fan_out(&mut self, worker: usize, publication: &Arc<Publication>) {
        let Some(id) = self.workers[worker].local.find(&publication.channel) else {
            self.counts.bump("delivery without a member");
            return;
        };
        let members: Vec<_> = self.workers[worker].local.members(id).collect();
        for member in members {
            let client = member.subscriber.0 as u32 as usize;
            assert_eq!(member.encoding, self.clients[client].encoding, "a member keeps its encoding");
            if self.planted(Plant::WrongRecipient) {
                let other = self.random.usize(..CLIENTS);
                self.checker.received(self.id_of(other), publication);
                continue;
            }
            let number = (0..CHANNELS).find(|&n| Self::name(n) == publication.channel).expect("one of ours");
            match self.clients[client].subscriptions.get_mut(&number) {
                Some(Subscription::Held { kept, .. }) if member.held => {
                    self.counts.bump("publication kept while held");
                    kept.push(Arc::clone(publication));
                }
                _ => self.checker.received(member.subscriber, publication),
            }
        }
    }
}

/// Swaps the last two letters of a queue when both are publications of one channel.
fn swap_last_two(queue: &mut VecDeque<Letter>) {
    if let [.., Letter::Deliver(first), Letter::Deliver(second)] = queue.make_contiguous()
        && first.channel == second.channel
    {
        std::mem::swap(first, second);
    }
}

/// The queues from one home, with the faults planted for this publication.
struct Queues<'a> {
    queues: &'a mut [VecDeque<Letter>],
    ignore_full: bool,
    drop: bool,
    double: bool,
}

impl Route for Queues<'_> {
    fn has_room(&mut self, worker: WorkerId, _bytes: usize) -> bool {
        self.ignore_full || self.queues[usize::from(worker.0)].len() < QUEUE_LETTERS_MAX
    }

    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
        let queue = &mut self.queues[usize::from(worker.0)];
        // A mailbox that was not asked for room drops what does not fit.
        if self.drop || (self.ignore_full && queue.len() >= QUEUE_LETTERS_MAX) {
            return;
        }
        if self.double {
            queue.push_back(Letter::Deliver(Arc::clone(&publication)));
        }
        queue.push_back(Letter::Deliver(publication));
    }
}
