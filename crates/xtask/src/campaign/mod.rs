//! `cargo xtask campaign`: clients that are cut off and stop reading, at length, against a release gateway on each driver.
//!
//! Two cases. *Weather*: clients are reset and paused at random while many channels are published to. *Herd*: all clients of
//! one generator are cut in one moment and come back together, while those of another one are to notice nothing. Server and
//! generators share all cores: what is asked is whether everything arrives, and not what it costs.

mod cases;
mod table;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Ready, Run, Server, ServerUse, drivers, peak_rss_bytes, release};
use cases::{Case, Sizes};

/// How to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Small sizes and short times, to see that everything works.
    pub quick: bool,
    /// Of all that is random.
    pub seed: u64,
    /// Only on this driver.
    pub driver: Option<String>,
    /// Where the page goes, and the lines of all runs beside it as `.json`.
    pub out: PathBuf,
}

/// Opening, coming back and closing, on top of the time to publish.
const RUN_MAX: Duration = Duration::from_secs(300);

/// One generator's part in a case.
#[derive(Serialize, Debug)]
struct Part {
    /// Who its clients are.
    name: &'static str,
    /// Behind `tidegate-load`, without addresses.
    arguments: String,
    /// Nothing at all went wrong.
    is_clean: bool,
    /// The generator's line.
    line: Value,
}

/// One case on one driver.
#[derive(Serialize, Debug)]
struct Outcome {
    case: &'static str,
    driver: &'static str,
    /// From the first client to the last.
    seconds: f64,
    /// Of the gateway, and the most it had resident.
    server: Option<ServerUse>,
    peak_rss_bytes: u64,
    parts: Vec<Part>,
}

/// What the page is made from.
#[derive(Serialize, Debug)]
struct Results {
    machine: Machine,
    seed: u64,
    outcomes: Vec<Outcome>,
}

/// The programs, and where they log.
struct Programs {
    gateway: PathBuf,
    generator: PathBuf,
    cores: Cores,
    logs: PathBuf,
}

/// Builds everything, runs every case on every driver and writes the page. Whether nothing went wrong in any.
///
/// # Errors
/// When something could not be run at all.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    let drivers: Vec<&'static str> = drivers(plan.driver.as_deref()).collect();
    let programs = Programs {
        gateway: release(project, "tidegate", "tidegate")?,
        generator: release(project, "tidegate-load", "tidegate-load")?,
        cores: Cores::all()?,
        logs: project.target.join("campaign"),
    };
    let sizes = if plan.quick { Sizes::quick() } else { Sizes::whole() };
    let cases = Case::all(&sizes, plan.seed);
    let mut results = Results { machine: Machine::probe(), seed: plan.seed, outcomes: Vec::new() };
    for driver in drivers {
        for case in &cases {
            println!("{} on {driver}: about {} s", case.name, case.length.as_secs());
            let outcome = programs.play(case, driver)?;
            for part in &outcome.parts {
                let verdict = if part.is_clean { "clean" } else { "NOT CLEAN" };
                println!("  {}: {verdict}: {}", part.name, part.line);
            }
            results.outcomes.push(outcome);
        }
    }
    write(plan, &results)?;
    Ok(results.outcomes.iter().flat_map(|outcome| &outcome.parts).all(|part| part.is_clean))
}

impl Programs {
    /// One case on a gateway of its own.
    fn play(&self, case: &Case, driver: &'static str) -> Result<Outcome, String> {
        let config = self.logs.join("gateway.toml");
        std::fs::create_dir_all(&self.logs).map_err(|e| format!("{}: {e}", self.logs.display()))?;
        std::fs::write(&config, cases::CONFIG).map_err(|e| format!("{}: {e}", config.display()))?;
        let mut command = Command::new(&self.gateway);
        command.args(["serve", "--io", driver, "--workers", "2", "--config"]).arg(&config);
        let log = self.logs.join(format!("{}-{driver}.log", case.name));
        let mut server = Server::start(&command, &self.cores, &Ready::Lines(&["public", "api"]), &log)?;
        let started = Instant::now();
        let runs = self.generate(case, &server)?;
        let seconds = started.elapsed().as_secs_f64();
        server.still_runs()?;
        let peak_rss_bytes = peak_rss_bytes(server.pid())?;
        let used = runs.last().and_then(|run| run.server);
        let parts = case.parts.iter().zip(runs).map(|(part, run)| Part {
            name: part.name,
            arguments: part.arguments.join(" "),
            is_clean: run.is_clean,
            line: run.line,
        });
        Ok(Outcome { case: case.name, driver, seconds, server: used, peak_rss_bytes, parts: parts.collect() })
    }

    /// Runs the generators of a case beside each other.
    fn generate(&self, case: &Case, server: &Server) -> Result<Vec<Run>, String> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = case
                .parts
                .iter()
                .map(|part| {
                    let log = self.logs.join(format!("{}.log", part.name));
                    let generator = Generator::new(&self.generator, &self.cores, &log);
                    let mut arguments: Vec<String> = part.arguments.clone();
                    arguments.extend(["--url".into(), server.ws("public"), "--api".into(), server.url("api").into()]);
                    arguments.extend(["--server-pid".into(), server.pid().to_string()]);
                    scope.spawn(move || generator.run(&arguments, case.length + RUN_MAX))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a generator's thread does not panic")).collect()
        })
    }
}

fn write(plan: &Plan, results: &Results) -> Result<(), String> {
    let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    let page = table::page(results);
    println!("\n{page}");
    for (path, text) in [(plan.out.clone(), page), (plan.out.with_extension("json"), json + "\n")] {
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}
