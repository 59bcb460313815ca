//! A real worker with as many subscribers as asked for, on a simulated network: no kernel is in the figures.
//!
//! Publications enter as letters of the control thread. The worker's own steps are called one by one, so that each can be
//! timed alone; what they leave behind, the driver of the simulation finishes in [`Rig::settle`], which is not timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::config::{Inputs, load};
use gateway::letter::{Letter, Publish, Ticket};
use gateway::mailbox::{self, Mailbox, Post, Sizes};
use gateway::memory::Memory;
use gateway::stats::WorkerStats;
use gateway::topology;
use gateway::worker::{Plan, Worker};
use hub::{Channel, ChannelHash, Draft, HomeLimits, WorkerId};
use io::sim::{Client, Net, Sim};
use io::{Batch, Budgets, ConnId, Driver, Handler, Options, Wake};

/// The channel of all subscribers.
const CHANNEL: &str = "bench";
/// Clients that come at a time; each asks the mailbox for the room of a subscribe request.
const OPENED_AT_ONCE: usize = 256;
/// Nobody is pinged while a bench runs, during which seconds pass on the simulated clock.
const PING_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// One worker with its subscribers.
pub(crate) struct Rig {
    net: Net,
    worker: [(Sim, Worker<Mailbox>); 1],
    control: Mailbox,
    clients: Vec<Client>,
    /// The subscribers as the worker knows them.
    ids: Vec<ConnId>,
    draft: Draft,
    batch: Batch,
}

impl Rig {
    /// A worker with so many subscribers of one channel, to which publications of so many bytes go.
    pub(crate) fn with_subscribers(count: usize, bytes: usize) -> Rig {
        let loaded = load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults of --dev");
        let mut settings = topology::settings(&loaded.config, true).expect("a checked config");
        settings.times.ping_interval = PING_INTERVAL;
        let hash = ChannelHash::new([3; 16]);
        let plan = Plan {
            id: WorkerId(0),
            workers: 1,
            settings: Arc::new(settings),
            hash,
            home: HomeLimits::default(),
            unix_origin: Duration::ZERO,
            epoch_seed: 1,
            id_key: [5; 16],
            connections_max: count,
            request_timeout: Duration::from_secs(3600),
            memory: Arc::new(Memory::new(0)),
        };
        // One tick does all there is, so that settling takes few of them.
        let all = u32::try_from(count).expect("fewer than 2^32 clients").max(1024);
        let budgets = Budgets { reads: all, sends: all, accepts: all, send_bytes: usize::MAX, ..Budgets::default() };
        let net = Net::seeded(7);
        let mut driver = net.driver(Options { connections_max: count, budgets, ..Options::default() }, 1);
        let wakes = [Wake::new().expect("an eventfd"), Wake::new().expect("an eventfd")];
        let sizes = Sizes { letters: 1024, answers: 512, bytes: 64 * 1024 * 1024 };
        let [mailbox, control] = <[Mailbox; 2]>::try_from(mailbox::connect(sizes, &wakes)).expect("two parties");
        let stats = Arc::new(WorkerStats::new(driver.io().counters()));
        let data = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
        let mut rig = Rig {
            net,
            worker: [(driver, Worker::new(plan, mailbox, stats))],
            control,
            clients: Vec::with_capacity(count),
            ids: Vec::with_capacity(count),
            draft: Draft::new(Channel::new(CHANNEL), data.into_bytes()),
            batch: Batch::new(),
        };
        rig.open(count);
        rig
    }

    fn open(&mut self, count: usize) {
        let head = format!(
            "GET /connection/uni_websocket?channels={CHANNEL} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        while self.clients.len() < count {
            let first = self.clients.len();
            for _ in first..count.min(first + OPENED_AT_ONCE) {
                let client = self.net.connect(0, 0);
                client.write(head.as_bytes());
                self.clients.push(client);
            }
            self.net.run_for(&mut self.worker, Duration::from_millis(1));
            self.clients[first..].iter().for_each(|client| drop(client.read()));
        }
        let local = &self.worker[0].1.shared().local;
        let channel = local.find(CHANNEL).expect("somebody has subscribed");
        self.ids = local.members(channel).map(|member| ConnId::from_bits(member.subscriber.0)).collect();
        assert_eq!(self.ids.len(), count, "every client is subscribed");
    }

    /// A publication is numbered by its home and waits in the worker's mailbox.
    pub(crate) fn publish(&mut self) {
        let publish = Publish { ticket: Ticket::Control(0), draft: self.draft.clone().into(), expires: Duration::MAX };
        self.control.request(0, Letter::Publish(publish)).expect("room for one");
        self.control.flush();
        let [(driver, worker)] = &mut self.worker;
        worker.woken(driver.io());
        worker.ticked(driver.io());
        assert!(worker.has_mail(), "the publication came back as a letter");
        assert!(self.control.next().is_some(), "the publication was answered");
    }

    /// The fan-out: the letter is read, the publication encoded and pushed to every outbox. How long that took.
    pub(crate) fn push(&mut self) -> Duration {
        let [(driver, worker)] = &mut self.worker;
        let io = driver.io();
        let started = Instant::now();
        worker.woken(io);
        started.elapsed()
    }

    /// Asks every subscriber for its bytes and reports them as sent. How long that took, and how many bytes these were.
    pub(crate) fn flush(&mut self) -> (Duration, usize) {
        let [(driver, worker)] = &mut self.worker;
        let io = driver.io();
        let mut bytes = 0;
        let started = Instant::now();
        for &id in &self.ids {
            self.batch.clear();
            worker.gather(id, &mut self.batch);
            bytes += self.batch.len();
            worker.sent(io, id, self.batch.len());
        }
        (started.elapsed(), bytes)
    }

    /// The driver sends what waits and empties its queues; everything arrives, and the clients read.
    pub(crate) fn settle(&mut self) {
        let [(driver, worker)] = &mut self.worker;
        loop {
            while worker.has_mail() || driver.ready_at().is_some_and(|at| at <= self.net.now()) {
                driver.tick(worker, None).expect("a simulated wait does not fail");
            }
            let Some(arrival) = self.net.next_event() else { break };
            self.net.advance_to(arrival);
        }
        self.clients.iter().for_each(|client| drop(client.read()));
        assert_eq!(worker.shared().outboxes.bodies_in_use(), 0, "nothing waits any more");
    }
}
