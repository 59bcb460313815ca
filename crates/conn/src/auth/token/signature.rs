//! The signatures of tokens (RFC 7518, section 3; RFC 8037), by `ring`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

/// Whether `signature` is one of `message`. The caller has checked that the key is of the algorithm's kind.
pub(super) fn is_good(key: &DecodingKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = key.try_get_as_bytes() else { return false };
    let hmac_of = |with| hmac::verify(&hmac::Key::new(with, key), message, signature).is_ok();
    let public =
        |with: &'static dyn VerificationAlgorithm| UnparsedPublicKey::new(with, key).verify(message, signature).is_ok();
    match algorithm {
        Algorithm::HS256 => hmac_of(hmac::HMAC_SHA256),
        Algorithm::HS384 => hmac_of(hmac::HMAC_SHA384),
        Algorithm::HS512 => hmac_of(hmac::HMAC_SHA512),
        Algorithm::RS256 => public(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => public(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => public(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => public(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => public(&ED25519),
        _ => false,
    }
}

/// A token with these claims, a JSON object, signed with a shared secret.
pub fn sign_hs256(secret: &[u8], claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
