//! Publications as the bytes that go on the wire: made once per encoding and worker, whatever the audience.

use crate::dialect::centrifugo::{Format, Payload};
use crate::dialect::{json_publications, plain};
use wire::ws::OpCode;

/// What a publication has to look like for a connection. Its number is what the hub stores beside a subscriber.
///
/// Of a subscription that takes deltas the number tells as well whether it has the publication before: see
/// [`crate::deltas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Centrifugo JSON in WebSocket text frames.
    CentrifugoJson = 0,
    /// The plain dialect in WebSocket text frames.
    Plain = 1,
    /// Centrifugo Protobuf in WebSocket binary frames.
    CentrifugoProtobuf = 2,
    /// Centrifugo JSON for a subscription with deltas that has nothing to patch yet. Payloads are strings.
    CentrifugoJsonFirst = 3,
    /// Centrifugo Protobuf for a subscription with deltas that has nothing to patch yet.
    CentrifugoProtobufFirst = 4,
    /// Centrifugo JSON for a subscription that has the publication before.
    CentrifugoJsonDelta = 5,
    /// Centrifugo Protobuf for a subscription that has the publication before.
    CentrifugoProtobufDelta = 6,
}

const ALL: [Encoding; Encoding::COUNT] = [
    Encoding::CentrifugoJson,
    Encoding::Plain,
    Encoding::CentrifugoProtobuf,
    Encoding::CentrifugoJsonFirst,
    Encoding::CentrifugoProtobufFirst,
    Encoding::CentrifugoJsonDelta,
    Encoding::CentrifugoProtobufDelta,
];

impl Encoding {
    /// How many there are; numbers run from 0.
    pub const COUNT: usize = 7;

    /// From the number given out by `as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        ALL.into_iter().find(|encoding| *encoding as u8 == number)
    }

    /// The transport and the protocol of who reads this, by the names that backends are told.
    pub fn spoken_over(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("uni_websocket", "json"),
            encoding if encoding.opcode() == OpCode::Binary => ("websocket", "protobuf"),
            _ => ("websocket", "json"),
        }
    }

    /// Whether a subscription whose encoding has this number takes deltas.
    pub fn takes_deltas(number: u8) -> bool {
        number >= Self::CentrifugoJsonFirst as u8
    }

    /// How a subscription with deltas begins. Where there are no deltas: as one without.
    pub fn first(self) -> Self {
        match self {
            Self::CentrifugoJson => Self::CentrifugoJsonFirst,
            Self::CentrifugoProtobuf => Self::CentrifugoProtobufFirst,
            other => other,
        }
    }

    /// What a subscription with deltas reads after it got a publication; nothing where that changes nothing.
    pub fn after_first(number: u8) -> Option<Self> {
        const JSON: u8 = Encoding::CentrifugoJsonFirst as u8;
        const PROTOBUF: u8 = Encoding::CentrifugoProtobufFirst as u8;
        match number {
            JSON => Some(Self::CentrifugoJsonDelta),
            PROTOBUF => Some(Self::CentrifugoProtobufDelta),
            _ => None,
        }
    }

    /// The reverse, of whatever number: a publication is missing, or may be before this one is sent.
    pub fn set_back(number: u8) -> u8 {
        const JSON: u8 = Encoding::CentrifugoJsonDelta as u8;
        const PROTOBUF: u8 = Encoding::CentrifugoProtobufDelta as u8;
        match number {
            JSON => Self::CentrifugoJsonFirst as u8,
            PROTOBUF => Self::CentrifugoProtobufFirst as u8,
            other => other,
        }
    }

    /// The first one of those that look the same as this one, by number: what is made for one of them is for all.
    pub fn looks_like(has_patch: bool) -> [Self; Self::COUNT] {
        ALL.map(|encoding| match encoding {
            Self::CentrifugoJsonDelta if !has_patch => Self::CentrifugoJsonFirst,
            Self::CentrifugoProtobufDelta if !has_patch => Self::CentrifugoProtobuf,
            // Bytes are bytes: a whole payload looks the same to those who take deltas.
            Self::CentrifugoProtobufFirst => Self::CentrifugoProtobuf,
            other => other,
        })
    }

    /// Appends the whole frame of one publication. `patch` makes it of the one before; those who take none, or cannot yet,
    /// get it whole. `scratch` is reused between calls.
    pub fn publication(
        self,
        publication: &hub::Publication,
        patch: Option<&str>,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let opcode = self.payload(publication, patch, scratch);
        wire::ws::write_frame(out, opcode, true, scratch, None);
    }

    /// The same without the frame around it, as what is to be compressed: `out` holds it alone afterwards.
    pub(crate) fn payload(self, publication: &hub::Publication, patch: Option<&str>, out: &mut Vec<u8>) -> OpCode {
        out.clear();
        let text = patch.map_or(Payload::Text, Payload::Patch);
        let bytes = patch.map_or(Payload::Whole, Payload::Patch);
        let (format, payload) = match self {
            Self::Plain => {
                plain::publication(out, publication);
                return OpCode::Text;
            }
            Self::CentrifugoJson => (Format::Json, Payload::Whole),
            Self::CentrifugoJsonFirst => (Format::Json, Payload::Text),
            Self::CentrifugoJsonDelta => (Format::Json, text),
            Self::CentrifugoProtobuf | Self::CentrifugoProtobufFirst => (Format::Protobuf, Payload::Whole),
            Self::CentrifugoProtobufDelta => (Format::Protobuf, bytes),
        };
        format.publication(out, publication, payload);
        format.opcode()
    }

    /// What its frames are.
    pub fn opcode(self) -> OpCode {
        match self {
            Self::Plain | Self::CentrifugoJson | Self::CentrifugoJsonFirst | Self::CentrifugoJsonDelta => OpCode::Text,
            Self::CentrifugoProtobuf | Self::CentrifugoProtobufFirst | Self::CentrifugoProtobufDelta => OpCode::Binary,
        }
    }

    /// Appends the whole frame of a push that tells who has come or gone. `scratch` is reused between calls.
    pub fn announcement(self, announcement: &hub::Announcement, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        let opcode = match self.format() {
            None => {
                plain::announcement(scratch, announcement);
                OpCode::Text
            }
            Some(format) => {
                format.announcement(scratch, announcement);
                format.opcode()
            }
        };
        wire::ws::write_frame(out, opcode, true, scratch, None);
    }

    /// The format of Centrifugo's messages, if they are that.
    fn format(self) -> Option<Format> {
        match self {
            Self::Plain => None,
            Self::CentrifugoJson | Self::CentrifugoJsonFirst | Self::CentrifugoJsonDelta => Some(Format::Json),
            Self::CentrifugoProtobuf | Self::CentrifugoProtobufFirst | Self::CentrifugoProtobufDelta => {
                Some(Format::Protobuf)
            }
        }
    }

    /// The first encoding, by number, in which an announcement looks the same as in this one.
    pub fn of_announcements(self) -> Self {
        match self.format() {
            None => Self::Plain,
            Some(Format::Json) => Self::CentrifugoJson,
            Some(Format::Protobuf) => Self::CentrifugoProtobuf,
        }
    }

    /// Appends publications as they stand in a subscribe result, without what is around them.
    pub(crate) fn missed(self, missed: &hub::Missed, out: &mut Vec<u8>) {
        let Some(format) = self.format() else { return json_publications(out, &missed.publications) };
        format.missed(out, &missed.publications, Self::takes_deltas(self as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_from_zero_and_lead_back() {
        for (number, encoding) in (0..).zip(ALL) {
            assert_eq!((encoding as u8, Encoding::from_number(number)), (number, Some(encoding)));
            let first = encoding.first();
            assert_eq!(Encoding::takes_deltas(first as u8), encoding != Encoding::Plain);
            if let Some(next) = Encoding::after_first(first as u8) {
                assert_eq!((Encoding::set_back(next as u8), Encoding::after_first(next as u8)), (first as u8, None));
            }
            assert!(Encoding::after_first(Encoding::set_back(number)).is_some() || !Encoding::takes_deltas(number));
        }
        assert_eq!(Encoding::from_number(Encoding::COUNT as u8), None);
    }

    #[test]
    fn what_looks_alike_is_alike() {
        let position = hub::Position { offset: hub::Offset(1), epoch: hub::Epoch::from_seed(1) };
        let (channel, data) = (hub::Channel::new("c"), b"{\"a\":\"\xc3\xa4\"}".as_slice().into());
        let publication = hub::Publication { channel, data, info: None, tags: None, position, time: None };
        for patch in [None, Some("1\n0;")] {
            let frame = |encoding: Encoding| {
                let mut out = Vec::new();
                encoding.publication(&publication, patch, &mut Vec::new(), &mut out);
                out
            };
            let looks = Encoding::looks_like(patch.is_some());
            for (encoding, look) in ALL.into_iter().zip(looks) {
                for other in ALL {
                    assert_eq!(
                        frame(encoding) == frame(other),
                        look == looks[other as usize],
                        "{encoding:?} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_was_missed_is_text_for_those_who_take_deltas_in_json_and_the_same_for_all_others_of_a_format() {
        let position = hub::Position { offset: hub::Offset(1), epoch: hub::Epoch::from_seed(1) };
        let (channel, data) = (hub::Channel::new("c"), b"{\"a\":1}".as_slice().into());
        let publication =
            hub::Publication { channel: channel.clone(), data, info: None, tags: None, position, time: None };
        let publication = std::sync::Arc::new(publication);
        let missed = hub::Missed { channel, to: position, publications: [publication.clone(), publication].into() };
        let text = |encoding: Encoding| {
            let mut out = Vec::new();
            encoding.missed(&missed, &mut out);
            out
        };
        assert_eq!(text(Encoding::CentrifugoJson), br#"{"data":{"a":1}},{"data":{"a":1}}"#);
        assert_eq!(text(Encoding::CentrifugoJsonFirst), br#"{"data":"{\"a\":1}"},{"data":"{\"a\":1}"}"#);
        let looks = Encoding::looks_like(false);
        for encoding in ALL.into_iter().filter(|encoding| *encoding != Encoding::Plain) {
            for other in ALL.into_iter().filter(|other| *other != Encoding::Plain) {
                let alike = looks[encoding as usize] == looks[other as usize];
                assert_eq!(text(encoding) == text(other), alike, "{encoding:?} {other:?}");
            }
        }
    }
}
