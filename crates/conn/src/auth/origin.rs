//! Which web pages may open a connection.
//!
//! Browsers send WebSocket handshakes from any page to any host (RFC 6455, 10.2): the same-origin policy does not
//! apply, only the `Origin` header tells where the page came from, and only the server can act on it.

use std::fmt;
use std::str::FromStr;

/// The rule for `Origin`. A request without that header is not from a page and is always accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    patterns: Vec<OriginPattern>,
}

impl OriginPolicy {
    /// Pages whose origin matches one of these may connect, besides those of our own host.
    pub fn new(patterns: Vec<OriginPattern>) -> Self {
        Self { patterns }
    }

    /// Whether a page from `origin` may connect to a request's `host` (both as sent). An equal host and port is
    /// always allowed: it is our own page, or one behind the same proxy.
    pub fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_ascii_lowercase();
        if let (Some(authority), Some(host)) = (authority(&origin), host)
            && same_authority(authority, &host.to_ascii_lowercase())
        {
            return true;
        }
        self.patterns.iter().any(|pattern| pattern.matches(&origin))
    }
}

/// `"*"`, an origin such as `https://app.example.com`, or one with a star in its host such as `https://*.example.com`;
/// kept in lower case.
///
/// A star stands for any characters of a host, or for any port. Everything is allowed only by the single star: a
/// pattern that allows as much in other words, such as `https://*`, is refused, so that a reader of the config cannot
/// miss it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(Box<str>);

/// Why a text is no [`OriginPattern`], with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPatternError {
    /// What it was.
    pub text: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for OriginPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an origin: {}", self.text, self.hint)
    }
}

impl std::error::Error for OriginPatternError {}

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

    /// Whether an origin in lower case is meant.
    fn matches(&self, origin: &str) -> bool {
        let Some((before, after)) = self.0.split_once('*') else { return *self.0 == *origin };
        if self.allows_all() {
            return true;
        }
        let middle = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        middle.is_some_and(|middle| {
            let is_port = before.ends_with(':');
            let fits =
                |b: u8| if is_port { b.is_ascii_digit() } else { b.is_ascii_alphanumeric() || b"-_.".contains(&b) };
            !middle.is_empty() && middle.bytes().all(fits)
        })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OriginPattern {
    type Err = OriginPatternError;

    fn from_str(text: &str) -> Result<Self, OriginPatternError> {
        let pattern = text.to_ascii_lowercase();
        if pattern == "*" || pattern == OPAQUE {
            return Ok(Self(pattern.into()));
        }
        match fault(&pattern) {
            None => Ok(Self(pattern.into())),
            Some(hint) => Err(OriginPatternError { text: text.to_owned(), hint }),
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

/// `host[:port]` of `http://…` and `https://…`, with the default port cut off.
fn authority(origin: &str) -> Option<&str> {
    if let Some(rest) = origin.strip_prefix("http://") {
        return Some(rest.strip_suffix(":80").unwrap_or(rest));
    }
    let rest = origin.strip_prefix("https://")?;
    Some(rest.strip_suffix(":443").unwrap_or(rest))
}

fn same_authority(authority: &str, host: &str) -> bool {
    let bare = |h: &str| h.strip_suffix(":80").or_else(|| h.strip_suffix(":443")).unwrap_or(h).to_owned();
    authority == host || authority == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> OriginPolicy {
        OriginPolicy::new(entries.iter().map(|entry| entry.parse().expect("a good pattern")).collect())
    }

    #[test]
    fn our_own_page_and_programs_are_allowed_by_default() {
        let none = policy(&[]);
        assert!(none.allows(None, Some("127.0.0.1:8000")));
        assert!(none.allows(Some("http://127.0.0.1:8000"), Some("127.0.0.1:8000")));
        assert!(none.allows(Some("https://Push.example.com"), Some("push.example.com")));
        assert!(none.allows(Some("https://push.example.com:443"), Some("push.example.com")));
        assert!(none.allows(Some("http://push.example.com"), Some("push.example.com:80")));
    }

    #[test]
    fn a_foreign_page_is_refused_by_default() {
        let none = policy(&[]);
        for origin in ["http://127.0.0.1:8001", "http://127.0.0.2:8000", "https://evil.example", "null", "", "file://"]
        {
            assert!(!none.allows(Some(origin), Some("127.0.0.1:8000")), "{origin}");
        }
        assert!(!none.allows(Some("http://127.0.0.1:8000"), None));
    }

    #[test]
    fn everything_is_allowed_only_by_the_single_star() {
        assert!(policy(&["*"]).allows(Some("https://evil.example"), Some("a")));
    }

    #[test]
    fn listed_origins_and_globs_match_whole_origins() {
        let some = policy(&["https://app.example.com", "https://*.example.org", "http://localhost:*", "null"]);
        for (origin, allowed) in [
            ("https://app.example.com", true),
            ("https://APP.example.com", true),
            ("http://app.example.com", false),
            ("https://app.example.com.evil.net", false),
            ("https://app.example.com:444", false),
            ("https://a.example.org", true),
            ("https://a.b.example.org", true),
            ("https://.example.org", false),
            ("https://example.org", false),
            ("https://a.example.org.evil.net", false),
            ("https://evil.net:1.example.org", false),
            ("https://evil.net/.example.org", false),
            ("http://localhost:3000", true),
            ("http://localhost:3000.evil.net", false),
            ("http://localhost:", false),
            ("null", true),
        ] {
            assert_eq!(some.allows(Some(origin), Some("push.example.com")), allowed, "{origin}");
        }
    }

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
            assert!(error.hint.contains(hint), "{text}: {error}");
        }
    }
}
