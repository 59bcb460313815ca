//! Bytes to WebSocket frames and HTTP heads, and back.
//!
//! No sockets, no clock, no randomness, no threads: the same bytes give the same answer on every
//! machine. Nothing a peer sends panics here, and nothing it sends makes memory grow past a limit
//! that has a name (see [`limits`]).
//!
//! # The contract
//!
//! A connection starts as HTTP. Collect bytes until [`http::parse`] gives a request, then either
//! answer it ([`http::Response`], [`http::Refusal`]) or let [`ws::handshake::check`] turn it into a
//! WebSocket. From then on every received chunk goes through [`ws::Reader::next`] in a loop until
//! it says `Ok(None)`: the good events before a bad frame come first, the error last.
//!
//! ```
//! use wire::http::{self, HeadLimits};
//! use wire::ws::{self, Event, Limits, OpCode, Reader, Role, handshake};
//!
//! let head = b"GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\
//!     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
//! let (request, head_len) = http::parse(head, &HeadLimits::default()).unwrap().unwrap();
//! assert_eq!(head_len, head.len());
//! let mut answer = Vec::new();
//! handshake::check(&request).unwrap().write_response(&mut answer, None);
//! assert!(answer.starts_with(b"HTTP/1.1 101 "));
//!
//! // What a client sends afterwards is masked.
//! let mut sent = Vec::new();
//! ws::write_frame(&mut sent, OpCode::Text, true, b"hello", Some([1, 2, 3, 4]));
//! let mut reader = Reader::new(Role::Server);
//! let mut input = &mut sent[..];
//! let event = reader.next(&mut input, &Limits::default()).unwrap();
//! assert!(matches!(event, Some(Event::Message { payload: b"hello", .. })));
//! assert!(reader.next(&mut input, &Limits::default()).unwrap().is_none());
//! ```
//!
//! # Map
//!
//! - [`ws`]: RFC 6455, both roles: [`ws::Reader`], the frame writers, masking, close codes,
//!   [`ws::handshake`] (server) and [`ws::client`].
//! - [`ws::extension`] and [`ws::deflate`]: RFC 7692: what is agreed, and one compressor and one inflater for the
//!   connections of a thread.
//! - [`http`]: HTTP/1.1 and 1.0 as far as a gateway needs it: heads, bodies, answers, queries.
//! - [`proxy`]: what a proxy says in front of a connection about the client behind it.
//! - [`limits`]: every default maximum, with the reason for its size.
#![deny(unsafe_code)] // allowed in `ws/mask/x86.rs` alone, whose portable twin is its oracle

pub mod http;
pub mod limits;
pub mod proxy;
pub mod ws;
