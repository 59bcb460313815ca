//! Who may connect and what they may do: Host, Origin, credentials, namespaces. Each refusal beside its allowed twin.

use crate::support::client::{request, upgrade_request};
use crate::support::{Client, Ended, Gateway, Setup, on_every_driver};
use conn::auth::host::HostPolicy;
use conn::auth::origin::OriginPolicy;
use gateway::stats::Number;
use serde_json::{Value, json};

on_every_driver! {
    a_rebinding_host_is_refused_on_every_path: Setup::dev(),
    any_host_is_answered_on_a_public_listener: Setup::dev().with(|s| s.hosts = HostPolicy::Any),
    a_listed_host_is_answered_and_others_are_not: Setup::dev().with(|s| s.hosts = hosts(&["*.push.example"])),
    a_page_of_another_site_is_refused: Setup::dev(),
    a_listed_page_is_let_in: Setup::dev().with(|s| s.origins = origins(&["https://app.example"])),
    a_token_is_refused_because_it_cannot_be_checked: Setup::dev(),
    a_client_without_a_token_needs_permission: Setup::configured().with(|s| s.anonymous = false),
    a_client_without_a_token_that_is_allowed_gets_in: Setup::configured(),
    namespaces_decide_about_subscribing: Setup::configured(),
    namespaces_decide_about_publishing: Setup::configured(),
    a_subscriber_may_publish_where_that_is_allowed: Setup::configured(),
    insecure_allows_every_channel: Setup::dev(),
    subscriptions_are_limited: Setup::dev().with(|s| s.limits.channels_max = 3),
    channel_names_are_limited: Setup::dev(),
    subscribing_twice_is_an_error: Setup::dev(),
    subscriptions_of_other_kinds_are_refused: Setup::dev(),
}

fn hosts(list: &[&str]) -> HostPolicy {
    HostPolicy::OwnAnd(list.iter().map(|host| host.parse().expect("a host")).collect())
}

fn origins(list: &[&str]) -> OriginPolicy {
    OriginPolicy::new(list.iter().map(|origin| origin.parse().expect("an origin")).collect())
}

/// The handshake with another Host, and with an Origin if one is given.
fn handshake(target: &str, host: &str, origin: Option<&str>) -> Vec<u8> {
    let extra: Vec<(&str, &str)> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
    let text = String::from_utf8(upgrade_request(target, None, &extra)).expect("ASCII");
    text.replacen("Host: localhost", &format!("Host: {host}"), 1).into_bytes()
}

const ENDPOINTS: [&str; 3] = ["/echo", "/connection/websocket", "/connection/uni_websocket"];

fn a_rebinding_host_is_refused_on_every_path(gateway: &Gateway) {
    let mut client = gateway.client();
    for target in ["/", "/health", "/readyz", "/nothing", "/connection/websocket"] {
        for host in ["rebind.example", "rebind.example:8000", "localhost.rebind.example", "127.0.0.2"] {
            client.write(request("GET", target).replacen("localhost", host, 1));
            assert_eq!(client.response().status, 403, "{host} {target}");
        }
    }
    for target in ENDPOINTS {
        client.write(handshake(target, "rebind.example", Some("http://rebind.example")));
        assert_eq!(client.response().status, 403, "{target}");
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"] {
            let mut twin = gateway.client();
            twin.write(handshake(target, host, Some(&format!("http://{host}"))));
            twin.await_upgrade(None);
        }
    }
    client.write(request("GET", "/health"));
    assert_eq!(client.response().status, 200);
    // An absolute-form target overrides Host, so it is what counts.
    client.write("GET http://rebind.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 403);
    client.write("GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

fn any_host_is_answered_on_a_public_listener(gateway: &Gateway) {
    for target in ENDPOINTS {
        let mut client = gateway.client();
        client.write(handshake(target, "push.example", Some("https://push.example")));
        client.await_upgrade(None);
    }
}

fn a_listed_host_is_answered_and_others_are_not(gateway: &Gateway) {
    for target in ENDPOINTS {
        for host in ["eu.push.example", "eu.push.example:8443", "localhost:8000"] {
            let mut client = gateway.client();
            client.write(handshake(target, host, Some(&format!("https://{host}"))));
            client.await_upgrade(None);
        }
        for host in ["push.example", "eu.push.example.evil.example", "evil.example:8443"] {
            let mut client = gateway.client();
            client.write(handshake(target, host, Some(&format!("https://{host}"))));
            assert_eq!(client.response().status, 403, "{host} {target}");
        }
    }
}

fn a_page_of_another_site_is_refused(gateway: &Gateway) {
    let foreign = [
        "http://evil.example",
        "http://localhost:8001",
        "http://localhost.evil.example",
        "null",
        "file://",
        "localhost",
    ];
    for target in ENDPOINTS {
        let mut client = gateway.client();
        for origin in foreign {
            client.write(handshake(target, "localhost", Some(origin)));
            assert_eq!(client.response().status, 403, "{origin} {target}");
        }
        // The connection stays usable, for a request of a program without Origin.
        client.write(handshake(target, "localhost", None));
        client.await_upgrade(None);
        let mut twin = gateway.client();
        twin.write(handshake(target, "localhost", Some("http://localhost")));
        twin.await_upgrade(None);
    }
    gateway.until("refusals are counted", || gateway.sum(Number::OriginsRefused) == 3 * foreign.len() as u64);
}

fn a_listed_page_is_let_in(gateway: &Gateway) {
    for target in ENDPOINTS {
        let mut client = gateway.client();
        for origin in ["https://app.example.org", "http://app.example", "https://an.app.example"] {
            client.write(handshake(target, "localhost", Some(origin)));
            assert_eq!(client.response().status, 403, "{origin} {target}");
        }
        client.write(handshake(target, "localhost", Some("https://app.example")));
        client.await_upgrade(None);
    }
}

fn a_token_is_refused_because_it_cannot_be_checked(gateway: &Gateway) {
    let mut client = gateway.websocket("/connection/websocket");
    client.send(&json!({"id": 1, "connect": {"token": "t"}}));
    client.expect_close(3500, "invalid token");
    let mut twin = gateway.websocket("/connection/websocket");
    assert!(twin.call(json!({"id": 1, "connect": {"token": ""}}))["connect"]["client"].is_string());
    // A subscription token grants nothing either.
    let reply = twin.call(json!({"id": 2, "subscribe": {"channel": "a", "token": "t"}}));
    assert_eq!(reply["error"]["code"], 103);
    twin.subscribe(3, "a");

    let mut plain = gateway.websocket("/connection/uni_websocket?cf_connect=%7B%22token%22:%22t%22%7D");
    assert_eq!(plain.json(), json!({"disconnect": {"code": 3500, "reason": "invalid token"}}));
    plain.expect_close(3500, "invalid token");
}

fn a_client_without_a_token_needs_permission(gateway: &Gateway) {
    let mut client = gateway.websocket("/connection/websocket");
    client.send(&json!({"id": 1, "connect": {}}));
    client.expect_close(3501, "bad request");
    let mut plain = gateway.websocket("/connection/uni_websocket?channels=open:a");
    assert_eq!(plain.json()["disconnect"]["code"], 3501);
    plain.expect_close(3501, "bad request");
    // Of the commands behind a connect that failed none is run.
    let mut pipelined = gateway.websocket("/connection/websocket");
    pipelined.send_text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"open:a\"}}");
    pipelined.expect_close(3501, "bad request");
}

fn a_client_without_a_token_that_is_allowed_gets_in(gateway: &Gateway) {
    gateway.subscriber("open:a");
    gateway.plain("channels=open:a");
}

fn code_of(client: &mut Client, command: Value) -> u64 {
    client.call(command)["error"]["code"].as_u64().unwrap_or(0)
}

fn namespaces_decide_about_subscribing(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let table = [
        ("open:a", 0),
        ("read:a", 0),
        ("talk:a", 0),
        ("open:", 0),
        ("open:a:b", 0),
        ("users:a", 103),
        ("closed", 103),
        ("op", 103),
        ("opem:a", 102),
        ("Open:a", 102),
        (":a", 102),
        ("$open:a", 103),
        ("$opem:a", 102),
        ("o$pen:a", 102),
    ];
    for (id, (channel, code)) in (2..).zip(table) {
        let answered = code_of(&mut client, json!({"id": id, "subscribe": {"channel": channel}}));
        assert_eq!(answered, code, "{channel}");
    }
}

fn namespaces_decide_about_publishing(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let table = [("open:a", 0), ("read:a", 103), ("talk:a", 103), ("users:a", 103), ("closed", 103), ("opem:a", 102)];
    for (id, (channel, code)) in (2..).zip(table) {
        let answered = code_of(&mut client, json!({"id": id, "publish": {"channel": channel, "data": 1}}));
        assert_eq!(answered, code, "{channel}");
    }
    // Without data there is nothing to publish; null is data.
    assert_eq!(code_of(&mut client, json!({"id": 20, "publish": {"channel": "open:a"}})), 107);
    assert_eq!(code_of(&mut client, json!({"id": 21, "publish": {"channel": "open:a", "data": null}})), 0);
}

fn a_subscriber_may_publish_where_that_is_allowed(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let publish = |id: u32, channel: &str| json!({"id": id, "publish": {"channel": channel, "data": 1}});
    assert_eq!(code_of(&mut client, publish(2, "talk:a")), 103);
    client.subscribe(3, "talk:a");
    // The reply and the own publication come in either order.
    client.send(&publish(4, "talk:a"));
    let both = [client.json(), client.json()];
    assert!(both.contains(&json!({"id": 4, "publish": {}})), "{both:?}");
    assert_eq!(code_of(&mut client, publish(5, "talk:b")), 103, "subscribed to another one");
    client.unsubscribe(6, "talk:a");
    assert_eq!(code_of(&mut client, publish(7, "talk:a")), 103, "not any more");
}

fn insecure_allows_every_channel(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    for (id, channel) in (2..).zip(["plain", "any:thing", "$private", "$any:private", "#77", ":"]) {
        client.subscribe(id, channel);
    }
}

fn subscriptions_are_limited(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    // In one message: pending ones count, too.
    let commands: Vec<String> =
        (2..6).map(|id| json!({"id": id, "subscribe": {"channel": format!("c{id}")}}).to_string()).collect();
    client.send_text(&commands.join("\n"));
    let mut replies: Vec<Value> = (2..6).map(|_| client.json()).collect();
    replies.sort_by_key(|reply| reply["id"].as_u64());
    let error = json!({"code": 106, "message": "limit exceeded"});
    let expected =
        [json!({"id": 2, "subscribe": {}}), json!({"id": 3, "subscribe": {}}), json!({"id": 4, "subscribe": {}})];
    assert_eq!(replies[..3], expected);
    assert_eq!(replies[3], json!({"id": 5, "error": error}));
    // One that goes makes room for another.
    client.unsubscribe(6, "c2");
    client.subscribe(7, "c5");
    // The plain dialect wants all of its channels or none.
    let mut plain = gateway.websocket("/connection/uni_websocket?channels=a,b,c,d");
    assert_eq!(plain.json()["disconnect"]["code"], 3505);
    plain.expect_close(3505, "channel limit");
    gateway.plain("channels=a,b,c");
}

fn channel_names_are_limited(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let longest = "c".repeat(255);
    client.subscribe(2, &longest);
    assert_eq!(code_of(&mut client, json!({"id": 3, "subscribe": {"channel": format!("{longest}c")}})), 107);
    assert_eq!(code_of(&mut client, json!({"id": 4, "publish": {"channel": format!("{longest}c"), "data": 1}})), 107);
    client.subscribe(5, "a");
    assert_eq!(code_of(&mut client, json!({"id": 6, "subscribe": {"channel": "ä"}})), 107);
}

fn subscribing_twice_is_an_error(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let subscribe = |id: u32| json!({"id": id, "subscribe": {"channel": "a"}});
    // Both while the first is pending and when it is settled.
    client.send_text(&format!("{}\n{}", subscribe(2), subscribe(3)));
    let mut replies = [client.json(), client.json()];
    replies.sort_by_key(|reply| reply["id"].as_u64());
    assert_eq!(replies[0], json!({"id": 2, "subscribe": {}}));
    assert_eq!(replies[1], json!({"id": 3, "error": {"code": 105, "message": "already subscribed"}}));
    assert_eq!(code_of(&mut client, subscribe(4)), 105);
    client.unsubscribe(5, "a");
    client.subscribe(6, "a");
}

fn subscriptions_of_other_kinds_are_refused(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    for (id, (extra, code)) in
        (2..).zip([(json!({"type": 1}), 103), (json!({"type": 4}), 108), (json!({"tf": {}}), 108)])
    {
        let mut subscribe = json!({"channel": "a"});
        subscribe.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        assert_eq!(code_of(&mut client, json!({"id": id, "subscribe": subscribe})), code, "{extra}");
    }
    assert_eq!(
        code_of(&mut client, json!({"id": 9, "subscribe": {"channel": "a", "type": 0, "recoverable": true}})),
        0
    );
    client.shutdown_write();
    assert_eq!(client.end(), Ended::Fin);
}
