//! What a namespace does with publications for a client that does not keep up: each policy, and that nobody else notices.

use crate::support::{Client, Ended, Gateway, Seen, Setup, in_every_format, on_every_driver};
use conn::Side;
use gateway::stats::Number;
use hub::{Channel, Draft, Namespace, Namespaces, Retention, SlowClient, Tags};
use serde_json::{Value, json};
use std::time::Duration;

on_every_driver! {
    who_skips_gets_the_newest_in_order_and_stays: policies(),
    who_is_conflated_gets_the_newest_of_each_channel: policies(),
    replies_are_not_skipped: policies(),
    what_may_be_skipped_makes_room_for_what_may_not: policies(),
    more_newest_values_than_fit_disconnect_and_fewer_do_not: policies(),
    who_takes_nothing_is_closed_although_it_could_skip_for_ever: policies().with(|s| s.times.write_timeout = SHORT),
    the_kernel_keeps_little_for_a_slow_client: policies(),
    a_plain_client_that_skips_with_a_position_is_closed_and_recovers: policies(),
    what_is_conflated_is_no_gap_for_a_position: policies(),
    who_is_conflated_by_a_tag_gets_the_newest_of_each_value_in_order: policies(),
}

in_every_format! {
    who_skips_with_a_position_is_told_of_the_gap_and_recovers: policies(),
}

const SHORT: Duration = Duration::from_millis(300);

const LOW_WATER: usize = 100 * 1024;

/// `skip:` drops the oldest, `newest:` conflates, all others disconnect. `keptskip:` and `keptnewest:` have a history beside;
/// so has `tagged:`, which conflates by the tag `symbol`.
fn policies() -> Setup {
    let with = |name: &str, slow_client| Namespace { name: name.into(), slow_client, ..Namespace::default() };
    let (ttl, meta_ttl) = (Duration::from_secs(600), Duration::from_secs(600));
    let kept = |name: &str, slow_client| Namespace {
        history: Some(Retention { size: 1000, ttl, meta_ttl }),
        force_recovery: true,
        ..with(name, slow_client)
    };
    let named = vec![
        with("skip", SlowClient::DropOldest),
        with("newest", SlowClient::Conflate),
        kept("keptskip", SlowClient::DropOldest),
        kept("keptnewest", SlowClient::Conflate),
        Namespace { conflate_by_tag: Some("symbol".into()), ..kept("tagged", SlowClient::Conflate) },
    ];
    let namespaces = Namespaces::new(Namespace::default(), named).expect("good namespaces").accepting_unknown();
    Setup::dev().with(|s| {
        s.namespaces = namespaces;
        s.limits.outbox_bytes_max = 400 * 1024;
        s.limits.outbox_high_water = 200 * 1024;
        s.limits.outbox_low_water = LOW_WATER;
        // All that a client may have missed.
        s.limits.reply_bytes_max = 16 * 1024 * 1024;
    })
}

fn data(number: u64) -> Value {
    json!([number, "x".repeat(32 * 1024)])
}

/// A client that is subscribed to all of them.
fn subscriber(gateway: &Gateway, channels: &[&str]) -> Client {
    let mut client = gateway.centrifugo();
    for (i, channel) in channels.iter().enumerate() {
        let reply = client.call(json!({"id": i + 2, "subscribe": {"channel": channel}}));
        assert!(reply.get("error").is_none(), "{reply}");
    }
    client
}

/// Publishes in turns until something is so. A healthy client gets everything meanwhile.
fn publish_until(gateway: &Gateway, channels: &[&str], mut is_so: impl FnMut(u64) -> bool) -> u64 {
    let mut healthy = subscriber(gateway, channels);
    let mut published = 0;
    while !is_so(published) {
        // The kernel's buffers take some first.
        assert!(published < 2000, "it must come to that at some time");
        let channel = channels[published as usize % channels.len()];
        gateway.publish(channel, &data(published)).expect("published");
        let push = healthy.json();
        assert_eq!((&push["push"]["channel"], &push["push"]["pub"]["data"]), (&json!(channel), &data(published)));
        published += 1;
    }
    published
}

/// What a client gets up to and with one publication: numbers by channel, and the other messages.
fn read_until(client: &mut Client, last: u64) -> (Vec<(String, u64)>, Vec<Value>) {
    let (mut got, mut others) = (Vec::new(), Vec::new());
    loop {
        let message = client.json();
        let Some(number) = message["push"]["pub"]["data"][0].as_u64() else {
            others.push(message);
            continue;
        };
        got.push((message["push"]["channel"].as_str().expect("a channel").to_owned(), number));
        if number == last {
            return (got, others);
        }
    }
}

fn who_skips_gets_the_newest_in_order_and_stays(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["skip:c"]);
    slow.set_reading(false);
    let mut more = 20;
    let published = publish_until(gateway, &["skip:c"], |_| {
        more -= u32::from(gateway.sum(Number::Skipped) > 0);
        more == 0
    });
    slow.set_reading(true);
    let (got, _) = read_until(&mut slow, published - 1);
    assert!(got.is_sorted_by(|a, b| a.1 < b.1), "in order, each once");
    gateway
        .until("all that it did not get is counted", || got.len() as u64 + gateway.sum(Number::Skipped) == published);
    let waited = got.iter().rev().zip((0..published).rev()).take_while(|(got, number)| got.1 == *number).count();
    assert!(waited >= LOW_WATER / (33 * 1024), "the newest {waited} were kept");
    // It is as good as new.
    gateway.publish("skip:c", &json!("after")).expect("published");
    assert_eq!(slow.json()["push"]["pub"]["data"], "after");
    slow.expect_silence(9);
    assert_eq!(gateway.sum(Number::Conflated) + gateway.closes(Side::Ours, 3008), 0);
}

fn who_is_conflated_gets_the_newest_of_each_channel(gateway: &Gateway) {
    let channels = ["newest:a", "newest:b", "newest:c"];
    let mut slow = subscriber(gateway, &channels);
    slow.set_reading(false);
    let mut more = 20;
    let published = publish_until(gateway, &channels, |_| {
        more -= u32::from(gateway.sum(Number::Conflated) > 0);
        more == 0
    });
    slow.set_reading(true);
    // Values take each other's places, but not over a reply.
    slow.send(&json!({"id": 9, "unsubscribe": {"channel": "never-subscribed"}}));
    let mut got = Vec::new();
    let fence = loop {
        let message = slow.json();
        match message["push"]["pub"]["data"][0].as_u64() {
            Some(number) => got.push((message["push"]["channel"].clone(), number)),
            None => break message,
        }
    };
    assert_eq!(fence["id"], 9);
    for (i, channel) in channels.iter().enumerate() {
        let numbers: Vec<u64> = got.iter().filter(|(c, _)| c == channel).map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{channel}: in order, each once: {numbers:?}");
        let newest = (0..published).rev().find(|n| *n as usize % channels.len() == i);
        assert_eq!(numbers.last(), newest.as_ref(), "{channel} ends with the newest");
    }
    gateway
        .until("all that it did not get is counted", || got.len() as u64 + gateway.sum(Number::Conflated) == published);
    assert_eq!(gateway.sum(Number::Skipped) + gateway.closes(Side::Ours, 3008), 0);
}

fn replies_are_not_skipped(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["skip:c"]);
    slow.set_reading(false);
    let published = publish_until(gateway, &["skip:c"], |published| {
        slow.send(&json!({"id": 100 + published, "unsubscribe": {"channel": "never-subscribed"}}));
        gateway.sum(Number::Skipped) > 20
    });
    slow.set_reading(true);
    let (_, mut replies) = read_until(&mut slow, published - 1);
    while replies.len() <= published as usize {
        replies.push(slow.json());
    }
    let expected: Vec<Value> = (0..=published).map(|n| json!({"id": 100 + n, "unsubscribe": {}})).collect();
    assert_eq!(replies, expected);
}

fn what_may_be_skipped_makes_room_for_what_may_not(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["firm", "skip:c"]);
    slow.set_reading(false);
    // The outbox is full of what may go.
    publish_until(gateway, &["skip:c"], |_| gateway.sum(Number::Skipped) > 0);
    let skipped = gateway.sum(Number::Skipped);
    publish_until(gateway, &["skip:c"], |published| published == 6 || gateway.sum(Number::Skipped) > skipped);
    // Half an outbox of what may not.
    let firm = publish_until(gateway, &["firm"], |published| published == 6);
    assert_eq!(gateway.closes(Side::Ours, 3008), 0, "there was room to be made");
    slow.set_reading(true);
    let mut expected = 0;
    while expected < firm {
        let push = slow.json();
        if push["push"]["channel"] == "firm" {
            assert_eq!(push["push"]["pub"]["data"], data(expected), "nothing of it is missing");
            expected += 1;
        }
    }
    // Without anything that may go it is closed, and the reason is counted.
    slow.set_reading(false);
    publish_until(gateway, &["firm"], |_| gateway.sum(Number::SlowByFirm) == 1);
    slow.set_reading(true);
    expect_slow_close(&mut slow);
}

fn expect_slow_close(client: &mut Client) {
    loop {
        match client.next() {
            Seen::Text(_) => {}
            other => break assert_eq!(other, Seen::Close(Some(3008), "slow".into())),
        }
    }
}

fn more_newest_values_than_fit_disconnect_and_fewer_do_not(gateway: &Gateway) {
    let names: Vec<String> = (0..13).map(|i| format!("newest:{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // 11 values of 33 KB fit into 400 KiB with one that is partly sent; 13 do not.
    for (count, is_closed) in [(10, false), (13, true)] {
        let mut slow = subscriber(gateway, &names[..count]);
        slow.set_reading(false);
        let before = gateway.sum(Number::Conflated);
        let published = publish_until(gateway, &names[..count], |published| {
            let rounds = published as usize / count;
            gateway.sum(Number::SlowByConflated) == 1 || rounds > 3 && gateway.sum(Number::Conflated) > before + 60
        });
        assert_eq!(
            gateway.sum(Number::SlowByConflated),
            u64::from(is_closed),
            "{count} channels, {published} published"
        );
        slow.set_reading(true);
        if is_closed {
            expect_slow_close(&mut slow);
        } else {
            read_until(&mut slow, published - 1);
        }
    }
}

fn who_takes_nothing_is_closed_although_it_could_skip_for_ever(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["skip:c"]);
    slow.set_reading(false);
    publish_until(gateway, &["skip:c"], |_| {
        // Many times the outbox in each write timeout, on any machine that is not much too slow for this test.
        gateway.pass(SHORT / 100);
        gateway.closes(Side::Ours, 3009) == 1
    });
    assert!(gateway.sum(Number::Skipped) > 0, "it has skipped before");
    slow.set_reading(true);
    assert_eq!(slow.end_after_anything(), Ended::Reset);
}

fn the_kernel_keeps_little_for_a_slow_client(gateway: &Gateway) {
    let slow = subscriber(gateway, &["skip:c"]);
    slow.set_reading(false);
    let mut healthy_bytes = 0;
    publish_until(gateway, &["skip:c"], |published| {
        healthy_bytes = published * 33 * 1024;
        gateway.sum(Number::Skipped) > 0
    });
    let kept = gateway.count(|c| &c.sent_bytes).saturating_sub(healthy_bytes);
    // Ours doubled, as the kernel does, and some for the client's own. Left to itself ours alone would be 2 to 4 MB.
    assert!(kept < 1024 * 1024, "the kernel has taken {kept} bytes");
}

/// The offsets that a client of a channel with a history got before something else came, which comes as well.
fn offsets_until_something_else(client: &mut Client) -> (Vec<u64>, Value) {
    let mut offsets = Vec::new();
    loop {
        let message = client.json();
        let Some(offset) = message["push"]["pub"]["offset"].as_u64() else { return (offsets, message) };
        assert_eq!(message["push"]["pub"]["data"], data(offset - 1), "publications are numbered as they were made");
        offsets.push(offset);
    }
}

fn who_skips_with_a_position_is_told_of_the_gap_and_recovers(gateway: &Gateway) {
    let mut slow = gateway.centrifugo();
    let subscribed = slow.call(json!({"id": 2, "subscribe": {"channel": "keptskip:c"}}));
    let epoch = subscribed["subscribe"]["epoch"].clone();
    slow.set_reading(false);
    let mut more = 5;
    let published = publish_until(gateway, &["keptskip:c"], |_| {
        more -= u32::from(gateway.sum(Number::Skipped) > 0);
        more == 0
    });
    assert_eq!(gateway.sum(Number::Gaps), 1);
    slow.set_reading(true);
    let (got, told) = offsets_until_something_else(&mut slow);
    let last = got.len() as u64;
    assert_eq!(got, (1..=last).collect::<Vec<_>>(), "nothing is missing in front of what came");
    assert!(last < published, "something was skipped");
    let gap = json!({"code": 2500, "reason": "insufficient state"});
    assert_eq!(told, json!({"push": {"channel": "keptskip:c", "unsubscribe": gap}}));
    let back = json!({"channel": "keptskip:c", "recover": true, "epoch": epoch, "offset": last});
    let mut recovered = slow.call(json!({"id": 3, "subscribe": back}));
    assert_eq!(recovered["subscribe"]["recovered"], true);
    let missed = recovered["subscribe"]["publications"].take();
    let missed: Vec<u64> = missed.as_array().into_iter().flatten().filter_map(|p| p["offset"].as_u64()).collect();
    assert_eq!(missed, (last + 1..=published).collect::<Vec<_>>(), "it recovers all of it");
    // It is as good as new.
    gateway.publish("keptskip:c", &json!("after")).expect("published");
    let push = slow.json();
    assert_eq!(
        (&push["push"]["pub"]["data"], &push["push"]["pub"]["offset"]),
        (&json!("after"), &json!(published + 1))
    );
    slow.expect_silence(9);
    assert_eq!(gateway.closes(Side::Ours, 3008), 0);
}

fn a_plain_client_that_skips_with_a_position_is_closed_and_recovers(gateway: &Gateway) {
    let mut slow = gateway.websocket("/connection/uni_websocket?channels=keptskip:c");
    let connected = slow.json();
    let epoch = connected["connect"]["subs"]["keptskip:c"]["epoch"].as_str().expect("an epoch").to_owned();
    slow.set_reading(false);
    let published = publish_until(gateway, &["keptskip:c"], |_| gateway.sum(Number::Skipped) > 0);
    slow.set_reading(true);
    let mut last = 0;
    loop {
        match slow.next() {
            Seen::Text(text) => {
                let push: Value = serde_json::from_str(&text).expect("JSON");
                let Some(offset) = push["pub"]["offset"].as_u64() else {
                    assert_eq!(push["disconnect"]["code"], 3010, "{push}");
                    continue;
                };
                assert_eq!(offset, last + 1, "nothing is missing in front of what came");
                last = offset;
            }
            other => break assert_eq!(other, Seen::Close(Some(3010), "insufficient state".into())),
        }
    }
    assert!(last < published, "something was skipped");
    let position = json!({"subs": {"keptskip:c": {"recover": true, "epoch": epoch, "offset": last}}});
    let mut back = gateway.websocket("/connection/uni_websocket");
    back.send(&position);
    let result = back.json()["connect"]["subs"]["keptskip:c"].take();
    assert_eq!(result["recovered"], true);
    assert_eq!(result["publications"].as_array().map(Vec::len), Some((published - last) as usize));
}

fn what_is_conflated_is_no_gap_for_a_position(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["keptnewest:c"]);
    slow.set_reading(false);
    let mut more = 5;
    let published = publish_until(gateway, &["keptnewest:c"], |_| {
        more -= u32::from(gateway.sum(Number::Conflated) > 0);
        more == 0
    });
    slow.set_reading(true);
    slow.send(&json!({"id": 9, "unsubscribe": {"channel": "never-subscribed"}}));
    let (got, fence) = offsets_until_something_else(&mut slow);
    assert_eq!(fence["id"], 9);
    assert!(got.is_sorted_by(|a, b| a < b) && got.last() == Some(&published), "in order, to the newest: {got:?}");
    assert!(got.len() < published as usize && gateway.sum(Number::Gaps) == 0);
}

fn who_is_conflated_by_a_tag_gets_the_newest_of_each_value_in_order(gateway: &Gateway) {
    let mut slow = subscriber(gateway, &["tagged:c"]);
    slow.set_reading(false);
    // Of one value many, of the others few, one of which has another tag and one no tag at all.
    let tags = |n: u64| match n % 8 {
        1 if n < 100 => Some(Tags::from([("symbol".into(), "rare".into())])),
        2 => Some(Tags::from([("other".into(), "often".into())])),
        3 => None,
        _ => Some(Tags::from([("symbol".into(), "often".into())])),
    };
    let (mut published, mut more) = (0, 60);
    while more > 0 {
        assert!(published < 2000, "it must come to that at some time");
        let body = data(published).to_string().into_bytes();
        let draft = Draft { tags: tags(published).map(Box::new), ..Draft::new(Channel::new("tagged:c"), body) };
        gateway.publish_draft(draft).expect("published");
        published += 1;
        more -= u32::from(gateway.sum(Number::Conflated) > 0);
    }
    slow.set_reading(true);
    slow.send(&json!({"id": 9, "unsubscribe": {"channel": "never-subscribed"}}));
    let (got, fence) = offsets_until_something_else(&mut slow);
    assert_eq!(fence["id"], 9);
    assert!(got.is_sorted_by(|a, b| a < b), "in order, each once: {got:?}");
    assert!(got.len() < published as usize && gateway.sum(Number::Gaps) == 0);
    let value = |n: u64| tags(n).and_then(|tags| tags.get("symbol").cloned());
    for wanted in [Some("rare".to_owned()), Some("often".to_owned()), None] {
        let newest = (0..published).rev().find(|n| value(*n) == wanted).expect("published");
        assert!(got.contains(&(newest + 1)), "{newest}, the newest of {wanted:?}: {got:?}");
    }
    gateway
        .until("all that it did not get is counted", || got.len() as u64 + gateway.sum(Number::Conflated) == published);
}
