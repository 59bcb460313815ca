//! Calls of a backend that is slow, down, lying, or all right.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use control::webhook::{
    BATCH_MAX, Caller, Endpoint, Fault, Notice, Notices, Options, SIGNATURE_HEADER, SigningKey, What,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

const OPTIONS: Options =
    Options { timeout: Duration::from_secs(10), calls_max: 64, answer_bytes_max: 1024, keys: Vec::new() };

/// What a backend sees.
struct Seen {
    headers: HeaderMap,
    body: Bytes,
}

/// A backend; `answer` is what it does. Its address, how many connections it has accepted, and what it is sent.
struct Backend {
    url: String,
    accepted: Arc<AtomicUsize>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

type Answer = Arc<dyn Fn(&Bytes) -> Response + Send + Sync>;

impl Backend {
    async fn start(answer: impl Fn(&Bytes) -> Response + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    fn on(listener: TcpListener, answer: impl Fn(&Bytes) -> Response + Send + Sync + 'static) -> Backend {
        let (tell, seen) = mpsc::unbounded_channel();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let answer: Answer = Arc::new(answer);
        let handler = |State((tell, answer)): State<(mpsc::UnboundedSender<Seen>, Answer)>,
                       headers: HeaderMap,
                       body: Bytes| async move {
            let response = answer(&body);
            let _ = tell.send(Seen { headers, body });
            response
        };
        let router = Router::new().route("/hook", post(handler)).with_state((tell, answer));
        let counted = accepted.clone();
        let listener = axum::serve::ListenerExt::tap_io(listener, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Backend { url, accepted, seen }
    }

    fn endpoint(&self, options: Options) -> Endpoint {
        endpoint(&self.url, options)
    }
}

fn endpoint(url: &str, options: Options) -> Endpoint {
    Endpoint::new(Caller::new(options, false).unwrap(), url.parse().unwrap())
}

fn ok(text: &'static str) -> impl Fn(&Bytes) -> Response + Send + Sync + 'static {
    move |_| text.into_response()
}

fn named(name: &str, value: &str) -> (Box<str>, zeroize::Zeroizing<Box<str>>) {
    (name.into(), Box::<str>::from(value).into())
}

#[tokio::test]
async fn a_question_is_a_signed_post_with_the_headers_that_are_some() {
    let mut backend = Backend::start(ok("{}")).await;
    let key = SigningKey::new(b"secret");
    let endpoint = backend.endpoint(Options { keys: vec![key], ..OPTIONS });
    let headers = [
        named("cookie", "a=1; b=2"),
        named("x-bad", "a\r\nx-smuggled: 1"),
        named("bad name", "1"),
        // What is ours is not theirs to say.
        named("content-type", "text/html"),
        named(SIGNATURE_HEADER, "t=1,v1=00"),
    ];
    assert_eq!(endpoint.call(&headers, br#"{"a":1}"#.to_vec()).await.unwrap(), "{}");
    let Seen { headers, body } = backend.seen.recv().await.unwrap();
    assert_eq!(
        (&body[..], &headers["cookie"], &headers["content-type"]),
        (&br#"{"a":1}"#[..], &"a=1; b=2".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert!(headers.get("x-smuggled").is_none() && headers.get("x-bad").is_none() && headers.len() < 9, "{headers:?}");
    let signatures: Vec<_> = headers.get_all(SIGNATURE_HEADER).iter().collect();
    assert_eq!(signatures.len(), 1);
    let signature = signatures[0].to_str().unwrap();
    let (time, mac) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect(signature);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let expected = ring::hmac::sign(&key, format!(r#"{time}.{{"a":1}}"#).as_bytes());
    assert_eq!(mac, expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

#[tokio::test]
async fn a_connection_is_used_again_and_no_more_are_made_than_calls_may_run() {
    let backend = Backend::start(ok("1")).await;
    let one = backend.endpoint(OPTIONS);
    for _ in 0..20 {
        one.call(&[], b"{}".to_vec()).await.unwrap();
    }
    assert_eq!(backend.accepted.load(Ordering::SeqCst), 1);
    let many = Arc::new(backend.endpoint(Options { calls_max: 3, ..OPTIONS }));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let many = many.clone();
            tokio::spawn(async move { many.call(&[], b"{}".to_vec()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(backend.accepted.load(Ordering::SeqCst) <= 1 + 3);
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_its_twin() {
    let fault = async |answer: fn(&Bytes) -> Response| {
        let backend = Backend::start(answer).await;
        backend.endpoint(OPTIONS).call(&[], b"{}".to_vec()).await
    };
    assert_eq!(fault(|_| StatusCode::NOT_FOUND.into_response()).await, Err(Fault::Status(404)));
    assert_eq!(fault(|_| StatusCode::CREATED.into_response()).await, Err(Fault::Status(201)));
    assert_eq!(fault(|_| (StatusCode::FOUND, [("location", "/hook")]).into_response()).await, Err(Fault::Status(302)));
    assert_eq!(fault(|_| vec![b' '; 1025].into_response()).await, Err(Fault::TooLarge));
    assert_eq!(fault(|_| vec![b' '; 1024].into_response()).await.map(|body| body.len()), Ok(1024));
}

/// What runs into its time does so at once, as tokio's clock is stopped while nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn a_slow_backend_costs_a_call_its_time_and_the_others_their_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let endpoint = Arc::new(endpoint(&url, Options { calls_max: 2, ..OPTIONS }));
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move { endpoint.call(&[], b"{}".to_vec()).await })
        })
        .collect();
    let mut ends = Vec::new();
    for call in calls {
        ends.push(call.await.unwrap());
    }
    let count = |fault: Fault| ends.iter().filter(|end| **end == Err(fault.clone())).count();
    assert_eq!((count(Fault::Timeout), count(Fault::Busy)), (2, 1), "{ends:?}");
}

#[tokio::test]
async fn a_backend_that_is_down_is_left_alone_and_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = endpoint(&format!("http://{address}/hook"), OPTIONS);
    let mut ends = Vec::new();
    while ends.last() != Some(&Err(Fault::Down)) {
        assert!(ends.len() < 100, "{ends:?}");
        ends.push(endpoint.call(&[], b"{}".to_vec()).await);
    }
    assert!(ends.iter().take(8).all(|end| matches!(end, Err(Fault::Unreachable(_)))), "{ends:?}");
    assert_eq!(ends.len(), 9, "nobody is asked after eight failures");
    let backend = Backend::on(TcpListener::bind(address).await.unwrap(), ok("1"));
    let give_up = tokio::time::Instant::now() + Duration::from_secs(30);
    // Its time is over when it is over: the next to come finds out.
    while endpoint.call(&[], b"{}".to_vec()).await == Err(Fault::Down) {
        assert!(tokio::time::Instant::now() < give_up, "it is back and nobody looks");
        tokio::task::yield_now().await;
    }
    assert_eq!(backend.accepted.load(Ordering::SeqCst), 1, "one has found out");
    endpoint.call(&[], b"{}".to_vec()).await.expect("all are let through again");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_gives_its_turn_back() {
    let reached = Arc::new(Notify::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let endpoint = Arc::new(endpoint(&url, Options { calls_max: 1, ..OPTIONS }));
    let (first, told) = (endpoint.clone(), reached.clone());
    let silent = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        told.notify_one();
        (listener, stream)
    });
    let given_up = tokio::spawn(async move { first.call(&[], b"{}".to_vec()).await });
    reached.notified().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let (listener, _stream) = silent.await.unwrap();
    let _backend = Backend::on(listener, ok("1"));
    assert_eq!(endpoint.call(&[], b"{}".to_vec()).await.unwrap(), "1");
}

fn notices(range: std::ops::Range<u64>) -> Vec<Notice> {
    range.map(|i| Notice { time: i, what: What::Occupied { channel: format!("c{i}") } }).collect()
}

/// Numbers and times of the notices of a request.
fn told(seen: &Seen) -> Vec<(u64, u64)> {
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["node"], "n1");
    let all = body["notices"].as_array().unwrap().iter();
    all.map(|notice| (notice["number"].as_u64().unwrap(), notice["time"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn notices_are_told_in_order_until_they_are_taken() {
    // The first of three requests is refused, as if its answer had been lost.
    let asked = AtomicUsize::new(0);
    let mut backend = Backend::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let waiting = Notices::new("n1".into(), 10_000);
    let (to, told_to) = tokio::sync::watch::channel(Some(Arc::new(backend.endpoint(OPTIONS))));
    waiting.push(notices(0..700));
    let teller = waiting.clone();
    let telling = tokio::spawn(async move { teller.deliver(told_to).await });
    let first = told(&backend.seen.recv().await.unwrap());
    assert_eq!(first.len(), BATCH_MAX);
    let again = told(&backend.seen.recv().await.unwrap());
    assert_eq!(first, again[..BATCH_MAX], "the same again");
    let rest = told(&backend.seen.recv().await.unwrap());
    let all: Vec<_> = again.into_iter().chain(rest).collect();
    assert_eq!(all, (0..700).map(|i| (i + 1, i)).collect::<Vec<_>>(), "each in its place");
    tokio::time::timeout(Duration::from_secs(10), waiting.emptied()).await.expect("all are taken");
    assert_eq!(waiting.counts(), (700, 0, 0));
    // A reload takes the endpoint away: nothing is kept for nobody.
    to.send_replace(None);
    waiting.push(notices(0..10));
    tokio::time::timeout(Duration::from_secs(10), waiting.emptied()).await.expect("nobody is told");
    assert_eq!(waiting.counts(), (700, 0, 0));
    drop(to);
    telling.await.expect("it ends with who decides where to");
}

#[tokio::test]
async fn of_too_many_notices_the_oldest_go_and_are_counted() {
    let mut backend = Backend::start(|_| StatusCode::OK.into_response()).await;
    let waiting = Notices::new("n1".into(), 10);
    waiting.push(notices(0..4));
    waiting.push(notices(4..13));
    assert_eq!(waiting.counts(), (0, 3, 10));
    waiting.set_max(5);
    assert_eq!(waiting.counts(), (0, 8, 5));
    waiting.count_dropped(2);
    let (_to, told_to) = tokio::sync::watch::channel(Some(Arc::new(backend.endpoint(OPTIONS))));
    let teller = waiting.clone();
    let telling = tokio::spawn(async move { teller.deliver(told_to).await });
    let seen = told(&backend.seen.recv().await.unwrap());
    assert_eq!(
        seen,
        (8..13).map(|i| (i + 1, i)).collect::<Vec<_>>(),
        "a backend sees that the first eight are missing"
    );
    tokio::time::timeout(Duration::from_secs(10), waiting.emptied()).await.expect("all are taken");
    assert_eq!(waiting.counts(), (5, 10, 0));
    telling.abort();
}

#[test]
fn a_notice_says_what_has_happened() {
    let told = |what| serde_json::to_value(Notice { time: 5, what }).unwrap();
    let (client, user) = ("c".to_owned(), "42".to_owned());
    assert_eq!(
        told(What::Vacated { channel: "a".into() }),
        serde_json::json!({"time": 5, "type": "vacated", "channel": "a"})
    );
    assert_eq!(
        told(What::Connected { client: client.clone(), user: user.clone(), transport: "websocket", protocol: "json" }),
        serde_json::json!({"time": 5, "type": "connected", "client": "c", "user": "42", "transport": "websocket", "protocol": "json"})
    );
    assert_eq!(
        told(What::Disconnected { client, user, code: 1000, reason: "bye".into() }),
        serde_json::json!({"time": 5, "type": "disconnected", "client": "c", "user": "42", "code": 1000, "reason": "bye"})
    );
}
