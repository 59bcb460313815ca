//! The command line.

mod values;

use crate::dialect::{Dialect, Tokens};
use crate::endpoint::{Endpoint, of_api, of_clients};
use crate::loops::Wanted;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use values::{api_key, channel_name, duration, echo_size, publication_size, rate, tokens};

/// Publishers of one run; their number is four hex digits of every payload.
const PUBLISHERS_MAX: i64 = 256;
/// Channels of one run; their number is six hex digits of every payload.
const CHANNELS_MAX: i64 = 0xff_ffff;

/// Puts load on a push gateway and checks what its clients receive.
#[derive(Parser, Debug)]
#[command(
    name = "tidegate-load",
    version,
    after_help = "Exit: 0 all well, 1 something was lost, doubled, out of order, \
closed or could not connect, 2 usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Scenario {
    /// Open connections and keep them: what does an idle client cost?
    Hold(HoldArgs),
    /// Send messages and check that each comes back.
    Echo(EchoArgs),
    /// Subscribe clients, publish through the server API, and check that each client gets each publication once, in order.
    Fanout(Box<FanoutArgs>),
    /// Open and close connections at a rate: how long does it take to be let in?
    Churn(ChurnArgs),
    /// Subscribe clients to channels with a history, publish, cut connections and stop reading at random, and check that
    /// whoever comes back gets what it missed, or is told that it cannot.
    Recover(Box<RecoverArgs>),
}

/// What every scenario needs to know.
#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    /// The server: ws://HOST:PORT, with the dialect's usual path unless another is given (http:// is taken too), or wss://
    #[arg(long, value_name = "URL", value_parser = of_clients)]
    pub(crate) url: Endpoint,
    /// Certificates in PEM that the server's own has to be one of, or come from; for wss://
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Resume TLS sessions, instead of a full handshake for each connection
    #[arg(long, requires = "ca")]
    pub(crate) resume: bool,
    /// Clients
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Event loops that share the clients, each with a thread and a limit on open files of its own; `auto`: as few as this
    /// limit allows
    #[arg(long, value_name = "N", default_value_t = Wanted::Auto)]
    pub(crate) loops: Wanted,
    /// Time that one client may take from its connect until it is of use
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Time that the last messages may take to arrive when nothing more is sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// Report the memory and CPU of this process, which is to be the server
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Print nothing to stdout but one line of JSON at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page with plots of latency, throughput, and with --server-pid the server's memory and CPU over time
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

/// How fast the clients of a fleet come.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// Connections opened per second, and closed at the end
    #[arg(long, value_name = "RATE", default_value = "2000", value_parser = rate)]
    pub(crate) open_rate: f64,
}

/// What the clients speak and listen to.
#[derive(Args, Debug)]
pub(crate) struct SubscribeArgs {
    /// Name of the shared channel, or the front of the names where there are several
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = channel_name)]
    pub(crate) channel: String,
    /// Shared channels; client i subscribes to number i modulo C
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CHANNELS_MAX))]
    pub(crate) channels: u32,
    /// Further channels that each client has for itself
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) personal: u32,
    /// A token that every client connects with, as `tidegate token` makes one
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A token for each client, one a line, as `tidegate token --count N` makes them; client i takes number i, and begins
    /// again where there are too few
    #[arg(long, value_name = "FILE", conflicts_with = "token", value_parser = tokens)]
    pub(crate) tokens: Option<Tokens>,
}

/// `hold`
#[derive(Args, Debug)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) subscribe: SubscribeArgs,
    /// What the clients speak; `none` says nothing and subscribes to nothing
    #[arg(long, value_enum, default_value_t = Dialect::Centrifugo)]
    pub(crate) dialect: Dialect,
    /// Time to keep them all open
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// At the end publish once to each shared channel through this API, of the forms that fanout --api takes, and check that
    /// each client gets it exactly once
    #[arg(long, value_name = "URL", value_parser = of_api)]
    pub(crate) broadcast: Option<Endpoint>,
    /// Key of the server API
    #[arg(long, value_name = "KEY", requires = "broadcast", value_parser = api_key)]
    pub(crate) key: Option<String>,
}

/// `echo`
#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Messages that each client has under way; the next is sent when one comes back
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) pipeline: u32,
    /// Send so many messages per second, all clients together, whether or not the earlier ones came back
    #[arg(long, value_name = "RATE", conflicts_with = "pipeline", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 20, value_parser = echo_size)]
    pub(crate) size: usize,
    /// Time to send
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
}

/// `fanout`
#[derive(Args, Debug)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) subscribe: SubscribeArgs,
    /// What the subscribers speak
    #[arg(long, value_enum, default_value_t = Dialect::Centrifugo)]
    pub(crate) dialect: Dialect,
    /// Where to publish. The server API of Tidegate or Centrifugo: http://HOST:PORT; for --dialect raw a URL to POST to,
    /// http://HOST:PORT/pub/{channel}; for --dialect nats: nats://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = of_api)]
    pub(crate) api: Endpoint,
    /// Key of the server API
    #[arg(long, value_name = "KEY", value_parser = api_key)]
    pub(crate) key: Option<String>,
    /// Connections to the API, each with one publication under way
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=PUBLISHERS_MAX))]
    pub(crate) publishers: u32,
    /// Publications per second, all publishers together; the channels take turns
    #[arg(long, value_name = "RATE", default_value = "10", value_parser = rate)]
    pub(crate) rate: f64,
    /// Publications that are due at one moment; the rate stays the same, so the bursts come that much more seldom
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) burst: u32,
    /// Time to publish
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Publish so many instead, however long it takes
    #[arg(long, value_name = "K", conflicts_with = "duration", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publications: Option<u32>,
    /// Bytes of a publication's data
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = publication_size)]
    pub(crate) size: usize,
    /// Beside it, one more client echoes small messages here, 100 per second
    #[arg(long, value_name = "URL", value_parser = of_clients)]
    pub(crate) echo_probe: Option<Endpoint>,
    /// Beside it, so many clients per second connect and leave
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) accept_probe: Option<f64>,
    /// Let the probes run for so long before the first publication, to compare
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) baseline: Option<Duration>,
}

/// `churn`
#[derive(Args, Debug)]
pub(crate) struct ChurnArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) subscribe: SubscribeArgs,
    /// What the clients speak before they leave; `none` leaves when the WebSocket is open
    #[arg(long, value_enum, default_value_t = Dialect::None)]
    pub(crate) dialect: Dialect,
    /// Clients that come per second
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = rate)]
    pub(crate) rate: f64,
    /// Time to go on
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
}

/// `recover`
#[derive(Args, Debug)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Name of the channel, or the front of the names; its namespace needs history_size, history_ttl and recovery
    #[arg(long, value_name = "NAME", default_value = "load", value_parser = channel_name)]
    pub(crate) channel: String,
    /// Channels; client i subscribes to number i modulo C
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CHANNELS_MAX))]
    pub(crate) channels: u32,
    /// The server API of Tidegate or Centrifugo: http://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = of_api)]
    pub(crate) api: Endpoint,
    /// Key of the server API
    #[arg(long, value_name = "KEY", value_parser = api_key)]
    pub(crate) key: Option<String>,
    /// Connections to the API, each with one publication under way
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=PUBLISHERS_MAX))]
    pub(crate) publishers: u32,
    /// Publications per second, all publishers together; the channels take turns
    #[arg(long, value_name = "RATE", default_value = "10", value_parser = rate)]
    pub(crate) rate: f64,
    /// Bytes of a publication's data
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = publication_size)]
    pub(crate) size: usize,
    /// Time to publish
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Connections cut per second, of clients picked at random; they come back
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) resets: Option<f64>,
    /// Clients per second, picked at random, that stop reading for a while
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) pauses: Option<f64>,
    /// The longest of these whiles; their lengths are spread evenly
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub(crate) pause: Duration,
    /// The longest time until a client comes back; spread evenly too
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) away: Duration,
    /// Cut the connections of all clients at one moment, this long after publishing began. They come back as `--away` says,
    /// at once with 0s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) storm: Option<Duration>,
    /// After the storm all come back in one moment, that long afterwards, instead of as `--away` says
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "storm")]
    pub(crate) storm_away: Option<Duration>,
    /// Of all that is random; without it one is drawn and printed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
