//! `/echo`: every message back, and the protocol around it.

use crate::support::client::{close_frame, frame, text_frame};
use crate::support::{Client, Ended, Gateway, Seen, Setup, on_every_driver, over_tls_on_real_sockets};
use conn::Side;
use wire::ws::OpCode;

on_every_driver! {
    messages_come_back_as_they_were: Setup::dev(),
    fragments_come_back_as_one_message: Setup::dev(),
    pings_between_fragments_are_answered_at_once: Setup::dev(),
    the_close_handshake_repeats_the_code: Setup::dev(),
    messages_behind_a_close_frame_are_not_read: Setup::dev(),
    a_burst_comes_back_in_one_send: Setup::dev(),
    a_large_message_comes_back_whole: with_large_messages(),
    a_reset_takes_nothing_but_its_own_connection: Setup::dev(),
}

over_tls_on_real_sockets! {
    messages_come_back_as_they_were: Setup::dev(),
    the_close_handshake_repeats_the_code: Setup::dev(),
    a_burst_comes_back_in_one_send: Setup::dev(),
    a_large_message_comes_back_whole: with_large_messages(),
}

fn messages_come_back_as_they_were(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    for len in [0, 1, 125, 126, 127, 65535, 65536] {
        let text: String = "aé€😀"
            .chars()
            .cycle()
            .scan(0, |bytes, c| {
                *bytes += c.len_utf8();
                (*bytes <= len).then_some(c)
            })
            .collect();
        client.send_text(&text);
        assert_eq!(client.next(), Seen::Text(text));
        let binary: Vec<u8> = (0..len).map(|i| i as u8).collect();
        client.write(frame(OpCode::Binary, true, &binary));
        assert_eq!(client.next(), Seen::Binary(binary));
    }
}

fn fragments_come_back_as_one_message(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    for parts in [vec!["Hel", "lo"], vec!["", "Hello", ""], vec!["H", "e", "l", "l", "o"], vec!["Hello", ""]] {
        let last = parts.len() - 1;
        let frames = parts.iter().enumerate().map(|(i, part)| {
            frame(if i == 0 { OpCode::Text } else { OpCode::Continuation }, i == last, part.as_bytes())
        });
        client.write(frames.collect::<Vec<_>>().concat());
        assert_eq!(client.next(), Seen::Text("Hello".into()), "{parts:?}");
    }
}

fn pings_between_fragments_are_answered_at_once(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    client.write([frame(OpCode::Binary, false, b"one "), frame(OpCode::Ping, true, &[7; 125])].concat());
    assert_eq!(client.next(), Seen::Pong(vec![7; 125]), "while the message is not whole");
    client.write(
        [
            frame(OpCode::Pong, true, b"unasked"),
            frame(OpCode::Ping, true, b""),
            frame(OpCode::Continuation, true, b"two"),
        ]
        .concat(),
    );
    assert_eq!(client.next(), Seen::Pong(Vec::new()));
    assert_eq!(client.next(), Seen::Binary(b"one two".to_vec()));
}

fn the_close_handshake_repeats_the_code(gateway: &Gateway) {
    for (code, reason) in
        [(Some(1000), "bye"), (Some(1001), ""), (Some(3000), "x"), (Some(4999), &*"r".repeat(123)), (None, "")]
    {
        let mut client = gateway.websocket("/echo");
        client.write(close_frame(code, reason));
        assert_eq!(client.next(), Seen::Close(code, String::new()));
        assert_eq!(client.next(), Seen::End(Ended::Fin));
    }
    gateway.until("the closes are counted for the peer", || {
        gateway.closes(Side::Peer, 1000) == 1 && gateway.closes(Side::Peer, 1005) == 1
    });
}

fn messages_behind_a_close_frame_are_not_read(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    client.write([text_frame("before"), close_frame(Some(1000), ""), text_frame("behind")].concat());
    assert_eq!(client.text(), "before");
    assert_eq!(client.next(), Seen::Close(Some(1000), String::new()));
    assert_eq!(client.next(), Seen::End(Ended::Fin));
}

fn a_burst_comes_back_in_one_send(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    let sends = || gateway.count(|c| &c.sends);
    let before = sends();
    client.write((0..32).map(|i| text_frame(&format!("message {i}"))).collect::<Vec<_>>().concat());
    for i in 0..32 {
        assert_eq!(client.text(), format!("message {i}"));
    }
    if gateway.is_calm() {
        assert_eq!(sends() - before, 1, "32 answers to one packet are one send");
    }
    let before = sends();
    client.send_text("alone");
    assert_eq!(client.text(), "alone");
    assert!(sends() > before, "an answer is a send, or the counter counts nothing");
}

fn with_large_messages() -> Setup {
    Setup::dev().with(|s| {
        s.limits.message_bytes_max = 4 << 20;
        s.limits.reply_bytes_max = 4 << 20;
        s.limits.outbox_bytes_max = 16 << 20;
    })
}

fn a_large_message_comes_back_whole(gateway: &Gateway) {
    let mut client = gateway.websocket("/echo");
    let message: Vec<u8> = (0..4u32 << 20).map(|i| (i >> 3) as u8 ^ i as u8).collect();
    client.write(frame(OpCode::Binary, true, &message));
    // Not by `assert_eq`, which would print it.
    assert!(client.next() == Seen::Binary(message), "another message came back");
}

fn a_reset_takes_nothing_but_its_own_connection(gateway: &Gateway) {
    let mut others: Vec<Client> = (0..3).map(|_| gateway.websocket("/echo")).collect();
    for round in 0..5 {
        let mut client = gateway.websocket("/echo");
        client.send_text("about to go");
        assert_eq!(client.text(), "about to go");
        client.send_text("never read");
        client.reset();
        for other in &mut others {
            other.send_text(&format!("round {round}"));
            assert_eq!(other.text(), format!("round {round}"));
        }
    }
    gateway.until("the resets are counted", || gateway.closes(Side::Peer, 1006) == 5);
}
