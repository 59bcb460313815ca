//! What the gateway shows to whoever comes now.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::measure::{connect, exchange};

/// Whether a new connection to this address is shown exactly this certificate, and answered over it.
///
/// # Errors
/// When it is neither that nor another certificate.
pub(super) fn shows(address: &str, certificate: &Path) -> Result<bool, String> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).map_err(|error| error.to_string())?;
    roots.add(certificate).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
    let socket = connect(address).map_err(|error| format!("{address}: {error}"))?;
    let mut client = StreamOwned::new(client, socket);
    match client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") {
        // Whoever signs with another key has another certificate, though all of them have the same names.
        Err(error) if error.to_string().contains("invalid peer certificate") => return Ok(false),
        Err(error) => return Err(format!("{address}: {error}")),
        Ok(()) => {}
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).map_err(|error| format!("{address}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(true) } else { Err(format!("{address} answered {answer:?}")) }
}

/// The answer of the API to `info` with that key.
///
/// # Errors
/// When there is none.
pub(super) fn info(api: &str, key: &str) -> Result<String, String> {
    let request = format!(
        "POST /api/info HTTP/1.1\r\nHost: {api}\r\nX-API-Key: {key}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    exchange(api, &request).map_err(|error| format!("{api}: {error}"))
}
