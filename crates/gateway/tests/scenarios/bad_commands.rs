//! Messages that break the client protocols, each beside one that differs in a byte or two and is answered.

use crate::support::client::{frame, text_frame};
use crate::support::{Client, Gateway, Setup, in_every_format, on_every_driver, schema};
use conn::settings::Rate;
use gateway::stats::Number;
use prost::Message as _;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use wire::ws::OpCode;

in_every_format! {
    commands_that_make_no_sense_are_told_3501: Setup::dev(),
    a_message_to_nobody_is_told_3508: Setup::dev(),
    a_command_before_connect_is_told_3501: Setup::dev(),
    a_second_connect_is_told_3501: Setup::dev(),
    a_pong_nobody_asked_for_is_told_3501: Setup::dev(),
    commands_that_come_too_fast_are_refused_and_then_cost_the_connection: five_at_once(),
    commands_without_a_handler_are_answered_108_and_the_connection_stays: Setup::dev(),
}

on_every_driver! {
    what_is_no_list_of_commands_is_told_3501: Setup::dev(),
    what_is_no_list_of_commands_in_protobuf_is_told_3501: Setup::dev().in_protobuf(),
    a_payload_that_is_no_json_is_refused_and_the_connection_stays: Setup::dev().in_protobuf(),
    commands_behind_a_bad_one_are_not_run: Setup::dev(),
    a_first_message_of_the_plain_dialect_must_be_a_connect_request: Setup::dev(),
}

fn five_at_once() -> Setup {
    let [per_second, burst] = [1, 5].map(|n| NonZeroU32::new(n).expect("not 0"));
    Setup::dev().with(|s| s.limits.commands = Some(Rate { per_second, burst }))
}

/// Sends one message to a connected client and returns the first answer.
fn answer(gateway: &Gateway, message: &str) -> Value {
    let mut client = gateway.centrifugo();
    client.send_text(message);
    client.json()
}

fn expect_closed(gateway: &Gateway, message: &str, code: u16, reason: &str) {
    let mut client = gateway.centrifugo();
    client.send_text(message);
    client.expect_close(code, reason);
}

fn what_is_no_list_of_commands_is_told_3501(gateway: &Gateway) {
    let pairs = [
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"rpc":{}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"rpc":{},}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"rpc":{}}}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"["id",2,"rpc",{}]"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"rpc":7}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":-2,"rpc":{}}"#),
        (r#"{"id":4294967295,"rpc":{}}"#, r#"{"id":4294967296,"rpc":{}}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":"2","rpc":{}}"#),
        ("{\"id\":2,\"rpc\":{}}\n", "{\"id\":2,\"rpc\":{}"),
        (r#"{"id":2,"rpc":{}}"#, ""),
        (r#"{"id":2,"rpc":{}}"#, "\n"),
        (r#" {"id":2,"rpc":{}} "#, " "),
        (r#"{"id":2,"subscribe":{"channel":"a"}}"#, r#"{"id":2,"subscribe":{"channel":7}}"#),
    ];
    for (good, bad) in pairs {
        assert!(answer(gateway, good)["id"].as_u64() >= Some(2), "{good}");
        expect_closed(gateway, bad, 3501, "bad request");
    }
}

fn what_is_no_list_of_commands_in_protobuf_is_told_3501(gateway: &Gateway) {
    let good = schema::commands(r#"{"id":2,"rpc":{}}"#);
    assert_eq!(good, [4, 8, 2, 0x6a, 0]);
    let bad: &[&[u8]] = &[
        &[],
        // Cut, with a byte too many, with a length that never ends.
        &[4, 8, 2, 0x6a],
        &[5, 8, 2, 0x6a, 0],
        &[4, 8, 2, 0x6a, 1],
        &[3, 8, 2, 0x6a, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 8, 2, 0x6a, 0],
        &[0x80; 11],
        // Field number 0, a group, and a request that is a number.
        &[4, 0, 2, 0x6a, 0],
        &[4, 8, 2, 0x6b, 0],
        &[4, 8, 2, 0x68, 0],
        // A good command, then a bad one.
        &[4, 8, 2, 0x6a],
        // A channel name that is not UTF-8.
        &[7, 8, 2, 0x2a, 3, 0x0a, 1, 0xff],
    ];
    let ask = |message: &[u8]| {
        let client = gateway.centrifugo();
        client.write(frame(OpCode::Binary, true, message));
        client
    };
    for bad in bad {
        ask(bad).expect_close(3501, "bad request");
        assert_eq!(ask(&good).json()["id"], 2);
    }
    assert_eq!(ask(&[7, 8, 2, 0x2a, 3, 0x0a, 1, b'a']).json(), json!({"id": 2, "subscribe": {}}));
    // The kind of the frame is not looked at.
    let mut as_text = gateway.centrifugo();
    as_text.write(frame(OpCode::Text, true, &good));
    assert_eq!(as_text.json()["id"], 2);
}

fn a_payload_that_is_no_json_is_refused_and_the_connection_stays(gateway: &Gateway) {
    let mut client = gateway.subscriber("c");
    let publish = |client: &Client, data: &[u8]| {
        let publish = schema::PublishRequest { channel: "c".to_owned(), data: data.to_vec() };
        let command = schema::Command { id: 3, publish: Some(publish), ..Default::default() };
        client.write(frame(OpCode::Binary, true, &command.encode_length_delimited_to_vec()));
    };
    for (good, bad) in [("[1]", "[1"), ("1", ""), ("\"a\"", "\"a"), ("{}", "{}}"), ("\"\\n\"", "\"\n\"")] {
        publish(&client, bad.as_bytes());
        assert_eq!(client.json(), json!({"id": 3, "error": {"code": 107, "message": "bad request"}}), "{bad}");
        publish(&client, good.as_bytes());
        let both = [client.json(), client.json()];
        assert!(both.contains(&json!({"id": 3, "publish": {}})), "{both:?}");
        let push = both.iter().find(|message| message.get("push").is_some()).expect("its own publication");
        assert_eq!(push["push"]["pub"]["data"].to_string(), good);
    }
}

fn commands_that_make_no_sense_are_told_3501(gateway: &Gateway) {
    let pairs = [
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"ping":{}}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2,"unknown":{}}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":2}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"id":0,"rpc":{}}"#),
        (r#"{"id":2,"rpc":{}}"#, r#"{"rpc":{}}"#),
        (r#"{"id":2,"subscribe":{"channel":"a"}}"#, r#"{"id":2,"subscribe":{"channel":""}}"#),
        (r#"{"id":2,"subscribe":{"channel":"a"}}"#, r#"{"id":2,"subscribe":{}}"#),
        (r#"{"id":2,"subscribe":{"channel":"a"}}"#, r#"{"id":0,"subscribe":{"channel":"a"}}"#),
        (
            r#"{"id":2,"subscribe":{"channel":"a","delta":"fossil"}}"#,
            r#"{"id":2,"subscribe":{"channel":"a","delta":"fossils"}}"#,
        ),
        (r#"{"id":2,"unsubscribe":{"channel":"a"}}"#, r#"{"id":2,"unsubscribe":{"channel":""}}"#),
        (r#"{"id":2,"publish":{"channel":"a","data":1}}"#, r#"{"id":2,"publish":{"channel":"","data":1}}"#),
        (r#"{"id":2,"publish":{"channel":"a","data":1}}"#, r#"{"id":0,"publish":{"channel":"a","data":1}}"#),
    ];
    for (good, bad) in pairs {
        assert_eq!(answer(gateway, good)["id"], 2, "{good}");
        expect_closed(gateway, bad, 3501, "bad request");
    }
}

fn a_message_to_nobody_is_told_3508(gateway: &Gateway) {
    expect_closed(gateway, r#"{"send":{"data":{}}}"#, 3508, "not available");
    assert_eq!(answer(gateway, r#"{"id":2,"send":{"data":{}},"rpc":{}}"#)["error"]["code"], 108, "rpc comes first");
}

fn a_command_before_connect_is_told_3501(gateway: &Gateway) {
    let commands = [
        r#"{"id":1,"subscribe":{"channel":"a"}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":1}}"#,
        r#"{"id":1,"unsubscribe":{"channel":"a"}}"#,
        r#"{"id":1,"rpc":{}}"#,
        r#"{"send":{}}"#,
        "{}",
        // A connect that asks for no reply.
        r#"{"connect":{}}"#,
    ];
    for command in commands {
        let mut client = gateway.unconnected();
        client.send_text(command);
        client.expect_close(3501, "bad request");
    }
    let mut twin = gateway.unconnected();
    twin.send_text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"rpc\":{}}");
    assert_eq!((&twin.json()["id"], &twin.json()["id"]), (&json!(1), &json!(2)));
}

fn a_second_connect_is_told_3501(gateway: &Gateway) {
    expect_closed(gateway, r#"{"id":2,"connect":{}}"#, 3501, "bad request");
    // In one frame with the first, too.
    let mut client = gateway.unconnected();
    client.send_text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"connect\":{}}");
    assert_eq!(client.json()["id"], 1);
    client.expect_close(3501, "bad request");
}

fn a_pong_nobody_asked_for_is_told_3501(gateway: &Gateway) {
    expect_closed(gateway, "{}", 3501, "bad request");
    expect_closed(gateway, r#"{"id":0}"#, 3501, "bad request");
    assert_eq!(answer(gateway, r#"{"id":2,"rpc":{}}"#)["id"], 2);
}

fn commands_behind_a_bad_one_are_not_run(gateway: &Gateway) {
    let mut watcher = gateway.subscriber("watched");
    let publish = r#"{"id":2,"publish":{"channel":"watched","data":"ran"}}"#;
    for bad in [format!("{{\n{publish}"), format!("{{\"id\":2,\"ping\":{{}}}}\n{publish}")] {
        let mut client = gateway.centrifugo();
        client.write([text_frame(&bad), text_frame(publish)].concat());
        client.expect_close(3501, "bad request");
    }
    watcher.expect_silence(3);
    let mut twin = gateway.centrifugo();
    twin.send_text(publish);
    assert_eq!(watcher.json()["push"]["pub"]["data"], "ran");
    assert_eq!(twin.json(), json!({"id": 2, "publish": {}}));
}

fn a_first_message_of_the_plain_dialect_must_be_a_connect_request(gateway: &Gateway) {
    for (good, bad) in
        [("{}", "{"), (r#"{"subs":{}}"#, r#"{"subs":7}"#), (r#"{"token":""}"#, r#"{"token":7}"#), ("{} ", "")]
    {
        let mut client = gateway.websocket("/connection/uni_websocket");
        client.send_text(bad);
        assert_eq!(client.json(), json!({"disconnect": {"code": 3501, "reason": "bad request"}}));
        client.expect_close(3501, "bad request");
        let mut twin = gateway.websocket("/connection/uni_websocket");
        twin.send_text(good);
        assert!(twin.json()["connect"]["client"].is_string());
    }
}

fn commands_that_come_too_fast_are_refused_and_then_cost_the_connection(gateway: &Gateway) {
    // In one message, so that no time passes between them.
    let send = |client: &Client, command: &str, times: u32| {
        let lines: Vec<String> = (0..times).map(|n| format!("{{\"id\":{},\"{command}\":{{}}}}", n + 2)).collect();
        client.send_text(&lines.join("\n"));
    };
    let answers = |client: &mut Client, times: u32| {
        let error = |mut reply: Value| (reply["error"]["code"].take(), reply["error"]["temporary"].take());
        (0..times).map(|_| error(client.json())).collect::<Vec<_>>()
    };
    let (run, refused) = ((json!(108), Value::Null), (json!(111), json!(true)));
    let mut patient = gateway.centrifugo();
    send(&patient, "rpc", 7);
    let expected = [vec![run.clone(); 5], vec![refused.clone(); 2]].concat();
    assert_eq!(answers(&mut patient, 7), expected);
    // What is no question is answered all the same, and makes less work.
    patient.unsubscribe(20, "never-subscribed");
    let mut eager = gateway.centrifugo();
    send(&eager, "rpc", 11);
    let expected = [vec![run; 5], vec![refused; 5]].concat();
    assert_eq!(answers(&mut eager, 10), expected);
    eager.expect_close(3013, "too many requests");
    gateway.until("it is counted", || gateway.sum(Number::CommandsRefused) == 7);
}

fn commands_without_a_handler_are_answered_108_and_the_connection_stays(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let error = json!({"code": 108, "message": "not available"});
    for (id, command) in (2..).zip(["presence", "presence_stats", "history", "rpc"]) {
        let reply = client.call(json!({"id": id, command: {"channel": "a"}}));
        assert_eq!(reply, json!({"id": id, "error": error}), "{command}");
    }
    client.subscribe(20, "a");
}
