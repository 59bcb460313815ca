//! One client connection: raw socket bytes in, commands for the hub out, and back again.
//!
//! No sockets, no clock, no threads, no randomness: the same input gives the same output on every machine.
//!
//! # The contract
//!
//! A worker owns one [`Shared`] and a table of [`Connection`]s. It calls an input (`received`, `sent`, `expired`,
//! `deliver`, an answer of the hub) with the time since the clock's origin, then applies the [`Effect`]s left in
//! `Shared::effects`, then carries out the returned [`Directions`], and arms [`Connection::deadline`]. Bytes leave through
//! [`Connection::gather`] and are accounted for by [`Connection::sent`].
//!
//! # Where things are
//!
//! * [`connection`]: the life of a connection; [`tls`]: records around it; `transport`: HTTP requests and WebSocket frames.
//! * `session`: a client after the handshake; [`command`]: what it asks; `dialect`: how it says so.
//! * [`outbox`]: what waits to be sent; [`encoded`]: publications as frames, once per encoding; [`recoveries`]: what was
//!   missed, once for all that missed the same; [`deltas`]: what patches are made from.
//! * [`compression`]: permessage-deflate, and which of a publication's frames a connection gets.
//! * [`address`]: who a client is by its address, and which proxies are believed about that.
//! * `route`: which path is what; [`auth`]: Origin, Host and tokens; [`users`]: who is here; [`verifications`]: how many
//!   tokens a tick checks.
//! * [`webhook`]: what a session asks its backend.
//! * [`disconnect`]: every code a client can be told; [`settings`]: what the operator decided.
#![forbid(unsafe_code)]

pub mod address;
pub mod auth;
pub mod command;
pub mod compression;
pub mod connection;
pub mod deltas;
mod dialect;
pub mod disconnect;
pub mod effect;
pub mod encoded;
pub mod ids;
mod liveness;
mod meter;
mod moment;
pub mod outbox;
mod pace;
pub mod recoveries;
mod route;
mod session;
pub mod settings;
mod shared;
mod subscriptions;
pub mod tls;
mod transport;
pub mod users;
pub mod verifications;
pub mod webhook;

pub use connection::{CloseReport, Connection, Delivered, Given, Side};
pub use disconnect::{ClientError, Disconnect};
pub use effect::{Effect, Note};
pub use encoded::Encoding;
pub use ids::{ClientId, IdSource};
pub use settings::Settings;
pub use shared::{COMMANDS_PER_TICK, Counters, Directions, End, Shared, Urgency};
