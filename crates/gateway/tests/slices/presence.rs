//! How much of presence one tick visits: counted in the mail of a worker, tick by tick.

use crate::{LONG, worker};
use gateway::letter::{Letter, PresenceRead, ReadPresence, Refused, Subscriber, Ticket};
use gateway::mailbox::{Counts, Mailbox, Party, Post};
use gateway::worker::Worker;
use hub::{
    Announcement, Channel, ChannelHash, ClientInfo, Entrance, Local, Namespace, PRESENCE_CLIENTS_MAX, Presence,
    PresenceQuery, Publication, SubscriberId,
};
use io::ConnId;
use io::sim::Net;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A mailbox that counts, from one end of a tick to the next, the clients named in answers that go out and come in.
struct Counting {
    inner: Mailbox,
    in_this_tick: usize,
    ticks: Rc<RefCell<Vec<usize>>>,
}

impl Counting {
    fn count(&mut self, letter: &Letter) {
        if let Letter::PresenceRead(read) = letter {
            self.in_this_tick += read.answer.as_ref().map_or(0, Presence::visits);
        }
    }
}

impl Post for Counting {
    fn request(&mut self, to: Party, letter: Letter) -> Result<(), Letter> {
        self.inner.request(to, letter)
    }

    fn has_room_for_more(&mut self, to: Party) -> bool {
        self.inner.has_room_for_more(to)
    }

    fn answer(&mut self, to: Party, letter: Letter) {
        self.count(&letter);
        self.inner.answer(to, letter);
    }

    fn withdraw(&mut self, to: Party, channel: Channel) {
        self.inner.withdraw(to, channel);
    }

    fn leave(&mut self, to: Party, channel: Channel, subscriber: SubscriberId) {
        self.inner.leave(to, channel, subscriber);
    }

    fn has_room(&mut self, to: Party, bytes: usize) -> bool {
        self.inner.has_room(to, bytes)
    }

    fn deliver(&mut self, to: Party, publication: Arc<Publication>) {
        self.inner.deliver(to, publication);
    }

    fn announce(&mut self, to: Party, announcement: Arc<Announcement>) {
        self.inner.announce(to, announcement);
    }

    fn next(&mut self) -> Option<(Party, Letter)> {
        self.inner.next()
    }

    fn flush(&mut self) {
        let ended = std::mem::take(&mut self.in_this_tick);
        if ended > 0 {
            self.ticks.borrow_mut().push(ended);
        }
        self.inner.flush();
    }

    fn has_mail(&self) -> bool {
        self.inner.has_mail()
    }

    fn counts(&self) -> Counts {
        self.inner.counts()
    }
}

struct World {
    net: Net,
    workers: Vec<(io::sim::Sim, Worker<Counting>)>,
    control: Mailbox,
    ticks: Rc<RefCell<Vec<usize>>>,
}

fn world() -> World {
    let net = Net::seeded(1);
    let ticks = Rc::new(RefCell::new(Vec::new()));
    let counting = |inner| Counting { inner, in_this_tick: 0, ticks: ticks.clone() };
    let namespace = Namespace { presence: true, ..Namespace::default() };
    let (driver, worker, control) = worker(&net, namespace, counting);
    World { net, workers: vec![(driver, worker)], control, ticks }
}

impl World {
    /// The control thread's mailbox stands for a second worker, whose subscribers these are.
    fn enter(&mut self, channel: &str, clients: u32) {
        let (local, _) = Local::new(ChannelHash::new([2; 16])).begin(channel);
        for number in 0..clients {
            let by = Subscriber { conn: ConnId::from_bits(u64::from(number) + 1), sequence: number, local };
            let info = ClientInfo { client: number.to_string().into(), ..ClientInfo::default() };
            let entrance = Some(Box::new(Entrance {
                info: Arc::new(info),
                only_recovered: false,
                is_present: true,
                announces: false,
            }));
            let channel = Channel::new(channel);
            let letter = Letter::Subscribe { channel, by, expires: LONG, recover: None, entrance };
            self.control.request(0, letter).expect("room for a letter");
            if number as usize % 1000 == 999 {
                self.run();
            }
        }
        for letter in self.run() {
            assert!(matches!(letter, Letter::Subscribed { entered: true, answer: Ok(_), .. }), "{letter:?}");
        }
    }

    fn run(&mut self) -> Vec<Letter> {
        self.control.flush();
        self.net.run_for(&mut self.workers, Duration::from_millis(50));
        std::iter::from_fn(|| self.control.next()).map(|(_, letter)| letter).collect()
    }

    fn ask(&mut self, ticket: u64, channel: &str, query: PresenceQuery) {
        let (ticket, channel) = (Ticket::Control(ticket), Channel::new(channel));
        let letter = Letter::Presence(Box::new(ReadPresence { ticket, channel, query, expires: LONG }));
        self.control.request(0, letter).expect("room for a letter");
    }
}

#[test]
fn no_tick_visits_more_clients_than_one_answer_names() {
    let mut world = world();
    let sizes = [("few", 10), ("some", 700), ("most", PRESENCE_CLIENTS_MAX as u32), ("many", 100_000)];
    for (channel, clients) in sizes {
        world.enter(channel, clients);
    }
    for ticket in 0..40 {
        world.ask(ticket, sizes[ticket as usize % 4].0, PresenceQuery::Clients);
        world.ask(100 + ticket, "many", PresenceQuery::Stats);
    }
    let answers = world.run();
    assert_eq!(answers.len(), 80, "everybody is answered");
    for answer in answers {
        let Letter::PresenceRead(read) = answer else { panic!("{answer:?}") };
        match *read {
            PresenceRead { ticket: Ticket::Control(ticket @ 0..40), answer } => {
                match (sizes[ticket as usize % 4], answer) {
                    (("many", _), answer) => assert_eq!(answer, Err(Refused::TooManyPresent)),
                    ((_, clients), answer) => assert_eq!(answer.expect("they fit").visits(), clients as usize),
                }
            }
            PresenceRead { answer, .. } => {
                let Ok(Presence::Stats(stats)) = answer else { panic!("{answer:?}") };
                assert_eq!((stats.clients, stats.users), (100_000, 1));
            }
        }
    }
    let ticks = world.ticks.borrow();
    assert_eq!(ticks.iter().sum::<usize>(), 10 * (10 + 700 + PRESENCE_CLIENTS_MAX));
    assert!(ticks.iter().all(|&visited| visited <= PRESENCE_CLIENTS_MAX), "{ticks:?}");
    assert!(ticks.contains(&710), "several small ones share a tick: {ticks:?}");
    assert_eq!(world.workers[0].1.presence_visits(), ticks.iter().sum::<usize>() as u64);
}
