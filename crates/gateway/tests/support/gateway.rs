//! A running gateway as a scenario sees it: clients from one side, the control thread's letters from the other.

use super::client::{Client, Format};
use super::machine::Machine;
use super::setup::Setup;
use super::token::token;
use conn::webhook::{Answer, Event};
use conn::{Disconnect, Settings};
use gateway::letter::{
    Act, Action, AskBackend, Described, Letter, Matching, Order, Publish, ReadPresence, Refused, RemoveHistory, Ticket,
};
use gateway::mailbox::Post as _;
use gateway::memory::Memory;
use gateway::stats::Number;
use hub::{Channel, ChannelHash, Draft, Presence, PresenceQuery, Published};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wire::ws::extension::Offer;

/// How long anything may take before it is a failure. Virtual where time is.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How often what nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A question of a connection.
pub(crate) struct Asked {
    worker: usize,
    pub(crate) ask: Box<AskBackend>,
    /// As a backend gets it.
    pub(crate) body: Value,
}

/// The gateway under test.
pub(crate) struct Gateway {
    machine: Rc<RefCell<Box<dyn Machine>>>,
    hash: ChannelHash,
    format: Format,
    offer: Option<Offer>,
    tickets: Cell<u64>,
    settings: Arc<Settings>,
    memory: Arc<Memory>,
}

impl Gateway {
    pub(super) fn new(machine: Box<dyn Machine>, setup: &Setup) -> Self {
        let machine = Rc::new(RefCell::new(machine));
        let (hash, settings, memory) = (setup.hash(), setup.settings(), setup.memory());
        Self { machine, hash, format: setup.format, offer: setup.offer, tickets: Cell::new(0), settings, memory }
    }

    /// A connection on which nothing was said yet.
    pub(crate) fn client(&self) -> Client {
        self.client_of(0)
    }

    /// The same to one worker. Where the kernel chooses the worker it may be another.
    pub(crate) fn client_of(&self, worker: usize) -> Client {
        let id = self.machine.borrow_mut().connect(worker);
        Client::new(self.machine.clone(), id, self.offer)
    }

    /// A WebSocket after its handshake.
    pub(crate) fn websocket(&self, target: &str) -> Client {
        self.websocket_of(0, target)
    }

    pub(crate) fn websocket_of(&self, worker: usize, target: &str) -> Client {
        let mut client = self.client_of(worker);
        client.upgrade(target, None);
        client
    }

    /// What clients of Centrifugo's protocol speak here.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A client of Centrifugo's protocol after its handshake, in the format of the setup.
    pub(crate) fn unconnected(&self) -> Client {
        self.unconnected_of(0, self.format)
    }

    fn unconnected_of(&self, worker: usize, format: Format) -> Client {
        let target = match format {
            Format::Json => "/connection/websocket",
            Format::Protobuf => "/connection/websocket?cf_protocol=protobuf",
        };
        let mut client = self.websocket_of(worker, target);
        client.format = format;
        client
    }

    /// One that has connected.
    pub(crate) fn centrifugo(&self) -> Client {
        self.centrifugo_of(0)
    }

    /// The same that offers something else about compression than the setup says.
    pub(crate) fn centrifugo_offering(&self, offer: Option<Offer>) -> Client {
        let (machine, settings, memory) = (self.machine.clone(), self.settings.clone(), self.memory.clone());
        let mut other = Self { machine, settings, memory, tickets: Cell::new(0), ..*self };
        other.offer = offer;
        other.centrifugo()
    }

    pub(crate) fn centrifugo_of(&self, worker: usize) -> Client {
        self.connected_of(worker, self.format)
    }

    /// One that has connected with a token of these claims, and what it was told.
    pub(crate) fn user_of(&self, worker: usize, claims: &Value) -> (Client, Value) {
        let mut client = self.unconnected_of(worker, self.format);
        let mut reply = client.call(json!({"id": 1, "connect": {"token": token(claims)}}));
        client.name = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        (client, reply["connect"].take())
    }

    pub(crate) fn user(&self, name: &str) -> Client {
        self.user_of(0, &json!({"sub": name})).0
    }

    /// The same in a format of its own.
    pub(crate) fn connected_of(&self, worker: usize, format: Format) -> Client {
        let mut client = self.unconnected_of(worker, format);
        let reply = client.call(json!({"id": 1, "connect": {}}));
        client.name = reply["connect"]["client"].as_str().expect("a client id").to_owned();
        client
    }

    /// One that is subscribed, too.
    pub(crate) fn subscriber_of(&self, worker: usize, channel: &str) -> Client {
        let mut client = self.centrifugo_of(worker);
        let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel}}));
        assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
        client
    }

    pub(crate) fn subscriber(&self, channel: &str) -> Client {
        self.subscriber_of(0, channel)
    }

    /// A client of the plain dialect, with the query of its URL, that has got its connect push.
    pub(crate) fn plain(&self, query: &str) -> Client {
        self.plain_of(0, query)
    }

    pub(crate) fn plain_of(&self, worker: usize, query: &str) -> Client {
        let mut client = self.websocket_of(worker, &format!("/connection/uni_websocket?{query}"));
        let push = client.json();
        client.name = push["connect"]["client"].as_str().expect("a client id").to_owned();
        client
    }

    /// Publishes as a backend does and waits for the home's answer.
    pub(crate) fn publish(&self, channel: &str, data: &Value) -> Result<Published, Refused> {
        self.publish_draft(Draft::new(Channel::new(channel), data.to_string().into_bytes()))
    }

    /// The same with all that a backend may ask.
    pub(crate) fn publish_draft(&self, draft: Draft) -> Result<Published, Refused> {
        let ticket = self.begin_publish_draft(draft)?;
        match self
            .answer(|letter| matches!(letter, Letter::Published { ticket: t, .. } if *t == Ticket::Control(ticket)))
        {
            Letter::Published { answer, .. } => answer,
            other => unreachable!("{other:?}"),
        }
    }

    /// Posts a publication without waiting for anything.
    pub(crate) fn begin_publish(&self, channel: &str, data: &Value) -> Result<u64, Refused> {
        self.begin_publish_draft(Draft::new(Channel::new(channel), data.to_string().into_bytes()))
    }

    fn begin_publish_draft(&self, draft: Draft) -> Result<u64, Refused> {
        let ticket = self.next_ticket();
        let home = self.home_of(&draft.channel);
        let expires = self.now() + PATIENCE;
        let publish = Publish { ticket: Ticket::Control(ticket), draft: draft.into(), expires };
        self.request(home, Letter::Publish(publish)).map(|()| ticket)
    }

    /// Drops a channel's history as a backend does.
    pub(crate) fn remove_history(&self, channel: &str) {
        let ticket = self.next_ticket();
        let remove = RemoveHistory { ticket, channel: Channel::new(channel), expires: self.now() + PATIENCE };
        self.request(self.home_of(channel), Letter::RemoveHistory(Box::new(remove))).expect("room for a letter");
        let answer = self.answer(|letter| matches!(letter, Letter::HistoryRemoved { ticket: t, .. } if *t == ticket));
        assert!(matches!(answer, Letter::HistoryRemoved { answer: Ok(()), .. }), "{answer:?}");
    }

    /// Who is subscribed, as a backend asks for it.
    pub(crate) fn presence(&self, channel: &str, query: PresenceQuery) -> Result<Presence, Refused> {
        let ticket = self.next_ticket();
        let (ask, channel) = (Ticket::Control(ticket), Channel::new(channel));
        let (home, expires) = (self.home_of(&channel), self.now() + PATIENCE);
        self.request(home, Letter::Presence(Box::new(ReadPresence { ticket: ask, channel, query, expires })))?;
        let is_mine = |letter: &Letter| matches!(letter, Letter::PresenceRead(read) if read.ticket == ask);
        match self.answer(is_mine) {
            Letter::PresenceRead(read) => read.answer,
            other => panic!("{other:?}"),
        }
    }

    /// Disconnects as a backend does; how many were.
    pub(crate) fn disconnect(&self, matching: &Matching, why: &Disconnect) -> u64 {
        self.act(matching, &Action::Disconnect(why.clone()))
    }

    /// Does something to clients as a backend does; to how many it was done.
    pub(crate) fn act(&self, matching: &Matching, action: &Action) -> u64 {
        (0..self.workers()).map(|worker| self.act_on(worker, matching, action)).sum()
    }

    /// The same to the clients of one worker.
    pub(crate) fn act_on(&self, worker: usize, matching: &Matching, action: &Action) -> u64 {
        self.acted_on(worker, matching, action).0
    }

    /// Describes some clients of one worker, and counts them.
    pub(crate) fn described_on(&self, worker: usize, matching: &Matching, most: usize) -> (u64, Vec<Described>) {
        self.acted_on(worker, matching, &Action::Describe { connections_max: most })
    }

    fn acted_on(&self, worker: usize, matching: &Matching, action: &Action) -> (u64, Vec<Described>) {
        let ticket = self.next_ticket();
        let act = Act { ticket, matching: matching.clone(), action: action.clone() };
        self.request(worker, Letter::Act(Box::new(act))).expect("room for a letter");
        let answer = self.answer(|letter| matches!(letter, Letter::Acted { ticket: t, .. } if *t == ticket));
        let Letter::Acted { count, described, .. } = answer else { unreachable!("{answer:?}") };
        (count, described)
    }

    /// What a connection asks its backend next, whose part the test plays.
    pub(crate) fn question(&self) -> Asked {
        let give_up = self.now() + PATIENCE;
        loop {
            let next = self.machine.borrow_mut().mailbox().next();
            match next {
                Some((worker, Letter::AskBackend(ask))) => {
                    let body = serde_json::from_slice(&ask.question.to_json()).expect("a question is JSON");
                    return Asked { worker, ask, body };
                }
                Some(_) => {}
                None => {
                    assert!(self.now() < give_up, "the backend was not asked");
                    self.machine.borrow_mut().step(give_up);
                }
            }
        }
    }

    /// The same where it is known what about; the body without what every question has.
    pub(crate) fn asked(&self, event: Event) -> (Asked, Value) {
        let asked = self.question();
        assert_eq!(asked.ask.question.about.event(), event);
        let mut about = asked.body.clone();
        let fields = about.as_object_mut().expect("an object");
        for key in ["client", "transport", "protocol", "encoding"] {
            fields.remove(key).expect("every question has it");
        }
        (asked, about)
    }

    /// The backend answers with this body.
    pub(crate) fn backend_says(&self, asked: &Asked, body: &Value) {
        let event = asked.ask.question.about.event();
        let answer = Answer::read(event, body.to_string().as_bytes()).unwrap_or_else(|ill| panic!("{ill}: {body}"));
        self.backend_answers(asked, answer);
    }

    /// The backend is not there.
    pub(crate) fn backend_says_nothing(&self, asked: &Asked) {
        self.backend_answers(asked, Answer::None);
    }

    fn backend_answers(&self, asked: &Asked, answer: Answer) {
        let (conn, number) = (asked.ask.conn, asked.ask.number);
        let mut machine = self.machine.borrow_mut();
        let letter = Letter::BackendAnswered { conn, number, answer: Box::new(answer) };
        machine.mailbox().answer(asked.worker, letter);
        machine.mailbox().flush();
    }

    /// What the backend is told until it has been told so much, without the time of it.
    pub(crate) fn notices(&self, count: usize) -> Vec<Value> {
        let give_up = self.now() + PATIENCE;
        let mut told = Vec::new();
        while told.len() < count {
            let next = self.machine.borrow_mut().mailbox().next();
            match next {
                Some((_, Letter::Notices(notices))) => told.extend(notices.iter().map(|notice| {
                    let mut json = serde_json::to_value(notice).expect("a notice is JSON");
                    let time = json["time"].take().as_u64().expect("a time");
                    assert!(time / 1000 <= self.unix() && time / 1000 + 60 > self.unix(), "{time}");
                    json.as_object_mut().expect("an object").remove("time");
                    json
                })),
                Some((_, other)) => panic!("{other:?} instead of a notice"),
                None => {
                    assert!(self.now() < give_up, "{} of {count} notices: {told:?}", told.len());
                    self.machine.borrow_mut().step(give_up);
                }
            }
        }
        assert_eq!(told.len(), count, "{told:?}");
        told
    }

    /// A worker wants published keys to be fetched.
    pub(crate) fn expect_keys_wanted(&self) {
        let give_up = self.now() + PATIENCE;
        loop {
            let next = self.machine.borrow_mut().mailbox().next();
            match next {
                Some((_, Letter::FetchKeys)) => return,
                Some((_, other)) => panic!("{other:?} instead of a wish for keys"),
                None => {
                    assert!(self.now() < give_up, "no keys are wanted");
                    self.machine.borrow_mut().step(give_up);
                }
            }
        }
    }

    /// Whether a question waits.
    pub(crate) fn expect_no_question(&self) {
        let next = self.machine.borrow_mut().mailbox().next();
        assert!(next.is_none(), "{next:?}");
    }

    /// Changes the settings that the gateway was started with, as a reload does.
    pub(crate) fn reload(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = (*self.settings).clone();
        change(&mut settings);
        let settings = Arc::new(settings);
        self.order(|| Order::Settings(settings.clone()));
    }

    /// Gives every worker an order of the control thread.
    pub(crate) fn order(&self, mut order: impl FnMut() -> Order) {
        for worker in 0..self.workers() {
            self.request(worker, Letter::Order(order())).expect("room for an order");
        }
        self.machine.borrow_mut().mailbox().flush();
    }

    fn request(&self, to: usize, letter: Letter) -> Result<(), Refused> {
        let mut machine = self.machine.borrow_mut();
        machine.mailbox().request(to, letter).map_err(|_| Refused::Busy)?;
        machine.mailbox().flush();
        Ok(())
    }

    /// The answer wanted; others, of requests nobody waited for, are dropped.
    fn answer(&self, is_wanted: impl Fn(&Letter) -> bool) -> Letter {
        let give_up = self.now() + PATIENCE;
        loop {
            let next = self.machine.borrow_mut().mailbox().next();
            match next {
                Some((_, letter)) if is_wanted(&letter) => return letter,
                Some(_) => {}
                None => {
                    assert!(self.now() < give_up, "an answer to the control thread did not come");
                    self.machine.borrow_mut().step(give_up);
                }
            }
        }
    }

    fn next_ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    pub(crate) fn workers(&self) -> usize {
        self.machine.borrow().stats().len()
    }

    /// The worker that numbers a channel.
    pub(crate) fn home_of(&self, channel: &str) -> usize {
        usize::from(self.hash.home(channel, self.workers() as u16).0)
    }

    /// A channel that is numbered by that worker.
    pub(crate) fn channel_of(&self, worker: usize) -> String {
        self.channel_in("", worker)
    }

    /// The same in a namespace, with its boundary.
    pub(crate) fn channel_in(&self, namespace: &str, worker: usize) -> String {
        (0..)
            .map(|i| format!("{namespace}of{worker}-{i}"))
            .find(|name| self.home_of(name) == worker)
            .expect("some channel is")
    }

    pub(crate) fn now(&self) -> Duration {
        self.machine.borrow().now()
    }

    /// The time of the outside world, in seconds.
    pub(crate) fn unix(&self) -> u64 {
        let machine = self.machine.borrow();
        (machine.unix_origin() + machine.now()).as_secs()
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.machine.borrow().is_calm()
    }

    /// Holds a worker still, or lets it go on. Only on the simulator.
    pub(crate) fn freeze(&self, worker: usize, frozen: bool) {
        self.machine.borrow_mut().freeze(worker, frozen);
    }

    /// The workers' numbers, added up.
    pub(crate) fn sum(&self, number: Number) -> u64 {
        self.machine.borrow().stats().iter().map(|stats| stats.number(number)).sum()
    }

    /// What the workers hold, and may.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Connections that have a place among those of their address.
    pub(crate) fn counted_by_address(&self) -> u64 {
        self.settings.addresses.counted()
    }

    /// A counter of the drivers, added up.
    pub(crate) fn count(&self, counter: impl Fn(&io::Counters) -> &io::counters::Counter) -> u64 {
        self.machine.borrow().stats().iter().map(|stats| counter(&stats.io).load()).sum()
    }

    /// Ended connections that we closed with this code, or that the peer did.
    pub(crate) fn closes(&self, side: conn::Side, code: u16) -> u64 {
        let machine = self.machine.borrow();
        let closes = machine.stats().iter().flat_map(|stats| stats.closes());
        closes.filter(|&(s, c, _)| s == side && c == code).map(|(_, _, count)| count).sum()
    }

    /// Waits until something is so that nobody announces.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let give_up = self.now() + PATIENCE;
        while !is_so() {
            let now = self.now();
            assert!(now < give_up, "waited in vain until {what}");
            self.machine.borrow_mut().step(now + LOOK);
        }
    }

    /// Waits until that much time has passed.
    pub(crate) fn pass(&self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            self.machine.borrow_mut().step(until);
        }
    }

    /// Waits until every worker has ended.
    pub(crate) fn until_ended(&self) {
        self.until("the workers have ended", || self.machine.borrow_mut().has_ended());
    }

    /// When all clients have gone, so has everything that was kept for them.
    pub(super) fn expect_nothing_left(&self) {
        let has_ended = self.machine.borrow_mut().has_ended();
        if !has_ended {
            let numbers = [Number::Connections, Number::Sessions, Number::Subscriptions, Number::Channels];
            self.until("connections, sessions, subscriptions and channels are gone", || {
                numbers.iter().all(|&number| self.sum(number) == 0)
            });
            // A subscribe that its client has not waited for is withdrawn when its home has answered.
            self.until("local channels are gone", || self.machine.borrow().local_channels() == 0);
            self.until("nobody is counted by address", || self.settings.addresses.counted() == 0);
            assert_eq!(self.sum(Number::Panics), 0, "panics inside connections");
        }
        let machine = self.machine.borrow();
        assert_eq!((machine.bodies_in_use(), machine.local_channels()), (0, 0), "bodies and local channels left");
    }
}
