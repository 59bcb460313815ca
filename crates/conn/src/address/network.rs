//! Which proxies are believed.

use super::Address;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Networks and single addresses that may be listed; each new connection is compared with all of them.
pub const TRUSTED_PROXIES_MAX: usize = 1024;

/// How Unix sockets are written among networks.
const UNIX: &str = "unix";

/// Where a proxy may connect from to be believed: a network such as `10.0.0.0/8`, one address, or `unix` for all Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unix,
    /// INVARIANT: no bit behind the first `bits` is set.
    Network {
        base: IpAddr,
        bits: u8,
    },
}

/// Why a text is no [`TrustedProxy`], with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// What it was.
    pub text: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a network: {}", self.text, self.hint)
    }
}

impl std::error::Error for NetworkError {}

/// The first `bits` bits of an address.
fn cut(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == UNIX {
            return Ok(Self(Kind::Unix));
        }
        let bad = |hint: &str| NetworkError { text: text.to_owned(), hint: hint.to_owned() };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address
            .parse()
            .map_err(|_| bad("write a network such as \"10.0.0.0/8\", one address, or \"unix\" for Unix sockets"))?;
        if base.to_canonical() != base {
            return Err(bad("write an IPv4 address as such, without ::ffff:"));
        }
        let whole = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => whole,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|bits: &u8| *bits <= whole && bits.to_string() == digits)
                .ok_or_else(|| bad(&format!("the number behind the slash is 0 to {whole}")))?,
        };
        if cut(base, bits) != base {
            return Err(bad(&format!("bits behind the first {bits} are set: write \"{}/{bits}\"", cut(base, bits))));
        }
        Ok(Self(Kind::Network { base, bits }))
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Unix => f.write_str(UNIX),
            Kind::Network { base, bits } => write!(f, "{base}/{bits}"),
        }
    }
}

impl TrustedProxy {
    fn is(&self, peer: Address) -> bool {
        match (self.0, peer) {
            (Kind::Unix, None) => true,
            (Kind::Network { base, bits }, Some(ip)) => cut(ip, bits) == base,
            _ => false,
        }
    }

    /// Whether every address of one kind is meant.
    pub fn is_everybody(&self) -> bool {
        matches!(self.0, Kind::Network { bits: 0, .. })
    }
}

/// All proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(Vec<TrustedProxy>);

impl Trusted {
    /// These.
    pub fn new(proxies: Vec<TrustedProxy>) -> Self {
        Self(proxies)
    }

    /// Whether what `peer` says about its clients is believed.
    pub fn contains(&self, peer: Address) -> bool {
        self.0.iter().any(|proxy| proxy.is(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(list: &[&str]) -> Trusted {
        Trusted::new(list.iter().map(|text| text.parse().expect(text)).collect())
    }

    #[test]
    fn a_network_ends_where_its_bits_say() {
        let table = [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.0/23", "10.1.3.255", "10.1.4.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "ffff::1", "0.0.0.0"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("fe80::/10", "febf::1", "fec0::"),
            ("::1", "::1", "::2"),
        ];
        for (network, inside, outside) in table {
            let trusted = trusted(&[network]);
            assert!(trusted.contains(Some(inside.parse().unwrap())), "{network} has {inside}");
            assert!(!trusted.contains(Some(outside.parse().unwrap())), "{network} does not have {outside}");
            assert!(!trusted.contains(None), "{network} is no Unix socket");
        }
    }

    #[test]
    fn unix_sockets_are_trusted_by_name_only() {
        assert!(trusted(&["10.0.0.0/8", "unix"]).contains(None));
        assert!(!trusted(&["0.0.0.0/0", "::/0"]).contains(None));
        assert!(!trusted(&["unix"]).contains(Some("127.0.0.1".parse().unwrap())));
        assert!(!Trusted::default().contains(None));
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        let table = [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("10.0.0.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.0/08", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0/8", "such as"),
            ("example.com", "such as"),
            ("unix:/run/a.sock", "such as"),
            ("", "such as"),
            ("::ffff:10.0.0.0/104", "without ::ffff:"),
        ];
        for (text, hint) in table {
            let error = text.parse::<TrustedProxy>().unwrap_err();
            assert!(error.hint.contains(hint), "{text}: {error}");
        }
        for text in ["10.0.0.0/8", "2001:db8::/64", "unix", "192.0.2.7/32"] {
            assert_eq!(text.parse::<TrustedProxy>().unwrap().to_string(), text);
        }
    }
}
