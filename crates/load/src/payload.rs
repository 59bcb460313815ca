//! What a payload carries: who sent it, its number, and when it was to be sent.
//!
//! Fixed fields of lower-case hex digits, so that writing and reading one costs a few nanoseconds, and it is the same text in
//! JSON, in a URL and on a screen. Dots fill it up to the size asked for, and are checked too.
//!
//! ```text
//! echo     |sequence 8|time 12|....
//! fan-out "|run 8|publisher 4|channel 6|sequence 8|time 12|...."      a JSON string, quotes included in the size
//! ```

use std::time::Duration;

/// Bytes of a [`Mark`].
pub(crate) const MARK_BYTES: usize = 20;
/// Bytes of an [`Origin`].
const ORIGIN_BYTES: usize = 18;
/// The smallest data of a publication: both and two quotes.
pub(crate) const DATA_BYTES_MIN: usize = ORIGIN_BYTES + MARK_BYTES + 2;

const FILL: u8 = b'.';

/// Twelve hex digits of nanoseconds are 78 hours.
const TIME_MASK: u64 = (1 << 48) - 1;

/// A message's number and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// From 1, without gaps, per sender (and channel).
    pub(crate) sequence: u32,
    /// When it was to be sent, since the clock's origin. Later than this only because somebody was slow.
    pub(crate) at: Duration,
}

/// Where a publication comes from and where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// Different in every run, so that a publication of somebody else is not taken for ours.
    pub(crate) run: u32,
    /// Which publisher.
    pub(crate) publisher: u16,
    /// Which of the shared channels.
    pub(crate) channel: u32,
}

/// Appends an echo message of `size` bytes.
pub(crate) fn write_echo(out: &mut Vec<u8>, mark: Mark, size: usize) {
    let end = out.len() + size;
    write_mark(out, mark);
    out.resize(end.max(out.len()), FILL);
}

/// The inverse of [`write_echo`]; `None` if it is not exactly such a message.
pub(crate) fn read_echo(bytes: &[u8], size: usize) -> Option<Mark> {
    let (mark, fill) = bytes.split_at_checked(MARK_BYTES)?;
    (bytes.len() == size && is_fill(fill)).then(|| read_mark(mark))?
}

/// Appends a publication's data of `size` bytes.
pub(crate) fn write_data(out: &mut Vec<u8>, origin: Origin, mark: Mark, size: usize) {
    let end = out.len() + size;
    out.push(b'"');
    write_hex(out, u64::from(origin.run), 8);
    write_hex(out, u64::from(origin.publisher), 4);
    write_hex(out, u64::from(origin.channel), 6);
    write_mark(out, mark);
    out.resize((end - 1).max(out.len()), FILL);
    out.push(b'"');
}

/// The inverse of [`write_data`]; `None` if it is not exactly such data.
pub(crate) fn read_data(bytes: &[u8], size: usize) -> Option<(Origin, Mark)> {
    let text = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (origin, rest) = text.split_at_checked(ORIGIN_BYTES)?;
    let (mark, fill) = rest.split_at_checked(MARK_BYTES)?;
    if bytes.len() != size || !is_fill(fill) {
        return None;
    }
    let origin = Origin {
        run: read_hex(&origin[..8])? as u32,
        publisher: read_hex(&origin[8..12])? as u16,
        channel: read_hex(&origin[12..])? as u32,
    };
    Some((origin, read_mark(mark)?))
}

fn is_fill(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == FILL)
}

fn write_mark(out: &mut Vec<u8>, mark: Mark) {
    write_hex(out, u64::from(mark.sequence), 8);
    write_hex(out, mark.at.as_nanos() as u64 & TIME_MASK, 12);
}

fn read_mark(bytes: &[u8]) -> Option<Mark> {
    let sequence = read_hex(&bytes[..8])? as u32;
    Some(Mark { sequence, at: Duration::from_nanos(read_hex(&bytes[8..])?) })
}

fn write_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    for &digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { sequence: 0xdead_beef, at: Duration::from_nanos(TIME_MASK - 1) };
    const ORIGIN: Origin = Origin { run: 0x1234_5678, publisher: 255, channel: 0xff_fffe };

    #[test]
    fn what_was_written_is_read_at_any_size() {
        for size in [MARK_BYTES, MARK_BYTES + 1, 4096] {
            let mut out = Vec::new();
            write_echo(&mut out, MARK, size);
            assert_eq!((out.len(), read_echo(&out, size)), (size, Some(MARK)));
        }
        for size in [DATA_BYTES_MIN, DATA_BYTES_MIN + 1, 4096] {
            let mut out = Vec::new();
            write_data(&mut out, ORIGIN, MARK, size);
            assert_eq!((out.len(), read_data(&out, size)), (size, Some((ORIGIN, MARK))));
            assert!(serde_json::from_slice::<String>(&out).is_ok(), "it is JSON");
        }
    }

    #[test]
    fn one_wrong_byte_is_noticed() {
        let mut good = Vec::new();
        write_data(&mut good, ORIGIN, MARK, 64);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = b'z';
            assert_eq!(read_data(&bad, 64), None, "byte {at}");
        }
        assert_eq!(read_data(&good, 65), None);
        assert_eq!(read_data(&good[..39], 39), None);
        assert_eq!(read_echo(b"0000000100000000000", 19), None);
        assert_eq!(read_echo(b"00000001000000000000", 20).map(|mark| mark.sequence), Some(1));
        assert_eq!(read_echo(b"00000001000000000000,", 21), None);
        assert_eq!(read_echo(b"00000001000000000000.", 21).map(|mark| mark.sequence), Some(1));
    }
}
