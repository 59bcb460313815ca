//! The WebSocket protocol (RFC 6455) and permessage-deflate (RFC 7692), both roles, without I/O.

pub mod client;
mod close;
pub mod deflate;
pub mod extension;
mod frame;
pub mod handshake;
mod mask;
mod reader;
mod utf8;
mod writer;

pub use close::CloseCode;
pub use frame::{FrameError, OpCode};
pub use mask::{apply_mask, apply_mask_at};
pub use reader::{Event, Reader};
pub use writer::{
    CLOSE_REASON_BYTES_MAX, HEADER_BYTES_MAX, write_close, write_compressed_header, write_frame, write_header,
};

use crate::limits;

/// Which end of the connection this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We accepted the connection: incoming frames must be masked, ours are not (5.1).
    Server,
    /// We opened the connection: incoming frames must not be masked, ours are (5.1).
    Client,
}

/// What a message carries (5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    /// The opcode of the first frame of such a message.
    pub fn opcode(self) -> OpCode {
        match self {
            MessageKind::Text => OpCode::Text,
            MessageKind::Binary => OpCode::Binary,
        }
    }
}

/// What a peer may make us hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one message, all its fragments together. A frame that would exceed it is refused
    /// as soon as its header says so.
    pub message_bytes_max: usize,
    /// Frames of one message; empty ones count, and so does the only frame of an unfragmented one.
    pub fragments_max: u32,
}

impl Limits {
    /// Bytes of one message as they are received when it is compressed. Compression can make a message larger, by a
    /// eighth with a compressor that always uses the fixed code, so that more than this is never a permitted one.
    pub fn compressed_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(self.message_bytes_max / 8).saturating_add(64)
    }
}

impl Default for Limits {
    /// [`limits::MESSAGE_BYTES_MAX`] and [`limits::FRAGMENTS_MAX`].
    fn default() -> Limits {
        Limits { message_bytes_max: limits::MESSAGE_BYTES_MAX, fragments_max: limits::FRAGMENTS_MAX }
    }
}
