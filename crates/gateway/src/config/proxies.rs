//! Trusted proxies as values of the config: [`conn::address`] knows what they mean.

use super::values::{from_string, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::str::FromStr;

/// One of `public.trusted_proxies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxy(conn::address::TrustedProxy);

impl Deref for TrustedProxy {
    type Target = conn::address::TrustedProxy;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: conn::address::NetworkError| {
            with_hint(format_args!("{:?} is not a network", error.text), error.hint)
        })
    }
}

impl<'de> Deserialize<'de> for TrustedProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a network such as \"10.0.0.0/8\", an address, or \"unix\"")
    }
}

impl Serialize for TrustedProxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
