//! Protobuf's wire format: a message is a row of fields, each a tag (number and kind) and a value.
//!
//! Reading borrows and never allocates; a value that reaches past the end of what holds it is [`Malformed`], so every
//! step either consumes bytes or fails. Groups, which Protobuf gave up long ago, are malformed too. As the format demands,
//! a number too large for its field is cut, and of a field that is repeated by mistake the last one counts.

use super::super::Malformed;

/// The longest varint: 64 bits, seven a byte.
const VARINT_BYTES_MAX: u32 = 10;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A field's value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no message of ours has.
    Fixed,
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(Malformed),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(Malformed),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// The fields of one message, in the order in which they came. Ends with the first error.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(input: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let tag = varint(input)?;
    let number = u32::try_from(tag).map_err(|_| Malformed)? >> 3;
    if number == 0 {
        return Err(Malformed);
    }
    let value = match tag & 7 {
        VARINT => Value::Number(varint(input)?),
        BYTES => Value::Bytes(delimited(input)?),
        FIXED64 => take(input, 8).map(|_| Value::Fixed)?,
        FIXED32 => take(input, 4).map(|_| Value::Fixed)?,
        _ => return Err(Malformed),
    };
    Ok((number, value))
}

/// Takes bytes that have their length in front.
pub(super) fn delimited<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = varint(input)?;
    take(input, usize::try_from(len).map_err(|_| Malformed)?)
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = input.split_at_checked(len).ok_or(Malformed)?;
    *input = rest;
    Ok(taken)
}

fn varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for place in 0..VARINT_BYTES_MAX {
        let (&byte, rest) = input.split_first().ok_or(Malformed)?;
        *input = rest;
        if place == VARINT_BYTES_MAX - 1 && byte > 1 {
            break; // a 65th bit
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

fn varint_len(number: usize) -> usize {
    let bits = usize::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_tag(out: &mut Vec<u8>, field: u32, kind: u64) {
    put_varint(out, u64::from(field) << 3 | kind);
}

/// Appends a number; zero is said by leaving it out.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_tag(out, field, VARINT);
        put_varint(out, number);
    }
}

/// Appends bytes or text; emptiness is said by leaving them out.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_tag(out, field, BYTES);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Appends the front of a message of `len` bytes, which the caller writes or sends behind it.
pub(super) fn put_length(out: &mut Vec<u8>, field: u32, len: usize) {
    put_tag(out, field, BYTES);
    put_varint(out, len as u64);
}

/// Appends a message, also an empty one: that it is there says something. `expected` is about how long it will be.
pub(super) fn put_message(out: &mut Vec<u8>, field: u32, expected: usize, body: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, BYTES);
    put_delimited(out, expected, body);
}

/// Appends what `body` writes, with its length in front.
///
/// The length is known last and stands first. Where it takes as many bytes as that of `expected`, nothing moves: a large
/// payload is written once, to where it stays.
pub(super) fn put_delimited(out: &mut Vec<u8>, expected: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    let room = varint_len(expected);
    out.resize(at + room, 0);
    body(out);
    let len = out.len() - at - room;
    let mut prefix = [0; VARINT_BYTES_MAX as usize];
    let prefix = &mut prefix[..varint_len(len)];
    let last = prefix.len() - 1;
    for (place, byte) in prefix.iter_mut().enumerate() {
        *byte = (len >> (7 * place)) as u8 & 0x7f | if place < last { 0x80 } else { 0 };
    }
    if prefix.len() == room {
        out[at..at + room].copy_from_slice(prefix);
    } else {
        out.splice(at..at + room, prefix.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, number);
        out
    }

    #[test]
    fn a_varint_has_seven_bits_a_byte_and_ends_where_it_says() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(encoded(number), bytes);
            assert_eq!(varint_len(number as usize), bytes.len());
            let with_more = [bytes, &[7]].concat();
            let mut input = &with_more[..];
            assert_eq!(varint(&mut input), Ok(number));
            assert_eq!(input, [7]);
            for end in 0..bytes.len() {
                assert_eq!(varint(&mut &bytes[..end]), Err(Malformed), "{number} cut to {end} bytes");
            }
        }
        // A 65th bit, and its twin without one.
        let mut long = encoded(u64::MAX);
        long[9] = 2;
        assert_eq!(varint(&mut &long[..]), Err(Malformed));
        // More bytes than the number needs are legal; more than ten are not.
        assert_eq!(varint(&mut &[0x81, 0x80, 0][..]), Ok(1));
        assert_eq!(varint(&mut &[0x80; 10][..]), Err(Malformed));
    }

    #[test]
    fn what_reaches_past_its_end_is_malformed_and_its_twin_is_not() {
        let fields = |bytes: &[u8]| Fields(bytes).map(|f| f.map(|(number, _)| number)).collect::<Result<Vec<_>, _>>();
        for (good, bad) in [
            (&[0x0a, 1, b'x'][..], &[0x0a, 2, b'x'][..]),
            (&[0x0a, 0], &[0x0a]),
            (&[0x08, 0], &[0x08, 0x80]),
            (&[0x0d, 1, 2, 3, 4], &[0x0d, 1, 2, 3]),
            (&[0x09, 1, 2, 3, 4, 5, 6, 7, 8], &[0x09, 1, 2, 3, 4, 5, 6, 7]),
            (&[0x08, 1], &[0x00, 1]),
            (&[0x08, 1], &[0x0b, 1]),
            (&[0x08, 1], &[0x0f, 1]),
            (&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1], &[0xf8, 0xff, 0xff, 0xff, 0x1f, 1]),
            (&[0x0a, 0x80, 0], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert!(fields(good).is_ok(), "{good:x?}");
            assert_eq!(fields(bad), Err(Malformed), "{bad:x?}");
        }
    }

    #[test]
    fn a_length_is_right_whatever_was_expected() {
        for len in [0, 1, 127, 128, 16_383, 16_384] {
            for expected in [0, 127, 128, 16_384, usize::MAX] {
                let mut out = vec![9];
                put_delimited(&mut out, expected, |out| out.resize(out.len() + len, b'x'));
                let mut input = &out[1..];
                assert_eq!(delimited(&mut input).map(<[u8]>::len), Ok(len));
                assert_eq!((out[0], input.len()), (9, 0));
                assert_eq!(out.len(), 1 + varint_len(len) + len, "the length has no byte too many");
            }
        }
    }
}
