//! Where TLS meets the life of a connection.

use super::{Opened, Stage, Tls};
use crate::connection::Connection;
use crate::effect::{Effect, Note};
use crate::shared::{Directions, End, Shared, Urgency};
use std::time::Duration;
use wire::http::Refusal;

impl Connection {
    /// Ciphertext from the socket; an empty slice is the peer's FIN. During the handshake it is only kept: the work waits for
    /// [`Connection::shake_hands`], and nothing more is read meanwhile, neither bytes nor a FIN.
    pub(crate) fn received_sealed(&mut self, now: Duration, bytes: &mut [u8], shared: &mut Shared) -> Option<End> {
        let tls = self.tls.as_mut()?;
        if bytes.is_empty() {
            // Without a close_notify in front of it: what was cut off had no whole message in it, and a FIN is a FIN.
            if tls.is_handshaking() {
                return Some(self.end(End::Now, shared));
            }
            // Our close_notify goes out before our FIN all the same (RFC 8446, 6.1).
            return match self.received_plain(now, bytes, shared) {
                Some(End::Now) => Some(End::Finish),
                other => other,
            };
        }
        if tls.stage == Stage::Over {
            return None;
        }
        if tls.stage == Stage::Fresh && tls.arrived.is_empty() && bytes[0].is_ascii_alphabetic() {
            return Some(self.answer_in_the_clear(shared));
        }
        if tls.is_handshaking() {
            tls.keep(bytes, &mut shared.records);
            return None;
        }
        self.open_records(now, bytes, shared)
    }

    /// A request without TLS is told that it takes TLS here.
    fn answer_in_the_clear(&mut self, shared: &mut Shared) -> End {
        self.tls = None;
        shared.counters.http_requests += 1;
        let refusal = Refusal::bad_request("this port speaks TLS: use https:// or wss://");
        shared.outboxes.write(&mut self.outbox, |out| refusal.write(out, false));
        self.end(End::Flush, shared)
    }

    /// Whether bytes of a handshake wait for [`Connection::shake_hands`], and nobody has been told yet.
    pub(crate) fn asks_for_handshake(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| {
            tls.is_handshaking() && !tls.arrived.is_empty() && !std::mem::replace(&mut tls.is_queued, true)
        })
    }

    /// Goes on with the TLS handshake, whose bytes have come. [`Directions::handshake`] has asked for it; the worker does it
    /// after the established traffic of the tick, because a signature costs as much as hundreds of messages.
    pub fn shake_hands(&mut self, now: Duration, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let waits = self.tls.as_mut().is_some_and(|tls| std::mem::take(&mut tls.is_queued) && tls.is_handshaking());
        let end = if waits { self.open_records(now, &mut [], shared) } else { None };
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    fn open_records(&mut self, now: Duration, bytes: &mut [u8], shared: &mut Shared) -> Option<End> {
        let tls = self.tls.as_mut()?;
        let was_handshaking = tls.is_handshaking();
        let mut plain = shared.records.take_plain();
        let opened = tls.receive(bytes, &mut plain, &mut shared.records);
        if was_handshaking && !tls.is_handshaking() && tls.stage == Stage::Open {
            shared.counters.tls_handshakes += 1;
            if tls.session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                shared.counters.tls_resumed += 1;
            }
            self.begin_http(now, shared);
        }
        let mut end = None;
        if !plain.is_empty() {
            end = self.received_plain(now, &mut plain, shared);
        }
        shared.records.put_plain(plain);
        match opened {
            Opened::More => end,
            // What came before it waits for the outbox to drain. The FIN behind it is read after that.
            Opened::PeerClosed if self.holds_input() => end,
            // The client hears that the end has reached us: our close_notify follows what waits.
            Opened::PeerClosed => end.or_else(|| self.received_plain(now, &mut [], shared)).map(|end| match end {
                End::Now => End::Flush,
                other => other,
            }),
            Opened::Failed(error) => {
                shared.counters.tls_failed += 1;
                shared.effects.push(Effect::Note(Note::TlsFailed { error: error.to_string() }));
                Some(self.end(End::Flush, shared))
            }
        }
    }

    /// Hands the waiting bytes to `take`, oldest first.
    pub fn gather(&mut self, shared: &mut Shared, take: impl FnMut(&[u8]) -> usize) {
        let is_last = self.has_ended();
        match &mut self.tls {
            None => shared.outboxes.gather(&mut self.outbox, take),
            Some(tls) => tls.gather((&mut shared.outboxes, &mut self.outbox), &mut shared.records, is_last, take),
        }
    }

    /// The kernel took `bytes`. Whether the connection can go on.
    pub(crate) fn account_for(&mut self, bytes: usize, shared: &mut Shared) -> Option<End> {
        let Some(tls) = &mut self.tls else {
            shared.outboxes.sent(&mut self.outbox, bytes);
            return None;
        };
        tls.sent(bytes, (&mut shared.outboxes, &mut self.outbox), &mut shared.records);
        tls.is_exhausted().then(|| self.end(End::Flush, shared))
    }
}

impl Tls {
    /// What a connection that begins is given.
    pub(crate) fn boxed(config: &std::sync::Arc<rustls::ServerConfig>) -> Option<Box<Self>> {
        Self::new(config.clone()).ok().map(Box::new)
    }
}
