//! Finds what the steps need, installs what it may, and says how to mend the rest.
//!
//! Packages of the distribution need root: as root they are installed, otherwise the one command that installs
//! them is printed. Everything else (npm and Python packages, cargo-deny, the conformance suite, nginx, HAProxy, and
//! Chromium when we are not root) goes below `target/` and needs nobody's permission.

mod chromium;
pub mod debian;
mod packages;
mod proxies;
mod system;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Project;

pub use packages::{client_suite, npm_packages};
pub use proxies::stream_module;
pub use system::in_path;

/// Something that a step cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The toolchain's rustfmt.
    Rustfmt,
    /// The toolchain's clippy.
    Clippy,
    /// cargo-deny, from the path or below `target/tools`.
    CargoDeny,
    /// Python 3.11 to 3.13 with `venv`.
    Python,
    /// Node.js 20 or later, with npm.
    Node,
    /// A Chromium that can be driven without a screen.
    Chromium,
    /// The proxy that serves web sites.
    Nginx,
    /// The proxy that asks for `/readyz`.
    Haproxy,
    /// The command that makes certificates, and speaks TLS.
    Openssl,
    /// The client of another TLS library.
    Gnutls,
    /// The conformance suite, converted, below `target/conformance`.
    ConformanceSuite,
    /// The virtual environment of the Python client tests.
    PythonPackages,
    /// `node_modules` of the JavaScript client tests.
    SdkModules,
    /// `node_modules` of the page test.
    WebModules,
}

impl Need {
    /// Every need, those first that others build on.
    pub const ALL: &[Need] = &[
        Need::Rustfmt,
        Need::Clippy,
        Need::Python,
        Need::Node,
        Need::Chromium,
        Need::Nginx,
        Need::Haproxy,
        Need::Openssl,
        Need::Gnutls,
        Need::CargoDeny,
        Need::ConformanceSuite,
        Need::PythonPackages,
        Need::SdkModules,
        Need::WebModules,
    ];

    fn name(self) -> &'static str {
        match self {
            Need::Rustfmt => "rustfmt",
            Need::Clippy => "clippy",
            Need::CargoDeny => "cargo-deny",
            Need::Python => "Python 3.11-3.13 with venv",
            Need::Node => "Node.js >= 20 with npm",
            Need::Chromium => "Chromium",
            Need::Nginx => "nginx",
            Need::Haproxy => "HAProxy",
            Need::Openssl => "openssl",
            Need::Gnutls => "gnutls-cli",
            Need::ConformanceSuite => "conformance suite",
            Need::PythonPackages => "Python packages of the client tests",
            Need::SdkModules => "npm packages of the client tests",
            Need::WebModules => "npm packages of the page test",
        }
    }
}

/// What was found or installed: the program or folder that satisfies each need, or why it cannot be had.
#[derive(Debug, Default)]
pub struct Tools(BTreeMap<Need, Result<PathBuf, String>>);

impl Tools {
    /// The program or folder for `need`; the error says why there is none.
    pub fn of(&self, need: Need) -> Result<PathBuf, String> {
        match self.0.get(&need) {
            Some(found) => found.clone(),
            None => Err(format!("{} was not looked for", need.name())),
        }
    }

    fn put(&mut self, need: Need, found: Result<PathBuf, String>) {
        self.0.insert(need, found);
    }
}

/// A need that is not met, and what meets it.
struct Missing {
    need: Need,
    why: String,
    /// Packages of the distribution that meet it; empty when none do.
    apt: &'static [&'static str],
    /// The command of another tool that meets it.
    command: Option<&'static str>,
}

/// What the distribution or the toolchain provides.
const SYSTEM: &[Need] = &[
    Need::Rustfmt,
    Need::Clippy,
    Need::Python,
    Need::Node,
    Need::Chromium,
    Need::Nginx,
    Need::Haproxy,
    Need::Openssl,
    Need::Gnutls,
];

/// Looks for `needs`, prints what is missing and the one command that mends it, and installs what it may.
pub fn provide(project: &Project, needs: &[Need]) -> Tools {
    let wanted = |need: Need| needs.contains(&need);
    let mut tools = Tools::default();
    let mut missing = Vec::new();
    for need in SYSTEM.iter().copied().filter(|need| wanted(*need)) {
        match system::find(project, need) {
            Ok(path) => tools.put(need, Ok(path)),
            Err(lack) => missing.push(lack),
        }
    }
    report(&missing, &packages::pending(project, needs));
    mend(project, &mut tools, missing);
    for need in Need::ALL.iter().copied().filter(|need| wanted(*need) && !SYSTEM.contains(need)) {
        let found = packages::provide(project, &tools, need);
        if let Err(why) = &found {
            println!("{}: {why}", need.name());
        }
        tools.put(need, found);
    }
    tools
}

/// Says what is missing before anything is done about it.
fn report(missing: &[Missing], pending: &[String]) {
    if missing.is_empty() && pending.is_empty() {
        println!("nothing is missing");
        return;
    }
    for lack in missing {
        println!("missing: {} ({})", lack.need.name(), lack.why);
    }
    if let Some(command) = system::mending_command(missing) {
        let doing = if system::is_root() { "mending it now" } else { "mend it with" };
        println!("{doing}: {command}");
    }
    for what in pending {
        println!("to be fetched below target/: {what}");
    }
}

fn mend(project: &Project, tools: &mut Tools, missing: Vec<Missing>) {
    if system::is_root()
        && let Err(why) = system::install(&missing)
    {
        println!("{why}");
    }
    for lack in missing {
        let mut found = system::find(project, lack.need);
        let unpacked = match lack.need {
            _ if found.is_ok() => None,
            Need::Chromium => Some(chromium::unpack(project)),
            Need::Nginx => Some(proxies::unpack(project, "nginx")),
            Need::Haproxy => Some(proxies::unpack(project, "haproxy")),
            _ => None,
        };
        if let Some(unpacked) = unpacked {
            found = unpacked.map_err(|why| Missing { why, ..lack });
        }
        let found = found.map_err(|lack| format!("{} is missing: {}", lack.need.name(), lack.why));
        tools.put(lack.need, found);
    }
}
