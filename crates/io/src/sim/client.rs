//! A test's end of a simulated connection.

use std::cell::RefCell;
use std::rc::Rc;

use super::world::{Packet, Side, World};

/// How a connection ended, as its client saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClosedBy {
    /// The driver's FIN came.
    Fin,
    /// RST came.
    Reset,
    /// Nobody listened.
    Refused,
}

/// A client. Nothing of it waits: what it writes is under way at once, what came can be read, and time passes only when
/// the test lets it.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) side: Side,
}

impl Client {
    /// Sends bytes. False, and nothing is sent, if the connection is broken or was shut down by us.
    pub fn write(&self, bytes: &[u8]) -> bool {
        let mut world = self.world.borrow_mut();
        let end = world.end(self.side);
        if end.broken || end.fin_sent || bytes.is_empty() {
            return false;
        }
        world.transmit(self.side, bytes);
        true
    }

    /// All that was read since the last call.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        std::mem::take(&mut self.world.borrow_mut().end(self.side).received)
    }

    /// Whether the application reads what comes. If not, it fills the window and the driver's sends come up short.
    pub fn set_reading(&self, reading: bool) {
        let mut world = self.world.borrow_mut();
        let end = world.end(self.side);
        end.reading = reading;
        if reading && !end.inbox.is_empty() {
            let waiting: Vec<u8> = end.inbox.drain(..).collect();
            end.received.extend(waiting);
            world.room_made(self.side);
        }
    }

    /// How many bytes may be unread or under way to this client.
    pub fn set_window(&self, bytes: usize) {
        let mut world = self.world.borrow_mut();
        world.end(self.side).window = bytes;
        world.room_made(self.side);
    }

    /// Sends FIN; reading goes on.
    pub fn shutdown_write(&self) {
        self.world.borrow_mut().shutdown(self.side);
    }

    /// Closes: FIN, or RST if something waits unread. Later arrivals are answered with RST.
    pub fn close(&self) {
        self.world.borrow_mut().close(self.side, false);
    }

    /// Closes with RST.
    pub fn reset(&self) {
        self.world.borrow_mut().close(self.side, true);
    }

    /// Breaks the connection between the ends: both get RST.
    pub fn cut(&self) {
        let mut world = self.world.borrow_mut();
        world.transmit_packet(self.side, Packet::Reset);
        world.transmit_packet(self.side.other(), Packet::Reset);
    }

    /// The connection is established.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.world.borrow_mut().end(self.side).established
    }

    /// Whether and how the other side ended the connection. All bytes before a FIN have come by then; those in a full
    /// window are read after [`Client::set_reading`].
    #[must_use]
    pub fn is_closed(&self) -> Option<ClosedBy> {
        let mut world = self.world.borrow_mut();
        let end = world.end(self.side);
        match end.error {
            Some(libc::ECONNREFUSED) => Some(ClosedBy::Refused),
            Some(_) => Some(ClosedBy::Reset),
            None => end.fin_arrived.then_some(ClosedBy::Fin),
        }
    }
}
