//! A backend that remembers what it was asked, and small helpers to ask.
#![allow(dead_code)] // each test file uses its own part

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use control::metrics::{
    CertificateInUse, Close, CompressionSample, DriverInUse, Messages, NodeSample, NoticeSample, Side, SlowDisconnects,
    TickLengths, WebhookSample, WorkerSample,
};
use control::{ApiKey, ApiSettings, Backend, BackendError, ClientAction, Clients, ConnectionInfo, Glob, NodeInfo};
use http_body_util::BodyExt;
use hub::{
    Channel, ClientInfo, Draft, Epoch, HistoryPage, HistoryQuery, Namespace, Namespaces, Offset, Position, Publication,
    Published, Retention, SinceEpoch,
};
use hub::{Presence, PresenceQuery, PresenceStats};
use tower::ServiceExt;

pub(crate) const KEY: &str = "test-key";

/// Answers by the channel's name: `busy` is refused, `silent` never answers, `ending` shuts down, `later:<ms>` takes
/// that long.
pub(crate) struct Fake {
    pub(crate) published: Mutex<Vec<Draft>>,
    pub(crate) acts: Mutex<Vec<(Clients, ClientAction)>>,
    pub(crate) queries: Mutex<Vec<HistoryQuery>>,
    pub(crate) removed: Mutex<Vec<String>>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) in_flight_max: AtomicUsize,
    pub(crate) ready: AtomicBool,
    pub(crate) channels: Vec<(&'static str, u32)>,
    /// Lists this many made-up channels instead of `channels`.
    pub(crate) flood: usize,
    pub(crate) namespaces: Namespaces,
}

impl Default for Fake {
    fn default() -> Fake {
        let kept = Retention { size: 10, ttl: Duration::from_secs(60), meta_ttl: Duration::from_secs(600) };
        let named = ["chat", "later", "kept"].map(|name| Namespace {
            name: name.into(),
            history: (name == "kept").then_some(kept),
            presence: name == "chat",
            ..Namespace::default()
        });
        Fake {
            published: Mutex::default(),
            acts: Mutex::default(),
            queries: Mutex::default(),
            removed: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
            ready: AtomicBool::new(true),
            channels: vec![("news", 2), ("chat:b", 1), ("chat:a", 7)],
            flood: 0,
            namespaces: Namespaces::new(Namespace::default(), named.into()).unwrap(),
        }
    }
}

impl Fake {
    /// What was published, as `channel data` lines.
    pub(crate) fn log(&self) -> Vec<String> {
        let published = self.published.lock().unwrap();
        published.iter().map(|draft| format!("{} {}", &*draft.channel, String::from_utf8_lossy(&draft.data))).collect()
    }
}

impl Backend for Fake {
    async fn publish(&self, draft: Draft) -> Result<Published, BackendError> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.in_flight_max.fetch_max(now, Ordering::SeqCst);
        let outcome = match &*draft.channel {
            "busy" => Err(BackendError::Busy),
            "ending" => Err(BackendError::ShuttingDown),
            "gone" => Err(BackendError::UnknownChannel),
            "silent" => pending().await,
            channel => {
                let wait = channel.strip_prefix("later:").map_or(0, |millis| millis.parse().unwrap());
                if wait > 0 {
                    // On the paused clock of the tests that use it.
                    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(wait)).await;
                }
                let recorded = channel.starts_with("kept:");
                self.published.lock().unwrap().push(draft);
                let position = Position { offset: Offset(9), epoch: Epoch::from_seed(1) };
                Ok(Published { position, workers: 1, recorded })
            }
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    async fn history(&self, channel: Channel, query: HistoryQuery) -> Result<HistoryPage, BackendError> {
        if query.since.is_some_and(|since| since.epoch == SinceEpoch::Foreign) {
            return Err(BackendError::Unrecoverable);
        }
        let position = Position { offset: Offset(9), epoch: Epoch::from_seed(1) };
        let publications = (10 - query.publications_max.min(3) as u64..10).map(|offset| {
            let data: &[u8] = if offset == 8 { b"\xff" } else { b"{\"n\": 1.0}" };
            Arc::new(Publication {
                channel: channel.clone(),
                data: data.into(),
                info: (offset == 7).then(|| Box::new(ClientInfo { client: "c1".into(), ..ClientInfo::default() })),
                tags: (offset == 9).then(|| Box::new([("k".to_owned(), "v".to_owned())].into())),
                position: Position { offset: Offset(offset), ..position },
                time: std::num::NonZeroU64::new(1_700_000_000_000),
            })
        });
        self.queries.lock().unwrap().push(query);
        Ok(HistoryPage { publications: publications.collect(), position })
    }

    async fn remove_history(&self, channel: Channel) -> Result<(), BackendError> {
        self.removed.lock().unwrap().push(channel.to_string());
        Ok(())
    }

    async fn presence(&self, channel: Channel, query: PresenceQuery) -> Result<Presence, BackendError> {
        let info = |client: &str, user: &str, conn_info: Option<&[u8]>| {
            let conn_info = conn_info.map(Into::into);
            Arc::new(ClientInfo { client: client.into(), user: user.into(), conn_info, chan_info: None })
        };
        match (&*channel, query) {
            ("chat:full", PresenceQuery::Clients) => Err(BackendError::TooManyPresent),
            (_, PresenceQuery::Clients) => {
                Ok(Presence::Clients(vec![info("c1", "", None), info("c2", "77", Some(b"{\"n\": 1.0}"))]))
            }
            (_, PresenceQuery::Stats) => Ok(Presence::Stats(PresenceStats { clients: 3, users: 2 })),
        }
    }

    async fn channels(&self, pattern: Option<Glob>, limit: usize) -> Result<Vec<(Channel, u32)>, BackendError> {
        if self.flood > 0 {
            return Ok((0..self.flood.min(limit)).map(|n| (Channel::new(&n.to_string()), 1)).collect());
        }
        let matching = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
        let channels = self.channels.iter().filter(|(name, _)| matching(name));
        Ok(channels.map(|(name, count)| (Channel::new(name), *count)).take(limit).collect())
    }

    async fn act(&self, clients: Clients, action: ClientAction) -> Result<u64, BackendError> {
        self.acts.lock().unwrap().push((clients, action));
        Ok(1)
    }

    async fn connections(&self, clients: Clients, limit: usize) -> Result<Vec<ConnectionInfo>, BackendError> {
        let user = clients.user.unwrap_or_default();
        let one = |client: String| ConnectionInfo {
            client,
            user: user.clone(),
            transport: "websocket",
            protocol: "protobuf",
            channels: vec![Channel::new("news"), Channel::new("chat:1")],
        };
        let count = self.flood.max(2).min(limit);
        Ok((0..count).rev().map(|n| one(format!("c{n:04}"))).collect())
    }

    fn info(&self) -> NodeInfo {
        let (uid, name, version) = ("u1".into(), "node-1".into(), "0.1.0".into());
        NodeInfo { uid, name, version, num_clients: 3, num_users: 2, num_channels: 4, num_subs: 5, uptime: 60 }
    }

    fn namespaces(&self) -> Arc<Namespaces> {
        Arc::new(self.namespaces.clone())
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn sample(&self) -> NodeSample {
        NodeSample {
            version: "0.1.0".into(),
            commit: "abc".into(),
            drivers: vec![
                DriverInUse {
                    driver: "epoll",
                    reason: "asked for by `--io epoll`, a \"quoted\" \\ and\nbroken reason".into(),
                },
                DriverInUse { driver: "uring", reason: "it works".into() },
            ],
            uptime: Duration::from_millis(1500),
            files_max: 1024,
            connections_max: 900,
            memory: 700 << 20,
            memory_max: 800 << 20,
            log_lines_dropped: 4,
            certificates: vec![CertificateInUse {
                file: "/etc/a \"quoted\"\nname.pem".into(),
                not_after: Duration::from_secs(1_900_000_000),
            }],
            webhooks: vec![WebhookSample {
                event: "connect",
                ended: vec![("ok", 7), ("timeout", 2)],
                time: Duration::from_millis(2500),
            }],
            notices: NoticeSample { delivered: 8, dropped: 3, waiting: 1 },
            workers: vec![worker(1), worker(2)],
        }
    }
}

fn worker(n: u64) -> WorkerSample {
    WorkerSample {
        connections: n,
        bytes_sent: 1000 * n,
        skipped: 3 * n,
        compression: CompressionSample {
            after: Messages { count: n, plain_bytes: 100 * n, packed_bytes: 30 * n },
            publication_runs: 2 * n,
            ..CompressionSample::default()
        },
        slow_disconnects: SlowDisconnects { disconnect: n, conflate: 10 * n, reply: 0 },
        ticks: TickLengths { buckets: vec![(0.001, 10 * n), (0.01, n)], seconds: 0.5 },
        closes: vec![
            Close { side: Side::Client, code: Some(1000), count: n },
            Close { side: Side::Server, code: Some(3503), count: 1 },
        ],
        ..WorkerSample::default()
    }
}

pub(crate) fn settings() -> ApiSettings {
    ApiSettings { keys: vec![ApiKey::new(KEY).unwrap()], ..ApiSettings::default() }
}

pub(crate) fn node() -> (Arc<Fake>, Router) {
    node_with(settings(), Fake::default())
}

pub(crate) fn node_with(settings: ApiSettings, fake: Fake) -> (Arc<Fake>, Router) {
    let fake = Arc::new(fake);
    let router = control::router(control::fixed(settings), Arc::clone(&fake));
    (fake, router)
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response: Response<Body> = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// A POST with the headers given and no others but Host.
pub(crate) async fn post_with(router: &Router, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::post(path).header("host", "localhost:9000");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(router, request.body(body.into()).unwrap()).await
}

/// A POST as a backend sends it.
pub(crate) async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Answer {
    post_with(router, path, &[("x-api-key", KEY)], body).await
}

/// The body of a call that is answered 200.
pub(crate) async fn call(router: &Router, method: &str, body: &str) -> String {
    let answer = post(router, &format!("/api/{method}"), body.to_owned()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.body
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    ask(router, Request::get(path).header("host", "localhost:9000").body(Body::empty()).unwrap()).await
}
