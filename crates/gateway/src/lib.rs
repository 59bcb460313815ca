//! The `tidegate` program: wires the event loops, the connections, the hub and the control plane together.
//!
//! ```text
//! main ── topology ──┬── worker 0..N   one thread each: io::Driver + worker::Worker (conn::Connection, hub::Home, hub::Local)
//!                    └── control       this thread: tokio, control's API server, backend::Bridge
//! ```
//!
//! Threads exchange [`letter::Letter`]s through [`mailbox`]es and share nothing mutable but the
//! count of their clients by address ([`conn::address`]) and of their memory ([`memory`]).
#![forbid(unsafe_code)]

pub mod backend;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod keys;
pub mod letter;
pub mod lifecycle;
pub mod logging;
pub mod mailbox;
pub mod memory;
mod notify;
pub mod serve;
pub mod stats;
pub mod tls;
pub mod topology;
pub mod worker;
