//! What clients and backends see of a gateway, the same on every driver.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod bad_commands;
mod bad_frames;
mod bad_heads;
mod by_backend;
mod centrifugo;
mod compression;
mod crowds;
mod delta;
mod dev_safety;
mod drain;
mod echo;
mod granted_channels;
mod heartbeat;
mod history;
mod http;
mod memory;
mod neighbours;
mod notices;
mod plain;
mod presence;
mod rates;
mod slow_clients;
mod slow_policies;
mod tls;
mod tokens;
mod webhooks;
