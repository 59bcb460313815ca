//! The Autobahn suite: as a client of the gateway on each driver, in the clear and over TLS, and as a server before the client
//! role of `wire`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::steps::{drivers, in_turn, judge, start};
use super::wss::start_secure;
use super::{Bench, Outcome};
use crate::measure::free_port;
use crate::run::watched;
use crate::setup::Need;
use crate::tally::Runner;

/// Which conformance cases to run.
#[derive(Clone, Debug)]
pub struct Cases {
    usual: Vec<String>,
    /// Over TLS.
    sealed: Vec<String>,
}

/// Those that have cases, of the first ten. Compression is not done again over TLS, as it is done above it.
const GROUPS: [&str; 9] = ["1", "2", "3", "4", "5", "6", "7", "9", "10"];

impl Cases {
    /// Groups 1 to 10: framing, pings, reserved bits, fragmentation, UTF-8, closing, limits; and of the groups about
    /// compression two sizes of message in each kind of payload and each set of parameters.
    pub fn usual() -> Cases {
        let compression = ["12.*.3", "12.*.11", "13.*.3", "13.*.11"];
        Cases::new(&[&GROUPS[..], &compression].concat())
    }

    /// All 517, with groups 12 and 13, which test compression.
    pub fn full() -> Cases {
        Cases::new(&["*"])
    }

    /// Those that match one of the patterns (`6`, `9.3.*`).
    pub fn matching(patterns: Vec<String>) -> Cases {
        Cases { usual: patterns.clone(), sealed: patterns }
    }

    fn new(usual: &[&str]) -> Cases {
        let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Cases { usual: owned(usual), sealed: owned(&GROUPS) }
    }
}

/// The client role beside the drivers of the gateway.
pub const CLIENT: &str = "client";
/// What the name of a driver ends with where it is tested over TLS.
const SEALED: &str = "-tls";

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
    let sealed = roles.iter().map(|driver| if *driver == "epoll" { "epoll-tls" } else { "uring-tls" });
    roles.extend(sealed.collect::<Vec<_>>());
    roles.push(CLIENT);
    in_turn(bench, &roles, |bench, role| if role == CLIENT { client(bench) } else { server(bench, role) })
}

/// The runner for these cases, as far as both directions have it in common.
fn runner(bench: &Bench, role: &str, url: &str) -> Result<Command, String> {
    let mut command = Command::new(bench.tools.of(Need::Python)?);
    command.arg(bench.project.xtask("conformance/run")).current_dir(&bench.project.root);
    let cases = if role.ends_with(SEALED) { &bench.cases.sealed } else { &bench.cases.usual };
    command.args(["--url", url, "--agent", "tidegate", "--strict", "--cases", &cases.join(",")]);
    command.args(["--timeout", &RUN_MAX.as_secs().to_string()]);
    command.arg("--env").arg(bench.tools.of(Need::ConformanceSuite)?);
    command.arg("--out").arg(report(&bench.project.target, role));
    Ok(command)
}

fn server(bench: &mut Bench, role: &'static str) -> Result<Outcome, String> {
    let config = bench.project.root.join("deploy/conformance.toml");
    let (driver, name) = (role.trim_end_matches(SEALED), format!("conformance-{role}"));
    let (gateway, base) = if role.ends_with(SEALED) {
        let text = std::fs::read_to_string(&config).map_err(|e| format!("{}: {e}", config.display()))?;
        let (gateway, _) = start_secure(bench, &name, &["--dev", "--io", driver], &text)?;
        let base = gateway.secure.clone().unwrap_or_default();
        (gateway, base)
    } else {
        let gateway = start(bench, &name, &["--dev", "--io", driver, "--config", &config.to_string_lossy()])?;
        let base = gateway.public.clone();
        (gateway, base)
    };
    let url = format!("{}/echo", base.replacen("http", "ws", 1));
    let ran = watched(&mut runner(bench, role, &url)?, RUN_MAX + REPORT_MAX)?;
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
