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

/// Where distributions keep the modules of nginx, below `/`.
const MODULES: [&str; 3] = ["usr/lib/nginx/modules", "usr/lib64/nginx/modules", "usr/share/nginx/modules"];

fn folder(project: &Project) -> PathBuf {
    project.target.join("proxies")
}

/// The program `name` of PATH or a folder for servers, else the one unpacked earlier; nginx with its stream module.
pub(super) fn find(project: &Project, name: &str) -> Result<PathBuf, String> {
    let installed = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let unpacked = folder(project).join(name);
    let all = in_path(name).into_iter().chain(installed).chain([unpacked]);
    let mut programs = all.filter(|file| is_program(file)).peekable();
    let what = if programs.peek().is_some() { " with its stream module" } else { "" };
    programs
        .find(|file| name != "nginx" || stream_module(file).is_some())
        .ok_or_else(|| format!("no {name}{what} in PATH nor {}", FOLDERS.join(" nor ")))
}

/// The file of the module by which an nginx passes bytes on without reading them; empty where it is built in.
pub fn stream_module(nginx: &Path) -> Option<PathBuf> {
    let built_in = || {
        let said = Command::new(nginx).arg("-V").output().ok()?.stderr;
        String::from_utf8_lossy(&said).split_ascii_whitespace().any(|word| word == "--with-stream").then(PathBuf::new)
    };
    let unpacked = nginx.parent().map(|folder| folder.join("system"));
    let root = unpacked.filter(|root| root.exists()).unwrap_or_else(|| "/".into());
    let mut files = MODULES.iter().map(|folder| root.join(folder).join("ngx_stream_module.so"));
    files.find(|file| file.exists()).or_else(built_in)
}

/// Fetches the distribution's package `name` with what it needs, unpacks it and writes a script that starts the program
/// from there.
pub(super) fn unpack(project: &Project, name: &str) -> Result<PathBuf, String> {
    let folder = folder(project);
    println!("unpacking {name} below {}", project.short(&folder));
    let system = folder.join("system");
    let packages: &[&str] = if name == "nginx" { &["nginx", "libnginx-mod-stream"] } else { &[name] };
    debian::unpack(packages, &system)?;
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

    #[test]
    fn an_nginx_has_its_stream_module_in_a_file_or_built_in_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (nginx, module) =
            (folder.path().join("nginx"), folder.path().join("system/usr/lib/nginx/modules/ngx_stream_module.so"));
        let built =
            |with: &str| put_program(&nginx, &format!("#!/bin/sh\necho 'configure: --with-debug {with}' >&2\n"));
        std::fs::create_dir_all(folder.path().join("system")).unwrap();
        built("--with-stream=dynamic --with-stream_ssl_module");
        assert_eq!(stream_module(&nginx), None);
        built("--with-stream --with-stream_ssl_module");
        assert_eq!(stream_module(&nginx), Some(PathBuf::new()));
        put_program(&module, "");
        assert_eq!(stream_module(&nginx), Some(module));
    }
}
