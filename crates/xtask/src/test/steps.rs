//! The steps, in the order in which a mistake is cheapest to find.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::conformance::conformance;
use super::wss::wss;
use super::{Bench, Outcome, Step};
use crate::gateway::Gateway;
use crate::run::Ran;
use crate::setup::{Need, stream_module};
use crate::tally::{Runner, Tally};
use crate::tidy;

/// All steps.
pub const STEPS: &[Step] = &[
    Step { name: "fmt", claim: "every Rust file is formatted", needs: &[Need::Rustfmt], work: fmt },
    Step { name: "tidy", claim: "the rules of style that a machine can check", needs: &[], work: tidy_project },
    Step { name: "clippy", claim: "no warning in any target", needs: &[Need::Clippy], work: clippy },
    Step {
        name: "deny",
        claim: "licences, sources and duplicates of the dependency tree",
        needs: &[Need::CargoDeny],
        work: deny,
    },
    Step { name: "unit", claim: "cargo test --workspace", needs: &[], work: unit },
    Step { name: "build", claim: "the release gateway", needs: &[], work: build },
    Step { name: "benches", claim: "every criterion bench runs once", needs: &[], work: benches },
    Step {
        name: "fanout",
        claim: "5,000 real subscribers on 4 workers: each publication once, in order",
        needs: &[],
        work: fanout,
    },
    Step { name: "abuse", claim: "hostile clients cost honest ones nothing but time", needs: &[], work: abuse },
    Step { name: "reload", claim: "reloads, good and bad, while clients receive", needs: &[], work: reload },
    Step {
        name: "conformance",
        claim: "Autobahn, strict, against /echo and before the client role",
        needs: &[Need::Python, Need::ConformanceSuite],
        work: conformance,
    },
    Step { name: "sdk-js", claim: "the npm client `centrifuge`", needs: &[Need::Node, Need::SdkModules], work: sdk_js },
    Step {
        name: "sdk-python",
        claim: "the Python clients `centrifuge-python` and `websockets`",
        needs: &[Need::Python, Need::PythonPackages],
        work: sdk_python,
    },
    Step {
        name: "sdk-suite",
        claim: "the client tests of `centrifuge-python` itself, as they were published",
        needs: &[Need::Python, Need::PythonPackages],
        work: sdk_suite,
    },
    Step {
        name: "proxies",
        claim: "nginx and HAProxy with the files of deploy/",
        needs: &[Need::Nginx, Need::Haproxy, Need::Openssl, Need::Python, Need::PythonPackages],
        work: proxies,
    },
    Step {
        name: "wss",
        claim: "OpenSSL, GnuTLS, Python, both SDKs and Chromium over TLS, and a scan for what is weak",
        needs: &[
            Need::Openssl,
            Need::Gnutls,
            Need::Python,
            Need::PythonPackages,
            Need::Node,
            Need::SdkModules,
            Need::WebModules,
            Need::Chromium,
        ],
        work: wss,
    },
    Step {
        name: "page",
        claim: "the demo page in headless Chromium",
        needs: &[Need::Node, Need::WebModules, Need::Chromium],
        work: page,
    },
];

fn fmt(bench: &mut Bench) -> Result<Outcome, String> {
    let ran = bench.watch(bench.cargo("fmt").args(["--all", "--", "--check", "--color", "never"]))?;
    Ok(Outcome::of_command(&ran, "formatted"))
}

fn tidy_project(bench: &mut Bench) -> Result<Outcome, String> {
    let report = tidy::check(&bench.project.root)?;
    for breach in &report.breaches {
        println!("{breach}");
    }
    let (files, breaches) = (report.files, report.breaches.len());
    let closing = format!("{files} files, {breaches} breaches");
    println!("{closing}");
    Ok(Outcome { tally: Tally::default(), closing, succeeded: breaches == 0 })
}

fn clippy(bench: &mut Bench) -> Result<Outcome, String> {
    let mut command = bench.cargo("clippy");
    command.args(["--workspace", "--all-targets", "--", "--deny", "warnings"]);
    let ran = bench.watch(&mut command)?;
    if !ran.succeeded() {
        return Ok(Outcome::of_command(&ran, "no warning"));
    }
    // A workspace of its own, which nothing else here builds as it is fuzzed.
    let mut fuzz = bench.cargo("clippy");
    fuzz.args(["--manifest-path", "crates/fuzz/Cargo.toml", "--lib", "--no-default-features"]);
    fuzz.arg("--target-dir").arg(bench.project.target.join("fuzz").join("check")).args(["--", "--deny", "warnings"]);
    let ran = bench.watch(&mut fuzz)?;
    Ok(Outcome::of_command(&ran, "no warning"))
}

/// Advisories are left out: their database would have to be fetched, and a test must not change with the day.
fn deny(bench: &mut Bench) -> Result<Outcome, String> {
    let mut command = Command::new(bench.tools.of(Need::CargoDeny)?);
    command.current_dir(&bench.project.root).args(["--log-level", "error", "check"]);
    command.args(["bans", "licenses", "sources"]);
    let ran = bench.watch(&mut command)?;
    Ok(Outcome::of_command(&ran, "bans, licenses, sources ok"))
}

fn unit(bench: &mut Bench) -> Result<Outcome, String> {
    let mut command = bench.cargo("test");
    command.args(["--workspace", "--no-fail-fast"]);
    let ran = bench.watch(&mut command)?;
    Ok(Outcome::of_runner(Runner::Cargo, &ran))
}

fn build(bench: &mut Bench) -> Result<Outcome, String> {
    let binary = bench.gateway()?;
    Ok(Outcome {
        tally: Tally::default(),
        closing: bench.project.short(&binary).to_string(),
        succeeded: binary.is_file(),
    })
}

/// Once each and without measuring: the asserts in them hold, and they fit the crates that they bench.
fn benches(bench: &mut Bench) -> Result<Outcome, String> {
    let mut command = bench.cargo("bench");
    command.args(["--package", "tidegate-benches", "--", "--test"]);
    let ran = bench.watch(&mut command)?;
    let run = ran.lines.iter().filter(|line| line.trim() == "Success").count();
    let mut outcome = Outcome::of_command(&ran, &format!("{run} benches ran"));
    // A runner that found nothing shows nothing.
    outcome.succeeded &= run > 0;
    Ok(outcome)
}

/// Starts a gateway whose log goes below `target/test`.
pub(super) fn start(bench: &mut Bench, name: &str, arguments: &[&str]) -> Result<Gateway, String> {
    let binary = bench.gateway()?;
    let log = bench.project.target.join("test").join(format!("{name}.log"));
    Gateway::start(&binary, arguments, &log)
}

/// The runner's verdict, unless a gateway died: then the tests' own complaints are only its echo.
pub(super) fn judge(runner: Runner, ran: &Ran, gateways: &mut [Gateway]) -> Result<Outcome, String> {
    for gateway in gateways.iter_mut() {
        gateway.still_runs()?;
    }
    let outcome = Outcome::of_runner(runner, ran);
    if !outcome.succeeded {
        for gateway in gateways.iter() {
            println!("{}", gateway.complaint(&format!("gateway at {}", gateway.public)));
        }
    }
    Ok(outcome)
}

/// The load generator checks sequence numbers, and fails for a publication lost, doubled or out of order.
fn fanout(bench: &mut Bench) -> Result<Outcome, String> {
    let mut build = bench.cargo("build");
    build.args(["--release", "--package", "tidegate-load"]);
    let built = bench.watch(&mut build)?;
    if !built.succeeded() {
        return Err(format!("the load generator was not built: {}", built.complaint()));
    }
    let mut gateway = start(bench, "fanout", &["--dev", "--workers", "4"])?;
    let mut command = Command::new(bench.project.target.join("release/tidegate-load"));
    command.args(["fanout", "--connections", "5000", "--publications", "200", "--publishers", "2", "--rate", "20"]);
    command.args(["--url", &gateway.public.replacen("http", "ws", 1), "--api", &gateway.api]);
    let ran = bench.watch(&mut command)?;
    gateway.still_runs()?;
    Ok(Outcome::of_command(&ran, "1,000,000 deliveries, none lost, doubled or out of order"))
}

/// `cargo xtask abuse` in small.
fn abuse(bench: &mut Bench) -> Result<Outcome, String> {
    let mut succeeded = true;
    for driver in drivers(bench)? {
        let out = bench.project.target.join(format!("test/abuse-{driver}.md"));
        let plan = crate::abuse::Plan { quick: true, driver: Some(driver.to_owned()), only: vec![], out };
        succeeded &= crate::abuse::run(&bench.project, &plan)?;
    }
    let closing = "nothing of honest clients lost, doubled, out of order or closed".to_owned();
    Ok(Outcome { tally: Tally::default(), closing, succeeded })
}

/// `cargo xtask reload` in small.
fn reload(bench: &mut Bench) -> Result<Outcome, String> {
    let mut succeeded = true;
    for driver in drivers(bench)? {
        let out = bench.project.target.join(format!("test/reload-{driver}.md"));
        let plan = crate::reload::Plan { quick: true, driver: Some(driver.to_owned()), out };
        succeeded &= crate::reload::run(&bench.project, &plan)?;
    }
    let closing = "nothing lost, doubled or out of order, nobody closed".to_owned();
    Ok(Outcome { tally: Tally::default(), closing, succeeded })
}

/// The drivers that this machine's kernel allows. Where CI lacks one, that is a failure.
pub(super) fn drivers(bench: &mut Bench) -> Result<Vec<&'static str>, String> {
    match start(bench, "uring-probe", &["--dev", "--io", "uring"]) {
        Ok(_) => Ok(vec!["epoll", "uring"]),
        Err(why) if bench.strict => Err(why),
        Err(why) => {
            println!("skipped on io_uring: {why}");
            Ok(vec!["epoll"])
        }
    }
}

/// Does `work` once for each driver and adds up what came of it.
fn on_each_driver(
    bench: &mut Bench,
    work: fn(&mut Bench, &'static str) -> Result<Outcome, String>,
) -> Result<Outcome, String> {
    let drivers = drivers(bench)?;
    in_turn(bench, &drivers, work)
}

/// Does the work for each of the names; the step succeeds if all do.
pub(super) fn in_turn(
    bench: &mut Bench,
    names: &[&'static str],
    work: fn(&mut Bench, &'static str) -> Result<Outcome, String>,
) -> Result<Outcome, String> {
    let mut total = Outcome { tally: Tally::default(), closing: String::new(), succeeded: true };
    for name in names {
        println!("-- {name}");
        let outcome = work(bench, name)?;
        total.tally += outcome.tally;
        total.succeeded &= outcome.succeeded;
        total.closing = format!("{}{name}: {}; ", total.closing, outcome.closing);
    }
    total.closing = total.closing.trim_end_matches("; ").to_owned();
    Ok(total)
}

/// Two gateways for the client tests: one as a newcomer starts it, one configured like a deployment.
fn sdk_gateways(bench: &mut Bench, driver: &'static str) -> Result<[Gateway; 2], String> {
    let config = bench.project.xtask("sdk/gateway.toml");
    Ok([
        start(bench, "sdk-dev", &["--dev", "--io", driver])?,
        start(bench, "sdk-strict", &["serve", "--io", driver, "--config", &config.to_string_lossy()])?,
    ])
}

fn tell_addresses(command: &mut Command, [dev, strict]: &[Gateway; 2]) {
    command.env("TIDEGATE_TEST_DEV_URL", &dev.public).env("TIDEGATE_TEST_DEV_API", &dev.api);
    command.env("TIDEGATE_TEST_STRICT_URL", &strict.public).env("TIDEGATE_TEST_STRICT_API", &strict.api);
}

/// What asks a backend is started by the test that is this backend.
fn tell_binary(command: &mut Command, bench: &mut Bench, driver: &str) -> Result<(), String> {
    command.env("TIDEGATE_TEST_BINARY", bench.gateway()?).env("TIDEGATE_TEST_DRIVER", driver);
    Ok(())
}

fn sdk_js(bench: &mut Bench) -> Result<Outcome, String> {
    on_each_driver(bench, sdk_js_on)
}

fn sdk_js_on(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let mut gateways = sdk_gateways(bench, driver)?;
    let mut command = Command::new(bench.tools.of(Need::Node)?);
    command.args(["--test", "--test-reporter=spec"]);
    command.args(
        ["centrifuge", "history", "keys", "presence", "tokens", "webhooks"].map(|file| format!("{file}.test.mjs")),
    );
    command.current_dir(bench.tools.of(Need::SdkModules)?);
    tell_addresses(&mut command, &gateways);
    tell_binary(&mut command, bench, driver)?;
    let ran = bench.watch(&mut command)?;
    judge(Runner::Node, &ran, &mut gateways)
}

fn sdk_python(bench: &mut Bench) -> Result<Outcome, String> {
    on_each_driver(bench, sdk_python_on)
}

fn sdk_python_on(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    let mut gateways = sdk_gateways(bench, driver)?;
    let mut command = Command::new(bench.tools.of(Need::PythonPackages)?);
    command.args(["-B", "-m", "pytest", "--color=no"]).current_dir(bench.project.xtask("sdk/python"));
    tell_addresses(&mut command, &gateways);
    tell_binary(&mut command, bench, driver)?;
    let ran = bench.watch(&mut command)?;
    judge(Runner::Pytest, &ran, &mut gateways)
}

fn sdk_suite(bench: &mut Bench) -> Result<Outcome, String> {
    on_each_driver(bench, sdk_suite_on)
}

/// The suite says where its server is; that, and nothing else, is changed in the copy that is run.
fn sdk_suite_on(bench: &mut Bench, driver: &'static str) -> Result<Outcome, String> {
    const WHERE: &str = "localhost:8000";
    let config = bench.project.xtask("sdk/suite/centrifuge-python.toml");
    let gateway = start(bench, "sdk-suite", &["serve", "--io", driver, "--config", &config.to_string_lossy()])?;
    let suite = crate::setup::client_suite(&bench.project);
    let (from, to) = (one_folder(&suite)?.join("tests"), suite.join("run/tests"));
    let address = gateway.public.trim_start_matches("http://").to_owned();
    let failed = |error: std::io::Error| format!("copying {}: {error}", from.display());
    std::fs::create_dir_all(&to).map_err(failed)?;
    for entry in std::fs::read_dir(&from).map_err(failed)?.flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|extension| extension == "py") {
            let text = std::fs::read_to_string(&file).map_err(failed)?;
            std::fs::write(to.join(entry.file_name()), text.replace(WHERE, &address)).map_err(failed)?;
        }
    }
    let mut command = Command::new(bench.tools.of(Need::PythonPackages)?);
    command.args(["-B", "-m", "pytest", "--color=no", "-p", "no:cacheprovider", "-o", "log_level=WARNING"]);
    // Its tests are methods; some functions that help them have names of tests.
    command.args(["-o", "python_functions=no_function"]);
    command.arg("tests/test_client.py").current_dir(suite.join("run"));
    let ran = bench.watch(&mut command)?;
    judge(Runner::Pytest, &ran, &mut [gateway])
}

/// The only folder in a folder that has a `pyproject.toml`.
fn one_folder(folder: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("pyproject.toml").exists());
    found.next().ok_or_else(|| format!("no unpacked package in {}", folder.display()))
}

/// The tests start the gateways by themselves: some are drained, some are full.
fn proxies(bench: &mut Bench) -> Result<Outcome, String> {
    let mut command = Command::new(bench.tools.of(Need::PythonPackages)?);
    command.args(["-B", "-m", "pytest", "--color=no"]).current_dir(bench.project.xtask("proxy"));
    command.env("TIDEGATE_TEST_BINARY", bench.gateway()?);
    let nginx = bench.tools.of(Need::Nginx)?;
    command
        .env("TIDEGATE_TEST_NGINX", &nginx)
        .env("TIDEGATE_TEST_NGINX_STREAM", stream_module(&nginx).unwrap_or_default());
    command.env("TIDEGATE_TEST_HAPROXY", bench.tools.of(Need::Haproxy)?);
    command.env("TIDEGATE_TEST_OPENSSL", bench.tools.of(Need::Openssl)?);
    let ran = bench.watch(&mut command)?;
    Ok(Outcome::of_runner(Runner::Pytest, &ran))
}

fn page(bench: &mut Bench) -> Result<Outcome, String> {
    in_turn(bench, &["page", "compression"], page_of)
}

/// The page itself with a gateway as a newcomer starts it, the rest with one that is configured for it.
fn page_of(bench: &mut Bench, name: &'static str) -> Result<Outcome, String> {
    let config = bench.project.xtask("web/gateway.toml");
    let configured = ["--config", &config.to_string_lossy()];
    let arguments = if name == "page" { vec!["--dev"] } else { [&["--dev"], &configured[..]].concat() };
    let gateway = start(bench, name, &arguments)?;
    let screenshots = bench.project.target.join("screenshots");
    std::fs::create_dir_all(&screenshots).map_err(|e| format!("{}: {e}", screenshots.display()))?;
    let mut command = Command::new(bench.tools.of(Need::Node)?);
    command.args(["--test", "--test-reporter=spec", &format!("{name}.test.mjs")]);
    command.current_dir(bench.tools.of(Need::WebModules)?);
    command.env("TIDEGATE_URL", &gateway.public).env("TIDEGATE_API", &gateway.api);
    command.env("CHROMIUM", bench.tools.of(Need::Chromium)?).env("SCREENSHOT_DIR", &screenshots);
    let ran = bench.watch(&mut command)?;
    judge(Runner::Node, &ran, &mut [gateway])
}
