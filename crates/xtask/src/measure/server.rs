//! A server to be measured: started on its core, waited for, ended with all its processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::cores::Cores;
use super::usage::{Usage, descendants};
use crate::gateway::{follow, listening};

/// From the start until it listens; also a JVM or a Node program takes no longer.
const READY_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether a port is open. There is no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Lines of the log shown when something went wrong.
const LOG_LINES_SHOWN: usize = 20;

/// How to learn that a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ready {
    /// It prints `listening KIND http://ADDRESS` on standard error, once for each of these kinds.
    Lines(&'static [&'static str]),
    /// It accepts connections at each of these addresses, which it was told.
    Ports(Vec<SocketAddr>),
}

/// A running server; dropping it ends it and its children.
pub struct Server {
    child: Child,
    log: PathBuf,
    urls: BTreeMap<String, String>,
}

impl Server {
    /// Starts `command` on the server's core and waits until it listens. What it prints goes to `log`.
    ///
    /// To be called from a thread that lives as long as the server is to live: the kernel ends the server with it.
    ///
    /// # Errors
    /// When it cannot be run, ends, or does not listen in time; with the end of its log.
    pub fn start(command: &Command, cores: &Cores, ready: &Ready, log: &Path) -> Result<Server, String> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let file = || File::create(log).map_err(|e| format!("{}: {e}", log.display()));
        let mut pinned = cores.for_server(command);
        // A setting of the person who measures must not change what is measured.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            pinned.env_remove(name);
        }
        pinned.stdin(Stdio::null());
        match ready {
            Ready::Lines(_) => pinned.stdout(Stdio::null()).stderr(Stdio::piped()),
            Ready::Ports(_) => {
                let file = file()?;
                let same = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
                pinned.stdout(same).stderr(file)
            }
        };
        let child = pinned.spawn().map_err(|e| format!("cannot run {}: {e}", crate::run::shown(&pinned)))?;
        let mut server = Server { child, log: log.to_path_buf(), urls: BTreeMap::new() };
        match ready {
            Ready::Lines(kinds) => {
                let stderr = server.child.stderr.take().expect("stderr was asked to be piped");
                let (sender, receiver) = mpsc::channel();
                let file = file()?;
                std::thread::spawn(move || follow(BufReader::new(stderr), file, &sender));
                server.wait_for_lines(kinds, &receiver)?;
            }
            Ready::Ports(addresses) => addresses.iter().try_for_each(|address| server.wait_for_port(*address))?,
        }
        Ok(server)
    }

    fn wait_for_lines(&mut self, kinds: &[&str], lines: &Receiver<String>) -> Result<(), String> {
        let started = Instant::now();
        while !kinds.iter().all(|kind| self.urls.contains_key(*kind)) {
            match lines.recv_timeout(READY_MAX.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    if let Some((kind, url)) = listening(&line) {
                        self.urls.entry(kind.to_owned()).or_insert_with(|| url.to_owned());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.complaint("it ended before it listened")),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.complaint(&format!("it did not say where it listens ({})", kinds.join(", "))));
                }
            }
        }
        Ok(())
    }

    fn wait_for_port(&mut self, address: SocketAddr) -> Result<(), String> {
        let started = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            self.still_runs()?;
            if started.elapsed() > READY_MAX {
                return Err(self.complaint(&format!("nothing listens at {address}")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `http://ADDRESS` of the listener of that kind, for a server that printed it.
    ///
    /// # Panics
    /// When [`Ready`] did not name that kind.
    pub fn url(&self, kind: &str) -> &str {
        self.urls.get(kind).unwrap_or_else(|| panic!("nobody waited for the listener `{kind}`"))
    }

    /// The same for clients: `ws://ADDRESS`.
    ///
    /// # Panics
    /// As [`Server::url`].
    pub fn ws(&self, kind: &str) -> String {
        self.url(kind).replacen("http", "ws", 1)
    }

    /// `ADDRESS` of the public listener with TLS, which it printed before the API's.
    ///
    /// # Errors
    /// When it has none.
    pub fn tls(&self) -> Result<String, String> {
        let text = std::fs::read_to_string(&self.log).map_err(|e| format!("{}: {e}", self.log.display()))?;
        let url = text.lines().find_map(|line| line.split_once("listening public https://"));
        url.map(|(_, address)| address.trim().to_owned()).ok_or_else(|| self.complaint("it has no listener with TLS"))
    }

    /// What it and its children have used.
    ///
    /// # Errors
    /// When it is no longer running.
    pub fn usage(&self) -> Result<Usage, String> {
        Usage::of_tree(self.pid())
    }

    /// An error when it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.complaint(&format!("it ended with {status}"))),
            Err(error) => Err(format!("cannot ask for its state: {error}")),
        }
    }

    /// `what` with the end of the log below it.
    pub fn complaint(&self, what: &str) -> String {
        format!("{what}; the end of {}:{}", self.log.display(), tail(&self.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let children = descendants(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !children.is_empty() {
            let pids = children.iter().map(u32::to_string);
            let _ = Command::new("kill").arg("-KILL").args(pids).stderr(Stdio::null()).status();
        }
    }
}

/// The last lines of a file, indented, each on a line of its own.
pub(super) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().map(|line| format!("\n  {line}")).collect()
}

/// A port on which nothing listens now, for servers that cannot choose one themselves and tell. Somebody else may take it
/// before the server does; then its start fails and says so.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|e| format!("no port is free: {e}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(body: &str, ready: &Ready) -> Result<Server, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", body]);
        Server::start(&command, &Cores::choose().unwrap(), ready, &folder.path().join("log"))
    }

    #[test]
    fn the_addresses_are_those_that_the_server_prints() {
        let body = "echo listening api http://127.0.0.1:2 >&2; echo listening public http://127.0.0.1:1 >&2; \
                    exec sleep 600";
        let mut server = start(body, &Ready::Lines(&["public", "api"])).unwrap();
        assert_eq!((server.ws("public").as_str(), server.url("api")), ("ws://127.0.0.1:1", "http://127.0.0.1:2"));
        server.still_runs().unwrap();
        assert!(server.usage().unwrap().rss_bytes > 0);
    }

    #[test]
    fn a_server_that_ends_at_its_start_is_an_error_with_its_last_words() {
        for ready in [Ready::Lines(&["public"]), Ready::Ports(vec![([127, 0, 0, 1], free_port().unwrap()).into()])] {
            let error = start("echo no such config >&2; exit 2", &ready).err().unwrap();
            assert!(error.contains("no such config"), "{error}");
        }
    }

    #[test]
    fn a_dropped_server_takes_its_children_along() {
        // The shell stays the parent, as a master process does.
        let body = "sleep 600 & echo listening public http://127.0.0.1:1 >&2; wait";
        let server = start(body, &Ready::Lines(&["public"])).unwrap();
        let children = descendants(server.pid());
        assert_eq!(children.len(), 1);
        let exists = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        assert!(exists(children[0]));
        drop(server);
        while exists(children[0]) {
            std::thread::yield_now();
        }
    }
}
