//! What the distribution or the toolchain provides: rustfmt, clippy, Python, Node.js, Chromium, nginx,
//! HAProxy, openssl, gnutls-cli.

use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Need, chromium, proxies};
use crate::Project;
use crate::run::{capture, watched};

/// The longest that a package manager may take.
const INSTALL_MAX: Duration = Duration::from_secs(20 * 60);
/// The conformance suite's pinned wheels exist for these.
const PYTHONS: std::ops::RangeInclusive<u32> = 11..=13;
const NODE_MIN: u32 = 20;

/// Whether we may install packages of the distribution.
pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.st_uid() == 0)
}

/// The program that meets `need`, or what is missing.
pub(super) fn find(project: &Project, need: Need) -> Result<PathBuf, Missing> {
    let lack = |why: String, apt, command| Missing { need, why, apt, command };
    match need {
        Need::Rustfmt => capture(project.cargo("fmt").arg("--version"))
            .map(|_| project.cargo.clone())
            .map_err(|_| lack("cargo fmt does not run".into(), &[], Some("rustup component add rustfmt"))),
        Need::Clippy => capture(project.cargo("clippy").arg("--version"))
            .map(|_| project.cargo.clone())
            .map_err(|_| lack("cargo clippy does not run".into(), &[], Some("rustup component add clippy"))),
        Need::Python => python().map_err(|why| lack(why, &["python3", "python3-venv"], None)),
        Need::Node => node().map_err(|why| lack(why, &["nodejs", "npm"], None)),
        Need::Chromium => chromium::find(project).map_err(|why| lack(why, &["chromium"], None)),
        Need::Nginx => proxies::find(project, "nginx").map_err(|why| lack(why, &[], None)),
        Need::Haproxy => proxies::find(project, "haproxy").map_err(|why| lack(why, &[], None)),
        Need::Openssl => in_path("openssl").ok_or_else(|| lack("no openssl in PATH".to_owned(), &["openssl"], None)),
        Need::Gnutls => {
            in_path("gnutls-cli").ok_or_else(|| lack("no gnutls-cli in PATH".to_owned(), &["gnutls-bin"], None))
        }
        _ => Err(lack("not a program of the system".into(), &[], None)),
    }
}

/// The one command that mends everything in the list that a command can mend.
pub(super) fn mending_command(missing: &[Missing]) -> Option<String> {
    let mut commands = Vec::new();
    let packages = apt_packages(missing);
    if !packages.is_empty() {
        let sudo = if is_root() { "" } else { "sudo " };
        commands.push(format!("{sudo}apt-get install --yes --no-install-recommends {}", packages.join(" ")));
    }
    commands.extend(missing.iter().filter_map(|lack| lack.command).map(str::to_owned));
    (!commands.is_empty()).then(|| commands.join(" && "))
}

fn apt_packages(missing: &[Missing]) -> Vec<&'static str> {
    missing.iter().flat_map(|lack| lack.apt.iter().copied()).collect()
}

/// Installs the distribution's packages; needs root. Lists of packages are refreshed only when they are too old.
pub(super) fn install(missing: &[Missing]) -> Result<(), String> {
    let packages = apt_packages(missing);
    if packages.is_empty() {
        return Ok(());
    }
    if in_path("apt-get").is_none() {
        return Err("no apt-get here: install by hand what is missing".to_owned());
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        watched(&mut command, INSTALL_MAX)
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    if apt(&arguments)?.succeeded() {
        return Ok(());
    }
    apt(&["update"])?;
    let ran = apt(&arguments)?;
    match ran.succeeded() {
        true => Ok(()),
        false => Err(format!("apt-get install: {}", ran.complaint())),
    }
}

/// The first folder of PATH that holds the program.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

pub(super) fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.st_mode() & 0o111 != 0)
}

fn python() -> Result<PathBuf, String> {
    let mut why = "no python3 in PATH".to_owned();
    for name in ["python3", "python3.13", "python3.12", "python3.11"] {
        let Some(program) = in_path(name) else {
            continue;
        };
        // `ensurepip` is what Debian leaves out of python3 and ships in python3-venv.
        let script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
        match capture(Command::new(&program).args(["-c", script])) {
            Ok(version) if python_fits(version.trim()) => return Ok(program),
            Ok(version) => why = format!("{} is {}", program.display(), version.trim()),
            Err(_) => why = format!("{} has no venv", program.display()),
        }
    }
    Err(why)
}

fn python_fits(version: &str) -> bool {
    let minor = version.strip_prefix("3.").and_then(|minor| minor.parse().ok());
    minor.is_some_and(|minor| PYTHONS.contains(&minor))
}

fn node() -> Result<PathBuf, String> {
    let node = in_path("node").ok_or("no node in PATH")?;
    let version = capture(Command::new(&node).arg("--version"))?;
    if !node_fits(version.trim()) {
        return Err(format!("{} is {}", node.display(), version.trim()));
    }
    in_path("npm").ok_or("no npm in PATH")?;
    Ok(node)
}

fn node_fits(version: &str) -> bool {
    let major = version.strip_prefix('v').and_then(|rest| rest.split('.').next());
    major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= NODE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_from_3_11_to_3_13_fit() {
        let fitting: Vec<_> = ["2.7", "3.1", "3.10", "3.11", "3.12", "3.13", "3.14", ""]
            .into_iter()
            .filter(|version| python_fits(version))
            .collect();
        assert_eq!(fitting, ["3.11", "3.12", "3.13"]);
    }

    #[test]
    fn node_fits_from_20_on() {
        assert!(node_fits("v20.0.0") && node_fits("v24.1.0"));
        assert!(!node_fits("v18.19.1") && !node_fits("nonsense"));
    }

    #[test]
    fn all_packages_are_mended_by_one_command() {
        let lack = |need, apt, command| Missing { need, why: String::new(), apt, command };
        let missing = [
            lack(Need::Chromium, &["chromium"], None),
            lack(Need::Python, &["python3", "python3-venv"], None),
            lack(Need::Clippy, &[], Some("rustup component add clippy")),
        ];
        let command = mending_command(&missing).unwrap();
        let expected = "apt-get install --yes --no-install-recommends chromium python3 python3-venv && rustup component add clippy";
        assert_eq!(command.trim_start_matches("sudo "), expected);
        assert_eq!(mending_command(&[]), None);
    }
}
