//! The machine in which nothing is real: several workers on the simulator, in one thread, under a virtual clock.

use super::machine::{Ended, Machine};
use super::setup::Setup;
use gateway::mailbox::{self, Mailbox, Post as _};
use gateway::stats::WorkerStats;
use gateway::worker::Worker;
use io::sim::{Client, ClosedBy, Faults, Net};
use io::{Driver as _, Handler as _, Wake};
use std::sync::Arc;
use std::time::Duration;

/// What a round of ticks costs, so that a worker with endless work cannot stop time.
const ROUND: Duration = Duration::from_micros(1);

pub(crate) struct Sim {
    net: Net,
    nodes: Vec<Node>,
    control: Mailbox,
    stats: Vec<Arc<WorkerStats>>,
    clients: Vec<Client>,
    introduction: &'static str,
    is_calm: bool,
}

struct Node {
    driver: io::sim::Sim,
    worker: Worker<Mailbox>,
    frozen: bool,
    ended: bool,
}

impl Sim {
    /// `seed`: of a bad network; without one it is perfect.
    pub(crate) fn start(setup: &Setup, seed: Option<u64>) -> Self {
        let net = Net::seeded(seed.unwrap_or(7));
        net.set_faults(seed.map_or_else(Faults::none, Faults::drawn));
        let count = usize::from(setup.workers);
        let wakes: Vec<Wake> = (0..=count).map(|_| Wake::new().expect("an eventfd")).collect();
        let mut mailboxes = mailbox::connect(setup.mailbox, &wakes);
        let control = mailboxes.pop().expect("one more than workers");
        let (mut nodes, mut stats) = (Vec::new(), Vec::new());
        for (number, mailbox) in mailboxes.into_iter().enumerate() {
            let mut driver = net.driver(setup.options(), 1);
            let counted = Arc::new(WorkerStats::new(driver.io().counters()));
            let worker = Worker::new(setup.plan(number), mailbox, counted.clone());
            nodes.push(Node { driver, worker, frozen: false, ended: false });
            stats.push(counted);
        }
        let introduction = setup.introduction;
        Self { net, nodes, control, stats, clients: Vec::new(), introduction, is_calm: seed.is_none() }
    }

    /// Ticks the workers that have something to do, in an order drawn by lot. False if none had.
    fn round(&mut self) -> bool {
        let now = self.net.now();
        let mut ready: Vec<usize> =
            (0..self.nodes.len()).filter(|&i| self.nodes[i].wants_tick_at(now).is_some_and(|at| at <= now)).collect();
        let any = !ready.is_empty();
        while !ready.is_empty() {
            let drawn = self.net.random(ready.len() as u64) as usize;
            self.nodes[ready.swap_remove(drawn)].tick();
        }
        any
    }
}

impl Node {
    fn wants_tick_at(&self, now: Duration) -> Option<Duration> {
        if self.frozen || self.ended {
            return None;
        }
        if self.worker.has_mail() { Some(now) } else { self.driver.ready_at() }
    }

    fn tick(&mut self) {
        self.driver.tick(&mut self.worker, None).expect("a simulated wait does not fail");
        let now = self.driver.io().now();
        if self.worker.is_stopped() || self.worker.is_drained(now) {
            self.driver.shutdown(&mut self.worker);
            self.ended = true;
        }
    }
}

impl Machine for Sim {
    fn connect(&mut self, worker: usize) -> usize {
        let client = self.net.connect(worker, 0);
        client.write(self.introduction.as_bytes());
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].write(bytes);
    }

    fn read(&mut self, client: usize) -> Vec<u8> {
        self.clients[client].read()
    }

    fn ended(&mut self, client: usize) -> Option<Ended> {
        self.clients[client].is_closed().map(|by| match by {
            ClosedBy::Fin => Ended::Fin,
            ClosedBy::Reset => Ended::Reset,
            ClosedBy::Refused => Ended::Refused,
        })
    }

    fn set_reading(&mut self, client: usize, reading: bool) {
        self.clients[client].set_reading(reading);
    }

    fn shutdown_write(&mut self, client: usize) {
        self.clients[client].shutdown_write();
    }

    fn reset(&mut self, client: usize) {
        self.clients[client].reset();
    }

    fn close(&mut self, client: usize) {
        self.clients[client].close();
    }

    fn step(&mut self, until: Duration) {
        self.control.flush();
        let next = if self.round() {
            self.net.now() + ROUND
        } else {
            let now = self.net.now();
            let ready = self.nodes.iter().filter_map(|node| node.wants_tick_at(now));
            ready.chain(self.net.next_event()).min().unwrap_or(until)
        };
        self.net.advance_to(next.min(until).max(self.net.now()));
    }

    fn now(&self) -> Duration {
        self.net.now()
    }

    fn unix_origin(&self) -> Duration {
        super::setup::UNIX_ORIGIN
    }

    fn mailbox(&mut self) -> &mut Mailbox {
        &mut self.control
    }

    fn stats(&self) -> &[Arc<WorkerStats>] {
        &self.stats
    }

    fn is_calm(&self) -> bool {
        self.is_calm
    }

    fn freeze(&mut self, worker: usize, frozen: bool) {
        self.nodes[worker].frozen = frozen;
    }

    fn bodies_in_use(&self) -> usize {
        self.nodes
            .iter()
            .map(|node| {
                // Recoveries are remembered for a while for those who come next.
                let shared = node.worker.shared();
                shared.outboxes.bodies_in_use() - shared.recoveries.len()
            })
            .sum()
    }

    fn local_channels(&self) -> usize {
        self.nodes.iter().map(|node| node.worker.shared().local.channels()).sum()
    }

    fn has_ended(&mut self) -> bool {
        self.nodes.iter().all(|node| node.ended)
    }
}
