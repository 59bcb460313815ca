//! What a gateway for tests needs of the driver that it runs on.

use gateway::mailbox::Mailbox;
use gateway::stats::WorkerStats;
use std::sync::Arc;
use std::time::Duration;

/// How a client saw its connection end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The gateway's FIN.
    Fin,
    /// RST.
    Reset,
    /// Nobody listens any more.
    Refused,
}

/// Running workers and a network with clients, whose numbers are given out by `connect`.
pub(crate) trait Machine {
    /// A client of that worker; where the kernel chooses the worker, of any.
    fn connect(&mut self, worker: usize) -> usize;
    /// Sends as much as the network takes, and the rest in later steps.
    fn write(&mut self, client: usize, bytes: &[u8]);
    /// What came since the last call. Nothing while the client is not reading.
    fn read(&mut self, client: usize) -> Vec<u8>;
    /// How the connection ended, seen after all its bytes.
    fn ended(&mut self, client: usize) -> Option<Ended>;
    fn set_reading(&mut self, client: usize, reading: bool);
    /// Sends FIN behind what was written; reading goes on.
    fn shutdown_write(&mut self, client: usize);
    fn reset(&mut self, client: usize);
    /// Closes as a program does that ends.
    fn close(&mut self, client: usize);

    /// Lets something happen, at most until that time.
    fn step(&mut self, until: Duration);
    fn now(&self) -> Duration;
    /// What the workers take for Unix time at their clock's origin.
    fn unix_origin(&self) -> Duration;
    /// The mailbox of the control thread.
    fn mailbox(&mut self) -> &mut Mailbox;
    fn stats(&self) -> &[Arc<WorkerStats>];
    /// Nothing is cut, late or slow, so that counts of calls can be relied on.
    fn is_calm(&self) -> bool;
    /// From now on the worker does nothing, or something again. Only where time is virtual.
    fn freeze(&mut self, worker: usize, frozen: bool);
    /// Bodies that wait in the outboxes of all workers, where they can be looked at.
    fn bodies_in_use(&self) -> usize;
    /// Channels that anybody is or wants to be subscribed to, on all workers, where they can be looked at.
    fn local_channels(&self) -> usize;
    /// Whether every worker has ended.
    fn has_ended(&mut self) -> bool;
}
