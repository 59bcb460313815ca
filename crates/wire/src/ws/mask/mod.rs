//! Masking (RFC 6455, 5.3): payload byte `i` is XORed with key byte `i % 4`, both ways alike.
//!
//! The same pass says whether the outcome is ASCII, because it has every byte in a register anyway. What every machine
//! runs is [`portable`]; `x86` has the same with 16 and 32 bytes at a time. [`Backend`] is which.

mod portable;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // loads and stores of whole registers; each has its proof
mod x86;

/// Masks or unmasks a payload, or its first piece. Whether the outcome is ASCII.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) -> bool {
    Backend::best().apply(bytes, key)
}

/// Masks or unmasks a piece of a payload that starts `offset` bytes into it. Whether the outcome is ASCII.
pub fn apply_mask_at(bytes: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    apply_mask(bytes, rotated(key, offset))
}

/// The key as it applies to a piece that starts `offset` bytes into the payload.
///
/// As a number, because a slice that is rotated by a variable amount is a loop in a function of its own, which took
/// longer than the payload of a short frame.
#[inline]
pub(super) fn rotated(key: [u8; 4], offset: usize) -> [u8; 4] {
    u32::from_le_bytes(key).rotate_right((offset % 4 * 8) as u32).to_le_bytes()
}

/// A way to do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Backend {
    /// Any machine.
    #[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "the oracle of the others"))]
    Portable,
    /// 16 bytes at a time, which every x86-64 can.
    #[cfg(target_arch = "x86_64")]
    Sse2,
    /// 32 bytes at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::HasAvx2),
}

impl Backend {
    /// The fastest one here. What the machine can is asked once and remembered by std.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn best() -> Backend {
        x86::HasAvx2::ask().map_or(Backend::Sse2, Backend::Avx2)
    }

    /// The only one here.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn best() -> Backend {
        Backend::Portable
    }

    #[inline]
    fn apply(self, bytes: &mut [u8], key: [u8; 4]) -> bool {
        match self {
            Backend::Portable => portable::apply(bytes, key),
            #[cfg(target_arch = "x86_64")]
            Backend::Sse2 => x86::apply_sse2(bytes, key),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(has) => x86::apply_avx2(has, bytes, key),
        }
    }
}

#[cfg(test)]
mod tests;
