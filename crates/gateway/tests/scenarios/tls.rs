//! TLS from its first bytes to its last, for clients that do not do as they should. Everything else is tested over TLS by the
//! scenarios of the other files.

use crate::support::client::{Response, request};
use crate::support::{Ended, Gateway, Setup, on_every_driver_in_the_clear};
use gateway::stats::Number;
use std::time::Duration;

on_every_driver_in_the_clear! {
    a_request_in_the_clear_is_told_that_tls_is_spoken: Setup::dev().raw_tls(),
    what_is_no_tls_gets_an_alert_and_the_end: Setup::dev().raw_tls(),
    old_versions_are_refused: Setup::dev().raw_tls(),
    a_handshake_that_is_not_finished_in_time_is_closed: in_a_hurry(),
    a_client_that_leaves_in_its_handshake_leaves_nothing: Setup::dev().raw_tls(),
    a_message_of_the_handshake_has_a_largest_size: Setup::dev().raw_tls(),
}

const SHORT: Duration = Duration::from_millis(300);

const HANDSHAKE: u8 = 0x16;
const ALERT: u8 = 0x15;

fn in_a_hurry() -> Setup {
    Setup::dev().raw_tls().with(|s| s.times.tls_handshake_timeout = SHORT)
}

/// A ClientHello of TLS 1.2 or 1.3 in one record.
fn hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(crate::support::tls::client_config(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// One that offers no version but `(3, minor)`: without the extension that lists versions, since nothing before 1.2 knew it.
fn hello_of(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0); // session id
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]); // ECDHE with AES-128-GCM, no compression
    let extensions: [&[u8]; 3] = [
        &[0, 10, 0, 4, 0, 2, 0, 23],      // groups: P-256
        &[0, 11, 0, 2, 1, 0],             // points: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4], // signatures: ECDSA and RSA-PSS, with SHA-256
    ];
    let extensions = extensions.concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![HANDSHAKE, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

fn a_request_in_the_clear_is_told_that_tls_is_spoken(gateway: &Gateway) {
    for method in ["GET", "OPTIONS"] {
        let mut client = gateway.client();
        client.write(request(method, "/health"));
        let Response { status, body, .. } = client.response();
        assert!(status == 400 && body.contains("https:// or wss://"), "{status} {body}");
        assert_eq!(client.end(), Ended::Fin);
    }
    assert_eq!(gateway.sum(Number::TlsFailed), 0, "it never was TLS");
}

fn what_is_no_tls_gets_an_alert_and_the_end(gateway: &Gateway) {
    let mut long = vec![HANDSHAKE, 3, 1, 0xff, 0xff];
    long.extend([0; 100]);
    let mut damaged = hello();
    damaged[9] ^= 0xff; // the version in the middle of a length's neighbours
    damaged[43] = 0xff; // the session id's length
    let table: [(&str, Vec<u8>); 4] = [
        ("a record of an unknown kind", vec![0x63, 3, 3, 0, 1, 0]),
        ("a record longer than any", long),
        ("a damaged hello", damaged),
        ("data before the handshake", vec![0x17, 3, 3, 0, 1, 0]),
    ];
    for (number, (what, bytes)) in table.into_iter().enumerate() {
        let mut client = gateway.client();
        // An ASCII letter first would be a request.
        let is_letter = bytes[0].is_ascii_alphabetic();
        client.write(bytes);
        let (answer, ended) = client.raw_until_end();
        assert_eq!(ended, Ended::Fin, "{what}");
        if is_letter {
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{what}: {answer:?}");
        } else {
            assert!(answer.len() == 7 && answer[0] == ALERT && answer[5] == 2, "{what}: {answer:?}");
            gateway.until("it is counted", || gateway.sum(Number::TlsFailed) == number as u64);
        }
    }
    let mut client = gateway.client();
    client.write(hello());
    assert_eq!(client.raw_at_least(1)[0], HANDSHAKE, "what it should have been");
}

fn old_versions_are_refused(gateway: &Gateway) {
    for (minor, answer) in [(0, ALERT), (1, ALERT), (2, ALERT), (3, HANDSHAKE)] {
        let mut client = gateway.client();
        client.write(hello_of(minor));
        let seen = client.raw_at_least(7);
        assert_eq!(seen[0], answer, "3.{minor}: {seen:?}");
        if answer == ALERT {
            assert_eq!(seen[5..7], [2, 70], "3.{minor}: fatal, protocol_version");
        } else {
            assert_eq!(seen[9..11], [3, 3], "TLS 1.2 is spoken");
        }
    }
}

fn a_handshake_that_is_not_finished_in_time_is_closed(gateway: &Gateway) {
    let hello = hello();
    for part in [0, 1, hello.len() / 2, hello.len()] {
        let mut client = gateway.client();
        client.write(&hello[..part]);
        let (answer, ended) = client.raw_until_end();
        assert_eq!(ended, Ended::Fin);
        assert_eq!(answer.is_empty(), part < hello.len(), "{part} bytes");
    }
}

fn a_client_that_leaves_in_its_handshake_leaves_nothing(gateway: &Gateway) {
    let hello = hello();
    for part in [1, hello.len() / 2, hello.len()] {
        let client = gateway.client();
        client.write(&hello[..part]);
        client.shutdown_write();
        let client = gateway.client();
        client.write(&hello[..part]);
        client.reset();
    }
}

fn a_message_of_the_handshake_has_a_largest_size(gateway: &Gateway) {
    // A hello that claims 16 MB, in records of 16 KB.
    let mut client = gateway.client();
    let mut record = vec![HANDSHAKE, 3, 1, 0x40, 0];
    record.resize(5 + 0x4000, 0);
    record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    client.write(&record);
    for _ in 0..8 {
        client.write(&record);
    }
    let (_, ended) = client.raw_until_end();
    assert!(matches!(ended, Ended::Fin | Ended::Reset), "{ended:?}");
}
