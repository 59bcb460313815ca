//! What a scenario wants of its gateway.

use super::client::Format;
use super::token::SECRET;
use conn::Settings;
use conn::address::Addresses;
use conn::settings::Compression;
use gateway::config::{Inputs, load};
use gateway::mailbox::Sizes;
use gateway::memory::Memory;
use gateway::topology::{self, Secrets};
use gateway::worker::Plan;
use hub::{ChannelHash, HomeLimits, WorkerId};
use std::sync::Arc;
use std::time::Duration;
use wire::ws::deflate::Level;
use wire::ws::extension::{ClientWindow, Offer};

/// A gateway to be started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) workers: u16,
    /// What clients of Centrifugo's protocol speak.
    pub(crate) format: Format,
    pub(crate) settings: Settings,
    /// What clients offer about compression.
    pub(crate) offer: Option<Offer>,
    /// What clients write goes out as it is, also where TLS is spoken.
    pub(crate) raw: bool,
    /// What a proxy says in front of each connection.
    pub(crate) introduction: &'static str,
    pub(crate) mailbox: Sizes,
    pub(crate) home: HomeLimits,
    pub(crate) connections_max: usize,
    pub(crate) request_timeout: Duration,
    /// Bytes that its workers may hold together, by what they count; 0: any.
    pub(crate) memory_bytes_max: u64,
    pub(crate) memory: Arc<Memory>,
}

impl Setup {
    /// What `--dev` starts, with one worker.
    pub(crate) fn dev() -> Self {
        let config = load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults of --dev are good").config;
        Self::of(topology::settings(&config, true).expect("the defaults of --dev are good"))
    }

    /// A configured gateway: clients without a token are let in, and may do what the namespaces allow.
    ///
    /// Of the namespaces `open` allows everything, `read` subscribing, `talk` publishing to subscribers, `users`
    /// everything but to clients without a user; channels without a namespace are closed.
    pub(crate) fn configured() -> Self {
        let text = r#"
            [public]
            uni_websocket = true
            echo = true
            [client]
            anonymous = true
            [[namespaces]]
            name = "open"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            allow_publish_for_client = true
            allow_publish_for_anonymous = true
            [[namespaces]]
            name = "read"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            [[namespaces]]
            name = "talk"
            allow_subscribe_for_client = true
            allow_subscribe_for_anonymous = true
            allow_publish_for_subscriber = true
            allow_publish_for_anonymous = true
            [[namespaces]]
            name = "users"
            allow_subscribe_for_client = true
            allow_publish_for_client = true
        "#;
        let config: gateway::config::Config = toml::from_str(text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    /// A gateway that keeps what is published.
    ///
    /// `kept` recovers always, `asked` only whom it is asked by, `state` the newest publication alone and `latest` that
    /// without being asked; `few` keeps 2 publications, `brief` for 2 seconds and the position for 5. `gone` keeps nothing.
    pub(crate) fn with_history() -> Self {
        let text = r#"
            [public]
            uni_websocket = true
            [client]
            anonymous = true
            recovery_publications_max = 6
            history_publications_max = 5
            [channels]
        "#;
        let namespaces = [
            (
                "kept",
                "10",
                "1m",
                "10m",
                "force_recovery = true
allow_history_for_subscriber = true",
            ),
            (
                "asked",
                "10",
                "1m",
                "10m",
                "allow_recovery = true
allow_positioning = true",
            ),
            (
                "state",
                "10",
                "1m",
                "10m",
                "force_recovery = true
force_recovery_mode = 'cache'",
            ),
            (
                "latest",
                "10",
                "1m",
                "10m",
                "force_recovery = true
force_recovery_mode = 'cache'
auto_cache_recover = true",
            ),
            ("few", "2", "1m", "10m", "force_recovery = true"),
            ("brief", "10", "2s", "5s", "force_recovery = true"),
            ("gone", "0", "0s", "10m", ""),
        ];
        let mut text = text.to_owned();
        for (name, size, ttl, meta_ttl, options) in namespaces {
            let reads = options.contains("allow_history");
            text += &format!(
                "[[namespaces]]
name = '{name}'
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
                 allow_publish_for_client = true
allow_publish_for_anonymous = true
history_size = {size}
                 history_ttl = '{ttl}'
history_meta_ttl = '{meta_ttl}'
allow_history_for_anonymous = {reads}
{options}
"
            );
        }
        let config: gateway::config::Config = toml::from_str(&text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    /// A gateway whose channels know their subscribers.
    ///
    /// In `room` subscribers may ask who is there, and to be told who comes and goes; in `hall` everybody is told and nobody may
    /// ask; in `list` everybody may ask and nobody is told; `gone` knows nobody; `skip` is as `room` and leaves out for slow
    /// clients what it may.
    pub(crate) fn with_presence() -> Self {
        let mut text = "[public]\nuni_websocket = true\n[client]\nanonymous = true\n[channels]\n".to_owned();
        for (name, options) in [
            ("room", "presence = true\njoin_leave = true\nallow_presence_for_subscriber = true"),
            ("hall", "presence = true\njoin_leave = true\nforce_push_join_leave = true"),
            ("list", "presence = true\nallow_presence_for_client = true"),
            ("gone", ""),
            ("skip", "join_leave = true\nforce_push_join_leave = true\nslow_client = 'drop_oldest'"),
        ] {
            let reads = options.contains("allow_presence");
            text += &format!(
                "[[namespaces]]\nname = '{name}'\nallow_subscribe_for_client = true\n\
                 allow_subscribe_for_anonymous = true\nallow_presence_for_anonymous = {reads}\n{options}\n"
            );
        }
        let config: gateway::config::Config = toml::from_str(&text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    /// A gateway that knows its clients by tokens and lets nobody in without one.
    ///
    /// Of the namespaces `open` is for every user, `dialog` for those in a channel's name, `told` tells who comes and goes, and
    /// `kept` keeps ten publications; what is over lasts two seconds more.
    pub(crate) fn with_tokens() -> Self {
        let text = format!(
            r#"
            [public]
            uni_websocket = true
            [token]
            hmac_secret_keys = ["{SECRET}"]
            [client]
            expired_close_delay = "2s"
            [channels]
            allow_user_limited_channels = true
            [[namespaces]]
            name = "open"
            allow_subscribe_for_client = true
            allow_publish_for_subscriber = true
            [[namespaces]]
            name = "dialog"
            allow_user_limited_channels = true
            [[namespaces]]
            name = "told"
            presence = true
            join_leave = true
            force_push_join_leave = true
            allow_subscribe_for_client = true
            allow_presence_for_subscriber = true
            [[namespaces]]
            name = "kept"
            history_size = 10
            history_ttl = "1m"
            allow_subscribe_for_client = true
            force_recovery = true
        "#
        );
        let config: gateway::config::Config = toml::from_str(&text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    /// The same that asks its backend about everything, and knows nobody else.
    ///
    /// Of the namespaces `asked` leaves its channels to the backend, and `open` is for every user.
    pub(crate) fn with_webhooks() -> Self {
        let url = |event: &str| format!("{event} = 'http://backend/{event}'\n");
        let urls: String = ["connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc"].map(url).concat();
        let text = format!(
            r#"
            [public]
            uni_websocket = true
            [token]
            hmac_secret_keys = ["{SECRET}"]
            [webhooks]
            {urls}
            headers = ["cookie", "x-tenant"]
            emulated_headers = ["x-tenant", "x-page"]
            [client]
            expired_close_delay = "2s"
            [channels]
            [[namespaces]]
            name = "asked"
            allow_user_limited_channels = true
            subscribe_proxy_enabled = true
            publish_proxy_enabled = true
            sub_refresh_proxy_enabled = true
            [[namespaces]]
            name = "open"
            allow_subscribe_for_client = true
            allow_publish_for_subscriber = true
            presence = true
            allow_presence_for_subscriber = true
        "#
        );
        let config: gateway::config::Config = toml::from_str(&text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    /// A gateway that tells its backend of clients, and of the channels in `told`; those in `quiet` are as open.
    pub(crate) fn with_notices() -> Self {
        let open = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";
        let text = format!(
            "[public]\nuni_websocket = true\n[client]\nanonymous = true\n[token]\nhmac_secret_keys = ['{SECRET}']\n\
             [webhooks]\nnotices = 'http://backend/'\nclient_notices = true\n[channels]\n\
             [[namespaces]]\nname = 'told'\nchannel_notices = true\n{open}\
             [[namespaces]]\nname = 'named'\nchannel_notices = true\npresence = true\n{open}\
             [[namespaces]]\nname = 'kept'\nchannel_notices = true\nhistory_size = 5\nhistory_ttl = '1m'\n{open}\
             [[namespaces]]\nname = 'quiet'\n{open}"
        );
        let config: gateway::config::Config = toml::from_str(&text).expect("a config");
        Self::of(topology::settings(&config, false).expect("good settings"))
    }

    fn of(settings: Settings) -> Self {
        Self {
            workers: 1,
            format: Format::Json,
            settings,
            offer: None,
            raw: false,
            introduction: "",
            mailbox: Sizes { letters: 1024, answers: 512, bytes: 4 * 1024 * 1024 },
            home: HomeLimits { channels_max: 10_000, ..HomeLimits::default() },
            connections_max: 256,
            request_timeout: Duration::from_secs(5),
            memory_bytes_max: 0,
            memory: Arc::default(),
        }
    }

    pub(crate) fn workers(self, workers: u16) -> Self {
        Self { workers, ..self }
    }

    /// The same with clients that speak Protobuf.
    pub(crate) fn in_protobuf(self) -> Self {
        Self { format: Format::Protobuf, ..self }
    }

    /// The same with compression of all that may be compressed, which its clients offer as browsers do.
    pub(crate) fn compressing(self) -> Self {
        let compression = Compression {
            level: Level::default(),
            reply_bytes_min: 1,
            publication_bytes_min: 1,
            after_previous: true,
            previous_bytes_max: 1 << 20,
            client_history_bytes_max: 1 << 20,
        };
        let offer = Offer { client_max_window_bits: ClientWindow::Any, ..Offer::default() };
        Self { offer: Some(offer), ..self.with(|settings| settings.compression = Some(compression)) }
    }

    /// The same with a listener that speaks TLS.
    pub(crate) fn over_tls(mut self) -> Self {
        self.settings.listeners = vec![conn::settings::Listener {
            tls: Some(super::tls::server_config()),
            ..self.settings.listeners.pop().unwrap_or_default()
        }];
        self
    }

    /// The same, whose clients have to speak it themselves.
    pub(crate) fn raw_tls(self) -> Self {
        Self { raw: true, ..self.over_tls() }
    }

    pub(super) fn is_over_tls(&self) -> bool {
        self.settings.listeners.iter().any(|listener| listener.tls.is_some()) && !self.raw
    }

    /// The same behind a proxy that introduces each client with this.
    pub(crate) fn introduced(self, introduction: &'static str) -> Self {
        Self { introduction, ..self }
    }

    /// The same with a table of addresses in which nobody is counted yet, and no memory in use.
    pub(super) fn afresh(&self) -> Self {
        let memory = Arc::new(Memory::new(self.memory_bytes_max));
        Self { memory, ..self.clone() }.with(|settings| {
            let addresses = Addresses::new(SECRETS.hash, 256);
            let limits = &settings.limits;
            addresses.prepare(limits.connections_per_address_max.is_some(), limits.handshakes_per_address.is_some());
            settings.addresses = Arc::new(addresses);
        })
    }

    /// The same with some settings changed.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Room for so many letters from one thread to another, and for as many answers.
    pub(crate) fn mailbox(self, letters: usize, answers: usize) -> Self {
        Self { mailbox: Sizes { letters, answers, ..self.mailbox }, ..self }
    }

    /// What its workers hold.
    pub(super) fn memory(&self) -> Arc<Memory> {
        self.memory.clone()
    }

    /// What its connections are told.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::new(self.settings.clone())
    }

    /// The worker of that number.
    pub(super) fn plan(&self, number: usize) -> Plan {
        Plan {
            id: WorkerId(number as u16),
            workers: self.workers,
            settings: Arc::new(self.settings.clone()),
            hash: self.hash(),
            home: self.home,
            epoch_seed: number as u64,
            unix_origin: UNIX_ORIGIN,
            id_key: SECRETS.ids,
            connections_max: self.connections_max,
            request_timeout: self.request_timeout,
            memory: self.memory(),
        }
    }

    /// What its driver is told, as far as it does not depend on the config.
    pub(super) fn options(&self) -> io::Options {
        let linger = self.settings.times.close_timeout;
        let full_answer = topology::FULL_ANSWER.as_bytes().to_vec();
        io::Options { connections_max: self.connections_max, linger, full_answer, ..io::Options::default() }
    }

    /// Where channels are at home, the same in every run.
    pub(crate) fn hash(&self) -> ChannelHash {
        ChannelHash::new(SECRETS.hash)
    }
}

/// When the clock of a gateway begins.
pub(super) const UNIX_ORIGIN: Duration = Duration::from_secs(1_700_000_000);

/// Not secret at all: a run must repeat.
pub(super) const SECRETS: Secrets = Secrets { hash: [3; 16], ids: [5; 16], epochs: 0, node: 11 };
