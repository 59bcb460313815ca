//! What does a client's command cost from its frame to the bytes of the reply, in JSON and in Protobuf?
//!
//! A whole connection without socket and hub: frames in, commands decoded and run, replies encoded and framed, and handed
//! out. `unsubscribe` is a small command, so the rest has the largest share in it; `rpc` carries data that has to be found,
//! and is refused, as the defaults of `--dev` name no backend.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use conn::{COMMANDS_PER_TICK, Connection, IdSource, Shared};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::config::{Inputs, load};
use gateway::topology;
use hub::{ChannelHash, Local};
use wire::ws::{self, OpCode};

/// Bytes of data in an `rpc`.
const BYTES: usize = 128;
/// Every command is answered: a length, an id and a result or an error.
const ANSWER_BYTES_MIN: usize = 5;
const NOW: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Format {
    Json,
    Protobuf,
}

impl Format {
    fn frame(self, messages: &[Vec<u8>]) -> Vec<u8> {
        let (opcode, between) = match self {
            Format::Json => (OpCode::Text, &b"\n"[..]),
            Format::Protobuf => (OpCode::Binary, &b""[..]),
        };
        let mut out = Vec::new();
        // A key of zeros: the same bytes can be read again and again.
        ws::write_frame(&mut out, opcode, true, &messages.join(between), Some([0; 4]));
        out
    }

    fn connect(self) -> Vec<u8> {
        match self {
            Format::Json => b"{\"id\":1,\"connect\":{}}".to_vec(),
            Format::Protobuf => vec![4, 0x08, 1, 0x22, 0],
        }
    }

    /// Of a channel that it does not have, which is answered all the same.
    fn unsubscribe(self) -> Vec<u8> {
        match self {
            Format::Json => b"{\"id\":2,\"unsubscribe\":{\"channel\":\"news\"}}".to_vec(),
            Format::Protobuf => b"\x0a\x08\x02\x32\x06\x0a\x04news".to_vec(),
        }
    }

    fn rpc(self) -> Vec<u8> {
        let data = format!("\"{}\"", "x".repeat(BYTES - 2));
        match self {
            Format::Json => format!("{{\"id\":2,\"rpc\":{{\"data\":{data},\"method\":\"quote\"}}}}").into_bytes(),
            Format::Protobuf => {
                let mut rpc = vec![0x0a, BYTES as u8, 1];
                rpc.extend_from_slice(data.as_bytes());
                rpc.extend_from_slice(b"\x12\x05quote");
                let mut command = vec![0x08, 2, 0x6a, rpc.len() as u8, 1];
                command.append(&mut rpc);
                let mut out = vec![command.len() as u8, 1];
                out.append(&mut command);
                out
            }
        }
    }
}

/// A connection that has connected, and what it shares with others of its worker.
struct Client {
    connection: Connection,
    shared: Shared,
}

impl Client {
    fn new(format: Format) -> Client {
        let loaded = load(Inputs { dev: true, ..Inputs::default() }).expect("the defaults of --dev");
        let settings = topology::settings(&loaded.config, true).expect("a checked config");
        let mut shared =
            Shared::new(Arc::new(settings), Local::new(ChannelHash::new([1; 16])), IdSource::new([2; 16], 0));
        let (connection, _) = Connection::accepted(NOW, 0, None, &mut shared);
        let mut client = Client { connection, shared };
        let target = match format {
            Format::Json => "/connection/websocket",
            Format::Protobuf => "/connection/websocket?format=protobuf",
        };
        let mut head = Vec::new();
        ws::client::write_request(&mut head, "localhost", target, &[7; 16], None, &[]);
        client.answer(&mut head);
        client.answer(&mut format.frame(&[format.connect()]));
        assert!(client.connection.is_connected(), "the connect command was good");
        client
    }

    /// Feeds what a receive brought and takes the answer; its length.
    fn answer(&mut self, bytes: &mut [u8]) -> usize {
        self.shared.commands_left = COMMANDS_PER_TICK;
        let _ = self.connection.received(NOW, bytes, &mut self.shared);
        let mut taken = 0;
        self.connection.gather(&mut self.shared, |bytes| {
            taken += black_box(bytes).len();
            bytes.len()
        });
        let _ = self.connection.sent(NOW, taken, &mut self.shared);
        taken
    }
}

/// Decides nothing between the formats, which the client chooses; shows what a command costs beside the system calls that
/// bring it, and what batching of commands in a message is worth.
fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("commands");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (name, format) in [("json", Format::Json), ("protobuf", Format::Protobuf)] {
        for (kind, command) in [("unsubscribe", format.unsubscribe()), ("rpc", format.rpc())] {
            for count in [1, 32] {
                let mut frame = format.frame(&vec![command.clone(); count]);
                let mut client = Client::new(format);
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(BenchmarkId::new(format!("{name}_{kind}"), count), |bencher| {
                    bencher.iter(|| assert!(client.answer(black_box(&mut frame)) >= count * ANSWER_BYTES_MIN));
                });
                assert!(client.connection.is_connected(), "nothing was wrong");
            }
        }
    }
    group.finish();
}

criterion_group!(benches, commands);
criterion_main!(benches);
