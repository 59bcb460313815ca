//! Gets the peers: builds, fetches or finds them below `target/compare`, and says why one cannot be had.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::peer::{Kind, Peer};
use crate::Project;
use crate::measure::release;
use crate::run::{capture, watched};
use crate::setup::{Need, debian, in_path, npm_packages, provide};

/// Fetching and compiling one peer on a busy machine.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);

/// A server that is not measured.
#[derive(Clone, PartialEq, Eq, serde::Serialize, Debug)]
pub(super) struct Missing {
    pub(super) name: &'static str,
    pub(super) why: String,
}

/// A row of the table before anybody knows whether it can be had.
struct Candidate {
    name: &'static str,
    key: &'static str,
    kind: Kind,
    provide: fn(&Project, &mut Peer) -> Result<(), String>,
}

const CANDIDATES: &[Candidate] = &[
    Candidate { name: "bare epoll loop", key: "floor-epoll", kind: Kind::Floor("epoll"), provide: floor },
    Candidate { name: "bare io_uring loop", key: "floor-uring", kind: Kind::Floor("uring"), provide: floor },
    Candidate { name: "Tidegate, epoll", key: "tidegate-epoll", kind: Kind::Tidegate("epoll"), provide: tidegate },
    Candidate { name: "Tidegate, io_uring", key: "tidegate-uring", kind: Kind::Tidegate("uring"), provide: tidegate },
    Candidate { name: "fastwebsockets", key: "fastwebsockets", kind: Kind::Echo, provide: fastwebsockets },
    Candidate { name: "tokio-tungstenite", key: "tungstenite", kind: Kind::Echo, provide: tungstenite },
    Candidate { name: "npm ws", key: "ws", kind: Kind::Ws, provide: ws },
    Candidate { name: "nginx with nchan", key: "nchan", kind: Kind::Nchan, provide: nchan },
    Candidate { name: "nats-server", key: "nats", kind: Kind::Nats, provide: nats },
    Candidate { name: "centrifuge (Go)", key: "centrifuge", kind: Kind::Centrifuge, provide: centrifuge },
];

/// What nobody can have by the means of this command, whatever the machine.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "Centrifugo",
        "the Go module proxy refuses the module github.com/centrifugal/centrifugo/v6 (403, \"This module version is not \
         available\"); measured instead: a server on centrifuge, the library that it is built on",
    ),
    ("uWebSockets.js", "its authors do not publish it on npm; it is fetched from their repository"),
    ("soketi", "its npm package needs uWebSockets.js"),
];

/// The peers that `only` names, all without it, in the order of the table; and those that cannot be had.
pub(super) fn peers(project: &Project, only: &[String]) -> Result<(Vec<Peer>, Vec<Missing>), String> {
    let chosen = choose(only)?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for candidate in chosen {
        let &Candidate { name, key, kind, provide } = candidate;
        let mut peer =
            Peer { name, key, kind, version: String::new(), program: PathBuf::new(), part: None, libraries: None };
        match provide(project, &mut peer) {
            Ok(()) => found.push(peer),
            Err(why) => missing.push(Missing { name, why }),
        }
    }
    if only.is_empty() {
        missing.extend(ELSEWHERE.iter().map(|(name, why)| Missing { name, why: (*why).to_owned() }));
    }
    for Missing { name, why } in &missing {
        println!("missing: {name}: {why}");
    }
    Ok((found, missing))
}

/// The candidates that `only` names: each word is a key or the beginning of keys up to a dash (`tidegate`).
fn choose(only: &[String]) -> Result<Vec<&'static Candidate>, String> {
    let is_meant =
        |word: &str, key: &str| key.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(unknown) = only.iter().find(|word| !CANDIDATES.iter().any(|one| is_meant(word, one.key))) {
        let keys: Vec<&str> = CANDIDATES.iter().map(|candidate| candidate.key).collect();
        return Err(format!("no peer is called `{unknown}`; there are {}", keys.join(", ")));
    }
    let wanted = |candidate: &&Candidate| only.is_empty() || only.iter().any(|word| is_meant(word, candidate.key));
    Ok(CANDIDATES.iter().filter(wanted).collect())
}

/// Everything that is fetched or built for a comparison.
fn folder(project: &Project) -> PathBuf {
    project.target.join("compare")
}

fn floor(project: &Project, peer: &mut Peer) -> Result<(), String> {
    if !project.root.join("benches/src/bin/floor.rs").is_file() {
        return Err("benches/ has no program `floor`".to_owned());
    }
    peer.program = release(project, "tidegate-benches", "floor")?;
    peer.version = "this checkout".to_owned();
    Ok(())
}

fn tidegate(project: &Project, peer: &mut Peer) -> Result<(), String> {
    peer.program = release(project, "tidegate", "tidegate")?;
    let version = capture(Command::new(&peer.program).arg("--version"))?;
    peer.version = version.trim().trim_start_matches("tidegate ").to_owned();
    Ok(())
}

// --- crates

fn fastwebsockets(project: &Project, peer: &mut Peer) -> Result<(), String> {
    rust_echo(project, peer, "fastwebsockets")
}

fn tungstenite(project: &Project, peer: &mut Peer) -> Result<(), String> {
    rust_echo(project, peer, "tokio-tungstenite")
}

fn rust_echo(project: &Project, peer: &mut Peer, package: &str) -> Result<(), String> {
    let source = project.xtask("compare/peers-rust");
    let target = folder(project);
    let binary = format!("{}-echo", package.trim_start_matches("tokio-"));
    let mut command = project.cargo("build");
    command.args(["--release", "--locked", "--bin", &binary, "--manifest-path"]).arg(source.join("Cargo.toml"));
    command.env("CARGO_TARGET_DIR", &target);
    done(&mut command)?;
    let lock = read(&source.join("Cargo.lock"))?;
    peer.program = target.join("release").join(binary);
    peer.version = locked(&lock, package).ok_or_else(|| format!("Cargo.lock has no {package}"))?;
    Ok(())
}

/// The version of a package in a `Cargo.lock`.
fn locked(lock: &str, package: &str) -> Option<String> {
    let lock: toml::Table = lock.parse().ok()?;
    let packages = lock.get("package")?.as_array()?;
    let found = packages.iter().find(|one| one.get("name").and_then(toml::Value::as_str) == Some(package))?;
    found.get("version")?.as_str().map(str::to_owned)
}

// --- npm

fn ws(project: &Project, peer: &mut Peer) -> Result<(), String> {
    let node = provide(project, &[Need::Node]).of(Need::Node)?;
    let source = npm_packages(&project.xtask("compare/peers-node"))?;
    let manifest = read(&source.join("node_modules/ws/package.json"))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).map_err(|e| format!("ws/package.json: {e}"))?;
    let running = capture(Command::new(&node).arg("--version"))?;
    peer.version = format!("{}, Node.js {}", manifest["version"].as_str().unwrap_or("?"), running.trim());
    peer.program = node;
    peer.part = Some(source.join("ws-server.mjs"));
    Ok(())
}

// --- Go

fn centrifuge(project: &Project, peer: &mut Peer) -> Result<(), String> {
    let go = in_path("go").ok_or("no Go here")?;
    let source = project.xtask("compare/peers-go");
    peer.program = folder(project).join("go/centrifuge-server");
    let mut command = Command::new(&go);
    command.arg("build").arg("-o").arg(&peer.program).arg(".").current_dir(&source);
    done(&mut command)?;
    let running = capture(Command::new(&go).args(["env", "GOVERSION"]))?;
    let module = required(&read(&source.join("go.mod"))?, "github.com/centrifugal/centrifuge")
        .ok_or("go.mod does not require centrifuge")?;
    peer.version = format!("{module}, {}", running.trim());
    Ok(())
}

/// The version of a module in a `go.mod`.
fn required(manifest: &str, module: &str) -> Option<String> {
    manifest.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        line.strip_prefix(module)?.strip_prefix(' ')?.split(' ').next().map(str::to_owned)
    })
}

// --- the distribution

fn nchan(project: &Project, peer: &mut Peer) -> Result<(), String> {
    let (nginx, module) = ("usr/sbin/nginx", "usr/lib/nginx/modules/ngx_nchan_module.so");
    let root = from_distribution(project, &["nginx", "libnginx-mod-nchan"], &[nginx, module])?;
    peer.program = root.join(nginx);
    peer.part = Some(root.join(module));
    peer.libraries = libraries(&root);
    peer.version = format!("nginx {}, nchan {}", package_version("nginx")?, package_version("libnginx-mod-nchan")?);
    Ok(())
}

fn nats(project: &Project, peer: &mut Peer) -> Result<(), String> {
    let server = "usr/sbin/nats-server";
    let root = from_distribution(project, &["nats-server"], &[server])?;
    peer.program = root.join(server);
    peer.libraries = libraries(&root);
    peer.version = package_version("nats-server")?;
    Ok(())
}

/// The root below which all `files` are: the system's, or the folder where their packages have been unpacked. Installing
/// them would start services.
fn from_distribution(project: &Project, packages: &[&str], files: &[&str]) -> Result<PathBuf, String> {
    let unpacked = folder(project).join("debian");
    let has_all = |root: &Path| files.iter().all(|file| root.join(file).is_file());
    for root in [Path::new("/"), &unpacked] {
        if has_all(root) {
            return Ok(root.to_path_buf());
        }
    }
    debian::unpack(packages, &unpacked)?;
    if has_all(&unpacked) { Ok(unpacked) } else { Err(format!("{} lack {}", packages.join(", "), files.join(", "))) }
}

/// Where a package that is not installed has its shared libraries.
fn libraries(root: &Path) -> Option<PathBuf> {
    (root != Path::new("/")).then(|| root.join("usr/lib/x86_64-linux-gnu"))
}

/// The version that is installed, or else the one that is fetched.
fn package_version(package: &str) -> Result<String, String> {
    let installed = capture(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]));
    if let Ok(version) = installed.map(|text| text.trim().to_owned()).as_deref().map(str::to_owned)
        && !version.is_empty()
    {
        return Ok(version);
    }
    let shown = capture(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
    version.map(str::to_owned).ok_or_else(|| format!("apt-cache knows no version of {package}"))
}

fn done(command: &mut Command) -> Result<(), String> {
    let ran = watched(command, BUILD_MAX)?;
    if ran.succeeded() { Ok(()) } else { Err(format!("{}: {}", crate::run::shown(command), ran.complaint())) }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(only: &[&str]) -> Result<Vec<&'static str>, String> {
        let only: Vec<String> = only.iter().map(|word| (*word).to_owned()).collect();
        Ok(choose(&only)?.iter().map(|candidate| candidate.key).collect())
    }

    #[test]
    fn a_word_chooses_one_peer_or_all_drivers_of_one() {
        assert_eq!(keys(&["ws", "tidegate"]).unwrap(), ["tidegate-epoll", "tidegate-uring", "ws"]);
        assert_eq!(keys(&["tidegate-uring"]).unwrap(), ["tidegate-uring"]);
        assert_eq!(keys(&[]).unwrap().len(), CANDIDATES.len());
    }

    #[test]
    fn an_unknown_word_is_an_error_that_names_the_known_ones() {
        let error = keys(&["tide"]).unwrap_err();
        assert!(error.contains("`tide`") && error.contains("tidegate-epoll"), "{error}");
        assert!(keys(&["tidegate"]).is_ok());
    }

    #[test]
    fn keys_and_names_are_unique() {
        for (at, one) in CANDIDATES.iter().enumerate() {
            assert!(CANDIDATES[..at].iter().all(|other| other.key != one.key && other.name != one.name));
        }
    }

    #[test]
    fn versions_are_those_of_the_committed_lock_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare");
        let lock = read(&root.join("peers-rust/Cargo.lock")).unwrap();
        for package in ["fastwebsockets", "tokio-tungstenite"] {
            assert!(locked(&lock, package).is_some_and(|version| version.starts_with("0.")), "{package}");
        }
        assert_eq!(locked(&lock, "no-such-package"), None);
        let module = read(&root.join("peers-go/go.mod")).unwrap();
        assert!(required(&module, "github.com/centrifugal/centrifuge").unwrap().starts_with('v'));
        assert!(required(&module, "github.com/cespare/xxhash/v2").unwrap().starts_with("v2"));
        assert_eq!(required(&module, "github.com/centrifugal/centrifugo"), None);
    }
}
