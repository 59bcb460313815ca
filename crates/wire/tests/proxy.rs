//! Headers of the PROXY protocol: each refusal beside a twin that is accepted, and what holds for all of them.

use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use wire::proxy::{HEADER_BYTES_MAX, Header, ProxyError, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn header(client: &str, server: &str) -> Header {
    Header::For { client: client.parse().unwrap(), server: server.parse().unwrap() }
}

/// Version 2 with these bytes behind the length.
fn binary(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[version_command, family], &len, rest].concat()
}

#[test]
fn lines_are_read_and_their_broken_twins_are_not() {
    let good = header("192.0.2.7:56324", "198.51.100.1:443");
    let six = header("[2001:db8::7]:1", "[::1]:65535");
    let table = [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", Ok(good)),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n", Err("without CR")),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n", Err("too few")),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n", Err("too many")),
        ("PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n", Err("address")),
        ("PROXY TCP4 192.0.2.07 198.51.100.1 56324 443\r\n", Err("address")),
        ("PROXY TCP4 ::1 198.51.100.1 56324 443\r\n", Err("address")),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 0443\r\n", Err("port")),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 +443\r\n", Err("port")),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n", Err("port")),
        ("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", Ok(six)),
        ("PROXY TCP6 192.0.2.7 ::1 1 65535\r\n", Err("address")),
        ("PROXY UNKNOWN\r\n", Ok(Header::Own)),
        ("PROXY UNKNOWN whatever it is\r\n", Ok(Header::Own)),
        ("PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n", Err("family")),
        ("PROXY tcp4 192.0.2.7 198.51.100.1 56324 443\r\n", Err("family")),
    ];
    for (text, expected) in table {
        match (parse(text.as_bytes()), expected) {
            (Ok(Some((header, len))), Ok(expected)) => assert_eq!((header, len), (expected, text.len()), "{text:?}"),
            (Err(ProxyError::Malformed(why)), Err(part)) => assert!(why.contains(part), "{text:?}: {why}"),
            (seen, expected) => panic!("{text:?}: {seen:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn a_line_has_a_longest_length() {
    let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
    assert_eq!(parse(line(107).as_bytes()), Ok(Some((Header::Own, 107))));
    assert!(matches!(parse(line(108).as_bytes()), Err(ProxyError::Malformed(_))));
    assert_eq!(parse(&line(107).as_bytes()[..106]), Ok(None));
    assert!(matches!(parse(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()), Err(ProxyError::Malformed(_))));
}

#[test]
fn binary_headers_are_read_and_their_broken_twins_are_not() {
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
    let good = header("192.0.2.7:56324", "198.51.100.1:443");
    let with_more = [four.as_slice(), &[3, 0, 2, 1, 2]].concat();
    let largest = [four.as_slice(), &vec![0; HEADER_BYTES_MAX - 16 - 12]].concat();
    let too_large = [&largest[..], &[0]].concat();
    let table: [(&str, Vec<u8>, Result<Header, &str>); 12] = [
        ("for a client", binary(0x21, 0x11, &four), Ok(good)),
        ("and what a proxy adds", binary(0x21, 0x11, &with_more), Ok(good)),
        ("as much as may be", binary(0x21, 0x11, &largest), Ok(good)),
        ("more than may be", binary(0x21, 0x11, &too_large), Err("4096")),
        ("half an address", binary(0x21, 0x11, &four[..11]), Err("too short")),
        ("for itself", binary(0x20, 0x11, &four), Ok(Header::Own)),
        ("for itself, without more", binary(0x20, 0, &[]), Ok(Header::Own)),
        ("another version", binary(0x11, 0x11, &four), Err("version")),
        ("another command", binary(0x22, 0x11, &four), Err("command")),
        ("a Unix socket", binary(0x21, 0x31, &[0; 216]), Ok(Header::Own)),
        ("another family", binary(0x21, 0x41, &four), Err("family")),
        ("IPv4 where IPv6 is due", binary(0x21, 0x21, &four), Err("too short")),
    ];
    for (what, bytes, expected) in table {
        match (parse(&bytes), expected) {
            (Ok(Some((header, len))), Ok(expected)) => assert_eq!((header, len), (expected, bytes.len()), "{what}"),
            (Err(ProxyError::Malformed(why)), Err(part)) => assert!(why.contains(part), "{what}: {why}"),
            (seen, expected) => panic!("{what}: {seen:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn what_begins_differently_has_no_header() {
    for bytes in ["GET / HTTP/1.1\r\n", "POST", "\x16\x03\x01", "PROXYTCP4", "\r\nGET"] {
        assert_eq!(parse(bytes.as_bytes()), Err(ProxyError::Missing), "{bytes:?}");
    }
    for bytes in ["", "P", "PROXY", "\r\n", "\r\n\r\n\0"] {
        assert_eq!(parse(bytes.as_bytes()), Ok(None), "{bytes:?} may become one");
    }
}

fn address() -> impl Strategy<Value = (bool, [u8; 16], u16, [u8; 16], u16)> {
    (any::<bool>(), any::<[u8; 16]>(), any::<u16>(), any::<[u8; 16]>(), any::<u16>())
}

proptest! {
    /// Both forms of the same header, cut anywhere and followed by anything, say the same.
    #[test]
    fn what_is_written_is_read_whole_or_not_yet(parts in address(), behind in any::<Vec<u8>>()) {
        let (is_six, client, client_port, server, server_port) = parts;
        let ip = |bytes: [u8; 16]| if is_six { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) };
        let (client, server) = (SocketAddr::new(ip(client), client_port), SocketAddr::new(ip(server), server_port));
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let rest = [octets(client), octets(server), client_port.to_be_bytes().to_vec(), server_port.to_be_bytes().to_vec()];
        let binary = binary(0x21, if is_six { 0x21 } else { 0x11 }, &rest.concat());
        let family = if is_six { "TCP6" } else { "TCP4" };
        let line = format!("PROXY {family} {} {} {client_port} {server_port}\r\n", client.ip(), server.ip());
        for header in [binary, line.into_bytes()] {
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
            }
            let followed = [&header[..], &behind].concat();
            prop_assert_eq!(parse(&followed), Ok(Some((Header::For { client, server }, header.len()))));
        }
    }

    /// Nothing panics, and what is claimed to be a header lies inside what came.
    #[test]
    fn anything_has_an_answer(start in 0..3usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let start: &[u8] = [b"".as_slice(), b"PROXY ", SIGNATURE][start];
        let bytes = [start, &bytes].concat();
        if let Ok(Some((_, len))) = parse(&bytes) {
            prop_assert!(len <= bytes.len() && len <= HEADER_BYTES_MAX);
            prop_assert_eq!(parse(&bytes[..len]), parse(&bytes));
        }
    }
}
