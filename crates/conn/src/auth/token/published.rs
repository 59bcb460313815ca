//! Public keys that an identity provider publishes: a JSON Web Key Set (RFC 7517).
//!
//! Only what there is an algorithm for here is taken: RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519, for signatures. Anything
//! else in a set is passed over, so that one key more, of a kind that is new, does not take away those that are in use. Secrets
//! (`oct`) are never taken: whoever can read the set could sign with them.

use super::{Key, KeyError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// Keys of a set; the rest is passed over.
pub const PUBLISHED_MAX: usize = 64;

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can be used here, in its order.
///
/// # Errors
/// When it is no set, or holds none.
pub fn published_keys(json: &[u8]) -> Result<Vec<Key>, KeyError> {
    let set: Set = serde_json::from_slice(json).map_err(|_| KeyError("this is not a JSON Web Key Set"))?;
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key());
    let keys: Vec<Key> = keys.take(PUBLISHED_MAX).collect();
    if keys.is_empty() { Err(KeyError("the set holds no key that can be used here")) } else { Ok(keys) }
}

impl Jwk {
    fn key(self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let key = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                Key::from_rsa(DecodingKey::from_rsa_der(&rsa_der(&bytes(&self.n)?, &bytes(&self.e)?))).ok()?
            }
            ("EC", Some(curve)) => {
                let width = if curve == "P-256" { 32 } else { 48 };
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                if !matches!(curve, "P-256" | "P-384") || x.len() != width || y.len() != width {
                    return None;
                }
                // An uncompressed point (SEC 1, 2.3.3).
                Key::from_ecdsa(DecodingKey::from_ec_der(&[&[4], &x[..], &y].concat())).ok()?
            }
            ("OKP", Some("Ed25519")) => Key::from_ed25519(DecodingKey::from_ed_der(&bytes(&self.x)?)).ok()?,
            _ => return None,
        };
        // A set may say that a key is for one of its algorithms only.
        key.named(self.kid).only_for(self.alg.as_deref())
    }
}

/// `RSAPublicKey` (RFC 8017, A.1.1) of two unsigned numbers.
fn rsa_der(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let (mut body, mut der) = (Vec::new(), Vec::new());
    put_integer(&mut body, modulus);
    put_integer(&mut body, exponent);
    put_header(&mut der, 0x30, body.len());
    der.extend_from_slice(&body);
    der
}

fn put_integer(out: &mut Vec<u8>, number: &[u8]) {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    // A leading bit of 1 would make it negative, and 0 has a byte.
    let pad = digits.first().is_none_or(|first| first & 0x80 != 0);
    put_header(out, 0x02, digits.len() + usize::from(pad));
    out.extend(pad.then_some(0));
    out.extend_from_slice(digits);
}

fn put_header(out: &mut Vec<u8>, tag: u8, len: usize) {
    out.push(tag);
    if len < 0x80 {
        return out.push(len as u8);
    }
    let bytes = len.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    out.push(0x80 | bytes.len() as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, PUBLIC};
    use super::super::{TokenError, Tokens};
    use super::*;
    use serde_json::{Value, json};

    const RSA: &str = include_str!("fixtures/rsa.jwk");
    const P256: &str = include_str!("fixtures/p256.jwk");
    const P384: &str = include_str!("fixtures/p384.jwk");
    const ED25519: &str = include_str!("fixtures/ed25519.jwk");

    fn jwk(text: &str) -> Value {
        serde_json::from_str(text).expect("a key")
    }

    fn with(text: &str, name: &str, value: Value) -> Value {
        let mut key = jwk(text);
        key[name] = value;
        key
    }

    fn read(keys: &[Value]) -> Result<Vec<Key>, KeyError> {
        published_keys(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn tokens(keys: &[Value]) -> Tokens {
        Tokens { published: Some(read(keys).expect("a set")), ..Tokens::default() }
    }

    #[test]
    fn published_keys_check_what_those_in_files_check() {
        let all = tokens(&[RSA, P256, P384, ED25519].map(jwk));
        for (algorithm, _, token) in PUBLIC {
            let user = all.connection(token.trim(), NOW).map(|claims| claims.user);
            assert_eq!(user.as_deref(), Ok("42"), "{algorithm}");
        }
        // Each by its own alone.
        for (one, fits) in [(RSA, "RS"), (P256, "ES256"), (P384, "ES384"), (ED25519, "Ed")] {
            let one = tokens(&[jwk(one)]);
            for (algorithm, _, token) in PUBLIC {
                assert_eq!(one.connection(token.trim(), NOW).is_ok(), algorithm.starts_with(fits), "{algorithm}");
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        let good = jwk(P256);
        for (bad, twin) in [
            (with(P256, "use", json!("enc")), with(P256, "use", json!("sig"))),
            (with(P256, "alg", json!("ES384")), with(P256, "alg", json!("ES256"))),
            (with(P256, "kty", json!("oct")), good.clone()),
            (with(P256, "crv", json!("P-521")), good.clone()),
            (with(P256, "x", json!("AAAA")), good.clone()),
            (with(P256, "y", json!(7)), good.clone()),
            (with(RSA, "n", json!("AQAB")), jwk(RSA)),
            (with(ED25519, "x", json!("AAAA")), jwk(ED25519)),
            (json!({"kty": "oct", "k": "c2VjcmV0"}), good.clone()),
            (json!("text"), good.clone()),
        ] {
            assert!(read(std::slice::from_ref(&bad)).is_err(), "{bad}");
            assert_eq!(read(&[bad, twin.clone()]).map(|keys| keys.len()), Ok(1), "{twin}");
        }
        assert!(published_keys(b"{}").is_err() && published_keys(b"[]").is_err() && published_keys(b"").is_err());
        assert_eq!(read(&vec![good; 100]).map(|keys| keys.len()), Ok(PUBLISHED_MAX));
    }

    #[test]
    fn a_token_that_names_its_key_is_checked_with_that_one() {
        // The fixtures name none, so the names of the keys do not matter to them.
        let named = [with(P256, "kid", json!("a")), with(P384, "kid", json!("b"))];
        let token = PUBLIC[3].2.trim();
        assert!(tokens(&named).connection(token, NOW).is_ok());
        let (_, rest) = token.split_once('.').expect("a token");
        let naming = |kid: &str| {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": kid}).to_string());
            format!("{header}.{rest}")
        };
        // Its signature is of another header.
        assert!(matches!(tokens(&named).connection(&naming("a"), NOW), Err(TokenError::Invalid(_))));
        assert_eq!(tokens(&named).connection(&naming("c"), NOW), Err(TokenError::KeyUnknown));
        let none_yet = Tokens { published: Some(Vec::new()), ..Tokens::default() };
        assert_eq!(none_yet.connection(token, NOW), Err(TokenError::KeyUnknown));
        assert!(matches!(Tokens::default().connection(token, NOW), Err(TokenError::Invalid(_))));
        assert_eq!(
            (tokens(&named).cost(&naming("a")), tokens(&named).cost(&naming("c"))),
            (super::super::ASYMMETRIC_COST, 1)
        );
    }

    #[test]
    fn numbers_are_written_as_openssl_reads_them() {
        assert_eq!(rsa_der(&[0, 0x80], &[1]), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]);
        assert_eq!(rsa_der(&[0], &[0x7f]), [0x30, 6, 2, 1, 0, 2, 1, 0x7f]);
        let long = rsa_der(&[0x7f; 300], &[1]);
        assert_eq!(long[..8], [0x30, 0x82, 1, 0x33, 2, 0x82, 1, 0x2c]);
    }
}
