use super::*;

fn subscriptions(channels: u32, personal: u32) -> Subscriptions {
    Subscriptions { channel: "ns:a".to_owned(), channels, personal, tokens: Tokens::default() }
}

/// What was heard, written out: a name that is borrowed from one message cannot leave it.
fn heard(dialect: Dialect, message: &str) -> Vec<String> {
    heard_after(dialect, &mut Vec::new(), message.as_bytes())
}

fn heard_after(dialect: Dialect, rest: &mut Vec<u8>, message: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    dialect.listen(message, rest, |heard| {
        all.push(match heard {
            Heard::Message(bytes) => format!("message {}", String::from_utf8_lossy(bytes)),
            Heard::Publication { channel, data, .. } => format!("{channel}: {}", String::from_utf8_lossy(data)),
            Heard::Refused(reason) => reason,
            other => format!("{other:?}"),
        });
    });
    all
}

#[test]
fn channels_have_names_of_their_own() {
    assert_eq!(subscriptions(1, 0).of(7).collect::<Vec<_>>(), ["ns:a"]);
    assert_eq!(subscriptions(3, 2).of(7).collect::<Vec<_>>(), ["ns:a.1", "ns:a.7.0", "ns:a.7.1"]);
}

#[test]
fn a_centrifugo_client_connects_and_subscribes_in_one_message() {
    let mut messages = Vec::new();
    let replies = Dialect::Centrifugo.greeting(&subscriptions(1, 1), 4, |m| messages.push(m.to_owned()));
    assert_eq!(replies, 3);
    let [message] = &messages[..] else { panic!("{messages:?}") };
    let lines: Vec<serde_json::Value> = message.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0], serde_json::json!({"id": 1, "connect": {}}));
    assert_eq!(lines[2], serde_json::json!({"id": 3, "subscribe": {"channel": "ns:a.4.0"}}));
}

#[test]
fn a_token_goes_with_the_connect_of_the_protocol_that_knows_it() {
    let with_tokens = Subscriptions { tokens: ["a.b.c", "d.e.f"].map(str::to_owned).into(), ..subscriptions(1, 0) };
    for (client, token) in [(0, "a.b.c"), (1, "d.e.f"), (2, "a.b.c")] {
        let mut messages = Vec::new();
        Dialect::Centrifugo.greeting(&with_tokens, client, |m| messages.push(m.to_owned()));
        let first: serde_json::Value = serde_json::from_str(messages[0].lines().next().unwrap()).unwrap();
        assert_eq!(first, serde_json::json!({"id": 1, "connect": {"token": token}}));
    }
    assert!(Dialect::Centrifugo.check("/", &with_tokens, 1).is_ok());
    assert!(Dialect::Plain.check("/", &with_tokens, 1).is_err());
}

#[test]
fn many_subscriptions_are_split_into_messages_of_whole_commands() {
    let mut ids = Vec::new();
    let replies = Dialect::Centrifugo.greeting(&subscriptions(1, 2_000), 0, |message| {
        assert!(message.len() < COMMANDS_BYTES_MAX + 128);
        ids.extend(message.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].as_u64()));
    });
    assert_eq!(ids, (1..=2_002).map(Some).collect::<Vec<_>>());
    assert_eq!(replies, 2_002);
}

#[test]
fn a_plain_client_puts_its_channels_into_the_url() {
    let target = |path| Dialect::Plain.target(path, &subscriptions(1, 1), 3);
    assert_eq!(target("/uni"), "/uni?channels=ns:a,ns:a.3.0");
    assert_eq!(target("/uni?x=1"), "/uni?x=1&channels=ns:a,ns:a.3.0");
    assert!(Dialect::Plain.check("/uni", &subscriptions(1, 10), 1000).is_ok());
    assert!(Dialect::Plain.check("/uni", &subscriptions(1, 1000), 1000).is_err());
}

#[test]
fn replies_pings_and_publications_are_told_apart() {
    let message =
        "{\"id\":1,\"connect\":{\"client\":\"x\"}}\n{}\n{\"push\":{\"channel\":\"c\",\"pub\":{\"data\":[1, 2]}}}\n";
    assert_eq!(heard(Dialect::Centrifugo, message), ["Reply", "Ping { answer: true }", "c: [1, 2]"]);
    assert_eq!(heard(Dialect::Plain, "{\"channel\":\"c\",\"pub\":{\"data\":[1, 2]}}"), ["c: [1, 2]"]);
    assert_eq!(heard(Dialect::Plain, "{}"), ["Ping { answer: false }"]);
    assert_eq!(heard(Dialect::None, "{}"), ["message {}"]);
    assert_eq!(heard(Dialect::Raw, "{}"), ["message {}"]);
}

#[test]
fn refusals_say_what_was_refused_and_why() {
    let reason = |dialect, message: &str| heard(dialect, message).join("|");
    let refused = "{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}";
    assert_eq!(reason(Dialect::Centrifugo, refused), "subscribe refused: 103 permission denied");
    let gone = "{\"push\":{\"channel\":\"c\",\"unsubscribe\":{\"code\":2500,\"reason\":\"insufficient state\"}}}";
    assert_eq!(reason(Dialect::Centrifugo, gone), "unsubscribed by the server: 2500 insufficient state");
    assert!(reason(Dialect::Centrifugo, "{\"id\":").contains("not of the protocol"));
    assert_eq!(reason(Dialect::Plain, "{\"connect\":{\"client\":\"x\"}}"), "Connected(0)");
    assert_eq!(reason(Dialect::Plain, "{\"connect\":{\"subs\":{\"a\":{}}}}"), "Connected(1)");
}

/// As nats-server 2.9.10 says it on its WebSocket listener: the first frame, the answer to the greeting, publications.
const NATS_INFO: &str = "INFO {\"server_id\":\"NBTHO5PO5QUGKIZB73KWRYKJCWBEOBUXS37Y3LD6QW2X4YKGPHEKL5ME\",\"server_name\":\
\"NBTHO5PO5QUGKIZB73KWRYKJCWBEOBUXS37Y3LD6QW2X4YKGPHEKL5ME\",\"version\":\"2.9.10\",\"proto\":1,\"go\":\"go1.19.8\",\
\"host\":\"127.0.0.1\",\"port\":14222,\"headers\":true,\"max_payload\":1048576,\"client_id\":4,\"client_ip\":\"127.0.0.1\"} \r\n";
const NATS_PUBLICATIONS: &str = "MSG load 1 5\r\nhello\r\nMSG load 1 2\r\nyo\r\n";

#[test]
fn a_nats_client_connects_subscribes_and_waits_for_one_pong() {
    let mut messages = Vec::new();
    assert_eq!(Dialect::Nats.greeting(&subscriptions(1, 1), 4, |m| messages.push(m.to_owned())), 1);
    let [message] = &messages[..] else { panic!("{messages:?}") };
    let lines: Vec<&str> = message.split_terminator("\r\n").collect();
    assert!(lines[0].starts_with("CONNECT {\"verbose\":false,"), "{message}");
    assert!(serde_json::from_str::<serde_json::Value>(&lines[0]["CONNECT ".len()..]).is_ok(), "{message}");
    assert_eq!(lines[1..], ["SUB ns:a 1", "SUB ns:a.4.0 2", "PING"]);
}

#[test]
fn what_nats_server_says_is_understood() {
    assert_eq!(heard(Dialect::Nats, NATS_INFO), ["Other"]);
    assert_eq!(heard(Dialect::Nats, "PONG\r\n"), ["Reply"]);
    assert_eq!(heard(Dialect::Nats, "PING\r\n"), ["Ping { answer: true }"]);
    assert_eq!(heard(Dialect::Nats, NATS_PUBLICATIONS), ["load: hello", "load: yo"]);
    assert_eq!(heard(Dialect::Nats, "MSG load 1 reply.to 0\r\n\r\n"), ["load: "]);
    assert_eq!(heard(Dialect::Nats, "-ERR 'Invalid Subject'\r\n"), ["the server refused: Invalid Subject"]);
}

#[test]
fn frames_may_cut_nats_anywhere() {
    let whole = [NATS_INFO, NATS_PUBLICATIONS, "PING\r\n"].concat();
    for cut in 0..=whole.len() {
        let (before, after) = whole.as_bytes().split_at(cut);
        let mut rest = Vec::new();
        let mut all = heard_after(Dialect::Nats, &mut rest, before);
        all.extend(heard_after(Dialect::Nats, &mut rest, after));
        assert_eq!(all, ["Other", "load: hello", "load: yo", "Ping { answer: true }"], "cut at {cut}");
        assert_eq!(rest, [] as [u8; 0]);
    }
}

#[test]
fn what_is_not_nats_is_refused_and_its_twin_is_not() {
    let refused = |message: &str| heard(Dialect::Nats, message).iter().any(|h| h.contains("not of the protocol"));
    for (bad, good) in [
        ("PUNG\r\n", "PONG\r\n"),
        ("MSG load 1 5\r\nhello.\n", "MSG load 1 5\r\nhello\r\n"),
        ("MSG load 1 -5\r\nhello\r\n", "MSG load 1 5\r\nhello\r\n"),
        ("MSG load 5\r\nhello\r\n", "MSG load 1 5\r\nhello\r\n"),
        ("MSG load 1 99999999999\r\n", "MSG load 1 9999999\r\n"),
    ] {
        assert!(refused(bad) && !refused(good), "{bad:?}");
    }
    assert!(refused(&"x".repeat(64 * 1024 + 1)), "a line without an end");
    assert!(!refused(&"x".repeat(64 * 1024)), "its end may come");
}

#[test]
fn a_raw_client_asks_for_its_channel_in_the_url() {
    let raw = |channels| subscriptions(channels, 0);
    assert_eq!(Dialect::Raw.target("/sub/{channel}?x", &raw(3), 4), "/sub/ns:a.1?x");
    assert_eq!(Dialect::Raw.target("/all", &raw(1), 4), "/all");
    assert!(Dialect::Raw.check("/all", &raw(2), 1).is_err());
    assert!(Dialect::Raw.check("/{channel}", &raw(2), 1).is_ok());
    assert!(Dialect::Raw.check("/all", &raw(1), 1).is_ok());
    assert!(Dialect::Raw.check("/{channel}", &subscriptions(1, 1), 1).is_err());
}
