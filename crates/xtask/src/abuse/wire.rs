//! What attackers send, over plain sockets: no library would.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::measure::connect;

/// The bytes at which a read of an answer stops.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The head of a WebSocket handshake.
pub(super) fn handshake(address: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
}

/// A WebSocket whose handshake was answered with 101.
pub(super) fn websocket(address: &str, path: &str) -> io::Result<TcpStream> {
    let mut socket = connect(address)?;
    socket.write_all(handshake(address, path).as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < ANSWER_BYTES_MAX {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(socket) } else { Err(io::Error::other("no 101")) }
}

/// A client's frame. Its key is zero, so that the payload goes as it is.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// Deflated bytes that become some 258 for each of `runs`, which take 13 bits: a letter and copies of it, in a block with the
/// fixed codes (RFC 1951, 3.2.6).
pub(super) fn bomb(runs: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // Not the last block; fixed codes, the lower bit first.
    [false, true, false].into_iter().for_each(|bit| bits.push(bit));
    bits.code(0x30 + u32::from(b'a'), 8);
    for _ in 0..runs {
        // Length 258, distance 1.
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    // An empty stored block, of which the last four bytes are left out (RFC 7692, 7.2.1).
    [false, false, false].into_iter().for_each(|bit| bits.push(bit));
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.count.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.count % 8);
        }
        self.count += 1;
    }

    /// Codes begin with their highest bit.
    fn code(&mut self, code: u32, len: u32) {
        (0..len).rev().for_each(|at| self.push(code >> at & 1 == 1));
    }
}

/// Takes what has come, without waiting. Whether the peer is still there.
pub(super) fn drain(socket: &mut TcpStream) -> bool {
    let mut bytes = [0; 16 * 1024];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_length_that_they_need() {
        for (len, head) in [(0, 6), (125, 6), (126, 8), (0xffff, 8), (0x1_0000, 14)] {
            assert_eq!(frame(0x82, &vec![7; len]).len(), head + len);
        }
        assert_eq!(frame(0x89, b"x"), [0x89, 0x81, 0, 0, 0, 0, b'x']);
    }

    #[test]
    fn a_bomb_has_two_bytes_for_a_page_of_letters() {
        // By hand: 0, 10 (the lower bit first), then the code of `a`, 10010001, and the end, 0000000.
        assert_eq!(bomb(0)[..2], [0b0100_1010, 0b0000_0100]);
        assert_eq!(bomb(80).len(), (3 + 8 + 80 * 13 + 7 + 3_usize).div_ceil(8));
    }
}
