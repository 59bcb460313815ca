//! Trusted proxies and the PROXY protocol.

use super::*;

const LISTENERS: &str = "[public]\nlisten = ['127.0.0.1:8000', '127.0.0.1:8001']\n";

/// Each is refused at its last line, and accepted with the twin.
#[test]
fn listeners_of_proxies_have_to_be_listeners_and_somebody_has_to_be_trusted() {
    let trusted = format!("{LISTENERS}trusted_proxies = ['10.0.0.0/8', 'unix']\n");
    for (text, twin, said) in [
        (
            format!("{trusted}proxy_protocol_required = ['127.0.0.1:8002']"),
            format!("{trusted}proxy_protocol_required = ['127.0.0.1:8001']"),
            "neither in public.listen nor in tls.listen",
        ),
        (
            format!("{trusted}proxy_protocol_optional = ['127.0.0.1:8002']"),
            format!("{trusted}proxy_protocol_optional = ['127.0.0.1:8001']"),
            "neither in public.listen nor in tls.listen",
        ),
        (
            format!("{LISTENERS}proxy_protocol_required = ['127.0.0.1:8001']"),
            format!("{trusted}proxy_protocol_required = ['127.0.0.1:8001']"),
            "there is none",
        ),
        (
            format!(
                "{trusted}proxy_protocol_required = ['127.0.0.1:8001']\nproxy_protocol_optional = ['127.0.0.1:8001']"
            ),
            format!(
                "{trusted}proxy_protocol_required = ['127.0.0.1:8001']\nproxy_protocol_optional = ['127.0.0.1:8000']"
            ),
            "also in public.proxy_protocol_required",
        ),
        (
            format!("{LISTENERS}trusted_proxies = ['10.0.0.1/8']"),
            format!("{LISTENERS}trusted_proxies = ['10.0.0.1/32']"),
            "is not a network",
        ),
        (
            format!("{LISTENERS}trusted_proxies = ['::ffff:10.0.0.0/104']"),
            format!("{LISTENERS}trusted_proxies = ['10.0.0.0/8']"),
            "is not a network",
        ),
    ] {
        let problems = from_text(&text).expect_err(&text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].message.contains(said), "{text}: {}", problems[0]);
        assert!(problems[0].hint.is_some(), "{text}: no hint");
        let Source::File { line, .. } = problems[0].source else { panic!("{text}: {:?}", problems[0].source) };
        assert_eq!(line, text.lines().count(), "{text}: {}", problems[0]);
        good(from_text(&twin), &twin);
    }
}

#[test]
fn who_trusts_everybody_is_warned() {
    for (network, is_warned) in [("0.0.0.0/0", true), ("::/0", true), ("128.0.0.0/1", false)] {
        let text = format!("[public]\ntrusted_proxies = ['{network}']");
        let warnings = from_text(&text).expect(&text).warnings;
        let warned = warnings.iter().any(|warning| warning.message.contains("taken for a proxy"));
        assert_eq!(warned, is_warned, "{network}: {warnings:?}");
    }
}

#[test]
fn each_listener_begins_as_it_is_listed() {
    let text = "[public]\nlisten = ['127.0.0.1:8000', '127.0.0.1:8001']\ntrusted_proxies = ['unix']\n\
                proxy_protocol_optional = ['127.0.0.1:8001']\nproxy_protocol_required = ['127.0.0.1:8443']\n\
                [tls]\nlisten = ['127.0.0.1:8443', '127.0.0.1:8444']";
    let config: Config = toml::from_str(text).unwrap();
    let modes: Vec<_> =
        gateway::topology::listeners(&config, None).into_iter().map(|listener| listener.proxy_protocol).collect();
    use conn::settings::ProxyProtocol::{Off, Optional, Required};
    assert_eq!(modes, [Off, Optional, Required, Off]);
}
