//! How many signatures a worker checks per tick.
//!
//! A thousand clients that come back at once bring a thousand tokens. Checked as they arrive, those of public keys would
//! keep everybody else waiting for a tenth of a second; so a tick has a budget, and a session that finds it spent waits for
//! its turn with its input held.

use crate::auth::token::COST_MAX;

/// What one tick may spend, in units of an HMAC: 16 signatures of public keys, or 512 HMACs; about 1 ms of either.
pub const COST_PER_TICK: u32 = 512;

const _: () = assert!(COST_PER_TICK >= COST_MAX, "each token has its turn in some tick");

/// One worker's budget.
#[derive(Debug)]
pub struct Verifications {
    left: u32,
    waiting: usize,
}

impl Default for Verifications {
    fn default() -> Self {
        Self { left: COST_PER_TICK, waiting: 0 }
    }
}

impl Verifications {
    /// A new tick begins.
    pub fn renew(&mut self) {
        self.left = COST_PER_TICK;
    }

    /// Spends on a session that comes along; not while others wait, and not what is not there.
    pub(crate) fn spend(&mut self, cost: u32) -> bool {
        self.waiting == 0 && self.take(cost)
    }

    /// One session more waits for its turn.
    pub fn queue(&mut self) {
        self.waiting += 1;
    }

    /// Spends on the session that has waited the longest. `false`: not in this tick.
    pub fn spend_on_next(&mut self, cost: u32) -> bool {
        let can = self.take(cost);
        self.waiting -= usize::from(can);
        can
    }

    /// The session that has waited the longest is gone.
    pub fn forget_next(&mut self) {
        self.waiting -= 1;
    }

    fn take(&mut self, cost: u32) -> bool {
        let can = cost <= self.left;
        if can {
            self.left -= cost;
        }
        can
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_spends_its_budget_and_no_more_and_nobody_overtakes() {
        let mut budget = Verifications::default();
        let asymmetric = crate::auth::token::ASYMMETRIC_COST;
        let done = (0..100).filter(|_| budget.spend(asymmetric)).count();
        assert_eq!(done as u32, COST_PER_TICK / asymmetric);
        assert!(!budget.spend(1));
        budget.queue();
        budget.renew();
        assert!(!budget.spend(1), "another one has waited longer");
        assert!(budget.spend_on_next(asymmetric));
        assert!(budget.spend(1));
    }
}
