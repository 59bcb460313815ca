//! permessage-deflate: who gets what compressed, that everybody reads the same, and what clients may not send.

use crate::support::client::{close_frame, raw_frame, text_frame, upgrade_request};
use crate::support::{Client, Ended, Gateway, Seen, Setup, in_every_format, on_every_driver};
use gateway::stats::Number;
use hub::{Namespace, Namespaces, SlowClient};
use serde_json::{Value, json};
use std::time::Duration;
use wire::ws::deflate::{Compressor, Level};
use wire::ws::extension::{ClientWindow, Offer};

on_every_driver! {
    offers_are_answered_as_the_rfc_says: Setup::dev().compressing(),
    nothing_is_agreed_where_compression_is_off: Setup::dev(),
    compressed_messages_of_clients_are_read_and_may_refer_to_earlier_ones: Setup::dev().compressing(),
    a_compressed_message_that_was_not_agreed_is_told_1002_and_a_broken_one_1007: Setup::dev().compressing(),
    a_bomb_is_told_1009: Setup::dev().compressing(),
    messages_that_come_while_we_close_are_read_over: Setup::dev().compressing().with(|s| s.times.close_timeout = SHORT),
    what_clients_send_has_a_limit_beyond_which_new_ones_go_uncompressed: little_history(),
    who_skips_reads_what_is_left_to_the_byte: policies(),
    who_is_conflated_reads_what_is_left_to_the_byte: policies(),
}

in_every_format! {
    everybody_gets_the_same_compressed_or_not: Setup::dev().compressing(),
    a_publication_is_compressed_at_most_twice_whatever_the_audience: Setup::dev().compressing(),
    a_namespace_may_go_uncompressed: policies(),
    channels_that_take_turns_are_never_mixed_up: Setup::dev().compressing(),
    short_messages_go_as_they_are: Setup::dev().compressing().with(thresholds),
}

const SHORT: Duration = Duration::from_millis(300);

fn policies() -> Setup {
    let named =
        |name: &str, slow_client| Namespace { name: name.into(), slow_client, compress: true, ..<_>::default() };
    let all = vec![
        named("skip", SlowClient::DropOldest),
        named("newest", SlowClient::Conflate),
        Namespace { compress: false, ..named("asis", SlowClient::Disconnect) },
    ];
    let namespaces = Namespaces::new(named("", SlowClient::Disconnect), all).expect("good namespaces");
    Setup::dev().compressing().with(|s| {
        s.namespaces = namespaces.accepting_unknown();
        s.limits.outbox_bytes_max = 400 * 1024;
        s.limits.outbox_high_water = 200 * 1024;
        s.limits.outbox_low_water = 100 * 1024;
    })
}

fn little_history() -> Setup {
    Setup::dev().compressing().with(|s| s.compression.as_mut().expect("just set").client_history_bytes_max = 2048)
}

fn thresholds(settings: &mut conn::Settings) {
    let compression = settings.compression.as_mut().expect("just set");
    (compression.publication_bytes_min, compression.reply_bytes_min) = (200, 1 << 20);
}

/// A publication that resembles the one before.
fn tick(number: u64) -> Value {
    json!({"number": number, "symbol": "ACME", "bid": number * 3, "ask": number * 3 + 2, "venue": "far away, far away, far away, far away"})
}

/// A client that offers something of its own.
fn offering(gateway: &Gateway, offer: Option<Offer>, channel: &str) -> Client {
    let mut client = gateway.centrifugo_offering(offer);
    let reply = client.call(json!({"id": 2, "subscribe": {"channel": channel}}));
    assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
    client
}

/// Offers that differ in what they make of a broadcast.
fn offers() -> [Option<Offer>; 4] {
    let offer = Offer { client_max_window_bits: ClientWindow::Any, ..Offer::default() };
    [
        Some(offer),
        Some(Offer { server_no_context_takeover: true, ..offer }),
        Some(Offer { server_max_window_bits: Some(9), ..offer }),
        None,
    ]
}

fn pushed(client: &mut Client, channel: &str) -> Value {
    let push = client.json();
    assert_eq!(push["push"]["channel"], channel, "{push}");
    push["push"]["pub"]["data"].clone()
}

fn offers_are_answered_as_the_rfc_says(gateway: &Gateway) {
    let all = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
               server_max_window_bits=12; client_max_window_bits=9";
    let table: [(&str, Result<Option<&str>, u16>); 13] = [
        ("permessage-deflate", Ok(Some("permessage-deflate"))),
        ("permessage-deflate; client_max_window_bits", Ok(Some("permessage-deflate; client_max_window_bits=10"))),
        (all, Ok(Some(all))),
        ("permessage-deflate; server_max_window_bits=8", Ok(None)),
        ("permessage-deflate; server_max_window_bits=9", Ok(Some("permessage-deflate; server_max_window_bits=9"))),
        ("permessage-deflate; unheard_of", Ok(None)),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", Ok(None)),
        ("permessage-deflate; server_max_window_bits=16", Ok(None)),
        ("permessage-deflate; server_max_window_bits=16, permessage-deflate", Ok(Some("permessage-deflate"))),
        ("x-webkit-deflate-frame", Ok(None)),
        ("permessage-deflate;", Err(400)),
        ("permessage-deflate; =15", Err(400)),
        ("permessage-deflate permessage-deflate", Err(400)),
    ];
    for (offer, expected) in table {
        let mut client = gateway.client();
        client.write(upgrade_request("/echo", None, &[("Sec-WebSocket-Extensions", offer)]));
        let response = client.response();
        let answer =
            if response.status == 101 { Ok(response.header("Sec-WebSocket-Extensions")) } else { Err(response.status) };
        assert_eq!(answer, expected, "{offer}");
    }
}

fn nothing_is_agreed_where_compression_is_off(gateway: &Gateway) {
    let mut client = gateway.client();
    client.write(upgrade_request("/echo", None, &[("Sec-WebSocket-Extensions", "permessage-deflate")]));
    let response = client.response();
    assert_eq!((response.status, response.header("Sec-WebSocket-Extensions")), (101, None));
    // The grammar is judged all the same: a switch of ours changes no verdict about a request.
    let mut client = gateway.client();
    client.write(upgrade_request("/echo", None, &[("Sec-WebSocket-Extensions", "permessage-deflate;")]));
    assert_eq!(client.response().status, 400);
}

fn everybody_gets_the_same_compressed_or_not(gateway: &Gateway) {
    let mut clients = offers().map(|offer| offering(gateway, offer, "ticks"));
    for number in 0..20 {
        gateway.publish("ticks", &tick(number)).expect("published");
        for client in &mut clients {
            assert_eq!(pushed(client, "ticks"), tick(number));
        }
    }
    for client in &clients {
        let is_agreed = client.deflate.is_some();
        assert_eq!(client.offer.is_some(), is_agreed);
        assert!(if is_agreed { client.inflated() >= 20 } else { client.inflated() == 0 }, "{}", client.inflated());
    }
    let sums = |numbers: [Number; 3]| numbers.map(|number| gateway.sum(number));
    gateway.until("the last tick is counted", || gateway.sum(Number::AfterMessages) == 2 * 19);
    let [messages, plain, packed] = sums([Number::AfterMessages, Number::AfterPlainBytes, Number::AfterPackedBytes]);
    assert!(packed * 3 < plain, "{messages} messages: {packed} of {plain} bytes");
    // Who forgets gets each by itself, and of the others each the first.
    assert_eq!(gateway.sum(Number::AloneMessages), 20 + 2);
}

fn a_publication_is_compressed_at_most_twice_whatever_the_audience(gateway: &Gateway) {
    let mut clients: Vec<Client> =
        (0..6).flat_map(|_| offers()).map(|offer| offering(gateway, offer, "ticks")).collect();
    for number in 0..10 {
        gateway.publish("ticks", &tick(number)).expect("published");
        clients.iter_mut().for_each(|client| assert_eq!(pushed(client, "ticks"), tick(number)));
    }
    gateway.until("the last tick is counted", || gateway.sum(Number::CompressedPublications) == 10);
    assert_eq!(gateway.sum(Number::PublicationCompressions), 1 + 9 * 2, "the first has none before it");
}

fn a_namespace_may_go_uncompressed(gateway: &Gateway) {
    let offer = offers()[0];
    for (channel, is_compressed) in [("asis:ticks", false), ("skip:ticks", true)] {
        let mut client = offering(gateway, offer, channel);
        let before = client.inflated();
        for number in 0..5 {
            gateway.publish(channel, &tick(number)).expect("published");
            assert_eq!(pushed(&mut client, channel), tick(number));
        }
        assert_eq!(client.inflated() - before, if is_compressed { 5 } else { 0 }, "{channel}");
    }
}

/// Each is compressed after the last one of its own channel, or by itself.
fn channels_that_take_turns_are_never_mixed_up(gateway: &Gateway) {
    let mut clients = offers().map(|offer| offering(gateway, offer, "a"));
    for client in &mut clients {
        client.subscribe(3, "b");
    }
    for number in 0..60 {
        // Turns of different lengths.
        let channel = if number % 7 < 4 { "a" } else { "b" };
        gateway.publish(channel, &tick(number)).expect("published");
        clients.iter_mut().for_each(|client| assert_eq!(pushed(client, channel), tick(number)));
        if number % 11 == 0 {
            clients.iter_mut().for_each(|client| client.expect_silence(4));
        }
    }
    assert!(gateway.sum(Number::AfterMessages) > 0 && gateway.sum(Number::AloneMessages) > 0);
}

fn short_messages_go_as_they_are(gateway: &Gateway) {
    let mut client = offering(gateway, offers()[0], "ticks");
    assert_eq!(client.inflated(), 0, "replies are short");
    gateway.publish("ticks", &json!("short")).expect("published");
    assert_eq!(pushed(&mut client, "ticks"), "short");
    assert_eq!(client.inflated(), 0);
    let long = json!("long ".repeat(50));
    gateway.publish("ticks", &long).expect("published");
    assert_eq!(pushed(&mut client, "ticks"), long);
    assert_eq!(client.inflated(), 1);
}

/// A compressed text message of a client, in one frame.
fn packed_frame(packed: &[u8]) -> Vec<u8> {
    match packed.len() {
        len @ ..126 => raw_frame(0xc1, 0x80 | len as u8, &[], packed),
        len => raw_frame(0xc1, 0xfe, &u16::try_from(len).expect("short").to_be_bytes(), packed),
    }
}

/// "Hello", as the RFC compresses it (7.2.3.1), and the same as a reference to that (7.2.3.2).
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
const AGAIN: &[u8] = b"\xf2\x00\x11\x00\x00";

fn compressed_messages_of_clients_are_read_and_may_refer_to_earlier_ones(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    client.write(packed_frame(HELLO));
    client.write(text_frame("plain in between"));
    client.write(packed_frame(AGAIN));
    client.write(b"");
    for expected in ["Hello", "plain in between", "Hello"] {
        assert_eq!(client.next(), Seen::Text(expected.into()));
    }
    // BFINAL, an empty message, and one in two frames with a ping between them.
    client.write(packed_frame(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"));
    client.write(packed_frame(b"\x00"));
    client.write(raw_frame(0x41, 0x83, &[], &HELLO[..3]));
    client.write(raw_frame(0x89, 0x80, &[], b""));
    client.write(raw_frame(0x80, 0x84, &[], &HELLO[3..]));
    let seen: Vec<Seen> = (0..4).map(|_| client.next()).collect();
    assert_eq!(
        seen,
        [Seen::Text("Hello".into()), Seen::Text(String::new()), Seen::Pong(vec![]), Seen::Text("Hello".into())]
    );
    gateway.until("what came is counted", || gateway.sum(Number::InflatedMessages) == 5);
    let text = "the same, the same, the same, the same, the same";
    let before = client.inflated();
    client.send_text(text);
    assert_eq!(client.next(), Seen::Text(text.into()));
    assert_eq!(client.inflated(), before + 1, "an echo is a reply");
}

fn a_compressed_message_that_was_not_agreed_is_told_1002_and_a_broken_one_1007(gateway: &Gateway) {
    for (offer, packed, code) in [
        (None, HELLO, Some(1002)),
        (offers()[0], HELLO, None),
        (offers()[0], AGAIN, Some(1007)),
        (offers()[0], &HELLO[..4], Some(1007)),
        // Not UTF-8.
        (offers()[0], b"\x00\x01\x00\xfe\xff\xff\x00", Some(1007)),
        (offers()[0], b"\x00\x01\x00\xfe\xff\x41\x00", None),
    ] {
        let mut client = gateway.client();
        client.offer = offer;
        client.upgrade("/echo", None);
        client.write(packed_frame(packed));
        match code {
            None => assert!(matches!(client.next(), Seen::Text(_)), "{packed:x?}"),
            Some(code) => {
                assert_eq!(client.next(), Seen::Close(Some(code), String::new()), "{packed:x?}");
                assert_eq!(client.next(), Seen::End(Ended::Fin));
            }
        }
    }
}

fn a_bomb_is_told_1009(gateway: &Gateway) {
    let limit = 64 * 1024;
    for (len, is_over) in [(limit, false), (limit + 1, true), (20 << 20, true)] {
        let mut packed = Vec::new();
        let text = vec![b' '; len];
        Compressor::new(Level::new(9).expect("1 to 9")).compress(&text, None, len, &mut packed).expect("it shrinks");
        assert!(packed.len() < 64 * 1024);
        let mut client = gateway.websocket("/echo");
        client.write(packed_frame(&packed));
        if is_over {
            assert_eq!(client.next(), Seen::Close(Some(1009), String::new()), "{len}");
            assert_eq!(client.next(), Seen::End(Ended::Fin));
        } else {
            assert_eq!(client.next(), Seen::Text(String::from_utf8(text).expect("spaces")));
        }
    }
}

/// The client's close frame is waited for behind them; one that does not come ends in a reset.
fn messages_that_come_while_we_close_are_read_over(gateway: &Gateway) {
    for (answers, ended) in [(true, Ended::Fin), (false, Ended::Reset)] {
        let mut client = gateway.centrifugo();
        client.send_text("not a command");
        assert!(matches!(client.next(), Seen::Close(Some(3501), _)));
        // They were under way.
        client.write(packed_frame(HELLO));
        client.write(packed_frame(AGAIN));
        if answers {
            client.write(close_frame(Some(3501), ""));
        }
        assert_eq!(client.next(), Seen::End(ended));
    }
}

fn what_clients_send_has_a_limit_beyond_which_new_ones_go_uncompressed(gateway: &Gateway) {
    let one = gateway.websocket("/echo");
    let two = gateway.websocket("/echo");
    let three = gateway.websocket("/echo");
    assert_eq!([&one, &two, &three].map(|client| client.deflate.is_some()), [true, true, false]);
    let forgetful = Offer { client_no_context_takeover: true, ..Offer::default() };
    let mut needs_none = gateway.client();
    needs_none.offer = Some(forgetful);
    needs_none.upgrade("/echo", None);
    assert!(needs_none.deflate.is_some());
    gateway.until("it is counted", || gateway.sum(Number::CompressionRefused) == 1);
    drop(one);
    gateway.until("its history is given back", || gateway.sum(Number::CompressionHistoryBytes) == 1024);
    assert!(gateway.websocket("/echo").deflate.is_some());
}

/// Every third is noise, so that an outbox fills; the others resemble each other.
fn mixed(number: u64) -> Value {
    if !number.is_multiple_of(3) {
        return tick(number);
    }
    let mut state = number + 1;
    let noise = (0..32 * 1024).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + 1 + (state >> 58) as u8)
    });
    json!({"number": number, "noise": noise.filter(|c| !"\"\\".contains(*c)).collect::<String>()})
}

fn who_skips_reads_what_is_left_to_the_byte(gateway: &Gateway) {
    stalls_and_reads_on(gateway, "skip:c", Number::Skipped);
}

fn who_is_conflated_reads_what_is_left_to_the_byte(gateway: &Gateway) {
    stalls_and_reads_on(gateway, "newest:c", Number::Conflated);
}

fn stalls_and_reads_on(gateway: &Gateway, channel: &str, left_out: Number) {
    let (mut slow, mut healthy) = (offering(gateway, offers()[0], channel), offering(gateway, offers()[0], channel));
    let mut number = 0;
    let mut publish = |healthy: &mut Client| {
        gateway.publish(channel, &mixed(number)).expect("published");
        assert_eq!(pushed(healthy, channel), mixed(number));
        number += 1;
        number - 1
    };
    for _ in 0..2 {
        slow.set_reading(false);
        let before = gateway.sum(left_out);
        let mut rounds = 0;
        while gateway.sum(left_out) < before + 10 {
            publish(&mut healthy);
            rounds += 1;
            assert!(rounds < 3000, "it must come to that at some time");
        }
        slow.set_reading(true);
        let last = publish(&mut healthy);
        let mut newest = None;
        while newest != Some(last) {
            let data = pushed(&mut slow, channel);
            let this = data["number"].as_u64().expect("a number");
            assert!(newest.is_none_or(|newest| newest < this), "{this} behind {newest:?}");
            assert_eq!(data, mixed(this));
            newest = Some(this);
        }
        // As good as new: one after the other again.
        let before = gateway.sum(Number::AfterMessages);
        for _ in 0..6 {
            let this = publish(&mut healthy);
            assert_eq!(pushed(&mut slow, channel), mixed(this));
        }
        gateway.until("they refer to each other again", || gateway.sum(Number::AfterMessages) >= before + 6);
    }
}
