//! A fleet on its threads, as the conductor sees it: one.

use crate::fleet::{self, Census, Event, Gauges, Letter, Letters, Outcome, Plan, Post, Reading, Script, Tally};
use crate::loops::Share;
use io::Clock;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
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

/// What remains of all loops.
#[derive(Debug)]
pub(crate) struct Remains<S> {
    pub(crate) tally: Tally,
    /// The most clients that were ready at one time.
    pub(crate) ready_max: u64,
    /// Pings that each client got, in no order.
    pub(crate) pings: Vec<u32>,
    /// One of each loop.
    pub(crate) scripts: Vec<S>,
}

/// A running fleet.
#[derive(Debug)]
pub(crate) struct Crew<S> {
    name: &'static str,
    clock: Clock,
    census: Arc<Census>,
    loops: Vec<Member<S>>,
    gauges: Vec<Arc<Gauges>>,
    events: Receiver<(u32, Event)>,
    /// By event: how many loops have told it.
    told: [usize; Event::COUNT],
}

/// One loop.
#[derive(Debug)]
struct Member<S> {
    letters: Letters,
    /// `None` once it was joined.
    thread: Option<JoinHandle<std::io::Result<Outcome<S>>>>,
}

/// Tells that a thread has ended, however it ended.
struct Farewell(u32, Sender<(u32, Event)>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // The conductor may have ended before.
        let _ = self.1.send((self.0, Event::Over));
    }
}

impl<S: Script> Crew<S> {
    /// Starts it, with a script for each loop; its clients begin to open, or what else the plan says.
    pub(crate) fn start(plan: Plan, mut script: impl FnMut(Share) -> S, clock: Clock) -> Result<Crew<S>, Failure> {
        let name = plan.name;
        let failure = |error: std::io::Error| Failure::runtime(format!("cannot start the {name}: {error}"));
        // All wakes before the first thread: from then on a loop sees only descriptors that it made or kept.
        let letters: Result<Vec<Letters>, _> = plan.loops.shares().map(|_| Letters::new()).collect();
        let (plan, census, started) = (Arc::new(plan), Arc::new(Census::default()), clock.now());
        let (sender, events) = mpsc::channel();
        let (mut loops, mut gauges) = (Vec::new(), Vec::new());
        for (share, letters) in plan.loops.shares().zip(letters.map_err(failure)?) {
            let shown = Arc::new(Gauges::default());
            gauges.push(Arc::clone(&shown));
            let post = Post {
                clock,
                started,
                letters: letters.clone(),
                events: sender.clone(),
                gauges: shown,
                census: Arc::clone(&census),
            };
            let (plan, script, farewell) = (Arc::clone(&plan), script(share), Farewell(share.number, sender.clone()));
            let thread = std::thread::Builder::new().name(format!("{name} {}", share.number)).spawn(move || {
                let _farewell = farewell;
                fleet::run(plan, share, script, post)
            });
            loops.push(Member { letters, thread: Some(thread.map_err(failure)?) });
        }
        Ok(Crew { name, clock, census, loops, gauges, events, told: [0; Event::COUNT] })
    }

    /// The measured part begins.
    pub(crate) fn go(&self) {
        self.post(Letter::Go { at: self.clock.now() });
    }

    /// The measured part has ended.
    pub(crate) fn measured(&self) {
        self.post(Letter::Measured);
    }

    /// Nothing new is to be begun.
    pub(crate) fn finish(&self) {
        self.post(Letter::Finish);
    }

    fn post(&self, letter: Letter) {
        self.loops.iter().for_each(|member| member.letters.post(letter));
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading::of(&self.gauges)
    }

    pub(crate) fn gauges(&self) -> &[Arc<Gauges>] {
        &self.gauges
    }

    /// Waits until all loops have told `wanted`, at most until `until`, and looks at the gauges meanwhile. Whether they have.
    pub(crate) fn wait(
        &mut self,
        wanted: Event,
        until: Option<Instant>,
        mut look: impl FnMut(&Reading),
    ) -> Result<bool, Failure> {
        while self.told[wanted as usize] < self.loops.len() {
            look(&self.reading());
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(left.map_or(LOOK_PERIOD, |left| left.min(LOOK_PERIOD))) {
                Ok((number, event)) => {
                    self.told[event as usize] += 1;
                    if event == Event::Over && wanted != Event::Over {
                        self.join(number as usize)?;
                        return Err(Failure::runtime(format!("the {} ended by themselves", self.name)));
                    }
                }
                Err(RecvTimeoutError::Timeout) if left.is_some_and(|left| left <= LOOK_PERIOD) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {}
                // Each thread says farewell before its sender goes, so all farewells have come.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(true)
    }

    /// Lets all clients leave, looks at the gauges meanwhile, and ends.
    pub(crate) fn end(mut self, look: impl FnMut(&Reading)) -> Result<Remains<S>, Failure> {
        self.post(Letter::Close { at: self.clock.now() });
        self.wait(Event::Over, None, look)?;
        let mut remains = Remains { tally: Tally::default(), ready_max: 0, pings: Vec::new(), scripts: Vec::new() };
        for number in 0..self.loops.len() {
            let outcome = self.join(number)?;
            remains.tally.merge(outcome.tally);
            remains.pings.extend(outcome.pings);
            remains.scripts.push(outcome.script);
        }
        remains.ready_max = self.census.most();
        Ok(remains)
    }

    fn join(&mut self, number: usize) -> Result<Outcome<S>, Failure> {
        let ended = || Failure::runtime(format!("the {} have ended before", self.name));
        match self.loops[number].thread.take().ok_or_else(ended)?.join() {
            Ok(result) => result.map_err(|error| Failure::runtime(format!("event loop of the {}: {error}", self.name))),
            Err(panic) => resume_unwind(panic),
        }
    }
}
