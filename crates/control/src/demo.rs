//! The demo's source of real input: this machine's vital signs, published four times a second.
//!
//! What is published to [`MACHINE_CHANNEL`] is one JSON object. A figure that could not be read is absent, never zero:
//!
//! ```json
//! {"processor": {"busy": 0.21, "cores": [{"core": 0, "busy": 0.125}]},
//!  "memory": {"total": 24683, "available": 20000, "swap_total": 0, "swap_free": 0},
//!  "network": {"interfaces": [{"name": "lo", "received": 1200, "sent": 1200}]},
//!  "gateway": {"version": "0.1.0", "uptime_s": 9, "connections": 1, "subscriptions": 2, "channels": 2,
//!              "received_per_s": 0, "sent_per_s": 8, "api": "http://127.0.0.1:9000"},
//!  "chat": {"here": 1}}
//! ```
//!
//! Shares are 0 to 1, memory is in bytes, `received` and `sent` of an interface are bytes per second. Nothing is kept
//! besides the previous reading.

mod proc;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hub::{Channel, Draft};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::backend::{Backend, NodeInfo};
use crate::glob::Glob;
use crate::metrics::NodeSample;
use proc::{CoreTimes, InterfaceBytes, Listed, Memory};

/// Where the readings are published.
pub const MACHINE_CHANNEL: &str = "demo:machine";
/// The channel that everybody on the page can write to; its subscribers are counted in the readings.
pub const CHAT_CHANNEL: &str = "demo:chat";

/// Between two readings. The kernel counts processor time in hundredths of a second: a share is exact to 4 %.
const READ_EVERY: Duration = Duration::from_millis(250);
/// For one publication; a reading that is late is of no use.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two counts of who is in the chat, at least.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Counting walks every channel of the node; of this many parts of the time it takes at most one.
const COUNT_SHARE: u32 = 20;
/// In place of a count when there is none.
const UNKNOWN: u64 = u64::MAX;

/// What the page should know besides figures.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Base URL of the server API, for the line to publish from a terminal; without it the page assumes the default.
    pub api_url: Option<String>,
}

/// [`run_with`] the default options.
pub async fn run<B: Backend>(backend: Arc<B>, shutdown: impl Future<Output = ()>) {
    run_with(backend, Options::default(), shutdown).await;
}

/// Publishes readings until `shutdown` is ready. Failures are passed over: the next reading is a quarter of a second away.
pub async fn run_with<B: Backend>(backend: Arc<B>, options: Options, shutdown: impl Future<Output = ()>) {
    let here = AtomicU64::new(UNKNOWN);
    tokio::select! {
        () = shutdown => {}
        () = publish_readings(&*backend, &options, &here) => {}
        // Apart from the readings: on a node with a million channels one count takes longer than one reading may.
        () = count_chat(&*backend, &here) => {}
    }
}

async fn publish_readings(backend: &impl Backend, options: &Options, here: &AtomicU64) {
    let channel = Channel::new(MACHINE_CHANNEL);
    let started = Instant::now();
    let mut sampler = Sampler::default();
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let texts = Texts::read();
        let (info, sample) = (backend.info(), backend.sample());
        let mut reading = sampler.reading(started.elapsed(), &texts, &info, &sample);
        reading.gateway.api = options.api_url.as_deref();
        reading.chat.here = Some(here.load(Ordering::Relaxed)).filter(|here| *here != UNKNOWN);
        let data = serde_json::to_vec(&reading).expect("numbers and strings always serialise");
        let publish = backend.publish(Draft::new(channel.clone(), data));
        match timeout(PUBLISH_WAIT_MAX, publish).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(target: "tidegate::demo", "a reading was not published: {error}"),
            Err(_) => tracing::debug!(target: "tidegate::demo", "a reading was not published in time"),
        }
    }
}

async fn count_chat(backend: &impl Backend, here: &AtomicU64) {
    let pattern = Glob::new(CHAT_CHANNEL).expect("a name without a star is a pattern");
    loop {
        let started = Instant::now();
        let count = match backend.channels(Some(pattern.clone()), 1).await {
            // A channel without subscribers is not listed.
            Ok(channels) => channels.first().map_or(0, |(_, subscribers)| u64::from(*subscribers)),
            Err(_) => UNKNOWN,
        };
        here.store(count, Ordering::Relaxed);
        sleep(COUNT_EVERY.max(started.elapsed() * COUNT_SHARE)).await;
    }
}

/// The kernel's files as they were at one moment; `None` where one cannot be read.
///
/// Reading them blocks, but only for as long as the kernel needs to print them (well below a millisecond on common
/// machines), and it happens in the demo alone.
struct Texts {
    stat: Option<String>,
    meminfo: Option<String>,
    net_dev: Option<String>,
}

impl Texts {
    fn read() -> Texts {
        let read = |path| {
            proc::read(path)
                .inspect_err(|error| tracing::debug!(target: "tidegate::demo", path, "cannot be read: {error}"))
                .ok()
        };
        Texts { stat: read("/proc/stat"), meminfo: read("/proc/meminfo"), net_dev: read("/proc/net/dev") }
    }
}

/// One publication to [`MACHINE_CHANNEL`].
#[derive(Debug, Serialize)]
struct Reading<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    processor: Option<Processor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    gateway: GatewayFigures<'a>,
    chat: Chat,
}

#[derive(Debug, Serialize)]
struct Processor {
    /// Mean of the cores.
    busy: f64,
    cores: Vec<CoreLoad>,
    /// Cores beyond the limit.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: usize,
}

#[derive(Debug, PartialEq, Serialize)]
struct CoreLoad {
    core: u32,
    busy: f64,
}

#[derive(Debug, Serialize)]
struct Network {
    interfaces: Vec<InterfaceRate>,
    /// Interfaces beyond the limit.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[derive(Debug, PartialEq, Serialize)]
struct InterfaceRate {
    name: String,
    received: u64,
    sent: u64,
}

#[derive(Debug, Serialize)]
struct GatewayFigures<'a> {
    version: &'a str,
    uptime_s: u64,
    connections: u64,
    subscriptions: u64,
    channels: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<&'a str>,
}

#[derive(Debug, Default, Serialize)]
struct Chat {
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<u64>,
}

/// Turns counters that only grow into what happened since the reading before.
#[derive(Default)]
struct Sampler {
    previous: Option<Counters>,
}

/// Every counter of one reading.
struct Counters {
    at: Duration,
    cores: HashMap<u32, CoreTimes>,
    interfaces: HashMap<String, InterfaceBytes>,
    received: u64,
    sent: u64,
}

impl Sampler {
    /// `at` is any clock that only moves forward.
    fn reading<'a>(&mut self, at: Duration, texts: &Texts, node: &'a NodeInfo, sample: &NodeSample) -> Reading<'a> {
        let cores = texts.stat.as_deref().map(proc::cores);
        let interfaces = texts.net_dev.as_deref().map(proc::interfaces);
        let counters = Counters {
            at,
            cores: cores.iter().flat_map(|listed| &listed.items).map(|times| (times.core, *times)).collect(),
            interfaces: interfaces
                .iter()
                .flat_map(|listed| &listed.items)
                .map(|bytes| (bytes.name.clone(), bytes.clone()))
                .collect(),
            received: sample.workers.iter().map(|worker| worker.messages_received).sum(),
            sent: sample.workers.iter().map(|worker| worker.messages_sent).sum(),
        };
        let previous = self.previous.as_ref().filter(|previous| previous.at < at);
        let reading = Reading {
            processor: previous.zip(cores).and_then(|(previous, cores)| processor(previous, &cores)),
            memory: texts.meminfo.as_deref().and_then(proc::memory),
            network: previous.zip(interfaces).map(|(previous, interfaces)| network(previous, at, interfaces)),
            gateway: GatewayFigures {
                version: &node.version,
                uptime_s: node.uptime,
                connections: node.num_clients,
                subscriptions: node.num_subs,
                channels: node.num_channels,
                received_per_s: previous.map(|p| per_second(p.received, counters.received, at - p.at)),
                sent_per_s: previous.map(|p| per_second(p.sent, counters.sent, at - p.at)),
                api: None,
            },
            chat: Chat::default(),
        };
        self.previous = Some(counters);
        reading
    }
}

/// `None` when no core has been seen twice with time in between.
fn processor(previous: &Counters, listed: &Listed<CoreTimes>) -> Option<Processor> {
    let cores: Vec<CoreLoad> = listed
        .items
        .iter()
        .filter_map(|now| {
            let busy = proc::busy_share(previous.cores.get(&now.core)?, now)?;
            Some(CoreLoad { core: now.core, busy: rounded(busy) })
        })
        .collect();
    let sum: f64 = cores.iter().map(|core| core.busy).sum();
    (!cores.is_empty()).then(|| Processor { busy: rounded(sum / cores.len() as f64), cores, left_out: listed.left_out })
}

/// To three digits: more is noise, and each costs a byte in every frame.
fn rounded(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

fn network(previous: &Counters, at: Duration, listed: Listed<InterfaceBytes>) -> Network {
    let elapsed = at - previous.at;
    let interfaces = listed
        .items
        .into_iter()
        .map(|now| {
            // An interface that has just appeared has no rate yet; its counter says nothing about the last moment.
            let before = previous.interfaces.get(&now.name);
            let rate = |before: Option<u64>, now| before.map_or(0, |before| per_second(before, now, elapsed));
            InterfaceRate {
                received: rate(before.map(|b| b.received), now.received),
                sent: rate(before.map(|b| b.sent), now.sent),
                name: now.name,
            }
        })
        .collect();
    Network { interfaces, left_out: listed.left_out }
}

/// A counter that went backwards was reset in between: 0.
fn per_second(before: u64, now: u64, elapsed: Duration) -> u64 {
    (now.saturating_sub(before) as f64 / elapsed.as_secs_f64()).round() as u64
}

#[cfg(test)]
mod tests;
