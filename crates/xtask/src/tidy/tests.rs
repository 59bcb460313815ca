//! Every rule is shown red on what it forbids and green on its nearest lawful twin.

use std::path::Path;

use super::rules::{ALL, LINES_MAX, machine_paths};
use super::{Source, check};

/// The names of the rules that `text` at `path` breaks.
fn broken(path: &str, text: &str) -> Vec<&'static str> {
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    let mut breaches = Vec::new();
    for rule in ALL {
        rule(&source, &mut breaches);
    }
    breaches.iter().map(|breach| breach.rule).collect()
}

/// A forbidden word, put together here so that this file itself stays tidy.
fn planted(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn files_in_every_folder_are_read_but_not_what_was_built_or_fetched() {
    let root = tempfile::tempdir().unwrap();
    let long = "\n".repeat(LINES_MAX + 1);
    for path in ["deep/er/a.rs", "target/b.rs", "js/node_modules/c.js", ".git/d.py", ".ci/e.py"] {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &long).unwrap();
    }
    let report = check(root.path()).unwrap();
    let paths: Vec<&str> = report.breaches.iter().map(|breach| breach.path.as_str()).collect();
    assert_eq!((report.files, paths), (2, vec![".ci/e.py", "deep/er/a.rs"]));
}

#[test]
fn an_empty_folder_is_an_error_not_a_pass() {
    assert!(check(tempfile::tempdir().unwrap().path()).is_err());
}

#[test]
fn a_file_one_line_too_long_is_found() {
    for name in ["a.rs", "a.py", "a.mjs", "a.html"] {
        assert_eq!(broken(name, &"\n".repeat(LINES_MAX + 1)), ["long-file"], "{name}");
        assert!(broken(name, &"\n".repeat(LINES_MAX)).is_empty(), "{name}");
    }
    assert!(broken("a.md", &"\n".repeat(LINES_MAX + 1)).is_empty());
}

#[test]
fn a_pure_crate_that_reads_the_clock_is_found_outside_its_tests() {
    let call = "let now = Instant::now();\n";
    for folder in ["wire", "hub", "conn"] {
        assert_eq!(broken(&format!("crates/{folder}/src/a.rs"), call), ["impure-call"], "{folder}");
    }
    assert!(broken("crates/io/src/clock.rs", call).is_empty());
    assert!(broken("crates/hub/src/a.rs", "// not Instant::now(): `now` is an argument\n").is_empty());
    assert!(broken("crates/hub/src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {call} }}")).is_empty());
}

#[test]
fn a_pure_crate_that_draws_randomness_or_sleeps_is_found() {
    let sleep = planted(&["std::thread::", "sleep(d)"]);
    for call in ["getrandom::fill(&mut key)", "rand::random()", "fastrand::u64(..)", &sleep] {
        assert_eq!(broken("crates/conn/src/a.rs", call), ["impure-call"], "{call}");
    }
    assert!(broken("crates/conn/src/a.rs", "operand::random()").is_empty());
}

#[test]
fn a_safe_crate_that_does_not_forbid_unsafe_is_found() {
    assert_eq!(broken("crates/hub/src/lib.rs", "//! Hub."), ["forbid-unsafe"]);
    assert!(broken("crates/hub/src/lib.rs", "//! Hub.\n#![forbid(unsafe_code)]").is_empty());
    assert!(broken("crates/io/src/lib.rs", "//! Io.").is_empty());
}

const MANIFEST: &str = "[package]\nname = \"a\"\nlicense.workspace = true\npublish.workspace = true\n\
    edition.workspace = true\nrust-version.workspace = true\n[lints]\nworkspace = true\n";

#[test]
fn a_manifest_that_lacks_any_one_line_is_found() {
    assert!(broken("crates/a/Cargo.toml", MANIFEST).is_empty());
    for line in ["license.", "publish.", "edition.", "rust-version.", "workspace = true\n"] {
        let without: Vec<&str> = MANIFEST.lines().filter(|one| !one.starts_with(line.trim_end())).collect();
        assert_eq!(broken("crates/a/Cargo.toml", &without.join("\n")), ["manifest"], "{line}");
    }
}

#[test]
fn a_manifest_with_a_licence_of_its_own_is_found_and_one_that_is_no_toml_too() {
    let manifest = |licence: &str| MANIFEST.replace("license.workspace = true", &format!("license = \"{licence}\""));
    assert_eq!(broken("crates/a/Cargo.toml", &manifest("MIT")), ["manifest"]);
    assert_eq!(broken("crates/a/Cargo.toml", "[package"), ["manifest"]);
}

#[test]
fn unfinished_and_switched_off_code_is_found_with_its_line() {
    for parts in [["to", "do!()"], ["unimple", "mented!()"], ["#[ig", "nore]"], ["// FIX", "ME"], ["// XX", "X"]] {
        assert_eq!(broken("a.rs", &planted(&parts)), ["unfinished"], "{parts:?}");
    }
    assert!(broken("a.rs", "let todo = ignore(fix);").is_empty());
}

#[test]
fn a_test_that_sleeps_is_found() {
    for (path, parts) in [
        ("crates/io/tests/wake.rs", ["std::thread::", "sleep(d)"]),
        ("crates/control/tests/api.rs", ["tokio::time::", "sleep(d)"]),
        ("sdk/test_a.py", ["time.", "sleep(1)"]),
        ("sdk/test_a.py", ["await asyncio.", "sleep(1)"]),
    ] {
        assert_eq!(broken(path, &planted(&parts)), ["sleeping-test"], "{path} {parts:?}");
    }
    assert!(broken("crates/load/src/pace.rs", &planted(&["std::thread::", "sleep(d)"])).is_empty());
}

#[test]
fn an_address_of_a_registry_is_found_in_any_kind_of_file() {
    for parts in [["static.", "crates.io"], ["registry.", "npmjs.org"], ["py", "pi.org"], ["deb.", "debian.org"]] {
        for path in ["README.md", "deny.toml", "a.py", ".ci/run"] {
            assert_eq!(broken(path, &planted(&parts)), ["registry-host"], "{path} {parts:?}");
        }
    }
    assert!(broken("README.md", "from crates.io").is_empty());
}

#[test]
fn an_npm_lock_that_names_where_it_fetched_is_found() {
    let entry = "\"node_modules/ws\": { \"resolved\": \"https://mirror.example/ws.tgz\" }";
    assert_eq!(broken("sdk/js/package-lock.json", entry), ["lock-address"]);
    assert!(broken("sdk/js/package-lock.json", "\"node_modules/ws\": { \"version\": \"8\" }").is_empty());
}

#[test]
fn a_path_of_the_machine_at_hand_is_found_but_one_of_every_machine_is_not() {
    let machine = machine_paths(&[Path::new("/srv/builds/tidegate"), Path::new("/root"), Path::new("/src")]);
    let breaches = |text: &str| {
        let source = Source { path: "docs/a.md".to_owned(), text: text.to_owned() };
        let mut breaches = Vec::new();
        machine.check(&source, &mut breaches);
        breaches.len()
    };
    assert_eq!(breaches("see /srv/builds/tidegate/README.md"), 1);
    assert_eq!(breaches(&planted(&["see /ro", "ot/notes"])), 1);
    assert_eq!(breaches("see /etc/tidegate.toml, /src/main and /srv/builds"), 0);
}
