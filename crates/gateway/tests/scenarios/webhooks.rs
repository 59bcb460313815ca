//! What connections ask their backend, and what becomes of its answers.

use crate::support::client::{push, upgrade_request};
use crate::support::token::token;
use crate::support::{Client, Gateway, Seen, Setup, in_every_format, on_every_driver, on_the_simulator};
use conn::Given;
use conn::auth::token::{Changed, ServerSide};
use conn::webhook::Event;
use gateway::letter::{Action, Matching};
use hub::Channel;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

in_every_format! {
    a_backend_says_who_connects: Setup::with_webhooks(),
    a_backend_that_refuses_a_client_is_obeyed: Setup::with_webhooks(),
    a_backend_says_who_subscribes: Setup::with_webhooks().workers(2),
    a_backend_says_what_is_published: Setup::with_webhooks().workers(2),
    a_backend_is_called: Setup::with_webhooks(),
    a_backend_says_who_stays: Setup::with_webhooks(),
    a_backend_says_who_stays_subscribed: Setup::with_webhooks(),
}

on_every_driver! {
    a_token_needs_no_question: Setup::with_webhooks(),
    nobody_in_particular_is_let_in_where_such_are: Setup::with_webhooks().with(|s| s.anonymous = true),
    a_plain_client_gets_what_the_backend_gives: Setup::with_webhooks(),
    a_handshake_is_passed_on_as_far_as_that_is_wanted: Setup::with_webhooks(),
    who_leaves_before_the_answer_leaves_nothing: Setup::with_webhooks().workers(2),
    what_only_names_decide_is_not_asked: Setup::with_webhooks(),
    a_gateway_that_allows_everything_asks_all_the_same: Setup::with_webhooks().with(|s| s.insecure = true),
}

on_the_simulator! {
    what_a_client_sends_is_done_in_that_order: Setup::with_webhooks(),
    questions_beyond_the_room_for_them_are_refused: Setup::with_webhooks().mailbox(64, 16),
    a_channel_given_or_taken_meanwhile_counts: Setup::with_webhooks(),
    a_connection_outlives_a_backend_that_says_nothing: Setup::with_webhooks().with(no_pings),
}

fn no_pings(settings: &mut conn::Settings) {
    settings.times.ping_interval = Duration::from_secs(3600);
}

/// A client whom the backend has let in as that user, with more to the result.
fn user_with(gateway: &Gateway, name: &str, more: &Value) -> (Client, Value) {
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {}}));
    let (asked, _) = gateway.asked(Event::Connect);
    let mut result = json!({"user": name});
    result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.backend_says(&asked, &json!({ "result": result }));
    let mut reply = client.json();
    client.name = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
    (client, reply["connect"].take())
}

fn user(gateway: &Gateway, name: &str) -> Client {
    user_with(gateway, name, &json!({})).0
}

/// One that is subscribed to a channel about which the backend was asked.
fn subscriber(gateway: &Gateway, name: &str, channel: &str) -> Client {
    let mut client = user(gateway, name);
    client.send(&json!({"id": 2, "subscribe": {"channel": channel}}));
    let (asked, _) = gateway.asked(Event::Subscribe);
    gateway.backend_says(&asked, &json!({"result": {}}));
    assert_eq!(client.json(), json!({"id": 2, "subscribe": {}}));
    client
}

fn internal(id: u32) -> Value {
    json!({"id": id, "error": {"code": 100, "message": "internal server error", "temporary": true}})
}

fn a_backend_says_who_connects(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    let connect = json!({"data": {"v": 2}, "name": "page", "version": "7", "subs": {"open:old": {}}});
    client.send(&json!({"id": 1, "connect": connect}));
    let (asked, about) = gateway.asked(Event::Connect);
    assert_eq!(about, json!({"data": {"v": 2}, "name": "page", "version": "7"}));
    let protocol = if gateway.format() == crate::support::client::Format::Json { "json" } else { "protobuf" };
    assert_eq!((&asked.body["transport"], &asked.body["protocol"]), (&json!("websocket"), &json!(protocol)));
    let subs = json!({"open:a": {"data": [1]}, "asked:b": {"info": "i"}});
    let result = json!({"user": "42", "info": {"name": "Ada"}, "data": {"motd": "hello"}, "subs": subs});
    gateway.backend_says(&asked, &json!({ "result": result }));
    let reply = client.json();
    let told = &reply["connect"];
    assert_eq!((&told["client"], &told["data"]), (&asked.body["client"], &json!({"motd": "hello"})), "{reply}");
    assert_eq!(told["subs"], json!({"open:a": {"data": [1]}, "asked:b": {}}));
    assert!(told.get("expires").is_none(), "{reply}");

    let mut other = user(gateway, "7");
    other.subscribe(2, "open:a");
    let presence = other.call(json!({"id": 3, "presence": {"channel": "open:a"}}));
    let name = told["client"].as_str().expect("a client id");
    let info = &presence["presence"]["presence"][name];
    assert_eq!((&info["user"], &info["conn_info"]), (&json!("42"), &json!({"name": "Ada"})));
    // It is subscribed like others, so it may publish, and everybody sees who it is.
    client.send(&json!({"id": 2, "publish": {"channel": "open:a", "data": 1}}));
    assert_eq!(other.json()["push"]["pub"]["info"]["user"], json!("42"));
}

fn a_backend_that_refuses_a_client_is_obeyed(gateway: &Gateway) {
    let error = json!({"code": 403, "message": "not \"you\"", "temporary": true});
    for (answer, told) in [
        (json!({"error": error}), json!({"id": 1, "error": error})),
        (json!({"error": {"code": 400}}), json!({"id": 1, "error": {"code": 400, "message": ""}})),
        (
            json!({"result": {"user": "42", "subs": {"none:a": {}}}}),
            json!({"id": 1, "error": {"code": 102, "message": "unknown channel"}}),
        ),
        (
            json!({"result": {"user": "42", "expire_at": 1}}),
            json!({"id": 1, "error": {"code": 110, "message": "expired"}}),
        ),
        (Value::Null, internal(1)),
    ] {
        let mut client = gateway.unconnected();
        client.send(&json!({"id": 1, "connect": {}}));
        let (asked, _) = gateway.asked(Event::Connect);
        if answer.is_null() {
            gateway.backend_says_nothing(&asked)
        } else {
            gateway.backend_says(&asked, &answer)
        }
        let mut seen = client.json();
        // Empty texts have no bytes in Protobuf.
        if seen["error"].get("message").is_none() {
            seen["error"]["message"] = json!("");
        }
        assert_eq!(seen, told, "{answer}");
        client.send(&json!({"id": 2, "connect": {}}));
        client.expect_close(3501, "bad request");
    }
    for (answer, code, reason) in [
        (json!({"disconnect": {"code": 4001, "reason": "go away"}}), 4001, "go away"),
        (json!({}), 3501, "bad request"),
    ] {
        let mut client = gateway.unconnected();
        client.send(&json!({"id": 1, "connect": {}}));
        let (asked, _) = gateway.asked(Event::Connect);
        gateway.backend_says(&asked, &answer);
        client.expect_close(code, reason);
    }
}

fn a_token_needs_no_question(gateway: &Gateway) {
    let mut client = gateway.user("42");
    assert!(client.call(json!({"id": 2, "subscribe": {"channel": "open:a"}}))["subscribe"].is_object());
    gateway.expect_no_question();
}

fn nobody_in_particular_is_let_in_where_such_are(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {}}));
    let (asked, _) = gateway.asked(Event::Connect);
    gateway.backend_says(&asked, &json!({}));
    assert!(client.json()["connect"]["client"].is_string());
    client.send(&json!({"id": 2, "rpc": {"method": "who"}}));
    let (asked, about) = gateway.asked(Event::Rpc);
    assert_eq!(about, json!({"user": "", "method": "who"}));
    gateway.backend_says(&asked, &json!({"result": {}}));
    assert_eq!(client.json(), json!({"id": 2, "rpc": {}}));
}

fn a_plain_client_gets_what_the_backend_gives(gateway: &Gateway) {
    let mut client = gateway.websocket("/connection/uni_websocket?channels=open:a,open:b");
    let (asked, about) = gateway.asked(Event::Connect);
    assert_eq!((about, &asked.body["transport"]), (json!({"channels": ["open:a", "open:b"]}), &json!("uni_websocket")));
    // What it says meanwhile is not heard, as ever.
    client.send(&json!({"id": 2, "rpc": {}}));
    gateway.backend_says(&asked, &json!({"result": {"user": "42", "channels": ["open:a"], "data": 1}}));
    let told = client.json();
    assert_eq!((&told["connect"]["subs"], &told["connect"]["data"]), (&json!({"open:a": {}}), &json!(1)), "{told}");
    gateway.publish("open:b", &json!(1)).expect("published");
    gateway.publish("open:a", &json!(2)).expect("published");
    assert_eq!(client.json()["pub"]["data"], json!(2));

    for (answer, code) in [
        (json!({"error": {"code": 403}}), 3507),
        (json!({"error": {"code": 503, "temporary": true}}), 3004),
        (json!({"disconnect": {"code": 4999, "reason": "no"}}), 4999),
    ] {
        let mut client = gateway.websocket("/connection/uni_websocket");
        client.send(&json!({"data": {"k": 1}}));
        let (asked, about) = gateway.asked(Event::Connect);
        assert_eq!(about, json!({"data": {"k": 1}}));
        gateway.backend_says(&asked, &answer);
        assert_eq!(client.json()["disconnect"]["code"], json!(code));
        assert!(matches!(client.next(), Seen::Close(Some(seen), _) if seen == code));
    }
}

fn a_handshake_is_passed_on_as_far_as_that_is_wanted(gateway: &Gateway) {
    let mut client = gateway.client();
    let headers = [("Cookie", "a=1"), ("X-Secret", "s"), ("COOKIE", "b=2"), ("X-Tenant", "t")];
    client.write(upgrade_request("/connection/websocket", None, &headers));
    client.await_upgrade(None);
    let emulated = json!({"X-Tenant": "made up", "x-page": "p", "cookie": "c=3"});
    client.send(&json!({"id": 1, "connect": {"headers": emulated}}));
    let (asked, _) = gateway.asked(Event::Connect);
    let passed_on = |asked: &crate::support::Asked| {
        let headers = asked.ask.question.headers.as_deref().unwrap_or_default();
        headers.iter().map(|(name, value)| format!("{name}: {}", **value)).collect::<Vec<_>>()
    };
    let expected = ["cookie: a=1; b=2", "x-tenant: t", "x-page: p"];
    assert_eq!(passed_on(&asked), expected);
    gateway.backend_says(&asked, &json!({"result": {"user": "42", "meta": {"shard": 3}}}));
    client.json();
    client.send(&json!({"id": 2, "rpc": {}}));
    let (asked, about) = gateway.asked(Event::Rpc);
    assert_eq!((passed_on(&asked), &about["meta"]), (expected.map(str::to_owned).to_vec(), &json!({"shard": 3})));
    gateway.backend_says(&asked, &json!({"result": {}}));
    client.json();
}

fn a_backend_says_who_subscribes(gateway: &Gateway) {
    for worker in 0..2 {
        let channel = gateway.channel_in("asked:", worker);
        let mut client = user(gateway, "42");
        client.send(&json!({"id": 2, "subscribe": {"channel": channel, "data": {"k": "v"}}}));
        let (asked, about) = gateway.asked(Event::Subscribe);
        assert_eq!(about, json!({"user": "42", "channel": channel, "data": {"k": "v"}}));
        gateway.backend_says(&asked, &json!({"result": {"data": [7], "info": {"seat": 1}}}));
        assert_eq!(client.json(), json!({"id": 2, "subscribe": {"data": [7]}}));
        gateway.publish(&channel, &json!(1)).expect("published");
        assert_eq!(client.json(), push(&channel, &json!(1)));
        // Once it has it, nobody is asked.
        let twice = client.call(json!({"id": 3, "subscribe": {"channel": channel}}));
        assert_eq!(twice["error"]["code"], json!(105));
        gateway.expect_no_question();
    }
    let mut client = user(gateway, "42");
    for (id, answer, told) in [
        (
            2,
            json!({"error": {"code": 403, "message": "not a member"}}),
            json!({"id": 2, "error": {"code": 403, "message": "not a member"}}),
        ),
        (3, json!({"result": {"expire_at": 5}}), json!({"id": 3, "error": {"code": 110, "message": "expired"}})),
        (4, Value::Null, internal(4)),
    ] {
        client.send(&json!({"id": id, "subscribe": {"channel": "asked:c"}}));
        let (asked, _) = gateway.asked(Event::Subscribe);
        if answer.is_null() {
            gateway.backend_says_nothing(&asked)
        } else {
            gateway.backend_says(&asked, &answer)
        }
        assert_eq!(client.json(), told);
    }
    client.expect_silence(5);
    client.send(&json!({"id": 6, "subscribe": {"channel": "asked:c"}}));
    let (asked, _) = gateway.asked(Event::Subscribe);
    gateway.backend_says(&asked, &json!({"disconnect": {"code": 4444, "reason": "enough"}}));
    client.expect_close(4444, "enough");
}

fn what_only_names_decide_is_not_asked(gateway: &Gateway) {
    let mut client = user(gateway, "42");
    client.subscribe(2, "asked:a#42,7");
    for (id, channel) in [(3, "asked:a#7"), (4, "$asked:a")] {
        let refused = client.call(json!({"id": id, "subscribe": {"channel": channel}}));
        assert_eq!(refused["error"]["code"], json!(103), "{channel}");
    }
    let claims = json!({"sub": "42", "channel": "asked:b"});
    let with_token = client.call(json!({"id": 5, "subscribe": {"channel": "asked:b", "token": token(&claims)}}));
    assert_eq!(with_token, json!({"id": 5, "subscribe": {}}));
    gateway.expect_no_question();
}

fn a_gateway_that_allows_everything_asks_all_the_same(gateway: &Gateway) {
    let mut client = subscriber(gateway, "42", "asked:a");
    client.send(&json!({"id": 3, "publish": {"channel": "asked:a", "data": 1}}));
    let (asked, _) = gateway.asked(Event::Publish);
    gateway.backend_says(&asked, &json!({"error": {"code": 403, "message": "no"}}));
    assert_eq!(client.json()["error"]["code"], json!(403));
    client.subscribe(4, "other:a");
    gateway.expect_no_question();
}

fn a_backend_says_what_is_published(gateway: &Gateway) {
    let channel = gateway.channel_in("asked:", 1);
    let mut reader = subscriber(gateway, "7", &channel);
    let mut client = user(gateway, "42");
    for (id, answer, seen) in [
        (2, json!({}), Some(json!({"text": "hi"}))),
        (3, json!({"data": {"text": "*"}, "tags": {"by": "censor"}}), Some(json!({"text": "*"}))),
    ] {
        client.send(&json!({"id": id, "publish": {"channel": channel, "data": {"text": "hi"}}}));
        let (asked, about) = gateway.asked(Event::Publish);
        assert_eq!(about, json!({"user": "42", "channel": channel, "data": {"text": "hi"}}));
        gateway.backend_says(&asked, &json!({ "result": answer }));
        assert_eq!(client.json(), json!({"id": id, "publish": {}}));
        let got = reader.json()["push"]["pub"].take();
        assert_eq!((&got["data"], &got["info"]["user"]), (&seen.unwrap(), &json!("42")));
        assert_eq!(got.get("tags"), answer.get("tags"));
    }
    client.send(&json!({"id": 4, "publish": {"channel": channel, "data": 1}}));
    let (asked, _) = gateway.asked(Event::Publish);
    gateway.backend_says(&asked, &json!({"error": {"code": 429, "message": "slowly"}}));
    assert_eq!(client.json(), json!({"id": 4, "error": {"code": 429, "message": "slowly"}}));
    client.send(&json!({"id": 5, "publish": {"channel": channel, "data": 1}}));
    let (asked, _) = gateway.asked(Event::Publish);
    gateway.backend_says_nothing(&asked);
    assert_eq!(client.json(), internal(5));
    reader.expect_silence(6);
}

fn a_backend_is_called(gateway: &Gateway) {
    let mut client = user(gateway, "42");
    client.send(&json!({"id": 2, "rpc": {"method": "add", "data": [1, 2]}}));
    let (asked, about) = gateway.asked(Event::Rpc);
    assert_eq!(about, json!({"user": "42", "method": "add", "data": [1, 2]}));
    gateway.backend_says(&asked, &json!({"result": {"data": 3}}));
    assert_eq!(client.json(), json!({"id": 2, "rpc": {"data": 3}}));
    client.send(&json!({"id": 3, "rpc": {"method": "add"}}));
    let (asked, _) = gateway.asked(Event::Rpc);
    gateway.backend_says(&asked, &json!({"error": {"code": 1999, "message": "what?"}}));
    assert_eq!(client.json(), json!({"id": 3, "error": {"code": 1999, "message": "what?"}}));
}

/// The backend lets a client in for some seconds, and is asked when they are over.
fn a_backend_says_who_stays(gateway: &Gateway) {
    let soon = |gateway: &Gateway| gateway.unix() + 3;
    let (mut client, told) = user_with(gateway, "42", &json!({"expire_at": soon(gateway), "meta": 1}));
    assert!(told.get("expires").is_none() && told.get("ttl").is_none(), "it is not the client's to refresh: {told}");
    client.subscribe(2, "open:a");
    let (asked, about) = gateway.asked(Event::Refresh);
    assert_eq!(about, json!({"user": "42", "meta": 1}));
    client.expect_silence(3);
    let again = json!({"expire_at": soon(gateway), "info": {"n": 2}, "meta": 2});
    gateway.backend_says(&asked, &json!({ "result": again }));
    let (asked, about) = gateway.asked(Event::Refresh);
    assert_eq!(about, json!({"user": "42", "meta": 2}));
    let info = client.call(json!({"id": 4, "presence_stats": {"channel": "open:a"}}));
    assert_eq!(info["presence_stats"]["num_clients"], json!(1));
    gateway.backend_says(&asked, &json!({"result": {"expired": true}}));
    client.expect_close(3005, "connection expired");

    // Nothing at all is no as well; what the backend wants to say itself is said.
    for (answer, code, reason) in [
        (json!({}), 3005, "connection expired"),
        (json!({"disconnect": {"code": 4000, "reason": "paid?"}}), 4000, "paid?"),
    ] {
        let (mut client, _) = user_with(gateway, "42", &json!({"expire_at": soon(gateway)}));
        let (asked, _) = gateway.asked(Event::Refresh);
        gateway.backend_says(&asked, &answer);
        client.expect_close(code, reason);
    }
}

fn a_backend_says_who_stays_subscribed(gateway: &Gateway) {
    let mut client = user(gateway, "42");
    client.send(&json!({"id": 2, "subscribe": {"channel": "asked:a"}}));
    let (asked, _) = gateway.asked(Event::Subscribe);
    gateway.backend_says(&asked, &json!({"result": {"expire_at": gateway.unix() + 3}}));
    assert_eq!(client.json(), json!({"id": 2, "subscribe": {}}), "it is not the client's to refresh");
    let (asked, about) = gateway.asked(Event::SubRefresh);
    assert_eq!(about, json!({"user": "42", "channel": "asked:a"}));
    gateway.backend_says(&asked, &json!({"result": {"expire_at": gateway.unix() + 3}}));
    let (asked, _) = gateway.asked(Event::SubRefresh);
    gateway.publish("asked:a", &json!(1)).expect("published");
    assert_eq!(client.json(), push("asked:a", &json!(1)));
    gateway.backend_says(&asked, &json!({"result": {"expired": true}}));
    let ended = json!({"code": 2501, "reason": "subscription expired"});
    assert_eq!(client.json(), json!({"push": {"channel": "asked:a", "unsubscribe": ended}}));
    client.expect_silence(4);
}

fn a_connection_outlives_a_backend_that_says_nothing(gateway: &Gateway) {
    let (mut client, _) = user_with(gateway, "42", &json!({"expire_at": gateway.unix() + 3}));
    for id in 2..5 {
        let (asked, _) = gateway.asked(Event::Refresh);
        client.expect_silence(id);
        gateway.backend_says_nothing(&asked);
        // It is asked again a minute later.
        gateway.pass(Duration::from_secs(58));
        gateway.expect_no_question();
    }
    // An answer that comes after the next question is nobody's.
    let (late, _) = gateway.asked(Event::Refresh);
    gateway.pass(Duration::from_secs(62));
    gateway.backend_says(&late, &json!({"result": {"expired": true}}));
    client.expect_silence(6);
}

fn who_leaves_before_the_answer_leaves_nothing(gateway: &Gateway) {
    let client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {}}));
    let (asked, _) = gateway.asked(Event::Connect);
    client.reset();
    gateway.until("the connection is gone", || gateway.sum(gateway::stats::Number::Connections) == 0);
    gateway.backend_says(&asked, &json!({"result": {"user": "42", "channels": ["open:a"]}}));
    let mut other = user(gateway, "7");
    other.subscribe(2, "open:a");
    let stats = other.call(json!({"id": 3, "presence_stats": {"channel": "open:a"}}));
    assert_eq!(stats["presence_stats"], json!({"num_clients": 1, "num_users": 1}));
}

fn what_a_client_sends_is_done_in_that_order(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    client.send_text(&format!(
        "{}\n{}\n{}\n{}\n{}",
        json!({"id": 1, "connect": {}}),
        json!({"id": 2, "subscribe": {"channel": "asked:a"}}),
        json!({"id": 3, "publish": {"channel": "asked:a", "data": 1}}),
        json!({"id": 4, "publish": {"channel": "asked:a", "data": 2}}),
        json!({"id": 5, "unsubscribe": {"channel": "asked:a"}}),
    ));
    let say = |event, result: Value| {
        gateway.pass(Duration::from_secs(1));
        let (asked, about) = gateway.asked(event);
        gateway.pass(Duration::from_secs(1));
        gateway.expect_no_question();
        gateway.backend_says(&asked, &json!({ "result": result }));
        about
    };
    say(Event::Connect, json!({"user": "42"}));
    say(Event::Subscribe, json!({}));
    assert_eq!(say(Event::Publish, json!({}))["data"], json!(1));
    assert_eq!(say(Event::Publish, json!({}))["data"], json!(2));
    assert!(client.json()["connect"].is_object());
    let (mut replies, mut data) = (Vec::new(), Vec::new());
    while replies.len() < 4 {
        let message = client.json();
        replies.extend(message["id"].as_u64());
        data.extend(message["push"]["pub"]["data"].as_u64());
    }
    // Who leaves does not wait for what it has published last.
    replies.sort_unstable();
    assert_eq!((replies, &data[..]), (vec![2, 3, 4, 5], &[1, 2][..data.len()]));
}

fn questions_beyond_the_room_for_them_are_refused(gateway: &Gateway) {
    let mut clients: Vec<_> = (0..20).map(|i| user(gateway, &i.to_string())).collect();
    for client in &clients {
        client.send(&json!({"id": 2, "rpc": {"method": "slow"}}));
    }
    let asked: Vec<_> = (0..16).map(|_| gateway.asked(Event::Rpc).0).collect();
    gateway.pass(Duration::from_secs(1));
    gateway.expect_no_question();
    asked.iter().for_each(|asked| gateway.backend_says(asked, &json!({"result": {}})));
    let mut replies: Vec<_> = clients.iter_mut().map(|client| client.json()).collect();
    replies.sort_by_key(|reply| reply.get("error").is_some());
    assert_eq!((&replies[15], &replies[16]), (&json!({"id": 2, "rpc": {}}), &internal(2)), "{replies:?}");
    // There is room again.
    clients[0].send(&json!({"id": 3, "rpc": {}}));
    let (asked, _) = gateway.asked(Event::Rpc);
    gateway.backend_says(&asked, &json!({"result": {}}));
    assert_eq!(clients[0].json(), json!({"id": 3, "rpc": {}}));
}

fn a_channel_given_or_taken_meanwhile_counts(gateway: &Gateway) {
    let mut client = user(gateway, "42");
    let matching = Matching { user: Some("42".into()), ..Matching::default() };
    let to = ServerSide { channel: "asked:a".into(), info: None, data: None, changed: Changed::default() };
    client.send(&json!({"id": 2, "subscribe": {"channel": "asked:a"}}));
    let (asked, _) = gateway.asked(Event::Subscribe);
    assert_eq!(gateway.act(&matching, &Action::Subscribe(Arc::new(Given { to, until: None, since: None }))), 1);
    assert_eq!(client.json()["push"]["subscribe"], json!({}));
    gateway.backend_says(&asked, &json!({"result": {}}));
    assert_eq!(client.json(), json!({"id": 2, "error": {"code": 105, "message": "already subscribed"}}));

    client.send_text(&format!(
        "{}\n{}",
        json!({"id": 3, "subscribe": {"channel": "asked:b"}}),
        json!({"id": 4, "unsubscribe": {"channel": "asked:a"}}),
    ));
    let (asked, _) = gateway.asked(Event::Subscribe);
    assert_eq!(gateway.act(&matching, &Action::Unsubscribe(Channel::new("asked:b"))), 1);
    assert_eq!(client.json(), json!({"id": 3, "error": {"code": 103, "message": "permission denied"}}));
    assert_eq!(client.json(), json!({"id": 4, "unsubscribe": {}}), "what waited goes on");
    gateway.backend_says(&asked, &json!({"result": {}}));
    gateway.publish("asked:b", &json!(1)).expect("published");
    client.expect_silence(5);
}
