//! HTTP heads, the upgrade, and the header of extensions.

use wire::http::{self, HeadLimits};
use wire::proxy::{self, HEADER_BYTES_MAX, Header};
use wire::ws::client;
use wire::ws::extension::{ClientWindow, Offer, Policy};
use wire::ws::handshake;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 2048, headers_max: 16, target_bytes_max: 512 };

/// A head is read as soon as it is whole and no sooner, whatever follows; what is refused gets a whole answer.
pub fn head(data: &[u8]) {
    match http::parse(data, &LIMITS) {
        Ok(Some((request, head_len))) => {
            assert!(head_len <= data.len() && head_len <= LIMITS.head_bytes_max);
            // The planted bug: a target with an escaped zero byte ends the head one byte early.
            let is_short = cfg!(feature = "planted") && has(request.target().as_bytes(), b"%00");
            let head_len = head_len - usize::from(is_short);
            let alone = http::parse(&data[..head_len], &LIMITS).expect("as good without what follows");
            let (again, len) = alone.expect("as whole without what follows");
            assert_eq!((len, again.target(), again.host()), (head_len, request.target(), request.host()));
            assert!(!matches!(http::parse(&data[..head_len - 1], &LIMITS), Ok(Some(_))), "not before its last byte");
            assert!(request.target().bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Ok(None) => assert!(data.len() < LIMITS.head_bytes_max, "more than the limit cannot be a part"),
        Err(refusal) => {
            let mut out = Vec::new();
            refusal.write(&mut out, true);
            assert!(out.starts_with(b"HTTP/1.1 4") || out.starts_with(b"HTTP/1.1 5"));
            assert!(out.windows(4).any(|four| four == b"\r\n\r\n"));
        }
    }
}

/// A header of the PROXY protocol is read as soon as it is whole and no sooner, whatever follows, and is never waited for beyond
/// its longest length.
pub fn proxy(data: &[u8]) {
    match proxy::parse(data) {
        Ok(Some((header, len))) => {
            assert!(len <= data.len() && len <= HEADER_BYTES_MAX);
            // The planted bug: a client whose port is its server's ends the header one byte early.
            let is_short = matches!(header, Header::For { client, server } if client.port() == server.port());
            let len = len - usize::from(cfg!(feature = "planted") && is_short);
            assert_eq!(proxy::parse(&data[..len]), Ok(Some((header, len))), "as good without what follows");
            assert_eq!(proxy::parse(&data[..len - 1]), Ok(None), "not before its last byte");
        }
        Ok(None) => assert!(data.len() < HEADER_BYTES_MAX, "more than the limit cannot be a part"),
        Err(error) => {
            let longer = [data, b"\r\n"].concat();
            assert_eq!(proxy::parse(&longer), Err(error), "what is wrong stays wrong");
        }
    }
}

/// Byte by byte, so that a fuzzer sees how far it has come; what std does is not instrumented.
fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window.iter().zip(part).all(|(a, b)| a == b))
}

/// An upgrade is answered by a head that adds nothing the client did not ask for and that ends where it ends.
pub fn upgrade(data: &[u8]) {
    let Ok(Some((request, _))) = http::parse(data, &LIMITS) else { return };
    let Ok(upgrade) = handshake::check(&request) else { return };
    assert!(request.header("sec-websocket-key").is_some());
    let params = upgrade.deflate(&Policy::default());
    assert!(params.is_none() || request.header("sec-websocket-extensions").is_some());
    let subprotocol = ["centrifuge-json", "centrifuge-protobuf"].into_iter().find(|name| upgrade.offers(name));
    let mut out = Vec::new();
    upgrade.write_response_with(&mut out, subprotocol, params);
    // The planted bug: compression without a subprotocol costs the answer its last byte.
    if cfg!(feature = "planted") && subprotocol.is_none() && params.is_some() {
        out.pop();
    }
    assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"\r\n\r\n"));
    let lines = out.windows(2).filter(|two| two == b"\r\n").count();
    assert_eq!(lines, 5 + usize::from(subprotocol.is_some()) + usize::from(params.is_some()));
}

/// The header of extensions: our answer to any header is one that a client who offered as much takes, and that, were it
/// an offer, would be answered alike.
pub fn extension(data: &[u8]) {
    // Other bytes never get past the reader of heads.
    let Ok(value) = std::str::from_utf8(data) else { return };
    if !value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return;
    }
    let answered = |value: &str| {
        let mut head = Vec::new();
        let extra = [("Sec-WebSocket-Extensions", value)];
        client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
        let (request, _) = http::parse(&head, &HeadLimits::default()).ok()??;
        handshake::check(&request).ok()?.deflate(&Policy { client_window_bits: 15 })
    };
    let Some(params) = answered(value) else { return };
    assert!(value.to_ascii_lowercase().contains("permessage-deflate"));
    let mut answer = params.to_string();
    // The planted bug: a window of 2 KiB makes the answer forget what the client keeps.
    if cfg!(feature = "planted") && has(answer.as_bytes(), b"server_max_window_bits=11") {
        answer = answer.replace("; client_no_context_takeover", "");
    }
    assert_eq!(answered(&answer), Some(params), "{answer}");
    let offer = Offer {
        server_no_context_takeover: answer.contains("server_no"),
        client_no_context_takeover: answer.contains("client_no"),
        server_max_window_bits: answer.contains("server_max").then_some(15),
        client_max_window_bits: ClientWindow::Any,
    };
    let mut response = Vec::new();
    let mut head = Vec::new();
    client::write_request(&mut head, "example.org", "/", &[7; 16], None, &[("Sec-WebSocket-Extensions", value)]);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("good").expect("whole");
    handshake::check(&request).expect("good").write_response_with(&mut response, None, Some(params));
    let taken = client::check_response_with(&response, &[7; 16], None, Some(&offer), &HeadLimits::default());
    let taken = taken.expect(&answer).expect("whole").deflate.expect("agreed");
    assert_eq!(taken.to_string(), answer);
}
