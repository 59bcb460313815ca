//! Runs the API listeners: accept, bound, serve, end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower::ServiceExt;

use crate::guard::Arrival;
use crate::limits;
use crate::stream::Guarded;

/// How long to wait after an accept failed for want of files or memory; trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper's buffer must hold a whole head, and asks for at least 8 KiB.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// What a connection over the limit is told.
const FULL: &str = r#"{"error":{"code":100,"message":"internal server error: too many connections"}}"#;

/// Bounds of one call of [`serve`], over all its listeners. The defaults are those of [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Time for a request head, see [`limits::HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Time a peer may take no byte of an answer.
    pub write_stall: Duration,
    /// Time for a peer to close after us.
    pub linger: Duration,
    /// Time for requests under way when the shutdown comes.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits {
            head_timeout: limits::HEAD_TIMEOUT,
            head_bytes_max: limits::HEAD_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
            connections_max: limits::CONNECTIONS_MAX,
            write_stall: limits::WRITE_STALL,
            linger: limits::LINGER,
            grace: limits::GRACE,
        }
    }
}

/// A bound listener; made from tokio's with `into()`.
#[derive(Debug)]
pub enum Listener {
    /// IPv4 or IPv6. The Host rule applies when its address is a loopback one.
    Tcp(TcpListener),
    /// The same with TLS.
    Tls(TcpListener, Tls),
    /// A path in the file system, whose permissions say who may connect.
    Unix(UnixListener),
}

/// What TLS listeners show at the moment. `None`: nothing, and they turn everybody away.
pub type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

/// Serves `router` on all listeners until `shutdown` is ready. Then it accepts no more, lets the requests under way
/// finish within [`ServeLimits::grace`], and cuts what is left.
///
/// A panic in a handler is passed on, not swallowed: the process is meant to end loudly.
pub async fn serve(listeners: Vec<Listener>, router: Router, limits: ServeLimits, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let room = Room::new(limits.connections_max);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let connections = Connections {
            router: router.clone(),
            limits,
            room: room.clone(),
            stopping: stopping.clone(),
            running: JoinSet::new(),
        };
        accepting.spawn(accept(listener, connections));
    }
    let mut shutdown = pin!(shutdown);
    let mut stop = Some(stop);
    loop {
        tokio::select! {
            () = &mut shutdown, if stop.is_some() => {
                stop = None;
            }
            joined = accepting.join_next(), if !accepting.is_empty() => pass_on_panic(joined),
            else => break,
        }
    }
}

/// Places for connections, and few for telling those without one.
#[derive(Clone)]
struct Room {
    serving: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
}

impl Room {
    fn new(connections_max: usize) -> Room {
        Room {
            serving: Arc::new(Semaphore::new(connections_max)),
            refusing: Arc::new(Semaphore::new(limits::REFUSALS_MAX)),
        }
    }
}

fn pass_on_panic<T>(joined: Option<Result<T, tokio::task::JoinError>>) {
    if let Some(Err(error)) = joined
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// One listener's loop.
async fn accept(listener: Listener, mut connections: Connections) {
    let arrival = Arrival { loopback: is_loopback(&listener) };
    let mut stopping = connections.stopping.clone();
    loop {
        tokio::select! {
            // An error means that the sender is gone, which is how the stop is told.
            _ = stopping.changed() => break,
            joined = connections.running.join_next(), if !connections.running.is_empty() => pass_on_panic(joined),
            opened = next(&listener) => match opened {
                Ok(Opened::Tcp(stream)) => connections.open(stream, arrival),
                Ok(Opened::Tls(stream, config)) => connections.open_tls(stream, config, arrival),
                Ok(Opened::Unix(stream)) => connections.open(stream, arrival),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(target: "tidegate::api", "the API listener cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.finish().await;
}

enum Opened {
    Tcp(tokio::net::TcpStream),
    Tls(tokio::net::TcpStream, Arc<ServerConfig>),
    Unix(tokio::net::UnixStream),
}

async fn next(listener: &Listener) -> io::Result<Opened> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _peer) = listener.accept().await?;
            // Answers are single small writes; waiting to merge them with later ones only delays them.
            stream.set_nodelay(true)?;
            Ok(Opened::Tcp(stream))
        }
        Listener::Tls(listener, tls) => {
            let (stream, _peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let config = tls.borrow().clone().ok_or(io::ErrorKind::NotConnected)?;
            Ok(Opened::Tls(stream, config))
        }
        Listener::Unix(listener) => Ok(Opened::Unix(listener.accept().await?.0)),
    }
}

fn is_loopback(listener: &Listener) -> bool {
    match listener {
        // An address that cannot be read is treated as the stricter case.
        Listener::Tcp(listener) | Listener::Tls(listener, _) => {
            listener.local_addr().map_or(true, |address| address.ip().is_loopback())
        }
        Listener::Unix(_) => false,
    }
}

/// The peer was gone before it was accepted: no trouble of the listener's.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

/// The connections of one listener.
struct Connections {
    router: Router,
    limits: ServeLimits,
    room: Room,
    stopping: watch::Receiver<bool>,
    running: JoinSet<()>,
}

impl Connections {
    fn open<S>(&mut self, stream: S, arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Guarded::new(stream, self.limits.write_stall, self.limits.linger);
        if let Ok(place) = Arc::clone(&self.room.serving).try_acquire_owned() {
            let (router, limits) = (self.router.clone(), self.limits);
            self.running.spawn(run(stream, router, arrival, limits, self.stopping.clone(), place));
        } else if let Ok(place) = Arc::clone(&self.room.refusing).try_acquire_owned() {
            let max = self.limits.connections_max;
            tracing::info!(target: "tidegate::api", option = "api.connections_max",
                "503: {max} connections are open");
            self.running.spawn(refuse(stream, place));
        }
    }

    /// The same with a TLS handshake first. Over the limit nothing is said: it would cost a handshake.
    fn open_tls<S>(&mut self, stream: S, config: Arc<ServerConfig>, arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.room.serving).try_acquire_owned() else { return };
        let stream = Guarded::new(stream, self.limits.write_stall, self.limits.linger);
        let (router, limits, mut stopping) = (self.router.clone(), self.limits, self.stopping.clone());
        self.running.spawn(async move {
            let handshake = tokio::time::timeout(limits.head_timeout, TlsAcceptor::from(config).accept(stream));
            let shaken = tokio::select! {
                shaken = handshake => shaken,
                _ = stopping.changed() => return,
            };
            match shaken {
                Ok(Ok(stream)) => run(stream, router, arrival, limits, stopping, place).await,
                Ok(Err(error)) => tracing::debug!(target: "tidegate::api", "API connection without TLS: {error}"),
                Err(_) => tracing::debug!(target: "tidegate::api", "an API connection was slow in its TLS handshake"),
            }
        });
    }

    /// Waits for all within the grace, then cuts.
    async fn finish(mut self) {
        let all = async {
            while let Some(joined) = self.running.join_next().await {
                pass_on_panic(Some(joined));
            }
        };
        if tokio::time::timeout(self.limits.grace, all).await.is_err() {
            let left = self.running.len();
            tracing::warn!(target: "tidegate::api", left, "API connections cut at shutdown");
            self.running.shutdown().await;
        }
    }
}

/// One connection from its first request to its last.
async fn run<S>(
    stream: S,
    router: Router,
    arrival: Arrival,
    limits: ServeLimits,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival);
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: "tidegate::api", "API connection ended: {error}");
    }
}

/// Tells a connection over the limit so. Its request is not read, only discarded.
async fn refuse<S>(mut stream: Guarded<S>, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{FULL}",
        FULL.len()
    );
    // The peer may be gone already; there is nobody else to tell.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
