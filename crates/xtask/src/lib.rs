//! Chores of the project turned into one command each: `cargo xtask test`, `setup`, `tidy`, `conformance`, `sdk`.
//!
//! Nothing here is part of what ships, and nothing here knows how the gateway works inside: it is started as a
//! process and spoken to by the clients that its users have.
//!
//! | Module | What it does |
//! |---|---|
//! | [`test`] | the steps of `cargo xtask test`, one after the other, and their table |
//! | [`setup`] | finds what the steps need, installs what it may, and says how to mend the rest |
//! | [`gateway`] | starts a release gateway for a step and learns its addresses |
//! | [`run`] | runs one command, shows its output as it comes and keeps it for counting |
//! | [`tally`] | reads how many tests passed and failed from what the runners print |
//! | [`tidy`] | rules of style that a machine can check |
//! | [`layers`] | which crate may depend on which |
//! | [`compare`] | measures the gateway beside other servers |
//! | [`floor`] | measures the gateway over the bare loops of `benches/` |
//! | [`campaign`] | cuts clients off and lets them come back, at length |
//! | [`reload`] | reloads the gateway again and again under load |
//! | [`tls`] | measures what TLS costs |
//! | [`conformance`] | runs the whole WebSocket suite and writes its page |
//! | [`fuzz`] | lets the targets of `crates/fuzz` run |
//! | [`measure`] | servers pinned to a core, the load generator, `/proc`, medians |
#![forbid(unsafe_code)]

pub mod abuse;
pub mod campaign;
pub mod compare;
pub mod conformance;
pub mod floor;
pub mod fuzz;
pub mod gateway;
pub mod layers;
pub mod measure;
pub mod reload;
pub mod run;
pub mod setup;
pub mod tally;
pub mod test;
pub mod tidy;
pub mod tls;

use std::path::{Path, PathBuf};

/// Where things are: the checkout and what is built from it.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder; everything that the chores install lives below it.
    pub target: PathBuf,
    /// The cargo that started us.
    pub cargo: PathBuf,
}

impl Project {
    /// Asks the cargo that started us where the workspace is.
    pub fn find() -> Result<Project, String> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = here
            .ancestors()
            .nth(2)
            .ok_or_else(|| format!("{} is not <workspace>/crates/xtask", here.display()))?
            .to_path_buf();
        let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let metadata = run::capture(
            std::process::Command::new(&cargo)
                .args(["metadata", "--no-deps", "--format-version", "1"])
                .current_dir(&root),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
        let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
        Ok(Project { root, target: PathBuf::from(target), cargo })
    }

    /// A path inside this crate's folder.
    pub fn xtask(&self, path: &str) -> PathBuf {
        self.root.join("crates/xtask").join(path)
    }

    /// `path` as people write it: from the root of the checkout where that is possible.
    pub fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// `text` with the paths of this machine as people write them.
    pub fn without_paths(&self, text: &str) -> String {
        let (target, root) = (format!("{}/", self.target.display()), format!("{}/", self.root.display()));
        text.replace(&target, "target/").replace(&root, "")
    }

    /// `cargo SUBCOMMAND`, run at the root.
    pub fn cargo(&self, subcommand: &str) -> std::process::Command {
        let mut command = std::process::Command::new(&self.cargo);
        command.arg(subcommand).current_dir(&self.root);
        command
    }
}
