//! Where a listener listens.

use super::values::{from_string, with_hint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

/// One of `public.listen` or `api.listen`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(io::Address);

impl Address {
    /// A port that the kernel chooses, so two listeners may both ask for it.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self.0, io::Address::Ip(address) if address.port() == 0)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(io::Address::Ip(address))
    }
}

impl Deref for Address {
    type Target = io::Address;

    fn deref(&self) -> &io::Address {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:")
            && (!path.starts_with('/') || path.ends_with('/'))
        {
            return Err(with_hint(
                format_args!("{text:?} has no absolute path of a socket"),
                "write the whole path, such as \"unix:/run/tidegate.sock\"",
            ));
        }
        text.parse().map(Self).map_err(|error| match error {
            io::listener::AddressError::NotAnAddress(_) => {
                with_hint(format_args!("{text:?} is not an address to listen on"), repair(text))
            }
            other => other.to_string(),
        })
    }
}

/// What the author of a malformed address most likely wanted.
fn repair(text: &str) -> String {
    let split = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    // `::1:8000` is an IPv6 address as a whole as well; people mean the port.
    if let Some((host, port)) = split
        && host.parse::<Ipv6Addr>().is_ok()
    {
        return format!("an IPv6 address stands in brackets: \"[{host}]:{port}\"");
    }
    if text.parse::<IpAddr>().is_ok() {
        return "add the port, such as \"127.0.0.1:8000\" or \"[::1]:8000\"".into();
    }
    let (host, port) = match split {
        Some(split) => split,
        None if text.parse::<u16>().is_ok() => ("", text),
        None => return "write \"127.0.0.1:8000\", \"[::1]:8000\" or \"unix:/path\"".into(),
    };
    if host.eq_ignore_ascii_case("localhost") {
        format!("names are not looked up here: write \"127.0.0.1:{port}\", \"[::1]:{port}\" or both")
    } else if host.is_empty() || host == "*" {
        format!(
            "write \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" or \"[::]:{port}\" for every interface"
        )
    } else {
        format!("names are not looked up here: write the IP address instead of {host:?}")
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "an address such as \"127.0.0.1:8000\", \"[::1]:8000\" or \"unix:/path\"")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_what_they_write_and_know_whether_they_are_local() {
        let table = [
            ("127.0.0.1:8000", true),
            ("127.9.9.9:0", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("unix:/run/tidegate.sock", true),
            ("0.0.0.0:8000", false),
            ("[::]:8000", false),
            ("192.168.1.2:8000", false),
            ("[::ffff:10.0.0.1]:80", false),
            ("[2001:db8::1]:8000", false),
        ];
        for (text, local) in table {
            let address: Address = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_loopback(), local, "{text}");
        }
    }

    #[test]
    fn a_malformed_address_gets_the_hint_that_repairs_it() {
        let table = [
            ("8000", "127.0.0.1:8000"),
            (":8000", "0.0.0.0:8000"),
            ("*:8000", "0.0.0.0:8000"),
            ("localhost:8000", "127.0.0.1:8000"),
            ("example.com:8000", "IP address instead of \"example.com\""),
            ("::1:8000", "[::1]:8000"),
            ("127.0.0.1", "add the port"),
            ("::1", "add the port"),
            ("127.0.0.1:70000", "unix:/path"),
            ("", "unix:/path"),
            ("unix:", "whole path"),
            ("unix:relative.sock", "whole path"),
            ("unix:/run/", "whole path"),
        ];
        for (text, hint) in table {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_unix_path_has_the_length_the_kernel_takes() {
        let longest = format!("unix:/{}", "a".repeat(io::listener::UNIX_PATH_BYTES_MAX - 1));
        assert!(longest.parse::<Address>().is_ok());
        assert!(format!("{longest}a").parse::<Address>().is_err());
    }
}
