//! Which crate may depend on which: reads the manifests and Cargo.lock, and names every arrow that runs the wrong way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// One crate of the workspace and the crates of the workspace it may use.
struct Layer {
    package: &'static str,
    may_use: &'static [&'static str],
    /// No socket, no clock, no randomness, no thread: see [`IMPURE`].
    pure: bool,
    /// Whether tokio may be anywhere below it.
    tokio: bool,
}

/// The house, leaves first. A crate that is not listed has no place yet, and that is an error too.
const LAYERS: &[Layer] = &[
    Layer { package: "tidegate-wire", may_use: &[], pure: true, tokio: false },
    Layer { package: "tidegate-hub", may_use: &[], pure: true, tokio: false },
    Layer { package: "tidegate-io", may_use: &[], pure: false, tokio: false },
    Layer { package: "tidegate-conn", may_use: &["tidegate-wire", "tidegate-hub"], pure: true, tokio: false },
    Layer { package: "tidegate-control", may_use: &["tidegate-hub"], pure: false, tokio: true },
    Layer {
        package: "tidegate",
        may_use: &["tidegate-wire", "tidegate-hub", "tidegate-io", "tidegate-conn", "tidegate-control"],
        pure: false,
        tokio: true, // it starts control's runtime
    },
    Layer { package: "tidegate-load", may_use: &["tidegate-wire", "tidegate-io"], pure: false, tokio: false },
    Layer {
        package: "tidegate-benches",
        may_use: &["tidegate-wire", "tidegate-hub", "tidegate-io", "tidegate-conn", "tidegate"],
        pure: false,
        tokio: true, // it comes with the gateway, whose mailbox and fan-out are benched
    },
    Layer { package: "xtask", may_use: &[], pure: false, tokio: false },
];

/// What a pure crate must not be built on: sockets, system calls, randomness, other threads.
const IMPURE: &[&str] = &["fastrand", "getrandom", "libc", "mio", "rand", "socket2", "tokio"];

/// One crate's manifest, reduced to what the arrows need.
struct Manifest {
    package: String,
    /// Path of the manifest, for messages.
    path: PathBuf,
    /// Packages of `[dependencies]` and `[build-dependencies]`, on any target.
    built_on: BTreeSet<String>,
    /// Packages of `[dev-dependencies]`, on any target.
    tested_with: BTreeSet<String>,
}

/// Every wrong arrow in the workspace at `root`, as a sentence; empty when the house stands as drawn.
pub fn wrong_arrows(root: &Path) -> Result<Vec<String>, String> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let renames = renames(&workspace);
    let manifests = manifests(root, &renames)?;
    if manifests.is_empty() {
        return Err(format!("no crate found below {}", root.display()));
    }
    let ours: BTreeSet<&str> = manifests.iter().map(|manifest| manifest.package.as_str()).collect();
    let locked = locked(&read(&root.join("Cargo.lock"))?);
    let mut wrong = Vec::new();
    for manifest in &manifests {
        let at = manifest.path.display();
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == manifest.package) else {
            wrong.push(format!("{at}: `{}` has no place in the table of layers.rs", manifest.package));
            continue;
        };
        // A test that reaches upwards ties the crates together just the same.
        for used in manifest.built_on.union(&manifest.tested_with) {
            if ours.contains(used.as_str()) && !layer.may_use.contains(&used.as_str()) {
                wrong.push(format!("{at}: `{}` must not depend on `{used}`", manifest.package));
            }
        }
        for used in manifest.built_on.iter().filter(|used| layer.pure && IMPURE.contains(&used.as_str())) {
            wrong.push(format!("{at}: `{}` is pure and must not be built on `{used}`", manifest.package));
        }
        if !layer.tokio
            && let Some(path) = path_to(&locked, &manifest.package, "tokio")
        {
            wrong.push(format!("{at}: tokio lives in control; here it comes by {}", path.join(" -> ")));
        }
    }
    Ok(wrong)
}

fn read(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.parse().map_err(|e| format!("{}: {e}", path.display()))
}

/// Keys of `[workspace.dependencies]` that stand for a package of another name.
fn renames(workspace: &Table) -> BTreeMap<String, String> {
    let dependencies =
        workspace.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let mut renames = BTreeMap::new();
    for (key, value) in dependencies.into_iter().flatten() {
        if let Some(package) = value.get("package").and_then(Value::as_str) {
            renames.insert(key.clone(), package.to_owned());
        }
    }
    renames
}

/// The manifests of `crates/*` and `benches`, except crates outside the workspace.
fn manifests(root: &Path, renames: &BTreeMap<String, String>) -> Result<Vec<Manifest>, String> {
    let folder = root.join("crates");
    let mut paths = vec![root.join("benches/Cargo.toml")];
    for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        if entry.file_name() != "fuzz" {
            paths.push(entry.path().join("Cargo.toml"));
        }
    }
    paths.sort();
    paths.retain(|path| path.is_file());
    let mut manifests = Vec::new();
    for path in paths {
        let table = read(&path)?;
        let package = table
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{}: no package name", path.display()))?;
        let mut manifest = Manifest {
            package: package.to_owned(),
            path: path.strip_prefix(root).unwrap_or(&path).to_path_buf(),
            built_on: BTreeSet::new(),
            tested_with: BTreeSet::new(),
        };
        collect(&table, renames, &mut manifest);
        for (_, target) in table.get("target").and_then(Value::as_table).into_iter().flatten() {
            if let Some(target) = target.as_table() {
                collect(target, renames, &mut manifest);
            }
        }
        manifests.push(manifest);
    }
    Ok(manifests)
}

/// Adds the dependencies of one level (the top, or one `[target.'...']`) by their package names.
fn collect(table: &Table, renames: &BTreeMap<String, String>, manifest: &mut Manifest) {
    for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let into = if kind == "dev-dependencies" { &mut manifest.tested_with } else { &mut manifest.built_on };
        for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
            let package = value.get("package").and_then(Value::as_str);
            let package = package.or_else(|| renames.get(key).map(String::as_str));
            into.insert(package.unwrap_or(key).to_owned());
        }
    }
}

/// Cargo.lock as package -> packages it uses. Versions are dropped: an arrow to any version is an arrow.
fn locked(lock: &Table) -> BTreeMap<String, Vec<String>> {
    let mut arrows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.get("package").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = package.get("name").and_then(Value::as_str) else {
            continue;
        };
        let used = arrows.entry(name.to_owned()).or_default();
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            // `name`, or `name version` where two versions are locked.
            if let Some(name) = dependency.as_str().and_then(|text| text.split(' ').next()) {
                used.push(name.to_owned());
            }
        }
    }
    arrows
}

/// A chain of locked packages that leads from `from` to `to`.
fn path_to(locked: &BTreeMap<String, Vec<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = vec![from];
    while let Some(package) = waiting.pop() {
        for used in locked.get(package).into_iter().flatten() {
            if used == from || came_from.contains_key(used.as_str()) {
                continue;
            }
            came_from.insert(used, package);
            waiting.push(used);
        }
    }
    let mut at = *came_from.get_key_value(to)?.0;
    let mut path = vec![at.to_owned()];
    while let Some(before) = came_from.get(at) {
        at = before;
        path.push(at.to_owned());
    }
    path.reverse();
    Some(path)
}
