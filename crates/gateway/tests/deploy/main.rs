//! The gateway under a service manager: what it tells one, and that the shipped unit fits it.

mod notify;
mod unit;

#[path = "../process/mod.rs"]
mod process;
