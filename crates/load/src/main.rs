//! Many clients of a push gateway from one process: opened, kept busy, and every message they get checked.
//!
//! It measures from outside, over real sockets, and knows nothing of the gateway's inside: sequence numbers and intended
//! send times travel in the payloads, the server's memory and CPU come from `/proc`.
//!
//! # How it runs
//!
//! The main thread conducts ([`scenario`]): it starts fleets, tells them what to do next and draws the progress. A fleet
//! ([`fleet`]) is dealt out to as many event loops as its open files ask for ([`loops`]), each a thread with a table of
//! descriptors of its own; the conductor sees them as one [`crew`]. What the clients of a loop do with what they receive is
//! a [`fleet::Script`]; loops share nothing, and what their scripts saw is put together at the end. Publishers
//! ([`publisher`]) are threads of their own, so that a publication leaves in time while the clients' loops are busy
//! receiving the one before. Probes are small fleets beside the large one, for the same reason.
//!
//! # Map
//!
//! * [`cli`], [`endpoint`]: what was asked for. [`sources`]: the addresses that clients connect from.
//! * [`payload`], [`track`], [`latency`]: what a payload carries, and how its arrival is judged. [`timeline`]: when.
//! * [`dialect`]: what a client says and hears on each kind of endpoint.
//! * [`server`], [`progress`], [`report`]: what is shown.
#![forbid(unsafe_code)]

mod cli;
mod crew;
mod dialect;
mod endpoint;
mod fleet;
mod latency;
mod loops;
mod payload;
mod progress;
mod publisher;
mod reasons;
mod report;
mod scenario;
mod server;
mod sources;
mod timeline;
mod tls;
mod track;

use clap::Parser;
use std::process::ExitCode;

/// Nothing was lost, doubled, swapped or refused.
const EXIT_OK: u8 = 0;
/// Something was, or the run could not be made.
const EXIT_FAULTS: u8 = 1;
/// The command line asks for what cannot be.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let code = match scenario::run(&cli.scenario) {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_FAULTS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            if failure.usage { EXIT_USAGE } else { EXIT_FAULTS }
        }
    };
    ExitCode::from(code)
}
