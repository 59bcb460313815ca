//! The harness on the simulator.

use std::time::Duration;

use io::sim::{ClosedBy, Faults, Net, Sim};
use io::{Driver, Io, Options, Target};

use crate::harness::{Client, Ended, Harness};
use crate::probe::Probe;

/// Which network the suite runs on.
pub(crate) trait Weather {
    fn net() -> (Net, bool);
}

/// Sends complete at once, as with epoll.
pub(crate) struct Calm;

impl Weather for Calm {
    fn net() -> (Net, bool) {
        (Net::seeded(1), true)
    }
}

/// Sends complete later, as with io_uring.
pub(crate) struct Late;

impl Weather for Late {
    fn net() -> (Net, bool) {
        let net = Net::seeded(2);
        net.set_faults(Faults { late_completion: 1.0, ..Faults::none() });
        (net, true)
    }
}

/// Everything but resets, drawn from a seed that the suite chooses.
pub(crate) struct Storm;

thread_local! {
    /// The seed of the next [`Storm`].
    pub(crate) static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Weather for Storm {
    fn net() -> (Net, bool) {
        let seed = SEED.get();
        let net = Net::seeded(seed);
        net.set_faults(Faults::drawn(seed));
        (net, false)
    }
}

pub(crate) struct Simulated<W> {
    net: Net,
    workers: [(Sim, Probe); 1],
    calm: bool,
    _weather: std::marker::PhantomData<W>,
}

impl<W: Weather> Harness for Simulated<W> {
    type Client = SimClient;

    fn start(options: Options) -> Self {
        let (net, calm) = W::net();
        let sim = net.driver(options, 1);
        Simulated { net, workers: [(sim, Probe::default())], calm, _weather: std::marker::PhantomData }
    }

    fn connect(&mut self) -> SimClient {
        SimClient { client: self.net.connect(0, 0), received: Vec::new() }
    }

    fn target(&self) -> Target {
        Target::Ip { to: self.net.address(0, 0), from: None }
    }

    fn dead_target(&self) -> Target {
        Target::Ip { to: self.net.address(0, 1), from: None }
    }

    fn probe(&mut self) -> &mut Probe {
        &mut self.workers[0].1
    }

    fn both(&mut self) -> (&mut Probe, &mut Io) {
        let (sim, probe) = &mut self.workers[0];
        (probe, sim.io())
    }

    fn step(&mut self) {
        self.net.run_for(&mut self.workers, Duration::from_millis(1));
    }

    fn now(&self) -> Duration {
        self.net.now()
    }

    fn shutdown(&mut self) {
        let (sim, probe) = &mut self.workers[0];
        sim.shutdown(probe);
    }

    fn is_calm(&self) -> bool {
        self.calm
    }
}

pub(crate) struct SimClient {
    client: io::sim::Client,
    received: Vec<u8>,
}

impl Client for SimClient {
    fn write(&mut self, bytes: &[u8]) {
        self.client.write(bytes);
    }

    fn received(&mut self) -> &[u8] {
        self.received.extend(self.client.read());
        &self.received
    }

    fn set_reading(&mut self, reading: bool) {
        self.client.set_reading(reading);
    }

    fn shutdown_write(&mut self) {
        self.client.shutdown_write();
    }

    fn reset(&mut self) {
        self.client.reset();
    }

    fn ended(&mut self) -> Option<Ended> {
        self.client.is_closed().map(|by| match by {
            ClosedBy::Fin => Ended::Fin,
            ClosedBy::Reset => Ended::Reset,
            ClosedBy::Refused => Ended::Refused,
        })
    }

    fn close(self) {
        self.client.close();
    }
}
