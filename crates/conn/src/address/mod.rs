//! Who a client is by its address: the other end of its socket, or whoever a trusted proxy says is behind it.
//!
//! An address is an [`IpAddr`] without a port, IPv4 never in the clothes of IPv6; `None` is a Unix socket, whose clients have
//! no name.

mod crowd;
mod forwarded;
mod network;

pub(crate) use crowd::client_of;
pub use crowd::{Addresses, Entered, Paced, Place};
pub(crate) use forwarded::client_behind;
pub use network::{NetworkError, TRUSTED_PROXIES_MAX, Trusted, TrustedProxy};

use std::net::IpAddr;

/// The address of the other end, as it is compared and counted.
pub type Address = Option<IpAddr>;

/// How an address is written in the log.
pub(crate) fn name_of(address: Address) -> String {
    address.map_or_else(|| "a Unix socket".to_owned(), |ip| ip.to_string())
}

/// Headers in which a backend is told the client's address: never what the client says of itself.
pub const ADDRESS_HEADERS: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// The value of such a header.
pub(crate) fn told_as(header: &str, ip: IpAddr) -> String {
    match (header, ip) {
        // RFC 7239, 6.
        ("forwarded", IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
        ("forwarded", IpAddr::V4(ip)) => format!("for={ip}"),
        _ => ip.to_string(),
    }
}
