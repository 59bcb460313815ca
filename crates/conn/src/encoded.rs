//! Publications as the bytes that go on the wire: made once per encoding and worker, whatever the audience.

use crate::dialect::{centrifugo, plain};
use wire::ws::OpCode;

/// What a publication has to look like for a connection. Its number is what the hub stores beside a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Centrifugo JSON in WebSocket text frames.
    CentrifugoJson = 0,
    /// The plain dialect in WebSocket text frames.
    Plain = 1,
}

impl Encoding {
    /// How many there are; numbers run from 0.
    pub const COUNT: usize = 2;

    /// From the number given out by `as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::CentrifugoJson, Self::Plain].into_iter().find(|e| *e as u8 == number)
    }

    /// Appends the whole frame of one publication. `scratch` is reused between calls.
    pub fn publication(self, publication: &hub::Publication, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        match self {
            Self::CentrifugoJson => centrifugo::json::publication(scratch, publication),
            Self::Plain => plain::publication(scratch, publication),
        }
        wire::ws::write_frame(out, OpCode::Text, true, scratch, None);
    }
}
