//! `tidegate token`: a token to try things out with, or many, or what is wrong with one.

use crate::cli::{EXIT_RUNTIME, EXIT_USAGE, TokenArgs};
use crate::config::{self, Config, Inputs};
use crate::{commands, topology};
use conn::auth::token::{TokenError, sign_hs256};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prints tokens that the config's first secret has signed, or checks one with all of the config's keys.
///
/// # Errors
/// When `out` or `err` cannot be written to.
pub fn run(args: &TokenArgs, env: &[(OsString, OsString)], out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let loaded = match config::load(Inputs { file: args.config.as_deref(), env, ..Inputs::default() }) {
        Ok(loaded) => loaded,
        Err(problems) => {
            commands::check::report(err, "error", &problems)?;
            return Ok(EXIT_USAGE);
        }
    };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(token) = &args.check {
        return check(&loaded.config, token, unix, out, err);
    }
    if let Err((message, hint)) = make(args, &loaded.config, unix, out)? {
        writeln!(err, "error: {message}\n  hint: {hint}")?;
        return Ok(EXIT_USAGE);
    }
    Ok(0)
}

/// One of the user that is named, or one of each of as many as are asked for.
fn make(args: &TokenArgs, config: &Config, unix: Duration, out: &mut dyn Write) -> io::Result<Result<(), Wrong>> {
    let (mut claims, secret) = match claims(args, unix).and_then(|claims| Ok((claims, secret(config)?))) {
        Ok(found) => found,
        Err(wrong) => return Ok(Err(wrong)),
    };
    for number in 0..args.count.unwrap_or(1) {
        if args.count.is_some() {
            claims.insert("sub".into(), format!("{}{}", args.user, number + 1).into());
        }
        let text = serde_json::to_string(&claims).map_err(io::Error::other)?;
        writeln!(out, "{}", sign_hs256(secret, &text))?;
    }
    Ok(Ok(()))
}

/// What is wrong, and what to do.
type Wrong = (String, &'static str);

fn claims(args: &TokenArgs, unix: Duration) -> Result<Map<String, Value>, Wrong> {
    let mut claims = Map::new();
    claims.insert("sub".into(), args.user.clone().into());
    claims.insert("iat".into(), unix.as_secs().into());
    let ttl: config::Time =
        args.ttl.parse().map_err(|error| (format!("--ttl: {error}"), "such as 10m; 0s: for ever"))?;
    if !ttl.get().is_zero() {
        claims.insert("exp".into(), (unix + ttl.get()).as_secs().into());
    }
    if let Some(info) = &args.info {
        let is_json = serde_json::from_str::<&RawValue>(info).is_ok();
        let value = is_json.then(|| serde_json::from_str::<Value>(info).ok()).flatten();
        let hint = "a text needs its quotes inside those of the shell: '\"Ada\"'";
        claims.insert("info".into(), value.ok_or(("--info is not JSON".to_owned(), hint))?);
    }
    if let Some(channel) = &args.subscribe {
        claims.insert("channel".into(), channel.clone().into());
    }
    if !args.channels.is_empty() {
        claims.insert("channels".into(), args.channels.clone().into());
    }
    Ok(claims)
}

fn secret(config: &Config) -> Result<&[u8], Wrong> {
    let secret = config.token.hmac_secret_keys.first().ok_or((
        "there is no secret to sign with".to_owned(),
        "set token.hmac_secret_keys in the file of --config, or TIDEGATE_TOKEN__HMAC_SECRET_KEYS_FILE; for a public key, \
         whoever has the private one signs",
    ))?;
    Ok(secret.expose().as_bytes())
}

fn check(config: &Config, token: &str, unix: Duration, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let tokens = topology::tokens(&config.token);
    if !tokens.can_verify() {
        writeln!(
            err,
            "error: the config has no key to check tokens with\n  hint: see [token] in deploy/tidegate.toml"
        )?;
        return Ok(EXIT_USAGE);
    }
    let ends = |lasts: conn::auth::token::Lasts| match lasts {
        conn::auth::token::Lasts::ForEver => "for ever".to_owned(),
        conn::auth::token::Lasts::Until(at) => match at.checked_sub(unix.as_secs()) {
            Some(left) => format!("for {left} s"),
            None => "for no time at all (error 110): `expire_at` has passed".to_owned(),
        },
    };
    let connection = tokens.connection(token, unix);
    // A subscription token is the one that names a channel.
    let verdict = match (connection, tokens.subscription(token, unix)) {
        (Ok(claims), _) => {
            let channels = claims.channels.iter().map(|sub| sub.channel.as_str()).collect::<Vec<_>>().join(", ");
            let subscribed = if channels.is_empty() { String::new() } else { format!(", subscribed to {channels}") };
            Ok(format!("a connection token of user {:?}, {}{subscribed}", claims.user, ends(claims.lasts)))
        }
        (Err(_), Ok(claims)) => {
            Ok(format!("a subscription token of user {:?} for {}, {}", claims.user, claims.channel, ends(claims.lasts)))
        }
        (Err(why), Err(_)) => Err(why),
    };
    match verdict {
        Ok(what) => writeln!(out, "{what}").map(|()| 0),
        Err(TokenError::Expired) => {
            writeln!(err, "error: it does not count now: `exp` has passed, or `nbf` is still to come (error 109)")?;
            Ok(EXIT_RUNTIME)
        }
        Err(TokenError::KeyUnknown) => {
            writeln!(
                err,
                "error: none of the keys in the config fits it; those of token.jwks_url are not fetched by this command"
            )?;
            Ok(EXIT_RUNTIME)
        }
        Err(TokenError::Invalid(why)) => {
            writeln!(err, "error: it does not count: {why} (disconnect 3500)")?;
            Ok(EXIT_RUNTIME)
        }
    }
}
