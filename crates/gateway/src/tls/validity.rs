//! When a certificate ends (RFC 5280, 4.1.2.5). The libraries check it and do not tell it.

use std::time::Duration;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` as Unix time. `None` for what is no certificate, and for times before 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<Duration> {
    let (_, certificate, _) = item(certificate, Some(SEQUENCE))?;
    let (_, mut rest, _) = item(certificate, Some(SEQUENCE))?;
    if rest.first() == Some(&VERSION) {
        rest = item(rest, None)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = item(rest, None)?.2;
    }
    let (_, validity, _) = item(rest, Some(SEQUENCE))?;
    let (_, _, rest) = item(validity, None)?;
    let (tag, time, _) = item(rest, None)?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.bytes().all(|b| b.is_ascii_digit() || b == b'Z'))?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i64 = time.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &time[2..])
        }
        GENERALIZED_TIME => (time.get(..4)?.parse().ok()?, &time[4..]),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || rest.get(10..) != Some("Z") {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Tag, content and what follows.
fn item(bytes: &[u8], expected: Option<u8>) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if expected.is_some_and(|expected| expected != tag) {
        return None;
    }
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// Of the Gregorian calendar, with years that begin in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_in_both_forms_of_time() {
        // `date -u -d 2031-02-28 +%s` and the like; from 2050 on the other form is used.
        for ((year, month, day), expected) in [
            ((2031, 2, 28), 1_930_003_200),
            ((2028, 2, 29), 1_835_395_200),
            ((2049, 12, 31), 2_524_521_600),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, month, day);
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            assert_eq!(not_after(certificate.der()), Some(Duration::from_secs(expected)), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert;
        let der = certificate.der().to_vec();
        assert!(not_after(&der).is_some());
        for len in 0..der.len() {
            assert_eq!(not_after(&der[..len]), None, "cut at {len}");
        }
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 0xff;
            let _ = not_after(&damaged); // does not panic
        }
    }
}
