//! Source addresses: how one machine opens more connections to one address than it has ports.

use crate::loops::Share;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Ports used per source address and destination. Half of the usual ephemeral range would be 14,000; above a third of it
/// the kernel's search for a free one begins to show, above half it collapses.
pub(crate) const PORTS_MAX: usize = 9_500;

/// How long a closed connection may occupy its port (TIME_WAIT).
pub(crate) const TIME_WAIT_SECONDS: f64 = 60.0;

/// Source addresses in turn. On IPv4 loopback every address of 127.0.0.0/8 is ours; elsewhere the kernel chooses.
#[derive(Debug)]
pub(crate) struct Sources {
    first: Option<Ipv4Addr>,
    count: u32,
    turn: u32,
}

impl Sources {
    /// Enough addresses from `first` on for one loop's share of so many connections to `to`, those in TIME_WAIT included.
    /// No two loops have one in common, so none can use up the ports that another counts on.
    pub(crate) fn new(to: SocketAddr, first: Ipv4Addr, connections: usize, share: Share) -> Sources {
        let loopback = to.ip().is_loopback() && to.is_ipv4();
        let room = (u32::from(Ipv4Addr::new(127, 255, 255, 254)) - u32::from(first)) / share.of;
        let ports = connections.div_ceil(share.of as usize);
        let count = u32::try_from(ports.div_ceil(PORTS_MAX)).unwrap_or(room).clamp(1, room);
        let first = Ipv4Addr::from(u32::from(first) + share.number * count);
        Sources { first: loopback.then_some(first), count, turn: 0 }
    }

    /// The next one.
    pub(crate) fn take(&mut self) -> Option<SocketAddr> {
        let first = self.first?;
        let address = Ipv4Addr::from(u32::from(first) + self.turn);
        self.turn = (self.turn + 1) % self.count;
        Some(SocketAddr::new(IpAddr::V4(address), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const ALL: Share = Share { number: 0, of: 1 };

    #[test]
    fn no_address_gets_more_than_its_share_of_ports() {
        let mut sources = Sources::new("127.0.0.1:8000".parse().unwrap(), FIRST, 200_000, ALL);
        let mut uses = HashMap::new();
        for _ in 0..200_000 {
            *uses.entry(sources.take().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(uses.len(), 22);
        assert!(uses.values().all(|&n| n <= PORTS_MAX));
        assert!(uses.contains_key(&"127.0.0.2:0".parse().unwrap()));
    }

    #[test]
    fn loops_have_no_address_in_common() {
        let mut owners = HashMap::new();
        for number in 0..11 {
            let to = "127.0.0.1:8000".parse().unwrap();
            let mut sources = Sources::new(to, FIRST, 200_000, Share { number, of: 11 });
            for _ in 0..200_000 / 11 {
                assert_eq!(*owners.entry(sources.take().unwrap()).or_insert(number), number);
            }
        }
        assert_eq!(owners.len(), 22, "two for each of eleven");
    }

    #[test]
    fn few_connections_share_one_address() {
        let mut sources = Sources::new("127.0.0.1:8000".parse().unwrap(), FIRST, PORTS_MAX, ALL);
        assert_eq!(sources.take(), sources.take());
        let mut sources = Sources::new("127.0.0.1:8000".parse().unwrap(), FIRST, PORTS_MAX + 1, ALL);
        assert_ne!(sources.take(), sources.take());
    }

    #[test]
    fn only_ipv4_loopback_has_addresses_to_choose_from() {
        for to in ["[::1]:8000", "192.0.2.1:8000"] {
            assert_eq!(Sources::new(to.parse().unwrap(), FIRST, 50_000, ALL).take(), None, "{to}");
        }
    }
}
