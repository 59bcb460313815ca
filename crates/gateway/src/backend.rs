//! The control thread's mailbox: what the server API asks goes out as letters, answers come back as results.
//!
//! [`Gateway`] is the handle that the API holds; [`Bridge::run`] owns the mailbox and runs beside it on the same thread.

use crate::letter::{
    Act, Action, HistoryRead, Letter, List, Listed, Matching, Order, PresenceRead, Publish, ReadHistory, ReadPresence,
    Refused, RemoveHistory, Ticket,
};
use crate::mailbox::{Mailbox, Party, Post};
use crate::stats::{Number, OTHER_CODE, WorkerStats};
use crate::tls::Expiry;
use conn::Disconnect;
use conn::auth::token::{Changed, ServerSide};
use control::metrics::{
    CertificateInUse, Close, CompressionSample, DriverInUse, Messages, NodeSample, Side, SlowDisconnects, TickLengths,
    WorkerSample,
};
use control::{Backend, BackendError, ClientAction, Clients, Glob, NodeInfo};
use hub::{Channel, ChannelHash, Draft, HistoryPage, HistoryQuery, Namespaces, Presence, PresenceQuery, Published};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// Calls of the API that may wait to be posted. More are answered as busy.
const ASKED_MAX: usize = 1024;

/// Letters read between two looks at the API's calls.
const LETTERS_PER_TURN: usize = 256;

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
    log_lines_dropped: crate::logging::Dropped,
}

enum Ask {
    Publish { draft: Draft, answer: oneshot::Sender<Result<Published, BackendError>> },
    History { channel: Channel, query: HistoryQuery, answer: oneshot::Sender<Result<HistoryPage, BackendError>> },
    Presence { channel: Channel, query: PresenceQuery, answer: oneshot::Sender<Result<Presence, BackendError>> },
    RemoveHistory { channel: Channel, answer: oneshot::Sender<Result<(), BackendError>> },
    List { worker: Party, cursor: u32, answer: oneshot::Sender<Result<Listed, BackendError>> },
    Act { worker: Party, matching: Matching, action: Action, answer: oneshot::Sender<Result<u64, BackendError>> },
    Order { worker: Party, order: Order },
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
        let gateway = Arc::new(Self {
            ask,
            stats,
            identity,
            clock: settings.clock,
            namespaces: RwLock::new(Arc::new(settings.namespaces.clone())),
            certificates: RwLock::default(),
            ready: AtomicBool::new(true),
            log_lines_dropped,
        });
        let desk = Desk {
            mailbox,
            asked,
            hash: settings.hash,
            workers: gateway.stats.len() as u16,
            clock: settings.clock,
            request_timeout: settings.request_timeout,
            tickets: 0,
            publishing: HashMap::new(),
            reading: HashMap::new(),
            present: HashMap::new(),
            removing: HashMap::new(),
            listing: HashMap::new(),
            acting: HashMap::new(),
        };
        (gateway, Bridge { wake, desk })
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

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.stats.len()
    }

    /// Connections open on all workers.
    pub fn connections(&self) -> u64 {
        self.sum(Number::Connections)
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn sum(&self, number: Number) -> u64 {
        self.stats.iter().map(|stats| stats.number(number)).sum()
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
        let Clients { user, client, session, whitelist } = clients;
        let matching = Matching { user, client, session, whitelist };
        let action = match action {
            ClientAction::Disconnect { code, reason } => Action::Disconnect(Disconnect { code, reason: reason.into() }),
            ClientAction::Subscribe(to) => Action::Subscribe { until: to.expire_at, to: Arc::new(server_side(*to)) },
            ClientAction::Unsubscribe(channel) => Action::Unsubscribe(Channel::new(&channel)),
            ClientAction::Refresh(until) => Action::Refresh(until),
        };
        let mut count = 0;
        for worker in 0..self.stats.len() {
            let (matching, action) = (matching.clone(), action.clone());
            count += self.ask(|answer| Ask::Act { worker, matching, action, answer }).await?;
        }
        Ok(count)
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
            log_lines_dropped: self.log_lines_dropped.lines(),
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

fn ending(expiry: &Expiry) -> CertificateInUse {
    CertificateInUse { file: expiry.file.clone(), not_after: expiry.not_after }
}

fn worker_sample(stats: &WorkerStats) -> WorkerSample {
    let number = |n: Number| stats.number(n);
    let io = &stats.io;
    let bounds = io::counters::TICK_BUCKETS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets = bounds.zip(io.tick_lengths.iter().map(io::counters::Counter::load)).collect();
    let side = |side| if side == conn::Side::Ours { Side::Server } else { Side::Client };
    WorkerSample {
        connections: number(Number::Connections),
        subscriptions: number(Number::Subscriptions),
        channels: number(Number::Channels),
        history_channels: number(Number::HistoryChannels),
        history_publications: number(Number::HistoryPublications),
        history_bytes: number(Number::HistoryBytes),
        history_evicted: number(Number::HistoryEvicted),
        history_emptied: number(Number::HistoryEmptied),
        history_cut: number(Number::HistoryCut),
        recovered: number(Number::Recovered),
        unrecovered: number(Number::Unrecovered),
        gaps: number(Number::Gaps),
        presence_clients: number(Number::Guests),
        join_leave_announced: number(Number::Announced),
        join_leave_unannounced: number(Number::Unannounced),
        join_leave_pushes: number(Number::JoinLeavePushes),
        join_leave_skipped: number(Number::JoinLeaveSkipped),
        publishes_repeated: number(Number::PublishesRepeated),
        publishes_outdated: number(Number::PublishesOutdated),
        messages_received: number(Number::MessagesIn) + number(Number::HttpRequests),
        messages_sent: number(Number::MessagesOut),
        publications: number(Number::Publications),
        bytes_received: io.read_bytes.load(),
        bytes_sent: io.sent_bytes.load(),
        letters_sent: number(Number::LettersSent),
        letters_refused: number(Number::LettersRefused),
        outbox_dropped: number(Number::OutboxDropped),
        skipped: number(Number::Skipped),
        conflated: number(Number::Conflated),
        slow_disconnects: SlowDisconnects {
            disconnect: number(Number::SlowByFirm),
            conflate: number(Number::SlowByConflated),
            reply: number(Number::SlowByReply),
        },
        commands_refused: number(Number::CommandsRefused),
        token_checks: number(Number::Verifications),
        handshakes: number(Number::Handshakes),
        origins_refused: number(Number::OriginsRefused),
        compression: compression(stats),
        tls_handshakes: number(Number::TlsHandshakes),
        tls_resumed: number(Number::TlsResumed),
        tls_failed: number(Number::TlsFailed),
        panics: number(Number::Panics),
        accepted: io.accepts.load(),
        refused_full: io.refused_full.load(),
        ticks: TickLengths { buckets, seconds: io.tick_nanoseconds.load() as f64 / 1e9 },
        closes: stats
            .closes()
            .filter(|(_, _, count)| *count > 0)
            .map(|(s, code, count)| Close { side: side(s), code: (code != OTHER_CODE).then_some(code), count })
            .collect(),
    }
}

fn compression(stats: &WorkerStats) -> CompressionSample {
    let number = |n: Number| stats.number(n);
    let messages = |[count, plain, packed]: [Number; 3]| Messages {
        count: number(count),
        plain_bytes: number(plain),
        packed_bytes: number(packed),
    };
    CompressionSample {
        agreed: number(Number::CompressionAgreed),
        refused: number(Number::CompressionRefused),
        publications: number(Number::CompressedPublications),
        publication_runs: number(Number::PublicationCompressions),
        reply_runs: number(Number::ReplyCompressions),
        alone: messages([Number::AloneMessages, Number::AlonePlainBytes, Number::AlonePackedBytes]),
        after: messages([Number::AfterMessages, Number::AfterPlainBytes, Number::AfterPackedBytes]),
        replies: messages([Number::ReplyMessages, Number::ReplyPlainBytes, Number::ReplyPackedBytes]),
        received: messages([Number::InflatedMessages, Number::InflatedPlainBytes, Number::InflatedPackedBytes]),
        as_they_are: number(Number::CompressionUnused),
        history_bytes: number(Number::CompressionHistoryBytes),
        previous_bytes: number(Number::CompressionPreviousBytes),
    }
}

/// Carries calls of the API to the workers and their answers back.
pub struct Bridge {
    wake: io::WakeReceiver,
    desk: Desk,
}

/// The bridge without what wakes it.
struct Desk {
    mailbox: Mailbox,
    asked: mpsc::Receiver<Ask>,
    hash: ChannelHash,
    workers: u16,
    clock: io::Clock,
    request_timeout: Duration,
    tickets: u64,
    publishing: HashMap<u64, oneshot::Sender<Result<Published, BackendError>>>,
    reading: HashMap<u64, oneshot::Sender<Result<HistoryPage, BackendError>>>,
    present: HashMap<u64, oneshot::Sender<Result<Presence, BackendError>>>,
    removing: HashMap<u64, oneshot::Sender<Result<(), BackendError>>>,
    listing: HashMap<u64, oneshot::Sender<Result<Listed, BackendError>>>,
    acting: HashMap<u64, oneshot::Sender<Result<u64, BackendError>>>,
}

impl Bridge {
    /// Runs until the handle is gone.
    ///
    /// # Errors
    /// When the wake cannot be watched.
    pub async fn run(self) -> std::io::Result<()> {
        // The safe constructor is deprecated because AsRawFd may name a descriptor that is closed meanwhile. This one is
        // the eventfd that the receiver itself keeps open; the new constructor would need `unsafe` for the same promise.
        #[allow(deprecated)]
        let wake = AsyncFd::with_interest(self.wake, tokio::io::Interest::READABLE)?;
        let mut desk = self.desk;
        loop {
            let read = desk.read_answers();
            desk.mailbox.flush();
            if read == LETTERS_PER_TURN {
                // More may wait; let the API's tasks run first.
                tokio::task::yield_now().await;
                desk.post_all();
                continue;
            }
            wake.get_ref().begin_sleep();
            if desk.mailbox.has_mail() {
                wake.get_ref().end_sleep();
                continue;
            }
            tokio::select! {
                ready = wake.readable() => ready?.clear_ready(),
                ask = desk.asked.recv() => match ask {
                    Some(ask) => desk.post(ask),
                    None => return Ok(()),
                },
            }
            wake.get_ref().end_sleep();
            desk.post_all();
        }
    }
}

impl Desk {
    fn post_all(&mut self) {
        while let Ok(ask) = self.asked.try_recv() {
            self.post(ask);
        }
    }

    fn post(&mut self, ask: Ask) {
        self.tickets += 1;
        let ticket = self.tickets;
        match ask {
            Ask::Publish { draft, answer } => {
                let (home, expires) = (self.home_of(&draft.channel), self.clock.now() + self.request_timeout);
                let publish = Publish { ticket: Ticket::Control(ticket), draft: draft.into(), expires };
                match self.mailbox.request(home, Letter::Publish(publish)) {
                    Ok(()) => drop(self.publishing.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::History { channel, query, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let read = ReadHistory { ticket: Ticket::Control(ticket), channel, query, expires };
                match self.mailbox.request(home, Letter::History(Box::new(read))) {
                    Ok(()) => drop(self.reading.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::Presence { channel, query, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let read = ReadPresence { ticket: Ticket::Control(ticket), channel, query, expires };
                match self.mailbox.request(home, Letter::Presence(Box::new(read))) {
                    Ok(()) => drop(self.present.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::RemoveHistory { channel, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let remove = RemoveHistory { ticket, channel, expires };
                match self.mailbox.request(home, Letter::RemoveHistory(Box::new(remove))) {
                    Ok(()) => drop(self.removing.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::List { worker, cursor, answer } => {
                match self.mailbox.request(worker, Letter::List(Box::new(List { ticket, cursor }))) {
                    Ok(()) => drop(self.listing.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::Act { worker, matching, action, answer } => {
                let letter = Letter::Act(Box::new(Act { ticket, matching, action }));
                match self.mailbox.request(worker, letter) {
                    Ok(()) => drop(self.acting.insert(ticket, answer)),
                    Err(_) => drop(answer.send(Err(BackendError::Busy))),
                }
            }
            Ask::Order { worker, order } => {
                if self.mailbox.request(worker, Letter::Order(order)).is_err() {
                    tracing::error!(worker, "an order found a full mailbox: the worker has stopped reading its mail");
                }
            }
        }
    }

    fn home_of(&self, channel: &str) -> Party {
        usize::from(self.hash.home(channel, self.workers).0)
    }

    fn read_answers(&mut self) -> usize {
        for read in 0..LETTERS_PER_TURN {
            let Some((_, letter)) = self.mailbox.next() else { return read };
            // A caller that has given up has dropped its receiver; the answer goes nowhere.
            match letter {
                Letter::Published { ticket: Ticket::Control(ticket), answer } => {
                    if let Some(caller) = self.publishing.remove(&ticket) {
                        let _ = caller.send(answer.map_err(to_backend));
                    }
                }
                Letter::HistoryRead(read) => {
                    let HistoryRead { ticket, answer } = *read;
                    let Ticket::Control(ticket) = ticket else { continue };
                    if let Some(caller) = self.reading.remove(&ticket) {
                        let _ = caller.send(answer.map_err(to_backend));
                    }
                }
                Letter::PresenceRead(read) => {
                    let PresenceRead { ticket, answer } = *read;
                    let Ticket::Control(ticket) = ticket else { continue };
                    if let Some(caller) = self.present.remove(&ticket) {
                        let _ = caller.send(answer.map_err(to_backend));
                    }
                }
                Letter::HistoryRemoved { ticket, answer } => {
                    if let Some(caller) = self.removing.remove(&ticket) {
                        let _ = caller.send(answer.map_err(to_backend));
                    }
                }
                Letter::Listed(listed) => {
                    if let Some(caller) = self.listing.remove(&listed.ticket) {
                        let _ = caller.send(Ok(*listed));
                    }
                }
                Letter::Acted { ticket, count } => {
                    if let Some(caller) = self.acting.remove(&ticket) {
                        let _ = caller.send(Ok(count));
                    }
                }
                _ => debug_assert!(false, "the control thread gets answers only"),
            }
        }
        LETTERS_PER_TURN
    }
}

fn server_side(to: control::ServerSide) -> ServerSide {
    let control::ServerSide { force_recovery, force_positioning, force_push_join_leave, .. } = to;
    let changed = Changed { force_recovery, force_positioning, force_push_join_leave };
    ServerSide { channel: to.channel, info: to.info.map(Arc::from), data: to.data.map(Arc::from), changed }
}

fn to_backend(refused: Refused) -> BackendError {
    match refused {
        Refused::Busy | Refused::ChannelsMax => BackendError::Busy,
        Refused::Expired => BackendError::Timeout,
        Refused::Unrecoverable => BackendError::Unrecoverable,
        Refused::NoHistory => BackendError::NoHistory,
        Refused::NoPresence => BackendError::NoPresence,
        Refused::TooManyPresent => BackendError::TooManyPresent,
    }
}
