//! What is said about a wrong file.

use super::*;

struct Refused {
    /// Accepted when `twin.0` in it is replaced by `twin.1`.
    text: &'static str,
    twin: (&'static str, &'static str),
    /// Line and column.
    at: (usize, usize),
    key: &'static str,
    message: &'static str,
    hint: &'static str,
}

const REFUSED: [Refused; 29] = [
    Refused {
        text: "[outbox]\nhigh_watre = '1KiB'\nlow_water = 1",
        twin: ("watre", "water"),
        at: (2, 1),
        key: "outbox.high_watre",
        message: "unknown key",
        hint: "`high_water`",
    },
    Refused {
        text: "[outbox]\nhigh-water = '128KiB'",
        twin: ("high-", "high_"),
        at: (2, 1),
        key: "outbox.high-water",
        message: "unknown key",
        hint: "`high_water`",
    },
    Refused {
        text: "[client]\n\n  bytes_max = 1",
        twin: ("bytes_max = 1", "channels_max = 1"),
        at: (3, 3),
        key: "client.bytes_max",
        message: "unknown key",
        hint: "belongs below [outbox]",
    },
    Refused {
        text: "[outbx]\n",
        twin: ("outbx", "outbox"),
        at: (1, 2),
        key: "outbx",
        message: "unknown section",
        hint: "[outbox]",
    },
    Refused {
        text: "listen = []",
        twin: ("listen = []", "namespaces = []"),
        at: (1, 1),
        key: "listen",
        message: "unknown key",
        hint: "below [api] or [public] or [tls]",
    },
    Refused {
        text: "log = 'info'",
        twin: ("'info'", "{ level = 'info' }"),
        at: (1, 7),
        key: "log",
        message: "a section",
        hint: "[log] on a line of its own",
    },
    Refused {
        text: "[log]\nqueue_lines = '5'",
        twin: ("'5'", "5"),
        at: (2, 15),
        key: "log.queue_lines",
        message: "expected a whole number",
        hint: "",
    },
    Refused {
        text: "[log]\nqueue_lines = -5",
        twin: ("-5", "5"),
        at: (2, 15),
        key: "log.queue_lines",
        message: "expected a whole number",
        hint: "",
    },
    Refused {
        text: "[log]\nqueue_lines = 4294967296",
        twin: ("4294967296", "429496"),
        at: (2, 15),
        key: "log.queue_lines",
        message: "expected a whole number",
        hint: "",
    },
    Refused {
        text: "[log]\nlevel = 'inf'",
        twin: ("inf", "info"),
        at: (2, 9),
        key: "log.level",
        message: "\"inf\" is not known",
        hint: "\"info\"",
    },
    Refused {
        text: "[log]\nformat = 'xml'",
        twin: ("xml", "json"),
        at: (2, 10),
        key: "log.format",
        message: "\"xml\" is not known",
        hint: "\"text\", \"json\"",
    },
    Refused {
        text: "[public]\necho = 'yes'",
        twin: ("'yes'", "true"),
        at: (2, 8),
        key: "public.echo",
        message: "expected a boolean",
        hint: "",
    },
    Refused {
        text: "[public]\nlisten = ['127.0.0.1:80', '127.0.0.1']",
        twin: ("'127.0.0.1']", "'127.0.0.1:1']"),
        at: (2, 27),
        key: "public.listen",
        message: "not an address",
        hint: "add the port",
    },
    Refused {
        text: "[public]\nlisten = '127.0.0.1:80'",
        twin: ("'127.0.0.1:80'", "['127.0.0.1:80']"),
        at: (2, 10),
        key: "public.listen",
        message: "expected a sequence",
        hint: "",
    },
    Refused {
        text: "[public]\norigins = ['https://*']",
        twin: ("//*", "//*.a"),
        at: (2, 12),
        key: "public.origins",
        message: "not an origin",
        hint: "write \"*\"",
    },
    Refused {
        text: "[public]\nhosts = ['*']\n[client]\nanonymous = true",
        twin: ("'*'", "'*.example.com'"),
        at: (2, 10),
        key: "public.hosts",
        message: "\"*\" is not a host name",
        hint: "none for every name",
    },
    Refused {
        text: "[client]\nanonymous = true\n[public]\nhosts = ['push.example.com', 'a.example.com:443']",
        twin: (":443", ""),
        at: (4, 30),
        key: "public.hosts",
        message: "not a host name",
        hint: "leave out the port",
    },
    Refused {
        text: "[public]\nhosts = 'push.example.com'\n[client]\nanonymous = true",
        twin: ("'push.example.com'", "['push.example.com']"),
        at: (2, 9),
        key: "public.hosts",
        message: "expected a sequence",
        hint: "",
    },
    Refused {
        text: "[client]\nping_interval = 25",
        twin: ("25", "'25s'"),
        at: (2, 17),
        key: "client.ping_interval",
        message: "expected a length of time",
        hint: "",
    },
    Refused {
        text: "[client]\nping_interval = '25'",
        twin: ("25", "25s"),
        at: (2, 17),
        key: "client.ping_interval",
        message: "\"25\" is not a length",
        hint: "\"25s\"",
    },
    Refused {
        text: "[client]\nmessage_bytes_max = '64KB'",
        twin: ("KB", "KiB"),
        at: (2, 21),
        key: "client.message_bytes_max",
        message: "\"64KB\" is not a size",
        hint: "\"64KiB\"",
    },
    Refused {
        text: "[workers]\nio = 'urinh'",
        twin: ("urinh", "uring"),
        at: (2, 6),
        key: "workers.io",
        message: "\"urinh\" is not known here",
        hint: "\"auto\", \"epoll\", \"uring\"",
    },
    Refused {
        text: "[workers]\ncount = 'all'",
        twin: ("all", "auto"),
        at: (2, 9),
        key: "workers.count",
        message: "expected \"auto\" or a whole number",
        hint: "",
    },
    Refused {
        text: "[[namespaces]]\nname = 'a'",
        twin: ("'a'", "'ab'"),
        at: (2, 8),
        key: "namespaces.name",
        message: "\"a\" cannot be",
        hint: "two or more",
    },
    Refused {
        text: "[[namespaces]]\nname = 'a:'",
        twin: ("'a:'", "'a_'"),
        at: (2, 8),
        key: "namespaces.name",
        message: "\"a:\" cannot be",
        hint: "two or more",
    },
    Refused {
        text: "[[namespaces]]\nallow_publish_for_client = true",
        twin: ("]]\n", "]]\nname = 'ab'\n"),
        at: (1, 1),
        key: "namespaces",
        message: "no name",
        hint: "name = ",
    },
    Refused {
        text: "[[namespaces]]\nname = 'ab'\n[[namespaces]]\nname = 'ab'",
        twin: ("ab'\n", "aB'\n"),
        at: (3, 1),
        key: "namespaces.name",
        message: "two namespaces are called \"ab\"",
        hint: "",
    },
    Refused {
        text: "[[namespaces]]\nname = 'ab'\nallow_subscribe_for_clients = true",
        twin: ("clients", "client"),
        at: (3, 1),
        key: "namespaces.allow_subscribe_for_clients",
        message: "unknown key",
        hint: "`allow_subscribe_for_client`",
    },
    Refused {
        text: "[namespaces]\nname = 'ab'",
        twin: ("[namespaces]", "[[namespaces]]"),
        at: (1, 1),
        key: "namespaces",
        message: "a list of tables",
        hint: "[[namespaces]]",
    },
];

fn check_refused(case: &Refused) {
    let problems = bad(from_text(case.text), case.text);
    let [problem] = &problems[..] else { panic!("{}\ngives {problems:#?}", case.text) };
    let Source::File { line, column, .. } = problem.source else { panic!("{problem:#?}") };
    assert_eq!((line, column), case.at, "{problem}");
    assert_eq!(problem.key, case.key);
    assert!(problem.message.contains(case.message), "{problem}");
    assert!(problem.hint.as_deref().unwrap_or_default().contains(case.hint), "{problem}");
    assert!(problem.to_string().contains(&format!(":{line}:{column}: {}: ", case.key)), "{problem}");
    assert!(!problem.to_string().contains(['\u{1f}', '\x1b']), "{problem:?}");
    assert!(case.text.contains(case.twin.0), "the twin of {}", case.text);
    let twin = case.text.replacen(case.twin.0, case.twin.1, 1);
    good(from_text(&twin), &twin);
}

#[test]
fn an_error_has_line_column_key_and_hint_and_its_twin_is_accepted() {
    REFUSED.iter().for_each(check_refused);
}

/// What must hold between values: the broken one, a word of the message or hint, and the twin.
const RELATIONS: [(&str, &str, &str); 54] = [
    ("[outbox]\nlow_water = '256KiB'", "less than outbox.high_water", "[outbox]\nlow_water = '255KiB'"),
    ("[outbox]\nhigh_water = '1025KiB'", "than outbox.bytes_max", "[outbox]\nhigh_water = '1024KiB'"),
    ("[outbox]\nreply_bytes_max = '961KiB'", "than outbox.bytes_max", "[outbox]\nreply_bytes_max = '960KiB'"),
    ("[client]\nmessage_bytes_max = '513KiB'", "than outbox.reply_bytes_max", "[client]\nmessage_bytes_max = '512KiB'"),
    ("[client]\npong_timeout = '25s'", "less than client.ping_interval", "[client]\npong_timeout = '24s'"),
    ("[client]\nping_interval = '25001ms'", "whole seconds", "[client]\nping_interval = '25000ms'"),
    ("[api]\ndata_bytes_max = '1021KiB'", "fit outbox.bytes_max", "[api]\ndata_bytes_max = '1020KiB'"),
    ("[api]\nbody_bytes_max = '511KiB'", "than api.body_bytes_max", "[api]\nbody_bytes_max = '512KiB'"),
    ("[hub]\nheld_bytes_max = '1025KiB'", "than outbox.bytes_max", "[hub]\nheld_bytes_max = '1024KiB'"),
    ("[hub]\nmailbox_bytes_max = '515KiB'", "fit hub.mailbox_bytes_max", "[hub]\nmailbox_bytes_max = '516KiB'"),
    ("[public]\nlisten = []", "no listener", "[public]\nlisten = ['unix:/a']"),
    ("[public]\nlisten = ['127.0.0.1:9000']", "also in public.listen", "[public]\nlisten = ['127.0.0.1:9001']"),
    ("[public]\nlisten = ['[::1]:8', '[::1]:8']", "also in public.listen", "[public]\nlisten = ['[::1]:0', '[::1]:0']"),
    ("[public]\norigins = ['*', 'http://a']", "pointless", "[public]\norigins = ['http://b', 'http://a']"),
    ("[workers]\npin = 'off'\ncpus = [1]", "no effect", "[workers]\npin = 'on'\ncpus = [1]"),
    ("[workers]\ncpus = [1, 2, 1]", "twice", "[workers]\ncpus = [1, 2, 3]"),
    ("[server]\nname = \"a\\tb\"", "control characters", "[server]\nname = \"a\\\\tb\""),
    (
        "[channels]\nallowed_delta_types = ['fossil']",
        "nothing without delta_publish",
        "[channels]\nallowed_delta_types = ['fossil']\ndelta_publish = true",
    ),
    (
        "[channels]\ndelta_publish = true",
        "nothing without allowed_delta_types",
        "[channels]\ndelta_publish = true\nallowed_delta_types = ['fossil']",
    ),
    (
        "[client]\nmessages_burst = 50000\nmessages_per_second = 100001",
        "0 to 100000",
        "[client]\nmessages_burst = 50000\nmessages_per_second = 100000",
    ),
    ("[client]\nmessages_burst = 0", "1 to 1048576", "[client]\nmessages_burst = 1"),
    ("[client]\nmessages_per_second = 2050", "less than half of", "[client]\nmessages_per_second = 2049"),
    ("[client]\nbytes_per_second = 1023", "1KiB to 1GiB", "[client]\nbytes_per_second = 1024"),
    ("[client]\nbytes_per_second = 1", "1KiB to 1GiB", "[client]\nbytes_per_second = 0"),
    ("[client]\nbytes_burst = '1025MiB'", "1KiB to 1GiB", "[client]\nbytes_burst = '1GiB'"),
    ("[client]\nbytes_per_second = '3MiB'", "less than half of", "[client]\nbytes_per_second = '2MiB'"),
    ("[workers]\nmemory_bytes_max = '63MiB'", "less than 64MiB", "[workers]\nmemory_bytes_max = '64MiB'"),
    ("[workers]\nmemory_bytes_max = 1", "less than 64MiB", "[workers]\nmemory_bytes_max = 0"),
    ("[workers]\nmemory_bytes_max = 'most'", "not a size", "[workers]\nmemory_bytes_max = 'auto'"),
    (
        "[client]\nconnections_per_address_max = 1048577",
        "0 to 1048576",
        "[client]\nconnections_per_address_max = 1048576",
    ),
    ("[http]\nhandshakes_per_second = 100001", "0 to 100000", "[http]\nhandshakes_per_second = 100000"),
    (
        "[http]\nhandshakes_per_address_per_second = 10001",
        "0 to 10000",
        "[http]\nhandshakes_per_address_per_second = 10000",
    ),
    ("[http]\nhandshakes_per_address_burst = 0", "1 to 1048576", "[http]\nhandshakes_per_address_burst = 1"),
    ("[compression]\nlevel = 10", "1 to 9", "[compression]\nlevel = 9"),
    ("[compression]\nreply_bytes_min = 0", "1B to 1MiB", "[compression]\nreply_bytes_min = '1B'"),
    ("[compression]\nprevious_bytes_max = '63KiB'", "64KiB", "[compression]\nprevious_bytes_max = '64KiB'"),
    ("[hub]\ndelta_bytes_max = '63KiB'", "64KiB", "[hub]\ndelta_bytes_max = '64KiB'"),
    (
        "[channels]\nallow_subscribe_for_anonymous = true",
        "allow_subscribe_for_client",
        "[channels]\nallow_subscribe_for_anonymous = true\nallow_subscribe_for_client = true",
    ),
    (
        "[channels]\nallow_publish_for_anonymous = true",
        "allow_publish_for_client",
        "[channels]\nallow_publish_for_anonymous = true\nallow_publish_for_subscriber = true",
    ),
    (
        "[channels]\nconflate_by_tag = 'symbol'\nslow_client = 'drop_oldest'",
        "does nothing without slow_client = \"conflate\"",
        "[channels]\nconflate_by_tag = 'symbol'\nslow_client = 'conflate'",
    ),
    ("[hub]\nhistory_bytes_max = '511KiB'", "than hub.history_bytes_max", "[hub]\nhistory_bytes_max = '512KiB'"),
    (
        "[channels]\nhistory_size = 1",
        "does nothing without history_ttl",
        "[channels]\nhistory_size = 1\nhistory_ttl = '1s'",
    ),
    (
        "[channels]\nhistory_ttl = '1s'",
        "does nothing without history_size",
        "[channels]\nhistory_ttl = '1s'\nhistory_size = 1",
    ),
    (
        "[channels]\nhistory_size = 10001\nhistory_ttl = '1s'",
        "more than 10000",
        "[channels]\nhistory_size = 10000\nhistory_ttl = '1s'",
    ),
    (
        "[channels]\nhistory_size = 1\nhistory_ttl = '3s'\nhistory_meta_ttl = '2s'",
        "more than history_meta_ttl, which is 2s",
        "[channels]\nhistory_size = 1\nhistory_ttl = '2s'\nhistory_meta_ttl = '2s'",
    ),
    (
        "[channels]\nforce_recovery = true",
        "force_recovery does nothing without history_size",
        "[channels]\nforce_recovery = true\nhistory_size = 1\nhistory_ttl = '1s'",
    ),
    (
        "[channels]\nallow_positioning = true",
        "allow_positioning does nothing without history_size",
        "[channels]\nallow_positioning = true\nhistory_size = 1\nhistory_ttl = '1s'",
    ),
    (
        "[channels]\nforce_recovery_mode = 'cache'",
        "force_recovery_mode does nothing without force_recovery",
        "[channels]\nforce_recovery_mode = 'cache'\nallow_recovery = true\nhistory_size = 1\nhistory_ttl = '1s'",
    ),
    (
        "[channels]\nauto_cache_recover = true\nforce_recovery = true\nhistory_size = 1\nhistory_ttl = '1s'",
        "auto_cache_recover does nothing without force_recovery_mode",
        "[channels]\nforce_recovery_mode = 'cache'\nauto_cache_recover = true\nforce_recovery = true\nhistory_size = 1\n\
         history_ttl = '1s'",
    ),
    (
        "[channels]\nallow_history_for_anonymous = true",
        "allow_history_for_anonymous does nothing without allow_history_for_client",
        "[channels]\nallow_history_for_anonymous = true\nallow_history_for_subscriber = true\nhistory_size = 1\n\
         history_ttl = '1s'",
    ),
    (
        "[channels]\nforce_push_join_leave = true",
        "force_push_join_leave does nothing without join_leave",
        "[channels]\nforce_push_join_leave = true\njoin_leave = true",
    ),
    (
        "[channels]\nallow_presence_for_subscriber = true",
        "allow_presence_for_subscriber does nothing without presence",
        "[channels]\nallow_presence_for_subscriber = true\njoin_leave = true",
    ),
    (
        "[channels]\npresence = true\nallow_presence_for_anonymous = true",
        "allow_presence_for_anonymous does nothing without allow_presence_for_client",
        "[channels]\npresence = true\nallow_presence_for_anonymous = true\nallow_presence_for_client = true",
    ),
    (
        "[[namespaces]]\nname = 'ab'\nallow_publish_for_anonymous = true",
        "\"ab\"",
        "[[namespaces]]\nname = 'ab'\nallow_publish_for_client = true",
    ),
];

#[test]
fn a_broken_relation_is_an_error_at_the_value_that_breaks_it_and_its_twin_is_accepted() {
    for (text, said, twin) in RELATIONS {
        let problems = bad(from_text(text), text);
        let [problem] = &problems[..] else { panic!("{text}\ngives {problems:#?}") };
        assert!(problem.to_string().contains(said), "{problem}");
        assert!(matches!(problem.source, Source::File { line: 1.., .. }), "{text}: {problem}");
        good(from_text(twin), twin);
    }
}

/// Each key with a range: the last values inside it and the first outside.
const RANGES: [(&str, &[&str], &[&str]); 36] = [
    ("TIDEGATE_CLIENT__RECOVERY_PUBLICATIONS_MAX", &["1", "10000"], &["0", "10001"]),
    ("TIDEGATE_CLIENT__HISTORY_PUBLICATIONS_MAX", &["1", "10000"], &["0", "10001"]),
    ("TIDEGATE_HUB__HISTORY_BYTES_MAX", &["512KiB", "1024GiB"], &["1025GiB"]),
    ("TIDEGATE_HUB__IDEMPOTENCY_KEYS_MAX", &["1", "16777216"], &["0", "16777217"]),
    ("TIDEGATE_HUB__IDEMPOTENCY_TTL", &["1s", "24h"], &["999ms", "86401s"]),
    ("TIDEGATE_WORKERS__COUNT", &["1", "256", "auto"], &["0", "257"]),
    ("TIDEGATE_WORKERS__CONNECTIONS_MAX", &["1", "100000000"], &["0", "100000001"]),
    ("TIDEGATE_WORKERS__SPIN", &["0s", "10ms"], &["10001us"]),
    ("TIDEGATE_WORKERS__CPUS", &["[0]", "[4095]"], &["[4096]"]),
    ("TIDEGATE_API__BODY_BYTES_MAX", &["512MiB"], &["513MiB"]),
    ("TIDEGATE_CLIENT__PING_INTERVAL", &["1h"], &["3601s", "0s"]),
    ("TIDEGATE_CLIENT__PONG_TIMEOUT", &["100ms"], &["99ms"]),
    ("TIDEGATE_CLIENT__STALE_CLOSE_DELAY", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_CLIENT__CHANNELS_MAX", &["1", "1048576"], &["0", "1048577"]),
    ("TIDEGATE_CLIENT__CHANNEL_NAME_BYTES_MAX", &["1", "1024"], &["0", "1025"]),
    ("TIDEGATE_CLIENT__MESSAGE_BYTES_MAX", &["1"], &["0"]),
    ("TIDEGATE_CLIENT__FRAGMENTS_MAX", &["1", "1073741824"], &["0", "1073741825"]),
    ("TIDEGATE_HTTP__HEAD_BYTES_MAX", &["1KiB", "1MiB"], &["1023", "1048577"]),
    ("TIDEGATE_HTTP__HEADERS_MAX", &["1", "64"], &["0", "65"]),
    ("TIDEGATE_HTTP__HEAD_TIMEOUT", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_HTTP__KEEP_ALIVE_TIMEOUT", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_OUTBOX__BYTES_MAX", &["2GiB"], &["2147483649"]),
    ("TIDEGATE_OUTBOX__WRITE_TIMEOUT", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_OUTBOX__CLOSE_TIMEOUT", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_HUB__CHANNELS_MAX", &["1", "1073741824"], &["0", "1073741825"]),
    ("TIDEGATE_HUB__MAILBOX_LETTERS", &["16", "1048576"], &["15", "1048577"]),
    ("TIDEGATE_HUB__HELD_PUBLICATIONS_MAX", &["1", "1048576"], &["0", "1048577"]),
    ("TIDEGATE_HUB__REQUEST_TIMEOUT", &["100ms", "1h"], &["99ms", "3601s"]),
    ("TIDEGATE_DRAIN__NOTICE", &["0s", "10m"], &["601s"]),
    ("TIDEGATE_DRAIN__TIME", &["100ms", "10m"], &["0s", "99ms", "601s"]),
    ("TIDEGATE_WEBHOOKS__TIMEOUT", &["10ms", "60s"], &["9ms", "61s"]),
    ("TIDEGATE_WEBHOOKS__NOTICES_MAX", &["1", "10000000"], &["0", "10000001"]),
    ("TIDEGATE_TOKEN__JWKS_REFRESH", &["10s", "24h"], &["9s", "86401s"]),
    ("TIDEGATE_WEBHOOKS__CALLS_MAX", &["1", "65536"], &["0", "65537"]),
    ("TIDEGATE_WEBHOOKS__ANSWER_BYTES_MAX", &["1KiB", "16MiB"], &["1023", "16385KiB"]),
    ("TIDEGATE_LOG__QUEUE_LINES", &["1", "1048576"], &["0", "1048577"]),
];

#[test]
fn ranges_end_where_the_manual_says() {
    for (name, inside, outside) in RANGES {
        for value in inside {
            good(from_env(&[(name, value)]), &format!("{name}={value}"));
        }
        for value in outside {
            let problems = bad(from_env(&[(name, value)]), &format!("{name}={value}"));
            assert!(problems.iter().all(|problem| problem.source == Source::Env(name.into())), "{problems:#?}");
        }
    }
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = "[public]\nlisten = ['0.0.0.0']\n[outbox]\nlow_water = '300KiB'\nbyte_max = 1\n[log]\nformat = 1\n[[namespaces]]\n";
    let env = env(&[("TIDEGATE_LOG__LEVEL", "loud"), ("TIDEGATE_LGO__LEVEL", "info")]);
    let flags = Flags { workers: Some("many"), ..Flags::default() };
    let problems = bad(load_text(text, false, &env, flags), text);
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "public.listen",
        "outbox.low_water",
        "outbox.byte_max",
        "log.format",
        "namespaces",
        "",
        "log.level",
        "workers.count",
    ];
    assert_eq!(keys, expected, "{problems:#?}");
}

#[test]
fn what_is_not_toml_is_reported_with_its_line() {
    for (text, line) in [("[log\n", 1), ("a = 1\n[log]\nlevel = info", 3), ("[log]\nlevel = 'info'\nlevel = 'warn'", 3)]
    {
        let problems = bad(from_text(text), text);
        let lines: Vec<_> = problems.iter().map(|problem| &problem.source).collect();
        assert!(matches!(lines[..], [Source::File { line: at, .. }] if *at == line), "{text}: {problems:#?}");
        assert!(problems[0].message.starts_with("not TOML: "), "{problems:#?}");
    }
    let problems = bad(load_text(b"[log]\n# \xff\n", false, &[], Flags::default()), "bytes");
    assert!(matches!(problems[0].source, Source::File { line: 2, .. }), "{problems:#?}");
    good(load_text("[log]\n# \u{ff}\n", false, &[], Flags::default()), "the same in UTF-8");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.toml");
    std::fs::write(&large, "#".repeat(1024 * 1024 + 1)).unwrap();
    for (path, said) in [
        (folder.path().join("none.toml"), "No such file"),
        (folder.path().into(), "directory"),
        (large.clone(), "1048576"),
    ] {
        let problems = bad(load(Inputs { file: Some(&path), ..Inputs::default() }), "no file");
        assert_eq!(problems.len(), 1);
        let text = problems[0].to_string();
        assert!(text.contains(said) && text.starts_with(&path.display().to_string()), "{text}");
    }
    std::fs::write(&large, "#".repeat(1024 * 1024)).unwrap();
    good(load(Inputs { file: Some(&large), ..Inputs::default() }), "a file of exactly the limit");
}
