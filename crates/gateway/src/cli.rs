//! The command line.

use crate::config::{self, Flags, Inputs, Loaded, Problem};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// The version with the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIDEGATE_GIT_HASH"), ")");

/// Exit code of a failure at run time.
pub const EXIT_RUNTIME: u8 = 1;
/// Exit code of a wrong command line or config; clap uses the same.
pub const EXIT_USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Without a subcommand, a config file and variables of ours, tidegate starts as with --dev.
Keys are also read from the environment, as TIDEGATE_SECTION__KEY. A flag wins over the
environment, the environment over the file, the file over the default.

Exit codes: 0 ok, 1 failure at run time, 2 wrong command line or config.";

/// An edge push gateway: backends publish to channels, connected clients get it at once.
#[derive(Clone, Debug, Parser)]
#[command(name = "tidegate", version = VERSION, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`, which may be given without naming it.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (the default)
    Serve(ServeArgs),
    /// Report every error of a config, or print the effective one
    Check(CheckArgs),
    /// Publish to a channel through the server API
    Publish(PublishArgs),
    /// Make a TLS certificate for trying things out on this machine
    Cert(CertArgs),
    /// Sign a token for trying things out, or say what is wrong with one
    Token(TokenArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Config file; deploy/tidegate.toml describes every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Public listener: IP:PORT, [IPv6]:PORT or unix:/path; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Listener of the server API
    #[arg(long, value_name = "ADDR")]
    pub api_listen: Option<String>,
    /// Number of workers, or "auto" for one per core
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Driver of the workers
    #[arg(long, value_parser = ["auto", "epoll", "uring"])]
    pub io: Option<String>,
    /// Open defaults to try things out, on this machine only
    #[arg(long)]
    pub dev: bool,
}

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Config file; without one the environment alone is checked
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check it as `serve --dev` would use it
    #[arg(long)]
    pub dev: bool,
    /// Print our config for this one of Centrifugo 6, .json or .toml, and what of it is not supported
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "dev"])]
    pub centrifugo: Option<PathBuf>,
}

/// Flags of `cert`.
#[derive(Clone, Debug, Args)]
pub struct CertArgs {
    /// Folder that cert.pem and key.pem are written to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// A name or address that it is good for, beside localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
}

/// Flags of `token`.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// Config file, whose first secret signs; without one that of the environment
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whose it is; without it nobody's
    #[arg(long, value_name = "ID", default_value = "")]
    pub user: String,
    /// How long it counts; 0s: for ever
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: String,
    /// What others are told of the client: JSON
    #[arg(long, value_name = "JSON")]
    pub info: Option<String>,
    /// A channel that the client is subscribed to when it connects; may be repeated
    #[arg(long = "channel", value_name = "CHANNEL", conflicts_with = "subscribe")]
    pub channels: Vec<String>,
    /// Make a subscription token for this channel instead of one to connect with
    #[arg(long, value_name = "CHANNEL")]
    pub subscribe: Option<String>,
    /// Make so many, a line each, of users ID1 to IDN: for tests with load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Make none, but say what this one is good for, or what is wrong with it
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["user", "ttl", "info", "channels", "subscribe", "count"])]
    pub check: Option<String>,
}

/// Arguments of `publish`.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// The channel
    pub channel: String,
    /// What subscribers receive: JSON, so a text needs its quotes
    #[arg(allow_hyphen_values = true)]
    pub data: String,
    /// Where the API listens: http://HOST:PORT or unix:/path
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    pub api: String,
    /// API key; without it, the first of TIDEGATE_API__KEYS or TIDEGATE_API__KEYS_FILE
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
}

/// Whether the open defaults apply, and who asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dev {
    /// They do not.
    No,
    /// `--dev` was given.
    Asked,
    /// Nothing at all was given: somebody tries tidegate for the first time. Said at start.
    FirstRun,
}

impl Dev {
    /// The open defaults apply.
    pub fn is_on(self) -> bool {
        self != Self::No
    }
}

impl Cli {
    /// Whether the flags given without `serve` mean [`Dev`]: `serve` itself is never a first run.
    pub fn dev(&self, env: &[(OsString, OsString)]) -> Dev {
        match &self.command {
            Some(Command::Serve(args)) if args.dev => Dev::Asked,
            Some(_) => Dev::No,
            None if self.serve.dev => Dev::Asked,
            None if self.serve.config.is_none() && !config::has_ours(env) => Dev::FirstRun,
            None => Dev::No,
        }
    }
}

impl ServeArgs {
    /// The config that these flags, the file and the environment make.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self, env: &[(OsString, OsString)], dev: Dev) -> Result<Loaded, Vec<Problem>> {
        config::load(Inputs {
            file: self.config.as_deref(),
            env,
            flags: Flags {
                listen: &self.listen,
                api_listen: self.api_listen.as_deref(),
                workers: self.workers.as_deref(),
                io: self.io.as_deref(),
            },
            dev: dev.is_on(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["tidegate"], args].concat()).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_a_bare_start_or_the_flag_is_dev() {
        let ours: [(OsString, OsString); 1] = [("TIDEGATE_LOG__LEVEL".into(), "info".into())];
        let foreign: [(OsString, OsString); 1] = [("TIDEGATE_PORT".into(), "tcp://10.0.0.1:80".into())];
        type Case<'a> = (&'a [&'a str], &'a [(OsString, OsString)], Dev);
        let table: [Case<'_>; 10] = [
            (&[], &[], Dev::FirstRun),
            (&[], &foreign, Dev::FirstRun),
            (&["--listen", "127.0.0.1:8001"], &[], Dev::FirstRun),
            (&[], &ours, Dev::No),
            (&["--config", "a.toml"], &[], Dev::No),
            (&["serve"], &[], Dev::No),
            (&["serve", "--listen", "127.0.0.1:8001"], &[], Dev::No),
            (&["serve", "--dev"], &[], Dev::Asked),
            (&["--dev"], &ours, Dev::Asked),
            (&["--dev", "--config", "a.toml"], &[], Dev::Asked),
        ];
        for (args, env, expected) in table {
            assert_eq!(parse(args).dev(env), expected, "{args:?}");
        }
    }

    #[test]
    fn flags_without_a_subcommand_are_those_of_serve() {
        let bare =
            parse(&["--listen", "a", "--listen", "b", "--api-listen", "c", "--workers", "2", "--io", "epoll"]).serve;
        assert_eq!((&bare.listen[..], bare.api_listen.as_deref()), (&["a".to_owned(), "b".to_owned()][..], Some("c")));
        assert_eq!((bare.workers.as_deref(), bare.io.as_deref()), (Some("2"), Some("epoll")));
        assert!(Cli::try_parse_from(["tidegate", "--dev", "serve"]).is_err(), "which of the two would count?");
        assert!(Cli::try_parse_from(["tidegate", "--io", "kqueue"]).is_err());
    }

    #[test]
    fn published_data_may_start_with_a_minus() {
        let Some(Command::Publish(args)) = parse(&["publish", "news", "-1", "--key", "k"]).command else { panic!() };
        assert_eq!((args.data.as_str(), args.key.as_deref()), ("-1", Some("k")));
    }

    #[test]
    fn the_version_names_the_commit_or_says_that_it_is_unknown() {
        let (version, hash) = VERSION.trim_end_matches(')').split_once(" (").expect("version and hash");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert!(hash == "unknown" || hash.len() >= 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    }
}
