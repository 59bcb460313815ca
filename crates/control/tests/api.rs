//! The methods of the server API, with each error beside its accepted twin.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use common::{Fake, KEY, call, get, node, node_with, post, post_with, settings};
use control::{ApiSettings, ClientAction, Clients, ErrorMode, ServerSide};
use hub::{Epoch, Offset, PublishOptions, Since, SinceEpoch};
use serde_json::{Value, json};

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// The error code of an envelope, 0 for a result.
fn code(body: &str) -> u64 {
    let body = parse(body);
    match (&body["error"], &body["result"]) {
        (Value::Null, Value::Object(_)) => 0,
        (error, Value::Null) => {
            assert!(error["message"].is_string());
            error["code"].as_u64().unwrap()
        }
        _ => panic!("neither result nor error: {body}"),
    }
}

#[tokio::test]
async fn publish_hands_over_channel_data_and_tags() {
    let (fake, router) = node();
    let body = r#"{"channel":"chat:1","data":{"t":"hi"},"tags":{"lang":"de"}}"#;
    assert_eq!(call(&router, "publish", body).await, r#"{"result":{}}"#);
    assert_eq!(fake.log(), [r#"chat:1 {"t":"hi"}"#]);
    let published = fake.published.lock().unwrap();
    assert_eq!(published[0].tags.as_ref().unwrap()["lang"], "de");
    assert!(published[0].info.is_none(), "a backend is no client");
}

#[tokio::test]
async fn data_stays_byte_for_byte_except_for_line_breaks_between_tokens() {
    let (fake, router) = node();
    let data = "{ \"b\" :\r\n [1.50, 123456789012345678901234567890, 1e400],\n\t\"a\": \"\\n\\u00e9é\", \"a\": null}";
    call(&router, "publish", &format!("{{\"channel\":\"news\",\"data\":{data}}}")).await;
    let expected = data.replace(['\r', '\n'], "");
    assert_eq!(fake.log(), [format!("news {expected}")]);
    assert!(expected.contains("\\n"), "an escaped line break inside a string stays");
}

#[tokio::test]
async fn b64data_must_hold_json() {
    let (fake, router) = node();
    // {"a":1} and {"a":1
    let (whole, cut, no_base64) = ("eyJhIjoxfQ==", "eyJhIjox", "eyJhIjoxfQ=");
    let body = |data| format!(r#"{{"channel":"news","b64data":"{data}"}}"#);
    assert_eq!(code(&call(&router, "publish", &body(whole)).await), 0);
    assert_eq!(code(&call(&router, "publish", &body(cut)).await), 107);
    assert_eq!(code(&call(&router, "publish", &body(no_base64)).await), 107);
    assert_eq!(fake.log(), [r#"news {"a":1}"#]);
}

#[tokio::test]
async fn each_wrong_publish_is_refused_and_publishes_nothing() {
    let cases = [
        (107, r#"{"channel":"","data":1}"#),
        (107, r#"{"data":1}"#),
        (107, r#"{"channel":"news"}"#),
        (107, r#"{"channel":"news","data":null}"#),
        (107, r#"{"channel":"news","b64data":""}"#),
        (107, "{\"channel\":\"n\u{e9}ws\",\"data\":1}"),
        (102, r#"{"channel":"chap:1","data":1}"#),
        (102, r#"{"channel":"gone","data":1}"#),
        (108, r#"{"channel":"news","data":1,"version":1}"#),
        (100, r#"{"channel":"busy","data":1}"#),
        (100, r#"{"channel":"ending","data":1}"#),
    ];
    let (fake, router) = node();
    for (expected, body) in cases {
        assert_eq!(code(&call(&router, "publish", body).await), expected, "{body}");
    }
    assert!(fake.log().is_empty());
}

#[tokio::test]
async fn the_twins_of_wrong_publishes_are_accepted() {
    let cases = [
        r#"{"channel":"n","data":1}"#,
        r#"{"channel":"chat:1","data":false}"#,
        r#"{"channel":"news","data":"null"}"#,
        r#"{"channel":"news","data":1,"b64data":""}"#,
        r#"{"channel":"news","data":1,"b64data":null,"tags":null,"idempotency_key":null,"version":null}"#,
        r#"{"channel":"news","data":1,"idempotency_key":"","version":0,"version_epoch":"e"}"#,
        r#"{"channel":"news","data":1,"idempotency_key":"k"}"#,
        r#"{"channel":"kept:1","data":1,"version":1}"#,
        r#"{"channel":"news","data":1,"skip_history":true,"delta":true,"unknown":{}}"#,
    ];
    let (fake, router) = node();
    for body in cases {
        assert_eq!(code(&call(&router, "publish", body).await), 0, "{body}");
    }
    assert_eq!(fake.log().len(), cases.len());
}

#[tokio::test]
async fn named_limits_hold_to_the_byte() {
    let (fake, router) =
        node_with(ApiSettings { data_bytes_max: 10, channel_bytes_max: 5, ..settings() }, Fake::default());
    let body = |channel: &str, len: usize| format!(r#"{{"channel":"{channel}","data":"{}"}}"#, "x".repeat(len - 2));
    assert_eq!(code(&call(&router, "publish", &body("12345", 10)).await), 0);
    assert_eq!(code(&call(&router, "publish", &body("123456", 10)).await), 107);
    assert_eq!(code(&call(&router, "publish", &body("12345", 11)).await), 107);
    let tags = |count: usize| {
        let tags: Vec<String> = (0..count).map(|n| format!(r#""{n}":"v""#)).collect();
        format!(r#"{{"channel":"n","data":1,"tags":{{{}}}}}"#, tags.join(","))
    };
    assert_eq!(code(&call(&router, "publish", &tags(control::limits::TAGS_MAX)).await), 0);
    assert_eq!(code(&call(&router, "publish", &tags(control::limits::TAGS_MAX + 1)).await), 107);
    assert_eq!(fake.log().len(), 2);
}

#[tokio::test]
async fn json_that_cannot_be_read_is_a_400() {
    let (fake, router) = node();
    let broken = [
        "",
        "{",
        r#"{"channel":"news","data":}"#,
        r#"{"channel":"news","data":1}x"#,
        r#"{"channel":5,"data":1}"#,
        r#"{"channel":"news","channel":"news","data":1}"#,
        r#"["news"]x"#,
    ];
    for body in broken {
        let answer = post(&router, "/api/publish", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(code(&answer.body), 107);
    }
    let not_utf8 = post(&router, "/api/publish", b"{\"channel\":\"news\",\"data\":\"\xff\"}".to_vec()).await;
    assert_eq!(not_utf8.status, StatusCode::BAD_REQUEST);
    assert!(fake.log().is_empty());
    assert_eq!(code(&call(&router, "publish", "{\"channel\":\"news\",\"data\":\"\u{fd}\"}").await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_answered_for_after_the_deadline() {
    let (_fake, router) = node();
    let started = tokio::time::Instant::now();
    let body = call(&router, "publish", r#"{"channel":"silent","data":1}"#).await;
    assert_eq!(code(&body), 100);
    assert!(body.contains("it may have been done"), "{body}");
    assert_eq!(started.elapsed(), control::limits::BACKEND_TIMEOUT);
    assert_eq!(code(&call(&router, "publish", r#"{"channel":"later:4999","data":1}"#).await), 0);
}

#[tokio::test(start_paused = true)]
async fn broadcast_answers_in_order_whatever_finishes_first() {
    let (fake, router) = node();
    let body = r#"{"channels":["later:30","chap:x","later:20","busy","","later:10"],"data":{"n":1}}"#;
    let reply = parse(&call(&router, "broadcast", body).await);
    let codes: Vec<u64> =
        reply["result"]["responses"].as_array().unwrap().iter().map(|response| code(&response.to_string())).collect();
    assert_eq!(codes, [0, 102, 0, 100, 107, 0]);
    assert_eq!(fake.log(), [r#"later:10 {"n":1}"#, r#"later:20 {"n":1}"#, r#"later:30 {"n":1}"#]);
}

#[tokio::test(start_paused = true)]
async fn broadcast_is_concurrent_within_its_bound() {
    let (fake, router) = node();
    let channels = vec!["later:5"; 200];
    let started = tokio::time::Instant::now();
    let body = json!({"channels": channels, "data": 1}).to_string();
    assert_eq!(code(&call(&router, "broadcast", &body).await), 0);
    assert_eq!(fake.log().len(), 200);
    assert_eq!(fake.in_flight_max.load(Ordering::SeqCst), control::limits::BROADCAST_IN_FLIGHT_MAX);
    assert!(started.elapsed() <= Duration::from_millis(5 * 5), "200 at 64 at once are 4 rounds");
}

#[tokio::test]
async fn broadcast_takes_a_bounded_number_of_channels() {
    let (fake, router) = node();
    let max = control::limits::BROADCAST_CHANNELS_MAX;
    let body = |count| json!({"channels": vec!["n"; count], "data": 1}).to_string();
    assert_eq!(code(&call(&router, "broadcast", &body(max + 1)).await), 107);
    assert_eq!(code(&call(&router, "broadcast", &body(0)).await), 107);
    assert_eq!(code(&call(&router, "broadcast", r#"{"channels":["n"]}"#).await), 107, "no data at all");
    assert!(fake.log().is_empty());
    assert_eq!(code(&call(&router, "broadcast", &body(max)).await), 0);
    assert_eq!(fake.log().len(), max);
}

#[tokio::test]
async fn channels_lists_what_matches_sorted() {
    let (_fake, router) = node();
    let all =
        r#"{"result":{"channels":{"chat:a":{"num_clients":7},"chat:b":{"num_clients":1},"news":{"num_clients":2}}}}"#;
    for body in ["", "{}", r#"{"pattern":""}"#, r#"{"pattern":null}"#, r#"{"pattern":"*"}"#] {
        assert_eq!(call(&router, "channels", body).await, all, "{body}");
    }
    let one = r#"{"result":{"channels":{"chat:a":{"num_clients":7}}}}"#;
    assert_eq!(call(&router, "channels", r#"{"pattern":"?hat:a"}"#).await, one);
    assert_eq!(call(&router, "channels", r#"{"pattern":"none"}"#).await, r#"{"result":{"channels":{}}}"#);
    assert_eq!(code(&call(&router, "channels", r#"{"pattern":"{chat,news}:*"}"#).await), 107);
}

#[tokio::test]
async fn presence_tells_who_is_subscribed_and_presence_stats_how_many() {
    let (_fake, router) = node();
    let both = r#"{"result":{"presence":{"c1":{"user":"","client":"c1"},"c2":{"user":"77","client":"c2","conn_info":{"n": 1.0}}}}}"#;
    assert_eq!(call(&router, "presence", r#"{"channel":"chat:1"}"#).await, both);
    let stats = r#"{"result":{"num_clients":3,"num_users":2}}"#;
    assert_eq!(call(&router, "presence_stats", r#"{"channel":"chat:1"}"#).await, stats);
    for method in ["presence", "presence_stats"] {
        for (expected, body) in
            [(107, "{}"), (107, r#"{"channel":""}"#), (102, r#"{"channel":"chap:1"}"#), (108, r#"{"channel":"news"}"#)]
        {
            assert_eq!(code(&call(&router, method, body).await), expected, "{method} {body}");
        }
    }
    // More than one answer names can be counted all the same.
    assert_eq!(code(&call(&router, "presence", r#"{"channel":"chat:full"}"#).await), 108);
    assert_eq!(code(&call(&router, "presence_stats", r#"{"channel":"chat:full"}"#).await), 0);
}

#[tokio::test]
async fn more_channels_than_can_be_listed_is_an_error_not_a_cut_list() {
    let max = control::limits::CHANNELS_LISTED_MAX;
    for (flood, expected) in [(max, 0), (max + 1, 108)] {
        let (_fake, router) = node_with(settings(), Fake { flood, ..Fake::default() });
        assert_eq!(code(&call(&router, "channels", "{}").await), expected);
    }
}

#[tokio::test]
async fn info_tells_about_this_node() {
    let (_fake, router) = node();
    let expected = r#"{"result":{"nodes":[{"uid":"u1","name":"node-1","version":"0.1.0","num_clients":3,"num_users":2,"num_channels":4,"num_subs":5,"uptime":60}]}}"#;
    assert_eq!(call(&router, "info", "{}").await, expected);
    assert_eq!(call(&router, "info", "").await, expected);
}

#[tokio::test]
async fn disconnect_takes_its_target_and_defaults_to_3503() {
    let (fake, router) = node();
    let body = r#"{"user":"77","client":"c","session":"","whitelist":["w"],"disconnect":{"code":4000,"reason":"bye"}}"#;
    assert_eq!(call(&router, "disconnect", body).await, r#"{"result":{}}"#);
    assert_eq!(code(&call(&router, "disconnect", r#"{"user":"","whitelist":null,"disconnect":null}"#).await), 0);
    let acts = fake.acts.lock().unwrap();
    let first =
        Clients { user: Some("77".into()), client: Some("c".into()), session: None, whitelist: vec!["w".into()] };
    let second = Clients { user: Some(String::new()), ..Clients::default() };
    let close = |code, reason: &str| ClientAction::Disconnect { code, reason: reason.into() };
    assert_eq!(acts[..], [(first, close(4000, "bye")), (second, close(3503, "force disconnect"))]);
}

#[tokio::test]
async fn unsubscribe_and_refresh_take_the_same_targets() {
    let (fake, router) = node();
    for (method, body, expected) in [
        ("unsubscribe", r#"{"user":"77","channel":"chat:1"}"#, ClientAction::Unsubscribe("chat:1".into())),
        ("refresh", r#"{"user":"77","expire_at":1795420800}"#, ClientAction::Refresh(Some(1_795_420_800))),
        ("refresh", r#"{"user":"77","expire_at":0}"#, ClientAction::Refresh(None)),
        ("refresh", r#"{"user":"77"}"#, ClientAction::Refresh(None)),
        (
            "refresh",
            r#"{"user":"77","expired":true}"#,
            ClientAction::Disconnect { code: 3005, reason: "connection expired".into() },
        ),
    ] {
        assert_eq!(call(&router, method, body).await, r#"{"result":{}}"#, "{body}");
        let (clients, action) = fake.acts.lock().unwrap().pop().expect("it was asked for");
        assert_eq!((clients.user.as_deref(), action), (Some("77"), expected), "{body}");
    }
    for (method, body, wrong) in [
        ("unsubscribe", r#"{"channel":"chat:1"}"#, 107),
        ("unsubscribe", r#"{"user":"77"}"#, 107),
        ("unsubscribe", r#"{"user":"77","channel":"none:1"}"#, 102),
        ("refresh", r#"{"expire_at":5}"#, 107),
    ] {
        assert_eq!(code(&call(&router, method, body).await), wrong, "{body}");
    }
    assert!(fake.acts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn subscribe_takes_the_same_targets_and_what_goes_with_a_channel() {
    let (fake, router) = node();
    let of = |channel: &str| ServerSide { channel: channel.into(), ..ServerSide::default() };
    let since = |offset: u64, epoch: &str| Since { offset: Offset(offset), epoch: SinceEpoch::read(epoch) };
    for (body, expected) in [
        (r#"{"user":"77","channel":"chat:1"}"#, of("chat:1")),
        (r#"{"user":"77","channel":"chat:1","info":null,"data":null,"override":null,"expire_at":0}"#, of("chat:1")),
        (
            r#"{"user":"77","channel":"chat:1","info":{"a": 1},"b64data":"eyJiIjoyfQ==","expire_at":4000000000}"#,
            ServerSide {
                info: Some((*br#"{"a": 1}"#).into()),
                data: Some((*br#"{"b":2}"#).into()),
                expire_at: Some(4_000_000_000),
                ..of("chat:1")
            },
        ),
        (
            r#"{"user":"77","channel":"chat:1","override":{"force_recovery":{"value":true},"force_positioning":{}}}"#,
            ServerSide { force_recovery: Some(true), ..of("chat:1") },
        ),
        (
            r#"{"user":"77","channel":"chat:1","override":{"presence":{"value":true},"join_leave":{"value":false}}}"#,
            ServerSide { presence: Some(true), join_leave: Some(false), ..of("chat:1") },
        ),
        (
            r#"{"user":"77","channel":"kept:1","recover_since":{"offset":7,"epoch":"abcdefgh"}}"#,
            ServerSide { recover_since: Some(since(7, "abcdefgh")), ..of("kept:1") },
        ),
        (
            r#"{"user":"77","channel":"kept:1","recover_since":{}}"#,
            ServerSide { recover_since: Some(since(0, "")), ..of("kept:1") },
        ),
    ] {
        assert_eq!(call(&router, "subscribe", body).await, r#"{"result":{}}"#, "{body}");
        let (clients, action) = fake.acts.lock().unwrap().pop().expect("it was asked for");
        assert_eq!((clients.user.as_deref(), action), (Some("77"), ClientAction::Subscribe(expected.into())), "{body}");
    }
    for (body, wrong) in [
        (r#"{"channel":"chat:1"}"#, 107),
        (r#"{"user":"77"}"#, 107),
        (r#"{"user":"77","channel":"none:1"}"#, 102),
        (r#"{"user":"77","channel":"chat:1","expire_at":1}"#, 107),
        (r#"{"user":"77","channel":"chat:1","b64info":"e30"}"#, 107),
        (r#"{"user":"77","channel":"chat:1","b64info":"e3t9"}"#, 107),
        (r#"{"user":"77","channel":"chat:1","recover_since":{"offset":1}}"#, 108),
    ] {
        assert_eq!(code(&call(&router, "subscribe", body).await), wrong, "{body}");
    }
    let body = |bytes: usize| json!({"user": "77", "channel": "chat:1", "data": "d".repeat(bytes)}).to_string();
    let max = settings().data_bytes_max - 2;
    assert_eq!(code(&call(&router, "subscribe", &body(max + 1)).await), 107);
    assert!(fake.acts.lock().unwrap().is_empty());
    assert_eq!(code(&call(&router, "subscribe", &body(max)).await), 0);
}

#[tokio::test]
async fn connections_are_listed_by_client_and_never_half() {
    let (_, router) = node();
    let one =
        r#"{"user":"77","transport":"websocket","protocol":"protobuf","state":{"channels":{"chat:1":{},"news":{}}}}"#;
    let expected = format!(r#"{{"result":{{"connections":{{"c0000":{one},"c0001":{one}}}}}}}"#);
    assert_eq!(call(&router, "connections", r#"{"user":"77"}"#).await, expected);
    assert_eq!(code(&call(&router, "connections", "{}").await), 107, "leaving all out does not mean everybody");
    for (flood, wrong) in [(1000, 0), (1001, 108)] {
        let (_, router) = node_with(settings(), Fake { flood, ..Fake::default() });
        assert_eq!(code(&call(&router, "connections", r#"{"user":"77"}"#).await), wrong, "{flood}");
    }
}

#[tokio::test]
async fn disconnect_refuses_what_no_close_frame_can_carry_and_never_means_everybody() {
    let (fake, router) = node();
    let with =
        |code: u32, reason: &str| json!({"user": "7", "disconnect": {"code": code, "reason": reason}}).to_string();
    let long = "r".repeat(124);
    for wrong in
        ["{}".to_owned(), with(2999, "x"), with(5000, "x"), with(69_536, "x"), with(4000, &long), with(4000, "{}")]
    {
        assert_eq!(code(&call(&router, "disconnect", &wrong).await), 107, "{wrong}");
    }
    assert!(fake.acts.lock().unwrap().is_empty());
    let client = r#"{"client":"c"}"#.to_owned();
    for right in [client, with(3000, "x"), with(4999, "x"), with(4000, &long[1..]), with(4000, "{")] {
        assert_eq!(code(&call(&router, "disconnect", &right).await), 0, "{right}");
    }
}

#[tokio::test]
async fn transport_mode_says_it_by_status_with_the_bare_error() {
    let (_fake, router) = node();
    let headers = [("x-api-key", KEY), ("x-centrifugo-error-mode", "transport")];
    let cases = [
        (500, r#"{"channel":"busy","data":1}"#),
        (404, r#"{"channel":"chap:1","data":1}"#),
        (400, r#"{"channel":"news"}"#),
        (400, r#"{"channel":"news","data":1,"version":1}"#),
        (200, r#"{"channel":"news","data":1}"#),
    ];
    for (status, body) in cases {
        let answer = post_with(&router, "/api/publish", &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        let parsed = parse(&answer.body);
        assert_eq!(parsed["code"].is_u64(), status != 200, "{}", answer.body);
        assert!(parsed["error"].is_null());
    }
    // The same by configuration; and a request without either is answered 200.
    let (_fake, by_config) = node_with(ApiSettings { error_mode: ErrorMode::Transport, ..settings() }, Fake::default());
    assert_eq!(post(&by_config, "/api/publish", r#"{"channel":"news"}"#).await.status, 400);
    assert_eq!(post(&router, "/api/publish", r#"{"channel":"news"}"#).await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_the_same_shape() {
    let (_fake, router) = node();
    for path in ["/api/publis", "/api/presences", "/api/publish/x"] {
        let answer = post(&router, path, "{}").await;
        assert_eq!((answer.status.as_u16(), code(&answer.body)), (404, 104), "{path}");
    }
    let answer = get(&router, "/nothing").await;
    assert_eq!((answer.status.as_u16(), code(&answer.body)), (404, 104));
    let key = format!("/api/publish?api_key={KEY}");
    let answer = get(&router, &key).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow"), code(&answer.body)), (405, "POST", 107));
    let answer = post(&router, "/metrics", "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow"), code(&answer.body)), (405, "GET, HEAD", 107));
    assert_eq!(post(&router, "/api/publish/", r#"{"channel":"news","data":1}"#).await.status, 200);
}

#[tokio::test]
async fn the_older_shape_runs_one_or_several_commands() {
    let (fake, router) = node();
    let one = post(&router, "/api", r#"{"method":"publish","params":{"channel":"news","data":1}}"#).await;
    assert_eq!((one.status.as_u16(), one.body.as_str()), (200, r#"{"result":{}}"#));
    let several = "{\"method\":\"publish\",\"params\":{\"channel\":\"news\",\"data\":2}}\n\
        {\"method\":\"publis\",\"params\":{}}\n{\"method\":\"publish\",\"params\":{\"channel\":5}}\n{\"method\":\"info\"}\n";
    let answer = post(&router, "/api/", several).await;
    let codes: Vec<u64> = answer.body.lines().map(code).collect();
    assert_eq!((answer.status.as_u16(), codes), (200, vec![0, 104, 107, 0]));
    assert_eq!(fake.log(), ["news 1", "news 2"]);
    // One command that does not fit its method is a 400, as on /api/publish.
    let wrong = post(&router, "/api", r#"{"method":"publish","params":{"channel":5}}"#).await;
    assert_eq!(wrong.status.as_u16(), 400);
}

#[tokio::test]
async fn an_older_body_that_breaks_off_does_nothing() {
    let (fake, router) = node();
    let command = "{\"method\":\"publish\",\"params\":{\"channel\":\"news\",\"data\":2}}";
    assert_eq!(post(&router, "/api", format!("{command}\n{command}\n{{")).await.status.as_u16(), 400);
    assert_eq!(post(&router, "/api", "").await.status.as_u16(), 400);
    let max = control::limits::LEGACY_COMMANDS_MAX;
    let too_many = post(&router, "/api", command.repeat(max + 1)).await;
    assert_eq!(code(&too_many.body), 107);
    assert!(fake.log().is_empty());
    post(&router, "/api", command.repeat(max)).await;
    assert_eq!(fake.log().len(), max);
}

#[tokio::test]
async fn health_and_readiness_need_no_key() {
    let (fake, router) = node();
    for path in ["/healthz", "/health"] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{}"));
    }
    assert_eq!(get(&router, "/readyz").await.status.as_u16(), 200);
    fake.ready.store(false, Ordering::SeqCst);
    let answer = get(&router, "/readyz").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, r#"{"ready":false}"#));
    assert_eq!(get(&router, "/healthz").await.status.as_u16(), 200, "draining is not dead");
}

#[tokio::test]
async fn a_publish_into_a_history_is_answered_with_its_place() {
    let (fake, router) = node();
    let epoch = Epoch::from_seed(1);
    let place = json!({"result": {"offset": 9, "epoch": epoch.as_str()}});
    let body =
        r#"{"channel":"kept:1","data":1,"idempotency_key":"k","version":7,"version_epoch":"e","skip_history":true}"#;
    assert_eq!(parse(&call(&router, "publish", body).await), place);
    assert_eq!(call(&router, "publish", r#"{"channel":"chat:1","data":1}"#).await, r#"{"result":{}}"#);
    let broadcast = r#"{"channels":["kept:1","chat:1"],"data":1,"skip_history":false}"#;
    let broadcast = parse(&call(&router, "broadcast", broadcast).await);
    assert_eq!(broadcast["result"]["responses"], json!([place, {"result": {}}]));
    let drafts = fake.published.lock().unwrap();
    let expected = PublishOptions {
        skip_history: true,
        idempotency_key: Some("k".into()),
        version: 7,
        version_epoch: Some("e".into()),
    };
    assert_eq!(drafts[0].options.as_deref(), Some(&expected));
    assert!(drafts[1..].iter().all(|draft| draft.options.is_none()), "what is not asked for costs nothing");
}

#[tokio::test]
async fn history_tells_publications_with_all_they_have() {
    let (fake, router) = node();
    let body = r#"{"channel":"kept:1","limit":3,"since":{"offset":4,"epoch":"abcdefgh"},"reverse":true}"#;
    let answer = parse(&call(&router, "history", body).await);
    let time = 1_700_000_000_000_u64;
    let publications = json!([
        {"data": {"n": 1.0}, "info": {"user": "", "client": "c1"}, "offset": 7, "time": time},
        {"b64data": "/w==", "offset": 8, "time": time},
        {"data": {"n": 1.0}, "offset": 9, "tags": {"k": "v"}, "time": time},
    ]);
    let expected = json!({"publications": publications, "offset": 9, "epoch": Epoch::from_seed(1).as_str()});
    assert_eq!(answer["result"], expected);
    let query = fake.queries.lock().unwrap()[0];
    let since = Since { offset: Offset(4), epoch: SinceEpoch::read("abcdefgh") };
    assert_eq!((query.since, query.reverse, query.publications_max), (Some(since), true, 3));
}

#[tokio::test]
async fn the_limit_of_a_history_is_cut_and_without_one_only_the_position_is_told() {
    let (fake, router) = node();
    let cases =
        [("", 0), (r#","limit":0"#, 0), (r#","limit":5"#, 5), (r#","limit":-1"#, 300), (r#","limit":301"#, 300)];
    for (limit, expected) in cases {
        call(&router, "history", &format!(r#"{{"channel":"kept:1"{limit}}}"#)).await;
        assert_eq!(fake.queries.lock().unwrap().pop().unwrap().publications_max, expected, "{limit}");
    }
}

#[tokio::test]
async fn histories_that_are_not_there_are_refused_and_their_twins_are_not() {
    let (fake, router) = node();
    for method in ["history", "history_remove"] {
        for (expected, body) in [
            (107, r#"{}"#),
            (107, r#"{"channel":""}"#),
            (102, r#"{"channel":"keps:1"}"#),
            (108, r#"{"channel":"chat:1"}"#),
            (0, r#"{"channel":"kept:1"}"#),
        ] {
            assert_eq!(code(&call(&router, method, body).await), expected, "{method} {body}");
        }
    }
    assert_eq!(*fake.removed.lock().unwrap(), ["kept:1"]);
    let since = |epoch: &str| format!(r#"{{"channel":"kept:1","since":{{"offset":1,"epoch":"{epoch}"}}}}"#);
    assert_eq!(code(&call(&router, "history", &since("_")).await), 112);
    assert_eq!(code(&call(&router, "history", &since("")).await), 0);
    let headers = [("x-api-key", KEY), ("x-centrifugo-error-mode", "transport")];
    let transport = post_with(&router, "/api/history", &headers, since("_")).await;
    assert_eq!(transport.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn a_batch_is_answered_command_by_command_in_its_order() {
    let (fake, router) = node();
    let commands = r#"[{"publish":{"channel":"kept:a","data":1}},{"publish":{"channel":"none:a","data":1}},
        {"presence_stats":{"channel":"chat:a"}},{"unsubscribe":{"user":"7","channel":"chat:a"}},{"nothing":{}},
        {"batch":{"commands":[]}},{"publish":[]}]"#;
    for parallel in ["", r#","parallel":true"#] {
        let answer = call(&router, "batch", &format!(r#"{{"commands":{commands}{parallel}}}"#)).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let replies = answer["result"]["replies"].as_array().expect("replies");
        assert_eq!(replies.len(), 7, "{answer}");
        assert!(replies[0]["publish"]["offset"].is_u64(), "{answer}");
        assert_eq!(replies[1]["error"]["code"], 102);
        assert!(replies[2]["presence_stats"]["num_clients"].is_u64(), "{answer}");
        assert_eq!(replies[3], json!({"unsubscribe": {}}));
        let codes: Vec<_> = replies[4..].iter().map(|reply| reply["error"]["code"].as_u64()).collect();
        assert_eq!(codes, [Some(104), Some(104), Some(107)]);
        assert_eq!(fake.acts.lock().unwrap().len(), 1);
        fake.acts.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn a_batch_has_commands_and_not_too_many() {
    let (_, router) = node();
    let of = |count: usize| {
        let one = r#"{"presence_stats":{"channel":"chat:a"}}"#;
        format!(r#"{{"commands":[{}]}}"#, vec![one; count].join(","))
    };
    for (body, wrong) in [("{}".to_owned(), 107), (of(0), 107), (of(1), 0), (of(1000), 0), (of(1001), 107)] {
        assert_eq!(code(&call(&router, "batch", &body).await), wrong, "{}", &body[..body.len().min(60)]);
    }
    for body in [r#"{"commands":[{}]}"#, r#"{"commands":[{"info":{},"channels":{}}]}"#, r#"{"commands":[1]}"#] {
        assert_eq!(post(&router, "/api/batch", body).await.status, 400, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_of_a_batch_follow_each_other_unless_they_are_to_run_side_by_side() {
    let (fake, router) = node();
    let commands = vec![r#"{"publish":{"channel":"later:50","data":1}}"#; 20].join(",");
    for (parallel, at_once) in [(false, 1), (true, 20)] {
        fake.in_flight_max.store(0, Ordering::SeqCst);
        let body = format!(r#"{{"commands":[{commands}],"parallel":{parallel}}}"#);
        assert_eq!(code(&call(&router, "batch", &body).await), 0);
        assert_eq!(fake.in_flight_max.load(Ordering::SeqCst), at_once, "parallel: {parallel}");
    }
}
