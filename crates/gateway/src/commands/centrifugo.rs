//! `tidegate check --centrifugo`: the config file of a Centrifugo 6 in our words, and what of it has none.

use crate::cli::{EXIT_RUNTIME, EXIT_USAGE};
use crate::config::{Bytes, Time};
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::Path;

/// How a value is written here.
#[derive(Clone, Copy)]
enum As {
    /// As it is there.
    Same,
    /// A list of what is one text there.
    List,
    /// Go's `1m30s` as `90s`.
    Time,
    /// A number as `"65536B"`, in the largest unit that fits.
    Bytes,
}

/// What each option is called here.
const OPTIONS: &[(&str, &str, As)] = &[
    ("node.name", "server.name", As::Same),
    ("log.level", "log.level", As::Same),
    ("http_api.key", "api.keys", As::List),
    ("http_api.insecure", "api.insecure", As::Same),
    ("client.allowed_origins", "public.origins", As::Same),
    ("client.token.hmac_secret_key", "token.hmac_secret_keys", As::List),
    ("client.token.rsa_public_key", "token.rsa_public_keys", As::List),
    ("client.token.ecdsa_public_key", "token.ecdsa_public_keys", As::List),
    ("client.token.jwks_public_endpoint", "token.jwks_url", As::Same),
    ("client.token.audience", "token.audience", As::Same),
    ("client.token.issuer", "token.issuer", As::Same),
    ("client.allow_anonymous_connect_without_token", "client.anonymous", As::Same),
    ("client.insecure", "client.insecure", As::Same),
    ("client.proxy.connect.endpoint", "webhooks.connect", As::Same),
    ("client.proxy.connect.timeout", "webhooks.timeout", As::Time),
    ("client.proxy.connect.http_headers", "webhooks.headers", As::Same),
    ("client.proxy.refresh.endpoint", "webhooks.refresh", As::Same),
    ("channel.proxy.subscribe.endpoint", "webhooks.subscribe", As::Same),
    ("channel.proxy.publish.endpoint", "webhooks.publish", As::Same),
    ("channel.proxy.sub_refresh.endpoint", "webhooks.sub_refresh", As::Same),
    ("rpc.proxy.endpoint", "webhooks.rpc", As::Same),
    ("client.ping_interval", "client.ping_interval", As::Time),
    ("client.pong_timeout", "client.pong_timeout", As::Time),
    ("client.stale_close_delay", "client.stale_close_delay", As::Time),
    ("client.expired_close_delay", "client.expired_close_delay", As::Time),
    ("client.channel_limit", "client.channels_max", As::Same),
    ("client.user_connection_limit", "client.connections_per_user_max", As::Same),
    ("client.connection_limit", "workers.connections_max", As::Same),
    ("client.connection_rate_limit", "http.handshakes_per_second", As::Same),
    ("client.queue_max_size", "outbox.bytes_max", As::Bytes),
    ("client.history_max_publication_limit", "client.history_publications_max", As::Same),
    ("client.recovery_max_publication_limit", "client.recovery_publications_max", As::Same),
    ("client.subscribe_to_user_personal_channel.enabled", "client.personal_channel", As::Same),
    (
        "client.subscribe_to_user_personal_channel.personal_channel_namespace",
        "client.personal_channel_namespace",
        As::Same,
    ),
    ("websocket.message_size_limit", "client.message_bytes_max", As::Bytes),
    ("websocket.compression", "compression.enabled", As::Same),
    ("websocket.compression_level", "compression.level", As::Same),
    ("websocket.compression_min_size", "compression.publication_bytes_min", As::Bytes),
    ("websocket.write_timeout", "outbox.write_timeout", As::Time),
    ("uni_websocket.enabled", "public.uni_websocket", As::Same),
    ("channel.max_length", "client.channel_name_bytes_max", As::Bytes),
    ("shutdown.timeout", "drain.time", As::Time),
];

/// Options of a namespace, which have the same names here.
const CHANNEL_OPTIONS: &[(&str, As)] = &[
    ("presence", As::Same),
    ("join_leave", As::Same),
    ("force_push_join_leave", As::Same),
    ("history_size", As::Same),
    ("history_ttl", As::Time),
    ("history_meta_ttl", As::Time),
    ("force_recovery", As::Same),
    ("allow_recovery", As::Same),
    ("force_recovery_mode", As::Same),
    ("force_positioning", As::Same),
    ("allow_positioning", As::Same),
    ("auto_cache_recover", As::Same),
    ("allowed_delta_types", As::Same),
    ("delta_publish", As::Same),
    ("allow_user_limited_channels", As::Same),
    ("allow_subscribe_for_client", As::Same),
    ("allow_subscribe_for_anonymous", As::Same),
    ("allow_publish_for_client", As::Same),
    ("allow_publish_for_subscriber", As::Same),
    ("allow_publish_for_anonymous", As::Same),
    ("allow_presence_for_client", As::Same),
    ("allow_presence_for_subscriber", As::Same),
    ("allow_presence_for_anonymous", As::Same),
    ("allow_history_for_client", As::Same),
    ("allow_history_for_subscriber", As::Same),
    ("allow_history_for_anonymous", As::Same),
    ("subscribe_proxy_enabled", As::Same),
    ("publish_proxy_enabled", As::Same),
    ("sub_refresh_proxy_enabled", As::Same),
];

/// What is always on here, or follows from another option.
const ALWAYS: &[&str] = &[
    "prometheus.enabled",
    "health.enabled",
    "client.proxy.connect.enabled",
    "client.proxy.refresh.enabled",
    "rpc.without_namespace.proxy_enabled",
];

/// Prints our config to `out`, and to `err` what of theirs is not in it.
///
/// # Errors
/// When `out` or `err` cannot be written to.
pub fn run(file: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let read = match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text),
        Err(error) => {
            writeln!(err, "error: {}: {error}", file.display())?;
            return Ok(EXIT_RUNTIME);
        }
    };
    let theirs = match read {
        Ok(theirs) => theirs,
        Err(why) => {
            writeln!(err, "error: {}: {why}", file.display())?;
            return Ok(EXIT_USAGE);
        }
    };
    let Translated { ours, left } = translate(theirs);
    write!(
        out,
        "# From {}. Look at it with `tidegate check --config`; deploy/tidegate.toml has every key.\n\n{}",
        file.display(),
        toml::to_string(&ours).map_err(io::Error::other)?
    )?;
    for line in &left {
        writeln!(err, "not in it: {line}")?;
    }
    Ok(0)
}

fn parse(file: &Path, text: &str) -> Result<Map<String, Value>, String> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(text).map_err(|error| error.to_string()),
        Some("toml") => toml::from_str(text).map_err(|error| error.to_string()),
        _ => Err("this reads .json and .toml\n  hint: for YAML, `yq -o json FILE > config.json`".to_owned()),
    }
}

#[derive(Debug, Default)]
struct Translated {
    ours: toml::Table,
    /// Options without a counterpart that are set to something, with what they are set to.
    left: Vec<String>,
}

fn translate(mut theirs: Map<String, Value>) -> Translated {
    let mut done = Translated::default();
    let port = take(&mut theirs, "http_server.port").map(|port| port.to_string().trim_matches('"').to_owned());
    let address = take(&mut theirs, "http_server.address");
    if port.is_some() || address.is_some() {
        let host = address.as_ref().and_then(Value::as_str).filter(|host| !host.is_empty()).unwrap_or("0.0.0.0");
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let listen = format!("{host}:{}", port.as_deref().unwrap_or("8000"));
        done.put("public.listen", toml::Value::Array(vec![listen.into()]));
    }
    for (option, ours, kind) in OPTIONS {
        done.carry_over(take(&mut theirs, option), option, ours, *kind);
    }
    ALWAYS.iter().for_each(|option| drop(take(&mut theirs, option)));
    let meta_ttl = take(&mut theirs, "channel.history_meta_ttl");
    let channels = take(&mut theirs, "channel.without_namespace");
    if channels.is_some() || meta_ttl.is_some() {
        let table = done.channels(channels.unwrap_or_default(), meta_ttl.as_ref(), "channel.without_namespace");
        done.ours.insert("channels".into(), table.into());
    }
    if let Some(Value::Array(namespaces)) = take(&mut theirs, "channel.namespaces") {
        let all = namespaces.into_iter().map(|mut options| {
            let name = options.as_object_mut().and_then(|options| options.remove("name")).unwrap_or_default();
            let name = name.as_str().unwrap_or_default().to_owned();
            let path = format!("channel.namespaces.{name}");
            let mut table = toml::Table::from_iter([("name".to_owned(), name.into())]);
            table.extend(done.channels(options, meta_ttl.as_ref(), &path));
            toml::Value::Table(table)
        });
        let all: Vec<_> = all.collect();
        done.ours.insert("namespaces".into(), all.into());
    }
    leaves("", &Value::Object(theirs), &mut done.left);
    done
}

impl Translated {
    fn put(&mut self, path: &str, value: toml::Value) {
        let (section, key) = path.split_once('.').expect("a section and a key");
        let section = self.ours.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().expect("made as one").insert(key.to_owned(), value);
    }

    /// An option whose name is known. What says as much as if it were not there is left out.
    fn carry_over(&mut self, value: Option<Value>, option: &str, ours: &str, kind: As) {
        let Some(value) = value.filter(|value| !says_nothing(value)) else { return };
        match written(&value, kind) {
            Some(value) => self.put(ours, value),
            None => self.left.push(format!("{option} = {value}, which is not understood")),
        }
    }

    fn channels(&mut self, options: Value, meta_ttl: Option<&Value>, path: &str) -> toml::Table {
        let mut options = if let Value::Object(options) = options { options } else { Map::new() };
        if let Some(meta_ttl) = meta_ttl {
            options.entry("history_meta_ttl").or_insert_with(|| meta_ttl.clone());
        }
        let mut table = toml::Table::new();
        for (name, kind) in CHANNEL_OPTIONS {
            let Some(value) = options.remove(*name).filter(|value| !says_nothing(value)) else { continue };
            match written(&value, *kind) {
                Some(value) => drop(table.insert((*name).to_owned(), value)),
                None => self.left.push(format!("{path}.{name} = {value}, which is not understood")),
            }
        }
        leaves(path, &Value::Object(options), &mut self.left);
        table
    }
}

/// Takes a value out of nested objects.
fn take(from: &mut Map<String, Value>, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => from.remove(path),
        Some((first, rest)) => take(from.get_mut(first)?.as_object_mut()?, rest),
    }
}

/// Off, empty or 0: the default of whatever is not there.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Bool(true) => false,
    }
}

/// Names everything in a value that says something.
fn leaves(path: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        value if says_nothing(value) => {}
        Value::Object(fields) => {
            let below = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            fields.iter().for_each(|(name, value)| leaves(&below(name), value, into));
        }
        value => into.push(format!("{path} = {value}")),
    }
}

fn written(value: &Value, kind: As) -> Option<toml::Value> {
    match kind {
        As::Same => toml::Value::try_from(value).ok(),
        As::List => Some(vec![value.as_str()?.to_owned()].into()),
        As::Time => Some(Time::millis(go_millis(value.as_str()?)?).to_string().into()),
        As::Bytes => Some(Bytes::new(value.as_u64()?).to_string().into()),
    }
}

/// Go's lengths of time: `1h`, `1m30s`, `1.5s`, `1000ms`.
fn go_millis(text: &str) -> Option<u64> {
    let (mut rest, mut millis) = (text, 0.0);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit_at].parse().ok()?;
        let unit_end = rest[unit_at..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |len| unit_at + len);
        let scale = match &rest[unit_at..unit_end] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        millis += number * scale;
        rest = &rest[unit_end..];
    }
    (!text.is_empty() && millis >= 1.0).then_some(millis as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(theirs: Value) -> (String, Vec<String>) {
        let Value::Object(theirs) = theirs else { panic!("an object") };
        let Translated { ours, left } = translate(theirs);
        (toml::to_string(&ours).expect("TOML"), left)
    }

    #[test]
    fn options_get_our_names_and_the_rest_is_named() {
        let (ours, left) = of(json!({
            "http_server": {"port": "8000", "tls": {"enabled": true}},
            "http_api": {"key": "k"},
            "client": {
                "token": {"hmac_secret_key": "s", "jwks_public_endpoint": "https://a", "user_id_claim": "uid", "audience": ""},
                "proxy": {"connect": {"enabled": true, "endpoint": "http://b/c", "http_headers": ["Cookie"], "timeout": "3s"}},
                "ping_interval": "1m30s", "queue_max_size": 1_048_576, "connection_rate_limit": 10, "insecure": false,
            },
            "prometheus": {"enabled": true},
            "sse": {"enabled": false},
            "rpc": {"proxy": {"endpoint": "http://b/r"}, "without_namespace": {"proxy_enabled": true}},
            "channel": {
                "proxy": {"subscribe": {"endpoint": "http://b/s", "timeout": "5s"}},
                "history_meta_ttl": "720h",
                "without_namespace": {"presence": true},
                "namespaces": [{"name": "chat", "history_size": 10, "history_ttl": "300s", "history_meta_ttl": "1h",
                    "channel_regex": "^a", "subscribe_proxy_enabled": true, "allowed_delta_types": ["fossil"]}],
            },
        }));
        let ours: toml::Table = ours.parse().expect("TOML");
        let expected: toml::Table = r#"
            api.keys = ["k"]
            public.listen = ["0.0.0.0:8000"]
            token.hmac_secret_keys = ["s"]
            token.jwks_url = "https://a"
            client.ping_interval = "90s"
            webhooks = { connect = "http://b/c", timeout = "3s", headers = ["Cookie"], subscribe = "http://b/s", rpc = "http://b/r" }
            outbox.bytes_max = "1MiB"
            http.handshakes_per_second = 10
            channels = { presence = true, history_meta_ttl = "720h" }
            [[namespaces]]
            name = "chat"
            history_size = 10
            history_ttl = "5m"
            history_meta_ttl = "1h"
            allowed_delta_types = ["fossil"]
            subscribe_proxy_enabled = true
        "#
        .parse()
        .expect("TOML");
        assert_eq!(ours, expected);
        assert_eq!(
            left,
            [
                r#"channel.namespaces.chat.channel_regex = "^a""#,
                r#"channel.proxy.subscribe.timeout = "5s""#,
                r#"client.token.user_id_claim = "uid""#,
                "http_server.tls.enabled = true",
            ]
        );
    }

    #[test]
    fn what_is_no_length_of_time_is_said() {
        for (text, millis) in [
            ("25s", Some(25_000)),
            ("1h0m0s", Some(3_600_000)),
            ("1.5s", Some(1500)),
            ("1000ms", Some(1000)),
            ("-1", None),
            ("5", None),
            ("5x", None),
            ("", None),
        ] {
            assert_eq!(go_millis(text), millis, "{text}");
        }
        let (ours, left) = of(json!({"client": {"pong_timeout": "-1"}}));
        assert_eq!(
            (ours.as_str(), left),
            ("", vec!["client.pong_timeout = \"-1\", which is not understood".to_owned()])
        );
    }

    #[test]
    fn each_of_our_names_is_a_key_of_ours() {
        let known = toml::Table::try_from(crate::config::Config::default()).expect("a table");
        for (_, ours, _) in OPTIONS {
            let (section, key) = ours.split_once('.').expect("a section and a key");
            assert!(known[section].as_table().is_some_and(|keys| keys.contains_key(key)), "{ours}");
        }
        for (name, _) in CHANNEL_OPTIONS {
            assert!(known["channels"].as_table().is_some_and(|keys| keys.contains_key(*name)), "{name}");
        }
    }
}
