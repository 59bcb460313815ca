//! Which certificate a client gets that names its host (SNI, RFC 6066, 3).

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Certificates in the order of the config.
#[derive(Debug)]
pub(super) struct ByName {
    identities: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(identities: Vec<Arc<CertifiedKey>>) -> Self {
        Self { identities }
    }

    /// The first that is valid for the name, with stars as the client will read them; else the first of all, with which the
    /// client can tell its user what it got instead.
    fn of(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let named = name.filter(|_| self.identities.len() > 1).and_then(|name| {
            self.identities.iter().find(|identity| {
                let parsed = identity.end_entity_cert().and_then(ParsedCertificate::try_from);
                parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
            })
        });
        named.or(self.identities.first())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;

    fn identity(name: &str) -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &super::super::provider()).unwrap())
    }

    #[test]
    fn the_name_chooses_and_the_first_is_for_everybody_else() {
        let all = ["a.example", "b.example", "*.c.example"].map(identity);
        let names = ByName::new(all.to_vec());
        let table = [
            (Some("a.example"), 0),
            (Some("b.example"), 1),
            (Some("B.example"), 1),
            (Some("x.c.example"), 2),
            (Some("c.example"), 0),
            (Some("x.y.c.example"), 0),
            (Some("other.example"), 0),
            (None, 0),
        ];
        for (name, expected) in table {
            let found = names.of(name).expect("one for everybody");
            assert!(Arc::ptr_eq(found, &all[expected]), "{name:?}");
        }
    }
}
