//! From a config to running threads: how many workers, on which cores, with which listeners, and their start.

mod layout;
mod start;

pub(crate) use layout::memory_bytes_max;
pub use layout::{Layout, Machine};
pub use start::{FULL_ANSWER, InUse, Start, Why, Workers, unix_origin};

use crate::backend::Backends;
use crate::config::{self, Config};
use crate::keys;
use crate::tls::Identities;
use conn::Settings;
use conn::address::{Addresses, Trusted};
use conn::auth::host::HostPolicy;
use conn::auth::origin::OriginPolicy;
use conn::auth::token::{Key, Tokens};
use conn::settings::{Endpoints, Limits, Listener, ProxyProtocol, Rate, StaticPage, Times};
use control::webhook::{Caller, Endpoint, SigningKey, Target};
use hub::{Namespace, Namespaces};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use wire::ws::deflate::Level;

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
        /// The number of workers with tables of their own that would do.
        hint: Option<u64>,
    },
    /// A table of descriptors per worker was asked for, and cannot be had; says why.
    PrivateTables(String),
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
    /// The files of `[tls]` changed since they were checked, and cannot be used any more.
    Tls(crate::tls::Fault),
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
            Self::TooFewFiles { wanted, possible, files_max, hint } => {
                write!(
                    f,
                    "workers.connections_max = {wanted} needs more open files than allowed: the limit is {files_max}, \
                     which serves {possible} connections; raise it (ulimit -n, LimitNOFILE=) or lower the key"
                )?;
                hint.map_or(Ok(()), |workers| {
                    write!(
                        f,
                        ", or set workers.count = {workers} and workers.private_fd_tables = \"on\", so that the limit \
                         counts for each worker by itself"
                    )
                })
            }
            Self::PrivateTables(why) => write!(
                f,
                "workers.private_fd_tables = \"on\": close_range(2) with CLOSE_RANGE_UNSHARE is refused: {why}; choose \
                 \"auto\" or \"off\""
            ),
            Self::Uring(why) => write!(f, "workers.io = \"uring\": {why}; choose \"auto\" or \"epoll\""),
            Self::Core { core, error } => write!(f, "cannot pin a worker to core {core}: {error}; see workers.cpus"),
            Self::Kernel { what, error } => write!(f, "{what}: {error}"),
            Self::Tls(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// The config as the connections see it.
///
/// # Errors
/// A namespace that the config's own check let through; says which.
pub fn settings(config: &Config, dev: bool) -> Result<Settings, String> {
    let options = |name: &str, o: &config::ChannelOptions| Namespace {
        name: name.to_owned(),
        allow_subscribe_for_client: o.allow_subscribe_for_client,
        allow_subscribe_for_anonymous: o.allow_subscribe_for_anonymous,
        allow_user_limited_channels: o.allow_user_limited_channels,
        allow_publish_for_client: o.allow_publish_for_client,
        allow_publish_for_anonymous: o.allow_publish_for_anonymous,
        allow_publish_for_subscriber: o.allow_publish_for_subscriber,
        history: o.retention(),
        force_recovery: o.force_recovery,
        allow_recovery: o.allow_recovery,
        recovery_mode: match o.force_recovery_mode {
            config::RecoveryMode::Stream => hub::RecoveryMode::Stream,
            config::RecoveryMode::Cache => hub::RecoveryMode::Cache,
        },
        auto_cache_recover: o.auto_cache_recover,
        force_positioning: o.force_positioning,
        allow_positioning: o.allow_positioning,
        allow_history_for_client: o.allow_history_for_client,
        allow_history_for_subscriber: o.allow_history_for_subscriber,
        allow_history_for_anonymous: o.allow_history_for_anonymous,
        presence: o.presence,
        join_leave: o.join_leave,
        force_push_join_leave: o.force_push_join_leave,
        allow_presence_for_client: o.allow_presence_for_client,
        allow_presence_for_subscriber: o.allow_presence_for_subscriber,
        allow_presence_for_anonymous: o.allow_presence_for_anonymous,
        slow_client: match o.slow_client {
            config::SlowClient::Disconnect => hub::SlowClient::Disconnect,
            config::SlowClient::DropOldest => hub::SlowClient::DropOldest,
            config::SlowClient::Conflate => hub::SlowClient::Conflate,
        },
        conflate_by_tag: (!o.conflate_by_tag.is_empty()).then(|| o.conflate_by_tag.as_str().into()),
        allow_fossil_deltas: o.allowed_delta_types.contains(&config::DeltaType::Fossil),
        delta_publish: o.delta_publish,
        compress: o.compress,
        subscribe_proxy_enabled: o.subscribe_proxy_enabled,
        publish_proxy_enabled: o.publish_proxy_enabled,
        sub_refresh_proxy_enabled: o.sub_refresh_proxy_enabled,
        channel_notices: o.channel_notices,
    };
    let named = config.namespaces.iter().map(|n| options(&n.name, &n.options)).collect();
    let namespaces = Namespaces::new(options("", &config.channels), named).map_err(|error| error.to_string())?;
    let namespaces = if config.client.insecure { namespaces.accepting_unknown() } else { namespaces };
    let pages = if config.demo.enabled { crate::demo::pages() } else { Vec::new() };
    let only_this_machine = dev || config.client_addresses().all(|address| address.is_loopback());
    let names: Vec<_> = config.public.hosts.iter().map(|name| (**name).clone()).collect();
    Ok(Settings {
        version: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
        endpoints: Endpoints {
            websocket: config.public.websocket,
            uni_websocket: config.public.uni_websocket,
            echo: config.public.echo,
        },
        origins: OriginPolicy::new(config.public.origins.iter().map(|origin| (**origin).clone()).collect()),
        hosts: if only_this_machine || !names.is_empty() { HostPolicy::OwnAnd(names) } else { HostPolicy::Any },
        tokens: tokens(&config.token),
        webhooks: webhooks(&config.webhooks),
        client_notices: config.webhooks.client_notices,
        personal: config.client.personal_channel.then(|| config.client.personal_channel_namespace.clone()),
        anonymous: config.client.anonymous,
        insecure: config.client.insecure,
        namespaces,
        limits: limits(config),
        trusted_proxies: Trusted::new(config.public.trusted_proxies.iter().map(|proxy| **proxy).collect()),
        // The process's own take their place.
        addresses: Arc::default(),
        listeners: Vec::new(),
        times: Times {
            tls_handshake_timeout: config.tls.handshake_timeout.get(),
            head_timeout: config.http.head_timeout.get(),
            keep_alive_timeout: config.http.keep_alive_timeout.get(),
            stale_close_delay: config.client.stale_close_delay.get(),
            expired_close_delay: config.client.expired_close_delay.get(),
            ping_interval: config.client.ping_interval.get(),
            pong_timeout: config.client.pong_timeout.get(),
            write_timeout: config.outbox.write_timeout.get(),
            close_timeout: config.outbox.close_timeout.get(),
        },
        compression: config.compression.enabled.then(|| compression(&config.compression)),
        pages: pages.iter().map(|p| StaticPage { path: p.path, content_type: p.content_type, body: p.body }).collect(),
    })
}

fn compression(section: &config::Compression) -> conn::settings::Compression {
    conn::settings::Compression {
        level: Level::new(section.level as u8).unwrap_or_default(),
        reply_bytes_min: section.reply_bytes_min.get(),
        publication_bytes_min: section.publication_bytes_min.get(),
        after_previous: section.after_previous,
        previous_bytes_max: section.previous_bytes_max.get(),
        client_history_bytes_max: section.client_history_bytes_max.get(),
    }
}

/// How the connections of each client listener begin: those of a config in the clear, then those with TLS.
pub fn listeners(config: &Config, identities: Option<&Identities>) -> Vec<Listener> {
    let public = &config.public;
    let proxy_protocol = |address: &config::Address| match () {
        () if public.proxy_protocol_required.contains(address) => ProxyProtocol::Required,
        () if public.proxy_protocol_optional.contains(address) => ProxyProtocol::Optional,
        () => ProxyProtocol::Off,
    };
    let clear = public.listen.iter().map(|at| Listener { tls: None, proxy_protocol: proxy_protocol(at) });
    let tls = config
        .tls
        .listen
        .iter()
        .map(|at| Listener { tls: identities.map(|all| all.public.clone()), proxy_protocol: proxy_protocol(at) });
    clear.chain(tls).collect()
}

/// What the keys of a config come to.
pub(crate) fn tokens(token: &config::Token) -> Tokens {
    let secrets = token.hmac_secret_keys.iter().enumerate().map(|(i, secret)| {
        let key = Key::hmac(secret.expose().as_bytes());
        match token.hmac_old_keys_until.get() {
            Some(end) if i > 0 => key.until(end),
            _ => key,
        }
    });
    let rsa = token.rsa_public_keys.iter().map(config::PublicKey::key);
    let ecdsa = token.ecdsa_public_keys.iter().map(config::PublicKey::key);
    let ed25519 = token.ed25519_public_keys.iter().map(config::PublicKey::key);
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Tokens {
        keys: secrets.chain(rsa).chain(ecdsa).chain(ed25519).collect(),
        published: token.jwks_url.target().map(|_| Vec::new()),
        key_ids: token.key_ids.clone(),
        audience: some(&token.audience),
        issuer: some(&token.issuer),
        leeway: token.leeway.get(),
    }
}

/// About what a backend is asked.
fn webhooks(section: &config::Webhooks) -> conn::webhook::Webhooks {
    let names = |list: &[config::HeaderName]| list.iter().map(|name| name.get().to_owned()).collect();
    let nobody = conn::webhook::Webhooks::default();
    let webhooks = section.targets().fold(nobody, |webhooks, (event, _)| webhooks.with(event));
    webhooks.passing_on(names(&section.headers), names(&section.emulated_headers))
}

/// Who is asked and told, and where keys come from.
#[derive(Debug)]
pub struct Outside {
    /// Who is asked and told.
    pub backends: Backends,
    /// Where keys come from.
    pub keys: Option<keys::Source>,
}

/// Whatever a config names outside of this process.
///
/// # Errors
/// When an `https` URL is among them, and nothing to compare certificates with is found.
pub fn outside(config: &Config) -> Result<Outside, String> {
    let (section, token) = (&config.webhooks, &config.token);
    let options = control::webhook::Options {
        timeout: section.timeout.get(),
        calls_max: section.calls_max as usize,
        answer_bytes_max: section.answer_bytes_max.get(),
        keys: section.signing_keys.iter().map(|key| SigningKey::new(key.expose().as_bytes())).collect(),
    };
    let (notices, jwks) = (section.notices.target(), token.jwks_url.target());
    let mut all = section.targets().map(|(_, target)| target).chain(notices).chain(jwks);
    let caller = Caller::new(options, all.any(Target::is_tls))?;
    let endpoint = |target: &Target| Endpoint::new(caller.clone(), target.clone());
    let backends = Backends::new(&caller, section.targets().map(|(event, target)| (event, target.clone())));
    Ok(Outside {
        backends: backends.telling(notices.map(endpoint), section.notices_max as usize),
        keys: jwks.map(|target| keys::Source { endpoint: endpoint(target), refresh: token.jwks_refresh.get() }),
    })
}

fn limits(config: &Config) -> Limits {
    Limits {
        head_bytes_max: config.http.head_bytes_max.get(),
        headers_max: config.http.headers_max as usize,
        message_bytes_max: config.client.message_bytes_max.get(),
        fragments_max: config.client.fragments_max,
        channels_max: config.client.channels_max as usize,
        commands: rate(config.client.commands_per_second, config.client.commands_burst),
        messages: rate(config.client.messages_per_second, config.client.messages_burst),
        bytes: rate(config.client.bytes_per_second.get() as u32, config.client.bytes_burst.get() as u32),
        connections_per_address_max: NonZeroU32::new(config.client.connections_per_address_max),
        handshakes_per_address: rate(
            config.http.handshakes_per_address_per_second,
            config.http.handshakes_per_address_burst,
        ),
        handshakes_per_second: NonZeroU32::new(config.http.handshakes_per_second),
        connections_per_user_max: config.client.connections_per_user_max as usize,
        subscriptions_per_user_max: config.client.subscriptions_per_user_max as usize,
        channel_name_bytes_max: config.client.channel_name_bytes_max.get(),
        outbox_bytes_max: config.outbox.bytes_max.get(),
        outbox_high_water: config.outbox.high_water.get(),
        outbox_low_water: config.outbox.low_water.get(),
        reply_bytes_max: config.outbox.reply_bytes_max.get(),
        recovery_publications_max: config.client.recovery_publications_max as usize,
        history_publications_max: config.client.history_publications_max as usize,
        held_publications_max: config.hub.held_publications_max as usize,
        held_bytes_max: config.hub.held_bytes_max.get(),
        delta_bytes_max: config.hub.delta_bytes_max.get(),
    }
}

/// 0 is any number. A burst of 0 is refused by the config's check.
fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
}

/// Settings with the process's own table of addresses, which has room for what they ask.
pub fn counting(settings: Settings, addresses: &Arc<Addresses>) -> Settings {
    let limits = &settings.limits;
    addresses.prepare(limits.connections_per_address_max.is_some(), limits.handshakes_per_address.is_some());
    Settings { addresses: addresses.clone(), ..settings }
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

/// Longest time from the last close of a drain to the end of a worker.
pub fn drain_bound(config: &Config) -> Duration {
    config.drain.time.get() + config.outbox.close_timeout.get() * 2 + Duration::from_secs(1)
}
