//! The claims.

use std::time::Duration;

use io::{Budgets, Class, Closed, How, Options, PeerAddress};

use crate::harness::{Client, Ended, Harness};
use crate::real::{Real, Tcp, Unix};
use crate::simulated::{Calm, Late, SEED, Simulated, Storm};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Bytes in which a lost, doubled or swapped one shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn echo_returns_every_byte<H: Harness>() {
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

fn fragmented_input_arrives_in_order<H: Harness>() {
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

fn more_input_than_the_buffer_is_read_to_its_end<H: Harness>() {
    let mut h = H::start(Options { recv_bytes: 1000, ..Options::default() });
    h.probe().script.echo = false;
    let (mut client, id) = h.open();
    // Announced once, as one edge; a driver that reads once would leave the rest lying.
    client.write(&pattern(20_000));
    h.until("all of it", |h| h.probe().conn(id).received.len() == 20_000);
    assert!(h.probe().conn(id).received == pattern(20_000));
    assert!(h.probe().conn(id).chunks >= 20, "no chunk is larger than the buffer");
}

fn input_that_came_during_a_pause_is_received_after_it<H: Harness>() {
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

fn resume_without_a_pause_changes_nothing<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    h.both().1.resume(id);
    client.write(b"x");
    h.until("the echo", |_| client.received() == b"x");
    assert_eq!(h.probe().conn(id).chunks, 1);
}

fn a_slow_reader_gets_all_bytes_in_short_sends<H: Harness>() {
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

fn a_blocked_connection_still_receives<H: Harness>() {
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

fn a_half_closed_client_gets_its_response<H: Harness>() {
    let mut h = H::start(Options::default());
    let mut client = h.connect();
    // All of it may be there before the connection is accepted, FIN included.
    client.write(b"request");
    client.shutdown_write();
    h.until("the response and FIN", |_| client.ended() == Some(Ended::Fin));
    assert_eq!(client.received(), b"request");
    let id = h.probe().nth(0);
    h.until("the close", |h| h.probe().conn(id).closed.is_some());
    assert_eq!(h.probe().conn(id).closed, Some(Closed::ByPeer));
}

fn a_fin_alone_closes_nothing<H: Harness>() {
    let mut h = H::start(Options::default());
    h.probe().script.on_fin = None;
    let (mut client, id) = h.open();
    client.shutdown_write();
    h.until("the FIN", |h| h.probe().conn(id).fin);
    h.settle();
    let (probe, io) = h.both();
    probe.send(io, id, b"late push", Class::Broadcast);
    h.until("the push", |_| client.received() == b"late push");
    let (probe, io) = h.both();
    probe.close(io, id, How::Now);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByPeer));
    h.until("the client sees it", |_| client.ended() == Some(Ended::Fin));
}

fn flush_sends_everything_then_fin<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let bytes = pattern(500_000);
    let (probe, io) = h.both();
    probe.conn(id).outbox.extend_from_slice(&bytes);
    probe.close(io, id, How::Flush); // even if it was not marked dirty
    // Input from here on is discarded; the probe panics if it is told of any.
    client.write(&pattern(100_000));
    h.until("everything and FIN", |_| client.ended().is_some());
    assert_eq!(client.ended(), Some(Ended::Fin));
    assert!(client.received() == bytes);
    client.close();
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
    assert_eq!(h.both().1.connections(), 0);
}

fn flush_of_a_paused_connection_sees_the_peers_fin<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    h.both().1.pause(id);
    client.write(b"unread");
    client.shutdown_write();
    h.settle();
    let (probe, io) = h.both();
    probe.close(io, id, How::Flush);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
}

fn flush_waits_for_the_peers_fin_no_longer_than_linger<H: Harness>() {
    let mut h = H::start(Options { linger: ms(500), ..Options::default() });
    let (mut client, id) = h.open();
    let began = h.now();
    let (probe, io) = h.both();
    probe.send(io, id, b"bye", Class::Reply);
    probe.close(io, id, How::Flush);
    h.until("the close", |h| h.probe().conn(id).closed.is_some());
    assert_eq!(h.probe().conn(id).closed, Some(Closed::LingerExpired));
    assert!(h.now() - began >= ms(500));
    assert_eq!(client.received(), b"bye");
    assert_eq!(client.ended(), Some(Ended::Fin));
}

fn flush_resets_a_peer_that_takes_nothing<H: Harness>() {
    let mut h = H::start(Options { linger: ms(500), ..Options::default() });
    let (mut client, id) = h.open();
    client.set_reading(false);
    let (probe, io) = h.both();
    probe.send(io, id, &pattern(2_000_000), Class::Reply);
    probe.close(io, id, How::Flush);
    h.until("the close", |h| h.probe().conn(id).closed.is_some());
    assert_eq!(h.probe().conn(id).closed, Some(Closed::LingerExpired));
    h.settle();
    client.set_reading(true);
    h.until("the client sees it", |_| client.ended().is_some());
    assert!(client.received().len() < 2_000_000);
}

fn a_harsher_close_overtakes_a_flush<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    client.set_reading(false);
    let (probe, io) = h.both();
    probe.send(io, id, &pattern(2_000_000), Class::Reply);
    probe.close(io, id, How::Flush);
    h.settle();
    assert_eq!(h.probe().conn(id).closed, None);
    let (_, io) = h.both();
    io.close(id, How::Flush); // changes nothing
    io.close(id, How::Reset);
    io.close(id, How::Now); // too late
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
}

fn now_closes_at_once<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let (probe, io) = h.both();
    probe.conn(id).outbox.extend_from_slice(b"never sent");
    probe.close(io, id, How::Now);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
    h.until("FIN", |_| client.ended() == Some(Ended::Fin));
    assert_eq!(client.received(), b"");
}

fn reset_is_a_reset<H: Harness>(expected: Ended) {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let (probe, io) = h.both();
    probe.close(io, id, How::Reset);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
    h.until("the client sees it", |_| client.ended() == Some(expected));
}

fn a_reset_by_the_peer_is_told<H: Harness>(expected: &[Closed]) {
    for paused in [false, true] {
        let mut h = H::start(Options::default());
        let (mut client, id) = h.open();
        if paused {
            h.both().1.pause(id);
        }
        client.reset();
        if paused && !expected.contains(&Closed::Reset) {
            return; // a Unix socket only has a FIN, which a paused connection does not look at
        }
        h.until("the close", |h| h.probe().conn(id).closed.is_some());
        let why = h.probe().conn(id).closed.unwrap();
        assert!(expected.contains(&why), "{why:?}");
    }
}

fn a_connection_can_be_closed_inside_any_call<H: Harness>() {
    for how in [How::Flush, How::Now, How::Reset] {
        let mut h = H::start(Options { linger: ms(300), ..Options::default() });
        h.probe().script.close_on_open = Some(how);
        let mut client = h.connect();
        client.write(b"x");
        h.until("closed in opened", |h| h.probe().opened.len() == 1 && h.probe().open() == 0);
        h.probe().script.close_on_open = None;
        h.probe().script.close_on_input = Some(how);
        let (mut client, id) = h.open();
        client.write(b"x");
        h.until("closed in received", |h| h.probe().conn(id).closed.is_some());
        assert_eq!(h.both().1.connections(), 0);
    }
}

fn a_stale_id_does_nothing_to_the_next_tenant<H: Harness>() {
    let mut h = H::start(Options::default());
    let (_client, old) = h.open();
    let (probe, io) = h.both();
    probe.close(io, old, How::Now);
    h.until("the close", |h| h.probe().conn(old).closed.is_some());
    let (mut client, new) = h.open();
    assert_eq!(new.index(), old.index(), "the slot is reused");
    let now = h.now();
    let (probe, io) = h.both();
    probe.conn(new).outbox.extend_from_slice(b"quiet");
    io.dirty(old, Class::Reply);
    io.deadline(old, Some(now));
    io.pause(old);
    io.close(old, How::Reset);
    h.settle();
    assert_eq!(client.received(), b"");
    assert!(h.probe().conn(new).expired.is_empty() && h.probe().conn(new).closed.is_none());
    let (_, io) = h.both();
    io.pause(new);
    io.resume(old);
    client.write(b"x");
    h.settle();
    assert_eq!(h.probe().conn(new).received, b"", "paused, and resumed by nobody who may");
    h.both().1.resume(new);
    h.until("the echo", |_| client.received() == b"quietx");
}

fn a_deadline_fires_once_and_not_early<H: Harness>() {
    let mut h = H::start(Options::default());
    let (_one, first) = h.open();
    let (_two, second) = h.open();
    let (_three, third) = h.open();
    let at = h.now() + ms(450);
    let (_, io) = h.both();
    io.deadline(first, Some(at));
    io.deadline(second, Some(at));
    io.deadline(second, None);
    io.deadline(third, Some(at));
    io.deadline(third, Some(at + ms(500)));
    h.until("the deadlines", |h| !h.probe().conn(third).expired.is_empty());
    h.settle();
    let fired = h.probe().conn(first).expired.clone();
    assert!(fired.len() == 1 && fired[0] >= at, "{fired:?} for {at:?}");
    let latest = at + ms(350);
    assert!(!h.is_calm() || fired[0] < latest, "{fired:?} for {at:?}");
    assert!(h.probe().conn(second).expired.is_empty(), "cleared");
    let fired = h.probe().conn(third).expired.clone();
    assert!(fired.len() == 1 && fired[0] >= at + ms(500), "the last one set counts: {fired:?}");
}

fn an_alarm_wakes_the_driver_and_again_does_not_wait<H: Harness>() {
    let mut h = H::start(Options::default());
    h.step();
    let at = h.now() + ms(30);
    let (_, io) = h.both();
    io.alarm(at + ms(1000));
    io.alarm(at);
    h.until("the alarm", |h| h.both().1.now() >= at);
    let woken = h.probe().woken;
    h.both().1.again();
    h.step();
    assert!(h.probe().woken > woken);
}

fn a_full_worker_answers_and_closes<H: Harness>() {
    let options = Options { connections_max: 2, full_answer: b"503 busy".to_vec(), ..Options::default() };
    let mut h = H::start(options);
    let (one, first) = h.open();
    let (_two, _) = h.open();
    // More than may linger at once, some with a request on its way and some without.
    let mut refused: Vec<_> = (0..100).map(|_| h.connect()).collect();
    refused.iter_mut().step_by(2).for_each(|client| client.write(b"GET / HTTP/1.1\r\n\r\n"));
    h.until("all are answered", |_| refused.iter_mut().all(|client| client.ended().is_some()));
    let answered = refused.iter_mut().map(|client| usize::from(client.received() == b"503 busy")).sum::<usize>();
    assert!(answered >= 64, "{answered} got the answer");
    assert!(refused.iter_mut().step_by(2).take(16).all(|client| client.received() == b"503 busy"));
    assert_eq!(h.counters().refused_full.load(), 100);
    assert_eq!(h.probe().opened.len(), 2, "the handler never hears of them");
    assert_eq!(h.both().1.connections(), 2);
    drop(refused);
    one.close();
    h.until("a place is free", |h| h.probe().conn(first).closed.is_some());
    let (mut served, _) = h.open();
    served.write(b"now");
    h.until("the echo", |_| served.received() == b"now");
}

fn refused_connections_do_not_linger_for_ever<H: Harness>() {
    let mut h = H::start(Options { connections_max: 1, full_answer: b"full".to_vec(), ..Options::default() });
    let (_one, _) = h.open();
    // These never close; their places must become free all the same.
    let mut silent: Vec<_> = (0..64).map(|_| h.connect()).collect();
    h.until("all are answered", |_| silent.iter_mut().all(|client| client.received() == b"full"));
    let until = h.now() + ms(1500);
    h.until("their time is over", |h| h.now() >= until);
    let mut late = h.connect();
    late.write(b"request");
    h.until("the answer", |_| late.ended().is_some());
    assert_eq!(late.ended(), Some(Ended::Fin));
    assert_eq!(late.received(), b"full");
}

fn stop_accepting_serves_the_queue_first<H: Harness>() {
    let budgets = Budgets { accepts: 3, ..Budgets::default() };
    let mut h = H::start(Options { budgets, ..Options::default() });
    let mut queued: Vec<_> = (0..20).map(|_| h.connect()).collect();
    // A simulated SYN takes its time.
    if !h.is_calm() {
        h.until("the queue is known", |h| h.probe().opened.len() == 20);
    } else {
        h.until("the queue is known", |h| !h.probe().opened.is_empty());
    }
    h.both().1.stop_accepting();
    queued.iter_mut().for_each(|client| client.write(b"queued"));
    h.until("all are served", |_| queued.iter_mut().all(|client| client.received() == b"queued"));
    h.settle();
    let mut late = h.connect();
    h.until("the late one is refused", |_| late.ended() == Some(Ended::Refused));
}

fn replies_flush_before_broadcasts_and_both_in_order<H: Harness>() {
    let mut h = H::start(Options::default());
    let clients: Vec<_> = (0..6).map(|_| h.open()).collect();
    let ids: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
    h.probe().take_gathers();
    let (probe, io) = h.both();
    probe.send(io, ids[5], b"b", Class::Broadcast);
    probe.send(io, ids[0], b"b", Class::Broadcast);
    probe.send(io, ids[4], b"r", Class::Reply);
    probe.send(io, ids[1], b"b", Class::Broadcast);
    probe.send(io, ids[2], b"r", Class::Reply);
    probe.send(io, ids[1], b"r", Class::Reply); // moves up, and is flushed once
    probe.send(io, ids[4], b"b", Class::Broadcast); // stays where it is
    h.settle();
    let gathers: Vec<_> = h.probe().take_gathers();
    let expected = [ids[4], ids[2], ids[1], ids[5], ids[0]];
    if h.is_calm() {
        assert_eq!(gathers, expected, "one gather per dirty connection");
    } else {
        // Short writes gather again.
        let mut seen = Vec::new();
        gathers.into_iter().for_each(|id| {
            if !seen.contains(&id) {
                seen.push(id)
            }
        });
        assert_eq!(seen, expected);
    }
}

fn the_smallest_budgets_starve_nobody<H: Harness>() {
    let budgets = Budgets { reads: 1, read_bytes: 1, deadlines: 1, sends: 1, send_bytes: 1, accepts: 1, connects: 1 };
    let mut h = H::start(Options { budgets, recv_bytes: 512, ..Options::default() });
    let mut clients: Vec<_> = (0..10).map(|_| h.open()).collect();
    let at = h.now();
    for (number, (client, id)) in clients.iter_mut().enumerate() {
        client.write(&pattern(2000 + number));
        h.both().1.deadline(*id, Some(at));
    }
    h.until("everybody is served", |_| {
        clients.iter_mut().enumerate().all(|(number, (client, _))| client.received() == pattern(2000 + number))
    });
    h.until("every deadline", |h| clients.iter().all(|(_, id)| h.probe().conn(*id).expired.len() == 1));
}

fn many_connections_keep_their_bytes_apart<H: Harness>() {
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

fn churn_reuses_slots_and_loses_nothing<H: Harness>() {
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

fn shutdown_reports_every_connection<H: Harness>() {
    let mut h = H::start(Options::default());
    let mut clients: Vec<_> = (0..5).map(|_| h.open()).collect();
    h.shutdown();
    assert!(clients.iter().all(|(_, id)| h.probe().conn(*id).closed == Some(Closed::Shutdown)));
    h.until("the clients see it", |_| clients.iter_mut().all(|(client, _)| client.ended().is_some()));
    let mut late = h.connect();
    h.until("nobody listens", |_| late.ended() == Some(Ended::Refused));
}

fn an_outbound_connection_works_like_an_accepted_one<H: Harness>() {
    let mut h = H::start(Options { connections_max: 2, ..Options::default() });
    h.probe().script.echo = false;
    let target = h.target();
    let ours = h.both().1.connect(&target).unwrap();
    h.until("both ends open", |h| h.probe().opened.len() == 2);
    let peer = h.probe().conn(ours).peer.clone().unwrap();
    assert!(peer.outbound);
    assert!(h.both().1.connect(&target).is_err(), "both places are taken");
    if let (io::Target::Ip { to, .. }, PeerAddress::Ip(address)) = (&target, peer.address) {
        assert_eq!(*to, address);
    }
    let theirs = h.probe().opened.iter().copied().find(|id| *id != ours).unwrap();
    let (probe, io) = h.both();
    probe.send(io, ours, b"ping", Class::Reply);
    h.until("the ping", |h| h.probe().conn(theirs).received == b"ping");
    let (probe, io) = h.both();
    probe.send(io, theirs, b"pong", Class::Reply);
    probe.close(io, theirs, How::Flush);
    h.until("the pong and FIN", |h| h.probe().conn(ours).closed.is_some());
    assert_eq!(h.probe().conn(ours).received, b"pong");
    assert_eq!(h.probe().conn(ours).closed, Some(Closed::ByPeer));
    h.until("the other end", |h| h.probe().conn(theirs).closed == Some(Closed::ByUs));
}

fn a_failed_connect_is_closed_without_being_opened<H: Harness>() {
    let mut h = H::start(Options::default());
    let target = h.dead_target();
    let id = h.both().1.connect(&target).unwrap();
    h.until("the failure", |h| h.probe().conns.contains_key(&id));
    assert!(matches!(h.probe().conn(id).closed, Some(Closed::Error(libc::ECONNREFUSED | libc::ENOENT))));
    assert!(h.probe().opened.is_empty());
    let target = h.target();
    let id = h.both().1.connect(&target).unwrap();
    h.both().1.close(id, How::Now);
    h.until("given up before it began", |h| h.probe().conns.contains_key(&id));
    assert_eq!(h.probe().conn(id).closed, Some(Closed::ByUs));
    assert_eq!(h.both().1.connections(), 0);
}

macro_rules! claims {
    ($($module:ident, $harness:ty, $seeds:expr, $reset:expr, $told:expr;)*) => {$(
        mod $module {
            use super::*;

            fn on_every_seed(claim: fn()) {
                let seeds: Vec<u64> = match std::env::var("IO_SEED") {
                    Ok(seed) => vec![seed.parse().expect("IO_SEED is a number")],
                    Err(_) => (0..$seeds).collect(),
                };
                for seed in seeds {
                    SEED.set(seed);
                    if let Err(panic) = std::panic::catch_unwind(claim) {
                        eprintln!("replay with IO_SEED={seed}");
                        std::panic::resume_unwind(panic);
                    }
                }
            }

            #[test]
            fn reset_is_a_reset() {
                on_every_seed(|| super::reset_is_a_reset::<$harness>($reset));
            }

            #[test]
            fn a_reset_by_the_peer_is_told() {
                on_every_seed(|| super::a_reset_by_the_peer_is_told::<$harness>(&$told));
            }

            claims!(@each $harness:
                echo_returns_every_byte
                fragmented_input_arrives_in_order
                more_input_than_the_buffer_is_read_to_its_end
                input_that_came_during_a_pause_is_received_after_it
                resume_without_a_pause_changes_nothing
                a_slow_reader_gets_all_bytes_in_short_sends
                a_blocked_connection_still_receives
                a_half_closed_client_gets_its_response
                a_fin_alone_closes_nothing
                flush_sends_everything_then_fin
                flush_of_a_paused_connection_sees_the_peers_fin
                flush_waits_for_the_peers_fin_no_longer_than_linger
                flush_resets_a_peer_that_takes_nothing
                a_harsher_close_overtakes_a_flush
                now_closes_at_once
                a_connection_can_be_closed_inside_any_call
                a_stale_id_does_nothing_to_the_next_tenant
                a_deadline_fires_once_and_not_early
                an_alarm_wakes_the_driver_and_again_does_not_wait
                a_full_worker_answers_and_closes
                refused_connections_do_not_linger_for_ever
                stop_accepting_serves_the_queue_first
                replies_flush_before_broadcasts_and_both_in_order
                the_smallest_budgets_starve_nobody
                many_connections_keep_their_bytes_apart
                churn_reuses_slots_and_loses_nothing
                shutdown_reports_every_connection
                an_outbound_connection_works_like_an_accepted_one
                a_failed_connect_is_closed_without_being_opened
            );
        }
    )*};
    (@each $harness:ty: $($claim:ident)*) => {$(
        #[test]
        fn $claim() {
            on_every_seed(super::$claim::<$harness>);
        }
    )*};
}

claims! {
    epoll_tcp, Real<Tcp>, 1, Ended::Reset, [Closed::Reset];
    // Unix sockets know no RST: the peer sees the end of the stream, or EPIPE when it sends.
    epoll_unix, Real<Unix>, 1, Ended::Fin, [Closed::ByPeer, Closed::ByUs];
    sim_calm, Simulated<Calm>, 1, Ended::Reset, [Closed::Reset];
    sim_late, Simulated<Late>, 1, Ended::Reset, [Closed::Reset];
    sim_storm, Simulated<Storm>, 20, Ended::Reset, [Closed::Reset];
}
