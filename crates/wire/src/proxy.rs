//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): what a proxy says in front of a connection about the
//! client behind it.
//!
//! Whether a peer may say so is the caller's to decide: anybody can write such a header.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its end included; the specification's own number.
const LINE_BYTES_MAX: usize = 107;

/// The longest header of version 2. Addresses need 36 bytes behind its 16; the rest is for what proxies add, such as the name that
/// a client asked for in TLS, and is skipped.
pub const HEADER_BYTES_MAX: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// The proxy speaks for a client.
    For {
        /// The client.
        client: SocketAddr,
        /// What it had connected to.
        server: SocketAddr,
    },
    /// The proxy speaks for itself, as in a health check, or does not know for whom: its own address counts.
    Own,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyError {
    /// They begin differently: there is none.
    Missing,
    /// They begin like one and go on wrongly; says with what.
    Malformed(&'static str),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyError::Missing => f.write_str("no header of the PROXY protocol"),
            ProxyError::Malformed(what) => write!(f, "a malformed header of the PROXY protocol: {what}"),
        }
    }
}

impl std::error::Error for ProxyError {}

/// Reads the header at the beginning of `bytes`. `None`: it may become one. The number is its length; what belongs to the client
/// comes behind it.
///
/// # Errors
/// There is no header, or a bad one.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if begins_like(bytes, SIGNATURE) {
        binary(bytes)
    } else if begins_like(bytes, LINE_START) {
        line(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

/// Whether the shorter one begins the longer one.
fn begins_like(bytes: &[u8], start: &[u8]) -> bool {
    let len = bytes.len().min(start.len());
    bytes[..len] == start[..len]
}

/// Version 1: `PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n`.
fn line(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let bad = ProxyError::Malformed;
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return if seen.len() < LINE_BYTES_MAX { Ok(None) } else { Err(bad("a line without an end")) };
    };
    let text = seen[..end].strip_suffix(b"\r").ok_or(bad("a line that ends without CR"))?;
    let text = std::str::from_utf8(text).map_err(|_| bad("a line that is not ASCII"))?;
    let mut words = text.split(' ').skip(1);
    let mut word = || words.next().ok_or(bad("a line with too few words"));
    let family = word()?;
    if family == "UNKNOWN" {
        // Whatever else the line has is to be ignored.
        return Ok(Some((Header::Own, end + 1)));
    }
    let read: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(bad("an unknown family")),
    };
    let mut address = || read(word()?).ok_or(bad("an address that is none of its family"));
    let (client, server) = (address()?, address()?);
    let mut port = || port_of(word()?).ok_or(bad("a port that is none"));
    let (client, server) = (SocketAddr::new(client, port()?), SocketAddr::new(server, port()?));
    if words.next().is_some() {
        return Err(bad("a line with too many words"));
    }
    Ok(Some((Header::For { client, server }, end + 1)))
}

/// A number as it is written: no sign, and no zero in front.
fn port_of(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// Version 2, in binary.
fn binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let bad = ProxyError::Malformed;
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Ok(None) };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0xf, fixed[13]);
    if version != 2 {
        return Err(bad("a version that is not 2"));
    }
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + len > HEADER_BYTES_MAX {
        return Err(bad("more than 4096 bytes"));
    }
    if command > 1 {
        return Err(bad("an unknown command"));
    }
    let Some(rest) = bytes.get(FIXED_BYTES..FIXED_BYTES + len) else { return Ok(None) };
    let header = match (command, family) {
        (0, _) => Header::Own,
        (_, 0x11) => addresses::<4>(rest)?,
        (_, 0x21) => addresses::<16>(rest)?,
        // Unspecified, datagrams, and Unix sockets, which have no address to tell apart by.
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Header::Own,
        _ => return Err(bad("an unknown family")),
    };
    Ok(Some((header, FIXED_BYTES + len)))
}

/// Two addresses of so many bytes, then two ports.
fn addresses<const N: usize>(bytes: &[u8]) -> Result<Header, ProxyError>
where
    IpAddr: From<[u8; N]>,
{
    let too_short = ProxyError::Malformed("too short for its addresses");
    let (client, rest) = bytes.split_first_chunk::<N>().ok_or(too_short)?;
    let (server, rest) = rest.split_first_chunk::<N>().ok_or(too_short)?;
    let (client_port, rest) = rest.split_first_chunk::<2>().ok_or(too_short)?;
    let (server_port, _) = rest.split_first_chunk::<2>().ok_or(too_short)?;
    Ok(Header::For {
        client: SocketAddr::new(IpAddr::from(*client), u16::from_be_bytes(*client_port)),
        server: SocketAddr::new(IpAddr::from(*server), u16::from_be_bytes(*server_port)),
    })
}
