//! Why clients failed, counted.

use std::collections::BTreeMap;

/// Reasons told apart; the rest is counted together.
const REASONS_MAX: usize = 32;

const OTHER: &str = "other reasons";

/// Reasons and how often each was met.
#[derive(Clone, Default, Debug)]
pub(crate) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub(crate) fn add(&mut self, reason: &str) {
        self.count(reason, 1);
    }

    pub(crate) fn merge(&mut self, other: &Reasons) {
        other.0.iter().for_each(|(reason, &count)| self.count(reason, count));
    }

    fn count(&mut self, reason: &str, count: u64) {
        if let Some(counted) = self.0.get_mut(reason) {
            *counted += count;
        } else {
            // A peer writes part of these texts, and a terminal shows them.
            let reason: String = reason.chars().flat_map(char::escape_debug).collect();
            let full = self.0.len() >= REASONS_MAX && !self.0.contains_key(&reason);
            *self.0.entry(if full { OTHER.to_owned() } else { reason }).or_default() += count;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, &count)| (&**reason, count))
    }
}

impl serde::Serialize for Reasons {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_their_number_is_bounded() {
        let mut reasons = Reasons::default();
        (0..1_000).for_each(|n| reasons.add(&format!("reason {}", n % 100)));
        assert!(reasons.iter().count() <= REASONS_MAX + 1);
        assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
        assert_eq!(reasons.iter().find(|(reason, _)| *reason == "reason 0"), Some(("reason 0", 10)));
    }

    #[test]
    fn what_a_peer_writes_cannot_steer_a_terminal() {
        let mut reasons = Reasons::default();
        reasons.add("closed: \u{1b}[2J");
        reasons.add("closed: \u{1b}[2J");
        assert_eq!(reasons.iter().collect::<Vec<_>>(), [("closed: \\u{1b}[2J", 2)]);
    }
}
