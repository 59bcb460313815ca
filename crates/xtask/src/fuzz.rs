//! `cargo xtask fuzz`: builds the targets of `crates/fuzz` with libFuzzer and lets each run for a while.
//!
//! The toolchain of the project is enough: the compiler's own coverage pass feeds libFuzzer, which a C++ compiler builds.
//! There is no sanitizer, as those need a nightly toolchain (`cargo +nightly fuzz run NAME` takes one): what is found is a
//! claim that does not hold, a panic, an overflow, a hang or too much memory, and not a read beyond a buffer.
//!
//! `--planted` builds the same targets with a bug in each, which no input of the corpus has and the fuzzer must find within
//! a minute. The bugs are in `crates/fuzz` alone, between what the gateway's code says and what is claimed of it: no crate
//! that ships has the feature, nor anything that it changes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Project;
use crate::run::watched;

/// The one platform; named so that build scripts and macros are built without coverage.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The compiler's pass that counts edges and hands comparisons to the fuzzer.
const COVERAGE: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// A planted bug must be found within this time.
const PLANTED_SECONDS: u32 = 60;

/// The build, at most.
const BUILD_MAX: Duration = Duration::from_secs(20 * 60);
/// Reading the corpus and writing the last lines, on top of the time that a target has.
const SPARE: Duration = Duration::from_secs(120);

/// What to fuzz.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For each target.
    pub seconds: u32,
    /// Only these targets; all without any.
    pub only: Vec<String>,
    /// Fuzz targets with a bug in each instead, which must be found.
    pub planted: bool,
}

/// What one target did.
struct Report {
    target: String,
    executions: u64,
    edges: u64,
    took: Duration,
    /// The input that broke a claim.
    finding: Option<PathBuf>,
    /// libFuzzer ended as it does when nothing is wrong.
    ended_well: bool,
}

/// Builds and runs; whether all is as it should be: nothing found, or every planted bug.
///
/// # Errors
/// When there is no such target, or it cannot be built or started.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    let targets = choose(&targets(&project.root)?, plan)?;
    let build = if plan.planted { "planted" } else { "plain" };
    let programs = build_all(project, build, &targets, plan.planted)?;
    let mut good = true;
    let mut reports = Vec::new();
    for target in &targets {
        let seconds = if plan.planted { PLANTED_SECONDS } else { plan.seconds };
        if plan.planted {
            keeps_no_finding(project, &programs, target)?;
        }
        let report = fuzz(project, &programs, build, target, seconds)?;
        good &= if plan.planted { report.finding.is_some() } else { report.finding.is_none() && report.ended_well };
        show(project, &report);
        reports.push(report);
    }
    println!("\n| Target | Executions | Edges | Seconds | Found |\n|---|---|---|---|---|");
    for report in &reports {
        let found = if report.finding.is_some() { "yes" } else { "nothing" };
        let (name, seconds) = (&report.target, report.took.as_secs_f64());
        println!("| {name} | {} | {} | {seconds:.1} | {found} |", report.executions, report.edges);
    }
    Ok(good)
}

/// The names of the programs in `crates/fuzz`, sorted.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("crates/fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort_unstable();
    Ok(names)
}

fn choose(all: &[String], plan: &Plan) -> Result<Vec<String>, String> {
    if let Some(unknown) = plan.only.iter().find(|name| !all.contains(name)) {
        return Err(format!("no target `{unknown}`; there are {}", all.join(", ")));
    }
    Ok(if plan.only.is_empty() { all.to_vec() } else { plan.only.clone() })
}

/// Builds the programs; the folder that they are in.
fn build_all(project: &Project, build: &str, targets: &[String], planted: bool) -> Result<PathBuf, String> {
    let folder = project.target.join("fuzz").join(build);
    let mut command = project.cargo("build");
    command.args(["--release", "--locked", "--manifest-path", "crates/fuzz/Cargo.toml", "--target", TRIPLE]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", COVERAGE);
    for target in targets {
        command.args(["--bin", target]);
    }
    if planted {
        command.args(["--features", "planted"]);
    }
    let ran = watched(&mut command, BUILD_MAX)?;
    if !ran.succeeded() {
        return Err(format!("the targets cannot be built (a C++ compiler is needed): {}", ran.complaint()));
    }
    Ok(folder.join(TRIPLE).join("release"))
}

/// The planted bug has to be found and not remembered: no input that is kept shows it.
fn keeps_no_finding(project: &Project, programs: &Path, target: &str) -> Result<(), String> {
    let mut command = Command::new(programs.join(target));
    command.arg(project.root.join("crates/fuzz/corpus").join(target));
    command.arg("-runs=0").current_dir(programs).stderr(Stdio::null());
    let ran = watched(&mut command, SPARE)?;
    if !ran.succeeded() {
        return Err(format!("an input in crates/fuzz/corpus/{target} has the planted bug: plant another"));
    }
    Ok(())
}

/// Runs one target. New inputs go below `target/`, and so does what breaks a claim.
fn fuzz(project: &Project, programs: &Path, build: &str, target: &str, seconds: u32) -> Result<Report, String> {
    let work = project.target.join("fuzz").join("work").join(build).join(target);
    let (grown, findings) = (work.join("corpus"), work.join("findings"));
    // A run starts from the corpus that is kept, so that two runs can be compared, and a finding is this run's.
    let _ = fs::remove_dir_all(&work);
    for folder in [&grown, &findings] {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let log = work.join("log.txt");
    let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut command = Command::new(programs.join(target));
    command.arg(&grown).arg(project.root.join("crates/fuzz/corpus").join(target));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", findings.display()));
    command.args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    command.stderr(Stdio::from(file));
    let started = Instant::now();
    let ran = watched(&mut command, Duration::from_secs(seconds.into()) + SPARE)?;
    let took = started.elapsed();
    let text = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut finding = None;
    for entry in fs::read_dir(&findings).map_err(|e| format!("{}: {e}", findings.display()))? {
        let entry = entry.map_err(|e| e.to_string())?;
        if is_finding(&entry.file_name().to_string_lossy()) {
            finding = Some(entry.path());
        }
    }
    let (executions, edges) = (executions(&text), edges(&text));
    Ok(Report {
        target: target.to_owned(),
        executions,
        edges,
        took,
        finding,
        ended_well: ran.succeeded() && executions > 0,
    })
}

/// libFuzzer also keeps an input that took long. It broke no claim, and the machine may have been the reason.
fn is_finding(name: &str) -> bool {
    !name.starts_with("slow-unit-")
}

fn show(project: &Project, report: &Report) {
    match &report.finding {
        Some(path) => println!(
            "{}: a claim does not hold for {}; its message is in log.txt beside it. Mend it, and keep the input in \
             crates/fuzz/corpus/{}",
            report.target,
            project.short(path),
            report.target
        ),
        None if report.ended_well => println!("{}: {} executions", report.target, report.executions),
        None => println!("{}: ended badly without a finding; see log.txt below target/fuzz/work", report.target),
    }
}

/// Of the final statistics, or of the last line of progress when a finding cut them off.
fn executions(log: &str) -> u64 {
    let last = |line: &str| {
        let number = line.strip_prefix("stat::number_of_executed_units:")?;
        number.trim().parse().ok()
    };
    let progress = |line: &str| line.strip_prefix('#')?.split_whitespace().next()?.parse().ok();
    log.lines().rev().find_map(last).or_else(|| log.lines().rev().find_map(progress)).unwrap_or(0)
}

/// The last number behind `cov:`.
fn edges(log: &str) -> u64 {
    let number = |line: &str| line.split_once(" cov: ")?.1.split_whitespace().next()?.parse().ok();
    log.lines().rev().find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED cov: 90 ft: 91 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #4096\tpulse  cov: 312 ft: 700 corp: 80/2Kb lim: 43 exec/s: 2048 rss: 44Mb\n";

    #[test]
    fn figures_are_read_from_the_final_statistics_or_else_the_last_progress() {
        assert_eq!((executions(LOG), edges(LOG)), (4096, 312));
        let ended = format!("{LOG}stat::number_of_executed_units: 5000\nstat::peak_rss_mb: 50\n");
        assert_eq!((executions(&ended), edges(&ended)), (5000, 312));
        assert_eq!((executions("nothing"), edges("nothing")), (0, 0));
    }

    #[test]
    fn a_slow_input_is_no_finding_and_a_hang_is_one() {
        assert!(!is_finding("slow-unit-6c1c9980"));
        assert!(["crash-6daf0732", "timeout-6c1c9980", "oom-6c1c9980"].into_iter().all(is_finding));
    }

    /// Each function that is fuzzed mentions the feature, itself or by the one function that it calls.
    #[test]
    fn every_target_has_a_planted_bug() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask has a workspace");
        let folder = root.join("crates/fuzz/src");
        let planted: usize = ["frames.rs", "http.rs", "text.rs"]
            .iter()
            .map(|file| fs::read_to_string(folder.join(file)).expect("readable"))
            .map(|text| (text.matches("\npub fn ").count(), text.matches("cfg!(feature = \"planted\")").count()))
            .map(|(targets, bugs)| {
                assert_eq!(targets, bugs);
                bugs
            })
            .sum();
        let connection = fs::read_to_string(folder.join("connection.rs")).expect("readable");
        assert_eq!(connection.matches("cfg!(feature = \"planted\")").count(), 1, "in the function that all of it call");
        let lives = connection.matches("\npub fn ").count();
        assert_eq!(planted + lives, targets(root).expect("they are there").len());
    }

    /// The crate is a workspace of its own, so that nothing else builds it.
    #[test]
    fn every_target_calls_a_function_that_there_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask has a workspace");
        let folder = root.join("crates/fuzz");
        let calls = |text: &str| {
            let (_, call) = text.split_once("|data: &[u8]| fuzz::")?;
            let (module, function) = call.split_once("(data)")?.0.split_once("::")?;
            let source = fs::read_to_string(folder.join(format!("src/{module}.rs"))).ok()?;
            Some(source.contains(&format!("pub fn {function}(data: &[u8])")))
        };
        for name in targets(root).expect("they are there") {
            let text = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).expect("readable");
            assert_eq!(calls(&text), Some(true), "{name}");
            assert_eq!(calls(&text.replace("(data)", "_(data)")), Some(false), "the twin of {name}");
        }
    }

    #[test]
    fn every_target_has_a_corpus_and_an_unknown_one_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask has a workspace");
        let all = targets(root).expect("they are there");
        assert!(all.len() >= 12, "{all:?}");
        for name in &all {
            let folder = root.join("crates/fuzz/corpus").join(name);
            assert!(fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()), "{}", folder.display());
        }
        let plan =
            |only: &[&str]| Plan { seconds: 1, only: only.iter().map(|s| (*s).to_owned()).collect(), planted: false };
        assert_eq!(choose(&all, &plan(&[])), Ok(all.clone()));
        assert_eq!(choose(&all, &plan(&["utf8"])), Ok(vec!["utf8".to_owned()]));
        assert!(choose(&all, &plan(&["utf9"])).is_err_and(|why| why.contains("utf8")));
    }
}
