//! The target of a request line and the host it names (RFC 9112, 3.2; RFC 9110, 7.2).

use std::net::Ipv6Addr;

/// A target, split. All parts are as they were sent: nothing is percent-decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// Of an absolute-form target; it replaces the Host header.
    pub(super) authority: Option<&'a str>,
}

/// Splits a target in origin form, absolute form or, for OPTIONS, `*`.
pub(super) fn split<'a>(target: &'a str, is_options: bool) -> Option<Target<'a>> {
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !visible {
        return None;
    }
    if target == "*" && is_options {
        return Some(Target { path: target, query: None, authority: None });
    }
    if target.starts_with('/') {
        return Some(split_query(target, None));
    }
    let (scheme, rest) = target.split_once("://")?;
    let known = ["http", "https", "ws", "wss"];
    if !known.iter().any(|name| scheme.eq_ignore_ascii_case(name)) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if !is_host(authority) {
        return None;
    }
    Some(split_query(rest, Some(authority)))
}

fn split_query<'a>(rest: &'a str, authority: Option<&'a str>) -> Target<'a> {
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    // `http://host` and `http://host?query` ask for the root.
    let path = if path.is_empty() { "/" } else { path };
    Target { path, query, authority }
}

/// Whether `text` is a host with an optional port, and nothing else: no user, no path, no space.
pub(super) fn is_host(text: &str) -> bool {
    let (name_is_good, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (!name.is_empty() && name.bytes().all(is_name_byte), port)
    };
    name_is_good && is_port(port)
}

/// A registered name: unreserved, percent-encoded or sub-delims (RFC 3986, 3.2.2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

/// Empty, or a colon and at most a port number.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        None => text.is_empty(),
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_only_looks_like_one() {
        let good = ["localhost", "example.org:80", "127.0.0.1:65535", "[::1]", "[::1]:8000", "a-b.c_d", "h:"];
        for host in good {
            assert!(is_host(host), "{host}");
        }
        let bad = [
            "",
            ":80",
            "a b",
            "user@host",
            "host/path",
            "host:80:90",
            "host:x",
            "host:65536",
            "[::1",
            "::1",
            "[localhost]",
            "[::1]x",
            "host?q",
            "host:+80",
            "hö",
        ];
        for host in bad {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn targets_split_in_every_form() {
        let parts = |target| {
            let target = split(target, false)?;
            Some((target.authority, target.path, target.query))
        };
        assert_eq!(parts("/"), Some((None, "/", None)));
        assert_eq!(parts("/a?b=c?d"), Some((None, "/a", Some("b=c?d"))));
        assert_eq!(parts("//a/b?"), Some((None, "//a/b", Some(""))));
        assert_eq!(parts("http://h:1/p?q"), Some((Some("h:1"), "/p", Some("q"))));
        assert_eq!(parts("WSS://h"), Some((Some("h"), "/", None)));
        assert_eq!(parts("http://h?q=/"), Some((Some("h"), "/", Some("q=/"))));
        for bad in ["", "a", "*", "/a#b", "ftp://h/", "http://", "http:///p", "http://u@h/", "h:443"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
        assert_eq!(split("*", true).map(|target| target.path), Some("*"));
    }
}
