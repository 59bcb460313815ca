//! Which Host headers are answered.
//!
//! A page of another site can make a browser resolve its own name to 127.0.0.1 (DNS rebinding) and then talk to a
//! loopback listener as "same origin". The Host header still carries the page's name, so that is what is checked.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The longest name that DNS knows, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// How the names of this machine are written in a Host header.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The rule for `Host`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// Any name: a public listener answers under whatever name the operator gave it.
    #[default]
    Any,
    /// Names of this machine (`localhost`, `127.0.0.1`, `[::1]`) and these, with any port.
    OwnAnd(Vec<HostPattern>),
}

impl HostPolicy {
    /// Whether a request for `host` is answered. A missing Host (HTTP/1.0) names no foreign page and passes.
    pub fn allows(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (Self::Any, _) | (Self::OwnAnd(_), None) => true,
            (Self::OwnAnd(patterns), Some(host)) => {
                let name = match host.rsplit_once(':') {
                    Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
                    _ => host,
                };
                OWN_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own))
                    || patterns.iter().any(|pattern| pattern.matches(name))
            }
        }
    }
}

/// A host name such as `push.example.com`, or `*.example.com` for all names below that one; kept in lower case.
///
/// An address is a name too. There is no pattern for every name, which would be [`HostPolicy::Any`] in disguise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Box<str>);

/// Why a text is no [`HostPattern`], with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPatternError {
    /// What it was.
    pub text: String,
    /// What to write instead.
    pub hint: &'static str,
}

impl fmt::Display for HostPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a host name: {}", self.text, self.hint)
    }
}

impl std::error::Error for HostPatternError {}

impl HostPattern {
    /// The pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name is meant, which was sent by anybody.
    fn matches(&self, name: &str) -> bool {
        let Some(suffix) = self.0.strip_prefix('*') else { return self.0.eq_ignore_ascii_case(name) };
        let Some(cut) = name.len().checked_sub(suffix.len()).filter(|cut| name.is_char_boundary(*cut)) else {
            return false;
        };
        let (below, end) = name.split_at(cut);
        end.eq_ignore_ascii_case(suffix) && below.split('.').all(is_label)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        match fault(text) {
            None => Ok(Self(text.to_ascii_lowercase().into())),
            Some(hint) => Err(HostPatternError { text: text.to_owned(), hint }),
        }
    }
}

/// What makes a pattern unfit, told as what to write instead.
fn fault(text: &str) -> Option<&'static str> {
    if text.contains("://") || text.contains('/') {
        return Some("a name alone, without scheme and path: \"push.example.com\"");
    }
    if let Some(v6) = text.strip_prefix('[') {
        let fits = v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
        return (!fits).then_some("an IPv6 address stands in brackets and has no port: \"[2001:db8::1]\"");
    }
    if text.contains(':') {
        return Some("leave out the port, the name is answered with any; an IPv6 address stands in brackets");
    }
    let name = text.strip_prefix("*.");
    if name.unwrap_or(text).contains('*') {
        return Some("the star is the first label: \"*.example.com\"; there is none for every name");
    }
    if name.is_some_and(|name| !name.contains('.')) {
        return Some("anybody can have a name below a top-level domain: \"*.example.com\", not \"*.com\"");
    }
    let fits = name.unwrap_or(text).split('.').all(is_label) && text.len() <= NAME_BYTES_MAX;
    (!fits).then_some("write it as browsers send it, in ASCII: \"push.example.com\" or \"*.example.com\"")
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{HostPattern, HostPolicy};

    fn policy(patterns: &[&str]) -> HostPolicy {
        HostPolicy::OwnAnd(patterns.iter().map(|pattern| pattern.parse().expect("a good pattern")).collect())
    }

    #[test]
    fn without_more_only_names_of_this_machine_are_answered() {
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST:8000", true),
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("[::1]", true),
            ("rebind.example:8000", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("127.0.0.2", false),
            ("localhost:", false),
            ("localhost:80x", false),
        ] {
            assert_eq!(policy(&[]).allows(Some(host)), allowed, "{host}");
            assert!(HostPolicy::Any.allows(Some(host)));
        }
        assert!(policy(&[]).allows(None));
    }

    #[test]
    fn listed_names_are_answered_too_with_any_port_and_in_any_case() {
        let some = policy(&["Push.example.com", "*.Example.org", "10.0.0.1", "[2001:DB8::1]"]);
        for (host, allowed) in [
            ("push.example.com", true),
            ("PUSH.example.com:8443", true),
            ("localhost:8000", true),
            ("10.0.0.1:8000", true),
            ("[2001:db8::1]:8000", true),
            ("a.example.org", true),
            ("a.b.EXAMPLE.org:80", true),
            ("example.com", false),
            ("a.push.example.com", false),
            ("push.example.com.evil.net", false),
            ("push.example.com.", false),
            ("push.example.com@evil.net", false),
            ("push.example.com:x", false),
            ("example.org", false),
            (".example.org", false),
            ("a..example.org", false),
            ("evilexample.org", false),
            ("evil.net/.example.org", false),
            ("é.example.org", false),
            ("éxample.org", false),
            ("10.0.0.10", false),
            ("[2001:db8::2]", false),
            ("", false),
        ] {
            assert_eq!(some.allows(Some(host)), allowed, "{host}");
        }
    }

    #[test]
    fn what_could_never_match_or_would_match_everything_is_no_pattern() {
        let long = |name: usize| format!("{}.example.com", "a".repeat(name));
        let table = [
            ("*", "*.example.com"),
            ("*.com", "*.a.com"),
            ("*.", "*.a.b"),
            ("push.*.com", "*.push.com"),
            ("*push.example.com", "*.push.example.com"),
            ("*.*.example.com", "*.example.com"),
            ("https://push.example.com", "push.example.com"),
            ("push.example.com/", "push.example.com"),
            ("push.example.com:443", "push.example.com"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
            ("[2001:db8::g]", "[2001:db8::f]"),
            ("", "a"),
            ("push..example.com", "push.example.com"),
            ("push.example.com.", "push.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("push example", "push-example"),
            (&*long(242), &*long(241)),
        ];
        for (bad, good) in table {
            let error = bad.parse::<HostPattern>().expect_err(bad);
            assert!(error.to_string().starts_with(&format!("{bad:?} is not a host name: ")), "{error}");
            assert_eq!(good.parse::<HostPattern>().expect(good).as_str(), good);
        }
    }
}
