//! Signals: how a running gateway is reloaded, drained and ended.
//!
//! ```text
//! SIGTERM --> not ready, still accepting (drain.notice) --> closes spread over drain.time --> exit 0
//!    |            |                                             |
//!    '------------'--------- a second SIGTERM or SIGINT --------'--> exit 0 at once
//! SIGINT  --> with --dev at once, else as SIGTERM
//! SIGHUP  --> read the config again; keep the old one and say why where the new one is bad
//! ```

use crate::backend::Gateway;
use crate::config::{Config, Workers};
use crate::letter::Order;
use crate::logging;
use crate::memory::{self, LOOK_AT_MEMORY};
use crate::notify::Manager;
use crate::serve::{LAST_NOTICES, Reload, api_settings};
use crate::tls::{self, Identities};
use crate::topology::{self, Outside};
use conn::Settings;
use conn::address::Addresses;
use control::{ApiSettings, ServeLimits};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Ended,
    /// A worker failed.
    Failed,
}

/// From "it runs" to "it has ended".
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// The config in force.
    pub(crate) config: Config,
    /// The one that the listeners were made from.
    pub(crate) started: Config,
    /// Where a new one comes from.
    pub(crate) reload: Reload,
    /// The log's levels.
    pub(crate) levels: logging::Reload,
    /// The workers.
    pub(crate) gateway: Arc<Gateway>,
    /// One message per worker that has ended.
    pub(crate) ended: UnboundedReceiver<Result<usize, String>>,
    /// Listened for since before the start was announced: who reads the announcement may signal.
    pub(crate) signals: Signals,
    /// What is shown on TLS listeners.
    pub(crate) certificates: Certificates,
    /// What the workers know of their clients' addresses.
    pub(crate) addresses: Arc<Addresses>,
    /// The workers' clock.
    pub(crate) clock: io::Clock,
    /// What there is.
    pub(crate) machine: topology::Machine,
}

/// What is shown on TLS listeners.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// As they were read last. `None` where nothing listens with TLS.
    pub(crate) identities: Option<Identities>,
    /// Where the API's listeners read theirs.
    pub(crate) api: watch::Sender<Option<Arc<conn::tls::ServerConfig>>>,
}

impl Certificates {
    /// Says how long they are good for.
    pub(crate) fn report(&self, gateway: &Gateway) {
        let expiries = self.identities.iter().flat_map(|all| &all.expiries);
        for warning in expiries.clone().filter_map(|expiry| expiry.warning(SystemTime::now())) {
            tracing::warn!("{warning}: put the new one into its place and send SIGHUP");
        }
        gateway.set_certificates(expiries.cloned().collect());
    }
}

/// How often certificates are looked at that will end.
const LOOK_AT_CERTIFICATES: Duration = Duration::from_secs(12 * 3600);

/// How often the system's clock is compared with what the workers take for it, and by how much it may differ: tokens are about
/// seconds, and a machine that was suspended wakes up with its clock set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
const CLOCK_SET_MIN: Duration = Duration::from_millis(500);

/// The signals that mean something here.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reload,
    Drain,
    Stop,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, dev: bool) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Drain,
            _ = self.interrupt.recv() => if dev { Asked::Stop } else { Asked::Drain },
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// A second signal that means "now".
    async fn impatient(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {},
            _ = self.interrupt.recv() => {},
        }
    }
}

impl Lifecycle {
    /// Runs until the process should end.
    pub(crate) async fn run(mut self, api: watch::Sender<Arc<ApiSettings>>) -> Outcome {
        let manager = Manager::from_env();
        let gateway = self.gateway.clone();
        let mut attending = pin!(manager.attend(&gateway));
        let mut looks = tokio::time::interval(LOOK_AT_CERTIFICATES);
        looks.reset(); // The start has looked already.
        let mut clock_looks = tokio::time::interval(LOOK_AT_CLOCK);
        let mut memory_looks = tokio::time::interval(LOOK_AT_MEMORY);
        let mut memory = memory::Watch::new(gateway.memory().clone());
        let mut origin = topology::unix_origin(self.clock);
        let mut keys = self.gateway.keys().known();
        loop {
            let asked = tokio::select! {
                asked = self.signals.next(self.reload.is_dev()) => asked,
                ended = self.ended.recv() => return failed(ended),
                _ = looks.tick() => {
                    self.certificates.report(&gateway);
                    continue;
                }
                _ = memory_looks.tick() => {
                    memory.look(gateway.connections());
                    continue;
                }
                _ = clock_looks.tick() => {
                    let set = topology::unix_origin(self.clock);
                    if set.abs_diff(origin) >= CLOCK_SET_MIN {
                        tracing::warn!(by = ?set.abs_diff(origin), "the system's clock was set; tokens are judged by it from now on");
                        gateway.order_all(|| Order::UnixOrigin(set)).await;
                        origin = set;
                    }
                    continue;
                }
                Ok(()) = keys.changed() => {
                    self.keys_have_changed().await;
                    continue;
                }
                never = &mut attending => match never {},
            };
            match asked {
                Asked::Reload => {
                    manager.reloading().await;
                    let outcome = self.reload(&api).await;
                    manager.reloaded(&outcome).await;
                }
                Asked::Stop => return Outcome::Ended,
                Asked::Drain => return self.drain_unless_hurried(&manager).await,
            }
        }
    }

    /// From here on the workers end one after the other, so the manager is given no more signs of life; to have been told
    /// that we stop is why it wants none.
    async fn drain_unless_hurried(self, manager: &Manager) -> Outcome {
        let Self { config, gateway, mut ended, mut signals, .. } = self;
        manager.stopping(stop_bound(&config), gateway.connections()).await;
        tokio::select! {
            outcome = drain(&config, &gateway, &mut ended) => outcome,
            () = signals.impatient() => {
                tracing::warn!("a second signal: ending at once");
                Outcome::Ended
            }
        }
    }

    /// Reads the config again. What needs a restart is named, the rest is in force from now on. An error says why
    /// the old one stays.
    async fn reload(&mut self, api: &watch::Sender<Arc<ApiSettings>>) -> Result<(), String> {
        let config = match self.reload.load() {
            Ok(config) => config,
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("reload: {problem}");
                }
                tracing::error!("reload: the old configuration stays in force");
                return Err(problems.first().map_or_else(String::new, ToString::to_string));
            }
        };
        let settings = match topology::settings(&config, self.reload.is_dev()) {
            Ok(settings) => settings,
            Err(what) => {
                tracing::error!("reload: {what}; the old configuration stays in force");
                return Err(what);
            }
        };
        let identities = match tls::read(&config.tls) {
            Ok(identities) => identities,
            Err(fault) => {
                tracing::error!("reload: {fault}; the old configuration stays in force");
                return Err(fault.to_string());
            }
        };
        let Outside { backends, keys } = match topology::outside(&config) {
            Ok(outside) => outside,
            Err(what) => {
                tracing::error!("reload: {what}; the old configuration stays in force");
                return Err(what);
            }
        };
        for section in self.needs_restart(&config) {
            tracing::warn!("reload: {section} has changed, which takes effect with the next start only");
        }
        // The listeners are those of the start, whatever is configured now: none may change between TLS and not.
        if let (Some(old), Some(new)) = (&mut self.certificates.identities, identities) {
            *old = new;
        }
        self.gateway.keys().set_source(keys);
        let settings = self.put_in_force(settings).await;
        self.certificates.api.send_replace(self.certificates.identities.as_ref().map(|all| all.api.clone()));
        self.certificates.report(&self.gateway);
        self.levels.set(&config.log.level);
        api.send_replace(Arc::new(api_settings(&config)));
        self.gateway.set_namespaces(settings.namespaces.clone());
        self.gateway.set_backends(backends);
        self.gateway.memory().set_ceiling(topology::memory_bytes_max(&config, &self.machine));
        self.config = config;
        tracing::info!("reload: the new configuration is in force");
        Ok(())
    }

    /// Gives all workers these settings, with the listeners of the start and the published keys that are known.
    async fn put_in_force(&self, mut settings: Settings) -> Arc<Settings> {
        settings = topology::counting(settings, &self.addresses);
        settings.listeners = topology::listeners(&self.started, self.certificates.identities.as_ref());
        if let Some(published) = &mut settings.tokens.published {
            published.clone_from(&self.gateway.keys().known().borrow());
        }
        let settings = Arc::new(settings);
        self.gateway.order_all(|| Order::Settings(settings.clone())).await;
        settings
    }

    /// New keys were published.
    async fn keys_have_changed(&self) {
        match topology::settings(&self.config, self.reload.is_dev()) {
            Ok(settings) => drop(self.put_in_force(settings).await),
            Err(what) => tracing::error!("new published keys cannot be used: {what}"),
        }
    }

    fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.config;
        // The ceiling of memory is in force at once.
        let workers = Workers { memory_bytes_max: old.workers.memory_bytes_max, ..new.workers.clone() };
        let changed = [
            ("server", old.server != new.server),
            ("workers", old.workers != workers),
            ("public.listen", self.started.public.listen != new.public.listen),
            ("tls.listen", self.started.tls.listen != new.tls.listen),
            (
                "public.proxy_protocol_required",
                self.started.public.proxy_protocol_required != new.public.proxy_protocol_required,
            ),
            (
                "public.proxy_protocol_optional",
                self.started.public.proxy_protocol_optional != new.public.proxy_protocol_optional,
            ),
            ("api.listen", self.started.api.listen != new.api.listen),
            ("tls.api_listen", self.started.tls.api_listen != new.tls.api_listen),
            ("hub", old.hub != new.hub),
            ("demo", old.demo != new.demo),
        ];
        changed.into_iter().filter_map(|(section, changed)| changed.then_some(section)).collect()
    }
}

/// Longest time from SIGTERM to the end of the process: what a service manager has to wait before it kills.
pub fn stop_bound(config: &Config) -> Duration {
    let ServeLimits { grace, linger, .. } = ServeLimits::default();
    config.drain.notice.get() + topology::drain_bound(config) + LAST_NOTICES + grace + linger
}

async fn drain(config: &Config, gateway: &Gateway, ended: &mut UnboundedReceiver<Result<usize, String>>) -> Outcome {
    let (notice, over) = (config.drain.notice.get(), config.drain.time.get());
    let clients = gateway.connections();
    tracing::info!(?notice, ?over, clients, "draining: not ready from now on");
    gateway.set_ready(false).await;
    tokio::select! {
        () = tokio::time::sleep(notice) => {}
        end = ended.recv() => return failed(end),
    }
    gateway.order_all(|| Order::Drain { over }).await;
    let mut left = gateway.workers();
    let all_ended = async {
        while left > 0 {
            match ended.recv().await {
                Some(Ok(_)) => left -= 1,
                other => return failed(other),
            }
        }
        Outcome::Ended
    };
    match tokio::time::timeout(topology::drain_bound(config), all_ended).await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::warn!("the drain has taken longer than it may: ending");
            Outcome::Ended
        }
    }
}

fn failed(ended: Option<Result<usize, String>>) -> Outcome {
    match ended {
        Some(Err(error)) => tracing::error!("{error}: the process ends"),
        Some(Ok(worker)) => tracing::error!(worker, "a worker has ended unasked: the process ends"),
        None => tracing::error!("all workers have ended: the process ends"),
    }
    Outcome::Failed
}
