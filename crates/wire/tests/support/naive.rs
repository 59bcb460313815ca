//! RFC 1951, read word for word and slowly: the oracle for who may refer how far back.

/// A receiver of compressed messages: its window, and the agreement about it.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) window_bits: u8,
    /// How far back a message may refer to what is still there: as agreed, or further for a lenient receiver.
    pub(crate) reach_bits: u8,
    pub(crate) forgets: bool,
    window: Vec<u8>,
}

struct Bits<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// Codes by length: how many there are of each, and their symbols in order.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Receiver {
    pub(crate) fn new(window_bits: u8, forgets: bool) -> Receiver {
        Receiver { window_bits, reach_bits: window_bits, forgets, window: Vec::new() }
    }

    /// The message whose frames have this payload; `None` if it is not one, or refers too far back.
    pub(crate) fn receive(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let bytes = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut bits = Bits { bytes: &bytes, at: 0 };
        let start = self.window.len();
        while bits.at + 8 <= bytes.len() * 8 {
            let is_last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => self.stored(&mut bits)?,
                1 => self.coded(&mut bits, &Code::fixed(), &Code::new(&[5; 30]))?,
                2 => {
                    let (literals, distances) = bits.codes()?;
                    self.coded(&mut bits, &literals, &distances)?;
                }
                _ => return None,
            }
            if is_last {
                bits.at = bits.at.next_multiple_of(8);
            }
        }
        let message = self.window[start..].to_vec();
        let keep = if self.forgets { 0 } else { self.window.len().min(1 << self.window_bits) };
        self.window.drain(..self.window.len() - keep);
        Some(message)
    }

    fn stored(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        bits.at = bits.at.next_multiple_of(8);
        let (len, inverse) = (bits.take(16)?, bits.take(16)?);
        if len != !inverse & 0xffff {
            return None;
        }
        for _ in 0..len {
            self.window.push(bits.take(8)? as u8);
        }
        Some(())
    }

    fn coded(&mut self, bits: &mut Bits<'_>, literals: &Code, distances: &Code) -> Option<()> {
        loop {
            match literals.read(bits)? {
                symbol @ 0..256 => self.window.push(symbol as u8),
                256 => return Some(()),
                symbol => {
                    let (base, extra) = *LENGTHS.get(usize::from(symbol) - 257)?;
                    let len = usize::from(base) + bits.take(extra)? as usize;
                    let (base, extra) = *DISTANCES.get(usize::from(distances.read(bits)?))?;
                    let distance = usize::from(base) + bits.take(extra)? as usize;
                    if distance > 1 << self.reach_bits {
                        return None;
                    }
                    for _ in 0..len {
                        let from = self.window.len().checked_sub(distance)?;
                        self.window.push(self.window[from]);
                    }
                }
            }
        }
    }
}

impl Bits<'_> {
    fn take(&mut self, count: u8) -> Option<u32> {
        let mut value = 0;
        for place in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Some(value)
    }

    /// The codes that a block brings with it (3.2.7).
    fn codes(&mut self) -> Option<(Code, Code)> {
        let literals = self.take(5)? as usize + 257;
        let distances = self.take(5)? as usize + 1;
        let count = self.take(4)? as usize + 4;
        let mut lengths = [0; 19];
        for &place in &ORDER[..count] {
            lengths[place] = self.take(3)? as u8;
        }
        let code = Code::new(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (length, times) = match code.read(self)? {
                16 => (*lengths.last()?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length as u8, 1),
            };
            lengths.extend((0..times).map(|_| length));
        }
        (lengths.len() == literals + distances)
            .then(|| (Code::new(&lengths[..literals]), Code::new(&lengths[literals..])))
    }
}

impl Code {
    fn new(lengths: &[u8]) -> Code {
        let mut counts = [0; 16];
        let mut symbols = Vec::new();
        for (length, count) in counts.iter_mut().enumerate().skip(1) {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, l)| usize::from(**l) == length) {
                *count += 1;
                symbols.push(symbol as u16);
            }
        }
        Code { counts, symbols }
    }

    fn fixed() -> Code {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        Code::new(&lengths)
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0_u32, 0_u32, 0_u32);
        for length in 1..16 {
            code |= bits.take(1)?;
            let count = u32::from(self.counts[length]);
            if code < first + count {
                return self.symbols.get((index + code - first) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}
