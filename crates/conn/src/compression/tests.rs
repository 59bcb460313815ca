use super::previous::Previous;
use super::*;
use crate::outbox::slow::{Offered, Room};
use crate::outbox::{BodyId, Outbox, Outboxes, Standing};
use hub::{Channel, ChannelHash, Local, LocalId};
use wire::http::{self, HeadLimits};
use wire::ws::deflate::Mark;
use wire::ws::extension::Policy;
use wire::ws::{client, handshake};

const RULES: settings::Compression = settings::Compression {
    level: Level::new(6).unwrap(),
    reply_bytes_min: 1,
    publication_bytes_min: 1,
    after_previous: true,
    previous_bytes_max: 1 << 20,
    client_history_bytes_max: 3 * 1024,
};

fn params(offer: &str) -> Params {
    let mut head = Vec::new();
    let extra = [("Sec-WebSocket-Extensions", offer)];
    client::write_request(&mut head, "localhost", "/", &[7; 16], None, &extra);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    handshake::check(&request).expect("a good request").deflate(&Policy::default()).expect("an acceptable offer")
}

/// A connection's outbox with what all share.
struct Bench {
    outboxes: Outboxes,
    outbox: Outbox,
    marks: MarkSource,
}

impl Bench {
    fn new() -> Self {
        let agreed = Compression::default().agree(params("permessage-deflate; client_max_window_bits"), &RULES);
        let mut outbox = Outbox::default();
        outbox.agree(agreed.expect("there is room"));
        Self { outboxes: Outboxes::default(), outbox, marks: MarkSource::default() }
    }

    fn compressed(&mut self, standing: Standing, text: &[u8]) -> (BodyId, Mark) {
        let mark = self.marks.draw();
        (self.outboxes.shared_compressed(standing, mark, |out| out.extend_from_slice(text)), mark)
    }

    fn push(&mut self, body: BodyId) {
        self.outboxes.push(&mut self.outbox, body);
        self.outboxes.release(body);
    }

    fn offer(&mut self, body: BodyId) {
        let room = Room { bytes_max: 1000, low_water: 0 };
        assert_eq!(self.outboxes.offer(&mut self.outbox, body, room), Offered::Queued);
        self.outboxes.release(body);
    }

    fn is_at(&self, mark: Mark) -> bool {
        self.outbox.agreed().is_some_and(|agreed| agreed.marks.is_at(mark))
    }

    fn waiting(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.outboxes.gather(&mut self.outbox, |bytes| {
            out.extend_from_slice(bytes);
            bytes.len()
        });
        self.outboxes.sent(&mut self.outbox, 0);
        out
    }
}

const OLDEST: Standing = Standing::Oldest { channel: 1 };
const LATEST: Standing = Standing::Latest { key: 1, in_place: true };

#[test]
fn a_compressed_message_in_the_outbox_can_be_referred_to_and_one_that_was_dropped_cannot() {
    let mut bench = Bench::new();
    let (first, mark) = bench.compressed(OLDEST, b"first");
    bench.push(first);
    assert!(bench.is_at(mark));
    bench.outboxes.skip(&mut bench.outbox, 5);
    assert!(bench.is_at(mark), "nothing had to go");
    bench.outboxes.skip(&mut bench.outbox, 4);
    assert!(!bench.is_at(mark) && bench.outbox.is_empty());
    // The same where the channel's subscription ends, and where the client is disconnected as slow.
    for drop in
        [(|outboxes, outbox| outboxes.skip_channel(outbox, 1)) as fn(&mut Outboxes, &mut Outbox), |outboxes, outbox| {
            outboxes.drop_publications(outbox)
        }]
    {
        let (body, mark) = bench.compressed(OLDEST, b"another");
        bench.push(body);
        assert!(bench.is_at(mark));
        drop(&mut bench.outboxes, &mut bench.outbox);
        assert!(!bench.is_at(mark) && bench.outbox.is_empty());
    }
}

#[test]
fn a_conflated_message_is_not_referred_to_in_the_place_of_another_one() {
    let mut bench = Bench::new();
    let (first, old) = bench.compressed(LATEST, b"[first]");
    let (second, new) = bench.compressed(LATEST, b"[second]");
    bench.offer(first);
    let firm = bench.outboxes.shared(|out| out.extend_from_slice(b"[plain]"));
    bench.push(firm);
    assert!(bench.is_at(old));
    bench.offer(second);
    assert_eq!(bench.waiting(), b"[second][plain]");
    assert!(!bench.is_at(old) && !bench.is_at(new), "it is not the last one that was sent");
}

/// What waits behind it may be compressed after what waits in front.
#[test]
fn a_compressed_message_does_not_take_the_place_of_a_plain_one() {
    for is_compressed in [true, false] {
        let mut bench = Bench::new();
        let (front, mark) = bench.compressed(Standing::Firm, b"[front]");
        bench.push(front);
        let value = bench.outboxes.shared_as(LATEST, |out| out.extend_from_slice(b"[value]"));
        bench.offer(value);
        assert!(bench.is_at(mark), "the next one may be compressed after [front]");
        let (behind, _) = bench.compressed(Standing::Firm, b"[behind]");
        bench.push(behind);
        let newer = if is_compressed {
            bench.compressed(LATEST, b"[newer]").0
        } else {
            bench.outboxes.shared_as(LATEST, |out| out.extend_from_slice(b"[newer]"))
        };
        bench.offer(newer);
        let expected: &[u8] = if is_compressed { b"[front][behind][newer]" } else { b"[front][newer][behind]" };
        assert_eq!(bench.waiting(), expected);
    }
}

#[test]
fn history_of_clients_is_reserved_up_to_the_limit_and_given_back() {
    let mut compression = Compression::default();
    let limited = params("permessage-deflate; client_max_window_bits");
    let agreed: Vec<_> = (0..3).map(|_| compression.agree(limited, &RULES).expect("1 KiB each")).collect();
    assert_eq!((compression.reserved(), compression.agree(limited, &RULES).is_none()), (3 * 1024, true));
    assert!(compression.agree(params("permessage-deflate; client_no_context_takeover"), &RULES).is_some());
    compression.disagree(&agreed[0]);
    assert!(compression.agree(params("permessage-deflate"), &RULES).is_none(), "32 KiB");
    assert!(compression.agree(limited, &RULES).is_some());
    assert_eq!((compression.counts().agreed, compression.counts().refused), (5, 2));
}

#[test]
fn a_reply_is_compressed_from_a_length_on_and_if_it_gets_shorter() {
    let mut compression = Compression::default();
    let agreed = compression.agree(params("permessage-deflate; client_max_window_bits"), &RULES).expect("room");
    let rules = settings::Compression { reply_bytes_min: 30, ..RULES };
    let repeats = b"the same, the same, the same, the same";
    assert!(compression.reply(&repeats[..29], &agreed, &rules).is_none());
    assert!(compression.reply(&repeats[..30], &agreed, &rules).is_some_and(|packed| packed.len() < 30));
    assert!(compression.reply(b"0123456789abcdefghijklmnopqrstuvwxyz", &agreed, &rules).is_none(), "nothing repeats");
    assert_eq!(compression.counts().replies.messages, 1);
    // A window of 512 bytes cannot hold what this one refers to.
    let narrow = params("permessage-deflate; server_max_window_bits=9; client_no_context_takeover");
    let narrow = compression.agree(narrow, &RULES).expect("room");
    let long = [&repeats[..], &[b'x'; 600]].concat();
    assert!(compression.reply(&long, &narrow, &rules).is_none());
    assert!(compression.reply(&long, &agreed, &rules).is_some());
}

fn channels<const N: usize>() -> [LocalId; N] {
    let mut local = Local::new(ChannelHash::new([1; 16]));
    std::array::from_fn(|i| local.begin(&format!("c{i}")).0)
}

#[test]
fn what_is_referred_to_is_of_the_same_channel_and_encoding() {
    let [local] = channels();
    let (mut previous, mut marks) = (Previous::default(), MarkSource::default());
    let (mark, name) = (marks.draw(), Channel::new("c0"));
    previous.keep((local, 2), &name, (mark, true), b"text", 1 << 20);
    assert!(previous.find(local, 2, &name).is_some_and(|kept| kept.payload == b"text" && kept.mark == mark));
    assert!(previous.find(local, 3, &name).is_none(), "another encoding");
    assert!(previous.find(local, 2, &Channel::new("c1")).is_none(), "the number is another channel's by now");
    previous.keep((local, 2), &Channel::new("c1"), (mark, true), b"more", 1 << 20);
    assert!(previous.find(local, 2, &name).is_none());
    previous.forget(local);
    assert_eq!(previous.bytes(), 0);
}

#[test]
fn at_the_limit_the_channels_that_were_quiet_go_without() {
    let locals: [LocalId; 4] = channels();
    let names: [Channel; 4] = std::array::from_fn(|i| Channel::new(&format!("c{i}")));
    let (mut previous, mut marks) = (Previous::default(), MarkSource::default());
    let limit = 3 * 300;
    for round in 0..100 {
        // The last one rarely.
        for i in 0..if round % 10 == 9 { 4 } else { 2 } {
            previous.keep((locals[i], 0), &names[i], (marks.draw(), true), &[b'x'; 100], limit);
            assert!(previous.bytes() <= limit, "{} bytes", previous.bytes());
            assert!(previous.find(locals[i], 0, &names[i]).is_some());
        }
    }
    previous.keep((locals[0], 0), &names[0], (marks.draw(), true), &[b'x'; 100_000], 1 << 20);
    assert!(previous.find(locals[0], 0, &names[0]).is_none(), "nobody could refer to all of it");
    locals.iter().for_each(|local| previous.forget(*local));
    assert_eq!(previous.bytes(), 0);
}
