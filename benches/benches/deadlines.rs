//! What does it cost that every connection has a deadline?

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use io::sim::{Client, Net, Sim};
use io::{Batch, Budgets, Closed, ConnId, Driver, Flow, Handler, Io, Options, Peer};

/// Between two pings of a connection, and so between two of its deadlines.
const INTERVAL: Duration = Duration::from_secs(25);
/// One step of the sweep.
const STEP: Duration = Duration::from_millis(100);

/// Connections that set their next deadline when one has passed, as those do that ping.
struct Pinging {
    /// The first deadlines are spread evenly over so long.
    phase: Duration,
    expected: u32,
    opened: u32,
    expired: u64,
}

impl Handler for Pinging {
    fn opened(&mut self, io: &mut Io, id: ConnId, _: Peer) {
        self.opened += 1;
        let share = f64::from(self.opened) / f64::from(self.expected);
        io.deadline(id, Some(io.now() + INTERVAL - self.phase.mul_f64(share)));
    }
    fn received(&mut self, _: &mut Io, _: ConnId, _: &mut [u8]) -> Flow {
        Flow::Continue
    }
    fn gather(&mut self, _: ConnId, _: &mut Batch) {}
    fn sent(&mut self, _: &mut Io, _: ConnId, _: usize) {}
    fn expired(&mut self, io: &mut Io, id: ConnId) {
        self.expired += 1;
        io.deadline(id, Some(io.now() + INTERVAL));
    }
    fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
    fn woken(&mut self, _: &mut Io) {}
    fn has_mail(&self) -> bool {
        false
    }
    fn ticked(&mut self, _: &mut Io) {}
}

struct Rig {
    net: Net,
    driver: Sim,
    pinging: Pinging,
    /// Held, so that their connections stay.
    _clients: Vec<Client>,
}

impl Rig {
    fn new(count: u32, phase: Duration) -> Rig {
        let net = Net::seeded(7);
        let budgets = Budgets { accepts: count, ..Budgets::default() };
        let options = Options { connections_max: count as usize, budgets, ..Options::default() };
        let mut driver = net.driver(options, 1);
        let clients = (0..count).map(|_| net.connect(0, 0)).collect();
        let mut pinging = Pinging { phase, expected: count, opened: 0, expired: 0 };
        net.advance(Duration::from_millis(1));
        while pinging.opened < count {
            driver.tick(&mut pinging, None).expect("a simulated wait does not fail");
            net.advance(Duration::from_micros(1));
        }
        Rig { net, driver, pinging, _clients: clients }
    }

    /// A tenth of a second passes; how long the driver works on it, in as many ticks as its budget takes.
    fn step(&mut self) -> Duration {
        self.net.advance(STEP);
        let started = Instant::now();
        while self.driver.ready_at().is_some_and(|at| at <= self.net.now()) {
            self.driver.tick(&mut self.pinging, None).expect("a simulated wait does not fail");
        }
        started.elapsed()
    }
}

/// Decides whether deadlines may stay a dense column that is swept a tenth at a time, or need a timer wheel, which would
/// have to be touched at every activity of every connection. Reported per step of a tenth of a second: the sweep and, with
/// deadlines spread as pings are, the 4 in 1,000 connections that are due.
fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("deadlines/sweep");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for count in [10_000, 250_000] {
        let mut rig = None;
        group.bench_function(BenchmarkId::new("pings", count), |bencher| {
            let rig = rig.get_or_insert_with(|| Rig::new(count, INTERVAL));
            let before = rig.pinging.expired;
            let mut steps = 0;
            bencher.iter_custom(|iterations| {
                steps += iterations;
                (0..iterations).map(|_| rig.step()).sum()
            });
            let due = steps as f64 * f64::from(count) * STEP.as_secs_f64() / INTERVAL.as_secs_f64();
            let expired = (rig.pinging.expired - before) as f64;
            assert!(steps < 100 || (0.8..1.2).contains(&(expired / due)), "{expired} expired where {due} were due");
        });
    }
    group.finish();
}

criterion_group!(benches, sweep);
criterion_main!(benches);
