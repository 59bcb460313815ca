//! The config: one TOML file, environment variables and flags become one checked [`Config`].
//!
//! Precedence is flag over environment over file over default; `--dev` only changes defaults. Everything that is wrong
//! is reported at once, each with its place and what to do about it. What is written is documented in
//! `deploy/tidegate.toml`, how it is found in `docs/configuration.md`.
//!
//! ```
//! use gateway::config::{Flags, Inputs, load};
//!
//! let env = [("TIDEGATE_OUTBOX__BYTES_MAX".into(), "2MiB".into())];
//! let loaded = load(Inputs { env: &env, ..Inputs::default() }).expect("a good config");
//! assert_eq!(loaded.config.outbox.bytes_max.to_string(), "2MiB");
//!
//! let env = [("TIDEGATE_OUTBOX__BYTE_MAX".into(), "2MiB".into())];
//! let problems = load(Inputs { env: &env, ..Inputs::default() }).expect_err("a misspelt key");
//! assert!(problems[0].to_string().contains("did you mean TIDEGATE_OUTBOX__BYTES_MAX?"));
//! ```

mod address;
mod channels;
mod compression;
mod hosts;
mod layers;
mod levels;
mod origins;
mod problem;
mod proxies;
mod rules;
mod sections;
mod tls;
mod token;
mod values;
mod webhooks;

pub use address::Address;
pub use channels::{ChannelOptions, DeltaType, Namespace, RecoveryMode, SlowClient};
pub use compression::Compression;
pub use hosts::HostPattern;
pub use levels::Levels;
pub use origins::OriginPattern;
pub use problem::{Problem, Source};
pub use proxies::TrustedProxy;
pub use rules::{ENVELOPE_BYTES_MAX, WORKERS_MAX};
pub use sections::{
    Api, Client, Config, Demo, Drain, DriverChoice, Http, Hub, Log, LogFormat, Outbox, Pin, PrivateTables, Public,
    Server, Workers,
};
pub use tls::{CertificateFiles, ClientAuth, Tls};
pub use token::{Ecdsa, Ed25519, PublicKey, Rsa, Token, Until};
pub use values::{Bytes, Ceiling, Count, REDACTED, Secret, Time};
pub use webhooks::{HeaderName, Url, Webhooks};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// What a config is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// The file of `--config`.
    pub file: Option<&'a Path>,
    /// The environment, of which only `TIDEGATE_SECTION__KEY` counts.
    pub env: &'a [(OsString, OsString)],
    /// What the command line says about keys.
    pub flags: Flags<'a>,
    /// The defaults are those of `--dev`.
    pub dev: bool,
}

/// Flags of the command line that stand for keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags<'a> {
    /// `--listen`, repeated: `public.listen`. Empty: not given.
    pub listen: &'a [String],
    /// `--api-listen`: `api.listen`.
    pub api_listen: Option<&'a str>,
    /// `--workers`: `workers.count`.
    pub workers: Option<&'a str>,
    /// `--io`: `workers.io`.
    pub io: Option<&'a str>,
}

/// A config that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All values, defaults included.
    pub config: Config,
    /// What is allowed and most likely not meant.
    pub warnings: Vec<Problem>,
    sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// Where the value of `section.key` came from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }
}

/// Whether the environment has a variable of ours, spelt well or not.
pub fn has_ours(env: &[(OsString, OsString)]) -> bool {
    env.iter().any(|(name, _)| name.to_str().is_some_and(layers::is_ours))
}

/// Puts the layers together and checks the result.
///
/// # Errors
/// Everything that is wrong, sorted by source and line; never empty.
pub fn load(inputs: Inputs<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut layers = layers::Layers::new(inputs.dev);
    let is_file_read = inputs.file.is_none_or(|path| layers.file(path));
    let mut env: Vec<_> = inputs
        .env
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value)))
        .filter(|(name, _)| layers::is_ours(name))
        .collect();
    env.sort();
    for (name, value) in env {
        match value.to_str() {
            Some(value) => layers.env(name, value),
            None => layers.env_not_unicode(name),
        }
    }
    put_flags(&mut layers, &inputs.flags);

    let merged = layers.finish();
    let mut problems = merged.problems;
    let mut warnings = Vec::new();
    // Without the file the values are not those that would be used, so their relations say nothing.
    if is_file_read {
        let (errors, unsure) = rules::check(&merged.config, inputs.dev, &merged.sources, &merged.refused);
        problems.extend(errors);
        warnings = unsure;
    }
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        Ok(Loaded { config: merged.config, warnings, sources: merged.sources })
    } else {
        Err(problems)
    }
}

fn put_flags(layers: &mut layers::Layers, flags: &Flags<'_>) {
    let listen: Vec<_> = flags.listen.iter().map(String::as_str).collect();
    if !listen.is_empty() {
        layers.flag("--listen", "public", "listen", &listen);
    }
    let single = [
        ("--api-listen", "api", "listen", flags.api_listen),
        ("--workers", "workers", "count", flags.workers),
        ("--io", "workers", "io", flags.io),
    ];
    for (flag, section, key, value) in single {
        if let Some(value) = value {
            layers.flag(flag, section, key, &[value]);
        }
    }
}

impl Config {
    /// Where clients are listened for: in the clear, then with TLS. Listeners are numbered in this order.
    pub fn client_addresses(&self) -> impl Iterator<Item = &Address> {
        self.public.listen.iter().chain(&self.tls.listen)
    }

    /// Whether there is anybody who says who a client is.
    fn tells_clients_apart(&self) -> bool {
        self.token.has_keys() || self.webhooks.target(conn::webhook::Event::Connect).is_some()
    }

    /// The config as a TOML file, secrets replaced by [`REDACTED`].
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a config is plain tables, lists and words")
    }
}
