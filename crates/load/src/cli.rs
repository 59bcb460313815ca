//! The command line.

use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use clap::{Args, Parser, Subcommand};
use std::time::Duration;

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
}

/// What every scenario needs to know.
#[derive(Args, Debug)]
pub(crate) struct CommonArgs {
    /// The server: ws://HOST:PORT, with the dialect's usual path unless another is given (http:// is taken too)
    #[arg(long, value_name = "URL")]
    pub(crate) url: Endpoint,
    /// Clients
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
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
}

/// How fast the clients of a fleet come.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// Connections opened per second
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
    /// What the clients speak; `none` opens WebSockets and says nothing on them
    #[arg(long, value_enum, default_value_t = Dialect::Centrifugo)]
    pub(crate) dialect: Dialect,
    /// Time to keep them all open
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
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
    /// The server API: http://HOST:PORT
    #[arg(long, value_name = "URL")]
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
    #[arg(long, value_name = "URL")]
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

/// `500ms`, `30s`, `10m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write 500ms, 30s, 10m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write 500ms, 30s, 10m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number per second between 0.001 and 10000000".to_owned()),
    }
}

fn size(text: &str, min: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (min..=crate::fleet::MESSAGE_BYTES_MAX / 2).contains(&size) => Ok(size),
        _ => Err(format!(
            "between {min}, for the sequence number and the time, and {}",
            crate::fleet::MESSAGE_BYTES_MAX / 2
        )),
    }
}

fn echo_size(text: &str) -> Result<usize, String> {
    size(text, crate::payload::MARK_BYTES)
}

fn publication_size(text: &str) -> Result<usize, String> {
    size(text, crate::payload::DATA_BYTES_MIN)
}

/// Names that need no escape in JSON nor in a URL, and no comma, which separates them there.
fn channel_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 128 of A-Z a-z 0-9 - _ . :".to_owned())
    }
}

fn api_key(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a key has only visible ASCII characters and at least one".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_a_unit_and_bare_numbers_are_seconds() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1.5", 1_500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "5 s", "5d", "1.2.3s", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_holds_at_least_the_stamp() {
        assert_eq!(echo_size("20"), Ok(20));
        assert!(echo_size("19").is_err());
        assert_eq!(publication_size("40"), Ok(40));
        assert!(publication_size("39").is_err());
    }

    #[test]
    fn channel_names_need_no_escaping() {
        assert!(channel_name("demo:load-1").is_ok());
        for name in ["", "a,b", "a b", "a\"", "a/b", "a%41"] {
            assert!(channel_name(name).is_err(), "{name}");
        }
    }
}
