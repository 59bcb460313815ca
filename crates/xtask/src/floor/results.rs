//! What came of it: samples by case and contender, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::cases::{BASELINE, Budget, CASES, Case, Contender, Driver, Load};
use super::identity;
use crate::measure::{Machine, Run, Spread, ratio};

/// One turn of one contender.
#[derive(Serialize, Clone, Debug)]
pub(super) struct Sample {
    /// CPU time of the server's threads per message.
    cpu_us: f64,
    /// Messages that came back, deliveries, or clients let in.
    messages: u64,
    p50_us: u64,
    p99_us: u64,
    /// Publications that one send carried, from the kernel's count of data segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_send: Option<f64>,
    /// Near 1 the latencies are the generator's own.
    generator_busy: f64,
}

/// Everything measured.
#[derive(Serialize, Debug)]
pub(super) struct Results {
    machine: Machine,
    rounds: usize,
    seconds: u32,
    cases: BTreeMap<&'static str, BTreeMap<&'static str, Entry>>,
}

/// One contender at one case, by round; a turn that failed has no sample.
#[derive(Serialize, Default, Debug)]
struct Entry {
    samples: Vec<Option<Sample>>,
    failures: Vec<String>,
}

/// Data segments of one client besides deliveries: its request, introduction, close frame and FIN, and the server's answers
/// to them. The gateway answers the commands of an introduction one by one, because those behind the first ask a channel's
/// home.
fn segments_per_client(contender: Contender) -> u64 {
    match contender {
        Contender::Floor(_) => 8,
        Contender::Tidegate(_) => 9,
        // Its connect has to ask the home of the personal channel, so that both answers are ready together.
        Contender::Identified(_) => 8,
    }
}

/// A publication's request and answer.
const SEGMENTS_PER_PUBLICATION: u64 = 2;
/// A publisher's FIN and the server's.
const SEGMENTS_PER_PUBLISHER: u64 = 2;

impl Sample {
    /// What a run with one server came to. `segments` were sent meanwhile, by all processes of the machine.
    pub(super) fn of(case: &Case, contender: Contender, run: Run, segments: u64) -> Result<Sample, String> {
        let cpu_us = run.cpu_us_per_message().ok_or("nothing arrived")?;
        let latency = run.latency_us.ok_or("nothing arrived")?;
        if let Some(period) = case.period_us().filter(|period| latency.p99 as f64 > *period) {
            // Then more travel together than the case says, and not the same for all servers.
            return Err(format!("p99 is {} us, and the next came after {period:.0} us: not alone", latency.p99));
        }
        let per_send = case.publishers().map(|publishers| {
            let clients = segments_per_client(contender) * run.connections;
            let publishing = SEGMENTS_PER_PUBLICATION * run.sent + SEGMENTS_PER_PUBLISHER * u64::from(publishers);
            run.received as f64 / segments.saturating_sub(clients + publishing).max(1) as f64
        });
        Ok(Sample {
            cpu_us,
            messages: run.received,
            p50_us: latency.p50,
            p99_us: latency.p99,
            per_send,
            generator_busy: run.generator_busy,
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} us per message, {} messages, p99 {} us", self.cpu_us, self.messages, self.p99_us)?;
        self.per_send.map_or(Ok(()), |per_send| write!(f, ", {per_send:.1} publications per send"))
    }
}

/// Data segments that this machine has sent, retransmissions not counted. A send of less than the loopback's 64 KiB is one.
pub(super) fn data_segments() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/net/netstat").map_err(|e| format!("/proc/net/netstat: {e}"))?;
    counter(&text, "TcpExt:", "TCPOrigDataSent").ok_or_else(|| "/proc/net/netstat has no TCPOrigDataSent".to_owned())
}

/// A value of the two lines that begin with `group`: names, then values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let at = lines.next()?.split_ascii_whitespace().position(|word| word == name)?;
    lines.next()?.split_ascii_whitespace().nth(at)?.parse().ok()
}

impl Results {
    pub(super) fn new(machine: Machine, rounds: usize, seconds: u32) -> Results {
        Results { machine, rounds, seconds, cases: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, case: &Case, contender: Contender, sample: Result<Sample, String>) {
        let entry = self.cases.entry(case.name).or_default().entry(contender.name()).or_default();
        match sample {
            Ok(sample) => entry.samples.push(Some(sample)),
            Err(why) => {
                entry.samples.push(None);
                entry.failures.push(why);
            }
        }
    }

    /// Every turn has a sample.
    pub(super) fn is_complete(&self) -> bool {
        self.cases.values().flat_map(BTreeMap::values).all(|entry| entry.failures.is_empty())
    }

    /// The rounds in which both have a sample, as ratios.
    fn over_baseline(&self, case: &Case, contender: Contender) -> Option<Spread> {
        let of = |contender: Contender| self.cases.get(case.name)?.get(contender.name());
        let pairs = of(contender)?.samples.iter().zip(&of(BASELINE)?.samples);
        let pairs = pairs.filter_map(|(sample, base)| Some((sample.as_ref()?.cpu_us, base.as_ref()?.cpu_us)));
        let (values, bases): (Vec<f64>, Vec<f64>) = pairs.unzip();
        ratio(&values, &bases)
    }

    fn spread(&self, case: &Case, contender: Contender, figure: fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let entry = self.cases.get(case.name)?.get(contender.name())?;
        Spread::of(&entry.samples.iter().flatten().filter_map(figure).collect::<Vec<_>>())
    }

    fn write_row(&self, f: &mut fmt::Formatter<'_>, case: &Case, contender: Contender) -> fmt::Result {
        let Some(entry) = self.cases.get(case.name).and_then(|entries| entries.get(contender.name())) else {
            return Ok(());
        };
        let spread = |figure| self.spread(case, contender, figure);
        let Some(cpu) = spread(|sample| Some(sample.cpu_us)) else {
            let why = entry.failures.first().and_then(|why| why.lines().next()).unwrap_or("not measured");
            return writeln!(f, "| {} | {} | missing: {why} | | | | | |", case.title, contender.name());
        };
        let over = self.over_baseline(case, contender);
        let shown =
            |spread: Option<Spread>, decimals| spread.map_or_else(String::new, |s| format!("{:.decimals$}", s.median));
        writeln!(
            f,
            "| {} | {} | {cpu:.3} | {} | {} | {} | {} | {} |",
            case.title,
            contender.name(),
            over.map_or_else(String::new, |over| over.to_string()),
            verdict(case.budget, contender, cpu.median, over.map(|over| over.median)),
            shown(spread(|sample| Some(sample.p50_us as f64)), 0),
            shown(spread(|sample| Some(sample.p99_us as f64)), 0),
            shown(spread(|sample| sample.per_send), 1),
        )
    }
}

/// The budget of a contender that has one, and whether it was met.
fn verdict(budget: Budget, contender: Contender, cpu_us: f64, over: Option<f64>) -> String {
    let (limit, value, unit) = match (budget, contender) {
        (_, Contender::Floor(_) | Contender::Identified(_)) => return String::new(),
        (Budget::Ratio(limit, _), Contender::Tidegate(Driver::Epoll)) => (limit, over, ""),
        (Budget::Ratio(_, limit), Contender::Tidegate(Driver::Uring)) => (limit, over, ""),
        (Budget::Microseconds(limit), Contender::Tidegate(_)) => (limit, Some(cpu_us), " us"),
    };
    match value {
        Some(value) if value <= limit => format!("{limit:.2}{unit}: met"),
        Some(_) => format!("{limit:.2}{unit}: **missed**"),
        None => format!("{limit:.2}{unit}: not known"),
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "{} rounds of {} s, interleaved; server pinned to one core, one worker, release build. Median (least-most); the \
             ratio is taken round by round.\n",
            self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "| case | server | CPU per message, us | over floor-epoll | budget | p50, us | p99, us | publications per send |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        let measured = || CASES.iter().filter(|case| self.cases.contains_key(case.name));
        for case in measured() {
            case.contenders().into_iter().try_for_each(|contender| self.write_row(f, case, contender))?;
        }
        writeln!(f, "\nCommands (with `--server-pid PID --json`):\n\n```")?;
        measured().try_for_each(|case| writeln!(f, "{}", case.command(self.seconds)))?;
        writeln!(f, "```")?;
        if measured().any(Case::has_api) {
            let more = identity::load_arguments(Path::new("")).join(" ");
            writeln!(f, "\n`identified`: with `{more}`, and this config:\n\n```toml\n{}```", identity::config())?;
        }
        for (case, entries) in &self.cases {
            for (name, entry) in entries {
                for why in &entry.failures {
                    writeln!(f, "\n{case}, {name}: a turn failed: {}", why.lines().next().unwrap_or_default())?;
                }
            }
        }
        if self.cases.keys().any(|name| CASES.iter().any(|case| case.name == *name && is_crowded(case))) {
            writeln!(
                f,
                "\nSixteen in flight are due at one moment, and the next sixteen when these have arrived, for every server alike. \
                 How many of them it sends at once, the last column, is its own affair."
            )?;
        }
        Ok(())
    }
}

fn is_crowded(case: &Case) -> bool {
    matches!(case.load, Load::Fanout { burst: 2.. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str) -> &'static Case {
        CASES.iter().find(|case| case.name == name).unwrap()
    }

    fn sample(cpu_us: f64) -> Sample {
        Sample { cpu_us, messages: 1, p50_us: 1, p99_us: 2, per_send: None, generator_busy: 0.5 }
    }

    fn run(received: u64, p99: u64) -> Run {
        let line = format!(
            r#"{{"scenario":"fanout","connections":1000,"sent":10,"received":{received},"lost":0,"duplicated":0,
            "out_of_order":0,"seconds":1.0,"latency_us":{{"p50":1,"p90":1,"p99":{p99},"p999":1,"max":1}},
            "server":{{"rss_bytes":1,"cpu_seconds":0.1,"rss_bytes_before":1,"rss_bytes_per_connection":0.0}},
            "generator_busy":0.5,"failed":0,"disconnected":0,"unclean":0}}"#
        );
        Run::parse(&line.replace('\n', " ")).unwrap()
    }

    const TIDEGATE: Contender = Contender::Tidegate(Driver::Epoll);

    #[test]
    fn segments_that_are_no_deliveries_are_not_counted_as_sends() {
        // Counted in a network of its own: 1,000 clients, 20 publications by one publisher, each delivery its own send.
        let crowd = case("fanout-1000-1");
        let mut twenty = run(20_000, 9);
        twenty.sent = 20;
        let sample = Sample::of(crowd, BASELINE, twenty.clone(), 28_042).unwrap();
        assert_eq!((sample.per_send, sample.cpu_us), (Some(1.0), 5.0));
        assert_eq!(Sample::of(crowd, TIDEGATE, twenty, 29_042).unwrap().per_send, Some(1.0));
        assert_eq!(Sample::of(case("echo-1"), BASELINE, run(10_000, 9), 0).unwrap().per_send, None);
    }

    #[test]
    fn publications_or_bursts_that_overlap_are_no_sample() {
        for paced in [case("fanout-1000-1"), case("fanout-1000-16")] {
            let period = paced.period_us().unwrap() as u64;
            assert!(Sample::of(paced, BASELINE, run(10_000, period), 0).is_ok());
            assert!(Sample::of(paced, BASELINE, run(10_000, period + 1), 0).unwrap_err().contains("not alone"));
            assert!(Sample::of(paced, BASELINE, run(0, 9), 0).unwrap_err().contains("nothing arrived"));
        }
    }

    #[test]
    fn a_round_without_baseline_is_left_out_of_the_ratio() {
        let mut results = Results::new(Machine::probe(), 2, 1);
        let tidegate = Contender::Tidegate(Driver::Epoll);
        results.add(case("echo-1"), BASELINE, Err("it ended\n  log".to_owned()));
        results.add(case("echo-1"), BASELINE, Ok(sample(10.0)));
        results.add(case("echo-1"), tidegate, Ok(sample(99.0)));
        results.add(case("echo-1"), tidegate, Ok(sample(12.0)));
        assert_eq!(results.over_baseline(case("echo-1"), tidegate).unwrap().median, 1.2);
        assert!(!results.is_complete());
        let table = results.to_string();
        assert!(
            table.contains("| tidegate-epoll | 55.500 (12.000-99.000) | 1.20 (1.20-1.20) | 1.10: **missed** |"),
            "{table}"
        );
        assert!(table.contains("echo-1, floor-epoll: a turn failed: it ended"), "{table}");
    }

    #[test]
    fn a_contender_that_could_not_be_measured_is_named_as_missing() {
        let mut results = Results::new(Machine::probe(), 1, 1);
        results.add(case("handshake"), Contender::Floor(Driver::Uring), Err("no io_uring here".to_owned()));
        assert!(results.to_string().contains("| floor-uring | missing: no io_uring here |"), "{results}");
    }

    #[test]
    fn budgets_are_met_at_the_limit_and_missed_above_it() {
        let (epoll, uring) = (Contender::Tidegate(Driver::Epoll), Contender::Tidegate(Driver::Uring));
        let ratio = Budget::Ratio(1.10, 0.90);
        assert_eq!(verdict(ratio, epoll, 5.0, Some(1.10)), "1.10: met");
        assert_eq!(verdict(ratio, uring, 5.0, Some(1.10)), "0.90: **missed**");
        assert_eq!(verdict(Budget::Microseconds(0.35), epoll, 0.36, None), "0.35 us: **missed**");
        assert_eq!(verdict(ratio, epoll, 5.0, None), "1.10: not known");
        assert_eq!(verdict(ratio, BASELINE, 5.0, Some(9.0)), "");
    }

    #[test]
    fn kernel_counters_are_found_below_their_names() {
        let text = "TcpExt: A TCPOrigDataSent B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "TCPOrigDataSent"), Some(22));
        assert_eq!(counter(text, "TcpExt:", "C"), None);
        assert!(data_segments().is_ok());
    }
}
