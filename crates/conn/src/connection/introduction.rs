//! How a connection begins: from where, and with what a proxy says about the client behind it.
//!
//! The header of the PROXY protocol comes before anything else, TLS too. Nothing of it is kept but the client's address, and
//! that only until a request has become a WebSocket: an open connection costs no byte more for having been introduced.

use super::{Connection, Phase};
use crate::address::{Address, Entered, Place, client_of};
use crate::effect::{Effect, Note};
use crate::moment::Moment;
use crate::outbox::Outbox;
use crate::settings::ProxyProtocol;
use crate::shared::{Directions, End, Shared, Urgency};
use crate::tls::Tls;
use crate::transport::http::{Http, RETRY_AFTER_SECONDS};
use std::time::Duration;
use wire::http::Refusal;
use wire::proxy::{self, Header, ProxyError};

/// Connections of one worker that are told at the same time why they were turned away; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// How long one of them has to send the first of its request; then it is told without.
const TURNED_AWAY_WAIT: Duration = Duration::from_secs(1);

/// A record with the fatal alert `access_denied` (RFC 8446, 6).
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

impl Shared {
    /// A place among the connections of an address.
    ///
    /// # Errors
    /// What to say where there is none.
    pub(crate) fn enter(&mut self, client: Address) -> Result<Place, Refusal> {
        let Some(max) = self.settings.limits.connections_per_address_max else { return Ok(Place::NONE) };
        let Some(ip) = client_of(client, &self.settings.trusted_proxies) else { return Ok(Place::NONE) };
        match self.settings.addresses.enter(ip, max) {
            Entered::Counted(place) => Ok(place),
            Entered::Full => {
                self.counters.full_addresses += 1;
                Err(Refusal::too_many_requests(RETRY_AFTER_SECONDS))
            }
            Entered::Crowded => {
                self.counters.addresses_uncounted += 1;
                Ok(Place::NONE)
            }
        }
    }
}

impl Connection {
    /// A new socket of the listener with that number. Says also what is to be done about it at once.
    pub fn accepted(now: Duration, listener: usize, peer: Address, shared: &mut Shared) -> (Self, Directions) {
        let settings = shared.settings.clone();
        let listener = settings.listeners.get(listener);
        let peer = peer.map(|ip| ip.to_canonical());
        let tls = listener.and_then(|listener| listener.tls.as_ref()).and_then(Tls::boxed);
        let is_trusted = settings.trusted_proxies.contains(peer);
        let due = match listener.map(|listener| listener.proxy_protocol).unwrap_or_default() {
            // What a stranger sends is read as if there were no such protocol: its header is a malformed request.
            ProxyProtocol::Optional if !is_trusted => ProxyProtocol::Off,
            due => due,
        };
        let http = Http::new(now, settings.times.head_timeout, peer, due);
        let mut connection = Self {
            outbox: Outbox::default(),
            opened: Moment::after(now, Duration::ZERO),
            stalled: None,
            reading: true,
            place: Place::NONE,
            phase: Phase::Http(Box::new(http)),
            tls,
        };
        let end = match due {
            ProxyProtocol::Required if !is_trusted => {
                shared.counters.proxy_headers_refused += 1;
                shared.effects.push(Effect::Note(Note::ProxyNotTrusted { peer }));
                Some(connection.end(End::Now, shared))
            }
            ProxyProtocol::Off => connection.begin(now, peer, shared),
            ProxyProtocol::Optional | ProxyProtocol::Required => None,
        };
        let directions = connection.directions(now, true, Urgency::Reply, end, shared);
        (connection, directions)
    }

    /// It is known who the client is, as far as the connection itself tells. What the client says begins here.
    fn begin(&mut self, now: Duration, client: Address, shared: &mut Shared) -> Option<End> {
        let times = &shared.settings.times;
        let timeout = if self.tls.is_some() { times.tls_handshake_timeout } else { times.head_timeout };
        if let Phase::Http(http) = &mut self.phase {
            (http.client, http.proxy_header) = (client, ProxyProtocol::Off);
            http.begin(now, timeout);
        }
        self.enter(now, client, shared)
    }

    /// Takes a place among the connections of the client's address. Where there is none the client is told so when it has begun
    /// to speak: an answer that comes before the request is none to some proxies.
    fn enter(&mut self, now: Duration, client: Address, shared: &mut Shared) -> Option<End> {
        match shared.enter(client) {
            Ok(place) => self.place = place,
            Err(_) if shared.turned_away >= TURNED_AWAY_MAX => return Some(self.end(End::Now, shared)),
            Err(_) => {
                shared.turned_away += 1;
                self.place = Place::TURNED_AWAY;
                if let Phase::Http(http) = &mut self.phase {
                    http.begin(now, TURNED_AWAY_WAIT);
                }
            }
        }
        None
    }

    /// Says that the client's address has as many connections as it may: 429, or an alert where TLS is due, whose handshake is
    /// what a crowd should not cost us.
    pub(super) fn say_why_turned_away(&mut self, shared: &mut Shared) -> End {
        if self.tls.take().is_some() {
            shared.outboxes.write(&mut self.outbox, |out| out.extend_from_slice(&ACCESS_DENIED));
        } else {
            shared.counters.http_requests += 1;
            let refusal = Refusal::too_many_requests(RETRY_AFTER_SECONDS);
            shared.outboxes.write(&mut self.outbox, |out| refusal.write(out, false));
        }
        self.end(End::Flush, shared)
    }

    /// The place that a request behind a proxy has taken, if it has.
    pub(super) fn take_place(&mut self, shared: &mut Shared) {
        if shared.entering != Place::NONE {
            self.place = std::mem::take(&mut shared.entering);
        }
    }

    /// The connection is gone.
    pub(super) fn give_place_back(&mut self, shared: &mut Shared) {
        let place = std::mem::take(&mut self.place);
        if place == Place::TURNED_AWAY {
            shared.turned_away -= 1;
        } else {
            shared.settings.addresses.leave(place);
        }
    }

    /// The TLS handshake is done: the time for a request begins.
    pub(crate) fn begin_http(&mut self, now: Duration, shared: &Shared) {
        if let Phase::Http(http) = &mut self.phase {
            http.begin(now, shared.settings.times.head_timeout);
        }
    }

    /// Whether a header of the PROXY protocol is due, or may come, before anything else.
    pub(super) fn awaits_proxy_header(&self) -> bool {
        matches!(&self.phase, Phase::Http(http) if http.proxy_header != ProxyProtocol::Off)
    }

    /// The first bytes, in which there may be a header. What follows it is the client's.
    pub(super) fn introduced(&mut self, now: Duration, bytes: &[u8], shared: &mut Shared) -> Option<End> {
        let Phase::Http(http) = &mut self.phase else { return None };
        let mut all = std::mem::take(&mut http.buffer);
        all.extend_from_slice(bytes);
        let peer = http.client;
        let (client, len) = match proxy::parse(&all) {
            Ok(None) => {
                http.buffer = all;
                return None;
            }
            Ok(Some((Header::For { client, .. }, len))) => (Some(client.ip().to_canonical()), len),
            Ok(Some((Header::Own, len))) => (peer, len),
            Err(ProxyError::Missing) if http.proxy_header == ProxyProtocol::Optional => (peer, 0),
            Err(error) => return Some(self.refuse_header(error, peer, &all, shared)),
        };
        shared.counters.proxy_headers += u64::from(len > 0);
        let end = self.begin(now, client, shared);
        if end.is_some() || len == all.len() { end } else { self.take_in(now, &mut all[len..], shared) }
    }

    /// No header, or a bad one. Somebody who has sent a request instead is told so.
    fn refuse_header(&mut self, error: ProxyError, peer: Address, bytes: &[u8], shared: &mut Shared) -> End {
        shared.counters.proxy_headers_refused += 1;
        shared.effects.push(Effect::Note(Note::ProxyHeaderRefused { peer, error }));
        // Not sealed, and there is no TLS yet that could.
        self.tls = None;
        if error == ProxyError::Missing && bytes[0].is_ascii_alphabetic() {
            let refusal = Refusal::bad_request("connections to this port begin with a header of the PROXY protocol");
            shared.counters.http_requests += 1;
            shared.outboxes.write(&mut self.outbox, |out| refusal.write(out, false));
        }
        self.end(End::Flush, shared)
    }
}
