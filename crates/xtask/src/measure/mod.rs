//! What every measurement needs: servers pinned to a core, the load generator on the others, `/proc`, and statistics.
//!
//! ```text
//! Cores::choose ── Server::start (pinned) ──────────────┐
//!              └── Generator::run (pinned, --server-pid) ┴─► Run: what the generator saw, what the server used
//! ```
//!
//! The server's CPU time of the measured phase is read by the generator, which alone knows when that phase begins and
//! ends; [`Usage`] is for what it does not read: whole process trees, and memory before and after.

mod cores;
mod exchange;
mod generator;
mod machine;
mod server;
mod statistics;
mod usage;

pub use cores::Cores;
pub use exchange::{connect, exchange};
pub use generator::{Generator, Percentiles, Run, ServerUse};
pub use machine::Machine;
pub use server::{Ready, Server, free_port};
pub use statistics::{Spread, ratio};
pub use usage::{Usage, peak_rss_bytes};

use std::path::PathBuf;
use std::time::Duration;

use crate::Project;

/// The gateway's drivers.
const DRIVERS: [&str; 2] = ["epoll", "uring"];

/// All drivers, or the one that is wanted.
pub fn drivers(wanted: Option<&str>) -> impl Iterator<Item = &'static str> {
    DRIVERS.into_iter().filter(move |name| wanted.is_none_or(|wanted| wanted == *name))
}

/// The longest that a release build may take.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);

/// Builds the release binary `binary` of `package` and tells where it is.
pub fn release(project: &Project, package: &str, binary: &str) -> Result<PathBuf, String> {
    let mut command = project.cargo("build");
    command.args(["--release", "--package", package, "--bin", binary]);
    let ran = crate::run::watched(&mut command, BUILD_MAX)?;
    if !ran.succeeded() {
        return Err(format!("{package} was not built: {}", ran.complaint()));
    }
    Ok(project.target.join("release").join(binary))
}
