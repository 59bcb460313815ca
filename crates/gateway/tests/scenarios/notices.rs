//! What a backend is told without having asked: who comes and goes, and which channels have subscribers.

use crate::support::client::close_frame;
use crate::support::{Client, Gateway, Setup, in_every_format, on_every_driver, on_the_simulator};
use conn::Disconnect;
use gateway::letter::Matching;
use gateway::stats::Number;
use serde_json::{Value, json};
use std::time::Duration;

in_every_format! {
    a_backend_is_told_who_comes_and_goes: Setup::with_notices(),
    a_backend_is_told_of_first_and_last_subscribers: Setup::with_notices().with(no_client_notices).workers(2),
}

on_every_driver! {
    who_does_not_get_in_is_nobody: Setup::with_notices().with(|s| s.anonymous = false),
    what_was_not_asked_for_is_not_told: Setup::with_notices().with(no_client_notices),
}

on_the_simulator! {
    notices_wait_for_room: Setup::with_notices().mailbox(16, 16),
}

fn no_client_notices(settings: &mut conn::Settings) {
    settings.client_notices = false;
}

fn gone(client: &Client, user: &str, code: u16, reason: &str) -> Value {
    json!({"type": "disconnected", "client": client.name, "user": user, "code": code, "reason": reason})
}

fn a_backend_is_told_who_comes_and_goes(gateway: &Gateway) {
    let protocol = if gateway.format() == crate::support::client::Format::Json { "json" } else { "protobuf" };
    let come = |client: &Client, user: &str, transport: &str, protocol: &str| json!({"type": "connected", "client": client.name, "user": user, "transport": transport, "protocol": protocol});
    let mut user = gateway.user("42");
    assert_eq!(gateway.notices(1), [come(&user, "42", "websocket", protocol)]);
    let nobody = gateway.centrifugo();
    assert_eq!(gateway.notices(1), [come(&nobody, "", "websocket", protocol)]);
    let plain = gateway.plain("channels=quiet:a");
    assert_eq!(gateway.notices(1), [come(&plain, "", "uni_websocket", "json")]);
    user.write(close_frame(Some(1000), "bye"));
    assert_eq!(gateway.notices(1), [gone(&user, "42", 1000, "bye")]);
    nobody.reset();
    assert_eq!(gateway.notices(1), [gone(&nobody, "", 1006, "")]);
    let kicked = gateway.user("7");
    gateway.notices(1);
    let matching = Matching { client: Some(kicked.name.clone()), ..Matching::default() };
    kicked.set_reading(true);
    // The act is answered by a letter, in front of the notice.
    assert_eq!(gateway.disconnect(&matching, &Disconnect { code: 4001, reason: "go".into() }), 1);
    kicked.write(close_frame(Some(4001), ""));
    assert_eq!(gateway.notices(1), [gone(&kicked, "7", 4001, "go")]);
    while user.next() != crate::support::Seen::End(crate::support::Ended::Fin) {}
}

fn who_does_not_get_in_is_nobody(gateway: &Gateway) {
    let mut client = gateway.unconnected();
    client.send(&json!({"id": 1, "connect": {}}));
    client.expect_close(3501, "bad request");
    drop(gateway.websocket("/connection/uni_websocket"));
    gateway.until("both are gone", || gateway.sum(Number::Connections) == 0);
    let user = gateway.user("42");
    assert_eq!(gateway.notices(1)[0]["client"], json!(user.name), "the first of whom it is told");
}

fn a_backend_is_told_of_first_and_last_subscribers(gateway: &Gateway) {
    for namespace in ["told:", "named:", "kept:"] {
        for worker in 0..2 {
            let channel = gateway.channel_in(namespace, worker);
            let told = |what: &str| json!({"type": what, "channel": channel});
            let (mut first, mut second) = (gateway.centrifugo_of(0), gateway.centrifugo_of(1));
            let subscribe = |client: &mut Client| {
                let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel}}));
                assert!(reply["subscribe"].is_object(), "{reply}");
            };
            subscribe(&mut first);
            assert_eq!(gateway.notices(1), [told("occupied")]);
            subscribe(&mut second);
            first.unsubscribe(3, &channel);
            // Nothing was told of these two: what comes next is about the last one.
            second.reset();
            assert_eq!(gateway.notices(1), [told("vacated")]);
            let reply = first.call(json!({"id": 4, "subscribe": {"channel": channel}}));
            assert!(reply["subscribe"].is_object(), "{reply}");
            assert_eq!(gateway.notices(1), [told("occupied")], "again");
            drop(first);
            assert_eq!(gateway.notices(1), [told("vacated")]);
        }
    }
}

fn what_was_not_asked_for_is_not_told(gateway: &Gateway) {
    let mut client = gateway.subscriber("quiet:a");
    client.unsubscribe(3, "quiet:a");
    client.subscribe(4, "told:a");
    assert_eq!(gateway.notices(1), [json!({"type": "occupied", "channel": "told:a"})]);
    client.unsubscribe(5, "told:a");
    assert_eq!(gateway.notices(1), [json!({"type": "vacated", "channel": "told:a"})]);
}

/// The backend's side reads nothing for a while; what it is told then is whole and in order.
fn notices_wait_for_room(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    gateway.notices(1);
    for id in 0..200 {
        client.subscribe(2 * id + 2, "told:a");
        client.unsubscribe(2 * id + 3, "told:a");
    }
    gateway.pass(Duration::from_secs(1));
    let told = gateway.notices(400);
    let types: Vec<_> = told.iter().map(|notice| notice["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["occupied", "vacated"].repeat(200));
}
