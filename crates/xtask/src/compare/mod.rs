//! `cargo xtask compare`: the gateway beside other servers, measured by the same generator in the same run.
//!
//! ```text
//! prepare.rs   which peers there are; builds, fetches or finds them
//! peer.rs      how each is started, and where its doors are
//! measure.rs   what is measured: command lines in, figures out
//! results.rs   samples, medians, the file with all of them
//! table.rs     docs/comparison.md       plot.rs   docs/comparison.svg
//! ```
//!
//! Each run is one server, just started and pinned to one core, and the generator on the others. The rounds are interleaved:
//! every peer has its turn before any has its second, so that a change of the machine's mood hits all alike.

mod measure;
mod peer;
mod plot;
mod prepare;
mod results;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use measure::{Figure, Measure, Sizes, fault};
use peer::Peer;
use prepare::peers;
use results::{Results, Sample};

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Run, release};

/// Clients that may be held idle: what the peers' configs let in.
pub const IDLE_MAX: u32 = 18_000;

/// Rounds where nothing else is asked for.
const ROUNDS: usize = 3;
const ROUNDS_QUICK: usize = 1;

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Options {
    /// Small sizes: to see that everything works.
    pub quick: bool,
    /// Only these peers; empty: all.
    pub only: Vec<String>,
    /// Clients that are held idle.
    pub idle: Option<u32>,
    /// How often each is measured.
    pub rounds: Option<usize>,
    /// Where page, picture and data go.
    pub out: Option<PathBuf>,
}

/// Prepares the peers, measures all of them and writes what came out. False when something that was to be measured was not.
///
/// # Errors
/// When there is nothing to measure with, or nowhere to write.
pub fn run(project: &Project, options: &Options) -> Result<bool, String> {
    let sizes = if options.quick { Sizes::QUICK } else { Sizes::FULL };
    let sizes = options.idle.map_or(sizes, |clients| sizes.with_idle(clients));
    let rounds = options.rounds.unwrap_or(if options.quick { ROUNDS_QUICK } else { ROUNDS });
    let cores = Cores::choose()?;
    if cores.are_shared() {
        return Err("server and generator need a core each, and there is only one".to_owned());
    }
    let binary = release(project, "tidegate-load", "tidegate-load")?;
    let (peers, missing) = peers(project, &options.only)?;
    let folder = project.target.join("compare/run");
    let generator = Generator::new(&binary, &cores, &folder.join("generator.log"));
    let machine = Machine::probe();
    println!("\n{machine}");
    let mut results = Results { machine, sizes, rounds, peers, missing, samples: Vec::new() };
    let plan = plan(&results.peers, rounds);
    let mut progress = Progress::start(&plan, &sizes);
    for (round, measure, index) in plan {
        let peer = &results.peers[index];
        let one = Runner { project, cores: &cores, generator: &generator, sizes, folder: &folder };
        let sample = one.sample(peer, measure, round);
        progress.show(peer, &sample, rounds);
        results.samples.push(sample);
    }
    write_all(project, &results, &out(project, options))?;
    Ok(results.failures().is_empty())
}

/// Where the results go: the record, unless they are not made for it.
fn out(project: &Project, options: &Options) -> PathBuf {
    let is_partial = options.quick || !options.only.is_empty();
    match (&options.out, is_partial) {
        (Some(out), _) => out.clone(),
        (None, true) => project.target.join("compare/out"),
        (None, false) => project.root.join("docs"),
    }
}

/// Everything to be measured, in order: round, measure, number of the peer.
fn plan(peers: &[Peer], rounds: usize) -> Vec<(usize, Measure, usize)> {
    let mut plan = Vec::new();
    for round in 0..rounds {
        for measure in Measure::ALL {
            let able = peers.iter().enumerate().filter(|(_, peer)| peer.can(measure));
            plan.extend(able.map(|(index, _)| (round, measure, index)));
        }
    }
    plan
}

/// What one run needs.
struct Runner<'a> {
    project: &'a Project,
    cores: &'a Cores,
    generator: &'a Generator,
    sizes: Sizes,
    folder: &'a Path,
}

impl Runner<'_> {
    fn sample(&self, peer: &Peer, measure: Measure, round: usize) -> Sample {
        let mut arguments = Vec::new();
        let run = self.run(peer, measure, &mut arguments);
        Sample { round, measure, peer: peer.key, arguments, run }
    }

    fn run(&self, peer: &Peer, measure: Measure, arguments: &mut Vec<String>) -> Result<Run, String> {
        let mut started = peer.start(self.project, self.cores, measure, &self.folder.join(peer.key))?;
        *arguments = self.sizes.arguments(measure, &started.doors).ok_or("it has no door for that")?;
        let watch = ["--server-pid".to_owned(), started.pid.to_string()];
        let told: Vec<&String> = arguments.iter().chain(&watch).collect();
        let run = self.generator.run(&told, self.sizes.limit(measure))?;
        started.server.still_runs()?;
        match fault(&run) {
            None => Ok(run),
            Some(fault) => Err(format!("{fault}\n{}{}", run.line, run.complaints)),
        }
    }
}

/// Tells how far it is and how long it will take.
struct Progress {
    all: usize,
    done: usize,
    /// Of the whole plan by the usual times.
    usual: Duration,
    /// Of what is done.
    usual_done: Duration,
    sizes: Sizes,
    started: Instant,
}

impl Progress {
    fn start(plan: &[(usize, Measure, usize)], sizes: &Sizes) -> Progress {
        let usual = plan.iter().map(|(_, measure, _)| sizes.usual(*measure)).sum();
        println!("{} runs, about {}\n", plan.len(), people(usual));
        let started = Instant::now();
        Progress { all: plan.len(), done: 0, usual, usual_done: Duration::ZERO, sizes: *sizes, started }
    }

    fn show(&mut self, peer: &Peer, sample: &Sample, rounds: usize) {
        self.done += 1;
        self.usual_done += self.sizes.usual(sample.measure);
        let result = match &sample.run {
            Ok(run) => figures(sample.measure, run),
            Err(why) => format!("failed: {}", why.lines().next().unwrap_or_default()),
        };
        println!(
            "[{:>3}/{}] {}/{rounds} {:<8} {:<20} {result:<28} {} left",
            self.done,
            self.all,
            sample.round + 1,
            sample.measure.name(),
            peer.name,
            people(self.left(self.started.elapsed())),
        );
    }

    /// The usual times, corrected by how long the runs so far really took.
    fn left(&self, elapsed: Duration) -> Duration {
        let slower = elapsed.as_secs_f64() / self.usual_done.as_secs_f64().max(1.0);
        self.usual.saturating_sub(self.usual_done).mul_f64(slower)
    }
}

fn figures(measure: Measure, run: &Run) -> String {
    let of = Figure::ALL.into_iter().filter(|figure| figure.measure() == measure);
    let shown = of.filter_map(|figure| Some(format!("{:.*} {}", figure.decimals(), figure.of(run)?, figure.unit())));
    shown.collect::<Vec<_>>().join(", ")
}

fn people(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 90 { format!("{seconds} s") } else { format!("{} min", (seconds + 30) / 60) }
}

/// Page, picture and data into `out`.
fn write_all(project: &Project, results: &Results, out: &Path) -> Result<(), String> {
    let page = out.join("comparison.md");
    // A page elsewhere begins as a copy of ours, so that it can be read alone.
    let text =
        [&page, &project.root.join("docs/comparison.md")].iter().find_map(|path| std::fs::read_to_string(path).ok());
    let text = table::replace(&text.unwrap_or_default(), &table::section(results, project))?;
    let (picture, data) = (out.join("comparison.svg"), out.join("data/comparison.json"));
    results::write(&page, &text)?;
    results::write(&picture, &plot::svg(results))?;
    results::write(&data, &results.json(project))?;
    println!();
    for path in [page, picture, data] {
        println!("wrote {}", project.short(&path));
    }
    for failure in results.failures() {
        println!("failed: {failure}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::results::tests::{peer, project, results};
    use super::*;
    use crate::compare::peer::Kind;

    #[test]
    fn every_peer_has_its_turn_before_any_has_its_second() {
        let peers = [peer("a", "a", Kind::Ws), peer("b", "b", Kind::Echo)];
        let plan = plan(&peers, 2);
        // The second cannot do fan-out.
        assert_eq!(plan.len(), 2 * (5 + 4));
        assert_eq!(plan[..3], [(0, Measure::Hold, 0), (0, Measure::Hold, 1), (0, Measure::Echo, 0)]);
        assert!(plan.is_sorted_by_key(|(round, measure, index)| (*round, *measure, *index)));
        assert!(!plan.contains(&(0, Measure::Fanout, 1)));
    }

    #[test]
    fn only_a_whole_run_goes_into_the_record() {
        let out = |options| out(&project(), &options);
        assert_eq!(out(Options::default()), Path::new("/checkout/docs"));
        for options in [
            Options { quick: true, ..Options::default() },
            Options { only: vec!["ws".to_owned()], ..Options::default() },
        ] {
            assert_eq!(out(options.clone()), Path::new("/checkout/target/compare/out"));
            assert_eq!(out(Options { out: Some("here".into()), ..options }), Path::new("here"));
        }
    }

    #[test]
    fn the_remaining_time_follows_how_long_it_really_takes() {
        let plan = [(0, Measure::Churn, 0), (0, Measure::Churn, 1)];
        let mut progress = Progress::start(&plan, &Sizes::FULL);
        let one = Sizes::FULL.usual(Measure::Churn);
        assert_eq!(progress.left(Duration::ZERO), Duration::ZERO);
        progress.usual_done = one;
        assert_eq!(progress.left(one * 2), one * 2);
        assert_eq!((people(Duration::ZERO), people(Duration::from_secs(150))), ("0 s".to_owned(), "3 min".to_owned()));
    }

    #[test]
    fn all_three_files_are_written_and_what_people_wrote_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("comparison.md");
        std::fs::write(&page, "# Comparison\n\nWords of ours.\n").unwrap();
        for _ in 0..2 {
            write_all(&project(), &results(), folder.path()).unwrap();
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.contains("Words of ours.") && text.matches("**Machine**").count() == 1, "{text}");
        }
        assert!(folder.path().join("comparison.svg").is_file());
        let data = std::fs::read_to_string(folder.path().join("data/comparison.json")).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok());
    }
}
