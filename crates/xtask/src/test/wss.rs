//! Clients over TLS: OpenSSL, GnuTLS, Python, a scanner, both SDKs and Chromium.

use std::path::PathBuf;
use std::process::Command;

use super::steps::{drivers, in_turn, judge, start};
use super::{Bench, Outcome};
use crate::gateway::Gateway;
use crate::run::capture;
use crate::setup::Need;
use crate::tally::{Runner, Tally};

/// The step.
pub(super) fn wss(bench: &mut Bench) -> Result<Outcome, String> {
    let drivers = drivers(bench)?;
    in_turn(bench, &drivers, |bench, driver| {
        let mut total = Outcome { tally: Tally::default(), closing: String::new(), succeeded: true };
        for part in [programs, sdk, chromium] {
            let outcome = part(bench, driver)?;
            total.tally += outcome.tally;
            total.succeeded &= outcome.succeeded;
            total.closing =
                if total.closing.is_empty() { String::new() } else { total.closing + ", " } + &outcome.closing;
        }
        Ok(total)
    })
}

/// The tests start the gateways by themselves: some change their certificates, some ask clients for theirs.
fn programs(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let mut command = Command::new(bench.tools.of(Need::PythonPackages)?);
    command.args(["-B", "-m", "pytest", "--color=no"]).current_dir(bench.project.xtask("wss"));
    command.env("TIDEGATE_TEST_BINARY", bench.gateway()?).env("TIDEGATE_TEST_DRIVER", driver);
    command.env("TIDEGATE_TEST_OPENSSL", bench.tools.of(Need::Openssl)?);
    command.env("TIDEGATE_TEST_GNUTLS", bench.tools.of(Need::Gnutls)?);
    let ran = bench.watch(&mut command)?;
    Ok(Outcome::of_runner(Runner::Pytest, &ran))
}

fn sdk(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let mut command = Command::new(bench.tools.of(Need::Node)?);
    command.args(["--test", "--test-reporter=spec", "wss.test.mjs"]);
    command.current_dir(bench.tools.of(Need::SdkModules)?);
    of_node(bench, command, "wss-sdk", driver)
}

fn chromium(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let mut command = Command::new(bench.tools.of(Need::Node)?);
    command.args(["--test", "--test-reporter=spec", "wss.test.mjs"]);
    command.current_dir(bench.tools.of(Need::WebModules)?).env("CHROMIUM", bench.tools.of(Need::Chromium)?);
    command.env("SCREENSHOT_DIR", bench.project.target.join("screenshots"));
    of_node(bench, command, "wss-chromium", driver)
}

/// Runs tests against a gateway that is told to them.
fn of_node(bench: &mut Bench, mut command: Command, name: &str, driver: &str) -> Result<Outcome, String> {
    let (gateway, certificate) = start_secure(bench, name, &["--dev", "--io", driver], "")?;
    let secure = gateway.secure.clone().unwrap_or_default();
    command.env("TIDEGATE_URL", secure).env("TIDEGATE_API", &gateway.api).env("TIDEGATE_CERTIFICATE", certificate);
    let ran = bench.watch(&mut command)?;
    judge(Runner::Node, &ran, &mut [gateway])
}

/// A gateway that speaks TLS, too, with `config` for the rest, and the file of its certificate, which nobody has signed.
pub(super) fn start_secure(
    bench: &mut Bench,
    name: &str,
    arguments: &[&str],
    config: &str,
) -> Result<(Gateway, PathBuf), String> {
    let folder = bench.project.target.join("test").join(format!("{name}-tls"));
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    // What an earlier run has left may have expired, and is not overwritten.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(failed)?;
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    capture(Command::new(bench.gateway()?).args(["cert", "--out"]).arg(&folder))?;
    let (chain, key, file) = (folder.join("cert.pem"), folder.join("key.pem"), folder.join("tls.toml"));
    let files = format!("chain = {:?}, key = {:?}", chain.to_string_lossy(), key.to_string_lossy());
    let text = format!("{config}\n[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ {files} }}]\n");
    std::fs::write(&file, text).map_err(failed)?;
    let gateway = start(bench, name, &[arguments, &["--config", &file.to_string_lossy()]].concat())?;
    match gateway.secure {
        Some(_) => Ok((gateway, chain)),
        None => Err(gateway.complaint("it has no listener with TLS")),
    }
}
