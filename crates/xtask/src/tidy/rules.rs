//! The rules. A word that a rule forbids is put together with `concat!`, so that this file passes them itself.

use std::path::Path;

use toml::{Table, Value};

use super::{Breach, Source};

/// A rule looks at one file and adds what is wrong in it.
pub(super) type Rule = fn(&Source, &mut Vec<Breach>);

/// Every rule that needs nothing but the file.
pub(super) const ALL: &[Rule] =
    &[long_file, impure_call, forbid_unsafe, manifest, unfinished, sleeping_test, registry_host, lock_with_addresses];

/// A file past this has probably become two.
pub(super) const LINES_MAX: usize = 600;

fn long_file(source: &Source, breaches: &mut Vec<Breach>) {
    let lines = source.text.lines().count();
    if source.is_code() && lines > LINES_MAX {
        breaches.push(Breach {
            rule: "long-file",
            path: source.path.clone(),
            line: 0,
            what: format!("{lines} lines, more than {LINES_MAX}: split it"),
        });
    }
}

/// Adds a breach for every line of `text` that holds one of `words`.
fn forbid(rule: &'static str, source: &Source, text: &str, words: &[&str], advice: &str, breaches: &mut Vec<Breach>) {
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| holds(line, word)) {
            breaches.push(Breach {
                rule,
                path: source.path.clone(),
                line: index + 1,
                what: format!("`{word}`: {advice}"),
            });
        }
    }
}

/// Whether `word` stands in `line` and is not the tail of a longer name (`rand::` in `operand::`).
fn holds(line: &str, word: &str) -> bool {
    let named = |c: char| c.is_alphanumeric() || c == '_';
    let whole = word.starts_with(named);
    line.match_indices(word).any(|(at, _)| !(whole && line[..at].ends_with(named)))
}

/// The text with line comments blanked, so that a comment may name what code must not do.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Crates that are pure: time and seeds are arguments there.
const PURE: &[&str] = &["crates/wire/src/", "crates/hub/src/", "crates/conn/src/"];

const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "thread::sleep",
    "thread::spawn",
    "std::net::Tcp",
    "std::net::Udp",
    "getrandom",
    "fastrand",
    "rand::",
    "RandomState",
];

/// Unit tests at the end of a file or in a `tests` file may draw seeds; what ships may not.
fn impure_call(source: &Source, breaches: &mut Vec<Breach>) {
    let is_test = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    if is_test || !source.has_extension(&["rs"]) || !PURE.iter().any(|folder| source.path.starts_with(folder)) {
        return;
    }
    let shipped = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let advice = "a pure crate takes the time and the seed as arguments";
    forbid("impure-call", source, &without_comments(shipped), IMPURE, advice, breaches);
}

/// Crate roots that may not hold a single `unsafe`.
const SAFE_ROOTS: &[&str] = &[
    "crates/hub/src/lib.rs",
    "crates/conn/src/lib.rs",
    "crates/control/src/lib.rs",
    "crates/gateway/src/lib.rs",
    "crates/gateway/src/main.rs",
    "crates/load/src/main.rs",
    "crates/xtask/src/lib.rs",
];

fn forbid_unsafe(source: &Source, breaches: &mut Vec<Breach>) {
    if SAFE_ROOTS.contains(&source.path.as_str()) && !source.text.contains("#![forbid(unsafe_code)]") {
        breaches.push(Breach {
            rule: "forbid-unsafe",
            path: source.path.clone(),
            line: 0,
            what: "this crate has no unsafe code: say `#![forbid(unsafe_code)]`".to_owned(),
        });
    }
}

/// `[package]` keys that every manifest inherits; another value for one of them is another project.
const INHERITED: &[&str] = &["license", "publish", "edition", "rust-version"];

fn manifest(source: &Source, breaches: &mut Vec<Breach>) {
    if !source.path.ends_with("/Cargo.toml") || source.path.starts_with("crates/fuzz/") {
        return;
    }
    let mut complain = |what: String| {
        breaches.push(Breach { rule: "manifest", path: source.path.clone(), line: 0, what });
    };
    let table: Table = match source.text.parse() {
        Ok(table) => table,
        Err(error) => return complain(error.to_string()),
    };
    let inherits = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    for key in INHERITED {
        let value = table.get("package").and_then(|package| package.get(key));
        if !value.is_some_and(inherits) {
            complain(format!("[package] lacks `{key}.workspace = true`"));
        }
    }
    if !table.get("lints").is_some_and(inherits) {
        complain("[lints] lacks `workspace = true`".to_owned());
    }
}

const UNFINISHED: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

fn unfinished(source: &Source, breaches: &mut Vec<Breach>) {
    if source.is_code() {
        let advice = "unfinished or switched off: finish it, or leave it out";
        forbid("unfinished", source, &source.text, UNFINISHED, advice, breaches);
    }
}

const SLEEPS: &[&str] = &[
    concat!("thread::", "sleep("),
    concat!("time::", "sleep("),
    concat!("time.", "sleep("),
    concat!("asyncio.", "sleep("),
];

fn sleeping_test(source: &Source, breaches: &mut Vec<Breach>) {
    let path = Path::new(&source.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_test = source.path.contains("/tests/")
        || name == "tests.rs"
        || name.ends_with("_test.rs")
        || name.starts_with("test_")
        || name.contains(".test.");
    if is_test && source.is_code() {
        let advice = "a test waits for an event, not for time to pass";
        forbid("sleeping-test", source, &source.text, SLEEPS, advice, breaches);
    }
}

const HOSTS: &[&str] = &[
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("registry.", "npmjs"),
    concat!("registry.", "yarnpkg"),
    concat!("py", "pi.org"),
    concat!("python", "hosted"),
    concat!("deb.", "debian"),
    concat!("archive.", "ubuntu"),
    concat!("/arti", "factory/"),
];

/// A mirror, a proxy or another registry must work without a change here.
fn registry_host(source: &Source, breaches: &mut Vec<Breach>) {
    let advice = "no registry's address: the tools are configured where they run";
    forbid("registry-host", source, &source.text, HOSTS, advice, breaches);
}

/// `npm` writes the address it fetched from unless told not to; it makes the lock file fit one registry only.
fn lock_with_addresses(source: &Source, breaches: &mut Vec<Breach>) {
    if source.path.ends_with("package-lock.json") {
        let advice = "write the lock with `omit-lockfile-registry-resolved`";
        forbid("lock-address", source, &source.text, &["\"resolved\":"], advice, breaches);
    }
}

/// Paths that exist on the machine at hand only: the checkout itself and the home of who works in it.
pub(super) struct MachinePaths(Vec<String>);

impl MachinePaths {
    pub(super) fn of(root: &Path) -> MachinePaths {
        let mut paths = vec![root.to_path_buf()];
        paths.extend(std::env::home_dir());
        MachinePaths::from(&paths.iter().map(|path| &**path).collect::<Vec<_>>())
    }

    fn from(paths: &[&Path]) -> MachinePaths {
        // A checkout at `/` or `/src` would make half of all paths look private.
        let private = paths.iter().filter(|path| path.is_absolute() && path.components().count() > 2);
        let home = paths.iter().filter(|path| **path == Path::new("/root"));
        MachinePaths(private.chain(home).map(|path| format!("{}/", path.display())).collect())
    }

    pub(super) fn check(&self, source: &Source, breaches: &mut Vec<Breach>) {
        let words: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let advice = "a path of one machine: say it relative to the project";
        forbid("machine-path", source, &source.text, &words, advice, breaches);
    }
}

#[cfg(test)]
pub(super) fn machine_paths(paths: &[&Path]) -> MachinePaths {
    MachinePaths::from(paths)
}
