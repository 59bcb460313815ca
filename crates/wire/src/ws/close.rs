//! Close codes and the payload of close frames (RFC 6455, 5.5.1 and 7.4).

use super::FrameError;
use std::fmt;

/// Why a connection is closed (7.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server goes down, or the browser leaves the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the framing rules.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// A kind of data we do not take.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Payload that does not fit its kind, such as a text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// The message breaks our policy.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// The message is larger than we take.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// We met a condition we did not expect.
    pub const INTERNAL: CloseCode = CloseCode(1011);

    /// Any number; see [`CloseCode::is_valid_on_wire`].
    pub const fn new(code: u16) -> CloseCode {
        CloseCode(code)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a close frame may carry this code.
    ///
    /// 1004 has no meaning, 1005, 1006 and 1015 only exist in APIs (7.4.1); 1012 to 1014 were
    /// registered later; 3000 to 3999 are for libraries, 4000 to 4999 for applications (7.4.2).
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the (unmasked) payload of a close frame.
pub(super) fn parse(payload: &[u8]) -> Result<(Option<CloseCode>, &str), FrameError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(FrameError::CloseCodeCut),
        };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_valid_on_wire() {
        return Err(FrameError::CloseCode(code));
    }
    match str::from_utf8(reason) {
        Ok(reason) => Ok((Some(code), reason)),
        Err(_) => Err(FrameError::CloseReasonUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registered_and_private_codes_are_valid_on_the_wire() {
        let ranges = [(1000, 1003), (1007, 1014), (3000, 4999)];
        for code in 0..=u16::MAX {
            let expected = ranges.iter().any(|&(low, high)| (low..=high).contains(&code));
            assert_eq!(CloseCode::new(code).is_valid_on_wire(), expected, "{code}");
        }
    }

    #[test]
    fn payload_is_empty_or_a_code_and_a_reason() {
        assert_eq!(parse(b""), Ok((None, "")));
        assert_eq!(parse(b"\x03"), Err(FrameError::CloseCodeCut));
        assert_eq!(parse(b"\x03\xe8"), Ok((Some(CloseCode::NORMAL), "")));
        assert_eq!(parse(b"\x03\xe8bye"), Ok((Some(CloseCode::NORMAL), "bye")));
        assert_eq!(parse(b"\x03\xe7bye"), Err(FrameError::CloseCode(CloseCode::new(999))));
        assert_eq!(parse(b"\x03\xe8\xc3\xa4"), Ok((Some(CloseCode::NORMAL), "ä")));
        assert_eq!(parse(b"\x03\xe8\xc3"), Err(FrameError::CloseReasonUtf8));
    }
}
