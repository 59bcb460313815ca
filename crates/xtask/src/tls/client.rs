//! Connections one after the other, with TLS or without: one request each, over what then stays open or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    Clear,
    /// Trusting one certificate for that name; with tickets or without.
    Tls(Arc<ClientConfig>, &'static str),
}

/// One of them, kept.
pub(super) enum Connection {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Manner {
    /// TLS 1.3 with AES-128-GCM, which all servers have: what is compared is not the cipher.
    pub(super) fn tls(certificate: &Path, name: &'static str, resume: bool) -> Result<Manner, String> {
        let named = |error: String| format!("{}: {error}", certificate.display());
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_file(certificate).map_err(|error| named(error.to_string()))?;
        roots.add(der).map_err(|error| named(error.to_string()))?;
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|e| e.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = if resume { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
        Ok(Manner::Tls(Arc::new(config), name))
    }

    /// Connects, asks for `path`, and reads the answer. Whether its session was resumed.
    pub(super) fn ask(&self, to: SocketAddr, path: &str) -> Result<(Connection, bool), String> {
        let named = |error: std::io::Error| format!("{to}: {error}");
        let tcp = TcpStream::connect(to).map_err(named)?;
        tcp.set_read_timeout(Some(PATIENCE)).map_err(named)?;
        tcp.set_nodelay(true).map_err(named)?;
        match self {
            Manner::Clear => {
                let mut tcp = tcp;
                exchange(&mut tcp, path).map_err(named)?;
                Ok((Connection::Clear(tcp), false))
            }
            Manner::Tls(config, name) => {
                let name = ServerName::try_from(*name).map_err(|error| error.to_string())?;
                let client = ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())?;
                let mut tls = StreamOwned::new(client, tcp);
                exchange(&mut tls, path).map_err(named)?;
                let is_resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
                Ok((Connection::Tls(Box::new(tls)), is_resumed))
            }
        }
    }
}

impl Connection {
    /// Another request over it: it is still there.
    pub(super) fn ask_again(&mut self, path: &str) -> Result<(), String> {
        let stream: &mut dyn Stream = match self {
            Connection::Clear(tcp) => tcp,
            Connection::Tls(tls) => tls,
        };
        exchange(stream, path).map_err(|error| error.to_string())
    }
}

/// One request, and its answer with a body of the length that it names.
fn exchange(stream: &mut (impl Stream + ?Sized), path: &str) -> std::io::Result<()> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    stream.flush()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let got = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..got]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            head.starts_with("http/1.1 200") && length.is_some_and(|length| body.len() == length)
        });
        if whole {
            return Ok(());
        }
        if got == 0 || answer.len() > 4096 {
            return Err(std::io::Error::other(format!("no good answer: {text}")));
        }
    }
}
