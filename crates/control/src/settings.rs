//! What the server API may be told by the configuration.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::key::ApiKey;
use crate::limits;

/// How an API error travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorMode {
    /// HTTP 200 with `{"error":{..}}`.
    #[default]
    Envelope,
    /// The HTTP status says it, the body is the bare error object. A request asks for it alone with
    /// `X-Centrifugo-Error-Mode: transport`.
    Transport,
}

/// Settings of the server API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Accepted keys; several, so that one can be replaced without a moment when none works.
    pub keys: Vec<ApiKey>,
    /// No key is asked for (`--dev`). Without it and without keys every API request is answered 401.
    pub insecure: bool,
    /// Error mode of requests that do not choose one.
    pub error_mode: ErrorMode,
    /// Bytes of one request body; above it 413.
    pub body_bytes_max: usize,
    /// Time in which a request body must have arrived; after it 408.
    pub body_timeout: Duration,
    /// Bytes of one publication's data; above it error 107.
    pub data_bytes_max: usize,
    /// Bytes of a channel name; above it error 107.
    pub channel_bytes_max: usize,
    /// Publications of one answer of `history`.
    pub history_publications_max: usize,
    /// Time the workers have to answer one call; after it error 100.
    pub backend_timeout: Duration,
}

impl Default for ApiSettings {
    fn default() -> ApiSettings {
        ApiSettings {
            keys: Vec::new(),
            insecure: false,
            error_mode: ErrorMode::Envelope,
            body_bytes_max: limits::BODY_BYTES_MAX,
            body_timeout: limits::BODY_TIMEOUT,
            data_bytes_max: limits::DATA_BYTES_MAX,
            channel_bytes_max: limits::CHANNEL_BYTES_MAX,
            history_publications_max: limits::HISTORY_PUBLICATIONS_MAX,
            backend_timeout: limits::BACKEND_TIMEOUT,
        }
    }
}

/// The settings in force; a reload sends new ones, and each request uses those of its arrival.
pub type CurrentSettings = watch::Receiver<Arc<ApiSettings>>;

/// Settings that never change.
pub fn fixed(settings: ApiSettings) -> CurrentSettings {
    watch::channel(Arc::new(settings)).1
}
