//! What does compression save and cost in a whole gateway that tells thousands of clients the same?
//!
//! ```sh
//! cargo build --release -p tidegate
//! cargo run --release -p tidegate-benches --example broadcast -- --gateway target/release/tidegate
//! ```
//!
//! Every corpus on every driver; `--corpus chat --io epoll` is one of them. Each round starts the gateway twice, for clients that offer permessage-deflate and for clients that do not. Some
//! clients inflate what they get and compare it with what was published; all count bytes and messages. The next
//! publication is made when everybody has the last one. It fails if a message is lost or differs, if the gateway
//! compresses more than twice per publication and worker, if chat takes more than half the bytes of plain, or if noise takes
//! more than plain.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::corpus::Kind;
use clap::Parser;
use mio::{Events, Interest, Poll, Token};
use wire::http::HeadLimits;
use wire::ws::deflate::Inflater;
use wire::ws::extension::{ClientWindow, Offer};
use wire::ws::{Event, Limits, OpCode, Reader, Role, client, write_frame};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CHANNEL: &str = "demo:broadcast";
/// A publication that takes longer to arrive everywhere is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of chat on the wire, headers and envelopes included, over those of plain clients.
const CHAT_RATIO_MAX: f64 = 0.5;
/// Publications before the measured ones: the first finds nothing to refer to.
const WARM_UP: usize = 4;

#[derive(Parser)]
struct Cli {
    /// The gateway's binary
    #[arg(long)]
    gateway: PathBuf,
    #[arg(long, value_delimiter = ',', default_values = ["chat", "ticker", "scores", "noise"])]
    corpus: Vec<String>,
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// How many of them inflate and compare
    #[arg(long, default_value_t = 100)]
    checking: usize,
    #[arg(long, default_value_t = 100)]
    publications: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[arg(long, value_delimiter = ',', default_values = ["epoll", "uring"])]
    io: Vec<String>,
    /// 1 to 9
    #[arg(long, default_value_t = 6)]
    level: u8,
}

/// A gateway of its own process, which ends with this.
struct Gateway {
    process: Child,
    public: SocketAddr,
    api: SocketAddr,
}

impl Gateway {
    fn start(cli: &Cli, io: &str) -> Outcome<Gateway> {
        let mut process = Command::new(&cli.gateway)
            .args(["--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--io", io])
            .args(["--workers", &cli.workers.to_string()])
            .env("TIDEGATE_COMPRESSION__ENABLED", "true")
            .env("TIDEGATE_COMPRESSION__LEVEL", cli.level.to_string())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(process.stderr.take().ok_or("no standard error")?).lines();
        let mut gateway = Gateway { process, public: ([0; 4], 0).into(), api: ([0; 4], 0).into() };
        while gateway.api.port() == 0 || gateway.public.port() == 0 {
            let line = lines.next().ok_or("the gateway ended")??;
            if let Some(address) = line.strip_prefix("listening public http://") {
                gateway.public = address.parse()?;
            } else if let Some(address) = line.strip_prefix("listening api http://") {
                gateway.api = address.parse()?;
            }
        }
        // Whatever else it says must have somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(gateway)
    }

    /// Nanoseconds on a core, of all its threads.
    fn cpu(&self) -> Outcome<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// The sum of the samples that start with `name`.
    fn metric(&self, name: &str) -> Outcome<f64> {
        let mut connection = TcpStream::connect(self.api)?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        let samples: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(name))
            .map(|line| line.rsplit(' ').next().unwrap_or_default().parse())
            .collect::<Result<_, _>>()?;
        if samples.is_empty() {
            return Err(format!("there is no metric {name}").into());
        }
        Ok(samples.iter().sum())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    stream: mio::net::TcpStream,
    /// Received, and not a whole frame yet.
    cut: Vec<u8>,
    /// Of those that compare.
    reader: Option<Reader>,
    publications: usize,
    bytes: u64,
}

impl Client {
    /// Connects, upgrades and subscribes.
    fn join(to: SocketAddr, compressed: bool, checking: bool) -> Outcome<Client> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // As browsers offer it: 1 KiB of history is then reserved per client and not 32 KiB.
        let (key, offer) = ([7; 16], Offer { client_max_window_bits: ClientWindow::Any, ..Offer::default() });
        let named = offer.to_string();
        let extra: &[(&str, &str)] = if compressed { &[("Sec-WebSocket-Extensions", &named)] } else { &[] };
        let mut out = Vec::new();
        client::write_request(&mut out, &to.to_string(), "/connection/websocket", &key, None, extra);
        stream.write_all(&out)?;
        let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
        let offered = compressed.then_some(&offer);
        let answer = loop {
            let len = stream.read(&mut chunk)?;
            received.extend_from_slice(&chunk[..len]);
            if let Some(answer) = client::check_response_with(&received, &key, None, offered, &HeadLimits::default())? {
                break answer;
            }
            if len == 0 {
                return Err("closed during the handshake".into());
            }
        };
        received.drain(..answer.head_len);
        if answer.deflate.is_some() != compressed {
            return Err("compression was not agreed on as offered".into());
        }
        let commands =
            format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{CHANNEL}\"}}}}");
        out.clear();
        write_frame(&mut out, OpCode::Text, true, commands.as_bytes(), Some([0; 4]));
        stream.write_all(&out)?;
        // Replies are too short to be compressed.
        while !String::from_utf8_lossy(&received).contains("\"subscribe\":") {
            let len = stream.read(&mut chunk)?;
            received.extend_from_slice(&chunk[..len]);
            if len == 0 || received.windows(8).any(|part| part == b"\"error\":") {
                return Err(format!("not subscribed: {}", String::from_utf8_lossy(&received)).into());
            }
        }
        stream.set_nonblocking(true)?;
        let stream = mio::net::TcpStream::from_std(stream);
        let reader = checking.then(|| match answer.deflate {
            Some(params) => Reader::with_deflate(Role::Client, params),
            None => Reader::new(Role::Client),
        });
        Ok(Client { stream, cut: Vec::new(), reader, publications: 0, bytes: 0 })
    }

    /// Reads what there is; the number of publications among it.
    fn receive(&mut self, chunk: &mut [u8], inflater: &mut Inflater, expected: &[Vec<u8>]) -> Outcome<usize> {
        let before = self.publications;
        loop {
            let len = match self.stream.read(chunk) {
                Ok(0) => return Err("the gateway closed a connection".into()),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.publications - before),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.bytes += len as u64;
            if self.reader.is_some() {
                self.compare(&mut chunk[..len], inflater, expected)?;
            } else {
                self.count(&chunk[..len])?;
            }
        }
    }

    fn compare(&mut self, mut input: &mut [u8], inflater: &mut Inflater, expected: &[Vec<u8>]) -> Outcome<()> {
        let reader = self.reader.as_mut().expect("one that compares");
        let mut pings = 0;
        while let Some(event) = reader.next_inflating(&mut input, &Limits::default(), inflater)? {
            match event {
                Event::Message { payload: b"{}", .. } => pings += 1,
                Event::Message { payload, .. } => {
                    let data = &expected[self.publications];
                    if !payload.windows(data.len()).any(|part| part == data) {
                        return Err(format!("publication {} came as {payload:?}", self.publications).into());
                    }
                    self.publications += 1;
                }
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        (0..pings).try_for_each(|_| self.answer())
    }

    /// Looks at the headers alone.
    fn count(&mut self, received: &[u8]) -> Outcome<()> {
        self.cut.extend_from_slice(received);
        let mut at = 0;
        let mut pings = 0;
        while let [first, second, rest @ ..] = &self.cut[at..] {
            let (header, len) = match (second, rest) {
                (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                (0..126, _) => (2, usize::from(*second)),
                (126, _) => break,
                _ => return Err("a frame of an unexpected length".into()),
            };
            let Some(payload) = self.cut.get(at + header..at + header + len) else { break };
            match (first, payload) {
                (0x81, b"{}") => pings += 1,
                (0x81 | 0xc1, _) => self.publications += 1,
                _ => return Err("an unexpected frame".into()),
            }
            at += header + len;
        }
        self.cut.drain(..at);
        (0..pings).try_for_each(|_| self.answer())
    }

    /// A pong of the protocol; the socket has room for it, as nothing else is sent.
    fn answer(&mut self) -> Outcome<()> {
        Ok(self.stream.write_all(b"\x81\x82\0\0\0\0{}")?)
    }
}

/// What one gateway did.
struct Figures {
    bytes: u64,
    cpu: u64,
    deliveries: usize,
    /// Per publication and worker.
    compressions: f64,
}

/// The corpus as JSON, which is all that a gateway publishes. What is none becomes a string: each byte below 128 one of the
/// printable characters, each other one, with what follows it, a character of two bytes. So the string has most values that
/// a byte of UTF-8 can have, about equally often. Hexadecimal digits or base64 would be noise that compresses well.
fn as_json(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(b"{") {
        return bytes;
    }
    let printable: Vec<char> = (' '..='~').filter(|c| !matches!(c, '"' | '\\')).collect();
    let (mut text, mut bytes) = (String::from('"'), bytes.into_iter().map(usize::from));
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            0..128 => printable[byte % printable.len()],
            _ => {
                let number = (byte % 128 * 256 + bytes.next().unwrap_or(0)) % 0x780;
                char::from_u32(0x80 + number as u32).expect("below 0x800 are no surrogates")
            }
        });
    }
    text.push('"');
    text.into_bytes()
}

fn publish(connection: &mut TcpStream, data: &[u8]) -> Outcome<()> {
    let mut body = format!("{{\"channel\":\"{CHANNEL}\",\"data\":").into_bytes();
    body.extend_from_slice(data);
    body.push(b'}');
    let head = "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:";
    let mut request = format!("{head} {}\r\n\r\n", body.len()).into_bytes();
    request.append(&mut body);
    connection.write_all(&request)?;
    let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
    while !received.ends_with(b"}") && !received.ends_with(b"}\n") {
        let len = connection.read(&mut chunk)?;
        received.extend_from_slice(&chunk[..len]);
        if len == 0 {
            return Err("the API closed the connection".into());
        }
    }
    match received.starts_with(b"HTTP/1.1 200") && !received.windows(8).any(|part| part == b"\"error\":") {
        true => Ok(()),
        false => Err(format!("refused: {}", String::from_utf8_lossy(&received)).into()),
    }
}

fn run(cli: &Cli, io: &str, publications: &[Vec<u8>], compressed: bool) -> Outcome<Figures> {
    let gateway = Gateway::start(cli, io)?;
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for at in 0..cli.clients {
        let mut client = Client::join(gateway.public, compressed, at < cli.checking)?;
        poll.registry().register(&mut client.stream, Token(at), Interest::READABLE)?;
        clients.push(client);
    }
    let mut api = TcpStream::connect(gateway.api)?;
    api.set_nodelay(true)?;
    let (mut events, mut chunk, mut inflater) = (Events::with_capacity(1024), vec![0; 64 * 1024], Inflater::new());
    let (mut cpu, mut bytes) = (0, 0);
    for (at, data) in publications.iter().enumerate() {
        if at == WARM_UP {
            cpu = gateway.cpu()?;
            bytes = clients.iter().map(|client| client.bytes).sum();
        }
        publish(&mut api, data)?;
        let (mut missing, begun) = (clients.len(), Instant::now());
        while missing > 0 {
            poll.poll(&mut events, Some(PATIENCE))?;
            for event in &events {
                let came = clients[event.token().0].receive(&mut chunk, &mut inflater, publications)?;
                missing = missing.checked_sub(came).ok_or("more publications came than were made")?;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("publication {at} did not reach {missing} clients").into());
            }
        }
    }
    if let Some(odd) = clients.iter().find(|client| client.publications != publications.len()) {
        return Err(format!("a client has {} of {} publications", odd.publications, publications.len()).into());
    }
    let mut figures = Figures {
        bytes: clients.iter().map(|client| client.bytes).sum::<u64>() - bytes,
        cpu: gateway.cpu()? - cpu,
        deliveries: clients.len() * (publications.len() - WARM_UP),
        compressions: 0.0,
    };
    if compressed {
        figures.compressions = judge_metrics(&gateway, cli, publications.len())?;
    }
    Ok(figures)
}

/// Says what the gateway counted, and holds it against what is promised.
fn judge_metrics(gateway: &Gateway, cli: &Cli, publications: usize) -> Outcome<f64> {
    let runs = gateway.metric("tidegate_compressions_total{of=\"publication\"}")?;
    let plain = gateway.metric("tidegate_compressed_plain_bytes_total{kind=\"publication")?;
    let packed = gateway.metric("tidegate_compressed_packed_bytes_total{kind=\"publication")?;
    let alone = gateway.metric("tidegate_compressed_messages_total{kind=\"publication_alone")?;
    let after = gateway.metric("tidegate_compressed_messages_total{kind=\"publication_after")?;
    let each = runs / (publications * cli.workers) as f64;
    println!(
        "  metrics: {each:.2} compressions per publication and worker, {alone} alone, {after} after the one before, \
         packed over plain {:.3}",
        if plain > 0.0 { packed / plain } else { 1.0 }
    );
    if runs == 0.0 || each > 2.0 {
        return Err(format!("{each} compressions per publication and worker").into());
    }
    Ok(each)
}

/// As `least`, `median` and `most`.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// All rounds of one corpus on one driver; its row of the table.
fn rounds(cli: &Cli, io: &str, kind: Kind) -> Outcome<String> {
    let publications: Vec<Vec<u8>> = kind.publications(WARM_UP + cli.publications).into_iter().map(as_json).collect();
    let (mut bytes, mut cpu, mut compressions) = (Vec::new(), Vec::new(), 0.0_f64);
    let mut payloads = String::new();
    for round in 0..cli.rounds {
        // Who comes first changes, so that a machine that becomes slower favours nobody.
        let first = run(cli, io, &publications, round % 2 == 0)?;
        let second = run(cli, io, &publications, round % 2 == 1)?;
        let (packed, plain) = if round % 2 == 0 { (first, second) } else { (second, first) };
        let each = |figures: &Figures, sum: u64| sum as f64 / figures.deliveries as f64;
        let (packed_bytes, plain_bytes) = (each(&packed, packed.bytes), each(&plain, plain.bytes));
        let (packed_cpu, plain_cpu) = (each(&packed, packed.cpu), each(&plain, plain.cpu));
        bytes.push(packed_bytes / plain_bytes);
        cpu.push(packed_cpu / plain_cpu);
        compressions = compressions.max(packed.compressions);
        payloads = format!("{packed_bytes:.1} and {plain_bytes:.1}");
        println!("  bytes per delivery {payloads} plain; CPU {packed_cpu:.0} ns and {plain_cpu:.0} ns plain");
    }
    let ([least, ratio, most], [cpu_least, cpu_ratio, cpu_most]) = (spread(bytes), spread(cpu));
    let limit = match kind {
        Kind::Chat => CHAT_RATIO_MAX,
        Kind::Noise => 1.0,
        Kind::Ticker | Kind::Scores => f64::INFINITY,
    };
    if most > limit {
        return Err(format!("{}: {most:.3} of the bytes of plain clients, and {limit} is promised", kind.name()).into());
    }
    Ok(format!(
        "| {} | {io} | {payloads} | {ratio:.3} ({least:.3}-{most:.3}) | {compressions:.2} | \
         {cpu_ratio:.2} ({cpu_least:.2}-{cpu_most:.2}) |",
        kind.name()
    ))
}

fn main() -> Outcome<()> {
    let cli = Cli::parse();
    if cli.clients == 0 || cli.rounds == 0 || cli.workers == 0 || cli.publications == 0 {
        return Err("nothing to do".into());
    }
    let kind = |name: &String| Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or("no such corpus");
    let kinds: Vec<Kind> = cli.corpus.iter().map(kind).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for kind in kinds {
        for io in &cli.io {
            println!("{} on {io}", kind.name());
            rows.push(rounds(&cli, io, kind)?);
        }
    }
    println!(
        "\n{} clients, {} workers, {} publications, level {}, {} rounds: median (least-most), over plain\n\n\
         | corpus | driver | bytes per delivery, compressed and plain | bytes | compressions per publication and worker | CPU |\n\
         |---|---|---|---|---|---|\n{}",
        cli.clients,
        cli.workers,
        cli.publications,
        cli.level,
        cli.rounds,
        rows.join("\n")
    );
    Ok(())
}
