//! Publishing through a server's API, one publication under way per connection.

mod http;
mod nats;

use crate::dialect::{CHANNEL_PLACE, Dialect};
use crate::endpoint::{Endpoint, Scheme};
use crate::latency::Latencies;
use crate::payload::{self, Mark, Origin};
use crate::reasons::Reasons;
use io::Clock;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// For connecting, and for an answer. The API itself gives up sooner.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An answer holds a position or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where a raw publication is posted unless the URL has a path of its own.
const RAW_PATH: &str = "/pub/{channel}";

/// How publications reach the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Api {
    /// `POST /api/publish` with channel and data in JSON: Tidegate, Centrifugo.
    Envelope { endpoint: Endpoint, key: Option<String> },
    /// A POST of the data to a path per channel: nchan, servers written by hand.
    Raw(Endpoint),
    /// `PUB` over TCP: nats-server.
    Nats(Endpoint),
}

impl Api {
    /// What the clients' dialect and the URL say together.
    pub(crate) fn new(
        dialect: Dialect,
        endpoint: Endpoint,
        key: Option<String>,
        channels: u32,
    ) -> Result<Api, &'static str> {
        if key.is_some() && matches!(dialect, Dialect::Raw | Dialect::Nats) {
            return Err("--key is for the server API of Tidegate and Centrifugo");
        }
        match (dialect, endpoint.scheme) {
            (Dialect::Nats, Scheme::Nats) => Ok(Api::Nats(endpoint)),
            (Dialect::Nats, Scheme::Http | Scheme::Tls) => Err("--dialect nats publishes to nats://HOST:PORT"),
            (_, Scheme::Tls) => Err("publishing does not speak TLS: give the address behind it"),
            (_, Scheme::Nats) => Err("publishing to nats:// reaches subscribers with --dialect nats"),
            (Dialect::Raw, Scheme::Http) => {
                let endpoint = endpoint.or_path(RAW_PATH);
                if channels > 1 && !endpoint.target.contains(CHANNEL_PLACE) {
                    return Err("--dialect raw with several --channels needs {channel} in the URL to publish to");
                }
                Ok(Api::Raw(endpoint))
            }
            (Dialect::None, Scheme::Http) => Err("--dialect none subscribes to nothing"),
            (Dialect::Centrifugo | Dialect::Plain, Scheme::Http) => Ok(Api::Envelope { endpoint, key }),
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        match self {
            Api::Envelope { endpoint, .. } | Api::Raw(endpoint) => connect(endpoint),
            Api::Nats(endpoint) => nats::greet(connect(endpoint)?),
        }
    }

    /// Appends what publishes `data`.
    fn write(&self, out: &mut Vec<u8>, channel: &str, data: &[u8]) {
        match self {
            Api::Envelope { endpoint, key } => http::write_envelope(out, endpoint, key.as_deref(), channel, data),
            Api::Raw(endpoint) => http::write_raw(out, endpoint, channel, data),
            Api::Nats(_) => nats::write(out, channel, data),
        }
    }

    /// Sends what [`Api::write`] wrote and reads the answer. The second value tells whether the connection may be used again.
    fn exchange(&self, connection: &mut TcpStream, request: &[u8]) -> std::io::Result<(Answer, bool)> {
        match self {
            Api::Envelope { .. } => http::exchange(connection, request, http::judge_envelope),
            Api::Raw(_) => http::exchange(connection, request, http::judge_raw),
            Api::Nats(_) => nats::exchange(connection, request),
        }
    }
}

/// What to publish.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) api: Api,
    /// They take turns.
    pub(crate) channels: Vec<String>,
    pub(crate) publishers: u32,
    /// Per second, all publishers together.
    pub(crate) rate: f64,
    /// How many are due at one moment.
    pub(crate) burst: u32,
    /// All publishers together.
    pub(crate) publications: u64,
    /// Bytes of data.
    pub(crate) size: usize,
    /// See [`Origin::run`].
    pub(crate) run: u32,
}

impl Publishing {
    /// When a publication is due, all publishers' numbered together, after the first.
    fn due(&self, turn: u64) -> Duration {
        let burst = u64::from(self.burst);
        Duration::from_secs_f64((turn / burst * burst) as f64 / self.rate)
    }
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
            latencies: Latencies::default(),
        }
    }
}

/// How one request ended.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Accepted,
    Refused(String),
}

struct Publisher<'p> {
    plan: &'p Publishing,
    number: u32,
    connection: Option<TcpStream>,
    published: Published,
    data: Vec<u8>,
    request: Vec<u8>,
}

impl<'p> Publisher<'p> {
    fn new(plan: &'p Publishing, number: u32) -> Publisher<'p> {
        let published = Published::new(plan.channels.len());
        Publisher { plan, number, connection: None, published, data: Vec::new(), request: Vec::new() }
    }

    fn run(mut self, clock: Clock, start: Duration, done: &AtomicU64, stop: &AtomicBool) -> Published {
        let step = u64::from(self.plan.publishers);
        let mut turn = u64::from(self.number);
        while turn < self.plan.publications && !stop.load(Relaxed) {
            let at = start + self.plan.due(turn);
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
            match self.plan.api.connect() {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return self.refused(&format!("the API cannot be reached: {error}")),
            }
        }
        let Some(connection) = &mut self.connection else { return };
        match self.plan.api.exchange(connection, &self.request) {
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
        let origin = Origin { run: self.plan.run, publisher: self.number as u16, channel };
        self.data.clear();
        payload::write_data(&mut self.data, origin, mark, self.plan.size);
        self.request.clear();
        self.plan.api.write(&mut self.request, &self.plan.channels[channel as usize], &self.data);
    }
}

fn connect(api: &Endpoint) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&api.address, TIMEOUT)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::of_api;

    #[test]
    fn the_dialect_and_the_url_say_how_to_publish_and_must_agree() {
        let api = |dialect, url: &str, channels| Api::new(dialect, of_api(url).unwrap(), None, channels);
        let (http, nats) = ("http://127.0.0.1:1", "nats://127.0.0.1:1");
        assert!(matches!(api(Dialect::Centrifugo, http, 2), Ok(Api::Envelope { .. })));
        assert!(matches!(api(Dialect::Raw, http, 2), Ok(Api::Raw(endpoint)) if endpoint.target == "/pub/{channel}"));
        assert!(matches!(api(Dialect::Nats, nats, 2), Ok(Api::Nats(_))));
        assert!(api(Dialect::Nats, http, 1).is_err());
        assert!(api(Dialect::Plain, nats, 1).is_err());
        assert!(api(Dialect::None, http, 1).is_err());
        assert!(api(Dialect::Raw, "http://127.0.0.1:1/all", 2).is_err());
        assert!(api(Dialect::Raw, "http://127.0.0.1:1/all", 1).is_ok());
    }

    #[test]
    fn publications_of_a_burst_are_due_together_and_the_rate_stays_the_same() {
        let due = |burst, turns: std::ops::Range<u64>| {
            let api = Api::new(Dialect::Plain, of_api("http://127.0.0.1:1").unwrap(), None, 1).unwrap();
            let (channels, rate) = (vec!["load".to_owned()], 10.0);
            let plan = Publishing { api, channels, publishers: 3, rate, burst, publications: 100, size: 40, run: 0 };
            turns.map(|turn| plan.due(turn).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(due(1, 0..4), [0, 100, 200, 300]);
        assert_eq!(due(4, 0..9), [0, 0, 0, 0, 400, 400, 400, 400, 800]);
        assert_eq!(due(16, 15..17), [0, 1600]);
    }

    #[test]
    fn a_key_is_taken_where_there_is_one_to_check_it() {
        let with = |dialect| Api::new(dialect, of_api("http://127.0.0.1:1").unwrap(), Some("k".to_owned()), 1);
        assert!(with(Dialect::Centrifugo).is_ok());
        assert!(with(Dialect::Raw).is_err());
    }
}
