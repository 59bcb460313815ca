//! What is measured: how the generator is asked for it, and which figures come out of a run.

use std::time::Duration;

use serde::Serialize;

use crate::measure::Run;

/// From the moment that a phase has ended until the generator has closed its clients and printed its line.
const CLOSING_MAX: Duration = Duration::from_secs(60);
/// Clients per second that come to be held or to echo: what the slowest peer takes without a queue.
const OPEN_RATE: u32 = 2_000;
/// Clients that come per second when it is asked how many a server lets in: more than any does.
const CHURN_RATE: u32 = 50_000;
/// Clients on their way at one time then: enough that the server never waits for one.
const CHURN_CLIENTS: u32 = 64;
/// Publications per second: so few that each has reached everybody before the next, also with the slowest peer.
const FANOUT_RATE: u32 = 5;
/// From this share on the generator had no time left, and a rate says how many clients it could send.
const GENERATOR_FULL: f64 = 0.9;

/// One way to use a server. Each is a run of the generator against a server just started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Measure {
    /// Clients that are there and say nothing.
    Hold,
    /// Each client has one message under way.
    Echo,
    /// Each client has 32 under way.
    Pipeline,
    /// One publication to all at a time.
    Fanout,
    /// Clients come and go.
    Churn,
}

impl Measure {
    /// All, in the order of the table's columns.
    pub(super) const ALL: [Measure; 5] =
        [Measure::Hold, Measure::Echo, Measure::Pipeline, Measure::Fanout, Measure::Churn];

    pub(super) fn name(self) -> &'static str {
        match self {
            Measure::Hold => "hold",
            Measure::Echo => "echo",
            Measure::Pipeline => "pipeline",
            Measure::Fanout => "fanout",
            Measure::Churn => "churn",
        }
    }
}

/// How much of each.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub(super) struct Sizes {
    pub(super) hold_clients: u32,
    hold_seconds: u32,
    echo_clients: u32,
    pipeline_clients: u32,
    echo_seconds: u32,
    fanout_clients: u32,
    publications: u32,
    churn_seconds: u32,
}

impl Sizes {
    /// Figures for the record.
    pub(super) const FULL: Sizes = Sizes {
        hold_clients: 5_000,
        hold_seconds: 2,
        echo_clients: 1_000,
        pipeline_clients: 100,
        echo_seconds: 5,
        fanout_clients: 1_000,
        publications: 60,
        churn_seconds: 4,
    };

    /// Whether everything works, in minutes.
    pub(super) const QUICK: Sizes = Sizes {
        hold_clients: 1_000,
        hold_seconds: 1,
        echo_clients: 200,
        pipeline_clients: 20,
        echo_seconds: 1,
        fanout_clients: 200,
        publications: 10,
        churn_seconds: 1,
    };

    /// The same with so many idle clients.
    pub(super) fn with_idle(self, clients: u32) -> Sizes {
        Sizes { hold_clients: clients, ..self }
    }

    /// What the generator is told, without the server's process id; `None` when a server with such doors cannot do it.
    pub(super) fn arguments(&self, measure: Measure, doors: &Doors) -> Option<Vec<String>> {
        let mut line = Line::of(measure);
        match measure {
            Measure::Hold => {
                line.door(doors.subscribe.as_ref().or(doors.echo.as_ref())?, self.hold_clients);
                line.add("open-rate", OPEN_RATE).add("for", format!("{}s", self.hold_seconds));
            }
            Measure::Echo | Measure::Pipeline => {
                let (clients, pipeline) =
                    if measure == Measure::Echo { (self.echo_clients, 1) } else { (self.pipeline_clients, 32) };
                line.url(doors.echo.as_ref()?, clients).add("open-rate", OPEN_RATE).add("size", 20);
                line.add("pipeline", pipeline).add("for", format!("{}s", self.echo_seconds));
            }
            Measure::Fanout => {
                let door = doors.subscribe.as_ref()?;
                line.door(door, self.fanout_clients).add("open-rate", OPEN_RATE).add("size", 128);
                line.add("api", doors.publish.as_ref()?).add("rate", FANOUT_RATE);
                line.add("publications", self.publications);
            }
            Measure::Churn => {
                line.url(doors.upgrade.as_ref()?, CHURN_CLIENTS).add("dialect", "none");
                line.add("rate", CHURN_RATE).add("for", format!("{}s", self.churn_seconds));
            }
        }
        Some(line.0)
    }

    /// How long such a run usually takes, the server's start included.
    pub(super) fn usual(&self, measure: Measure) -> Duration {
        let opened = |clients: u32| f64::from(clients) / f64::from(OPEN_RATE);
        let seconds = match measure {
            Measure::Hold => 2.0 * opened(self.hold_clients) + f64::from(self.hold_seconds),
            Measure::Echo => 2.0 * opened(self.echo_clients) + f64::from(self.echo_seconds),
            Measure::Pipeline => 2.0 * opened(self.pipeline_clients) + f64::from(self.echo_seconds),
            Measure::Fanout => {
                2.0 * opened(self.fanout_clients) + f64::from(self.publications) / f64::from(FANOUT_RATE)
            }
            Measure::Churn => f64::from(self.churn_seconds),
        };
        Duration::from_secs_f64(seconds + 0.5)
    }

    /// After this the generator is stopped.
    pub(super) fn limit(&self, measure: Measure) -> Duration {
        self.usual(measure) * 3 + CLOSING_MAX
    }
}

/// An address for clients and what they speak there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Door {
    pub(super) url: String,
    /// As the generator's `--dialect` names it.
    pub(super) dialect: &'static str,
}

/// Where a running server takes clients.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Doors {
    /// Each message comes back.
    pub(super) echo: Option<Door>,
    /// Clients subscribe to a channel.
    pub(super) subscribe: Option<Door>,
    /// The publish address, as `--api` takes it.
    pub(super) publish: Option<String>,
    /// Clients are upgraded and leave.
    pub(super) upgrade: Option<Door>,
}

/// The generator's command line, growing.
struct Line(Vec<String>);

impl Line {
    fn of(measure: Measure) -> Line {
        Line(vec![if measure == Measure::Pipeline { "echo" } else { measure.name() }.to_owned()])
    }

    fn add(&mut self, name: &str, value: impl ToString) -> &mut Line {
        self.0.extend([format!("--{name}"), value.to_string()]);
        self
    }

    fn url(&mut self, door: &Door, clients: u32) -> &mut Line {
        self.add("url", &door.url).add("connections", clients)
    }

    fn door(&mut self, door: &Door, clients: u32) -> &mut Line {
        self.url(door, clients).add("dialect", door.dialect)
    }
}

/// One column of the table, one panel of the plot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// Resident memory that a client added.
    Memory,
    /// The server's CPU per echo, one under way per client.
    EchoCpu,
    /// The same with 32.
    PipelineCpu,
    /// The server's CPU per delivery.
    FanoutCpu,
    /// From the intended time of publishing to a client.
    FanoutP99,
    /// The server's CPU per client let in and out.
    HandshakeCpu,
    /// Clients let in per second.
    HandshakeRate,
}

impl Figure {
    pub(super) const ALL: [Figure; 7] = [
        Figure::Memory,
        Figure::EchoCpu,
        Figure::PipelineCpu,
        Figure::FanoutCpu,
        Figure::FanoutP99,
        Figure::HandshakeCpu,
        Figure::HandshakeRate,
    ];

    pub(super) fn measure(self) -> Measure {
        match self {
            Figure::Memory => Measure::Hold,
            Figure::EchoCpu => Measure::Echo,
            Figure::PipelineCpu => Measure::Pipeline,
            Figure::FanoutCpu | Figure::FanoutP99 => Measure::Fanout,
            Figure::HandshakeCpu | Figure::HandshakeRate => Measure::Churn,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Figure::Memory => "resident memory per idle client",
            Figure::EchoCpu => "echo, one under way: CPU per message",
            Figure::PipelineCpu => "echo, 32 under way: CPU per message",
            Figure::FanoutCpu => "fan-out: CPU per delivery",
            Figure::FanoutP99 => "fan-out: p99 until it arrives",
            Figure::HandshakeCpu => "let in and out: CPU per client",
            Figure::HandshakeRate => "let in and out: clients",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Figure::Memory => "B",
            Figure::EchoCpu | Figure::PipelineCpu | Figure::FanoutCpu | Figure::HandshakeCpu => "µs",
            Figure::FanoutP99 => "ms",
            Figure::HandshakeRate => "/s",
        }
    }

    pub(super) fn decimals(self) -> usize {
        match self {
            Figure::Memory | Figure::HandshakeRate => 0,
            Figure::FanoutP99 | Figure::HandshakeCpu => 1,
            Figure::EchoCpu | Figure::PipelineCpu | Figure::FanoutCpu => 2,
        }
    }

    /// Whether it is CPU time, which can be divided by that of a bare loop.
    pub(super) fn is_cpu(self) -> bool {
        self.unit() == "µs"
    }

    /// Whether less is better.
    pub(super) fn is_cost(self) -> bool {
        self != Figure::HandshakeRate
    }

    /// The value that a run gives; `None` when it measured nothing of the kind.
    pub(super) fn of(self, run: &Run) -> Option<f64> {
        match self {
            Figure::Memory => run.server.map(|server| server.rss_bytes_per_connection),
            Figure::EchoCpu | Figure::PipelineCpu | Figure::FanoutCpu | Figure::HandshakeCpu => {
                run.cpu_us_per_message()
            }
            Figure::FanoutP99 => run.latency_us.map(|latency| latency.p99 as f64 / 1e3),
            Figure::HandshakeRate => (run.seconds > 0.0).then(|| run.received as f64 / run.seconds),
        }
    }

    /// Whether the value is only what the generator could ask for: the server could have done more.
    pub(super) fn is_bounded_by_generator(self, run: &Run) -> bool {
        self == Figure::HandshakeRate && run.generator_busy >= GENERATOR_FULL
    }
}

/// What makes a run worthless. A close that was not answered is none: some servers just drop the socket.
pub(super) fn fault(run: &Run) -> Option<String> {
    let Run { lost, duplicated, out_of_order, failed, disconnected, .. } = run;
    let counts = [
        (lost, "lost"),
        (duplicated, "doubled"),
        (out_of_order, "out of order"),
        (failed, "clients not let in"),
        (disconnected, "clients lost"),
    ];
    let mut faults: Vec<String> =
        counts.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if run.received == 0 && run.line["scenario"] != "hold" {
        faults.push("nothing arrived".to_owned());
    }
    (!faults.is_empty()).then(|| faults.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Doors {
        let door = |path: &str, dialect| Some(Door { url: format!("ws://127.0.0.1:1{path}"), dialect });
        Doors {
            echo: door("/echo", "none"),
            subscribe: door("/connection/websocket", "centrifugo"),
            publish: Some("http://127.0.0.1:2".to_owned()),
            upgrade: door("/connection/websocket", "none"),
        }
    }

    fn run(changes: &[(&str, serde_json::Value)]) -> Run {
        let mut line = serde_json::json!({
            "scenario": "churn", "connections": 8, "sent": 100, "received": 100, "lost": 0, "duplicated": 0,
            "out_of_order": 0, "seconds": 2.0, "latency_us": {"p50": 1, "p90": 2, "p99": 3000, "p999": 4, "max": 5},
            "server": {"rss_bytes": 9, "cpu_seconds": 0.001, "rss_bytes_before": 1, "rss_bytes_per_connection": 400.5},
            "generator_busy": 0.5, "failed": 0, "disconnected": 0, "unclean": 0
        });
        for (name, value) in changes {
            line[*name] = value.clone();
        }
        Run::parse(&line.to_string()).unwrap()
    }

    #[test]
    fn every_measure_has_a_command_line_and_only_for_servers_that_can_do_it() {
        for measure in Measure::ALL {
            let line = Sizes::FULL.arguments(measure, &doors()).unwrap().join(" ");
            assert!(line.starts_with(if measure == Measure::Pipeline { "echo" } else { measure.name() }), "{line}");
            assert_eq!(Sizes::FULL.arguments(measure, &Doors::default()), None, "{measure:?}");
        }
        let line = Sizes::FULL.arguments(Measure::Fanout, &doors()).unwrap().join(" ");
        assert!(line.contains("--dialect centrifugo") && line.contains("--api http://127.0.0.1:2"), "{line}");
        let no_api = Doors { publish: None, ..doors() };
        assert_eq!(Sizes::FULL.arguments(Measure::Fanout, &no_api), None);
    }

    #[test]
    fn a_server_that_only_echoes_is_held_without_a_subscription() {
        let echo_only = Doors { subscribe: None, ..doors() };
        let line = Sizes::QUICK.arguments(Measure::Hold, &echo_only).unwrap().join(" ");
        assert!(line.contains("/echo") && line.contains("--dialect none"), "{line}");
    }

    #[test]
    fn figures_are_per_message_per_client_and_per_second() {
        let run = run(&[]);
        assert_eq!(Figure::EchoCpu.of(&run), Some(10.0));
        assert_eq!(Figure::Memory.of(&run), Some(400.5));
        assert_eq!(Figure::FanoutP99.of(&run), Some(3.0));
        assert_eq!(Figure::HandshakeRate.of(&run), Some(50.0));
    }

    #[test]
    fn a_rate_that_the_generator_could_not_exceed_is_told_from_one_that_the_server_could_not() {
        let full = run(&[("generator_busy", 0.95.into())]);
        assert!(Figure::HandshakeRate.is_bounded_by_generator(&full));
        assert!(!Figure::HandshakeRate.is_bounded_by_generator(&run(&[])));
        assert!(!Figure::EchoCpu.is_bounded_by_generator(&full));
    }

    #[test]
    fn a_run_with_a_fault_is_worthless_and_its_twin_is_not() {
        assert_eq!(fault(&run(&[])), None);
        assert_eq!(fault(&run(&[("unclean", 1.into())])), None);
        for (name, what) in
            [("lost", "lost"), ("duplicated", "doubled"), ("failed", "not let in"), ("disconnected", "clients lost")]
        {
            assert!(fault(&run(&[(name, 1.into())])).unwrap().contains(what));
        }
        assert!(fault(&run(&[("received", 0.into())])).unwrap().contains("nothing arrived"));
    }
}
