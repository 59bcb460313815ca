//! The kernel, turned into calls of a [`Handler`]: sockets in, bytes and deadlines out.
//!
//! This crate knows no protocol. It never looks into the bytes it carries and never decides what is sent.
//!
//! # The contract
//!
//! One [`Driver`] per worker thread; it is not `Send`. The program calls [`Driver::tick`] in a loop. One tick waits for
//! the kernel (unless work is left over) and then runs these phases, each within its own named budget ([`Budgets`]):
//!
//! 1. letters: [`Handler::woken`],
//! 2. reads: [`Handler::received`], one chunk per turn, readable connections first in first out,
//! 3. deadlines: [`Handler::expired`],
//! 4. flush: [`Handler::gather`], one send, [`Handler::sent`]; reply-dirty connections before broadcast-dirty ones,
//! 5. accepts: [`Handler::opened`],
//! 6. the end: [`Handler::ticked`].
//!
//! Ended connections are reported by [`Handler::closed`] between the phases. What does not fit its budget goes on in
//! the next tick, which then does not wait. Nothing is buffered here for a connection: the outbox belongs to the
//! handler, and the driver *asks* for bytes when the socket can take them.
//!
//! # An echo server
//!
//! ```
//! use io::{Batch, Class, Closed, ConnId, Flow, Handler, How, Io, Peer};
//! use std::collections::HashMap;
//!
//! #[derive(Default)]
//! struct Echo { outboxes: HashMap<ConnId, Vec<u8>> }
//!
//! impl Handler for Echo {
//!     fn opened(&mut self, _: &mut Io, id: ConnId, _: Peer) { self.outboxes.insert(id, Vec::new()); }
//!     fn received(&mut self, io: &mut Io, id: ConnId, bytes: &mut [u8]) -> Flow {
//!         if bytes.is_empty() {
//!             io.close(id, How::Flush); // the peer's FIN: send what waits, then close
//!         } else {
//!             self.outboxes.entry(id).or_default().extend_from_slice(bytes);
//!             io.dirty(id, Class::Reply);
//!         }
//!         Flow::Continue
//!     }
//!     fn gather(&mut self, id: ConnId, batch: &mut Batch) { batch.push(&self.outboxes[&id]); }
//!     fn sent(&mut self, io: &mut Io, id: ConnId, bytes: usize) {
//!         let outbox = self.outboxes.entry(id).or_default();
//!         outbox.drain(..bytes);
//!         if !outbox.is_empty() { io.dirty(id, Class::Reply); }
//!     }
//!     fn expired(&mut self, _: &mut Io, _: ConnId) {}
//!     fn closed(&mut self, _: &mut Io, id: ConnId, _: Closed) { self.outboxes.remove(&id); }
//!     fn woken(&mut self, _: &mut Io) {}
//!     fn has_mail(&self) -> bool { false }
//!     fn ticked(&mut self, _: &mut Io) {}
//! }
//!
//! // The same handler runs on `io::epoll::Epoll` and `io::uring::Uring`; here on the simulator.
//! use io::{Driver, sim::Net};
//! let net = Net::seeded(7);
//! let mut workers = [(net.driver(io::Options::default(), 1), Echo::default())];
//! let client = net.connect(0, 0);
//! client.write(b"hello");
//! net.run_for(&mut workers, std::time::Duration::from_millis(100));
//! assert_eq!(client.read(), b"hello");
//! ```
//!
//! # Where things are
//!
//! * [`handler`]: the traits' vocabulary; [`state`]: [`Io`], what a handler may ask for; `tick`: the phases, one code
//!   for all drivers.
//! * [`epoll`], [`uring`]: the drivers on real sockets; [`sim`]: the driver on a simulated network.
//! * `slots`, `deadlines`, [`batch`]: the columns per connection and the send buffer.
//! * [`listener`], [`wake`], [`clock`], [`affinity`], [`descriptors`], [`counters`]: what surrounds a worker.
//!
//! `unsafe` is confined to [`affinity`], [`clock::monotonic`], `connector`, [`descriptors`], `eventfd` and [`uring`].
#![deny(unsafe_code)]

pub mod affinity;
pub mod batch;
pub mod clock;
mod connector;
pub mod counters;
mod deadlines;
pub mod descriptors;
pub mod epoll;
mod eventfd;
pub mod handler;
pub mod listener;
pub mod options;
mod refusal;
pub mod sim;
mod slots;
pub mod state;
mod tick;
pub mod uring;
// Cargo knows no `loom` cfg; it is set by hand to model-check this one module.
#[allow(unexpected_cfgs)]
pub mod wake;

pub use batch::{Batch, SEND_BYTES_MAX};
pub use clock::Clock;
pub use counters::Counters;
pub use handler::{Class, Closed, ConnId, Driver, Flow, Handler, How, Kind, Peer, PeerAddress, Target};
pub use listener::{Address, Listener};
pub use options::{Budgets, Options};
pub use state::{Io, REFUSED_MAX};
pub use wake::{Wake, WakeReceiver};
