//! The gateway that the properties know.

use crate::script::COMPRESSION;
use conn::address::{Addresses, Trusted};
use conn::auth::host::HostPolicy;
use conn::auth::origin::OriginPolicy;
use conn::auth::token::Tokens;
use conn::settings::{Endpoints, Limits, Rate, Settings, Times};
use conn::webhook::{Event, Webhooks};
use hub::{Namespace, Namespaces, Retention};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Of the channels in a namespace.
pub(crate) const HISTORY: Retention =
    Retention { size: 7, ttl: Duration::from_secs(30), meta_ttl: Duration::from_secs(3600) };

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
}

/// Small, so that they are met.
pub(crate) fn settings() -> Settings {
    let addresses = Addresses::new([4; 16], 4);
    addresses.prepare(true, false);
    let open = |name: &str| Namespace {
        name: name.to_owned(),
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_fossil_deltas: true,
        delta_publish: true,
        presence: true,
        join_leave: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        ..Namespace::default()
    };
    let kept = Namespace {
        history: Some(HISTORY),
        force_recovery: true,
        publish_proxy_enabled: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        ..open("ns")
    };
    Settings {
        version: "test".into(),
        endpoints: Endpoints { websocket: true, uni_websocket: true, echo: true },
        origins: OriginPolicy::default(),
        hosts: HostPolicy::Any,
        tokens: Tokens::default(),
        webhooks: Webhooks::default().with(Event::Rpc).with(Event::Publish),
        client_notices: true,
        personal: None,
        anonymous: true,
        insecure: false,
        namespaces: Namespaces::new(open(""), vec![kept]).expect("good namespaces"),
        limits: Limits {
            head_bytes_max: 1024,
            headers_max: 16,
            message_bytes_max: 2048,
            fragments_max: 8,
            channels_max: 8,
            commands: None,
            messages: rate(200, 30),
            bytes: rate(80_000, 3000),
            connections_per_address_max: NonZeroU32::new(1),
            handshakes_per_address: None,
            handshakes_per_second: None,
            connections_per_user_max: 0,
            subscriptions_per_user_max: 0,
            channel_name_bytes_max: 255,
            outbox_bytes_max: 6000,
            outbox_high_water: 3000,
            outbox_low_water: 1000,
            reply_bytes_max: 4096,
            recovery_publications_max: 5,
            history_publications_max: 6,
            held_publications_max: 6,
            held_bytes_max: 4000,
            delta_bytes_max: 1 << 16,
        },
        times: Times {
            head_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
        },
        // Scripts do not offer it; the fuzzers do.
        compression: Some(COMPRESSION),
        trusted_proxies: Trusted::default(),
        addresses: Arc::new(addresses),
        listeners: Vec::new(),
        pages: Vec::new(),
    }
}
