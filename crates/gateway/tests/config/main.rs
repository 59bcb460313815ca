//! What a config file, the environment and flags make, and what is said about those that are wrong.

mod damage;
mod errors;
mod manual;
mod proxies;
mod safety;
mod secrets;
mod sources;
mod tls;
mod webhooks;

use gateway::config::{Config, Flags, Inputs, Loaded, Problem, Source, has_ours, load};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

type Env = [(OsString, OsString)];

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load_text(text: impl AsRef<[u8]>, dev: bool, env: &Env, flags: Flags<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_ref()).expect("written");
    load(Inputs { file: Some(file.path()), env, flags, dev })
}

fn from_text(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_text(text, false, &[], Flags::default())
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    load(Inputs { env: &env(pairs), ..Inputs::default() })
}

fn good(result: Result<Loaded, Vec<Problem>>, what: &str) -> Config {
    match result {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{what}\nis refused: {problems:#?}"),
    }
}

fn bad(result: Result<Loaded, Vec<Problem>>, what: &str) -> Vec<Problem> {
    result.err().unwrap_or_else(|| panic!("{what}\nis accepted"))
}

/// `outbox.bytes_max` and so on, for every key that is not a table.
fn paths(table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(section, keys)| keys.as_table().expect(section).keys().map(move |key| format!("{section}.{key}")))
        .collect()
}
