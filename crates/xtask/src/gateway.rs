//! Starts a release gateway for a step and learns its addresses.
//!
//! Ports are chosen by the kernel (`127.0.0.1:0`). The gateway prints one line on standard error for each address
//! it listens on, `listening public http://ADDRESS` and `listening api http://ADDRESS`; that is how we learn them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// From start to both `listening` lines; a healthy start takes milliseconds.
const READY_MAX: Duration = Duration::from_secs(30);
/// Lines of the log shown when something went wrong.
const LOG_LINES_SHOWN: usize = 40;

/// A running gateway; dropping it ends the process.
pub struct Gateway {
    child: Child,
    /// `http://127.0.0.1:PORT` of the public listener.
    pub public: String,
    /// `https://127.0.0.1:PORT` of the one with TLS, if it has one.
    pub secure: Option<String>,
    /// `http://127.0.0.1:PORT` of the API listener.
    pub api: String,
    /// Everything that the gateway wrote on standard error.
    pub log: PathBuf,
}

impl Gateway {
    /// Starts `binary` with `arguments` on free loopback ports and waits until it listens.
    pub fn start(binary: &Path, arguments: &[&str], log: &Path) -> Result<Gateway, String> {
        let mut command = Command::new(binary);
        command.args(arguments);
        command.args(["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
        Gateway::start_command(&mut command, log)
    }

    fn start_command(command: &mut Command, log: &Path) -> Result<Gateway, String> {
        println!("$ {}", crate::run::shown(command));
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        // A setting of the person who runs the tests must not change what they test.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", command.get_program().to_string_lossy()))?;
        let stderr = child.stderr.take().expect("stderr was asked to be piped");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || follow(BufReader::new(stderr), file, &sender));
        let mut gateway =
            Gateway { child, public: String::new(), secure: None, api: String::new(), log: log.to_path_buf() };
        gateway.wait_until_listening(&receiver)?;
        println!("gateway: public {}  api {}", gateway.public, gateway.api);
        Ok(gateway)
    }

    fn wait_until_listening(&mut self, lines: &Receiver<String>) -> Result<(), String> {
        let started = Instant::now();
        while self.public.is_empty() || self.api.is_empty() {
            match lines.recv_timeout(READY_MAX.saturating_sub(started.elapsed())) {
                Ok(line) => match listening(&line) {
                    // Said before the address of the API.
                    Some(("public", url)) if url.starts_with("https:") => self.secure = Some(url.to_owned()),
                    Some(("public", url)) if self.public.is_empty() => self.public = url.to_owned(),
                    Some(("api", url)) if self.api.is_empty() => self.api = url.to_owned(),
                    _ => {}
                },
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.complaint("the gateway ended before it listened"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.complaint("the gateway printed no `listening public` and `listening api` line"));
                }
            }
        }
        Ok(())
    }

    /// An error when the gateway is no longer running: whatever the tests say, it must have outlived them.
    pub fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.complaint(&format!("the gateway ended during the tests with {status}"))),
            Err(error) => Err(format!("cannot ask for the gateway's state: {error}")),
        }
    }

    /// `what` with the end of the log below it.
    pub fn complaint(&self, what: &str) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("{what}; the end of {}:\n  {}", self.log.display(), tail.join("\n  "))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the log to its file for as long as the gateway lives, so that its pipe never fills, and passes lines on.
pub(crate) fn follow(mut input: impl BufRead, mut file: File, lines: &mpsc::Sender<String>) {
    let mut line = Vec::new();
    while matches!(input.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let _ = file.write_all(&line);
        // After the start nobody listens any more; the file still wants the rest.
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        line.clear();
    }
}

/// (`public` | `api`, URL) of a `listening` line; a time stamp or level may stand before it.
pub(crate) fn listening(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("listening ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let url = rest.split_whitespace().next()?;
    let is_url = url.starts_with("http://") || url.starts_with("https://");
    (is_url && !url.ends_with(":0")).then_some((kind, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_line_gives_kind_and_url_with_or_without_a_time_before_it() {
        assert_eq!(listening("listening public http://127.0.0.1:41234"), Some(("public", "http://127.0.0.1:41234")));
        assert_eq!(
            listening("2026-11-22T20:00:00Z  INFO listening api http://[::1]:9 workers=2\n"),
            Some(("api", "http://[::1]:9"))
        );
        assert_eq!(listening("listening public https://[::1]:443"), Some(("public", "https://[::1]:443")));
        assert_eq!(listening("listening public unix:/run/tidegate.sock"), None);
        assert_eq!(listening("now listening"), None);
    }

    fn script(body: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", body]);
        command
    }

    #[test]
    fn the_addresses_are_those_that_the_process_prints() {
        let folder = tempfile::tempdir().unwrap();
        let body = "echo listening api http://127.0.0.1:2 >&2; echo listening public https://127.0.0.1:3 >&2; echo listening public http://127.0.0.1:1 >&2; exec sleep 600";
        let mut gateway = Gateway::start_command(&mut script(body), &folder.path().join("log")).unwrap();
        assert_eq!((&*gateway.public, &*gateway.api), ("http://127.0.0.1:1", "http://127.0.0.1:2"));
        assert_eq!(gateway.secure.as_deref(), Some("https://127.0.0.1:3"));
        gateway.still_runs().unwrap();
    }

    #[test]
    fn a_gateway_that_ends_at_its_start_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let body = "echo 'config: unknown key `wrokers`' >&2; exit 2";
        let error = Gateway::start_command(&mut script(body), &folder.path().join("log")).err().unwrap();
        assert!(error.contains("wrokers"), "{error}");
    }
}
