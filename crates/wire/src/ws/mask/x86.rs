//! Masking with the registers of x86-64.
//!
//! A payload is whole registers and a rest. The rest is done with one more register that ends where the payload ends and
//! so overlaps what comes before it: it is read before anything is written, and written last, with bytes that are
//! right, as the key is turned to where that register begins.

use super::{portable, rotated};
use std::arch::x86_64::*;

/// The proof that this machine has AVX2: made by asking it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HasAvx2(());

impl HasAvx2 {
    /// Asks.
    #[inline]
    pub(super) fn ask() -> Option<HasAvx2> {
        is_x86_feature_detected!("avx2").then_some(HasAvx2(()))
    }
}

/// From this length on the 32-byte loop starts at a multiple of 32: a register that lies across two cache lines costs
/// twice, and payloads begin 6, 8 or 14 bytes into a buffer.
const ALIGNED_BYTES_MIN: usize = 512;

/// 16 bytes at a time.
#[inline]
pub(super) fn apply_sse2(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let len = bytes.len();
    if len < 16 {
        return portable::apply_short(bytes, key);
    }
    let at = bytes.as_mut_ptr();
    // SAFETY: SSE2 belongs to every x86-64. `len >= 16`, so the last 16 bytes are inside; `i + 16 <= len` holds for every
    // other access. The pointer comes from a unique borrow that lives through the block, and `loadu` and `storeu` ask
    // for no alignment.
    unsafe {
        let wide = _mm_set1_epi32(i32::from_le_bytes(key));
        let last_key = _mm_set1_epi32(i32::from_le_bytes(rotated(key, len - 16)));
        let last = _mm_xor_si128(_mm_loadu_si128(at.add(len - 16).cast()), last_key);
        let mut seen = last;
        let mut i = 0;
        while i + 16 <= len {
            let clear = _mm_xor_si128(_mm_loadu_si128(at.add(i).cast()), wide);
            seen = _mm_or_si128(seen, clear);
            _mm_storeu_si128(at.add(i).cast(), clear);
            i += 16;
        }
        _mm_storeu_si128(at.add(len - 16).cast(), last);
        _mm_movemask_epi8(seen) == 0
    }
}

/// 32 bytes at a time.
#[inline]
pub(super) fn apply_avx2(_: HasAvx2, bytes: &mut [u8], key: [u8; 4]) -> bool {
    // Below this the call of a function that cannot be inlined costs more than it saves.
    if bytes.len() < 64 {
        return apply_sse2(bytes, key);
    }
    // SAFETY: the machine has AVX2, and there are at least 64 bytes.
    unsafe { avx2(bytes, key) }
}

/// # Safety
///
/// The machine has AVX2, and `bytes` are 32 at least.
#[target_feature(enable = "avx2")]
unsafe fn avx2(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let len = bytes.len();
    debug_assert!(len >= 32, "{len} bytes");
    let at = bytes.as_mut_ptr();
    let start = if len >= ALIGNED_BYTES_MIN { at.align_offset(32) % 32 } else { 0 };
    let wide_key = i32::from_le_bytes(rotated(key, start));
    let last_key = i32::from_le_bytes(rotated(key, len - 32));
    // No closures here: they are not compiled for AVX2, and a register that is passed by memory costs tenfold.
    // SAFETY: `len >= 32`, so the first and the last 32 bytes are inside; `start < 32`, and `i + 32 <= len` or
    // `i + 128 <= len` holds for every other access. The pointer comes from a unique borrow that lives through the
    // block, and `loadu` and `storeu` ask for no alignment.
    unsafe {
        let first = _mm256_xor_si256(_mm256_loadu_si256(at.cast()), _mm256_set1_epi32(i32::from_le_bytes(key)));
        let last = _mm256_xor_si256(_mm256_loadu_si256(at.add(len - 32).cast()), _mm256_set1_epi32(last_key));
        let wide = _mm256_set1_epi32(wide_key);
        let mut seen = _mm256_or_si256(first, last);
        let mut i = start;
        while i + 128 <= len {
            let four: *mut __m256i = at.add(i).cast();
            let a = _mm256_xor_si256(_mm256_loadu_si256(four), wide);
            let b = _mm256_xor_si256(_mm256_loadu_si256(four.add(1)), wide);
            let c = _mm256_xor_si256(_mm256_loadu_si256(four.add(2)), wide);
            let d = _mm256_xor_si256(_mm256_loadu_si256(four.add(3)), wide);
            seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d)));
            _mm256_storeu_si256(four, a);
            _mm256_storeu_si256(four.add(1), b);
            _mm256_storeu_si256(four.add(2), c);
            _mm256_storeu_si256(four.add(3), d);
            i += 128;
        }
        while i + 32 <= len {
            let clear = _mm256_xor_si256(_mm256_loadu_si256(at.add(i).cast()), wide);
            seen = _mm256_or_si256(seen, clear);
            _mm256_storeu_si256(at.add(i).cast(), clear);
            i += 32;
        }
        // With `start > 0` the bytes before it are still masked in memory, and those behind it were right in `first`.
        if start > 0 {
            _mm256_storeu_si256(at.cast(), first);
        }
        _mm256_storeu_si256(at.add(len - 32).cast(), last);
        _mm256_movemask_epi8(seen) == 0
    }
}
