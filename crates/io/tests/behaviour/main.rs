//! One suite of claims about drivers, run on every driver: [`suite`] is generic over [`harness::Harness`].
//!
//! The harness on epoll and on io_uring uses real loopback sockets with clients in the same thread; the simulated one runs calm, with
//! late completions as io_uring has them, and on bad networks drawn from seeds. `IO_SEED=<n>` replays one of those.

mod harness;
mod probe;
mod real;
mod simulated;
mod suite;
