//! `cargo xtask reload`: reloads with other certificates, limits and keys while clients receive publications, some of them over
//! TLS.
//!
//! Asked is whether every client gets every publication once and in order and stays connected, whether whoever comes after a
//! reload meets what is in force then, whether what is bad is refused and changes nothing, and whether reloads leave
//! anything behind. Server and generators share all cores.

mod probe;
mod settings;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Ready, Run, Server, Usage, drivers, release};
use settings::{Fault, Files, KEY};

/// How to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Small sizes and short times, to see that everything works.
    pub quick: bool,
    /// Only on this driver.
    pub driver: Option<String>,
    /// Where the page goes.
    pub out: PathBuf,
}

/// Opening and closing, on top of the time to publish.
const RUN_MAX: Duration = Duration::from_secs(120);

/// For the gateway to say what became of a reload, and for its workers to have it.
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// Between two looks into its log.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    clear_clients: u32,
    tls_clients: u32,
    /// Publications per second to the clients in the clear, and as many to those with TLS.
    rate: u32,
    reloads: usize,
    /// Time to publish.
    length: Duration,
}

impl Sizes {
    fn whole() -> Sizes {
        Sizes { clear_clients: 4500, tls_clients: 500, rate: 5, reloads: 1000, length: Duration::from_secs(120) }
    }

    fn quick() -> Sizes {
        Sizes { clear_clients: 180, tls_clients: 20, rate: 20, reloads: 48, length: Duration::from_secs(5) }
    }
}

/// What the reloads of one gateway came to.
#[derive(Default, Debug)]
struct Reloads {
    taken: usize,
    refused: usize,
    /// From the signal to the line in the log, in milliseconds.
    took_ms: Vec<f64>,
    /// New connections that a worker still answered by the old settings: its letter was on the way.
    a_little_late: usize,
    /// Memory and open files after the first tenth, and after all.
    before: (u64, usize),
    after: (u64, usize),
}

/// A run, and who its clients are.
type Named = (&'static str, Run);

#[derive(Debug)]
struct Outcome {
    driver: &'static str,
    reloads: Reloads,
    runs: Vec<Named>,
}

/// Builds everything, runs it on each driver and writes the page. Whether nothing went wrong.
///
/// # Errors
/// When something could not be run at all, or a reload came to something else than it should have.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    let gateway = release(project, "tidegate", "tidegate")?;
    let generator = release(project, "tidegate-load", "tidegate-load")?;
    let (cores, folder) = (Cores::all()?, project.target.join("reload"));
    let sizes = if plan.quick { Sizes::quick() } else { Sizes::whole() };
    let mut outcomes = Vec::new();
    let machine = Machine::probe();
    for driver in drivers(plan.driver.as_deref()) {
        println!("{} reloads on {driver}: about {} s", sizes.reloads, sizes.length.as_secs() + 10);
        let files = Files::make(&gateway, &folder.join(driver))?;
        let mut command = Command::new(&gateway);
        command.args(["serve", "--io", driver, "--workers", "2", "--config"]).arg(files.config());
        let log = folder.join(format!("{driver}.log"));
        let mut server = Server::start(&command, &cores, &Ready::Lines(&["public", "api"]), &log)?;
        let mut stage = Stage::new(&server, &files, &log)?;
        let (runs, reloads) = play(&mut stage, &sizes, &generator, &cores, &folder)?;
        server.still_runs()?;
        for (name, run) in &runs {
            let verdict = if run.is_clean { "clean" } else { "NOT CLEAN" };
            println!("  {name}: {verdict}: {}{}", run.line, run.complaints);
        }
        println!("  {reloads:?}");
        outcomes.push(Outcome { driver, reloads, runs });
    }
    let page = page(&machine, &sizes, &outcomes);
    println!("\n{page}");
    std::fs::write(&plan.out, page).map_err(|e| format!("{}: {e}", plan.out.display()))?;
    println!("written: {}", plan.out.display());
    Ok(outcomes.iter().flat_map(|outcome| &outcome.runs).all(|(_, run)| run.is_clean))
}

/// The clients of both kinds, and reloads for as long as they are there.
fn play(
    stage: &mut Stage<'_>,
    sizes: &Sizes,
    generator: &Path,
    cores: &Cores,
    folder: &Path,
) -> Result<(Vec<Named>, Reloads), String> {
    let ca = stage.files.certificate(0).display().to_string();
    let parts = [
        ("in the clear", sizes.clear_clients, stage.server.ws("public"), vec![]),
        ("TLS", sizes.tls_clients, format!("wss://{}", stage.tls), vec!["--ca".to_owned(), ca]),
    ];
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(i, (name, clients, url, more))| {
                let generator = Generator::new(generator, cores, &folder.join(format!("clients-{i}.log")));
                let words = format!(
                    "fanout -n {clients} --open-rate 2000 --channel part-{i} --rate {} --for {}s --size 200 --drain 30s --url {url} \
                     --api {} --key {KEY} --server-pid {}",
                    sizes.rate,
                    sizes.length.as_secs(),
                    stage.server.url("api"),
                    stage.server.pid()
                );
                let arguments: Vec<String> = words.split(' ').map(str::to_owned).chain(more).collect();
                (name, scope.spawn(move || generator.run(&arguments, sizes.length + RUN_MAX)))
            })
            .collect();
        let all = sizes.clear_clients + sizes.tls_clients;
        let reloads = stage.await_clients(all).and_then(|()| {
            let reloads = stage.reloads(sizes)?;
            // Nobody has left so far, so all of it happened while they listened.
            if stage.clients()? == u64::from(all) {
                Ok(reloads)
            } else {
                Err("clients were gone before the last reload".into())
            }
        });
        let runs: Vec<_> =
            threads.into_iter().map(|(name, thread)| (name, thread.join().expect("it does not panic"))).collect();
        let runs = runs.into_iter().map(|(name, run)| Ok((name, run?))).collect::<Result<Vec<_>, String>>();
        Ok((runs?, reloads?))
    })
}

/// A gateway that is to reload.
struct Stage<'a> {
    server: &'a Server,
    files: &'a Files,
    log: &'a Path,
    /// Bytes of the log that were read.
    read: usize,
    /// Where it listens with TLS.
    tls: String,
    /// The good reload in force; 0 is the start.
    in_force: usize,
}

impl<'a> Stage<'a> {
    fn new(server: &'a Server, files: &'a Files, log: &'a Path) -> Result<Stage<'a>, String> {
        let mut stage = Stage { server, files, log, read: 0, tls: server.tls()?, in_force: 0 };
        // What was said before the first reload.
        stage.news()?;
        Ok(stage)
    }

    /// What the log has had since the last time, whole lines.
    fn news(&mut self) -> Result<String, String> {
        let log = std::fs::read(self.log).map_err(|e| format!("{}: {e}", self.log.display()))?;
        let new = &log[self.read..];
        let end = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += end;
        Ok(String::from_utf8_lossy(&new[..end]).into_owned())
    }

    fn api(&self) -> &str {
        self.server.url("api").trim_start_matches("http://")
    }

    fn clients(&self) -> Result<u64, String> {
        let answer = probe::info(self.api(), KEY)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        let nodes = body["result"]["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(nodes.iter().filter_map(|node| node["num_clients"].as_u64()).sum())
    }

    fn await_clients(&self, wanted: u32) -> Result<(), String> {
        let started = Instant::now();
        while self.clients()? < u64::from(wanted) {
            if started.elapsed() > RUN_MAX {
                return Err(format!("{} of {wanted} clients came", self.clients()?));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn reloads(&mut self, sizes: &Sizes) -> Result<Reloads, String> {
        let mut reloads = Reloads::default();
        // Done before the last publications, which show that all is well after it.
        let pace = sizes.length.mul_f64(0.8) / sizes.reloads as u32;
        let started = Instant::now();
        for number in 1..=sizes.reloads {
            self.reload(number, settings::fault(number), &mut reloads)
                .map_err(|why| format!("reload {number}: {why}"))?;
            if number == sizes.reloads.div_ceil(10) {
                reloads.before = self.held()?;
            }
            std::thread::sleep((pace * number as u32).saturating_sub(started.elapsed()));
        }
        reloads.after = self.held()?;
        Ok(reloads)
    }

    fn reload(&mut self, number: usize, fault: Option<Fault>, reloads: &mut Reloads) -> Result<(), String> {
        self.files.bring(number, fault)?;
        let (good, bad) = ("reload: the new configuration is in force", "the old configuration stays in force");
        let (wanted, other) = if fault.is_none() { (good, bad) } else { (bad, good) };
        let signalled = Instant::now();
        crate::run::capture(Command::new("kill").args(["-HUP", &self.server.pid().to_string()]))?;
        loop {
            let news = self.news()?;
            if news.contains(other) {
                return Err(format!("{fault:?} came to the contrary:\n{news}"));
            }
            if news.contains(wanted) {
                break;
            }
            if signalled.elapsed() > RELOAD_MAX {
                return Err(format!("nothing said of it:\n{news}"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        reloads.took_ms.push(signalled.elapsed().as_secs_f64() * 1e3);
        let old = self.in_force;
        if fault.is_none() {
            self.in_force = number;
            reloads.taken += 1;
        } else {
            reloads.refused += 1;
        }
        self.expect_in_force(old, number, fault, reloads)
    }

    /// New connections meet what is in force, and nothing else.
    fn expect_in_force(
        &self,
        old: usize,
        number: usize,
        fault: Option<Fault>,
        reloads: &mut Reloads,
    ) -> Result<(), String> {
        let asked = Instant::now();
        while !probe::shows(&self.tls, &self.files.certificate(self.in_force))? {
            if fault.is_some() || asked.elapsed() > RELOAD_MAX {
                return Err("a new connection was not shown the certificate in force".into());
            }
            reloads.a_little_late += 1;
        }
        let opens =
            |number: usize| probe::info(self.api(), &settings::key(number)).map(|answer| answer.contains(" 200 "));
        if !opens(self.in_force)? {
            return Err("the key of the API that is in force does not open it".into());
        }
        let gone = if fault.is_some() { number } else { old };
        if opens(gone)? {
            return Err(format!("the key of reload {gone} opens the API, which is not in force"));
        }
        Ok(())
    }

    fn held(&self) -> Result<(u64, usize), String> {
        let pid = self.server.pid();
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?.count();
        Ok((Usage::of_tree(pid)?.rss_bytes, files))
    }
}

const HEAD: &str = "# A thousand reloads under load

`cargo xtask reload` writes this page. While all clients receive publications, a reload (SIGHUP) follows the other. Each brings
another certificate with its key, another key of the API and other limits: origins, commands per second, outbox bytes and water
marks, header lines, compression, log level, a namespace that comes and goes. Every eighth is bad, in turn: no TOML, an unknown key, limits
that contradict each other, a chain that is not there, the key of another certificate, a damaged key. After each of them a
new connection has to be shown the certificate in force and no other, the key of the API in force has to open it, and the one
before, or the one that was refused, must not. The command fails where any of this is not so.

*Late* counts new connections that a worker still showed the certificate before, because its letter was on the way when the log
said that the new one is in force; the next try is counted again until it is right.
";

fn page(machine: &Machine, sizes: &Sizes, outcomes: &[Outcome]) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(
        text,
        "\n**Machine**: {machine}; server (2 workers) and generators on the same cores.\n**Load**: {} publications per second of 200 B \
         to each kind of clients, for {} s.\n",
        sizes.rate,
        sizes.length.as_secs()
    );
    text.push_str(
        "| driver, clients | clients | published | received | lost, doubled, out of order | closed | latency p50, p99, max |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (outcome, name, run) in outcomes.iter().flat_map(|o| o.runs.iter().map(move |(name, run)| (o, name, run))) {
        let (clients, sent, received) = (run.connections, run.sent, run.received);
        let latency = run.latency_us.map_or_else(String::new, |us| {
            let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
            format!("{}, {}, {}", ms(us.p50), ms(us.p99), ms(us.max))
        });
        let _ = writeln!(
            text,
            "| {}, {name} | {clients} | {sent} | {received} | {}, {}, {} | {} | {latency} |",
            outcome.driver, run.lost, run.duplicated, run.out_of_order, run.disconnected
        );
    }
    text.push_str(
        "\n| driver | taken | refused | signal to log line p50, max | late | resident after a tenth, at the end | open files after a \
         tenth, at the end |\n|---|---|---|---|---|---|---|\n",
    );
    for Outcome { driver, reloads, .. } in outcomes {
        let mut took = reloads.took_ms.clone();
        took.sort_by(f64::total_cmp);
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let at = |place: usize| took.get(place).copied().unwrap_or_default();
        let (p50, max) = (at(took.len() / 2), at(took.len().saturating_sub(1)));
        let _ = writeln!(
            text,
            "| {driver} | {} | {} | {p50:.1} ms, {max:.1} ms | {} | {:.1} MB, {:.1} MB | {}, {} |",
            reloads.taken,
            reloads.refused,
            reloads.a_little_late,
            mb(reloads.before.0),
            mb(reloads.after.0),
            reloads.before.1,
            reloads.after.1
        );
    }
    text
}
