//! Origin patterns as values of the config: [`conn::auth::origin`] knows what they mean.

use super::values::{from_string, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::str::FromStr;

/// One of `public.origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(conn::auth::origin::OriginPattern);

impl Deref for OriginPattern {
    type Target = conn::auth::origin::OriginPattern;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromStr for OriginPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: conn::auth::origin::OriginPatternError| {
            with_hint(format_args!("{:?} is not an origin", error.text), error.hint)
        })
    }
}

impl<'de> Deserialize<'de> for OriginPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "an origin such as \"https://app.example.com\"")
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
