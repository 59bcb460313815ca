//! Frames to bytes (RFC 6455, 5.2). A server passes no mask, a client a fresh random one per frame.

use super::{CloseCode, OpCode, apply_mask};

/// The longest frame header: two bytes, a 64-bit length, a mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// Bytes a close frame has for its reason: 125 less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Appends a whole frame.
///
/// Control frames must have `fin` and at most 125 bytes of payload; the caller sees to it, and so
/// does a debug assertion.
#[inline]
pub fn write_frame(out: &mut Vec<u8>, opcode: OpCode, fin: bool, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    write_header(out, opcode, fin, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Appends the header of a frame whose `payload_len` bytes, masked with `mask`, the caller appends.
#[inline]
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, payload_len: usize, mask: Option<[u8; 4]>) {
    write_header_after(out, u8::from(fin) << 7 | opcode as u8, opcode, payload_len, mask);
}

/// Appends the header of the only frame of a compressed message (RFC 7692, 6): FIN and RSV1 are set. The caller
/// appends `payload_len` bytes, masked with `mask`.
///
/// `opcode` must be text or binary; the caller sees to it, and so does a debug assertion.
pub fn write_compressed_header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize, mask: Option<[u8; 4]>) {
    debug_assert!(matches!(opcode, OpCode::Text | OpCode::Binary), "{opcode:?} frame with RSV1");
    write_header_after(out, 0xc0 | opcode as u8, opcode, payload_len, mask);
}

#[inline]
fn write_header_after(out: &mut Vec<u8>, first: u8, opcode: OpCode, payload_len: usize, mask: Option<[u8; 4]>) {
    let fin = first & 0x80 != 0;
    debug_assert!(
        !opcode.is_control() || (fin && payload_len <= 125),
        "{opcode:?} frame, fin {fin}, {payload_len} bytes"
    );
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    // In one piece each, so that room is looked for once.
    match payload_len {
        0..=125 => out.extend_from_slice(&[first, mask_bit | payload_len as u8]),
        126..=0xffff => {
            let [a, b] = (payload_len as u16).to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 126, a, b]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (payload_len as u64).to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 127, a, b, c, d, e, f, g, h]);
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Appends a close frame. A reason of more than [`CLOSE_REASON_BYTES_MAX`] bytes is cut before the
/// character that would exceed it.
///
/// The code must be [valid on the wire](CloseCode::is_valid_on_wire); the caller sees to it, and so
/// does a debug assertion. A close frame without a code is `write_frame` with an empty payload.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str, mask: Option<[u8; 4]>) {
    debug_assert!(code.is_valid_on_wire(), "close code {code}");
    let reason = cut(reason, CLOSE_REASON_BYTES_MAX);
    let mut payload = [0; 125];
    payload[..2].copy_from_slice(&code.get().to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write_frame(out, OpCode::Close, true, &payload[..2 + reason.len()], mask);
}

/// The longest front of `text` that has at most `bytes_max` bytes and ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(payload_len: usize, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out, OpCode::Binary, true, payload_len, mask);
        out
    }

    #[test]
    fn lengths_take_the_fewest_bytes() {
        assert_eq!(header(0, None), [0x82, 0]);
        assert_eq!(header(125, None), [0x82, 125]);
        assert_eq!(header(126, None), [0x82, 126, 0, 126]);
        assert_eq!(header(65535, None), [0x82, 126, 255, 255]);
        assert_eq!(header(65536, None), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        let longest = header(65536, Some([1, 2, 3, 4]));
        assert_eq!(longest, [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(longest.len(), HEADER_BYTES_MAX);
    }

    #[test]
    fn examples_of_the_rfc_5_7() {
        let masked = Some([0x37, 0xfa, 0x21, 0x3d]);
        let written = |opcode, fin, payload: &[u8], mask| {
            let mut out = Vec::new();
            write_frame(&mut out, opcode, fin, payload, mask);
            out
        };
        assert_eq!(written(OpCode::Text, true, b"Hello", None), b"\x81\x05Hello");
        assert_eq!(written(OpCode::Text, true, b"Hello", masked), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(written(OpCode::Text, false, b"Hel", None), b"\x01\x03Hel");
        assert_eq!(written(OpCode::Continuation, true, b"lo", None), b"\x80\x02lo");
        assert_eq!(written(OpCode::Ping, true, b"Hello", None), b"\x89\x05Hello");
        assert_eq!(written(OpCode::Pong, true, b"Hello", masked), b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn long_close_reason_is_cut_between_characters() {
        let close = |reason: &str| {
            let mut out = Vec::new();
            write_close(&mut out, CloseCode::POLICY, reason, None);
            out
        };
        assert_eq!(close("no"), b"\x88\x04\x03\xf0no");
        let fits = "a".repeat(123);
        assert_eq!(close(&fits)[4..], *fits.as_bytes());
        assert_eq!(close(&"a".repeat(124))[4..], *fits.as_bytes());
        // 62 two-byte characters are 124 bytes: the last one goes whole.
        assert_eq!(close(&"ä".repeat(62))[4..], *"ä".repeat(61).as_bytes());
        assert_eq!(close(&"ä".repeat(62))[1], 124);
    }
}
