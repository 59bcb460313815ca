//! `floor`: bare event loops with the bytes of Tidegate, to compare it with. See `docs/benches.md`.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;

use benches::floor::{Accept, Batching, Door, Echo, Fanout, Job, Side, epoll, uring};
use clap::{Args, Parser, Subcommand, ValueEnum};
use io::{Address, listener};

/// Bare event loops that put the bytes of Tidegate on the wire and do nothing else.
#[derive(Parser)]
#[command(name = "floor")]
struct Cli {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Answers an upgrade with 101 and sends every frame back
    Echo(Common),
    /// Answers an upgrade with 101, and the next bytes with a close frame
    Accept(Common),
    /// Sends what publishers post to every client: Centrifugo's protocol at /connection/websocket, the bare payload at
    /// any other path; POST /api/publish for the former, POST to any other path for the latter
    Fanout {
        #[command(flatten)]
        common: Common,
        /// Where publishers post
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        api_listen: SocketAddr,
        /// How many publications go into one send
        #[arg(long, value_enum, default_value_t = Sends::Single)]
        sends: Sends,
    },
}

#[derive(Args)]
struct Common {
    /// Where clients connect; with port 0 the kernel chooses one, which is printed
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What the loop runs on
    #[arg(long, value_enum, default_value_t = Driver::Epoll)]
    driver: Driver,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// Wait, receive, send: a system call each
    Epoll,
    /// All through one io_uring
    Uring,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sends {
    /// One publication
    Single,
    /// All that wait
    Pending,
}

fn main() -> ExitCode {
    let Err(error) = run(Cli::parse().work);
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn run(work: Work) -> std::io::Result<Infallible> {
    io::affinity::raise_fd_limit()?;
    match work {
        Work::Echo(common) => serve(Echo, common.driver, vec![door(common.listen, Side::Public)?]),
        Work::Accept(common) => serve(Accept, common.driver, vec![door(common.listen, Side::Public)?]),
        Work::Fanout { common, api_listen, sends } => {
            let batching = if sends == Sends::Single { Batching::Single } else { Batching::Pending };
            let doors = vec![door(common.listen, Side::Public)?, door(api_listen, Side::Api)?];
            serve(Fanout::new(batching), common.driver, doors)
        }
    }
}

fn serve(job: impl Job, driver: Driver, doors: Vec<Door>) -> std::io::Result<Infallible> {
    match driver {
        Driver::Epoll => epoll::serve(job, doors),
        Driver::Uring => uring::serve(job, doors),
    }
}

/// Listens, and says where as Tidegate does.
fn door(address: SocketAddr, side: Side) -> std::io::Result<Door> {
    let listener = listener::bind(&Address::Ip(address), false)?;
    let kind = if side == Side::Public { "public" } else { "api" };
    eprintln!("listening {kind} http://{}", listener.local_address());
    Ok(Door { listener, side })
}
