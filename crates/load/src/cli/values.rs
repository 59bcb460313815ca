//! What may stand behind a flag.

use crate::dialect::Tokens;
use crate::fleet::MESSAGE_BYTES_MAX;
use std::time::Duration;

/// `500ms`, `30s`, `10m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write 500ms, 30s, 10m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write 500ms, 30s, 10m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number per second between 0.001 and 10000000".to_owned()),
    }
}

fn size(text: &str, min: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (min..=MESSAGE_BYTES_MAX / 2).contains(&size) => Ok(size),
        _ => Err(format!("between {min}, for the sequence number and the time, and {}", MESSAGE_BYTES_MAX / 2)),
    }
}

pub(super) fn echo_size(text: &str) -> Result<usize, String> {
    size(text, crate::payload::MARK_BYTES)
}

pub(super) fn publication_size(text: &str) -> Result<usize, String> {
    size(text, crate::payload::DATA_BYTES_MIN)
}

/// Names that need no escape in JSON nor in a URL, and no comma, which separates them there.
pub(super) fn channel_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 128 of A-Z a-z 0-9 - _ . :".to_owned())
    }
}

/// The lines of a file.
pub(super) fn tokens(path: &str) -> Result<Tokens, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let tokens: Tokens = text.lines().map(str::to_owned).collect();
    match tokens.iter().position(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())) {
        Some(at) => Err(format!("line {} is not a token", at + 1)),
        None if tokens.is_empty() => Err("there is no token in it".to_owned()),
        None => Ok(tokens),
    }
}

pub(super) fn api_key(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a key has only visible ASCII characters and at least one".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_bare_numbers_are_seconds() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1.5", 1_500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "5 s", "5d", "1.2.3s", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_holds_at_least_the_stamp() {
        assert_eq!(echo_size("20"), Ok(20));
        assert!(echo_size("19").is_err());
        assert_eq!(publication_size("40"), Ok(40));
        assert!(publication_size("39").is_err());
    }

    #[test]
    fn a_file_of_tokens_has_one_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            tokens(file.path().to_str().unwrap())
        };
        assert_eq!(&*read("a.b.c\nd.e.f\n").unwrap(), ["a.b.c", "d.e.f"]);
        assert_eq!(read("a.b.c\nd e.f\n").unwrap_err(), "line 2 is not a token");
        assert_eq!(read("a.b.c\n\nd.e.f").unwrap_err(), "line 2 is not a token");
        assert_eq!(read("").unwrap_err(), "there is no token in it");
        assert!(tokens("/nowhere/at/all").is_err());
    }

    #[test]
    fn channel_names_need_no_escaping() {
        assert!(channel_name("demo:load-1").is_ok());
        for name in ["", "a,b", "a b", "a\"", "a/b", "a%41"] {
            assert!(channel_name(name).is_err(), "{name}");
        }
    }
}
