//! What compression did, and what it costs.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use super::WorkerSample;
use super::text::Writer;

/// permessage-deflate on one worker. All but the two sizes only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionSample {
    /// Connections that agreed on it.
    pub agreed: u64,
    /// Connections that would have, had there been room for what their clients send.
    pub refused: u64,
    /// Publications that were compressed at all, once per encoding.
    pub publications: u64,
    /// Runs of the compressor for publications.
    pub publication_runs: u64,
    /// Runs of the compressor for replies.
    pub reply_runs: u64,
    /// Publications to one client each, compressed by themselves.
    pub alone: Messages,
    /// Publications to one client each, compressed after the one before.
    pub after: Messages,
    /// Replies sent compressed.
    pub replies: Messages,
    /// Messages that clients sent compressed.
    pub received: Messages,
    /// Messages sent as they are to connections that agreed.
    pub as_they_are: u64,
    /// Bytes reserved now for what clients' messages refer to.
    pub history_bytes: u64,
    /// Bytes of publications kept now, because the next ones refer to them.
    pub previous_bytes: u64,
}

/// Messages and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// How many.
    pub count: u64,
    /// Without compression.
    pub plain_bytes: u64,
    /// As they travel.
    pub packed_bytes: u64,
}

/// A kind of compressed message: its label, and where it is counted.
type Kind = (&'static str, fn(&CompressionSample) -> Messages);

const KINDS: [Kind; 4] = [
    ("publication_alone", |c| c.alone),
    ("publication_after", |c| c.after),
    ("reply", |c| c.replies),
    ("received", |c| c.received),
];

/// A metric over these kinds: its name, unit, explanation, and which of their figures.
type ByKind = (&'static str, Option<Unit>, &'static str, fn(Messages) -> u64);

const BY_KIND: [ByKind; 3] = [
    ("compressed_messages", None, "Messages that travelled compressed", |m| m.count),
    ("compressed_plain", Some(Unit::Bytes), "Their payloads without compression", |m| m.plain_bytes),
    ("compressed_packed", Some(Unit::Bytes), "Their payloads as they travelled", |m| m.packed_bytes),
];

impl Writer<'_, '_> {
    /// Not by worker, as kinds times workers would be many series.
    pub(super) fn compression(&mut self, workers: &[WorkerSample]) -> fmt::Result {
        for (name, unit, help, figure) in BY_KIND {
            let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (kind, messages) in KINDS {
                let sum = workers.iter().map(|worker| figure(messages(&worker.compression))).sum::<u64>();
                ConstCounter::new(sum).encode(family.encode_family(&[("kind", kind)])?)?;
            }
        }
        let help = "Runs of the compressor, by what for";
        let mut family = self.encoder.encode_descriptor("compressions", help, None, MetricType::Counter)?;
        let sum =
            |figure: fn(&CompressionSample) -> u64| workers.iter().map(|worker| figure(&worker.compression)).sum();
        for (of, runs) in [("publication", sum(|c| c.publication_runs)), ("reply", sum(|c| c.reply_runs))] {
            ConstCounter::<u64>::new(runs).encode(family.encode_family(&[("of", of)])?)?;
        }
        Ok(())
    }
}
