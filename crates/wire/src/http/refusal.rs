//! The answers that refuse a request, each with the headers that belong to its status.

use super::Status;
use super::response::{Tail, write_head};
use std::fmt;

/// Why a request is refused, as the whole answer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Who is at fault: 4xx the client, 5xx we.
    pub status: Status,
    /// The header at fault, if it is one.
    header: Option<&'static str>,
    /// One sentence, or its end when `header` begins it; without a full stop.
    detail: &'static str,
    extra: Extra,
    bodiless: bool,
}

/// What the status obliges us to add.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extra {
    None,
    Allow(&'static str),
    Upgrade(Missing),
    RetryAfterSeconds(u32),
}

/// The parts of a WebSocket request that did not reach us. A field is true if its part is missing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Missing {
    /// The request came as HTTP/1.0, which cannot be upgraded.
    pub http_1_1: bool,
    /// `Upgrade: websocket`
    pub upgrade: bool,
    /// `Connection: Upgrade`
    pub connection: bool,
    /// `Sec-WebSocket-Version: 13`
    pub version: bool,
    /// `Sec-WebSocket-Key`
    pub key: bool,
}

impl Missing {
    /// Whether anything is.
    pub fn any(&self) -> bool {
        *self != Missing::default()
    }
}

impl Refusal {
    const fn new(status: Status, detail: &'static str) -> Refusal {
        Refusal { status, header: None, detail, extra: Extra::None, bodiless: false }
    }

    const fn with(self, extra: Extra) -> Refusal {
        Refusal { extra, ..self }
    }

    /// 400: the request is malformed; `detail` says how.
    pub const fn bad_request(detail: &'static str) -> Refusal {
        Refusal::new(Status::BAD_REQUEST, detail)
    }

    /// 400 because of one header; `detail` goes on from its name, as in "is repeated".
    pub const fn bad_header(name: &'static str, detail: &'static str) -> Refusal {
        Refusal { header: Some(name), ..Refusal::new(Status::BAD_REQUEST, detail) }
    }

    /// 403: understood, and not allowed; `detail` says why.
    pub const fn forbidden(detail: &'static str) -> Refusal {
        Refusal::new(Status::FORBIDDEN, detail)
    }

    /// 404.
    pub const fn not_found() -> Refusal {
        Refusal::new(Status::NOT_FOUND, "nothing is served at this path")
    }

    /// 405; `allow` lists what is allowed, as in "GET, HEAD".
    pub const fn method_not_allowed(allow: &'static str) -> Refusal {
        Refusal::new(Status::METHOD_NOT_ALLOWED, "this path does not take this method").with(Extra::Allow(allow))
    }

    /// 408: the request took too long to arrive.
    pub const fn timeout() -> Refusal {
        Refusal::new(Status::REQUEST_TIMEOUT, "the request did not arrive in time")
    }

    /// 413: the body is larger than this path takes.
    pub const fn too_large() -> Refusal {
        Refusal::new(Status::CONTENT_TOO_LARGE, "the body is too large")
    }

    /// 414.
    pub const fn uri_too_long() -> Refusal {
        Refusal::new(Status::URI_TOO_LONG, "the request target is too long")
    }

    /// 426: this path speaks WebSocket, and the request is not a complete upgrade request. The
    /// body names what is missing.
    pub const fn upgrade_required(missing: Missing) -> Refusal {
        Refusal::new(Status::UPGRADE_REQUIRED, "this path speaks WebSocket (RFC 6455)").with(Extra::Upgrade(missing))
    }

    /// 429: this client has reached a limit of its own.
    pub const fn too_many_requests(retry_after_seconds: u32) -> Refusal {
        Refusal::new(Status::TOO_MANY_REQUESTS, "this client has reached its limit")
            .with(Extra::RetryAfterSeconds(retry_after_seconds))
    }

    /// 431: the head is too long or has too many headers.
    pub const fn head_too_large() -> Refusal {
        Refusal::new(Status::HEAD_TOO_LARGE, "the request head is too large")
    }

    /// 503: this node has reached its limit, or is going down.
    pub const fn unavailable(retry_after_seconds: u32) -> Refusal {
        Refusal::new(Status::SERVICE_UNAVAILABLE, "this server takes no more clients now")
            .with(Extra::RetryAfterSeconds(retry_after_seconds))
    }

    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    pub const fn version_not_supported() -> Refusal {
        Refusal::new(Status::VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0")
    }

    /// The same without a body, as an answer to HEAD.
    pub const fn without_body(self) -> Refusal {
        Refusal { bodiless: true, ..self }
    }

    /// Whether the connection must be closed behind this: where the next request starts is unknown.
    pub const fn closes(&self) -> bool {
        matches!(
            self.status,
            Status::BAD_REQUEST
                | Status::REQUEST_TIMEOUT
                | Status::CONTENT_TOO_LARGE
                | Status::URI_TOO_LONG
                | Status::HEAD_TOO_LARGE
                | Status::VERSION_NOT_SUPPORTED
        )
    }

    /// Appends the whole answer. `keep_alive` is what the request allows, and false when its body
    /// was not read; it is overruled where [`Refusal::closes`].
    pub fn write(&self, out: &mut Vec<u8>, keep_alive: bool) {
        let mut body = format!("{self}.\n");
        if let Extra::Upgrade(missing) = self.extra {
            explain(&mut body, missing);
        }
        let mut seconds = String::new();
        let (extra, tail): (&[(&str, &str)], _) = match self.extra {
            Extra::None => (&[], Tail::None),
            Extra::Allow(methods) => (&[("Allow", methods)], Tail::None),
            Extra::Upgrade(_) => (&[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")], Tail::Upgrade),
            Extra::RetryAfterSeconds(wait) => {
                seconds.push_str(&wait.to_string());
                (&[("Retry-After", &seconds)], Tail::None)
            }
        };
        // Caches may keep a 404 or a 405 unasked (RFC 9111, 4.2.2).
        let shared = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")];
        let headers = shared.iter().chain(extra).copied();
        let keep_alive = keep_alive && !self.closes();
        write_head(out, self.status, headers, Some(body.len()), keep_alive, tail);
        if !self.bodiless {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

/// Tells whoever set this up what to do about a request that lost its upgrade on the way.
fn explain(body: &mut String, missing: Missing) {
    let lines = [
        (missing.http_1_1, "HTTP/1.1 in the request line"),
        (missing.upgrade, "Upgrade: websocket"),
        (missing.connection, "Connection: Upgrade"),
        (missing.version, "Sec-WebSocket-Version: 13"),
        (missing.key, "Sec-WebSocket-Key: (24 characters chosen by the client)"),
    ];
    if missing.any() {
        body.push_str("Missing in the request as it arrived here:\n");
    }
    for (_, line) in lines.iter().filter(|(is_missing, _)| *is_missing) {
        body.push_str("  ");
        body.push_str(line);
        body.push('\n');
    }
    body.push_str(
        "If your client is a WebSocket client, a proxy on the way has probably dropped them: most\n\
         proxies forward Upgrade and Connection only when told to. In nginx:\n  \
           proxy_http_version 1.1;\n  \
           proxy_set_header Upgrade $http_upgrade;\n  \
           proxy_set_header Connection \"upgrade\";\n",
    );
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.status)?;
        if let Some(header) = self.header {
            write!(f, "{header} ")?;
        }
        f.write_str(self.detail)
    }
}

impl std::error::Error for Refusal {}
