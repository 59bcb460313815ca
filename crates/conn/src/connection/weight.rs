//! What a connection makes the process hold, and how it goes where that is too much for all of them together.

use super::{Connection, Phase};
use crate::disconnect::Disconnect;
use crate::shared::{Cx, Directions, End, Shared, Urgency};
use std::time::Duration;

impl Connection {
    /// Bytes held for it: what waits to be sent, and input that cannot be worked on yet.
    ///
    /// `is_behind`: its socket does not take what waits. Else that is on its way, and nothing would be won by dropping it.
    pub fn weight(&self, is_behind: bool) -> usize {
        let backlog = if is_behind || !self.is_going_on() { self.outbox.backlog() } else { 0 };
        backlog + self.input_bytes()
    }

    /// Bytes of input that wait for their rest, or for their turn.
    pub fn input_bytes(&self) -> usize {
        let phase = match &self.phase {
            Phase::Http(http) => http.buffer.capacity(),
            Phase::Open(open) => open.input_bytes(),
            Phase::Closing(closing) => closing.reader.partial_bytes(),
            // It is about to go, and its peer has been told.
            Phase::Ended(_) => return 0,
        };
        phase + self.tls.as_ref().map_or(0, |tls| tls.input_bytes())
    }

    /// Ends the connection because the process holds too much, and lets go of what is held for it at once. An open one is told
    /// as a slow client, unless what is in front of the close frame cannot be left out and is too much to wait for.
    pub fn shed(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        shared.counters.shed += 1;
        shared.outboxes.drop_publications(&mut self.outbox);
        let fits = self.outbox.backlog() <= shared.settings.limits.outbox_low_water;
        // What is half received goes, and nothing behind it can be read.
        let is_deaf = self.input_bytes() > 0;
        let mut end = match &mut self.phase {
            Phase::Open(open) => {
                if fits {
                    open.announce_disconnect(&Disconnect::SLOW, &mut Cx { now, shared, outbox: &mut self.outbox });
                }
                let Disconnect { code, reason } = Disconnect::SLOW;
                self.close_with(now, code, reason, shared, is_deaf || !fits)
            }
            _ => Some(self.end(End::Reset, shared)),
        };
        if !fits || end == Some(End::Reset) {
            shared.outboxes.drop_all(&mut self.outbox);
            end = Some(End::Reset);
        }
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }
}
