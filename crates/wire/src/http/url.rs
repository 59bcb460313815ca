//! Queries of URLs (WHATWG URL, `application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// The decoded value of the first parameter called `name`; of `a` and of `a=` it is empty.
///
/// `None` if there is no such parameter, and also if its value is not UTF-8 once decoded: no
/// client means such a value. A `%` without two hex digits stands for itself, as in browsers.
///
/// ```
/// use wire::http::query_param;
///
/// let query = "channels=news,chat%3A1&note=a+b";
/// assert_eq!(query_param(query, "channels").as_deref(), Some("news,chat:1"));
/// assert_eq!(query_param(query, "note").as_deref(), Some("a b"));
/// assert_eq!(query_param(query, "token"), None);
/// ```
pub fn query_param<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| decode(key, true).is_some_and(|key| key == name))?;
    decode(value, true)
}

/// Decodes the percent escapes of a path. `None` if the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    decode(text, false)
}

/// Decodes percent escapes and, in queries, `+` as a space.
fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let encoded = |byte| byte == b'%' || (plus_is_space && byte == b'+');
    if !text.bytes().any(encoded) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        match (byte, rest.split_first_chunk::<2>()) {
            (b'+', _) if plus_is_space => out.push(b' '),
            (b'%', Some((&[high, low], after))) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    bytes = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The value of a hex digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_decoded_name() {
        let query = "a=1&%62=2&a=3&c&d=&=e&&f=g=h";
        let param = |name| query_param(query, name).map(Cow::into_owned);
        assert_eq!(param("a").as_deref(), Some("1"), "the first one counts");
        assert_eq!(param("b").as_deref(), Some("2"));
        assert_eq!(param("c").as_deref(), Some(""));
        assert_eq!(param("d").as_deref(), Some(""));
        assert_eq!(param("f").as_deref(), Some("g=h"));
        assert_eq!(param("g"), None);
        assert_eq!(query_param("", "a"), None);
    }

    #[test]
    fn escapes_decode_and_what_is_none_stays() {
        let cases = [
            ("plain", Some("plain")),
            ("a%20b", Some("a b")),
            ("%e4%BD%a0", Some("你")),
            ("a+b%2B", Some("a b+")),
            ("100%", Some("100%")),
            ("%4", Some("%4")),
            ("%zz%41", Some("%zzA")),
            ("%+1%41", Some("% 1A")),
            ("%ff", None),
            ("%c3", None),
            ("%00", Some("\0")),
        ];
        for (text, expected) in cases {
            let query = format!("v={text}");
            assert_eq!(query_param(&query, "v").as_deref(), expected, "{text}");
        }
        assert_eq!(percent_decode("/a+b%2f").as_deref(), Some("/a+b/"));
    }

    #[test]
    fn values_without_escapes_are_borrowed() {
        assert!(matches!(query_param("v=abc", "v"), Some(Cow::Borrowed("abc"))));
    }
}
