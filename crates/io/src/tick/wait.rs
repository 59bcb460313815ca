//! How a driver on a real kernel waits between ticks: spin for a while if it was told to, announce the sleep, look into
//! the mailboxes once more, sleep.

use std::io;
use std::time::Duration;

use crate::clock::Clock;
use crate::handler::Handler;
use crate::wake::WakeReceiver;

/// A driver that sleeps in the kernel.
pub(crate) trait Waits {
    /// Looks for events, waiting for the first at most that long (`None`: as long as it takes).
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// Events were found and are not handled yet.
    fn has_events(&self) -> bool;
    /// When there is something to do without any event: a deadline, an alarm, or work that was left.
    fn wake_at(&self) -> Option<Duration>;
    /// Where other threads see that it sleeps.
    fn wake(&self) -> &WakeReceiver;
    /// The worker's clock.
    fn clock(&self) -> Clock;
    /// How long to look without sleeping before every sleep.
    fn spin(&self) -> Duration;

    /// Waits for events, or not at all if there is work. Returns the moment for which it was going to wake by itself.
    fn wait<H: Handler>(&mut self, handler: &H, wait_max: Option<Duration>) -> io::Result<Option<Duration>> {
        let wake_at = self.wake_at();
        if self.has_events() {
            return Ok(wake_at);
        }
        let mut timeout = wait_max;
        if let Some(at) = wake_at {
            let left = at.saturating_sub(self.clock().now());
            timeout = Some(timeout.map_or(left, |max| max.min(left)));
        }
        if timeout == Some(Duration::ZERO) {
            self.look(timeout)?;
            return Ok(wake_at);
        }
        if !self.spin().is_zero() {
            if self.spin_for_work(handler, timeout)? {
                return Ok(wake_at);
            }
            // The spin was part of the wait; without this, deadlines and alarms would come late by it.
            timeout = timeout.map(|timeout| timeout.saturating_sub(self.spin()));
        }
        self.wake().begin_sleep();
        let timeout = if handler.has_mail() { Some(Duration::ZERO) } else { timeout };
        let result = self.look(timeout);
        self.wake().end_sleep();
        result.map(|()| wake_at)
    }

    /// Looks for events without sleeping; true as soon as there is something to do.
    fn spin_for_work<H: Handler>(&mut self, handler: &H, timeout: Option<Duration>) -> io::Result<bool> {
        let clock = self.clock();
        let until = clock.now() + timeout.map_or(self.spin(), |timeout| timeout.min(self.spin()));
        loop {
            self.look(Some(Duration::ZERO))?;
            if self.has_events() || handler.has_mail() {
                return Ok(true);
            }
            if clock.now() >= until {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Closed, ConnId, Flow, Io, Peer, Wake};

    /// Finds nothing, and notes how long it was to wait for it.
    struct Idle {
        looks: Vec<Option<Duration>>,
        wake: WakeReceiver,
        spin: Duration,
    }

    impl Waits for Idle {
        fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            self.looks.push(timeout);
            Ok(())
        }

        fn has_events(&self) -> bool {
            false
        }

        fn wake_at(&self) -> Option<Duration> {
            None
        }

        fn wake(&self) -> &WakeReceiver {
            &self.wake
        }

        fn clock(&self) -> Clock {
            Clock::start()
        }

        fn spin(&self) -> Duration {
            self.spin
        }
    }

    struct Nobody;

    impl Handler for Nobody {
        fn opened(&mut self, _: &mut Io, _: ConnId, _: Peer) {}
        fn received(&mut self, _: &mut Io, _: ConnId, _: &mut [u8]) -> Flow {
            Flow::Continue
        }
        fn gather(&mut self, _: ConnId, _: &mut Batch) {}
        fn sent(&mut self, _: &mut Io, _: ConnId, _: usize) {}
        fn expired(&mut self, _: &mut Io, _: ConnId) {}
        fn closed(&mut self, _: &mut Io, _: ConnId, _: Closed) {}
        fn woken(&mut self, _: &mut Io) {}
        fn has_mail(&self) -> bool {
            false
        }
        fn ticked(&mut self, _: &mut Io) {}
    }

    #[test]
    fn the_spin_is_part_of_the_wait() {
        let millis = Duration::from_millis;
        for (spin, wait, slept) in [(0, 10, 10), (2, 10, 8), (3, 2, 0)] {
            let wake = Wake::new().unwrap().receiver();
            let mut idle = Idle { looks: Vec::new(), wake, spin: millis(spin) };
            idle.wait(&Nobody, Some(millis(wait))).unwrap();
            assert_eq!(idle.looks.pop(), Some(Some(millis(slept))), "spin {spin}, wait {wait}");
            assert!(idle.looks.iter().all(|look| *look == Some(Duration::ZERO)), "nothing sleeps while it spins");
        }
    }
}
