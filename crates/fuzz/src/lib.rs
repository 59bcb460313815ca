//! What is fuzzed: each target is a function from bytes to nothing that panics when a claim does not hold.
//!
//! The bytes are what a peer sends; the first one or two say how they arrive (role, cuts, limits). Claims are
//! more than "it does not panic": two ways of reading the same bytes agree, and a naive reading agrees with both.
//!
//! `fuzz_targets/` has a program for each, `corpus/` a folder of inputs for each. The same functions read the corpus in
//! the ordinary tests of `wire` and `conn`, which include `src/` by path; so what is here uses nothing of libFuzzer.

pub mod connection;
pub mod frames;
pub mod http;
#[path = "../../wire/tests/support/naive.rs"]
mod naive;
#[path = "../../conn/tests/properties/presence.rs"]
mod presence;
mod script;
#[path = "../../conn/tests/properties/settings.rs"]
mod settings;
pub mod text;
#[path = "../../conn/tests/properties/world.rs"]
#[allow(dead_code, reason = "the tests of conn use more of it")]
mod world;
