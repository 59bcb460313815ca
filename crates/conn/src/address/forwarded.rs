//! `X-Forwarded-For`: what proxies that speak HTTP say about the client behind them.
//!
//! Each of them adds the address that it was connected from at the end of the list; whatever stands in front of that came with
//! the request, and anybody can write it. So the list is read from its end, for as long as whoever wrote the entry is trusted.

use super::{Address, Trusted};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client behind `peer`, by the lines of its header in their order: the last one that is no trusted proxy, or the first of
/// all where all are. An entry that is no address ends the search, and the trusted proxy that wrote it counts.
pub(crate) fn client_behind(peer: Address, lines: &[&[u8]], trusted: &Trusted) -> Address {
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    let mut client = peer;
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        if !trusted.contains(client) {
            break;
        }
        match read(entry) {
            Some(ip) => client = Some(ip),
            None => break,
        }
    }
    client
}

/// An address, alone or with the port that some proxies add.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Trusted {
        Trusted::new(["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().expect(text)).to_vec())
    }

    fn behind(peer: &str, lines: &[&str]) -> String {
        let peer = Some(peer.parse().expect(peer));
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        client_behind(peer, &lines, &trusted()).expect("an address").to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let table: [(&str, &[&str], &str); 16] = [
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("11.0.0.1", &["192.0.2.7"], "11.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7, 11.0.0.2"], "11.0.0.2"),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7, 192.0.2.256, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["unknown, 192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7:56324"], "192.0.2.7"),
            ("10.0.0.1", &["[2001:db9::7]:1, 2001:db8::1", " , "], "2001:db9::7"),
            ("2001:db8::1", &["[2001:db9::7]"], "2001:db9::7"),
            ("10.0.0.1", &["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["\u{e9}"], "10.0.0.1"),
        ];
        for (peer, lines, client) in table {
            assert_eq!(behind(peer, lines), client, "{lines:?} from {peer}");
        }
    }

    #[test]
    fn what_a_client_puts_in_front_changes_nothing() {
        for forged in ["203.0.113.9", "10.0.0.9", "unknown", "", "10.0.0.9, 203.0.113.9", "\"", ",,,"] {
            assert_eq!(behind("10.0.0.1", &[&format!("{forged}, 192.0.2.7")]), "192.0.2.7", "{forged:?}");
            assert_eq!(behind("10.0.0.1", &[forged, "192.0.2.7, 10.0.0.2"]), "192.0.2.7", "{forged:?}");
            assert_eq!(behind("192.0.2.7", &[forged]), "192.0.2.7", "{forged:?}");
        }
    }
}
