//! `tidegate publish`: one publication through the server API, for people and scripts.
//!
//! One HTTP/1.1 request over a plain socket, with an end to its time and to its answer's size. TLS is not spoken: the
//! API listens on this machine or a private network.

use crate::cli::{EXIT_RUNTIME, EXIT_USAGE, PublishArgs};
use crate::config;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::http::{BodyKind, body::Body};

/// For each address of the API's host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// From the request to the end of its answer. The API gives its workers 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer holds an offset or an error; what is larger is not from our API.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Publishes, and prints the result to `out`.
///
/// # Errors
/// When `out` or `err` cannot be written to.
pub fn run(
    args: &PublishArgs,
    env: &[(OsString, OsString)],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    match publish(args, env) {
        Ok(result) => {
            writeln!(out, "{result}")?;
            Ok(0)
        }
        Err(failure) => {
            writeln!(err, "error: {}", failure.message)?;
            if let Some(hint) = failure.hint {
                writeln!(err, "  hint: {hint}")?;
            }
            Ok(failure.exit)
        }
    }
}

/// Why nothing was published, as far as we know.
struct Failure {
    message: String,
    hint: Option<String>,
    exit: u8,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: EXIT_USAGE }
    }

    fn runtime(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: EXIT_RUNTIME }
    }

    fn hinted(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

fn publish(args: &PublishArgs, env: &[(OsString, OsString)]) -> Result<String, Failure> {
    let Ok(data) = serde_json::from_str::<&RawValue>(&args.data) else {
        return Err(
            Failure::usage("DATA is not JSON").hinted("a text needs its quotes inside those of the shell: '\"hello\"'")
        );
    };
    let target = Target::parse(&args.api)?;
    let key = api_key(args.key.as_deref(), env)?;
    #[derive(Serialize)]
    struct Publication<'a> {
        channel: &'a str,
        data: &'a RawValue,
    }
    let body = serde_json::to_vec(&Publication { channel: &args.channel, data }).expect("two strings make JSON");
    let answer = target.post("/api/publish", key.as_ref().map(config::Secret::expose), &body)?;
    read_result(&answer)
}

/// The key to show: the flag's, or the first that the environment gives the gateway itself.
fn api_key(flag: Option<&str>, env: &[(OsString, OsString)]) -> Result<Option<config::Secret>, Failure> {
    if let Some(key) = flag {
        return match key.parse::<config::Secret>() {
            Ok(key) if key.fits_a_header() => Ok(Some(key)),
            _ => Err(Failure::usage("--key is not a key: it has only visible ASCII characters and at least one")),
        };
    }
    let ours: Vec<_> = env
        .iter()
        .filter(|(name, _)| name == "TIDEGATE_API__KEYS" || name == "TIDEGATE_API__KEYS_FILE")
        .cloned()
        .collect();
    match config::load(config::Inputs { env: &ours, ..config::Inputs::default() }) {
        Ok(loaded) => Ok(loaded.config.api.keys.first().cloned()),
        Err(problems) => Err(Failure::usage(problems[0].to_string())),
    }
}

/// Where the API listens.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// Host and port as they stand in the URL, and the path in front of `/api`.
    Http {
        authority: String,
        prefix: String,
    },
    Unix(String),
}

impl Target {
    fn parse(url: &str) -> Result<Self, Failure> {
        let example = "write http://127.0.0.1:9000 or unix:/run/tidegate-api.sock";
        if let Some(path) = url.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.to_owned()));
        }
        if url.starts_with("https://") {
            return Err(Failure::usage("--api cannot be https: this command speaks no TLS")
                .hinted("use the address that the gateway itself listens on"));
        }
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || path.contains(['?', '#']) || !is_visible(rest) {
            // Not repeated: there may be a password in it.
            return Err(Failure::usage("--api is not the URL of an API").hinted(example));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self::Http { authority, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Sends one request and returns its answer.
    fn post(&self, path: &str, key: Option<&str>, body: &[u8]) -> Result<Answer, Failure> {
        let (host, prefix) = match self {
            Self::Http { authority, prefix } => (authority.as_str(), prefix.as_str()),
            Self::Unix(_) => ("localhost", ""),
        };
        let key = key.map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
        let mut request = format!(
            "POST {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}Content-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let exchanged = self.connect().and_then(|mut socket| exchange(&mut *socket, &request));
        exchanged.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                Failure::runtime(format!("{self} does not answer like the server API: {error}"))
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Failure::runtime(format!("{self} did not answer in time; it may have published all the same"))
            }
            _ => Failure::runtime(format!("cannot reach the server API at {self}: {error}"))
                .hinted("is tidegate running there? --api names another address"),
        })
    }

    fn connect(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path)?)),
            Self::Http { authority, .. } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in authority.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(socket) => return Ok(Box::new(socket)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { authority, prefix } => write!(f, "http://{authority}{prefix}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// What a TCP and a Unix socket have in common here.
trait Socket: Read + Write {
    /// Longest wait of the next read or write.
    fn wait_at_most(&self, time: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Socket for UnixStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn exchange(socket: &mut dyn Socket, request: &[u8]) -> io::Result<Answer> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    socket.wait_at_most(ANSWER_TIMEOUT)?;
    // A refusal may come, and the connection end, before all of a large request is taken: the answer says why.
    let written = socket.write_all(request);
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.wait_at_most(left)?;
        let len = match socket.read(&mut chunk) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(written.err().unwrap_or(error)),
        };
        received.extend_from_slice(&chunk[..len]);
        if let Some(answer) = parse_answer(&received, len == 0)? {
            return Ok(answer);
        }
        if len == 0 {
            written?;
            return Err(invalid("it closed the connection in the middle"));
        }
        if received.len() > ANSWER_BYTES_MAX {
            return Err(invalid("the answer is too long"));
        }
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// `None` while more has to come; `ended` when nothing more will.
fn parse_answer(received: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let Some(head_len) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..head_len]).map_err(|_| invalid("no HTTP head"))?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.get(2..5)?.parse().ok());
    let status = status.ok_or_else(|| invalid("no HTTP status"))?;
    let mut kind = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            kind = Some(BodyKind::Chunked);
        } else if name.eq_ignore_ascii_case("content-length") {
            let len = value.parse().map_err(|_| invalid("no valid Content-Length"))?;
            kind = kind.or(Some(BodyKind::Length(len)));
        }
    }
    let mut rest = &received[head_len + 4..];
    let Some(kind) = kind else {
        // Without either the body ends with the connection (RFC 9112, 6.3).
        return Ok(ended.then(|| Answer { status, body: rest.to_vec() }));
    };
    let malformed = |_| invalid("no valid body");
    let mut reader = Body::new(kind, ANSWER_BYTES_MAX as u64).map_err(malformed)?;
    let mut body = Vec::new();
    while let Some(piece) = reader.next(&mut rest).map_err(malformed)? {
        body.extend_from_slice(piece);
    }
    Ok(reader.is_done().then_some(Answer { status, body }))
}

/// The `result` of the API's envelope as JSON, or its error.
fn read_result(answer: &Answer) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<ApiError<'a>>,
    }
    #[derive(Deserialize)]
    struct ApiError<'a> {
        code: u32,
        #[serde(borrow)]
        message: std::borrow::Cow<'a, str>,
    }
    let text = std::str::from_utf8(&answer.body).unwrap_or_default();
    match (answer.status, serde_json::from_str::<Envelope<'_>>(text)) {
        (401, _) => {
            Err(Failure::runtime("the server API refuses the key").hinted("give one with --key or TIDEGATE_API__KEYS"))
        }
        (200, Ok(Envelope { error: Some(error), .. })) => {
            Err(Failure::runtime(format!("{}: {}", error.code, error.message.escape_debug())))
        }
        (200, Ok(Envelope { result: Some(result), .. })) => Ok(result.get().to_owned()),
        (status, _) => {
            // A person reads this on a terminal, so what came must not be able to steer it.
            let body: String = text.trim().chars().take(200).flat_map(char::escape_debug).collect();
            Err(Failure::runtime(format!("the server API answered HTTP {status}: {body}")))
        }
    }
}
