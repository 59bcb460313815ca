//! Which web pages may open a connection.
//!
//! Browsers send WebSocket handshakes from any page to any host (RFC 6455, 10.2): the same-origin policy does not
//! apply, only the `Origin` header tells where the page came from, and only the server can act on it.

/// The rule for `Origin`. A request without that header is not from a page and is always accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`: every origin. Has to be asked for by name.
    Any,
    /// `https://app.example.com`, `null`: equal, in lower case.
    Exact(String),
    /// `https://*.example.com`: `*` stands for one or more characters of the host, dots included.
    Glob { before: String, after: String },
}

impl OriginPolicy {
    /// Takes exact origins (`https://app.example.com`), globs with one `*` in the host (`https://*.example.com`), or `*`.
    ///
    /// # Errors
    /// The first entry that is none of these, with what is wrong about it.
    pub fn new<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let patterns = entries.iter().map(|e| Pattern::parse(e.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Whether every origin is let in.
    pub fn allows_all(&self) -> bool {
        self.patterns.contains(&Pattern::Any)
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
        self.patterns.iter().any(|p| p.matches(&origin))
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, String> {
        let entry = entry.trim().to_ascii_lowercase();
        match entry.as_str() {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Exact(entry)),
            _ => {}
        }
        let Some((scheme, host)) = entry.split_once("://") else {
            return Err(format!(
                "`{entry}` is not an origin: write scheme://host, for example https://app.example.com"
            ));
        };
        if scheme.is_empty() || host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(format!("`{entry}` is not an origin: scheme://host[:port] without path or user"));
        }
        match (scheme.contains('*'), host.split_once('*')) {
            (true, _) => Err(format!("`{entry}`: the scheme of an origin cannot be a glob")),
            (false, None) => Ok(Self::Exact(entry)),
            (false, Some((_, after))) if after.contains('*') => {
                Err(format!("`{entry}`: one `*` is allowed in an origin"))
            }
            (false, Some((before, after))) => {
                Ok(Self::Glob { before: format!("{scheme}://{before}"), after: after.to_owned() })
            }
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Glob { before, after } => {
                origin.len() > before.len() + after.len() && origin.starts_with(before) && origin.ends_with(after)
            }
        }
    }
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
        OriginPolicy::new(entries).expect("good entries")
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
    fn listed_origins_and_globs_match_whole_origins() {
        let some = policy(&["https://app.example.com", "https://*.example.org", "null"]);
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
            ("null", true),
        ] {
            assert_eq!(some.allows(Some(origin), Some("push.example.com")), allowed, "{origin}");
        }
    }

    #[test]
    fn everything_is_allowed_only_by_name() {
        assert!(policy(&["*"]).allows(Some("https://evil.example"), Some("a")));
        assert!(policy(&["*"]).allows_all() && !policy(&["https://*"]).allows_all());
    }

    #[test]
    fn entries_that_are_no_origins_are_errors() {
        for bad in ["example.com", "https://", "https://a/b", "https://*.*.com", "*://a", "https://u@h"] {
            assert!(OriginPolicy::new(&[bad]).is_err(), "{bad}");
        }
    }
}
