//! The paths of the API listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};

use crate::api;
use crate::backend::Backend;
use crate::guard;
use crate::metrics::{self, ApiMetrics, Exposition};
use crate::settings::CurrentSettings;

/// Everything the API listener serves: `/api`, `/api/<method>`, `/api/openapi.json` (which needs no key: it is the same
/// everywhere), `/metrics`, `/healthz` (also as `/health`) and
/// `/readyz`.
///
/// The Host and Origin checks lie around these routes; routes merged into the result afterwards are outside of them.
pub fn router<B: Backend>(settings: CurrentSettings, backend: Arc<B>) -> Router {
    let metrics = Arc::new(ApiMetrics::default());
    let exposition = Arc::new(Exposition::new(Arc::clone(&backend), &metrics));
    let api = Arc::new(api::Shared { settings, backend: Arc::clone(&backend), metrics: Arc::clone(&metrics) });
    let calls = Router::new()
        .route("/api", any(api::call::<B>))
        .route("/api/", any(api::call::<B>))
        .route("/api/openapi.json", readable(get(openapi)))
        .route("/api/{*method}", any(api::call::<B>))
        .with_state(api);
    let router = Router::new()
        .route("/metrics", readable(get(expose)).with_state(exposition))
        .route("/healthz", readable(get(alive)))
        .route("/health", readable(get(alive)))
        .route("/readyz", readable(get(ready::<B>)).with_state(backend))
        .merge(calls)
        .fallback(not_found);
    guard::protect(router, metrics)
}

/// GET and HEAD; anything else is told so.
fn readable<S: Clone + Send + Sync + 'static>(get: MethodRouter<S>) -> MethodRouter<S> {
    get.fallback(|| async { api::method_not_allowed("GET, HEAD") })
}

async fn expose(State(exposition): State<Arc<Exposition>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], exposition.write()).into_response()
}

/// What the methods take and answer, as OpenAPI 3.1.
async fn openapi() -> Response {
    api::json(StatusCode::OK, include_bytes!("api/openapi.json").to_vec())
}

/// The process answers: that is all `/healthz` promises. A node that drains is alive.
async fn alive() -> Response {
    api::json(StatusCode::OK, b"{}".to_vec())
}

/// Whether a load balancer should send new clients here.
async fn ready<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    if backend.ready() {
        api::json(StatusCode::OK, br#"{"ready":true}"#.to_vec())
    } else {
        api::json(StatusCode::SERVICE_UNAVAILABLE, br#"{"ready":false}"#.to_vec())
    }
}

async fn not_found() -> Response {
    api::plain_failure(StatusCode::NOT_FOUND, "no such path")
}
