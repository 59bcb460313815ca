//! What does a publication cost in our own code, the kernel left out?

mod rig;

use std::hint::black_box;
use std::time::Duration;

use conn::Encoding;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use hub::{Channel, Epoch, Offset, Position, Publication};
use rig::Rig;

const SUBSCRIBERS: [usize; 3] = [1_000, 10_000, 250_000];
/// The usual small update.
const BYTES: usize = 128;
/// Publications that wait together in every outbox.
const IN_FLIGHT: usize = 16;

/// Decides how an outbox holds a publication: a node of 8 bytes in a slab that points at a shared body, as it is now, or
/// something that costs an allocation or an atomic count per subscriber. A push to 250,000 must fit a few ticks, or other
/// connections wait for it. Reported per subscriber: visiting the member, finding the connection, the push, and marking it
/// dirty.
fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout/push");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for count in SUBSCRIBERS {
        let mut rig = None;
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let rig = rig.get_or_insert_with(|| Rig::with_subscribers(count, BYTES));
            bencher.iter_custom(|iterations| {
                let turn = |_| {
                    rig.publish();
                    let took = rig.push();
                    rig.settle();
                    took
                };
                (0..iterations).map(turn).sum()
            });
        });
    }
    group.finish();
}

/// Decides whether gathering may copy: each subscriber's bytes go into one buffer for one send, because two iovecs cost the
/// kernel more than the copy. Also whether sixteen publications that wait together cost less than sixteen flushes. Reported
/// per subscriber.
fn flush(c: &mut Criterion) {
    for in_flight in [1, IN_FLIGHT] {
        let mut group = c.benchmark_group(format!("fanout/flush_of_{in_flight}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        for count in SUBSCRIBERS {
            let mut rig = None;
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let rig = rig.get_or_insert_with(|| Rig::with_subscribers(count, BYTES));
                bencher.iter_custom(|iterations| {
                    let turn = |_| {
                        for _ in 0..in_flight {
                            rig.publish();
                            rig.push();
                        }
                        let (took, bytes) = rig.flush();
                        assert!(bytes > count * in_flight * BYTES, "every subscriber got everything");
                        rig.settle();
                        took
                    };
                    (0..iterations).map(turn).sum()
                });
            });
        }
        group.finish();
    }
}

/// Decides nothing by itself: the fixed cost of a publication, paid once per encoding and worker however large the audience,
/// beside which the cost per subscriber has to be seen.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout/encode");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (name, encoding) in [
        ("centrifugo_json", Encoding::CentrifugoJson),
        ("centrifugo_protobuf", Encoding::CentrifugoProtobuf),
        ("plain", Encoding::Plain),
    ] {
        for bytes in [BYTES, 4096] {
            let publication = Publication {
                channel: Channel::new("news:europe"),
                data: format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes().into(),
                info: None,
                tags: None,
                time: None,
                position: Position { offset: Offset(1), epoch: Epoch::from_seed(1) },
            };
            let (mut scratch, mut out) = (Vec::new(), Vec::new());
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encoding.publication(black_box(&publication), None, &mut scratch, &mut out);
                    out.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, push, flush, encode);
criterion_main!(benches);
