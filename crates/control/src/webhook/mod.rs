//! Questions to a backend over HTTP: one POST with JSON each, and JSON back; and what it is told without being asked
//! ([`Notices`]).
//!
//! Nothing here knows what is asked. What it sees to: connections are kept and used again; a call takes no longer than it may,
//! the wait for its turn included; no more than so many run at once; an answer has a size; and a backend that is down is not
//! asked again and again ([`breaker`]), so that clients hear at once that they have to come back later.

mod breaker;
mod counts;
mod notices;
mod signature;
mod target;

pub use counts::{Counts, Outcome};
pub use notices::{BATCH_MAX, Notice, Notices, What};
pub use signature::{SIGNATURE_HEADER, SigningKey};
pub use target::{Target, TargetError};

use breaker::Breaker;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request;
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use zeroize::Zeroizing;

/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What holds for all calls together.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest time of a call.
    pub timeout: Duration,
    /// Calls at the same time.
    pub calls_max: usize,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
    /// What requests are signed with; a signature of each is sent.
    pub keys: Vec<SigningKey>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The backend has failed too often just now, and was not asked.
    Down,
    /// As many calls as may were under way all the time.
    Busy,
    /// It took too long.
    Timeout,
    /// The connection failed; says how.
    Unreachable(String),
    /// The answer has another status than 200.
    Status(u16),
    /// The answer has more bytes than it may.
    TooLarge,
}

impl Fault {
    /// Whether the backend is to blame for not being there, as opposed to what it says.
    fn is_down(&self) -> bool {
        match self {
            Fault::Timeout | Fault::Unreachable(_) => true,
            Fault::Status(status) => *status >= 500,
            Fault::Down | Fault::Busy | Fault::TooLarge => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Down => f.write_str("it has failed too often just now, and was not asked"),
            Fault::Busy => f.write_str("as many calls as webhooks.calls_max were under way"),
            Fault::Timeout => f.write_str("it took longer than webhooks.timeout"),
            Fault::Unreachable(error) => f.write_str(error),
            Fault::Status(status) => write!(f, "it answered with status {status}"),
            Fault::TooLarge => f.write_str("its answer is longer than webhooks.answer_bytes_max"),
        }
    }
}

/// What all endpoints of a configuration share.
#[derive(Debug)]
pub struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    options: Options,
    slots: Semaphore,
}

impl Caller {
    /// Connects to nobody yet. `tls`: what its endpoints show is compared with the authorities that this machine trusts.
    ///
    /// # Errors
    /// When there are none of these.
    pub fn new(options: Options, tls: bool) -> Result<Arc<Caller>, String> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(options.timeout));
        let roots = if tls { authorities()? } else { RootCertStore::empty() };
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(options.calls_max)
            .build(https.wrap_connector(http));
        let slots = Semaphore::new(options.calls_max);
        Ok(Arc::new(Caller { client, options, slots }))
    }
}

/// The authorities that this machine trusts, or those of the file that `SSL_CERT_FILE` names.
fn authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "a webhook has an https URL, and no certificate authorities are found on this machine: install them \
                    (the package ca-certificates), or name a PEM file in the environment variable SSL_CERT_FILE"
                .into(),
        );
    }
    Ok(roots)
}

/// Somewhere to ask.
#[derive(Debug)]
pub struct Endpoint {
    caller: Arc<Caller>,
    target: Target,
    breaker: Breaker,
}

impl Endpoint {
    /// Nothing is known of it yet.
    pub fn new(caller: Arc<Caller>, target: Target) -> Endpoint {
        Endpoint { caller, target, breaker: Breaker::default() }
    }

    /// Where that is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks with this JSON. Headers that are none are left out: where they are a client's own words they may be anything.
    ///
    /// # Errors
    /// When there is no answer with status 200 in time.
    pub async fn call(&self, headers: &[(Box<str>, Zeroizing<Box<str>>)], body: Vec<u8>) -> Result<Bytes, Fault> {
        let mut request = Request::post(self.target.uri().clone());
        let into = request.headers_mut().expect("a URL that was checked makes a request");
        for (name, value) in headers {
            if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(&**name), HeaderValue::try_from(&***value)) {
                // `Debug` of a request does not show it then.
                value.set_sensitive(true);
                into.append(name, value);
            }
        }
        into.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(signature) = signature::header(&self.caller.options.keys, unix, &body) {
            into.insert(SIGNATURE_HEADER, signature);
        }
        self.exchange(request, body).await
    }

    /// Fetches what is there.
    ///
    /// # Errors
    /// When there is no answer with status 200 in time.
    pub async fn get(&self) -> Result<Bytes, Fault> {
        self.exchange(Request::get(self.target.uri().clone()), Vec::new()).await
    }

    async fn exchange(&self, request: request::Builder, body: Vec<u8>) -> Result<Bytes, Fault> {
        let request = request.header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| unreachable(&error))?;
        let Some(pass) = self.breaker.admit() else { return Err(Fault::Down) };
        let by = tokio::time::Instant::now() + self.caller.options.timeout;
        // Who has waited for its turn all the time knows nothing about the backend.
        let Ok(Ok(_slot)) = tokio::time::timeout_at(by, self.caller.slots.acquire()).await else {
            return Err(Fault::Busy);
        };
        if tokio::time::Instant::now() >= by {
            return Err(Fault::Busy);
        }
        let answer = tokio::time::timeout_at(by, self.send(request)).await.unwrap_or(Err(Fault::Timeout));
        pass.used(!answer.as_ref().is_err_and(Fault::is_down));
        answer
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Fault> {
        let response = self.caller.client.request(request).await.map_err(|error| unreachable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Fault::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), self.caller.options.answer_bytes_max).collect().await;
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLarge),
            Err(error) => Err(unreachable(&*error)),
        }
    }
}

/// What went wrong is said by the last of the errors, and where by the first.
fn unreachable(error: &dyn std::error::Error) -> Fault {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Fault::Unreachable(text)
}
