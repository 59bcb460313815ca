//! What the rounds came to: samples, their medians and spreads, and the file that keeps them all.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::measure::{Figure, Measure, Sizes};
use super::peer::Peer;
use super::prepare::Missing;
use crate::Project;
use crate::measure::{Machine, Run, Spread, ratio};

/// One run of the generator against one server.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) round: usize,
    pub(super) measure: Measure,
    /// [`Peer::key`].
    pub(super) peer: &'static str,
    /// What the generator was told.
    pub(super) arguments: Vec<String>,
    /// Why there is no figure, if there is none.
    pub(super) run: Result<Run, String>,
}

/// Everything that one call of the command measured.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) machine: Machine,
    pub(super) sizes: Sizes,
    pub(super) rounds: usize,
    pub(super) peers: Vec<Peer>,
    pub(super) missing: Vec<Missing>,
    pub(super) samples: Vec<Sample>,
}

impl Results {
    /// One value per round, `None` where it has none.
    fn values(&self, peer: &str, figure: Figure) -> Vec<Option<f64>> {
        let mut values = vec![None; self.rounds];
        for sample in self.of(peer, figure.measure()) {
            values[sample.round] = sample.run.as_ref().ok().and_then(|run| figure.of(run));
        }
        values
    }

    fn of(&self, peer: &str, measure: Measure) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.peer == peer && sample.measure == measure)
    }

    /// Median and spread over the rounds.
    pub(super) fn spread(&self, peer: &str, figure: Figure) -> Option<Spread> {
        let values: Vec<f64> = self.values(peer, figure).into_iter().flatten().collect();
        Spread::of(&values)
    }

    /// Over the value of `base` in the same rounds.
    pub(super) fn ratio(&self, peer: &str, base: &str, figure: Figure) -> Option<Spread> {
        let pairs = self.values(peer, figure).into_iter().zip(self.values(base, figure));
        let (values, bases): (Vec<f64>, Vec<f64>) = pairs.filter_map(|(value, base)| Some((value?, base?))).unzip();
        ratio(&values, &bases)
    }

    /// Whether the server could have done more than was asked of it.
    pub(super) fn is_bounded_by_generator(&self, peer: &str, figure: Figure) -> bool {
        let mut runs = self.of(peer, figure.measure()).filter_map(|sample| sample.run.as_ref().ok());
        runs.any(|run| figure.is_bounded_by_generator(run))
    }

    /// Runs without a figure, as sentences.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = self.samples.iter().filter_map(|sample| Some((sample, sample.run.as_ref().err()?)));
        let sentence = |(sample, why): (&Sample, &String)| {
            let name = self.peers.iter().find(|peer| peer.key == sample.peer).map_or(sample.peer, |peer| peer.name);
            let first = why.lines().next().unwrap_or_default();
            format!("{name}, {}, round {}: {first}", sample.measure.name(), sample.round + 1)
        };
        failed.map(sentence).collect()
    }

    /// Everything as JSON, one run a line, so that two versions can be compared line by line.
    pub(super) fn json(&self, project: &Project) -> String {
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|peer| {
                json!({ "key": peer.key, "name": peer.name, "version": peer.version,
                        "command": peer.shown(project), "source": peer.source() })
            })
            .collect();
        let mut text = String::from("{\n");
        for (name, value) in [
            ("machine", json!(self.machine)),
            ("sizes", json!(self.sizes)),
            ("rounds", json!(self.rounds)),
            ("peers", json!(peers)),
            ("missing", json!(self.missing)),
        ] {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        text.push_str("  \"runs\": [");
        for (index, sample) in self.samples.iter().enumerate() {
            let mut run = json!({ "round": sample.round + 1, "measure": sample.measure, "peer": sample.peer,
                                  "arguments": sample.arguments.join(" ") });
            match &sample.run {
                Ok(result) => run["result"] = result.line.clone(),
                Err(why) => run["failure"] = project.without_paths(why).into(),
            }
            let _ = write!(text, "{}\n    {run}", if index == 0 { "" } else { "," });
        }
        text.push_str("\n  ]\n}\n");
        text
    }
}

/// Writes `text` to `path` and makes the folders that lead there.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    let complain = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(complain)?;
    }
    std::fs::write(path, text).map_err(complain)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::peer::Kind;

    pub(in super::super) fn peer(name: &'static str, key: &'static str, kind: Kind) -> Peer {
        let program = "/checkout/target/release/one".into();
        Peer { name, key, kind, version: "1.0".to_owned(), program, part: None, libraries: None }
    }

    pub(in super::super) fn project() -> Project {
        Project { root: "/checkout".into(), target: "/checkout/target".into(), cargo: "cargo".into() }
    }

    pub(in super::super) fn sample(round: usize, peer: &'static str, measure: Measure, cpu_us: f64) -> Sample {
        let line = serde_json::json!({
            "scenario": measure.name(), "connections": 10, "sent": 1000, "received": 1000, "lost": 0, "duplicated": 0,
            "out_of_order": 0, "seconds": 2.0, "latency_us": {"p50": 1, "p90": 2, "p99": 1500, "p999": 4, "max": 5},
            "server": {"rss_bytes": 9, "cpu_seconds": cpu_us / 1e3, "rss_bytes_before": 1,
                       "rss_bytes_per_connection": 400.4},
            "generator_busy": 0.5, "failed": 0, "disconnected": 0, "unclean": 0
        });
        let run = Ok(Run::parse(&line.to_string()).unwrap());
        Sample { round, measure, peer, arguments: vec!["echo".to_owned()], run }
    }

    /// A floor, the gateway, and an echo server whose second round failed.
    pub(in super::super) fn results() -> Results {
        let failed = Sample {
            run: Err("/checkout/target/compare/log: 3 lost\nand more".to_owned()),
            ..sample(1, "other", Measure::Echo, 0.0)
        };
        Results {
            machine: Machine {
                cpu: "Test <CPU>".to_owned(),
                cores: 2,
                memory_bytes: 8 << 30,
                kernel: "6.18".to_owned(),
                congestion_control: "bbr".to_owned(),
                load: 0.1,
            },
            sizes: Sizes::QUICK,
            rounds: 3,
            peers: vec![
                peer("bare epoll loop", "floor-epoll", Kind::Floor("epoll")),
                peer("Tidegate, epoll", "tidegate-epoll", Kind::Tidegate("epoll")),
                peer("other", "other", Kind::Echo),
            ],
            missing: vec![Missing { name: "absent", why: "it is not to be had".to_owned() }],
            samples: vec![
                sample(0, "floor-epoll", Measure::Echo, 10.0),
                sample(0, "tidegate-epoll", Measure::Echo, 11.0),
                sample(0, "other", Measure::Echo, 20.0),
                sample(1, "floor-epoll", Measure::Echo, 12.0),
                sample(1, "tidegate-epoll", Measure::Echo, 12.6),
                failed,
                sample(2, "floor-epoll", Measure::Echo, 11.0),
                sample(2, "tidegate-epoll", Measure::Echo, 13.2),
                sample(2, "other", Measure::Echo, 33.0),
            ],
        }
    }

    #[test]
    fn medians_and_ratios_are_over_the_rounds_that_have_a_value() {
        let results = results();
        let close = |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-9, "{value} {wanted}");
        let spread = results.spread("other", Figure::EchoCpu).unwrap();
        assert_eq!(spread.rounds, 2);
        close(spread.median, 26.5);
        let ratio = results.ratio("tidegate-epoll", "floor-epoll", Figure::EchoCpu).unwrap();
        close(ratio.median, 1.1);
        // Its failed round is left out on both sides: 20/10 and 33/11.
        close(results.ratio("other", "floor-epoll", Figure::EchoCpu).unwrap().most, 3.0);
        assert_eq!(results.spread("other", Figure::FanoutCpu), None);
        assert_eq!(results.ratio("other", "nobody", Figure::EchoCpu), None);
    }

    #[test]
    fn a_failed_run_is_a_sentence_with_its_peer_and_round() {
        assert_eq!(results().failures(), ["other, echo, round 2: /checkout/target/compare/log: 3 lost"]);
    }

    #[test]
    fn the_kept_file_is_json_with_a_line_per_run_and_no_path_of_this_machine() {
        let text = results().json(&project());
        assert!(!text.contains("/checkout"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["machine"]["congestion_control"], "bbr");
        assert_eq!(value["missing"][0]["name"], "absent");
        let runs = value["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 9);
        assert_eq!(runs[0]["result"]["received"], 1000);
        assert!(runs[5]["failure"].as_str().unwrap().contains("3 lost"));
        assert_eq!(text.lines().filter(|line| line.contains("\"round\":")).count(), 9);
    }
}
