//! What a backend signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

/// The secret that gateways with tokens know.
pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// What OpenSSL signed for user 42, without an end, and the key that it is checked with.
pub(crate) const ES256: &str = include_str!("../../../conn/src/auth/token/fixtures/es256.jwt");
pub(crate) const P256: &str = include_str!("../../../conn/src/auth/token/fixtures/p256.pem");

/// A token with these claims.
pub(crate) fn token(claims: &Value) -> String {
    signed_with(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// The same with another secret, or another header.
pub(crate) fn signed_with(secret: &str, header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}
