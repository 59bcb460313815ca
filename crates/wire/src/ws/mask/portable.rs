//! Masking for every machine: eight bytes at a time, which compilers widen to what the target has.

/// The bits that no ASCII byte has.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// XORs `bytes` with `key` over and over, the first byte with `key[0]`. Whether the outcome is ASCII.
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let [a, b, c, d] = key;
    // Native order on both sides, so the bytes in memory are what 5.3 says on any machine.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut seen = 0;
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        let clear = u64::from_ne_bytes(*word) ^ wide;
        seen |= clear;
        *word = clear.to_ne_bytes();
    }
    // A word is two keys long, so the tail starts with `key[0]` again.
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
        seen |= u64::from(*byte);
    }
    seen & HIGH_BITS == 0
}

/// The same for less than 16 bytes, without a loop: two words that overlap, the second read before the first is
/// written.
#[inline]
pub(super) fn apply_short(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let len = bytes.len();
    debug_assert!(len < 16, "{len} bytes");
    let wide = u64::from(u32::from_le_bytes(key)) * 0x1_0000_0001;
    // Reads the key from where a word `back` bytes before the end has it.
    let turned = |back: usize| wide.rotate_right(((len - back) % 4 * 8) as u32);
    if len >= 8
        && let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
    {
        let first = u64::from_le_bytes(*first) ^ wide;
        let last = u64::from_le_bytes(*last) ^ turned(8);
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[len - 8..].copy_from_slice(&last.to_le_bytes());
        (first | last) & HIGH_BITS == 0
    } else if len >= 4
        && let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
    {
        let first = u32::from_le_bytes(*first) ^ wide as u32;
        let last = u32::from_le_bytes(*last) ^ turned(4) as u32;
        bytes[..4].copy_from_slice(&first.to_le_bytes());
        bytes[len - 4..].copy_from_slice(&last.to_le_bytes());
        u64::from(first | last) & HIGH_BITS == 0
    } else {
        let mut seen = 0;
        for (byte, key) in bytes.iter_mut().zip(key) {
            *byte ^= key;
            seen |= *byte;
        }
        seen < 0x80
    }
}
