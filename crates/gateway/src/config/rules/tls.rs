//! What must hold of `[tls]`, the files it names included.

use super::Rules;
use crate::config::{ClientAuth, Config, Time};
use crate::tls;
use std::time::SystemTime;

/// Relations between the keys, then whether the files can be used.
pub(super) fn check(rules: &mut Rules<'_>, config: &Config) {
    let tls = &config.tls;
    let before = rules.problems.len();
    rules.within("tls.handshake_timeout", tls.handshake_timeout, &(Time::millis(100)..=Time::secs(3600)));
    rules.holds(
        &["tls.certificates", "tls.listen", "tls.api_listen"],
        !tls.is_used() || !tls.certificates.is_empty(),
        || "there is no certificate to show".into(),
        "name its files; `tidegate cert` makes one for trying things out",
    );
    let has_ca = !tls.client_ca.as_os_str().is_empty();
    rules.holds(
        &["tls.client_ca", "tls.client_auth"],
        tls.client_auth == ClientAuth::Off || has_ca,
        || "clients have to show certificates, and nobody vouches for them".into(),
        "name the PEM file of your authority, or set tls.client_auth = \"off\"",
    );
    rules.holds(
        &["tls.client_ca", "tls.client_auth"],
        tls.client_auth != ClientAuth::Off || !has_ca,
        || "the authorities do nothing while tls.client_auth is \"off\"".into(),
        "set tls.client_auth = \"required\" or \"optional\", or leave out tls.client_ca",
    );
    for address in &tls.api_listen {
        rules.holds(
            &["tls.api_listen"],
            matches!(**address, io::Address::Ip(_)),
            || format!("{address} is a Unix socket, which nobody can listen in on"),
            "put it below api.listen",
        );
    }
    if rules.problems.len() == before
        && let Err(fault) = tls::read(tls)
    {
        rules.holds(&[fault.key], false, || fault.message.clone(), fault.hint);
    }
}

/// What is allowed and most likely not meant.
pub(super) fn warnings(rules: &mut Rules<'_>, config: &Config) {
    let tls = &config.tls;
    rules.holds(
        &["tls.certificates"],
        tls.certificates.is_empty() || tls.is_used(),
        || "the certificates are shown nowhere".into(),
        "list addresses in tls.listen or tls.api_listen",
    );
    let expiries = tls::read(tls).ok().flatten().map_or_else(Vec::new, |identities| identities.expiries);
    for warning in expiries.iter().filter_map(|expiry| expiry.warning(SystemTime::now())) {
        rules.holds(&["tls.certificates"], false, || warning, "put the new one into its place and send SIGHUP");
    }
}
