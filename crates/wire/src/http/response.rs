//! Answers to bytes (RFC 9112, 4).

use super::Status;

/// The interim answer to [`super::Request::expects_continue`].
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer with a body that is whole, or with none.
///
/// ```
/// use wire::http::{Response, Status};
///
/// let mut out = Vec::new();
/// Response::new(Status::OK)
///     .content_type("application/json")
///     .header("Cache-Control", "no-store")
///     .body(b"{}")
///     .write(&mut out, true);
/// assert_eq!(
///     String::from_utf8(out).unwrap(),
///     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
///      Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Response<'a> {
    status: Status,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
    bodiless: bool,
}

impl<'a> Response<'a> {
    /// An answer without headers and body.
    pub fn new(status: Status) -> Response<'a> {
        Response { status, headers: Vec::new(), body: b"", bodiless: false }
    }

    /// Adds Content-Type.
    pub fn content_type(self, value: &'a str) -> Response<'a> {
        self.header("Content-Type", value)
    }

    /// Adds a header. Content-Length and Connection are written by [`Response::write`].
    ///
    /// Control characters in the value are written as spaces, so that a value taken from a request
    /// (a Location) cannot add a header or end the head.
    pub fn header(mut self, name: &'a str, value: &'a str) -> Response<'a> {
        self.headers.push((name, value));
        self
    }

    /// Sets the body. With a status that has none (204, 304) it is not written.
    pub fn body(self, body: &'a [u8]) -> Response<'a> {
        Response { body, ..self }
    }

    /// Whether this answers a HEAD: the head of the GET, length included, without the body.
    pub fn head_only(self, bodiless: bool) -> Response<'a> {
        Response { bodiless, ..self }
    }

    /// Appends the whole answer.
    pub fn write(&self, out: &mut Vec<u8>, keep_alive: bool) {
        let bodiless = self.status.forbids_body();
        let len = if bodiless { None } else { Some(self.body.len()) };
        let headers = self.headers.iter().copied();
        write_head(out, self.status, headers, len, keep_alive, Tail::None);
        if !bodiless && !self.bodiless {
            out.extend_from_slice(self.body);
        }
    }
}

/// What Connection lists besides the fate of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    None,
    /// Whoever sends Upgrade lists it in Connection (RFC 9110, 7.8).
    Upgrade,
}

/// Appends an answer's head. Connection is always written: 1.0 and 1.1 differ in what its absence
/// means.
pub(super) fn write_head<'h>(
    out: &mut Vec<u8>,
    status: Status,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    content_length: Option<usize>,
    keep_alive: bool,
    tail: Tail,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        push_value(out, value);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(len) = content_length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(len.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(if keep_alive { b"keep-alive" } else { b"close" });
    if tail == Tail::Upgrade {
        out.extend_from_slice(b", Upgrade");
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a header value in which control characters have become spaces.
pub(crate) fn push_value(out: &mut Vec<u8>, value: &str) {
    out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
}
