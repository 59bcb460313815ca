//! What connections ask their backend: letters of the workers become calls, and what comes of these becomes letters.
//!
//! A worker has at most as many questions without an answer as its mailbox reserves room for, so what is under way here is
//! bounded by that; how many of them run at once is [`control::webhook::Options::calls_max`].

use crate::keys::Keys;
use crate::letter::{AskBackend, Letter};
use crate::mailbox::Party;
use conn::webhook::{Answer, Event, Question};
use control::metrics::WebhookSample;
use control::webhook::{Caller, Counts, Endpoint, Notice, Notices, Outcome, Target};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Between two lines in the log about calls of the same kind that went wrong.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Who answers what.
#[derive(Debug, Default)]
pub struct Backends {
    asked: [Option<Endpoint>; Event::ALL.len()],
    told: Option<Arc<Endpoint>>,
    notices_max: usize,
}

impl Backends {
    /// The targets of those events about which there is somebody to be asked.
    pub fn new(caller: &Arc<Caller>, targets: impl IntoIterator<Item = (Event, Target)>) -> Self {
        let mut backends = Self::default();
        for (event, target) in targets {
            backends.asked[event as usize] = Some(Endpoint::new(caller.clone(), target));
        }
        backends
    }

    /// The same, and who is told what it has not asked for; so many notices may wait.
    #[must_use]
    pub fn telling(self, told: Option<Endpoint>, notices_max: usize) -> Self {
        Self { told: told.map(Arc::new), notices_max, ..self }
    }
}

/// What of the questions outlives a reload, shared between those who ask and those who look.
#[derive(Debug)]
pub(super) struct Switchboard {
    /// Read and written by the control thread's tasks only, so nobody ever waits for it.
    backends: RwLock<Arc<Backends>>,
    counts: [Counts; Event::ALL.len()],
    logged: RwLock<[Option<Instant>; Event::ALL.len()]>,
    /// What the backend is told, and where.
    pub(super) notices: Arc<Notices>,
    told: watch::Sender<Option<Arc<Endpoint>>>,
}

impl Switchboard {
    /// Of the process with this uid. Nobody is asked yet, and nobody told.
    pub(super) fn new(node: String) -> Self {
        Self {
            backends: RwLock::default(),
            counts: Default::default(),
            logged: RwLock::default(),
            notices: Notices::new(node, 0),
            told: watch::channel(None).0,
        }
    }

    /// Tells the backend what there is to be told, for as long as it is run.
    pub(super) async fn tell(&self) {
        self.notices.deliver(self.told.subscribe()).await;
    }

    pub(super) fn set(&self, backends: Backends) {
        self.notices.set_max(backends.notices_max);
        self.told.send_replace(backends.told.clone());
        *self.backends.write().expect("nobody panics while holding it") = Arc::new(backends);
    }

    fn backends(&self) -> Arc<Backends> {
        self.backends.read().expect("nobody panics while holding it").clone()
    }

    /// What became of the calls about those events about which there is somebody to be asked.
    pub(super) fn sample(&self) -> Vec<WebhookSample> {
        let backends = self.backends();
        let known = Event::ALL.into_iter().filter(|&event| backends.asked[event as usize].is_some());
        known.map(|event| self.counts[event as usize].sample(event.word())).collect()
    }

    async fn ask(&self, question: &Question) -> Answer {
        let (event, backends) = (question.about.event(), self.backends());
        // A reload may have taken it away since the question was asked.
        let Some(endpoint) = &backends.asked[event as usize] else { return Answer::None };
        let begun = Instant::now();
        let body = endpoint.call(question.headers.as_deref().unwrap_or_default(), question.to_json()).await;
        let (outcome, answer) = match &body {
            Err(fault) => {
                self.log(event, fault);
                (Outcome::from(fault), Answer::None)
            }
            Ok(body) => match Answer::read(event, body) {
                Ok(answer) => (Outcome::Ok, answer),
                Err(ill) => {
                    self.log(event, &ill);
                    (Outcome::Ill, Answer::None)
                }
            },
        };
        self.counts[event as usize].count(outcome, begun.elapsed());
        answer
    }

    /// A backend that is down is worth a line, and not one for each of its clients.
    fn log(&self, event: Event, why: &dyn std::fmt::Display) {
        let now = Instant::now();
        let last = &mut self.logged.write().expect("nobody panics while holding it")[event as usize];
        if last.is_none_or(|last| now - last >= LOG_AGAIN_AFTER) {
            *last = Some(now);
            tracing::warn!("webhook {}: no answer that counts: {why}", event.word());
        }
    }
}

/// The questions under way.
#[derive(Debug)]
pub(super) struct Questions {
    switchboard: Arc<Switchboard>,
    keys: Arc<Keys>,
    tell: mpsc::UnboundedSender<(Party, Letter)>,
    answered: mpsc::UnboundedReceiver<(Party, Letter)>,
}

impl Questions {
    pub(super) fn new(switchboard: Arc<Switchboard>, keys: Arc<Keys>) -> Self {
        let (tell, answered) = mpsc::unbounded_channel();
        Self { switchboard, keys, tell, answered }
    }

    /// Asks, and has the answer ready for the worker that wants it. Each question gets exactly one.
    pub(super) fn carry(&self, worker: Party, ask: AskBackend) {
        let (switchboard, tell) = (self.switchboard.clone(), self.tell.clone());
        tokio::spawn(async move {
            let AskBackend { conn, number, question } = ask;
            let answer = Box::new(switchboard.ask(&question).await);
            // Nobody listens any more when the process ends.
            let _ = tell.send((worker, Letter::BackendAnswered { conn, number, answer }));
        });
    }

    /// A token names a published key that is not known.
    pub(super) fn want_keys(&self) {
        self.keys.want();
    }

    /// What a worker has for the backend.
    pub(super) fn tell(&self, notices: Vec<Notice>) {
        self.switchboard.notices.push(notices);
    }

    /// The next answer, when there is one.
    pub(super) async fn answered(&mut self) -> (Party, Letter) {
        match self.answered.recv().await {
            Some(answered) => answered,
            None => unreachable!("one of the senders is our own"),
        }
    }

    /// The next answer, if there is one.
    pub(super) fn next_answered(&mut self) -> Option<(Party, Letter)> {
        self.answered.try_recv().ok()
    }
}
