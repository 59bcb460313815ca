//! The real binary as a process, for the tests that start it.

// Not every one of them needs all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

/// Free ports on the loopback interface.
pub(crate) const PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];

/// Nothing here should take longer; a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    child: Child,
    err: BufReader<ChildStderr>,
    /// What was read from it so far.
    said: String,
    pub(crate) banner: Vec<String>,
    pub(crate) public: String,
    pub(crate) api: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only fails when it has ended, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with these arguments and no environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The binary on free ports with two workers.
pub(crate) fn start(args: &[&str]) -> Running {
    start_as(command(&[args, &PORTS, &["--workers", "2"]].concat()))
}

/// A prepared command, once it listens.
pub(crate) fn start_as(mut command: Command) -> Running {
    let mut child = command.spawn().expect("the binary starts");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut banner = Vec::new();
    let mut url = |kind: &str| loop {
        let mut line = String::new();
        assert_ne!(err.read_line(&mut line).expect("readable"), 0, "it ended before it listened: {banner:?}");
        banner.push(line.trim_end().to_owned());
        if let Some(url) = line.trim_end().strip_prefix(&format!("listening {kind} http://")) {
            return url.to_owned();
        }
    };
    let (public, api) = (url("public"), url("api"));
    Running { child, err, said: banner.join("\n"), banner, public, api }
}

impl Running {
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    pub(crate) fn read_until(&mut self, wanted: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.err.read_line(&mut line).expect("readable"), 0, "it ended before it said {wanted:?}");
            self.said.push_str(&line);
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// Ends it, and gives back all that it has written: to standard error, then to standard output.
    pub(crate) fn end(mut self) -> String {
        self.signal("TERM");
        self.read_until("draining");
        self.signal("TERM");
        self.err.read_to_string(&mut self.said).expect("readable");
        self.child.stdout.take().expect("piped").read_to_string(&mut self.said).expect("readable");
        std::mem::take(&mut self.said)
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

pub(crate) fn ask(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("settable");
    socket.write_all(request.as_bytes()).expect("writable");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, then the end");
    answer
}

pub(crate) fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

pub(crate) fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writable");
    file
}

pub(crate) fn path(file: &tempfile::NamedTempFile) -> &str {
    Path::to_str(file.path()).expect("UTF-8")
}
