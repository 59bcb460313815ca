//! The small types that config values are made of: times, sizes, counts, choices and secrets.
//!
//! Each is read from and written to TOML, and what it writes it also reads, so that the effective config that
//! `tidegate check` prints can be used as a config file.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Separates what is wrong from what to do about it, on the way through serde's one-string errors.
pub(super) const HINT_MARK: &str = "\u{1f}hint:";

/// A message and a hint in one string; [`super::problem::Problem`] takes them apart again.
pub(super) fn with_hint(message: impl fmt::Display, hint: impl fmt::Display) -> String {
    format!("{message}{HINT_MARK}{hint}")
}

/// Reads a value that is written as a string, with `T`'s own error message.
pub(super) fn from_string<'de, D, T>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Text<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expecting, PhantomData))
}

/// A length of time, written `"500ms"`, `"25s"`, `"5m"` or `"1h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

/// Units of [`Time`] from the largest to the smallest, in microseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

const TIME_EXPECTED: &str = "a length of time with its unit, such as \"500ms\", \"25s\", \"5m\" or \"1h\"";

impl Time {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// That many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// That many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The time as the standard library knows it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let (Ok(number), Some((_, scale))) = (number.parse::<u64>(), TIME_UNITS.iter().find(|(name, _)| *name == unit))
        else {
            return Err(with_hint(
                format_args!("{text:?} is not a length of time"),
                format_args!("write {TIME_EXPECTED}"),
            ));
        };
        match number.checked_mul(*scale) {
            Some(micros) => Ok(Self(Duration::from_micros(micros))),
            None => Err(format!("{text:?} is longer than this program can count")),
        }
    }
}

impl fmt::Display for Time {
    /// In the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        let (name, scale) = TIME_UNITS
            .iter()
            .find(|(_, scale)| micros.is_multiple_of(u128::from(*scale)))
            .expect("the last unit is 1 and divides everything");
        write!(f, "{}{name}", micros / u128::from(*scale))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, TIME_EXPECTED)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes, written `"64KiB"`, `"1MiB"` or as a plain integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(u64);

/// Units of [`Bytes`] from the largest to the smallest. Powers of 1000 are left out: `MB` means either to someone.
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const BYTES_EXPECTED: &str = "a size such as \"64KiB\", \"1MiB\", \"2GiB\" or a whole number of bytes";

impl Bytes {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many times 1024 bytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// That many times 1024 x 1024 bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

// A size read from the config is a length in memory; `get` would cut it on a smaller machine word.
const _: () = assert!(size_of::<usize>() == 8, "sizes are 64 bits wide");

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let (Ok(number), Some((_, scale))) = (number.parse::<u64>(), BYTE_UNITS.iter().find(|(name, _)| *name == unit))
        else {
            return Err(with_hint(format_args!("{text:?} is not a size"), format_args!("write {BYTES_EXPECTED}")));
        };
        number.checked_mul(*scale).map(Self).ok_or_else(|| format!("{text:?} is more than this program can count"))
    }
}

impl fmt::Display for Bytes {
    /// In the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BYTE_UNITS.iter().find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        let (name, scale) = unit.unwrap_or(&BYTE_UNITS[3]);
        write!(f, "{}{name}", self.0 / scale)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(BYTES_EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Digits in front, letters behind: `"64KiB"` is `("64", "KiB")`. One blank between them is fine.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.strip_prefix(' ').unwrap_or(unit))
}

/// A whole number that is not negative, with an error that does not name a Rust type.
pub(super) fn whole<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    struct Whole<T>(PhantomData<T>);
    impl<T: TryFrom<u64>> Visitor<'_> for Whole<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            u64::try_from(number)
                .ok()
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }
    deserializer.deserialize_any(Whole(PhantomData))
}

/// `"auto"`, or a value that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoOr<T> {
    /// Found out from the machine at start.
    #[default]
    Auto,
    /// Exactly this.
    Fixed(T),
}

/// How many.
pub type Count = AutoOr<u32>;

/// How much memory.
pub type Ceiling = AutoOr<Bytes>;

/// What may stand in the place of `"auto"`.
pub trait Settled: Sized {
    /// For the message where it is something else.
    const EXPECTED: &'static str;

    /// Written as a number.
    fn of_number(number: u64) -> Option<Self>;

    /// Written as a text, where it can be.
    ///
    /// # Errors
    /// When the text is none of these values; says why.
    fn of_text(text: &str) -> Option<Result<Self, String>>;
}

impl Settled for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn of_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }

    fn of_text(_: &str) -> Option<Result<Self, String>> {
        None
    }
}

impl Settled for Bytes {
    const EXPECTED: &'static str = BYTES_EXPECTED;

    fn of_number(number: u64) -> Option<Self> {
        Some(Bytes(number))
    }

    fn of_text(text: &str) -> Option<Result<Self, String>> {
        Some(text.parse())
    }
}

impl<'de, T: Settled> Deserialize<'de> for AutoOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<T: Settled> Visitor<'_> for Either<T> {
            type Value = AutoOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"auto\" or {}", T::EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<AutoOr<T>, E> {
                match (text, T::of_text(text)) {
                    ("auto", _) => Ok(AutoOr::Auto),
                    (_, Some(value)) => value.map(AutoOr::Fixed).map_err(E::custom),
                    (_, None) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<AutoOr<T>, E> {
                let value = u64::try_from(number).ok().and_then(T::of_number);
                value.map(AutoOr::Fixed).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: Serialize> Serialize for AutoOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(value) => value.serialize(serializer),
        }
    }
}

/// A key or password. It is printed neither by `Debug` nor by serialisation, only handed out by [`Secret::expose`], and
/// overwritten when it is dropped, so that nobody finds it in memory that is used again.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Secret(Box<str>);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// What stands in place of a secret in the effective config. It is refused as a value, so that a printed config that
/// is used as a config file cannot turn this public word into a working key.
pub const REDACTED: &str = "<redacted>";

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a header can carry it.
    pub fn fits_a_header(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl FromStr for Secret {
    type Err = String;

    /// The message never repeats the text.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == REDACTED {
            return Err(with_hint(
                "this is the word `tidegate check` prints in place of a secret",
                "put the secret itself here",
            ));
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(with_hint(
                "a secret has at least one character, and neither line breaks nor other control characters",
                "make one with `openssl rand -hex 32`",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                text.parse().map_err(E::custom)
            }
            /// A copy that the parser has made ends here.
            fn visit_string<E: Error>(self, text: String) -> Result<Secret, E> {
                Zeroizing::new(text).parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_string(Text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// An enum whose variants are words in the config.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            const WORDS: &[&str] = &[$($word),+];

            /// The word for it in the config.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::values::from_string(deserializer, "a string")
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::config::values::not_one_of(text, Self::WORDS)),
                }
            }
        }
    };
}
pub(super) use choice;

/// The error of a word that is none of `words`.
pub(super) fn not_one_of(text: &str, words: &[&str]) -> String {
    with_hint(format_args!("{text:?} is not known here"), one_of(words))
}

pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("one of {}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_what_they_write() {
        let table = [
            ("0s", 0, "0s"),
            ("500us", 500, "500us"),
            ("500ms", 500_000, "500ms"),
            ("1000ms", 1_000_000, "1s"),
            ("25s", 25_000_000, "25s"),
            ("90s", 90_000_000, "90s"),
            ("60s", 60_000_000, "1m"),
            ("60 s", 60_000_000, "1m"),
            ("2h", 7_200_000_000, "2h"),
        ];
        for (text, micros, written) in table {
            let time: Time = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(time.get(), Duration::from_micros(micros), "{text}");
            assert_eq!(time.to_string(), written);
            assert_eq!(written.parse::<Time>(), Ok(time));
        }
    }

    #[test]
    fn times_without_a_known_unit_are_refused() {
        for text in [
            "",
            "25",
            "s",
            "25S",
            "25 sec",
            "-1s",
            "1.5s",
            "25s ",
            " 25s",
            "25  s",
            "6000000000h",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_read_what_they_write() {
        let table = [
            ("0B", 0, "0B"),
            ("1B", 1, "1B"),
            ("1024B", 1024, "1KiB"),
            ("64KiB", 65_536, "64KiB"),
            ("1000KiB", 1_024_000, "1000KiB"),
            ("1024 KiB", 1 << 20, "1MiB"),
            ("2GiB", 2 << 30, "2GiB"),
        ];
        for (text, bytes, written) in table {
            let size: Bytes = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string(), written);
            assert_eq!(written.parse::<Bytes>(), Ok(size));
        }
    }

    #[test]
    fn sizes_without_a_binary_unit_are_refused() {
        for text in ["", "64", "KiB", "64KB", "64kib", "1M", "-1B", "1.5MiB", "18446744073709551615KiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_shows_itself_only_on_request() {
        let secret: Secret = "open-sesame".parse().unwrap();
        assert_eq!(secret.expose(), "open-sesame");
        const fn is_overwritten_when_dropped<T: ZeroizeOnDrop>() {}
        is_overwritten_when_dropped::<Secret>();
        assert!(secret == "open-sesame".parse().unwrap() && secret != "open-sesamf".parse().unwrap());
        assert!(!format!("{secret:?}").contains("sesame"));
        assert!(!toml::Value::try_from(&secret).unwrap().to_string().contains("sesame"));
        assert!("two words, naïve".parse::<Secret>().is_ok_and(|secret| !secret.fits_a_header()));
        assert!(secret.fits_a_header());
        for text in ["", "tab\t", "a line\n", REDACTED] {
            let error = text.parse::<Secret>().unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
