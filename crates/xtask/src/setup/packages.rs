//! What is fetched below `target/` (and into `node_modules`) by the tools' own clients: pip, npm, cargo.
//!
//! Each installation leaves a stamp with what it was made from; a second run with the same inputs returns at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Need, Tools, system};
use crate::Project;
use crate::run::{Ran, capture, watched};

/// Fetching and, for cargo-deny, compiling: 70 s on two idle cores, far more on busy ones.
const FETCH_MAX: Duration = Duration::from_secs(30 * 60);
/// The release that is installed where none is found.
const DENY_VERSION: &str = "0.20.2";
/// The first minor version (of 0.x) that reads deny.toml as it is written.
const DENY_MINOR_MIN: u32 = 18;

/// What [`provide`] would have to fetch, for people.
pub(super) fn pending(project: &Project, needs: &[Need]) -> Vec<String> {
    needs.iter().filter_map(|need| pending_one(project, *need)).collect()
}

fn pending_one(project: &Project, need: Need) -> Option<String> {
    match need {
        Need::CargoDeny if find_deny(project).is_none() => {
            Some(format!("cargo-deny {DENY_VERSION} (compiled, minutes)"))
        }
        Need::ConformanceSuite if !project.target.join("conformance/stamp.json").exists() => {
            Some("conformance suite (75 MB)".to_owned())
        }
        Need::PythonPackages if !python_stamp(project).fits() => Some("Python packages of the client tests".to_owned()),
        Need::SdkModules | Need::WebModules => {
            let folder = modules_folder(project, need)?;
            let fits = npm_stamp(&folder).is_none_or(|stamp| stamp.fits());
            (!fits).then(|| format!("npm packages of {}", project.short(&folder)))
        }
        _ => None,
    }
}

/// Finds or installs what `need` stands for.
pub(super) fn provide(project: &Project, tools: &Tools, need: Need) -> Result<PathBuf, String> {
    match need {
        Need::CargoDeny => cargo_deny(project),
        Need::ConformanceSuite => conformance_suite(project, &tools.of(Need::Python)?),
        Need::PythonPackages => python_packages(project, &tools.of(Need::Python)?),
        Need::SdkModules | Need::WebModules => {
            tools.of(Need::Node)?;
            let folder = modules_folder(project, need).ok_or("no folder for it")?;
            npm_packages(&folder)
        }
        _ => Err("comes from the system".to_owned()),
    }
}

fn done(ran: &Ran, what: &str) -> Result<(), String> {
    match ran.succeeded() {
        true => Ok(()),
        false => Err(format!("{what}: {}", ran.complaint())),
    }
}

/// A file that says what an installation was made from.
struct Stamp {
    file: PathBuf,
    inputs: String,
}

impl Stamp {
    fn fits(&self) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|text| text == self.inputs)
    }

    fn write(&self) -> Result<(), String> {
        std::fs::write(&self.file, &self.inputs).map_err(|e| format!("{}: {e}", self.file.display()))
    }
}

// --- cargo-deny

fn find_deny(project: &Project) -> Option<PathBuf> {
    let ours = project.target.join("tools/bin/cargo-deny");
    [Some(ours), system::in_path("cargo-deny")].into_iter().flatten().find(|program| {
        system::is_program(program)
            && capture(Command::new(program).arg("--version")).is_ok_and(|version| deny_fits(&version))
    })
}

fn deny_fits(version: &str) -> bool {
    let mut numbers = version.trim().rsplit(' ').next().unwrap_or_default().split('.');
    let major = numbers.next().and_then(|number| number.parse::<u32>().ok());
    let minor = numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (major, minor) {
        (Some(0), Some(minor)) => minor >= DENY_MINOR_MIN,
        (Some(_), Some(_)) => true,
        _ => false,
    }
}

/// Built without optimisation and without its network features: the checks take a second either way.
fn cargo_deny(project: &Project) -> Result<PathBuf, String> {
    if let Some(found) = find_deny(project) {
        return Ok(found);
    }
    let mut command = project.cargo("install");
    command.args(["cargo-deny", "--locked", "--debug", "--no-default-features", "--version", DENY_VERSION]);
    command.arg("--root").arg(project.target.join("tools"));
    command.env("CARGO_TARGET_DIR", project.target.join("tools/build"));
    done(&watched(&mut command, FETCH_MAX)?, "cargo install cargo-deny")?;
    // 1.5 GB that nobody reads again.
    let _ = std::fs::remove_dir_all(project.target.join("tools/build"));
    find_deny(project).ok_or_else(|| "cargo-deny was installed but does not run".to_owned())
}

// --- Python

/// The suite's own installer knows what is up to date.
fn conformance_suite(project: &Project, python: &Path) -> Result<PathBuf, String> {
    let folder = project.target.join("conformance");
    let mut command = Command::new(python);
    command.arg(project.xtask("conformance/install")).arg("--tls").arg(&folder).current_dir(&project.root);
    done(&watched(&mut command, FETCH_MAX)?, "installing the conformance suite")?;
    Ok(folder)
}

/// What the tests import, the programs that they start, and the archive of whose own tests are run.
const PYTHON_LISTS: [&str; 3] = ["sdk/python/requirements.txt", "wss/requirements.txt", "sdk/suite/source.txt"];

fn python_stamp(project: &Project) -> Stamp {
    let inputs = PYTHON_LISTS.map(|list| std::fs::read_to_string(project.xtask(list)).unwrap_or_default());
    Stamp { file: project.target.join("python/stamp"), inputs: inputs.concat() }
}

/// Where [`python_packages`] unpacks the client's own tests.
pub fn client_suite(project: &Project) -> PathBuf {
    project.target.join("python/suite")
}

/// Gives the interpreter inside the virtual environment.
fn python_packages(project: &Project, python: &Path) -> Result<PathBuf, String> {
    let folder = project.target.join("python");
    let inside = folder.join("bin/python");
    let stamp = python_stamp(project);
    if stamp.fits() && capture(Command::new(&inside).arg("--version")).is_ok() {
        return Ok(inside);
    }
    let mut command = Command::new(python);
    command.args(["-m", "venv", "--clear"]).arg(&folder);
    done(&watched(&mut command, FETCH_MAX)?, "python -m venv")?;
    let pip = |arguments: &[&str], list: &str| {
        let mut command = Command::new(&inside);
        command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]).args(arguments);
        command.arg("--require-hashes").arg("--requirement").arg(project.xtask(list));
        command
    };
    let [packages, programs, source] = PYTHON_LISTS;
    for list in [packages, programs] {
        done(&watched(&mut pip(&["install"], list), FETCH_MAX)?, "pip install")?;
    }
    // A wheel has no tests, the source archive has.
    let download = ["download", "--no-deps", "--no-binary", "centrifuge-python", "--dest"];
    let suite = client_suite(project);
    let to = suite.to_str().ok_or("the path of target/ is not UTF-8")?;
    done(&watched(&mut pip(&[&download[..], &[to]].concat(), source), FETCH_MAX)?, "pip download")?;
    unpack(&inside, &suite)?;
    stamp.write()?;
    Ok(inside)
}

/// Unpacks the only archive in a folder beside it.
fn unpack(python: &Path, folder: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let archives = entries.flatten().map(|entry| entry.path());
    let archive =
        archives.filter(|path| path.extension().is_some_and(|e| e == "gz")).last().ok_or("no archive came")?;
    let mut command = Command::new(python);
    command.args(["-m", "tarfile", "--extract"]).arg(&archive).arg(folder);
    done(&watched(&mut command, FETCH_MAX)?, "unpacking the client's tests")
}

// --- npm

fn modules_folder(project: &Project, need: Need) -> Option<PathBuf> {
    match need {
        Need::SdkModules => Some(project.xtask("sdk/js")),
        Need::WebModules => Some(project.xtask("web")),
        _ => None,
    }
}

/// `None` for a folder whose tests use no package at all.
fn npm_stamp(folder: &Path) -> Option<Stamp> {
    let inputs = std::fs::read_to_string(folder.join("package-lock.json")).ok()?;
    Some(Stamp { file: folder.join("node_modules/.stamp"), inputs })
}

/// Installs what the lock file in `folder` names, and gives the folder.
///
/// # Errors
/// When npm does not do it.
pub fn npm_packages(folder: &Path) -> Result<PathBuf, String> {
    let Some(stamp) = npm_stamp(folder).filter(|stamp| !stamp.fits()) else {
        return Ok(folder.to_path_buf());
    };
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder);
    done(&watched(&mut command, FETCH_MAX)?, "npm ci")?;
    // A lock without packages makes no folder.
    std::fs::create_dir_all(folder.join("node_modules")).map_err(|e| format!("{}: {e}", folder.display()))?;
    stamp.write()?;
    Ok(folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_deny_fits_from_the_version_that_reads_our_file() {
        assert!(deny_fits("cargo-deny 0.18.0\n") && deny_fits("cargo-deny 0.20.2") && deny_fits("cargo-deny 1.0.0"));
        assert!(!deny_fits("cargo-deny 0.14.2") && !deny_fits(""));
    }

    #[test]
    fn a_stamp_fits_until_its_inputs_change() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = |inputs: &str| Stamp { file: folder.path().join("stamp"), inputs: inputs.to_owned() };
        assert!(!stamp("ws==8").fits());
        stamp("ws==8").write().unwrap();
        assert!(stamp("ws==8").fits());
        assert!(!stamp("ws==9").fits());
    }
}
