//! How much a client may send: buckets of frames and of bytes, which a connection has only where they are limited.
//!
//! Where one is empty the connection's input rests until there is something in it again. Nothing is refused and nothing lost:
//! the kernel's buffer fills, and TCP slows the client down.

use crate::moment::Moment;
use crate::settings::{Limits, Rate};
use std::time::Duration;

/// What a client has sent lately.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    frames: Bucket,
    bytes: Bucket,
    /// Input rests until then.
    until: Option<Moment>,
}

/// The time at which a bucket is full again, in nanoseconds since the clock's origin.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u64);

/// What so many take to come back.
fn time_of(count: u64, rate: Rate) -> u64 {
    count.saturating_mul(1_000_000_000) / u64::from(rate.per_second.get())
}

fn nanos(now: Duration) -> u64 {
    now.as_nanos() as u64
}

impl Bucket {
    /// Takes so many out, also where there are none: then they are owed.
    fn spend(&mut self, now: Duration, count: u64, rate: Rate) {
        self.0 = self.0.max(nanos(now)).saturating_add(time_of(count, rate));
    }

    /// How long it takes until there are so many in it.
    fn wait_for(self, now: Duration, count: u64, rate: Rate) -> Duration {
        let (now, full) = (nanos(now), time_of(rate.burst.get().into(), rate));
        Duration::from_nanos((self.0.max(now).saturating_add(time_of(count, rate))).saturating_sub(full + now))
    }
}

impl Meter {
    /// Whether anything is limited.
    pub(crate) fn is_wanted(limits: &Limits) -> bool {
        limits.messages.is_some() || limits.bytes.is_some()
    }

    /// So many bytes have come. Whether input has to rest behind them.
    pub(crate) fn bytes(&mut self, now: Duration, count: usize, rate: Option<Rate>) -> bool {
        let Some(rate) = rate else { return false };
        self.bytes.spend(now, count as u64, rate);
        self.rest(now, self.bytes.wait_for(now, 0, rate))
    }

    /// So many frames have been read.
    pub(crate) fn frames(&mut self, now: Duration, count: u32, rate: Option<Rate>) {
        if let Some(rate) = rate {
            self.frames.spend(now, count.into(), rate);
        }
    }

    /// Whether the next frame has to wait.
    pub(crate) fn is_next_too_soon(&mut self, now: Duration, rate: Option<Rate>) -> bool {
        rate.is_some_and(|rate| self.rest(now, self.frames.wait_for(now, 1, rate)))
    }

    fn rest(&mut self, now: Duration, time: Duration) -> bool {
        let has_to = time > Duration::ZERO;
        if has_to {
            self.until = self.until.max(Some(Moment::after(now, time)));
        }
        has_to
    }

    /// Until when input rests.
    pub(crate) fn until(&self) -> Option<Moment> {
        self.until
    }

    /// The rest is over.
    pub(crate) fn go_on(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU32::new(n).expect("not 0"));
        Some(Rate { per_second, burst })
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_of_frames_is_read_and_one_more_waits_for_its_place() {
        for (per_second, burst) in [(10, 5), (3, 1), (100_000, 100_000), (7, 1000)] {
            let (mut meter, rate) = (Meter::default(), rate(per_second, burst));
            for frame in 0..burst {
                assert!(!meter.is_next_too_soon(at(500), rate), "{frame} of {burst}");
                meter.frames(at(500), 1, rate);
            }
            assert!(meter.is_next_too_soon(at(500), rate), "{per_second} {burst}");
            let until = meter.until().expect("it rests").time();
            assert!(until > at(500) && !meter.is_next_too_soon(until, rate));
        }
    }

    #[test]
    fn what_was_read_all_the_same_is_owed() {
        let (mut meter, rate) = (Meter::default(), rate(10, 5));
        meter.frames(at(0), 25, rate);
        assert!(meter.is_next_too_soon(at(2_000), rate));
        assert_eq!(meter.until().expect("it rests").time(), at(2_100));
        meter.go_on();
        assert!(!meter.is_next_too_soon(at(2_100), rate));
        assert_eq!(meter.until(), None);
    }

    #[test]
    fn a_burst_of_bytes_is_read_and_one_more_rests_behind_it() {
        let rate = rate(1000, 500);
        assert!(!Meter::default().bytes(at(0), 500, rate));
        let mut meter = Meter::default();
        assert!(meter.bytes(at(0), 501, rate));
        assert_eq!(meter.until().expect("it rests").time(), at(100), "a tenth is the least");
        meter.go_on();
        assert!(!meter.bytes(at(100), 99, rate) && meter.bytes(at(100), 2, rate));
    }

    #[test]
    fn who_keeps_to_the_rate_never_rests_and_a_pause_gives_no_more_than_a_burst() {
        let (mut meter, rate) = (Meter::default(), rate(10, 5));
        for tenth in 0..1000 {
            assert!(!meter.is_next_too_soon(at(tenth * 100), rate), "{tenth}");
            meter.frames(at(tenth * 100), 1, rate);
        }
        let burst = (0..9).take_while(|_| {
            let is_in_time = !meter.is_next_too_soon(at(900_000), rate);
            meter.frames(at(900_000), 1, rate);
            is_in_time
        });
        assert_eq!(burst.count(), 5);
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let mut meter = Meter::default();
        meter.frames(at(0), u32::MAX, None);
        assert!(!meter.bytes(at(0), usize::MAX, None) && !meter.is_next_too_soon(at(0), None));
        assert!(!meter.is_next_too_soon(at(0), rate(1, 1)), "nor later");
        assert!(meter.bytes(at(0), usize::MAX, rate(1, 1)), "nothing overflows");
    }
}
