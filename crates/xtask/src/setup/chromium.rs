//! Chromium for the page test: from `CHROMIUM`, from PATH, or unpacked below `target/` without root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;
use super::system::{in_path, is_program};
use crate::Project;
use crate::run::capture;

const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// `CHROMIUM=PATH`, else one from PATH, else the one unpacked earlier.
pub(super) fn find(project: &Project) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("CHROMIUM").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty()) {
        return match is_program(&path) {
            true => Ok(path),
            false => Err(format!("CHROMIUM={} is not a program", path.display())),
        };
    }
    let unpacked = folder(project).join("chromium");
    NAMES
        .iter()
        .find_map(|name| in_path(name))
        .or_else(|| is_program(&unpacked).then_some(unpacked))
        .ok_or_else(|| "no chromium in PATH, and CHROMIUM=PATH is not set".to_owned())
}

fn folder(project: &Project) -> PathBuf {
    project.target.join("chromium")
}

/// Fetches the distribution's package with what it needs and this machine lacks, unpacks all below `target/` and
/// writes a script that starts it from there. Needs no root.
pub(super) fn unpack(project: &Project) -> Result<PathBuf, String> {
    let folder = folder(project);
    println!("unpacking Chromium below {}", project.short(&folder));
    let system = folder.join("system");
    // The fonts are for a page with visible text.
    debian::unpack(&["chromium", "fonts-dejavu-core"], &system).map_err(|why| format!("{why}; set CHROMIUM=PATH"))?;
    write_starter(&folder, &system)
}

/// A script that finds the libraries, fonts and helpers where they were unpacked.
fn write_starter(folder: &Path, system: &Path) -> Result<PathBuf, String> {
    let binary = system.join("usr/lib/chromium/chromium");
    if !is_program(&binary) {
        return Err(format!("the package holds no {}", binary.display()));
    }
    let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    let fonts = folder.join("fonts.conf");
    let (root, cache) = (system.display(), folder.display());
    write(
        &fonts,
        &format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig>\n\
             <dir>{root}/usr/share/fonts</dir>\n<dir>/usr/share/fonts</dir>\n<cachedir>{cache}/fonts</cachedir>\n\
             </fontconfig>\n"
        ),
    )?;
    let starter = folder.join("chromium");
    write(
        &starter,
        &format!(
            "#!/bin/sh\n\
             lib='{root}/usr/lib/x86_64-linux-gnu'\n\
             export LD_LIBRARY_PATH=\"$lib:$lib/nss:{root}/lib/x86_64-linux-gnu${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
             export FONTCONFIG_FILE='{}'\n\
             exec '{}' \"$@\"\n",
            fonts.display(),
            binary.display()
        ),
    )?;
    std::fs::set_permissions(&starter, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("{}: {e}", starter.display()))?;
    capture(Command::new(&starter).arg("--version"))?;
    Ok(starter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_the_browser_is_an_error_that_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_starter(folder.path(), &folder.path().join("system")).unwrap_err();
        assert!(error.contains("usr/lib/chromium/chromium"), "{error}");
    }
}
