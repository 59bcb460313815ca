//! Bytes in and out.

use io::{Class, Options};

use super::pattern;
use crate::harness::{Client, Ended, Harness};

pub(crate) fn echo_returns_every_byte<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    client.write(b"hello");
    h.until("the echo", |_| client.received() == b"hello");
    let peer = h.probe().conn(id).peer.clone().unwrap();
    assert!(!peer.outbound && peer.listener == 0);
    let big = pattern(1_000_000);
    client.write(&big);
    h.until("the big echo", |_| client.received().len() == 5 + big.len());
    assert!(client.received()[5..] == big);
    assert_eq!(h.probe().conn(id).sent, 5 + big.len());
}

pub(crate) fn fragmented_input_arrives_in_order<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let bytes = pattern(300);
    for piece in bytes.chunks(3) {
        client.write(piece);
        h.step();
    }
    h.until("all of it", |h| h.probe().conn(id).received.len() == bytes.len());
    assert_eq!(h.probe().conn(id).received, bytes);
    assert!(h.probe().conn(id).chunks > 1);
}

pub(crate) fn more_input_than_the_buffer_is_read_to_its_end<H: Harness>() {
    let mut h = H::start(Options { recv_bytes: 1000, ..Options::default() });
    h.probe().script.echo = false;
    let (mut client, id) = h.open();
    // Announced once, as one edge; a driver that reads once would leave the rest lying.
    client.write(&pattern(20_000));
    h.until("all of it", |h| h.probe().conn(id).received.len() == 20_000);
    assert!(h.probe().conn(id).received == pattern(20_000));
    assert!(h.probe().conn(id).chunks >= 20, "no chunk is larger than the buffer");
}

pub(crate) fn input_that_came_during_a_pause_is_received_after_it<H: Harness>() {
    let mut h = H::start(Options::default());
    h.probe().script.pause_at = Some(1);
    let (mut client, id) = h.open();
    client.write(b"one");
    h.until("the pause", |h| h.probe().conn(id).paused);
    let first = h.probe().conn(id).received.len();
    client.write(b"two");
    client.shutdown_write();
    h.settle();
    assert_eq!(h.probe().conn(id).received.len(), first, "paused");
    h.probe().script.pause_at = None;
    let (probe, io) = h.both();
    probe.conn(id).paused = false;
    io.resume(id);
    // FIN was announced during the pause, and it is announced once.
    h.until("the rest and the FIN", |h| h.probe().conn(id).fin);
    assert_eq!(h.probe().conn(id).received, b"onetwo");
    h.until("the echo", |_| client.received() == b"onetwo" && client.ended() == Some(Ended::Fin));
}

pub(crate) fn resume_without_a_pause_changes_nothing<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    h.both().1.resume(id);
    client.write(b"x");
    h.until("the echo", |_| client.received() == b"x");
    assert_eq!(h.probe().conn(id).chunks, 1);
}

pub(crate) fn a_slow_reader_gets_all_bytes_in_short_sends<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    client.set_reading(false);
    let bytes = pattern(2_000_000);
    let (probe, io) = h.both();
    probe.send(io, id, &bytes, Class::Broadcast);
    h.settle();
    let sent = h.probe().conn(id).sent;
    assert!(sent > 0 && sent < bytes.len(), "the kernel's buffers hold {sent}");
    assert!(h.counters().short_sends.load() > 0);
    let sends = h.counters().sends.load();
    h.settle();
    assert_eq!(h.counters().sends.load(), sends, "a full socket is not tried again before it can take more");
    client.set_reading(true);
    h.until("everything", |_| client.received().len() == bytes.len());
    assert!(client.received() == bytes);
}

pub(crate) fn a_blocked_connection_still_receives<H: Harness>() {
    let mut h = H::start(Options::default());
    h.probe().script.echo = false;
    let (mut client, id) = h.open();
    client.set_reading(false);
    let (probe, io) = h.both();
    probe.send(io, id, &pattern(2_000_000), Class::Reply);
    h.settle();
    client.write(b"still here");
    h.until("the input", |h| h.probe().conn(id).received == b"still here");
}

pub(crate) fn many_connections_keep_their_bytes_apart<H: Harness>() {
    let mut h = H::start(Options::default());
    let mut clients: Vec<_> = (0..300).map(|_| h.connect()).collect();
    for round in 0..3u32 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write(format!("{number}:{round};").as_bytes());
        }
        h.until("all echoes", |_| {
            clients.iter_mut().enumerate().all(|(number, client)| {
                let expected: String = (0..=round).map(|round| format!("{number}:{round};")).collect();
                client.received() == expected.as_bytes()
            })
        });
    }
    assert_eq!(h.both().1.connections(), 300);
    clients.into_iter().for_each(Client::close);
    h.until("all closed", |h| h.probe().open() == 0);
    assert_eq!(h.both().1.connections(), 0);
    assert_eq!(h.counters().closed.load(), 300);
    assert_eq!(h.counters().connections.load(), 0);
}

pub(crate) fn churn_reuses_slots_and_loses_nothing<H: Harness>() {
    let mut h = H::start(Options { connections_max: 4, ..Options::default() });
    for round in 0..30 {
        let (mut one, first) = h.open();
        let (mut two, second) = h.open();
        assert!(first.index() < 4 + 64 && second.index() < 4 + 64);
        one.write(b"one");
        two.write(b"two");
        h.until("the echoes", |_| one.received() == b"one" && two.received() == b"two");
        match round % 3 {
            0 => one.close(),
            1 => one.reset(),
            _ => one.shutdown_write(),
        }
        two.close();
        h.until("both closed", |h| h.probe().conn(first).closed.and(h.probe().conn(second).closed).is_some());
    }
    assert_eq!(h.probe().opened.len(), 60);
}
