//! The keys that open the server API, and where a request may carry one.

use std::fmt;

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// One accepted key. Only its SHA-256 is kept: comparing digests takes the same time whatever the length and the first
/// wrong byte, and neither `Debug` nor a core dump shows the secret. A short key can be guessed from it, so it is overwritten
/// when it is dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct ApiKey {
    digest: [u8; 32],
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &ApiKey) -> bool {
        self.digest.ct_eq(&other.digest).into()
    }
}

impl Eq for ApiKey {}

/// Why a configured key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyError {
    /// An empty key would open the API to a request with an empty header.
    Empty,
    /// A header can carry visible ASCII only, so no request could ever present this key.
    NotVisibleAscii,
}

impl fmt::Display for ApiKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ApiKeyError::Empty => "an API key must not be empty",
            ApiKeyError::NotVisibleAscii => "an API key must be visible ASCII without spaces",
        })
    }
}

impl std::error::Error for ApiKeyError {}

impl ApiKey {
    /// Takes a key as it stands in the configuration.
    pub fn new(secret: &str) -> Result<ApiKey, ApiKeyError> {
        if secret.is_empty() {
            return Err(ApiKeyError::Empty);
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiKeyError::NotVisibleAscii);
        }
        Ok(ApiKey { digest: digest(secret.as_bytes()) })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether `presented` is one of `keys`. Looks at every key also after a match, so the time tells nothing about which.
pub(crate) fn opens(keys: &[ApiKey], presented: &[u8]) -> bool {
    let presented = digest(presented);
    let mut found = Choice::from(0);
    for key in keys {
        found |= key.digest.ct_eq(&presented);
    }
    found.into()
}

#[derive(Deserialize)]
struct KeyQuery {
    api_key: String,
}

/// The key a request carries: `X-API-Key`, else `Authorization: apikey K`, else `?api_key=K`. The first place that is
/// present decides; a wrong header is not mended by a right query.
pub(crate) fn presented(headers: &HeaderMap, uri: &Uri) -> Option<Zeroizing<Vec<u8>>> {
    if let Some(value) = headers.get("x-api-key") {
        return Some(value.as_bytes().to_vec().into());
    }
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("apikey").then(|| key.trim().as_bytes().to_vec().into());
    }
    let Query(query) = Query::<KeyQuery>::try_from_uri(uri).ok()?;
    Some(query.api_key.into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(name: &'static str, value: &'static str, uri: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(name, value.parse().unwrap());
        }
        presented(&headers, &Uri::from_static(uri)).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn any_of_several_keys_opens_and_a_neighbour_does_not() {
        let keys = [ApiKey::new("old-key").unwrap(), ApiKey::new("new-key").unwrap()];
        assert!(opens(&keys, b"old-key"));
        assert!(opens(&keys, b"new-key"));
        for wrong in [&b"new-kez"[..], b"new-ke", b"new-key ", b""] {
            assert!(!opens(&keys, wrong), "{wrong:?}");
        }
        assert!(!opens(&[], b"new-key"), "no key configured opens nothing");
    }

    #[test]
    fn a_key_is_found_in_each_of_its_three_places() {
        assert_eq!(carried("x-api-key", "k1", "/api").as_deref(), Some("k1"));
        assert_eq!(carried("authorization", "apikey k1", "/api").as_deref(), Some("k1"));
        assert_eq!(carried("authorization", "ApiKey k1", "/api").as_deref(), Some("k1"));
        assert_eq!(carried("", "", "/api?api_key=k%2B1").as_deref(), Some("k+1"));
        assert_eq!(carried("authorization", "Bearer k1", "/api"), None);
        assert_eq!(carried("", "", "/api?apikey=k1"), None);
        assert_eq!(carried("", "", "/api?api_key=a&api_key=b"), None, "two keys are no key");
    }

    #[test]
    fn a_wrong_header_is_not_mended_by_a_right_query() {
        assert_eq!(carried("x-api-key", "wrong", "/api?api_key=right").as_deref(), Some("wrong"));
    }

    #[test]
    fn unusable_keys_are_refused_and_debug_hides_the_rest() {
        assert_eq!(ApiKey::new(""), Err(ApiKeyError::Empty));
        assert_eq!(ApiKey::new("a b"), Err(ApiKeyError::NotVisibleAscii));
        assert_eq!(ApiKey::new("schlüssel"), Err(ApiKeyError::NotVisibleAscii));
        assert_eq!(format!("{:?}", ApiKey::new("secret").unwrap()), "ApiKey(..)");
        const fn is_overwritten_when_dropped<T: ZeroizeOnDrop>() {}
        is_overwritten_when_dropped::<ApiKey>();
    }
}
