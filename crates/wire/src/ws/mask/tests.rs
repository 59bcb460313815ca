//! Every backend against the definition.

use super::*;

/// The definition of 5.3, word for word: the oracle for every faster way.
fn naive(bytes: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= key[(offset + i) % 4];
    }
    bytes.is_ascii()
}

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + i / 7) as u8).collect()
}

/// Each that this machine can run.
fn backends() -> Vec<Backend> {
    let mut all = vec![Backend::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        all.push(Backend::Sse2);
        all.extend(x86::HasAvx2::ask().map(Backend::Avx2));
    }
    all
}

#[test]
fn the_best_backend_is_among_those_that_are_tested() {
    assert!(backends().contains(&Backend::best()));
}

/// Lengths around every step of every backend, and the two at which AVX2 begins to align.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).chain(500..=530).chain([1000, 1023, 1024, 1055, 4096, 4101])
}

#[test]
fn each_backend_equals_the_definition_for_all_lengths_and_alignments() {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    for backend in backends() {
        for len in lengths() {
            for align in 0..33 {
                // What is around the payload must stay as it is.
                let clear = sample(align + len + 40);
                let mut expected = clear.clone();
                let is_ascii = naive(&mut expected[align..align + len], key, 0);
                let mut masked = clear.clone();
                let verdict = backend.apply(&mut masked[align..align + len], key);
                assert_eq!(masked, expected, "{backend:?}, length {len}, alignment {align}");
                assert_eq!(verdict, is_ascii, "{backend:?}, length {len}, alignment {align}");
            }
        }
    }
}

#[test]
fn each_backend_finds_the_one_byte_that_is_not_ascii_wherever_it_is() {
    let key = [0x9b, 0x04, 0xe1, 0x70];
    for backend in backends() {
        for len in lengths() {
            let text: Vec<u8> = sample(len).iter().map(|byte| byte & 0x7f).collect();
            let mut masked = text.clone();
            naive(&mut masked, key, 0);
            let mut whole = masked.clone();
            assert!(backend.apply(&mut whole, key), "{backend:?}, {len} bytes of ASCII");
            assert_eq!(whole, text);
            for place in 0..len {
                let mut whole = masked.clone();
                whole[place] ^= 0x80;
                assert!(!backend.apply(&mut whole, key), "{backend:?}, byte {place} of {len}");
            }
        }
    }
}

#[test]
fn an_offset_turns_the_key() {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    for len in 0..=300 {
        for offset in (0..=9).chain([usize::MAX - 400]) {
            let mut expected = sample(len);
            let is_ascii = naive(&mut expected, key, offset);
            let mut masked = sample(len);
            assert_eq!(apply_mask_at(&mut masked, key, offset), is_ascii);
            assert_eq!(masked, expected, "length {len}, offset {offset}");
        }
    }
}

#[test]
fn pieces_equal_the_whole_for_every_split() {
    let key = [1, 2, 4, 8];
    for backend in backends() {
        for len in [67, 130] {
            let mut whole = sample(len);
            naive(&mut whole, key, 0);
            for split in 0..=len {
                let mut pieces = sample(len);
                let (front, back) = pieces.split_at_mut(split);
                backend.apply(front, key);
                backend.apply(back, rotated(key, split));
                assert_eq!(pieces, whole, "{backend:?}, split at {split} of {len}");
            }
        }
    }
}

#[test]
fn twice_is_the_identity() {
    for backend in backends() {
        let mut bytes = sample(299);
        backend.apply(&mut bytes, [9, 8, 7, 6]);
        assert_ne!(bytes, sample(299));
        backend.apply(&mut bytes, [9, 8, 7, 6]);
        assert_eq!(bytes, sample(299));
    }
}
