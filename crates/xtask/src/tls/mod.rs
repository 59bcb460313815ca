//! `cargo xtask tls`: what TLS costs, beside the same without it, and beside nginx with OpenSSL in the same run.
//!
//! *Memory*: idle connections that have had one exchange over HTTP/1.1, which a server without WebSocket can have as well; then
//! subscribers, which only Tidegate has. *Deliveries*: one publication at a time to all subscribers. *Handshakes*: connections that
//! come, ask and go. Each server has one worker on a core of its own; the clients have the others.

mod client;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Project;
use crate::measure::{Cores, Generator, Machine, Ready, Server, Spread, Usage, free_port, ratio, release};
use crate::setup::{Need, provide};
use client::Manner;

/// How to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Small sizes and one round, to see that everything works.
    pub quick: bool,
    /// Where the table goes.
    pub out: PathBuf,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    rounds: usize,
    held: usize,
    handshakes: usize,
    subscribers: usize,
    publications: usize,
}

/// Held before the first that counts: what a server makes once.
const WARM_UP: usize = 200;

/// The longest that one run of the generator takes.
const RUN_MAX: Duration = Duration::from_secs(180);

/// Kinds of connections.
const KINDS: [&str; 4] = [CLEAR, "ECDSA P-256", "RSA 2048", RESUMED];
const CLEAR: &str = "in the clear";
const RESUMED: &str = "resumed";

/// Names for which there are certificates, of either kind of key.
const ECDSA: &str = "localhost";
const RSA: &str = "rsa.test";

/// What is asked for: a short answer of any server.
const PATH: &str = "/health";

/// One figure, with its value in each round.
#[derive(Default, Debug)]
struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: String, value: f64) {
        println!("  {name}: {value:.2}");
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        self.0.iter().find(|(known, _)| known == name).map_or(&[], |(_, values)| values)
    }
}

/// A server with its addresses.
struct Peer {
    name: String,
    server: Server,
    clear: SocketAddr,
    tls: SocketAddr,
}

/// The programs and files.
struct Bench {
    gateway: PathBuf,
    generator: Generator,
    nginx: PathBuf,
    cores: Cores,
    folder: PathBuf,
    sizes: Sizes,
}

/// Builds everything, measures in turns and writes the table.
///
/// # Errors
/// When something could not be run.
pub fn run(project: &Project, plan: &Plan) -> Result<bool, String> {
    let tools = provide(project, &[Need::Nginx, Need::Openssl]);
    let (cores, folder) = (Cores::choose()?, project.target.join("tls"));
    let sizes = if plan.quick {
        Sizes { rounds: 1, held: 500, handshakes: 100, subscribers: 500, publications: 5 }
    } else {
        Sizes { rounds: 3, held: 10_000, handshakes: 2000, subscribers: 10_000, publications: 20 }
    };
    let generator = release(project, "tidegate-load", "tidegate-load")?;
    let bench = Bench {
        gateway: release(project, "tidegate", "tidegate")?,
        generator: Generator::new(&generator, &cores, &folder.join("generator.log")),
        nginx: tools.of(Need::Nginx)?,
        cores,
        folder,
        sizes,
    };
    bench.make_certificates(&tools.of(Need::Openssl)?)?;
    let machine = Machine::probe();
    let mut figures = Figures::default();
    for round in 1..=sizes.rounds {
        println!("round {round} of {}", sizes.rounds);
        for driver in ["epoll", "uring"] {
            bench.memory(&mut figures, || bench.tidegate(driver))?;
            bench.subscribers(&mut figures, driver)?;
            bench.handshakes(&mut figures, &bench.tidegate(driver)?)?;
        }
        bench.memory(&mut figures, || bench.start_nginx())?;
        bench.handshakes(&mut figures, &bench.start_nginx()?)?;
    }
    let page = page(&machine, &sizes, &figures);
    println!("\n{page}");
    std::fs::write(&plan.out, page).map_err(|e| format!("{}: {e}", plan.out.display()))?;
    println!("written: {}", plan.out.display());
    Ok(true)
}

impl Bench {
    fn make_certificates(&self, openssl: &Path) -> Result<(), String> {
        std::fs::create_dir_all(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        let kinds = [(ECDSA, "ec -pkeyopt ec_paramgen_curve:P-256"), (RSA, "rsa:2048")];
        for (name, kind) in kinds {
            let words = format!(
                "req -x509 -newkey {kind} -nodes -days 30 -subj /CN={name} -addext subjectAltName=DNS:{name},IP:127.0.0.1 \
                 -addext basicConstraints=critical,CA:FALSE -keyout {name}.key -out {name}.pem"
            );
            crate::run::capture(Command::new(openssl).current_dir(&self.folder).args(words.split_ascii_whitespace()))?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    fn tidegate(&self, driver: &str) -> Result<Peer, String> {
        let [clear, tls] = addresses()?;
        let certificate = |name: &str| {
            let (chain, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
            format!("{{ chain = \"{chain}\", key = \"{key}\" }}")
        };
        let config = format!(
            "[public]\nlisten = [\"{clear}\"]\n[api]\nlisten = [\"127.0.0.1:0\"]\ninsecure = true\n\
             [tls]\nlisten = [\"{tls}\"]\ncertificates = [{}, {}]\n\
             [workers]\ncount = 1\nconnections_max = 15000\n[client]\nanonymous = true\nping_interval = \"1h\"\n\
             [http]\nkeep_alive_timeout = \"1h\"\n[channels]\nallow_subscribe_for_client = true\n\
             allow_subscribe_for_anonymous = true\n",
            certificate(ECDSA),
            certificate(RSA)
        );
        let mut command = Command::new(&self.gateway);
        command.args(["serve", "--io", driver, "--config"]).arg(self.write("tidegate.toml", &config)?);
        let log = self.folder.join("tidegate.log");
        let server = Server::start(&command, &self.cores, &Ready::Lines(&["public", "api"]), &log)?;
        Ok(Peer { name: format!("Tidegate, {driver}"), server, clear, tls })
    }

    /// One worker with what nginx does by itself: OpenSSL lets go of its buffers where nothing happens.
    fn start_nginx(&self) -> Result<Peer, String> {
        let [clear, tls] = addresses()?;
        let server = |name: &str| {
            format!(
                "server {{ listen {tls} ssl; server_name {name}; ssl_certificate {name}.pem; ssl_certificate_key {name}.key; \
                 location / {{ return 200 ok; }} }}\n"
            )
        };
        let config = format!(
            "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\n\
             events {{ worker_connections 15000; }}\n\
             http {{\naccess_log off;\nkeepalive_timeout 1h;\nkeepalive_requests 1000000;\nssl_protocols TLSv1.3;\n\
             ssl_session_tickets on;\nclient_body_temp_path {0}/t1;\nproxy_temp_path {0}/t2;\nfastcgi_temp_path {0}/t3;\n\
             uwsgi_temp_path {0}/t4;\nscgi_temp_path {0}/t5;\n\
             server {{ listen {clear}; location / {{ return 200 ok; }} }}\n{1}{2}}}\n",
            self.folder.display(),
            server(ECDSA),
            server(RSA)
        );
        let mut command = Command::new(&self.nginx);
        command.arg("-c").arg(self.write("nginx.conf", &config)?);
        let log = self.folder.join("nginx-start.log");
        let server = Server::start(&command, &self.cores, &Ready::Ports(vec![clear, tls]), &log)?;
        Ok(Peer { name: "nginx".to_owned(), server, clear, tls })
    }

    fn manner(&self, kind: &str) -> Result<Manner, String> {
        let tls = |name, resume| Manner::tls(&self.folder.join(format!("{name}.pem")), name, resume);
        match kind {
            CLEAR => Ok(Manner::Clear),
            "RSA 2048" => tls(RSA, false),
            kind => tls(ECDSA, kind == RESUMED),
        }
    }

    /// Resident memory of connections that are idle after one exchange.
    fn memory(&self, figures: &mut Figures, start: impl Fn() -> Result<Peer, String>) -> Result<(), String> {
        for kind in [CLEAR, "ECDSA P-256"] {
            let (peer, manner) = (start()?, self.manner(kind)?);
            let to = if kind == CLEAR { peer.clear } else { peer.tls };
            let mut held = Vec::with_capacity(WARM_UP + self.sizes.held);
            let mut before = 0;
            for number in 0..WARM_UP + self.sizes.held {
                if number == WARM_UP {
                    before = Usage::of_tree(peer.server.pid())?.rss_bytes;
                }
                held.push(manner.ask(to, PATH)?.0);
            }
            let after = Usage::of_tree(peer.server.pid())?.rss_bytes;
            let each = after.saturating_sub(before) as f64 / self.sizes.held as f64;
            // They are all still there.
            held.iter_mut().step_by(97).try_for_each(|connection| connection.ask_again(PATH))?;
            figures.add(format!("{}: bytes per idle connection, {kind}", peer.name), each);
        }
        Ok(())
    }

    /// CPU time of connections that come, ask and go.
    fn handshakes(&self, figures: &mut Figures, peer: &Peer) -> Result<(), String> {
        for kind in KINDS {
            let manner = self.manner(kind)?;
            let to = if kind == CLEAR { peer.clear } else { peer.tls };
            // The first one brings the ticket for the next, and so on.
            let (_, _) = manner.ask(to, PATH)?;
            let before = Usage::of_tree(peer.server.pid())?.cpu;
            let mut resumed = 0;
            for _ in 0..self.sizes.handshakes {
                resumed += usize::from(manner.ask(to, PATH)?.1);
            }
            let expected = if kind == RESUMED { self.sizes.handshakes } else { 0 };
            if resumed != expected {
                return Err(format!("{}, {kind}: {resumed} sessions were resumed, not {expected}", peer.name));
            }
            let cpu = Usage::of_tree(peer.server.pid())?.cpu.saturating_sub(before);
            let each = cpu.as_secs_f64() * 1e6 / self.sizes.handshakes as f64;
            figures.add(format!("{}: us per connection, {kind}", peer.name), each);
        }
        Ok(())
    }

    /// Memory of subscribers, and CPU time per delivery to them.
    fn subscribers(&self, figures: &mut Figures, driver: &str) -> Result<(), String> {
        for kind in [CLEAR, "ECDSA P-256"] {
            let peer = self.tidegate(driver)?;
            let (url, more) = if kind == CLEAR {
                (format!("ws://{}", peer.clear), String::new())
            } else {
                (format!("wss://localhost:{}", peer.tls.port()), format!(" --ca {}", self.file("localhost.pem")))
            };
            let words = format!(
                "fanout -n {} --open-rate 1500 --timeout 60s --publications {} --rate 2 --size 200 --drain 30s --url {url} --api {} \
                 --server-pid {}{more}",
                self.sizes.subscribers,
                self.sizes.publications,
                peer.server.url("api"),
                peer.server.pid()
            );
            let run = self.generator.run(&words.split(' ').collect::<Vec<_>>(), RUN_MAX)?.clean()?;
            let server = run.server.ok_or("the generator read nothing of the server")?;
            let each = run.cpu_us_per_message().ok_or("nothing arrived")?;
            figures.add(format!("{}: bytes per subscriber, {kind}", peer.name), server.rss_bytes_per_connection);
            figures.add(format!("{}: us per delivery, {kind}", peer.name), each);
        }
        Ok(())
    }
}

fn addresses() -> Result<[SocketAddr; 2], String> {
    Ok([free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
}

fn page(machine: &Machine, sizes: &Sizes, figures: &Figures) -> String {
    let names = ["Tidegate, epoll", "Tidegate, uring", "nginx"];
    let cell = |spread: Option<Spread>, decimals: usize| {
        spread.map_or_else(|| "-".to_owned(), |spread| format!("{spread:.decimals$}"))
    };
    let of = |name: &str, what: &str| figures.of(&format!("{name}: {what}"));
    let mut text = format!(
        "`cargo xtask tls`, {machine}; {} idle connections, {} subscribers, {} connections for each kind of handshake, {} rounds: \
         median (least-most).\n\n| | {} |\n|---|---|---|---|\n",
        sizes.held,
        sizes.subscribers,
        sizes.handshakes,
        sizes.rounds,
        names.join(" | ")
    );
    let mut row = |title: &str, cells: Vec<String>| {
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    };
    for (title, what, decimals) in [
        ("idle after one exchange, in the clear, B", "bytes per idle connection, in the clear", 0),
        ("idle after one exchange, TLS 1.3, B", "bytes per idle connection, ECDSA P-256", 0),
        ("idle subscriber, in the clear, B", "bytes per subscriber, in the clear", 0),
        ("idle subscriber, TLS 1.3, B", "bytes per subscriber, ECDSA P-256", 0),
        ("delivery of 200 B, in the clear, us", "us per delivery, in the clear", 2),
        ("delivery of 200 B, TLS 1.3, us", "us per delivery, ECDSA P-256", 2),
    ] {
        row(title, names.map(|name| cell(Spread::of(of(name, what)), decimals)).to_vec());
    }
    let (over, under) = ("us per delivery, ECDSA P-256", "us per delivery, in the clear");
    row("delivery, TLS over clear", names.map(|name| cell(ratio(of(name, over), of(name, under)), 2)).to_vec());
    for kind in KINDS {
        let what = format!("us per connection, {kind}");
        row(
            &format!("connection with one exchange, {kind}, us"),
            names.map(|name| cell(Spread::of(of(name, &what)), 0)).to_vec(),
        );
    }
    for kind in &KINDS[1..] {
        // What the handshake adds to such a connection.
        let (with, without) = (format!("us per connection, {kind}"), format!("us per connection, {CLEAR}"));
        let rates = names.map(|name| {
            let pairs = of(name, &with).iter().zip(of(name, &without));
            let rates: Vec<f64> = pairs.map(|(with, without)| 1e6 / (with - without)).collect();
            cell(Spread::of(&rates), 0)
        });
        row(&format!("handshakes per second and core, {kind}"), rates.to_vec());
    }
    text
}
