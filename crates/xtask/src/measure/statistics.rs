//! Medians and spreads of a few rounds.

use serde::Serialize;

/// What several rounds came to.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// How many there were.
    pub rounds: usize,
}

impl Spread {
    /// `None` without a single value.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, least, most, rounds: sorted.len() })
    }
}

/// The values over those of a baseline measured in the same rounds: the median of the ratios round by round, because what
/// disturbs the machine disturbs neighbours in time alike.
pub fn ratio(values: &[f64], baseline: &[f64]) -> Option<Spread> {
    let ratios: Vec<f64> = values.iter().zip(baseline).map(|(value, base)| value / base).collect();
    Spread::of(&ratios).filter(|spread| spread.most.is_finite())
}

impl std::fmt::Display for Spread {
    /// `1.23 (1.20-1.31)` with as many decimals as asked for, two otherwise.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        let Spread { median, least, most, .. } = self;
        write!(f, "{median:.decimals$} ({least:.decimals$}-{most:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_not_the_mean() {
        let spread = Spread::of(&[9.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, least: 1.0, most: 9.0, rounds: 3 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // Twice the baseline in each round, though the machine got slower meanwhile.
        let twice = ratio(&[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0]).unwrap();
        assert_eq!((twice.median, twice.least, twice.most), (2.0, 2.0, 2.0));
        assert_eq!(ratio(&[1.0], &[0.0]), None);
        assert_eq!(ratio(&[], &[1.0]), None);
    }

    #[test]
    fn a_spread_shows_as_many_decimals_as_asked_for() {
        let spread = Spread { median: 1.234, least: 1.0, most: 2.0, rounds: 3 };
        assert_eq!(format!("{spread}"), "1.23 (1.00-2.00)");
        assert_eq!(format!("{spread:.1}"), "1.2 (1.0-2.0)");
    }
}
