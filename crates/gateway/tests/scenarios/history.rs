//! What is kept of a channel: positions, recovery, the history command, and what backends may ask of a publish.

use crate::support::client::plain_push;
use crate::support::{Client, Gateway, Setup, on_every_driver, on_the_simulator};
use gateway::stats::Number;
use hub::{Channel, Draft, PublishOptions, Tags};
use serde_json::{Value, json};
use std::time::Duration;

on_every_driver! {
    a_subscribe_reply_names_the_position_and_pushes_go_on_from_there: Setup::with_history(),
    who_comes_back_gets_what_it_missed_once_and_in_order: Setup::with_history().workers(3),
    who_missed_nothing_is_recovered_with_nothing: Setup::with_history(),
    what_cannot_be_recovered_is_a_gap: Setup::with_history(),
    a_client_that_rejects_gaps_gets_an_error_and_no_subscription: Setup::with_history().workers(2),
    only_who_asks_is_recoverable_where_nothing_is_forced: Setup::with_history(),
    a_cache_brings_the_newest_publication_alone: Setup::with_history(),
    the_history_is_read_in_pages_from_both_ends: Setup::with_history(),
    a_history_that_may_not_be_read_is_refused: Setup::with_history(),
    a_recovery_that_does_not_fit_a_reply_is_a_gap_and_no_disconnect: small_replies(),
    a_page_that_does_not_fit_a_reply_is_cut: small_replies(),
    repeated_and_outdated_publishes_reach_nobody: Setup::with_history(),
    what_skips_the_history_has_no_place_in_it: Setup::with_history(),
    a_history_can_be_dropped_and_its_numbering_goes_on: Setup::with_history(),
    plain_clients_recover_at_connect: Setup::with_history().workers(2),
    many_that_come_back_together_share_what_they_missed: Setup::with_history().workers(2),
    channels_without_subscribers_make_room_for_new_ones: few_channels(),
    histories_of_channels_without_subscribers_make_room_for_new_publications: few_bytes(),
}

on_the_simulator! {
    a_publication_is_kept_for_its_time: Setup::with_history(),
    a_position_is_remembered_for_its_time: Setup::with_history(),
    recoveries_beside_live_publications_neither_lose_nor_repeat: Setup::with_history().workers(3),
}

fn small_replies() -> Setup {
    Setup::with_history().with(|s| s.limits.reply_bytes_max = 700)
}

fn few_channels() -> Setup {
    let mut setup = Setup::with_history();
    setup.home.channels_max = 2;
    setup
}

fn few_bytes() -> Setup {
    let mut setup = Setup::with_history();
    setup.home.history_bytes_max = 3000;
    setup
}

fn publish(gateway: &Gateway, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let published = gateway.publish(channel, &json!({ "n": n })).expect("published");
        assert_eq!((published.position.offset.0, published.recorded), (n, true));
    }
}

/// Subscribes with any further fields; the result, or the error's code.
fn subscribe(client: &mut Client, channel: &str, fields: Value) -> Value {
    let mut request = fields;
    request["channel"] = json!(channel);
    let mut reply = client.call(json!({"id": 9, "subscribe": request}));
    if reply.get("error").is_some() { reply["error"]["code"].take() } else { reply["subscribe"].take() }
}

fn epoch(result: &Value) -> &str {
    result["epoch"].as_str().expect("an epoch")
}

/// The position in a subscribe result, as a request to go on there.
fn go_on(result: &Value, offset: u64) -> Value {
    json!({"recover": true, "epoch": epoch(result), "offset": offset})
}

/// The numbers of the publications in a result, which must be their offsets.
fn numbers(result: &Value) -> Vec<u64> {
    let publications = result["publications"].as_array().cloned().unwrap_or_default();
    publications.iter().map(number).collect()
}

fn number(publication: &Value) -> u64 {
    assert_eq!(publication["offset"], publication["data"]["n"], "{publication}");
    assert!(publication["time"].as_u64().is_some_and(|time| time >= 1_700_000_000_000), "{publication}");
    publication["offset"].as_u64().expect("an offset")
}

fn next_number(client: &mut Client, channel: &str) -> u64 {
    let message = client.json();
    assert_eq!(message["push"]["channel"], channel, "{message}");
    number(&message["push"]["pub"])
}

fn assert_recovered(result: &Value, from: u64, missed: &[u64]) {
    assert_eq!((&result["was_recovering"], &result["recovered"]), (&json!(true), &json!(true)), "{result}");
    assert_eq!(result["offset"].as_u64().unwrap_or(0), from, "it counts on from its own offset: {result}");
    assert_eq!(numbers(result), missed);
}

fn assert_gap(result: &Value, top: u64) {
    let has = |field: &str| result.get(field).is_some();
    assert!(result["was_recovering"] == true && !has("recovered") && !has("publications"), "{result}");
    assert_eq!(result["offset"].as_u64().unwrap_or(0), top, "it starts anew from the top: {result}");
}

fn a_subscribe_reply_names_the_position_and_pushes_go_on_from_there(gateway: &Gateway) {
    let mut first = gateway.centrifugo();
    let mut result = subscribe(&mut first, "kept:a", json!({}));
    let epoch = epoch(&result).to_owned();
    assert_eq!(epoch.len(), 8);
    result["epoch"] = json!("");
    assert_eq!(result, json!({"recoverable": true, "positioned": true, "epoch": ""}), "zero values are left out");
    publish(gateway, "kept:a", 1..=2);
    assert_eq!([next_number(&mut first, "kept:a"), next_number(&mut first, "kept:a")], [1, 2]);
    let result = subscribe(&mut gateway.centrifugo(), "kept:a", json!({}));
    assert_eq!(result, json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": 2}));
    // A channel without a history is as it always was.
    let mut other = gateway.centrifugo();
    assert_eq!(subscribe(&mut other, "gone:a", json!({"recover": true, "positioned": true})), json!({}));
    gateway.publish("gone:a", &json!(1)).expect("published");
    assert_eq!(other.json(), json!({"push": {"channel": "gone:a", "pub": {"data": 1}}}));
}

fn who_comes_back_gets_what_it_missed_once_and_in_order(gateway: &Gateway) {
    for home in 0..gateway.workers() {
        let channel = gateway.channel_in("kept:", home);
        for worker in 0..3 {
            let base = 7 * worker as u64;
            let mut client = gateway.centrifugo_of(worker);
            let result = subscribe(&mut client, &channel, json!({}));
            publish(gateway, &channel, base + 1..=base + 3);
            (1..=3).for_each(|n| assert_eq!(next_number(&mut client, &channel), base + n));
            client.reset();
            publish(gateway, &channel, base + 4..=base + 6);
            let mut again = gateway.centrifugo_of(2 - worker);
            let result = subscribe(&mut again, &channel, go_on(&result, base + 3));
            assert_recovered(&result, base + 3, &[base + 4, base + 5, base + 6]);
            publish(gateway, &channel, base + 7..=base + 7);
            assert_eq!(next_number(&mut again, &channel), base + 7);
            again.expect_silence(4);
        }
    }
    assert_eq!((gateway.sum(Number::Recovered), gateway.sum(Number::Unrecovered)), (9, 0));
}

fn who_missed_nothing_is_recovered_with_nothing(gateway: &Gateway) {
    let fresh = json!({"recover": true});
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", fresh.clone()), 0, &[]);
    publish(gateway, "kept:a", 1..=3);
    let result = subscribe(&mut gateway.centrifugo(), "kept:a", json!({}));
    let again = subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&result, 3));
    assert_recovered(&again, 3, &[]);
    assert_eq!(again.get("publications"), None);
    // Without a position everything was missed; without an epoch the offset alone counts.
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", fresh), 0, &[1, 2, 3]);
    let by_offset = json!({"recover": true, "offset": 2});
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", by_offset), 2, &[3]);
}

fn what_cannot_be_recovered_is_a_gap(gateway: &Gateway) {
    publish(gateway, "kept:a", 1..=12);
    let result = subscribe(&mut gateway.centrifugo(), "kept:a", json!({}));
    let ask = |fields: Value| subscribe(&mut gateway.centrifugo(), "kept:a", fields);
    // Six may be recovered at once.
    assert_recovered(&ask(go_on(&result, 6)), 6, &[7, 8, 9, 10, 11, 12]);
    assert_gap(&ask(go_on(&result, 5)), 12);
    assert_gap(&ask(go_on(&result, 13)), 12);
    assert_gap(&ask(go_on(&result, u64::MAX)), 12);
    for epoch in ["_", "abcdefgh", "abcdefghi"] {
        assert_gap(&ask(json!({"recover": true, "epoch": epoch, "offset": 12})), 12);
    }
    // Two are kept.
    publish(gateway, "few:a", 1..=5);
    let result = subscribe(&mut gateway.centrifugo(), "few:a", json!({}));
    let ask = |offset: u64| subscribe(&mut gateway.centrifugo(), "few:a", go_on(&result, offset));
    assert_recovered(&ask(3), 3, &[4, 5]);
    assert_gap(&ask(2), 5);
    assert_eq!((gateway.sum(Number::Recovered), gateway.sum(Number::Unrecovered)), (2, 7));
}

fn a_client_that_rejects_gaps_gets_an_error_and_no_subscription(gateway: &Gateway) {
    for home in 0..2 {
        let channel = gateway.channel_in("kept:", home);
        publish(gateway, &channel, 1..=12);
        let mut client = gateway.centrifugo();
        let position = subscribe(&mut gateway.centrifugo_of(1), &channel, json!({}));
        let flagged = |mut fields: Value, flag: i64| {
            fields["flag"] = json!(flag);
            fields
        };
        assert_eq!(subscribe(&mut client, &channel, flagged(go_on(&position, 1), 3)), 112);
        publish(gateway, &channel, 13..=13);
        client.expect_silence(3);
        // The other bit alone asks for nothing, and what can be recovered is.
        assert_gap(&subscribe(&mut client, &channel, flagged(go_on(&position, 1), 1)), 13);
        client.unsubscribe(4, &channel);
        assert_recovered(&subscribe(&mut client, &channel, flagged(go_on(&position, 12), 2)), 12, &[13]);
    }
}

fn only_who_asks_is_recoverable_where_nothing_is_forced(gateway: &Gateway) {
    publish(gateway, "asked:a", 1..=2);
    let ask = |fields: Value| {
        let mut result = subscribe(&mut gateway.centrifugo(), "asked:a", fields);
        result.as_object_mut().expect("an object").remove("epoch");
        result
    };
    assert_eq!(ask(json!({})), json!({}));
    assert_eq!(ask(json!({"recover": true, "offset": 1})), json!({}), "not granted without a word");
    assert_eq!(ask(json!({"positioned": true})), json!({"positioned": true, "offset": 2}));
    let recoverable = json!({"recoverable": true, "positioned": true, "offset": 2});
    assert_eq!(ask(json!({"recoverable": true})), recoverable);
    assert_recovered(&ask(json!({"recoverable": true, "recover": true, "offset": 1})), 1, &[2]);
    // Elsewhere the client has no say.
    assert_eq!(
        subscribe(&mut gateway.centrifugo(), "gone:a", json!({"recoverable": true, "positioned": true})),
        json!({})
    );
}

fn a_cache_brings_the_newest_publication_alone(gateway: &Gateway) {
    let recover = json!({"recover": true});
    assert_gap(&subscribe(&mut gateway.centrifugo(), "state:a", recover.clone()), 0);
    for channel in ["state:a", "latest:a"] {
        publish(gateway, channel, 1..=9);
        let fresh = subscribe(&mut gateway.centrifugo(), channel, json!({}));
        assert_eq!(numbers(&fresh), if channel == "latest:a" { vec![9] } else { vec![] }, "{fresh}");
        for position in [recover.clone(), go_on(&fresh, 1), json!({"recover": true, "epoch": "abcdefgh", "offset": 9})]
        {
            let result = subscribe(&mut gateway.centrifugo(), channel, position);
            assert_recovered(&result, 9, &[9]);
        }
        assert_recovered(&subscribe(&mut gateway.centrifugo(), channel, go_on(&fresh, 9)), 9, &[]);
    }
}

fn history(client: &mut Client, channel: &str, fields: Value) -> Value {
    let mut request = fields;
    request["channel"] = json!(channel);
    let mut reply = client.call(json!({"id": 8, "history": request}));
    if reply.get("error").is_some() { reply["error"]["code"].take() } else { reply["history"].take() }
}

fn the_history_is_read_in_pages_from_both_ends(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let result = subscribe(&mut client, "kept:a", json!({}));
    let epoch = epoch(&result).to_owned();
    assert_eq!(
        history(&mut client, "kept:a", json!({"limit": -1})),
        json!({"publications": [], "epoch": epoch, "offset": 0})
    );
    publish(gateway, "kept:a", 1..=12);
    (1..=12).for_each(|n| assert_eq!(next_number(&mut client, "kept:a"), n));
    let only_position = json!({"publications": [], "epoch": epoch, "offset": 12});
    assert_eq!(history(&mut client, "kept:a", json!({})), only_position);
    let since = |offset: u64| json!({"offset": offset, "epoch": epoch});
    let reversed = |fields: Value| {
        let mut fields = fields;
        fields["reverse"] = json!(true);
        fields
    };
    // Ten are kept, five fit a page.
    let cases: [(Value, &[u64]); 9] = [
        (json!({"limit": 2}), &[3, 4]),
        (json!({"limit": -1}), &[3, 4, 5, 6, 7]),
        (json!({"limit": 100, "since": since(7)}), &[8, 9, 10, 11, 12]),
        (json!({"limit": 2, "since": {"offset": 10}}), &[11, 12]),
        (json!({"limit": 2, "since": since(12)}), &[]),
        (json!({"limit": 2, "since": since(99)}), &[]),
        (reversed(json!({"limit": 3})), &[12, 11, 10]),
        (reversed(json!({"limit": 100, "since": since(5)})), &[4, 3]),
        (reversed(json!({"limit": 1, "since": since(0)})), &[]),
    ];
    for (fields, expected) in cases {
        let page = history(&mut client, "kept:a", fields.clone());
        assert_eq!((numbers(&page), &page["offset"]), (expected.to_vec(), &json!(12)), "{fields}");
    }
    for bad in ["_", "abcdefgh"] {
        let asked = json!({"limit": 1, "since": {"offset": 1, "epoch": bad}});
        assert_eq!(history(&mut client, "kept:a", asked), 112);
    }
}

fn a_history_that_may_not_be_read_is_refused(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    assert_eq!(history(&mut client, "kept:a", json!({})), 103, "only subscribers may");
    subscribe(&mut client, "kept:a", json!({}));
    assert!(history(&mut client, "kept:a", json!({}))["epoch"].is_string());
    assert_eq!(history(&mut client, "few:a", json!({})), 103);
    assert_eq!(history(&mut client, "gone:a", json!({})), 108, "there is none");
    assert_eq!(history(&mut client, "unknown:a", json!({})), 102);
    assert_eq!(history(&mut client, "kept:\u{e9}", json!({})), 107);
    client.send(&json!({"id": 1, "history": {"channel": ""}}));
    client.expect_close(3501, "bad request");
}

fn long(n: u64) -> Value {
    json!({"n": n, "text": "x".repeat(150)})
}

fn a_recovery_that_does_not_fit_a_reply_is_a_gap_and_no_disconnect(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let position = subscribe(&mut client, "kept:a", json!({}));
    for n in 1..=5 {
        gateway.publish("kept:a", &long(n)).expect("published");
        assert_eq!(next_number(&mut client, "kept:a"), n);
    }
    let mut other = gateway.centrifugo();
    // At home four of them seem to fit; with their envelopes they do not.
    for from in [1, 0] {
        assert_gap(&subscribe(&mut other, "kept:a", go_on(&position, from)), 5);
        other.unsubscribe(3, "kept:a");
    }
    assert_recovered(&subscribe(&mut other, "kept:a", go_on(&position, 3)), 3, &[4, 5]);
    // A plain client is told the same in its first push.
    let wanted = |offset: u64| {
        let position = json!({"subs": {"kept:a": go_on(&position, offset)}});
        let mut plain = gateway.websocket("/connection/uni_websocket");
        plain.send(&position);
        plain.json()["connect"]["subs"]["kept:a"].take()
    };
    assert_gap(&wanted(1), 5);
    assert_recovered(&wanted(4), 4, &[5]);
}

fn a_page_that_does_not_fit_a_reply_is_cut(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    subscribe(&mut client, "kept:a", json!({}));
    for n in 1..=5 {
        gateway.publish("kept:a", &long(n)).expect("published");
        assert_eq!(next_number(&mut client, "kept:a"), n);
    }
    let page = history(&mut client, "kept:a", json!({"limit": 5}));
    let got = numbers(&page);
    assert!((1..5).contains(&got.len()) && page["offset"] == 5, "{page}");
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>(), "what fits, from the front");
}

fn draft(channel: &str, n: u64, options: PublishOptions) -> Draft {
    let data = json!({ "n": n }).to_string().into_bytes();
    Draft { options: Some(Box::new(options)), ..Draft::new(Channel::new(channel), data) }
}

fn repeated_and_outdated_publishes_reach_nobody(gateway: &Gateway) {
    let key = |key: &str| PublishOptions { idempotency_key: Some(key.into()), ..PublishOptions::default() };
    let mut client = gateway.centrifugo();
    for channel in ["kept:a", "gone:a"] {
        subscribe(&mut client, channel, json!({}));
        let first = gateway.publish_draft(draft(channel, 1, key("k"))).expect("published");
        let again = gateway.publish_draft(draft(channel, 99, key("k"))).expect("answered as the first");
        let other = gateway.publish_draft(draft(channel, 2, key("l"))).expect("published");
        assert_eq!((again, other.position.offset.0), (first, 2));
        assert_eq!([client.json(), client.json()].map(|m| m["push"]["pub"]["data"]["n"].clone()), [1, 2]);
        client.expect_silence(3);
    }
    let version = |version: u64, epoch: Option<&str>| PublishOptions {
        version,
        version_epoch: epoch.map(Into::into),
        ..PublishOptions::default()
    };
    let accepted = [(5, None, 3), (6, None, 4), (1, Some("e"), 5), (2, Some("e"), 6), (0, None, 7)];
    let outdated = [(5, None, 3), (3, None, 4), (1, Some("e"), 5), (2, None, 6), (2, Some("e"), 7)];
    for ((new, epoch, n), (old, old_epoch, top)) in accepted.into_iter().zip(outdated) {
        let published = gateway.publish_draft(draft("kept:a", n, version(new, epoch))).expect("published");
        assert_eq!(published.position.offset.0, n);
        let left_out = gateway.publish_draft(draft("kept:a", 99, version(old, old_epoch))).expect("answered");
        assert_eq!((left_out.position.offset.0, left_out.workers), (top, 0), "{old} {old_epoch:?}");
        assert_eq!(next_number(&mut client, "kept:a"), n);
    }
    client.expect_silence(4);
    assert_eq!((gateway.sum(Number::PublishesRepeated), gateway.sum(Number::PublishesOutdated)), (2, 5));
}

fn what_skips_the_history_has_no_place_in_it(gateway: &Gateway) {
    let skip = PublishOptions { skip_history: true, ..PublishOptions::default() };
    let mut client = gateway.centrifugo();
    let position = subscribe(&mut client, "kept:a", json!({}));
    publish(gateway, "kept:a", 1..=1);
    let skipped = gateway.publish_draft(draft("kept:a", 99, skip)).expect("published");
    assert!(!skipped.recorded && skipped.workers == 1);
    publish(gateway, "kept:a", 2..=2);
    assert_eq!(next_number(&mut client, "kept:a"), 1);
    assert_eq!(client.json(), json!({"push": {"channel": "kept:a", "pub": {"data": {"n": 99}}}}));
    assert_eq!(next_number(&mut client, "kept:a"), 2);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 0)), 0, &[1, 2]);
}

fn a_history_can_be_dropped_and_its_numbering_goes_on(gateway: &Gateway) {
    publish(gateway, "kept:a", 1..=3);
    let position = subscribe(&mut gateway.centrifugo(), "kept:a", json!({}));
    gateway.remove_history("kept:a");
    gateway.remove_history("kept:never-used");
    assert_gap(&subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 2)), 3);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 3)), 3, &[]);
    // Tags travel with what is kept from now on.
    let tags = Tags::from([("lang".to_owned(), "de".to_owned())]);
    let data = json!({"n": 4}).to_string().into_bytes();
    let tagged = Draft { tags: Some(Box::new(tags)), ..Draft::new(Channel::new("kept:a"), data) };
    gateway.publish_draft(tagged).expect("published");
    let result = subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 3));
    assert_recovered(&result, 3, &[4]);
    assert_eq!(result["publications"][0]["tags"], json!({"lang": "de"}));
}

fn plain_clients_recover_at_connect(gateway: &Gateway) {
    let channels = [0, 1].map(|home| gateway.channel_in("kept:", home));
    let mut positions = Vec::new();
    for channel in &channels {
        publish(gateway, channel, 1..=3);
        positions.push(subscribe(&mut gateway.centrifugo(), channel, json!({})));
    }
    let mut plain = gateway.websocket("/connection/uni_websocket");
    plain.send(&json!({"subs": {
        &channels[0]: go_on(&positions[0], 1),
        &channels[1]: {"offset": 1},
        "gone:a": {"recover": true, "offset": 1},
        "kept:fresh": null,
    }}));
    let push = plain.json();
    let subs = &push["connect"]["subs"];
    assert_recovered(&subs[&channels[0]], 1, &[2, 3]);
    assert_eq!((&subs[&channels[1]]["offset"], subs[&channels[1]].get("was_recovering")), (&json!(3), None));
    assert_eq!(subs["gone:a"], json!({}));
    assert_eq!(subs["kept:fresh"]["recoverable"], true);
    let published = gateway.publish(&channels[0], &json!({"n": 4})).expect("published");
    assert_eq!(published.position.offset.0, 4);
    let mut live = plain.json();
    live["pub"].as_object_mut().expect("a publication").remove("time").expect("a time");
    let mut expected = plain_push(&channels[0], &json!({"n": 4}));
    expected["pub"]["offset"] = json!(4);
    assert_eq!(live, expected);
}

fn many_that_come_back_together_share_what_they_missed(gateway: &Gateway) {
    let channel = gateway.channel_in("kept:", 1);
    let position = subscribe(&mut gateway.centrifugo(), &channel, json!({}));
    publish(gateway, &channel, 1..=6);
    let mut clients: Vec<Client> = (0..20).map(|i| gateway.centrifugo_of(i % 2)).collect();
    for client in &clients {
        let mut request = go_on(&position, 2);
        request["channel"] = json!(channel);
        client.send(&json!({"id": 2, "subscribe": request}));
    }
    for client in &mut clients {
        let reply = client.json();
        assert_recovered(&reply["subscribe"], 2, &[3, 4, 5, 6]);
    }
    publish(gateway, &channel, 7..=7);
    clients.iter_mut().for_each(|client| assert_eq!(next_number(client, &channel), 7));
    let (encoded, shared) = (gateway.sum(Number::RecoveriesEncoded), gateway.sum(Number::RecoveriesShared));
    assert!(encoded <= 2 && encoded + shared == 20, "{encoded} encoded, {shared} shared");
}

fn channels_without_subscribers_make_room_for_new_ones(gateway: &Gateway) {
    let mut stayer = gateway.centrifugo();
    let kept = subscribe(&mut stayer, "kept:subscribed", json!({}));
    publish(gateway, "kept:subscribed", 1..=1);
    publish(gateway, "kept:idle", 1..=2);
    let idle = subscribe(&mut gateway.centrifugo(), "kept:idle", json!({}));
    gateway.until("the visitor has left", || gateway.sum(Number::Subscriptions) == 1);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:idle", go_on(&idle, 1)), 1, &[2]);
    gateway.until("the visitor has left", || gateway.sum(Number::Subscriptions) == 1);
    // A third channel takes the place of the idle one, whose clients have a gap under a new epoch.
    publish(gateway, "kept:new", 1..=1);
    let after = subscribe(&mut gateway.centrifugo(), "kept:idle", go_on(&idle, 2));
    assert_gap(&after, 0);
    assert_ne!(epoch(&after), epoch(&idle));
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:subscribed", go_on(&kept, 0)), 0, &[1]);
    // With a subscriber in each there is no room.
    let mut second = gateway.centrifugo();
    gateway.until("the visitors have left", || gateway.sum(Number::Subscriptions) == 1);
    subscribe(&mut second, "kept:idle", json!({}));
    assert_eq!(subscribe(&mut gateway.centrifugo(), "kept:new", json!({})), 100);
    assert!(gateway.publish("kept:new", &json!(1)).is_err(), "what would be kept and cannot is refused");
    assert!(gateway.publish("gone:new", &json!(1)).is_ok());
}

fn histories_of_channels_without_subscribers_make_room_for_new_publications(gateway: &Gateway) {
    let mut stayer = gateway.centrifugo();
    let position = subscribe(&mut stayer, "kept:a", json!({}));
    publish(gateway, "kept:idle", 1..=5);
    publish(gateway, "kept:a", 1..=5);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 0)), 0, &[1, 2, 3, 4, 5]);
    publish(gateway, "kept:a", 6..=6);
    gateway.until("the worker has counted", || gateway.sum(Number::HistoryBytes) <= 3000);
    publish(gateway, "kept:b", 1..=10);
    assert!(gateway.sum(Number::HistoryEmptied) > 0);
    // The idle channel was emptied; the one with a subscriber was not.
    let idle = subscribe(&mut gateway.centrifugo(), "kept:idle", json!({"recover": true, "offset": 4}));
    assert_gap(&idle, 5);
    let at_top = subscribe(&mut gateway.centrifugo(), "kept:idle", go_on(&idle, 5));
    assert_recovered(&at_top, 5, &[]);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "kept:a", go_on(&position, 3)), 3, &[4, 5, 6]);
    assert!(gateway.sum(Number::HistoryBytes) <= 3000);
}

fn a_publication_is_kept_for_its_time(gateway: &Gateway) {
    let position = subscribe(&mut gateway.centrifugo(), "brief:a", json!({}));
    publish(gateway, "brief:a", 1..=1);
    gateway.pass(Duration::from_millis(1500));
    publish(gateway, "brief:a", 2..=2);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "brief:a", go_on(&position, 0)), 0, &[1, 2]);
    gateway.pass(Duration::from_millis(600));
    assert_gap(&subscribe(&mut gateway.centrifugo(), "brief:a", go_on(&position, 0)), 2);
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "brief:a", go_on(&position, 1)), 1, &[2]);
    // Nobody has to look for it to go.
    gateway.pass(Duration::from_millis(2000));
    assert_eq!(gateway.sum(Number::HistoryPublications), 0);
}

fn a_position_is_remembered_for_its_time(gateway: &Gateway) {
    let mut client = gateway.centrifugo();
    let position = subscribe(&mut client, "brief:a", json!({}));
    // A subscriber keeps it as long as it stays.
    gateway.pass(Duration::from_secs(20));
    drop(client);
    gateway.pass(Duration::from_millis(4500));
    assert_recovered(&subscribe(&mut gateway.centrifugo(), "brief:a", go_on(&position, 0)), 0, &[]);
    gateway.pass(Duration::from_millis(5500));
    assert_eq!(gateway.sum(Number::HistoryChannels), 0, "forgotten without being asked");
    let after = subscribe(&mut gateway.centrifugo(), "brief:a", go_on(&position, 0));
    assert_gap(&after, 0);
    assert_ne!(epoch(&after), epoch(&position));
}

fn recoveries_beside_live_publications_neither_lose_nor_repeat(gateway: &Gateway) {
    let channel = gateway.channel_in("kept:", 1);
    let position = subscribe(&mut gateway.centrifugo(), &channel, json!({}));
    let mut clients: Vec<Client> = (0..12).map(|i| gateway.centrifugo_of(i % 3)).collect();
    let mut n = 0;
    for client in &clients {
        // Published, recovering and published again without waiting for anything.
        for _ in 0..3 {
            n += 1;
            gateway.begin_publish(&channel, &json!({ "n": n })).expect("room");
        }
        let mut request = go_on(&position, n - 3);
        request["channel"] = json!(channel);
        client.send(&json!({"id": 2, "subscribe": request}));
    }
    let last = n + 1;
    gateway.publish(&channel, &json!({ "n": last })).expect("published");
    for (i, client) in clients.iter_mut().enumerate() {
        let reply = client.json();
        let result = &reply["subscribe"];
        let from = 3 * i as u64;
        let mut expected = match result["recovered"] == true {
            true => {
                let missed = numbers(result);
                assert!(missed.iter().copied().eq(from + 1..=from + missed.len() as u64), "{from}: {missed:?}");
                from + missed.len() as u64 + 1
            }
            // More than six had been published by then.
            false => {
                let top = result["offset"].as_u64().expect("an offset");
                assert!(top > from + 6, "a gap at {from} though the channel was at {top}");
                top + 1
            }
        };
        while expected <= last {
            assert_eq!(next_number(client, &channel), expected);
            expected += 1;
        }
        client.expect_silence(3);
    }
}
