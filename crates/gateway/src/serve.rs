//! The `serve` command: config to running gateway to exit code.

use crate::backend::{Bridge, Gateway, Identity, Reach};
use crate::cli::{Cli, Command, Dev, EXIT_RUNTIME, EXIT_USAGE, ServeArgs};
use crate::config::{Config, LogFormat};
use crate::lifecycle::{Certificates, Lifecycle, Outcome, Signals};
use crate::logging::Logs;
use crate::memory::Memory;
use crate::topology::{self, Layout, Machine, Outside, Secrets, Start, StartError, Why, Workers};
use crate::{commands, config, tls};
use conn::Settings;
use conn::address::Addresses;
use control::metrics::DriverInUse;
use control::{ApiKey, ApiSettings, ServeLimits};
use hub::ChannelHash;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Runs whatever the command line asks for.
pub fn main(cli: &Cli) -> ExitCode {
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let code = match &cli.command {
        None => serve(&cli.serve, &env, cli.dev(&env)),
        Some(Command::Serve(args)) => serve(args, &env, cli.dev(&env)),
        Some(Command::Check(args)) => written(commands::check::run(args, &env, &mut out, &mut err)),
        Some(Command::Publish(args)) => written(commands::publish::run(args, &env, &mut out, &mut err)),
        Some(Command::Cert(args)) => written(commands::cert::run(args, &mut out, &mut err)),
        Some(Command::Token(args)) => written(commands::token::run(args, &env, &mut out, &mut err)),
        Some(Command::Completions { shell }) => written(commands::completions::run(*shell, &mut out)),
    };
    ExitCode::from(code)
}

/// A reader that went away (`tidegate check | head`) is no error worth a message.
fn written(result: std::io::Result<u8>) -> u8 {
    result.unwrap_or(EXIT_RUNTIME)
}

fn serve(args: &ServeArgs, env: &[(OsString, OsString)], dev: Dev) -> u8 {
    let loaded = match args.load(env, dev) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let _ = commands::check::report(&mut std::io::stderr(), "error", &problems);
            return EXIT_USAGE;
        }
    };
    let _ = commands::check::report(&mut std::io::stderr(), "warning", &loaded.warnings);
    let logs = match Logs::start(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("error: cannot start the log: {error}");
            return EXIT_RUNTIME;
        }
    };
    let reload = Reload { args: args.clone(), env: env.to_vec(), dev };
    match start_and_run(&loaded.config, reload, &logs) {
        Ok(Outcome::Ended) => 0,
        Ok(Outcome::Failed) => EXIT_RUNTIME,
        Err(error) => {
            eprintln!("error: {error}");
            EXIT_RUNTIME
        }
    }
}

/// What a reload reads again.
#[derive(Debug)]
pub(crate) struct Reload {
    args: ServeArgs,
    env: Vec<(OsString, OsString)>,
    dev: Dev,
}

impl Reload {
    /// The config as it is now.
    pub(crate) fn load(&self) -> Result<Config, Vec<config::Problem>> {
        self.args.load(&self.env, self.dev).map(|loaded| loaded.config)
    }

    pub(crate) fn is_dev(&self) -> bool {
        self.dev.is_on()
    }
}

fn start_and_run(config: &Config, reload: Reload, logs: &Logs) -> Result<Outcome, StartError> {
    let machine = Machine::probe()?;
    let layout = Layout::decide(config, &machine)?;
    let secrets = Secrets::draw()?;
    let clock = io::Clock::start();
    let dev = reload.dev;
    let settings = topology::settings(config, dev.is_on())
        .map_err(|what| StartError::Kernel { what: "the config", error: std::io::Error::other(what) })?;
    let identities = tls::read(&config.tls).map_err(StartError::Tls)?;
    let addresses = Arc::new(Addresses::new(secrets.hash, layout.connections_max));
    let settings = topology::counting(settings, &addresses);
    let settings = Settings { listeners: topology::listeners(config, identities.as_ref()), ..settings };
    let kernel = |what| move |error| StartError::Kernel { what, error };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(kernel("starting the control thread"))?;
    runtime.block_on(async {
        // The API first: an address in use is found before any thread runs.
        let (api_tls, shown_to_api) = watch::channel(identities.as_ref().map(|all| all.api.clone()));
        let api = bind_api(config, &shown_to_api).await?;
        let settings = Arc::new(settings);
        let memory = Arc::new(Memory::new(layout.memory_bytes_max));
        let start =
            Start { config, layout: &layout, settings: settings.clone(), secrets, clock, memory: memory.clone() };
        let Workers { mailbox, wake, stats, drivers, listening, ended } = start.workers()?;
        let reach = Reach {
            hash: ChannelHash::new(secrets.hash),
            clock,
            request_timeout: config.hub.request_timeout.get(),
            namespaces: settings.namespaces.clone(),
        };
        let identity = Identity {
            uid: format!("{:032x}", secrets.node),
            name: if config.server.name.is_empty() { host_name() } else { config.server.name.clone() },
            drivers: drivers.into_iter().map(in_use).collect(),
            files_max: layout.files_max,
            connections_max: layout.connections_max,
            memory,
        };
        let signals = Signals::listen().map_err(kernel("listening for signals"))?;
        let announcement = Announcement {
            dev,
            public: listening.iter().enumerate().map(|(i, at)| url(at, i >= config.public.listen.len())).collect(),
            api: api.iter().map(api_url).collect(),
            layout,
        };
        let Outside { backends, keys } = topology::outside(config).map_err(|what| StartError::Kernel {
            what: "[webhooks] or token.jwks_url",
            error: std::io::Error::other(what),
        })?;
        let (gateway, bridge) = Gateway::new(mailbox, wake, stats, identity, &reach, logs.dropped());
        gateway.set_backends(backends);
        gateway.keys().set_source(keys);
        let api = Api { listeners: api, settings: api_settings(config), limits: api_limits(config) };
        let levels = logs.reload();
        let certificates = Certificates { identities, api: api_tls };
        certificates.report(&gateway);
        let lifecycle = Lifecycle {
            addresses,
            config: config.clone(),
            started: config.clone(),
            reload,
            levels,
            gateway,
            ended,
            signals,
            certificates,
            clock,
            machine,
        };
        Ok(run(api, bridge, lifecycle, announcement).await)
    })
}

/// How long the end of the process waits for a backend to take the last notices.
pub(crate) const LAST_NOTICES: Duration = Duration::from_secs(2);

/// What the server API is started with.
struct Api {
    listeners: Vec<control::Listener>,
    settings: ApiSettings,
    limits: ServeLimits,
}

async fn run(api: Api, bridge: Bridge, lifecycle: Lifecycle, announcement: Announcement) -> Outcome {
    let gateway = lifecycle.gateway.clone();
    let config = lifecycle.config.clone();
    let mut bridge = tokio::spawn(bridge.run());
    let (settings, current_settings) = watch::channel(Arc::new(api.settings));
    let router = control::router(current_settings, gateway.clone());
    let demo_options =
        control::demo::Options { api_url: api.listeners.iter().map(api_url).find(|url| url.starts_with("http:")) };
    let (stop_api, api_stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(control::serve(api.listeners, router, api.limits, async move {
        let _ = api_stopped.await;
    }));
    let demo = lifecycle.config.demo.enabled.then(|| {
        let gateway = gateway.clone();
        tokio::spawn(control::demo::run_with(gateway, demo_options, std::future::pending()))
    });
    let telling = tokio::spawn({
        let gateway = gateway.clone();
        async move { tokio::join!(gateway.tell_backend(), gateway.keys().follow()) }
    });
    gateway.set_ready(true).await;
    let announced = async {
        // Each worker answers behind the order: whoever reads the announcement finds all of us ready.
        gateway.all_answer(&mut 0).await;
        announcement.make(&config, gateway.identity());
        std::future::pending::<Infallible>().await
    };
    let outcome = tokio::select! {
        never = announced => match never {},
        outcome = lifecycle.run(settings) => outcome,
        ended = &mut bridge => {
            tracing::error!("the bridge between the API and the workers has ended: {ended:?}");
            Outcome::Failed
        }
    };
    if let Some(demo) = demo {
        demo.abort();
    }
    let left = gateway.finish_telling(LAST_NOTICES).await;
    if left > 0 {
        tracing::warn!(left, "webhook notices: the backend has not taken the last of them");
    }
    telling.abort();
    // Answers under way are given their time; `serve` bounds it.
    let _ = stop_api.send(());
    let _ = serving.await;
    outcome
}

async fn bind_api(config: &Config, tls: &control::Tls) -> Result<Vec<control::Listener>, StartError> {
    let mut listeners = Vec::new();
    for address in &config.api.listen {
        let change = "--api-listen or api.listen";
        let refused = |error| StartError::Listen { address: address.to_string(), change, error };
        let fd = io::listener::bind(address, false).map_err(refused)?.into_fd();
        listeners.push(match &**address {
            io::Address::Ip(_) => tokio::net::TcpListener::from_std(fd.into()).map_err(refused)?.into(),
            io::Address::Unix(_) => tokio::net::UnixListener::from_std(fd.into()).map_err(refused)?.into(),
        });
    }
    for address in &config.tls.api_listen {
        let refused = |error| StartError::Listen { address: address.to_string(), change: "tls.api_listen", error };
        let fd = io::listener::bind(address, false).map_err(refused)?.into_fd();
        let listener = tokio::net::TcpListener::from_std(fd.into()).map_err(refused)?;
        listeners.push(control::Listener::Tls(listener, tls.clone()));
    }
    Ok(listeners)
}

/// The API's settings; also read again by a reload.
pub(crate) fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        // The config has checked that no key is empty.
        keys: config.api.keys.iter().filter_map(|key| ApiKey::new(key.expose()).ok()).collect(),
        // A key that is configured is asked for, whatever else is said.
        insecure: config.api.insecure && config.api.keys.is_empty(),
        body_bytes_max: config.api.body_bytes_max.get(),
        data_bytes_max: config.api.data_bytes_max.get(),
        channel_bytes_max: config.client.channel_name_bytes_max.get(),
        history_publications_max: config.client.history_publications_max as usize,
        backend_timeout: config.hub.request_timeout.get(),
        ..ApiSettings::default()
    }
}

fn api_limits(config: &Config) -> ServeLimits {
    ServeLimits { head_timeout: config.http.head_timeout.get(), ..ServeLimits::default() }
}

fn in_use(on: topology::InUse) -> DriverInUse {
    if let Why::UringUnavailable(reason) = &on.why {
        tracing::warn!(reason, "the workers run on epoll: io_uring cannot be used");
    }
    DriverInUse { driver: on.driver.as_str(), reason: on.why.to_string() }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "tidegate".into(), |name| name.trim().into())
}

/// Says where everything is, to people on stderr, or as log events where those are read by programs.
struct Announcement {
    dev: Dev,
    public: Vec<String>,
    api: Vec<String>,
    layout: Layout,
}

impl Announcement {
    fn make(&self, config: &Config, identity: &Identity) {
        let Self { dev, public, api, layout } = self;
        if config.log.format != LogFormat::Json {
            eprint!("{}", banner(config, layout, identity, *dev, public, api));
            return;
        }
        for DriverInUse { driver, reason } in &identity.drivers {
            tracing::info!(driver, reason, "the workers' event loops");
        }
        let (workers, pinning, clients) = (layout.workers, &layout.pinning, layout.connections_max);
        tracing::info!(?public, ?api, workers, pinning, clients, "tidegate {} is listening", env!("CARGO_PKG_VERSION"));
    }
}

fn banner(
    config: &Config,
    layout: &Layout,
    identity: &Identity,
    dev: Dev,
    public: &[String],
    api: &[String],
) -> String {
    let mut text = format!("tidegate {}\n", crate::cli::VERSION);
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("writing into memory cannot fail");
    match dev {
        Dev::FirstRun => line(format_args!(
            "no config given: starting as with --dev, open to everybody on this machine and to nobody else"
        )),
        Dev::Asked => line(format_args!("--dev: open to everybody on this machine and to nobody else")),
        Dev::No => {}
    }
    for url in public {
        line(format_args!("listening public {url}"));
    }
    for url in api {
        line(format_args!("listening api {url}"));
    }
    for DriverInUse { driver, reason } in &identity.drivers {
        line(format_args!("driver {driver} ({reason})"));
    }
    line(format_args!("workers {}, {}", layout.workers, layout.pinning));
    let tables = if layout.private_tables { ", for each worker by itself" } else { "" };
    line(format_args!("open files {}{tables}: room for {} clients", layout.files_max, layout.connections_max));
    if layout.memory_bytes_max > 0 {
        line(format_args!(
            "memory {} MiB: beyond it newcomers wait and the heaviest backlogs go",
            layout.memory_bytes_max >> 20
        ));
    }
    if let (true, Some(url)) = (config.demo.enabled, public.first()) {
        line(format_args!("demo {url}/"));
    }
    if let Some(url) = api.iter().find(|url| url.starts_with("http")) {
        let key = if config.api.insecure { "" } else { " -H \"X-API-Key: $KEY\"" };
        let channel = if config.demo.enabled { "demo:chat" } else { "news" };
        let data = r#"{"name":"curl","text":"hello"}"#;
        line(format_args!(
            "publish with\n  curl{key} {url}/api/publish -d '{{\"channel\":\"{channel}\",\"data\":{data}}}'"
        ));
    }
    text
}

fn url(address: &io::Address, tls: bool) -> String {
    match address {
        io::Address::Ip(ip) if tls => format!("https://{ip}"),
        io::Address::Ip(ip) => format!("http://{ip}"),
        io::Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn api_url(listener: &control::Listener) -> String {
    match listener {
        control::Listener::Tcp(tcp) => {
            tcp.local_addr().map_or_else(|error| format!("({error})"), |address| format!("http://{address}"))
        }
        control::Listener::Tls(tcp, _) => {
            tcp.local_addr().map_or_else(|error| format!("({error})"), |address| format!("https://{address}"))
        }
        control::Listener::Unix(unix) => unix
            .local_addr()
            .ok()
            .and_then(|address| address.as_pathname().map(|path| format!("unix:{}", path.display())))
            .unwrap_or_else(|| "unix:(unnamed)".into()),
    }
}
