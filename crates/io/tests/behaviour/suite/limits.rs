//! Deadlines, budgets, order, and the full worker.

use io::{Budgets, Class, How, Options, REFUSED_MAX};

use super::{ms, pattern};
use crate::harness::{Client, Ended, Harness};

pub(crate) fn a_deadline_fires_once_and_not_early<H: Harness>() {
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

pub(crate) fn an_alarm_wakes_the_driver_and_again_does_not_wait<H: Harness>() {
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

pub(crate) fn a_full_worker_answers_and_closes<H: Harness>() {
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

pub(crate) fn refused_connections_do_not_linger_for_ever<H: Harness>() {
    let mut h = H::start(Options { connections_max: 1, full_answer: b"full".to_vec(), ..Options::default() });
    let (_one, _) = h.open();
    // These send nothing and never close; they are answered and their places become free all the same.
    let began = h.now();
    let mut silent: Vec<_> = (0..REFUSED_MAX).map(|_| h.connect()).collect();
    h.until("all are answered", |_| silent.iter_mut().all(|client| client.received() == b"full"));
    assert!(h.now() >= began + ms(1000), "they had time for a request");
    assert!(!h.is_calm() || h.now() < began + ms(1500), "and no more than that");
    h.until("the end", |_| silent.iter_mut().all(|client| client.ended() == Some(Ended::Fin)));
    let until = h.now() + ms(1500);
    h.until("their time is over", |h| h.now() >= until);
    let mut late = h.connect();
    late.write(b"request");
    h.until("the answer", |_| late.ended().is_some());
    assert_eq!(late.ended(), Some(Ended::Fin));
    assert_eq!(late.received(), b"full");
    assert!(h.now() < until + ms(900), "it had a place, and its request was all that was waited for");
}

pub(crate) fn a_refused_client_is_answered_behind_the_first_of_its_request<H: Harness>() {
    let mut h = H::start(Options { connections_max: 1, full_answer: b"503 busy".to_vec(), ..Options::default() });
    let (mut served, _) = h.open();
    let mut refused = h.connect();
    h.until("it is accepted", |h| h.counters().refused_full.load() == 1);
    let at = h.now() + ms(50);
    h.until("its request is under way", |h| h.now() >= at);
    assert_eq!((refused.received().to_vec(), refused.ended()), (b"".to_vec(), None), "no answer before the request");
    refused.write(b"GET / HTTP/1.1\r\n");
    h.until("the answer", |_| refused.received() == b"503 busy");
    // The rest of it, on its way when the answer came, makes no RST of it.
    refused.write(b"Host: localhost\r\n\r\n");
    h.until("the end", |_| refused.ended().is_some());
    assert_eq!((refused.received().to_vec(), refused.ended()), (b"503 busy".to_vec(), Some(Ended::Fin)));
    h.settle();
    assert_eq!(refused.ended(), Some(Ended::Fin), "and nothing but FIN");
    // Its twin has a place and hears nothing of that.
    served.write(b"GET / HTTP/1.1\r\n");
    h.until("the echo", |_| served.received() == b"GET / HTTP/1.1\r\n");
    assert_eq!(served.ended(), None);
}

pub(crate) fn a_refused_client_that_has_nothing_to_ask_is_answered_at_once<H: Harness>() {
    let mut h = H::start(Options { connections_max: 1, full_answer: b"full".to_vec(), ..Options::default() });
    let (_one, _) = h.open();
    let began = h.now();
    let mut refused = h.connect();
    refused.shutdown_write();
    h.until("the end", |_| refused.ended().is_some());
    assert_eq!((refused.received().to_vec(), refused.ended()), (b"full".to_vec(), Some(Ended::Fin)));
    assert!(h.now() < began + ms(900));
}

pub(crate) fn stop_accepting_serves_the_queue_first<H: Harness>() {
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

pub(crate) fn replies_flush_before_broadcasts_and_both_in_order<H: Harness>() {
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

pub(crate) fn the_smallest_budgets_starve_nobody<H: Harness>() {
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

pub(crate) fn enough_ends_the_reads_of_a_tick_and_the_next_goes_on<H: Harness>() {
    for enough in [true, false] {
        let mut h = H::start(Options::default());
        let mut clients: Vec<_> = (0..200).map(|_| h.open()).collect();
        // What comes waits in the sockets, until it is everybody's turn at once.
        for (client, id) in &mut clients {
            h.both().1.pause(*id);
            client.write(b"here");
        }
        h.settle();
        clients.iter().for_each(|(_, id)| h.both().1.resume(*id));
        h.probe().script.enough = enough;
        h.until("every byte", |h| clients.iter().all(|(_, id)| h.probe().conn(*id).received == b"here"));
        let most = h.probe().receipts_most;
        assert!(!enough || most <= H::RECEIVES_AHEAD, "{most} in one tick");
        assert!(enough || !h.is_calm() || most > 190, "the twin: {most} in one tick");
    }
}

pub(crate) fn a_look_receives_out_of_turn_and_says_where_nothing_waits<H: Harness>() {
    let mut h = H::start(Options { budgets: Budgets { reads: 1, ..Budgets::default() }, ..Options::default() });
    let mut clients: Vec<_> = (0..20).map(|_| h.open()).collect();
    let (_silent, silent) = h.open();
    // What comes waits in the sockets, until it is everybody's turn at once.
    for (client, id) in &mut clients {
        h.both().1.pause(*id);
        client.write(b"here");
    }
    h.settle();
    let (resting, last) = (clients[0].1, clients[19].1);
    let (_, io) = h.both();
    clients[1..].iter().for_each(|(_, id)| io.resume(*id));
    [silent, last, resting].into_iter().for_each(|id| io.look(id));
    h.until("every byte", |h| clients[1..].iter().all(|(_, id)| h.probe().conn(*id).received == b"here"));
    let turn = h.probe().receipts.iter().position(|id| *id == last).expect("it received");
    assert!(!h.is_calm() || turn <= 4, "the last of nineteen had turn {turn}");
    h.settle();
    assert_eq!(h.probe().conn(silent).empty_looks, 1, "nothing waited, and that is told once");
    assert_eq!(h.probe().conn(last).empty_looks, 0, "it was received from instead");
    let rested = h.probe().conn(resting);
    assert!(rested.received.is_empty() && rested.empty_looks == 0, "paused is paused");
    h.both().1.resume(resting);
    h.until("its turn", |h| h.probe().conn(resting).received == b"here");
}

pub(crate) fn a_look_at_who_has_left_says_nothing<H: Harness>() {
    let mut h = H::start(Options::default());
    h.probe().script.on_fin = None;
    let (mut finished, half) = h.open();
    finished.shutdown_write();
    let (_gone, closed) = h.open();
    h.until("the FIN", |h| h.probe().conn(half).fin);
    let (probe, io) = h.both();
    probe.close(io, closed, How::Now);
    io.look(half);
    io.look(closed);
    h.until("the close", |h| h.probe().conn(closed).closed.is_some());
    // The probe would have panicked. Its slot has a new tenant, of whom nobody asked.
    let (_new, tenant) = h.open();
    h.settle();
    assert_eq!(h.probe().conn(half).empty_looks + h.probe().conn(tenant).empty_looks, 0);
}
