//! Commands of clients, and whole connections, in the world that the tests of `conn` have built around one.

use crate::script::CHANNELS;
use crate::world::{Op, World};
use std::time::Duration;
use wire::http::HeadLimits;
use wire::ws::deflate::Inflater;
use wire::ws::extension::Offer;
use wire::ws::{self, Event, Limits, OpCode, Reader, Role};

const MASK: [u8; 4] = [9, 0x80, 0xff, 1];

fn handshake(target: &str) -> Vec<u8> {
    handshake_offering(target, None)
}

fn handshake_offering(target: &str, offer: Option<&Offer>) -> Vec<u8> {
    let mut out = Vec::new();
    let offer = offer.map(|offer| offer.to_string());
    let extra = offer.as_deref().map(|offer| ("Sec-WebSocket-Extensions", offer));
    ws::client::write_request(&mut out, "localhost", target, &[7; 16], None, extra.as_slice());
    out
}

/// Lives to the end; what the world claims is asserted on the way, and what the client got must be frames. `spoils` says
/// whether the planted bug gives the first of them a reserved bit.
fn live(bytes: &[u8], ops: &[Op], offer: Option<&Offer>, spoils: impl Fn(&World) -> bool) {
    let mut world = World::new(bytes);
    ops.iter().for_each(|op| world.apply(op));
    world.settle();
    world.close();
    let answer = ws::client::check_response_with(&world.output, &[7; 16], None, offer, &HeadLimits::default());
    if let Ok(Some(answer)) = answer {
        let is_spoiled = cfg!(feature = "planted") && spoils(&world);
        let mut frames = world.output.split_off(answer.head_len);
        if let Some(first) = frames.first_mut().filter(|_| is_spoiled) {
            *first |= 0x20;
        }
        let plain = || Reader::new(Role::Client);
        let mut reader = answer.deflate.map_or_else(plain, |params| Reader::with_deflate(Role::Client, params));
        let (mut inflater, mut input) = (Inflater::new(), &mut frames[..]);
        let limits = Limits { message_bytes_max: 1 << 20, ..Limits::default() };
        while let Some(event) =
            reader.next_inflating(&mut input, &limits, &mut inflater).expect("what we send are frames")
        {
            assert!(!matches!(event, Event::Pong(payload) if payload.len() > 125));
        }
    }
}

/// Messages behind a good connect command, each of which may be anything. The planted bug comes with one `reply`.
fn commands(target: &str, connect: &[u8], opcode: OpCode, reply: &[u8], data: &[u8]) {
    let Some((&how, messages)) = data.split_first() else { return };
    let mut bytes = handshake(target);
    ws::write_frame(&mut bytes, opcode, true, connect, Some(MASK));
    // 0xff is in no UTF-8, so that JSON is never cut by accident; in Protobuf it is rare.
    for message in messages.split(|&byte| byte == 0xff).take(8) {
        ws::write_frame(&mut bytes, opcode, true, message, Some(MASK));
    }
    let feed = if how == 0 { bytes.len() } else { usize::from(how) };
    let ops: Vec<Op> = (0..40).flat_map(|_| [Op::Feed(feed), Op::Gather(500), Op::Complete(100)]).collect();
    // Byte by byte, so that a fuzzer sees how far it has come; what std does is not instrumented.
    let same = |(a, b): (&u8, &u8)| a == b;
    live(&bytes, &ops, None, |world| world.output.windows(reply.len()).any(|part| part.iter().zip(reply).all(same)));
}

/// Centrifugo's commands in JSON.
pub fn json(data: &[u8]) {
    commands("/connection/websocket", b"{\"id\":1,\"connect\":{}}", OpCode::Text, b"{\"code\":102", data);
}

/// Centrifugo's commands in Protobuf.
pub fn protobuf(data: &[u8]) {
    // A length, the id 1, and an empty connect.
    commands(
        "/connection/websocket?format=protobuf",
        b"\x04\x08\x01\x22\x00",
        OpCode::Binary,
        &[0x08, 102, 0x12],
        data,
    );
}

/// A list of operations on a connection, and what its client sends meanwhile.
pub fn life(data: &[u8]) {
    let Some((&[how, count], rest)) = data.split_first_chunk::<2>() else { return };
    let (list, sent) = rest.split_at(rest.len().min(2 * usize::from(count)));
    // From 0x80 on with compression; what is sent may be compressed or not.
    let offer = (how & 0x80 != 0).then(Offer::default);
    let upgrade = |target| handshake_offering(target, offer.as_ref());
    let mut bytes = match how % 4 {
        0 => Vec::new(),
        1 => upgrade("/connection/websocket"),
        2 => upgrade("/connection/uni_websocket?cf_connect=%7B%7D"),
        _ => upgrade("/echo"),
    };
    bytes.extend_from_slice(sent);
    let ops: Vec<Op> = list.chunks_exact(2).map(|pair| op(pair[0], usize::from(pair[1]))).collect();
    // The planted bug: who is closed with 1011 gets nonsense.
    let is_broken = |world: &World| world.output.windows(2).any(|two| two[0] == 0x03 && two[1] == 0xf3);
    live(&bytes, &ops, offer.as_ref(), is_broken);
}

fn op(kind: u8, size: usize) -> Op {
    match kind % 13 {
        0 => Op::Feed(size + 1),
        1 => Op::Feed(size * 16 + 1),
        2 => Op::Gather(size * 12 + 1),
        3 => Op::Complete(size % 101),
        4 => Op::Subscribed { which: size >> 1, ok: size & 1 == 0 },
        5 => Op::Published { which: size >> 1, ok: size & 1 == 0 },
        6 => Op::HistoryRead { which: size >> 1, ok: size & 1 == 0 },
        7 => Op::Deliver { channel: size % CHANNELS.len(), bytes: size * 9 },
        8 => Op::Busy(size & 1 == 0),
        9 => Op::Pass(Duration::from_millis(size as u64 * 100)),
        10 => Op::Disconnect([1011, 3503, 4000][size % 3]),
        11 => Op::Drain,
        _ if size & 1 == 0 => Op::Fin,
        _ => Op::Break,
    }
}
