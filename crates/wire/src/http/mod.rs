//! HTTP/1.1 and 1.0 (RFC 9110, RFC 9112) as far as a gateway needs it, without I/O.
//!
//! A connection serves requests one after another: [`parse`] a head, read its body with
//! [`body::Body`] (also one that nobody wants: the next head starts behind it), then write a
//! [`Response`] or a [`Refusal`], and keep the connection if both sides agree to. Requests that a
//! client pipelines simply wait in the same bytes.

pub mod body;
mod refusal;
mod request;
mod response;
mod target;
mod url;

pub use refusal::{Missing, Refusal};
pub use request::{BodyKind, Request, parse};
pub use response::{CONTINUE, Response};
pub use url::{percent_decode, query_param};

pub(crate) use request::list;
pub(crate) use response::push_value;

use crate::limits;
use std::fmt;

/// What one request head may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes from the request line to the empty line, both included.
    pub head_bytes_max: usize,
    /// Headers; more than [`limits::HEADERS_MAX`] means that.
    pub headers_max: usize,
    /// Bytes of the target in the request line.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    /// [`limits::HEAD_BYTES_MAX`], [`limits::HEADERS_MAX`] and [`limits::TARGET_BYTES_MAX`].
    fn default() -> HeadLimits {
        HeadLimits {
            head_bytes_max: limits::HEAD_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
            target_bytes_max: limits::TARGET_BYTES_MAX,
        }
    }
}

/// The method of a request. The name of every method is in [`Request::method_str`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: a GET whose answer has no body.
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// Any other.
    Other,
}

/// The protocol version of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// One request per connection unless the client asks to keep it; no upgrade, no chunks.
    Http10,
    /// Connections are kept unless somebody says `close`.
    Http11,
}

/// A status code (RFC 9110, 15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Status(u16);

/// Declares the statuses we send, with their reason phrases.
macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal)*) => {
        impl Status {
            $(#[doc = concat!(stringify!($code), " ", $reason)]
            pub const $name: Status = Status($code);)*

            /// The phrase behind the number in a status line; empty for codes we have no name for.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

statuses! {
    SWITCHING_PROTOCOLS 101 "Switching Protocols"
    OK 200 "OK"
    NO_CONTENT 204 "No Content"
    FOUND 302 "Found"
    SEE_OTHER 303 "See Other"
    NOT_MODIFIED 304 "Not Modified"
    TEMPORARY_REDIRECT 307 "Temporary Redirect"
    PERMANENT_REDIRECT 308 "Permanent Redirect"
    BAD_REQUEST 400 "Bad Request"
    UNAUTHORIZED 401 "Unauthorized"
    FORBIDDEN 403 "Forbidden"
    NOT_FOUND 404 "Not Found"
    METHOD_NOT_ALLOWED 405 "Method Not Allowed"
    REQUEST_TIMEOUT 408 "Request Timeout"
    CONTENT_TOO_LARGE 413 "Content Too Large"
    URI_TOO_LONG 414 "URI Too Long"
    UPGRADE_REQUIRED 426 "Upgrade Required"
    TOO_MANY_REQUESTS 429 "Too Many Requests"
    HEAD_TOO_LARGE 431 "Request Header Fields Too Large"
    INTERNAL_SERVER_ERROR 500 "Internal Server Error"
    SERVICE_UNAVAILABLE 503 "Service Unavailable"
    VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported"
}

impl Status {
    /// The status with this code, which has three digits.
    pub const fn new(code: u16) -> Option<Status> {
        match code {
            100..=999 => Some(Status(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether an answer with this status never has a body (RFC 9110, 6.4.1).
    pub const fn forbids_body(self) -> bool {
        matches!(self.0, 100..=199 | 204 | 304)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}
