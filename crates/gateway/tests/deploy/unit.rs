//! The shipped unit beside the program: its command line, its times, its limits.

use clap::Parser as _;
use gateway::cli::{Cli, Command};
use gateway::config::Config;
use std::path::PathBuf;
use std::time::Duration;

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)
}

/// The lines of a unit file that count, as (key, value).
fn unit(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy(file)).expect("it is shipped");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    lines.map(|line| line.split_once('=').expect("key=value")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn all<'a>(unit: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    unit.iter().filter(|(name, _)| name == key).map(|(_, value)| &**value).collect()
}

fn one<'a>(unit: &'a [(String, String)], key: &str) -> &'a str {
    let [value] = all(unit, key)[..] else { panic!("{key} exactly once") };
    value
}

fn seconds(value: &str) -> Duration {
    Duration::from_secs(value.strip_suffix('s').and_then(|number| number.parse().ok()).expect("whole seconds"))
}

/// `tidegate check` for a command line of the unit, whose file is taken from the folder that it is installed from.
fn check(words: &[&str]) -> std::process::Output {
    let words: Vec<String> =
        words.iter().map(|word| word.replace("/etc/tidegate", deploy("").to_str().expect("UTF-8"))).collect();
    let mut command = crate::process::command(&["check"]);
    command.args(&words);
    command.output().expect("it runs")
}

#[test]
fn the_units_command_line_is_one_that_the_program_takes() {
    let unit = unit("tidegate.service");
    let words: Vec<&str> = one(&unit, "ExecStart").split_whitespace().collect();
    let cli = Cli::try_parse_from(&words).expect("a command line");
    assert!(matches!(cli.command, Some(Command::Serve(_))), "{cli:?}");
    // The next best one is refused.
    let misspelt: Vec<&str> = words.iter().map(|word| if *word == "--config" { "--confix" } else { word }).collect();
    assert!(Cli::try_parse_from(misspelt).is_err());

    let checked = check(&words[2..]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!check(&["--config", "/etc/tidegate/tidegate.tomk"]).status.success());
}

#[test]
fn the_drop_in_for_an_older_systemd_checks_the_file_that_the_unit_starts_with_and_then_signals() {
    let (unit, older) = (unit("tidegate.service"), unit("tidegate.service.d/before-systemd-253.conf"));
    let [check, signal] = all(&older, "ExecReload")[..] else { panic!("two steps") };
    assert_eq!(check.replacen("check", "serve", 1), one(&unit, "ExecStart"));
    assert_eq!(signal, "/bin/kill -HUP $MAINPID");
    assert_eq!(one(&older, "Type"), "notify");
    // The newest that is understood counts, and the last of them is the best.
    assert_eq!(all(&unit, "Type"), ["notify", "notify-reload"]);
    assert!(all(&unit, "ExecReload").is_empty(), "notify-reload sends the signal by itself; two would reload twice");
}

#[test]
fn the_unit_waits_longer_than_a_drain_takes_and_not_needlessly() {
    let unit = unit("tidegate.service");
    let bound = gateway::lifecycle::stop_bound(&Config::default());
    let waits = seconds(one(&unit, "TimeoutStopSec"));
    assert!(waits > bound && waits < bound + Duration::from_secs(10), "TimeoutStopSec={waits:?}, a drain {bound:?}");
    let drain = Config::default().drain;
    assert!(bound > drain.notice.get() + drain.time.get());
}

#[test]
fn the_unit_allows_what_the_program_uses() {
    let unit = unit("tidegate.service");
    let allowed = all(&unit, "SystemCallFilter");
    assert!(allowed.contains(&"io_uring_setup io_uring_enter io_uring_register"), "{allowed:?}");
    // Pinning and raising the limit of open files are in this group.
    assert!(!allowed.iter().any(|line| line.starts_with('~') && line.contains("@resources")), "{allowed:?}");
    assert_eq!(one(&unit, "RestrictAddressFamilies"), "AF_INET AF_INET6 AF_UNIX");
    assert_eq!(one(&unit, "RestartPreventExitStatus"), gateway::cli::EXIT_USAGE.to_string());
    assert!(all(&unit, "ProcSubset").is_empty(), "/proc/sys is read");
    assert_eq!(one(&unit, "NotifyAccess"), "main");
    assert!(seconds(one(&unit, "WatchdogSec")) >= Duration::from_secs(10));
}
