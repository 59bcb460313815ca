//! Publishing to nats-server over TCP. `PUB` has no answer of its own; the PONG behind it says that it was processed.

use super::{ANSWER_BYTES_MAX, Answer};
use crate::dialect::{Heard, nats};
use std::io::{Read, Write};

/// Introduces us. The server's INFO, which comes first, is passed over with the first answer.
pub(super) fn greet<C: Write>(mut connection: C) -> std::io::Result<C> {
    connection.write_all(nats::CONNECT.as_bytes())?;
    Ok(connection)
}

/// Appends a publication, and what its answer will be to.
pub(super) fn write(out: &mut Vec<u8>, channel: &str, data: &[u8]) {
    out.extend_from_slice(format!("PUB {channel} {}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(nats::PING.as_bytes());
}

/// Sends it and reads until the PONG. The second value tells whether the connection may be used again.
pub(super) fn exchange(connection: &mut (impl Read + Write), request: &[u8]) -> std::io::Result<(Answer, bool)> {
    connection.write_all(request)?;
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    let mut refused = None;
    loop {
        let len = match connection.read(&mut chunk) {
            // Some refusals end the connection.
            Ok(0) => return refused.map(|why| (why, false)).ok_or(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&chunk[..len]);
        let (mut done, mut pinged) = (false, false);
        let used = nats::parse(&received, |heard| match heard {
            Heard::Reply => done = true,
            Heard::Ping { .. } => pinged = true,
            Heard::Refused(reason) => refused = Some(Answer::Refused(reason)),
            _ => {}
        });
        received.drain(..used.map_err(std::io::Error::other)?);
        if pinged {
            connection.write_all(nats::PONG.as_bytes())?;
        }
        if done {
            return Ok((refused.unwrap_or(Answer::Accepted), true));
        }
        if received.len() > ANSWER_BYTES_MAX {
            return Err(std::io::Error::other("its answer is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A server that says these pieces, whatever it is told.
    struct Server {
        says: VecDeque<&'static [u8]>,
        heard: Vec<u8>,
    }

    impl Read for Server {
        fn read(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
            let piece = self.says.pop_front().unwrap_or_default();
            chunk[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Server {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn publish(says: &[&'static [u8]]) -> (std::io::Result<(Answer, bool)>, String) {
        let mut server = greet(Server { says: says.iter().copied().collect(), heard: Vec::new() }).unwrap();
        let mut request = Vec::new();
        write(&mut request, "a.b", b"\"x\"");
        let answer = exchange(&mut server, &request);
        (answer, String::from_utf8(server.heard).unwrap())
    }

    #[test]
    fn a_pong_accepts_what_was_published_before_it() {
        let (answer, heard) = publish(&[b"INFO {\"version\":\"2.9.10\"} \r\nPI", b"NG\r\nPO", b"NG\r\n"]);
        assert_eq!(answer.unwrap(), (Answer::Accepted, true));
        assert_eq!(heard, format!("{}PUB a.b 3\r\n\"x\"\r\nPING\r\nPONG\r\n", nats::CONNECT));
    }

    #[test]
    fn an_error_refuses_whether_or_not_the_connection_ends() {
        let refused = || Answer::Refused("the server refused: Maximum Payload Violation".to_owned());
        let error: &[u8] = b"-ERR 'Maximum Payload Violation'\r\n";
        assert_eq!(publish(&[error]).0.unwrap(), (refused(), false));
        assert_eq!(publish(&[error, b"PONG\r\n"]).0.unwrap(), (refused(), true));
    }

    #[test]
    fn an_end_without_an_answer_leaves_it_open() {
        assert!(publish(&[b"INFO {}\r\n"]).0.is_err());
        assert!(publish(&[b"INFO {}\r\n", b"HTTP/1.1 400 Bad Request\r\n"]).0.is_err());
    }
}
