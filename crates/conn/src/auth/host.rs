//! Which Host headers are answered.
//!
//! A page of another site can make a browser resolve its own name to 127.0.0.1 (DNS rebinding) and then talk to a
//! loopback listener as "same origin". The Host header still carries the page's name, so that is what is checked.

/// The rule for `Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// Any name: a public listener answers under whatever name the operator gave it.
    #[default]
    Any,
    /// Only names of this machine: `localhost`, `127.0.0.1`, `[::1]`, with any port.
    Loopback,
}

impl HostPolicy {
    /// Whether a request for `host` is answered. A missing Host (HTTP/1.0) names no foreign page and passes.
    pub fn allows(self, host: Option<&str>) -> bool {
        match (self, host) {
            (Self::Any, _) | (Self::Loopback, None) => true,
            (Self::Loopback, Some(host)) => {
                let name = match host.rsplit_once(':') {
                    Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
                    _ => host,
                };
                ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| name.eq_ignore_ascii_case(own))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HostPolicy;

    #[test]
    fn loopback_answers_only_to_its_own_names() {
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
            assert_eq!(HostPolicy::Loopback.allows(Some(host)), allowed, "{host}");
            assert!(HostPolicy::Any.allows(Some(host)));
        }
        assert!(HostPolicy::Loopback.allows(None));
    }
}
