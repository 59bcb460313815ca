//! Packages of the distribution, unpacked into a folder instead of installed: needs no root, and starts no service.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::system::{in_path, is_root};
use crate::run::{capture, watched};

/// Fetching some 100 MB of packages.
const FETCH_MAX: Duration = Duration::from_secs(20 * 60);

/// Fetches `packages`, with what they need and this machine lacks, and unpacks all into `folder`.
///
/// # Errors
/// When there is no apt-get, or it does not have them.
pub fn unpack(packages: &[&str], folder: &Path) -> Result<(), String> {
    for program in ["apt-get", "dpkg"] {
        in_path(program).ok_or_else(|| format!("no {program} here to unpack {} with", packages.join(" ")))?;
    }
    let fetched = folder.with_extension("packages");
    std::fs::create_dir_all(&fetched).map_err(|e| format!("{}: {e}", fetched.display()))?;
    // The simulation lists what an installation would add.
    let simulate = || {
        let mut command = Command::new("apt-get");
        capture(command.args(["--simulate", "--no-install-recommends", "install"]).args(packages))
    };
    let simulated = match simulate() {
        // The lists of packages may be missing, as in a new container.
        Err(_) if is_root() => {
            watched(Command::new("apt-get").arg("update"), FETCH_MAX)?;
            simulate()
        }
        first => first,
    }?;
    let names = wanted(packages, &simulated);
    let ran = watched(Command::new("apt-get").arg("download").args(&names).current_dir(&fetched), FETCH_MAX)?;
    if !ran.succeeded() {
        return Err(format!("apt-get download: {}", ran.complaint()));
    }
    for entry in std::fs::read_dir(&fetched).map_err(|e| format!("{}: {e}", fetched.display()))? {
        let package = entry.map_err(|e| e.to_string())?.path();
        capture(Command::new("dpkg").arg("-x").arg(&package).arg(folder))?;
    }
    std::fs::remove_dir_all(&fetched).map_err(|e| format!("{}: {e}", fetched.display()))
}

/// `packages`, also where they are installed, and those of the `Inst` lines of a simulated installation.
fn wanted<'a>(packages: &[&'a str], simulated: &'a str) -> Vec<&'a str> {
    let mut names = packages.to_vec();
    let added = simulated.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names.extend(added.filter(|name| !packages.contains(name)));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_simulated_installation_adds_is_wanted_too_and_each_only_once() {
        let simulated = "Reading package lists...\nInst libnss3 (2:3.87 Debian:12 [amd64])\n\
            Inst chromium (1 Debian:12 [amd64]) []\nConf libnss3 (2:3.87 Debian:12 [amd64])\n";
        assert_eq!(wanted(&["chromium", "fonts"], simulated), ["chromium", "fonts", "libnss3"]);
        assert_eq!(wanted(&["chromium"], ""), ["chromium"]);
    }
}
