//! What is done with the bytes that came.

use super::bytes;
use super::{Phase, Then};

/// The work of a loop. It knows no socket: it is given bytes, and says what to send and what becomes of the connection.
pub trait Job {
    /// Handles the bytes at the front of `input` that are whole and appends what to answer. Returns how many they were;
    /// the rest will come again with more behind it.
    fn received(&mut self, phase: &mut Phase, input: &mut [u8], out: &mut Vec<u8>) -> (usize, Then);

    /// Whether there is something for every subscriber. Called at the end of each turn of the loop until it is false: the
    /// bytes put into `out` are sent to each of them with one send.
    fn broadcast(&mut self, out: &mut Vec<u8>) -> bool {
        let _ = out;
        false
    }
}

/// Answers an upgrade with 101; from then on every client frame comes back without its mask.
#[derive(Clone, Copy, Default, Debug)]
pub struct Echo;

impl Job for Echo {
    fn received(&mut self, phase: &mut Phase, input: &mut [u8], out: &mut Vec<u8>) -> (usize, Then) {
        let mut used = upgrade(phase, input, out);
        if *phase != Phase::Open {
            return (used, Then::Continue);
        }
        while let Some(frame) = bytes::frame(&input[used..]) {
            let payload = &mut input[used..][frame.payload.clone()];
            bytes::unmask(payload, frame.mask);
            bytes::write_frame(out, if frame.first == bytes::PING { bytes::PONG } else { frame.first }, payload);
            used += frame.payload.end;
            if frame.first == bytes::CLOSE {
                return (used, Then::Close);
            }
        }
        (used, Then::Continue)
    }
}

/// Answers an upgrade with 101, and whatever comes next with a close frame.
#[derive(Clone, Copy, Default, Debug)]
pub struct Accept;

impl Job for Accept {
    fn received(&mut self, phase: &mut Phase, input: &mut [u8], out: &mut Vec<u8>) -> (usize, Then) {
        if *phase == Phase::Open {
            out.extend_from_slice(bytes::CLOSED);
            return (input.len(), Then::Close);
        }
        (upgrade(phase, input, out), Then::Continue)
    }
}

/// How many publications go into one send to a subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batching {
    /// One.
    Single,
    /// All that came in one turn of the loop.
    Pending,
}

/// One channel: whatever publishers post goes to every client.
#[derive(Debug)]
pub struct Fanout {
    batching: Batching,
    /// Frames of the publications that came in this turn, and where each ends.
    pending: Vec<u8>,
    ends: Vec<usize>,
    /// How many of them were given to the subscribers.
    given: usize,
}

impl Fanout {
    /// A channel without publications.
    pub fn new(batching: Batching) -> Fanout {
        Fanout { batching, pending: Vec::new(), ends: Vec::new(), given: 0 }
    }

    fn publish(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut used = 0;
        while let Some(request) = bytes::request(&input[used..]) {
            bytes::write_publication(&mut self.pending, &input[used..][request.body.clone()], request.is_json);
            self.ends.push(self.pending.len());
            out.extend_from_slice(bytes::PUBLISHED);
            used += request.body.end;
        }
        used
    }

    /// A client's frames: its introduction, and at the end its close frame.
    fn listen(&mut self, phase: &mut Phase, input: &mut [u8], mut used: usize, out: &mut Vec<u8>) -> (usize, Then) {
        let mut then = Then::Continue;
        while let Some(frame) = bytes::frame(&input[used..]) {
            let payload = &mut input[used..][frame.payload.clone()];
            bytes::unmask(payload, frame.mask);
            used += frame.payload.end;
            match frame.first {
                bytes::CLOSE => {
                    bytes::write_frame(out, bytes::CLOSE, payload);
                    return (used, Then::Close);
                }
                bytes::PING => bytes::write_frame(out, bytes::PONG, payload),
                _ if *phase == Phase::Greeting => {
                    bytes::write_replies(out, payload);
                    *phase = Phase::Open;
                    then = Then::Subscribe;
                }
                _ => {}
            }
        }
        (used, then)
    }
}

impl Job for Fanout {
    fn received(&mut self, phase: &mut Phase, input: &mut [u8], out: &mut Vec<u8>) -> (usize, Then) {
        match phase {
            Phase::Publisher => (self.publish(input, out), Then::Continue),
            Phase::Head => {
                let used = upgrade(phase, input, out);
                // Clients of the raw dialect say nothing and are subscribed by their URL; Centrifugo's introduce themselves.
                if *phase == Phase::Open && bytes::target(input).starts_with(b"/connection/websocket") {
                    *phase = Phase::Greeting;
                }
                let subscribed = *phase == Phase::Open;
                let (used, then) = self.listen(phase, input, used, out);
                (used, if then == Then::Continue && subscribed { Then::Subscribe } else { then })
            }
            Phase::Greeting | Phase::Open => self.listen(phase, input, 0, out),
        }
    }

    fn broadcast(&mut self, out: &mut Vec<u8>) -> bool {
        if self.given == self.ends.len() {
            self.pending.clear();
            self.ends.clear();
            self.given = 0;
            return false;
        }
        let start = self.given.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.given = match self.batching {
            Batching::Single => self.given + 1,
            Batching::Pending => self.ends.len(),
        };
        out.extend_from_slice(&self.pending[start..self.ends[self.given - 1]]);
        true
    }
}

/// Answers an upgrade request at the front of `input`, if `phase` waits for one and it is whole.
fn upgrade(phase: &mut Phase, input: &[u8], out: &mut Vec<u8>) -> usize {
    if *phase != Phase::Head {
        return 0;
    }
    let Some(head_len) = bytes::head_len(input) else { return 0 };
    bytes::switching_protocols(&input[..head_len], out);
    *phase = Phase::Open;
    head_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ws::OpCode;

    fn head(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").into_bytes()
    }

    fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire::ws::write_frame(&mut out, opcode, true, payload, Some([7, 1, 9, 3]));
        out
    }

    fn feed(job: &mut impl Job, phase: &mut Phase, mut input: Vec<u8>) -> (Vec<u8>, usize, Then) {
        let mut out = Vec::new();
        let (used, then) = job.received(phase, &mut input, &mut out);
        (out, input.len() - used, then)
    }

    #[test]
    fn every_frame_of_a_burst_comes_back_and_half_a_frame_waits() {
        let mut phase = Phase::Head;
        let (answer, rest, _) = feed(&mut Echo, &mut phase, head("/echo"));
        assert!(answer.starts_with(b"HTTP/1.1 101") && rest == 0);
        let mut input = [masked(OpCode::Text, b"one"), masked(OpCode::Text, b"two")].concat();
        input.extend_from_slice(&masked(OpCode::Text, b"three")[..4]);
        let (out, rest, then) = feed(&mut Echo, &mut phase, input);
        assert_eq!((out.as_slice(), rest, then), (&b"\x81\x03one\x81\x03two"[..], 4, Then::Continue));
        let (out, _, then) = feed(&mut Echo, &mut phase, masked(OpCode::Close, &[3, 232]));
        assert_eq!((out.as_slice(), then), (bytes::CLOSED, Then::Close));
    }

    #[test]
    fn accepting_answers_the_head_and_then_closes() {
        let mut phase = Phase::Head;
        let mut half = head("/echo");
        let rest = half.split_off(20);
        assert_eq!(feed(&mut Accept, &mut phase, half).0, b"");
        assert!(feed(&mut Accept, &mut phase, [head("/echo")[..20].to_vec(), rest].concat()).0.starts_with(b"HTTP"));
        let (out, _, then) = feed(&mut Accept, &mut phase, masked(OpCode::Close, &[3, 232]));
        assert_eq!((out.as_slice(), then), (bytes::CLOSED, Then::Close));
    }

    #[test]
    fn a_centrifugo_client_is_subscribed_by_its_commands_and_a_raw_one_by_its_url() {
        let mut fanout = Fanout::new(Batching::Single);
        let mut phase = Phase::Head;
        assert_eq!(feed(&mut fanout, &mut phase, head("/connection/websocket")).2, Then::Continue);
        let commands = masked(OpCode::Text, b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}");
        let (out, _, then) = feed(&mut fanout, &mut phase, commands);
        assert_eq!(then, Then::Subscribe);
        assert!(out.ends_with(b"{\"id\":2,\"subscribe\":{}}"));
        let mut phase = Phase::Head;
        assert_eq!(feed(&mut fanout, &mut phase, head("/sub/a")).2, Then::Subscribe);
        assert_eq!(feed(&mut fanout, &mut phase, masked(OpCode::Text, b"hello")).2, Then::Continue);
    }

    #[test]
    fn pending_publications_are_sent_one_by_one_or_all_at_once() {
        let post = b"POST /pub/a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".repeat(3);
        for (batching, sends) in [(Batching::Single, 3), (Batching::Pending, 1)] {
            let mut fanout = Fanout::new(batching);
            let (answers, ..) = feed(&mut fanout, &mut Phase::Publisher, post.clone());
            assert_eq!(answers, bytes::PUBLISHED.repeat(3));
            let mut out = Vec::new();
            let mut count = 0;
            while fanout.broadcast(&mut out) {
                count += 1;
            }
            assert_eq!((count, out.as_slice()), (sends, &b"\x81\x02hi".repeat(3)[..]));
            assert!(!fanout.broadcast(&mut out), "nothing is given twice");
        }
    }
}
