//! What a backend is told without being asked: that a channel has its first subscriber or none any more, and who comes and
//! goes.
//!
//! Notices wait in a queue until the backend has taken them, in their order, some at a time: *at least once*, because an answer
//! may be lost on its way. Each has a number, so that a backend can tell what it has had, and what it will never have: where
//! the queue is full the oldest go, and are counted.

use super::Endpoint;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Notices of one request.
pub const BATCH_MAX: usize = 500;

/// Between two tries, at first and at most.
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Unix time in milliseconds.
    pub time: u64,
    /// What has happened.
    #[serde(flatten)]
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// A channel has its first subscriber.
    Occupied {
        /// The channel.
        channel: String,
    },
    /// A channel has no subscriber any more.
    Vacated {
        /// The channel.
        channel: String,
    },
    /// A client has connected.
    Connected {
        /// Its id.
        client: String,
        /// Its user; "" for none.
        user: String,
        /// `websocket` or `uni_websocket`.
        transport: &'static str,
        /// `json` or `protobuf`.
        protocol: &'static str,
    },
    /// A client that had connected has gone.
    Disconnected {
        /// Its id.
        client: String,
        /// Its user; "" for none.
        user: String,
        /// The close code; 1006 where none was seen.
        code: u16,
        /// The close reason.
        reason: String,
    },
}

/// The body of a request.
#[derive(Serialize)]
struct Batch<'a> {
    node: &'a str,
    notices: Vec<Numbered<'a>>,
}

#[derive(Serialize)]
struct Numbered<'a> {
    number: u64,
    #[serde(flatten)]
    notice: &'a Notice,
}

/// Those that wait.
#[derive(Debug)]
pub struct Notices {
    node: String,
    state: Mutex<State>,
    changed: Notify,
    delivered: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Notice>,
    /// The number of the one in front.
    first: u64,
    max: usize,
}

impl Notices {
    /// Of the process with this uid; so many may wait.
    pub fn new(node: String, max: usize) -> Arc<Notices> {
        let state = Mutex::new(State { waiting: VecDeque::new(), first: 1, max });
        let (delivered, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Notices { node, state, changed: Notify::new(), delivered, dropped })
    }

    /// Only the control thread is here, and never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// So many may wait from now on.
    pub fn set_max(&self, max: usize) {
        self.state().max = max;
        self.push(Vec::new());
    }

    /// More of them, behind those that wait.
    pub fn push(&self, notices: Vec<Notice>) {
        let mut state = self.state();
        state.waiting.extend(notices);
        let over = state.waiting.len().saturating_sub(state.max);
        state.waiting.drain(..over);
        state.first += over as u64;
        drop(state);
        self.count_dropped(over as u64);
        self.changed.notify_waiters();
    }

    /// So many have been lost on the way here.
    pub fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Delivered, dropped, and waiting now.
    pub fn counts(&self) -> (u64, u64, u64) {
        let waiting = self.state().waiting.len() as u64;
        (self.delivered.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed), waiting)
    }

    /// Ends when none wait.
    pub async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state().waiting.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// The next of them as a body, how many they are, and the number of the first.
    fn batch(&self) -> Option<(Vec<u8>, usize, u64)> {
        let state = self.state();
        let count = state.waiting.len().min(BATCH_MAX);
        let numbered = state.waiting.iter().zip(state.first..).take(count);
        let notices = numbered.map(|(notice, number)| Numbered { number, notice }).collect();
        let batch = Batch { node: &self.node, notices };
        (count > 0).then(|| (serde_json::to_vec(&batch).expect("texts and numbers"), count, state.first))
    }

    /// The backend has taken those.
    fn taken(&self, first: u64, count: usize) {
        let mut state = self.state();
        // Some may have been dropped meanwhile.
        let left = (first + count as u64).saturating_sub(state.first) as usize;
        state.waiting.drain(..left);
        state.first += left as u64;
        drop(state);
        self.delivered.fetch_add(left as u64, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// There is nobody to be told.
    fn forget_all(&self) {
        let mut state = self.state();
        let count = std::mem::take(&mut state.waiting).len();
        state.first += count as u64;
        drop(state);
        if count > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Delivers for as long as it is run. Without an endpoint nothing is kept.
    pub async fn deliver(&self, mut to: watch::Receiver<Option<Arc<Endpoint>>>) {
        let mut back_off = BACK_OFF;
        loop {
            let changed = self.changed.notified();
            let endpoint = to.borrow_and_update().clone();
            let Some(endpoint) = endpoint else {
                self.forget_all();
                tokio::select! {
                    () = changed => {}
                    told = to.changed() => if told.is_err() { return },
                }
                continue;
            };
            let Some((body, count, first)) = self.batch() else {
                tokio::select! {
                    () = changed => {}
                    told = to.changed() => if told.is_err() { return },
                }
                continue;
            };
            match endpoint.call(&[], body).await {
                Ok(_) => {
                    back_off = BACK_OFF;
                    self.taken(first, count);
                }
                Err(fault) => {
                    tracing::warn!(waiting = self.state().waiting.len(), "webhook notices: not delivered: {fault}");
                    tokio::select! {
                        () = tokio::time::sleep(back_off) => {}
                        told = to.changed() => if told.is_err() { return },
                    }
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }
}
