//! Tokens (RFC 7519): what a client's backend says about it, signed.
//!
//! Which algorithms count follows from the keys that are configured, never from the token alone: an HMAC secret checks
//! `HS…`, an RSA key `RS…`, an ECDSA key the one algorithm of its curve, an Ed25519 key `EdDSA`. A key is never tried on an
//! algorithm of another kind, so a public key cannot be passed off as an HMAC secret, and `none` is no algorithm.
//!
//! The crate `jsonwebtoken` reads headers and PEM and overwrites keys when they are dropped; the signatures are checked by
//! `ring`, which TLS uses as well. The crate's own backends would bring a second C library or a second set of curves. Neither
//! knows P-521, hence no `ES512`. The crate would also ask the system's clock, so the times are compared here, where `now`
//! is an argument.
//!
//! Beside keys from the configuration there may be published ones ([`published_keys`]). Of these a token that names its key is
//! checked with that one alone.

mod claims;
mod published;
mod signature;
#[cfg(test)]
mod tests;

pub use published::{PUBLISHED_MAX, published_keys};
pub use signature::sign_hs256;

pub use claims::{Changed, ConnectionClaims, Json, Lasts, ServerSide, SubscriptionClaims};
pub(crate) use claims::{NotJson, RawChanged, RawServerSide, json, one_line, server_side};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::Registered;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, decode_header};
use serde::de::DeserializeOwned;
use std::time::Duration;
use zeroize::ZeroizeOnDrop;

/// Bytes of a token; a longer one is invalid before anything of it is read.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;

/// Keys that one token may be tried with.
pub const KEYS_MAX: usize = 16;

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// `exp` has passed, or `nbf` is still to come: error 109, upon which clients fetch a new one.
    Expired,
    /// It names a key that is not among those published, as far as they are known: they may have changed. Error 100, upon
    /// which clients try again.
    KeyUnknown,
    /// Anything else, for the log.
    Invalid(&'static str),
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(&'static str);

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

/// What one signature is checked with. `Debug` shows nothing of it, and its memory is overwritten when it is dropped.
#[derive(Clone, Debug)]
pub struct Key {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
    /// Unix time from which it does not count any more.
    until: Option<Duration>,
    /// What tokens call it, of a published one.
    id: Option<String>,
}

// Compiles only as long as the library does so.
const _: () = {
    const fn is_overwritten_when_dropped<T: ZeroizeOnDrop>() {}
    is_overwritten_when_dropped::<DecodingKey>();
};

impl Key {
    /// A secret shared with the backend.
    pub fn hmac(secret: &[u8]) -> Self {
        const ALGORITHMS: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Self::new(DecodingKey::from_secret(secret), ALGORITHMS)
    }

    /// The same, which does not count any more from that Unix time on: what is being replaced.
    pub fn until(self, end: Duration) -> Self {
        Self { until: Some(end), ..self }
    }

    /// An RSA public key of 2048 to 8192 bits in PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn rsa(pem: &str) -> Result<Self, KeyError> {
        let key = DecodingKey::from_rsa_pem(pem.as_bytes());
        Self::from_rsa(key.map_err(|_| KeyError("this is not an RSA public key in PEM"))?)
    }

    fn from_rsa(key: DecodingKey) -> Result<Self, KeyError> {
        const ALGORITHMS: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
        // The modulus is nearly all of it.
        let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        if !(256..=1100).contains(&bytes) {
            return Err(KeyError("an RSA key has 2048 to 8192 bits"));
        }
        Ok(Self::new(key, ALGORITHMS))
    }

    /// An ECDSA public key of the curve P-256 or P-384 in PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn ecdsa(pem: &str) -> Result<Self, KeyError> {
        let key = DecodingKey::from_ec_pem(pem.as_bytes());
        Self::from_ecdsa(key.map_err(|_| KeyError("this is not an ECDSA public key in PEM"))?)
    }

    fn from_ecdsa(key: DecodingKey) -> Result<Self, KeyError> {
        // An uncompressed point: a byte and two coordinates.
        let algorithms: &[Algorithm] = match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
            65 => &[Algorithm::ES256],
            97 => &[Algorithm::ES384],
            _ => return Err(KeyError("the curve of an ECDSA key is P-256 or P-384")),
        };
        Ok(Self::new(key, algorithms))
    }

    /// An Ed25519 public key in PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn ed25519(pem: &str) -> Result<Self, KeyError> {
        let key = DecodingKey::from_ed_pem(pem.as_bytes());
        Self::from_ed25519(key.map_err(|_| KeyError("this is not an Ed25519 public key in PEM"))?)
    }

    fn from_ed25519(key: DecodingKey) -> Result<Self, KeyError> {
        if key.try_get_as_bytes().map_or(0, <[u8]>::len) != 32 {
            return Err(KeyError("this is not an Ed25519 public key in PEM"));
        }
        Ok(Self::new(key, &[Algorithm::EdDSA]))
    }

    fn new(key: DecodingKey, algorithms: &'static [Algorithm]) -> Self {
        Self { key, algorithms, until: None, id: None }
    }

    fn named(self, id: Option<String>) -> Self {
        Self { id, ..self }
    }

    /// The same for that one of its algorithms; `None`: it is not one of its.
    fn only_for(self, algorithm: Option<&str>) -> Option<Self> {
        let Some(algorithm) = algorithm else { return Some(self) };
        let algorithm = algorithm.parse().ok()?;
        let at = self.algorithms.iter().position(|own| *own == algorithm)?;
        Some(Self { algorithms: &self.algorithms[at..=at], ..self })
    }

    fn counts_for(&self, algorithm: Algorithm, unix: Duration) -> bool {
        self.algorithms.contains(&algorithm) && self.until.is_none_or(|end| unix < end)
    }
}

/// Everything that tokens are checked with.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Tried one after the other; at most [`KEYS_MAX`].
    pub keys: Vec<Key>,
    /// The same, published by an identity provider, as far as they are known; `None`: nobody publishes any.
    pub published: Option<Vec<Key>>,
    /// A token that names its key (`kid`) has to name one of these; with none names mean nothing.
    pub key_ids: Vec<String>,
    /// What `aud` has to name, if anything.
    pub audience: Option<String>,
    /// What `iss` has to be, if anything.
    pub issuer: Option<String>,
    /// How far the backend's clock may be off.
    pub leeway: Duration,
}

impl Tokens {
    /// Whether there is a key at all.
    pub fn can_verify(&self) -> bool {
        !self.keys.is_empty() || self.published.is_some()
    }

    /// How dear the signature of this token is to check, in units of an HMAC; at most [`COST_MAX`]. A token that needs no
    /// check to be refused costs as much as an HMAC.
    pub fn cost(&self, token: &str) -> u32 {
        let header = if token.len() > TOKEN_BYTES_MAX { None } else { decode_header(token).ok() };
        let Some(header) = header else { return 1 };
        let each = if header.alg.family() == AlgorithmFamily::Hmac { 1 } else { ASYMMETRIC_COST };
        let tries = self.candidates(&header).filter(|key| key.algorithms.contains(&header.alg)).take(KEYS_MAX).count();
        (each * tries as u32).clamp(1, COST_MAX)
    }

    /// The keys that a token of this header may have been signed with.
    fn candidates<'t>(&'t self, header: &'t Header) -> impl Iterator<Item = &'t Key> {
        let id = header.kid.as_deref();
        let is_meant = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.keys.iter().chain(self.published.iter().flatten().filter(is_meant))
    }

    /// Whether a key that is published meanwhile may be what a token was signed with.
    fn awaits_key(&self, header: &Header) -> bool {
        self.published.as_ref().is_some_and(|known| match &header.kid {
            Some(id) => !known.iter().any(|key| key.id.as_ref() == Some(id)),
            None => known.is_empty(),
        })
    }

    /// Checks a connection token at this Unix time.
    ///
    /// # Errors
    /// When it does not count.
    pub fn connection(&self, token: &str, unix: Duration) -> Result<ConnectionClaims, TokenError> {
        let (registered, claims) = self.verify(token, unix)?;
        ConnectionClaims::read(registered, claims)
    }

    /// Checks a subscription token at this Unix time. Whose it is and for which channel is the caller's to compare.
    ///
    /// # Errors
    /// When it does not count.
    pub fn subscription(&self, token: &str, unix: Duration) -> Result<SubscriptionClaims, TokenError> {
        let (registered, claims) = self.verify(token, unix)?;
        SubscriptionClaims::read(registered, claims)
    }

    /// The claims of a token whose signature and registered claims are good.
    fn verify<C: DeserializeOwned>(&self, token: &str, unix: Duration) -> Result<(Registered, C), TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let header = decode_header(token).map_err(|_| TokenError::Invalid("its header is not one"))?;
        // What a header calls critical changes its meaning (RFC 7515, 4.1.11), and we know none of that.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Invalid("its header needs an extension"));
        }
        let unknown = |why| if self.awaits_key(&header) { TokenError::KeyUnknown } else { TokenError::Invalid(why) };
        if let Some(id) = &header.kid
            && !self.key_ids.is_empty()
            && !self.key_ids.contains(id)
            && !self.published.iter().flatten().any(|key| key.id.as_ref() == Some(id))
        {
            return Err(unknown("its key id is not known"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid("it has no signature"))?;
        let (_, payload) = message.split_once('.').ok_or(TokenError::Invalid("it has no claims"))?;
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_| TokenError::Invalid("its signature is not base64"))?;
        let keys = self.candidates(&header).filter(|key| key.counts_for(header.alg, unix));
        let mut keys = keys.take(KEYS_MAX).peekable();
        if keys.peek().is_none() {
            return Err(unknown("there is no key for its algorithm"));
        }
        if !keys.any(|key| signature::is_good(&key.key, header.alg, message.as_bytes(), &signature)) {
            return Err(unknown("its signature is wrong"));
        }
        let payload = URL_SAFE_NO_PAD.decode(payload);
        let payload = payload.map_err(|_| TokenError::Invalid("its claims are not base64"))?;
        let malformed = |_| TokenError::Invalid("its claims are not what they should be");
        let registered: Registered = serde_json::from_slice(&payload).map_err(malformed)?;
        registered.check(self, unix)?;
        Ok((registered, serde_json::from_slice(&payload).map_err(malformed)?))
    }
}

/// What the signature of a public key costs more than an HMAC: 30 to 150 µs against 1 to 2.
pub const ASYMMETRIC_COST: u32 = 32;

/// What one token costs at most.
pub const COST_MAX: u32 = ASYMMETRIC_COST * KEYS_MAX as u32;
