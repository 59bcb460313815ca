//! What comes out of an outbox, in which order, and what is left behind.

use super::*;

/// Gathers up to `room` bytes and reports `taken` of them as sent; returns those.
fn send(boxes: &mut Outboxes, outbox: &mut Outbox, room: usize, taken: usize) -> Vec<u8> {
    let mut out = Vec::new();
    boxes.gather(outbox, |bytes| {
        let n = bytes.len().min(room - out.len());
        out.extend_from_slice(&bytes[..n]);
        n
    });
    out.truncate(taken);
    boxes.sent(outbox, out.len());
    out
}

#[test]
fn bytes_come_out_in_order_under_every_short_write() {
    for room in 1..12 {
        for taken in 0..=room {
            let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
            let shared = boxes.shared(|b| b.extend_from_slice(b"shared"));
            boxes.write(&mut outbox, |b| b.extend_from_slice(b"one"));
            boxes.write(&mut outbox, |b| b.extend_from_slice(b"two"));
            boxes.push(&mut outbox, shared);
            boxes.write(&mut outbox, |b| b.extend_from_slice(b"three"));
            boxes.release(shared);
            assert_eq!(outbox.backlog(), 17);
            let mut all = send(&mut boxes, &mut outbox, room, taken);
            while !outbox.is_empty() {
                all.extend(send(&mut boxes, &mut outbox, room, room));
            }
            assert_eq!(all, b"onetwosharedthree", "room {room}, taken {taken}");
            assert_eq!(boxes.bodies_in_use(), 0);
        }
    }
}

#[test]
fn a_burst_of_replies_is_one_body() {
    let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
    for _ in 0..100 {
        boxes.write(&mut outbox, |b| b.extend_from_slice(b"reply"));
    }
    assert_eq!(boxes.bodies_in_use(), 1);
    assert_eq!(outbox.backlog(), 500);
}

#[test]
fn a_reply_behind_a_publication_does_not_grow_the_one_before_it() {
    let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
    let shared = boxes.shared(|b| b.extend_from_slice(b"P"));
    boxes.write(&mut outbox, |b| b.extend_from_slice(b"a"));
    boxes.push(&mut outbox, shared);
    boxes.write(&mut outbox, |b| b.extend_from_slice(b"b"));
    assert_eq!(send(&mut boxes, &mut outbox, 9, 9), b"aPb");
}

#[test]
fn dropping_keeps_what_has_started_and_what_is_in_flight() {
    let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
    for text in [b"aaaa", b"bbbb", b"cccc"] {
        let body = boxes.shared(|b| b.extend_from_slice(text));
        boxes.push(&mut outbox, body);
        boxes.release(body);
    }
    assert_eq!(send(&mut boxes, &mut outbox, 2, 2), b"aa");
    // Three bytes in flight reach into the second body.
    let mut room = 3;
    boxes.gather(&mut outbox, |b| {
        let n = b.len().min(room);
        room -= n;
        n
    });
    boxes.drop_publications(&mut outbox);
    assert_eq!(outbox.backlog(), 6);
    boxes.write(&mut outbox, |b| b.push(b'!'));
    boxes.sent(&mut outbox, 3);
    assert_eq!(send(&mut boxes, &mut outbox, 9, 9), b"bbb!");
    assert_eq!(boxes.bodies_in_use(), 0);
}

#[test]
fn dropping_leaves_replies_where_they_are() {
    for order in ["rprpp", "pprrp", "ppp", "rrr", "r", "p"] {
        let (mut boxes, mut outbox) = (Outboxes::default(), Outbox::default());
        for (i, kind) in order.bytes().enumerate() {
            let text = [kind, b'0' + i as u8];
            if kind == b'r' {
                boxes.write(&mut outbox, |b| b.extend_from_slice(&text));
            } else {
                let body = boxes.shared(|b| b.extend_from_slice(&text));
                boxes.push(&mut outbox, body);
                boxes.release(body);
            }
        }
        boxes.drop_publications(&mut outbox);
        boxes.write(&mut outbox, |b| b.extend_from_slice(b"close"));
        let replies: String =
            order.char_indices().filter(|(_, kind)| *kind == 'r').map(|(i, kind)| format!("{kind}{i}")).collect();
        assert_eq!(send(&mut boxes, &mut outbox, 64, 64), format!("{replies}close").as_bytes(), "{order}");
        assert_eq!(boxes.dropped(), order.matches('p').count() as u64);
        assert_eq!(boxes.bodies_in_use(), 0);
    }
}

#[test]
fn steady_state_reuses_nodes_and_bodies() {
    let mut boxes = Outboxes::default();
    let mut outboxes: Vec<Outbox> = (0..50).map(|_| Outbox::default()).collect();
    for _ in 0..100 {
        let body = boxes.shared(|b| b.extend_from_slice(b"publication"));
        outboxes.iter_mut().for_each(|o| boxes.push(o, body));
        boxes.release(body);
        for o in &mut outboxes {
            assert_eq!(send(&mut boxes, o, 64, 64), b"publication");
        }
    }
    assert_eq!((boxes.nodes.len(), boxes.bodies.len()), (50, 1));
}
