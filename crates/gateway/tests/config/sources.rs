//! Which source wins, and what the environment and flags may say.

use super::*;

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default() {
    let listen = |config: &Config| config.public.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    let file = "[public]\nlisten = ['127.0.0.1:2', '127.0.0.1:22']\n[workers]\ncount = 2";
    let env = env(&[("TIDEGATE_PUBLIC__LISTEN", "['127.0.0.1:3']"), ("TIDEGATE_WORKERS__COUNT", "3")]);
    let ports = ["127.0.0.1:4".to_owned(), "[::1]:4".to_owned()];
    let flags = Flags { listen: &ports, workers: Some("4"), ..Flags::default() };
    for (dev, default) in [(false, &["127.0.0.1:8000"][..]), (true, &["127.0.0.1:8000", "[::1]:8000"])] {
        assert_eq!(listen(&good(load_text("", dev, &[], Flags::default()), "default")), default);
        assert_eq!(listen(&good(load_text(file, dev, &[], Flags::default()), "file")), ["127.0.0.1:2", "127.0.0.1:22"]);
        assert_eq!(listen(&good(load_text(file, dev, &env, Flags::default()), "env")), ["127.0.0.1:3"]);
        let all = load_text(file, dev, &env, flags).expect("all four");
        assert_eq!(listen(&all.config), ports);
        assert_eq!(all.config.to_toml().matches("count = 4").count(), 1);
        assert_eq!(all.source("public.listen"), Source::Flag("--listen"));
        assert_eq!(all.source("workers.io"), Source::Default);
    }
}

#[test]
fn a_weaker_source_is_checked_even_where_a_stronger_one_wins() {
    let env = env(&[("TIDEGATE_LOG__LEVEL", "info")]);
    bad(load_text("[log]\nlevel = 'loud'", false, &env, Flags::default()), "a bad value below a good one");
    good(load_text("[log]\nlevel = 'warn'", false, &env, Flags::default()), "two good values");
}

#[test]
fn flags_are_checked_like_keys() {
    let listen = ["nowhere".to_owned()];
    let flags = Flags { listen: &listen, api_listen: Some("127.0.0.1"), workers: Some("0"), io: Some("urinh") };
    let problems = bad(load(Inputs { flags, ..Inputs::default() }), "four bad flags");
    let found: Vec<_> = problems.iter().map(|problem| (&problem.source, problem.key.as_str())).collect();
    assert_eq!(
        found,
        [
            (&Source::Flag("--api-listen"), "api.listen"),
            (&Source::Flag("--io"), "workers.io"),
            (&Source::Flag("--listen"), "public.listen"),
            (&Source::Flag("--workers"), "workers.count"),
        ]
    );
    let listen = ["127.0.0.1:1".to_owned()];
    let flags = Flags { listen: &listen, api_listen: Some("127.0.0.1:2"), workers: Some("1"), io: Some("uring") };
    good(load(Inputs { flags, ..Inputs::default() }), "four good flags");
}

#[test]
fn variables_need_quotes_only_inside_lists() {
    let config = good(
        from_env(&[
            ("TIDEGATE_SERVER__NAME", "123"),
            ("TIDEGATE_CLIENT__ANONYMOUS", "true"),
            ("TIDEGATE_CLIENT__PING_INTERVAL", "30s"),
            ("TIDEGATE_OUTBOX__BYTES_MAX", "2097152"),
            ("TIDEGATE_OUTBOX__HIGH_WATER", "\"1MiB\""),
            ("TIDEGATE_WORKERS__CPUS", "[0, 2]"),
            ("TIDEGATE_PUBLIC__ORIGINS", "['https://a.example', \"https://b.example\"]"),
            ("TIDEGATE_NAMESPACES__chat", "{ allow_subscribe_for_client = true }"),
        ]),
        "variables",
    );
    assert_eq!(config.server.name, "123");
    assert!(config.client.anonymous);
    assert_eq!(config.client.ping_interval.to_string(), "30s");
    assert_eq!(
        (config.outbox.bytes_max.to_string(), config.outbox.high_water.to_string()),
        ("2MiB".into(), "1MiB".into())
    );
    assert_eq!(config.workers.cpus, [0, 2]);
    assert_eq!(config.public.origins.len(), 2);
    assert!(config.namespaces[0].name == "chat" && config.namespaces[0].options.allow_subscribe_for_client);
}

#[test]
fn a_namespace_variable_replaces_the_namespace_of_the_file() {
    let file = "[[namespaces]]\nname = 'chat'\nallow_publish_for_client = true\n[[namespaces]]\nname = 'news'";
    let env = env(&[("TIDEGATE_NAMESPACES__chat", "{ allow_subscribe_for_client = true }")]);
    let config = good(load_text(file, false, &env, Flags::default()), file);
    let names: Vec<_> = config.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["chat", "news"]);
    let chat = &config.namespaces[0].options;
    assert!(chat.allow_subscribe_for_client && !chat.allow_publish_for_client);
}

#[test]
fn foreign_variables_are_ignored() {
    let kubernetes = env(&[
        ("TIDEGATE_PORT", "tcp://10.0.0.1:8000"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_NAMESPACES", "nonsense"),
        ("MY_TIDEGATE_LOG__LEVL", "x"),
        ("tidegate_log__levl", "x"),
    ]);
    assert!(!has_ours(&kubernetes));
    let loaded = load(Inputs { env: &kubernetes, ..Inputs::default() });
    assert_eq!(good(loaded, "foreign variables"), Config::default());
    assert!(has_ours(&env(&[("TIDEGATE_LOG__LEVL", "x")])));
}

#[test]
fn a_wrong_variable_is_an_error_with_the_nearest_name() {
    let table = [
        ("TIDEGATE_LOG__LEVL", "info", "did you mean TIDEGATE_LOG__LEVEL?", "TIDEGATE_LOG__LEVEL"),
        ("TIDEGATE_log__level", "info", "did you mean TIDEGATE_LOG__LEVEL?", "TIDEGATE_LOG__LEVEL"),
        ("TIDEGATE_PUBLIC__LISTENERS", "[]", "did you mean TIDEGATE_PUBLIC__LISTEN?", "TIDEGATE_PUBLIC__ORIGINS"),
        ("TIDEGATE_XYZ__", "1", "unknown variable", "TIDEGATE_WORKERS__COUNT"),
        ("TIDEGATE_LOG__FORMAT_FILE", "json", "only secrets", "TIDEGATE_LOG__FORMAT"),
        ("TIDEGATE_NAMESPACES__a", "{}", "two or more", "TIDEGATE_NAMESPACES__ab"),
        ("TIDEGATE_NAMESPACES__ab", "true", "this is a table", "TIDEGATE_CLIENT__ANONYMOUS"),
        ("TIDEGATE_NAMESPACES__ab", "{ name = 'cd' }", "leave out name", "IGNORED"),
        ("TIDEGATE_PUBLIC__LISTEN", "127.0.0.1:80", "this is a list", "TIDEGATE_SERVER__NAME"),
    ];
    for (name, value, said, twin) in table {
        let problems = bad(from_env(&[(name, value)]), name);
        assert!(problems.len() == 1 && problems[0].to_string().contains(said), "{problems:#?}");
        assert!(problems[0].to_string().starts_with(name), "{}", problems[0]);
        good(from_env(&[(twin, value)]), twin);
    }
    let bytes = [("TIDEGATE_SERVER__NAME".into(), OsString::from_vec(vec![0xff]))];
    let problems = bad(load(Inputs { env: &bytes, ..Inputs::default() }), "bytes");
    assert!(problems[0].to_string().contains("not UTF-8"));
}
