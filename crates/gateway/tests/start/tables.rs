//! A table of descriptors per worker: the limit of open files counts for each, and no byte strays from one to another.

use crate::process::{PATIENCE, PORTS, command, config, get, path, start_as};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Files that one table of the process under test may hold.
const FILES_MAX: u64 = 224;

/// The command with that limit, which counts for the process it starts.
fn limited(mut command: Command) -> Command {
    // SAFETY: makes one system call, on memory of its own.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: FILES_MAX, rlim_max: FILES_MAX };
            match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command
}

fn tidegate(driver: &str, file: &tempfile::NamedTempFile) -> Command {
    limited(command(&[&["--dev", "--config", path(file), "--io", driver], &PORTS[..]].concat()))
}

const HANDSHAKE: &[u8] = b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client of `/echo` after its handshake, or the status that it got instead.
fn echo_client(address: &str) -> Result<TcpStream, String> {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("settable");
    socket.write_all(HANDSHAKE).expect("writable");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let lines: Vec<&str> = head.split("\r\n").collect();
    if lines[0] != "HTTP/1.1 101 Switching Protocols" {
        return Err(lines[0].to_owned());
    }
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    Ok(socket)
}

/// Sends a text and checks that it comes back, to the byte.
fn echo(socket: &mut TcpStream, text: &str) {
    let len = u8::try_from(text.len()).expect("short");
    let frame = [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat();
    socket.write_all(&frame).expect("writable");
    let mut answer = vec![0; 2 + text.len()];
    socket.read_exact(&mut answer).expect("the echo");
    assert_eq!(answer, [&[0x81, len], text.as_bytes()].concat(), "{}", String::from_utf8_lossy(&answer));
}

/// Ends the connection; nothing but the close frame may be left on it.
fn leave(mut socket: TcpStream) {
    socket.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).expect("writable");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("its end");
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8], "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn more_clients_than_one_table_may_hold_are_served_and_those_over_the_limit_told() {
    let file = config("[workers]\ncount = 4\nconnections_max = 300\n");
    for driver in ["epoll", "uring"] {
        let mut gateway = start_as(tidegate(driver, &file));
        let line = gateway.read_until("open files");
        assert!(line.contains("for each worker by itself: room for 300 clients"), "{line}");
        let mut clients = Vec::new();
        let mut refused = 0;
        for _ in 0..600 {
            match echo_client(&gateway.public) {
                Ok(client) => clients.push(client),
                Err(status) => {
                    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
                    refused += 1;
                }
            }
        }
        assert!(clients.len() >= 300 && clients.len() as u64 > FILES_MAX, "{} clients", clients.len());
        assert!(refused > 0);
        for (number, client) in clients.iter_mut().enumerate() {
            echo(client, &format!("client {number}"));
        }
        clients.into_iter().for_each(leave);
    }
}

#[test]
fn one_table_for_all_takes_no_more_than_its_limit_and_says_what_would() {
    let file = config("[workers]\ncount = 4\nconnections_max = 300\nprivate_fd_tables = 'off'\n");
    let ended = tidegate("epoll", &file).output().expect("it runs");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{err}");
    assert!(err.contains("connections_max = 300") && err.contains("workers.private_fd_tables"), "{err}");
}

/// A table that grows makes every thread that shares it wait, so it has its size before the first client comes.
#[test]
fn a_shared_table_has_room_for_all_clients_from_the_start() {
    for clients in [3000, 300] {
        let file = config(&format!("[workers]\ncount = 2\nconnections_max = {clients}\nprivate_fd_tables = 'off'\n"));
        let gateway = start_as(command(&[&["--dev", "--config", path(&file)], &PORTS[..]].concat()));
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("proc_pid_status(5)");
        let room: u64 = line.trim().parse().expect("a number");
        // The kernel doubles: more than twice as much would be somebody else's doing.
        assert!(room >= clients && room <= 4 * clients, "room for {room}, wanted {clients}");
    }
}

/// The log, the API's connections and the clients have the same numbers in different tables, and all of them come and go.
#[test]
fn while_clients_the_log_and_the_api_reuse_each_others_numbers_no_client_gets_a_foreign_byte() {
    let file = config("[workers]\ncount = 4\nprivate_fd_tables = 'on'\n[log]\nlevel = 'trace'\n");
    for driver in ["epoll", "uring"] {
        let mut gateway = start_as(tidegate(driver, &file));
        for round in 0..10 {
            let mut clients: Vec<TcpStream> =
                (0..40).map(|_| echo_client(&gateway.public).expect("room for all")).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                echo(client, &format!("round {round} client {number}"));
                if number % 8 == 0 {
                    let answer = get(&gateway.api, "/metrics");
                    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("# EOF\n"), "{answer}");
                    // Makes the log speak, from the control thread.
                    gateway.signal("HUP");
                    gateway.read_until("the new configuration is in force");
                }
            }
            // In another order than they came, so that numbers are given out again in a new one.
            let odd: Vec<TcpStream> = clients
                .into_iter()
                .enumerate()
                .filter_map(|(i, c)| {
                    if i % 2 == 0 {
                        leave(c);
                        None
                    } else {
                        Some(c)
                    }
                })
                .collect();
            odd.into_iter().rev().for_each(leave);
        }
    }
}
