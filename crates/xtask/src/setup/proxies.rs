//! nginx and HAProxy for the proxy tests: the system's, or unpacked below `target/`. Never installed, since their packages
//! start a service on the ports of a web server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;
use super::system::{in_path, is_program};
use crate::Project;
use crate::run::capture;

/// Where servers are and where the PATH of those who are not root does not look.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin"];

fn folder(project: &Project) -> PathBuf {
    project.target.join("proxies")
}

/// The program `name` of PATH or a folder for servers, else the one unpacked earlier.
pub(super) fn find(project: &Project, name: &str) -> Result<PathBuf, String> {
    let installed = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let unpacked = folder(project).join(name);
    in_path(name)
        .or_else(|| installed.chain([unpacked]).find(|file| is_program(file)))
        .ok_or_else(|| format!("no {name} in PATH nor {}", FOLDERS.join(" nor ")))
}

/// Fetches the distribution's package `name` with what it needs, unpacks it and writes a script that starts the program
/// from there.
pub(super) fn unpack(project: &Project, name: &str) -> Result<PathBuf, String> {
    let folder = folder(project);
    println!("unpacking {name} below {}", project.short(&folder));
    let system = folder.join("system");
    debian::unpack(&[name], &system)?;
    write_starter(&folder, &system, name)
}

/// A script that finds the libraries where they were unpacked.
fn write_starter(folder: &Path, system: &Path, name: &str) -> Result<PathBuf, String> {
    let binary = system.join("usr/sbin").join(name);
    if !is_program(&binary) {
        return Err(format!("the package holds no {}", binary.display()));
    }
    let starter = folder.join(name);
    let root = system.display();
    let text = format!(
        "#!/bin/sh\n\
         export LD_LIBRARY_PATH='{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu'\n\
         exec '{}' \"$@\"\n",
        binary.display()
    );
    let complain = |error| format!("{}: {error}", starter.display());
    std::fs::write(&starter, text).map_err(complain)?;
    std::fs::set_permissions(&starter, std::fs::Permissions::from_mode(0o755)).map_err(complain)?;
    capture(Command::new(&starter).arg("-v"))?;
    Ok(starter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_program(file: &Path, text: &str) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn what_was_unpacked_is_started_with_its_own_libraries_and_a_package_without_the_program_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let system = folder.path().join("system");
        let error = write_starter(folder.path(), &system, "nginx").unwrap_err();
        assert!(error.contains("usr/sbin/nginx"), "{error}");
        put_program(&system.join("usr/sbin/nginx"), "#!/bin/sh\necho \"$LD_LIBRARY_PATH $*\"\n");
        let starter = write_starter(folder.path(), &system, "nginx").unwrap();
        let said = capture(Command::new(starter).args(["-p", "a b"])).unwrap();
        assert!(said.starts_with(&format!("{}/usr/lib/", system.display())) && said.ends_with(" -p a b\n"), "{said}");
    }
}
