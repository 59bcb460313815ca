//! A fleet on its thread, as the conductor sees it.

use crate::fleet::{self, Event, Gauges, Letter, Letters, Outcome, Plan, Script};
use io::Clock;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the gauges.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Why there is no report.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// The command line is to blame.
    pub(crate) usage: bool,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), usage: true }
    }

    pub(crate) fn runtime(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), usage: false }
    }
}

/// A running fleet.
#[derive(Debug)]
pub(crate) struct Crew<S> {
    name: &'static str,
    letters: Letters,
    events: Receiver<Event>,
    gauges: Arc<Gauges>,
    thread: Option<JoinHandle<std::io::Result<Outcome<S>>>>,
}

impl<S: Script> Crew<S> {
    /// Starts it; its clients begin to open, or what else the plan says.
    pub(crate) fn start(plan: Plan, script: S, clock: Clock) -> Result<Crew<S>, Failure> {
        let name = plan.name;
        let failure = |error: std::io::Error| Failure::runtime(format!("cannot start the {name}: {error}"));
        let letters = Letters::new().map_err(failure)?;
        let gauges = Arc::new(Gauges::default());
        let (sender, events) = mpsc::channel();
        let (letters_of, gauges_of) = (letters.clone(), Arc::clone(&gauges));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || fleet::run(Arc::new(plan), script, clock, letters_of, sender, gauges_of))
            .map_err(failure)?;
        Ok(Crew { name, letters, events, gauges, thread: Some(thread) })
    }

    pub(crate) fn post(&self, letter: Letter) {
        self.letters.post(letter);
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Waits for `wanted`, at most until `until`, and looks at the gauges meanwhile. Whether it came.
    pub(crate) fn wait(
        &mut self,
        wanted: Event,
        until: Option<Instant>,
        mut look: impl FnMut(&Gauges),
    ) -> Result<bool, Failure> {
        loop {
            look(&self.gauges);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(left.map_or(LOOK_PERIOD, |left| left.min(LOOK_PERIOD))) {
                Ok(event) if event == wanted => return Ok(true),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left <= LOOK_PERIOD) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.join()?;
                    return Err(Failure::runtime(format!("the {} ended by themselves", self.name)));
                }
            }
        }
    }

    /// Lets all clients leave, and ends.
    pub(crate) fn end(mut self) -> Result<Outcome<S>, Failure> {
        self.letters.post(Letter::Close);
        self.join()
    }

    fn join(&mut self) -> Result<Outcome<S>, Failure> {
        let ended = || Failure::runtime(format!("the {} have ended before", self.name));
        match self.thread.take().ok_or_else(ended)?.join() {
            Ok(result) => result.map_err(|error| Failure::runtime(format!("event loop of the {}: {error}", self.name))),
            Err(panic) => resume_unwind(panic),
        }
    }
}
