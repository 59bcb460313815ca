//! Publications as the bytes that go on the wire: made once per encoding and worker, whatever the audience.

use crate::dialect::{centrifugo::Format, json_publications, plain};
use wire::ws::OpCode;

/// What a publication has to look like for a connection. Its number is what the hub stores beside a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Centrifugo JSON in WebSocket text frames.
    CentrifugoJson = 0,
    /// The plain dialect in WebSocket text frames.
    Plain = 1,
    /// Centrifugo Protobuf in WebSocket binary frames.
    CentrifugoProtobuf = 2,
}

impl Encoding {
    /// How many there are; numbers run from 0.
    pub const COUNT: usize = 3;

    /// From the number given out by `as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::CentrifugoJson, Self::Plain, Self::CentrifugoProtobuf].into_iter().find(|e| *e as u8 == number)
    }

    /// Appends the whole frame of one publication. `scratch` is reused between calls.
    pub fn publication(self, publication: &hub::Publication, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        let opcode = match self {
            Self::CentrifugoJson => centrifugo(Format::Json, scratch, publication),
            Self::CentrifugoProtobuf => centrifugo(Format::Protobuf, scratch, publication),
            Self::Plain => {
                plain::publication(scratch, publication);
                OpCode::Text
            }
        };
        wire::ws::write_frame(out, opcode, true, scratch, None);
    }

    /// Appends publications as they stand in a subscribe result, without what is around them.
    pub(crate) fn missed(self, missed: &hub::Missed, out: &mut Vec<u8>) {
        match self {
            Self::CentrifugoJson => Format::Json.missed(out, &missed.publications),
            Self::Plain => json_publications(out, &missed.publications),
            Self::CentrifugoProtobuf => Format::Protobuf.missed(out, &missed.publications),
        }
    }
}

fn centrifugo(format: Format, scratch: &mut Vec<u8>, publication: &hub::Publication) -> OpCode {
    format.publication(scratch, publication);
    format.opcode()
}
