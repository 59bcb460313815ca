//! Incremental UTF-8 with a verdict per received chunk (RFC 6455, 8.1; RFC 3629).
//!
//! `simdutf8` checks what is whole characters. The up to three bytes of a character that a chunk
//! cuts are carried to the next one and checked with std, which also says whether they can still
//! become a character: `E0 80` cannot, and is refused before its third byte arrives.

/// The text is not UTF-8, whatever may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Invalid;

/// Where the check of a text stands between two chunks.
///
/// INVARIANT: `carry[..len]` is empty or the start of a character that can still be completed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Utf8 {
    carry: [u8; 3],
    len: u8,
}

/// Checks a text that is whole.
pub(super) fn check(text: &[u8]) -> Result<(), Invalid> {
    simdutf8::basic::from_utf8(text).map(drop).map_err(|_| Invalid)
}

impl Utf8 {
    /// Checks the next chunk. `Err` says that the first bad octet is in it (or that a former call
    /// already failed).
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Invalid> {
        let chunk = self.complete(chunk)?;
        let (whole, cut) = chunk.split_at(chunk.len() - cut_len(chunk));
        check(whole)?;
        if !cut.is_empty() {
            can_be_completed(cut)?;
            self.carry[..cut.len()].copy_from_slice(cut);
            self.len = cut.len() as u8;
        }
        Ok(())
    }

    /// Whether no character is begun, so that a chunk of ASCII needs no check.
    pub(super) fn is_between_characters(self) -> bool {
        self.len == 0
    }

    /// The text ends here: it must not end inside a character.
    pub(super) fn finish(self) -> Result<(), Invalid> {
        if self.len == 0 { Ok(()) } else { Err(Invalid) }
    }

    /// Completes the carried character from the front of `chunk` and returns the rest of it.
    fn complete<'a>(&mut self, mut chunk: &'a [u8]) -> Result<&'a [u8], Invalid> {
        while self.len > 0 {
            let Some((&byte, rest)) = chunk.split_first() else {
                break;
            };
            chunk = rest;
            let held = usize::from(self.len);
            let mut character = [0; 4];
            character[..held].copy_from_slice(&self.carry[..held]);
            character[held] = byte;
            match str::from_utf8(&character[..=held]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(Invalid),
                Err(_) => {
                    // Still incomplete, so at most three bytes: std calls four complete or bad.
                    self.carry[held] = byte;
                    self.len += 1;
                }
            }
        }
        Ok(chunk)
    }
}

/// How many bytes at the end of `chunk` are the start of a character that ends beyond it.
fn cut_len(chunk: &[u8]) -> usize {
    for (back, &byte) in chunk.iter().rev().take(3).enumerate() {
        let present = back + 1;
        let needed = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            // 0xf8..=0xff start nothing; whoever checks them says so.
            0xf0..=0xff => 4,
            0..=0x7f => 1,
        };
        return if present < needed { present } else { 0 };
    }
    0
}

fn can_be_completed(cut: &[u8]) -> Result<(), Invalid> {
    match str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => Ok(()),
        // `Ok` cannot be: a cut character is not whole.
        _ => Err(Invalid),
    }
}
