//! How connections end, and what begins in their place.

use io::{Budgets, Class, Closed, How, Options, PeerAddress};

use super::{ms, pattern};
use crate::harness::{Client, Ended, Harness};

pub(crate) fn a_half_closed_client_gets_its_response<H: Harness>() {
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

pub(crate) fn a_fin_alone_closes_nothing<H: Harness>() {
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

pub(crate) fn flush_sends_everything_then_fin<H: Harness>() {
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

pub(crate) fn finish_sends_everything_and_awaits_no_fin<H: Harness>() {
    for pause in [false, true] {
        let mut h = H::start(Options { linger: ms(60_000), ..Options::default() });
        let (mut client, id) = h.open();
        client.write(b"the last");
        h.until("the echo", |_| client.received() == b"the last");
        if pause {
            // Nothing came meanwhile, which only a receive can tell.
            h.both().1.pause(id);
        }
        let bytes = pattern(500_000);
        let (probe, io) = h.both();
        probe.conn(id).outbox.extend_from_slice(&bytes);
        probe.close(io, id, How::Finish);
        h.until("everything and FIN", |_| client.ended().is_some());
        assert_eq!(client.ended(), Some(Ended::Fin));
        assert!(client.received()[8..] == bytes);
        // Its twin `How::Flush` waits for the client's FIN, `linger` long.
        h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
        assert_eq!(h.both().1.connections(), 0);
    }
}

pub(crate) fn finish_discards_what_waits_to_be_received_and_does_not_reset<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    h.both().1.pause(id);
    client.write(&pattern(10_000));
    h.settle();
    let (probe, io) = h.both();
    probe.conn(id).outbox.extend_from_slice(b"goodbye");
    probe.close(io, id, How::Finish);
    h.until("the end", |_| client.ended().is_some());
    assert_eq!((client.received().to_vec(), client.ended()), (b"goodbye".to_vec(), Some(Ended::Fin)));
    h.settle();
    assert_eq!(client.ended(), Some(Ended::Fin));
    client.close();
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
}

pub(crate) fn finish_in_the_midst_of_more_input_does_not_reset<H: Harness>() {
    let budgets = Budgets { reads: 1, ..Budgets::default() };
    let mut h = H::start(Options { budgets, recv_bytes: 512, ..Options::default() });
    let (mut client, id) = h.open();
    h.probe().script.close_on_input = Some(How::Finish);
    let bytes = pattern(10_000);
    client.write(&bytes);
    h.until("the end", |_| client.ended().is_some());
    assert_eq!(client.ended(), Some(Ended::Fin));
    let echo = client.received().to_vec();
    assert!(!echo.is_empty() && bytes.starts_with(&echo), "what came before is answered");
    h.settle();
    assert_eq!(client.ended(), Some(Ended::Fin));
    client.close();
    h.until("the close", |h| h.probe().conn(id).closed.is_some());
}

pub(crate) fn flush_of_a_paused_connection_sees_the_peers_fin<H: Harness>() {
    for fin_first in [true, false] {
        let mut h = H::start(Options::default());
        let (mut client, id) = h.open();
        h.both().1.pause(id);
        client.write(b"unread");
        if fin_first {
            client.shutdown_write();
        }
        h.settle();
        let (probe, io) = h.both();
        probe.close(io, id, How::Flush);
        h.settle();
        client.shutdown_write();
        h.until("the close", |h| h.probe().conn(id).closed.is_some());
        assert_eq!(h.probe().conn(id).closed, Some(Closed::ByUs));
    }
}

pub(crate) fn flush_waits_for_the_peers_fin_no_longer_than_linger<H: Harness>() {
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

pub(crate) fn flush_resets_a_peer_that_takes_nothing<H: Harness>(expected: Ended) {
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
    h.until("the client sees it", |_| client.ended() == Some(expected));
    assert!(client.received().len() < 2_000_000);
}

pub(crate) fn a_harsher_close_overtakes_a_flush<H: Harness>() {
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

pub(crate) fn now_closes_at_once<H: Harness>() {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let (probe, io) = h.both();
    probe.conn(id).outbox.extend_from_slice(b"never sent");
    probe.close(io, id, How::Now);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
    h.until("FIN", |_| client.ended() == Some(Ended::Fin));
    assert_eq!(client.received(), b"");
}

pub(crate) fn reset_is_a_reset<H: Harness>(expected: Ended) {
    let mut h = H::start(Options::default());
    let (mut client, id) = h.open();
    let (probe, io) = h.both();
    probe.close(io, id, How::Reset);
    h.until("the close", |h| h.probe().conn(id).closed == Some(Closed::ByUs));
    h.until("the client sees it", |_| client.ended() == Some(expected));
}

pub(crate) fn a_reset_by_the_peer_is_told<H: Harness>(expected: &[Closed]) {
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

pub(crate) fn a_connection_can_be_closed_inside_any_call<H: Harness>() {
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

pub(crate) fn a_stale_id_does_nothing_to_the_next_tenant<H: Harness>() {
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

pub(crate) fn shutdown_reports_every_connection<H: Harness>() {
    let mut h = H::start(Options::default());
    let mut clients: Vec<_> = (0..5).map(|_| h.open()).collect();
    h.shutdown();
    assert!(clients.iter().all(|(_, id)| h.probe().conn(*id).closed == Some(Closed::Shutdown)));
    h.until("the clients see it", |_| clients.iter_mut().all(|(client, _)| client.ended().is_some()));
    let mut late = h.connect();
    h.until("nobody listens", |_| late.ended() == Some(Ended::Refused));
}

pub(crate) fn an_outbound_connection_works_like_an_accepted_one<H: Harness>() {
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

pub(crate) fn a_failed_connect_is_closed_without_being_opened<H: Harness>() {
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
