//! How often a client may ask for something: a bucket of commands, kept as one number.

use crate::settings::Rate;
use std::time::Duration;

/// When a client's bucket is full again. Counted in what one command takes to come back, since the clock's origin and round in
/// a circle: 4 bytes that fit where a session has nothing. Each command moves it on by one.
#[derive(Debug, Default)]
pub(crate) struct Pace(u32);

/// A bucket is small against the circle.
const BURST_MAX: u32 = 1 << 24;

/// What becomes of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paced {
    /// It is run.
    Run,
    /// The bucket is empty: it is refused.
    Refuse,
    /// As many were refused as a bucket holds, without a pause in which it could fill: the client does not listen.
    End,
}

impl Pace {
    /// One command more.
    pub(crate) fn spend(&mut self, now: Duration, rate: Option<Rate>) -> Paced {
        let Some(Rate { per_second, burst }) = rate else { return Paced::Run };
        let now = (now.as_micros() * u128::from(per_second.get()) / 1_000_000) as u32;
        let burst = burst.get().min(BURST_MAX);
        // More than was ever owed is long past: the circle has gone on.
        let owed = Some(self.0.wrapping_sub(now)).filter(|&owed| owed <= 2 * burst).unwrap_or(0);
        if owed >= 2 * burst {
            return Paced::End;
        }
        self.0 = now.wrapping_add(owed + 1);
        if owed >= burst { Paced::Refuse } else { Paced::Run }
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

    #[test]
    fn a_burst_runs_the_same_again_is_refused_and_then_it_ends() {
        let mut pace = Pace::default();
        let mut spend = |n: usize| (0..n).map(|_| pace.spend(Duration::from_secs(7), rate(10, 5))).collect::<Vec<_>>();
        assert_eq!(spend(5), [Paced::Run; 5]);
        assert_eq!(spend(5), [Paced::Refuse; 5]);
        assert_eq!(spend(2), [Paced::End; 2]);
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused_and_who_pauses_gets_a_burst_again() {
        let (mut pace, rate) = (Pace::default(), rate(10, 5));
        for tenth in 0..1000 {
            assert_eq!(pace.spend(Duration::from_millis(tenth * 100), rate), Paced::Run, "{tenth}");
        }
        let later = Duration::from_secs(200);
        let burst = |pace: &mut Pace, at| (0..6).filter(|_| pace.spend(at, rate) == Paced::Run).count();
        assert_eq!(burst(&mut pace, later), 5);
        // Five ran and one was refused, which counts: six tenths later the bucket is full again.
        assert_eq!(burst(&mut pace, later + Duration::from_millis(600)), 5);
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let mut pace = Pace::default();
        assert!((0..10_000).all(|_| pace.spend(Duration::ZERO, None) == Paced::Run));
        assert_eq!(pace.spend(Duration::ZERO, rate(1, 1)), Paced::Run);
        assert_eq!(pace.spend(Duration::ZERO, rate(1_000_000, u32::MAX)), Paced::Run, "nothing overflows");
    }

    #[test]
    fn after_any_silence_there_is_a_burst_again() {
        for (days, per_second) in [(1, 1), (50, 1000), (4000, 7), (1, 1_000_000), (365, 1_000_000)] {
            let mut pace = Pace::default();
            for now in [Duration::ZERO, Duration::from_secs(days * 86_400)] {
                let run = (0..9).filter(|_| pace.spend(now, rate(per_second, 5)) == Paced::Run).count();
                assert_eq!(run, 5, "{days} days at {per_second} a second");
            }
        }
    }
}
