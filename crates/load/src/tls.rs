//! TLS of clients, for `wss://` URLs.
//!
//! Nothing is saved on: a client of this program may be as large as the library makes it. What is measured is the server.

use crate::endpoint::{Endpoint, Scheme};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

/// Tickets that are kept for connections to come.
const TICKETS_MAX: usize = 65_536;

/// What all clients of a URL have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Common {
    /// `None` where the URL has no TLS. `ca` has the certificates that the server's is to come from.
    pub(crate) fn new(endpoint: &Endpoint, ca: Option<&Path>, resume: bool) -> Result<Option<Common>, String> {
        if endpoint.scheme != Scheme::Tls {
            return if ca.is_some() { Err("--ca is for wss:// URLs".to_owned()) } else { Ok(None) };
        }
        let ca = ca.ok_or("a wss:// URL needs --ca FILE.pem, to know the server by")?;
        let named = |error: String| format!("{}: {error}", ca.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| named(error.to_string()))? {
            let certificate = certificate.map_err(|error| named(error.to_string()))?;
            roots.add(certificate).map_err(|error| named(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
        config.resumption = if resume { Resumption::in_memory_sessions(TICKETS_MAX) } else { Resumption::disabled() };
        let host = endpoint.host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let host = host.map_or(&*endpoint.host, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        Ok(Some(Common { config: Arc::new(config), name }))
    }

    pub(crate) fn client(&self) -> Result<Client, String> {
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut connection = connection.map_err(|error| error.to_string())?;
        // The fleet has a limit of its own.
        connection.set_buffer_limit(None);
        Ok(Client { connection, sealed: Vec::new(), sent: 0 })
    }
}

/// One client's.
#[derive(Debug)]
pub(crate) struct Client {
    connection: ClientConnection,
    /// Ciphertext to send, of which the first `sent` bytes were sent.
    sealed: Vec<u8>,
    sent: usize,
}

impl Client {
    /// Takes plain bytes, and gives all that is to be sent.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> &[u8] {
        self.connection.writer().write_all(plain).expect("memory takes everything");
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.sealed).expect("memory takes everything");
        }
        &self.sealed[self.sent..]
    }

    /// Takes what has come and puts what was in it behind `plain`. Whether there is something to be sent.
    pub(crate) fn open(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            self.connection.process_new_packets().map_err(|error| error.to_string())?;
            match self.connection.reader().read_to_end(plain) {
                // Nothing more for now, which is no end.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(self.connection.wants_write())
    }

    /// The kernel took so much. Whether more waits.
    pub(crate) fn sent(&mut self, bytes: usize) -> bool {
        self.sent += bytes;
        if self.sent == self.sealed.len() {
            (self.sealed, self.sent) = (Vec::new(), 0);
        }
        !self.sealed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::of_clients;
    use rustls::{ServerConfig, ServerConnection};

    fn certified() -> (tempfile::NamedTempFile, Arc<ServerConfig>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
        (file, Arc::new(config))
    }

    /// Sends what the client has to send, and gives back what the server answers.
    fn exchange(client: &mut Client, server: &mut ServerConnection, plain: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut flight = client.seal(plain).to_vec();
        let mut rest = &flight[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        assert!(!client.sent(flight.len()));
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        Ok(flight)
    }

    #[test]
    fn what_is_said_before_and_after_the_handshake_arrives_in_any_pieces() {
        let (ca, config) = certified();
        let endpoint = of_clients("wss://127.0.0.1:1").unwrap();
        let common = Common::new(&endpoint, Some(ca.path()), false).unwrap().unwrap();
        let (mut client, mut server) = (common.client().unwrap(), ServerConnection::new(config).unwrap());
        let (mut heard, mut plain) = (Vec::new(), &b"request"[..]);
        for _ in 0..3 {
            let answer = exchange(&mut client, &mut server, std::mem::take(&mut plain)).unwrap();
            for piece in answer.chunks(7) {
                client.open(piece, &mut heard).unwrap();
            }
        }
        let mut request = Vec::new();
        let _ = server.reader().read_to_end(&mut request);
        assert_eq!(request, b"request", "once, though it was there before the keys were");
        server.writer().write_all(b"answer").unwrap();
        let answer = exchange(&mut client, &mut server, b"").unwrap();
        for piece in answer.chunks(5) {
            assert!(!client.open(piece, &mut heard).unwrap());
        }
        assert_eq!(heard, b"answer");
    }

    #[test]
    fn another_servers_certificate_ends_it() {
        let ((ca, _), (_, config)) = (certified(), certified());
        let endpoint = of_clients("wss://127.0.0.1:1").unwrap();
        let common = Common::new(&endpoint, Some(ca.path()), false).unwrap().unwrap();
        let (mut client, mut server) = (common.client().unwrap(), ServerConnection::new(config).unwrap());
        let answer = exchange(&mut client, &mut server, b"").unwrap();
        let error = client.open(&answer, &mut Vec::new()).unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }

    #[test]
    fn a_ca_belongs_to_a_url_with_tls() {
        let (ca, _) = certified();
        let made = |url, ca| Common::new(&of_clients(url).unwrap(), ca, false).map(|common| common.is_some());
        assert_eq!(made("wss://127.0.0.1:1", Some(ca.path())), Ok(true));
        assert_eq!(made("ws://127.0.0.1:1", None), Ok(false));
        assert!(made("ws://127.0.0.1:1", Some(ca.path())).is_err() && made("wss://127.0.0.1:1", None).is_err());
    }
}
