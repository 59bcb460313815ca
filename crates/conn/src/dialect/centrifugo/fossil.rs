//! Fossil deltas: how one text becomes another, as few bytes that Centrifugo's clients can apply.
//!
//! ```text
//! <length of the target>\n  then pieces  <count>@<offset>,  bytes of the source   and  <count>:<bytes>  new ones
//! and at the end  <checksum of the target>;
//! ```
//!
//! Numbers are written in base 64, most significant digit first. Every piece begins and ends between two characters of the
//! target, so the delta of two texts is a text, which JSON can carry.
//!
//! **The work is linear**, whatever the texts are: what both have in common at their ends is compared once; of the rest
//! places of the target are looked up in an index of the source, fewer and fewer of them the longer nothing is found; at
//! most [`CANDIDATES_MAX`] places of the source are compared, and a piece that is found is as long as what was compared.
//!
//! It lives beside the dialect because no other protocol of ours has it; it knows neither publications nor channels.

/// Bytes that must be equal for a piece to be found, and the distance of the places of the source that are in the index.
/// A copy of this many is never longer than the bytes themselves.
const BLOCK_BYTES: usize = 16;

/// Places of the source with one hash that are compared; more of them are not worth the time.
const CANDIDATES_MAX: usize = 4;

/// Places without a piece after which each step over the target becomes a byte longer: where nothing is alike, most of it
/// is skipped, and where much is alike, a part of it is found all the same.
const PATIENCE: usize = 128;

/// Heads of chains for each block of the source, so that few blocks share one.
const HEADS_PER_BLOCK: usize = 4;

/// An index that was larger than this goes back to the allocator.
const KEPT_ENTRIES_MAX: usize = 16 * 1024;

/// End of a chain in the index.
const NONE: u32 = u32::MAX;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// Makes deltas; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Fossil {
    /// First block of the source with a hash, by the hash's last bits.
    heads: Vec<u32>,
    /// The next block with the same bits, by block.
    chains: Vec<u32>,
}

/// A piece of the target that is in the source, too.
#[derive(Clone, Copy, Debug)]
struct Copy {
    at: usize,
    source: usize,
    len: usize,
}

impl Fossil {
    /// Appends what makes `target` of `source`. Whether that is shorter than `target`; if not, nothing is appended.
    pub(crate) fn delta(&mut self, source: &str, target: &str, out: &mut Vec<u8>) -> bool {
        if u32::try_from(source.len().max(target.len())).is_err() {
            return false;
        }
        let start = out.len();
        put_number(out, target.len() as u32);
        out.push(b'\n');
        let (from, to) = (source.as_bytes(), target.as_bytes());
        let prefix = common_prefix(from, to);
        let prefix = floor(to, prefix);
        let suffix = common_suffix(&from[prefix..], &to[prefix..]);
        let end = ceil(to, to.len() - suffix);
        put_copy(out, to, Copy { at: 0, source: 0, len: prefix });
        self.middle(from, to, prefix, end, out);
        put_copy(out, to, Copy { at: end, source: from.len() - (to.len() - end), len: to.len() - end });
        put_number(out, checksum(to));
        out.push(b';');
        let is_gain = out.len() - start < to.len();
        if !is_gain {
            out.truncate(start);
        }
        is_gain
    }

    /// Writes `to[at..end]`, which has no end in common with what is left of the source.
    fn middle(&mut self, from: &[u8], to: &[u8], mut at: usize, end: usize, out: &mut Vec<u8>) {
        if end - at >= BLOCK_BYTES && from.len() >= BLOCK_BYTES {
            self.index(from);
            let (mut look, mut misses) = (at, 0);
            while look + BLOCK_BYTES <= end {
                let Some(copy) = self.find(from, to, at..end, look) else {
                    misses += 1;
                    look += 1 + misses / PATIENCE;
                    continue;
                };
                misses = 0;
                put_new(out, &to[at..copy.at]);
                put_copy(out, to, copy);
                at = copy.at + copy.len;
                look = at;
            }
            self.forget_much();
        }
        put_new(out, &to[at..end]);
    }

    fn index(&mut self, from: &[u8]) {
        let blocks = from.len() / BLOCK_BYTES;
        self.heads.clear();
        self.heads.resize((blocks * HEADS_PER_BLOCK).next_power_of_two(), NONE);
        self.chains.clear();
        for (number, block) in from.chunks_exact(BLOCK_BYTES).enumerate() {
            let place = hash(block) as usize & (self.heads.len() - 1);
            self.chains.push(self.heads[place]);
            self.heads[place] = number as u32;
        }
    }

    /// The longest copy around `look`, within the part of the target that is not written yet.
    fn find(&self, from: &[u8], to: &[u8], open: std::ops::Range<usize>, look: usize) -> Option<Copy> {
        let block = &to[look..look + BLOCK_BYTES];
        let mut number = self.heads[hash(block) as usize & (self.heads.len() - 1)];
        let mut best: Option<Copy> = None;
        for _ in 0..CANDIDATES_MAX {
            if number == NONE {
                break;
            }
            let source = number as usize * BLOCK_BYTES;
            number = self.chains[number as usize];
            if from[source..source + BLOCK_BYTES] != *block {
                continue;
            }
            let before = common_suffix(&from[..source], &to[open.start..look]);
            let after = common_prefix(&from[source..], &to[look..open.end]);
            let at = ceil(to, look - before);
            let len = floor(to, look + after).saturating_sub(at);
            if len >= BLOCK_BYTES && best.is_none_or(|best| len > best.len) {
                best = Some(Copy { at, source: source - before + (at - (look - before)), len });
            }
        }
        best
    }

    fn forget_much(&mut self) {
        if self.heads.capacity() > KEPT_ENTRIES_MAX * HEADS_PER_BLOCK {
            *self = Self::default();
        }
    }
}

/// The first place not before `at` that is between two characters.
fn ceil(text: &[u8], at: usize) -> usize {
    (at..text.len()).find(|&at| is_boundary(text, at)).unwrap_or(text.len())
}

/// The last such place not behind `at`.
fn floor(text: &[u8], at: usize) -> usize {
    (0..=at).rev().find(|&at| is_boundary(text, at)).unwrap_or(0)
}

fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

/// Many bytes are compared at a time, which is several times faster than one after the other.
const STRIDE: usize = 32;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE)).take_while(|(a, b)| a == b).count();
    let at = strides * STRIDE;
    at + a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let strides = a.rchunks_exact(STRIDE).zip(b.rchunks_exact(STRIDE)).take_while(|(a, b)| a == b).count();
    let at = strides * STRIDE;
    let (a, b) = (&a[..a.len() - at], &b[..b.len() - at]);
    at + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// A hash of one block; what is equal is compared byte by byte, so it need not be a good one.
fn hash(block: &[u8]) -> u32 {
    let (first, second) = block.split_at(BLOCK_BYTES / 2);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half a block is eight bytes"));
    let mixed = word(first).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(second).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

fn put_number(out: &mut Vec<u8>, number: u32) {
    let digits = (u32::BITS - (number | 1).leading_zeros()).div_ceil(6);
    out.extend((0..digits).rev().map(|place| DIGITS[(number >> (6 * place)) as usize & 63]));
}

/// Writes a copy, or the bytes themselves where they are shorter.
fn put_copy(out: &mut Vec<u8>, to: &[u8], copy: Copy) {
    let start = out.len();
    if copy.len == 0 {
        return;
    }
    put_number(out, copy.len as u32);
    out.push(b'@');
    put_number(out, copy.source as u32);
    out.push(b',');
    let spent = out.len() - start;
    if spent > copy.len + 2 {
        out.truncate(start);
        put_new(out, &to[copy.at..copy.at + copy.len]);
    }
}

fn put_new(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_number(out, bytes.len() as u32);
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

/// The sum of the text read as big-endian words, filled up with zeros.
fn checksum(text: &[u8]) -> u32 {
    text.chunks(4).fold(0, |sum: u32, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.wrapping_add(u32::from_be_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_number(input: &mut &[u8]) -> Option<usize> {
        let digits = input.iter().take_while(|byte| DIGITS.contains(byte)).count();
        let (number, rest) = input.split_at(digits);
        *input = rest;
        let value = |digit: &u8| DIGITS.iter().position(|known| known == digit).expect("a digit");
        (digits > 0).then(|| number.iter().fold(0, |sum, digit| sum << 6 | value(digit)))
    }

    /// What a client does, with every check it can make.
    fn apply(source: &[u8], mut delta: &[u8]) -> Option<Vec<u8>> {
        let len = read_number(&mut delta)?;
        delta = delta.strip_prefix(b"\n")?;
        let mut target: Vec<u8> = Vec::new();
        loop {
            let number = read_number(&mut delta)?;
            let (&kind, rest) = delta.split_first()?;
            delta = rest;
            match kind {
                b'@' => {
                    let offset = read_number(&mut delta)?;
                    delta = delta.strip_prefix(b",")?;
                    target.extend_from_slice(source.get(offset..offset + number)?);
                }
                b':' => {
                    target.extend_from_slice(delta.get(..number)?);
                    delta = &delta[number..];
                }
                b';' => {
                    let is_whole = target.len() == len && checksum(&target) as usize == number && delta.is_empty();
                    return is_whole.then_some(target);
                }
                _ => return None,
            }
        }
    }

    /// The delta, if it is a gain; checked by applying it.
    fn delta(source: &str, target: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let is_gain = Fossil::default().delta(source, target, &mut out);
        let delta = out.strip_prefix(b"before").expect("what was there stays");
        if !is_gain {
            assert!(delta.is_empty(), "nothing is appended without a gain");
            return None;
        }
        assert!(delta.len() < target.len());
        assert_eq!(apply(source.as_bytes(), delta).as_deref(), Some(target.as_bytes()), "{source:?} -> {target:?}");
        Some(String::from_utf8(delta.to_vec()).expect("the delta of texts is a text"))
    }

    #[test]
    fn a_small_change_of_a_known_text_has_the_known_delta() {
        let text = |degrees: &str| {
            format!(r#"{{"room":"kitchen","temp":{degrees},"unit":"C","sensors":["a","b","c"],"note":"steady"}}"#)
        };
        assert_eq!(delta(&text("21.5"), &text("21.9")).as_deref(), Some("1H\nS@0,1:9p@T,f9GCV;"));
    }

    #[test]
    fn a_changed_byte_of_a_delta_is_noticed() {
        let (source, target) = ("the same beginning, one end", "the same beginning, another end");
        let good = delta(source, target).expect("a gain").into_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(apply(source.as_bytes(), &bad), None, "byte {at} of {:?}", String::from_utf8_lossy(&good));
        }
    }

    #[test]
    fn what_is_no_gain_is_not_made() {
        for (source, target) in [("", ""), ("", "abc"), ("abc", ""), ("abc", "abc"), ("1", "2"), ("quite", "other")] {
            assert_eq!(delta(source, target), None, "{source:?} -> {target:?}");
        }
        let text = "long enough to be worth it";
        assert!(delta(text, text).is_some(), "an equal text is one copy");
    }

    #[test]
    fn pieces_that_moved_are_found() {
        let (a, b) = ("0123456789abcdefghijklmnopqrstuvwxyz", "The quick brown fox jumps over the lazy dog");
        let moved = delta(&format!("{a}{b}{a}"), &format!("!{b}?{a}.")).expect("a gain");
        assert!(moved.len() < 30, "two copies: {moved}");
    }

    #[test]
    fn no_character_is_cut() {
        // They differ in the last byte only, or in the first.
        for (one, other) in [("ä", "ö"), ("€", "₭"), ("🌊", "🌋"), ("é", "©"), ("Ω", "Ÿ")] {
            for filler in ["", "x", "long enough to be worth it ", "áéíóú áéíóú "] {
                let text = |middle: &str| format!("{filler}{middle}{filler}{middle}{filler}");
                delta(&text(one), &text(other));
                delta(&format!("{filler}{one}"), &format!("{filler}{other}"));
                delta(&format!("{one}{filler}"), &format!("{other}{filler}"));
            }
        }
    }

    #[test]
    fn repetition_does_not_make_it_slow() {
        // Quadratic work would be 10^12 steps here.
        let (a, b) = ("a".repeat(1_000_000), "ab".repeat(500_000));
        assert!(delta(&a, &a).is_some_and(|delta| delta.len() < 30));
        delta(&a, &b);
        delta(&b, &a);
        let nearly: String =
            (0..60_000).map(|n| if n % 3 == 0 { "aaaaaaaaaaaaaaaa" } else { "aaaaaaaaaaaaaaab" }).collect();
        assert!(delta(&a, &nearly).is_some() && delta(&nearly, &b).is_none_or(|delta| delta.len() < b.len()));
    }

    /// Texts of few words and many bytes, so that pieces are shared and moved.
    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            4 => prop::sample::select(&["kitchen", "0123456789abcdef", "ÄÖÜäöüßéèê", "🌊🌋", "\"temp\":21.5,", "aaaaaaaaaaaaaaaa"][..])
                .prop_map(str::to_owned),
            1 => ".{0,20}",
        ];
        prop::collection::vec(word, 0..30).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_delta_makes_the_target_of_the_source_and_is_a_shorter_text(source in text(), target in text()) {
            delta(&source, &target);
        }

        #[test]
        fn an_edit_in_a_long_text_is_a_short_delta(
            source in "[ -~áé€🌊]{300,600}",
            at in any::<prop::sample::Index>(),
            new in "[ -~€]{0,10}",
        ) {
            let mut places = source.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
            places.push(source.len());
            let at = *at.get(&places);
            let target = format!("{}{new}{}", &source[..at], &source[at..]);
            let made = delta(&source, &target).expect("a gain");
            prop_assert!(made.len() <= 40 + new.len(), "{} bytes for {:?} at {}", made.len(), new, at);
        }
    }
}
