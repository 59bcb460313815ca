//! `[token]`, with its public keys and moments.

use super::values::{Secret, Time, from_string, with_hint};
use super::webhooks::Url;
use conn::auth::token::{Key, KeyError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// `[token]`: what the tokens of clients are checked with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// Secrets shared with the backend; the first is the one that `tidegate token` signs with.
    pub hmac_secret_keys: Vec<Secret>,
    /// When all but the first of them end; empty: they do not.
    pub hmac_old_keys_until: Until,
    /// RSA public keys.
    pub rsa_public_keys: Vec<PublicKey<Rsa>>,
    /// ECDSA public keys.
    pub ecdsa_public_keys: Vec<PublicKey<Ecdsa>>,
    /// Ed25519 public keys.
    pub ed25519_public_keys: Vec<PublicKey<Ed25519>>,
    /// Where an identity provider publishes its keys.
    pub jwks_url: Url,
    /// How often they are fetched.
    pub jwks_refresh: Time,
    /// Names that a token may give its key; empty: names mean nothing.
    pub key_ids: Vec<String>,
    /// What a token's audience has to name; empty: anything.
    pub audience: String,
    /// What a token's issuer has to be; empty: anything.
    pub issuer: String,
    /// How far the backend's clock may be off.
    pub leeway: Time,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            hmac_secret_keys: Vec::new(),
            hmac_old_keys_until: Until::default(),
            rsa_public_keys: Vec::new(),
            ecdsa_public_keys: Vec::new(),
            ed25519_public_keys: Vec::new(),
            jwks_url: Url::default(),
            jwks_refresh: Time::secs(600),
            key_ids: Vec::new(),
            audience: String::new(),
            issuer: String::new(),
            leeway: Time::ZERO,
        }
    }
}

impl Token {
    /// Whether there is a key at all, here or where one is published.
    pub fn has_keys(&self) -> bool {
        let public = self.rsa_public_keys.len() + self.ecdsa_public_keys.len() + self.ed25519_public_keys.len();
        !self.hmac_secret_keys.is_empty() || public > 0 || self.jwks_url.target().is_some()
    }
}

/// A kind of public key.
pub trait Kind: Clone + PartialEq {
    /// What it is called, and how one is had.
    const EXPECTED: &str;

    /// Reads it.
    ///
    /// # Errors
    /// When it is none of this kind.
    fn read(pem: &str) -> Result<Key, KeyError>;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $read:path, $expected:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name;

        impl Kind for $name {
            const EXPECTED: &str = $expected;
            fn read(pem: &str) -> Result<Key, KeyError> {
                $read(pem)
            }
        }
    )+};
}

kinds! {
    /// RSA.
    Rsa = Key::rsa, "`openssl rsa -in KEY -pubout` prints it";
    /// ECDSA on P-256 or P-384.
    Ecdsa = Key::ecdsa, "`openssl ec -in KEY -pubout` prints it";
    /// Ed25519.
    Ed25519 = Key::ed25519, "`openssl pkey -in KEY -pubout` prints it";
}

/// A public key in PEM, as it stands in the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey<K> {
    pem: String,
    kind: PhantomData<K>,
}

impl<K: Kind> PublicKey<K> {
    /// The key.
    pub fn key(&self) -> Key {
        K::read(&self.pem).expect("read when it was made")
    }
}

impl<K: Kind> FromStr for PublicKey<K> {
    type Err = String;

    fn from_str(pem: &str) -> Result<Self, String> {
        if pem.contains("PRIVATE KEY") {
            return Err(with_hint(
                "this is a private key, which is for whoever signs tokens, and nobody else",
                K::EXPECTED,
            ));
        }
        match K::read(pem) {
            Ok(_) => Ok(Self { pem: pem.to_owned(), kind: PhantomData }),
            Err(error) => Err(with_hint(error, K::EXPECTED)),
        }
    }
}

impl<'de, K: Kind> Deserialize<'de> for PublicKey<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a public key in PEM")
    }
}

impl<K> Serialize for PublicKey<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.pem)
    }
}

/// A moment, written `"2027-01-31T23:59:59Z"`, or none, written `""`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until(Option<Duration>);

impl Until {
    /// The same as Unix time.
    pub const fn get(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let seconds = unix_seconds(text).ok_or_else(|| {
            with_hint(format_args!("{text:?} is not a moment"), "write it in UTC, such as \"2027-01-31T23:59:59Z\"")
        })?;
        Ok(Self(Some(Duration::from_secs(seconds))))
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn unix_seconds(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00Z";
    let fits = |(have, want): (&u8, &u8)| if *want == b'0' { have.is_ascii_digit() } else { have == want };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days_of = |month: u64, year: u64| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=days_of(month.clamp(1, 12), year)).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let months: u64 = (1..month).map(|month| days_of(month, year)).sum();
    Some((((years + months + day - 1) * 24 + hour) * 60 + minute) * 60 + second)
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a moment such as \"2027-01-31T23:59:59Z\", or \"\"")
    }
}

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(at) = self.0 else { return serializer.serialize_str("") };
        let (days, rest) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
        let (mut year, mut left) = (1970, days);
        while left >= 365 + u64::from(is_leap(year)) {
            left -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while left >= lengths[month] {
            left -= lengths[month];
            month += 1;
        }
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        let (month, day) = (month + 1, left + 1);
        serializer.collect_str(&format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_what_they_write() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:01Z", 951_825_601),
            ("2026-11-23T08:00:00Z", 1_795_420_800),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2027-12-31T23:59:59Z", 1_830_297_599),
        ] {
            let until: Until = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(until.get(), Some(Duration::from_secs(seconds)), "{text}");
            assert_eq!(toml::Value::try_from(until).unwrap().as_str(), Some(text));
        }
        assert_eq!("".parse::<Until>().unwrap().get(), None);
        assert_eq!(toml::Value::try_from(Until::default()).unwrap().as_str(), Some(""));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "2026-11-23",
            "2026-11-23T08:00:00",
            "2026-11-23T08:00:00+01:00",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "1969-12-31T00:00:00Z",
            "tomorrow",
            "2026-11-23T08:00:0\u{e9}",
        ] {
            assert!(text.parse::<Until>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_public_key_is_read_where_it_stands() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAw1Dzu+9Q1sT5Ni8IV/OctgK5hKen7+/Czj3fXLJv9QQ=\n-----END PUBLIC KEY-----\n";
        assert!(pem.parse::<PublicKey<Ed25519>>().is_ok());
        let error = pem.parse::<PublicKey<Rsa>>().unwrap_err();
        assert!(error.contains("not an RSA public key") && error.contains("openssl"), "{error}");
    }
}
