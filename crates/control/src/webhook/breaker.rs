//! Whether a backend that has failed is asked again.
//!
//! ```text
//! closed --FAILURES_MAX failures in a row--> open --back-off over--> one call tries: answered --> closed
//!                                              ^                                   not answered -.
//!                                              '------------- back-off doubled -------------------'
//! ```

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row after which nobody is let through.
pub(super) const FAILURES_MAX: u32 = 8;

/// How long nobody is let through at first, and at most.
pub(super) const BACK_OFF: Duration = Duration::from_millis(500);
pub(super) const BACK_OFF_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// How often it has opened since it was closed last.
    opened: u32,
    /// When the next one may try.
    until: Option<Instant>,
    /// Somebody tries.
    trying: bool,
}

/// One call. Dropped without a word it has found out nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    tries: bool,
}

impl Breaker {
    /// Only the control thread is here, and never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// `None`: the backend is taken to be down.
    pub(super) fn admit(&self) -> Option<Pass<'_>> {
        let mut state = self.state();
        let tries = match state.until {
            None => false,
            Some(until) if until > Instant::now() || state.trying => return None,
            Some(_) => true,
        };
        state.trying |= tries;
        Some(Pass { breaker: self, tries })
    }
}

impl Pass<'_> {
    /// The backend was there, or it was not.
    pub(super) fn used(self, was_there: bool) {
        let mut state = self.breaker.state();
        if was_there {
            *state = State { trying: state.trying, ..State::default() };
            return;
        }
        state.failures += 1;
        // Those who were under way when it opened prove nothing new.
        let opens = if state.until.is_some() { self.tries } else { state.failures >= FAILURES_MAX };
        if opens {
            let back_off = BACK_OFF.saturating_mul(1 << state.opened.min(16)).min(BACK_OFF_MAX);
            state.until = Some(Instant::now() + back_off);
            state.opened += 1;
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.tries {
            self.breaker.state().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.admit().expect("let through").used(false);
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        (0..FAILURES_MAX).for_each(|_| fail(&breaker));
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            (1..FAILURES_MAX).for_each(|_| fail(&breaker));
            breaker.admit().expect("one failure is missing").used(true);
        }
        (0..FAILURES_MAX).for_each(|_| fail(&breaker));
        assert!(breaker.admit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_tries_and_waits_are_doubled_up_to_the_longest() {
        let breaker = opened();
        for back_off in [BACK_OFF, BACK_OFF * 2, BACK_OFF * 4, BACK_OFF * 8, BACK_OFF_MAX, BACK_OFF_MAX] {
            tokio::time::advance(back_off - Duration::from_millis(1)).await;
            assert!(breaker.admit().is_none(), "{back_off:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            let tries = breaker.admit().expect("its time is over");
            assert!(breaker.admit().is_none(), "one at a time");
            tries.used(false);
        }
        tokio::time::advance(BACK_OFF_MAX).await;
        breaker.admit().expect("its time is over").used(true);
        assert!(breaker.admit().is_some() && breaker.admit().is_some(), "closed");
        (0..FAILURES_MAX).for_each(|_| fail(&breaker));
        tokio::time::advance(BACK_OFF).await;
        assert!(breaker.admit().is_some(), "it begins with the shortest wait again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_try_to_the_next() {
        let breaker = opened();
        tokio::time::advance(BACK_OFF).await;
        drop(breaker.admit().expect("its time is over"));
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_under_way_when_it_opens_do_not_prolong_it() {
        let breaker = Breaker::default();
        let under_way: Vec<_> = (0..100).map(|_| breaker.admit().expect("closed")).collect();
        under_way.into_iter().for_each(|pass| pass.used(false));
        tokio::time::advance(BACK_OFF).await;
        assert!(breaker.admit().is_some());
    }
}
