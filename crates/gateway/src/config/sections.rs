//! The sections of the config file with their defaults. `deploy/tidegate.toml` gives the reasons.

use super::address::Address;
use super::channels::{ChannelOptions, Namespace};
use super::compression::Compression;
use super::hosts::HostPattern;
use super::levels::Levels;
use super::origins::OriginPattern;
use super::proxies::TrustedProxy;
use super::tls::Tls;
use super::token::Token;
use super::values::{Bytes, Ceiling, Count, Secret, Time, choice, whole};
use super::webhooks::Webhooks;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The whole config. Made by [`super::load`], which knows where each value came from and reports what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[workers]`
    pub workers: Workers,
    /// `[public]`
    pub public: Public,
    /// `[tls]`
    pub tls: Tls,
    /// `[api]`
    pub api: Api,
    /// `[token]`
    pub token: Token,
    /// `[webhooks]`
    pub webhooks: Webhooks,
    /// `[client]`
    pub client: Client,
    /// `[http]`
    pub http: Http,
    /// `[outbox]`
    pub outbox: Outbox,
    /// `[compression]`
    pub compression: Compression,
    /// `[hub]`
    pub hub: Hub,
    /// `[drain]`
    pub drain: Drain,
    /// `[log]`
    pub log: Log,
    /// `[demo]`
    pub demo: Demo,
    /// `[channels]`: options of the channels without a namespace.
    pub channels: ChannelOptions,
    /// `[[namespaces]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
}

/// `[server]`: this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// What the node is called in `info` and metrics. Empty: the machine's host name.
    pub name: String,
}

choice! {
    /// Which driver the workers run on.
    DriverChoice {
        /// io_uring where it works, which is tried, else epoll.
        #[default]
        Auto = "auto",
        /// epoll.
        Epoll = "epoll",
        /// io_uring; the start fails where the kernel does not allow it.
        Uring = "uring",
    }
}

choice! {
    /// Whether each worker stays on one core.
    Pin {
        /// Where one worker per core fills the cores that the process may use.
        #[default]
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

choice! {
    /// Whether each worker has a table of file descriptors of its own.
    PrivateTables {
        /// Where more connections are wanted than the limit of open files allows one table.
        #[default]
        Auto = "auto",
        /// Always; the start fails where the kernel does not allow it.
        On = "on",
        /// Never.
        Off = "off",
    }
}

/// `[workers]`: the threads that own the client connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// How many. Auto: one per core that the process may use.
    pub count: Count,
    /// What their loops run on.
    pub io: DriverChoice,
    /// Whether they are pinned.
    pub pin: Pin,
    /// The cores to pin them to, in this order; empty: all that the process may use.
    pub cpus: Vec<u32>,
    /// Client connections of the whole process. Auto: what the limit of open files allows.
    pub connections_max: Count,
    /// Memory of the whole process, beyond which newcomers are refused and the heaviest backlogs go; 0: any. Auto: by what there is.
    pub memory_bytes_max: Ceiling,
    /// Whether the limit of open files counts for each of them by itself.
    pub private_fd_tables: PrivateTables,
    /// How long a worker polls before it sleeps.
    pub spin: Time,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            count: Count::Auto,
            io: DriverChoice::Auto,
            pin: Pin::Auto,
            cpus: Vec::new(),
            connections_max: Count::Auto,
            memory_bytes_max: Ceiling::Auto,
            private_fd_tables: PrivateTables::Auto,
            spin: Time::ZERO,
        }
    }
}

/// `[public]`: the listeners that clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Public {
    /// Where they listen.
    pub listen: Vec<Address>,
    /// Names under which clients reach it.
    pub hosts: Vec<HostPattern>,
    /// Pages of other hosts that may connect.
    pub origins: Vec<OriginPattern>,
    /// Who is believed when it speaks for clients behind it.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Listeners whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_required: Vec<Address>,
    /// Listeners whose connections may begin with one.
    pub proxy_protocol_optional: Vec<Address>,
    /// `/connection/websocket` answers.
    pub websocket: bool,
    /// `/connection/uni_websocket` answers.
    pub uni_websocket: bool,
    /// `/echo` answers.
    pub echo: bool,
}

impl Default for Public {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8000)).into()],
            hosts: Vec::new(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol_required: Vec::new(),
            proxy_protocol_optional: Vec::new(),
            websocket: true,
            uni_websocket: false,
            echo: false,
        }
    }
}

/// `[api]`: the listeners that backends and operators talk to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where they listen; empty: no API.
    pub listen: Vec<Address>,
    /// Keys that are accepted; several, so that one can be replaced without a moment when none works.
    pub keys: Vec<Secret>,
    /// No key is asked for.
    pub insecure: bool,
    /// Bytes of one request body.
    pub body_bytes_max: Bytes,
    /// Bytes of one publication's data.
    pub data_bytes_max: Bytes,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9000)).into()],
            keys: Vec::new(),
            insecure: false,
            body_bytes_max: Bytes::mib(1),
            data_bytes_max: Bytes::kib(512),
        }
    }
}

/// `[client]`: what one client may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Clients without a token are let in, as user "".
    pub anonymous: bool,
    /// Every channel may be subscribed and published to by every client.
    pub insecure: bool,
    /// Between two pings; whole seconds, because the connect reply announces it in seconds.
    pub ping_interval: Time,
    /// From a ping to its pong.
    pub pong_timeout: Time,
    /// From the handshake to a successful connect.
    pub stale_close_delay: Time,
    /// Beyond the end of a token, for the client to refresh it.
    pub expired_close_delay: Time,
    /// Each user is subscribed to a channel of its own.
    pub personal_channel: bool,
    /// The namespace of these channels; empty: none.
    pub personal_channel_namespace: String,
    /// Connections of one address; 0: any number.
    #[serde(deserialize_with = "whole")]
    pub connections_per_address_max: u32,
    /// Connections of one user on one worker; 0: any number.
    #[serde(deserialize_with = "whole")]
    pub connections_per_user_max: u32,
    /// Subscriptions of all connections of one user on one worker; 0: any number.
    #[serde(deserialize_with = "whole")]
    pub subscriptions_per_user_max: u32,
    /// Subscriptions of one connection.
    #[serde(deserialize_with = "whole")]
    pub channels_max: u32,
    /// Commands that one connection may send per second, for as long as it likes; 0 is any number.
    #[serde(deserialize_with = "whole")]
    pub commands_per_second: u32,
    /// Commands that it may send at once, after a pause.
    #[serde(deserialize_with = "whole")]
    pub commands_burst: u32,
    /// Frames that it may send per second, for as long as it likes; 0 is any number.
    #[serde(deserialize_with = "whole")]
    pub messages_per_second: u32,
    /// Frames that it may send at once, after a pause.
    #[serde(deserialize_with = "whole")]
    pub messages_burst: u32,
    /// Bytes that it may send per second, for as long as it likes; 0 is any number.
    pub bytes_per_second: Bytes,
    /// Bytes that it may send at once, after a pause.
    pub bytes_burst: Bytes,
    /// Bytes of a channel name.
    pub channel_name_bytes_max: Bytes,
    /// Bytes of one message from a client.
    pub message_bytes_max: Bytes,
    /// Frames of one message from a client.
    #[serde(deserialize_with = "whole")]
    pub fragments_max: u32,
    /// Publications that one recovery brings.
    #[serde(deserialize_with = "whole")]
    pub recovery_publications_max: u32,
    /// Publications of one answer to a history request.
    #[serde(deserialize_with = "whole")]
    pub history_publications_max: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            anonymous: false,
            insecure: false,
            ping_interval: Time::secs(25),
            pong_timeout: Time::secs(8),
            stale_close_delay: Time::secs(10),
            expired_close_delay: Time::secs(25),
            personal_channel: false,
            personal_channel_namespace: String::new(),
            connections_per_address_max: 0,
            connections_per_user_max: 0,
            subscriptions_per_user_max: 0,
            channels_max: 128,
            commands_per_second: 0,
            commands_burst: 256,
            messages_per_second: 0,
            messages_burst: 1024,
            bytes_per_second: Bytes::new(0),
            bytes_burst: Bytes::mib(1),
            channel_name_bytes_max: Bytes::new(255),
            message_bytes_max: Bytes::kib(64),
            fragments_max: 1024,
            recovery_publications_max: 300,
            history_publications_max: 300,
        }
    }
}

/// `[http]`: requests on the public listeners before they become a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Bytes of a request head.
    pub head_bytes_max: Bytes,
    /// Header lines of a request.
    #[serde(deserialize_with = "whole")]
    pub headers_max: u32,
    /// From the first byte of a request head to its last.
    pub head_timeout: Time,
    /// An idle kept-alive connection is closed after it.
    pub keep_alive_timeout: Time,
    /// WebSocket handshakes of all clients, per second; 0: any number.
    #[serde(deserialize_with = "whole")]
    pub handshakes_per_second: u32,
    /// WebSocket handshakes of one address, per second and for as long as it likes; 0: any number.
    #[serde(deserialize_with = "whole")]
    pub handshakes_per_address_per_second: u32,
    /// WebSocket handshakes that one address may make at once, after a pause.
    #[serde(deserialize_with = "whole")]
    pub handshakes_per_address_burst: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            head_bytes_max: Bytes::kib(16),
            headers_max: 64,
            head_timeout: Time::secs(10),
            keep_alive_timeout: Time::secs(60),
            handshakes_per_second: 0,
            handshakes_per_address_per_second: 0,
            handshakes_per_address_burst: 256,
        }
    }
}

/// `[outbox]`: what waits for one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// Bytes waiting for one client, above which its publications are skipped or it is closed as slow.
    pub bytes_max: Bytes,
    /// Backlog from which the client counts as slow: its own input is not read any more, and values are conflated.
    pub high_water: Bytes,
    /// Backlog at which it does not any more; also what skipping leaves.
    pub low_water: Bytes,
    /// Longest time without the client taking a byte while the backlog is above high water.
    pub write_timeout: Time,
    /// Longest wait for the peer's close frame after ours.
    pub close_timeout: Time,
    /// Bytes of one reply.
    pub reply_bytes_max: Bytes,
    /// Bytes that the kernel keeps for one client beside the outbox.
    pub kernel_bytes_max: Bytes,
    /// Longest time that the kernel waits for a client to acknowledge what it was sent.
    pub ack_timeout: Time,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes_max: Bytes::mib(1),
            high_water: Bytes::kib(256),
            low_water: Bytes::kib(64),
            write_timeout: Time::secs(20),
            close_timeout: Time::secs(5),
            reply_bytes_max: Bytes::kib(512),
            kernel_bytes_max: Bytes::kib(192),
            ack_timeout: Time::secs(40),
        }
    }
}

/// `[hub]`: channels and the mail between workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hub {
    /// Channels that one worker numbers at the same time.
    #[serde(deserialize_with = "whole")]
    pub channels_max: u32,
    /// Bytes of publications that one worker keeps in histories.
    pub history_bytes_max: Bytes,
    /// Subscribers of a channel above which nobody is told who comes and goes.
    #[serde(deserialize_with = "whole")]
    pub join_leave_subscribers_max: u32,
    /// Idempotency keys that one worker remembers.
    #[serde(deserialize_with = "whole")]
    pub idempotency_keys_max: u32,
    /// How long it remembers each of them.
    pub idempotency_ttl: Time,
    /// Letters that wait from one worker to another.
    #[serde(deserialize_with = "whole")]
    pub mailbox_letters: u32,
    /// Bytes of publications that wait from one worker to another.
    pub mailbox_bytes_max: Bytes,
    /// Publications held back for a subscription until it is announced.
    #[serde(deserialize_with = "whole")]
    pub held_publications_max: u32,
    /// Bytes of those.
    pub held_bytes_max: Bytes,
    /// Bytes of publications that a worker keeps to make patches from.
    pub delta_bytes_max: Bytes,
    /// Longest wait for another worker's answer.
    pub request_timeout: Time,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            channels_max: 2_000_000,
            history_bytes_max: Bytes::mib(256),
            join_leave_subscribers_max: 1000,
            idempotency_keys_max: 65_536,
            idempotency_ttl: Time::secs(300),
            mailbox_letters: 4096,
            mailbox_bytes_max: Bytes::mib(16),
            held_publications_max: 128,
            held_bytes_max: Bytes::kib(256),
            delta_bytes_max: Bytes::mib(16),
            request_timeout: Time::secs(5),
        }
    }
}

/// `[drain]`: how the process ends after SIGTERM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// From "not ready" to the end of accepting.
    pub notice: Time,
    /// Over which the closes of the clients are spread.
    pub time: Time,
}

impl Default for Drain {
    fn default() -> Self {
        Self { notice: Time::secs(5), time: Time::secs(20) }
    }
}

choice! {
    /// How a log line looks.
    LogFormat {
        /// For people; in colour on a terminal.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// `[log]`: what is written to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// From which level on, for all or by module.
    pub level: Levels,
    /// How a line looks.
    pub format: LogFormat,
    /// Lines that wait for stderr; more are dropped and counted.
    #[serde(deserialize_with = "whole")]
    pub queue_lines: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Levels::default(), format: LogFormat::Text, queue_lines: 8192 }
    }
}

/// `[demo]`: the page at `/`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demo {
    /// The page is served and its channel `demo:machine` is published to.
    pub enabled: bool,
}
