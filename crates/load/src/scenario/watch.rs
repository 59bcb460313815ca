//! What is watched beside the clients: the server, if asked for, and ourselves.

use crate::crew::{Crew, Failure};
use crate::fleet::{Gauges, Reading, Script};
use crate::report::{GeneratorReport, ServerReport};
use crate::server::{Server, Usage};
use crate::timeline::{Sample, SampledUsage, Timeline};
use io::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two samples for the plots. Memory is asked for in a way that costs the server nothing.
const SAMPLE_PERIOD: Duration = Duration::from_millis(250);

/// The measured part of a run: what was used when it began and when it ended.
#[derive(Debug)]
pub(super) struct Watch {
    server: Option<Server>,
    before: Option<Usage>,
    start: Option<Usage>,
    end: Option<Usage>,
    ourselves: Server,
    our_rss_before: u64,
    our_rss_end: u64,
    /// When the part began, and how long each loop had worked by then.
    began: (Instant, Vec<u64>),
    /// Share of its time that the busiest loop worked.
    busy: f64,
}

impl Watch {
    /// To be made before the first client comes.
    pub(super) fn new(pid: Option<u32>) -> Result<Watch, Failure> {
        let server = pid.map(Server::new);
        let before = server.as_ref().map(Server::usage).transpose();
        let before = before.map_err(|error| Failure::usage(format!("--server-pid: {error}")))?;
        let ourselves = Server::new(std::process::id());
        Ok(Watch {
            server,
            before,
            start: None,
            end: None,
            our_rss_before: rss_bytes(&ourselves),
            our_rss_end: 0,
            ourselves,
            began: (Instant::now(), Vec::new()),
            busy: 0.0,
        })
    }

    fn usage(&self) -> Option<Usage> {
        // A server that has died meanwhile shows in everything else.
        self.server.as_ref().and_then(|server| server.usage().ok())
    }

    /// The measured part begins.
    pub(super) fn start<S: Script>(&mut self, crew: &Crew<S>) {
        self.start = self.usage();
        self.began = (Instant::now(), worked(crew));
    }

    /// It ends.
    pub(super) fn end<S: Script>(&mut self, crew: &Crew<S>) {
        self.end = self.usage();
        self.our_rss_end = rss_bytes(&self.ourselves);
        let (began, before) = &self.began;
        let most = worked(crew).iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).max();
        self.busy = most.unwrap_or(0) as f64 / 1e9 / began.elapsed().as_secs_f64().max(1e-9);
    }

    pub(super) fn server_report(&self, connections: u64) -> Option<ServerReport> {
        Some(ServerReport::new(self.before?, self.start?, self.end?, connections))
    }

    pub(super) fn generator_report(&self, connections: u64, loops: u32) -> GeneratorReport {
        GeneratorReport::new(self.busy, loops, self.our_rss_before, self.our_rss_end, connections)
    }
}

fn rss_bytes(process: &Server) -> u64 {
    process.usage().map_or(0, |usage| usage.rss_bytes)
}

fn worked<S: Script>(crew: &Crew<S>) -> Vec<u64> {
    crew.gauges().iter().map(|gauges| gauges.busy_ns.load()).collect()
}

/// A thread that fills a timeline with samples; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sampler {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(super) fn start(
        timeline: Arc<Timeline>,
        gauges: Vec<Arc<Gauges>>,
        server_pid: Option<u32>,
        clock: Clock,
    ) -> std::io::Result<Sampler> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let (server, ourselves) = (server_pid.map(Server::new), Server::new(std::process::id()));
        let thread = std::thread::Builder::new().name("sampler".to_owned()).spawn(move || {
            while !stop.load(Relaxed) {
                timeline.sample(sample(&gauges, server.as_ref(), &ourselves, clock));
                std::thread::park_timeout(SAMPLE_PERIOD);
            }
            timeline.sample(sample(&gauges, server.as_ref(), &ourselves, clock));
        })?;
        Ok(Sampler { over, thread: Some(thread) })
    }
}

fn sample(gauges: &[Arc<Gauges>], server: Option<&Server>, ourselves: &Server, clock: Clock) -> Sample {
    let glance = |process: &Server| {
        let Usage { rss_bytes, cpu } = process.glance().ok()?;
        Some(SampledUsage { rss_bytes, cpu_seconds: cpu.as_secs_f64() })
    };
    let Reading { ready, received, pings, .. } = Reading::of(gauges);
    let (server, generator) = (server.and_then(glance), glance(ourselves));
    Sample { at: clock.now().as_secs_f64(), ready, received, pings, server, generator }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Whatever it panicked over has been printed; the plots lack the rest.
            let _ = thread.join();
        }
    }
}
