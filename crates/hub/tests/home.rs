//! The home against a naive model: numbering, interest, refusals and paging.
//!
//! A failing case is printed in its smallest form; `PROPTEST_RNG_SEED` repeats a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hub::{
    Channel, ChannelHash, ChannelsMax, Draft, Epoch, Home, HomeLimits, Offset, Position, Publication, PublishRefusal,
    Route, WorkerId,
};
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const CHANNELS: u8 = 5;
const CHANNELS_MAX: usize = 4;
const WORKERS: u16 = 4;

#[derive(Clone, Debug)]
enum Operation {
    Subscribe {
        channel: u8,
        worker: u16,
    },
    /// Withdraws `percent` of what the worker has, rounded up.
    Withdraw {
        channel: u8,
        worker: u16,
        percent: u32,
    },
    /// Publishes while the mailboxes of the workers in `full` have no room.
    Publish {
        channel: u8,
        full: [bool; WORKERS as usize],
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let (channel, worker) = (0..CHANNELS, 0..WORKERS);
    prop_oneof![
        4 => (channel.clone(), worker.clone()).prop_map(|(channel, worker)| Operation::Subscribe { channel, worker }),
        3 => (channel.clone(), worker, 1..=100_u32)
            .prop_map(|(channel, worker, percent)| Operation::Withdraw { channel, worker, percent }),
        4 => (channel, proptest::array::uniform4(prop::bool::weighted(0.15)))
            .prop_map(|(channel, full)| Operation::Publish { channel, full }),
    ]
}

fn name(channel: u8) -> Channel {
    Channel::new(&format!("channel:{channel}"))
}

/// What a publish asked of the mailboxes, in order.
#[derive(Debug, PartialEq)]
enum Asked {
    Room(WorkerId, usize),
    Deliver(WorkerId, Arc<Publication>),
}

struct Mailboxes {
    full: [bool; WORKERS as usize],
    asked: Vec<Asked>,
}

impl Route for Mailboxes {
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool {
        self.asked.push(Asked::Room(worker, bytes));
        !self.full[usize::from(worker.0)]
    }

    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
        self.asked.push(Asked::Deliver(worker, publication));
    }
}

/// One channel as the obvious structures say it.
struct Model {
    position: Position,
    interest: BTreeMap<u16, u32>,
}

#[derive(Default)]
struct Pair {
    home: Option<Home>,
    channels: BTreeMap<u8, Model>,
    epochs: BTreeSet<Epoch>,
    published: u32,
}

impl Pair {
    fn new() -> Pair {
        let limits = HomeLimits { channels_max: CHANNELS_MAX, ..HomeLimits::default() };
        Pair { home: Some(Home::new(ChannelHash::new([5; 16]), limits, 99)), ..Pair::default() }
    }

    fn home(&mut self) -> &mut Home {
        self.home.as_mut().expect("made with the pair")
    }

    fn subscribe(&mut self, channel: u8, worker: u16) {
        let answer = self.home().subscribe(NOW, &name(channel), WorkerId(worker), None, None);
        if !self.channels.contains_key(&channel) && self.channels.len() == CHANNELS_MAX {
            assert_eq!(answer, Err(ChannelsMax { limit: CHANNELS_MAX }));
            return;
        }
        let position = answer.expect("there is room for the channel").position;
        let epochs = &mut self.epochs;
        let model = self.channels.entry(channel).or_insert_with(|| {
            assert_eq!(position.offset, Offset(0), "a new channel has no publications");
            assert!(epochs.insert(position.epoch), "every creation draws a new epoch");
            Model { position, interest: BTreeMap::new() }
        });
        assert_eq!(position, model.position);
        *model.interest.entry(worker).or_default() += 1;
    }

    fn withdraw(&mut self, channel: u8, worker: u16, percent: u32) {
        let Some(model) = self.channels.get_mut(&channel) else { return };
        let Some(count) = model.interest.get_mut(&worker) else { return };
        let withdrawn = (*count * percent).div_ceil(100);
        *count -= withdrawn;
        model.interest.retain(|_, count| *count > 0);
        if model.interest.is_empty() {
            self.channels.remove(&channel);
        }
        self.home().unsubscribe(NOW, &name(channel), WorkerId(worker), withdrawn);
    }

    fn publish(&mut self, channel: u8, full: [bool; WORKERS as usize]) {
        self.published += 1;
        let draft = Draft::new(name(channel), self.published.to_string().into_bytes());
        let mut mailboxes = Mailboxes { full, asked: Vec::new() };
        let answer = self.home().publish(NOW, draft.clone(), None, &mut mailboxes);
        let Some(model) = self.channels.get_mut(&channel) else {
            let published = answer.expect("nobody's mailbox can refuse");
            assert_eq!((published.position.offset, published.workers), (Offset(1), 0));
            assert!(self.epochs.insert(published.position.epoch), "a forgotten channel has an epoch of its own");
            assert_eq!(mailboxes.asked, [], "nobody is interested");
            return;
        };
        let asked = mailboxes.asked.into_iter().collect::<Vec<_>>();
        let (rooms, deliveries): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| matches!(asked, Asked::Room(..)));
        if let Err(PublishRefusal::MailboxFull { worker }) = answer {
            assert!(full[usize::from(worker.0)] && model.interest.contains_key(&worker.0));
            assert_eq!(deliveries, Vec::<&Asked>::new(), "a refused publication is known to nobody");
            return;
        }
        let published = answer.expect("handled above");
        assert!(model.interest.keys().all(|&worker| !full[usize::from(worker)]), "it had to be refused");
        model.position.offset = model.position.offset.next();
        assert_eq!(published.position, model.position, "numbers are contiguous within an epoch");
        assert_eq!(usize::from(published.workers), model.interest.len());

        assert!(asked[..rooms.len()].iter().eq(rooms.iter().copied()), "every room is asked for before any delivery");
        let asked_workers: BTreeSet<u16> = rooms
            .iter()
            .map(|asked| match asked {
                Asked::Room(worker, bytes) if *bytes == draft.cost() => worker.0,
                other => panic!("{other:?}"),
            })
            .collect();
        let got: BTreeSet<u16> = deliveries
            .iter()
            .map(|asked| match asked {
                Asked::Deliver(worker, publication) => {
                    assert_eq!((publication.position, &publication.data), (model.position, &draft.data));
                    worker.0
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(deliveries.len(), got.len(), "each worker gets it once");
        assert!(got.iter().eq(model.interest.keys()), "exactly the interested workers get it");
        assert_eq!(asked_workers, got);
    }

    fn compare(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        assert_eq!(self.home().channels(), channels.len());
        for channel in 0..CHANNELS {
            let count = channels.get(&channel).map(|model| model.interest.values().sum::<u32>());
            assert_eq!(self.home().subscribers(&name(channel)), count);
        }
        self.channels = channels;
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn home_equals_the_model(operations in prop::collection::vec(operation(), 0..200)) {
        let mut pair = Pair::new();
        for operation in operations {
            match operation {
                Operation::Subscribe { channel, worker } => pair.subscribe(channel, worker),
                Operation::Withdraw { channel, worker, percent } => pair.withdraw(channel, worker, percent),
                Operation::Publish { channel, full } => pair.publish(channel, full),
            }
            pair.compare();
        }
    }

    #[test]
    fn a_walk_visits_each_channel_that_stays_exactly_once(
        stay in prop::collection::btree_set(0..400_u32, 0..60),
        limit in 0..40_usize,
        between in prop::collection::vec(prop::collection::vec((any::<bool>(), 400..500_u32), 0..30), 0..40),
    ) {
        let mut home = Home::new(ChannelHash::new([1; 16]), HomeLimits::default(), 1);
        let (worker, name) = (WorkerId(0), |n: u32| Channel::new(&format!("c{n}")));
        let mut passing = BTreeSet::new();
        // Passing channels on both sides of those that stay, so that slots free up anywhere.
        for n in (400..430).chain(stay.iter().copied()).chain(430..460) {
            home.subscribe(NOW, &name(n), worker, None, None).unwrap();
            if n >= 400 {
                passing.insert(n);
            }
        }
        let mut visits = BTreeMap::<String, u32>::new();
        let mut between = between.into_iter();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let mut page = 0;
            cursor = home.page(from, limit, |channel, subscribers| {
                assert_eq!(subscribers, 1);
                page += 1;
                *visits.entry(channel.to_string()).or_default() += 1;
            });
            prop_assert!(page <= limit.max(1), "{} channels on a page of {}", page, limit);
            for (insert, n) in between.next().unwrap_or_default() {
                if insert && passing.insert(n) {
                    home.subscribe(NOW, &name(n), worker, None, None).unwrap();
                } else if !insert && passing.remove(&n) {
                    home.unsubscribe(NOW, &name(n), worker, 1);
                }
            }
        }
        for n in stay {
            prop_assert_eq!(visits.get(&*name(n)), Some(&1), "c{}", n);
        }
    }
}

#[test]
fn a_full_mailbox_of_the_last_worker_asked_still_numbers_nothing() {
    let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits::default(), 1);
    for worker in 0..WORKERS {
        home.subscribe(NOW, &name(0), WorkerId(worker), None, None).unwrap();
    }
    for full in 0..WORKERS {
        let mut mailboxes = Mailboxes { full: [false; 4], asked: Vec::new() };
        mailboxes.full[usize::from(full)] = true;
        let answer = home.publish(NOW, Draft::new(name(0), *b"1"), None, &mut mailboxes);
        assert_eq!(answer, Err(PublishRefusal::MailboxFull { worker: WorkerId(full) }));
        assert!(mailboxes.asked.iter().all(|asked| matches!(asked, Asked::Room(..))));
    }
    let mut mailboxes = Mailboxes { full: [false; 4], asked: Vec::new() };
    let published = home.publish(NOW, Draft::new(name(0), *b"1"), None, &mut mailboxes).unwrap();
    assert_eq!((published.position.offset, published.workers), (Offset(1), WORKERS));
}

#[test]
fn channels_beyond_the_limit_are_refused_until_one_is_forgotten() {
    let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits { channels_max: 2, ..HomeLimits::default() }, 1);
    let worker = WorkerId(0);
    home.subscribe(NOW, &name(0), worker, None, None).unwrap();
    home.subscribe(NOW, &name(1), worker, None, None).unwrap();
    assert_eq!(home.subscribe(NOW, &name(2), worker, None, None), Err(ChannelsMax { limit: 2 }));
    assert_eq!(home.subscribers(&name(2)), None, "a refused subscription counts nothing");
    home.subscribe(NOW, &name(1), worker, None, None).expect("a channel that exists takes more subscriptions");
    home.unsubscribe(NOW, &name(0), worker, 1);
    home.subscribe(NOW, &name(2), worker, None, None).expect("one was forgotten");
    assert_eq!(home.channels(), 2);
}

#[test]
fn homes_with_other_seeds_draw_other_epochs() {
    let epoch = |seed| {
        let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits::default(), seed);
        home.subscribe(NOW, &name(0), WorkerId(0), None, None).unwrap().position.epoch
    };
    assert_eq!(epoch(1), epoch(1));
    assert_ne!(epoch(1), epoch(2));
}
