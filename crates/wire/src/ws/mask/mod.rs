//! Masking (RFC 6455, 5.3): payload byte `i` is XORed with key byte `i % 4`, both ways alike.

mod portable;

/// Masks or unmasks a payload, or its first piece.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    portable::apply(bytes, key);
}

/// Masks or unmasks a piece of a payload that starts `offset` bytes into it.
pub fn apply_mask_at(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    portable::apply(bytes, rotated(key, offset));
}

/// The key as it applies to a piece that starts `offset` bytes into the payload.
pub(super) fn rotated(mut key: [u8; 4], offset: usize) -> [u8; 4] {
    key.rotate_left(offset % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of 5.3, word for word: the oracle for every faster way.
    fn naive(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(offset + i) % 4];
        }
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 131 + i / 7) as u8).collect()
    }

    #[test]
    fn equals_the_definition_for_all_lengths_offsets_and_alignments() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..=300 {
            for align in 0..8 {
                let clear = sample(align + len);
                let mut expected = clear.clone();
                naive(&mut expected[align..], key, 0);
                let mut masked = clear.clone();
                apply_mask(&mut masked[align..], key);
                assert_eq!(masked, expected, "length {len}, alignment {align}");
            }
            for offset in (0..=9).chain([usize::MAX - 400]) {
                let mut expected = sample(len);
                naive(&mut expected, key, offset);
                let mut masked = sample(len);
                apply_mask_at(&mut masked, key, offset);
                assert_eq!(masked, expected, "length {len}, offset {offset}");
            }
        }
    }

    #[test]
    fn pieces_equal_the_whole_for_every_split() {
        let key = [1, 2, 4, 8];
        let mut whole = sample(67);
        apply_mask(&mut whole, key);
        for split in 0..=67 {
            let mut pieces = sample(67);
            let (front, back) = pieces.split_at_mut(split);
            apply_mask(front, key);
            apply_mask_at(back, key, split);
            assert_eq!(pieces, whole, "split at {split}");
        }
    }

    #[test]
    fn twice_is_the_identity() {
        let mut bytes = sample(299);
        apply_mask(&mut bytes, [9, 8, 7, 6]);
        assert_ne!(bytes, sample(299));
        apply_mask(&mut bytes, [9, 8, 7, 6]);
        assert_eq!(bytes, sample(299));
    }
}
