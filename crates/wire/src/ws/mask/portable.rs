//! Masking for every machine: eight bytes at a time, which compilers widen to what the target has.

/// XORs `bytes` with `key` over and over, the first byte with `key[0]`.
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    // Native order on both sides, so the bytes in memory are what 5.3 says on any machine.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // A word is two keys long, so the tail starts with `key[0]` again.
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}
