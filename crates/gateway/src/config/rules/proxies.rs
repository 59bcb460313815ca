//! What must hold about the proxies in front.

use super::{Rules, with_key};
use crate::config::Config;
use conn::address::TRUSTED_PROXIES_MAX;

pub(super) fn check(rules: &mut Rules<'_>, config: &Config) {
    let public = &config.public;
    rules.count("public.trusted_proxies", public.trusted_proxies.len() as u64, 0, TRUSTED_PROXIES_MAX as u64);
    let required = || with_key("public.proxy_protocol_required", &public.proxy_protocol_required);
    let optional = || with_key("public.proxy_protocol_optional", &public.proxy_protocol_optional);
    for (key, address) in required().chain(optional()) {
        rules.holds(
            &[key, "public.listen", "tls.listen"],
            config.client_addresses().any(|listener| listener == address),
            || format!("{address} is neither in public.listen nor in tls.listen"),
            "write it as it is written there",
        );
        rules.holds(
            &[key, "public.trusted_proxies"],
            !public.trusted_proxies.is_empty(),
            || format!("{address} takes the word of trusted proxies only, and there is none"),
            "list the networks of your proxies in public.trusted_proxies; \"unix\" stands for Unix sockets",
        );
    }
    for (key, address) in optional() {
        rules.holds(
            &[key, "public.proxy_protocol_required"],
            !public.proxy_protocol_required.contains(address),
            || format!("{address} is also in public.proxy_protocol_required"),
            "leave it out of one of them",
        );
    }
}

/// What is allowed and most likely not meant.
pub(super) fn warnings(rules: &mut Rules<'_>, config: &Config) {
    rules.holds(
        &["public.trusted_proxies"],
        !config.public.trusted_proxies.iter().any(|proxy| proxy.is_everybody()),
        || "everybody is taken for a proxy, so every client can claim any address".into(),
        "list the networks of your proxies only",
    );
}
