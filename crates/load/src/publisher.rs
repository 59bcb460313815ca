//! Publishing through the server API: `POST /api/publish`, one request under way per connection.

use crate::endpoint::Endpoint;
use crate::latency::Latencies;
use crate::payload::{self, Mark, Origin};
use crate::reasons::Reasons;
use io::Clock;
use serde::Deserialize;
use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::http::BodyKind;
use wire::http::body::Body;

/// For connecting, and for an answer. The API itself gives up sooner.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An answer holds a position or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Headers of an answer.
const HEADERS_MAX: usize = 32;

/// What to publish.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) api: Endpoint,
    pub(crate) key: Option<String>,
    /// They take turns.
    pub(crate) channels: Vec<String>,
    pub(crate) publishers: u32,
    /// Per second, all publishers together.
    pub(crate) rate: f64,
    /// All publishers together.
    pub(crate) publications: u64,
    /// Bytes of data.
    pub(crate) size: usize,
    /// See [`Origin::run`].
    pub(crate) run: u32,
}

/// A publication of which nobody told us whether it was accepted: the connection broke, or no answer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unknown {
    pub(crate) publisher: u32,
    pub(crate) channel: u32,
    pub(crate) sequence: u32,
}

/// What was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// By publisher and channel: the last number given out. A refused publication gives its number to the next one.
    pub(crate) last: Vec<Vec<u32>>,
    pub(crate) unknown: Vec<Unknown>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) reasons: Reasons,
    /// From the intended time to the answer.
    pub(crate) latencies: Latencies,
}

/// Publishers at work.
#[derive(Debug)]
pub(crate) struct Publishers {
    threads: Vec<JoinHandle<Published>>,
    /// Publications that have been answered, or not.
    pub(crate) done: Arc<AtomicU64>,
    /// Ends them early.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Publishers {
    /// Starts them; the first publication is due now.
    pub(crate) fn start(plan: Publishing, clock: Clock) -> std::io::Result<Publishers> {
        let plan = Arc::new(plan);
        let start = clock.now();
        let mut publishers = Publishers { threads: Vec::new(), done: Arc::default(), stop: Arc::default() };
        for number in 0..plan.publishers {
            let (plan, done, stop) = (Arc::clone(&plan), Arc::clone(&publishers.done), Arc::clone(&publishers.stop));
            let thread = std::thread::Builder::new()
                .name(format!("publisher {number}"))
                .spawn(move || Publisher::new(&plan, number).run(clock, start, &done, &stop))?;
            publishers.threads.push(thread);
        }
        Ok(publishers)
    }

    pub(crate) fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What all of them published.
    pub(crate) fn join(self) -> Published {
        let mut all = Published::new(0);
        all.last.clear();
        for thread in self.threads {
            let one = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.last.extend(one.last);
            all.unknown.extend(one.unknown);
            all.accepted += one.accepted;
            all.refused += one.refused;
            all.reasons.merge(&one.reasons);
            all.latencies.merge(&one.latencies);
        }
        all
    }
}

impl Published {
    fn new(channels: usize) -> Published {
        Published {
            last: vec![vec![0; channels]],
            unknown: Vec::new(),
            accepted: 0,
            refused: 0,
            reasons: Reasons::default(),
            latencies: Latencies::new(),
        }
    }
}

/// How one request ended.
enum Answer {
    Accepted,
    Refused(String),
}

struct Publisher<'p> {
    plan: &'p Publishing,
    number: u32,
    connection: Option<TcpStream>,
    published: Published,
    request: Vec<u8>,
}

impl<'p> Publisher<'p> {
    fn new(plan: &'p Publishing, number: u32) -> Publisher<'p> {
        let published = Published::new(plan.channels.len());
        Publisher { plan, number, connection: None, published, request: Vec::new() }
    }

    fn run(mut self, clock: Clock, start: Duration, done: &AtomicU64, stop: &AtomicBool) -> Published {
        let step = u64::from(self.plan.publishers);
        let mut turn = u64::from(self.number);
        while turn < self.plan.publications && !stop.load(Relaxed) {
            let at = start + Duration::from_secs_f64(turn as f64 / self.plan.rate);
            std::thread::sleep(at.saturating_sub(clock.now()));
            // Each publisher visits all channels.
            self.publish((turn / step % self.plan.channels.len() as u64) as u32, at);
            self.published.latencies.record(clock.now().saturating_sub(at));
            done.fetch_add(1, Relaxed);
            turn += step;
        }
        self.published
    }

    fn publish(&mut self, channel: u32, at: Duration) {
        let sequence = self.published.last[0][channel as usize] + 1;
        self.write_request(channel, Mark { sequence, at });
        if self.connection.is_none() {
            match connect(&self.plan.api) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return self.refused(&format!("the API cannot be reached: {error}")),
            }
        }
        let Some(connection) = &mut self.connection else { return };
        match exchange(connection, &self.request) {
            Ok((answer, keep)) => {
                if !keep {
                    self.connection = None;
                }
                match answer {
                    Answer::Accepted => {
                        self.published.last[0][channel as usize] = sequence;
                        self.published.accepted += 1;
                    }
                    Answer::Refused(reason) => self.refused(&reason),
                }
            }
            Err(error) => {
                // It may have been published all the same, so its number is spent.
                self.connection = None;
                self.published.last[0][channel as usize] = sequence;
                self.published.unknown.push(Unknown { publisher: self.number, channel, sequence });
                self.published.reasons.add(&format!("the API did not answer: {error}"));
            }
        }
    }

    fn refused(&mut self, reason: &str) {
        self.published.refused += 1;
        self.published.reasons.add(reason);
    }

    fn write_request(&mut self, channel: u32, mark: Mark) {
        let plan = self.plan;
        let name = &plan.channels[channel as usize];
        let (before, after) = (format!("{{\"channel\":\"{name}\",\"data\":"), "}");
        let key = plan.key.as_ref().map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
        let head = format!(
            "POST {}/api/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{key}Content-Length: {}\r\n\r\n",
            plan.api.target.trim_end_matches('/'),
            plan.api.host,
            before.len() + plan.size + after.len()
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(before.as_bytes());
        let origin = Origin { run: plan.run, publisher: self.number as u16, channel };
        payload::write_data(&mut self.request, origin, mark, plan.size);
        self.request.extend_from_slice(after.as_bytes());
    }
}

fn connect(api: &Endpoint) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&api.address, TIMEOUT)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

/// Sends the request and reads its answer. The second value tells whether the connection may be used again.
fn exchange(connection: &mut TcpStream, request: &[u8]) -> std::io::Result<(Answer, bool)> {
    connection.write_all(request)?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = match connection.read(&mut chunk) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&chunk[..len]);
        if let Some(answer) = parse(&received).map_err(std::io::Error::other)? {
            return Ok(answer);
        }
        if received.len() > ANSWER_BYTES_MAX {
            return Err(std::io::Error::other("its answer is too long"));
        }
    }
}

/// `None` while more has to come.
fn parse(received: &[u8]) -> Result<Option<(Answer, bool)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(status) = response.parse(received) else { return Err("its answer is not HTTP") };
    let httparse::Status::Complete(head_len) = status else { return Ok(None) };
    let value = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let keep = !value("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let kind = if value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        BodyKind::Chunked
    } else {
        let length = value("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        BodyKind::Length(length.ok_or("its answer has no length")?)
    };
    let mut body = Body::new(kind, ANSWER_BYTES_MAX as u64).map_err(|_| "its answer is too long")?;
    let (mut rest, mut content) = (&received[head_len..], Vec::new());
    while let Some(piece) = body.next(&mut rest).map_err(|_| "its answer has a malformed body")? {
        content.extend_from_slice(piece);
    }
    let code = response.code.unwrap_or_default();
    Ok(body.is_done().then(|| (judge(code, &content), keep)))
}

/// The envelope of the API: `{"result":{…}}` or `{"error":{"code":…,"message":…}}`, both with status 200.
fn judge(status: u16, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        result: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        error: Option<ApiError<'a>>,
    }
    #[derive(Deserialize)]
    struct ApiError<'a> {
        code: u32,
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    match (status, serde_json::from_slice::<Envelope<'_>>(body)) {
        (200, Ok(Envelope { error: Some(error), .. })) => {
            Answer::Refused(format!("the API refused a publication: {} {}", error.code, error.message))
        }
        (200, Ok(Envelope { result: Some(_), .. })) => Answer::Accepted,
        (401, _) => Answer::Refused("the API refused the key (401)".to_owned()),
        _ => Answer::Refused(format!("the API answered with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Option<(Result<(), String>, bool)> {
        parse(text.as_bytes()).unwrap().map(|(answer, keep)| match answer {
            Answer::Accepted => (Ok(()), keep),
            Answer::Refused(reason) => (Err(reason), keep),
        })
    }

    #[test]
    fn only_a_result_is_an_acceptance() {
        let with = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let ok = with("{\"result\":{}}");
        assert_eq!(answer(&ok), Some((Ok(()), true)));
        assert_eq!(answer(&ok[..ok.len() - 1]), None);
        let chunked = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{\"result\":{}}\r\n0\r\n\r\n";
        assert_eq!(answer(chunked), Some((Ok(()), false)));
        let error = with("{\"error\":{\"code\":102,\"message\":\"no way\"}}");
        assert_eq!(answer(&error).unwrap().0, Err("the API refused a publication: 102 no way".to_owned()));
        let unauthorised = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(unauthorised).unwrap().0, Err("the API refused the key (401)".to_owned()));
        assert_eq!(answer(&with("{}")).unwrap().0, Err("the API answered with 200".to_owned()));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap().is_none());
    }

    #[test]
    fn a_request_has_the_length_it_announces() {
        let plan = Publishing {
            api: "http://127.0.0.1:9000/sub/".parse().unwrap(),
            key: Some("k".to_owned()),
            channels: vec!["a".to_owned(), "b".to_owned()],
            publishers: 1,
            rate: 1.0,
            publications: 1,
            size: 64,
            run: 7,
        };
        let mut publisher = Publisher::new(&plan, 0);
        publisher.write_request(1, Mark { sequence: 1, at: Duration::ZERO });
        let limits = wire::http::HeadLimits::default();
        let (request, head_len) = wire::http::parse(&publisher.request, &limits).unwrap().unwrap();
        assert_eq!((request.method_str(), request.path()), ("POST", "/sub/api/publish"));
        let body = &publisher.request[head_len..];
        assert_eq!(request.body(), BodyKind::Length(body.len() as u64));
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(json["channel"], "b");
        assert_eq!(json["data"].as_str().unwrap().len() + 2, 64);
    }
}
