//! Frame headers (RFC 6455, 5.2) and everything that can be wrong with a frame.
//!
//! ```text
//!  0               1               2               3
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R|opcode |M|  length (7) | length, 16 or 64 bits, only   |
//! |I|S|S|S|  (4)  |A|             | if the 7 bits are 126 or 127; |
//! |N|V|V|V|       |S|             | then the mask, 32 bits, only  |
//! | |1|2|3|       |K|             | if MASK is set; then payload  |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! ```

use super::{CloseCode, Limits, MessageKind, Role};
use std::fmt;

/// The type of a frame (5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OpCode {
    /// A later fragment of a message.
    Continuation = 0,
    /// The first frame of a text message.
    Text = 1,
    /// The first frame of a binary message.
    Binary = 2,
    /// The last frame of its sender.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or says unasked that the sender is alive.
    Pong = 10,
}

impl OpCode {
    /// The opcode with this number; `None` for the reserved ones.
    pub const fn new(number: u8) -> Option<OpCode> {
        Some(match number {
            0 => OpCode::Continuation,
            1 => OpCode::Text,
            2 => OpCode::Binary,
            8 => OpCode::Close,
            9 => OpCode::Ping,
            10 => OpCode::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: at most 125 bytes, never fragmented, allowed between fragments (5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// The peer broke RFC 6455 or one of our limits. The connection is closed with
/// [`FrameError::close_code`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// RSV bits set that no negotiated extension defines for this frame (5.2); the value is RSV1-3 as a number. With
    /// permessage-deflate RSV1 (4) belongs on the first frame of a compressed message and nowhere else (RFC 7692, 6).
    ReservedBits(u8),
    /// An opcode without a meaning (5.2).
    ReservedOpCode(u8),
    /// A client must mask (5.1).
    MaskMissing,
    /// A server must not mask (5.1).
    MaskPresent,
    /// A control frame without FIN (5.5).
    ControlFragmented(OpCode),
    /// A control frame longer than 125 bytes (5.5).
    ControlTooLong(OpCode),
    /// A length written with more bytes than it needs (5.2).
    LengthNotMinimal(u64),
    /// A 64-bit length with the top bit set (5.2).
    LengthTopBit(u64),
    /// A continuation while no message is being assembled (5.4).
    ContinuationUnexpected,
    /// A new message while another is being assembled (5.4).
    ContinuationExpected(OpCode),
    /// A close payload of one byte: half a code (5.5.1).
    CloseCodeCut,
    /// A close code that must not be sent (7.4).
    CloseCode(CloseCode),
    /// A close reason that is not UTF-8 (5.5.1).
    CloseReasonUtf8,
    /// A text message that is not UTF-8 (8.1).
    TextUtf8,
    /// The message would have at least this many bytes, more than [`Limits::message_bytes_max`].
    MessageTooLong(u64),
    /// The message has more frames than [`Limits::fragments_max`].
    TooManyFragments(u32),
    /// A compressed message that is not what a compressor puts out, or not all of it (RFC 7692, 7.2.2).
    Corrupt,
    /// A compressed message with more than [`crate::limits::FINAL_BLOCKS_MAX`] blocks that say they are the last.
    TooManyFinalBlocks,
}

impl FrameError {
    /// The code of the close frame that answers this.
    pub fn close_code(&self) -> CloseCode {
        match self {
            FrameError::TextUtf8 | FrameError::CloseReasonUtf8 | FrameError::Corrupt => CloseCode::INVALID_PAYLOAD,
            FrameError::MessageTooLong(_) | FrameError::TooManyFragments(_) | FrameError::TooManyFinalBlocks => {
                CloseCode::TOO_BIG
            }
            _ => CloseCode::PROTOCOL,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::ReservedBits(bits) => write!(f, "reserved bits {bits:03b} are set"),
            FrameError::ReservedOpCode(number) => write!(f, "opcode {number:#x} is reserved"),
            FrameError::MaskMissing => f.write_str("frame from a client is not masked"),
            FrameError::MaskPresent => f.write_str("frame from a server is masked"),
            FrameError::ControlFragmented(op) => write!(f, "{op:?} frame is fragmented"),
            FrameError::ControlTooLong(op) => write!(f, "{op:?} frame is longer than 125 bytes"),
            FrameError::LengthNotMinimal(len) => write!(f, "length {len} is not minimal"),
            FrameError::LengthTopBit(len) => write!(f, "length {len:#x} has its top bit set"),
            FrameError::ContinuationUnexpected => f.write_str("continuation of no message"),
            FrameError::ContinuationExpected(op) => write!(f, "{op:?} frame inside a message"),
            FrameError::CloseCodeCut => f.write_str("close code of one byte"),
            FrameError::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            FrameError::CloseReasonUtf8 => f.write_str("close reason is not UTF-8"),
            FrameError::TextUtf8 => f.write_str("text is not UTF-8"),
            FrameError::MessageTooLong(len) => write!(f, "message of {len} bytes is too long"),
            FrameError::TooManyFragments(n) => write!(f, "message of {n} fragments is too many"),
            FrameError::Corrupt => f.write_str("compressed message is corrupt"),
            FrameError::TooManyFinalBlocks => f.write_str("compressed message ends too often"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The message being assembled, as far as the next header must agree with it.
#[derive(Clone, Copy)]
pub(super) struct Assembled {
    pub(super) len: usize,
    pub(super) fragments: u32,
    pub(super) compressed: bool,
}

/// What [`Header::parse`] checks a header against.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) role: Role,
    pub(super) limits: &'a Limits,
    /// Whether RSV1 may mark a compressed message.
    pub(super) deflate: bool,
    /// `None` between messages.
    pub(super) message: Option<Assembled>,
}

/// A frame header that passed every check that can be made without the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    /// The first frame of a compressed message.
    pub(super) compressed: bool,
    /// `None` from a server.
    pub(super) mask: Option<[u8; 4]>,
    /// At most 125, [`Limits::message_bytes_max`] or [`Limits::compressed_bytes_max`].
    pub(super) payload_len: usize,
    /// Bytes of the header itself.
    pub(super) header_len: usize,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` while it is incomplete.
    ///
    /// Each field is judged as soon as it is there, so a bad first byte is refused before the
    /// second arrives, and a length over the limit before the mask.
    pub(super) fn parse(bytes: &[u8], context: Context<'_>) -> Result<Option<Header>, FrameError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let (fin, opcode, compressed) = check_first(first, context)?;
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        check_second(second, opcode, context.role)?;
        let Some((len, mask_at)) = parse_length(second & 0x7f, &bytes[2..])? else {
            return Ok(None);
        };
        let payload_len = check_length(len, opcode, compressed, context)?;
        let mask_at = mask_at + 2;
        let (mask, header_len) = match context.role {
            Role::Client => (None, mask_at),
            Role::Server => match bytes[mask_at..].first_chunk::<4>() {
                Some(key) => (Some(*key), mask_at + 4),
                None => return Ok(None),
            },
        };
        Ok(Some(Header { fin, opcode, compressed, mask, payload_len, header_len }))
    }

    /// What kind of message this frame starts; `None` for continuations and control frames.
    pub(super) fn starts(&self) -> Option<MessageKind> {
        match self.opcode {
            OpCode::Text => Some(MessageKind::Text),
            OpCode::Binary => Some(MessageKind::Binary),
            _ => None,
        }
    }
}

/// FIN, opcode and RSV1, and whether the opcode may come now.
fn check_first(byte: u8, context: Context<'_>) -> Result<(bool, OpCode, bool), FrameError> {
    let fin = byte & 0x80 != 0;
    let number = byte & 0x0f;
    let compressed = byte & 0x70 == 0x40 && context.deflate && matches!(number, 1 | 2);
    if byte & 0x70 != 0 && !compressed {
        return Err(FrameError::ReservedBits((byte >> 4) & 7));
    }
    let opcode = OpCode::new(number).ok_or(FrameError::ReservedOpCode(number))?;
    if opcode.is_control() {
        if !fin {
            return Err(FrameError::ControlFragmented(opcode));
        }
        return Ok((fin, opcode, false));
    }
    let fragments = match (context.message, opcode) {
        (None, OpCode::Continuation) => return Err(FrameError::ContinuationUnexpected),
        (None, _) => 1,
        (Some(message), OpCode::Continuation) => message.fragments.saturating_add(1),
        (Some(_), _) => return Err(FrameError::ContinuationExpected(opcode)),
    };
    if fragments > context.limits.fragments_max {
        return Err(FrameError::TooManyFragments(fragments));
    }
    Ok((fin, opcode, compressed))
}

/// MASK, and the 7-bit length of a control frame.
fn check_second(byte: u8, opcode: OpCode, role: Role) -> Result<(), FrameError> {
    match (role, byte & 0x80 != 0) {
        (Role::Server, false) => return Err(FrameError::MaskMissing),
        (Role::Client, true) => return Err(FrameError::MaskPresent),
        _ => {}
    }
    if opcode.is_control() && byte & 0x7f > 125 {
        return Err(FrameError::ControlTooLong(opcode));
    }
    Ok(())
}

/// The payload length and how many bytes its extended form takes in `rest`; `None`: incomplete.
fn parse_length(len7: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let (len, taken, minimum) = match len7 {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2, 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8, 1 << 16),
            None => return Ok(None),
        },
        _ => (u64::from(len7), 0, 0),
    };
    if len < minimum {
        return Err(FrameError::LengthNotMinimal(len));
    }
    if len >> 63 != 0 {
        return Err(FrameError::LengthTopBit(len));
    }
    Ok(Some((len, taken)))
}

/// Refuses a data frame that would make its message too long.
fn check_length(len: u64, opcode: OpCode, compressed: bool, context: Context<'_>) -> Result<usize, FrameError> {
    if !opcode.is_control() {
        let before = context.message.map_or(0, |message| message.len as u64);
        let total = before.saturating_add(len);
        let compressed = compressed || context.message.is_some_and(|message| message.compressed);
        let bytes_max =
            if compressed { context.limits.compressed_bytes_max() } else { context.limits.message_bytes_max };
        if total > bytes_max as u64 {
            return Err(FrameError::MessageTooLong(total));
        }
    }
    // At most 125 or a limit, which is a usize.
    Ok(len as usize)
}
