//! What a simulated client writes to and reads from: the network, or TLS above it.
//!
//! rustls draws randomness that no seed gives, so nothing of it may change a length: the certificate is an Ed25519 one,
//! whose signatures are all as long as the next. So a seed replays over TLS, too.

use io::sim::{Client, ClosedBy};
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::cell::{Cell, RefCell};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Clear,
    Tls,
}

/// What one world's gateway shows, and its clients trust. Sessions are resumed within a world alone, as another seed's must
/// not be.
#[derive(Clone, Debug)]
pub struct Tls {
    pub server: Arc<ServerConfig>,
    /// One for each version.
    clients: [Arc<ClientConfig>; 2],
}

impl Tls {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let provider: Arc<CryptoProvider> = Arc::new(default_provider());
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&VERSIONS)
            .expect("ring has both")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private)
            .expect("a key that matches");
        server.ticketer = rustls::crypto::ring::Ticketer::new().expect("keys");
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let clients = VERSIONS.map(|version| {
            let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]);
            Arc::new(builder.expect("ring has it").with_root_certificates(roots.clone()).with_no_client_auth())
        });
        Self { server: Arc::new(server), clients }
    }
}

#[derive(Debug)]
pub struct Line {
    client: Client,
    tls: Option<RefCell<Sealed>>,
    is_reading: Cell<bool>,
}

#[derive(Debug)]
struct Sealed {
    session: ClientConnection,
    /// Nothing goes out any more.
    is_shut: bool,
    /// Nor does anything have to come.
    is_cut: bool,
    has_read: bool,
    /// Some of what was opened is lost, and nobody notices.
    loses: Option<fastrand::Rng>,
}

impl Line {
    pub fn plain(client: Client) -> Self {
        Self { client, tls: None, is_reading: Cell::new(true) }
    }

    pub fn sealed(client: Client, tls: &Tls, random: &mut fastrand::Rng) -> Self {
        let config = tls.clients[random.usize(..tls.clients.len())].clone();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(config, name).expect("a good configuration");
        session.set_buffer_limit(None);
        let sealed = Sealed { session, is_shut: false, is_cut: false, has_read: false, loses: None };
        let line = Self { tls: Some(RefCell::new(sealed)), ..Self::plain(client) };
        line.send();
        line
    }

    /// From now on some of what comes is lost, once it was opened.
    pub fn lose_some(&self, seed: u64) {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().loses = Some(fastrand::Rng::with_seed(seed));
        }
    }

    /// What the session wants to say.
    fn send(&self) {
        let Some(tls) = &self.tls else { return };
        let mut tls = tls.borrow_mut();
        let mut bytes = Vec::new();
        while tls.session.wants_write() {
            tls.session.write_tls(&mut bytes).expect("memory takes everything");
        }
        if !tls.is_shut {
            self.client.write(&bytes);
        }
    }

    pub fn write(&self, bytes: &[u8]) {
        match &self.tls {
            None => drop(self.client.write(bytes)),
            Some(tls) => {
                tls.borrow_mut().session.writer().write_all(bytes).expect("there is no limit");
                self.send();
            }
        }
    }

    /// All that was read since the last call; a finding where it was no TLS, or ended as TLS may not.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let bytes = self.client.read();
        let Some(tls) = &self.tls else { return Ok(bytes) };
        let mut plain = Vec::new();
        {
            let mut tls = tls.borrow_mut();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                tls.session.read_tls(&mut rest).map_err(|error| format!("TLS cannot be read: {error}"))?;
                tls.session.process_new_packets().map_err(|error| format!("bad TLS: {error}"))?;
                let before = plain.len();
                // The error says that there is no more for now.
                let _ = tls.session.reader().read_to_end(&mut plain);
                // The first of it is the answer to the handshake.
                let is_first = plain.len() > before && !std::mem::replace(&mut tls.has_read, true);
                if !is_first && tls.loses.as_mut().is_some_and(|random| random.u32(..40) == 0) {
                    plain.truncate(before);
                }
            }
            let state = tls.session.process_new_packets().map_err(|error| format!("bad TLS: {error}"))?;
            let has_ended = self.client.is_closed() == Some(ClosedBy::Fin) && self.is_reading.get();
            // It may have given up a handshake that is over at this end alone.
            let is_excused = tls.is_cut || !tls.has_read;
            if has_ended && !is_excused && !state.peer_has_closed() {
                return Err("a FIN without close_notify".into());
            }
        }
        self.send();
        Ok(plain)
    }

    pub fn set_reading(&self, reading: bool) {
        self.is_reading.set(reading);
        self.client.set_reading(reading);
    }

    pub fn set_window(&self, bytes: usize) {
        self.client.set_window(bytes);
    }

    pub fn shutdown_write(&self) {
        if let Some(tls) = &self.tls {
            let is_handshaking = tls.borrow().session.is_handshaking();
            if !is_handshaking {
                tls.borrow_mut().session.send_close_notify();
            }
            self.send();
            let mut tls = tls.borrow_mut();
            // Who leaves in the handshake cannot be told anything.
            tls.is_shut = true;
            tls.is_cut |= is_handshaking;
        }
        self.client.shutdown_write();
    }

    pub fn close(&self) {
        self.cut_off();
        self.client.close();
    }

    pub fn reset(&self) {
        self.cut_off();
        self.client.reset();
    }

    pub fn cut(&self) {
        self.cut_off();
        self.client.cut();
    }

    fn cut_off(&self) {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            (tls.is_shut, tls.is_cut) = (true, true);
        }
    }

    pub fn is_closed(&self) -> Option<ClosedBy> {
        self.client.is_closed()
    }
}
