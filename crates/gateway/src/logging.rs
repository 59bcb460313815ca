//! Log lines to stderr, through a bounded queue that never makes the writer of a line wait.
//!
//! A worker that logs must not stop for a slow terminal or a full pipe, so a line that finds the queue full is dropped
//! and counted. One thread of its own writes the queue out: workers may have private tables of open files and must not
//! write to a file by number themselves.

use crate::config::{Levels, Log, LogFormat};
use std::io::{self, IsTerminal, Write};
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// The running log. Dropping it writes out what is queued, so keep it until the end of `main`.
#[derive(Debug)]
pub struct Logs {
    levels: Reload,
    dropped: ErrorCounter,
    /// Its drop ends the writing thread once the queue is empty.
    _writer: WorkerGuard,
}

/// Changes the levels of a running log; cheap to clone and to give to the thread that reloads the config.
#[derive(Clone, Debug)]
pub struct Reload(reload::Handle<Targets, Registry>);

/// Reads how many lines were dropped; cheap to clone and to give to the metrics.
#[derive(Clone, Debug)]
pub struct Dropped(ErrorCounter);

impl Logs {
    /// Starts logging to stderr for the whole process.
    ///
    /// # Errors
    /// When the process logs already.
    pub fn start(log: &Log) -> Result<Self, tracing::subscriber::SetGlobalDefaultError> {
        let is_coloured =
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (subscriber, logs) = build(log, io::stderr(), is_coloured);
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(logs)
    }

    /// The handle that changes the levels.
    pub fn reload(&self) -> Reload {
        self.levels.clone()
    }

    /// The handle that reads the drop count.
    pub fn dropped(&self) -> Dropped {
        Dropped(self.dropped.clone())
    }
}

impl Reload {
    /// From now on these lines are wanted. Also when it comes after the end of the log, where it has no effect.
    pub fn set(&self, levels: &Levels) {
        // It only fails when the subscriber is gone.
        let _ = self.0.reload(targets(levels));
    }
}

impl Dropped {
    /// Lines since the start that found the queue full.
    pub fn lines(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

/// A subscriber that writes to `writer`. The colours are for a terminal only.
pub fn build(
    log: &Log,
    writer: impl Write + Send + 'static,
    is_coloured: bool,
) -> (impl Subscriber + Send + Sync, Logs) {
    let (queue, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(log.queue_lines as usize)
        .lossy(true)
        .thread_name("log")
        .finish(writer);
    let dropped = queue.error_counter();
    let (levels, handle) = reload::Layer::new(targets(&log.level));
    let subscriber = Registry::default().with(lines(log.format, queue, is_coloured).with_filter(levels));
    (subscriber, Logs { levels: Reload(handle), dropped, _writer: guard })
}

fn lines(format: LogFormat, queue: NonBlocking, is_coloured: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = fmt::layer().with_writer(queue).with_ansi(is_coloured && format == LogFormat::Text);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    }
}

fn targets(levels: &Levels) -> Targets {
    levels.as_str().parse().expect("`Levels` is a subset of what the filter reads; a test reads all of its kinds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    /// Keeps what was written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Stands still in its first write, like a full pipe, until told to go on.
    struct Stuck {
        kept: Kept,
        entered: Sender<()>,
        go_on: Receiver<()>,
        is_free: bool,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.is_free {
                self.is_free = true;
                self.entered.send(()).unwrap();
                self.go_on.recv().unwrap();
            }
            self.kept.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(log: &Log, is_coloured: bool, act: impl FnOnce(&Logs)) -> String {
        let kept = Kept::default();
        let (subscriber, logs) = build(log, kept.clone(), is_coloured);
        with_default(subscriber, || act(&logs));
        drop(logs); // Writes out the queue.
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    fn log(level: &str, format: LogFormat) -> Log {
        Log { level: level.parse().unwrap(), format, ..Log::default() }
    }

    #[test]
    fn every_kind_of_level_reads_as_a_filter() {
        for level in ["off", "error", "warn", "info", "debug", "trace", "info,tidegate::api=debug", "hub=trace,warn"] {
            assert_eq!(targets(&level.parse().unwrap()).to_string().matches(',').count(), level.matches(',').count());
        }
    }

    #[test]
    fn lines_below_the_level_are_not_written_until_it_is_changed() {
        let text = written(&log("info", LogFormat::Text), false, |logs| {
            tracing::info!("first");
            tracing::debug!("second");
            logs.reload().set(&"debug".parse().unwrap());
            tracing::debug!("third");
            logs.reload().set(&"off".parse().unwrap());
            tracing::error!("fourth");
        });
        assert!(text.contains("first") && text.contains("third"), "{text}");
        assert!(!text.contains("second") && !text.contains("fourth"), "{text}");
    }

    #[test]
    fn a_module_has_its_own_level() {
        let text = written(&log("warn,tidegate::api=debug", LogFormat::Text), false, |_| {
            tracing::debug!(target: "tidegate::api", "wanted");
            tracing::info!(target: "tidegate::other", "unwanted");
        });
        assert!(text.contains(" wanted") && !text.contains("unwanted"), "{text}");
    }

    #[test]
    fn text_has_colours_only_where_asked_and_json_never() {
        let line = |log: &Log, is_coloured| written(log, is_coloured, |_| tracing::warn!(code = 3008, "closed"));
        let text = log("info", LogFormat::Text);
        assert!(line(&text, true).contains('\x1b'));
        assert!(!line(&text, false).contains('\x1b'));
        let json = line(&log("info", LogFormat::Json), true);
        let value: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
        assert_eq!(
            (&value["message"], &value["code"], &value["level"]),
            (&"closed".into(), &3008.into(), &"WARN".into())
        );
        assert_eq!(json.matches('\n').count(), 1);
    }

    #[test]
    fn a_full_queue_drops_and_counts_lines_and_nobody_waits() {
        const QUEUE: u32 = 4;
        const LINES: u64 = 20;
        let (entered, has_entered) = channel();
        let (let_go, go_on) = channel();
        let kept = Kept::default();
        let writer = Stuck { kept: kept.clone(), entered, go_on, is_free: false };
        let (subscriber, logs) = build(&Log { queue_lines: QUEUE, ..Log::default() }, writer, false);
        with_default(subscriber, || {
            tracing::info!("line");
            has_entered.recv().unwrap(); // The queue is empty now, and its reader stands still.
            (0..LINES).for_each(|_| tracing::info!("line"));
        });
        assert_eq!(logs.dropped().lines(), LINES - u64::from(QUEUE));
        let_go.send(()).unwrap();
        drop(logs);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u32, 1 + QUEUE);
    }
}
