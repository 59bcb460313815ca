//! The subcommands that do not serve: what they print where, and how they end.

use clap::Parser;
use gateway::cli::{CheckArgs, Cli, Command, PublishArgs};
use gateway::commands::{cert, check, completions, publish, token};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;

struct Ran {
    exit: u8,
    out: String,
    err: String,
}

fn run(args: &[&str], env: &[(OsString, OsString)]) -> Ran {
    let command = Cli::parse_from([&["tidegate"], args].concat()).command.expect("a subcommand");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = match command {
        Command::Check(args) => check::run(&args, env, &mut out, &mut err),
        Command::Publish(args) => publish::run(&args, env, &mut out, &mut err),
        Command::Cert(args) => cert::run(&args, &mut out, &mut err),
        Command::Token(args) => token::run(&args, env, &mut out, &mut err),
        Command::Completions { shell } => completions::run(shell, &mut out),
        Command::Serve(_) => panic!("this one serves"),
    };
    Ran { exit: exit.expect("written"), out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn env(name: &str, value: &str) -> Vec<(OsString, OsString)> {
    vec![(name.into(), value.into())]
}

#[test]
fn check_prints_the_effective_config_to_stdout_and_warnings_to_stderr() {
    let ran = run(&["check", "--dev"], &env("TIDEGATE_OUTBOX__BYTES_MAX", "3MiB"));
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    let printed: toml::Table = ran.out.parse().expect("TOML");
    assert_eq!(printed["outbox"]["bytes_max"].as_str(), Some("3MiB"));
    assert_eq!(printed["demo"]["enabled"].as_bool(), Some(true));
    let ran = run(&["check"], &[]);
    assert!(ran.exit == 0 && ran.err.starts_with("warning: client.anonymous: ") && ran.out.starts_with("[server]\n"));
}

#[test]
fn check_prints_every_error_to_stderr_and_ends_with_2() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[log]\nlevl = 'info'\nformat = 'xml'\n").unwrap();
    let path = file.path().to_str().unwrap();
    let ran = run(&["check", "--config", path], &[]);
    assert_eq!((ran.exit, ran.out.as_str()), (2, ""));
    let expected = format!(
        "error: {path}:2:1: log.levl: unknown key\n  hint: did you mean `level`?\n\
         error: {path}:3:10: log.format: \"xml\" is not known here\n  hint: one of \"text\", \"json\"\n\
         2 errors in the config\n"
    );
    assert_eq!(ran.err, expected);
}

#[test]
fn cert_makes_what_the_config_takes_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let ran = run(&["cert", "--out", out, "--name", "push.test"], &[]);
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    let (begin, end) = (ran.out.find("[tls]").unwrap(), ran.out.find("2. Ask").unwrap());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&ran.out.as_bytes()[begin..end]).unwrap();
    let checked = run(&["check", "--dev", "--config", file.path().to_str().unwrap()], &[]);
    assert_eq!((checked.exit, checked.err.as_str()), (0, ""), "what it prints is a good config");
    let mode = std::os::unix::fs::PermissionsExt::mode(&dir.path().join("key.pem").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the key is its owner's");

    let before = std::fs::read(dir.path().join("key.pem")).unwrap();
    let again = run(&["cert", "--out", out], &[]);
    assert_eq!((again.exit, again.out.as_str()), (1, ""));
    assert!(again.err.contains("key.pem") && again.err.contains("delete it first"), "{}", again.err);
    assert_eq!(std::fs::read(dir.path().join("key.pem")).unwrap(), before);
}

#[test]
fn check_fails_when_nobody_takes_its_output() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let args = CheckArgs { config: None, dev: true, centrifugo: None };
    assert!(check::run(&args, &[], &mut Closed, &mut Vec::new()).is_err());
    assert!(check::run(&args, &[], &mut Vec::new(), &mut Closed).is_ok(), "nothing to say on stderr");
    assert!(completions::run(clap_complete::Shell::Bash, &mut Closed).is_err());
}

#[test]
fn completions_know_our_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell], &[]);
        assert!(ran.exit == 0 && ran.out.contains("api-listen") && ran.out.contains("publish"), "{shell}");
    }
}

/// Answers one request with `answer`, piece by piece, and gives back what was asked.
fn api(answer: Vec<&'static [u8]>) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, thread::spawn(move || answer_one(listener.accept().unwrap().0, &answer)))
}

fn answer_one(mut socket: impl Read + Write, answer: &[&[u8]]) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let len = socket.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8(request.clone()).unwrap();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            body.len() >= len.parse().unwrap()
        });
        if whole {
            break;
        }
        assert!(len > 0, "half a request: {text}");
    }
    for piece in answer {
        // The client may have what it needs already, and be gone.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    String::from_utf8(request).unwrap()
}

const PUBLISHED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 42\r\n\r\n{\"result\":{\"offset\":7,\"epoch\":\"abcdefgh\"}}\n";

#[test]
fn publish_posts_the_data_unchanged_and_prints_the_result() {
    let (url, server) = api(vec![PUBLISHED]);
    let ran = run(&["publish", "news:\"x\"", "{ \"b\": 1.10,\"a\":[] }", "--api", &url, "--key", "k-1"], &[]);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (0, "{\"offset\":7,\"epoch\":\"abcdefgh\"}\n", ""));
    let request = server.join().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, r#"{"channel":"news:\"x\"","data":{ "b": 1.10,"a":[] }}"#);
    let lines: Vec<_> = head.split("\r\n").collect();
    let host = format!("Host: {}", url.trim_start_matches("http://"));
    assert_eq!(lines[0], "POST /api/publish HTTP/1.1");
    for line in [host.as_str(), "X-API-Key: k-1", "Content-Type: application/json", "Connection: close"] {
        assert!(lines.contains(&line), "{line} in {head}");
    }
}

#[test]
fn publish_takes_the_gateways_own_key_from_the_environment() {
    let (url, server) = api(vec![PUBLISHED]);
    let ran = run(&["publish", "news", "1", "--api", &url], &env("TIDEGATE_API__KEYS", "['k-2', 'k-3']"));
    assert_eq!(ran.exit, 0, "{}", ran.err);
    assert!(server.join().unwrap().contains("\r\nX-API-Key: k-2\r\n"));
    let (url, server) = api(vec![PUBLISHED]);
    assert_eq!(run(&["publish", "news", "1", "--api", &url], &env("TIDEGATE_LOG__LEVL", "x")).exit, 0);
    assert!(!server.join().unwrap().contains("X-API-Key"), "no key, no header");
}

#[test]
fn publish_reaches_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || answer_one(listener.accept().unwrap().0, &[PUBLISHED]));
    let ran = run(&["publish", "news", "1", "--api", &format!("unix:{}", path.display())], &[]);
    assert_eq!(ran.exit, 0, "{}", ran.err);
    assert!(server.join().unwrap().contains("\r\nHost: localhost\r\n"));
}

#[test]
fn publish_reads_every_form_of_a_body() {
    let forms: [Vec<&[u8]>; 4] = [
        vec![b"HTTP/1.1 200 OK\r\n\r\n{\"result\":{}}"],
        vec![b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n{\"resu", b"lt\":{}}trailing rubbish"],
        vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"resu\r\n7\r\nlt\":{}}\r\n0\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r", b"\nContent-Length: 13\r\n", b"\r\n{\"result\":{}}"],
    ];
    for form in forms {
        let (url, server) = api(form.clone());
        let ran = run(&["publish", "news", "1", "--api", &url], &[]);
        assert_eq!((ran.exit, ran.out.as_str()), (0, "{}\n"), "{form:?}: {}", ran.err);
        server.join().unwrap();
    }
}

#[test]
fn publish_tells_a_refusal_from_a_wrong_address_and_ends_with_1() {
    let huge: &'static [u8] = Box::leak(vec![b'a'; 70_000].into_boxed_slice());
    let table: [(Vec<&[u8]>, &str); 9] = [
        (vec![b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"], "refuses the key"),
        (
            vec![b"HTTP/1.1 200 OK\r\n\r\n{\"error\":{\"code\":102,\"message\":\"unknown channel\"}}"],
            "102: unknown channel",
        ),
        (vec![b"HTTP/1.1 200 OK\r\n\r\n{\"error\":{\"code\":102,\"message\":\"\\u001b[2J\"}}"], "\\u{1b}[2J"),
        (vec![b"HTTP/1.1 404 Not Found\r\n\r\n\x1b[2Jnothing here"], "HTTP 404: \\u{1b}[2Jnothing here"),
        (vec![b"HTTP/1.1 200 OK\r\n\r\n{}"], "HTTP 200"),
        (vec![b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], "does not answer like the server API"),
        (vec![b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"], "closed the connection"),
        (vec![b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n"], "no valid body"),
        (vec![b"HTTP/1.1 200 OK\r\nX: ", huge], "too long"),
    ];
    for (answer, said) in table {
        let (url, server) = api(answer);
        let ran = run(&["publish", "news", "1", "--api", &url], &[]);
        assert_eq!((ran.exit, ran.out.as_str()), (1, ""), "{said}");
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains(said) && !ran.err.contains('\x1b'),
            "{said}: {}",
            ran.err
        );
        server.join().unwrap();
    }
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let ran = run(&["publish", "news", "1", "--api", &url], &[]);
    assert!(
        ran.exit == 1 && ran.err.contains("cannot reach") && ran.err.contains("is tidegate running"),
        "{}",
        ran.err
    );
}

#[test]
fn publish_refuses_a_wrong_command_line_before_it_connects() {
    let table = [
        (&["news", "hello"][..], "DATA is not JSON"),
        (&["news", "1 2"], "DATA is not JSON"),
        (&["news", "1", "--api", "https://127.0.0.1"], "no TLS"),
        (&["news", "1", "--api", "127.0.0.1:9000"], "not the URL"),
        (&["news", "1", "--api", "http://"], "not the URL"),
        (&["news", "1", "--api", "http://user@host"], "not the URL"),
        (&["news", "1", "--api", "http://host/a b"], "not the URL"),
        (&["news", "1", "--api", "unix:relative"], "not the URL"),
        (&["news", "1", "--key", "open sesame"], "--key is not a key"),
        (&["news", "1", "--key", "a\r\nX-Evil: 1"], "--key is not a key"),
    ];
    for (args, said) in table {
        let ran = run(&[&["publish"], args].concat(), &[]);
        assert_eq!((ran.exit, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains(said) && !ran.err.contains("sesame"), "{args:?}: {}", ran.err);
    }
    let ran = run(&["publish", "news", "1"], &env("TIDEGATE_API__KEYS", "sesame"));
    assert!(ran.exit == 2 && !ran.err.contains("sesame"), "{}", ran.err);
}

#[test]
fn publish_has_the_api_of_this_machine_as_default() {
    let Some(Command::Publish(PublishArgs { api, key, .. })) =
        Cli::parse_from(["tidegate", "publish", "a", "1"]).command
    else {
        panic!("publish")
    };
    assert_eq!((api.as_str(), key), ("http://127.0.0.1:9000", None));
}

#[test]
fn token_signs_what_token_checks() {
    let secret = env("TIDEGATE_TOKEN__HMAC_SECRET_KEYS", "[\"a secret of at least thirty-two bytes\"]");
    let made = |args: &[&str]| {
        let ran = run(&[&["token"], args].concat(), &secret);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{args:?}");
        ran.out.trim().to_owned()
    };
    let checked = |token: &str, env| run(&["token", "--check", token], env);
    let forever = made(&["--user", "42", "--ttl", "0s", "--info", "{\"a\":1}", "--channel", "a", "--channel", "b:c"]);
    let ran = checked(&forever, &secret);
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (0, "a connection token of user \"42\", for ever, subscribed to a, b:c\n")
    );
    let ran = checked(&made(&["--user", "42", "--subscribe", "$a", "--ttl", "2h"]), &secret);
    assert!(ran.out.starts_with("a subscription token of user \"42\" for $a, for 7"), "{}{}", ran.out, ran.err);
    let other = env("TIDEGATE_TOKEN__HMAC_SECRET_KEYS", "[\"b secret of at least thirty-two bytes\"]");
    let ran = checked(&forever, &other);
    assert_eq!((ran.exit, ran.out.as_str()), (1, ""));
    assert_eq!(ran.err, "error: it does not count: its signature is wrong (disconnect 3500)\n");
}

#[test]
fn token_makes_one_for_each_of_many_users() {
    let secret = env("TIDEGATE_TOKEN__HMAC_SECRET_KEYS", "[\"a secret of at least thirty-two bytes\"]");
    let users_of = |args: &[&str]| -> Vec<String> {
        let ran = run(&[&["token", "--ttl", "0s"], args].concat(), &secret);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{args:?}");
        ran.out.lines().map(|token| run(&["token", "--check", token], &secret).out).collect()
    };
    let of = |user: &str| format!("a connection token of user {user:?}, for ever\n");
    assert_eq!(users_of(&["--user", "load-", "--count", "3"]), ["load-1", "load-2", "load-3"].map(of));
    assert_eq!(users_of(&["--user", "load-", "--count", "1"]), [of("load-1")]);
    assert_eq!(users_of(&["--user", "load-"]), [of("load-")], "without --count the user is the one that is named");
}

#[test]
fn token_says_what_is_missing() {
    let secret = env("TIDEGATE_TOKEN__HMAC_SECRET_KEYS", "[\"a secret of at least thirty-two bytes\"]");
    for (args, env, says) in [
        (&["--user", "42"][..], &[][..], "no secret to sign with"),
        (&["--check", "x"], &[], "no key to check tokens with"),
        (&["--info", "Ada"], &secret, "--info is not JSON"),
        (&["--ttl", "soon"], &secret, "--ttl"),
    ] {
        let ran = run(&[&["token"], args].concat(), env);
        assert_eq!((ran.exit, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains(says) && ran.err.contains("hint: "), "{args:?}: {}", ran.err);
    }
}

#[test]
fn check_translates_a_config_of_centrifugo_into_one_that_it_accepts() {
    let mut theirs = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let text = r#"{"http_server":{"address":"127.0.0.1","port":8000},"http_api":{"key":"an-api-key"},
        "client":{"token":{"hmac_secret_key":"a secret of at least thirty-two bytes"},"allowed_origins":["https://a.test"],
            "subscribe_to_user_personal_channel":{"enabled":true},"ping_interval":"20s","concurrency":8},
        "channel":{"without_namespace":{"presence":true,"join_leave":true,"force_push_join_leave":true,"history_size":100,
            "history_ttl":"300s","force_recovery":true,"allowed_delta_types":["fossil"],"delta_publish":true},
            "namespaces":[{"name":"chat","allow_subscribe_for_client":true}]},
        "engine":{"type":"redis"}}"#;
    theirs.write_all(text.as_bytes()).unwrap();
    let ran = run(&["check", "--centrifugo", theirs.path().to_str().unwrap()], &[]);
    assert_eq!(ran.err, "not in it: client.concurrency = 8\nnot in it: engine.type = \"redis\"\n");
    let mut ours = tempfile::NamedTempFile::new().unwrap();
    ours.write_all(ran.out.as_bytes()).unwrap();
    let checked = run(&["check", "--config", ours.path().to_str().unwrap()], &[]);
    assert_eq!((ran.exit, checked.exit, checked.err.as_str()), (0, 0, ""), "{}", ran.out);
    let effective: toml::Table = checked.out.parse().expect("TOML");
    assert_eq!(effective["client"]["ping_interval"].as_str(), Some("20s"));
    assert_eq!(effective["channels"]["history_ttl"].as_str(), Some("5m"));

    let yaml = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let ran = run(&["check", "--centrifugo", yaml.path().to_str().unwrap()], &[]);
    assert!(ran.exit == 2 && ran.err.contains("yq -o json"), "{}", ran.err);
}
