//! The driver on a simulated network: one seed, one history.
//!
//! A [`Net`] is a small world in one thread: a virtual clock, drivers (one per simulated worker) and clients held by the
//! test. Nothing in it happens by itself. Time passes when the test says so ([`Net::advance`], or [`Net::run_until`],
//! which also ticks the workers whose turn it is), and chance comes from the seed alone, so that a run can be repeated
//! exactly; [`Net::trace`] is a fingerprint to check that.
//!
//! It is built to be as mean as a kernel may be and no meaner: readiness is announced once, at arrival; a FIN or an error
//! is announced once; sends are cut short; their outcomes come late if [`Faults::late_completion`] says so; buffers are
//! overwritten as soon as they were used.

mod client;
mod driver;
mod faults;
mod random;
mod world;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

pub use client::{Client, ClosedBy};
pub use driver::Sim;
pub use faults::{Counts, Faults};

use crate::handler::{Driver, Handler};
use crate::options::Options;
use world::{Owner, World};

/// What a round of ticks costs in virtual time; so a worker that always has work cannot make time stand still.
const ROUND: Duration = Duration::from_micros(1);

/// A simulated network. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Net {
    world: Rc<RefCell<World>>,
}

impl Net {
    /// A network without faults, at time zero.
    #[must_use]
    pub fn seeded(seed: u64) -> Net {
        Net { world: Rc::new(RefCell::new(World::seeded(seed))) }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// How often each fault was injected.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.world.borrow().counts
    }

    /// A fingerprint of all that happened so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.world.borrow().trace()
    }

    /// A new driver with that many listeners. Drivers are numbered from 0.
    #[must_use]
    pub fn driver(&self, options: Options, listeners: usize) -> Sim {
        Sim::new(Rc::clone(&self.world), options, listeners)
    }

    /// The address of a listener, for [`Io::connect`](crate::Io::connect) from another (or the same) driver.
    #[must_use]
    pub fn address(&self, driver: usize, listener: usize) -> SocketAddr {
        World::listener_address(driver, listener)
    }

    /// A client that connects to a listener. Connections arrive in this order if latency is constant.
    #[must_use]
    pub fn connect(&self, driver: usize, listener: usize) -> Client {
        let side = self.world.borrow_mut().connect(Owner::Client, driver, listener);
        Client { world: Rc::clone(&self.world), side }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.borrow().now
    }

    /// When the next thing happens in the network. Drivers have times of their own: [`Sim::ready_at`].
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        self.world.borrow().next_event()
    }

    /// Lets time pass. What happens is posted to the drivers, which see it at their next tick.
    pub fn advance(&self, by: Duration) {
        self.advance_to(self.now() + by);
    }

    /// Lets time pass until `at`.
    pub fn advance_to(&self, at: Duration) {
        self.world.borrow_mut().advance_to(at);
    }

    /// A number below `bound`, from the network's chance: for what a test decides by dice.
    #[must_use]
    pub fn random(&self, bound: u64) -> u64 {
        self.world.borrow_mut().random.below(bound)
    }

    /// Ticks the workers, in an order drawn anew each time, and lets time pass until `until`. Between two events no time
    /// is simulated, so an hour of quiet costs nothing.
    pub fn run_until<H: Handler>(&self, workers: &mut [(Sim, H)], until: Duration) {
        while self.now() < until {
            if self.tick_round(workers) {
                self.advance(ROUND);
                continue;
            }
            let ready = workers.iter().filter_map(|(sim, handler)| self.wants_tick_at(sim, handler));
            let next = ready.chain(self.next_event()).min().unwrap_or(until);
            self.advance_to(next.min(until));
        }
    }

    /// [`Net::run_until`], relative.
    pub fn run_for<H: Handler>(&self, workers: &mut [(Sim, H)], time: Duration) {
        self.run_until(workers, self.now() + time);
    }

    fn wants_tick_at<H: Handler>(&self, sim: &Sim, handler: &H) -> Option<Duration> {
        let ready = if handler.has_mail() { Some(self.now()) } else { sim.ready_at() };
        ready.map(|at| at.max(self.world.borrow().drivers[sim.driver()].stalled_until))
    }

    /// Ticks every worker whose turn it is; false if none was.
    fn tick_round<H: Handler>(&self, workers: &mut [(Sim, H)]) -> bool {
        let now = self.now();
        let mut ready: Vec<usize> = (0..workers.len())
            .filter(|&i| self.wants_tick_at(&workers[i].0, &workers[i].1).is_some_and(|at| at <= now))
            .collect();
        let any = !ready.is_empty();
        while !ready.is_empty() {
            let (sim, handler) = &mut workers[ready.swap_remove(self.random(ready.len() as u64) as usize)];
            sim.tick(handler, None).expect("a simulated wait does not fail");
            self.maybe_stall(sim.driver());
        }
        any
    }

    fn maybe_stall(&self, driver: usize) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        if world.random.chance(world.faults.stall) {
            world.counts.stalls += 1;
            let stall = world.random.duration(&(Duration::ZERO..=world.faults.stall_max));
            world.drivers[driver].stalled_until = world.now + stall;
        }
    }
}
