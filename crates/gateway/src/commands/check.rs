//! `tidegate check`: what is wrong with a config, or what it amounts to.

use crate::cli::{CheckArgs, Dev, EXIT_USAGE, ServeArgs};
use crate::commands::centrifugo;
use crate::config::Problem;
use std::ffi::OsString;
use std::io::{self, Write};

/// Prints every error to `err`, or the effective config to `out`.
///
/// # Errors
/// When `out` or `err` cannot be written to.
pub fn run(args: &CheckArgs, env: &[(OsString, OsString)], out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    if let Some(file) = &args.centrifugo {
        return centrifugo::run(file, out, err);
    }
    let dev = if args.dev { Dev::Asked } else { Dev::No };
    let serve = ServeArgs { config: args.config.clone(), ..ServeArgs::default() };
    match serve.load(env, dev) {
        Ok(loaded) => {
            report(err, "warning", &loaded.warnings)?;
            out.write_all(loaded.config.to_toml().as_bytes())?;
            Ok(0)
        }
        Err(problems) => {
            report(err, "error", &problems)?;
            writeln!(err, "{} error{} in the config", problems.len(), if problems.len() == 1 { "" } else { "s" })?;
            Ok(EXIT_USAGE)
        }
    }
}

/// One problem a line, its hint below. `serve` prints its errors the same way.
///
/// # Errors
/// When `err` cannot be written to.
pub fn report(err: &mut dyn Write, kind: &str, problems: &[Problem]) -> io::Result<()> {
    problems.iter().try_for_each(|problem| writeln!(err, "{kind}: {problem}"))
}
