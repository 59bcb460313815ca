//! What speaks to backends: HTTP requests in, calls on a [`Backend`] out; health and metrics beside it.
//!
//! Never touches a client connection and never blocks: it runs on the control thread's tokio runtime, and the workers
//! answer by letters. It trusts no caller without a key, and no web page at all.
//!
//! # The contract: [`Backend`]
//!
//! The gateway implements [`Backend`]; [`router`] turns it into an HTTP service, [`serve`] puts that on sockets.
//!
//! ```no_run
//! # async fn run<B: control::Backend>(backend: B) -> std::io::Result<()> {
//! use control::{ApiKey, ApiSettings, ServeLimits};
//!
//! let settings = ApiSettings { keys: vec![ApiKey::new("secret").unwrap()], ..ApiSettings::default() };
//! let router = control::router(control::fixed(settings), std::sync::Arc::new(backend));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9000").await?;
//! let shutdown = std::future::pending::<()>();
//! control::serve(vec![listener.into()], router, ServeLimits::default(), shutdown).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! `api` is Centrifugo's HTTP API, `key` and `guard` decide who may call it, [`metrics`] what is measured, `routes`
//! puts them under their paths, `serve` and `stream` run connections. [`limits`] names every limit. [`webhook`] goes the
//! other way: it asks a backend.
#![forbid(unsafe_code)]

mod api;
mod backend;
pub mod demo;
mod glob;
mod guard;
mod key;
pub mod limits;
pub mod metrics;
mod routes;
mod serve;
mod settings;
mod stream;
pub mod webhook;

pub use backend::{Backend, BackendError, ClientAction, Clients, ConnectionInfo, NodeInfo, ServerSide};
pub use glob::{Glob, GlobError, PATTERN_BYTES_MAX};
pub use guard::Arrival;
pub use key::{ApiKey, ApiKeyError};
pub use routes::router;
pub use serve::{Listener, ServeLimits, Tls, serve};
pub use settings::{ApiSettings, CurrentSettings, ErrorMode, fixed};
