//! What does compression cost a worker, and what does it save on the wire?
//!
//! The first lines of the output are not times but sizes: bytes of the compressed payloads over those of the plain
//! ones, for messages compressed alone and after the one before.

use std::hint::black_box;
use std::time::Duration;

use benches::corpus::Kind;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wire::http;
use wire::ws::deflate::{Compressor, Inflater, Level, MarkSource, Previous, START_BYTES};
use wire::ws::extension::Params;
use wire::ws::{Event, Limits, OpCode, Reader, Role, client, handshake, write_compressed_header};

const PUBLICATIONS: usize = 256;

fn level(number: u8) -> Level {
    Level::new(number).expect("1 to 9")
}

/// Compresses the whole channel; bytes of the payloads, plain ones where that is smaller.
fn compress(compressor: &mut Compressor, publications: &[Vec<u8>], after: bool, out: &mut Vec<u8>) -> usize {
    let mut marks = MarkSource::default();
    let mut bytes = 0;
    let mut before: Option<Previous<'_>> = None;
    for message in publications {
        out.clear();
        let compressed = compressor.compress(message, before, message.len() + START_BYTES, out);
        bytes += if compressed.is_some() { out.len() } else { message.len() };
        if after {
            before = Some(Previous { mark: marks.draw(), payload: message });
        }
    }
    bytes
}

/// Decides the level, and whether the second variant is worth its rules.
fn sizes(_: &mut Criterion) {
    for kind in Kind::ALL {
        let publications = kind.publications(PUBLICATIONS);
        let plain: usize = publications.iter().map(Vec::len).sum();
        for number in [1, 3, 6, 9] {
            let mut compressor = Compressor::new(level(number));
            let mut ratio =
                |after| compress(&mut compressor, &publications, after, &mut Vec::new()) as f64 / plain as f64;
            println!(
                "deflate/size {:<7} level {number}: {:>4} B plain, alone {:.2}, after the one before {:.2}",
                kind.name(),
                plain / PUBLICATIONS,
                ratio(false),
                ratio(true)
            );
        }
    }
}

/// Decides the level, and how many compressions a publication may cost a worker.
fn compressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate/compress");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(PUBLICATIONS as u64));
    for kind in Kind::ALL {
        let publications = kind.publications(PUBLICATIONS);
        let mut out = Vec::with_capacity(64 * 1024);
        for number in [1, 6] {
            let mut compressor = Compressor::new(level(number));
            for (name, after) in [("alone", false), ("after", true)] {
                let id = BenchmarkId::new(format!("{}_{name}", kind.name()), number);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| black_box(compress(&mut compressor, &publications, after, &mut out)));
                });
            }
        }
    }
    group.finish();
}

fn agreed() -> Params {
    let mut head = Vec::new();
    let extra = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
    client::write_request(&mut head, "example.org", "/", &[7; 16], None, &extra);
    let (request, _) = http::parse(&head, &Default::default()).expect("a good head").expect("a whole head");
    handshake::check(&request).expect("a good request").deflate(&Default::default()).expect("an acceptable offer")
}

/// Decides whether one inflater may serve all connections, whose history it is then given with each message.
fn inflating(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate/read");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(PUBLICATIONS as u64));
    for kind in [Kind::Chat, Kind::Ticker, Kind::Scores] {
        let mut compressor = Compressor::new(Level::default());
        let (mut frames, mut payload) = (Vec::new(), Vec::new());
        for message in kind.publications(PUBLICATIONS) {
            payload.clear();
            compressor.compress(&message, None, message.len() + START_BYTES, &mut payload).expect("it is text");
            write_compressed_header(&mut frames, OpCode::Text, payload.len(), Some([0; 4]));
            frames.extend_from_slice(&payload);
        }
        let (mut buffer, mut inflater) = (frames.clone(), Inflater::new());
        let mut reader = Reader::with_deflate(Role::Server, agreed());
        group.bench_function(BenchmarkId::new("with_1_KiB_of_history", kind.name()), |bencher| {
            bencher.iter(|| {
                let (mut input, mut messages) = (&mut buffer[..], 0);
                let limits = Limits::default();
                while let Some(event) = reader.next_inflating(&mut input, &limits, &mut inflater).expect("good frames")
                {
                    messages += usize::from(matches!(black_box(event), Event::Message { .. }));
                }
                assert_eq!(messages, PUBLICATIONS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sizes, compressing, inflating);
criterion_main!(benches);
