//! Where a backend is asked.

use hyper::Uri;
use hyper::http::uri::Scheme;
use std::fmt;
use std::str::FromStr;

/// An absolute `http` or `https` URL. Its query is often a key of the backend's, so neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Uri);

/// Why a text is none. Never repeats the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TargetError {}

impl Target {
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }
}

impl fmt::Display for Target {
    /// What is no URL of a backend where it has a query: nothing goes on without its key, unnoticed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.query() {
            None => self.0.fmt(f),
            Some(query) => {
                let whole = self.0.to_string();
                write!(f, "{}{REDACTED_QUERY}", &whole[..whole.len() - query.len()])
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Stands in the place of a query.
const REDACTED_QUERY: &str = "<redacted>";

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let bad = |why: &str| TargetError(format!("this is not a URL of a backend: {why}"));
        if text.ends_with(REDACTED_QUERY) {
            return Err(bad("its query was left out by `tidegate check`, which shows none"));
        }
        if text.contains('#') {
            return Err(bad("a fragment is never sent"));
        }
        let uri: Uri = text.parse().map_err(|error| bad(&format!("{error}")))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(bad("it does not begin with http:// or https://"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user and password are not sent; sign requests with webhooks.signing_keys"));
        }
        if authority.host().is_empty() {
            return Err(bad("it names no host"));
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(bad("its port is not a number up to 65535"));
        }
        Ok(Target(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_told_from_its_twin() {
        for (bad, good) in [
            ("/hook", "http://a/hook"),
            ("a/hook", "http://a/hook"),
            ("ftp://a/hook", "http://a/hook"),
            ("http:///hook", "http://a/hook"),
            ("http://u@a/hook", "http://u.a/hook"),
            ("http://a/hook#x", "http://a/hook?x"),
            ("http://a/ho ok", "http://a/ho%20ok"),
            ("http://a:99999/", "http://a:9999/"),
            ("", "http://a"),
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        let whole: Target = "http://a/b?key=c&d".parse().unwrap();
        assert_eq!(whole.uri().query(), Some("key=c&d"));
        for shown in [whole.to_string(), format!("{whole:?}")] {
            assert_eq!(shown, "http://a/b?<redacted>");
            assert!(shown.parse::<Target>().unwrap_err().to_string().contains("was left out"));
        }
        for secret in ["http://user:hidden@a/", "http://a/hidden x", "ftp://a/hidden"] {
            assert!(!secret.parse::<Target>().unwrap_err().to_string().contains("hidden"), "{secret}");
        }
        assert!("https://a".parse::<Target>().unwrap().is_tls() && !"http://a".parse::<Target>().unwrap().is_tls());
    }
}
