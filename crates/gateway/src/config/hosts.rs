//! Host patterns as values of the config: [`conn::auth::host`] knows what they mean.

use super::values::{from_string, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::str::FromStr;

/// One of `public.hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(conn::auth::host::HostPattern);

impl Deref for HostPattern {
    type Target = conn::auth::host::HostPattern;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: conn::auth::host::HostPatternError| {
            with_hint(format_args!("{:?} is not a host name", error.text), error.hint.to_owned())
        })
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a host name such as \"push.example.com\"")
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
