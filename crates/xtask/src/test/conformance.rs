//! The Autobahn suite: as a client of the gateway on each driver, and as a server before the client role of `wire`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::steps::{drivers, in_turn, judge, start};
use super::{Bench, Outcome};
use crate::measure::free_port;
use crate::run::watched;
use crate::setup::Need;
use crate::tally::Runner;

/// Which conformance cases to run.
#[derive(Clone, Debug)]
pub struct Cases(Vec<String>);

impl Cases {
    /// Groups 1 to 10: framing, pings, reserved bits, fragmentation, UTF-8, closing, limits; and of the groups about
    /// compression two sizes of message in each kind of payload and each set of parameters.
    pub fn usual() -> Cases {
        let compression = ["12.*.3", "12.*.11", "13.*.3", "13.*.11"];
        let groups = ["1", "2", "3", "4", "5", "6", "7", "9", "10"];
        Cases(groups.into_iter().chain(compression).map(str::to_owned).collect())
    }

    /// All 517, with groups 12 and 13, which test compression.
    pub fn full() -> Cases {
        Cases(vec!["*".to_owned()])
    }

    /// Those that match one of the patterns (`6`, `9.3.*`).
    pub fn matching(patterns: Vec<String>) -> Cases {
        Cases(patterns)
    }
}

/// The client role beside the drivers of the gateway.
pub const CLIENT: &str = "client";

/// All cases on a busy machine with two cores; a quiet one needs a sixth of it.
const RUN_MAX: Duration = Duration::from_secs(90 * 60);
/// What the runner has on top of its own limit, to write its report.
const REPORT_MAX: Duration = Duration::from_secs(60);

/// Where the runner's report on a driver or on the client role is.
pub fn report(target: &Path, role: &str) -> PathBuf {
    target.join("conformance/report").join(role)
}

/// The step.
pub(super) fn conformance(bench: &mut Bench) -> Result<Outcome, String> {
    let reports = bench.project.target.join("conformance/report");
    // A report of an earlier run must not be taken for one of this.
    match std::fs::remove_dir_all(&reports) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", reports.display()));
        }
        _ => {}
    }
    let mut roles = drivers(bench)?;
    roles.push(CLIENT);
    in_turn(bench, &roles, |bench, role| if role == CLIENT { client(bench) } else { server(bench, role) })
}

/// The runner for these cases, as far as both directions have it in common.
fn runner(bench: &Bench, role: &str, url: &str) -> Result<Command, String> {
    let mut command = Command::new(bench.tools.of(Need::Python)?);
    command.arg(bench.project.xtask("conformance/run")).current_dir(&bench.project.root);
    command.args(["--url", url, "--agent", "tidegate", "--strict", "--cases", &bench.cases.0.join(",")]);
    command.args(["--timeout", &RUN_MAX.as_secs().to_string()]);
    command.arg("--env").arg(bench.tools.of(Need::ConformanceSuite)?);
    command.arg("--out").arg(report(&bench.project.target, role));
    Ok(command)
}

fn server(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let config = bench.project.root.join("deploy/conformance.toml");
    let arguments = ["--dev", "--io", driver, "--config", &config.to_string_lossy()];
    let gateway = start(bench, &format!("conformance-{driver}"), &arguments)?;
    let url = format!("{}/echo", gateway.public.replacen("http", "ws", 1));
    let ran = watched(&mut runner(bench, driver, &url)?, RUN_MAX + REPORT_MAX)?;
    judge(Runner::Conformance, &ran, &mut [gateway])
}

fn client(bench: &mut Bench) -> Result<Outcome, String> {
    let mut build = bench.cargo("build");
    build.args(["--release", "--package", "tidegate-load", "--example", "conformance"]);
    let built = bench.watch(&mut build)?;
    if !built.succeeded() {
        return Err(format!("the client was not built: {}", built.complaint()));
    }
    let mut command = runner(bench, CLIENT, &format!("ws://127.0.0.1:{}", free_port()?))?;
    command.arg("--client-mode").arg("--start").arg(bench.project.target.join("release/examples/conformance"));
    let ran = watched(&mut command, RUN_MAX + REPORT_MAX)?;
    judge(Runner::Conformance, &ran, &mut [])
}
