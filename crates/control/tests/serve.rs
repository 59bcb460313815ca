//! The listeners over real sockets: slow, large, many, and the end.

mod common;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Fake, KEY, node, node_with, settings};
use control::{ApiSettings, ServeLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A node on a port of its own.
struct Served {
    fake: Arc<Fake>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

async fn served(limits: ServeLimits) -> Served {
    served_at("127.0.0.1:0", settings(), limits).await
}

async fn served_at(address: &str, settings: ApiSettings, limits: ServeLimits) -> Served {
    let (fake, router) = node_with(settings, Fake::default());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(control::serve(vec![listener.into()], router, limits, async {
        let _ = stopped.await;
    }));
    Served { fake, address, stop: Some(stop), running }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn publish(channel: &str, close: bool) -> String {
    let body = format!(r#"{{"channel":"{channel}","data":1}}"#);
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nConnection: {connection}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends all and reads until the server closes.
async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

async fn rest(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads one answer with a length from a connection that stays open.
async fn one(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    loop {
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return answer;
            }
        }
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "closed after {answer:?}");
        answer.push(byte[0].into());
    }
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

#[tokio::test]
async fn tcp_of_both_families_and_unix_sockets_are_served_at_once() {
    let (fake, router) = node();
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let v6 = TcpListener::bind("[::1]:0").await.unwrap();
    let folder = std::env::temp_dir().join(format!("control-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("api.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let addresses = [v4.local_addr().unwrap(), v6.local_addr().unwrap()];
    let listeners = vec![v4.into(), v6.into(), unix.into()];
    let running = tokio::spawn(control::serve(listeners, router, ServeLimits::default(), pending()));
    for address in addresses {
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(status(&exchange(stream, &publish("news", true)).await), "200");
    }
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(status(&exchange(stream, &publish("news", true)).await), "200");
    assert_eq!(fake.log().len(), 3);

    // Rebinding needs TCP: on the Unix socket any Host will do, on the others not.
    let foreign = publish("news", true).replace("localhost", "push.example");
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(status(&exchange(stream, &foreign).await), "200");
    for address in addresses {
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(status(&exchange(stream, &foreign).await), "403");
    }
    running.abort();
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_listener_on_all_addresses_takes_any_host() {
    let served = served_at("0.0.0.0:0", settings(), ServeLimits::default()).await;
    let foreign = publish("news", true).replace("localhost", "push.example");
    let stream = TcpStream::connect(("127.0.0.1", served.address.port())).await.unwrap();
    assert_eq!(status(&exchange(stream, &foreign).await), "200");
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let served = served(ServeLimits::default()).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        stream.write_all(publish("news", false).as_bytes()).await.unwrap();
        assert_eq!(status(&one(&mut stream).await), "200");
    }
    let pipelined = publish("news", false) + &publish("chap:1", false) + &publish("news", true);
    let answers = exchange(stream, &pipelined).await;
    let bodies: Vec<&str> = answers.split("\r\n\r\n").skip(1).map(|body| &body[..8.min(body.len())]).collect();
    assert_eq!(bodies, [r#"{"result"#, r#"{"error""#, r#"{"result"#]);
    assert_eq!(served.fake.log().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_arrive_in_time_ends_the_connection() {
    let limits = ServeLimits { head_timeout: Duration::from_secs(30), ..ServeLimits::default() };
    let served = served(limits).await;
    let request = publish("news", true);
    let (head, tail) = request.split_at(20);

    let mut slow = served.connect().await;
    slow.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    assert_eq!(rest(slow).await, "");
    assert!(started.elapsed() <= Duration::from_secs(31), "{:?}", started.elapsed());
    assert!(served.fake.log().is_empty());

    let mut in_time = served.connect().await;
    in_time.write_all(head.as_bytes()).await.unwrap();
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(status(&exchange(in_time, tail).await), "200");
    assert_eq!(served.fake.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_in_time_is_a_408() {
    let served = served(ServeLimits::default()).await;
    let request = publish("news", true);
    let (most, last) = request.split_at(request.len() - 1);

    let mut slow = served.connect().await;
    slow.write_all(most.as_bytes()).await.unwrap();
    assert_eq!(status(&rest(slow).await), "408");
    assert!(served.fake.log().is_empty());

    let mut in_time = served.connect().await;
    in_time.write_all(most.as_bytes()).await.unwrap();
    tokio::time::advance(control::limits::BODY_TIMEOUT - Duration::from_millis(10)).await;
    assert_eq!(status(&exchange(in_time, last).await), "200");
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_headers() {
    let limits = ServeLimits::default();
    let served = served(limits).await;
    let with = |extra: &str| publish("news", true).replace("Host:", &format!("{extra}Host:"));
    let long = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
    let base = with(&long(0)).split("\r\n\r\n").next().unwrap().len() + 4;
    let fits = long(limits.head_bytes_max - base);
    let over = long(limits.head_bytes_max - base + 2);
    assert_eq!(status(&exchange(served.connect().await, &with(&fits)).await), "200");
    assert_eq!(status(&exchange(served.connect().await, &with(&over)).await), "431");
    // The request has four headers of its own.
    let many = |count: usize| (0..count - 4).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    assert_eq!(status(&exchange(served.connect().await, &with(&many(limits.headers_max))).await), "200");
    assert_eq!(status(&exchange(served.connect().await, &with(&many(limits.headers_max + 1))).await), "431");
    assert_eq!(served.fake.log().len(), 2);
}

#[tokio::test]
async fn a_413_reaches_a_client_that_sends_everything_before_it_reads() {
    let served = served(ServeLimits::default()).await;
    let mut stream = served.connect().await;
    let bytes = 4 * control::limits::BODY_BYTES_MAX;
    let head = publish("news", false).split("Content-Length").next().unwrap().to_owned();
    stream.write_all(format!("{head}Content-Length: {bytes}\r\n\r\n").as_bytes()).await.unwrap();
    // A server that closes at once makes this fail with a reset, which is all that most clients would report.
    stream.write_all(&vec![b' '; bytes]).await.expect("the rest is taken, if only to be discarded");
    stream.shutdown().await.unwrap();
    let answer = rest(stream).await;
    assert_eq!(status(&answer), "413");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(served.fake.log().is_empty());
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_503_and_a_freed_place_is_used() {
    let served = served(ServeLimits { connections_max: 1, ..ServeLimits::default() }).await;
    let mut first = served.connect().await;
    first.write_all(publish("news", false).as_bytes()).await.unwrap();
    assert_eq!(status(&one(&mut first).await), "200");

    let answer = exchange(served.connect().await, &publish("news", true)).await;
    assert_eq!(status(&answer), "503");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Retry-After: 1") && head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    serde_json::from_str::<serde_json::Value>(body).unwrap();

    first.shutdown().await.unwrap();
    assert_eq!(rest(first).await, "", "the place is free when the server has closed");
    assert_eq!(status(&exchange(served.connect().await, &publish("news", true)).await), "200");
    assert_eq!(served.fake.log().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_call_under_way_is_answered_and_nothing_new_is_taken() {
    let mut served = served(ServeLimits::default()).await;
    let mut idle = served.connect().await;
    idle.write_all(publish("news", false).as_bytes()).await.unwrap();
    assert_eq!(status(&one(&mut idle).await), "200");
    let mut busy = served.connect().await;
    busy.write_all(publish("later:3000", false).as_bytes()).await.unwrap();
    while served.fake.in_flight.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    served.stop.take().unwrap().send(()).unwrap();
    let answer = rest(busy).await;
    assert_eq!(status(&answer), "200");
    assert_eq!(rest(idle).await, "", "an idle connection is closed without a word");
    served.running.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    assert_eq!(served.fake.log().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_call_without_end_is_cut_after_the_grace() {
    let settings = ApiSettings { backend_timeout: Duration::from_secs(3600), ..settings() };
    let limits = ServeLimits { grace: Duration::from_secs(5), ..ServeLimits::default() };
    let mut served = served_at("127.0.0.1:0", settings, limits).await;
    let mut stuck = served.connect().await;
    stuck.write_all(publish("silent", false).as_bytes()).await.unwrap();
    while served.fake.in_flight.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    served.stop.take().unwrap().send(()).unwrap();
    served.running.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(rest(stuck).await, "");
}
