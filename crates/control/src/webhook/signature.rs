//! How a backend knows that a request is ours.

use hyper::header::HeaderValue;
use ring::hmac;
use std::fmt::{self, Write as _};
use zeroize::ZeroizeOnDrop;

/// Carries `t=<Unix seconds>,v1=<hex>`, with a `v1` for each key: HMAC-SHA256 of `<Unix seconds>.<body>`.
pub const SIGNATURE_HEADER: &str = "x-tidegate-signature";

/// A secret shared with the backend, overwritten when it is dropped. What `ring` makes of it is not, so that is made for each
/// signature: two blocks of SHA-256 more.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SigningKey(Box<[u8]>);

impl SigningKey {
    /// From the bytes of the secret.
    pub fn new(secret: &[u8]) -> SigningKey {
        SigningKey(secret.into())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The header's value; `None` without a key.
pub(super) fn header(keys: &[SigningKey], unix: u64, body: &[u8]) -> Option<HeaderValue> {
    if keys.is_empty() {
        return None;
    }
    let mut text = format!("t={unix}");
    for SigningKey(key) in keys {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(unix.to_string().as_bytes());
        context.update(b".");
        context.update(body);
        text.push_str(",v1=");
        for byte in context.sign().as_ref() {
            write!(text, "{byte:02x}").expect("writing into memory cannot fail");
        }
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_neither_shown_nor_left_in_memory() {
        const fn is_overwritten_when_dropped<T: ZeroizeOnDrop>() {}
        is_overwritten_when_dropped::<SigningKey>();
        assert_eq!(format!("{:?}", SigningKey::new(b"hidden")), "SigningKey(..)");
    }

    /// `printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`
    #[test]
    fn the_signature_is_what_other_programs_compute() {
        let expected = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        let key = SigningKey::new(b"secret");
        assert_eq!(header(std::slice::from_ref(&key), 1_700_000_000, br#"{"a":1}"#).unwrap(), expected);
        let both = header(&[key, SigningKey::new(b"other")], 1_700_000_000, br#"{"a":1}"#).unwrap();
        let both = both.to_str().unwrap();
        assert!(both.starts_with(expected) && both.matches("v1=").count() == 2, "{both}");
        assert_eq!(header(&[], 1, b""), None);
    }
}
