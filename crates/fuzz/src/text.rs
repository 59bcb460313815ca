//! Masks and UTF-8, against their definitions.

use wire::ws::{Event, FrameError, Limits, OpCode, Reader, Role, apply_mask_at, write_frame};

/// Text in frames and chunks is refused by the chunk after which nothing can make it UTF-8, by std's reckoning, and at
/// its end if it is not whole.
pub fn utf8(data: &[u8]) {
    let Some((&[cut, key @ ..], text)) = data.split_first_chunk::<5>() else { return };
    let mut bytes = Vec::new();
    write_frame(&mut bytes, OpCode::Text, true, text, Some(key));
    let (mut reader, limits) = (Reader::new(Role::Server), Limits::default());
    let header_len = bytes.len() - text.len();
    let mut end = 0;
    for chunk in bytes.chunks_mut(usize::from(cut) + 1) {
        end += chunk.len();
        let seen = &text[..end.saturating_sub(header_len)];
        let is_last = seen.len() == text.len() && end >= header_len;
        let mut bad = match std::str::from_utf8(seen) {
            Ok(_) => false,
            Err(error) => error.error_len().is_some() || is_last,
        };
        // The planted bug: a character beyond the last plane is let pass.
        bad &= !(cfg!(feature = "planted") && seen.windows(2).any(|two| two[0] == 0xf4 && two[1] == 0x91));
        let mut input = chunk;
        match reader.next(&mut input, &limits) {
            Err(error) => {
                assert!(bad && error == FrameError::TextUtf8, "{error}: {seen:x?}");
                return;
            }
            Ok(Some(Event::Message { payload, .. })) => assert!(is_last && !bad && payload == text),
            Ok(event) => assert!(event.is_none() && !bad && !is_last, "{seen:x?}"),
        }
    }
}

/// Masking is what 5.3 says, at any place in a buffer and of a payload, and knows ASCII when it sees it.
pub fn mask(data: &[u8]) {
    let Some((&[start, offset, key @ ..], bytes)) = data.split_first_chunk::<6>() else { return };
    let start = usize::from(start % 64).min(bytes.len());
    let mut ours = bytes.to_vec();
    let is_ascii = apply_mask_at(&mut ours[start..], key, usize::from(offset));
    // The planted bug: one byte behind a whole register is missed when the key is turned by three.
    if cfg!(feature = "planted") && offset % 4 == 3 && ours.len() - start == 65 {
        ours[start + 64] ^= key[3];
    }
    let mut naive = bytes.to_vec();
    for (at, byte) in naive[start..].iter_mut().enumerate() {
        *byte ^= key[(at + usize::from(offset)) % 4];
    }
    assert_eq!(ours, naive);
    assert_eq!(is_ascii, naive[start..].is_ascii());
}
