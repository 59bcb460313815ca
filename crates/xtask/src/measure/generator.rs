//! The load generator: run on its cores, its JSON line read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cores::Cores;
use super::server::tail;

/// `tidegate-load`.
#[derive(Clone, Debug)]
pub struct Generator {
    binary: PathBuf,
    cores: Cores,
    /// Where its complaints go.
    log: PathBuf,
}

/// What a run came to: the fields of the generator's line that measurements use.
#[derive(Deserialize, Clone, PartialEq, Debug)]
pub struct Run {
    /// The most clients that were ready at one time.
    pub connections: u64,
    /// Messages, publications or attempts.
    pub sent: u64,
    /// Messages that came back, deliveries, or clients let in.
    pub received: u64,
    /// Messages or deliveries that did not arrive.
    pub lost: u64,
    /// Arrived more than once.
    pub duplicated: u64,
    /// Arrived before an earlier one.
    pub out_of_order: u64,
    /// Length of the measured phase.
    pub seconds: f64,
    /// Against the intended time of sending; `None` if nothing arrived.
    pub latency_us: Option<Percentiles>,
    /// With `--server-pid`.
    pub server: Option<ServerUse>,
    /// Share of the measured phase in which the generator worked; near 1 the latencies are its own.
    pub generator_busy: f64,
    /// Clients that never became ready.
    pub failed: u64,
    /// Clients that were lost.
    pub disconnected: u64,
    /// Clients whose close was not answered as it should be.
    pub unclean: u64,
    /// The whole line.
    #[serde(skip)]
    pub line: Value,
    /// The exit code was 0: nothing at all went wrong.
    #[serde(skip)]
    pub is_clean: bool,
    /// What it said on standard error, the last lines.
    #[serde(skip)]
    pub complaints: String,
}

/// Latencies in microseconds.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

/// What the server used.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct ServerUse {
    /// Resident memory at the end of the measured phase.
    pub rss_bytes: u64,
    /// CPU time of all its threads in the measured phase.
    pub cpu_seconds: f64,
    /// Resident memory before the first client.
    pub rss_bytes_before: u64,
    /// The difference of the two, spread over the clients.
    pub rss_bytes_per_connection: f64,
}

impl Generator {
    /// The generator at `binary`; its complaints go to `log`.
    pub fn new(binary: &Path, cores: &Cores, log: &Path) -> Generator {
        Generator { binary: binary.to_path_buf(), cores: cores.clone(), log: log.to_path_buf() }
    }

    /// Runs one scenario with `--json`.
    ///
    /// # Errors
    /// When it prints no line within `limit`. A run in which something went wrong is no error here: see
    /// [`Run::is_clean`].
    pub fn run<A: AsRef<str>>(&self, arguments: &[A], limit: Duration) -> Result<Run, String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments.iter().map(AsRef::as_ref)).arg("--json");
        let shown = crate::run::shown(&command);
        let (output, is_clean) = self.output(&command, limit).map_err(|why| format!("{shown}: {why}"))?;
        let mut run = Run::parse(&output).map_err(|why| format!("{shown}: {why}{}", tail(&self.log)))?;
        run.is_clean = is_clean;
        run.complaints = tail(&self.log);
        Ok(run)
    }

    /// Standard output, and whether the exit code was 0.
    fn output(&self, command: &Command, limit: Duration) -> Result<(String, bool), String> {
        let at_log = |error: std::io::Error| format!("{}: {error}", self.log.display());
        if let Some(folder) = self.log.parent() {
            std::fs::create_dir_all(folder).map_err(at_log)?;
        }
        let log = File::create(&self.log).map_err(at_log)?;
        let mut pinned = self.cores.for_generator(command);
        pinned.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = pinned.spawn().map_err(|error| format!("cannot be run: {error}"))?;
        let mut stdout = child.stdout.take().expect("stdout was asked to be piped");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = String::new();
            let read = stdout.read_to_string(&mut output).map(|_| output);
            let _ = sender.send(read);
        });
        let output = receiver.recv_timeout(limit);
        if output.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        match output {
            Ok(output) => Ok((output.map_err(|error| error.to_string())?, status.success())),
            Err(_) => Err(format!("not done after {} s{}", limit.as_secs(), tail(&self.log))),
        }
    }
}

impl Run {
    /// Reads the line, the last one of `output` that is not empty.
    pub fn parse(output: &str) -> Result<Run, String> {
        let line = output.lines().rev().find(|line| !line.trim().is_empty()).ok_or("it printed no line")?;
        let value: Value = serde_json::from_str(line).map_err(|error| format!("its line is not JSON: {error}"))?;
        let mut run = Run::deserialize(&value).map_err(|error| format!("its line is another one: {error}"))?;
        run.line = value;
        Ok(run)
    }

    /// Microseconds of the server's CPU per message that arrived. `None` without `--server-pid`, or if nothing arrived.
    pub fn cpu_us_per_message(&self) -> Option<f64> {
        let server = self.server?;
        (self.received > 0).then(|| server.cpu_seconds * 1e6 / self.received as f64)
    }

    /// The run itself, or what went wrong in it.
    ///
    /// # Errors
    /// When [`Run::is_clean`] is false.
    pub fn clean(self) -> Result<Run, String> {
        if self.is_clean {
            Ok(self)
        } else {
            Err(format!("the run was not clean:{}\n  {}", self.complaints, self.line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"scenario":"echo","connections":8,"sent":100,"received":50,"lost":0,"duplicated":0,"out_of_order":0,"seconds":1.0,"latency_us":{"p50":1,"p90":2,"p99":3,"p999":4,"max":5},"server":{"rss_bytes":9,"cpu_seconds":0.0005,"rss_bytes_before":1,"rss_bytes_per_connection":1.0},"generator_busy":0.5,"misdelivered":0,"foreign":0,"failed":0,"disconnected":0,"unclean":0,"opening_us":null,"pings":{"total":0,"min":0,"max":0},"reasons":{}}"#;

    #[test]
    fn the_line_is_read_behind_whatever_stands_before_it() {
        let run = Run::parse(&format!("opening 8\n{LINE}\n\n")).unwrap();
        assert_eq!((run.connections, run.received, run.latency_us.unwrap().p99), (8, 50, 3));
        assert_eq!(run.cpu_us_per_message(), Some(10.0));
        assert_eq!(run.line["scenario"], "echo");
    }

    #[test]
    fn a_run_without_server_or_arrivals_has_no_cost() {
        let without = LINE.replace("\"received\":50", "\"received\":0");
        assert_eq!(Run::parse(&without).unwrap().cpu_us_per_message(), None);
        let mut value: Value = serde_json::from_str(LINE).unwrap();
        value.as_object_mut().unwrap().remove("server");
        assert_eq!(Run::parse(&value.to_string()).unwrap().cpu_us_per_message(), None);
        value["latency_us"] = Value::Null;
        assert_eq!(Run::parse(&value.to_string()).unwrap().latency_us, None);
    }

    #[test]
    fn what_is_not_the_line_is_an_error_that_says_why() {
        assert!(Run::parse("").unwrap_err().contains("no line"));
        assert!(Run::parse("error: no").unwrap_err().contains("not JSON"));
        assert!(Run::parse(&LINE.replace("\"lost\":0,", "")).unwrap_err().contains("lost"));
    }

    /// A generator that prints `body`'s output.
    fn generator(folder: &Path, body: &str) -> Generator {
        use std::os::unix::fs::PermissionsExt;
        let binary = folder.join("generator");
        std::fs::write(&binary, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Generator::new(&binary, &Cores::choose().unwrap(), &folder.join("log"))
    }

    #[test]
    fn a_run_with_faults_is_told_from_a_clean_one_by_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        for (code, clean) in [(0, true), (1, false)] {
            let body = format!("echo '3 x lost' >&2; test \"$2\" = --json || exit 9; echo '{LINE}'; exit {code}");
            let run = generator(folder.path(), &body).run(&["echo"], Duration::from_secs(30)).unwrap();
            assert_eq!(run.is_clean, clean);
            assert_eq!(run.clean().map_err(|why| why.contains("3 x lost")).err(), (!clean).then_some(true));
        }
    }

    #[test]
    fn a_run_that_does_not_end_is_stopped_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let endless = generator(folder.path(), "echo opening >&2; exec sleep 600");
        let error = endless.run(&["hold"], Duration::from_millis(500)).unwrap_err();
        assert!(error.contains("hold --json") && error.contains("not done"), "{error}");
    }
}
