//! The ceiling of memory: who goes when it is reached, who is turned away meanwhile, and that nobody else notices.

use crate::support::client::{frame, request, upgrade_request};
use crate::support::{
    Client, Ended, Gateway, Seen, Setup, on_every_driver, on_every_driver_in_the_clear, over_tls_on_real_sockets,
};
use conn::Side;
use gateway::stats::Number;
use serde_json::{Value, json};
use wire::ws::OpCode;

on_every_driver! {
    the_heaviest_backlogs_go_first_and_others_miss_nothing: wide_outboxes(12 << 20),
    answers_that_nobody_reads_go_with_their_client: wide_outboxes(6 << 20),
    as_much_as_there_may_be_turns_nobody_away: history(1 << 30),
    half_a_message_goes_and_a_little_of_one_stays: history(1 << 20),
}

// A newcomer is answered in the clear, whatever its listener speaks, as where a worker is full.
on_every_driver_in_the_clear! {
    newcomers_wait_until_there_is_room_again: history(1 << 20),
}

over_tls_on_real_sockets! {
    the_heaviest_backlogs_go_first_and_others_miss_nothing: wide_outboxes(12 << 20),
    answers_that_nobody_reads_go_with_their_client: wide_outboxes(6 << 20),
}

const LOW_WATER: usize = 256 * 1024;

/// Outboxes that take more than all of them together may.
fn wide_outboxes(memory_bytes_max: u64) -> Setup {
    let setup = Setup::dev().with(|s| {
        s.limits.outbox_bytes_max = 64 << 20;
        s.limits.outbox_high_water = 48 << 20;
        s.limits.outbox_low_water = LOW_WATER;
    });
    Setup { memory_bytes_max, ..setup }
}

/// What is kept of channels takes memory, too, and nobody has to be slow for it.
fn history(memory_bytes_max: u64) -> Setup {
    Setup { memory_bytes_max, ..Setup::with_history() }
}

fn data(number: u64) -> Value {
    json!([number, "x".repeat(32 * 1024)])
}

/// Publishes to channels in turn until so many clients had to go. The honest one reads along.
fn publish_until(gateway: &Gateway, gone: u64, honest: &mut Client, channels: &[&str], numbers: &mut [u64; 3]) {
    let mut published = 0;
    loop {
        for channel in channels {
            // 0 for "a", and so on.
            let number = &mut numbers[usize::from(channel.as_bytes()[0] - b'a')];
            gateway.publish(channel, &data(*number)).expect("published");
            assert_eq!(honest.json()["push"]["pub"]["data"], data(*number));
            *number += 1;
            if gateway.sum(Number::Shed) == gone {
                return;
            }
        }
        published += 1;
        assert!(published < 1000, "somebody has to go at some time");
    }
}

fn the_heaviest_backlogs_go_first_and_others_miss_nothing(gateway: &Gateway) {
    let mut honest = gateway.subscriber("a");
    honest.subscribe(3, "b");
    honest.subscribe(4, "c");
    // Not in the order of their slots.
    let [mut light, mut heavy, mut middle] = ["c", "a", "b"].map(|channel| gateway.subscriber(channel));
    for slow in [&heavy, &middle, &light] {
        slow.set_reading(false);
    }
    let mut numbers = [0; 3];
    publish_until(gateway, 1, &mut honest, &["a", "b", "c", "a", "b", "a"], &mut numbers);
    heavy.set_reading(true);
    heavy.is_told_too_slow(numbers[0]);
    drop(heavy);
    publish_until(gateway, 2, &mut honest, &["b", "c", "b"], &mut numbers);
    middle.set_reading(true);
    middle.is_told_too_slow(numbers[1]);
    assert_eq!(gateway.closes(Side::Ours, 3008), 1, "the second is closing");
    drop(middle);
    // The lightest has got everything, as soon as it reads.
    light.set_reading(true);
    for number in 0..numbers[2] {
        assert_eq!(light.json()["push"]["pub"]["data"][0], number);
    }
    gateway.publish("c", &json!("after")).expect("published");
    for client in [&mut honest, &mut light] {
        assert_eq!(client.json()["push"]["pub"]["data"], "after");
    }
    assert_eq!(gateway.sum(Number::Shed), 2);
    gateway.until("there is room again", || !gateway.memory().is_short());
}

/// Has so many messages sent back to a client that does not read.
fn stuff(gateway: &Gateway, messages: usize) -> Client {
    let client = gateway.websocket("/echo");
    client.set_reading(false);
    for number in 0..messages {
        client.write(frame(OpCode::Binary, true, &message(number)));
    }
    client
}

fn message(number: usize) -> Vec<u8> {
    let mut message = vec![b'm'; 20_000];
    message[..8].copy_from_slice(&(number as u64).to_be_bytes());
    message
}

fn answers_that_nobody_reads_go_with_their_client(gateway: &Gateway) {
    let mut honest = gateway.websocket("/echo");
    let mut light = stuff(gateway, 50);
    let mut heavy = stuff(gateway, 1000);
    gateway.until("the heavier one is gone", || gateway.closes(Side::Ours, 3008) == 1);
    heavy.set_reading(true);
    // What waits in front of a close frame is too much to wait for.
    assert_eq!(heavy.end_after_anything(), Ended::Reset);
    light.set_reading(true);
    for number in 0..50 {
        assert!(light.next() == Seen::Binary(message(number)), "message {number} is not what was sent");
    }
    honest.send_text("still here");
    assert_eq!(honest.text(), "still here");
    assert_eq!(gateway.sum(Number::Shed), 1);
}

/// Makes the history of a channel so large that it alone is more than a megabyte.
fn fill_history(gateway: &Gateway) {
    for number in 0..5 {
        gateway.publish("kept:c", &json!([number, "x".repeat(300 * 1024)])).expect("published");
    }
}

fn newcomers_wait_until_there_is_room_again(gateway: &Gateway) {
    let mut honest = gateway.subscriber("gone:c");
    let mut pooled = gateway.client();
    pooled.write(request("GET", "/health"));
    assert_eq!(pooled.response().status, 200);
    fill_history(gateway);
    gateway.until("memory is short", || gateway.memory().is_short());
    for _ in 0..3 {
        let mut newcomer = gateway.client();
        newcomer.write(upgrade_request("/connection/websocket", None, &[]));
        let answer = newcomer.response();
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")), "{}", answer.head);
        assert_eq!(newcomer.end(), Ended::Fin);
        // One that a proxy brings over a connection it has.
        pooled.write(upgrade_request("/connection/websocket", None, &[]));
        let answer = pooled.response();
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")), "{}", answer.head);
    }
    assert_eq!(gateway.count(|c| &c.refused_asked), 3);
    gateway.until("handshakes are counted", || gateway.sum(Number::HandshakesShort) == 3);
    // Who is here misses nothing, and gets nothing more.
    let refused = honest.call(json!({"id": 3, "subscribe": {"channel": "gone:d"}}));
    assert_eq!(refused["error"]["code"], 111, "{refused}");
    assert_eq!(refused["error"]["temporary"], true, "{refused}");
    gateway.publish("gone:c", &json!("during")).expect("published");
    assert_eq!(honest.json()["push"]["pub"]["data"], "during");

    gateway.remove_history("kept:c");
    gateway.until("there is room again", || !gateway.memory().is_short());
    let mut newcomer = gateway.subscriber("gone:c");
    pooled.upgrade("/connection/websocket", None);
    honest.subscribe(4, "gone:d");
    gateway.publish("gone:c", &json!("after")).expect("published");
    for client in [&mut honest, &mut newcomer] {
        assert_eq!(client.json()["push"]["pub"]["data"], "after");
    }
    assert_eq!((gateway.sum(Number::Shed), gateway.sum(Number::SubscribesShort)), (0, 1));
}

fn as_much_as_there_may_be_turns_nobody_away(gateway: &Gateway) {
    fill_history(gateway);
    let mut client = gateway.subscriber("gone:c");
    client.subscribe(3, "gone:d");
    assert!(!gateway.memory().is_short() && gateway.memory().in_use() > 1 << 20);
    gateway.remove_history("kept:c");
    gateway.until("what is gone is counted no more", || gateway.memory().in_use() < 1 << 20);
}

fn half_a_message_goes_and_a_little_of_one_stays(gateway: &Gateway) {
    let mut little = gateway.centrifugo();
    let mut half = gateway.centrifugo();
    let mut held = gateway.centrifugo();
    let command = json!({"id": 2, "unsubscribe": {"channel": "y".repeat(200)}}).to_string();
    let (front, back) = command.as_bytes().split_at(100);
    little.write(frame(OpCode::Text, false, front));
    half.write(frame(OpCode::Text, false, &[b' '; 40_000]));
    held.write(&frame(OpCode::Text, true, &[b' '; 30_000])[..20_000]);
    gateway.until("they are read", || gateway.count(|c| &c.read_bytes) > 60_000);
    fill_history(gateway);
    for client in [&mut half, &mut held] {
        assert_eq!(client.next(), Seen::Close(Some(3008), "slow".to_owned()));
        assert_eq!(client.next(), Seen::End(Ended::Fin));
    }
    little.write(frame(OpCode::Continuation, true, back));
    assert_eq!(little.json(), json!({"id": 2, "unsubscribe": {}}));
    assert_eq!(gateway.sum(Number::Shed), 2);
}
