//! Request bodies (RFC 9112, 6 and 7.1), piece by piece as they arrive.

use super::url::hex;
use super::{BodyKind, Refusal};
use crate::limits::BODY_OVERHEAD_BYTES_MAX;
use std::mem;

/// Reads one body. Also a body nobody wants must be read, or the connection closed: the next head
/// starts behind it.
///
/// ```
/// use wire::http::{BodyKind, body::Body};
///
/// let mut body = Body::new(BodyKind::Chunked, 1024).unwrap();
/// let mut input = &b"5\r\nhello\r\n0\r\n\r\nGET /"[..];
/// let mut content = Vec::new();
/// while let Some(piece) = body.next(&mut input).unwrap() {
///     content.extend_from_slice(piece);
/// }
/// assert!(body.is_done());
/// assert_eq!((&content[..], input), (&b"hello"[..], &b"GET /"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// Content that may still come before it is too much.
    room: u64,
    /// Bytes of extensions and trailers seen.
    overhead: u16,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// So many bytes of content, then the end.
    Length(u64),
    /// A digit of a chunk's size, or what follows it; `digits` have been read.
    Size {
        size: u64,
        digits: u8,
    },
    /// The semicolon of an extension, or more space before it.
    Space {
        size: u64,
    },
    /// The rest of the size line.
    Extension {
        size: u64,
    },
    /// The LF of the size line.
    SizeLf {
        size: u64,
    },
    /// So many bytes of content, then CR LF.
    Data(u64),
    DataCr,
    DataLf,
    /// A trailer, or the CR LF that ends the body.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
    Done,
}

/// More digits than 16 do not fit 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

impl Body {
    /// The body of a request whose content may have `bytes_max` bytes; 413 if it announces more.
    pub fn new(kind: BodyKind, bytes_max: u64) -> Result<Body, Refusal> {
        let state = match kind {
            BodyKind::None | BodyKind::Length(0) => State::Done,
            BodyKind::Length(len) if len > bytes_max => return Err(Refusal::too_large()),
            BodyKind::Length(len) => State::Length(len),
            BodyKind::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(Body { state, room: bytes_max, overhead: 0 })
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes from the front of `input` and returns the next piece of content. `None`: the
    /// body has ended, and `input` starts with what follows it, or all of `input` was consumed.
    ///
    /// `Err` is the answer to a body that is malformed (400) or too large (413).
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<&'i [u8]>, Refusal> {
        loop {
            let (left, after) = match self.state {
                State::Done => return Ok(None),
                State::Length(left) => (left, State::Done),
                State::Data(left) => (left, State::DataCr),
                _ => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Ok(None);
                    };
                    self.state = self.step(byte)?;
                    *input = rest;
                    continue;
                }
            };
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            if len == 0 {
                return Ok(None);
            }
            let (piece, rest) = mem::take(input).split_at(len);
            *input = rest;
            self.state = match (left - len as u64, self.state) {
                (0, _) => after,
                (left, State::Length(_)) => State::Length(left),
                (left, _) => State::Data(left),
            };
            return Ok(Some(piece));
        }
    }

    /// One byte of what surrounds the chunks.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, digits: 1.. } | State::Space { size }, b' ' | b'\t') => {
                self.count()?;
                Ok(State::Space { size })
            }
            (State::Size { size, digits: 1.. } | State::Space { size }, b';') => {
                self.count()?;
                Ok(State::Extension { size })
            }
            (State::Size { size, digits }, _) => self.digit(size, digits, byte),
            (State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeLf { size }, b'\n') => {
                self.room -= size;
                Ok(State::Data(size))
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::TrailerLine, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count()?;
                Ok(self.state)
            }
            (State::Trailer | State::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count()?;
                Ok(State::TrailerLine)
            }
            _ => Err(Refusal::bad_request("the chunked body is malformed")),
        }
    }

    /// One more digit of a chunk's size, which must fit the room; so `room -= size` never wraps.
    fn digit(&self, size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
        let Some(value) = hex(byte).filter(|_| digits < SIZE_DIGITS_MAX) else {
            return Err(Refusal::bad_request("the size of a chunk is malformed"));
        };
        let size = size << 4 | u64::from(value);
        if size > self.room {
            return Err(Refusal::too_large());
        }
        Ok(State::Size { size, digits: digits + 1 })
    }

    /// Counts a byte that is neither content nor size.
    fn count(&mut self) -> Result<(), Refusal> {
        if self.overhead == BODY_OVERHEAD_BYTES_MAX {
            return Err(Refusal::too_large());
        }
        self.overhead += 1;
        Ok(())
    }
}
