//! `cargo xtask abuse`: hostile clients, and honest ones beside them.
//!
//! Each attack has a fresh gateway on each driver. The honest clients are those of `tidegate-load fanout`: subscribers of which
//! each has to get every publication once and in order, one that echoes, and some that come and go. They come while the
//! attack goes on. Asked is whether anything of theirs is lost, doubled, reordered or closed, whether the gateway's counters tell
//! of the attack, and whether it is as before when the attackers have gone. Latencies are beside those without an attack,
//! and never judged: attackers, honest clients and gateway share the machine.

mod attacks;
mod table;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Ready, Run, Server, drivers, exchange, release};
use attacks::{ATTACKS, Attack, Attacker, Target};

/// How to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Small sizes and short times, to see that everything works.
    pub quick: bool,
    /// Only on this driver.
    pub driver: Option<String>,
    /// Only these attacks; all without any.
    pub only: Vec<String>,
    /// Where the page goes.
    pub out: PathBuf,
}

/// A key of the API, of a gateway that lives for seconds.
const KEY: &str = "a-key-for-the-suite-of-abuse-only";

/// Opening and closing, on top of the time to publish.
const RUN_MAX: Duration = Duration::from_secs(120);

/// For what attackers left behind to be gone.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an attack may leave behind: what the allocator keeps of its pages, and the tables that have grown.
const LEFT_BYTES_MAX: u64 = 64 << 20;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    quick: bool,
    /// Honest subscribers.
    honest: u32,
    /// Publications per second.
    rate: u32,
    /// Time to publish.
    seconds: u32,
}

/// What came of one attack on one driver.
#[derive(Debug)]
struct Outcome {
    attack: &'static str,
    driver: &'static str,
    /// How often the attackers did what they do.
    times: u64,
    run: Run,
    /// Echoes of an honest client, new ones to be let in: p99 in microseconds.
    echo_p99: Option<u64>,
    accept_p99: Option<u64>,
    /// Resident before the first client, and when the attackers had gone.
    rss_bytes: (u64, u64),
    /// What should not have been.
    faults: Vec<String>,
}

/// The name of the run without an attack.
const CALM: &str = "none";

/// Builds everything, attacks on each driver and writes the page. Whether the honest clients noticed nothing but time.
///
/// # Errors
/// When something could not be run at all.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    if let Some(unknown) = plan.only.iter().find(|name| !ATTACKS.iter().any(|attack| attack.name == *name)) {
        let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        return Err(format!("no attack `{unknown}`; there are {}", names.join(", ")));
    }
    let gateway = release(project, "tidegate", "tidegate")?;
    let generator = release(project, "tidegate-load", "tidegate-load")?;
    let (cores, folder) = (Cores::all()?, project.target.join("abuse"));
    let seconds = if plan.quick { 2 } else { 12 };
    let sizes = Sizes { quick: plan.quick, honest: if plan.quick { 50 } else { 500 }, rate: 20, seconds };
    let arena = Arena { gateway, generator, cores, folder, sizes };
    arena.prepare()?;
    let machine = Machine::probe();
    let chosen = || ATTACKS.iter().filter(|attack| plan.only.is_empty() || plan.only.iter().any(|n| n == attack.name));
    let turns: Vec<_> = drivers(plan.driver.as_deref())
        .flat_map(|it| std::iter::once(None).chain(chosen().map(Some)).map(move |a| (it, a)))
        .collect();
    let mut outcomes = Vec::new();
    for (number, (driver, attack)) in turns.iter().enumerate() {
        let outcome = arena.play(driver, *attack)?;
        println!("[{}/{}] {driver} {}", number + 1, turns.len(), outcome.summary());
        if !outcome.run.is_clean {
            println!("{}", outcome.run.line);
        }
        outcomes.push(outcome);
    }
    let page = table::page(&machine, &sizes, &outcomes);
    println!("\n{page}");
    fs::write(&plan.out, page).map_err(|e| format!("{}: {e}", plan.out.display()))?;
    println!("written: {}", plan.out.display());
    Ok(outcomes.iter().all(|outcome| outcome.faults.is_empty()))
}

/// Where it happens.
struct Arena {
    gateway: PathBuf,
    generator: PathBuf,
    cores: Cores,
    folder: PathBuf,
    sizes: Sizes,
}

impl Arena {
    /// The certificate and the config.
    fn prepare(&self) -> Result<(), String> {
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        crate::run::capture(Command::new(&self.gateway).args(["cert", "--out"]).arg(&self.folder))?;
        let at = |name: &str| self.folder.join(name).display().to_string();
        // Short times, so that the attack meets them; all else as shipped, or on so that there is more to attack.
        let config = format!(
            "[public]\nlisten = [\"127.0.0.1:0\"]\necho = true\n\n[api]\nlisten = [\"127.0.0.1:0\"]\nkeys = [\"{KEY}\"]\n\n\
             [tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\nhandshake_timeout = \"1s\"\n\n\
             [http]\nhead_timeout = \"1s\"\n\n[client]\nanonymous = true\n\n[compression]\nenabled = true\n\n\
             [token]\nhmac_secret_keys = [\"a secret of at least thirty-two bytes\"]\n\n\
             [channels]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n",
            at("cert.pem"),
            at("key.pem"),
        );
        let path = self.config();
        fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn config(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    /// One attack, or none.
    fn play(&self, driver: &'static str, attack: Option<&'static Attack>) -> Result<Outcome, String> {
        let name = attack.map_or(CALM, |attack| attack.name);
        let log = self.folder.join(format!("{driver}-{name}.log"));
        let mut command = Command::new(&self.gateway);
        command.args(["serve", "--io", driver, "--workers", "2", "--config"]).arg(self.config());
        let mut server = Server::start(&command, &self.cores, &Ready::Lines(&["public", "api"]), &log)?;
        let target = target(&server)?;
        let before = server.usage()?.rss_bytes;
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let run = std::thread::scope(|scope| {
            let threads: Vec<_> = attack
                .into_iter()
                .map(|attack| {
                    let size = if self.sizes.quick { attack.sizes.1 } else { attack.sizes.0 };
                    let attacker = Attacker { target: &target, size, stop: &stop, done: &done };
                    scope.spawn(move || (attack.work)(&attacker))
                })
                .collect();
            let run = self.honest(&server, name);
            stop.store(true, Ordering::Relaxed);
            let survived = threads.into_iter().all(|thread| thread.join().is_ok());
            if survived { run } else { Err("an attacker panicked".to_owned()) }
        })?;
        server.still_runs()?;
        let mut outcome = Outcome {
            attack: name,
            driver,
            times: done.load(Ordering::Relaxed),
            echo_p99: run.line["probes"]["loaded"]["echo"]["latency_us"]["p99"].as_u64(),
            accept_p99: run.line["probes"]["loaded"]["accept"]["latency_us"]["p99"].as_u64(),
            run,
            rss_bytes: (before, 0),
            faults: Vec::new(),
        };
        aftermath(&mut outcome, attack, &target)?;
        outcome.rss_bytes.1 = server.usage()?.rss_bytes;
        outcome.judge(attack);
        Ok(outcome)
    }

    /// The honest clients, to their end.
    fn honest(&self, server: &Server, name: &str) -> Result<Run, String> {
        let log = self.folder.join(format!("honest-{name}.log"));
        let public = server.ws("public");
        let words = format!(
            "fanout -n {} --open-rate 500 --channel honest --rate {} --for {}s --size 200 --drain 30s --timeout 30s --url {public} \
             --api {} --key {KEY} --echo-probe {public}/echo --accept-probe 20 --server-pid {}",
            self.sizes.honest,
            self.sizes.rate,
            self.sizes.seconds,
            server.url("api"),
            server.pid()
        );
        let limit = RUN_MAX + Duration::from_secs(u64::from(self.sizes.seconds));
        Generator::new(&self.generator, &self.cores, &log).run(&words.split(' ').collect::<Vec<_>>(), limit)
    }
}

/// Where it listens.
fn target(server: &Server) -> Result<Target, String> {
    let address = |kind: &str| server.url(kind).trim_start_matches("http://").to_owned();
    Ok(Target { public: address("public"), tls: server.tls()?, api: address("api"), key: KEY })
}

/// What the gateway says of itself when everybody has gone.
fn aftermath(outcome: &mut Outcome, attack: Option<&Attack>, target: &Target) -> Result<(), String> {
    let started = Instant::now();
    let metrics = loop {
        let metrics = scrape(target)?;
        let is_quiet = sum(&metrics, "tidegate_connections") == 0.0;
        if is_quiet || started.elapsed() > QUIET_MAX {
            break metrics;
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let mut expect = |is_so: bool, otherwise: String| {
        if !is_so {
            outcome.faults.push(otherwise);
        }
    };
    let open = sum(&metrics, "tidegate_connections");
    expect(open == 0.0, format!("{open} connections are left"));
    let panics = sum(&metrics, "tidegate_panics_total");
    expect(panics == 0.0, format!("{panics} panics"));
    if let Some(counter) = attack.and_then(|attack| attack.tells) {
        expect(sum(&metrics, counter) > 0.0, format!("{counter} tells nothing"));
    }
    let newcomer = wire::websocket(&target.public, "/connection/websocket");
    expect(newcomer.is_ok(), format!("a newcomer is not let in: {newcomer:?}"));
    Ok(())
}

fn scrape(target: &Target) -> Result<String, String> {
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n", target.api);
    let answer = exchange(&target.api, &request).map_err(|error| format!("/metrics: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(format!("/metrics: {answer}")) }
}

/// Over all series of a metric, or of those that have its labels, whichever others they have.
fn sum(metrics: &str, wanted: &str) -> f64 {
    let (name, labels) = wanted.split_once('{').unwrap_or((wanted, ""));
    let labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let lines = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (its_name, its_labels) = series.split_once('{').unwrap_or((series, ""));
        let is_meant = its_name == name && labels.iter().all(|label| its_labels.contains(label));
        is_meant.then(|| value.parse::<f64>().ok()).flatten()
    });
    lines.sum()
}

impl Outcome {
    fn judge(&mut self, attack: Option<&Attack>) {
        if !self.run.is_clean {
            // Beside its progress: how often, and what.
            let reasons = self.run.complaints.lines().map(str::trim).filter(|line| line.contains(" x "));
            let reasons: Vec<&str> = reasons.collect();
            self.faults.push(format!("the honest clients noticed: {}", reasons.join(", ")));
        }
        if self.run.received == 0 || self.echo_p99.is_none() {
            self.faults.push("the honest clients did nothing".to_owned());
        }
        if attack.is_some() && self.times == 0 {
            self.faults.push("there was no attack".to_owned());
        }
        let (before, after) = self.rss_bytes;
        if after > before + LEFT_BYTES_MAX {
            self.faults.push(format!("{before} bytes were resident before it and {after} are after it"));
        }
    }

    fn summary(&self) -> String {
        let verdict = if self.faults.is_empty() { "ok".to_owned() } else { self.faults.join("; ") };
        let ms = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us as f64 / 1e3));
        format!(
            "{}: {} times, {} deliveries, p99 {} ms, echo {} ms, let in {} ms: {verdict}",
            self.attack,
            self.times,
            self.run.received,
            ms(self.run.latency_us.map(|latency| latency.p99)),
            ms(self.echo_p99),
            ms(self.accept_p99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE a counter\na{worker=\"0\"} 2\na{worker=\"1\"} 3\nab 9\n\
        closes{side=\"server\",code=\"1009\"} 4\ncloses{side=\"client\",code=\"1009\"} 8\n";

    #[test]
    fn a_metric_is_summed_over_what_its_labels_leave_open() {
        assert_eq!(sum(METRICS, "a"), 5.0);
        assert_eq!(sum(METRICS, "a{worker=\"1\"}"), 3.0);
        assert_eq!(sum(METRICS, "closes{side=\"server\",code=\"1009\"}"), 4.0);
        assert_eq!(sum(METRICS, "b"), 0.0);
    }

    fn outcome(line: &str, is_clean: bool) -> Outcome {
        let mut run = Run::parse(line).unwrap();
        run.is_clean = is_clean;
        Outcome {
            attack: "pings",
            driver: "epoll",
            times: 1,
            run,
            echo_p99: Some(1),
            accept_p99: None,
            rss_bytes: (1, 1),
            faults: Vec::new(),
        }
    }

    const LINE: &str = r#"{"scenario":"fanout","connections":50,"sent":1,"received":50,"lost":0,"duplicated":0,"out_of_order":0,
        "seconds":1.0,"latency_us":null,"generator_busy":0.5,"failed":0,"disconnected":0,"unclean":0}"#;

    #[test]
    fn what_honest_clients_notice_is_a_fault() {
        let line = LINE.replace('\n', " ");
        let judged = |change: fn(&mut Outcome), is_clean| {
            let mut outcome = outcome(&line, is_clean);
            change(&mut outcome);
            outcome.judge(Some(&ATTACKS[0]));
            outcome.faults.len()
        };
        assert_eq!(judged(|_| (), true), 0);
        assert_eq!(judged(|_| (), false), 1, "the generator ended with 1");
        assert_eq!(judged(|it| it.run.received = 0, true), 1);
        assert_eq!(judged(|it| it.echo_p99 = None, true), 1);
        assert_eq!(judged(|it| it.times = 0, true), 1);
        assert_eq!(judged(|it| it.rss_bytes.1 = 1 + LEFT_BYTES_MAX, true), 0);
        assert_eq!(judged(|it| it.rss_bytes.1 = 2 + LEFT_BYTES_MAX, true), 1);
    }

    #[test]
    fn each_attack_has_a_name_of_its_own() {
        let mut names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).chain([CALM]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ATTACKS.len() + 1);
    }
}
