//! How far a run is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// Between two changes of a bar's rates; faster ones cannot be read.
const BAR_PERIOD: Duration = Duration::from_millis(500);

/// A number to show.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// It grows, and how fast is of interest.
    Growing(&'static str, u64),
    /// A state, or something that better stays zero.
    Still(&'static str, u64),
}

/// One part of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    label: &'static str,
    total: u64,
    unit: &'static str,
    bar: Option<ProgressBar>,
    rates: Rates,
}

/// How fast counts grow, between two looks.
#[derive(Debug)]
struct Rates {
    period: Duration,
    since: Instant,
    /// In the order in which they are always given.
    before: Vec<u64>,
}

impl Progress {
    /// A part that is done when `total` things are.
    pub(crate) fn counting(label: &'static str, total: u64) -> Progress {
        Progress::new(label, total, "")
    }

    /// A part that is over after so long.
    pub(crate) fn timed(label: &'static str, duration: Duration) -> Progress {
        Progress::new(label, duration.as_secs(), " s")
    }

    fn new(label: &'static str, total: u64, unit: &'static str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = format!("{{prefix:>11}} [{{bar:32}}] {{human_pos}}/{{human_len}}{unit}{{wide_msg}}");
            let style = ProgressStyle::with_template(&template);
            bar.set_style(style.expect("the template is valid").progress_chars("=> "));
            bar.set_prefix(label);
            bar
        });
        let period = if bar.is_some() { BAR_PERIOD } else { LINE_PERIOD };
        Progress { label, total, unit, bar, rates: Rates { period, since: Instant::now(), before: Vec::new() } }
    }

    /// So much is done.
    pub(crate) fn at(&mut self, done: u64, counts: &[Count]) {
        if let Some(bar) = &self.bar {
            bar.set_position(done.min(self.total));
        }
        let Some(text) = self.rates.write(Instant::now(), counts) else { return };
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => eprintln!("{}: {done}/{}{}{text}", self.label, self.total, self.unit),
        }
    }
}

impl Rates {
    /// The counts with their rates; `None` if it is too early to say.
    fn write(&mut self, now: Instant, counts: &[Count]) -> Option<String> {
        if self.before.is_empty() {
            // Rates need a beginning; what was counted before this part is not of it.
            self.before = counts.iter().map(Count::value).collect();
            self.since = now;
        }
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < self.period {
            return None;
        }
        self.since = now;
        let mut text = String::new();
        for (count, before) in counts.iter().zip(&mut self.before) {
            let written = match *count {
                Count::Growing(name, value) => {
                    let rate = value.saturating_sub(*before) as f64 / elapsed.as_secs_f64();
                    write!(text, ", {value} {name} ({rate:.0}/s)")
                }
                Count::Still(name, value) => write!(text, ", {value} {name}"),
            };
            written.expect("a string takes everything");
            *before = count.value();
        }
        Some(text)
    }
}

impl Count {
    fn value(&self) -> u64 {
        match *self {
            Count::Growing(_, value) | Count::Still(_, value) => value,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_since_the_last_line() {
        let start = Instant::now();
        let mut rates = Rates { period: Duration::from_secs(2), since: start, before: Vec::new() };
        let mut at = |seconds, sent, ready| {
            let counts = [Count::Growing("sent", sent), Count::Still("ready", ready)];
            rates.write(start + Duration::from_secs(seconds), &counts)
        };
        assert_eq!(at(0, 1_000, 7), None, "what was there before is no rate");
        assert_eq!(at(1, 1_500, 7), None, "too early");
        assert_eq!(at(2, 2_000, 6).as_deref(), Some(", 2000 sent (500/s), 6 ready"));
        assert_eq!(at(12, 2_010, 6).as_deref(), Some(", 2010 sent (1/s), 6 ready"));
    }
}
