//! Request heads (RFC 9112, 2 to 6), through httparse and then through the rules that keep two
//! parsers of one byte stream from disagreeing about where a request ends.

use super::target::{self, Target};
use super::{HeadLimits, Method, Refusal, Version};
use crate::limits::HEADERS_MAX;
use httparse::Header;
use std::fmt;

/// A request head; borrows from the received bytes.
#[derive(Clone)]
pub struct Request<'a> {
    method: &'a str,
    target: &'a str,
    parts: Target<'a>,
    version: Version,
    host: Option<&'a str>,
    body: BodyKind,
    keep_alive: bool,
    expects_continue: bool,
    headers: [Header<'a>; HEADERS_MAX],
    headers_len: usize,
}

/// What follows a request head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of them empty.
    Chunked,
}

/// Reads the request head at the front of `bytes`.
///
/// `Some` gives the request and the length of its head, `None` asks for more bytes. `Err` is the
/// answer to send; the connection is closed behind it, because nobody knows where the next request
/// would start. Refused are the limits (414, 431), versions other than 1.0 and 1.1 (505), and as
/// 400 everything that two implementations might read differently: Content-Length together with
/// Transfer-Encoding, repeated or malformed Content-Length, Transfer-Encoding other than `chunked`
/// or in HTTP/1.0, folded lines, a space before the colon, a line that ends without CR, control
/// characters, and a Host that is missing (from 1.1 on), repeated or malformed.
pub fn parse<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<Option<(Request<'a>, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let mut raw = httparse::Request::new(&mut headers[..headers_max]);
    let head_len = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return check_partial(bytes, limits).map(|()| None),
        Err(error) => return Err(malformed(bytes, error)),
    };
    let (method, target) = (raw.method.unwrap_or_default(), raw.path.unwrap_or_default());
    let version = if raw.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let headers_len = raw.headers.len();
    if target.len() > limits.target_bytes_max {
        return Err(Refusal::uri_too_long());
    }
    if head_len > limits.head_bytes_max {
        return Err(Refusal::head_too_large());
    }
    if has_bare_newline(&bytes[..head_len]) {
        return Err(Refusal::bad_request("a line ends without a carriage return"));
    }
    let Some(parts) = target::split(target, method == "OPTIONS") else {
        return Err(Refusal::bad_request("the request target is malformed"));
    };
    let mut request = Request {
        method,
        target,
        parts,
        version,
        host: None,
        body: BodyKind::None,
        keep_alive: false,
        expects_continue: false,
        headers,
        headers_len,
    };
    request.host = request.read_host()?;
    request.body = request.read_body_kind()?;
    request.keep_alive = request.wants_keep_alive();
    request.expects_continue = version == Version::Http11
        && request.headers("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    Ok(Some((request, head_len)))
}

impl<'a> Request<'a> {
    /// The method, if it is one of those we serve.
    pub fn method(&self) -> Method {
        match self.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// The method as sent.
    pub fn method_str(&self) -> &'a str {
        self.method
    }

    /// The target as sent: visible ASCII without `#`.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path of the target, not percent-decoded. Starts with `/`, except for `OPTIONS *`.
    pub fn path(&self) -> &'a str {
        self.parts.path
    }

    /// What follows the first `?` of the target, not decoded; see [`super::query_param`].
    pub fn query(&self) -> Option<&'a str> {
        self.parts.query
    }

    /// HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Host and port the client meant to reach: of an absolute-form target, else of the Host
    /// header. Well-formed; `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// Whether the client lets us keep the connection for another request.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// What follows the head.
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// Whether the client waits for [`super::CONTINUE`] before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The value of the first header of this name (in any case), without surrounding space.
    ///
    /// For anything that decides about access use [`Request::only`]: the first value and the one
    /// that another party saw may differ.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers(name).next()
    }

    /// The values of all headers of this name (in any case), in order.
    pub fn headers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + use<'s, 'a> {
        self.headers[..self.headers_len]
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that must not be repeated. 400 if it is, or if its value is anything
    /// but visible ASCII and spaces; so that `Ok(None)` means that the header is not there.
    pub fn only(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.headers(name);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Refusal::bad_header(name, "is repeated"));
        }
        match str::from_utf8(value) {
            Ok(value) if value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) => Ok(Some(value)),
            _ => Err(Refusal::bad_header(name, "is not ASCII")),
        }
    }

    /// Whether `token` (in any case) is in the comma-separated lists of this header.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers(name).flat_map(list).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Checks Host also when an absolute-form target overrides it (RFC 9112, 3.2.2).
    fn read_host(&self) -> Result<Option<&'a str>, Refusal> {
        let host = self.only("Host")?;
        match host {
            None if self.version == Version::Http11 => {
                return Err(Refusal::bad_header("Host", "is missing"));
            }
            Some(host) if !target::is_host(host) => {
                return Err(Refusal::bad_header("Host", "is malformed"));
            }
            _ => {}
        }
        Ok(self.parts.authority.or(host))
    }

    /// RFC 9112, 6.1 to 6.3, without its leniencies.
    fn read_body_kind(&self) -> Result<BodyKind, Refusal> {
        let length = self.only("Content-Length")?;
        let Some(encoding) = self.only("Transfer-Encoding")? else {
            let Some(length) = length else {
                return Ok(BodyKind::None);
            };
            // `parse` alone would take a plus sign.
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            return match length.parse() {
                Ok(length) if digits => Ok(BodyKind::Length(length)),
                _ => Err(Refusal::bad_header("Content-Length", "is not a number")),
            };
        };
        if length.is_some() {
            return Err(Refusal::bad_header("Content-Length", "comes with Transfer-Encoding"));
        }
        if self.version == Version::Http10 {
            return Err(Refusal::bad_header("Transfer-Encoding", "does not exist in HTTP/1.0"));
        }
        if !encoding.eq_ignore_ascii_case("chunked") {
            return Err(Refusal::bad_header("Transfer-Encoding", "is not chunked"));
        }
        Ok(BodyKind::Chunked)
    }

    /// RFC 9112, 9.3.
    fn wants_keep_alive(&self) -> bool {
        if self.has_token("connection", "close") {
            return false;
        }
        self.version == Version::Http11 || self.has_token("connection", "keep-alive")
    }
}

impl fmt::Debug for Request<'_> {
    /// Without the headers: they hold credentials, and debug lines end in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.parts.path)
            .field("version", &self.version)
            .field("host", &self.host)
            .field("headers", &self.headers_len)
            .finish_non_exhaustive()
    }
}

/// The items of a comma-separated list, without surrounding space and without empty ones.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether a head that is incomplete already breaks a limit.
fn check_partial(bytes: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
    let line = bytes.trim_ascii_start();
    let target = line.iter().position(|&byte| byte == b' ').map_or(&[][..], |at| &line[at + 1..]);
    let target_len = target.iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
    if target_len > limits.target_bytes_max {
        return Err(Refusal::uri_too_long());
    }
    // At the limit the empty line is still missing: the head is longer.
    if bytes.len() >= limits.head_bytes_max {
        return Err(Refusal::head_too_large());
    }
    Ok(())
}

fn malformed(bytes: &[u8], error: httparse::Error) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Refusal::head_too_large(),
        Error::Version if names_other_version(bytes) => Refusal::version_not_supported(),
        Error::HeaderName => {
            Refusal::bad_request("a header name is malformed, a line is folded, or a space precedes the colon")
        }
        Error::HeaderValue => Refusal::bad_request("a header value has a control character"),
        _ => Refusal::bad_request("the request line is malformed"),
    }
}

/// Whether the request line ends in a version such as `HTTP/2.0`, rather than in anything else.
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).and_then(|rest| rest.first_chunk());
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']))
}

/// httparse takes a bare LF for the end of a line, as it may; a proxy before us may not.
fn has_bare_newline(head: &[u8]) -> bool {
    head.first() == Some(&b'\n') || head.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
}
