//! A handler that records everything, keeps an outbox per connection, and asserts the driver's side of the contract at
//! every call.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use io::{Batch, Class, Closed, ConnId, Flow, Handler, How, Io, Peer};

#[derive(Default)]
pub(crate) struct Conn {
    pub(crate) peer: Option<Peer>,
    pub(crate) received: Vec<u8>,
    pub(crate) chunks: usize,
    pub(crate) fin: bool,
    pub(crate) outbox: Vec<u8>,
    pub(crate) sent: usize,
    pub(crate) expired: Vec<Duration>,
    /// Looks at its socket that found nothing.
    pub(crate) empty_looks: usize,
    pub(crate) closed: Option<Closed>,
    /// We asked to close it: nothing may be received any more.
    pub(crate) closing: bool,
    pub(crate) paused: bool,
    /// Bytes of a gather that `sent` has not answered.
    gathered: Cell<Option<usize>>,
}

/// What the handler does by itself; tests do the rest through [`Probe::send`] and [`Io`].
pub(crate) struct Script {
    /// Send back what comes.
    pub(crate) echo: bool,
    /// Answer the peer's FIN so.
    pub(crate) on_fin: Option<How>,
    /// Say that each input is enough for its tick.
    pub(crate) enough: bool,
    /// Pause whenever this many bytes were received in all.
    pub(crate) pause_at: Option<usize>,
    /// Close at the first byte.
    pub(crate) close_on_input: Option<How>,
    /// Close as soon as opened.
    pub(crate) close_on_open: Option<How>,
}

pub(crate) struct Probe {
    pub(crate) script: Script,
    pub(crate) conns: HashMap<ConnId, Conn>,
    /// Opened, in this order.
    pub(crate) opened: Vec<ConnId>,
    /// Received from, in this order.
    pub(crate) receipts: Vec<ConnId>,
    /// Of these, before the present tick, and the most in one.
    receipts_before: usize,
    pub(crate) receipts_most: usize,
    /// Gathered with something to send, in this order.
    pub(crate) gathers: Cell<Vec<ConnId>>,
    pub(crate) woken: usize,
    pub(crate) ticked: usize,
    pub(crate) mail: Cell<bool>,
    pub(crate) jumps: Vec<Duration>,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            script: Script {
                echo: true,
                on_fin: Some(How::Flush),
                enough: false,
                pause_at: None,
                close_on_input: None,
                close_on_open: None,
            },
            conns: HashMap::new(),
            opened: Vec::new(),
            receipts: Vec::new(),
            receipts_before: 0,
            receipts_most: 0,
            gathers: Cell::default(),
            woken: 0,
            ticked: 0,
            mail: Cell::new(false),
            jumps: Vec::new(),
        }
    }
}

impl Probe {
    pub(crate) fn conn(&mut self, id: ConnId) -> &mut Conn {
        self.conns.get_mut(&id).expect("opened")
    }

    /// The `n`th connection that was opened.
    pub(crate) fn nth(&self, n: usize) -> ConnId {
        self.opened[n]
    }

    pub(crate) fn open(&self) -> usize {
        self.conns.values().filter(|conn| conn.closed.is_none()).count()
    }

    pub(crate) fn send(&mut self, io: &mut Io, id: ConnId, bytes: &[u8], class: Class) {
        self.conn(id).outbox.extend_from_slice(bytes);
        io.dirty(id, class);
    }

    pub(crate) fn close(&mut self, io: &mut Io, id: ConnId, how: How) {
        self.conn(id).closing = true;
        io.close(id, how);
    }

    pub(crate) fn take_gathers(&self) -> Vec<ConnId> {
        self.gathers.take()
    }

    fn live(&mut self, id: ConnId) -> &mut Conn {
        let conn = self.conns.get_mut(&id).unwrap_or_else(|| panic!("{id:?} was never opened"));
        assert_eq!(conn.closed, None, "{id:?} is closed");
        conn
    }
}

impl Handler for Probe {
    fn opened(&mut self, io: &mut Io, id: ConnId, peer: Peer) {
        let conn = Conn { peer: Some(peer), ..Conn::default() };
        assert!(self.conns.insert(id, conn).is_none(), "{id:?} opened twice");
        self.opened.push(id);
        if let Some(how) = self.script.close_on_open {
            self.close(io, id, how);
        }
    }

    fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
        let (echo, on_fin, pause_at) = (self.script.echo, self.script.on_fin, self.script.pause_at);
        let close_on_input = self.script.close_on_input;
        self.receipts.push(id);
        if self.script.enough {
            io.enough();
        }
        let conn = self.live(id);
        assert!(!conn.closing, "{id:?} received after our close");
        assert!(!conn.fin, "{id:?} received after the peer's FIN");
        assert!(!conn.paused, "{id:?} received while paused");
        if bytes.is_empty() {
            conn.fin = true;
            if let Some(how) = on_fin {
                self.close(io, id, how);
            }
            return Flow::Continue;
        }
        conn.received.extend_from_slice(bytes);
        conn.chunks += 1;
        let pause = pause_at.is_some_and(|at| conn.received.len() >= at);
        conn.paused = pause;
        if echo {
            self.send(io, id, bytes, Class::Reply);
        }
        if let Some(how) = close_on_input {
            self.close(io, id, how);
        }
        if pause { Flow::Pause } else { Flow::Continue }
    }

    fn gather(&mut self, id: ConnId, batch: &mut Batch) {
        assert!(batch.is_empty());
        let conn = self.live(id);
        assert_eq!(conn.gathered.get(), None, "{id:?}: two gathers without `sent` between them");
        let taken = batch.push(&conn.outbox);
        if taken > 0 {
            conn.gathered.set(Some(taken));
            let mut gathers = self.gathers.take();
            gathers.push(id);
            self.gathers.set(gathers);
        }
    }

    fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
        let conn = self.live(id);
        let gathered = conn.gathered.take().expect("`sent` answers a gather");
        assert!(bytes <= gathered);
        conn.outbox.drain(..bytes);
        conn.sent += bytes;
        if bytes == gathered && !conn.outbox.is_empty() {
            io.dirty(id, Class::Reply);
        }
    }

    fn expired(&mut self, io: &mut Io, id: ConnId) {
        let now = io.now();
        self.live(id).expired.push(now);
    }

    fn nothing_waits(&mut self, _: &mut Io, id: ConnId) {
        let conn = self.live(id);
        assert!(!conn.closing && !conn.fin && !conn.paused, "{id:?}: nobody can have looked");
        conn.empty_looks += 1;
    }

    fn closed(&mut self, io: &mut Io, id: ConnId, why: Closed) {
        match self.conns.get_mut(&id) {
            Some(conn) => assert_eq!(conn.closed.replace(why), None, "{id:?} closed twice"),
            // A failed connect.
            None => drop(self.conns.insert(id, Conn { closed: Some(why), ..Conn::default() })),
        }
        // Dead: none of these may have an effect, on it or on whoever comes next.
        io.dirty(id, Class::Reply);
        io.deadline(id, Some(io.now()));
        io.pause(id);
        io.resume(id);
        io.close(id, How::Reset);
    }

    fn woken(&mut self, io: &mut Io) {
        self.woken += 1;
        self.mail.set(false);
        if !io.clock_jump().is_zero() {
            self.jumps.push(io.clock_jump());
        }
    }

    fn has_mail(&self) -> bool {
        self.mail.get()
    }

    fn ticked(&mut self, _: &mut Io) {
        self.ticked += 1;
        self.receipts_most = self.receipts_most.max(self.receipts.len() - self.receipts_before);
        self.receipts_before = self.receipts.len();
        assert_eq!(self.ticked, self.woken, "each tick begins with `woken` and ends with `ticked`");
    }
}
