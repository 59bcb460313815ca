//! Puts file, environment and flags on top of the defaults, key by key, and remembers where each value came from.
//!
//! Every key is tried on its own, so that one bad value does not hide the next. What is known is read off the
//! serialised defaults; there is no second list of keys that could differ from the types.

use super::Config;
use super::channels::ChannelOptions;
use super::problem::{Problem, Source, nearest};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::{Zeroize as _, Zeroizing};

/// What `--dev` changes. Everything above it wins, like over any default.
const DEV: &str = r#"
[public]
listen = ["127.0.0.1:8000", "[::1]:8000"]
uni_websocket = true
echo = true
[api]
insecure = true
[client]
anonymous = true
insecure = true
[demo]
enabled = true
"#;

/// Environment variables with this prefix and a [`SEPARATOR`] are ours. Without the separator they are not:
/// Kubernetes sets `TIDEGATE_PORT` and more for a service called `tidegate`.
const PREFIX: &str = "TIDEGATE_";
const SEPARATOR: &str = "__";
const FILE_SUFFIX: &str = "_FILE";

/// Keys whose values never appear in a message, and which the environment may also give as the name of a file.
const SECRETS: [&str; 3] = ["api.keys", "token.hmac_secret_keys", "webhooks.signing_keys"];

/// The list of tables; every other top-level name is a table.
const NAMESPACES: &str = "namespaces";

/// Bytes of the config file, and of a file that holds a secret.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Whether an environment variable of this name is meant for us.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains(SEPARATOR))
}

/// The layers put together so far.
pub(super) struct Layers {
    /// Accepted values as `section` -> `key`.
    values: toml::Table,
    /// Accepted namespaces by name.
    namespaces: BTreeMap<String, (toml::Table, Source)>,
    /// Where a key's value came from; absent for defaults.
    sources: BTreeMap<String, Source>,
    /// Keys that were given a value that was refused, so that nothing is said about their relations.
    refused: BTreeSet<String>,
    problems: Vec<Problem>,
    /// The serialised defaults: what keys there are.
    known: toml::Table,
    /// The keys of a namespace beside its name.
    options: toml::Table,
}

/// All layers together.
pub(super) struct Merged {
    pub(super) config: Config,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) refused: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    pub(super) fn new(dev: bool) -> Self {
        let known = toml::Table::try_from(Config::default()).expect("the defaults are plain tables");
        let options = toml::Table::try_from(ChannelOptions::default()).expect("the defaults are plain tables");
        let values = if dev { DEV.parse().expect("a constant that a test parses") } else { toml::Table::new() };
        Self {
            values,
            namespaces: BTreeMap::new(),
            sources: BTreeMap::new(),
            refused: BTreeSet::new(),
            problems: Vec::new(),
            known,
            options,
        }
    }

    /// The whole config, even when some values were refused; those are the defaults then.
    pub(super) fn finish(mut self) -> Merged {
        let namespaces: Vec<_> = self.namespaces.into_values().map(|(table, _)| toml::Value::Table(table)).collect();
        self.values.insert(NAMESPACES.into(), namespaces.into());
        let config = Config::deserialize(toml::Value::Table(self.values)).unwrap_or_else(|error| {
            // Each value passed on its own, so this is a mistake in this program; it still must not pass for a config.
            self.problems.push(Problem::new(Source::Default, "", error.message()));
            Config::default()
        });
        self.problems.sort();
        self.problems.dedup();
        Merged { config, sources: self.sources, refused: self.refused, problems: self.problems }
    }

    fn refuse(&mut self, problem: Problem) {
        self.refused.insert(problem.key.clone());
        self.problems.push(problem);
    }

    fn accept(&mut self, section: &str, key: &str, value: toml::Value, source: Source) {
        self.sources.insert(format!("{section}.{key}"), source);
        let table = self.values.entry(section).or_insert_with(|| toml::Table::new().into());
        if let toml::Value::Table(table) = table {
            // Another key that does not count any more.
            if let Some(toml::Value::Array(values)) = table.insert(key.into(), value) {
                values.into_iter().for_each(|value| {
                    if let toml::Value::String(mut text) = value {
                        text.zeroize();
                    }
                });
            }
        }
    }

    // ---- file ----

    /// Puts the file on top. `false` when it cannot be read or is not TOML.
    pub(super) fn file(&mut self, path: &Path) -> bool {
        let shared: Arc<Path> = path.into();
        let whole = |line| Source::File { path: Arc::clone(&shared), line, column: 1 };
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(message) => {
                self.refuse(Problem::new(whole(0), "", &message));
                return false;
            }
        };
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                self.refuse(Problem::new(whole(line), "", "this is not UTF-8"));
                return false;
            }
        };
        let place = Place { path: shared, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut lines = BTreeSet::new();
        for error in &errors {
            let source = place.at(error.span().unwrap_or_default());
            // One mistake often makes the parser stumble several times on its line.
            if let Source::File { line, .. } = source
                && lines.insert(line)
            {
                self.refuse(Problem::new(source, "", &format!("not TOML: {}", error.message())));
            }
        }
        if !errors.is_empty() {
            return false;
        }
        for (section, value) in table.into_inner() {
            self.file_section(&place, section, value);
        }
        true
    }

    fn file_section<'t>(&mut self, place: &Place<'t>, name: Spanned<Cow<'t, str>>, value: Spanned<DeValue<'t>>) {
        let section = name.get_ref();
        if section == NAMESPACES {
            return self.file_namespaces(place, value);
        }
        if !self.known.contains_key(section.as_ref()) {
            let is_table = value.get_ref().is_table();
            let hint = self.hint_for_section(section, is_table);
            let what = if is_table { "unknown section" } else { "unknown key" };
            return self.refuse(unknown(place.at(name.span()), section.as_ref(), what, hint));
        }
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let problem = Problem::new(place.at(span), section.as_ref(), "this is a section, not a value");
            return self.refuse(problem.hinted(format!("write [{section}] on a line of its own and its keys below")));
        };
        for (key, value) in table {
            let path = format!("{section}.{}", key.get_ref());
            if !self.has_key(section, key.get_ref()) {
                let hint = self.hint_for_key(section, key.get_ref());
                self.refuse(unknown(place.at(key.span()), path, "unknown key", hint));
                continue;
            }
            match probe(section, key.get_ref(), value) {
                Ok(value) => self.accept(section, key.get_ref(), value, place.at(key.span())),
                Err(fault) => self.refuse(fault.into_problem(&path, |span| place.at(span))),
            }
        }
    }

    fn file_namespaces<'t>(&mut self, place: &Place<'t>, value: Spanned<DeValue<'t>>) {
        let span = value.span();
        let DeValue::Array(list) = value.into_inner() else {
            let problem = Problem::new(place.at(span), NAMESPACES, "namespaces are a list of tables");
            return self.refuse(problem.hinted("write [[namespaces]] with two brackets, and name = \"...\" below"));
        };
        for value in list {
            let source = place.at(value.span());
            let DeValue::Table(table) = value.into_inner() else {
                self.refuse(Problem::new(source, NAMESPACES, "a namespace is a table with a name"));
                continue;
            };
            let Some((name, table)) = self.namespace(table, &source, |span| place.at(span)) else { continue };
            if let Some((_, first)) = self.namespaces.get(&name) {
                let message = format!("two namespaces are called {name:?}; the other one is at {first}");
                self.refuse(Problem::new(source, "namespaces.name", &message));
                continue;
            }
            self.put_namespace(name, table, source);
        }
    }

    fn put_namespace(&mut self, name: String, table: toml::Table, source: Source) {
        self.sources.insert(format!("{NAMESPACES}.{name}"), source.clone());
        self.namespaces.insert(name, (table, source));
    }

    /// Checks the keys of one namespace. `None` when it has no valid name.
    fn namespace<'t>(
        &mut self,
        table: DeTable<'t>,
        source: &Source,
        at: impl Fn(Range<usize>) -> Source,
    ) -> Option<(String, toml::Table)> {
        let mut kept = toml::Table::new();
        let mut named = false;
        for (key, value) in table {
            let path = format!("{NAMESPACES}.{}", key.get_ref());
            let probed = if key.get_ref() == "name" {
                named = true;
                probe_name(value)
            } else if self.options.contains_key(key.get_ref().as_ref()) {
                // The same options as those of channels without a namespace.
                probe("channels", key.get_ref(), value)
            } else {
                let hint = nearest(key.get_ref(), self.options.keys().map(String::as_str).chain(["name"]))
                    .map(|known| format!("did you mean `{known}`?"));
                self.refuse(unknown(at(key.span()), path, "unknown key", hint));
                continue;
            };
            match probed {
                Ok(value) => _ = kept.insert(key.get_ref().to_string(), value),
                Err(fault) => self.refuse(fault.into_problem(&path, &at)),
            }
        }
        if !named {
            let problem = Problem::new(source.clone(), NAMESPACES, "this namespace has no name");
            self.refuse(problem.hinted("add name = \"chat\" for the channels chat:..."));
        }
        let name = kept.get("name")?.as_str()?.to_owned();
        Some((name, kept))
    }

    // ---- environment ----

    /// Puts one of our variables on top.
    pub(super) fn env(&mut self, name: &str, value: &str) {
        let source = Source::Env(name.to_owned());
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(SEPARATOR)) else {
            return;
        };
        if section.eq_ignore_ascii_case(NAMESPACES) && section.chars().all(|c| c.is_ascii_uppercase()) {
            return self.env_namespace(source, key, value);
        }
        let (is_upper, section, key) =
            (!name.contains(|c: char| c.is_lowercase()), section.to_lowercase(), key.to_lowercase());
        if is_upper && self.has_key(&section, &key) {
            return self.env_value(source, &section, &key, value);
        }
        if let (true, Some(key)) = (is_upper, key.strip_suffix(&FILE_SUFFIX.to_lowercase()))
            && self.has_key(&section, key)
        {
            return self.env_file(source, &section, key, Path::new(value));
        }
        let names: Vec<_> = self.paths().map(|(section, key)| env_name(section, key)).collect();
        let hint = nearest(name, names.iter().map(String::as_str)).map(|known| format!("did you mean {known}?"));
        self.refuse(unknown(source, String::new(), "unknown variable", hint));
    }

    /// A variable that is not Unicode.
    pub(super) fn env_not_unicode(&mut self, name: &str) {
        self.refuse(Problem::new(Source::Env(name.to_owned()), "", "the value is not UTF-8"));
    }

    fn env_value(&mut self, source: Source, section: &str, key: &str, text: &str) {
        let path = format!("{section}.{key}");
        if matches!(self.known[section][key], toml::Value::Array(_)) {
            let parsed = DeValue::parse(text).ok().filter(|value| value.get_ref().is_array());
            let Some(value) = parsed else {
                let problem = Problem::new(source, path, "this is a list");
                return self.refuse(problem.hinted("write it as TOML does, such as [\"one\", \"two\"]"));
            };
            return self.settle(source, section, key, vec![value]);
        }
        // A word needs no quotes here: `info`, `25s`. What reads as TOML is taken as that first, so that `4` is a
        // number and `true` is not a word; where the key wants a string, `4` is one.
        let word = Spanned::new(0..0, DeValue::String(text.into()));
        let parsed = DeValue::parse(text)
            .ok()
            .filter(|value| matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Boolean(_) | DeValue::String(_)));
        self.settle(source, section, key, parsed.into_iter().chain([word]).collect());
    }

    /// A secret in a file: one a line, blank lines left out.
    fn env_file(&mut self, source: Source, section: &str, key: &str, file: &Path) {
        let path = format!("{section}.{key}");
        if !SECRETS.contains(&path.as_str()) {
            let problem = Problem::new(source, path, "only secrets can be given as a file");
            return self.refuse(problem.hinted(format!("set {}", env_name(section, key))));
        }
        if self.sources.get(&path) == Some(&Source::Env(env_name(section, key))) {
            let message = format!("{} is set too, and only one of them can count", env_name(section, key));
            return self.refuse(Problem::new(source, path, &message));
        }
        let read = read_bounded(file);
        let read = read.as_ref().map_err(String::as_str);
        let text = match read.and_then(|bytes| std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")) {
            Ok(text) => text,
            Err(message) => {
                return self.refuse(Problem::new(source, path, &format!("{} {message}", file.display())));
            }
        };
        let secrets: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if secrets.is_empty() {
            let message = format!("{} holds no secret", file.display());
            return self.refuse(Problem::new(source, path, &message));
        }
        self.settle(source, section, key, vec![list(&secrets)]);
    }

    /// `TIDEGATE_NAMESPACES__chat='{ allow_subscribe_for_client = true }'` adds or replaces the namespace `chat`.
    fn env_namespace(&mut self, source: Source, name: &str, text: &str) {
        let table = match DeValue::parse(text).map(Spanned::into_inner) {
            Ok(DeValue::Table(table)) => table,
            _ => {
                let problem = Problem::new(source, NAMESPACES, "this is a table");
                return self
                    .refuse(problem.hinted("write it as TOML does, such as { allow_subscribe_for_client = true }"));
            }
        };
        if table.keys().any(|key| key.get_ref() == "name") {
            let problem =
                Problem::new(source, "namespaces.name", "the name stands in the name of the variable already");
            return self.refuse(problem.hinted("leave out name = ..."));
        }
        let mut table = table;
        table.insert(Spanned::new(0..0, "name".into()), Spanned::new(0..0, DeValue::String(name.into())));
        if let Some((name, table)) = self.namespace(table, &source, |_| source.clone()) {
            self.put_namespace(name, table, source);
        }
    }

    // ---- flags ----

    /// Puts a flag of the command line on top. `values` is more than one only for keys that are lists.
    pub(super) fn flag(&mut self, flag: &'static str, section: &str, key: &str, values: &[&str]) {
        if matches!(self.known[section][key], toml::Value::Array(_)) {
            return self.settle(Source::Flag(flag), section, key, vec![list(values)]);
        }
        for value in values {
            self.env_value(Source::Flag(flag), section, key, value);
        }
    }

    /// Takes the first reading of a value that fits; if none does, reports about the last.
    fn settle(&mut self, source: Source, section: &str, key: &str, readings: Vec<Spanned<DeValue<'_>>>) {
        let path = format!("{section}.{key}");
        let mut fault = None;
        for value in readings {
            match probe(section, key, value) {
                Ok(value) => return self.accept(section, key, value, source),
                Err(refused) => fault = Some(refused),
            }
        }
        if let Some(fault) = fault {
            self.refuse(fault.into_problem(&path, |_| source.clone()));
        }
    }

    // ---- what is known ----

    fn paths(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known
            .iter()
            .filter_map(|(section, keys)| Some((section, keys.as_table()?)))
            .flat_map(|(section, keys)| keys.keys().map(move |key| (section.as_str(), key.as_str())))
    }

    fn has_key(&self, section: &str, key: &str) -> bool {
        self.known.get(section).is_some_and(|keys| keys.get(key).is_some())
    }

    fn hint_for_section(&self, name: &str, is_table: bool) -> Option<String> {
        if !is_table && let Some(hint) = self.hint_elsewhere(name) {
            return Some(hint);
        }
        let known = nearest(name, self.known.keys().map(String::as_str).chain([NAMESPACES]))?;
        Some(if known == NAMESPACES {
            "did you mean [[namespaces]]?".into()
        } else {
            format!("did you mean [{known}]?")
        })
    }

    fn hint_for_key(&self, section: &str, key: &str) -> Option<String> {
        let here = self.paths().filter(|(there, _)| *there == section).map(|(_, key)| key);
        self.hint_elsewhere(key).or_else(|| nearest(key, here).map(|known| format!("did you mean `{known}`?")))
    }

    /// For a key that is known, in other sections than where it was found.
    fn hint_elsewhere(&self, key: &str) -> Option<String> {
        let sections: Vec<_> =
            self.paths().filter(|(_, known)| *known == key).map(|(section, _)| format!("[{section}]")).collect();
        (!sections.is_empty()).then(|| format!("`{key}` belongs below {}", sections.join(" or ")))
    }
}

/// Turns a place in the file into line and column.
struct Place<'t> {
    path: Arc<Path>,
    text: &'t str,
}

impl Place<'_> {
    fn at(&self, span: Range<usize>) -> Source {
        let start = (0..=span.start.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at));
        let before = &self.text[..start.unwrap_or(0)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Source::File {
            path: Arc::clone(&self.path),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        }
    }
}

/// Why a value was refused, and which part of it if that is known.
struct Fault {
    message: String,
    span: Range<usize>,
}

impl Fault {
    fn into_problem(self, path: &str, at: impl Fn(Range<usize>) -> Source) -> Problem {
        let source = at(self.span);
        if SECRETS.contains(&path) && !self.message.contains(super::values::HINT_MARK) {
            // Not one of our messages, which are silent about the value; serde's quote it.
            return Problem::new(source, path, "this is not a list of strings").hinted(
                "write for example [\"the-first-key\", \"the-second-key\"]; the value is secret and not shown",
            );
        }
        Problem::new(source, path, &self.message)
    }
}

/// Tries one value at its key with everything else at its default, and gives it back as a plain value.
fn probe(section: &str, key: &str, value: Spanned<DeValue<'_>>) -> Result<toml::Value, Fault> {
    let span = value.span();
    let inner = DeTable::from_iter([(Spanned::new(span.clone(), key.into()), value.clone())]);
    let outer = DeTable::from_iter([(
        Spanned::new(span.clone(), section.into()),
        Spanned::new(span.clone(), DeValue::Table(inner)),
    )]);
    let outer = Spanned::new(span.clone(), DeValue::Table(outer));
    Config::deserialize(toml::de::ValueDeserializer::from(outer))
        .and_then(|_| toml::Value::deserialize(toml::de::ValueDeserializer::from(value)))
        .map_err(|error| Fault { message: error.message().to_owned(), span: error.span().unwrap_or(span) })
}

fn probe_name(value: Spanned<DeValue<'_>>) -> Result<toml::Value, Fault> {
    let span = value.span();
    match value.get_ref().as_str() {
        Some(name) if is_namespace_name(name) => Ok(name.into()),
        Some(name) => {
            let message = format!("{name:?} cannot be the name of a namespace");
            let hint = "two or more of a-z, A-Z, 0-9, - and _";
            Err(Fault { message: super::values::with_hint(message, hint), span })
        }
        None => Err(Fault { message: format!("{} instead of a string", value.get_ref().type_str()), span }),
    }
}

fn is_namespace_name(name: &str) -> bool {
    name.len() >= 2 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn unknown(source: Source, key: impl Into<String>, what: &str, hint: Option<String>) -> Problem {
    Problem { hint, ..Problem::new(source, key, what) }
}

fn env_name(section: &str, key: &str) -> String {
    format!("{PREFIX}{}{SEPARATOR}{}", section.to_uppercase(), key.to_uppercase())
}

fn list<'a>(words: &[&'a str]) -> Spanned<DeValue<'a>> {
    let words = words.iter().map(|word| Spanned::new(0..0, DeValue::String((*word).into())));
    Spanned::new(0..0, DeValue::Array(words.collect()))
}

/// A file that may hold secrets.
fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    use std::io::Read;
    let mut bytes = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(path).and_then(|file| {
        // Memory that grows leaves a copy behind.
        bytes.reserve(file.metadata()?.len().min(FILE_BYTES_MAX) as usize + 1);
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    });
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(format!("has more than {FILE_BYTES_MAX} bytes")),
        Ok(_) => Ok(bytes),
    }
}
