//! The driver on a simulated network.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::world::{End, ListenerQueue, Owner, Posted, Side, Station, World};
use crate::batch::Batch;
use crate::handler::{ConnId, Driver, Handler, Kind, PeerAddress, Target};
use crate::options::Options;
use crate::state::Io;
use crate::tick::{Core, Sockets};

/// A driver whose kernel is a [`Net`](super::Net). It runs the same phases as the others.
#[derive(Debug)]
pub struct Sim {
    core: Core<SimSockets>,
    driver: usize,
}

#[derive(Debug)]
struct SimSockets {
    world: Rc<RefCell<World>>,
    driver: usize,
    /// By slot.
    sides: Vec<Option<Side>>,
    /// Sends that were not completed yet, by slot. A slot is not reused before its send is.
    outstanding: BTreeMap<u32, Outstanding>,
    spare_batches: Vec<Batch>,
}

#[derive(Debug)]
struct Outstanding {
    side: Side,
    batch: Batch,
}

impl Sim {
    pub(super) fn new(world: Rc<RefCell<World>>, options: Options, listeners: usize) -> Sim {
        let driver = {
            let mut world = world.borrow_mut();
            let open = || ListenerQueue { open: true, queue: VecDeque::new() };
            let listeners = (0..listeners).map(|_| open()).collect();
            world.drivers.push(Station { listeners, ..Station::default() });
            world.drivers.len() - 1
        };
        let now = world.borrow().now;
        let sockets =
            SimSockets { world, driver, sides: Vec::new(), outstanding: BTreeMap::new(), spare_batches: Vec::new() };
        Sim { core: Core::new(options, sockets, listeners, now), driver }
    }

    /// The number of this driver in its net.
    #[must_use]
    pub fn driver(&self) -> usize {
        self.driver
    }

    /// When this driver has to be ticked: now if something was posted to it or work is left, at its next deadline or
    /// alarm, or `None`. Mail is the handler's and not looked at.
    #[must_use]
    pub fn ready_at(&self) -> Option<Duration> {
        let world = self.core.sockets.world.borrow();
        if world.drivers[self.driver].posted.is_empty() { self.core.wake_at() } else { Some(world.now) }
    }

    /// Takes over the news posted since the last tick.
    fn announce_posted<H: Handler>(&mut self, handler: &mut H) {
        // What happens during the tick is for the next one, as with a real kernel.
        let posted = std::mem::take(&mut self.core.sockets.world.borrow_mut().drivers[self.driver].posted);
        for posted in posted {
            match posted {
                Posted::Listener(listener) => self.core.announce_listener(listener),
                Posted::Ready(id, what) => self.core.announce(id, what),
                Posted::Completed(id) => {
                    if let Some((result, gathered)) = self.core.sockets.complete(id.index()) {
                        self.core.completed(handler, id, result, gathered);
                    }
                }
            }
        }
    }
}

impl Driver for Sim {
    /// Never waits and never lets time pass: that is the net's affair.
    fn tick<H: Handler>(&mut self, handler: &mut H, _wait_max: Option<Duration>) -> io::Result<()> {
        let wake_at = self.core.wake_at();
        let now = self.core.sockets.world.borrow().now;
        self.core.begin(now, wake_at);
        self.announce_posted(handler);
        self.core.phases(handler);
        self.core.io.counters.ticked(Duration::ZERO);
        Ok(())
    }

    fn io(&mut self) -> &mut Io {
        &mut self.core.io
    }

    fn kind(&self) -> Kind {
        Kind::Sim
    }

    fn shutdown<H: Handler>(&mut self, handler: &mut H) {
        self.core.shutdown(handler);
    }
}

impl SimSockets {
    fn side(&self, index: u32) -> io::Result<Side> {
        self.sides.get(index as usize).copied().flatten().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn keep(&mut self, id: ConnId, side: Side) {
        let index = id.index() as usize;
        if index >= self.sides.len() {
            self.sides.resize(index + 1, None);
        }
        debug_assert!(self.sides[index].is_none());
        self.sides[index] = Some(side);
    }

    /// The outcome of an outstanding send. Its bytes are read only now, so that a buffer reused too early shows.
    fn complete(&mut self, index: u32) -> Option<(io::Result<usize>, usize)> {
        let Outstanding { side, mut batch } = self.outstanding.remove(&index)?;
        let mut world = self.world.borrow_mut();
        let result = if self.sides[index as usize].is_some() {
            world.send(side, batch.bytes())
        } else {
            world.counts.orphaned_completions += 1;
            Err(io::Error::from_raw_os_error(libc::ECANCELED))
        };
        world.counts.poisoned += 1;
        drop(world);
        let gathered = batch.len();
        batch.poison();
        batch.clear();
        self.spare_batches.push(batch);
        Some((result, gathered))
    }
}

impl Sockets for SimSockets {
    type Accepted = Side;

    fn accept(&mut self, listener: usize) -> io::Result<(Side, PeerAddress)> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let queue = &mut world.drivers[self.driver].listeners[listener].queue;
        if queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if world.random.chance(world.faults.no_memory) {
            world.counts.no_memory += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let Some(link) = queue.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let side = Side { link, end: 1 };
        world.note("accept", side, listener);
        Ok((side, PeerAddress::Ip(World::client_address(link))))
    }

    fn adopt(&mut self, id: ConnId, side: Side) -> io::Result<()> {
        self.keep(id, side);
        let mut world = self.world.borrow_mut();
        world.end(side).owner = Owner::Driver { driver: self.driver, id };
        let readiness = world.readiness(side);
        if readiness.readable {
            world.post(side, readiness);
        }
        Ok(())
    }

    fn answer(&mut self, index: u32, answer: &[u8]) {
        if let Ok(side) = self.side(index) {
            let mut world = self.world.borrow_mut();
            world.transmit(side, answer);
            world.shutdown(side);
        }
    }

    fn refuse(&mut self, side: Side, answer: &[u8]) {
        let mut world = self.world.borrow_mut();
        world.transmit(side, answer);
        world.shutdown(side);
        world.end(side).inbox.clear();
        world.close(side, false);
    }

    fn refuse_with_spare(&mut self, listener: usize, answer: &[u8]) -> bool {
        self.accept(listener).map(|(side, _)| self.refuse(side, answer)).is_ok()
    }

    fn close_listener(&mut self, listener: usize) {
        let mut world = self.world.borrow_mut();
        let queue = &mut world.drivers[self.driver].listeners[listener];
        queue.open = false;
        // As the kernel does to what is still queued.
        for link in std::mem::take(&mut queue.queue) {
            world.close(Side { link, end: 1 }, true);
        }
    }

    fn connect(&mut self, id: ConnId, target: &Target) -> io::Result<Option<PeerAddress>> {
        let Target::Ip { to, .. } = target else { return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)) };
        let owner = Owner::Driver { driver: self.driver, id };
        let side = self.world.borrow_mut().connect_to_address(owner, *to);
        self.keep(id, side);
        Ok(None)
    }

    fn connected(&mut self, id: ConnId) -> io::Result<PeerAddress> {
        let index = id.index();
        if let Some(error) = self.take_error(index) {
            return Err(error);
        }
        let side = self.side(index)?;
        let mut world = self.world.borrow_mut();
        match world.end(side) {
            End { established: true, target: Some(target), .. } => Ok(PeerAddress::Ip(*target)),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn recv<'a>(&'a mut self, _: usize, index: u32, buffer: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let side = self.side(index)?;
        let mut world = self.world.borrow_mut();
        let end = world.end(side);
        let received = end.inbox.len().min(buffer.len());
        if received > 0 {
            for (to, from) in buffer.iter_mut().zip(end.inbox.drain(..received)) {
                *to = from;
            }
            world.note("recv", side, received);
            world.room_made(side);
            return Ok(&mut buffer[..received]);
        }
        match end.error.take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None if end.fin_arrived || end.broken => Ok(&mut []),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&mut self, id: ConnId, batch: &mut Batch) -> io::Result<Option<usize>> {
        let index = id.index();
        let side = self.side(index)?;
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        if world.random.chance(world.faults.late_completion) {
            world.counts.late_completions += 1;
            let Owner::Driver { driver, id } = world.end(side).owner else {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            };
            world.plan_completion(driver, id);
            let empty = self.spare_batches.pop().unwrap_or_default();
            let batch = std::mem::replace(batch, empty);
            self.outstanding.insert(index, Outstanding { side, batch });
            return Ok(None);
        }
        let sent = world.send(side, batch.bytes());
        world.counts.poisoned += 1;
        batch.poison();
        sent.map(Some)
    }

    fn arm_writable(&mut self, _id: ConnId) -> io::Result<()> {
        Ok(()) // the world tells every sender that was cut short
    }

    fn shutdown(&mut self, index: u32) {
        if let Ok(side) = self.side(index) {
            self.world.borrow_mut().shutdown(side);
        }
    }

    fn close(&mut self, id: ConnId, reset: bool) -> bool {
        let index = id.index();
        if let Some(side) = self.sides.get_mut(index as usize).and_then(Option::take) {
            self.world.borrow_mut().close(side, reset);
        }
        false
    }

    fn take_error(&mut self, index: u32) -> Option<io::Error> {
        let side = self.side(index).ok()?;
        self.world.borrow_mut().end(side).error.take().map(io::Error::from_raw_os_error)
    }

    fn consumed(&mut self, bytes: &mut [u8]) {
        self.world.borrow_mut().counts.poisoned += 1;
        bytes.fill(0xdb);
    }
}
