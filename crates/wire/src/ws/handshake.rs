//! The opening handshake, server side (RFC 6455, 4.2).
//!
//! Sec-WebSocket-Key encrypts nothing and proves nothing about the client: echoing it, hashed,
//! proves to the client that we understood the request as WebSocket and that no cache answered.
//! Nor does anything here decide who may connect: browsers let any page open a WebSocket to any
//! host, so whoever calls [`check`] must judge the Origin header as well.

use super::extension::{self, Params, Policy};
use crate::http::{BodyKind, Method, Missing, Refusal, Request, Version, push_value};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};
use std::io::Write as _;

/// Appended to the key before hashing (1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 as keys use it. The RFC's own example (4.1, item 7) has stray bits in its last character.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// An upgrade request that may be granted.
#[derive(Clone, Debug)]
pub struct Upgrade<'r> {
    request: &'r Request<'r>,
    accept: [u8; 28],
}

/// Whether somebody meant this request as WebSocket, be it complete or not.
///
/// Any of the three headers says so, because proxies drop the first two and keep the third.
pub fn wants_upgrade(request: &Request<'_>) -> bool {
    request.has_token("upgrade", "websocket")
        || request.has_token("connection", "upgrade")
        || request.header("sec-websocket-key").is_some()
}

/// Checks an upgrade request (4.2.1).
///
/// 405 if it is no GET; 426, with the missing lines named, if a part is missing that a proxy may
/// have dropped or if the version is not 13; 400 for headers that no client would send: a key that
/// alone is missing, or is malformed, a body, a malformed list of subprotocols or extensions.
pub fn check<'r>(request: &'r Request<'_>) -> Result<Upgrade<'r>, Refusal> {
    if request.method() != Method::Get {
        return Err(Refusal::method_not_allowed("GET"));
    }
    let version = request.only("Sec-WebSocket-Version")?;
    let key = request.only("Sec-WebSocket-Key")?;
    let missing = Missing {
        http_1_1: request.version() < Version::Http11,
        upgrade: !request.has_token("upgrade", "websocket"),
        connection: !request.has_token("connection", "upgrade"),
        version: version != Some("13"),
        key: key.is_none(),
    };
    if missing != (Missing { key: missing.key, ..Missing::default() }) {
        return Err(Refusal::upgrade_required(missing));
    }
    let Some(key) = key else {
        return Err(Refusal::bad_header("Sec-WebSocket-Key", "is missing"));
    };
    if !is_key(key) {
        return Err(Refusal::bad_header("Sec-WebSocket-Key", "is not 16 bytes in base64"));
    }
    if !matches!(request.body(), BodyKind::None | BodyKind::Length(0)) {
        // Its bytes would be read as frames.
        return Err(Refusal::bad_request("an upgrade request has a body"));
    }
    let mut offers = request.headers(PROTOCOL).flat_map(crate::http::list);
    if !offers.all(|offer| offer.iter().all(|&byte| extension::is_token_byte(byte))) {
        return Err(Refusal::bad_header(PROTOCOL, "is malformed"));
    }
    // The grammar is judged whether or not compression is wanted here, so that a switch of ours changes no verdict.
    extension::negotiate(request.headers(extension::HEADER), &Policy::default()).map_err(malformed_extensions)?;
    Ok(Upgrade { request, accept: accept(key.as_bytes()) })
}

const PROTOCOL: &str = "Sec-WebSocket-Protocol";

fn malformed_extensions(extension::Malformed: extension::Malformed) -> Refusal {
    Refusal::bad_header(extension::HEADER, "is malformed")
}

impl Upgrade<'_> {
    /// Whether the client offers this subprotocol (4.1, item 10; the case counts).
    pub fn offers(&self, subprotocol: &str) -> bool {
        let mut offers = self.request.headers(PROTOCOL).flat_map(crate::http::list);
        offers.any(|offer| offer == subprotocol.as_bytes())
    }

    /// Whether the client offers any subprotocol.
    pub fn has_offers(&self) -> bool {
        self.request.headers(PROTOCOL).flat_map(crate::http::list).next().is_some()
    }

    /// The first offer of permessage-deflate that can be accepted under this policy, as it is accepted; `None`: there
    /// is none, and the connection goes on uncompressed.
    pub fn deflate(&self, policy: &Policy) -> Option<Params> {
        // `check` has seen that the header follows the grammar.
        extension::negotiate(self.request.headers(extension::HEADER), policy).unwrap_or_default()
    }

    /// Appends the answer that makes the connection a WebSocket (4.2.2).
    ///
    /// A client that gets a subprotocol it did not offer fails the connection, so `subprotocol`
    /// must be one it [offers](Upgrade::offers); a debug assertion sees to it.
    pub fn write_response(&self, out: &mut Vec<u8>, subprotocol: Option<&str>) {
        self.write_response_with(out, subprotocol, None);
    }

    /// The same, and accepts permessage-deflate with what [`Upgrade::deflate`] gave. From then on the connection is
    /// read with [`super::Reader::with_deflate`].
    pub fn write_response_with(&self, out: &mut Vec<u8>, subprotocol: Option<&str>, deflate: Option<Params>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        if let Some(subprotocol) = subprotocol {
            debug_assert!(self.offers(subprotocol), "{subprotocol} was not offered");
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            push_value(out, subprotocol);
        }
        if let Some(params) = deflate {
            write!(out, "\r\n{}: {params}", extension::HEADER).expect("writing into memory cannot fail");
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// The value of Sec-WebSocket-Accept for a key as it was sent (4.2.2, item 5.4).
pub(super) fn accept(key: &[u8]) -> [u8; 28] {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut out = [0; 28];
    let len = BASE64.encode_slice(hash, &mut out);
    debug_assert_eq!(len, Ok(28), "20 bytes are 28 characters");
    out
}

/// 16 bytes in base64.
fn is_key(key: &str) -> bool {
    // The decoder asks for room for whole groups of three.
    let mut bytes = [0; 18];
    BASE64.decode_slice(key, &mut bytes) == Ok(16)
}
