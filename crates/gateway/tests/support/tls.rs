//! A machine whose clients speak TLS: rustls between a scenario and the network below it.

use super::gateway::PATIENCE;
use super::machine::{Ended, Machine};
use gateway::mailbox::Mailbox;
use gateway::stats::WorkerStats;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A self-signed certificate for localhost with its key, made once per run.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

pub(crate) static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
    Identity { certificate: made.cert.der().clone(), key }
});

/// What the gateway shows.
pub(crate) fn server_config() -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let identity = &*IDENTITY;
    let config = builder
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("ring has both versions")
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key());
    Arc::new(config.expect("a key that matches"))
}

/// What its clients trust.
pub(crate) fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.certificate.clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).expect("ring has both versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Another machine, with TLS on its connections.
pub(crate) struct OverTls {
    below: Box<dyn Machine>,
    config: Arc<ClientConfig>,
    sessions: Vec<Session>,
}

struct Session {
    tls: ClientConnection,
    /// FIN is wanted behind what was written.
    fin_wanted: bool,
    /// Nothing goes out any more.
    is_cut: bool,
}

impl OverTls {
    pub(crate) fn new(below: Box<dyn Machine>) -> Self {
        Self { below, config: client_config(), sessions: Vec::new() }
    }

    /// Sends what the session wants to say.
    fn send(&mut self, client: usize) {
        let session = &mut self.sessions[client];
        if session.is_cut {
            return;
        }
        let ends = session.fin_wanted && !session.tls.is_handshaking();
        if ends {
            session.tls.send_close_notify();
        }
        let mut bytes = Vec::new();
        while session.tls.wants_write() {
            session.tls.write_tls(&mut bytes).expect("memory takes everything");
        }
        if !bytes.is_empty() {
            self.below.write(client, &bytes);
        }
        if ends {
            session.is_cut = true;
            self.below.shutdown_write(client);
        }
    }
}

impl Machine for OverTls {
    fn connect(&mut self, worker: usize) -> usize {
        let client = self.below.connect(worker);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(self.config.clone(), name).expect("a good configuration");
        // Scenarios write more than its default takes.
        tls.set_buffer_limit(None);
        assert_eq!(client, self.sessions.len());
        self.sessions.push(Session { tls, fin_wanted: false, is_cut: false });
        self.send(client);
        client
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        self.sessions[client].tls.writer().write_all(bytes).expect("there is no limit");
        self.send(client);
    }

    fn read(&mut self, client: usize) -> Vec<u8> {
        let bytes = self.below.read(client);
        let session = &mut self.sessions[client];
        let mut rest = &bytes[..];
        let mut plain = Vec::new();
        while !rest.is_empty() {
            session.tls.read_tls(&mut rest).expect("memory can be read");
            session.tls.process_new_packets().expect("the gateway speaks TLS");
            // All that there is; the error says that there is no more for now, or no close_notify yet.
            let _ = session.tls.reader().read_to_end(&mut plain);
        }
        self.send(client);
        plain
    }

    fn ended(&mut self, client: usize) -> Option<Ended> {
        let ended = self.below.ended(client)?;
        if ended == Ended::Fin {
            let told = self.sessions[client].tls.process_new_packets().is_ok_and(|state| state.peer_has_closed());
            let is_handshaking = self.sessions[client].tls.is_handshaking();
            // A worker that has ended does not wait for what its last clients take.
            let session = &self.sessions[client];
            let has_left = session.is_cut && !session.fin_wanted;
            let is_excused = is_handshaking || has_left || self.below.has_ended();
            assert!(told || is_excused, "a FIN without close_notify");
        }
        Some(ended)
    }

    fn set_reading(&mut self, client: usize, reading: bool) {
        // Who reads nothing from the beginning has no TLS to be silent on.
        let give_up = self.now() + PATIENCE;
        while !reading && self.sessions[client].tls.is_handshaking() {
            assert!(self.now() < give_up, "waited in vain for the end of a TLS handshake");
            self.step(give_up);
        }
        self.below.set_reading(client, reading);
    }

    fn shutdown_write(&mut self, client: usize) {
        self.sessions[client].fin_wanted = true;
        self.send(client);
    }

    fn reset(&mut self, client: usize) {
        self.sessions[client].is_cut = true;
        self.below.reset(client);
    }

    fn close(&mut self, client: usize) {
        self.sessions[client].is_cut = true;
        self.below.close(client);
    }

    fn step(&mut self, until: Duration) {
        self.below.step(until);
        // The handshake goes on whether or not a scenario looks at the client.
        for client in 0..self.sessions.len() {
            if self.sessions[client].tls.is_handshaking() && !self.sessions[client].is_cut {
                let early = self.read(client);
                assert!(early.is_empty(), "the gateway speaks before it was spoken to");
            }
        }
    }

    fn now(&self) -> Duration {
        self.below.now()
    }

    fn unix_origin(&self) -> Duration {
        self.below.unix_origin()
    }

    fn mailbox(&mut self) -> &mut Mailbox {
        self.below.mailbox()
    }

    fn stats(&self) -> &[Arc<WorkerStats>] {
        self.below.stats()
    }

    fn is_calm(&self) -> bool {
        self.below.is_calm()
    }

    fn freeze(&mut self, worker: usize, frozen: bool) {
        self.below.freeze(worker, frozen);
    }

    fn bodies_in_use(&self) -> usize {
        self.below.bodies_in_use()
    }

    fn local_channels(&self) -> usize {
        self.below.local_channels()
    }

    fn has_ended(&mut self) -> bool {
        self.below.has_ended()
    }
}
