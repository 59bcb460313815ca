//! A [`NodeSample`] as metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{
    CLOSE_CODES_MAX, CertificateInUse, NodeSample, NoticeSample, Side, SlowDisconnects, TickLengths, WebhookSample,
    WorkerSample,
};
use crate::backend::Backend;

/// Samples the workers at every scrape.
pub(super) struct NodeCollector<B> {
    pub(super) backend: Arc<B>,
}

impl<B> fmt::Debug for NodeCollector<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl<B: Backend> Collector for NodeCollector<B> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = self.backend.sample();
        let mut out = Writer { encoder: &mut encoder };
        out.node(&sample, self.backend.ready())?;
        out.workers(&sample.workers)?;
        out.ticks(&sample.workers)?;
        out.slow_disconnects(&sample.workers)?;
        out.compression(&sample.workers)?;
        out.webhooks(&sample.webhooks)?;
        out.closes(&sample.workers)
    }
}

type Figure = fn(&WorkerSample) -> u64;

/// Metrics with one value per worker: name, unit, help, value.
type PerWorker = (&'static str, Option<Unit>, &'static str, Figure);

const GAUGES: &[PerWorker] = &[
    ("connections", None, "Open client connections", |w| w.connections),
    ("subscriptions", None, "Subscriptions of the open connections", |w| w.subscriptions),
    ("channels", None, "Channels that the worker numbers", |w| w.channels),
    ("history_channels", None, "Channels with a history", |w| w.history_channels),
    ("history_publications", None, "Publications kept in histories", |w| w.history_publications),
    ("presence_clients", None, "Subscriptions known by name", |w| w.presence_clients),
    ("history", Some(Unit::Bytes), "What the publications kept cost", |w| w.history_bytes),
    ("compression_history", Some(Unit::Bytes), "Reserved for what clients' compressed messages refer to", |w| {
        w.compression.history_bytes
    }),
    ("compression_previous", Some(Unit::Bytes), "Publications kept because the next ones refer to them", |w| {
        w.compression.previous_bytes
    }),
];

const COUNTERS: &[PerWorker] = &[
    ("connections_accepted", None, "Client connections accepted", |w| w.accepted),
    ("connections_refused", None, "Connections answered 503 because the worker was full", |w| w.refused_full),
    ("messages_received", None, "Whole messages from clients", |w| w.messages_received),
    ("messages_sent", None, "Whole messages put into outboxes for clients", |w| w.messages_sent),
    ("received", Some(Unit::Bytes), "Bytes read from client sockets", |w| w.bytes_received),
    ("sent", Some(Unit::Bytes), "Bytes that client sockets took", |w| w.bytes_sent),
    ("publications", None, "Publications numbered by the worker", |w| w.publications),
    ("publishes_repeated", None, "Publishes answered from an idempotency key", |w| w.publishes_repeated),
    ("publishes_outdated", None, "Publishes left out because of their version", |w| w.publishes_outdated),
    ("history_evicted", None, "Channels without subscribers forgotten to make room", |w| w.history_evicted),
    ("history_emptied", None, "Channels without subscribers emptied to make room", |w| w.history_emptied),
    ("history_cut", None, "Publications lost early by channels in use, for want of room", |w| w.history_cut),
    ("recovered", None, "Subscriptions that recovered", |w| w.recovered),
    ("unrecovered", None, "Subscriptions that wanted to recover and have a gap", |w| w.unrecovered),
    ("gaps", None, "Positioned subscriptions ended because something was missing", |w| w.gaps),
    ("join_leave_announced", None, "Joins and leaves handed to the workers", |w| w.join_leave_announced),
    ("join_leave_unannounced", None, "Joins and leaves that nobody was told of", |w| w.join_leave_unannounced),
    ("join_leave_pushes", None, "Joins and leaves put into outboxes", |w| w.join_leave_pushes),
    ("join_leave_skipped", None, "Joins and leaves left out for slow clients", |w| w.join_leave_skipped),
    ("letters_sent", None, "Letters handed to other threads", |w| w.letters_sent),
    ("letters_refused", None, "Letters refused because a mailbox was full", |w| w.letters_refused),
    ("outbox_dropped", None, "Messages dropped unsent", |w| w.outbox_dropped),
    ("slow_skipped", None, "Publications left out for clients that read too slowly", |w| w.skipped),
    ("slow_conflated", None, "Publications replaced by newer ones for clients that read too slowly", |w| w.conflated),
    ("commands_refused", None, "Commands refused because they came too fast", |w| w.commands_refused),
    ("input_rests_for_messages", None, "Times that a client's input rested for its frames", |w| w.rests_for_messages),
    ("input_rests_for_bytes", None, "Times that a client's input rested for its bytes", |w| w.rests_for_bytes),
    ("token_checks", None, "Tokens of clients that were checked, good or not", |w| w.token_checks),
    ("handshakes", None, "WebSocket handshakes answered with 101", |w| w.handshakes),
    ("origins_refused", None, "Handshakes refused because of their Origin", |w| w.origins_refused),
    ("proxy_headers", None, "Headers of the PROXY protocol that were taken", |w| w.proxy_headers),
    ("proxy_headers_refused", None, "Connections without a good header from a trusted proxy", |w| {
        w.proxy_headers_refused
    }),
    ("connections_refused_by_address", None, "Connections of addresses that had as many as they may", |w| {
        w.full_addresses
    }),
    ("handshakes_refused_by_address", None, "Handshakes that came too soon after others of their address", |w| {
        w.fast_addresses
    }),
    ("handshakes_refused", None, "Handshakes refused because all clients made too many", |w| w.handshakes_refused),
    ("addresses_uncounted", None, "Connections and handshakes not counted by address for want of room", |w| {
        w.addresses_uncounted
    }),
    ("memory_refused", None, "Newcomers refused because the node held as much memory as it may", |w| w.short_refused),
    ("memory_subscribes_refused", None, "Subscribes refused for that", |w| w.short_subscribes),
    ("memory_closed", None, "Clients closed for that, the heaviest backlogs first", |w| w.short_closed),
    ("compression_agreed", None, "Connections that agreed on compression", |w| w.compression.agreed),
    ("compression_refused", None, "Connections without it for want of room for their history", |w| {
        w.compression.refused
    }),
    ("compressed_publications", None, "Publications compressed at all, once per encoding", |w| {
        w.compression.publications
    }),
    ("compression_unused", None, "Messages sent as they are to connections that agreed", |w| w.compression.as_they_are),
    ("tls_handshakes", None, "TLS handshakes completed", |w| w.tls_handshakes),
    ("tls_resumed", None, "TLS handshakes shortened by a ticket", |w| w.tls_resumed),
    ("tls_failed", None, "TLS connections ended because of what the client sent", |w| w.tls_failed),
    ("panics", None, "Panics caught inside a connection", |w| w.panics),
];

pub(super) struct Writer<'e, 'o> {
    pub(super) encoder: &'e mut DescriptorEncoder<'o>,
}

impl Writer<'_, '_> {
    fn node(&mut self, sample: &NodeSample, ready: bool) -> fmt::Result {
        let build = [("version", sample.version.as_str()), ("commit", sample.commit.as_str())];
        self.info("build", "The running binary", [build])?;
        let drivers = sample.drivers.iter().map(|on| [("driver", on.driver), ("reason", on.reason.as_str())]);
        self.info("driver", "What the workers' event loops run on, and why", drivers)?;
        let uptime = ConstGauge::new(sample.uptime.as_secs_f64());
        self.one("uptime", Some(Unit::Seconds), "Time since the process started", &uptime)?;
        let ready = ConstGauge::new(u64::from(ready));
        self.one("ready", None, "1 while new clients are wanted, 0 while draining", &ready)?;
        let workers = ConstGauge::new(sample.workers.len() as u64);
        self.one("workers", None, "Workers", &workers)?;
        let files = ConstGauge::new(sample.files_max);
        self.one("files_max", None, "Limit of open files of the process", &files)?;
        let connections = ConstGauge::new(sample.connections_max);
        self.one("connections_max", None, "Client connections that all workers take", &connections)?;
        let memory = ConstGauge::new(sample.memory);
        self.one("memory", Some(Unit::Bytes), "Memory in use, as far as workers.memory_bytes_max looks", &memory)?;
        let memory_max = ConstGauge::new(sample.memory_max);
        self.one("memory_max", Some(Unit::Bytes), "How much that may be; 0: anything", &memory_max)?;
        let dropped = ConstCounter::new(sample.log_lines_dropped);
        self.one("log_lines_dropped", None, "Log lines dropped because the log's queue was full", &dropped)?;
        let NoticeSample { delivered, dropped, waiting } = sample.notices;
        let (delivered, dropped) = (ConstCounter::new(delivered), ConstCounter::new(dropped));
        self.one("notices_delivered", None, "Notices that the backend has taken", &delivered)?;
        self.one("notices_dropped", None, "Notices dropped for want of room", &dropped)?;
        self.one("notices_waiting", None, "Notices that wait for the backend", &ConstGauge::new(waiting))?;
        self.certificates(&sample.certificates)
    }

    fn certificates(&mut self, certificates: &[CertificateInUse]) -> fmt::Result {
        if certificates.is_empty() {
            return Ok(());
        }
        let (name, help) = ("tls_certificate_not_after_timestamp", "Unix time at which a certificate ends");
        let mut family = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for CertificateInUse { file, not_after } in certificates {
            ConstGauge::new(not_after.as_secs()).encode(family.encode_family(&[("file", file.as_str())])?)?;
        }
        Ok(())
    }

    fn webhooks(&mut self, webhooks: &[WebhookSample]) -> fmt::Result {
        if webhooks.is_empty() {
            return Ok(());
        }
        let help = "Calls to a backend, by what they were about and how they ended";
        let mut family = self.encoder.encode_descriptor("webhook_calls", help, None, MetricType::Counter)?;
        for webhook in webhooks {
            for (outcome, count) in &webhook.ended {
                let labels = [("event", webhook.event), ("outcome", outcome)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = ("webhook_call", "Time of all calls to a backend together, by what they were about");
        let mut family = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for webhook in webhooks {
            let seconds = ConstCounter::new(webhook.time.as_secs_f64());
            seconds.encode(family.encode_family(&[("event", webhook.event)])?)?;
        }
        Ok(())
    }

    /// A metric with a single value.
    fn one(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let kind = metric.metric_type();
        metric.encode(self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    /// A metric that only has labels, once for each set of them.
    fn info<'l>(
        &mut self,
        name: &str,
        help: &str,
        sets: impl IntoIterator<Item = [(&'static str, &'l str); 2]>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        sets.into_iter().try_for_each(|labels| family.encode_info(&labels))
    }

    fn workers(&mut self, workers: &[WorkerSample]) -> fmt::Result {
        for (name, unit, help, figure) in GAUGES {
            self.per_worker(name, unit.as_ref(), help, workers, |worker| ConstGauge::new(figure(worker)))?;
        }
        for (name, unit, help, figure) in COUNTERS {
            self.per_worker(name, unit.as_ref(), help, workers, |worker| ConstCounter::new(figure(worker)))?;
        }
        Ok(())
    }

    fn per_worker<M: EncodeMetric>(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        workers: &[WorkerSample],
        metric: impl Fn(&WorkerSample) -> M,
    ) -> fmt::Result {
        let Some(first) = workers.first() else { return Ok(()) };
        let kind = metric(first).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (index, worker) in workers.iter().enumerate() {
            metric(worker).encode(family.encode_family(&[("worker", index as u64)])?)?;
        }
        Ok(())
    }

    fn ticks(&mut self, workers: &[WorkerSample]) -> fmt::Result {
        if workers.is_empty() {
            return Ok(());
        }
        let help = "Length of the workers' ticks, without the sleep";
        let mut family = self.encoder.encode_descriptor("tick", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (index, worker) in workers.iter().enumerate() {
            let TickLengths { buckets, seconds } = &worker.ticks;
            let mut buckets = buckets.clone();
            if buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
                buckets.push((f64::INFINITY, 0));
            }
            let count = buckets.iter().map(|(_, count)| count).sum();
            family
                .encode_family(&[("worker", index as u64)])?
                .encode_histogram::<NoLabelSet>(*seconds, count, &buckets, None)?;
        }
        Ok(())
    }

    /// Not by worker, as closes are not.
    fn slow_disconnects(&mut self, workers: &[WorkerSample]) -> fmt::Result {
        let help = "Clients closed because they read too slowly, by the policy of what did not fit";
        let mut family = self.encoder.encode_descriptor("slow_disconnects", help, None, MetricType::Counter)?;
        let SlowDisconnects { disconnect, conflate, reply } =
            workers.iter().fold(SlowDisconnects::default(), |sum, worker| sum + worker.slow_disconnects);
        for (policy, count) in [("disconnect", disconnect), ("conflate", conflate), ("reply", reply)] {
            ConstCounter::new(count).encode(family.encode_family(&[("policy", policy)])?)?;
        }
        Ok(())
    }

    /// Not by worker: sides times codes times workers would be many series for a question nobody asks.
    fn closes(&mut self, workers: &[WorkerSample]) -> fmt::Result {
        let mut sums: BTreeMap<(Side, u16), u64> = BTreeMap::new();
        let mut unnamed: BTreeMap<Side, u64> = BTreeMap::new();
        for close in workers.iter().flat_map(|worker| &worker.closes) {
            match close.code {
                Some(code) => *sums.entry((close.side, code)).or_default() += close.count,
                None => *unnamed.entry(close.side).or_default() += close.count,
            }
        }
        let help = "Ended connections, by who ended them and the close code";
        let mut family = self.encoder.encode_descriptor("closes", help, None, MetricType::Counter)?;
        for (side, label) in [(Side::Server, "server"), (Side::Client, "client")] {
            let mut codes = sums.range((side, 0)..=(side, u16::MAX)).map(|((_, code), count)| (*code, *count));
            for (code, count) in codes.by_ref().take(CLOSE_CODES_MAX) {
                let code = code.to_string();
                let labels = [("side", label), ("code", code.as_str())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
            let other = codes.map(|(_, count)| count).sum::<u64>() + unnamed.get(&side).copied().unwrap_or_default();
            if other > 0 {
                let labels = [("side", label), ("code", "other")];
                ConstCounter::new(other).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
