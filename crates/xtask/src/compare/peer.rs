//! The servers that are compared: how each is started, and where its doors are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::IDLE_MAX;
use super::measure::{Door, Doors, Measure};
use crate::Project;
use crate::measure::{Cores, Ready, Server, free_port};

/// From the moment that a master listens until it has started its worker.
const WORKER_MAX: Duration = Duration::from_secs(10);

/// Open files that a server gets which does not ask for more itself; more than clients are held.
const FILES_MAX: u32 = 20_000;
const _: () = assert!(FILES_MAX > IDLE_MAX + 100, "a client is a file");

/// What kind of server it is; all that the program does not need to be told by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A bare loop on `epoll` or `uring`: the least that any server can cost.
    Floor(&'static str),
    /// The gateway, on `epoll` or `uring`.
    Tidegate(&'static str),
    /// A server that only echoes and takes its address as its argument.
    Echo,
    /// `ws-server.mjs`.
    Ws,
    /// nginx with the nchan module.
    Nchan,
    /// nats-server with its WebSocket listener.
    Nats,
    /// The Go server on the centrifuge library.
    Centrifuge,
}

/// One row of the table, ready to be started.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// As people call it.
    pub(super) name: &'static str,
    /// What `--only` calls it.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) version: String,
    /// The program, or the interpreter.
    pub(super) program: PathBuf,
    /// What it needs beside: the script, the module's file, or nothing.
    pub(super) part: Option<PathBuf>,
    /// Folder of shared libraries that the system's loader does not know.
    pub(super) libraries: Option<PathBuf>,
}

/// A server that runs.
pub(super) struct Started {
    pub(super) server: Server,
    pub(super) doors: Doors,
    /// The process that does the work, for the generator to watch.
    pub(super) pid: u32,
}

/// The addresses that a peer is told: one for clients, one for publishers where these are not the same.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Addresses {
    clients: String,
    publishers: String,
}

impl Addresses {
    /// As the table shows them.
    fn shown() -> Addresses {
        Addresses { clients: "127.0.0.1:PORT".to_owned(), publishers: "127.0.0.1:PORT2".to_owned() }
    }

    fn free() -> Result<Addresses, String> {
        let (clients, mut publishers) = (free_port()?, free_port()?);
        while publishers == clients {
            publishers = free_port()?;
        }
        Ok(Addresses { clients: format!("127.0.0.1:{clients}"), publishers: format!("127.0.0.1:{publishers}") })
    }

    fn sockets(&self) -> Result<[SocketAddr; 2], String> {
        let parse = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        Ok([parse(&self.clients)?, parse(&self.publishers)?])
    }
}

impl Peer {
    /// The committed config that is filled in at each start, a path inside this crate's folder.
    fn template(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Tidegate(_) => Some("compare/tidegate.toml"),
            Kind::Nchan => Some("compare/nginx-nchan.conf"),
            Kind::Nats => Some("compare/nats-server.conf"),
            Kind::Floor(_) | Kind::Echo | Kind::Ws | Kind::Centrifuge => None,
        }
    }

    /// Its config, or the program itself where that was written for the comparison; from the root of the checkout.
    pub(super) fn source(&self) -> String {
        match (self.template(), self.kind) {
            (Some(template), _) => format!("crates/xtask/{template}"),
            (None, Kind::Floor(_)) => "benches/src/floor/mod.rs".to_owned(),
            (None, Kind::Ws) => "crates/xtask/compare/peers-node/ws-server.mjs".to_owned(),
            (None, Kind::Centrifuge) => "crates/xtask/compare/peers-go/main.go".to_owned(),
            (None, _) => {
                let program = self.program.file_name().unwrap_or_default().to_string_lossy();
                format!("crates/xtask/compare/peers-rust/src/bin/{program}.rs")
            }
        }
    }

    /// Whether it offers what is measured.
    pub(super) fn can(&self, measure: Measure) -> bool {
        match measure {
            Measure::Hold | Measure::Churn => true,
            Measure::Echo | Measure::Pipeline => {
                matches!(self.kind, Kind::Floor(_) | Kind::Tidegate(_) | Kind::Echo | Kind::Ws)
            }
            Measure::Fanout => self.kind != Kind::Echo,
        }
    }

    /// Whether its clients are subscribed while they are held.
    pub(super) fn subscribes(&self) -> bool {
        self.can(Measure::Fanout)
    }

    /// Starts it for one measure on the server's core, on free ports, with a folder for what it writes.
    pub(super) fn start(
        &self,
        project: &Project,
        cores: &Cores,
        measure: Measure,
        folder: &Path,
    ) -> Result<Started, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let addresses = Addresses::free()?;
        let config = match self.template() {
            Some(template) => Some(self.write_config(&project.xtask(template), &addresses, folder)?),
            None => None,
        };
        let command = self.command(measure, &addresses, config.as_deref(), folder);
        let server = Server::start(&command, cores, &self.ready(measure, &addresses)?, &folder.join("log"))
            .map_err(|why| format!("{}: {why}", self.name))?;
        let pid = match self.kind {
            Kind::Nchan => {
                let pid = worker(server.pid())?;
                // The master listens while its worker still makes its tables, which would count as the clients' memory.
                answered(&addresses.clients)?;
                pid
            }
            _ => server.pid(),
        };
        let doors = self.doors(measure, &addresses, &server);
        Ok(Started { server, doors, pid })
    }

    /// The command as the page shows it.
    pub(super) fn shown(&self, project: &Project) -> String {
        let (config, folder) = (PathBuf::from(self.source()), Path::new("FOLDER"));
        let command = self.command(Measure::Fanout, &Addresses::shown(), Some(&config), folder);
        let environment: String = command
            .get_envs()
            .filter_map(|(name, value)| Some(format!("{}={} ", name.to_string_lossy(), value?.to_string_lossy())))
            .collect();
        project.without_paths(&format!("{environment}{}", crate::run::shown(&command)))
    }

    fn command(&self, measure: Measure, addresses: &Addresses, config: Option<&Path>, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let config = config.unwrap_or(Path::new(""));
        match self.kind {
            Kind::Floor(driver) => {
                let loops = match measure {
                    Measure::Echo | Measure::Pipeline => "echo",
                    Measure::Churn => "accept",
                    Measure::Hold | Measure::Fanout => "fanout",
                };
                command.args([loops, "--driver", driver]);
            }
            Kind::Tidegate(driver) => {
                command.arg("serve").arg("--config").arg(config).args(["--workers", "1", "--io", driver]);
                command.args(["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
            }
            Kind::Echo => {
                // The other servers raise their limit themselves.
                let raise = format!("--nofile={FILES_MAX}:{FILES_MAX}");
                command = Command::new("prlimit");
                command.arg(raise).arg(&self.program).arg(&addresses.clients);
            }
            Kind::Ws => {
                command.args(&self.part).arg(&addresses.clients);
            }
            Kind::Nchan => {
                // The master passes an end on to its worker, but only if it is asked to end.
                command = Command::new("setpriv");
                command.args(["--pdeathsig", "TERM"]).arg(&self.program).args(["-e", "stderr", "-p"]).arg(folder);
                command.arg("-c").arg(config);
            }
            Kind::Nats => {
                command.arg("--config").arg(config).env("GOMAXPROCS", "1");
            }
            Kind::Centrifuge => {
                command.arg(&addresses.clients).env("GOMAXPROCS", "1");
            }
        }
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The committed config with this run's addresses, paths and module in it.
    fn write_config(&self, template: &Path, addresses: &Addresses, folder: &Path) -> Result<PathBuf, String> {
        let text = std::fs::read_to_string(template).map_err(|e| format!("{}: {e}", template.display()))?;
        let module = self.part.as_deref().unwrap_or(Path::new("")).display().to_string();
        let text = text
            .replace("@CLIENTS@", &addresses.clients)
            .replace("@PUBLISHERS@", &addresses.publishers)
            .replace("@MODULE@", &module);
        let file = folder.join(template.file_name().unwrap_or_default());
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        // nginx takes a relative path as one below its own prefix.
        std::path::absolute(&file).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn ready(&self, measure: Measure, addresses: &Addresses) -> Result<Ready, String> {
        let [clients, publishers] = addresses.sockets()?;
        Ok(match self.kind {
            Kind::Floor(_) if !matches!(measure, Measure::Hold | Measure::Fanout) => Ready::Lines(&["public"]),
            Kind::Floor(_) | Kind::Tidegate(_) => Ready::Lines(&["public", "api"]),
            Kind::Nats => Ready::Ports(vec![clients, publishers]),
            _ => Ready::Ports(vec![clients]),
        })
    }

    fn doors(&self, measure: Measure, addresses: &Addresses, server: &Server) -> Doors {
        let at = match self.kind {
            Kind::Floor(_) | Kind::Tidegate(_) => server.ws("public"),
            _ => format!("ws://{}", addresses.clients),
        };
        let door = |path: &str, dialect| Some(Door { url: format!("{at}{path}"), dialect });
        match self.kind {
            Kind::Floor(_) | Kind::Tidegate(_) => Doors {
                echo: door("/echo", "none"),
                subscribe: door("/connection/websocket", "centrifugo"),
                publish: (measure == Measure::Fanout).then(|| server.url("api").to_owned()),
                upgrade: door("/connection/websocket", "none"),
            },
            Kind::Echo => Doors { echo: door("/", "none"), upgrade: door("/", "none"), ..Doors::default() },
            Kind::Ws => Doors {
                echo: door("/echo", "none"),
                subscribe: door("/sub/{channel}", "raw"),
                publish: Some(format!("http://{}/pub/{{channel}}", addresses.clients)),
                upgrade: door("/echo", "none"),
            },
            Kind::Nchan => Doors {
                subscribe: door("/sub/{channel}", "raw"),
                publish: Some(format!("http://{}/pub/{{channel}}", addresses.clients)),
                upgrade: door("/sub/load", "none"),
                ..Doors::default()
            },
            Kind::Nats => Doors {
                subscribe: door("/", "nats"),
                publish: Some(format!("nats://{}", addresses.publishers)),
                upgrade: door("/", "none"),
                ..Doors::default()
            },
            Kind::Centrifuge => Doors {
                subscribe: door("/connection/websocket", "centrifugo"),
                publish: Some(format!("http://{}", addresses.clients)),
                upgrade: door("/connection/websocket", "none"),
                ..Doors::default()
            },
        }
    }
}

/// The worker below a master that does no work itself.
fn worker(master: u32) -> Result<u32, String> {
    let path = format!("/proc/{master}/task/{master}/children");
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let children: Vec<&str> = text.split_ascii_whitespace().collect();
        match children[..] {
            [child] => return child.parse().map_err(|e| format!("{path}: {e}")),
            // It listens before it forks.
            [] if started.elapsed() < WORKER_MAX => std::thread::yield_now(),
            _ => return Err(format!("one worker was expected below process {master}, not {}", children.len())),
        }
    }
}

/// Waits until the server at `address` has answered a request, whatever it answers.
fn answered(address: &str) -> Result<(), String> {
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WORKER_MAX))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0; 256])
    };
    match ask() {
        Ok(1..) => Ok(()),
        Ok(0) => Err(format!("{address} closed the connection instead of answering")),
        Err(error) => Err(format!("{address} did not answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(kind: Kind) -> Peer {
        Peer {
            name: "one",
            key: "one",
            kind,
            version: String::new(),
            program: PathBuf::from("/checkout/target/release/one"),
            part: None,
            libraries: None,
        }
    }

    fn project() -> Project {
        Project { root: "/checkout".into(), target: "/checkout/target".into(), cargo: "cargo".into() }
    }

    #[test]
    fn a_command_is_shown_without_the_machines_paths_and_ports() {
        assert_eq!(
            peer(Kind::Echo).shown(&project()),
            "prlimit --nofile=20000:20000 target/release/one 127.0.0.1:PORT"
        );
        assert_eq!(peer(Kind::Centrifuge).shown(&project()), "GOMAXPROCS=1 target/release/one 127.0.0.1:PORT");
        let shown = peer(Kind::Tidegate("uring")).shown(&project());
        assert!(shown.contains("--config crates/xtask/compare/tidegate.toml --workers 1 --io uring"), "{shown}");
    }

    #[test]
    fn a_config_gets_the_addresses_of_its_run() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("peer.conf.in");
        std::fs::write(&template, "listen @CLIENTS@; also @PUBLISHERS@; load @MODULE@;").unwrap();
        let mut peer = peer(Kind::Nchan);
        peer.part = Some("/m.so".into());
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let file = peer.write_config(&template, &Addresses::shown(), &out).unwrap();
        assert!(file.is_absolute());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "listen 127.0.0.1:PORT; also 127.0.0.1:PORT2; load /m.so;");
    }

    #[test]
    fn committed_configs_exist_and_leave_nothing_open_to_other_machines() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for kind in [Kind::Tidegate("epoll"), Kind::Nchan, Kind::Nats, Kind::Ws, Kind::Centrifuge] {
            let file = root.join(peer(kind).source());
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("0.0.0.0"), "{}", file.display());
        }
    }

    #[test]
    fn a_master_has_one_worker_or_it_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let said = "echo listening public http://127.0.0.1:1 >&2";
        for (children, found) in [("sleep 600 &", true), ("sleep 600 & sleep 600 &", false)] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{children} {said}; wait")]);
            let cores = Cores::choose().unwrap();
            let master =
                Server::start(&command, &cores, &Ready::Lines(&["public"]), &folder.path().join("log")).unwrap();
            assert_eq!(worker(master.pid()).is_ok(), found, "{children}");
        }
    }

    #[test]
    fn a_server_has_answered_when_its_bytes_came_and_not_when_it_hung_up() {
        for (answer, is_answer) in [("HTTP/1.0 404 Not Found\r\n\r\n", true), ("", false)] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 256]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(answered(&address).is_ok(), is_answer);
            server.join().unwrap();
        }
    }
}
