//! What Tidegate's figures are compared with.
//!
//! [`floor`] has event loops that do nothing but what the kernel needs to be asked for, with the same bytes on the wire as
//! Tidegate; the binary of that name runs them. The criterion benches of Tidegate's own parts are in `benches/`.
//! `docs/benches.md` says how to run both.
//!
//! [`corpus`] has what backends publish, for the benches of compression.
//!
//! `unsafe` is confined to [`floor::uring`].
#![deny(unsafe_code)]

pub mod corpus;
pub mod floor;
