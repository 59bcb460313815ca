//! Which path is what, on the public listener.

use crate::settings::{Settings, StaticPage};

/// What answers a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route {
    /// A WebSocket endpoint.
    WebSocket(Endpoint),
    /// `{}`: the process runs.
    Health,
    /// 200 while new clients are welcome, 503 otherwise.
    Ready,
    /// A page of the demo.
    Page(StaticPage),
    /// Nothing.
    Unknown,
}

/// A WebSocket endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Centrifugo's bidirectional protocol.
    Centrifugo,
    /// The plain dialect.
    Plain,
    /// Everything back.
    Echo,
}

/// Finds what answers `path`. Endpoints that are switched off do not exist.
pub(crate) fn route(path: &str, settings: &Settings) -> Route {
    let on = &settings.endpoints;
    match path {
        "/connection/websocket" if on.websocket => Route::WebSocket(Endpoint::Centrifugo),
        "/connection/uni_websocket" if on.uni_websocket => Route::WebSocket(Endpoint::Plain),
        "/echo" if on.echo => Route::WebSocket(Endpoint::Echo),
        "/health" => Route::Health,
        "/readyz" => Route::Ready,
        _ => settings.pages.iter().find(|p| p.path == path).map_or(Route::Unknown, |p| Route::Page(*p)),
    }
}
