//! The client role of `wire` before the WebSocket test suite: sends every message back, and closes as it is told.
//!
//! `cargo xtask conformance` runs it. By hand:
//!
//! ```sh
//! cargo build --release -p tidegate-load --example conformance
//! crates/xtask/conformance/run --client-mode --strict --url ws://127.0.0.1:9001 --start target/release/examples/conformance
//! ```
//!
//! The suite is the server: it says how many cases there are, plays one per connection, and then writes its report.
#![forbid(unsafe_code)]

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use wire::http::HeadLimits;
use wire::ws::deflate::Inflater;
use wire::ws::extension::{ClientWindow, Offer};
use wire::ws::{CloseCode, Event, Limits, OpCode, Reader, Role, client, write_close, write_frame};

type Outcome<T> = Result<T, Box<dyn Error>>;

const AGENT: &str = "tidegate";
/// The suite's largest messages: 16 MiB, and 65,536 fragments.
const LIMITS: Limits = Limits { message_bytes_max: 16 << 20, fragments_max: 1 << 17 };
/// Longer than the suite is ever silent in a case.
const PATIENCE: Duration = Duration::from_secs(60);

/// 64 bits that nobody can guess, as a masking key has to be (RFC 6455, 10.3).
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn mask() -> Option<[u8; 4]> {
    Some((random() as u32).to_ne_bytes())
}

fn main() -> Outcome<()> {
    let server = std::env::args().nth(1).ok_or("which address does the suite listen on?")?;
    let mut count = 0;
    converse(&server, "/getCaseCount", |payload| {
        count = str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        false
    })?;
    if count == 0 {
        return Err("the suite has no cases".into());
    }
    for case in 1..=count {
        converse(&server, &format!("/runCase?case={case}&agent={AGENT}"), |_| true)?;
    }
    converse(&server, &format!("/updateReports?agent={AGENT}"), |_| false)?;
    println!("{count} cases");
    Ok(())
}

/// One connection, until it ends. `each` sees every message and says whether it is sent back.
fn converse(server: &str, target: &str, mut each: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let offer = Offer { client_max_window_bits: ClientWindow::Any, ..Offer::default() };
    let mut key = [0; 16];
    key.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&random().to_ne_bytes()));
    let mut out = Vec::new();
    client::write_request(&mut out, server, target, &key, None, &[("Sec-WebSocket-Extensions", &offer.to_string())]);
    stream.write_all(&out)?;
    let (mut received, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    let answer = loop {
        let len = stream.read(&mut chunk)?;
        received.extend_from_slice(&chunk[..len]);
        if let Some(answer) = client::check_response_with(&received, &key, None, Some(&offer), &HeadLimits::default())?
        {
            break answer;
        }
        if len == 0 {
            return Err(format!("{target}: closed during the handshake").into());
        }
    };
    received.drain(..answer.head_len);
    let mut reader =
        answer.deflate.map_or(Reader::new(Role::Client), |agreed| Reader::with_deflate(Role::Client, agreed));
    let mut inflater = Inflater::new();
    loop {
        out.clear();
        let open = answer_all(&mut reader, &mut inflater, &mut received, &mut out, &mut each);
        // The suite may be gone after a close frame of its own; that is its right.
        let sent = stream.write_all(&out);
        if !open || sent.is_err() {
            return wait_for_the_end(&mut stream, &mut chunk);
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                received.clear();
                received.extend_from_slice(&chunk[..len]);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(format!("{target}: {error}").into()),
        }
    }
}

/// Whether the connection goes on.
fn answer_all(
    reader: &mut Reader,
    inflater: &mut Inflater,
    mut input: &mut [u8],
    out: &mut Vec<u8>,
    each: &mut impl FnMut(&[u8]) -> bool,
) -> bool {
    loop {
        match reader.next_inflating(&mut input, &LIMITS, inflater) {
            Ok(Some(Event::Message { kind, payload })) => {
                if each(payload) {
                    write_frame(out, kind.opcode(), true, payload, mask());
                }
            }
            Ok(Some(Event::Ping(payload))) => write_frame(out, OpCode::Pong, true, payload, mask()),
            Ok(Some(Event::Pong(_))) => {}
            Ok(Some(Event::Close { code, .. })) => {
                write_close(out, code.unwrap_or(CloseCode::NORMAL), "", mask());
                return false;
            }
            Ok(None) => return true,
            Err(error) => {
                write_close(out, error.close_code(), "", mask());
                return false;
            }
        }
    }
}

/// The server closes the connection first (RFC 6455, 7.1.1).
fn wait_for_the_end(stream: &mut TcpStream, chunk: &mut [u8]) -> Outcome<()> {
    loop {
        match stream.read(chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(format!("waiting for the end: {error}").into()),
        }
    }
}
