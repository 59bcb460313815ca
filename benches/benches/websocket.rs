//! What does a frame cost that is read or written, beside four libraries that do nothing else?
//!
//! `tungstenite` and `fastwebsockets` are driven as their users drive them, over a stream in memory that has the bytes at
//! once; `yawc` and `sockudo-ws` by the layer of theirs that takes bytes in memory. Unmasking alone is public in all but
//! `tungstenite`: what that does is measured by its frames, and in [`unmask`] by a loop of the same shape
//! (`aligned_words`).

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{Decoder, Encoder};
use wire::ws::{self, Event, Limits, OpCode, Reader, Role};

/// Where the payload of a short frame of a client starts in what was received.
const PAYLOAD_AT: usize = 6;
/// No byte has its top bit set, so that ASCII stays ASCII however often it is masked.
const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
/// As much as one receive brings.
const CHUNK_BYTES: usize = 64 * 1024;

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn short(group: &mut Group<'_>) {
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
}

/// XOR in aligned 32-bit words, with the bytes before and behind them one by one.
fn aligned_words(bytes: &mut [u8], key: [u8; 4]) {
    let start = bytes.as_ptr().align_offset(4).min(bytes.len());
    let (before, rest) = bytes.split_at_mut(start);
    before.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    let mut turned = key;
    turned.rotate_left(start % 4);
    let word_key = u32::from_ne_bytes(turned);
    let (words, behind) = rest.as_chunks_mut::<4>();
    words.iter_mut().for_each(|word| *word = (u32::from_ne_bytes(*word) ^ word_key).to_ne_bytes());
    behind.iter_mut().zip(turned).for_each(|(byte, key)| *byte ^= key);
}

/// Payloads of a client's frames, one behind the other as a receive brings them.
///
/// One payload that is masked again and again would be something else: each call would then wait for the overlapping
/// stores of the one before, which nobody does who unmasks what the kernel has written.
struct Payloads {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
    step: usize,
}

impl Payloads {
    /// Half of the nearest cache.
    const BYTES: usize = 16 * 1024;

    fn new(len: usize) -> Payloads {
        let step = PAYLOAD_AT + len;
        let count = (Payloads::BYTES / step).max(1);
        let buffer = vec![b'a'; count * step + 64];
        // Buffers of the pool begin at a cache line.
        let start = buffer.as_ptr().align_offset(64) % 64;
        Payloads { buffer, start, len, step }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.len;
        let frames = self.buffer[self.start..].chunks_exact_mut(self.step);
        frames.map(move |frame| &mut frame[PAYLOAD_AT..PAYLOAD_AT + len])
    }
}

/// Measures `apply` on every payload; the throughput is that of all of them.
fn on_each(group: &mut Group<'_>, name: &str, len: usize, mut apply: impl FnMut(&mut [u8])) {
    let mut payloads = Payloads::new(len);
    group.throughput(Throughput::Bytes((payloads.each().count() * len) as u64));
    group.bench_function(BenchmarkId::new(name, len), |bencher| {
        bencher.iter(|| payloads.each().for_each(|bytes| apply(black_box(bytes))));
    });
}

const SIZES: [usize; 5] = [16, 64, 125, 1024, 16 * 1024];

/// Decides whether our own code with registers is worth its `unsafe`.
fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket/unmask");
    short(&mut group);
    for len in SIZES {
        on_each(&mut group, "tidegate", len, |bytes| {
            black_box(ws::apply_mask(bytes, black_box(KEY)));
        });
        on_each(&mut group, "fastwebsockets", len, |bytes| fastwebsockets::unmask(bytes, black_box(KEY)));
        on_each(&mut group, "yawc", len, |bytes| yawc::mask::apply_mask(bytes, black_box(KEY)));
        on_each(&mut group, "sockudo_ws", len, |bytes| sockudo_ws::simd::apply_mask(bytes, black_box(KEY)));
        on_each(&mut group, "aligned_words", len, |bytes| aligned_words(bytes, black_box(KEY)));
    }
    group.finish();
}

/// Decides whether the pass that unmasks should also look for bytes that are not ASCII.
fn unmask_and_validate(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket/unmask_and_validate_ascii");
    short(&mut group);
    for len in SIZES {
        on_each(&mut group, "one_pass", len, |bytes| {
            assert!(ws::apply_mask(bytes, black_box(KEY)) || simdutf8::basic::from_utf8(bytes).is_ok());
        });
        on_each(&mut group, "two_passes", len, |bytes| {
            ws::apply_mask(bytes, black_box(KEY));
            assert!(simdutf8::basic::from_utf8(black_box(bytes)).is_ok());
        });
        on_each(&mut group, "two_passes_std", len, |bytes| {
            ws::apply_mask(bytes, black_box(KEY));
            assert!(str::from_utf8(black_box(bytes)).is_ok());
        });
    }
    group.finish();
}

/// Frames of a client: `count` masked text messages of `len` bytes.
fn client_frames(count: usize, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..count {
        let key = (number as u32).wrapping_mul(0x9e37_79b9).to_le_bytes();
        ws::write_frame(&mut out, OpCode::Text, true, &vec![b'a' + (number % 26) as u8; len], Some(key));
    }
    out
}

/// A socket that has received everything and sends nowhere.
struct Received<'b> {
    rest: &'b [u8],
}

impl Read for Received<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.rest.read(into)
    }
}

impl Write for Received<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Received<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = into.remaining().min(self.rest.len());
        let (now, later) = self.rest.split_at(len);
        into.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Received<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The outcome of a future that never has to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("the socket has everything"),
    }
}

fn read_tidegate(frames: &[u8], buffer: &mut [u8]) -> usize {
    let (mut reader, limits, mut messages) = (Reader::new(Role::Server), Limits::default(), 0);
    for chunk in frames.chunks(CHUNK_BYTES) {
        // What a receive does.
        buffer[..chunk.len()].copy_from_slice(chunk);
        let mut input = &mut buffer[..chunk.len()];
        while let Some(event) = reader.next(&mut input, &limits).expect("good frames") {
            messages += usize::from(matches!(black_box(event), Event::Message { .. }));
        }
    }
    messages
}

fn read_tungstenite(frames: &[u8], count: usize) -> usize {
    let socket = Received { rest: frames };
    let mut socket = tungstenite::WebSocket::from_raw_socket(socket, tungstenite::protocol::Role::Server, None);
    (0..count).filter(|_| black_box(socket.read().expect("good frames")).is_text()).count()
}

fn read_fastwebsockets(frames: &[u8], count: usize) -> usize {
    let socket = Received { rest: frames };
    let mut socket = fastwebsockets::WebSocket::after_handshake(socket, fastwebsockets::Role::Server);
    let is_text = |frame: fastwebsockets::Frame<'_>| {
        // It leaves the check to whoever calls it, or to a collector that copies.
        frame.is_utf8() && frame.opcode == fastwebsockets::OpCode::Text
    };
    (0..count).filter(|_| is_text(black_box(at_once(socket.read_frame()).expect("good frames")))).count()
}

/// What a receive brings, in the buffer type that the next two want.
fn received(buffer: &mut BytesMut, chunk: &[u8]) {
    buffer.reserve(chunk.len());
    buffer.extend_from_slice(chunk);
}

/// Its decoder of frames; the layer above has a socket of its own.
fn read_yawc(frames: &[u8], buffer: &mut BytesMut) -> usize {
    buffer.clear();
    let mut decoder = yawc::codec::Decoder::new(yawc::Role::Server, CHUNK_BYTES);
    let mut messages = 0;
    for chunk in frames.chunks(CHUNK_BYTES) {
        received(buffer, chunk);
        while let Some(frame) = decoder.decode(buffer).expect("good frames") {
            // The layer above checks each text.
            messages += usize::from(black_box(&frame).is_utf8() && frame.opcode() == yawc::OpCode::Text);
        }
    }
    messages
}

/// Its protocol without a socket, as whole as ours.
fn read_sockudo(frames: &[u8], buffer: &mut BytesMut, batch: &mut Vec<sockudo_ws::Message>) -> usize {
    buffer.clear();
    let mut protocol = sockudo_ws::protocol::Protocol::new(sockudo_ws::Role::Server, CHUNK_BYTES, CHUNK_BYTES);
    let mut messages = 0;
    for chunk in frames.chunks(CHUNK_BYTES) {
        received(buffer, chunk);
        protocol.process_into(buffer, batch).expect("good frames");
        messages += batch.drain(..).filter(|message| black_box(message).is_text()).count();
    }
    messages
}

/// Decides whether the reader may hand out slices of the chunk, at the price of lifetimes.
fn read(c: &mut Criterion) {
    for (len, count) in [(64, 10_000), (1024, 1000)] {
        let mut group = c.benchmark_group(format!("websocket/read_{count}_texts_of_{len}"));
        short(&mut group);
        group.throughput(Throughput::Elements(count as u64));
        let frames = client_frames(count, len);
        let mut buffer = vec![0; CHUNK_BYTES];
        group.bench_function("tidegate", |b| b.iter(|| assert_eq!(read_tidegate(&frames, &mut buffer), count)));
        group.bench_function("tungstenite", |b| b.iter(|| assert_eq!(read_tungstenite(&frames, count), count)));
        group.bench_function("fastwebsockets", |b| b.iter(|| assert_eq!(read_fastwebsockets(&frames, count), count)));
        let (mut bytes, mut batch) = (BytesMut::with_capacity(2 * CHUNK_BYTES), Vec::new());
        group.bench_function("yawc", |b| b.iter(|| assert_eq!(read_yawc(&frames, &mut bytes), count)));
        let read = |bytes: &mut BytesMut, batch: &mut Vec<_>| assert_eq!(read_sockudo(&frames, bytes, batch), count);
        group.bench_function("sockudo_ws", |b| b.iter(|| read(&mut bytes, &mut batch)));
        group.finish();
    }
}

/// Decides whether a frame may be written straight into the bytes that are shared by its receivers.
fn write(c: &mut Criterion) {
    for (name, mask) in [("server", None), ("client", Some(KEY))] {
        let mut group = c.benchmark_group(format!("websocket/write_as_{name}"));
        short(&mut group);
        for len in [64, 1024] {
            group.throughput(Throughput::Bytes(len as u64));
            let payload = vec![b'a'; len];
            let mut out = Vec::with_capacity(2 * len);
            group.bench_function(BenchmarkId::new("tidegate", len), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    ws::write_frame(&mut out, OpCode::Text, true, black_box(&payload), mask);
                    black_box(&out);
                });
            });
            let mut bytes = BytesMut::with_capacity(2 * len);
            group.bench_function(BenchmarkId::new("sockudo_ws", len), |bencher| {
                bencher.iter(|| {
                    bytes.clear();
                    sockudo_ws::frame::encode_frame(
                        &mut bytes,
                        sockudo_ws::OpCode::Text,
                        black_box(&payload),
                        true,
                        mask,
                    );
                    black_box(&bytes);
                });
            });
            group.bench_function(BenchmarkId::new("yawc", len), |bencher| {
                let role = if mask.is_some() { yawc::Role::Client } else { yawc::Role::Server };
                let mut encoder = yawc::codec::Encoder::new(role);
                let frame = || {
                    let frame = yawc::Frame::text(payload.clone());
                    if let Some(mask) = mask { frame.with_mask(mask) } else { frame }
                };
                bencher.iter_batched(
                    frame,
                    |frame| {
                        bytes.clear();
                        encoder.encode(frame, &mut bytes).expect("into memory");
                        black_box(&bytes);
                    },
                    BatchSize::SmallInput,
                );
            });
            group.bench_function(BenchmarkId::new("tungstenite", len), |bencher| {
                use tungstenite::protocol::frame::{
                    Frame,
                    coding::{Data, OpCode},
                };
                let frame = || {
                    let mut frame = Frame::message(payload.clone(), OpCode::Data(Data::Text), true);
                    frame.header_mut().mask = mask;
                    frame
                };
                // Making the frame is not counted: a server has it from elsewhere.
                bencher.iter_batched(
                    frame,
                    |frame| {
                        out.clear();
                        frame.format(&mut out).expect("into memory");
                        black_box(&out);
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

/// Decides what checks text: the reader's own check, whose verdict comes with each chunk, beside the library inside it, what
/// `sockudo-ws` offers, and std. A frame of a server is not masked, so the reader has no other pass over it: what reading
/// it as binary takes is what is not the check.
fn utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket/utf8");
    short(&mut group);
    for (name, piece) in [
        ("ascii", "a plain text of no accents. "),
        ("greek", "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5} "),
        ("chinese", "\u{8ba2}\u{9605}\u{63a8}\u{9001}"),
    ] {
        for len in [64, 1024, 16 * 1024] {
            let mut text: String = piece.chars().cycle().take(len).collect();
            while text.len() > len {
                text.pop();
            }
            let id = |who: &str| BenchmarkId::new(format!("{name}/{who}"), len);
            group.throughput(Throughput::Bytes(text.len() as u64));
            for (who, opcode) in [("reader", OpCode::Text), ("reader_as_binary", OpCode::Binary)] {
                let mut frame = Vec::new();
                ws::write_frame(&mut frame, opcode, true, text.as_bytes(), None);
                let (mut reader, limits) = (Reader::new(Role::Client), Limits::default());
                group.bench_function(id(who), |b| {
                    b.iter(|| {
                        let mut input = black_box(&mut frame[..]);
                        assert!(matches!(reader.next(&mut input, &limits), Ok(Some(Event::Message { .. }))));
                    });
                });
            }
            let bytes = text.as_bytes();
            group.bench_function(id("simdutf8"), |b| b.iter(|| simdutf8::basic::from_utf8(black_box(bytes)).is_ok()));
            group.bench_function(id("sockudo_ws"), |b| b.iter(|| sockudo_ws::utf8::validate_utf8(black_box(bytes))));
            group.bench_function(id("std"), |b| b.iter(|| str::from_utf8(black_box(bytes)).is_ok()));
        }
    }
    group.finish();
}

/// Decides whether a handshake may be checked with all headers in a table, and hashed by a library.
fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket/handshake");
    short(&mut group);
    let mut head = Vec::new();
    let extra = [
        ("Origin", "https://www.example.org"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9"),
        ("Cache-Control", "no-cache"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    ws::client::write_request(&mut head, "www.example.org", "/connection/websocket", &[7; 16], None, &extra);
    let mut out = Vec::with_capacity(1024);
    for deflate in [false, true] {
        let name = if deflate { "request_to_answer_with_deflate" } else { "request_to_answer" };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let parsed = wire::http::parse(black_box(&head), &Default::default()).expect("a good head");
                let (request, _) = parsed.expect("a whole head");
                let upgrade = ws::handshake::check(&request).expect("a good request");
                let params = if deflate { upgrade.deflate(&Default::default()) } else { None };
                upgrade.write_response_with(&mut out, None, params);
                black_box(&out);
            });
        });
    }
    // It keeps the headers of the upgrade alone, and refuses less.
    group.bench_function("sockudo_ws_request_to_answer", |bencher| {
        bencher.iter(|| {
            let parsed = sockudo_ws::handshake::parse_request(black_box(&head)).expect("a good head");
            let (request, _) = parsed.expect("a whole head");
            let accept = sockudo_ws::handshake::generate_accept_key(request.key);
            sockudo_ws::handshake::build_response(&accept, None, None)
        });
    });
    group.finish();
}

criterion_group!(benches, unmask, unmask_and_validate, utf8, read, write, handshake);
criterion_main!(benches);
