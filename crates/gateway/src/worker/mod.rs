//! One worker: its connections, its half of the hub, its mailbox. The same code runs on every driver.

mod fanout;
mod handler;
mod jobs;
mod letters;
mod memory;
mod notices;
mod presence;
mod table;

use crate::letter::{Letter, Subscriber};
use crate::mailbox::{Party, Post};
use crate::memory::Memory;
use crate::stats::{Closes, WorkerStats};
use conn::{IdSource, Settings, Shared};
use fanout::Fanout;
use hub::{ChannelHash, Home, HomeLimits, Local, WorkerId};
use io::ConnId;
use jobs::Jobs;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// How soon what found no room in a mailbox, and can wait, is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// Slots of a home visited for one page of the `channels` API.
const SLOTS_PER_PAGE: usize = 1024;

/// Flights of TLS handshakes worked on per tick. One with an RSA signature takes about 1 ms, with ECDSA about 0.2 ms.
const HANDSHAKES_PER_TICK: usize = 4;

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number.
    pub id: WorkerId,
    /// How many there are.
    pub workers: u16,
    /// The configuration in force.
    pub settings: Arc<Settings>,
    /// The process's key for channels.
    pub hash: ChannelHash,
    /// Limits of the home half.
    pub home: HomeLimits,
    /// Draws the epochs; another one for each worker and start.
    pub epoch_seed: u64,
    /// Unix time at the clock's origin.
    pub unix_origin: Duration,
    /// The process's secret for client ids.
    pub id_key: [u8; 16],
    /// Connections it may hold.
    pub connections_max: usize,
    /// After it a request between workers is not worth doing.
    pub request_timeout: Duration,
    /// What all workers hold together, and how much that may be.
    pub memory: Arc<Memory>,
}

/// A worker; [`io::Handler`] is what it is to its driver.
#[derive(Debug)]
pub struct Worker<P> {
    workers: u16,
    hash: ChannelHash,
    request_timeout: Duration,
    table: Table,
    shared: Shared,
    home: Home,
    /// When what has expired is next looked for.
    next_sweep: Duration,
    post: P,
    fanout: Fanout,
    jobs: Jobs,
    memory: Arc<Memory>,
    shedding: memory::Shedding,
    /// A letter about presence that was read and has to wait for the next tick; the ones behind it wait, too.
    postponed: Option<(Party, Letter)>,
    /// Requests refused while effects were applied; answered right after.
    refused: Vec<(ConnId, u32, letters::Refusable)>,
    refused_subscribes: Vec<Subscriber>,
    /// Connections whose held input may go on.
    resumable: Vec<ConnId>,
    /// Connections whose input waits because the tick had run enough commands, in the order in which they go on.
    held: VecDeque<ConnId>,
    /// Connections with bytes of a TLS handshake.
    handshakes: VecDeque<ConnId>,
    /// Connections whose token waits to be checked, with what that costs.
    verifying: VecDeque<(ConnId, u32)>,
    /// The first three above are being worked off, further out on the stack.
    settling: bool,
    publications: u64,
    /// Guests visited for answers to presence requests since the start.
    presence_visits: u64,
    panics: u64,
    closes: Closes,
    notices: notices::Notices,
    /// Before it the control thread is not asked again for published keys.
    keys_wanted_again: Duration,
    stats: Arc<WorkerStats>,
    stopped: bool,
}

impl<P: Post> Worker<P> {
    /// A worker without connections.
    pub fn new(plan: Plan, post: P, stats: Arc<WorkerStats>) -> Self {
        let local = Local::new(plan.hash);
        let ids = IdSource::new(plan.id_key, plan.id.0);
        let mut shared = Shared::new(plan.settings, local, ids);
        shared.unix_origin = plan.unix_origin;
        Self {
            workers: plan.workers,
            hash: plan.hash,
            request_timeout: plan.request_timeout,
            table: Table::with_capacity(plan.connections_max),
            shared,
            home: Home::new(plan.hash, plan.home, plan.epoch_seed).with_unix_origin(plan.unix_origin),
            next_sweep: Duration::ZERO,
            post,
            fanout: Fanout::new(),
            jobs: Jobs::default(),
            memory: plan.memory,
            shedding: memory::Shedding::default(),
            postponed: None,
            refused: Vec::new(),
            refused_subscribes: Vec::new(),
            resumable: Vec::new(),
            held: VecDeque::new(),
            handshakes: VecDeque::new(),
            verifying: VecDeque::new(),
            settling: false,
            publications: 0,
            presence_visits: 0,
            panics: 0,
            closes: Closes::default(),
            notices: notices::Notices::default(),
            keys_wanted_again: Duration::ZERO,
            stats,
            stopped: false,
        }
    }

    /// Whether the control thread has ended it.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The connections' common part, for checks from outside.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The home half, for checks from outside.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Guests visited for answers to presence requests since the start, for checks from outside.
    pub fn presence_visits(&self) -> u64 {
        self.presence_visits
    }

    /// The mailbox, for checks from outside and for a control thread that is not one.
    pub fn post(&mut self) -> &mut P {
        &mut self.post
    }

    /// The worker has ended: what is left to be said is said.
    pub fn take_leave(&mut self) {
        self.hand_over_notices();
        self.hold_nothing();
        self.post.flush();
        self.publish_stats();
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    fn publish_stats(&mut self) {
        let totals = crate::stats::Totals {
            users: self.shared.users.counts(),
            connections: self.table.len() as u64,
            subscriptions: self.shared.local.subscriptions() as u64,
            channels: (self.home.channels() - self.home.stock().idle) as u64,
            stock: self.home.stock(),
            home: self.home.counts(),
            guests: self.home.guests() as u64,
            presence: self.home.presence_counts(),
            publications: self.publications,
            panics: self.panics,
            notices_dropped: self.notices_dropped(),
            outbox_dropped: self.shared.outboxes.dropped(),
            skipped: self.shared.outboxes.skipped(),
            conflated: self.shared.outboxes.conflated(),
            connections_counters: self.shared.counters,
            recoveries: self.shared.recoveries.counts(),
            compression: crate::stats::Compressed {
                sent: self.shared.compression.counts(),
                received: self.shared.compression.received(),
                history_bytes: self.shared.compression.reserved(),
                previous_bytes: self.shared.compression.previous_bytes(),
            },
            letters: self.post.counts(),
        };
        self.stats.publish(&totals);
        self.closes.publish(&self.stats);
    }
}
