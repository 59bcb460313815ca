//! How much one tick does at most, counted tick by tick on a worker that is ticked by hand.

mod commands;
mod presence;
mod tokens;

use conn::Settings;
use gateway::config::{Config, Inputs, load};
use gateway::mailbox::{self, Mailbox, Post, Sizes};
use gateway::stats::WorkerStats;
use gateway::worker::{Plan, Worker};
use hub::{ChannelHash, HomeLimits, Namespace, Namespaces, WorkerId};
use io::sim::{Net, Sim};
use io::{Driver as _, Options, Wake};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);
const LETTERS: usize = 4096;
const CONNECTIONS: usize = 128;

/// The only worker of a network, open to everybody, and the control thread's mailbox.
fn worker<P: Post>(net: &Net, namespace: Namespace, post: impl FnOnce(Mailbox) -> P) -> (Sim, Worker<P>, Mailbox) {
    let channels = |s: &mut Settings| s.namespaces = Namespaces::new(namespace, Vec::new()).expect("good options");
    worker_with(net, channels, post)
}

/// The same with other settings changed.
fn worker_with<P: Post>(
    net: &Net,
    change: impl FnOnce(&mut Settings),
    post: impl FnOnce(Mailbox) -> P,
) -> (Sim, Worker<P>, Mailbox) {
    let wakes: Vec<Wake> = (0..2).map(|_| Wake::new().expect("an eventfd")).collect();
    let sizes = Sizes { letters: LETTERS, answers: LETTERS, bytes: 1 << 24 };
    let mut mailboxes = mailbox::connect(sizes, &wakes);
    let control = mailboxes.pop().expect("two");
    let config: Config = load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults").config;
    let mut settings = gateway::topology::settings(&config, true).expect("a checked config");
    change(&mut settings);
    let plan = Plan {
        id: WorkerId(0),
        workers: 1,
        settings: Arc::new(settings),
        hash: ChannelHash::new([1; 16]),
        home: HomeLimits::default(),
        epoch_seed: 1,
        unix_origin: Duration::ZERO,
        id_key: [7; 16],
        connections_max: CONNECTIONS,
        request_timeout: LONG,
        memory: Arc::default(),
    };
    let post = post(mailboxes.pop().expect("one"));
    let mut driver = net.driver(Options { connections_max: CONNECTIONS, ..Options::default() }, 1);
    let stats = Arc::new(WorkerStats::new(driver.io().counters()));
    (driver, Worker::new(plan, post, stats), control)
}
