//! `[webhooks]`, and what depends on it.

use super::*;

/// Each is refused at its last line, and accepted with the twin.
#[test]
fn what_does_nothing_or_cannot_be_is_refused() {
    let url = "'http://b/x'";
    for (text, twin, said) in [
        (
            "[webhooks]\nrefresh = 'http://b/x'".to_owned(),
            format!("[webhooks]\nconnect = {url}\nrefresh = {url}"),
            "without webhooks.connect",
        ),
        (
            "[webhooks]\nheaders = ['cookie']".into(),
            format!("[webhooks]\nrpc = {url}\nheaders = ['cookie']"),
            "URL of a webhook",
        ),
        (
            "[webhooks]\nemulated_headers = ['x']".into(),
            format!("[webhooks]\nrpc = {url}\nemulated_headers = ['x']"),
            "URL of a webhook",
        ),
        (
            format!("[webhooks]\nrpc = {url}\nemulated_headers = ['X-Real-IP']"),
            format!("[webhooks]\nrpc = {url}\nemulated_headers = ['X-Real-ID']"),
            "cannot make up",
        ),
        (
            "[webhooks]\nsigning_keys = ['k']".into(),
            format!("[webhooks]\nrpc = {url}\nsigning_keys = ['k']"),
            "URL of a webhook",
        ),
        (
            format!("[webhooks]\nsubscribe = {url}"),
            format!("[webhooks]\nsubscribe = {url}\n[channels]\nsubscribe_proxy_enabled = true"),
            "no namespace has subscribe_proxy_enabled",
        ),
        (
            "[channels]\npublish_proxy_enabled = true".into(),
            format!("[webhooks]\npublish = {url}\n[channels]\npublish_proxy_enabled = true"),
            "without webhooks.publish",
        ),
        (
            "[[namespaces]]\nname = 'aa'\nsub_refresh_proxy_enabled = true".into(),
            format!("[webhooks]\nsub_refresh = {url}\n[[namespaces]]\nname = 'aa'\nsub_refresh_proxy_enabled = true"),
            "without webhooks.sub_refresh",
        ),
        (
            "[channels]\nchannel_notices = true".into(),
            format!("[webhooks]\nnotices = {url}\n[channels]\nchannel_notices = true"),
            "without webhooks.notices",
        ),
        (
            format!("[webhooks]\nnotices = {url}"),
            format!("[webhooks]\nclient_notices = true\nnotices = {url}"),
            "no namespace has channel_notices",
        ),
        (
            format!("[webhooks]\nconnect = {url}\ntimeout = '10s'"),
            format!("[webhooks]\nrpc = {url}\ntimeout = '10s'"),
            "client.stale_close_delay",
        ),
        (
            "[webhooks]\nclient_notices = true".into(),
            format!("[webhooks]\nnotices = {url}\nclient_notices = true"),
            "without webhooks.notices",
        ),
        ("[webhooks]\nrpc = 'b/x'".into(), format!("[webhooks]\nrpc = {url}"), "not a URL of a backend"),
        (
            "[webhooks]\nnotices = 'b/x'\nclient_notices = true\nsigning_keys = ['k']".into(),
            format!("[webhooks]\nnotices = {url}\nclient_notices = true\nsigning_keys = ['k']"),
            "not a URL of a backend",
        ),
        (
            "[webhooks]\nrpc = 'b/x'\nheaders = ['cookie']".into(),
            format!("[webhooks]\nrpc = {url}\nheaders = ['cookie']"),
            "not a URL of a backend",
        ),
        ("[webhooks]\nrpc = 'grpc://b/x'".into(), "[webhooks]\nrpc = 'https://b/x'".into(), "http:// or https://"),
        (
            format!("[webhooks]\nrpc = {url}\nheaders = ['a b']"),
            format!("[webhooks]\nrpc = {url}\nheaders = ['a-b']"),
            "not the name of a header",
        ),
        (
            format!("[webhooks]\nrpc = {url}\nheaders = ['Host']"),
            format!("[webhooks]\nrpc = {url}\nheaders = ['Hos']"),
            "cannot be passed on",
        ),
    ] {
        let problems = bad(from_text(&text), &text);
        assert!(problems.len() == 1 && problems[0].to_string().contains(said), "{text}: {problems:#?}");
        assert!(matches!(problems[0].source, Source::File { .. }), "{text}: {problems:#?}");
        good(from_text(&twin), &twin);
    }
}

#[test]
fn who_is_told_apart_by_a_backend_may_come_from_anywhere() {
    let public = "[public]\nlisten = ['0.0.0.0:8000']\n";
    bad(from_text(public), public);
    for (webhook, is_enough) in [("connect", true), ("rpc", false)] {
        let text = format!("{public}[webhooks]\n{webhook} = 'http://b/x'");
        assert_eq!(from_text(&text).is_ok(), is_enough, "{text}");
    }
}

#[test]
fn a_key_that_can_be_guessed_is_a_warning_and_never_printed() {
    let quiet = "[client]\nanonymous = true\n[api]\nkeys = ['k']\n[webhooks]\nrpc = 'http://b/x'\nsigning_keys = ";
    for (key, warned) in [("x".repeat(31), true), ("x".repeat(32), false)] {
        let loaded = from_text(&format!("{quiet}['{key}']")).expect("a good config");
        assert_eq!(loaded.warnings.len(), usize::from(warned), "{:#?}", loaded.warnings);
        assert!(!loaded.config.to_toml().contains(&key));
    }
}
