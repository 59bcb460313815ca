//! The start of the workers.

use super::{Layout, Secrets, StartError};
use crate::config::{Config, DriverChoice};
use crate::mailbox::{self, Mailbox, Sizes};
use crate::memory::Memory;
use crate::stats::WorkerStats;
use crate::worker::{Plan, Worker};
use conn::Settings;
use hub::{ChannelHash, HomeLimits, WorkerId};
use io::epoll::Epoll;
use io::uring::{Ready, Uring};
use io::{Address, Clock, Driver, Listener, Options, Wake, descriptors};
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Requests of one thread that wait for another's answer, as a share of its mailbox.
const ANSWERS_SHARE: usize = 2;

/// Descriptors that room is made for at the start: 2 MB of the kernel's memory. A table that grows beyond makes workers wait
/// once each time it doubles.
const ROOM_FILES_MAX: usize = 256 * 1024;

/// What a client over a limit is told. The connection is closed behind it.
pub const FULL_ANSWER: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 42\r\n\r\nthis server takes no more clients for now\n";

/// Running workers and what the control thread needs to speak to them.
#[derive(Debug)]
pub struct Workers {
    /// The control thread's mailbox.
    pub mailbox: Mailbox,
    /// Its wake.
    pub wake: io::WakeReceiver,
    /// One per worker.
    pub stats: Vec<Arc<WorkerStats>>,
    /// What they run on and why: one entry as a rule, more where workers were refused different things.
    pub drivers: Vec<InUse>,
    /// Where the public listeners are, with the ports that were chosen.
    pub listening: Vec<Address>,
    /// One message per worker that has ended.
    pub ended: tokio::sync::mpsc::UnboundedReceiver<Result<usize, String>>,
}

/// A driver that workers run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Which.
    pub driver: io::Kind,
    /// Why that one.
    pub why: Why,
}

/// Why workers run on a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// By `workers.io`.
    AskedFor,
    /// io_uring was tried and works.
    Works,
    /// io_uring was tried and cannot be used, so it is epoll; says what is in its way.
    UringUnavailable(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskedFor => f.write_str("asked for with workers.io"),
            Self::Works => f.write_str("io_uring was tried and works"),
            Self::UringUnavailable(reason) => write!(f, "io_uring cannot be used: {reason}"),
        }
    }
}

/// Everything a start needs.
#[derive(Debug)]
pub struct Start<'a> {
    /// The checked config.
    pub config: &'a Config,
    /// What was decided from it.
    pub layout: &'a Layout,
    /// The connections' view of it.
    pub settings: Arc<Settings>,
    /// The process's secrets.
    pub secrets: Secrets,
    /// The process's clock.
    pub clock: Clock,
    /// What the workers hold together.
    pub memory: Arc<Memory>,
}

impl Start<'_> {
    /// Binds the listeners and starts the threads; returns once every worker runs.
    ///
    /// # Errors
    /// Whatever a listener, a core or the kernel refuses first.
    pub fn workers(&self) -> Result<Workers, StartError> {
        let count = self.layout.workers;
        let kernel = |what| move |error| StartError::Kernel { what, error };
        let mut per_worker: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
        let mut listening = Vec::new();
        for (number, address) in self.config.client_addresses().enumerate() {
            let group = io::listener::bind_all(address, count).map_err(|error| {
                let is_clear = number < self.config.public.listen.len();
                let change = if is_clear { "--listen or public.listen" } else { "tls.listen" };
                StartError::Listen { address: address.to_string(), change, error }
            })?;
            listening.push(group[0].local_address().clone());
            per_worker.iter_mut().zip(group).for_each(|(listeners, one)| listeners.push(one));
        }
        let wakes =
            (0..=count).map(|_| Wake::new()).collect::<Result<Vec<_>, _>>().map_err(kernel("making an eventfd"))?;
        let mut mailboxes = mailbox::connect(self.sizes(), &wakes);
        let control = mailboxes.pop().expect("one more mailbox than workers");
        let eventfds: Vec<RawFd> = wakes.iter().map(Wake::fd).collect();
        let listener_fds: Vec<RawFd> = per_worker.iter().flatten().map(Listener::fd).collect();
        let (end, ended) = tokio::sync::mpsc::unbounded_channel();
        let (started, starting) = mpsc::channel();
        for (number, (mailbox, listeners)) in mailboxes.into_iter().zip(per_worker).enumerate() {
            let kept = eventfds.iter().copied().chain(listeners.iter().map(Listener::fd)).collect();
            let thread = WorkerThread {
                number,
                plan: self.plan(number),
                options: self.options(),
                listeners,
                private_table: self.layout.private_tables.then_some(kept),
                core: self.layout.cores.get(number).copied(),
                driver: self.config.workers.io,
                clock: self.clock,
                wake: wakes[number].receiver(),
            };
            let (started, end) = (started.clone(), end.clone());
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || thread.run(mailbox, &started, &end))
                .map_err(kernel("starting a worker thread"))?;
        }
        if !self.layout.private_tables {
            // A table of one thread grows without waiting for others. Where it is refused, some accepts will wait.
            let files = usize::try_from(self.layout.connections_max).unwrap_or(usize::MAX).min(ROOM_FILES_MAX);
            let _ = descriptors::make_room(files);
        }
        drop(started);
        let mut running = Vec::new();
        for _ in 0..count {
            running.push(starting.recv().expect("every worker thread reports its start")?);
        }
        if self.layout.private_tables {
            // They listen from the workers' tables now; a copy here would keep the sockets open behind a drain.
            descriptors::close_copies(&listener_fds);
        }
        running.sort_by_key(|worker| worker.number);
        let mut drivers = Vec::new();
        for worker in &running {
            if !drivers.contains(&worker.on) {
                drivers.push(worker.on.clone());
            }
        }
        let stats = running.into_iter().map(|worker| worker.stats).collect();
        let wake = wakes[count].receiver();
        Ok(Workers { mailbox: control, wake, stats, drivers, listening, ended })
    }

    fn sizes(&self) -> Sizes {
        let letters = self.config.hub.mailbox_letters as usize;
        Sizes { letters, answers: (letters / ANSWERS_SHARE).max(1), bytes: self.config.hub.mailbox_bytes_max.get() }
    }

    fn plan(&self, number: usize) -> Plan {
        Plan {
            id: WorkerId(number as u16),
            workers: self.layout.workers as u16,
            settings: self.settings.clone(),
            hash: ChannelHash::new(self.secrets.hash),
            home: HomeLimits {
                channels_max: self.config.hub.channels_max as usize,
                history_bytes_max: self.config.hub.history_bytes_max.get(),
                idempotency_keys_max: self.config.hub.idempotency_keys_max as usize,
                idempotency_ttl: self.config.hub.idempotency_ttl.get(),
                join_leave_subscribers_max: self.config.hub.join_leave_subscribers_max as usize,
            },
            epoch_seed: self.secrets.epochs.wrapping_add(number as u64),
            unix_origin: unix_origin(self.clock),
            id_key: self.secrets.ids,
            connections_max: self.layout.connections_per_worker,
            request_timeout: self.config.hub.request_timeout.get(),
            memory: self.memory.clone(),
        }
    }

    fn options(&self) -> Options {
        Options {
            connections_max: self.layout.connections_per_worker,
            linger: self.config.outbox.close_timeout.get(),
            full_answer: FULL_ANSWER.as_bytes().to_vec(),
            send_buffer_max: Some(self.config.outbox.kernel_bytes_max.get()),
            // A client that takes nothing for a while has its write timeout first, which tells it why.
            user_timeout: Some(self.config.outbox.ack_timeout.max(self.config.outbox.write_timeout).get()),
            spin: self.config.workers.spin.get(),
            ..Options::default()
        }
    }
}

/// Unix time at the origin of a clock, as the system's clock is set now. Times told to clients are counted from what it was at
/// the start, so that they never go back.
pub fn unix_origin(clock: Clock) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(clock.now())
}

/// What a worker thread reports when it is ready.
struct Running {
    number: usize,
    on: InUse,
    stats: Arc<WorkerStats>,
}

type Started = mpsc::Sender<Result<Running, StartError>>;

struct WorkerThread {
    number: usize,
    plan: Plan,
    options: Options,
    listeners: Vec<Listener>,
    /// What it keeps of the process's descriptors; `None`: it shares them all.
    private_table: Option<Vec<RawFd>>,
    core: Option<usize>,
    driver: DriverChoice,
    clock: Clock,
    wake: io::WakeReceiver,
}

impl WorkerThread {
    fn run(self, mailbox: Mailbox, started: &Started, end: &tokio::sync::mpsc::UnboundedSender<Result<usize, String>>) {
        let number = self.number;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.live(mailbox, started)));
        let outcome = match outcome {
            Ok(Ok(())) => Ok(number),
            Ok(Err(error)) => Err(format!("worker {number}: its event loop failed: {error}")),
            // The panic hook has printed where and why.
            Err(_) => Err(format!("worker {number} panicked outside of any connection")),
        };
        // Nobody listens only when the process is going already.
        let _ = end.send(outcome);
    }

    fn live(self, mailbox: Mailbox, started: &Started) -> std::io::Result<()> {
        match self.prepare() {
            Ok((Some(ready), on)) => {
                let driver = Uring::new(ready, self.options, self.listeners, self.clock, self.wake);
                begin(driver, on, self.number, self.plan, mailbox, started)
            }
            Ok((None, on)) => {
                let driver = Epoll::new(self.options, self.listeners, self.clock, self.wake);
                begin(driver, on, self.number, self.plan, mailbox, started)
            }
            Err(error) => {
                let _ = started.send(Err(error));
                Ok(())
            }
        }
    }

    /// Settles the thread: its table of descriptors, before anything else makes one, its core, and its driver. A ring
    /// belongs to the thread that made it, so each worker tries io_uring for itself.
    fn prepare(&self) -> Result<(Option<Ready>, InUse), StartError> {
        if let Some(kept) = &self.private_table {
            descriptors::take_private_table(kept)
                .map_err(|error| StartError::Kernel { what: "taking a private table of descriptors", error })?;
        }
        if let Some(core) = self.core {
            io::affinity::pin(core).map_err(|error| StartError::Core { core, error })?;
        }
        let epoll = |why| (None, InUse { driver: io::Kind::Epoll, why });
        let uring = |ready, why| (Some(ready), InUse { driver: io::Kind::Uring, why });
        match self.driver {
            DriverChoice::Epoll => Ok(epoll(Why::AskedFor)),
            DriverChoice::Uring => Uring::probe().map(|ready| uring(ready, Why::AskedFor)).map_err(StartError::Uring),
            DriverChoice::Auto => Ok(match Uring::probe() {
                Ok(ready) => uring(ready, Why::Works),
                Err(reason) => epoll(Why::UringUnavailable(reason.to_string())),
            }),
        }
    }
}

/// Reports the start of a worker, or why there is none, and runs it.
fn begin<D: Driver>(
    driver: std::io::Result<D>,
    on: InUse,
    number: usize,
    plan: Plan,
    mailbox: Mailbox,
    started: &Started,
) -> std::io::Result<()> {
    let mut driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            let _ = started.send(Err(StartError::Kernel { what: "making an event loop", error }));
            return Ok(());
        }
    };
    let stats = Arc::new(WorkerStats::new(driver.io().counters()));
    let mut worker = Worker::new(plan, mailbox, stats.clone());
    let _ = started.send(Ok(Running { number, on, stats }));
    drive(&mut driver, &mut worker)
}

/// Runs a worker to its end.
fn drive<D: Driver>(driver: &mut D, worker: &mut Worker<Mailbox>) -> std::io::Result<()> {
    loop {
        driver.tick(worker, None)?;
        let now = driver.io().now();
        if worker.is_stopped() || worker.is_drained(now) {
            driver.shutdown(worker);
            worker.take_leave();
            return Ok(());
        }
    }
}
