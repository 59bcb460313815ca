//! How bytes reach a client: what stands between the socket and a session.

pub(crate) mod http;
pub(crate) mod websocket;
