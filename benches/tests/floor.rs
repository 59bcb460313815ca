//! The program `floor`, spoken to over loopback: whoever divides by it must know that it does the whole work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wire::ws::OpCode;

/// For every read; a healthy one takes microseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, ended when dropped.
struct Floor {
    child: Child,
    public: String,
    api: String,
}

impl Floor {
    /// `None` where this driver cannot be used on this machine; says so.
    fn start(work: &[&str], driver: &str) -> Option<Floor> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(work)
            .args(["--driver", driver, "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listening = |kind: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(&format!("listening {kind} http://")).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let public = listening("public");
        let api = if work[0] == "fanout" { listening("api") } else { String::new() };
        let mut floor = Floor { child, public, api };
        if driver == "uring" && TcpStream::connect(&floor.public).and_then(|mut s| first_answer(&mut s)).is_err() {
            floor.child.wait().unwrap();
            let why: Vec<String> = lines.map_while(Result::ok).collect();
            assert!(why.concat().contains("no io_uring here"), "{why:?}");
            println!("not tested on io_uring: {why:?}");
            return None;
        }
        Some(floor)
    }

    fn client(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = until(&mut stream, b"\r\n\r\n");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        stream
    }

    fn publish(&self, target: &str, bodies: &[&str]) {
        let mut stream = TcpStream::connect(&self.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = |body: &&str| format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let requests: String = bodies.iter().map(request).collect();
        stream.write_all(requests.as_bytes()).unwrap();
        for _ in bodies {
            let answer = until(&mut stream, b"{\"result\":{}}");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether anybody is at home: a request gets an answer.
fn first_answer(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /echo HTTP/1.1\r\n\r\n")?;
    stream.read_exact(&mut [0])
}

fn until(stream: &mut TcpStream, end: &[u8]) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::ws::write_frame(&mut out, opcode, true, payload, Some([7, 1, 9, 3]));
    out
}

fn plain(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::ws::write_frame(&mut out, OpCode::Text, true, payload, None);
    out
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == bytes, "{:?}", String::from_utf8_lossy(&got));
}

/// A close frame is answered with one, and then with the end of the stream.
fn leave(mut stream: TcpStream) {
    stream.write_all(&masked(OpCode::Close, &[3, 232])).unwrap();
    expect(&mut stream, &[0x88, 2, 3, 232]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn on_each_driver(work: &[&str], check: impl Fn(&Floor)) {
    for driver in ["epoll", "uring"] {
        if let Some(floor) = Floor::start(work, driver) {
            check(&floor);
        }
    }
}

#[test]
fn echoes_come_back_to_whom_they_belong_and_a_close_is_answered() {
    on_each_driver(&["echo"], |floor| {
        let mut clients = [floor.client("/echo"), floor.client("/echo")];
        for (number, client) in clients.iter_mut().enumerate() {
            let text = format!("client {number}");
            client.write_all(&masked(OpCode::Text, text.as_bytes()).repeat(32)).unwrap();
            expect(client, &plain(text.as_bytes()).repeat(32));
        }
        clients.into_iter().for_each(leave);
    });
}

#[test]
fn a_message_larger_than_every_buffer_comes_back_whole() {
    on_each_driver(&["echo"], |floor| {
        let mut client = floor.client("/echo");
        let large: Vec<u8> = (0..3_000_000).map(|at| b'a' + (at % 23) as u8).collect();
        let mut reading = client.try_clone().unwrap();
        let message = masked(OpCode::Text, &large);
        // Written beside the reading, or both sides would wait for the other to read.
        let writer = std::thread::spawn(move || client.write_all(&message).map(|()| client).unwrap());
        expect(&mut reading, &plain(&large));
        leave(writer.join().unwrap());
    });
}

#[test]
fn accepting_is_done_with_the_close_frame() {
    on_each_driver(&["accept"], |floor| {
        for _ in 0..20 {
            leave(floor.client("/echo"));
        }
    });
}

#[test]
fn every_client_gets_every_publication_in_the_bytes_of_its_dialect() {
    for sends in ["single", "pending"] {
        on_each_driver(&["fanout", "--sends", sends], |floor| {
            let mut clients: Vec<TcpStream> = (0..20).map(|_| floor.client("/connection/websocket")).collect();
            for client in &mut clients {
                let commands = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"load\"}}";
                client.write_all(&masked(OpCode::Text, commands)).unwrap();
                let replies = until(client, b"{\"id\":2,\"subscribe\":{}}");
                assert!(replies.contains("{\"id\":1,\"connect\":{"), "{replies}");
            }
            leave(clients.swap_remove(3));
            floor.publish(
                "/api/publish",
                &["{\"channel\":\"load\",\"data\":[1]}", "{\"channel\":\"load\",\"data\":\"b\"}"],
            );
            for client in &mut clients {
                expect(client, &plain(b"{\"push\":{\"channel\":\"load\",\"pub\":{\"data\":[1]}}}"));
                expect(client, &plain(b"{\"push\":{\"channel\":\"load\",\"pub\":{\"data\":\"b\"}}}"));
            }
            let mut raw = floor.client("/sub/load");
            floor.publish("/pub/load", &["as it is"]);
            expect(&mut raw, &plain(b"as it is"));
            clients.iter_mut().for_each(|client| expect(client, &plain(b"as it is")));
            clients.into_iter().for_each(leave);
        });
    }
}

#[test]
fn a_client_that_does_not_read_delays_nobody_and_loses_nothing() {
    on_each_driver(&["fanout"], |floor| {
        let (mut slow, mut quick) = (floor.client("/sub/load"), floor.client("/sub/load"));
        let large = "x".repeat(100_000);
        // More than any socket buffer holds.
        for _ in 0..80 {
            floor.publish("/pub/load", &[&large]);
            expect(&mut quick, &plain(large.as_bytes()));
        }
        for _ in 0..80 {
            expect(&mut slow, &plain(large.as_bytes()));
        }
        leave(slow);
        leave(quick);
    });
}

#[test]
fn nonsense_ends_one_connection_at_most() {
    on_each_driver(&["echo"], |floor| {
        let mut mad = TcpStream::connect(&floor.public).unwrap();
        mad.write_all(b"\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        mad.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(until(&mut mad, b"\r\n\r\n").starts_with("HTTP/1.1 101"));
        drop(mad);
        let mut sane = floor.client("/echo");
        sane.write_all(&masked(OpCode::Text, b"still here")).unwrap();
        expect(&mut sane, &plain(b"still here"));
    });
}
