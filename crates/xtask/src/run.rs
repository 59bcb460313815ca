//! Runs one command, shows its output as it comes and keeps it for counting.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its standard output, line by line; standard error went straight to ours.
    pub lines: Vec<String>,
    /// How it ended; `None` when it was stopped at its time limit.
    pub status: Option<ExitStatus>,
}

impl Ran {
    /// Whether the command ended by itself and with status 0.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Why it did not succeed, for people.
    pub fn complaint(&self) -> String {
        match self.status {
            None => "stopped at its time limit".to_owned(),
            Some(status) => status.to_string(),
        }
    }
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs `command` with its output shown at once; stops it when `limit` has passed.
pub fn watched(command: &mut Command, limit: Duration) -> Result<Ran, String> {
    println!("$ {}", shown(command));
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().to_string_lossy()))?;
    let output = child.stdout.take().expect("stdout was asked to be piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let mut lines = Vec::new();
    loop {
        match receiver.recv_timeout(limit.saturating_sub(started.elapsed())) {
            Ok(line) => {
                println!("{line}");
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Ran { lines, status: None });
            }
        }
    }
    let _ = std::io::stdout().flush();
    let status = child.wait().map_err(|e| format!("waiting for {}: {e}", shown(command)))?;
    Ok(Ran { lines, status: Some(status) })
}

/// Runs `command` silently and gives its standard output; an error holds what it printed on standard error.
pub fn capture(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}: {}", shown(command), output.status, errors.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_kept_line_by_line_and_a_last_line_without_newline_counts() {
        let ran = watched(&mut shell("printf 'a\\nb'"), Duration::from_secs(30)).unwrap();
        assert_eq!(ran.lines, ["a", "b"]);
        assert!(ran.succeeded());
    }

    #[test]
    fn a_command_that_ends_with_another_status_did_not_succeed() {
        let ran = watched(&mut shell("exit 3"), Duration::from_secs(30)).unwrap();
        assert!(!ran.succeeded());
        assert!(ran.complaint().contains('3'), "{}", ran.complaint());
    }

    #[test]
    fn a_command_over_its_time_limit_is_stopped_and_says_so() {
        let ran = watched(&mut shell("echo begun; exec sleep 600"), Duration::from_millis(300)).unwrap();
        assert!(!ran.succeeded());
        assert_eq!(ran.complaint(), "stopped at its time limit");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let error = watched(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert!(error.contains("no-such-program"), "{error}");
    }
}
