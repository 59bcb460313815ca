//! The real binary from start to exit: what it prints, how signals reload, drain and end it.

mod process;

use process::{PATIENCE, Running, ask, command, config, get, path, start};
use std::io::{Read, Write};
use std::net::TcpStream;

fn publish(address: &str, key: &str) -> String {
    let body = r#"{"channel":"news","data":1}"#;
    ask(
        address,
        &format!(
            "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX-API-Key: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// A plain client that has connected: the socket after its connect push.
fn plain_client(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("settable");
    let head = "GET /connection/uni_websocket?channels=news HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(head.as_bytes()).expect("writable");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\"}}") {
        socket.read_exact(&mut byte).expect("the connect push");
        seen.push(byte[0]);
    }
    assert!(String::from_utf8_lossy(&seen).contains("101 Switching Protocols"));
    socket
}

#[test]
fn a_bare_start_is_dev_and_says_so_with_everything_one_needs() {
    let mut gateway = start(&[]);
    gateway.read_until("publish with");
    let line = gateway.read_until("curl");
    assert!(gateway.banner.iter().any(|line| line.contains("starting as with --dev")), "{:?}", gateway.banner);
    assert!(line.contains(&format!("http://{}/api/publish", gateway.api)), "{line}");
    assert!(get(&gateway.public, "/").contains("200 OK"), "the demo");
    assert!(get(&gateway.public, "/readyz").contains("200 OK"));
    assert!(get(&gateway.api, "/metrics").contains("tidegate_"));
    assert!(publish(&gateway.api, "").contains("{\"result\":{}}"));
    gateway.signal("INT");
    assert_eq!(gateway.exit_code(), Some(0), "SIGINT ends --dev at once");
}

#[test]
fn an_address_in_use_ends_with_1_and_names_the_flag() {
    let taken = start(&["--dev"]);
    for (flag, address) in [("--listen", &taken.public), ("--api-listen", &taken.api)] {
        let other = if flag == "--listen" { "--api-listen" } else { "--listen" };
        let ended = command(&["--dev", flag, address, other, "127.0.0.1:0"]).output().expect("it runs");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{err}");
        assert!(err.contains(address) && err.contains("in use") && err.contains(flag), "{err}");
    }
}

#[test]
fn a_bad_config_ends_with_2_before_anything_listens() {
    let file = config("[outbox]\nbyts_max = 1\n");
    let ended = command(&["serve", "--config", path(&file)]).output().expect("it runs");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{err}");
    assert!(err.contains(":2:1: outbox.byts_max: unknown key") && err.contains("bytes_max"), "{err}");
}

#[test]
fn sigterm_drains_clients_and_ends_with_0() {
    let file = config("[drain]\nnotice = '300ms'\ntime = '300ms'\n");
    let mut gateway = start(&["--dev", "--config", path(&file)]);
    let mut client = plain_client(&gateway.public);
    gateway.signal("TERM");
    gateway.read_until("draining");
    // Not ready on either listener from then on, though both still answer.
    while !get(&gateway.public, "/readyz").contains("503") {}
    assert!(get(&gateway.api, "/readyz").contains("503"));
    let mut frames = Vec::new();
    let mut byte = [0];
    while !frames.ends_with(b"shutdown") || !frames.windows(4).any(|four| four == [0x88, 2 + 8, 0x03, 0xe9]) {
        client.read_exact(&mut byte).expect("the disconnect push, then a close frame with 1001 and `shutdown`");
        frames.push(byte[0]);
    }
    client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).expect("our half of the closing handshake");
    assert_eq!(client.read(&mut byte).expect("closed in order"), 0);
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let file = config("[drain]\nnotice = '10m'\n");
    let mut gateway = start(&["--dev", "--config", path(&file)]);
    gateway.signal("TERM");
    gateway.read_until("draining");
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn sighup_brings_new_keys_and_a_bad_file_keeps_the_old_ones() {
    let text = |key: &str| format!("[client]\nanonymous = true\n[channels]\n[api]\nkeys = ['{key}']\n");
    let file = config(&text("first-key"));
    let mut gateway = start(&["serve", "--config", path(&file)]);
    assert!(publish(&gateway.api, "first-key").contains("200 OK"));
    assert!(publish(&gateway.api, "first-kez").contains("401"));

    std::fs::write(file.path(), text("second-key")).expect("writable");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    assert!(publish(&gateway.api, "first-key").contains("401"));
    assert!(publish(&gateway.api, "second-key").contains("200 OK"));

    std::fs::write(file.path(), "[api]\nkeyz = []\n").expect("writable");
    gateway.signal("HUP");
    let why = gateway.read_until("reload: ");
    assert!(why.contains("keyz"), "{why}");
    gateway.read_until("the old configuration stays in force");
    assert!(publish(&gateway.api, "second-key").contains("200 OK"));
}

#[test]
fn a_reload_takes_new_hosts() {
    let text = |hosts: &str| format!("[public]\nhosts = {hosts}\n[client]\nanonymous = true\n");
    let file = config(&text("[]"));
    let mut gateway = start(&["serve", "--config", path(&file)]);
    let status = |gateway: &Running, host: &str| {
        let head = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        ask(&gateway.public, &head).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(status(&gateway, "push.example.com"), "HTTP/1.1 403 Forbidden");
    assert_eq!(status(&gateway, "localhost"), "HTTP/1.1 200 OK");
    std::fs::write(file.path(), text("['push.example.com']")).expect("writable");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    // By letter to each worker, as with origins below.
    while status(&gateway, "push.example.com") != "HTTP/1.1 200 OK" {}
    assert_eq!(status(&gateway, "pull.example.com"), "HTTP/1.1 403 Forbidden");
    std::fs::write(file.path(), text("['push.example.com:443']")).expect("writable");
    gateway.signal("HUP");
    let why = gateway.read_until("reload: ");
    assert!(why.contains(":2:10") && why.contains("public.hosts"), "{why}");
    gateway.read_until("the old configuration stays in force");
    assert_eq!(status(&gateway, "push.example.com"), "HTTP/1.1 200 OK");
}

#[test]
fn a_reload_lets_new_origins_in() {
    let text = |origins: &str| format!("[public]\norigins = {origins}\n");
    let file = config(&text("[]"));
    let mut gateway = start(&["--dev", "--config", path(&file)]);
    let handshake = |gateway: &Running| {
        let mut socket = TcpStream::connect(&gateway.public).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("settable");
        let head = "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Origin: https://app.example.com\r\n\r\n";
        socket.write_all(head.as_bytes()).expect("writable");
        let mut status = [0; 12];
        socket.read_exact(&mut status).expect("a status line");
        String::from_utf8_lossy(&status).into_owned()
    };
    let counted = |gateway: &Running, name: &str| -> u64 {
        let metrics = get(&gateway.api, "/metrics");
        let ours = metrics.lines().filter(|line| line.starts_with(&format!("tidegate_{name}_total{{")));
        ours.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    assert_eq!((counted(&gateway, "origins_refused"), counted(&gateway, "handshakes")), (0, 0));
    assert_eq!(handshake(&gateway), "HTTP/1.1 403");
    // A worker's numbers are copied out at the end of its tick, which may be a little after its answer.
    while counted(&gateway, "origins_refused") != 1 {}
    assert_eq!(counted(&gateway, "handshakes"), 0);
    std::fs::write(file.path(), text("['https://app.example.com']")).expect("writable");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    // The order reaches the workers by letter; each answers by the new rule from its next tick on.
    while handshake(&gateway) != "HTTP/1.1 101" {}
    while counted(&gateway, "handshakes") != 1 {}
}

#[test]
fn a_reload_begins_to_count_by_address() {
    let text = |max: u32| {
        format!("[public]\ntrusted_proxies = ['127.0.0.1']\n[client]\nconnections_per_address_max = {max}\n")
    };
    let file = config(&text(0));
    let mut gateway = start(&["--dev", "--config", path(&file)]);
    let handshake = |gateway: &Running, client: &str| {
        let mut socket = TcpStream::connect(&gateway.public).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("settable");
        let head = format!(
            "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: {client}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("writable");
        let mut status = [0; 12];
        socket.read_exact(&mut status).expect("a status line");
        (String::from_utf8_lossy(&status).into_owned(), socket)
    };
    let mut held: Vec<_> = (0..3).map(|_| handshake(&gateway, "192.0.2.7")).collect();
    assert!(held.iter().all(|(status, _)| status == "HTTP/1.1 101"));
    std::fs::write(file.path(), text(1)).expect("writable");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    // By letter to each worker; from the last one on the second is one too many.
    while held.last().is_some_and(|(status, _)| status != "HTTP/1.1 429") {
        held.push(handshake(&gateway, "192.0.2.7"));
    }
    assert_eq!(handshake(&gateway, "192.0.2.8").0, "HTTP/1.1 101");
    held.clear();
    while handshake(&gateway, "192.0.2.7").0 != "HTTP/1.1 101" {}
}
