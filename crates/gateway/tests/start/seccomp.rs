//! `deploy/seccomp.json`: what it leaves is enough for all that a gateway does, and one call less is not.
//!
//! No container is started: its list becomes a filter for the real binary, which is *killed* at the first call that is not on
//! it, so that none can be refused without a trace.

mod filter;

use crate::process::{PATIENCE, PORTS, Running, command, config, get, path, start_as};
use filter::{Filter, Profile};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A backend that lets everybody in; its address, by a name that has to be looked up.
fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://localhost:{}/", listener.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a call");
            let (mut call, mut byte) = (Vec::new(), [0]);
            while !call.ends_with(b"}") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                call.push(byte[0]);
            }
            let answer = "{\"result\":{\"user\":\"42\"}}";
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all(format!("{head}{answer}").as_bytes());
        }
    });
    url
}

/// Files of a certificate for localhost, in a folder that lasts.
fn certificate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = command(&["cert", "--out", folder.path().to_str().expect("UTF-8")]).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

type Line = Box<dyn ReadWrite>;
trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A connection to a listener, with TLS where the URL says so.
fn connect(url: &str, certificate: &tempfile::TempDir) -> Line {
    let (scheme, address) = url.split_once("://").expect("a URL");
    let tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("settable");
    if scheme == "http" {
        return Box::new(tcp);
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.path().join("cert.pem")).expect("PEM")).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).expect("ring has both versions");
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("localhost").expect("a name");
    Box::new(StreamOwned::new(ClientConnection::new(config, name).expect("a good configuration"), tcp))
}

fn read_until(line: &mut Line, end: &str) -> io::Result<String> {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(end.as_bytes()) {
        line.read_exact(&mut byte)?;
        seen.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// A WebSocket client that has connected and subscribed to the channel.
fn subscribe(line: &mut Line, channel: &str) -> io::Result<()> {
    line.write_all(
        b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    assert!(read_until(line, "\r\n\r\n")?.starts_with("HTTP/1.1 101 "));
    let commands = format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}");
    let mut frame = vec![0x81, 0x80 | commands.len() as u8, 0, 0, 0, 0];
    frame.extend(commands.as_bytes());
    line.write_all(&frame)?;
    read_until(line, "\"id\":2,\"subscribe\":{")?;
    read_until(line, "}").map(drop)
}

/// The answer to a call of the server API.
fn call(gateway: &Running, method: &str, body: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(&gateway.api)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (address, len) = (&gateway.api, body.len());
    write!(
        socket,
        "POST /api/{method} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\
         Content-Type: application/json\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map(|_| answer)
}

/// How the life of a gateway went.
struct Life {
    driver: String,
    /// What went wrong in it.
    trouble: Option<String>,
    /// `None` for one that was killed.
    exit_code: Option<i32>,
}

/// All that a gateway does in its life, under a filter.
fn live(driver: &str, tables: &str, filter: Filter) -> Life {
    let (certificate, backend) = (certificate(), backend());
    let folder = certificate.path().display();
    let file = config(&format!(
        "[workers]\nprivate_fd_tables = '{tables}'\n[api]\ninsecure = true\n[tls]\nlisten = ['127.0.0.1:0']\n\
         certificates = [{{ chain = '{folder}/cert.pem', key = '{folder}/key.pem' }}]\n\
         [webhooks]\nconnect = '{backend}'\n[drain]\nnotice = '0s'\ntime = '100ms'\n\
         [channels]\nallow_subscribe_for_client = true\nhistory_size = 10\nhistory_ttl = '1m'\n"
    ));
    let unix = format!("unix:{folder}/socket");
    let arguments = ["serve", "--config", path(&file), "--workers", "2", "--io", driver, "--listen", &unix];
    let mut command = command(&[&arguments, &PORTS[..]].concat());
    // SAFETY: the closure only makes system calls, on memory that it owns and that is filled already.
    unsafe { command.pre_exec(move || filter.install()) };
    let mut gateway = start_as(command);
    let driver = gateway.read_until("driver ");
    // Helpers panic when they meet a gateway that has died; that is for the caller to judge.
    let went = catch_unwind(AssertUnwindSafe(|| converse(&mut gateway, &certificate)));
    let trouble = match went {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("a panic".to_owned()),
    };
    gateway.signal("TERM");
    Life { driver, trouble, exit_code: gateway.exit_code() }
}

fn converse(gateway: &mut Running, certificate: &tempfile::TempDir) -> io::Result<()> {
    let secure = gateway
        .banner
        .iter()
        .find_map(|line| line.strip_prefix("listening public ").filter(|url| url.starts_with("https")));
    let urls = [format!("http://{}", gateway.public), secure.expect("a listener with TLS").to_owned()];
    let mut clients = Vec::new();
    for url in &urls {
        let mut line = connect(url, certificate);
        subscribe(&mut line, "news")?;
        clients.push(line);
    }
    let answer = call(gateway, "publish", "{\"channel\":\"news\",\"data\":\"published\"}")?;
    assert!(answer.contains("\"offset\":1"), "{answer}");
    for client in &mut clients {
        read_until(client, "\"published\"")?;
    }
    let answer = call(gateway, "history", "{\"channel\":\"news\",\"limit\":10}")?;
    assert!(answer.contains("\"published\""), "{answer}");
    assert!(get(&gateway.api, "/metrics").contains("tidegate_driver_info{"));
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    // By the new certificate, which is the old one.
    subscribe(&mut connect(&urls[1], certificate), "after")
}

const DRIVERS: [&str; 2] = ["epoll", "uring"];

/// A filter that kills, made of the shipped profile without these calls.
fn killing(without: &[&str]) -> Filter {
    Filter::new(&Profile::shipped().without(without), libc::SECCOMP_RET_KILL_PROCESS)
}

#[test]
fn all_that_a_gateway_does_is_allowed() {
    for driver in DRIVERS {
        for tables in ["off", "on"] {
            let life = live(driver, tables, killing(&[]));
            assert!(life.driver.starts_with(&format!("driver {driver}")), "{}", life.driver);
            assert_eq!((life.trouble, life.exit_code), (None, Some(0)), "{driver}, private tables {tables}");
        }
    }
}

#[test]
fn one_call_less_is_found_out() {
    for driver in DRIVERS {
        let life = live(driver, "off", killing(&["accept4"]));
        assert!(life.trouble.is_some(), "{driver}");
        assert_eq!(life.exit_code, None, "{driver}");
    }
}

/// As a container runtime would install it, which refuses instead of killing.
#[test]
fn without_the_calls_of_io_uring_the_same_profile_leaves_epoll() {
    for (without, driver) in
        [(vec![], "driver uring"), (Profile::shipped().beginning_with("io_uring_"), "driver epoll")]
    {
        let profile = Profile::shipped().without(&without.iter().map(|name| &**name).collect::<Vec<_>>());
        let life = live("auto", "off", Filter::new(&profile, libc::SECCOMP_RET_ERRNO | profile.errno));
        assert!(life.driver.starts_with(driver), "{}", life.driver);
        assert_eq!((life.trouble, life.exit_code), (None, Some(0)), "{driver}");
    }
}
