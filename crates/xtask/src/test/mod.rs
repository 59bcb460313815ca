//! `cargo xtask test`: every step with a heading, its time and its result, and a table at the end.
//!
//! A step whose needs cannot be met is *skipped*, with the reason; under `CI=true` that is a failure. The last line
//! counts real tests, read from what the runners printed, and one failure for each step that failed without any.

mod conformance;
mod steps;
mod wss;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Project;
use crate::run::{Ran, watched};
use crate::setup::{Need, Tools, provide};
use crate::tally::{Runner, Tally};

pub use conformance::{CLIENT, Cases, report};
pub use steps::STEPS;

/// One step.
pub struct Step {
    /// What `--only` takes.
    pub name: &'static str,
    /// One line on what it shows.
    pub claim: &'static str,
    needs: &'static [Need],
    work: fn(&mut Bench) -> Result<Outcome, String>,
}

/// How a step ended when it could run at all.
pub struct Outcome {
    tally: Tally,
    /// The runner's own last words, or what was checked.
    closing: String,
    succeeded: bool,
}

/// The results of one step.
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

struct Row {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
    tally: Tally,
    closing: String,
}

/// What the steps share.
pub struct Bench {
    project: Project,
    tools: Tools,
    /// Fail on skips, and never let cargo change the lock file.
    strict: bool,
    cases: Cases,
    /// The release gateway, or why it could not be built; built when first asked for.
    gateway: Option<Result<PathBuf, String>>,
}

/// The longest that one command of a step may take.
const STEP_MAX: Duration = Duration::from_secs(45 * 60);

impl Bench {
    fn watch(&self, command: &mut std::process::Command) -> Result<Ran, String> {
        watched(command, STEP_MAX)
    }

    fn cargo(&self, subcommand: &str) -> std::process::Command {
        let mut command = self.project.cargo(subcommand);
        if self.strict && subcommand != "fmt" && subcommand != "deny" {
            command.arg("--locked");
        }
        command
    }

    /// Builds the release gateway once; a second step that asks gets the same answer.
    fn gateway(&mut self) -> Result<PathBuf, String> {
        if self.gateway.is_none() {
            let mut command = self.cargo("build");
            command.args(["--release", "--package", "tidegate"]);
            self.gateway = Some(match self.watch(&mut command) {
                Ok(ran) if ran.succeeded() => Ok(self.project.target.join("release/tidegate")),
                Ok(ran) => Err(format!("the release build failed: {}", ran.complaint())),
                Err(why) => Err(why),
            });
        }
        self.gateway.clone().expect("set just above")
    }
}

impl Outcome {
    /// A step without single tests: its command's status is its result.
    fn of_command(ran: &Ran, closing: &str) -> Outcome {
        Outcome {
            tally: Tally::default(),
            closing: if ran.succeeded() { closing.to_owned() } else { ran.complaint() },
            succeeded: ran.succeeded(),
        }
    }

    /// A step with single tests. No test at all is a failure: a runner that found nothing shows nothing.
    fn of_runner(runner: Runner, ran: &Ran) -> Outcome {
        let tally = runner.count(&ran.lines);
        let mut closing = format!("{} passed, {} failed", tally.passed, tally.failed);
        if tally.is_empty() {
            closing = "no test ran".to_owned();
        }
        if !ran.succeeded() {
            closing = format!("{closing}; {}", ran.complaint());
        }
        Outcome { tally, closing, succeeded: ran.succeeded() && tally.failed == 0 && tally.passed > 0 }
    }
}

/// Runs the steps named in `only`, or all; whether everything that ran passed.
pub fn run(project: &Project, only: &[String], cases: Cases) -> Result<bool, String> {
    let steps = choose(only)?;
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut needs: Vec<Need> = steps.iter().flat_map(|step| step.needs.iter().copied()).collect();
    needs.sort_unstable();
    needs.dedup();
    heading("set-up");
    let mut bench = Bench { tools: provide(project, &needs), project: project.clone(), strict, cases, gateway: None };
    let mut rows = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        heading(&format!("{}/{} {}: {}", index + 1, steps.len(), step.name, step.claim));
        let row = run_step(step, &mut bench);
        println!("-- {}: {} in {}", row.name, row.verdict.word(), seconds(row.took));
        rows.push(row);
    }
    Ok(conclude(&rows, strict))
}

fn choose(only: &[String]) -> Result<Vec<&'static Step>, String> {
    for name in only {
        if !STEPS.iter().any(|step| step.name == name) {
            let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            return Err(format!("no step `{name}`; there are {}", names.join(", ")));
        }
    }
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(chosen).collect())
}

fn run_step(step: &Step, bench: &mut Bench) -> Row {
    let started = Instant::now();
    let mut row = Row {
        name: step.name,
        verdict: Verdict::Skipped,
        took: Duration::ZERO,
        tally: Tally::default(),
        closing: String::new(),
    };
    let unmet = step.needs.iter().find_map(|need| bench.tools.of(*need).err());
    if let Some(why) = unmet {
        println!("skipped: {why}");
        row.closing = why;
        return row;
    }
    match (step.work)(bench) {
        Ok(outcome) => {
            row.verdict = if outcome.succeeded { Verdict::Passed } else { Verdict::Failed };
            row.tally = outcome.tally;
            row.closing = outcome.closing;
        }
        Err(why) => {
            println!("{why}");
            row.verdict = Verdict::Failed;
            row.closing = why.lines().next().unwrap_or_default().to_owned();
        }
    }
    row.took = started.elapsed();
    row
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        }
    }
}

/// Prints the table and the closing line; whether all is well.
fn conclude(rows: &[Row], strict: bool) -> bool {
    heading("summary");
    for row in rows {
        println!("{:<13} {:<8} {:>9}  {}", row.name, row.verdict.word(), seconds(row.took), row.closing);
    }
    let skipped = rows.iter().filter(|row| matches!(row.verdict, Verdict::Skipped)).count();
    if skipped > 0 {
        let meaning = if strict { "each is a failure here (CI=true)" } else { "the rest says nothing about them" };
        println!("{skipped} skipped: {meaning}");
    }
    let total = total(rows, strict);
    println!("{} passed, {} failed", total.passed, total.failed);
    total.failed == 0
}

/// All single tests, and one failure for each step that failed, or must count as failed, without naming any.
fn total(rows: &[Row], strict: bool) -> Tally {
    let mut total = Tally::default();
    for row in rows {
        total += row.tally;
        let failed = match row.verdict {
            Verdict::Passed => false,
            Verdict::Failed => true,
            Verdict::Skipped => strict,
        };
        if failed && row.tally.failed == 0 {
            total.failed += 1;
        }
    }
    total
}

fn heading(text: &str) {
    println!("\n==== {text}");
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict, passed: u64, failed: u64) -> Row {
        Row { name: "step", verdict, took: Duration::ZERO, tally: Tally { passed, failed }, closing: String::new() }
    }

    fn sum(rows: &[Row], strict: bool) -> (u64, u64) {
        let tally = total(rows, strict);
        (tally.passed, tally.failed)
    }

    #[test]
    fn a_step_that_fails_without_a_failed_test_still_counts_as_one_failure() {
        assert_eq!(sum(&[row(Verdict::Passed, 9, 0), row(Verdict::Failed, 0, 0)], false), (9, 1));
        assert_eq!(sum(&[row(Verdict::Passed, 9, 0), row(Verdict::Failed, 4, 2)], false), (13, 2));
    }

    #[test]
    fn a_skip_is_a_failure_under_ci_only() {
        let rows = [row(Verdict::Passed, 9, 0), row(Verdict::Skipped, 0, 0)];
        assert_eq!(sum(&rows, false), (9, 0));
        assert_eq!(sum(&rows, true), (9, 1));
    }

    #[test]
    fn a_step_name_that_does_not_exist_is_an_error_that_lists_those_that_do() {
        let error = choose(&["clipy".to_owned()]).err().unwrap();
        assert!(error.contains("clippy"), "{error}");
        assert_eq!(choose(&["clippy".to_owned()]).unwrap().len(), 1);
        assert_eq!(choose(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn a_runner_that_ran_no_test_did_not_pass() {
        let mut ok = std::process::Command::new("true");
        let ran = watched(&mut ok, Duration::from_secs(30)).unwrap();
        assert!(Outcome::of_command(&ran, "fine").succeeded);
        assert!(!Outcome::of_runner(Runner::Cargo, &ran).succeeded);
    }
}
