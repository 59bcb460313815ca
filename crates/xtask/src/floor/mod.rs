//! `cargo xtask floor`: what Tidegate costs over the least that can be done, as ratios measured in one run.
//!
//! In each round every contender has its turn: Tidegate on epoll and on io_uring, and the bare loops of `benches/` (`floor`)
//! on both, and in a fan-out Tidegate with clients that have tokens, positions, presence and personal channels; each a fresh process pinned to one core, with the same load from the same generator on the other cores. What is
//! compared is the CPU time of the server's threads per message. The order changes from round to round, so that nobody
//! always comes after the same neighbour.

mod cases;
mod identity;
mod results;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Ready, Run, Server, release};
use cases::{CASES, Case, Contender};
use results::{Results, Sample};

/// How to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Turns that each contender has.
    pub rounds: usize,
    /// Length of one measured phase.
    pub seconds: u32,
    /// Only cases with one of these names, or whose name begins with one; all without any.
    pub only: Vec<String>,
    /// Where the table goes, and the raw figures beside it as `.json`; standard output without it.
    pub out: Option<PathBuf>,
}

/// Opening the clients, the measured phase's end and closing, on top of the measured phase.
const RUN_MAX: Duration = Duration::from_secs(120);

/// The programs that are measured, and the one that measures.
struct Programs {
    tidegate: PathBuf,
    floor: PathBuf,
    generator: Generator,
    cores: Cores,
    /// Where they log.
    logs: PathBuf,
}

/// Builds everything, measures and writes the results. Whether every contender could be measured.
///
/// # Errors
/// When nothing could be measured at all.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    let cases = choose(&plan.only)?;
    let cores = Cores::choose()?;
    if cores.are_shared() {
        println!("there is one core only: the generator takes its share of it, and latencies say nothing");
    }
    let logs = project.target.join("floor");
    let generator = release(project, "tidegate-load", "tidegate-load")?;
    let programs = Programs {
        tidegate: release(project, "tidegate", "tidegate")?,
        floor: release(project, "tidegate-benches", "floor")?,
        generator: Generator::new(&generator, &cores, &logs.join("generator.log")),
        cores,
        logs,
    };
    identity::write(&programs.tidegate, &programs.logs)?;
    let mut results = Results::new(Machine::probe(), plan.rounds, plan.seconds);
    let mut progress = Progress { started: Instant::now(), done: 0, turns: 0 };
    progress.turns = cases.iter().map(|case| case.contenders().len()).sum::<usize>() * plan.rounds;
    for round in 0..plan.rounds {
        for case in &cases {
            let mut contenders = case.contenders();
            let first = round % contenders.len();
            contenders.rotate_left(first);
            for contender in contenders {
                let sample = programs.turn(case, contender, plan.seconds);
                progress.step(case, contender, &sample);
                results.add(case, contender, sample);
            }
        }
    }
    write(plan.out.as_deref(), &results)?;
    Ok(results.is_complete())
}

/// Tells what each turn came to, and when the last one will be over.
struct Progress {
    started: Instant,
    done: usize,
    turns: usize,
}

impl Progress {
    fn step(&mut self, case: &Case, contender: Contender, sample: &Result<Sample, String>) {
        self.done += 1;
        let each = self.started.elapsed().as_secs_f64() / self.done as f64;
        let minutes_left = (each * (self.turns - self.done) as f64 / 60.0).ceil();
        let shown = match sample {
            Ok(sample) => sample.to_string(),
            Err(why) => why.clone(),
        };
        println!(
            "[{}/{}, {minutes_left:.0} min left] {} {}: {shown}",
            self.done,
            self.turns,
            case.name,
            contender.name()
        );
    }
}

/// Those that are named, or all. The front of a name stands for every case that begins so.
fn choose(only: &[String]) -> Result<Vec<&'static Case>, String> {
    let matches = |name: &str, case: &Case| {
        let is_whole = CASES.iter().any(|case| case.name == name);
        if is_whole { case.name == name } else { case.name.starts_with(name) }
    };
    if let Some(stranger) = only.iter().find(|name| !CASES.iter().any(|case| matches(name, case))) {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no case begins with `{stranger}`; there are {}", names.join(", ")));
    }
    Ok(CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| matches(name, case))).collect())
}

impl Programs {
    /// One contender's turn at one case.
    fn turn(&self, case: &Case, contender: Contender, seconds: u32) -> Result<Sample, String> {
        let mut server = self.start(case, contender)?;
        let arguments = case.generator_arguments(contender, &server, seconds, &self.logs);
        let segments_before = results::data_segments()?;
        let limit = RUN_MAX + Duration::from_secs(u64::from(seconds));
        let run = self.generator.run(&arguments, limit).and_then(Run::clean);
        server.still_runs()?;
        Sample::of(case, contender, run?, results::data_segments()?.saturating_sub(segments_before))
    }

    fn start(&self, case: &Case, contender: Contender) -> Result<Server, String> {
        let (program, kinds): (&Path, &'static [&'static str]) = match contender {
            Contender::Tidegate(_) | Contender::Identified(_) => (&self.tidegate, &["public", "api"]),
            Contender::Floor(_) if case.has_api() => (&self.floor, &["public", "api"]),
            Contender::Floor(_) => (&self.floor, &["public"]),
        };
        let mut command = Command::new(program);
        command.args(case.server_arguments(contender, &self.logs));
        Server::start(&command, &self.cores, &Ready::Lines(kinds), &self.logs.join(format!("{}.log", contender.name())))
    }
}

fn write(out: Option<&Path>, results: &Results) -> Result<(), String> {
    let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    let table = results.to_string();
    println!("\n{table}");
    let Some(out) = out else {
        println!("{json}");
        return Ok(());
    };
    for (path, text) in [(out.to_path_buf(), table), (out.with_extension("json"), json + "\n")] {
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_their_name_or_the_front_of_it() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose(&only).map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), CASES.len());
        assert_eq!(names(&["handshake"]).unwrap(), ["handshake"]);
        assert_eq!(names(&["echo-1"]).unwrap(), ["echo-1"], "and not echo-1000");
        assert!(names(&["echo"]).unwrap().len() > 1);
        assert!(names(&["echo", "ehco"]).unwrap_err().contains("ehco"));
    }
}
