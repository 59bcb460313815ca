//! `[tls]`: listeners that speak TLS, and what they show.

use super::address::Address;
use super::values::{Time, choice};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

choice! {
    /// Whether clients show certificates, too.
    ClientAuth {
        /// They are not asked.
        #[default]
        Off = "off",
        /// They are asked, and let in without one.
        Optional = "optional",
        /// The handshake of a client without one fails.
        Required = "required",
    }
}

/// `[tls]`: listeners that speak TLS, and what they show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Where clients are listened for.
    pub listen: Vec<Address>,
    /// Where backends and operators are listened for.
    pub api_listen: Vec<Address>,
    /// What is shown; the first to clients that name no host or an unknown one.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// PEM file of the authorities that vouch for clients; empty for none.
    pub client_ca: PathBuf,
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Time,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            api_listen: Vec::new(),
            certificates: Vec::new(),
            client_auth: ClientAuth::Off,
            client_ca: PathBuf::new(),
            handshake_timeout: Time::secs(10),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file of the certificate, followed by those that lead to a known authority.
    pub chain: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

impl Tls {
    /// Anything listens.
    pub fn is_used(&self) -> bool {
        !self.listen.is_empty() || !self.api_listen.is_empty()
    }
}
