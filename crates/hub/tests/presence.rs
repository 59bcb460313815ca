//! Guests and announcements against a naive model.
//!
//! A failing case is printed in its smallest form; `PROPTEST_RNG_SEED` repeats a whole run.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hub::{
    ANNOUNCEMENTS_WAITING_MAX, Announcement, Change, Channel, ChannelHash, ClientInfo, Entrance, Guest, Herald, Home,
    HomeLimits, Namespace, Namespaces, PRESENCE_CLIENTS_MAX, Presence, PresenceQuery, PresenceStats, SubscriberId,
    TooManyPresent, WorkerId,
};
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const SUBSCRIBERS_MAX: usize = 9;
const CHANNELS: u8 = 3;
const WORKERS: u16 = 3;
const USERS: u64 = 3;

/// Mailboxes that have room or not; what they got, in order.
#[derive(Default)]
struct Mail {
    full: HashSet<WorkerId>,
    got: Vec<(WorkerId, Arc<Announcement>)>,
}

impl Herald for Mail {
    fn has_room(&mut self, worker: WorkerId, bytes: usize) -> bool {
        assert!(bytes > 0);
        !self.full.contains(&worker)
    }

    fn announce(&mut self, worker: WorkerId, announcement: Arc<Announcement>) {
        assert!(!self.full.contains(&worker), "announced to a full mailbox");
        self.got.push((worker, announcement));
    }
}

fn home() -> Home {
    let limits = HomeLimits { join_leave_subscribers_max: SUBSCRIBERS_MAX, ..HomeLimits::default() };
    Home::new(ChannelHash::new([3; 16]), limits, 1)
}

fn guest(worker: u16, subscriber: u64) -> Guest {
    Guest { worker: WorkerId(worker), subscriber: SubscriberId(subscriber) }
}

fn info(guest: Guest) -> Arc<ClientInfo> {
    let client = format!("{}-{}", guest.worker.0, guest.subscriber.0).into();
    let user = (guest.subscriber.0 % USERS).to_string().into();
    Arc::new(ClientInfo { user, client, ..ClientInfo::default() })
}

fn entrance(guest: Guest, is_present: bool, announces: bool) -> Entrance {
    Entrance { info: info(guest), only_recovered: false, is_present, announces }
}

fn enter(home: &mut Home, channel: &Channel, guest: Guest, mail: &mut Mail) {
    home.subscribe(NOW, channel, guest.worker, None, None).expect("room for the channel");
    home.join(channel, guest, entrance(guest, true, true), mail);
}

fn clients(home: &Home, channel: &str) -> Vec<String> {
    match home.presence(channel, PresenceQuery::Clients).expect("few are present") {
        Presence::Clients(clients) => clients.iter().map(|info| info.client.to_string()).collect(),
        Presence::Stats(_) => panic!("asked for clients"),
    }
}

fn stats(home: &Home, channel: &str) -> PresenceStats {
    match home.presence(channel, PresenceQuery::Stats).expect("a number is always there") {
        Presence::Stats(stats) => stats,
        Presence::Clients(_) => panic!("asked for a number"),
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// Comes, or goes where it is there already.
    Toggle {
        channel: u8,
        worker: u16,
        subscriber: u64,
    },
    /// A subscription without a name comes.
    Nameless {
        channel: u8,
    },
    Full {
        worker: u16,
        is_full: bool,
    },
    Retry,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (0..CHANNELS, 0..WORKERS, 0..4u64)
            .prop_map(|(channel, worker, subscriber)| Operation::Toggle { channel, worker, subscriber }),
        1 => (0..CHANNELS).prop_map(|channel| Operation::Nameless { channel }),
        2 => (0..WORKERS, any::<bool>()).prop_map(|(worker, is_full)| Operation::Full { worker, is_full }),
        2 => Just(Operation::Retry),
    ]
}

/// What workers were told of guests. `Err`: a join of one that is there, or a leave of one that has left. Not of `spared`, of
/// whom a leave was left out because of too many subscribers.
fn told(got: &[(WorkerId, Arc<Announcement>)], spared: &HashSet<(String, String)>) -> Result<(), String> {
    let mut last: BTreeMap<(u16, String, String), Change> = BTreeMap::new();
    for (worker, announcement) in got {
        let (channel, client) = (announcement.channel.to_string(), announcement.info.client.to_string());
        if spared.contains(&(channel.clone(), client.clone())) {
            continue;
        }
        let key = (worker.0, channel, client);
        if last.insert(key.clone(), announcement.change) == Some(announcement.change) {
            return Err(format!("{key:?}: {:?} twice", announcement.change));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn presence_equals_a_map_and_joins_and_leaves_alternate(operations in prop::collection::vec(operation(), 0..120)) {
        let (mut home, mut mail) = (home(), Mail::default());
        // By channel: who is there, in order, and whether its join was announced; and how many have no name.
        let mut model: BTreeMap<u8, (Vec<(Guest, bool)>, usize)> = BTreeMap::new();
        let (mut expected, mut unannounced) = (Vec::new(), 0);
        let mut spared = HashSet::new();
        // Each worker has one of these in each channel, so that there is always somebody to tell.
        for channel in 0..CHANNELS {
            model.insert(channel, (Vec::new(), usize::from(WORKERS)));
            for worker in 0..WORKERS {
                home.subscribe(NOW, &Channel::new(&channel.to_string()), WorkerId(worker), None, None).unwrap();
            }
        }
        for operation in operations {
            match operation {
                Operation::Toggle { channel, worker, subscriber } => {
                    let (name, who) = (Channel::new(&channel.to_string()), guest(worker, subscriber));
                    let (present, nameless) = model.entry(channel).or_default();
                    let known = present.iter().position(|(there, _)| *there == who);
                    let subscribers = present.len() + *nameless;
                    if let Some(at) = known {
                        let (_, was_announced) = present.remove(at);
                        home.leave(NOW, &name, who, &mut mail);
                        let tells = was_announced && subscribers - 1 <= SUBSCRIBERS_MAX;
                        if was_announced && !tells {
                            unannounced += 1;
                            spared.insert((name.to_string(), info(who).client.to_string()));
                        }
                        if tells {
                            expected.push((channel, who, Change::Leave));
                        }
                    } else {
                        let tells = subscribers < SUBSCRIBERS_MAX;
                        unannounced += u64::from(!tells);
                        present.push((who, tells));
                        enter(&mut home, &name, who, &mut mail);
                        if tells {
                            expected.push((channel, who, Change::Join));
                        }
                    }
                }
                Operation::Nameless { channel } => {
                    model.entry(channel).or_default().1 += 1;
                    home.subscribe(NOW, &Channel::new(&channel.to_string()), WorkerId(0), None, None).unwrap();
                }
                Operation::Full { worker, is_full: true } => drop(mail.full.insert(WorkerId(worker))),
                Operation::Full { worker, is_full: false } => drop(mail.full.remove(&WorkerId(worker))),
                Operation::Retry => home.announce_waiting(2, &mut mail),
            }
            for (channel, (present, _)) in &model {
                let names: Vec<String> = present.iter().map(|(who, _)| info(*who).client.to_string()).collect();
                prop_assert_eq!(clients(&home, &channel.to_string()), names);
                let users = present.iter().map(|(who, _)| who.subscriber.0 % USERS).collect::<HashSet<_>>().len();
                let counted = PresenceStats { clients: present.len() as u32, users: users as u32 };
                prop_assert_eq!(stats(&home, &channel.to_string()), counted);
            }
            prop_assert_eq!(home.guests(), model.values().map(|(present, _)| present.len()).sum::<usize>());
            prop_assert_eq!(home.presence_counts().unannounced, unannounced);
        }
        mail.full.clear();
        home.announce_waiting(usize::MAX, &mut mail);
        prop_assert!(!home.announcements_wait());
        prop_assert_eq!(told(&mail.got, &spared), Ok(()));
        // Each once to each worker, in the order of their happening, however long they waited.
        for worker in 0..WORKERS {
            let got = mail.got.iter().filter(|(to, _)| to.0 == worker);
            let heard: Vec<_> = got.map(|(_, a)| (a.channel.to_string(), a.info.client.to_string(), a.change)).collect();
            let all = expected.iter();
            let all = all.map(|(channel, who, change)| (channel.to_string(), info(*who).client.to_string(), *change));
            prop_assert_eq!(heard, all.collect::<Vec<_>>());
        }
        for (channel, (present, nameless)) in model {
            for (who, _) in present {
                home.leave(NOW, &Channel::new(&channel.to_string()), who, &mut mail);
            }
            home.unsubscribe(NOW, &channel.to_string(), WorkerId(0), nameless as u32 - u32::from(WORKERS - 1));
            (1..WORKERS).for_each(|worker| home.unsubscribe(NOW, &channel.to_string(), WorkerId(worker), 1));
        }
        prop_assert_eq!((home.guests(), home.channels()), (0, 0), "everybody has left and nothing is left");
    }
}

#[test]
fn with_room_everybody_is_told_at_once() {
    let (mut home, mut mail, channel) = (home(), Mail::default(), Channel::new("c"));
    enter(&mut home, &channel, guest(0, 1), &mut mail);
    enter(&mut home, &channel, guest(1, 2), &mut mail);
    home.leave(NOW, &channel, guest(0, 1), &mut mail);
    let got: Vec<_> = mail.got.iter().map(|(worker, a)| (worker.0, a.change, a.info.client.to_string())).collect();
    let (join, leave) = (Change::Join, Change::Leave);
    let told = [(0, join, "0-1"), (0, join, "1-2"), (1, join, "1-2"), (1, leave, "0-1")];
    assert_eq!(got, told.map(|(worker, change, who)| (worker, change, who.to_owned())));
    assert!(!home.announcements_wait());
}

#[test]
fn a_line_that_is_full_takes_no_join_and_every_leave_of_an_announced_one() {
    let (mut home, mut mail, channel) = (home(), Mail::default(), Channel::new("c"));
    let other = Channel::new("other");
    enter(&mut home, &other, guest(0, 7), &mut mail);
    mail.full.insert(WorkerId(0));
    for _ in 0..ANNOUNCEMENTS_WAITING_MAX / 2 {
        enter(&mut home, &channel, guest(0, 1), &mut mail);
        home.leave(NOW, &channel, guest(0, 1), &mut mail);
    }
    // The last join was the line's last but one; its leave filled it.
    assert_eq!(home.presence_counts().unannounced, 0);
    enter(&mut home, &channel, guest(0, 2), &mut mail);
    assert_eq!(home.presence_counts().unannounced, 1);
    assert_eq!(clients(&home, "c"), ["0-2"], "present all the same");
    enter(&mut home, &other, guest(0, 8), &mut mail);
    home.leave(NOW, &other, guest(0, 7), &mut mail);
    mail.full.clear();
    let before = mail.got.len();
    home.announce_waiting(usize::MAX, &mut mail);
    home.leave(NOW, &channel, guest(0, 2), &mut mail);
    let of_other: Vec<_> = mail.got[before..].iter().filter(|(_, a)| a.channel == other).collect();
    assert!(matches!(of_other[..], [(_, a)] if a.change == Change::Leave && &*a.info.client == "0-7"), "{of_other:?}");
    assert!(!mail.got.iter().any(|(_, a)| &*a.info.client == "0-2"), "neither its join nor its leave");
}

/// A hundred thousand are counted in no time, and one answer never visits more than it may.
#[test]
fn a_full_channel_is_counted_and_not_listed() {
    let (mut home, mut mail, channel) = (home(), Mail::default(), Channel::new("full"));
    for subscriber in 0..100_000 {
        enter(&mut home, &channel, guest(0, subscriber), &mut mail);
        if subscriber as usize + 1 == PRESENCE_CLIENTS_MAX {
            assert_eq!(clients(&home, "full").len(), PRESENCE_CLIENTS_MAX);
        }
    }
    let query = PresenceQuery::Clients;
    assert_eq!(home.presence("full", query), Err(TooManyPresent { clients: 100_000 }));
    assert_eq!(stats(&home, "full"), PresenceStats { clients: 100_000, users: USERS as u32 });
    assert_eq!(mail.got.len(), SUBSCRIBERS_MAX, "few enough are told of each other, no more");
    for subscriber in PRESENCE_CLIENTS_MAX as u64..100_000 {
        home.leave(NOW, &channel, guest(0, subscriber), &mut mail);
    }
    assert_eq!(clients(&home, "full").len(), PRESENCE_CLIENTS_MAX);
}

#[test]
fn who_may_ask_is_what_the_options_say_and_options_without_effect_are_refused() {
    for bits in 0..64_u8 {
        let on = |bit: u8| bits >> bit & 1 == 1;
        let namespace = Namespace {
            name: "room".into(),
            allow_presence_for_client: on(0),
            allow_presence_for_subscriber: on(1),
            allow_presence_for_anonymous: on(2),
            presence: on(3),
            ..Namespace::default()
        };
        let (anonymous, subscribed) = (on(4), on(5));
        let may = (on(0) || on(1) && subscribed) && (!anonymous || on(2));
        assert_eq!(namespace.may_read_presence(anonymous, subscribed).is_ok(), may, "{namespace:?}");
        let has_effect = (on(3) || !on(0) && !on(1)) && (on(0) || on(1) || !on(2));
        assert_eq!(Namespaces::new(Namespace::default(), vec![namespace]).is_ok(), has_effect, "{bits:b}");
    }
    let forced = Namespace { force_push_join_leave: true, ..Namespace::default() };
    assert!(Namespaces::new(forced.clone(), Vec::new()).is_err());
    assert!(Namespaces::new(Namespace { join_leave: true, ..forced }, Vec::new()).is_ok());
}

#[test]
fn who_is_not_to_be_seen_comes_and_goes_all_the_same() {
    let (mut home, mut mail, channel) = (home(), Mail::default(), Channel::new("c"));
    enter(&mut home, &channel, guest(0, 1), &mut mail);
    for (subscriber, is_present, announces) in [(2, false, false), (3, false, true), (4, true, false)] {
        home.subscribe(NOW, &channel, WorkerId(0), None, None).expect("room for the channel");
        home.join(&channel, guest(0, subscriber), entrance(guest(0, subscriber), is_present, announces), &mut mail);
    }
    assert_eq!((clients(&home, "c"), home.guests()), (vec!["0-1".to_owned(), "0-4".to_owned()], 4));
    assert_eq!((stats(&home, "c").clients, home.subscribers("c")), (2, Some(4)));
    (1..=4).for_each(|subscriber| home.leave(NOW, &channel, guest(0, subscriber), &mut mail));
    assert_eq!((clients(&home, "c").len(), home.guests(), home.channels()), (0, 0, 0));
    let told: Vec<_> = mail.got.iter().map(|(_, it)| (it.change, it.info.client.to_string())).collect();
    let of = |client: &str| client.to_owned();
    let (join, leave) = (Change::Join, Change::Leave);
    assert_eq!(told, [(join, of("0-1")), (join, of("0-3")), (leave, of("0-1")), (leave, of("0-3"))]);
}
