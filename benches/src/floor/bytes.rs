//! Heads, frames and publications as bytes, read without a check and written whole.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Appended to the key before hashing (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The first byte of a whole text frame, of a close frame, of a ping and of its answer.
pub(super) const TEXT: u8 = 0x81;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;

/// What the API answers to every publication.
pub(super) const PUBLISHED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";

/// A close frame with code 1000.
pub(super) const CLOSED: &[u8] = &[CLOSE, 2, 0x03, 0xe8];

/// The length of the head at the front of `bytes`, its empty line included; `None` while it is incomplete.
pub(super) fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, whatever the case of its name.
pub(super) fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let lines = head.split(|&byte| byte == b'\n');
    let value = |line: &'h [u8]| {
        let (key, value) = line.split_at_checked(name.len())?;
        key.eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b":"))?.map(<[u8]>::trim_ascii)
    };
    lines.filter_map(value).next()
}

/// The path and query of a request head.
pub(super) fn target(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
}

/// The answer to an upgrade request.
pub(super) fn switching_protocols(head: &[u8], out: &mut Vec<u8>) {
    let key = header(head, "Sec-WebSocket-Key").unwrap_or_default();
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    STANDARD.encode_slice(hash, &mut accept).expect("20 bytes are 28 characters");
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept);
    out.extend_from_slice(b"\r\n\r\n");
}

/// A frame of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// FIN and opcode.
    pub(super) first: u8,
    pub(super) mask: [u8; 4],
    /// Where in the input its payload is; behind it begins the next frame.
    pub(super) payload: Range<usize>,
}

/// The frame at the front of `bytes`; `None` while it is incomplete.
pub(super) fn frame(bytes: &[u8]) -> Option<Frame> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (len, extra) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        len => (u64::from(len), 0),
    };
    let mask = *rest[extra..].first_chunk()?;
    let start = 2 + extra + 4;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    (end <= bytes.len()).then_some(Frame { first: *first, mask, payload: start..end })
}

/// Unmasks eight bytes at a time.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, rest) = payload.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a frame as a server sends it.
pub(super) fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    write_header(out, first, payload.len());
    out.extend_from_slice(payload);
}

fn write_header(out: &mut Vec<u8>, first: u8, len: usize) {
    out.push(first);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// A request of a publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) body: Range<usize>,
    /// It came to Centrifugo's API; otherwise the body is the payload.
    pub(super) is_json: bool,
}

/// The request at the front of `bytes`; `None` while it is incomplete.
pub(super) fn request(bytes: &[u8]) -> Option<Request> {
    let head_len = head_len(bytes)?;
    let head = &bytes[..head_len];
    let length = header(head, "Content-Length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let end = head_len.checked_add(length.unwrap_or(0))?;
    let is_json = target(head).ends_with(b"/api/publish");
    (end <= bytes.len()).then_some(Request { body: head_len..end, is_json })
}

/// Appends the frame of a publication, as Tidegate sends it in that dialect.
pub(super) fn write_publication(out: &mut Vec<u8>, body: &[u8], is_json: bool) {
    if !is_json {
        return write_frame(out, TEXT, body);
    }
    let (channel, data) = channel_and_data(body);
    let parts: [&[u8]; 5] = [b"{\"push\":{\"channel\":\"", channel, b"\",\"pub\":{\"data\":", data, b"}}}"];
    write_header(out, TEXT, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What stands between the marks of `{"channel":"…","data":…}`, as the load generator writes it.
fn channel_and_data(body: &[u8]) -> (&[u8], &[u8]) {
    const BETWEEN: &[u8] = b"\",\"data\":";
    let rest = body.strip_prefix(b"{\"channel\":\"").unwrap_or_default();
    let Some(at) = rest.windows(BETWEEN.len()).position(|part| part == BETWEEN) else { return (&[], b"null") };
    let data = &rest[at + BETWEEN.len()..];
    (&rest[..at], data.strip_suffix(b"}").unwrap_or(data))
}

/// Appends the replies to a client's introduction: a `connect` and any number of `subscribe` commands, numbered from 1.
pub(super) fn write_replies(out: &mut Vec<u8>, commands: &[u8]) {
    let mut replies =
        b"{\"id\":1,\"connect\":{\"client\":\"00000000-0000-4000-8000-000000000000\",\"version\":\"floor\"}}".to_vec();
    let commands = commands.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    for id in 2..=commands {
        replies.extend_from_slice(format!("\n{{\"id\":{id},\"subscribe\":{{}}}}").as_bytes());
    }
    write_frame(out, TEXT, &replies);
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ws::OpCode;

    const HEAD: &[u8] = b"GET /echo HTTP/1.1\r\nHost: a\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn the_answer_to_an_upgrade_is_the_one_of_the_rfc_1_3() {
        assert_eq!(head_len(HEAD), Some(HEAD.len()));
        assert_eq!(head_len(&HEAD[..HEAD.len() - 1]), None);
        assert_eq!(target(HEAD), b"/echo");
        let mut out = Vec::new();
        switching_protocols(HEAD, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        assert!(text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn frames_of_every_length_are_read_and_written_as_wire_does() {
        for len in [0, 1, 7, 8, 20, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let (mut masked, mut plain, mut ours) = (Vec::new(), Vec::new(), Vec::new());
            wire::ws::write_frame(&mut masked, OpCode::Text, true, &payload, Some([1, 2, 3, 4]));
            wire::ws::write_frame(&mut plain, OpCode::Text, true, &payload, None);
            let read = frame(&masked).unwrap();
            assert_eq!((read.first, read.payload.end), (TEXT, masked.len()));
            unmask(&mut masked[read.payload.clone()], read.mask);
            assert_eq!(masked[read.payload], payload);
            write_frame(&mut ours, TEXT, &payload);
            assert_eq!(ours, plain);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_incomplete() {
        for len in [3, 200, 70_000] {
            let mut whole = Vec::new();
            wire::ws::write_frame(&mut whole, OpCode::Text, true, &vec![b'x'; len], Some([9; 4]));
            let cuts = (0..whole.len().min(20)).chain([whole.len() - 1]);
            assert!(cuts.into_iter().all(|cut| frame(&whole[..cut]).is_none()), "{len}");
            assert!(frame(&whole).is_some());
        }
        assert_eq!(frame(&[0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]), None);
    }

    #[test]
    fn a_publication_has_the_bytes_that_tidegate_sends() {
        let data = b"\"with,\\\"data\\\":1 in it\"";
        let draft = hub::Publication {
            channel: hub::Channel::new("load"),
            data: data.to_vec().into(),
            info: None,
            tags: None,
            time: None,
            position: hub::Position { offset: hub::Offset(1), epoch: hub::Epoch::from_seed(1) },
        };
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        conn::Encoding::CentrifugoJson.publication(&draft, None, &mut Vec::new(), &mut theirs);
        let body = [b"{\"channel\":\"load\",\"data\":".as_slice(), data, b"}"].concat();
        write_publication(&mut ours, &body, true);
        assert_eq!(String::from_utf8(ours), String::from_utf8(theirs));
    }

    #[test]
    fn a_request_is_whole_with_its_last_byte() {
        let text = b"POST /api/publish HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabcPOST";
        let whole = text.len() - 4;
        assert_eq!(request(&text[..whole - 1]), None);
        assert_eq!(request(text), Some(Request { body: whole - 3..whole, is_json: true }));
        let raw = b"POST /pub/load HTTP/1.1\r\n\r\n";
        assert_eq!(request(raw), Some(Request { body: raw.len()..raw.len(), is_json: false }));
        assert_eq!(request(b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"), None);
    }

    #[test]
    fn each_command_of_an_introduction_gets_its_reply() {
        let mut out = Vec::new();
        write_replies(&mut out, b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n");
        let text = String::from_utf8(out[2..].to_vec()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("{\"id\":2,\"subscribe\":{}}"), "{text}");
    }

    #[test]
    fn a_body_of_another_kind_makes_a_frame_all_the_same() {
        for body in [&b""[..], b"{", b"{\"channel\":\"a\"}", b"\xff\xff"] {
            let mut out = Vec::new();
            write_publication(&mut out, body, true);
            assert_eq!(out.len(), 2 + usize::from(out[1]));
        }
    }
}
