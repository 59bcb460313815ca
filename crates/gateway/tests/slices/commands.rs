//! How many commands of clients one tick runs: a message may bring thousands, and must not keep others waiting.

use crate::{worker, worker_with};
use conn::{COMMANDS_PER_TICK, Settings};
use gateway::mailbox::Mailbox;
use gateway::worker::Worker;
use hub::Namespace;
use io::Driver as _;
use io::sim::{Client, Net, Sim};
use std::fmt::Write as _;
use std::time::Duration;
use wire::ws::{self, OpCode};

const KEY: [u8; 16] = [7; 16];
const MASK: [u8; 4] = [1, 2, 3, 4];

pub(crate) struct World {
    pub(crate) net: Net,
    driver: Sim,
    pub(crate) worker: Worker<Mailbox>,
    /// Commands run in each tick that ran any.
    ticks: Vec<u64>,
}

impl World {
    fn new() -> World {
        let net = Net::seeded(1);
        let (driver, worker, _) = worker(&net, Namespace::default(), |mailbox| mailbox);
        World { net, driver, worker, ticks: Vec::new() }
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> World {
        let net = Net::seeded(1);
        let (driver, worker, _) = worker_with(&net, change, |mailbox| mailbox);
        World { net, driver, worker, ticks: Vec::new() }
    }

    fn commands(&self) -> u64 {
        self.worker.shared().counters.commands
    }

    pub(crate) fn tick(&mut self) {
        let before = self.commands();
        self.driver.tick(&mut self.worker, Some(Duration::ZERO)).expect("a simulated wait");
        let run = self.commands() - before;
        if run > 0 {
            self.ticks.push(run);
        }
        self.net.advance(Duration::from_millis(1));
    }

    /// A client that is connecting.
    pub(crate) fn connecting(&mut self, connect: &str) -> Client {
        let client = self.net.connect(0, 0);
        let mut bytes = Vec::new();
        ws::client::write_request(&mut bytes, "localhost", "/connection/websocket", &KEY, None, &[]);
        text(&mut bytes, connect);
        client.write(&bytes);
        client
    }

    /// A client that is connected.
    pub(crate) fn client(&mut self) -> Client {
        self.tick();
        let client = self.connecting("{\"id\":1,\"connect\":{}}");
        (0..5).for_each(|_| self.tick());
        let answer = String::from_utf8_lossy(&client.read()).into_owned();
        assert!(answer.contains("\"connect\":{"), "{answer}");
        client
    }
}

pub(crate) fn text(bytes: &mut Vec<u8>, message: &str) {
    ws::write_frame(bytes, OpCode::Text, true, message.as_bytes(), Some(MASK));
}

/// One message with so many subscribes.
fn subscribes(count: usize) -> Vec<u8> {
    let mut message = String::new();
    for number in 0..count {
        let _ = writeln!(message, "{{\"id\":{},\"subscribe\":{{\"channel\":\"c{number}\"}}}}", number + 2);
    }
    let mut bytes = Vec::new();
    text(&mut bytes, &message);
    bytes
}

/// Replies among what the client has received: most are refusals, as a client may have 128 channels.
pub(crate) fn replies(received: &[u8]) -> usize {
    String::from_utf8_lossy(received).matches("{\"id\":").count()
}

#[test]
fn messages_of_a_thousand_commands_are_run_in_slices_and_others_have_their_turn() {
    let mut world = World::new();
    let (greedy, modest) = (world.client(), world.client());
    world.ticks.clear();
    (0..5).for_each(|_| assert!(greedy.write(&subscribes(1000))));
    world.tick();
    modest.write(&subscribes(1));
    let (mut greedy_has, mut modest_after) = (0, None);
    for _ in 0..100 {
        world.tick();
        greedy_has += replies(&greedy.read());
        if replies(&modest.read()) == 1 {
            modest_after = Some(greedy_has);
        }
    }
    assert_eq!(greedy_has, 5000, "all are answered");
    assert!(modest_after.is_some_and(|answered| answered < 2500), "{modest_after:?}");
    assert_eq!(world.ticks.iter().sum::<u64>(), 5001);
    let most = u64::from(COMMANDS_PER_TICK);
    assert!(world.ticks.iter().all(|&run| run <= most), "{:?}", world.ticks);
    assert!(world.ticks.contains(&most), "a tick uses what it may: {:?}", world.ticks);
}

#[test]
fn as_many_commands_as_a_tick_runs_are_run_in_one() {
    let mut world = World::new();
    let client = world.client();
    world.ticks.clear();
    client.write(&subscribes(COMMANDS_PER_TICK as usize));
    (0..40).for_each(|_| world.tick());
    assert_eq!(world.ticks, [u64::from(COMMANDS_PER_TICK)]);
    client.write(&subscribes(COMMANDS_PER_TICK as usize + 1));
    (0..40).for_each(|_| world.tick());
    assert_eq!(world.ticks[1..], [u64::from(COMMANDS_PER_TICK), 1]);
}

#[test]
fn input_that_waits_for_the_next_tick_dies_with_its_connection() {
    let mut world = World::new();
    let client = world.client();
    client.write(&subscribes(1000));
    world.ticks.clear();
    while world.ticks.is_empty() {
        world.tick();
    }
    client.reset();
    (0..40).for_each(|_| world.tick());
    assert_eq!(world.worker.connections(), 0);
    assert!(world.ticks.iter().sum::<u64>() < 1000, "{:?}", world.ticks);
    assert_eq!(world.worker.shared().local.subscriptions(), 0);
}
