//! The opening handshake, client side (RFC 6455, 4.1).

use super::extension::{self, Offer, Params};
use super::handshake::{BASE64, accept};
use crate::http::{HeadLimits, list, push_value};
use crate::limits::HEADERS_MAX;
use base64::Engine;
use std::fmt;

/// The server's answer does not make the connection a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseError {
    /// Not an HTTP/1.x head.
    Malformed,
    /// The head exceeds a limit.
    TooLarge,
    /// The server answered with this status, not with 101.
    Status(u16),
    /// `Upgrade: websocket` is missing or repeated.
    Upgrade,
    /// `Connection: Upgrade` is missing.
    Connection,
    /// Sec-WebSocket-Accept is missing or does not belong to our key.
    Accept,
    /// A subprotocol that we did not offer.
    Subprotocol,
    /// An extension that we did not offer, or an answer that does not fit our offer.
    Extension,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResponseError::Malformed => "the answer is not HTTP/1.1",
            ResponseError::TooLarge => "the head of the answer is too large",
            ResponseError::Status(code) => return write!(f, "the server answered with {code}"),
            ResponseError::Upgrade => "the answer lacks Upgrade: websocket",
            ResponseError::Connection => "the answer lacks Connection: Upgrade",
            ResponseError::Accept => "Sec-WebSocket-Accept does not belong to our key",
            ResponseError::Subprotocol => "the server chose a subprotocol that was not offered",
            ResponseError::Extension => "the server chose an extension that was not offered",
        })
    }
}

impl std::error::Error for ResponseError {}

/// Appends an upgrade request. `key` is 16 fresh random bytes; `subprotocol` may be a
/// comma-separated list. Control characters in values are written as spaces.
///
/// To offer compression pass `("Sec-WebSocket-Extensions", &offer.to_string())` in `extra`, and the same
/// [`Offer`] to [`check_response_with`].
pub fn write_request(
    out: &mut Vec<u8>,
    host: &str,
    target: &str,
    key: &[u8; 16],
    subprotocol: Option<&str>,
    extra: &[(&str, &str)],
) {
    out.extend_from_slice(b"GET ");
    push_value(out, target);
    out.extend_from_slice(b" HTTP/1.1");
    let key = encoded(key);
    let key = str::from_utf8(&key).expect("base64 is ASCII");
    let fixed = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ];
    let subprotocol = subprotocol.map(|value| ("Sec-WebSocket-Protocol", value));
    for &(name, value) in fixed.iter().chain(&subprotocol).chain(extra) {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        push_value(out, value);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Checks the answer at the front of `bytes` to a request with `key`, which offered `offered` (a
/// list like that of [`write_request`]). Returns the length of the head: frames follow it. `None`:
/// more bytes are needed.
pub fn check_response(
    bytes: &[u8],
    key: &[u8; 16],
    offered: Option<&str>,
    limits: &HeadLimits,
) -> Result<Option<usize>, ResponseError> {
    Ok(check_response_with(bytes, key, offered, None, limits)?.map(|answer| answer.head_len))
}

/// A server's answer that makes the connection a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The length of the head: frames follow it.
    pub head_len: usize,
    /// How messages may be compressed; `None`: not at all.
    pub deflate: Option<Params>,
}

/// Like [`check_response`], for a request that offered compression as well.
pub fn check_response_with(
    bytes: &[u8],
    key: &[u8; 16],
    offered: Option<&str>,
    offer: Option<&Offer>,
    limits: &HeadLimits,
) -> Result<Option<Answer>, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let mut response = httparse::Response::new(&mut headers[..headers_max]);
    let head_len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= limits.head_bytes_max => len,
        Ok(httparse::Status::Partial) if bytes.len() < limits.head_bytes_max => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::TooLarge),
        Err(_) => return Err(ResponseError::Malformed),
    };
    match response.code {
        Some(101) => {}
        code => return Err(ResponseError::Status(code.unwrap_or_default())),
    }
    let values = |name: &'static str| {
        let headers = response.headers.iter();
        headers.filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    };
    if !only(values("upgrade"), |value| value.eq_ignore_ascii_case(b"websocket")) {
        return Err(ResponseError::Upgrade);
    }
    if !values("connection").flat_map(list).any(|item| item.eq_ignore_ascii_case(b"upgrade")) {
        return Err(ResponseError::Connection);
    }
    if !only(values("sec-websocket-accept"), |value| *value == accept(&encoded(key))) {
        return Err(ResponseError::Accept);
    }
    let deflate = match offer {
        Some(offer) => extension::agree(values("sec-websocket-extensions"), offer),
        None if values("sec-websocket-extensions").next().is_some() => Err(extension::Unacceptable),
        None => Ok(None),
    }
    .map_err(|extension::Unacceptable| ResponseError::Extension)?;
    let chosen = |value: &[u8]| list(offered.unwrap_or_default().as_bytes()).any(|offer| offer == value);
    if values("sec-websocket-protocol").next().is_some() && !only(values("sec-websocket-protocol"), chosen) {
        return Err(ResponseError::Subprotocol);
    }
    Ok(Some(Answer { head_len, deflate }))
}

/// Whether there is exactly one value, and `is_good` holds for it.
fn only<'v>(mut values: impl Iterator<Item = &'v [u8]>, is_good: impl FnOnce(&[u8]) -> bool) -> bool {
    values.next().is_some_and(is_good) && values.next().is_none()
}

/// The key as the header carries it.
fn encoded(key: &[u8; 16]) -> [u8; 24] {
    let mut out = [0; 24];
    let len = BASE64.encode_slice(key, &mut out);
    debug_assert_eq!(len, Ok(24), "16 bytes are 24 characters");
    out
}
