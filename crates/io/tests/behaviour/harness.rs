//! What the suite needs of a driver and its clients.

use std::time::Duration;

use io::{Counters, Io, Options, Target};

use crate::probe::Probe;

/// How a client saw its connection end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Fin,
    Reset,
    Refused,
}

pub(crate) trait Harness: Sized {
    type Client: Client;
    /// Receives that one tick has done before the handler hears of the first.
    const RECEIVES_AHEAD: usize = 1;

    fn start(options: Options) -> Self;
    fn connect(&mut self) -> Self::Client;
    /// Where `connect` connects to.
    fn target(&self) -> Target;
    /// An address at which nobody listens.
    fn dead_target(&self) -> Target;

    fn probe(&mut self) -> &mut Probe;
    fn both(&mut self) -> (&mut Probe, &mut Io);
    /// Ticks once if there is something to do, and lets a little time pass if not.
    fn step(&mut self);
    /// The present time of the driver's clock.
    fn now(&self) -> Duration;
    /// The driver alone, as often as it wants and without letting time pass.
    fn shutdown(&mut self);
    /// A fault may have broken or slowed connections, so counts of calls are not to be relied on.
    fn is_calm(&self) -> bool;

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let give_up = self.now() + Duration::from_secs(60);
        while !done(self) {
            assert!(self.now() < give_up, "waited in vain: {what}");
            self.step();
        }
    }

    /// Long enough for everything under way to arrive; for claims that something does not happen.
    fn settle(&mut self) {
        let until = self.now() + Duration::from_millis(300);
        self.until("time passes", |h| h.now() >= until);
    }

    /// A new client, and its connection opened.
    fn open(&mut self) -> (Self::Client, io::ConnId) {
        let before = self.probe().opened.len();
        let client = self.connect();
        self.until("the connection opens", |h| h.probe().opened.len() > before);
        let id = self.probe().nth(before);
        (client, id)
    }

    fn counters(&mut self) -> std::sync::Arc<Counters> {
        self.both().1.counters()
    }
}

/// Never blocks: what cannot be written at once is written by later calls of any method.
pub(crate) trait Client {
    fn write(&mut self, bytes: &[u8]);
    /// All that came so far; reads unless told not to.
    fn received(&mut self) -> &[u8];
    fn set_reading(&mut self, reading: bool);
    /// Sends FIN behind what was written.
    fn shutdown_write(&mut self);
    fn reset(&mut self);
    /// How the other side ended it; also reads, unless told not to.
    fn ended(&mut self) -> Option<Ended>;
    /// FIN in both directions.
    fn close(self);
}
