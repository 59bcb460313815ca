//! A client's half of Fossil deltas: makes the next text of the one before.

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

fn number(input: &mut &[u8]) -> Option<usize> {
    let value = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
    let digits = input.iter().take_while(|byte| value(byte).is_some()).count();
    let (number, rest) = input.split_at(digits);
    *input = rest;
    (digits > 0).then(|| number.iter().filter_map(value).fold(0, |sum, digit| sum << 6 | digit))
}

fn checksum(text: &[u8]) -> usize {
    let words =
        text.chunks(4).map(|chunk| (0..4).fold(0, |word, i| word << 8 | u32::from(*chunk.get(i).unwrap_or(&0))));
    words.fold(0, u32::wrapping_add) as usize
}

/// `None`: the delta is broken, or was made for another source.
pub(crate) fn apply(source: &[u8], mut delta: &[u8]) -> Option<Vec<u8>> {
    let len = number(&mut delta)?;
    delta = delta.strip_prefix(b"\n")?;
    let mut target = Vec::new();
    loop {
        let count = number(&mut delta)?;
        let (&kind, rest) = delta.split_first()?;
        delta = rest;
        match kind {
            b'@' => {
                let offset = number(&mut delta)?;
                delta = delta.strip_prefix(b",")?;
                target.extend_from_slice(source.get(offset..offset.checked_add(count)?)?);
            }
            b':' => {
                target.extend_from_slice(delta.get(..count)?);
                delta = &delta[count..];
            }
            b';' => {
                let is_whole = target.len() == len && checksum(&target) == count && delta.is_empty();
                return is_whole.then_some(target);
            }
            _ => return None,
        }
    }
}
