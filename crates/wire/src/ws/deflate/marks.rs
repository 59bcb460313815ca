//! What a connection remembers about the compressed messages that it was sent, and what a thread may keep for all.

use super::Compressed;
use crate::ws::Role;
use crate::ws::extension::{Direction, Params};

/// The identity of a message that went, or may go, to many connections.
///
/// 48 bits: at a million messages a second they last for nine years, and then run out instead of starting again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark([u8; 6]);

impl Mark {
    /// Marks are drawn in ascending order.
    pub fn number(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

const NONE: Mark = Mark([0; 6]);

/// Draws marks, each once. One per thread, as connections compare marks only among those of their own.
#[derive(Clone, Copy, Default, Debug)]
pub struct MarkSource {
    drawn: u64,
}

impl MarkSource {
    const MAX: u64 = (1 << 48) - 1;

    /// A new mark. When all have been drawn, one that no connection is ever at.
    pub fn draw(&mut self) -> Mark {
        if self.drawn == MarkSource::MAX {
            return NONE;
        }
        self.drawn += 1;
        let [low @ .., _, _] = self.drawn.to_le_bytes();
        Mark(low)
    }
}

const _: () = assert!(size_of::<Option<Marks>>() <= 8, "one per connection, compressed or not");

/// What a connection remembers to send compressed messages: 8 bytes, also as an `Option`.
///
/// The receiver's window ends with the last compressed message that it was sent. A message compressed *after* another
/// is for the connections whose last one was exactly that; anybody else would get something else out of it, without
/// noticing. So it has to be said here whenever a compressed message goes out:
///
/// - [`Marks::sent`] for one of the marked messages, however it was compressed,
/// - [`Marks::forget`] for any other, and when one that had been counted as sent is dropped before its first byte went
///   out. Messages that were compressed after a dropped one must not go out either; so whoever may drop messages
///   sends them *alone* while any waits.
///
/// Uncompressed messages do not count: they leave the window as it is.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    direction: Direction,
    last: Mark,
}

impl Marks {
    /// For the messages that `role` sends on a connection with these parameters.
    pub fn new(params: Params, role: Role) -> Marks {
        Marks { direction: params.outgoing(role), last: NONE }
    }

    /// Whether the receiver can read this message, if it is the next compressed one that it gets.
    pub fn accepts(&self, compressed: &Compressed) -> bool {
        compressed.window_bits <= self.direction.window_bits()
            // With a window of its own for each message it has no last one to refer to (7.1.1.1).
            && compressed.after.is_none_or(|mark| self.is_at(mark))
    }

    /// Whether a message compressed after that one may be readable for the receiver, before it is made.
    pub fn is_at(&self, mark: Mark) -> bool {
        mark != NONE && mark == self.last && !self.direction.forgets()
    }

    /// Whether messages compressed after another one never are.
    pub fn forgets(&self) -> bool {
        self.direction.forgets()
    }

    /// Whether there is no message that others can refer to.
    pub fn is_at_none(&self) -> bool {
        self.last == NONE
    }

    /// The next compressed message that the receiver gets is this one.
    pub fn sent(&mut self, mark: Mark) {
        self.last = mark;
    }

    /// The next compressed message that the receiver gets is not one that others can refer to.
    pub fn forget(&mut self) {
        self.last = NONE;
    }
}

/// How many bytes of history the connections of a thread may keep together.
///
/// They are reserved at the handshake, in full, because a client that was granted a window may use it at any time;
/// they are allocated only when it does.
#[derive(Clone, Copy, Debug)]
pub struct HistoryBudget {
    bytes_max: usize,
    reserved: usize,
}

impl HistoryBudget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> HistoryBudget {
        HistoryBudget { bytes_max, reserved: 0 }
    }

    /// Reserves what the messages that come in this direction may need. If that is more than is left, nothing is
    /// reserved and the answer is `false`: the connection goes on uncompressed.
    #[must_use]
    pub fn reserve(&mut self, incoming: Direction) -> bool {
        let wanted = incoming.history_bytes_max();
        let fits = wanted <= self.bytes_max.saturating_sub(self.reserved);
        self.reserved += if fits { wanted } else { 0 };
        fits
    }

    /// Gives back what [`HistoryBudget::reserve`] reserved.
    pub fn release(&mut self, incoming: Direction) {
        let reserved = incoming.history_bytes_max();
        debug_assert!(reserved <= self.reserved, "{reserved} bytes given back of {}", self.reserved);
        self.reserved = self.reserved.saturating_sub(reserved);
    }

    /// Sets another maximum. What is reserved stays reserved.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_run_out_instead_of_starting_again() {
        let mut source = MarkSource::default();
        let (one, two) = (source.draw(), source.draw());
        assert!(one != two && one != NONE && two != NONE);
        source.drawn = MarkSource::MAX - 1;
        let last = source.draw();
        assert!(last != NONE && last != one);
        assert_eq!([source.draw(), source.draw()], [NONE, NONE]);
    }
}
