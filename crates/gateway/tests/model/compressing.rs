//! permessage-deflate at a simulated client's end: what comes is inflated by a naive reading of RFC 1951, byte by byte, and
//! what goes out refers to what went before.

use crate::naive::Receiver;
use std::cell::RefCell;
use wire::ws::deflate::{Compressor, Level, Mark, MarkSource, Marks, Previous};
use wire::ws::extension::{ClientWindow, Offer, Params};
use wire::ws::{OpCode, Role, apply_mask, write_compressed_header, write_frame};

/// What of a frame that carries a publication only a policy that may drop it has let go.
const MAY_GO: [&[u8]; 6] = [b"\"skip:", b"\"newest:", b"\"tagged:", b"\"keptskip:", b"\"keptnewest:", b"\"kepttagged:"];

thread_local! {
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new(Level::default()));
}

/// Offers as different clients make them.
pub fn offer(random: &mut fastrand::Rng) -> Offer {
    let clients = [ClientWindow::Unsaid, ClientWindow::Any, ClientWindow::Bits(9), ClientWindow::Bits(15)];
    Offer {
        server_no_context_takeover: random.u32(..5) == 0,
        client_no_context_takeover: random.u32(..5) == 0,
        server_max_window_bits: [None, Some(9), Some(12)][random.usize(..3)],
        client_max_window_bits: clients[random.usize(..clients.len())],
    }
}

/// A connection on which compression was agreed.
#[derive(Debug)]
pub struct Compressing {
    receiver: Receiver,
    /// The part of a frame that has come.
    received: Vec<u8>,
    marks: Marks,
    source: MarkSource,
    sent: Option<(Mark, Vec<u8>)>,
    /// Some compressed publications that a policy may drop do not reach it.
    drops: Option<fastrand::Rng>,
    /// Compressed messages that came.
    pub inflated: u64,
}

impl Compressing {
    pub fn new(params: Params, drops: Option<fastrand::Rng>) -> Self {
        let direction = params.incoming(Role::Client);
        Self {
            receiver: Receiver::new(direction.window_bits(), direction.forgets()),
            received: Vec::new(),
            marks: Marks::new(params, Role::Client),
            source: MarkSource::default(),
            sent: None,
            drops,
            inflated: 0,
        }
    }

    /// The same frames without compression, as far as they are whole.
    pub fn plain(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.received.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some((head, len)) = frame_len(&self.received) {
            if self.received.len() < head + len {
                break;
            }
            let frame: Vec<u8> = self.received.drain(..head + len).collect();
            if frame[0] & 0x40 == 0 {
                out.extend_from_slice(&frame);
                continue;
            }
            let before = self.receiver.clone();
            let message =
                self.receiver.receive(&frame[head..]).ok_or("a compressed message that cannot be inflated")?;
            self.inflated += 1;
            if self.is_dropped(&message) {
                self.receiver = before;
                continue;
            }
            let opcode = if frame[0] & 15 == 1 { OpCode::Text } else { OpCode::Binary };
            write_frame(&mut out, opcode, frame[0] & 0x80 != 0, &message, None);
        }
        Ok(out)
    }

    fn is_dropped(&mut self, message: &[u8]) -> bool {
        let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
        let Some(random) = &mut self.drops else { return false };
        has(b"\"pub\":") && MAY_GO.iter().any(|name| has(name)) && random.u32(..20) == 0
    }

    /// A message of ours, compressed if that makes it shorter.
    pub fn frame(&mut self, opcode: OpCode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let (mut out, mut packed) = (Vec::new(), Vec::new());
        let previous = self.sent.as_ref().filter(|(mark, _)| self.marks.is_at(*mark));
        let previous = previous.map(|(mark, payload)| Previous { mark: *mark, payload });
        let compressed =
            COMPRESSOR.with_borrow_mut(|c| c.compress(payload, previous, payload.len().saturating_sub(1), &mut packed));
        match compressed.filter(|compressed| self.marks.accepts(compressed)) {
            None => write_frame(&mut out, opcode, true, payload, Some(mask)),
            Some(_) => {
                let mark = self.source.draw();
                self.marks.sent(mark);
                self.sent = Some((mark, payload.to_vec()));
                write_compressed_header(&mut out, opcode, packed.len(), Some(mask));
                apply_mask(&mut packed, mask);
                out.extend_from_slice(&packed);
            }
        }
        out
    }
}

/// Bytes of the first frame's header and of its payload, once they are known. Servers do not mask.
fn frame_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let field = |len: usize| Some(bytes.get(2..2 + len)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    match *bytes.get(1)? {
        126 => Some((4, field(2)?)),
        127 => Some((10, field(8)?)),
        len => Some((2, usize::from(len))),
    }
}
