//! What a home keeps, against a naive model: verdicts of recovery, pages, sums, limits, times, keys and versions.
//!
//! A failing case is printed in its smallest form; `PROPTEST_RNG_SEED` repeats a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hub::{
    Channel, ChannelHash, Draft, ENTRY_BYTES, Epoch, HistoryQuery, HistoryRefusal, Home, HomeLimits, Offset, Position,
    Publication, PublishOptions, Recover, Recovery, RecoveryMode, Retention, Route, Since, SinceEpoch, WorkerId,
};
use proptest::prelude::*;

const WORKER: WorkerId = WorkerId(0);
const CHANNELS: u8 = 6;
const LONG: Duration = Duration::from_secs(1 << 30);

/// How a run is set up: either memory has limits or time passes, because what is dropped first when both do depends on
/// when the sweeps come by.
#[derive(Clone, Copy, Debug)]
struct Rules {
    retention: Retention,
    channels_max: usize,
    bytes_max: usize,
}

const SHORT_OF_MEMORY: Rules =
    Rules { retention: Retention { size: 5, ttl: LONG, meta_ttl: LONG }, channels_max: 4, bytes_max: 2500 };
const SHORT_OF_TIME: Rules = Rules {
    retention: Retention { size: 5, ttl: Duration::from_secs(10), meta_ttl: Duration::from_secs(25) },
    channels_max: 100,
    bytes_max: 1 << 20,
};

#[derive(Clone, Debug)]
enum Operation {
    Publish { channel: u8, bytes: usize, skip: bool },
    Subscribe { channel: u8, recover: Option<(From, RecoveryMode, usize, usize)> },
    Withdraw { channel: u8 },
    Read { channel: u8, from: Option<From>, reverse: bool, publications_max: usize, bytes_max: usize },
    Remove { channel: u8 },
    Pass(u64),
    Sweep,
}

/// A position that a client could name: so far behind the top, of an epoch that is right, left out, old or foreign.
#[derive(Clone, Copy, Debug)]
struct From {
    behind: i64,
    epoch: u8,
}

fn from() -> impl Strategy<Value = From> {
    (-2..8_i64, 0..8_u8).prop_map(|(behind, epoch)| From { behind, epoch })
}

fn operation() -> impl Strategy<Value = Operation> {
    let channel = 0..CHANNELS;
    let mode = prop_oneof![3 => Just(RecoveryMode::Stream), 1 => Just(RecoveryMode::Cache)];
    let recover = prop::option::of((from(), mode, 0..6_usize, 0..800_usize));
    let bytes = prop_oneof![8 => 1..120_usize, 1 => 500..3000_usize];
    prop_oneof![
        6 => (channel.clone(), bytes, prop::bool::weighted(0.1))
            .prop_map(|(channel, bytes, skip)| Operation::Publish { channel, bytes, skip }),
        4 => (channel.clone(), recover).prop_map(|(channel, recover)| Operation::Subscribe { channel, recover }),
        4 => channel.clone().prop_map(|channel| Operation::Withdraw { channel }),
        2 => (channel.clone(), prop::option::of(from()), any::<bool>(), 0..7_usize, 0..500_usize).prop_map(
            |(channel, from, reverse, publications_max, bytes_max)| Operation::Read {
                channel, from, reverse, publications_max, bytes_max
            }
        ),
        1 => channel.prop_map(|channel| Operation::Remove { channel }),
        2 => (1..15_u64).prop_map(Operation::Pass),
        1 => Just(Operation::Sweep),
    ]
}

fn name(channel: u8) -> Channel {
    Channel::new(&format!("kept:{channel}"))
}

#[derive(Default)]
struct Delivered(Vec<Arc<Publication>>);

impl Route for Delivered {
    fn has_room(&mut self, _: WorkerId, _: usize) -> bool {
        true
    }

    fn deliver(&mut self, _: WorkerId, publication: Arc<Publication>) {
        self.0.push(publication);
    }
}

/// One publication as the model knows it.
#[derive(Clone, Debug)]
struct Item {
    offset: u64,
    cost: usize,
    text: usize,
    at: Duration,
}

/// One channel as the obvious structures say it.
struct Model {
    epoch: Epoch,
    top: u64,
    subscribers: u32,
    items: Vec<Item>,
    used: Duration,
    /// When it came to the queue of idle channels that it stands in, as a number that only grows.
    turn: u64,
}

struct Pair {
    rules: Rules,
    now: Duration,
    home: Home,
    channels: BTreeMap<u8, Model>,
    old_epochs: BTreeSet<Epoch>,
    turn: u64,
    number: u64,
}

impl Pair {
    fn new(rules: Rules) -> Pair {
        let limits = HomeLimits {
            channels_max: rules.channels_max,
            history_bytes_max: rules.bytes_max,
            ..HomeLimits::default()
        };
        let home = Home::new(ChannelHash::new([5; 16]), limits, 7);
        let (channels, old_epochs) = (BTreeMap::new(), BTreeSet::new());
        Pair { rules, now: Duration::from_secs(1), home, channels, old_epochs, turn: 0, number: 0 }
    }

    fn bytes(&self) -> usize {
        self.channels.values().flat_map(|model| &model.items).map(|item| item.cost).sum()
    }

    /// Channels and publications whose time is over are gone.
    fn expire(&mut self) {
        let (now, Retention { ttl, meta_ttl, .. }) = (self.now, self.rules.retention);
        self.channels.retain(|_, model| model.subscribers > 0 || model.used + meta_ttl > now);
        self.channels.values_mut().for_each(|model| model.items.retain(|item| item.at + ttl > now));
    }

    fn touch(&mut self, channel: u8) {
        self.turn += 1;
        let (now, turn) = (self.now, self.turn);
        let model = self.channels.get_mut(&channel).expect("a channel of the model");
        (model.used, model.turn) = (now, turn);
    }

    /// Which idle channel is the first in one of the queues.
    fn first_idle(&self, stocked: bool, spared: Option<u8>) -> Option<u8> {
        let idle = self.channels.iter().filter(|(channel, model)| {
            model.subscribers == 0 && model.items.is_empty() != stocked && Some(**channel) != spared
        });
        idle.min_by_key(|(_, model)| model.turn).map(|(&channel, _)| channel)
    }

    /// A channel about to be used; whether it could be had. `epoch` is what the home says, new only where it has to be.
    fn enter(&mut self, channel: u8, epoch: Option<Epoch>) -> bool {
        self.expire();
        if !self.channels.contains_key(&channel) {
            if self.channels.len() >= self.rules.channels_max {
                let Some(gone) = self.first_idle(false, None).or_else(|| self.first_idle(true, None)) else {
                    return false;
                };
                self.channels.remove(&gone);
            }
            let epoch = epoch.expect("there is room");
            assert!(self.old_epochs.insert(epoch), "a creation draws a new epoch");
            let (used, turn) = (self.now, self.turn);
            let model = Model { epoch, top: 0, subscribers: 0, items: Vec::new(), used, turn };
            self.channels.insert(channel, model);
        }
        let model = &self.channels[&channel];
        assert!(epoch.is_none_or(|epoch| epoch == model.epoch), "an epoch stays with its channel");
        self.touch(channel);
        true
    }

    fn publish(&mut self, channel: u8, bytes: usize, skip: bool) {
        self.number += 1;
        let data = format!("{:0>1$}", self.number, bytes.max(8)).into_bytes();
        let options = skip.then(|| Box::new(PublishOptions { skip_history: true, ..PublishOptions::default() }));
        let draft = Draft { options, ..Draft::new(name(channel), data.clone()) };
        let (cost, mut delivered) = (draft.cost() + ENTRY_BYTES, Delivered::default());
        let answer = self.home.publish(self.now, draft, Some(self.rules.retention), &mut delivered);
        let epoch = answer.as_ref().ok().map(|published| published.position.epoch);
        if !self.enter(channel, epoch) {
            return assert!(answer.is_err(), "no channel could make room");
        }
        let published = answer.expect("there is room");
        let (size, bytes_max) = (self.rules.retention.size as usize, self.rules.bytes_max);
        let model = self.channels.get_mut(&channel).expect("entered");
        assert_eq!(delivered.0.len(), usize::from(model.subscribers > 0), "delivered to the worker that subscribes");
        assert_eq!(published.recorded, !skip);
        if skip {
            assert_eq!(published.position.offset, Offset(model.top), "it has no place of its own");
            return assert!(delivered.0.iter().all(|publication| publication.offset().is_none()));
        }
        model.top += 1;
        assert_eq!(published.position.offset, Offset(model.top));
        let keep = size - 1;
        model.items.drain(..model.items.len().saturating_sub(keep));
        let top = model.top;
        while self.bytes() + cost > bytes_max {
            let Some(idle) = self.first_idle(true, Some(channel)) else { break };
            self.turn += 1;
            let turn = self.turn;
            let model = self.channels.get_mut(&idle).expect("just found");
            model.items.clear();
            model.turn = turn;
        }
        while self.bytes() + cost > bytes_max && !self.channels[&channel].items.is_empty() {
            self.channels.get_mut(&channel).expect("entered").items.remove(0);
            if self.channels[&channel].items.is_empty() {
                // From one queue to the back of the other.
                self.touch(channel);
            }
        }
        if self.bytes() + cost <= bytes_max {
            let item = Item { offset: top, cost, text: data.len(), at: self.now };
            self.channels.get_mut(&channel).expect("entered").items.push(item);
        }
    }

    /// The position that `from` stands for, in what the home would know before the call.
    fn since(&mut self, channel: u8, from: From) -> Since {
        self.expire();
        let model = self.channels.get(&channel);
        let top = model.map_or(0, |model| model.top);
        let offset = Offset((top as i64 - from.behind).max(0) as u64);
        let epoch = match (from.epoch, model) {
            (0..4, Some(model)) => SinceEpoch::Known(model.epoch),
            (4, _) => SinceEpoch::Any,
            (5, _) => SinceEpoch::Foreign,
            _ => self.old_epochs.first().map_or(SinceEpoch::Foreign, |&epoch| SinceEpoch::Known(epoch)),
        };
        Since { offset, epoch }
    }

    fn accepts(since: Since, epoch: Epoch) -> bool {
        since.epoch == SinceEpoch::Any || since.epoch == SinceEpoch::Known(epoch)
    }

    fn subscribe(&mut self, channel: u8, recover: Option<(From, RecoveryMode, usize, usize)>) {
        let recover = recover.map(|(from, mode, publications_max, bytes_max)| {
            let since = self.since(channel, from);
            Recover { since, mode, publications_max, bytes_max }
        });
        let retention = Some(self.rules.retention);
        let answer = self.home.subscribe(self.now, &name(channel), WORKER, retention, recover.as_ref());
        if !self.enter(channel, answer.as_ref().ok().map(|subscribed| subscribed.position.epoch)) {
            return assert!(answer.is_err(), "no channel could make room");
        }
        let subscribed = answer.expect("there is room");
        let model = self.channels.get_mut(&channel).expect("entered");
        model.subscribers += 1;
        let position = Position { offset: Offset(model.top), epoch: model.epoch };
        assert_eq!(subscribed.position, position);
        let expected = recover.map(|recover| self.verdict(channel, &recover));
        match (subscribed.recovery, expected) {
            (Recovery::NotAsked, None) | (Recovery::Failed, Some(None)) => {}
            (Recovery::Recovered(None), Some(Some(offsets))) => assert!(offsets.is_empty(), "{offsets:?} are missing"),
            (Recovery::Recovered(Some(missed)), Some(Some(offsets))) => {
                let got: Vec<u64> = missed.publications.iter().map(|p| p.position.offset.0).collect();
                assert_eq!((got, missed.to), (offsets, position));
            }
            (got, expected) => panic!("{got:?} where {expected:?} was to be had"),
        }
    }

    /// The offsets that a wish brings, or that there is a gap.
    fn verdict(&self, channel: u8, recover: &Recover) -> Option<Vec<u64>> {
        let model = &self.channels[&channel];
        let wanted: Vec<u64> = match recover.mode {
            RecoveryMode::Stream if !Self::accepts(recover.since, model.epoch) => return None,
            RecoveryMode::Stream if recover.since.offset.0 > model.top => return None,
            RecoveryMode::Stream => (recover.since.offset.0 + 1..=model.top).collect(),
            RecoveryMode::Cache
                if recover.since.offset.0 == model.top && recover.since.epoch == SinceEpoch::Known(model.epoch) =>
            {
                Vec::new()
            }
            RecoveryMode::Cache => vec![model.top],
        };
        let found: Option<Vec<&Item>> =
            wanted.iter().map(|offset| model.items.iter().find(|item| item.offset == *offset)).collect();
        let texts: usize = found?.iter().map(|item| item.text).sum();
        (wanted.len() <= recover.publications_max && texts <= recover.bytes_max).then_some(wanted)
    }

    fn withdraw(&mut self, channel: u8) {
        let Some(model) = self.channels.get_mut(&channel).filter(|model| model.subscribers > 0) else { return };
        model.subscribers -= 1;
        let is_idle = model.subscribers == 0;
        self.home.unsubscribe(self.now, &name(channel), WORKER, 1);
        if is_idle {
            self.touch(channel);
        }
    }

    fn read(&mut self, channel: u8, from: Option<From>, reverse: bool, publications_max: usize, bytes_max: usize) {
        let since = from.map(|from| self.since(channel, from));
        let query = HistoryQuery { since, reverse, publications_max, bytes_max };
        let answer = self.home.history(self.now, &name(channel), self.rules.retention, &query);
        let known = self.channels.get(&channel).map(|model| model.epoch);
        let epoch = match &answer {
            Ok(page) => Some(page.position.epoch),
            // The home tells no epoch here; a channel that it has just made is asked for it.
            Err(HistoryRefusal::Unrecoverable) if known.is_none() => {
                let only_position = HistoryQuery { since: None, publications_max: 0, ..query };
                let page = self.home.history(self.now, &name(channel), self.rules.retention, &only_position);
                Some(page.expect("it is there").position.epoch)
            }
            Err(_) => None,
        };
        if !self.enter(channel, epoch) {
            return assert!(matches!(answer, Err(HistoryRefusal::ChannelsMax(_))), "no channel could make room");
        }
        let model = &self.channels[&channel];
        if since.is_some_and(|since| !Self::accepts(since, model.epoch)) {
            return assert_eq!(answer, Err(HistoryRefusal::Unrecoverable));
        }
        let mut items: Vec<&Item> = model.items.iter().collect();
        if let Some(Since { offset, .. }) = since {
            items.retain(|item| if reverse { item.offset < offset.0 } else { item.offset > offset.0 });
        }
        if reverse {
            items.reverse();
        }
        items.truncate(publications_max);
        let mut left = bytes_max;
        let fits = items.iter().take_while(|item| {
            let fits = item.text <= left;
            left = left.saturating_sub(item.text);
            fits
        });
        let expected: Vec<u64> = fits.map(|item| item.offset).collect();
        let page = answer.expect("the epoch is right");
        let got: Vec<u64> = page.publications.iter().map(|publication| publication.position.offset.0).collect();
        assert_eq!((got, page.position.offset.0), (expected, model.top));
    }

    fn remove(&mut self, channel: u8) {
        self.home.remove_history(&name(channel));
        if let Some(model) = self.channels.get_mut(&channel)
            && !model.items.is_empty()
        {
            model.items.clear();
            self.turn += 1;
            model.turn = self.turn;
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Publish { channel, bytes, skip } => self.publish(channel, bytes, skip),
            Operation::Subscribe { channel, recover } => self.subscribe(channel, recover),
            Operation::Withdraw { channel } => self.withdraw(channel),
            Operation::Read { channel, from, reverse, publications_max, bytes_max } => {
                self.read(channel, from, reverse, publications_max, bytes_max);
            }
            Operation::Remove { channel } => self.remove(channel),
            Operation::Pass(seconds) => self.now += Duration::from_secs(seconds),
            Operation::Sweep => self.sweep(),
        }
        let stock = self.home.stock();
        assert!(stock.bytes <= self.rules.bytes_max, "{} bytes kept", stock.bytes);
        assert!(self.home.channels() <= self.rules.channels_max);
    }

    /// After sweeps of so small a table nothing is left whose time is over, and the sums are exact.
    fn sweep(&mut self) {
        // The second begins in front; the first may not have.
        self.home.sweep(self.now);
        self.home.sweep(self.now);
        self.expire();
        let stock = self.home.stock();
        let items: usize = self.channels.values().map(|model| model.items.len()).sum();
        let idle = self.channels.values().filter(|model| model.subscribers == 0).count();
        assert_eq!(
            (stock.channels, stock.idle, stock.publications, stock.bytes),
            (self.channels.len(), idle, items, self.bytes())
        );
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_home_short_of_memory_equals_the_model(operations in prop::collection::vec(operation(), 0..150)) {
        let mut pair = Pair::new(SHORT_OF_MEMORY);
        for operation in operations {
            // Time would end what memory does not.
            if !matches!(operation, Operation::Pass(_)) {
                pair.apply(operation);
                pair.sweep();
            }
        }
    }

    #[test]
    fn a_home_short_of_time_equals_the_model(operations in prop::collection::vec(operation(), 0..150)) {
        let mut pair = Pair::new(SHORT_OF_TIME);
        operations.into_iter().for_each(|operation| pair.apply(operation));
        pair.sweep();
    }

    #[test]
    fn an_idempotency_key_repeats_its_first_answer_for_its_time(
        operations in prop::collection::vec((0..4_u8, 0..3_u8, 0..8_u64), 0..100),
    ) {
        const KEYS_MAX: usize = 5;
        let ttl = Duration::from_secs(20);
        let limits = HomeLimits { idempotency_keys_max: KEYS_MAX, idempotency_ttl: ttl, ..HomeLimits::default() };
        let mut home = Home::new(ChannelHash::new([5; 16]), limits, 7);
        // Oldest first: key, channel, expiry, answer.
        let mut model: Vec<(u8, u8, Duration, hub::Published)> = Vec::new();
        let mut now = Duration::ZERO;
        for (key, channel, pass) in operations {
            now += Duration::from_secs(pass);
            let options = PublishOptions { idempotency_key: Some(key.to_string().into()), ..PublishOptions::default() };
            let draft = Draft { options: Some(Box::new(options)), ..Draft::new(name(channel), *b"1") };
            let retention = Some(SHORT_OF_TIME.retention);
            let answer = home.publish(now, draft, retention, &mut Delivered::default()).unwrap();
            match model.iter().find(|(k, c, expires, _)| (*k, *c) == (key, channel) && *expires > now) {
                Some((.., first)) => prop_assert_eq!(answer, *first),
                None => {
                    let repeats = model.iter().any(|(.., first)| *first == answer);
                    prop_assert!(!repeats, "published anew, at a place of its own");
                    model.push((key, channel, now + ttl, answer));
                    let all = model.len();
                    model.drain(..all.saturating_sub(KEYS_MAX));
                }
            }
            prop_assert!(home.idempotency_keys() <= KEYS_MAX);
            home.sweep(now);
            model.retain(|(.., expires, _)| *expires > now);
            prop_assert_eq!(home.idempotency_keys(), model.len());
        }
    }
}

fn publish(home: &mut Home, channel: &str, retention: Option<Retention>) -> hub::Published {
    let draft = Draft::new(Channel::new(channel), *b"1");
    home.publish(Duration::ZERO, draft, retention, &mut Delivered::default()).unwrap()
}

#[test]
fn clients_that_missed_the_same_share_one_run_while_somebody_holds_it() {
    let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits::default(), 7);
    let kept = Some(SHORT_OF_TIME.retention);
    for _ in 0..3 {
        publish(&mut home, "a", kept);
    }
    let mut missed = |offset: u64| {
        let since = Since { offset: Offset(offset), epoch: SinceEpoch::Any };
        let wish = Recover { since, mode: RecoveryMode::Stream, publications_max: 9, bytes_max: 99 };
        let answer = home.subscribe(Duration::ZERO, &Channel::new("a"), WORKER, kept, Some(&wish)).unwrap();
        let Recovery::Recovered(Some(missed)) = answer.recovery else { panic!("{answer:?}") };
        missed
    };
    let (one, same, other) = (missed(1), missed(1), missed(2));
    assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    assert_eq!((one.publications.len(), other.publications.len()), (2, 1));
}

#[test]
fn a_namespace_that_changes_its_mind_is_followed() {
    let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits::default(), 7);
    let kept = |size| Some(Retention { size, ..SHORT_OF_TIME.retention });
    for _ in 0..5 {
        publish(&mut home, "a", kept(5));
    }
    assert_eq!(home.stock().publications, 5);
    publish(&mut home, "a", kept(2));
    assert_eq!(home.stock().publications, 2);
    // Without a history and without subscribers there is nothing to keep it for.
    assert!(!publish(&mut home, "a", None).recorded);
    assert_eq!((home.channels(), home.stock()), (0, hub::Stock::default()));
    // With a subscriber the numbering goes on.
    home.subscribe(Duration::ZERO, &Channel::new("a"), WORKER, None, None).unwrap();
    assert_eq!(publish(&mut home, "a", None).position.offset, Offset(1));
    let first_kept = publish(&mut home, "a", kept(5));
    assert!(first_kept.recorded && first_kept.position.offset == Offset(2));
    assert_eq!(home.stock().publications, 1);
}

#[test]
fn the_time_of_a_publication_is_unix_time() {
    let origin = Duration::from_secs(1_700_000_000);
    let mut home = Home::new(ChannelHash::new([5; 16]), HomeLimits::default(), 7).with_unix_origin(origin);
    home.subscribe(Duration::ZERO, &Channel::new("a"), WORKER, None, None).unwrap();
    let mut delivered = Delivered::default();
    let draft = Draft::new(Channel::new("a"), *b"1");
    let now = Duration::from_millis(1234);
    home.publish(now, draft, Some(SHORT_OF_TIME.retention), &mut delivered).unwrap();
    assert_eq!(delivered.0[0].time.map(std::num::NonZeroU64::get), Some(1_700_000_001_234));
}
