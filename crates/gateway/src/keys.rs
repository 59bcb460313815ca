//! Public keys that an identity provider publishes (`token.jwks_url`): fetched, kept, fetched again.

use conn::auth::token::{Key, published_keys};
use control::metrics::WebhookSample;
use control::webhook::{Counts, Endpoint, Fault, Outcome};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Between two fetches because of tokens that name unknown keys: whoever makes up names costs the provider no more than this.
const WANTED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Between two tries after one that failed, at first and at most. The keys that are known stay.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Where they are published, and how often they are fetched.
#[derive(Debug)]
pub struct Source {
    /// Where.
    pub endpoint: Endpoint,
    /// How often.
    pub refresh: Duration,
}

/// What fetches them, shared with those who want them.
#[derive(Debug)]
pub struct Keys {
    source: watch::Sender<Option<Arc<Source>>>,
    wanted: Notify,
    known: watch::Sender<Arc<Vec<Key>>>,
    counts: Counts,
}

impl Default for Keys {
    fn default() -> Self {
        let (source, known) = (watch::channel(None).0, watch::channel(Arc::default()).0);
        Self { source, wanted: Notify::new(), known, counts: Counts::default() }
    }
}

impl Keys {
    /// They come from there from now on. Those of another place count no more.
    pub fn set_source(&self, source: Option<Source>) {
        let place = |source: &Source| source.endpoint.target().clone();
        let (old, new) = (self.source.borrow().as_deref().map(place), source.as_ref().map(place));
        if old != new {
            self.known.send_if_modified(|known| !std::mem::take(known).is_empty());
        }
        self.source.send_replace(source.map(Arc::new));
    }

    /// Whether there is a source.
    pub fn has_source(&self) -> bool {
        self.source.borrow().is_some()
    }

    /// What became of the fetches.
    pub fn sample(&self) -> WebhookSample {
        self.counts.sample("jwks")
    }

    /// A token names one that is not known.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// What is known, now and whenever it changes.
    pub fn known(&self) -> watch::Receiver<Arc<Vec<Key>>> {
        self.known.subscribe()
    }

    /// Fetches for as long as it is run.
    pub async fn follow(&self) {
        let mut sources = self.source.subscribe();
        let (mut last, mut back_off) = (Vec::new(), BACK_OFF);
        loop {
            if self.known.borrow().is_empty() {
                last.clear();
            }
            let Some(source) = sources.borrow_and_update().clone() else {
                // The sender is our own.
                let _ = sources.changed().await;
                continue;
            };
            let begun = Instant::now();
            let next = match self.fetch(&source, &mut last).await {
                Ok(()) => {
                    back_off = BACK_OFF;
                    source.refresh
                }
                Err(why) => {
                    tracing::warn!(again_in = ?back_off, "token.jwks_url: no keys that count: {why}; those known stay");
                    let longer = (back_off * 2).min(BACK_OFF_MAX);
                    std::mem::replace(&mut back_off, longer)
                }
            };
            let wanted = async {
                self.wanted.notified().await;
                tokio::time::sleep_until(begun + next.min(WANTED_AGAIN_AFTER)).await;
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = wanted => {}
                _ = sources.changed() => {}
            }
        }
    }

    async fn fetch(&self, source: &Source, last: &mut Vec<u8>) -> Result<(), String> {
        let begun = Instant::now();
        let fetched = source.endpoint.get().await;
        let keys = fetched.as_ref().map_err(Fault::to_string).and_then(|body| {
            // What has not changed is not told again.
            if *last == **body { Ok(None) } else { published_keys(body).map(Some).map_err(|error| error.to_string()) }
        });
        let outcome = match (&fetched, &keys) {
            (Err(fault), _) => Outcome::from(fault),
            (Ok(_), Err(_)) => Outcome::Ill,
            (Ok(_), Ok(_)) => Outcome::Ok,
        };
        self.counts.count(outcome, begun.elapsed());
        if let (Ok(body), Some(keys)) = (fetched, keys?) {
            *last = body.to_vec();
            tracing::info!(keys = keys.len(), "token.jwks_url: new keys are in force");
            self.known.send_replace(Arc::new(keys));
        }
        Ok(())
    }
}
