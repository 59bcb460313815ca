//! What must hold between the values of a config, once each of them is readable.

mod limits;
mod proxies;
mod tls;
mod webhooks;

use super::Config;
use super::address::Address;
use super::channels::{ChannelOptions, RecoveryMode, SlowClient};
use super::problem::{Problem, Source};
use super::sections::Pin;
use super::values::{Bytes, Count, Secret, Time};
use conn::auth::token::KEYS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// What HS256 asks of its secret (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Workers of one process. A worker is one core; the limit keeps the mailboxes, one per pair of workers, countable.
pub const WORKERS_MAX: u32 = 256;

/// What a publication needs in an outbox beside its data: frame, channel, offset and the publisher's info.
pub const ENVELOPE_BYTES_MAX: Bytes = Bytes::kib(4);

/// An outbox counts its bytes in 32 bits.
const OUTBOX_BYTES_LIMIT: Bytes = Bytes::mib(2048);

/// The table of headers that the parser holds.
const HEADERS_LIMIT: u64 = 64;

/// Collects what does not hold.
pub(super) struct Rules<'a> {
    sources: &'a BTreeMap<String, Source>,
    refused: &'a BTreeSet<String>,
    problems: Vec<Problem>,
}

/// Errors and warnings of a config whose values were put together from `sources`.
pub(super) fn check(
    config: &Config,
    dev: bool,
    sources: &BTreeMap<String, Source>,
    refused: &BTreeSet<String>,
) -> (Vec<Problem>, Vec<Problem>) {
    let mut rules = Rules { sources, refused, problems: Vec::new() };
    listeners(&mut rules, config, dev);
    workers(&mut rules, config);
    clients(&mut rules, config);
    tokens(&mut rules, config);
    memory(&mut rules, config);
    channels(&mut rules, config);
    let range = Time::millis(100)..=Time::secs(600);
    rules.within("drain.time", config.drain.time, &range);
    rules.within("drain.notice", config.drain.notice, &(Time::ZERO..=*range.end()));
    rules.count("log.queue_lines", config.log.queue_lines.into(), 1, 1 << 20);
    limits::check(&mut rules, config);
    proxies::check(&mut rules, config);
    tls::check(&mut rules, config);
    webhooks::check(&mut rules, config);
    let name = &config.server.name;
    rules.holds(
        &["server.name"],
        name.len() <= 64 && !name.contains(|c: char| c.is_control()),
        || format!("{name:?} is not a name of at most 64 bytes without control characters"),
        "",
    );
    let errors = std::mem::take(&mut rules.problems);
    warnings(&mut rules, config);
    (errors, rules.problems)
}

impl Rules<'_> {
    /// Notes a rule that is broken, at the strongest of the values it is about. `keys[0]` is the one to name.
    fn holds(&mut self, keys: &[&str], kept: bool, message: impl FnOnce() -> String, hint: &str) {
        if kept || keys.iter().any(|key| self.refused.contains(*key)) {
            return;
        }
        let source = keys.iter().filter_map(|key| self.sources.get(*key)).max().cloned().unwrap_or(Source::Default);
        let problem = Problem::new(source, keys[0], &message());
        self.problems.push(if hint.is_empty() { problem } else { problem.hinted(hint) });
    }

    fn within<T: PartialOrd + std::fmt::Display>(&mut self, key: &str, value: T, range: &std::ops::RangeInclusive<T>) {
        self.holds(
            &[key],
            range.contains(&value),
            || format!("{value} is outside {} to {}", range.start(), range.end()),
            "",
        );
    }

    fn count(&mut self, key: &str, value: u64, min: u64, max: u64) {
        self.within(key, value, &(min..=max));
    }

    fn below<T: PartialOrd + std::fmt::Display>(
        &mut self,
        (low_key, low): (&str, T),
        (high_key, high): (&str, T),
        why: &str,
    ) {
        self.holds(
            &[low_key, high_key],
            low < high,
            || format!("{low} must be less than {high_key}, which is {high}"),
            why,
        );
    }

    fn at_most<T: PartialOrd + std::fmt::Display>(
        &mut self,
        (low_key, low): (&str, T),
        (high_key, high): (&str, T),
        why: &str,
    ) {
        self.holds(
            &[low_key, high_key],
            low <= high,
            || format!("{low} must not be more than {high_key}, which is {high}"),
            why,
        );
    }
}

fn listeners(rules: &mut Rules, config: &Config, dev: bool) {
    let (public, api, tls) = (&config.public, &config.api, &config.tls);
    rules.holds(
        &["public.listen", "tls.listen"],
        !public.listen.is_empty() || !tls.listen.is_empty(),
        || "no listener, so no client could connect".into(),
        "write for example listen = [\"127.0.0.1:8000\"]",
    );
    let mut seen: Vec<(&str, &Address)> = Vec::new();
    let clients = || with_key("public.listen", &public.listen).chain(with_key("tls.listen", &tls.listen));
    let backends = || with_key("api.listen", &api.listen).chain(with_key("tls.api_listen", &tls.api_listen));
    for (key, address) in clients().chain(backends()) {
        if let Some((first, _)) = seen.iter().find(|(_, other)| *other == address && !address.is_ephemeral()) {
            rules.holds(
                &[key, first],
                false,
                || format!("{address} is also in {first}"),
                "each listener needs its own address",
            );
        }
        seen.push((key, address));
        rules.holds(
            &[key],
            !dev || address.is_loopback(),
            || format!("{address} can be reached from other machines, and --dev lets everybody do everything"),
            "listen on 127.0.0.1, [::1] or a Unix socket; or leave out --dev and use `tidegate serve --config FILE`",
        );
    }
    rules.holds(
        &["public.hosts"],
        !dev || public.hosts.is_empty(),
        || "a name is for clients of other machines, and --dev lets everybody do everything".into(),
        "leave it out; or leave out --dev and use `tidegate serve --config FILE`",
    );
    if dev {
        return; // Said already, and the hints below would lead astray.
    }
    let remote_client = clients().find(|(_, address)| !address.is_loopback());
    if let Some((key, address)) = remote_client {
        rules.holds(
            &[key, "token.hmac_secret_keys", "client.anonymous"],
            config.client.anonymous || config.tells_clients_apart(),
            || format!("{address} can be reached from other machines, and there is no key to tell clients apart by tokens"),
            "set token.hmac_secret_keys (or TIDEGATE_TOKEN__HMAC_SECRET_KEYS_FILE) or webhooks.connect, listen on 127.0.0.1, or set client.anonymous = true to let everybody in on purpose",
        );
    }
    if remote_client.is_none() {
        rules.holds(
            &["public.hosts", "token.hmac_secret_keys", "client.anonymous"],
            public.hosts.is_empty() || config.client.anonymous || config.tells_clients_apart(),
            || "a name is for clients of other machines, and there is no key to tell clients apart by tokens".into(),
            "set token.hmac_secret_keys, leave out the names, or set client.anonymous = true to let everybody in on purpose",
        );
    }
    rules.holds(
        &["api.keys"],
        api.keys.iter().all(Secret::fits_a_header),
        || "a key has visible ASCII characters only, because it travels in a header".into(),
        "make one with `openssl rand -hex 32`",
    );
    if let Some((key, address)) = backends().find(|(_, address)| !address.is_loopback()) {
        rules.holds(
            &[key, "api.keys", "api.insecure"],
            !api.keys.is_empty() || api.insecure,
            || format!("{address} can be reached from other machines, and there is no key"),
            "set api.keys (or TIDEGATE_API__KEYS_FILE), listen on 127.0.0.1, or set api.insecure = true to need no key on purpose",
        );
    }
}

fn with_key<'a>(key: &'static str, list: &'a [Address]) -> impl Iterator<Item = (&'static str, &'a Address)> {
    list.iter().map(move |address| (key, address))
}

fn workers(rules: &mut Rules, config: &Config) {
    let workers = &config.workers;
    if let Count::Fixed(count) = workers.count {
        rules.count("workers.count", count.into(), 1, WORKERS_MAX.into());
    }
    if let Count::Fixed(count) = workers.connections_max {
        rules.count("workers.connections_max", count.into(), 1, 100_000_000);
    }
    rules.within("workers.spin", workers.spin, &(Time::ZERO..=Time::millis(10)));
    rules.holds(
        &["workers.cpus", "workers.pin"],
        workers.cpus.is_empty() || workers.pin != Pin::Off,
        || "the list of cores has no effect while workers.pin is \"off\"".into(),
        "set workers.pin = \"on\", or leave out workers.cpus",
    );
    let distinct: BTreeSet<_> = workers.cpus.iter().collect();
    rules.holds(
        &["workers.cpus"],
        distinct.len() == workers.cpus.len(),
        || "a core is named twice".into(),
        "each core once; with more workers than cores they go round",
    );
    rules.holds(
        &["workers.cpus"],
        workers.cpus.iter().all(|cpu| *cpu < 4096),
        || "the numbers of cores end at 4095".into(),
        "`nproc` and /proc/cpuinfo tell which there are",
    );
}

fn clients(rules: &mut Rules, config: &Config) {
    let (client, http) = (&config.client, &config.http);
    rules.within("client.ping_interval", client.ping_interval, &(Time::secs(1)..=Time::secs(3600)));
    rules.holds(
        &["client.ping_interval"],
        client.ping_interval.get().subsec_nanos() == 0,
        || format!("{} is not whole seconds", client.ping_interval),
        "clients are told the interval in seconds",
    );
    rules.below(
        ("client.pong_timeout", client.pong_timeout),
        ("client.ping_interval", client.ping_interval),
        "a pong must be due before the next ping goes out",
    );
    let times = [
        ("client.pong_timeout", client.pong_timeout),
        ("client.stale_close_delay", client.stale_close_delay),
        ("http.head_timeout", http.head_timeout),
        ("http.keep_alive_timeout", http.keep_alive_timeout),
        ("outbox.write_timeout", config.outbox.write_timeout),
        ("outbox.close_timeout", config.outbox.close_timeout),
        ("hub.request_timeout", config.hub.request_timeout),
    ];
    for (key, time) in times {
        rules.within(key, time, &(Time::millis(100)..=Time::secs(3600)));
    }
    rules.count("client.channels_max", client.channels_max.into(), 1, 1 << 20);
    rules.count("client.commands_per_second", client.commands_per_second.into(), 0, 1_000_000);
    rules.count("client.commands_burst", client.commands_burst.into(), 1, 1 << 20);
    rules.count("client.fragments_max", client.fragments_max.into(), 1, 1 << 30);
    rules.count("http.handshakes_per_second", http.handshakes_per_second.into(), 0, 100_000);
    rules.count("http.handshakes_per_address_per_second", http.handshakes_per_address_per_second.into(), 0, 10_000);
    rules.count("http.handshakes_per_address_burst", http.handshakes_per_address_burst.into(), 1, 1 << 20);
    rules.count("http.headers_max", http.headers_max.into(), 1, HEADERS_LIMIT);
    rules.within("client.channel_name_bytes_max", client.channel_name_bytes_max, &(Bytes::new(1)..=Bytes::new(1024)));
    rules.within("client.message_bytes_max", client.message_bytes_max, &(Bytes::new(1)..=Bytes::mib(512)));
    rules.within("http.head_bytes_max", http.head_bytes_max, &(Bytes::kib(1)..=Bytes::mib(1)));
    let origins = &config.public.origins;
    rules.holds(
        &["public.origins"],
        origins.len() == 1 || !origins.iter().any(|origin| origin.allows_all()),
        || "allow-all \"*\" makes the other origins pointless".into(),
        "keep \"*\" alone to allow every page, or leave it out",
    );
}

fn tokens(rules: &mut Rules, config: &Config) {
    let (token, client) = (&config.token, &config.client);
    let public = token.rsa_public_keys.len() + token.ecdsa_public_keys.len() + token.ed25519_public_keys.len();
    let keys = token.hmac_secret_keys.len() + public;
    rules.count("token.hmac_secret_keys", keys as u64, 0, KEYS_MAX as u64);
    let keys = keys + usize::from(token.jwks_url.target().is_some());
    rules.within("token.jwks_refresh", token.jwks_refresh, &(Time::secs(10)..=Time::secs(24 * 3600)));
    rules.within("token.leeway", token.leeway, &(Time::ZERO..=Time::secs(600)));
    rules.holds(
        &["token.hmac_old_keys_until", "token.hmac_secret_keys"],
        token.hmac_old_keys_until.get().is_none() || token.hmac_secret_keys.len() > 1,
        || "there is no key behind the first that could end".into(),
        "the new key comes first in token.hmac_secret_keys, the old one behind it",
    );
    let described = [
        ("token.key_ids", !token.key_ids.is_empty()),
        ("token.audience", !token.audience.is_empty()),
        ("token.issuer", !token.issuer.is_empty()),
        ("token.leeway", token.leeway > Time::ZERO),
    ];
    for (key, is_set) in described {
        rules.holds(
            &[key, "token.hmac_secret_keys"],
            !is_set || keys > 0,
            || "it does nothing without a key".into(),
            "set token.hmac_secret_keys or a public key",
        );
    }
    rules.within("client.expired_close_delay", client.expired_close_delay, &(Time::ZERO..=Time::secs(3600)));
    rules.count("client.connections_per_address_max", client.connections_per_address_max.into(), 0, 1 << 20);
    rules.count("client.connections_per_user_max", client.connections_per_user_max.into(), 0, 1 << 20);
    rules.count("client.subscriptions_per_user_max", client.subscriptions_per_user_max.into(), 0, 1 << 30);
    let namespace = &client.personal_channel_namespace;
    rules.holds(
        &["client.personal_channel_namespace", "client.personal_channel"],
        namespace.is_empty() || client.personal_channel,
        || "it does nothing without client.personal_channel".into(),
        "set both, or leave out both",
    );
    rules.holds(
        &["client.personal_channel_namespace"],
        namespace.is_empty() || config.namespaces.iter().any(|known| known.name == *namespace),
        || format!("there is no namespace {namespace:?}"),
        "add it under [[namespaces]]",
    );
}

fn memory(rules: &mut Rules, config: &Config) {
    let (outbox, hub, api, client) = (&config.outbox, &config.hub, &config.api, &config.client);
    let bytes_max = ("outbox.bytes_max", outbox.bytes_max);
    rules.within(bytes_max.0, bytes_max.1, &(Bytes::kib(8)..=OUTBOX_BYTES_LIMIT));
    let low = ("outbox.low_water", outbox.low_water);
    let high = ("outbox.high_water", outbox.high_water);
    rules.below(low, high, "between them input stays paused, so that it does not flutter");
    rules.at_most(high, bytes_max, "above outbox.bytes_max the client is closed already");
    rules.within("outbox.kernel_bytes_max", outbox.kernel_bytes_max, &(Bytes::kib(8)..=Bytes::mib(64)));
    rules.within("outbox.ack_timeout", outbox.ack_timeout, &(Time::millis(100)..=Time::secs(3600)));
    rules.holds(
        &["outbox.reply_bytes_max", low.0, bytes_max.0],
        outbox.low_water.get() + outbox.reply_bytes_max.get() <= outbox.bytes_max.get(),
        || {
            format!(
                "{} and outbox.low_water ({}) together are more than outbox.bytes_max ({})",
                outbox.reply_bytes_max, low.1, bytes_max.1
            )
        },
        "an outbox below low water always takes one whole reply",
    );
    let message = ("client.message_bytes_max", client.message_bytes_max);
    rules.at_most(
        message,
        ("outbox.reply_bytes_max", outbox.reply_bytes_max),
        "an echo is a reply as long as its message",
    );
    rules.at_most(
        ("api.data_bytes_max", api.data_bytes_max),
        ("api.body_bytes_max", api.body_bytes_max),
        "the data travels in the body",
    );
    rules.within("api.body_bytes_max", api.body_bytes_max, &(Bytes::kib(1)..=Bytes::mib(512)));
    let held = ("hub.held_bytes_max", hub.held_bytes_max);
    rules.at_most(held, bytes_max, "what was held goes into the outbox at once");
    rules.within(held.0, held.1, &(Bytes::new(1)..=OUTBOX_BYTES_LIMIT));
    rules.within("hub.mailbox_bytes_max", hub.mailbox_bytes_max, &(Bytes::kib(8)..=Bytes::mib(65_536)));
    for (key, data) in [("api.data_bytes_max", api.data_bytes_max), message] {
        for (room_key, room) in [bytes_max, ("hub.mailbox_bytes_max", hub.mailbox_bytes_max)] {
            rules.holds(
                &[key, room_key],
                data.get() + ENVELOPE_BYTES_MAX.get() <= room.get(),
                || format!("{data} and {ENVELOPE_BYTES_MAX} of envelope do not fit {room_key}, which is {room}"),
                "one publication always has to fit",
            );
        }
    }
    rules.within("hub.history_bytes_max", hub.history_bytes_max, &(Bytes::kib(64)..=Bytes::mib(1 << 20)));
    rules.at_most(
        ("api.data_bytes_max", api.data_bytes_max),
        ("hub.history_bytes_max", hub.history_bytes_max),
        "a history has to hold the largest publication",
    );
    rules.count("hub.idempotency_keys_max", hub.idempotency_keys_max.into(), 1, 1 << 24);
    rules.within("hub.idempotency_ttl", hub.idempotency_ttl, &(Time::secs(1)..=Time::secs(24 * 3600)));
    rules.count("hub.join_leave_subscribers_max", hub.join_leave_subscribers_max.into(), 1, 1 << 20);
    rules.count("client.recovery_publications_max", client.recovery_publications_max.into(), 1, 10_000);
    rules.count("client.history_publications_max", client.history_publications_max.into(), 1, 10_000);
    rules.within("hub.delta_bytes_max", hub.delta_bytes_max, &(Bytes::kib(64)..=Bytes::mib(65_536)));
    compression(rules, config);
    rules.count("hub.channels_max", hub.channels_max.into(), 1, 1 << 30);
    rules.count("hub.mailbox_letters", hub.mailbox_letters.into(), 16, 1 << 20);
    rules.count("hub.held_publications_max", hub.held_publications_max.into(), 1, 1 << 20);
}

fn compression(rules: &mut Rules, config: &Config) {
    let compression = &config.compression;
    rules.count("compression.level", compression.level.into(), 1, 9);
    let thresholds = [
        ("compression.publication_bytes_min", compression.publication_bytes_min),
        ("compression.reply_bytes_min", compression.reply_bytes_min),
    ];
    for (key, bytes) in thresholds {
        rules.within(key, bytes, &(Bytes::new(1)..=Bytes::mib(1)));
    }
    let memory = [
        ("compression.previous_bytes_max", compression.previous_bytes_max),
        ("compression.client_history_bytes_max", compression.client_history_bytes_max),
    ];
    for (key, bytes) in memory {
        rules.within(key, bytes, &(Bytes::kib(64)..=Bytes::mib(65_536)));
    }
}

fn channels(rules: &mut Rules, config: &Config) {
    options(rules, "channels", "", &config.channels);
    for namespace in &config.namespaces {
        options(rules, "namespaces", &namespace.name, &namespace.options);
    }
    rules.holds(
        &["namespaces"],
        config.namespaces.len() < usize::from(u16::MAX),
        || format!("{} namespaces; at most {} can be told apart", config.namespaces.len(), u16::MAX - 1),
        "",
    );
}

/// Options that do nothing without another one: whoever set them believes in something that is not so.
fn options(rules: &mut Rules, section: &str, name: &str, options: &ChannelOptions) {
    let publish = options.allow_publish_for_client || options.allow_publish_for_subscriber;
    let table = [
        (
            "allow_subscribe_for_anonymous",
            options.allow_subscribe_for_anonymous && !options.allow_subscribe_for_client,
            "allow_subscribe_for_client",
        ),
        ("allow_publish_for_anonymous", options.allow_publish_for_anonymous && !publish, "allow_publish_for_client"),
    ];
    let (takes_deltas, makes_deltas) = (!options.allowed_delta_types.is_empty(), options.delta_publish);
    let deltas = [
        (
            "delta_publish",
            makes_deltas && !takes_deltas,
            "allowed_delta_types",
            "add \"fossil\" to allowed_delta_types",
        ),
        ("allowed_delta_types", takes_deltas && !makes_deltas, "delta_publish", "set delta_publish = true as well"),
    ];
    let without_user = |(key, idle, needs)| {
        let hint = format!("set {needs} = true as well; it is for all clients, this one adds those without a user");
        (key, idle, needs, hint)
    };
    let deltas = deltas.map(|(key, idle, needs, hint)| (key, idle, needs, hint.to_owned()));
    for (key, idle, needs, hint) in table.map(without_user).into_iter().chain(deltas) {
        let place = if name.is_empty() { String::new() } else { format!("namespace {name:?}: ") };
        rules.holds(
            &[&format!("{section}.{key}"), &format!("{section}.{needs}"), &format!("namespaces.{name}")],
            !idle,
            || format!("{place}{key} does nothing without {needs}"),
            &hint,
        );
    }
    let place = if name.is_empty() { String::new() } else { format!("namespace {name:?}: ") };
    rules.holds(
        &[&format!("{section}.conflate_by_tag"), &format!("{section}.slow_client"), &format!("namespaces.{name}")],
        options.conflate_by_tag.is_empty() || options.slow_client == SlowClient::Conflate,
        || format!("{place}conflate_by_tag does nothing without slow_client = \"conflate\""),
        "set both, or leave out conflate_by_tag",
    );
    history_options(rules, section, name, options);
}

/// What is kept of channels: its bounds, and options that do nothing without it.
fn history_options(rules: &mut Rules, section: &str, name: &str, options: &ChannelOptions) {
    let place = if name.is_empty() { String::new() } else { format!("namespace {name:?}: ") };
    let namespace = format!("namespaces.{name}");
    let mut rule = |key: &str, needs: &str, kept: bool, message: String, hint: &str| {
        let keys = [&format!("{section}.{key}"), &format!("{section}.{needs}"), &namespace];
        rules.holds(&keys.map(|key| &**key), kept, || format!("{place}{message}"), hint);
    };
    let (size, ttl, meta_ttl) = (options.history_size, options.history_ttl, options.history_meta_ttl);
    let size_max = hub::HISTORY_SIZE_MAX;
    let longest = Time::secs(10 * 365 * 24 * 3600);
    rule("history_size", "", size <= size_max, format!("history_size {size} is more than {size_max}"), "");
    rule("history_ttl", "", ttl <= longest, format!("history_ttl {ttl} is more than {longest}"), "");
    rule(
        "history_meta_ttl",
        "",
        meta_ttl <= longest,
        format!("history_meta_ttl {meta_ttl} is more than {longest}"),
        "",
    );
    for (key, needs, kept) in [
        ("history_size", "history_ttl", size == 0 || ttl > Time::ZERO),
        ("history_ttl", "history_size", ttl == Time::ZERO || size > 0),
    ] {
        rule(
            key,
            needs,
            kept,
            format!("{key} does nothing without {needs}"),
            "a history has a size and a time, or neither",
        );
    }
    let message = format!("history_ttl {ttl} is more than history_meta_ttl, which is {meta_ttl}");
    rule("history_ttl", "history_meta_ttl", ttl <= meta_ttl, message, "a position has to outlive what it stands for");
    let has_history = options.retention().is_some();
    let recovers = options.force_recovery || options.allow_recovery;
    let is_cache = options.force_recovery_mode == RecoveryMode::Cache;
    let knows = options.presence || options.join_leave;
    let asks = options.allow_presence_for_client || options.allow_presence_for_subscriber;
    let reads = options.allow_history_for_client || options.allow_history_for_subscriber;
    for (key, is_on, needs, has) in [
        ("force_recovery", options.force_recovery, "history_size", has_history),
        ("allow_recovery", options.allow_recovery, "history_size", has_history),
        ("force_positioning", options.force_positioning, "history_size", has_history),
        ("allow_positioning", options.allow_positioning, "history_size", has_history),
        ("allow_history_for_client", options.allow_history_for_client, "history_size", has_history),
        ("allow_history_for_subscriber", options.allow_history_for_subscriber, "history_size", has_history),
        ("allow_history_for_anonymous", options.allow_history_for_anonymous, "allow_history_for_client", reads),
        ("force_push_join_leave", options.force_push_join_leave, "join_leave", options.join_leave),
        ("allow_presence_for_client", options.allow_presence_for_client, "presence", knows),
        ("allow_presence_for_subscriber", options.allow_presence_for_subscriber, "presence", knows),
        ("allow_presence_for_anonymous", options.allow_presence_for_anonymous, "allow_presence_for_client", asks),
        ("force_recovery_mode", is_cache, "force_recovery", recovers),
        ("auto_cache_recover", options.auto_cache_recover, "force_recovery_mode", is_cache && recovers),
    ] {
        rule(key, needs, !is_on || has, format!("{key} does nothing without {needs}"), "set both, or leave out both");
    }
}

/// What is allowed and most likely not meant.
fn warnings(rules: &mut Rules, config: &Config) {
    proxies::warnings(rules, config);
    tls::warnings(rules, config);
    webhooks::warnings(rules, config);
    rules.holds(
        &["client.anonymous", "token.hmac_secret_keys"],
        config.client.anonymous || config.client.insecure || config.tells_clients_apart(),
        || "there is no key for tokens either, so no client can connect".into(),
        "set token.hmac_secret_keys, or client.anonymous = true",
    );
    let is_short = |secret: &Secret| secret.expose().len() < SECRET_BYTES_MIN;
    rules.holds(
        &["token.hmac_secret_keys"],
        !config.token.hmac_secret_keys.iter().any(is_short),
        || format!("who has one token can guess a secret of less than {SECRET_BYTES_MIN} bytes"),
        "`openssl rand -hex 32` prints a better one",
    );
    let api = &config.api;
    rules.holds(
        &["api.keys", "api.insecure", "api.listen", "tls.api_listen"],
        (api.listen.is_empty() && config.tls.api_listen.is_empty()) || api.insecure || !api.keys.is_empty(),
        || "there is no key, so every API request is answered 401".into(),
        "set api.keys, TIDEGATE_API__KEYS_FILE, or api.insecure = true on loopback",
    );
    rules.holds(
        &["api.insecure", "api.listen", "tls.api_listen"],
        !api.insecure || api.listen.iter().chain(&config.tls.api_listen).all(|address| address.is_loopback()),
        || "every machine that reaches the API listener may publish and disconnect".into(),
        "set api.keys and leave out api.insecure",
    );
    rules.holds(
        &["api.insecure", "api.keys"],
        !api.insecure || api.keys.is_empty(),
        || "api.keys have no effect while no key is asked for".into(),
        "leave out api.insecure",
    );
    rules.holds(
        &["client.insecure", "public.listen", "tls.listen"],
        !config.client.insecure || config.client_addresses().all(|address| address.is_loopback()),
        || "every client may subscribe and publish to every channel".into(),
        "set the allow_* options of [channels] and [[namespaces]] instead",
    );
    rules.holds(
        &["public.origins"],
        !config.public.origins.iter().any(|origin| origin.allows_all()),
        || "pages of every site may connect with the cookies and addresses of their visitors".into(),
        "list the sites",
    );
    rules.holds(
        &["public.origins"],
        !config.public.origins.iter().any(|origin| origin.is_opaque()),
        || "\"null\" is the origin of sandboxed pages of every site, not only of local files".into(),
        "serve the page over http, then list its origin",
    );
    let client = &config.client;
    rules.holds(
        &["client.commands_burst", "client.channels_max", "client.commands_per_second"],
        client.commands_per_second == 0 || client.commands_burst >= client.channels_max,
        || {
            "a client that comes back to all its channels at once has some of its subscribes refused (111) at first"
                .into()
        },
        "set client.commands_burst to client.channels_max or more",
    );
    let public = &config.public;
    rules.holds(
        &["public.websocket"],
        public.websocket || public.uni_websocket || public.echo,
        || "no endpoint is switched on, so clients get 404".into(),
        "set public.websocket = true",
    );
}
