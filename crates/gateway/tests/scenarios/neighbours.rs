//! What one worker has to bear is no concern of the others.

use crate::support::client::text_frame;
use crate::support::{Client, Gateway, Seen, Setup, on_the_simulator};
use serde_json::json;
use std::time::Duration;

on_the_simulator! {
    a_full_worker_turns_clients_away_and_the_other_takes_them: Setup { connections_max: 2, ..Setup::dev().workers(2) },
    a_hot_worker_delays_nobody_elsewhere: Setup::dev().workers(2).mailbox(4096, 2048),
}

fn echoes(client: &mut Client, text: &str) {
    client.write(text_frame(text));
    assert_eq!(client.next(), Seen::Text(text.to_owned()));
}

fn a_full_worker_turns_clients_away_and_the_other_takes_them(gateway: &Gateway) {
    let mut on_the_full_one = [gateway.websocket_of(0, "/echo"), gateway.websocket_of(0, "/echo")];
    let mut turned_away = gateway.client_of(0);
    assert_eq!(turned_away.response().status, 503);
    turned_away.end();
    // The others do not notice: neither those on it, nor those on the other worker, nor new ones there.
    let mut elsewhere = gateway.websocket_of(1, "/echo");
    for (number, client) in on_the_full_one.iter_mut().chain([&mut elsewhere]).enumerate() {
        echoes(client, &number.to_string());
    }
    let mut new = gateway.websocket_of(1, "/echo");
    echoes(&mut new, "new");
}

/// Publications for a channel of worker 0 with subscribers there, more than it sends in a tick, while a client of worker 1
/// is answered within a round trip: nothing on its way waits for the other worker.
fn a_hot_worker_delays_nobody_elsewhere(gateway: &Gateway) {
    const PUBLICATIONS: u64 = 2_000;
    let (hot, quiet) = (gateway.channel_of(0), gateway.channel_of(1));
    let mut listeners: Vec<_> = (0..20).map(|_| gateway.subscriber_of(0, &hot)).collect();
    let mut calm = gateway.centrifugo_of(1);
    // How long an answer takes when nothing else happens.
    let begun = gateway.now();
    calm.call(json!({"id": 3, "publish": {"channel": quiet, "data": "before"}}));
    let undisturbed = gateway.now() - begun;
    for number in 0..PUBLICATIONS {
        gateway.begin_publish(&hot, &json!(number)).expect("room for all");
    }
    let begun = gateway.now();
    calm.call(json!({"id": 4, "publish": {"channel": quiet, "data": "amid"}}));
    let amid = gateway.now() - begun;
    assert!(amid <= undisturbed * 4 + Duration::from_millis(5), "{amid:?} amid, {undisturbed:?} undisturbed");
    for listener in &mut listeners {
        for number in 0..PUBLICATIONS {
            assert_eq!(listener.json()["push"]["pub"]["data"], number);
        }
    }
}
