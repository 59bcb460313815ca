//! `cargo xtask`: the project's own chores. `cargo xtask help` lists them.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::Project;
use xtask::abuse;
use xtask::campaign;
use xtask::compare;
use xtask::conformance;
use xtask::floor;
use xtask::fuzz;
use xtask::reload;
use xtask::setup::{Need, provide};
use xtask::test::{Cases, STEPS, run};
use xtask::tls;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every test there is. What cannot be had is skipped with its reason; under CI=true that is a failure
    Test {
        /// Only these steps, comma-separated or repeated
        #[arg(long, value_name = "STEP", value_delimiter = ',')]
        only: Vec<String>,
        /// Lists the steps and stops
        #[arg(long)]
        list: bool,
    },
    /// Finds or installs everything that the tests need, without running them
    Setup,
    /// Checks the rules of style that a machine can check
    Tidy,
    /// Runs the WebSocket conformance suite against a release gateway on each driver, and before the client role
    Conformance {
        /// All of groups 12 and 13, too (permessage-deflate, half an hour), and writes docs/conformance.md
        #[arg(long, conflicts_with = "cases")]
        full: bool,
        /// With --full: where the page goes
        #[arg(long, value_name = "FILE", requires = "full")]
        out: Option<PathBuf>,
        /// Only these cases or groups: `6`, `9.3.*`
        #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
        cases: Vec<String>,
    },
    /// Runs the client SDKs against a release gateway
    Sdk {
        /// Only this language's
        #[arg(value_parser = ["js", "python"])]
        language: Option<String>,
    },
    /// Measures the gateway beside other servers and writes docs/comparison.md. A quiet machine; a quarter of an hour
    Compare {
        /// Small sizes and one round, to see that everything works; written below target/ unless --out is given
        #[arg(long)]
        quick: bool,
        /// Only these: `tidegate`, `nats`, .. Written below target/ unless --out is given
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        only: Vec<String>,
        /// Clients that are held idle, 5000 unless --quick
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(compare::IDLE_MAX)))]
        idle: Option<u32>,
        /// How often each is measured, in turns
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        rounds: Option<u16>,
        /// Folder for comparison.md, comparison.svg and data/comparison.json
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Cuts clients off and lets them come back, at length, on both drivers, and writes docs/campaign.md. A quarter of an hour
    Campaign {
        /// Small sizes and short times, to see that everything works; written below target/ unless --out is given
        #[arg(long)]
        quick: bool,
        /// Of all that is random
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Only on this driver; written below target/ unless --out is given
        #[arg(long, value_parser = ["epoll", "uring"])]
        driver: Option<String>,
        /// Where the page goes, and the lines of all runs beside it as .json
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Attacks the gateway in many ways while honest clients receive, on both drivers, and writes docs/abuse.md. Ten minutes
    Abuse {
        /// Small sizes and short times, to see that everything works; written below target/ unless --out is given
        #[arg(long)]
        quick: bool,
        /// Only on this driver; written below target/ unless --out is given
        #[arg(long, value_parser = ["epoll", "uring"])]
        driver: Option<String>,
        /// Only these attacks; written below target/ unless --out is given
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        only: Vec<String>,
        /// Where the page goes
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Reloads the gateway a thousand times while clients receive, on both drivers, and writes docs/reload.md. Five minutes
    Reload {
        /// Small sizes and short times, to see that everything works; written below target/ unless --out is given
        #[arg(long)]
        quick: bool,
        /// Only on this driver; written below target/ unless --out is given
        #[arg(long, value_parser = ["epoll", "uring"])]
        driver: Option<String>,
        /// Where the page goes
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Measures memory, deliveries and handshakes with TLS, beside the same without and nginx. A quiet machine; 15 minutes
    Tls {
        /// Small sizes and one round, to see that everything works
        #[arg(long)]
        quick: bool,
        /// Where the table goes; below target/ unless given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Feeds the parsers of wire and conn with what libFuzzer makes up, each target for a while
    Fuzz {
        /// Time of each target
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        seconds: u32,
        /// Only these targets; see crates/fuzz/fuzz_targets
        #[arg(long, value_name = "TARGET", value_delimiter = ',')]
        only: Vec<String>,
        /// Fuzzes the targets with a bug planted in each instead, which must be found within a minute
        #[arg(long, conflicts_with = "seconds")]
        planted: bool,
    },
    /// Measures the gateway over the least that can be done: bare loops with the same bytes. A quiet machine; 15 minutes
    Floor {
        /// Turns that each server has
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        rounds: u16,
        /// Length of one measured phase
        #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
        /// Only cases that begin so: `echo`, `fanout-1000-1`, .. See their names in crates/xtask/src/floor/cases.rs
        #[arg(long, value_name = "CASE", value_delimiter = ',')]
        only: Vec<String>,
        /// Where the table goes, and the figures beside it as .json
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().chore) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn perform(chore: Chore) -> Result<bool, String> {
    let project = Project::find()?;
    match chore {
        Chore::Test { list: true, .. } => {
            for step in STEPS {
                println!("{:<13} {}", step.name, step.claim);
            }
            Ok(true)
        }
        Chore::Test { only, .. } => run(&project, &only, Cases::usual()),
        Chore::Setup => {
            let tools = provide(&project, Need::ALL);
            Ok(Need::ALL.iter().all(|need| tools.of(*need).is_ok()))
        }
        Chore::Tidy => run(&project, &["tidy".to_owned()], Cases::usual()),
        Chore::Conformance { full: true, out, .. } => {
            conformance::run(&project, &out.unwrap_or_else(|| project.root.join("docs/conformance.md")))
        }
        Chore::Conformance { cases, .. } => {
            let cases = if cases.is_empty() { Cases::usual() } else { Cases::matching(cases) };
            run(&project, &["conformance".to_owned()], cases)
        }
        Chore::Compare { quick, only, idle, rounds, out } => {
            compare::run(&project, &compare::Options { quick, only, idle, rounds: rounds.map(usize::from), out })
        }
        Chore::Floor { rounds, seconds, only, out } => {
            floor::run(&project, &floor::Plan { rounds: usize::from(rounds), seconds, only, out })
        }
        Chore::Campaign { quick, seed, driver, out } => {
            let is_whole = !quick && driver.is_none();
            let folder = if is_whole { project.root.join("docs") } else { project.target.clone() };
            let out = out.unwrap_or_else(|| folder.join("campaign.md"));
            campaign::run(&project, &campaign::Plan { quick, seed, driver, out })
        }
        Chore::Abuse { quick, driver, only, out } => {
            let is_whole = !quick && driver.is_none() && only.is_empty();
            let folder = if is_whole { project.root.join("docs") } else { project.target.clone() };
            let out = out.unwrap_or_else(|| folder.join("abuse.md"));
            abuse::run(&project, &abuse::Plan { quick, driver, only, out })
        }
        Chore::Reload { quick, driver, out } => {
            let folder = if quick || driver.is_some() { project.target.clone() } else { project.root.join("docs") };
            let out = out.unwrap_or_else(|| folder.join("reload.md"));
            reload::run(&project, &reload::Plan { quick, driver, out })
        }
        Chore::Tls { quick, out } => {
            let out = out.unwrap_or_else(|| project.target.join("tls.md"));
            tls::run(&project, &tls::Plan { quick, out })
        }
        Chore::Fuzz { seconds, only, planted } => fuzz::run(&project, &fuzz::Plan { seconds, only, planted }),
        Chore::Sdk { language } => {
            let steps = match language {
                Some(language) => vec![format!("sdk-{language}")],
                None => vec!["sdk-js".to_owned(), "sdk-python".to_owned(), "sdk-suite".to_owned()],
            };
            run(&project, &steps, Cases::usual())
        }
    }
}
