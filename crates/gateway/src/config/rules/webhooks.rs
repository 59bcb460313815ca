//! `[webhooks]`, and the options of namespaces that go with it.

use super::super::{ChannelOptions, Config};
use super::Rules;
use crate::config::{Bytes, Secret, Time};
use conn::address::ADDRESS_HEADERS;
use conn::webhook::Event;

/// Names of headers in one of the lists: each of them is looked for in every handshake.
const HEADERS_MAX: u64 = 32;

pub(super) fn check(rules: &mut Rules<'_>, config: &Config) {
    let webhooks = &config.webhooks;
    rules.within("webhooks.timeout", webhooks.timeout, &(Time::millis(10)..=Time::secs(60)));
    rules.count("webhooks.calls_max", webhooks.calls_max.into(), 1, 65_536);
    rules.within("webhooks.answer_bytes_max", webhooks.answer_bytes_max, &(Bytes::kib(1)..=Bytes::mib(16)));
    rules.count("webhooks.headers", webhooks.headers.len() as u64, 0, HEADERS_MAX);
    rules.count("webhooks.emulated_headers", webhooks.emulated_headers.len() as u64, 0, HEADERS_MAX);
    rules.count("webhooks.signing_keys", webhooks.signing_keys.len() as u64, 0, 4);
    rules.holds(
        &["webhooks.refresh", "webhooks.connect"],
        webhooks.target(Event::Refresh).is_none() || webhooks.target(Event::Connect).is_some(),
        || "it does nothing without webhooks.connect: clients with tokens bring new ones by themselves".into(),
        "set both, or leave out webhooks.refresh",
    );
    rules.count("webhooks.notices_max", webhooks.notices_max.into(), 1, 10_000_000);
    let is_told = webhooks.notices.target().is_some();
    rules.holds(
        &["webhooks.client_notices", "webhooks.notices"],
        !webhooks.client_notices || is_told,
        || "it does nothing without webhooks.notices".into(),
        "set the URL, or leave out client_notices",
    );
    rules.holds(
        &["webhooks.timeout", "client.stale_close_delay", "webhooks.connect"],
        webhooks.target(Event::Connect).is_none() || webhooks.timeout < config.client.stale_close_delay,
        || {
            format!(
                "{} is not less than client.stale_close_delay, which is {}",
                webhooks.timeout, config.client.stale_close_delay
            )
        },
        "a client whose connect is not answered by then is closed",
    );
    let made_up = webhooks.emulated_headers.iter().find(|name| ADDRESS_HEADERS.contains(&name.get()));
    rules.holds(
        &["webhooks.emulated_headers"],
        made_up.is_none(),
        || format!("{:?} is where a client comes from, which it cannot make up", made_up.map_or("", |name| name.get())),
        "list it in webhooks.headers",
    );
    let is_used = is_told || webhooks.targets().next().is_some();
    let urls = Event::ALL.map(|event| format!("webhooks.{}", event.word()));
    for (key, is_set) in [
        ("webhooks.headers", !webhooks.headers.is_empty()),
        ("webhooks.emulated_headers", !webhooks.emulated_headers.is_empty()),
        ("webhooks.signing_keys", !webhooks.signing_keys.is_empty()),
    ] {
        // A URL that was refused is meant to be one.
        let keys: Vec<&str> = [key, "webhooks.notices"].into_iter().chain(urls.iter().map(String::as_str)).collect();
        rules.holds(
            &keys,
            !is_set || is_used,
            || "it does nothing without the URL of a webhook".into(),
            "set for example webhooks.connect",
        );
    }
    for (event, word, is_on) in OPTIONS {
        leaves_it_to_the_backend(rules, config, (event.word(), webhooks.target(event).is_some()), (word, is_on), false);
    }
    let told = ("notices", is_told);
    let option: (_, IsOn) = ("channel_notices", |options| options.channel_notices);
    leaves_it_to_the_backend(rules, config, told, option, webhooks.client_notices);
}

/// An option of namespaces needs its URL, and the URL a namespace that has the option, or another use.
fn leaves_it_to_the_backend(
    rules: &mut Rules<'_>,
    config: &Config,
    (key, has_url): (&str, bool),
    (word, is_on): (&str, IsOn),
    is_used_otherwise: bool,
) {
    let key = format!("webhooks.{key}");
    let all = std::iter::once(("channels", &config.channels));
    let all = all.chain(config.namespaces.iter().map(|namespace| (&*namespace.name, &namespace.options)));
    let users: Vec<&str> = all.filter(|(_, options)| is_on(options)).map(|(name, _)| name).collect();
    let first = users.first().copied().unwrap_or_default();
    let section = if first == "channels" { format!("channels.{word}") } else { format!("namespaces.{first}") };
    rules.holds(
        &[&section, &key],
        users.is_empty() || has_url,
        || format!("{word} does nothing without {key}"),
        "set the URL of the webhook, or leave out the option",
    );
    rules.holds(
        &[&key, "namespaces", &format!("channels.{word}")],
        !has_url || !users.is_empty() || is_used_otherwise,
        || format!("it does nothing as long as no namespace has {word}"),
        "set it for those namespaces about whose channels the backend is to hear",
    );
}

type IsOn = fn(&ChannelOptions) -> bool;

/// The events that namespaces leave to the backend, and the options that say so.
const OPTIONS: [(Event, &str, IsOn); 3] = [
    (Event::Subscribe, "subscribe_proxy_enabled", |options| options.subscribe_proxy_enabled),
    (Event::Publish, "publish_proxy_enabled", |options| options.publish_proxy_enabled),
    (Event::SubRefresh, "sub_refresh_proxy_enabled", |options| options.sub_refresh_proxy_enabled),
];

/// What is allowed and most likely not meant.
pub(super) fn warnings(rules: &mut Rules<'_>, config: &Config) {
    let webhooks = &config.webhooks;
    let is_short = |secret: &Secret| secret.expose().len() < super::SECRET_BYTES_MIN;
    rules.holds(
        &["webhooks.signing_keys"],
        !webhooks.signing_keys.iter().any(is_short),
        || format!("who sees one request can guess a key of less than {} bytes", super::SECRET_BYTES_MIN),
        "`openssl rand -hex 32` prints a better one",
    );
}
