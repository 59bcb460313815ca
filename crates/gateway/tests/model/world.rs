//! One seed's world: workers, clients, publishers, a network, and what happens in it.

use crate::asking::{self, Backend};
use crate::clients::{Dialect, SimClient};
use crate::compressing::offer;
use crate::coverage::Coverage;
use crate::line::{Line, Network, Tls};
use crate::planted::{Log, Plant, Planted, TAG};
use crate::recovering::{Place, Rules, View};
use conn::Settings;
use conn::settings::{Compression, Listener};
use gateway::config::{Config, Inputs, load};
use gateway::letter::{Letter, Publish, Ticket};
use gateway::mailbox::{self, Mailbox, Post, Sizes};
use gateway::stats::WorkerStats;
use gateway::worker::{Plan, Worker};
use hub::{
    Channel, ChannelHash, Draft, HomeLimits, Namespace, Namespaces, Presence, PresenceQuery, Retention, SlowClient,
    Tags, WorkerId,
};
use io::sim::{Faults, Net, Sim};
use io::{Driver, Options, Wake};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wire::ws::deflate::Level;

const UNIX_ORIGIN: Duration = Duration::from_secs(1_700_000_000);

const STEPS: u32 = 250;
/// Of one seed, before its end.
const QUIET_POINTS: u32 = 3;
const CLIENTS_MAX: usize = 24;

/// What publication number `id` carries: enough for a patch to be shorter. Its text is that of `serde_json`.
pub fn payload(id: u64) -> String {
    serde_json::json!({"n": id, "same": "in every publication of this test"}).to_string()
}

type Simulated = (Sim, Worker<Planted>);

pub struct World {
    random: fastrand::Rng,
    net: Net,
    workers: Vec<Simulated>,
    control: Mailbox,
    hash: ChannelHash,
    channels: Vec<Channel>,
    clients: Vec<SimClient>,
    /// Killed since they were last looked at.
    dead: Vec<SimClient>,
    log: Rc<RefCell<Log>>,
    next_id: u64,
    published: HashMap<u64, Channel>,
    /// The last publication of each channel that its home took.
    last_published: HashMap<Channel, u64>,
    rules: Rules,
    /// What clients that are gone would remember.
    memories: Vec<BTreeMap<String, Place>>,
    /// Ids of clients that were cut off: their workers may not have noticed.
    cut: BTreeSet<String>,
    /// The same of those that did not know theirs yet.
    cut_nameless: usize,
    backend: Backend,
    plant: Plant,
    /// Where clients speak it.
    tls: Option<Tls>,
    coverage: Coverage,
}

fn settings(random: &mut fastrand::Rng, rules: &Rules) -> Settings {
    let config: Config =
        load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults of --dev are good").config;
    let mut settings = gateway::topology::settings(&config, true).expect("a checked config");
    let limits = &mut settings.limits;
    limits.delta_bytes_max = [500, 1 << 20][random.usize(..2)];
    limits.outbox_bytes_max = [600, 4096, 1 << 20][random.usize(..3)];
    limits.outbox_high_water = limits.outbox_bytes_max / 2;
    limits.outbox_low_water = limits.outbox_bytes_max / 4;
    limits.held_publications_max = [3, 128][random.usize(..2)];
    limits.recovery_publications_max = rules.limit as usize;
    let retention = Retention { size: rules.size as u32, ttl: rules.ttl, meta_ttl: rules.meta_ttl };
    let plain = |name: &str, slow_client| Namespace {
        name: name.into(),
        slow_client,
        allow_fossil_deltas: true,
        delta_publish: true,
        compress: true,
        presence: rules.knows,
        join_leave: rules.knows,
        force_push_join_leave: rules.tells_all,
        subscribe_proxy_enabled: true,
        publish_proxy_enabled: true,
        ..Namespace::default()
    };
    let kept = |name: &str, slow_client| Namespace {
        history: Some(retention),
        force_recovery: true,
        ..plain(name, slow_client)
    };
    let by_tag = |namespace| Namespace { conflate_by_tag: Some(TAG.into()), ..namespace };
    let named = vec![
        plain("skip", SlowClient::DropOldest),
        plain("newest", SlowClient::Conflate),
        kept("kept", SlowClient::Disconnect),
        kept("keptskip", SlowClient::DropOldest),
        kept("keptnewest", SlowClient::Conflate),
        by_tag(plain("tagged", SlowClient::Conflate)),
        by_tag(kept("kepttagged", SlowClient::Conflate)),
    ];
    settings.namespaces =
        Namespaces::new(plain("", SlowClient::Disconnect), named).expect("good namespaces").accepting_unknown();
    if random.bool() {
        settings.webhooks = asking::webhooks();
    }
    settings.compression = random.bool().then(|| Compression {
        level: Level::new([1, 6][random.usize(..2)]).expect("1 to 9"),
        reply_bytes_min: [20, 200][random.usize(..2)],
        publication_bytes_min: [1, 100][random.usize(..2)],
        after_previous: random.u32(..4) > 0,
        previous_bytes_max: [600, 1 << 20][random.usize(..2)],
        client_history_bytes_max: [70_000, 1 << 20][random.usize(..2)],
    });
    settings
}

/// Channels without and with a history, whose slow clients are disconnected, miss the oldest, or get the newest only, of the
/// channel or of each tag.
const NAMESPACES: [&str; 8] = ["", "skip:", "newest:", "tagged:", "kept:", "keptskip:", "keptnewest:", "kepttagged:"];

/// What this world promises, and how small its homes are.
fn rules(random: &mut fastrand::Rng) -> (Rules, HomeLimits) {
    const LONG: Duration = Duration::from_secs(3600);
    let (evicts, empties) = (random.u32(..4) == 0, random.u32(..4) == 0);
    let rules = Rules {
        size: [3, 20][random.usize(..2)],
        ttl: [Duration::from_millis(300), LONG][random.usize(..2)],
        meta_ttl: [Duration::from_millis(500), LONG, LONG][random.usize(..3)],
        limit: [4, 300][random.usize(..2)],
        forgets: false,
        evicts,
        empties,
        loses: false,
        small_outbox: false,
        knows: random.u32(..4) > 0,
        tells_all: random.bool(),
    };
    let tells_all = rules.tells_all && rules.knows;
    let rules = Rules { tells_all, ttl: rules.ttl.min(rules.meta_ttl), forgets: rules.meta_ttl < LONG, ..rules };
    let limits = HomeLimits {
        channels_max: if evicts { 2 } else { 1000 },
        history_bytes_max: if empties { 1500 } else { 1 << 20 },
        ..HomeLimits::default()
    };
    (rules, limits)
}

impl World {
    pub fn new(seed: u64, plant: Plant, network: Network) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let net = Net::seeded(seed);
        let count = random.usize(1..=4);
        let channels: Vec<Channel> = (0..random.usize(2..=5))
            .map(|i| Channel::new(&format!("{}c{i}", NAMESPACES[random.usize(..NAMESPACES.len())])))
            .collect();
        let sizes =
            Sizes { letters: [2, 8, 64][random.usize(..3)], answers: [2, 64][random.usize(..2)], bytes: 1 << 16 };
        let wakes: Vec<Wake> = (0..=count).map(|_| Wake::new().expect("an eventfd")).collect();
        let mut mailboxes = mailbox::connect(sizes, &wakes);
        let control = mailboxes.pop().expect("one more than workers");
        let (log, hash) = (Rc::new(RefCell::new(Log::default())), ChannelHash::new([seed as u8; 16]));
        let (mut rules, home) = rules(&mut random);
        // The plant knows nameless withdrawals only.
        rules.knows &= plant != Plant::NaiveInterest;
        rules.tells_all &= rules.knows;
        let mut settings = settings(&mut random, &rules);
        let tls = (network == Network::Tls).then(Tls::new);
        if let Some(tls) = &tls {
            let listener = settings.listeners.pop().unwrap_or_default();
            settings.listeners = vec![Listener { tls: Some(tls.server.clone()), ..listener }];
        }
        let settings = Arc::new(settings);
        rules.loses = plant == Plant::Lossy;
        rules.small_outbox = settings.limits.outbox_bytes_max < 1 << 20;
        let workers = mailboxes
            .into_iter()
            .enumerate()
            .map(|(number, inner)| {
                let options = Options { connections_max: CLIENTS_MAX, ..Options::default() };
                let mut driver = net.driver(options, 1);
                let stats = Arc::new(WorkerStats::new(driver.io().counters()));
                let post = Planted::new(inner, plant, log.clone(), seed ^ number as u64, channels.clone());
                (driver, Worker::new(Plan { home, ..plan(seed, number, count, &settings, hash) }, post, stats))
            })
            .collect();
        let coverage = Coverage::default();
        let (clients, dead, published, last_published) = (Vec::new(), Vec::new(), HashMap::new(), HashMap::new());
        Self {
            random,
            net,
            workers,
            control,
            hash,
            channels,
            clients,
            dead,
            log,
            next_id: 1,
            published,
            last_published,
            rules,
            memories: Vec::new(),
            cut: BTreeSet::new(),
            cut_nameless: 0,
            backend: Backend::default(),
            plant,
            tls,
            coverage,
        }
    }

    pub fn run(mut self) -> Result<Coverage, String> {
        let seed = self.random.u64(..);
        let faults = Faults { reset: [0.0, 0.002][self.random.usize(..2)], ..Faults::drawn(seed) };
        self.net.set_faults(faults.clone());
        for step in 1..=STEPS {
            self.happen();
            let pause = Duration::from_micros(self.random.u64(..8_000));
            self.let_pass(pause)?;
            if step % (STEPS / QUIET_POINTS) == 0 {
                self.net.set_faults(Faults::none());
                self.be_quiet()?;
                self.net.set_faults(faults.clone());
            }
        }
        self.end()
    }

    fn happen(&mut self) {
        let channel = self.channels[self.random.usize(..self.channels.len())].clone();
        let who = (!self.clients.is_empty()).then(|| self.random.usize(..self.clients.len()));
        match (self.random.u32(..100), who) {
            (0..15, _) | (_, None) => self.connect(),
            (15..35, Some(who)) => self.clients[who].toggle(&channel),
            // A storm on one channel: everybody at once.
            (35..37, Some(_)) => self.clients.iter_mut().for_each(|client| client.toggle(&channel)),
            (37..65, Some(_)) => _ = self.publish(&channel),
            (65..75, Some(who)) => {
                let id = self.next_id;
                self.next_id += u64::from(self.clients[who].publish(&channel, id));
            }
            (75..83, Some(who)) => {
                let reading = !self.clients[who].is_reading();
                self.coverage.slow_readers += u64::from(!reading);
                self.clients[who].set_reading(reading);
                self.clients[who].socket().set_window(if reading { 65_536 } else { 100 });
            }
            (83..92, Some(who)) => self.kill(who),
            (92, Some(_)) => self.net.advance(Duration::from_millis(2_500)),
            (_, Some(_)) => (0..8).for_each(|_| _ = self.publish(&channel)),
        }
    }

    fn connect(&mut self) {
        if self.clients.len() >= CLIENTS_MAX / 2 {
            return;
        }
        let worker = self.random.usize(..self.workers.len());
        let socket = self.net.connect(worker, 0);
        let socket = match &self.tls {
            None => Line::plain(socket),
            Some(tls) => Line::sealed(socket, tls, &mut self.random),
        };
        if self.plant == Plant::LostRecord {
            socket.lose_some(self.random.u64(..));
        }
        let dialects = [Dialect::Centrifugo, Dialect::CentrifugoProtobuf, Dialect::Plain];
        let dialect = dialects[self.random.usize(..dialects.len())];
        let wanted = self.channels.iter().filter(|_| self.random.bool()).map(|c| c.to_string()).collect();
        let back = dialect.has_commands() && !self.memories.is_empty() && self.random.u32(..4) > 0;
        let places =
            if back { self.memories.swap_remove(self.random.usize(..self.memories.len())) } else { <_>::default() };
        let was_in: Vec<String> = places.keys().cloned().collect();
        let offer = self.random.bool().then(|| offer(&mut self.random));
        let mut client = SimClient::connect(socket, dialect, wanted, places, self.random.bool(), offer);
        if self.plant == Plant::CompressedBehindDrop {
            client.drop_compressed(self.random.u64(..));
        }
        client.asks_for_others = self.rules.knows && self.random.bool();
        if self.plant == Plant::PatchBehindDrop {
            client.drop_some(self.random.u64(..));
        }
        // Pipelined behind connect, as SDKs do.
        let channel = self.channels[self.random.usize(..self.channels.len())].clone();
        client.toggle(&channel);
        was_in.iter().filter(|name| ***name != *channel).for_each(|name| client.toggle(name));
        self.clients.push(client);
    }

    fn kill(&mut self, who: usize) {
        let client = &self.clients[who];
        self.coverage.deaths += 1;
        self.coverage.deaths_while_pending += u64::from(client.is_pending());
        match self.random.u32(..4) {
            0 => client.socket().close(),
            1 => client.socket().reset(),
            2 => {
                client.socket().cut();
                match client.id() {
                    Some(id) => drop(self.cut.insert(id.to_owned())),
                    None => self.cut_nameless += 1,
                }
            }
            // The worker closes its half too, and the client goes when it sees that.
            _ => return client.socket().shutdown_write(),
        }
        self.dead.push(self.clients.swap_remove(who));
    }

    /// Whether there was room for it.
    fn publish(&mut self, channel: &Channel) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        // One of four has none.
        let value = ["a", "b", "c"].get(id as usize % 4);
        let tags = value.map(|value| Box::new(Tags::from([(TAG.to_owned(), (*value).to_owned())])));
        let draft = Draft { tags, ..Draft::new(channel.clone(), payload(id).into_bytes()) };
        let expires = self.net.now() + Duration::from_secs(60);
        let publish = Publish { ticket: Ticket::Control(id), draft: draft.into(), expires };
        let home = usize::from(self.hash.home(channel, self.workers.len() as u16).0);
        let posted = self.control.request(home, Letter::Publish(publish)).is_ok();
        if posted {
            self.published.insert(id, channel.clone());
        }
        self.coverage.publishes_refused += u64::from(!posted);
        self.control.flush();
        posted
    }

    fn let_pass(&mut self, time: Duration) -> Result<(), String> {
        self.log.borrow_mut().now = self.net.now();
        self.net.run_for(&mut self.workers, time);
        while let Some((from, letter)) = self.control.next() {
            if let Letter::AskBackend(ask) = letter {
                self.backend.hear(self.net.now(), &mut self.random, from, ask);
                continue;
            }
            let Letter::Published { ticket: Ticket::Control(id), answer } = letter else { continue };
            let channel = self.published.remove(&id).ok_or("an answer that nobody asked for")?;
            match answer {
                Ok(_) => {
                    self.coverage.published += 1;
                    self.last_published.insert(channel, id);
                }
                Err(_) => self.coverage.publishes_refused += 1,
            }
        }
        let (now, unix) = (self.net.now(), UNIX_ORIGIN + self.net.now());
        self.backend.answer(now, unix, &mut self.random, &mut self.control, &mut self.coverage);
        let waiting: u64 = self.workers.iter_mut().map(|(_, worker)| worker.post().counts().waiting).sum();
        self.coverage.withdrawals_waited += waiting;
        let (log, seen) = (self.log.borrow(), &mut self.coverage.seen);
        if let Some(finding) = &log.finding {
            return Err(finding.clone());
        }
        for client in self.dead.drain(..) {
            client.end_early(&log)?;
            self.memories.push(client.places().clone());
        }
        let view = View { log: &log, rules: &self.rules, next_id: self.next_id, now: self.net.now() };
        let mut gone = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.check(&view, seen).map_err(|finding| format!("client {number}: {finding}"))?;
            if client.is_gone() {
                gone.push(number);
            }
        }
        for number in gone.into_iter().rev() {
            let client = self.clients.swap_remove(number);
            self.coverage.resets_by_us += u64::from(client.was_reset());
            client.end_early(&log)?;
            self.memories.push(client.places().clone());
            client.socket().close();
        }
        Ok(())
    }

    /// Everybody reads and nothing happens until nothing is under way; then who is present is who is subscribed.
    fn be_quiet(&mut self) -> Result<(), String> {
        let paused: Vec<bool> = self.clients.iter().map(|client| !client.is_reading()).collect();
        for client in &mut self.clients {
            client.set_reading(true);
            client.socket().set_window(1 << 20);
        }
        for _ in 0..40 {
            self.let_pass(Duration::from_millis(20))?;
        }
        if paused.len() == self.clients.len() {
            self.clients.iter_mut().zip(paused).for_each(|(client, paused)| client.set_reading(!paused));
        }
        if self.rules.knows && !self.clients.iter().any(SimClient::is_pending) {
            self.check_present()?;
            self.coverage.quiet_points += 1;
        }
        Ok(())
    }

    fn check_present(&mut self) -> Result<(), String> {
        for channel in &self.channels {
            let home = self.workers[usize::from(self.hash.home(channel, self.workers.len() as u16).0)].1.home();
            let present = home.presence(channel, PresenceQuery::Clients).map_err(|error| error.to_string())?;
            let Presence::Clients(present) = present else { return Err("asked for clients".into()) };
            let present: BTreeSet<String> = present.iter().map(|info| info.client.to_string()).collect();
            let subscribed = self.clients.iter().filter(|client| client.is_subscribed(channel));
            let subscribed: BTreeSet<String> = subscribed.filter_map(|client| client.id()).map(str::to_owned).collect();
            if let Some(missing) = subscribed.difference(&present).next() {
                return Err(format!("{channel}: {missing} is subscribed and not present"));
            }
            let left: Vec<_> = present.difference(&subscribed).filter(|id| !self.cut.contains(*id)).collect();
            if left.len() > self.cut_nameless {
                return Err(format!("{channel}: {left:?} are present and not subscribed"));
            }
            self.coverage.present += present.len() as u64;
            self.clients.iter().try_for_each(|client| client.agree(channel, &present, self.rules.tells_all))?;
        }
        Ok(())
    }

    /// What clients miss was left out on purpose and is counted. More is counted than they can see: what their connections
    /// took with them, and what was missing at an end.
    fn account(&self) -> Result<(), String> {
        let Coverage { seen, skipped, conflated, .. } = &self.coverage;
        for (missed, counted, what) in [
            (seen.missed_oldest + seen.told_of_skips, skipped, "skipped"),
            (seen.missed_but_the_newest, conflated, "conflated"),
        ] {
            if missed > *counted {
                return Err(format!("clients miss {missed} publications, and {counted} were {what}"));
            }
        }
        Ok(())
    }

    /// The network calms down, everybody reads, a last publication goes to each channel; then nothing may be missing, and
    /// when everybody has left nothing may be left.
    fn end(mut self) -> Result<Coverage, String> {
        self.net.set_faults(Faults::none());
        self.log.borrow_mut().is_calm = true;
        for client in &mut self.clients {
            client.set_reading(true);
            client.socket().set_window(1 << 20);
        }
        (0..40).try_for_each(|_| self.let_pass(Duration::from_millis(50)))?;
        for channel in self.channels.clone() {
            // Answers of the backend may have left no room.
            while !self.publish(&channel) {
                self.let_pass(Duration::from_millis(1))?;
            }
            self.let_pass(Duration::from_millis(200))?;
        }
        // Whoever was told of a gap by the last publication comes back.
        (0..4).try_for_each(|_| self.let_pass(Duration::from_millis(50)))?;
        if !self.published.is_empty() {
            return Err(format!("publishes that were never answered: {:?}", self.published));
        }
        self.be_quiet()?;
        let log = self.log.borrow();
        for client in &self.clients {
            let last = |channel: &str| self.last_published.get(channel).copied();
            client.end_complete(&log, last)?;
            self.coverage.complete_subscriptions += 1;
        }
        drop(log);
        self.leave_nothing()
    }

    fn leave_nothing(mut self) -> Result<Coverage, String> {
        for client in self.clients.drain(..) {
            client.socket().close();
        }
        self.net.run_for(&mut self.workers, Duration::from_secs(30));
        for (number, (driver, worker)) in self.workers.iter_mut().enumerate() {
            let shared = worker.shared();
            let left = [
                ("connections", worker.connections()),
                ("sessions", shared.counters.sessions as usize),
                ("subscriptions", shared.local.subscriptions()),
                ("local channels", shared.local.channels()),
                ("guests", worker.home().guests()),
                ("announcements", usize::from(worker.home().announcements_wait())),
                ("home channels", worker.home().channels() - worker.home().stock().idle),
                ("bodies", shared.outboxes.bodies_in_use() - shared.recoveries.len()),
                ("channels with deltas", shared.deltas.channels()),
                ("bytes for deltas", shared.deltas.bytes()),
                ("bytes of history reserved", shared.compression.reserved()),
                ("bytes to refer to", shared.compression.previous_bytes()),
            ];
            if let Some((what, count)) = left.iter().find(|(_, count)| *count > 0) {
                return Err(format!("worker {number}: everybody has left, and {count} {what} are still there"));
            }
            let counters = shared.counters;
            self.coverage.tls_handshakes += counters.tls_handshakes;
            self.coverage.tls_resumed += counters.tls_resumed;
            self.coverage.tls_failed += counters.tls_failed;
            self.coverage.join_leave_skipped += counters.join_leave_skipped;
            self.coverage.skipped += shared.outboxes.skipped();
            self.coverage.conflated += shared.outboxes.conflated();
            self.coverage.slow_by_firm += counters.slow_by_firm;
            self.coverage.slow_by_conflated += counters.slow_by_conflated;
            let compressed = shared.compression.counts();
            self.coverage.compressed_alone += compressed.alone.messages;
            self.coverage.compressed_after += compressed.after.messages;
            self.coverage.compressed_replies += compressed.replies.messages;
            self.coverage.compression_refused += compressed.refused;
            self.coverage.compressed_by_clients += shared.compression.received().messages;
            if compressed.publication_runs > 2 * compressed.publications {
                return Err(format!("more than two compressions for a publication: {compressed:?}"));
            }
            let io = driver.io().counters();
            let home = worker.home().counts();
            self.coverage.channels_evicted += home.evicted;
            self.coverage.channels_emptied += home.emptied;
            self.coverage.histories_cut += home.cut;
            self.coverage.recoveries_too_large += shared.counters.recoveries_too_large;
            self.coverage.recoveries_shared += shared.recoveries.counts().shared;
            self.coverage.letters_refused += worker.post().counts().refused;
            self.coverage.clock_jumps += io.clock_jumps.load();
            self.coverage.slots_reused += io.accepts.load().saturating_sub(CLIENTS_MAX as u64 / 2);
        }
        self.coverage.net = self.net.counts();
        self.coverage.deliveries_lost = self.log.borrow().lost;
        self.account()?;
        Ok(self.coverage)
    }
}

fn plan(seed: u64, number: usize, count: usize, settings: &Arc<Settings>, hash: ChannelHash) -> Plan {
    Plan {
        id: WorkerId(number as u16),
        workers: count as u16,
        settings: settings.clone(),
        hash,
        home: HomeLimits { channels_max: 1000, ..HomeLimits::default() },
        unix_origin: UNIX_ORIGIN,
        epoch_seed: seed.wrapping_mul(31).wrapping_add(number as u64),
        id_key: [7; 16],
        connections_max: CLIENTS_MAX,
        request_timeout: Duration::from_secs(60),
        memory: Arc::default(),
    }
}
