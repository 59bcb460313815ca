//! Which web pages may connect: patterns for the `Origin` header.

use super::values::{from_string, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// `"*"`, an origin such as `https://app.example.com`, or one with a star in its host such as `https://*.example.com`;
/// kept in lower case.
///
/// A star stands for any characters of a host, or for any port. Everything is allowed only by the single star: a
/// pattern that allows as much in other words, such as `https://*`, is refused, so that a reader of the config cannot
/// miss it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(Box<str>);

/// The origin of local files and of every sandboxed page, whatever site it comes from.
const OPAQUE: &str = "null";

impl OriginPattern {
    /// The pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every page may connect.
    pub fn allows_all(&self) -> bool {
        &*self.0 == "*"
    }

    /// Local files may connect, and with them sandboxed pages of every site.
    pub fn is_opaque(&self) -> bool {
        &*self.0 == OPAQUE
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OriginPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = text.to_ascii_lowercase();
        if pattern == "*" || pattern == OPAQUE {
            return Ok(Self(pattern.into()));
        }
        match fault(&pattern) {
            None => Ok(Self(pattern.into())),
            Some(hint) => Err(with_hint(format_args!("{text:?} is not an origin"), hint)),
        }
    }
}

/// What makes `pattern` unfit, told as what to write instead.
fn fault(pattern: &str) -> Option<String> {
    let Some((scheme, authority)) = pattern.split_once("://") else {
        return Some(if is_host(pattern.rsplit_once(':').map_or(pattern, |(host, _)| host)) {
            format!("an origin has a scheme: \"https://{pattern}\" or \"http://{pattern}\"")
        } else {
            "write \"https://app.example.com\", \"https://*.example.com\" or \"*\"".into()
        });
    };
    if !is_scheme(scheme) {
        return Some("write the scheme as browsers do, such as \"https://app.example.com\"".into());
    }
    if authority.contains(['/', '?', '#', '@']) {
        return Some("an origin ends with its host and port: leave out the slash and all that follows".into());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port != "*" && port.parse::<u16>().is_err()) {
        return Some("the port is a number, or * for any".into());
    }
    if !is_host(host) {
        return Some("write \"https://app.example.com\", \"https://*.example.com\" or \"*\"".into());
    }
    // The last label stays literal: `https://*` or `https://*.*` would be "*" in disguise, and `https://192.168.1.*`
    // would also match the host name `192.168.1.example`.
    if host.rsplit('.').next().is_some_and(|label| label.contains('*')) {
        return Some("the last part of the host has no star; to allow every page on purpose, write \"*\"".into());
    }
    if authority.matches('*').count() > 1 {
        return Some("one star is allowed in an origin: write several origins instead".into());
    }
    None
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
}

fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    // Browsers send names in their ASCII form, so a pattern with other letters could never match.
    host.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
    })
}

impl<'de> Deserialize<'de> for OriginPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "an origin such as \"https://app.example.com\"")
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_origins_and_host_globs_are_accepted_in_lower_case() {
        let table = [
            ("*", "*"),
            ("null", "null"),
            ("https://App.Example.com", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:*", "http://localhost:*"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://pr-*.example.com:8443", "https://pr-*.example.com:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ];
        for (text, kept) in table {
            let pattern: OriginPattern = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(pattern.as_str(), kept);
            assert_eq!((pattern.allows_all(), pattern.is_opaque()), (text == "*", text == "null"));
        }
    }

    #[test]
    fn nothing_but_the_single_star_allows_every_page() {
        for text in ["**", "*.*", "https://*", "https://*.*", "*:*", "*:443", "*://*", "http://*:8000", "http://a.*"] {
            assert!(text.parse::<OriginPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_an_origin_gets_the_hint_that_repairs_it() {
        let table = [
            ("app.example.com", "\"https://app.example.com\""),
            ("app.example.com:8443", "\"https://app.example.com:8443\""),
            ("https://a.example/", "leave out the slash"),
            ("https://user@a.example", "leave out"),
            ("https://a.example:x", "the port is a number"),
            ("https://*.*.example.com", "one star"),
            ("http://192.168.1.*", "no star"),
            ("1s://a.example", "the scheme"),
            ("https://", "https://app.example.com"),
            ("https://a b", "https://app.example.com"),
            ("https://ä.example", "https://app.example.com"),
            ("https://a..example", "https://app.example.com"),
            ("https://[::z]", "https://app.example.com"),
            ("", "https://app.example.com"),
        ];
        for (text, hint) in table {
            let error = text.parse::<OriginPattern>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
