//! What the server API asks of the workers: it goes out as letters, answers come back as results.
//!
//! [`Gateway`] is the handle that the API holds; [`Bridge::run`] owns the mailbox and runs beside it on the same thread.

mod bridge;
mod questions;
mod sample;

pub use bridge::Bridge;
pub use questions::Backends;

use crate::keys::Keys;
use crate::letter::{Action, Described, Matching, Order};
use crate::mailbox::{Mailbox, Party};
use crate::memory::Memory;
use crate::stats::{Number, WorkerStats};
use crate::tls::Expiry;
use bridge::Ask;
use conn::auth::token::{Changed, ServerSide};
use conn::{Disconnect, Given};
use control::metrics::{DriverInUse, NodeSample, NoticeSample, WebhookSample};
use control::{Backend, BackendError, ClientAction, Clients, ConnectionInfo, Glob, NodeInfo};
use hub::{Channel, ChannelHash, Draft, HistoryPage, HistoryQuery, Namespaces, Presence, PresenceQuery, Published};
use questions::{Questions, Switchboard};
use sample::{ending, worker_sample};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls of the API that may wait to be posted. More are answered as busy.
const ASKED_MAX: usize = 1024;

/// How soon a worker is asked again whose mailbox had no room for the question.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What this process is, fixed at its start.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Random.
    pub uid: String,
    /// Configured or host name.
    pub name: String,
    /// What the workers run on.
    pub drivers: Vec<DriverInUse>,
    /// Soft limit of open files.
    pub files_max: u64,
    /// Connections all workers take together.
    pub connections_max: u64,
    /// How much memory it holds, and may.
    pub memory: Arc<Memory>,
}

/// The API's handle on the workers.
#[derive(Debug)]
pub struct Gateway {
    ask: mpsc::Sender<Ask>,
    stats: Vec<Arc<WorkerStats>>,
    identity: Identity,
    clock: io::Clock,
    /// Read and written by the control thread's tasks only, so nobody ever waits for it.
    namespaces: RwLock<Arc<Namespaces>>,
    /// The same of these.
    certificates: RwLock<Vec<Expiry>>,
    ready: AtomicBool,
    switchboard: Arc<Switchboard>,
    keys: Arc<Keys>,
    log_lines_dropped: crate::logging::Dropped,
}

impl Gateway {
    /// The handle and the bridge behind it. The mailbox is that of the party after the last worker.
    pub fn new(
        mailbox: Mailbox,
        wake: io::WakeReceiver,
        stats: Vec<Arc<WorkerStats>>,
        identity: Identity,
        settings: &Reach,
        log_lines_dropped: crate::logging::Dropped,
    ) -> (Arc<Self>, Bridge) {
        let (ask, asked) = mpsc::channel(ASKED_MAX);
        let switchboard = Arc::new(Switchboard::new(identity.uid.clone()));
        let gateway = Arc::new(Self {
            ask,
            stats,
            identity,
            clock: settings.clock,
            namespaces: RwLock::new(Arc::new(settings.namespaces.clone())),
            certificates: RwLock::default(),
            ready: AtomicBool::new(true),
            switchboard,
            keys: Arc::default(),
            log_lines_dropped,
        });
        let workers = gateway.stats.len() as u16;
        let questions = Questions::new(gateway.switchboard.clone(), gateway.keys.clone());
        (gateway, Bridge::new(mailbox, wake, asked, workers, settings, questions))
    }

    /// Sends an order to every worker. Waits for room; the control thread may.
    pub async fn order_all(&self, mut order: impl FnMut() -> Order) {
        for worker in 0..self.stats.len() {
            // The bridge goes only with the process.
            let _ = self.ask.send(Ask::Order { worker, order: order() }).await;
        }
    }

    /// Tells the API and every worker what `/readyz` answers.
    pub async fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.order_all(|| Order::Ready(ready)).await;
    }

    /// Asks one worker for a sign of life. The answer comes from its event loop, through its mailbox.
    ///
    /// # Errors
    /// `Busy` when its mailbox is full. A worker that hangs never answers: bound the wait.
    pub async fn ping(&self, worker: Party) -> Result<(), BackendError> {
        // The page behind the last channel: it costs the worker nothing.
        self.ask(|answer| Ask::List { worker, cursor: u32::MAX, answer }).await.map(drop)
    }

    /// Ends when each worker has answered. `asked` is the worker whose answer is waited for.
    pub async fn all_answer(&self, asked: &mut usize) {
        for worker in 0..self.workers() {
            *asked = worker;
            // A mailbox without room is a worker that is behind; it may well catch up.
            while self.ping(worker).await.is_err() {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
        }
    }

    /// The namespaces that publishing asks for, after a reload.
    pub fn set_namespaces(&self, namespaces: Namespaces) {
        *self.namespaces.write().expect("nobody panics while holding it") = Arc::new(namespaces);
    }

    /// The certificates that are shown, after they were read.
    pub fn set_certificates(&self, certificates: Vec<Expiry>) {
        *self.certificates.write().expect("nobody panics while holding it") = certificates;
    }

    /// Who is asked from now on.
    pub fn set_backends(&self, backends: Backends) {
        self.switchboard.set(backends);
    }

    /// The public keys that an identity provider publishes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Tells the backend what it wants to be told, for as long as it is run.
    pub async fn tell_backend(&self) {
        self.switchboard.tell().await;
    }

    /// Waits until the backend has been told everything. Returns how much is left after that time.
    pub async fn finish_telling(&self, within: Duration) -> u64 {
        let notices = &self.switchboard.notices;
        // What the workers said last may still lie in the mailbox.
        let _ = self.ask(|answer| Ask::ReadAll { answer }).await;
        let _ = tokio::time::timeout(within, notices.emptied()).await;
        notices.counts().2
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.stats.len()
    }

    /// Connections open on all workers.
    pub fn connections(&self) -> u64 {
        self.sum(Number::Connections)
    }

    /// How much memory the process holds, and may.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.identity.memory
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn sum(&self, number: Number) -> u64 {
        self.stats.iter().map(|stats| stats.number(number)).sum()
    }

    fn fetches(&self) -> Option<WebhookSample> {
        self.keys.has_source().then(|| self.keys.sample())
    }

    fn notices(&self) -> NoticeSample {
        let (delivered, dropped, waiting) = self.switchboard.notices.counts();
        NoticeSample { delivered, dropped: dropped + self.sum(Number::NoticesDropped), waiting }
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> Ask,
    ) -> Result<T, BackendError> {
        let (answer, answered) = oneshot::channel();
        self.ask.try_send(ask(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BackendError::Busy,
            mpsc::error::TrySendError::Closed(_) => BackendError::ShuttingDown,
        })?;
        answered.await.unwrap_or(Err(BackendError::ShuttingDown))
    }
}

/// What the bridge needs to find a channel's home.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The process's key for channels.
    pub hash: ChannelHash,
    /// The process's clock.
    pub clock: io::Clock,
    /// After it a request is not worth doing.
    pub request_timeout: Duration,
    /// The configured namespaces.
    pub namespaces: Namespaces,
}

impl Backend for Gateway {
    async fn publish(&self, draft: Draft) -> Result<Published, BackendError> {
        self.ask(|answer| Ask::Publish { draft, answer }).await
    }

    async fn history(&self, channel: Channel, query: HistoryQuery) -> Result<HistoryPage, BackendError> {
        self.ask(|answer| Ask::History { channel, query, answer }).await
    }

    async fn remove_history(&self, channel: Channel) -> Result<(), BackendError> {
        self.ask(|answer| Ask::RemoveHistory { channel, answer }).await
    }

    async fn presence(&self, channel: Channel, query: PresenceQuery) -> Result<Presence, BackendError> {
        self.ask(|answer| Ask::Presence { channel, query, answer }).await
    }

    async fn channels(&self, pattern: Option<Glob>, limit: usize) -> Result<Vec<(Channel, u32)>, BackendError> {
        let mut found = Vec::new();
        for worker in 0..self.stats.len() {
            let mut cursor = 0;
            loop {
                let page = self.ask(|answer| Ask::List { worker, cursor, answer }).await?;
                let wanted = |name: &str| pattern.as_ref().is_none_or(|glob| glob.matches(name));
                found.extend(page.channels.into_iter().filter(|(name, _)| wanted(name)));
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
                match page.next {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
        }
        Ok(found)
    }

    async fn act(&self, clients: Clients, action: ClientAction) -> Result<u64, BackendError> {
        let matching = matching(clients);
        let action = match action {
            ClientAction::Disconnect { code, reason } => Action::Disconnect(Disconnect { code, reason: reason.into() }),
            ClientAction::Subscribe(to) => Action::Subscribe(Arc::new(given(*to))),
            ClientAction::Unsubscribe(channel) => Action::Unsubscribe(Channel::new(&channel)),
            ClientAction::Refresh(until) => Action::Refresh(until),
        };
        let mut count = 0;
        for worker in 0..self.stats.len() {
            let (matching, action) = (matching.clone(), action.clone());
            count += self.ask(|answer| Ask::Act { worker, matching, action, answer }).await?.count;
        }
        Ok(count)
    }

    async fn connections(&self, clients: Clients, limit: usize) -> Result<Vec<ConnectionInfo>, BackendError> {
        let (matching, mut found) = (matching(clients), Vec::new());
        for worker in 0..self.stats.len() {
            let (matching, connections_max) = (matching.clone(), limit - found.len());
            let action = Action::Describe { connections_max };
            let acted = self.ask(|answer| Ask::Act { worker, matching, action, answer }).await?;
            found.extend(acted.described.into_iter().map(connection_info));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    fn info(&self) -> NodeInfo {
        let num_clients = self.sum(Number::Sessions);
        NodeInfo {
            uid: self.identity.uid.clone(),
            name: self.identity.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            num_clients,
            // Those without a name are one user together. Who is on several workers counts on each: nobody knows them all.
            num_users: self.sum(Number::Users) + u64::from(num_clients > self.sum(Number::UserSessions)),
            num_channels: self.sum(Number::Channels),
            num_subs: self.sum(Number::Subscriptions),
            uptime: self.clock.now().as_secs(),
        }
    }

    fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.read().expect("nobody panics while holding it").clone()
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn sample(&self) -> NodeSample {
        NodeSample {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("TIDEGATE_GIT_HASH").to_owned(),
            drivers: self.identity.drivers.clone(),
            uptime: self.clock.now(),
            files_max: self.identity.files_max,
            connections_max: self.identity.connections_max,
            memory: self.identity.memory.in_use(),
            memory_max: self.identity.memory.ceiling(),
            log_lines_dropped: self.log_lines_dropped.lines(),
            webhooks: self.switchboard.sample().into_iter().chain(self.fetches()).collect(),
            notices: self.notices(),
            certificates: self
                .certificates
                .read()
                .expect("nobody panics while holding it")
                .iter()
                .map(ending)
                .collect(),
            workers: self.stats.iter().map(|stats| worker_sample(stats)).collect(),
        }
    }
}

fn matching(Clients { user, client, session, whitelist }: Clients) -> Matching {
    Matching { user, client, session, whitelist }
}

fn connection_info(described: Described) -> ConnectionInfo {
    let Described { client, user, encoding, channels } = described;
    let (transport, protocol) = encoding.spoken_over();
    ConnectionInfo { client, user, transport, protocol, channels }
}

fn given(to: control::ServerSide) -> Given {
    let (until, since) = (to.expire_at, to.recover_since);
    let control::ServerSide { presence, join_leave, force_recovery, force_positioning, force_push_join_leave, .. } = to;
    let changed = Changed { presence, join_leave, force_recovery, force_positioning, force_push_join_leave };
    let (channel, info, data) = (to.channel, to.info.map(Arc::from), to.data.map(Arc::from));
    Given { to: ServerSide { channel, info, data, changed }, until, since }
}
