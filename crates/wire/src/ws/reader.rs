//! Received bytes to messages and control frames (RFC 6455, 5.4 to 5.6, 7 and 8.1; RFC 7692, 6).
//!
//! Two ways lead to an event. A frame that is whole in the received chunk, and a message by itself,
//! is unmasked in place and handed out as a slice of the chunk: nothing is copied or allocated.
//! Anything else is gathered piece by piece in a boxed [`Partial`], which is freed as soon as the
//! caller is done with the event; so a connection between two messages owns no memory at all, unless its
//! peer compresses: then the end of what it sent is kept. Compressed messages are inflated once they are complete.
//!
//! ```text
//!            header incomplete                 payload incomplete, or FIN is missing
//!   Idle ------------------------> header ------------------------------> Partial
//!    ^  kept in the reader (13 B)    |                                       |
//!    |                               | whole frame, whole message            | FIN, last byte
//!    +-------- event: slice of chunk +                event: slice of buffer |
//!    +-----------------------------------------------------------------------+
//!              close frame or error: Ended, for good
//! ```

use super::deflate::{History, InflateError, Inflater};
use super::extension::{Direction, Params};
use super::frame::{Assembled, Context, Header};
use super::utf8::{self, Utf8};
use super::{CloseCode, FrameError, HEADER_BYTES_MAX, Limits, MessageKind, OpCode, Role, apply_mask, close, mask};
use std::mem;

/// The bytes of a header that is not complete: one less than the longest.
const HEADER_CUT_BYTES_MAX: usize = HEADER_BYTES_MAX - 1;

const _: () = assert!(size_of::<Reader>() <= 32, "one per connection: a million are 32 MB");

/// Turns the bytes received on one connection into [`Event`]s.
///
/// ```
/// use wire::ws::{Event, FrameError, Limits, Reader, Role};
///
/// fn received(reader: &mut Reader, mut chunk: &mut [u8]) -> Result<usize, FrameError> {
///     let limits = Limits::default();
///     let mut messages = 0;
///     while let Some(event) = reader.next(&mut chunk, &limits)? {
///         match event {
///             Event::Message { .. } => messages += 1,
///             Event::Ping(_) | Event::Pong(_) | Event::Close { .. } => {}
///         }
///     }
///     Ok(messages)
/// }
///
/// let mut reader = Reader::new(Role::Client);
/// assert_eq!(received(&mut reader, &mut b"\x81\x02hi\x82\x02".to_vec()), Ok(1));
/// assert!(!reader.is_idle());
/// assert_eq!(received(&mut reader, &mut b"yo".to_vec()), Ok(1));
/// assert!(reader.is_idle());
/// ```
#[derive(Debug)]
pub struct Reader {
    partial: Option<Box<Partial>>,
    /// What the next compressed message may refer to.
    history: Option<Box<History>>,
    /// The start of a header whose end has not been received.
    header: [u8; HEADER_CUT_BYTES_MAX],
    header_len: u8,
    /// `None` after an error or a close frame: nothing is read any more (7.1.1, 7.1.7).
    role: Option<Role>,
    /// `None`: messages are never compressed.
    deflate: Option<Direction>,
}

/// What the peer sent: a whole message or a control frame. Borrows from the chunk or the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The application's bytes; of a text they are valid UTF-8.
        payload: &'a [u8],
    },
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping of ours, or a unilateral sign of life.
    Pong(&'a [u8]),
    /// The peer closes; nothing comes after it.
    Close {
        /// `None` if the frame was empty.
        code: Option<CloseCode>,
        /// Often empty.
        reason: &'a str,
    },
}

/// What must survive until the next chunk. At least one of the three parts is in use, or an event
/// was made of this and the next call frees it.
#[derive(Default, Debug)]
struct Partial {
    message: Option<Message>,
    frame: Option<Frame>,
    /// The payload of an incomplete control frame; at most 125 bytes.
    control: Vec<u8>,
    /// The part that was handed out and is freed by the next call.
    spent: Option<Buffered>,
}

/// A message that is being assembled.
#[derive(Debug)]
struct Message {
    kind: MessageKind,
    fragments: u32,
    compressed: bool,
    utf8: Utf8,
    payload: Vec<u8>,
}

/// A frame whose payload is being received.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    fin: bool,
    /// The key as it applies to the next piece.
    mask: Option<[u8; 4]>,
    /// Bytes of payload that have not been received.
    missing: usize,
}

/// Which part of [`Partial`] has become an event.
#[derive(Clone, Copy, Debug)]
enum Buffered {
    Message,
    Control(OpCode),
}

/// The outcome of one step; it borrows nothing from the reader, so steps can be looped.
enum Step<'i> {
    /// The chunk is used up.
    Starved,
    /// Something was consumed; take another step.
    Onward,
    /// An event made of the chunk.
    Whole(Event<'i>),
    /// A compressed message that is whole in the chunk.
    Compressed(MessageKind, &'i [u8]),
    /// An event waits in the reader.
    Gathered(Buffered),
}

impl Reader {
    /// A reader for the end `role` of a new connection.
    pub fn new(role: Role) -> Reader {
        Reader {
            partial: None,
            history: None,
            header: [0; HEADER_CUT_BYTES_MAX],
            header_len: 0,
            role: Some(role),
            deflate: None,
        }
    }

    /// A reader for a connection on which permessage-deflate was agreed. It is read with [`Reader::next_inflating`].
    pub fn with_deflate(role: Role, params: Params) -> Reader {
        Reader { deflate: Some(params.incoming(role)), ..Reader::new(role) }
    }

    /// Takes bytes from the front of `input` until one event is complete (`Ok(Some)`) or all of
    /// `input` is consumed (`Ok(None)`). To be called in a loop: the call after the last event
    /// also frees what that event borrowed.
    ///
    /// Events that precede a bad frame are yielded first, the error when the bad frame is reached;
    /// within a frame it comes as early as the bytes prove it: a bad header byte before the rest
    /// of the header, a length over a limit before the payload, bad UTF-8 with the chunk that has
    /// its first bad octet. After an error or a [`Event::Close`] everything is consumed and
    /// ignored.
    ///
    /// Without an inflater a compressed message is one that was not agreed on: [`FrameError::ReservedBits`], whatever
    /// the reader was made with.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.read(input, limits, None, &mut 0)
    }

    /// Like [`Reader::next`], for connections that may compress. The inflater is whichever one is at hand: nothing of
    /// this connection stays in it.
    ///
    /// [`Limits::message_bytes_max`] holds for what a message is inflated to. Compressed text is judged when its
    /// message is complete.
    pub fn next_inflating<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.read(input, limits, Some(inflater), &mut 0)
    }

    /// Like these, adding to `frames` how many frames have begun: control frames and fragments without a byte count, too.
    pub fn next_counting<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
        inflater: Option<&'a mut Inflater>,
        frames: &mut u32,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.read(input, limits, inflater, frames)
    }

    fn read<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
        inflater: Option<&'a mut Inflater>,
        frames: &mut u32,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.release();
        let Some(role) = self.role else {
            self.partial = None;
            *input = &mut [];
            return Ok(None);
        };
        let rules = Rules { role, limits, deflate: self.deflate.is_some() && inflater.is_some() };
        let step = loop {
            match self.step(input, rules, frames) {
                Ok(Step::Onward) => {}
                Ok(step) => break step,
                Err(error) => {
                    self.end();
                    return Err(error);
                }
            }
        };
        let event = match step {
            Step::Starved | Step::Onward => return Ok(None),
            Step::Whole(event) => {
                if matches!(event, Event::Close { .. }) {
                    self.end();
                }
                return Ok(Some(event));
            }
            Step::Gathered(part) if !self.is_compressed(part) => return self.gathered(part).map(Some),
            Step::Gathered(part) => self.gathered_compressed(part, inflater, limits),
            Step::Compressed(kind, payload) => self.inflated(kind, payload, inflater, limits),
        };
        if event.is_err() {
            self.end();
        }
        event.map(Some)
    }

    /// Whether no part of a frame or message is held, so that the peer may leave without loss.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0
            && self.partial.as_ref().is_none_or(|partial| {
                partial.frame.is_none()
                    && (partial.message.is_none() || matches!(partial.spent, Some(Buffered::Message)))
            })
    }

    /// Memory held for a message whose end has not been received, in bytes.
    pub fn partial_bytes(&self) -> usize {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        message.map_or(0, |message| message.payload.capacity())
    }

    fn end(&mut self) {
        self.role = None;
        self.partial = None;
        self.history = None;
        self.header_len = 0;
    }

    /// Frees what the last event borrowed.
    fn release(&mut self) {
        let Some(partial) = &mut self.partial else {
            return;
        };
        match partial.spent.take() {
            None => return,
            Some(Buffered::Message) => partial.message = None,
            Some(Buffered::Control(_)) => partial.control = Vec::new(),
        }
        if partial.message.is_none() && partial.frame.is_none() {
            self.partial = None;
        }
    }

    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        rules: Rules<'_>,
        frames: &mut u32,
    ) -> Result<Step<'i>, FrameError> {
        if let Some(partial) = &mut self.partial
            && let Some(frame) = partial.frame.take()
        {
            return partial.gather(frame, input, rules.limits);
        }
        if input.is_empty() {
            return Ok(Step::Starved);
        }
        let Some(header) = self.take_header(input, rules)? else {
            return Ok(Step::Starved);
        };
        *frames += 1;
        let alone = header.opcode.is_control() || (header.fin && header.starts().is_some());
        if alone && input.len() >= header.payload_len {
            let payload = take(input, header.payload_len);
            let is_ascii = header.mask.is_some_and(|key| apply_mask(payload, key));
            if let (true, Some(kind)) = (header.compressed, header.starts()) {
                return Ok(Step::Compressed(kind, payload));
            }
            return whole(&header, payload, is_ascii).map(Step::Whole);
        }
        self.begin(&header);
        Ok(Step::Onward)
    }

    /// Takes a header from the input, together with what an earlier chunk had of it. `None`: the
    /// header is still incomplete and the input used up.
    fn take_header(&mut self, input: &mut &mut [u8], rules: Rules<'_>) -> Result<Option<Header>, FrameError> {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let context = Context {
            role: rules.role,
            limits: rules.limits,
            deflate: rules.deflate,
            message: message.map(|message| Assembled {
                len: message.payload.len(),
                fragments: message.fragments,
                compressed: message.compressed,
            }),
        };
        let held = usize::from(self.header_len);
        if held == 0
            && let Some(header) = Header::parse(input, context)?
        {
            take(input, header.header_len);
            return Ok(Some(header));
        }
        // The header is cut: put what was held and what is new together.
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..held].copy_from_slice(&self.header[..held]);
        let new = input.len().min(HEADER_BYTES_MAX - held);
        bytes[held..held + new].copy_from_slice(&input[..new]);
        match Header::parse(&bytes[..held + new], context)? {
            Some(header) => {
                take(input, header.header_len - held);
                self.header_len = 0;
                Ok(Some(header))
            }
            None => {
                // No header is longer than HEADER_BYTES_MAX, so all of the input went into it.
                take(input, new);
                self.header[..held + new].copy_from_slice(&bytes[..held + new]);
                self.header_len = (held + new) as u8;
                Ok(None)
            }
        }
    }

    /// A frame begins that is not whole in the input, or is a fragment.
    fn begin(&mut self, header: &Header) {
        let partial = self.partial.get_or_insert_default();
        partial.frame =
            Some(Frame { opcode: header.opcode, fin: header.fin, mask: header.mask, missing: header.payload_len });
        if let Some(kind) = header.starts() {
            partial.message = Some(Message {
                kind,
                fragments: 1,
                compressed: header.compressed,
                utf8: Utf8::default(),
                payload: Vec::new(),
            });
        } else if let Some(message) = &mut partial.message
            && header.opcode == OpCode::Continuation
        {
            message.fragments += 1;
        }
    }

    /// Hands out a part of what was gathered; the next call frees it.
    fn gathered(&mut self, part: Buffered) -> Result<Event<'_>, FrameError> {
        let partial = self.partial.as_mut().expect("a step just gathered an event in it");
        partial.spent = Some(part);
        match part {
            Buffered::Control(opcode) => {
                if opcode == OpCode::Close {
                    self.role = None;
                    self.history = None;
                }
                control(opcode, &partial.control)
            }
            Buffered::Message => {
                let message = partial.message.as_ref().expect("a step just completed it");
                Ok(Event::Message { kind: message.kind, payload: &message.payload })
            }
        }
    }

    fn is_compressed(&self, part: Buffered) -> bool {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        matches!(part, Buffered::Message) && message.is_some_and(|message| message.compressed)
    }

    /// Inflates the message that was gathered, and frees what was gathered.
    fn gathered_compressed<'a>(
        &mut self,
        part: Buffered,
        inflater: Option<&'a mut Inflater>,
        limits: &Limits,
    ) -> Result<Event<'a>, FrameError> {
        let partial = self.partial.as_mut().expect("a step just gathered a message in it");
        let message = partial.message.take().expect("a step just completed it");
        partial.spent = Some(part);
        self.release();
        self.inflated(message.kind, &message.payload, inflater, limits)
    }

    /// A complete compressed message as an event.
    fn inflated<'a>(
        &mut self,
        kind: MessageKind,
        compressed: &[u8],
        inflater: Option<&'a mut Inflater>,
        limits: &Limits,
    ) -> Result<Event<'a>, FrameError> {
        let Some((direction, inflater)) = self.deflate.zip(inflater) else {
            // Begun with an inflater, continued without one.
            return Err(FrameError::ReservedBits(4));
        };
        let bytes_max = limits.message_bytes_max;
        let payload = inflater.message(compressed, direction, &mut self.history, bytes_max).map_err(|e| match e {
            InflateError::Corrupt => FrameError::Corrupt,
            InflateError::FinalBlocks => FrameError::TooManyFinalBlocks,
            InflateError::TooLong => FrameError::MessageTooLong(bytes_max as u64 + 1),
        })?;
        if kind == MessageKind::Text {
            utf8::check(payload).map_err(|_| FrameError::TextUtf8)?;
        }
        Ok(Event::Message { kind, payload })
    }
}

/// What the bytes of one call are judged by.
#[derive(Clone, Copy)]
struct Rules<'a> {
    role: Role,
    limits: &'a Limits,
    /// Whether messages may be compressed.
    deflate: bool,
}

impl Partial {
    /// Takes the next piece of a frame's payload, and keeps the frame if more is missing.
    fn gather<'i>(
        &mut self,
        mut frame: Frame,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Step<'i>, FrameError> {
        let piece = take(input, frame.missing.min(input.len()));
        let mut is_ascii = false;
        if let Some(key) = &mut frame.mask {
            is_ascii = apply_mask(piece, *key);
            *key = mask::rotated(*key, piece.len());
        }
        frame.missing -= piece.len();
        if frame.opcode.is_control() {
            self.control.extend_from_slice(piece);
        } else if let Some(message) = &mut self.message {
            message.push(piece, is_ascii, &frame, limits)?;
        }
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(Step::Starved);
        }
        if frame.opcode.is_control() {
            return Ok(Step::Gathered(Buffered::Control(frame.opcode)));
        }
        if !frame.fin {
            return Ok(Step::Onward);
        }
        if let Some(message) = &self.message {
            message.utf8.finish().map_err(|_| FrameError::TextUtf8)?;
        }
        Ok(Step::Gathered(Buffered::Message))
    }
}

impl Message {
    /// Adds a piece, which may be known to be ASCII; `frame` says what is still missing of the frame it belongs to.
    fn push(&mut self, piece: &[u8], is_ascii: bool, frame: &Frame, limits: &Limits) -> Result<(), FrameError> {
        let is_checked = is_ascii && self.utf8.is_between_characters();
        if self.kind == MessageKind::Text && !self.compressed && !is_checked {
            self.utf8.push(piece).map_err(|_| FrameError::TextUtf8)?;
        }
        let needed = self.payload.len() + piece.len();
        if needed > self.payload.capacity() {
            // Doubling keeps the copying linear, and a header that lies about the length gets
            // memory only for what was really sent. The message will not exceed the ceiling.
            let ceiling = if frame.fin { needed + frame.missing } else { self.bytes_max(limits) };
            let doubled = self.payload.capacity().saturating_mul(2);
            let capacity = doubled.min(ceiling).max(needed);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(piece);
        Ok(())
    }

    /// The most bytes that it may have as it is received.
    fn bytes_max(&self, limits: &Limits) -> usize {
        if self.compressed { limits.compressed_bytes_max() } else { limits.message_bytes_max }
    }
}

/// Splits `len` bytes off the front of `input`.
fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

/// The event of a frame that stands alone: control, or a message of one frame, which may be known to be ASCII.
fn whole<'i>(header: &Header, payload: &'i [u8], is_ascii: bool) -> Result<Event<'i>, FrameError> {
    match header.starts() {
        None => control(header.opcode, payload),
        Some(kind) => {
            if kind == MessageKind::Text && !is_ascii {
                utf8::check(payload).map_err(|_| FrameError::TextUtf8)?;
            }
            Ok(Event::Message { kind, payload })
        }
    }
}

fn control(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, FrameError> {
    match opcode {
        OpCode::Close => {
            let (code, reason) = close::parse(payload)?;
            Ok(Event::Close { code, reason })
        }
        OpCode::Pong => Ok(Event::Pong(payload)),
        _ => Ok(Event::Ping(payload)),
    }
}
