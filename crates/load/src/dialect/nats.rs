//! The NATS client protocol as nats-server speaks it on its WebSocket listener, and over TCP to publishers.
//!
//! A stream of lines ended by CRLF; `MSG` is followed by its payload. The frames of a WebSocket cut it anywhere, so
//! whoever reads keeps what [`parse`] leaves. Source: docs.nats.io, "Client Protocol".

use super::Heard;

/// Bytes of one line; nats-server's own limit on what clients send is 4,096, and an INFO with many cluster addresses is
/// longer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one payload; nats-server's own hard limit.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a client says first. Without `verbose` there is no `+OK` for each line, without `echo` no publication comes back to
/// its publisher.
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"echo\":false,\
\"headers\":false,\"protocol\":1,\"lang\":\"rust\",\"name\":\"tidegate-load\",\"version\":\"0\"}\r\n";

/// Asks for a PONG, which says that everything before it was processed.
pub(crate) const PING: &str = "PING\r\n";

/// The answer to the server's PING.
pub(crate) const PONG: &str = "PONG\r\n";

/// Calls `hear` for every whole part of what the server sent. Returns how many bytes these were; the rest is to be put in
/// front of what comes next.
///
/// # Errors
/// When it is not of the protocol.
pub(crate) fn parse<'m>(bytes: &'m [u8], mut hear: impl FnMut(Heard<'m>)) -> Result<usize, String> {
    let mut used = 0;
    while let Some(len) = part(&bytes[used..], &mut hear)? {
        used += len;
    }
    Ok(used)
}

/// One line, with its payload if it has one. `None` while more has to come.
fn part<'m>(bytes: &'m [u8], hear: &mut impl FnMut(Heard<'m>)) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(2).take(LINE_BYTES_MAX).position(|two| two == b"\r\n") else {
        return if bytes.len() > LINE_BYTES_MAX { Err("a line without an end".to_owned()) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "a line that is not text".to_owned())?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "MSG" => return message(rest, &bytes[end + 2..], hear).map(|len| len.map(|len| end + 2 + len)),
        "PING" => hear(Heard::Ping { answer: true }),
        "PONG" => hear(Heard::Reply),
        "INFO" | "+OK" => hear(Heard::Other),
        "-ERR" => hear(Heard::Refused(format!("the server refused: {}", rest.trim_matches('\'')))),
        _ => return Err(format!("the unknown line {}", word.chars().take(32).collect::<String>())),
    }
    Ok(Some(end + 2))
}

/// `MSG <subject> <sid> [reply-to] <bytes>` and its payload.
fn message<'m>(line: &'m str, after: &'m [u8], hear: &mut impl FnMut(Heard<'m>)) -> Result<Option<usize>, String> {
    let mut words = line.split_ascii_whitespace();
    let (subject, len) = (words.next(), words.next_back());
    let len = len.and_then(|len| len.parse::<usize>().ok()).filter(|len| *len <= PAYLOAD_BYTES_MAX);
    let (Some(subject), Some(len), 1..=2) = (subject, len, words.count()) else {
        return Err(format!("the line MSG {}", line.chars().take(64).collect::<String>()));
    };
    let Some(payload) = after.get(..len + 2) else { return Ok(None) };
    let Some(data) = payload.strip_suffix(b"\r\n") else {
        return Err(format!("a payload that is not {len} bytes long"));
    };
    hear(Heard::Publication { channel: subject.into(), data, offset: 0 });
    Ok(Some(len + 2))
}
