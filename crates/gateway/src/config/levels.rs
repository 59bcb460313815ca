//! Which log lines are wanted.

use super::values::{from_string, not_one_of, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A level for everything, and others for modules: `info`, or `info,tidegate::api=debug`.
///
/// It is checked here because the log library takes a misspelt level for the name of a module, and is silent about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(Box<str>);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Each entry is compared with each new line's module, so their number has an end.
const ENTRIES_MAX: usize = 32;

impl Levels {
    /// As it was written, in the form that the log library reads.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self("info".into())
    }
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut general = 0;
        let mut modules = Vec::new();
        for entry in text.split(',') {
            let level = match entry.split_once('=') {
                None => {
                    general += 1;
                    entry
                }
                Some((module, level)) => {
                    if !is_module(module) {
                        return Err(with_hint(
                            format_args!("{module:?} is not the name of a module"),
                            "write for example \"info,tidegate::api=debug\"",
                        ));
                    }
                    modules.push(module);
                    level
                }
            };
            if !LEVELS.contains(&level) {
                return Err(not_one_of(level, &LEVELS));
            }
        }
        modules.sort_unstable();
        if general > 1 || modules.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("{text:?} gives two levels for the same lines"));
        }
        if modules.len() > ENTRIES_MAX {
            return Err(format!("{} modules have their own level; at most {ENTRIES_MAX} can", modules.len()));
        }
        Ok(Self(text.into()))
    }
}

fn is_module(path: &str) -> bool {
    path.split("::")
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a level such as \"info\"")
    }
}

impl Serialize for Levels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_module_levels_are_accepted() {
        for text in ["off", "error", "warn", "info", "debug", "trace", "info,tidegate::api=debug", "hub=trace,warn"] {
            assert_eq!(text.parse::<Levels>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_misspelt_level_is_an_error_and_not_a_module() {
        for text in [
            "",
            "inf",
            "INFO",
            "info,",
            "info, hub=debug",
            "hub=debg",
            "=debug",
            "a::=info",
            "info,debug",
            "a=info,a=warn",
        ] {
            assert!(text.parse::<Levels>().is_err(), "{text:?}");
        }
    }
}
