//! The real binary with TLS: which certificate is shown, who is let in, and what a reload changes.

mod process;

use process::{PATIENCE, Running, config, path, start};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

/// An authority, and files of those that it vouches for.
struct Authority {
    dir: tempfile::TempDir,
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { dir, certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `FILE.pem` and `FILE.key` for that host.
    fn vouch_for(&self, host: &str, file: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// What a client trusts that trusts this authority, and the certificate that it shows.
    fn client(&self, shows: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap().with_root_certificates(roots);
        Arc::new(match shows {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let chain = CertificateDer::from_pem_file(self.file(&format!("{file}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{file}.key"))).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        })
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: &str, host: &str, config: &Arc<ClientConfig>) -> Client {
    let tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("settable");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a good configuration"), tcp)
}

/// The answer to a GET, or why there is none.
fn get(address: &str, host: &str, target: &str, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let mut client = connect(address, host, config);
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes())?;
    let mut answer = String::new();
    // An end without close_notify would be an error.
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether the gateway shows a certificate that is good for that host.
fn shows(address: &str, host: &str, config: &Arc<ClientConfig>) -> bool {
    match get(address, host, "/health", config) {
        Ok(answer) => answer.starts_with("HTTP/1.1 200 OK"),
        Err(error) => {
            assert!(error.to_string().contains("not valid for name"), "{error}");
            false
        }
    }
}

/// The binary with `[tls]` of these keys, `@` standing for the authority's folder; where it listens with TLS.
fn start_tls(authority: &Authority, keys: &str) -> (Running, tempfile::NamedTempFile, String) {
    let file = config(&text(authority, keys));
    let gateway = start(&["serve", "--config", path(&file)]);
    let line = gateway.banner.iter().find_map(|line| line.strip_prefix("listening public https://"));
    let address = line.expect("a listener with TLS").to_owned();
    (gateway, file, address)
}

fn text(authority: &Authority, keys: &str) -> String {
    let keys = keys.replace('@', authority.dir.path().to_str().unwrap());
    format!(
        "[client]\nanonymous = true\n[api]\ninsecure = true\n[public]\necho = true\n[tls]\nlisten = ['127.0.0.1:0']\n{keys}\n"
    )
}

#[test]
fn the_host_that_a_client_names_chooses_the_certificate() {
    let authority = Authority::new();
    authority.vouch_for("localhost", "a");
    authority.vouch_for("*.push.test", "b");
    let keys = "certificates = [{ chain = '@/a.pem', key = '@/a.key' }, { chain = '@/b.pem', key = '@/b.key' }]";
    let (_gateway, _file, address) = start_tls(&authority, keys);
    let client = authority.client(None);
    assert!(shows(&address, "localhost", &client));
    assert!(shows(&address, "eu.push.test", &client));
    assert!(!shows(&address, "push.test", &client), "the first is shown, which is for another host");
    assert!(
        get(&address, "localhost", "/health", &Authority::new().client(None)).is_err(),
        "another authority's client"
    );
}

#[test]
fn a_second_connection_is_shortened_by_a_ticket() {
    let authority = Authority::new();
    authority.vouch_for("localhost", "a");
    let (_gateway, _file, address) = start_tls(&authority, "certificates = [{ chain = '@/a.pem', key = '@/a.key' }]");
    let client = authority.client(None);
    let kind = || {
        let mut stream = connect(&address, "localhost", &client);
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
        stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(kind(), HandshakeKind::Full);
    // Whichever of the two workers it comes to.
    for _ in 0..4 {
        assert_eq!(kind(), HandshakeKind::Resumed);
    }
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.vouch_for("localhost", "a");
    authority.vouch_for("device-7", "device");
    stranger.vouch_for("device-7", "device");
    let pair = "certificates = [{ chain = '@/a.pem', key = '@/a.key' }]\nclient_ca = '@/ca.pem'";
    let device = authority.client(Some("device"));
    let nobody = authority.client(None);
    // Trusts ours, and shows one of another authority.
    for file in ["device.pem", "device.key"] {
        fs::copy(stranger.file(file), authority.file(&file.replace("device", "strange"))).unwrap();
    }
    let strange = authority.client(Some("strange"));
    for (auth, without) in [("required", false), ("optional", true)] {
        let (_gateway, _file, address) = start_tls(&authority, &format!("{pair}\nclient_auth = '{auth}'"));
        let gets_in =
            |config| get(&address, "localhost", "/health", config).is_ok_and(|answer| answer.contains("200 OK"));
        assert!(gets_in(&device), "{auth}");
        assert_eq!(gets_in(&nobody), without, "{auth}");
        assert!(!gets_in(&strange), "{auth}");
    }
}

#[test]
fn a_reload_shows_new_certificates_drops_nobody_and_keeps_the_old_where_the_new_are_bad() {
    let authority = Authority::new();
    authority.vouch_for("localhost", "a");
    let pair = "certificates = [{ chain = '@/a.pem', key = '@/a.key' }]";
    let (mut gateway, file, address) = start_tls(&authority, pair);
    let client = authority.client(None);
    let mut old = connect(&address, "localhost", &client);
    let head = "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    old.write_all(head.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        old.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }

    authority.vouch_for("renewed.test", "a");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    // By letter to each worker.
    while !(0..8).all(|_| shows(&address, "renewed.test", &authority.client(None))) {}

    for (name, damage) in [("a.key", "no key"), ("a.pem", "no certificate")] {
        let before = fs::read(authority.file(name)).unwrap();
        fs::write(authority.file(name), damage).unwrap();
        gateway.signal("HUP");
        let why = gateway.read_until("reload: ");
        assert!(why.contains(name), "{why}");
        gateway.read_until("the old configuration stays in force");
        assert!(shows(&address, "renewed.test", &authority.client(None)), "{name}");
        fs::write(authority.file(name), before).unwrap();
    }

    // A listener stays what it was at the start, also when the config has none any more.
    fs::write(file.path(), "[client]\nanonymous = true\n[api]\ninsecure = true\n").unwrap();
    gateway.signal("HUP");
    gateway.read_until("tls.listen has changed");
    gateway.read_until("the new configuration is in force");
    assert!(shows(&address, "renewed.test", &authority.client(None)));

    old.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let mut echo = [0; 4];
    old.read_exact(&mut echo).unwrap();
    assert_eq!(echo, [0x81, 2, b'h', b'i'], "who was connected notices nothing");
}

#[test]
fn the_api_has_listeners_of_its_own_and_tells_when_certificates_end() {
    let authority = Authority::new();
    authority.vouch_for("localhost", "a");
    let keys = "api_listen = ['127.0.0.1:0']\ncertificates = [{ chain = '@/a.pem', key = '@/a.key' }]";
    let (mut gateway, _file, address) = start_tls(&authority, keys);
    let line = gateway.banner.iter().find_map(|line| line.strip_prefix("listening api https://")).map(str::to_owned);
    let api = line.unwrap_or_else(|| {
        let line = gateway.read_until("listening api https://");
        line.trim().rsplit('/').next().unwrap().to_owned()
    });
    let client = authority.client(None);
    assert!(shows(&address, "localhost", &client));
    let metrics = get(&api, "localhost", "/metrics", &client).unwrap();
    assert!(metrics.contains("tidegate_tls_certificate_not_after_timestamp_seconds{file="), "{metrics}");
    assert!(process::get(&gateway.api, "/healthz").contains("200 OK"), "beside the one in the clear");
    assert!(get(&gateway.api, "localhost", "/healthz", &client).is_err(), "which speaks none");

    authority.vouch_for("renewed.test", "a");
    gateway.signal("HUP");
    gateway.read_until("the new configuration is in force");
    assert!(get(&api, "renewed.test", "/healthz", &authority.client(None)).is_ok());
}
