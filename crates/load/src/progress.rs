//! How far a run is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// One part of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    label: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Progress {
    /// A part that is done when `total` is reached.
    pub(crate) fn begin(label: &'static str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:>11} [{bar:32}] {human_pos}/{human_len} {per_sec} {msg}");
            bar.set_style(style.expect("the template is valid").progress_chars("=> "));
            bar.set_prefix(label);
            bar
        });
        Progress { label, total, bar, next_line: Instant::now() + LINE_PERIOD }
    }

    /// So much is done.
    pub(crate) fn at(&mut self, done: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(message.to_owned());
                bar.set_position(done.min(self.total));
            }
            None if Instant::now() >= self.next_line => {
                self.next_line = Instant::now() + LINE_PERIOD;
                eprintln!("{}: {done}/{} {message}", self.label, self.total);
            }
            None => {}
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
