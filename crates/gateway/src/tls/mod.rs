//! From the files of `[tls]` to what the listeners show. Nothing here outlives a reload: it reads all of them again.

mod names;
mod validity;

use crate::config::{CertificateFiles, ClientAuth, Tls};
use names::ByName;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite as suite;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// What is offered, the best first. Keys of 128 bits: they are out of reach as well, and cost a fifth less. No suite without
/// forward secrecy or authenticated encryption exists in the library.
const SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A certificate that ends this soon is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Everything that the listeners need, read from the files.
#[derive(Clone, Debug)]
pub struct Identities {
    /// For the public listeners.
    pub public: Arc<ServerConfig>,
    /// For those of the server API, which ask for keys and not for certificates.
    pub api: Arc<ServerConfig>,
    /// When each certificate ends.
    pub expiries: Vec<Expiry>,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The file, as configured.
    pub file: String,
    /// Unix time.
    pub not_after: Duration,
}

impl Expiry {
    /// A sentence about a certificate that has ended or will end soon.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        const DAY: u64 = 24 * 3600;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Some(past) = now.checked_sub(self.not_after) {
            return Some(format!("the certificate {} has expired {} days ago", self.file, past.as_secs() / DAY));
        }
        let left = self.not_after - now;
        (left < EXPIRES_SOON).then(|| format!("the certificate {} expires in {} days", self.file, left.as_secs() / DAY))
    }
}

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key of the config that names the file.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Tells rustls the time, for the certificates of clients and the age of tickets.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Named wherever one is needed: with two of them compiled in, the process's default would be a panic.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), ..rustls::crypto::ring::default_provider() })
}

/// Reads the files of `[tls]`. `None` where nothing listens with TLS.
///
/// # Errors
/// The first file that cannot be used.
pub fn read(tls: &Tls) -> Result<Option<Identities>, Fault> {
    if !tls.is_used() {
        return Ok(None);
    }
    let provider = provider();
    let mut identities = Vec::new();
    let mut expiries = Vec::new();
    for files in &tls.certificates {
        let identity = identity(files)?;
        let not_after = validity::not_after(&identity.cert[0]);
        expiries.extend(not_after.map(|not_after| Expiry { file: files.chain.display().to_string(), not_after }));
        identities.push(Arc::new(identity));
    }
    let names = Arc::new(ByName::new(identities));
    let verifier = client_verifier(tls, &provider)?;
    let public = server_config(&provider, verifier, names.clone())?;
    let api = server_config(&provider, WebPkiClientVerifier::no_client_auth(), names)?;
    Ok(Some(Identities { public, api, expiries }))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    names: Arc<ByName>,
) -> Result<Arc<ServerConfig>, Fault> {
    let fault = |error: rustls::Error| Fault { key: "tls", message: error.to_string(), hint: "" };
    let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(fault)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(names);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // New keys with every reload, so that no ticket outlives the authorities that its client's certificate was checked with.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(fault)?;
    config.send_tls13_tickets = 1;
    // By default sessions of clients without tickets are kept, behind a lock that the workers would share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client_verifier(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    if tls.client_auth == ClientAuth::Off {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let key = "tls.client_ca";
    let fault = |message: String, hint| Fault { key, message, hint };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca, key)? {
        let file = tls.client_ca.display();
        roots.add(certificate).map_err(|error| fault(format!("{file}: {error}"), "a PEM file of authorities"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if tls.client_auth == ClientAuth::Optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| fault(error.to_string(), ""))
}

/// A chain with its key, which belong together. What is read of the key is overwritten; what `ring` signs with is not.
fn identity(files: &CertificateFiles) -> Result<CertifiedKey, Fault> {
    let key = "tls.certificates";
    let chain = certificates(&files.chain, key)?;
    let text = std::fs::read(&files.key).map(Zeroizing::new).map_err(pem::Error::Io);
    let private =
        text.and_then(|text| PrivateKeyDer::from_pem_slice(&text).map(Zeroizing::new)).map_err(|error| Fault {
            key,
            message: pem_message(&files.key, &error, "private key"),
            hint: "a PEM file with PRIVATE KEY in its first line, which this user may read and which has no password",
        })?;
    let certified = any_supported_type(&private).map(|private| CertifiedKey::new(chain, private));
    let fits = certified.and_then(|certified| match certified.keys_match() {
        // Some kinds of keys do not say.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error),
    });
    fits.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Fault {
            key,
            message: format!("{} is not the key of {}", files.key.display(), files.chain.display()),
            hint: "the first certificate of the chain has to be the one that was made for the key",
        },
        error => Fault { key, message: format!("{}: {error}", files.chain.display()), hint: "" },
    })
}

fn certificates(file: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let fault = |message| Fault { key, message, hint: "a PEM file with BEGIN CERTIFICATE, the server's own first" };
    let chain = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| fault(pem_message(file, &error, "certificate")))?;
    if chain.is_empty() {
        return Err(fault(format!("{} holds no certificate", file.display())));
    }
    Ok(chain)
}

fn pem_message(file: &Path, error: &pem::Error, what: &str) -> String {
    let file = file.display();
    match error {
        pem::Error::Io(error) => format!("{file} cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("{file} holds no {what}"),
        error => format!("{file} is not PEM: {error}"),
    }
}
