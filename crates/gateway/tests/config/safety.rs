//! What has to be asked for by name.

use super::*;

#[test]
fn dev_refuses_an_address_that_other_machines_reach() {
    let remote = ["0.0.0.0:8000".to_owned()];
    let local = ["127.0.0.2:8000".to_owned()];
    let attempt = |listen: &[String]| {
        load(Inputs { flags: Flags { listen, ..Flags::default() }, dev: true, ..Inputs::default() })
    };
    let problems = bad(attempt(&remote), "a remote flag");
    assert!(
        problems.len() == 1 && problems[0].to_string().contains("--dev lets everybody do everything"),
        "{problems:#?}"
    );
    good(attempt(&local), "a local flag");
    for (text, twin) in [
        ("[api]\nlisten = ['[::]:9000']", "[api]\nlisten = ['[::1]:9000']"),
        ("[public]\nlisten = ['127.0.0.1:1', '10.0.0.1:1']", "[public]\nlisten = ['127.0.0.1:1', 'unix:/a']"),
        ("[public]\nhosts = ['push.example.com']", "[public]\nhosts = []"),
    ] {
        let problems = bad(load_text(text, true, &[], Flags::default()), text);
        assert!(problems.len() == 1 && matches!(problems[0].source, Source::File { line: 2, .. }), "{problems:#?}");
        good(load_text(twin, true, &[], Flags::default()), twin);
    }
}

#[test]
fn dev_opens_this_machine_and_serve_opens_nothing() {
    let dev = good(load(Inputs { dev: true, ..Inputs::default() }), "dev");
    assert!(dev.client.anonymous && dev.client.insecure && dev.api.insecure && dev.demo.enabled);
    assert!(dev.public.echo && dev.public.uni_websocket);
    assert!(dev.public.listen.iter().chain(&dev.api.listen).all(|address| address.is_loopback()));
    assert!(dev.public.origins.is_empty());
    let serve = Config::default();
    assert!(!serve.client.anonymous && !serve.client.insecure && !serve.api.insecure && !serve.demo.enabled);
    assert!(
        !serve.public.echo && serve.public.listen.iter().chain(&serve.api.listen).all(|address| address.is_loopback())
    );
    // And whoever switches one of them off keeps it off.
    let quiet =
        good(load_text("[public]\necho = false\n[api]\ninsecure = false", true, &[], Flags::default()), "less dev");
    assert!(!quiet.public.echo && !quiet.api.insecure && quiet.demo.enabled);
}

#[test]
fn listening_to_the_world_has_to_be_asked_for_by_name() {
    let public = "[public]\nlisten = ['0.0.0.0:8000']\n";
    let problems = bad(from_text(public), public);
    assert!(
        problems.len() == 1 && problems[0].hint.as_ref().unwrap().contains("client.anonymous = true"),
        "{problems:#?}"
    );
    good(from_text(&format!("{public}[client]\nanonymous = true")), "asked for");
    // What lets clients do everything does not let everybody in.
    bad(from_text(&format!("{public}[client]\ninsecure = true")), "asked for something else");

    let hosts = "[public]\nhosts = ['push.example.com']\n";
    let problems = bad(from_text(hosts), hosts);
    assert!(
        problems.len() == 1
            && matches!(problems[0].source, Source::File { line: 2, .. })
            && problems[0].hint.as_ref().unwrap().contains("client.anonymous = true"),
        "{problems:#?}"
    );
    good(from_text(&format!("{hosts}[client]\nanonymous = true")), "asked for");
    let both = "[public]\nlisten = ['0.0.0.0:8000']\nhosts = ['push.example.com']\n";
    assert_eq!(bad(from_text(both), both).len(), 1, "said once");

    let api = "[api]\nlisten = ['0.0.0.0:9000']\n";
    let problems = bad(from_text(api), api);
    assert!(problems.len() == 1 && problems[0].hint.as_ref().unwrap().contains("api.keys"), "{problems:#?}");
    good(from_text(&format!("{api}keys = ['k']")), "a key");
    good(from_text(&format!("{api}insecure = true")), "asked for");
    good(from_text("[api]\nlisten = []"), "no API at all");
}

#[test]
fn what_is_allowed_and_hardly_meant_is_a_warning() {
    let warned = |text: &str| {
        let loaded = from_text(text).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
        loaded.warnings.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
    };
    let quiet = "[client]\nanonymous = true\n[api]\nkeys = ['k']\n";
    assert_eq!(warned(quiet), [""; 0]);
    assert_eq!(warned(""), ["client.anonymous", "api.keys"]);
    assert_eq!(warned(&format!("{quiet}insecure = true")), ["api.insecure"]);
    assert_eq!(warned(&format!("{quiet}[public]\norigins = ['*']")), ["public.origins"]);
    assert_eq!(warned(&format!("{quiet}[public]\norigins = ['null']")), ["public.origins"]);
    assert_eq!(warned(&format!("{quiet}[public]\nwebsocket = false")), ["public.websocket"]);
    let rate = "[client]\nanonymous = true\ncommands_per_second = 10\ncommands_burst";
    let quiet = quiet.replace("[client]\nanonymous = true\n", "");
    assert_eq!(warned(&format!("{quiet}\n{rate} = 127")), ["client.commands_burst"]);
    assert_eq!(warned(&format!("{quiet}\n{rate} = 128")), [""; 0]);
    assert_eq!(
        warned("[public]\nlisten = ['0.0.0.0:1']\n[client]\nanonymous = true\ninsecure = true\n[api]\nlisten = []"),
        ["client.insecure"]
    );
    assert_eq!(warned("[api]\nlisten = ['0.0.0.0:1']\ninsecure = true\n[client]\nanonymous = true"), ["api.insecure"]);
    assert_eq!(load(Inputs { dev: true, ..Inputs::default() }).unwrap().warnings, []);
}
