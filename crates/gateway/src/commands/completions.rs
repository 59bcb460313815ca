//! `tidegate completions`: a script that makes a shell complete our flags.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, Write};

/// Prints the script for `shell`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(shell: Shell, out: &mut dyn Write) -> io::Result<u8> {
    // Into memory first: the generator panics when a pipe closes early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    out.write_all(&script)?;
    Ok(0)
}
