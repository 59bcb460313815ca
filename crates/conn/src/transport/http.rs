//! HTTP/1.1 on the public listener: requests one after the other until one of them upgrades.
//!
//! Nothing here takes a body: a request that has one is answered and the connection closed, so that the body cannot be
//! read as the next request.

use crate::address::{ADDRESS_HEADERS, Address, Paced, client_behind, client_of, told_as};
use crate::command::{Connect, Wanted};
use crate::dialect::centrifugo::Format;
use crate::dialect::plain;
use crate::effect::Note;
use crate::moment::Moment;
use crate::route::{Endpoint, Route, route};
use crate::session::{Dialect, Session};
use crate::settings::{ProxyProtocol, StaticPage, Times};
use crate::shared::Cx;
use crate::transport::websocket::{Fate, Open};
use std::time::Duration;
use wire::http::{self, BodyKind, HeadLimits, Method, Refusal, Request, Response, Status};
use wire::ws::extension::{Params, Policy};
use wire::ws::handshake;

/// Answers of 429 and 503 ask for this much patience.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 5;

/// Scripts and styles only from us, sockets to anywhere we might be reached: what the demo page needs and no more.
const PAGE_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'";

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    /// The part of a head that has arrived, or whole requests while the outbox is over high water.
    pub(crate) buffer: Vec<u8>,
    /// Where the connection comes from, or whoever its proxy has named.
    pub(crate) client: Address,
    /// A header of the PROXY protocol is due, or may come; what of it has arrived is in `buffer`.
    pub(crate) proxy_header: ProxyProtocol,
    by: Moment,
    /// No byte of the next head has arrived.
    idle: bool,
    /// Requests wait in `buffer` until the outbox has drained.
    held: bool,
}

/// What a chunk of requests came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Go on reading.
    More,
    /// Close when everything is sent.
    Finished,
    /// It is a WebSocket now. `rest` came behind the head; `fate` is what opening it has decided already.
    Upgraded { open: Box<Open>, rest: Vec<u8>, fate: Fate },
}

/// The outcome of one request.
enum Answer {
    KeepAlive,
    Close,
    Upgrade(Box<Open>, Fate),
}

impl Http {
    /// Whatever comes first has to come within `timeout`.
    pub(crate) fn new(now: Duration, timeout: Duration, client: Address, proxy_header: ProxyProtocol) -> Self {
        let by = Moment::after(now, timeout);
        Self { buffer: Vec::new(), client, proxy_header, by, idle: true, held: false }
    }

    /// The first request has to begin within `timeout`.
    pub(crate) fn begin(&mut self, now: Duration, timeout: Duration) {
        self.by = Moment::after(now, timeout);
    }

    pub(crate) fn deadline(&self) -> Moment {
        self.by
    }

    pub(crate) fn holds_input(&self) -> bool {
        self.held
    }

    /// Reading begins again after a pause that was ours: nothing was late meanwhile.
    pub(crate) fn resumed(&mut self, now: Duration, times: &Times) {
        self.by = Moment::after(now, if self.idle { times.keep_alive_timeout } else { times.head_timeout });
    }

    /// The head is late: 408, or no word to a connection that has not said one.
    pub(crate) fn timed_out(&self, cx: &mut Cx<'_>) {
        if !self.idle {
            cx.refuse(Refusal::timeout(), false);
        }
    }

    pub(crate) fn received(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Outcome {
        self.held = false;
        if self.buffer.is_empty() {
            return self.requests(bytes, cx);
        }
        let mut all = std::mem::take(&mut self.buffer);
        all.extend_from_slice(bytes);
        self.requests(&all, cx)
    }

    fn requests(&mut self, mut rest: &[u8], cx: &mut Cx<'_>) -> Outcome {
        let limits = &cx.shared.settings.limits;
        let (high_water, head_bytes_max, headers_max) =
            (limits.outbox_high_water, limits.head_bytes_max, limits.headers_max);
        let head = HeadLimits { head_bytes_max, headers_max, ..HeadLimits::default() };
        while !rest.is_empty() {
            if cx.outbox.backlog() > high_water {
                self.held = true;
                self.buffer = rest.to_vec();
                return Outcome::More;
            }
            if std::mem::take(&mut self.idle) {
                self.by = Moment::after(cx.now, cx.shared.settings.times.head_timeout);
            }
            let (request, len) = match http::parse(rest, &head) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => {
                    self.buffer = rest.to_vec();
                    return Outcome::More;
                }
                Err(refusal) => {
                    cx.refuse(refusal, false);
                    return Outcome::Finished;
                }
            };
            match cx.answer(&request, self.client) {
                Answer::KeepAlive => rest = &rest[len..],
                Answer::Close => return Outcome::Finished,
                Answer::Upgrade(open, fate) => return Outcome::Upgraded { open, rest: rest[len..].to_vec(), fate },
            }
            self.idle = true;
            self.by = Moment::after(cx.now, cx.shared.settings.times.keep_alive_timeout);
        }
        Outcome::More
    }
}

impl Cx<'_> {
    fn refuse(&mut self, refusal: Refusal, keep_alive: bool) -> Answer {
        let keep_alive = keep_alive && !refusal.closes();
        self.shared.counters.http_requests += 1;
        self.shared.outboxes.write(self.outbox, |out| refusal.write(out, keep_alive));
        if keep_alive { Answer::KeepAlive } else { Answer::Close }
    }

    fn respond(&mut self, response: &Response<'_>, keep_alive: bool) -> Answer {
        self.shared.counters.http_requests += 1;
        self.shared.outboxes.write(self.outbox, |out| response.write(out, keep_alive));
        if keep_alive { Answer::KeepAlive } else { Answer::Close }
    }

    fn answer(&mut self, request: &Request<'_>, peer: Address) -> Answer {
        let keep_alive = request.keep_alive() && request.body() == BodyKind::None;
        match self.try_answer(request, peer, keep_alive) {
            Ok(answer) => answer,
            Err(refusal) if request.method() == Method::Head => self.refuse(refusal.without_body(), keep_alive),
            Err(refusal) => self.refuse(refusal, keep_alive),
        }
    }

    fn try_answer(&mut self, request: &Request<'_>, peer: Address, keep_alive: bool) -> Result<Answer, Refusal> {
        if !self.shared.settings.hosts.allows(request.host()) {
            self.note(Note::HostRefused { host: request.host().unwrap_or_default().to_owned() });
            let text = "this gateway answers only to localhost, 127.0.0.1, [::1] and the names in public.hosts";
            return Err(Refusal::forbidden(text));
        }
        let found = route(request.path(), &self.shared.settings);
        match found {
            Route::Unknown => return Err(Refusal::not_found()),
            Route::WebSocket(_) if request.method() != Method::Get => return Err(Refusal::method_not_allowed("GET")),
            Route::WebSocket(endpoint) => {
                let (open, fate) = self.upgrade(request, endpoint, peer)?;
                return Ok(Answer::Upgrade(Box::new(open), fate));
            }
            _ if matches!(request.method(), Method::Get | Method::Head) => {}
            _ => return Err(Refusal::method_not_allowed("GET, HEAD")),
        }
        match found {
            Route::Page(page) => Ok(self.respond(&page_response(request, &page), keep_alive)),
            Route::Ready if !self.shared.ready => Err(Refusal::unavailable(RETRY_AFTER_SECONDS)),
            Route::Ready => Ok(self.respond(&json(request, b"{\"ready\":true}"), keep_alive)),
            _ => Ok(self.respond(&json(request, b"{}"), keep_alive)),
        }
    }

    /// Checks a handshake and answers it with 101.
    fn upgrade(&mut self, request: &Request<'_>, endpoint: Endpoint, peer: Address) -> Result<(Open, Fate), Refusal> {
        let upgrade = handshake::check(request)?;
        let origin = request.only("origin")?;
        if !self.shared.settings.origins.allows(origin, request.host()) {
            self.shared.counters.origins_refused += 1;
            self.note(Note::OriginRefused { origin: origin.unwrap_or_default().to_owned() });
            return Err(Refusal::forbidden(
                "pages of this origin may not connect; the option public.origins allows them",
            ));
        }
        let client = self.client_behind(peer, request);
        let query = request.query().unwrap_or_default();
        let (format, subprotocol) = match endpoint {
            Endpoint::Centrifugo => centrifugo_format(&upgrade, query)?,
            Endpoint::Plain | Endpoint::Echo => (Format::Json, None),
        };
        let wanted = match endpoint {
            Endpoint::Plain => plain_connect(query)?,
            Endpoint::Centrifugo | Endpoint::Echo => None,
        };
        self.let_in(peer, client)?;
        let deflate = self.agree_on_compression(&upgrade);
        self.shared.outboxes.write(self.outbox, |out| upgrade.write_response_with(out, subprotocol, deflate));
        self.shared.counters.handshakes += 1;
        let native_ping = http::query_param(query, "cf_ws_frame_ping_pong").as_deref() == Some("true");
        let mut open = match endpoint {
            Endpoint::Echo => Open::echo(self, deflate),
            Endpoint::Centrifugo => self.session(request, client, deflate, Dialect::Centrifugo(format), native_ping),
            Endpoint::Plain => self.session(request, client, deflate, Dialect::Plain, false),
        };
        let fate = wanted.map_or(Fate::Stays, |connect| open.connect_plain(self, connect));
        Ok((open, fate))
    }

    /// Who the client is, by what trusted proxies say.
    fn client_behind(&self, peer: Address, request: &Request<'_>) -> Address {
        let trusted = &self.shared.settings.trusted_proxies;
        if !trusted.contains(peer) {
            return peer;
        }
        let lines: Vec<_> = request.headers("x-forwarded-for").collect();
        client_behind(peer, &lines, trusted)
    }

    /// Whether there is time and room for one client more. The place that it takes is that of a client behind a proxy: one that
    /// has connected by itself has its own since then.
    fn let_in(&mut self, peer: Address, client: Address) -> Result<(), Refusal> {
        if self.shared.is_short_of_memory {
            self.shared.counters.handshakes_short += 1;
            return Err(Refusal::unavailable(RETRY_AFTER_SECONDS));
        }
        let limits = &self.shared.settings.limits;
        let counted = client_of(client, &self.shared.settings.trusted_proxies);
        if let (Some(rate), Some(ip)) = (limits.handshakes_per_address, counted) {
            match self.shared.settings.addresses.handshake(self.now, ip, rate) {
                Paced::Fine => {}
                Paced::Crowded => self.shared.counters.addresses_uncounted += 1,
                Paced::TooFast => {
                    self.shared.counters.fast_addresses += 1;
                    return Err(Refusal::too_many_requests(RETRY_AFTER_SECONDS));
                }
            }
        }
        let limits = &self.shared.settings.limits;
        if let Some(per_second) = limits.handshakes_per_second
            && !self.shared.settings.addresses.any_handshake(self.now, per_second)
        {
            self.shared.counters.handshakes_refused += 1;
            return Err(Refusal::unavailable(RETRY_AFTER_SECONDS));
        }
        if self.shared.settings.trusted_proxies.contains(peer) {
            self.shared.entering = self.shared.enter(client)?;
        }
        Ok(())
    }

    /// A session, with what its questions pass on of the handshake.
    fn session(
        &mut self,
        request: &Request<'_>,
        client: Address,
        deflate: Option<Params>,
        dialect: Dialect,
        native_ping: bool,
    ) -> Open {
        let mut session = Session::new(dialect, self.shared.ids.next_client(), native_ping);
        let settings = self.shared.settings.clone();
        if settings.webhooks.want_headers() {
            let headers = settings.webhooks.headers.iter().filter_map(|name| {
                let value = passed_on(request, client, name)?;
                Some((Box::from(&**name), value.into_boxed_str().into()))
            });
            session.pass_on(self.shared, headers.collect());
        }
        Open::session(self, deflate, session)
    }

    /// Accepts an offer of permessage-deflate, where there is one that can be, and room for what the client sends.
    fn agree_on_compression(&mut self, upgrade: &handshake::Upgrade<'_>) -> Option<Params> {
        let rules = self.shared.settings.compression?;
        let params = upgrade.deflate(&Policy::default())?;
        let agreed = self.shared.compression.agree(params, &rules)?;
        self.outbox.agree(agreed);
        Some(params)
    }
}

/// What a backend is told of a header with that name.
fn passed_on(request: &Request<'_>, client: Address, name: &str) -> Option<String> {
    if ADDRESS_HEADERS.contains(&name) {
        return client.map(|ip| told_as(name, ip));
    }
    let values: Vec<_> = request.headers(name).map(String::from_utf8_lossy).collect();
    // RFC 9110, 5.3; but RFC 6265, 5.4 for cookies.
    let between = if name == "cookie" { "; " } else { ", " };
    (!values.is_empty()).then(|| values.join(between))
}

/// Which format is spoken, and the subprotocol to answer with: one that the client offers, or none.
///
/// JSON is the default. Protobuf is asked for by its subprotocol or in the URL, as clients do that cannot offer one.
fn centrifugo_format(upgrade: &handshake::Upgrade<'_>, query: &str) -> Result<(Format, Option<&'static str>), Refusal> {
    const JSON: &str = "centrifuge-json";
    const PROTOBUF: &str = "centrifuge-protobuf";
    let asked = |key: &str| http::query_param(query, key).as_deref() == Some("protobuf");
    let asked = asked("cf_protocol") || asked("format");
    match (upgrade.offers(JSON), upgrade.offers(PROTOBUF)) {
        (_, true) if asked => Ok((Format::Protobuf, Some(PROTOBUF))),
        (true, false) if asked => {
            Err(Refusal::bad_request("the URL asks for Protobuf and the subprotocol for JSON: leave out one of them"))
        }
        (true, _) => Ok((Format::Json, Some(JSON))),
        (false, true) => Ok((Format::Protobuf, Some(PROTOBUF))),
        (false, false) if asked => Ok((Format::Protobuf, None)),
        (false, false) => Ok((Format::Json, None)),
    }
}

/// The connect request in the URL, if there is one; without one the client's first message is it.
fn plain_connect(query: &str) -> Result<Option<Connect<'static>>, Refusal> {
    let named = |channel| Wanted { channel, recover: None };
    let listed = http::query_param(query, "channels")
        .map(|list| plain::channels(&list).into_iter().map(named).collect::<Vec<Wanted<'static>>>());
    let Some(json) = http::query_param(query, "cf_connect") else {
        return Ok(listed.map(|channels| Connect { channels, ..Connect::default() }));
    };
    let Some(connect) = plain::connect(json.as_bytes()) else {
        return Err(Refusal::bad_request("the parameter cf_connect is not a JSON connect request"));
    };
    let mut connect = connect.into_owned();
    let mut channels = listed.unwrap_or_default();
    for wanted in std::mem::take(&mut connect.channels) {
        match channels.iter_mut().find(|listed| listed.channel == wanted.channel) {
            Some(listed) => listed.recover = wanted.recover,
            None => channels.push(wanted),
        }
    }
    Ok(Some(Connect { channels, ..connect }))
}

fn json<'a>(request: &Request<'_>, body: &'a [u8]) -> Response<'a> {
    response(request, "application/json", body).header("Cache-Control", "no-store")
}

fn page_response<'a>(request: &Request<'_>, page: &StaticPage) -> Response<'a> {
    response(request, page.content_type, page.body)
        .header("Cache-Control", "no-cache")
        .header("Content-Security-Policy", PAGE_POLICY)
        .header("X-Content-Type-Options", "nosniff")
}

fn response<'a>(request: &Request<'_>, content_type: &'a str, body: &'a [u8]) -> Response<'a> {
    Response::new(Status::OK).content_type(content_type).body(body).head_only(request.method() == Method::Head)
}
