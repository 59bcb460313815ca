//! What a run came to: one line of JSON for programs, some lines for people, a page with plots for both.

pub(crate) mod page;

use crate::fleet::Tally;
use crate::latency::Percentiles;
use crate::reasons::Reasons;
use crate::server::Usage;
use serde::Serialize;
use std::io::Write;

/// The report. The first ten fields are there in every scenario; their order and names are documented.
#[derive(Serialize, Debug)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    /// The most clients that were ready at one time.
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    /// Of the measured part.
    pub(crate) seconds: f64,
    pub(crate) latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerReport>,
    #[serde(flatten)]
    pub(crate) generator: GeneratorReport,
    /// Arrived at a client or under a channel where they do not belong.
    pub(crate) misdelivered: u64,
    /// Are none of ours, or not as they were sent.
    pub(crate) foreign: u64,
    /// Clients that never became ready.
    pub(crate) failed: u64,
    /// Clients that were ready and were lost.
    pub(crate) disconnected: u64,
    /// Clients whose close was not answered as it should be.
    pub(crate) unclean: u64,
    pub(crate) opening_us: Option<Percentiles>,
    /// Over the whole life of the clients.
    pub(crate) pings: Pings,
    /// Of the clients that were ready throughout the measured part, and in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pings_held: Option<Pings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publishing: Option<PublishingReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probes: Option<Probes>,
    /// Of clients that were cut off and came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<RecoveryReport>,
    pub(crate) reasons: Reasons,
}

/// What became of clients that were cut off.
#[derive(Serialize, Clone, Default, Debug)]
pub(crate) struct RecoveryReport {
    pub(crate) seed: u64,
    /// Connections that we cut.
    pub(crate) resets: u64,
    /// Times that a client stopped reading for a while.
    pub(crate) pauses: u64,
    /// Connections and subscriptions that the server ended, as it may with clients that do not read. Each came back.
    pub(crate) ended_by_server: u64,
    /// Returns after which nothing was missing.
    pub(crate) recovered: u64,
    /// Publications that came with those.
    pub(crate) recovered_publications: u64,
    /// Returns whose client was told that something is missing.
    pub(crate) gaps: u64,
    /// Publications that were missing there.
    pub(crate) announced_missing: u64,
    /// Returns that found another epoch.
    pub(crate) other_epochs: u64,
    /// Offsets that were skipped, repeated or went back without a word.
    pub(crate) silent_gaps: u64,
    /// From a client's first attempt to come back until it was subscribed again.
    pub(crate) latency_us: Option<Percentiles>,
}

/// Pings that clients got and answered.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Pings {
    pub(crate) total: u64,
    /// The fewest, the usual and the most that one client got.
    pub(crate) min: u32,
    pub(crate) median: u32,
    pub(crate) max: u32,
}

impl Pings {
    /// Of these clients.
    pub(crate) fn of(mut clients: Vec<u32>) -> Pings {
        clients.sort_unstable();
        Pings {
            total: clients.iter().map(|&n| u64::from(n)).sum(),
            min: clients.first().copied().unwrap_or(0),
            median: clients.get(clients.len() / 2).copied().unwrap_or(0),
            max: clients.last().copied().unwrap_or(0),
        }
    }
}

/// What we ourselves used.
#[derive(Serialize, Clone, Copy, PartialEq, Default, Debug)]
pub(crate) struct GeneratorReport {
    /// Share of the measured part in which the busiest loop of our own clients worked. Near 1 the latencies are ours, not
    /// the server's.
    #[serde(rename = "generator_busy")]
    pub(crate) busy: f64,
    pub(crate) loops: u32,
    /// At the end of the measured part.
    #[serde(rename = "generator_rss_bytes")]
    pub(crate) rss_bytes: u64,
    /// What each client added.
    #[serde(rename = "generator_rss_bytes_per_connection")]
    pub(crate) rss_bytes_per_connection: f64,
}

impl GeneratorReport {
    pub(crate) fn new(busy: f64, loops: u32, before: u64, end: u64, connections: u64) -> GeneratorReport {
        GeneratorReport {
            busy: (busy * 1000.0).round() / 1000.0,
            loops,
            rss_bytes: end,
            rss_bytes_per_connection: spread(before, end, connections),
        }
    }
}

/// What each connection added, to a tenth of a byte.
fn spread(before: u64, end: u64, connections: u64) -> f64 {
    ((end as f64 - before as f64) / connections.max(1) as f64 * 10.0).round() / 10.0
}

/// What the server used.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub(crate) struct ServerReport {
    /// At the end of the measured part.
    pub(crate) rss_bytes: u64,
    /// During the measured part.
    pub(crate) cpu_seconds: f64,
    /// Before the first client.
    pub(crate) rss_bytes_before: u64,
    /// What each connection added.
    pub(crate) rss_bytes_per_connection: f64,
}

impl ServerReport {
    pub(crate) fn new(before: Usage, start: Usage, end: Usage, connections: u64) -> ServerReport {
        ServerReport {
            rss_bytes: end.rss_bytes,
            cpu_seconds: end.cpu.saturating_sub(start.cpu).as_secs_f64(),
            rss_bytes_before: before.rss_bytes,
            rss_bytes_per_connection: spread(before.rss_bytes, end.rss_bytes, connections),
        }
    }
}

/// How publishing went.
#[derive(Serialize, Debug)]
pub(crate) struct PublishingReport {
    pub(crate) accepted: u64,
    /// Not accepted, and not published.
    pub(crate) refused: u64,
    /// Not answered.
    pub(crate) unknown: u64,
    /// From the intended time to the API's answer.
    pub(crate) latency_us: Option<Percentiles>,
}

/// The probes, before publishing and during it.
#[derive(Serialize, Default, Debug)]
pub(crate) struct Probes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<ProbeReport>,
    pub(crate) loaded: ProbeReport,
}

/// What the probes saw.
#[derive(Serialize, Default, Debug)]
pub(crate) struct ProbeReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) echo: Option<EchoProbe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accept: Option<AcceptProbe>,
}

/// Messages of another client.
#[derive(Serialize, Debug)]
pub(crate) struct EchoProbe {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Lost, doubled, out of order or not as sent; or the client itself was lost.
    pub(crate) faults: u64,
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) reasons: Reasons,
}

/// Clients that come and go.
#[derive(Serialize, Debug)]
pub(crate) struct AcceptProbe {
    pub(crate) attempts: u64,
    pub(crate) accepted: u64,
    pub(crate) per_second: f64,
    /// Could not connect, were lost, or were not answered their close frame.
    pub(crate) faults: u64,
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) reasons: Reasons,
}

impl Report {
    /// A report of what became of the clients, the rest still empty.
    pub(crate) fn new(scenario: &'static str, tally: Tally, ready_max: u64, pings: Pings) -> Report {
        Report {
            scenario,
            connections: ready_max,
            sent: 0,
            received: 0,
            lost: 0,
            duplicated: 0,
            out_of_order: 0,
            seconds: 0.0,
            latency_us: None,
            server: None,
            generator: GeneratorReport::default(),
            misdelivered: 0,
            foreign: 0,
            failed: tally.failed,
            disconnected: tally.lost,
            unclean: tally.unclean,
            opening_us: tally.opening.percentiles(),
            pings,
            pings_held: None,
            publishing: None,
            probes: None,
            recovery: None,
            reasons: tally.reasons,
        }
    }

    /// Nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let probed: u64 = self.probe_reports().map(ProbeReport::faults).sum();
        let published = self.publishing.as_ref().map_or(0, |publishing| publishing.refused + publishing.unknown);
        let silent = self.recovery.as_ref().map_or(0, |recovery| recovery.silent_gaps);
        let messages = silent + self.lost + self.duplicated + self.out_of_order + self.misdelivered;
        messages + self.failed + self.disconnected + self.unclean + probed + published == 0
    }

    fn probe_reports(&self) -> impl Iterator<Item = &ProbeReport> {
        self.probes.iter().flat_map(|probes| probes.idle.iter().chain([&probes.loaded]))
    }

    /// Prints it to stdout, and what went wrong to stderr.
    pub(crate) fn print(&self, json: bool) -> std::io::Result<()> {
        let probes = self.probe_reports().flat_map(ProbeReport::reasons);
        for (who, reasons) in std::iter::once(("", &self.reasons)).chain(probes) {
            reasons.iter().for_each(|(reason, count)| eprintln!("{count} x {who}{reason}"));
        }
        let mut out = std::io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            writeln!(out)?;
        } else {
            self.write_lines(&mut out)?;
        }
        out.flush()
    }

    fn write_lines(&self, out: &mut impl Write) -> std::io::Result<()> {
        let rate = |count: u64| count as f64 / self.seconds.max(1e-9);
        writeln!(out, "{}: {} connections, {:.1} s", self.scenario, self.connections, self.seconds)?;
        writeln!(
            out,
            "sent {} ({:.0}/s), received {} ({:.0}/s)",
            self.sent,
            rate(self.sent),
            self.received,
            rate(self.received)
        )?;
        writeln!(out, "lost {}, duplicated {}, out of order {}", self.lost, self.duplicated, self.out_of_order)?;
        writeln!(out, "misdelivered {}, foreign {}", self.misdelivered, self.foreign)?;
        writeln!(out, "failed {}, disconnected {}, unclean {}", self.failed, self.disconnected, self.unclean)?;
        writeln!(out, "pings {}", self.pings)?;
        if let Some(held) = &self.pings_held {
            writeln!(out, "pings while held {held}")?;
        }
        write_latency(out, "latency", self.latency_us)?;
        write_latency(out, "opening", self.opening_us)?;
        if let Some(publishing) = &self.publishing {
            let PublishingReport { accepted, refused, unknown, latency_us } = publishing;
            writeln!(out, "publications: {accepted} accepted, {refused} refused, {unknown} unknown")?;
            write_latency(out, "publish answer", *latency_us)?;
        }
        if let Some(recovery) = &self.recovery {
            recovery.write_lines(out)?;
        }
        if let Some(probes) = &self.probes {
            if let Some(idle) = &probes.idle {
                idle.write_lines(out, "idle")?;
            }
            probes.loaded.write_lines(out, "loaded")?;
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            out,
            "generator: {} loop{}, the busiest worked {:.0} % of the time; {:.1} MiB resident ({:.0} B per connection)",
            self.generator.loops,
            if self.generator.loops == 1 { "" } else { "s" },
            self.generator.busy * 100.0,
            mib(self.generator.rss_bytes),
            self.generator.rss_bytes_per_connection
        )?;
        if let Some(server) = &self.server {
            writeln!(
                out,
                "server: {:.1} MiB resident ({:.1} before, {:.0} B per connection), {:.2} s of CPU",
                mib(server.rss_bytes),
                mib(server.rss_bytes_before),
                server.rss_bytes_per_connection,
                server.cpu_seconds
            )?;
        }
        Ok(())
    }
}

impl RecoveryReport {
    fn write_lines(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "cut {}, paused {}, ended by the server {} (seed {})",
            self.resets, self.pauses, self.ended_by_server, self.seed
        )?;
        writeln!(
            out,
            "recovered {} ({} publications), gaps announced {} ({} publications), other epochs {}, silent gaps {}",
            self.recovered,
            self.recovered_publications,
            self.gaps,
            self.announced_missing,
            self.other_epochs,
            self.silent_gaps
        )?;
        write_latency(out, "recovery", self.latency_us)
    }
}

impl std::fmt::Display for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pings { total, min, median, max } = self;
        write!(f, "{total} ({min} to {max} per connection, median {median})")
    }
}

impl ProbeReport {
    fn faults(&self) -> u64 {
        self.echo.as_ref().map_or(0, |echo| echo.faults) + self.accept.as_ref().map_or(0, |accept| accept.faults)
    }

    fn reasons(&self) -> impl Iterator<Item = (&'static str, &Reasons)> {
        let echo = self.echo.iter().map(|echo| ("echo probe: ", &echo.reasons));
        echo.chain(self.accept.iter().map(|accept| ("accept probe: ", &accept.reasons)))
    }

    fn write_lines(&self, out: &mut impl Write, when: &str) -> std::io::Result<()> {
        if let Some(echo) = &self.echo {
            writeln!(
                out,
                "echo probe, {when}: {} sent, {} received, {} faults",
                echo.sent, echo.received, echo.faults
            )?;
            write_latency(out, "  latency", echo.latency_us)?;
        }
        if let Some(accept) = &self.accept {
            let AcceptProbe { attempts, accepted, per_second, faults, latency_us, reasons: _ } = accept;
            writeln!(out, "accept probe, {when}: {accepted} of {attempts}, {per_second:.1}/s, {faults} faults")?;
            write_latency(out, "  latency", *latency_us)?;
        }
        Ok(())
    }
}

fn write_latency(out: &mut impl Write, name: &str, percentiles: Option<Percentiles>) -> std::io::Result<()> {
    match percentiles {
        Some(percentiles) => writeln!(out, "{name}: {percentiles}"),
        None => Ok(()),
    }
}
