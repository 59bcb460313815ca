//! What `/metrics` shows: the figures of the workers, as plain structs that the gateway fills, and those of the API
//! itself.
//!
//! `docs/metrics.md` explains every metric; a test holds it and the output together.

mod compression;
mod text;

pub use compression::{CompressionSample, Messages};

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::backend::Backend;

/// This node at one moment. Counters only grow while the process lives.
#[derive(Clone, Debug, Default)]
pub struct NodeSample {
    /// Version of the binary.
    pub version: String,
    /// Commit it was built from, or "unknown".
    pub commit: String,
    /// What the workers run on; one entry as a rule.
    pub drivers: Vec<DriverInUse>,
    /// Since the process started.
    pub uptime: Duration,
    /// Soft limit of open files after it was raised.
    pub files_max: u64,
    /// Connections that all workers together take.
    pub connections_max: u64,
    /// Memory in use.
    pub memory: u64,
    /// How much that may be; 0: anything.
    pub memory_max: u64,
    /// Log lines dropped because the log's queue was full.
    pub log_lines_dropped: u64,
    /// What is shown on TLS listeners.
    pub certificates: Vec<CertificateInUse>,
    /// What became of calls to backends, by what they were about.
    pub webhooks: Vec<WebhookSample>,
    /// What a backend is told without being asked.
    pub notices: NoticeSample,
    /// One entry per worker, in their order.
    pub workers: Vec<WorkerSample>,
}

/// Notices for a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoticeSample {
    /// The backend has taken them.
    pub delivered: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// They wait now.
    pub waiting: u64,
}

/// Calls to a backend about one event.
#[derive(Clone, Debug, Default)]
pub struct WebhookSample {
    /// What they are about.
    pub event: &'static str,
    /// How many ended how.
    pub ended: Vec<(&'static str, u64)>,
    /// The time of all of them together.
    pub time: Duration,
}

/// A certificate that is shown.
#[derive(Clone, Debug, Default)]
pub struct CertificateInUse {
    /// Its file, as configured.
    pub file: String,
    /// When it ends, as Unix time.
    pub not_after: Duration,
}

/// A driver that workers run on.
#[derive(Clone, Debug, Default)]
pub struct DriverInUse {
    /// "epoll" or "uring".
    pub driver: &'static str,
    /// Why this one.
    pub reason: String,
}

/// One worker at one moment.
#[derive(Clone, Debug, Default)]
pub struct WorkerSample {
    /// Open client connections.
    pub connections: u64,
    /// Subscriptions of these connections.
    pub subscriptions: u64,
    /// Channels that this worker numbers.
    pub channels: u64,
    /// Whole messages received from clients (WebSocket messages, HTTP requests).
    pub messages_received: u64,
    /// Whole messages put into outboxes for clients.
    pub messages_sent: u64,
    /// Publications numbered here.
    pub publications: u64,
    /// Channels with a history, those without subscribers included.
    pub history_channels: u64,
    /// Publications kept in histories.
    pub history_publications: u64,
    /// What these cost.
    pub history_bytes: u64,
    /// Channels without subscribers forgotten to make room for others.
    pub history_evicted: u64,
    /// Channels without subscribers that lost their publications to make room for others.
    pub history_emptied: u64,
    /// Publications that a channel in use lost early, or that were not kept, for want of room.
    pub history_cut: u64,
    /// Subscriptions that recovered.
    pub recovered: u64,
    /// Subscriptions that wanted to recover and were told that they have a gap.
    pub unrecovered: u64,
    /// Positioned subscriptions ended because something was missing before the next publication.
    pub gaps: u64,
    /// Publishes answered from an idempotency key.
    pub publishes_repeated: u64,
    /// Publishes left out because a newer version was there.
    pub publishes_outdated: u64,
    /// Subscriptions that are known by name, of channels with presence or join and leave pushes.
    pub presence_clients: u64,
    /// Joins and leaves handed to the subscribers' workers.
    pub join_leave_announced: u64,
    /// Joins and leaves that nobody was told of: too many subscribers, or too many waiting.
    pub join_leave_unannounced: u64,
    /// Joins and leaves put into outboxes.
    pub join_leave_pushes: u64,
    /// Joins and leaves left out for clients that read too slowly.
    pub join_leave_skipped: u64,
    /// Bytes that sockets gave us.
    pub bytes_received: u64,
    /// Bytes that sockets took from us.
    pub bytes_sent: u64,
    /// Letters handed to other threads.
    pub letters_sent: u64,
    /// Letters refused because a mailbox was full.
    pub letters_refused: u64,
    /// Messages dropped unsent: by a slow-client policy, or with the outbox of a connection that died.
    pub outbox_dropped: u64,
    /// Of these, publications left out for clients that read too slowly.
    pub skipped: u64,
    /// Of these, publications replaced by newer ones for clients that read too slowly.
    pub conflated: u64,
    /// Clients closed because they read too slowly.
    pub slow_disconnects: SlowDisconnects,
    /// Commands refused because they came too fast.
    pub commands_refused: u64,
    /// Times that a client's input rested because it sent frames too fast.
    pub rests_for_messages: u64,
    /// Times that it rested because it sent bytes too fast.
    pub rests_for_bytes: u64,
    /// Tokens of clients that were checked, whether they counted or not.
    pub token_checks: u64,
    /// WebSocket handshakes answered with 101.
    pub handshakes: u64,
    /// Handshakes refused because of their Origin.
    pub origins_refused: u64,
    /// Headers of the PROXY protocol that were taken.
    pub proxy_headers: u64,
    /// Connections refused for want of a good one from a trusted proxy.
    pub proxy_headers_refused: u64,
    /// Turned away because their address has as many connections as it may.
    pub full_addresses: u64,
    /// Handshakes refused because they came too soon after others of their address.
    pub fast_addresses: u64,
    /// Handshakes refused because all clients together made too many.
    pub handshakes_refused: u64,
    /// Connections and handshakes not counted by address for want of room in a table.
    pub addresses_uncounted: u64,
    /// Connections and handshakes refused because the node held as much memory as it may.
    pub short_refused: u64,
    /// Subscribes refused for that.
    pub short_subscribes: u64,
    /// Clients closed for that.
    pub short_closed: u64,
    /// permessage-deflate.
    pub compression: CompressionSample,
    /// TLS handshakes completed.
    pub tls_handshakes: u64,
    /// Of these, shortened by a ticket.
    pub tls_resumed: u64,
    /// TLS connections ended because of what the client sent.
    pub tls_failed: u64,
    /// Panics caught inside a connection; each cost that connection and is a bug of ours.
    pub panics: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections answered 503 because the worker was full.
    pub refused_full: u64,
    /// Length of the ticks, without the sleep.
    pub ticks: TickLengths,
    /// Ended connections by who ended them and with which code. Codes may repeat; equal ones are added up.
    pub closes: Vec<Close>,
}

/// Clients closed with 3008, by what did not fit into their outbox any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowDisconnects {
    /// A publication that may not be left out: its namespace's policy is to disconnect.
    pub disconnect: u64,
    /// The newest values of conflated channels.
    pub conflate: u64,
    /// A reply or a ping.
    pub reply: u64,
}

impl std::ops::Add for SlowDisconnects {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            disconnect: self.disconnect + other.disconnect,
            conflate: self.conflate + other.conflate,
            reply: self.reply + other.reply,
        }
    }
}

/// A histogram of tick lengths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TickLengths {
    /// (upper bound in seconds, ticks in this bucket alone), ascending. Ticks above the last bound belong into a
    /// bucket with the bound `f64::INFINITY`; without it they are taken to be none.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds spent in all ticks together.
    pub seconds: f64,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We did.
    Server,
    /// The client did.
    Client,
}

/// How many connections ended one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Who ended it.
    pub side: Side,
    /// WebSocket close code or disconnect code; 0 where there was none (plain HTTP, a reset); `None` for all codes together
    /// that mean nothing here.
    pub code: Option<u16>,
    /// How many so far.
    pub count: u64,
}

/// Codes of one side that get a series of their own; the others, clients may send any of 2,000, share `code="other"`.
pub const CLOSE_CODES_MAX: usize = 64;

/// The methods of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Publish,
    Broadcast,
    History,
    HistoryRemove,
    Presence,
    PresenceStats,
    Channels,
    Info,
    Connections,
    Disconnect,
    Subscribe,
    Unsubscribe,
    Refresh,
    Batch,
}

impl Method {
    pub(crate) fn named(name: &str) -> Option<Method> {
        Some(match name {
            "publish" => Method::Publish,
            "broadcast" => Method::Broadcast,
            "history" => Method::History,
            "history_remove" => Method::HistoryRemove,
            "presence" => Method::Presence,
            "presence_stats" => Method::PresenceStats,
            "channels" => Method::Channels,
            "connections" => Method::Connections,
            "info" => Method::Info,
            "disconnect" => Method::Disconnect,
            "subscribe" => Method::Subscribe,
            "unsubscribe" => Method::Unsubscribe,
            "refresh" => Method::Refresh,
            "batch" => Method::Batch,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Publish => "publish",
            Method::Broadcast => "broadcast",
            Method::History => "history",
            Method::HistoryRemove => "history_remove",
            Method::Presence => "presence",
            Method::PresenceStats => "presence_stats",
            Method::Channels => "channels",
            Method::Connections => "connections",
            Method::Info => "info",
            Method::Disconnect => "disconnect",
            Method::Subscribe => "subscribe",
            Method::Unsubscribe => "unsubscribe",
            Method::Refresh => "refresh",
            Method::Batch => "batch",
        }
    }
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.name().encode(encoder)
    }
}

/// Why a request did not reach a method of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    Key,
    Host,
    Origin,
    Path,
    Method,
    Body,
    Json,
}

impl EncodeLabelValue for Refused {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self {
            Refused::Key => "key",
            Refused::Host => "host",
            Refused::Origin => "origin",
            Refused::Path => "path",
            Refused::Method => "method",
            Refused::Body => "body",
            Refused::Json => "json",
        }
        .encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    method: Method,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: Refused,
}

/// Upper bounds of the publish latency's buckets, in seconds: from below one hop between threads to the default
/// deadline.
const PUBLISH_SECONDS: [f64; 15] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What the API counts of itself.
#[derive(Debug)]
pub(crate) struct ApiMetrics {
    called: Family<Called, Counter>,
    refused: Family<Reason, Counter>,
    publish_seconds: Histogram,
}

impl Default for ApiMetrics {
    fn default() -> ApiMetrics {
        ApiMetrics {
            called: Family::default(),
            refused: Family::default(),
            publish_seconds: Histogram::new(PUBLISH_SECONDS),
        }
    }
}

impl ApiMetrics {
    /// One call of `method`, answered with error `code` or 0.
    pub(crate) fn called(&self, method: Method, code: u16) {
        self.called.get_or_create(&Called { method, code }).inc();
    }

    pub(crate) fn refused(&self, reason: Refused) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn publish_took(&self, time: Duration) {
        self.publish_seconds.observe(time.as_secs_f64());
    }
}

/// All metrics of one node, ready to be written.
pub(crate) struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Registers the API's own metrics and those that `backend` samples at every scrape.
    pub(crate) fn new<B: Backend>(backend: Arc<B>, api: &ApiMetrics) -> Exposition {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register(
            "api_requests",
            "Calls of server API methods, by error code (0 is success)",
            api.called.clone(),
        );
        registry.register(
            "api_refused",
            "Requests to the API listener that reached no method, by what was wrong",
            api.refused.clone(),
        );
        registry.register_with_unit(
            "publish",
            "Time until a backend's publication was numbered and accepted by every interested worker",
            Unit::Seconds,
            api.publish_seconds.clone(),
        );
        registry.register_collector(Box::new(text::NodeCollector { backend }));
        Exposition { registry }
    }

    /// The OpenMetrics text, which Prometheus and everything compatible reads.
    pub(crate) fn write(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry)
            .expect("writing to a String does not fail, nor do our collectors");
        out
    }
}

/// `Content-Type` of [`Exposition::write`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
