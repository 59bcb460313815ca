//! From a config to running threads: how many workers, on which cores, with which listeners, and their start.

use crate::config::{self, Config, Count, DriverChoice, Pin};
use crate::mailbox::{self, Mailbox, Sizes};
use crate::stats::WorkerStats;
use crate::worker::{Plan, Worker};
use conn::Settings;
use conn::auth::host::HostPolicy;
use conn::auth::origin::OriginPolicy;
use conn::settings::{Endpoints, Limits, StaticPage, Times};
use hub::{ChannelHash, HomeLimits, Namespace, Namespaces, WorkerId};
use io::epoll::Epoll;
use io::uring::Uring;
use io::{Address, Clock, Driver, Listener, Options, Wake};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Files that are not client connections: the log, the API's listeners and connections, /proc readings.
const FILES_RESERVED: u64 = 512;

/// Files of each worker that are not client connections: epoll, eventfd, listeners, a spare one.
const FILES_PER_WORKER: u64 = 32;

/// Requests of one thread that wait for another's answer, as a share of its mailbox.
const ANSWERS_SHARE: usize = 2;

/// What a client over the limit is told. The connection is closed behind it.
const FULL_ANSWER: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 42\r\n\r\nthis server takes no more clients for now\n";

/// Why the gateway did not start. Says what to change.
#[derive(Debug)]
pub enum StartError {
    /// Something listens there already, or we may not.
    Listen {
        /// The address as configured.
        address: String,
        /// The flag and key that change it.
        change: &'static str,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// More connections wanted than files may be opened.
    TooFewFiles {
        /// `workers.connections_max`.
        wanted: u64,
        /// What the limit allows.
        possible: u64,
        /// The limit.
        files_max: u64,
    },
    /// io_uring was asked for, and cannot be had.
    Uring(io::uring::Unavailable),
    /// A core that is not there for us.
    Core {
        /// Its number.
        core: usize,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// Anything else the kernel refused.
    Kernel {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: std::io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, change, error } if error.kind() == std::io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use by another program: stop it, or listen elsewhere with {change}")
            }
            Self::Listen { address, change, error } => {
                write!(f, "cannot listen on {address}: {error}; listen elsewhere with {change}")
            }
            Self::TooFewFiles { wanted, possible, files_max } => write!(
                f,
                "workers.connections_max = {wanted} needs more open files than allowed: the limit is {files_max}, which \
                 serves {possible} connections; raise it (ulimit -n, LimitNOFILE=) or lower the key"
            ),
            Self::Uring(why) => write!(f, "workers.io = \"uring\": {why}; choose \"auto\" or \"epoll\""),
            Self::Core { core, error } => write!(f, "cannot pin a worker to core {core}: {error}; see workers.cpus"),
            Self::Kernel { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How the machine is used, for the start message and the metrics.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Number of workers.
    pub workers: usize,
    /// The core of each worker; empty: not pinned.
    pub cores: Vec<usize>,
    /// Why they are pinned or not.
    pub pinning: String,
    /// Soft limit of open files.
    pub files_max: u64,
    /// Client connections of each worker.
    pub connections_per_worker: usize,
}

impl Layout {
    /// Decides from the config and what the machine offers.
    ///
    /// # Errors
    /// More connections wanted than the limit of files allows.
    pub fn decide(config: &Config, machine: &Machine) -> Result<Self, StartError> {
        let available = machine.cores.len().max(1);
        let by_quota = machine.cpu_quota.map(|quota| (quota.ceil() as usize).clamp(1, available));
        let workers = match config.workers.count {
            Count::Auto if !config.workers.cpus.is_empty() => config.workers.cpus.len(),
            Count::Auto => by_quota.unwrap_or(available),
            Count::Fixed(count) => count as usize,
        };
        let (cores, pinning) = pinning(config, machine, workers, by_quota);
        let possible = machine.files_max.saturating_sub(FILES_RESERVED + FILES_PER_WORKER * workers as u64);
        let total = match config.workers.connections_max {
            Count::Auto => possible,
            Count::Fixed(wanted) if u64::from(wanted) > possible => {
                let (wanted, files_max) = (u64::from(wanted), machine.files_max);
                return Err(StartError::TooFewFiles { wanted, possible, files_max });
            }
            Count::Fixed(wanted) => u64::from(wanted),
        };
        Ok(Self {
            workers,
            cores,
            pinning,
            files_max: machine.files_max,
            // SO_REUSEPORT spreads by hash, so each worker needs some room above its even share.
            connections_per_worker: (total as usize).div_ceil(workers).max(1),
        })
    }

    /// Client connections of the whole process.
    pub fn connections_max(&self) -> u64 {
        (self.connections_per_worker * self.workers) as u64
    }
}

fn pinning(config: &Config, machine: &Machine, workers: usize, by_quota: Option<usize>) -> (Vec<usize>, String) {
    let listed: Vec<usize> = config.workers.cpus.iter().map(|&core| core as usize).collect();
    let round_robin = |cores: &[usize]| (0..workers).map(|i| cores[i % cores.len()]).collect::<Vec<_>>();
    let cores = &machine.cores;
    match config.workers.pin {
        Pin::Off => (Vec::new(), "not pinned: workers.pin = \"off\"".into()),
        _ if !listed.is_empty() => (round_robin(&listed), "pinned: workers.cpus".into()),
        _ if cores.is_empty() => (Vec::new(), "not pinned: the cores of this process are not known".into()),
        Pin::On => (round_robin(cores), "pinned: workers.pin = \"on\"".into()),
        Pin::Auto if by_quota.is_some() => {
            (Vec::new(), "not pinned: a CPU quota is in force, and its cores are not ours alone".into())
        }
        Pin::Auto if workers < cores.len() => {
            (Vec::new(), format!("not pinned: {workers} of {} cores are used", cores.len()))
        }
        Pin::Auto => (round_robin(cores), format!("pinned: one per core of {}", cores.len())),
    }
}

/// What the machine offers this process.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Cores it may run on.
    pub cores: Vec<usize>,
    /// Cores' worth of time its cgroup may use.
    pub cpu_quota: Option<f64>,
    /// Soft limit of open files.
    pub files_max: u64,
}

impl Machine {
    /// Reads it, raising the limit of open files as far as allowed.
    ///
    /// # Errors
    /// When the limit of open files cannot be read.
    pub fn probe() -> Result<Self, StartError> {
        let files = io::affinity::raise_fd_limit()
            .map_err(|error| StartError::Kernel { what: "reading the limit of open files", error })?;
        // Unknown cores only mean that nothing is pinned.
        let cores = io::affinity::cores().unwrap_or_default();
        Ok(Self { cores, cpu_quota: io::affinity::cpu_quota(), files_max: files.soft })
    }
}

/// The config as the connections see it.
///
/// # Errors
/// A namespace that the config's own check let through; says which.
pub fn settings(config: &Config, dev: bool) -> Result<Settings, String> {
    let options = |name: &str, o: &config::ChannelOptions| Namespace {
        name: name.to_owned(),
        allow_subscribe_for_client: o.allow_subscribe_for_client,
        allow_subscribe_for_anonymous: o.allow_subscribe_for_anonymous,
        allow_publish_for_client: o.allow_publish_for_client,
        allow_publish_for_anonymous: o.allow_publish_for_anonymous,
        allow_publish_for_subscriber: o.allow_publish_for_subscriber,
        slow_client: match o.slow_client {
            config::SlowClient::Disconnect => hub::SlowClient::Disconnect,
            config::SlowClient::DropOldest => hub::SlowClient::DropOldest,
            config::SlowClient::Conflate => hub::SlowClient::Conflate,
        },
    };
    let named = config.namespaces.iter().map(|n| options(&n.name, &n.options)).collect();
    let namespaces = Namespaces::new(options("", &config.channels), named).map_err(|error| error.to_string())?;
    let namespaces = if config.client.insecure { namespaces.accepting_unknown() } else { namespaces };
    let pages = if config.demo.enabled { crate::demo::pages() } else { Vec::new() };
    let only_this_machine = dev || config.public.listen.iter().all(|address| address.is_loopback());
    Ok(Settings {
        version: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
        endpoints: Endpoints {
            websocket: config.public.websocket,
            uni_websocket: config.public.uni_websocket,
            echo: config.public.echo,
        },
        origins: OriginPolicy::new(config.public.origins.iter().map(|origin| (**origin).clone()).collect()),
        hosts: if only_this_machine { HostPolicy::Loopback } else { HostPolicy::Any },
        anonymous: config.client.anonymous,
        insecure: config.client.insecure,
        namespaces,
        limits: limits(config),
        times: Times {
            head_timeout: config.http.head_timeout.get(),
            keep_alive_timeout: config.http.keep_alive_timeout.get(),
            stale_close_delay: config.client.stale_close_delay.get(),
            ping_interval: config.client.ping_interval.get(),
            pong_timeout: config.client.pong_timeout.get(),
            write_timeout: config.outbox.write_timeout.get(),
            close_timeout: config.outbox.close_timeout.get(),
        },
        pages: pages.iter().map(|p| StaticPage { path: p.path, content_type: p.content_type, body: p.body }).collect(),
    })
}

fn limits(config: &Config) -> Limits {
    Limits {
        head_bytes_max: config.http.head_bytes_max.get(),
        headers_max: config.http.headers_max as usize,
        message_bytes_max: config.client.message_bytes_max.get(),
        fragments_max: config.client.fragments_max,
        channels_max: config.client.channels_max as usize,
        channel_name_bytes_max: config.client.channel_name_bytes_max.get(),
        outbox_bytes_max: config.outbox.bytes_max.get(),
        outbox_high_water: config.outbox.high_water.get(),
        outbox_low_water: config.outbox.low_water.get(),
        reply_bytes_max: config.outbox.reply_bytes_max.get(),
        held_publications_max: config.hub.held_publications_max as usize,
        held_bytes_max: config.hub.held_bytes_max.get(),
    }
}

/// The process's secrets, drawn once.
#[derive(Debug, Clone, Copy)]
pub struct Secrets {
    /// Of the channel hash.
    pub hash: [u8; 16],
    /// Of client and session ids.
    pub ids: [u8; 16],
    /// Of epochs.
    pub epochs: u64,
    /// The node's uid.
    pub node: u128,
}

impl Secrets {
    /// From the system's random source.
    ///
    /// # Errors
    /// When there is none.
    pub fn draw() -> Result<Self, StartError> {
        let mut bytes = [0; 56];
        getrandom::fill(&mut bytes).map_err(|error| StartError::Kernel {
            what: "drawing random numbers",
            error: std::io::Error::other(error),
        })?;
        let part = |from: usize| <[u8; 16]>::try_from(&bytes[from..from + 16]).expect("16 of 56 bytes");
        let epochs = u64::from_le_bytes(bytes[48..56].try_into().expect("8 of 56 bytes"));
        Ok(Self { hash: part(0), ids: part(16), node: u128::from_le_bytes(part(32)), epochs })
    }
}

/// Running workers and what the control thread needs to speak to them.
#[derive(Debug)]
pub struct Workers {
    /// The control thread's mailbox.
    pub mailbox: Mailbox,
    /// Its wake.
    pub wake: io::WakeReceiver,
    /// One per worker.
    pub stats: Vec<Arc<WorkerStats>>,
    /// What they run on.
    pub driver: io::Kind,
    /// Why on that.
    pub driver_reason: &'static str,
    /// Where the public listeners are, with the ports that were chosen.
    pub listening: Vec<Address>,
    /// One message per worker that has ended.
    pub ended: tokio::sync::mpsc::UnboundedReceiver<Result<usize, String>>,
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
        for address in &self.config.public.listen {
            let group = io::listener::bind_all(address, count).map_err(|error| {
                let change = "--listen or public.listen";
                StartError::Listen { address: address.to_string(), change, error }
            })?;
            listening.push(group[0].local_address().clone());
            per_worker.iter_mut().zip(group).for_each(|(listeners, one)| listeners.push(one));
        }
        let wakes =
            (0..=count).map(|_| Wake::new()).collect::<Result<Vec<_>, _>>().map_err(kernel("making an eventfd"))?;
        let mut mailboxes = mailbox::connect(self.sizes(), &wakes);
        let control = mailboxes.pop().expect("one more mailbox than workers");
        let (end, ended) = tokio::sync::mpsc::unbounded_channel();
        let (started, starting) = mpsc::channel();
        for (number, (mailbox, listeners)) in mailboxes.into_iter().zip(per_worker).enumerate() {
            let thread = WorkerThread {
                number,
                plan: self.plan(number),
                options: self.options(),
                listeners,
                core: self.layout.cores.get(number).copied(),
                driver: driver(self.config.workers.io).0,
                clock: self.clock,
                wake: wakes[number].receiver(),
            };
            let (started, end) = (started.clone(), end.clone());
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || thread.run(mailbox, &started, &end))
                .map_err(kernel("starting a worker thread"))?;
        }
        drop(started);
        let mut stats: Vec<(usize, Arc<WorkerStats>)> = Vec::new();
        for _ in 0..count {
            stats.push(starting.recv().expect("every worker thread reports its start")?);
        }
        stats.sort_by_key(|(number, _)| *number);
        let stats = stats.into_iter().map(|(_, stats)| stats).collect();
        let (driver, driver_reason) = driver(self.config.workers.io);
        let wake = wakes[count].receiver();
        Ok(Workers { mailbox: control, wake, stats, driver, driver_reason, listening, ended })
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
            home: HomeLimits { channels_max: self.config.hub.channels_max as usize },
            epoch_seed: self.secrets.epochs.wrapping_add(number as u64),
            id_key: self.secrets.ids,
            connections_max: self.layout.connections_per_worker,
            request_timeout: self.config.hub.request_timeout.get(),
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

struct WorkerThread {
    number: usize,
    plan: Plan,
    options: Options,
    listeners: Vec<Listener>,
    core: Option<usize>,
    driver: io::Kind,
    clock: Clock,
    wake: io::WakeReceiver,
}

/// What the workers run on, and why.
fn driver(choice: DriverChoice) -> (io::Kind, &'static str) {
    match choice {
        DriverChoice::Auto => (io::Kind::Epoll, "io_uring has to be asked for with workers.io"),
        DriverChoice::Epoll => (io::Kind::Epoll, "asked for with workers.io"),
        DriverChoice::Uring => (io::Kind::Uring, "asked for with workers.io"),
    }
}

impl WorkerThread {
    fn run(
        self,
        mailbox: Mailbox,
        started: &mpsc::Sender<Result<(usize, Arc<WorkerStats>), StartError>>,
        end: &tokio::sync::mpsc::UnboundedSender<Result<usize, String>>,
    ) {
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

    fn live(
        self,
        mailbox: Mailbox,
        started: &mpsc::Sender<Result<(usize, Arc<WorkerStats>), StartError>>,
    ) -> std::io::Result<()> {
        if let Some(core) = self.core
            && let Err(error) = io::affinity::pin(core)
        {
            let _ = started.send(Err(StartError::Core { core, error }));
            return Ok(());
        }
        if self.driver == io::Kind::Uring {
            // A ring belongs to the thread that made it, so each worker tries for itself.
            return match Uring::probe() {
                Ok(ready) => {
                    let driver = Uring::new(ready, self.options, self.listeners, self.clock, self.wake);
                    begin(driver, self.number, self.plan, mailbox, started)
                }
                Err(why) => {
                    let _ = started.send(Err(StartError::Uring(why)));
                    Ok(())
                }
            };
        }
        let driver = Epoll::new(self.options, self.listeners, self.clock, self.wake);
        begin(driver, self.number, self.plan, mailbox, started)
    }
}

/// Reports the start of a worker, or why there is none, and runs it.
fn begin<D: Driver>(
    driver: std::io::Result<D>,
    number: usize,
    plan: Plan,
    mailbox: Mailbox,
    started: &mpsc::Sender<Result<(usize, Arc<WorkerStats>), StartError>>,
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
    let _ = started.send(Ok((number, stats)));
    drive(&mut driver, &mut worker)
}

/// Runs a worker to its end.
fn drive<D: Driver>(driver: &mut D, worker: &mut Worker<Mailbox>) -> std::io::Result<()> {
    loop {
        driver.tick(worker, None)?;
        let now = driver.io().now();
        if worker.is_stopped() || worker.is_drained(now) {
            driver.shutdown(worker);
            return Ok(());
        }
    }
}

/// Longest time from the last close of a drain to the end of a worker.
pub fn drain_bound(config: &Config) -> Duration {
    config.drain.time.get() + config.outbox.close_timeout.get() * 2 + Duration::from_secs(1)
}
