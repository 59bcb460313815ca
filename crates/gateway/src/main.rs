//! The `tidegate` binary: parses the command line and hands over.

#![forbid(unsafe_code)]

use clap::Parser;
use gateway::cli::Cli;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::serve::main(&Cli::parse())
}
