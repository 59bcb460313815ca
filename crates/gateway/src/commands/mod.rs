//! The subcommands that do not serve. Each writes data to `out` and everything else to `err`, and returns the exit code.

pub mod centrifugo;
pub mod cert;
pub mod check;
pub mod completions;
pub mod publish;
pub mod token;
