//! What is done to the gateway, and which of its counters has to tell.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::wire::{bomb, drain, frame, handshake, websocket};
use crate::measure::{connect, exchange};

/// Between two bytes of a slow client.
const SLOW: Duration = Duration::from_millis(200);

/// Bytes of heads and bodies that never end.
const HUGE_BYTES: usize = 50 << 20;

/// Publications of 32 KiB after which nobody of those who never read is left: the kernel takes some of them, and an outbox
/// 2 MiB more.
const AUDIENCE_LASTS: u32 = 400;

/// Where the gateway listens.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) public: String,
    pub(super) tls: String,
    pub(super) api: String,
    pub(super) key: &'static str,
}

/// What an attacker thread has at hand.
pub(super) struct Attacker<'a> {
    pub(super) target: &'a Target,
    /// Connections that it holds, where it holds any.
    pub(super) size: usize,
    /// Set when it is to end.
    pub(super) stop: &'a AtomicBool,
    /// How often it did what it does.
    pub(super) done: &'a AtomicU64,
}

/// One kind of attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// In the table.
    pub(super) title: &'static str,
    /// Connections that are held, in full and in small.
    pub(super) sizes: (usize, usize),
    /// A counter that grows, with labels where they matter.
    pub(super) tells: Option<&'static str>,
    pub(super) work: fn(&Attacker<'_>),
}

/// All of them.
pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "half-heads",
        title: "half-open request heads, a byte now and then",
        sizes: (10_000, 500),
        tells: None,
        work: |it| hold_slowly(it, &it.target.public, b"GET /connection/websocket HTTP/1.1\r\nX-A: "),
    },
    Attack {
        name: "slow-bodies",
        title: "slow bodies for the API",
        sizes: (500, 50),
        tells: None,
        work: |it| {
            let head = format!(
                "POST /api/publish HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nContent-Length: 9999\r\n\r\n",
                it.target.api, it.target.key
            );
            hold_slowly(it, &it.target.api, head.as_bytes());
        },
    },
    Attack {
        name: "slow-tls",
        title: "TLS hellos that never end",
        sizes: (5_000, 300),
        tells: None,
        // A record of 512 bytes with a ClientHello of 508.
        work: |it| hold_slowly(it, &it.target.tls, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
    },
    Attack {
        name: "never-reading",
        title: "subscribers of a hot channel that never read",
        sizes: (300, 100),
        tells: Some("tidegate_slow_disconnects_total"),
        work: never_reading,
    },
    Attack {
        name: "pings",
        title: "floods of pings",
        sizes: (50, 10),
        tells: None,
        work: |it| flood(it, "/echo", b"", &frame(0x89, b"x").repeat(500)),
    },
    Attack {
        name: "fragments",
        title: "messages of fragments of one byte and none, without end",
        sizes: (50, 10),
        tells: Some("tidegate_closes_total{side=\"server\",code=\"1009\"}"),
        work: |it| flood(it, "/echo", &frame(0x01, b"x"), &[frame(0x00, b"x"), frame(0x00, b"")].concat().repeat(200)),
    },
    Attack {
        name: "bombs",
        title: "compressed messages that become 10 MB",
        sizes: (20, 5),
        tells: Some("tidegate_closes_total{side=\"server\",code=\"1009\"}"),
        work: |it| flood(it, "/echo", b"", &frame(0xc1, &bomb(40_000))),
    },
    Attack {
        name: "connects",
        title: "connections that come and go",
        sizes: (1, 1),
        tells: None,
        work: |it| again(it, |target| drop(connect(&target.public))),
    },
    Attack {
        name: "resets",
        title: "handshakes that are cut off with a reset",
        sizes: (1, 1),
        tells: None,
        work: |it| {
            again(it, |target| {
                let Ok(mut socket) = connect(&target.public) else { return };
                let _ = socket.write_all(handshake(&target.public, "/connection/websocket").as_bytes());
                // Whoever closes with something unread resets.
                let _ = socket.peek(&mut [0]);
            });
        },
    },
    Attack {
        name: "huge",
        title: "heads, URLs and bodies of 50 MB",
        sizes: (1, 1),
        tells: None,
        work: |it| {
            let starts = [
                (&it.target.public, "GET / HTTP/1.1\r\nX-A: ".to_owned()),
                (&it.target.public, "GET /".to_owned()),
                (
                    &it.target.api,
                    format!(
                        "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: {HUGE_BYTES}\r\n\r\n",
                        it.target.key
                    ),
                ),
            ];
            again(it, |_| starts.iter().for_each(|(address, start)| pour(it, address, start.as_bytes())));
        },
    },
    Attack {
        name: "tls-garbage",
        title: "records of TLS that are none",
        sizes: (1, 1),
        tells: Some("tidegate_tls_failed_total"),
        work: |it| {
            let mut turn = 0_u8;
            again(it, |target| {
                turn = turn.wrapping_add(1);
                let Ok(mut socket) = connect(&target.tls) else { return };
                // Noise; a record of handshake that is no message; a hello with lengths that lead nowhere; an alert first.
                let noise: Vec<u8> = (0..200_u8).map(|byte| byte.wrapping_mul(37).wrapping_add(turn) | 0x40).collect();
                let starts: [&[u8]; 4] =
                    [&[], &[0x16, 3, 1, 0, 200], &[0x16, 3, 1, 0, 80, 1, 0, 0, 76, 3, 3], &[0x15, 3, 3, 0, 2, 1, 0]];
                let _ = socket.write_all(&[starts[usize::from(turn % 4)], &noise].concat());
                let mut answer = [0; 64];
                let _ = std::io::Read::read(&mut socket, &mut answer);
            });
        },
    },
    Attack {
        name: "subscribes",
        title: "subscribe and unsubscribe as fast as it goes, new channels each time",
        sizes: (10, 5),
        tells: None,
        work: |it| {
            let commands: Vec<String> = (0..100)
                .map(|n| {
                    let (first, second) = (2 * n + 2, 2 * n + 3);
                    format!("{{\"id\":{first},\"subscribe\":{{\"channel\":\"s{n}\"}}}}\n{{\"id\":{second},\"unsubscribe\":{{\"channel\":\"s{n}\"}}}}")
                })
                .collect();
            talk(it, &commands.join("\n"));
        },
    },
    Attack {
        name: "over-subscribes",
        title: "more subscriptions than allowed",
        sizes: (20, 5),
        tells: None,
        work: |it| {
            let commands: Vec<String> =
                (0..500).map(|n| format!("{{\"id\":{},\"subscribe\":{{\"channel\":\"o{n}\"}}}}", n + 2)).collect();
            talk(it, &commands.join("\n"));
        },
    },
    Attack {
        name: "nonsense",
        title: "commands that are none",
        sizes: (1, 1),
        tells: Some("tidegate_closes_total{side=\"server\",code=\"3501\"}"),
        work: |it| {
            again(it, |target| {
                let Ok(mut socket) = websocket(&target.public, "/connection/websocket") else { return };
                let _ = socket.write_all(&frame(0x81, b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":["));
                let _ = std::io::Read::read(&mut socket, &mut [0; 512]);
            });
        },
    },
    Attack {
        name: "bad-tokens",
        title: "a crowd with tokens that do not count",
        sizes: (1, 1),
        tells: Some("tidegate_closes_total{side=\"server\",code=\"3500\"}"),
        work: |it| {
            again(it, |target| {
                let Ok(mut socket) = websocket(&target.public, "/connection/websocket") else { return };
                let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
                let command = format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}");
                let _ = socket.write_all(&frame(0x81, command.as_bytes()));
                let _ = std::io::Read::read(&mut socket, &mut [0; 512]);
            });
        },
    },
];

impl Attacker<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, times: usize) {
        self.done.fetch_add(times as u64, Ordering::Relaxed);
    }
}

/// Does it until it is to end.
fn again(it: &Attacker<'_>, mut once: impl FnMut(&Target)) {
    while it.goes_on() {
        once(it.target);
        it.count(1);
    }
}

/// Holds connections that begin so and go on with a byte now and then; who is thrown out comes again.
fn hold_slowly(it: &Attacker<'_>, address: &str, start: &[u8]) {
    let come = || {
        let mut socket = connect(address).ok()?;
        socket.write_all(start).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    };
    let mut held: Vec<TcpStream> = Vec::new();
    while it.goes_on() {
        let turn = Instant::now();
        held.retain_mut(|socket| drain(socket) && socket.write_all(b"a").is_ok());
        // In portions, so that the gateway's queue of new connections is not what is tested.
        let missing = (it.size - held.len()).min(500);
        let came = (0..missing).filter_map(|_| come());
        let before = held.len();
        held.extend(came);
        it.count(held.len() - before);
        std::thread::sleep(SLOW.saturating_sub(turn.elapsed()));
    }
}

/// Holds connections, of which each sends `first`, then `bytes` over and over, and reads what comes.
fn flood(it: &Attacker<'_>, path: &str, first: &[u8], bytes: &[u8]) {
    let come = || {
        let mut socket = websocket(&it.target.public, path).ok()?;
        socket.write_all(first).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some((socket, 0))
    };
    let mut held: Vec<(TcpStream, usize)> = Vec::new();
    while it.goes_on() {
        if held.len() < it.size {
            held.extend(come());
        }
        held.retain_mut(|(socket, sent)| {
            let is_there = drain(socket);
            match socket.write(&bytes[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    if *sent == bytes.len() {
                        *sent = 0;
                        it.count(1);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => return false,
            }
            is_there
        });
    }
}

/// The same of commands behind a connect.
fn talk(it: &Attacker<'_>, commands: &str) {
    let mut held: Vec<TcpStream> = Vec::new();
    let come = || {
        let mut socket = websocket(&it.target.public, "/connection/websocket").ok()?;
        socket.write_all(&frame(0x81, b"{\"id\":1,\"connect\":{}}")).ok()?;
        Some(socket)
    };
    let message = frame(0x81, commands.as_bytes());
    while it.goes_on() {
        if held.len() < it.size {
            held.extend(come());
        }
        held.retain_mut(|socket| {
            it.count(1);
            let sent = socket.set_nonblocking(false).is_ok() && socket.write_all(&message).is_ok();
            sent && socket.set_nonblocking(true).is_ok() && drain(socket)
        });
    }
}

/// Subscribers that take nothing, and publications for them.
fn never_reading(it: &Attacker<'_>) {
    let come = || {
        let mut socket = websocket(&it.target.public, "/connection/websocket").ok()?;
        let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"hot\"}}";
        socket.write_all(&frame(0x81, commands.as_bytes())).ok()?;
        Some(socket)
    };
    // Letters that do not compress.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + (state >> 24) as u8 % 64).to_string().replace('\\', "x")
    });
    let body = format!("{{\"channel\":\"hot\",\"data\":\"{}\"}}", noise.take(32 * 1024).collect::<String>());
    let Target { api, key, .. } = it.target;
    let publish = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {api}\r\nX-API-Key: {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut held: Vec<TcpStream> = Vec::new();
    let mut published = 0;
    while it.goes_on() {
        let missing = (it.size - held.len()).min(50);
        held.extend((0..missing).filter_map(|_| come()));
        if exchange(api, &publish).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            it.count(1);
            published += 1;
        }
        // Those who were closed do not notice, as they read nothing: all of them come again now and then.
        if published >= AUDIENCE_LASTS {
            held.clear();
            published = 0;
        }
    }
}

/// Writes until nobody takes it any more.
fn pour(it: &Attacker<'_>, address: &str, start: &[u8]) {
    let Ok(mut socket) = connect(address) else { return };
    let piece = [b'a'; 16 * 1024];
    let mut poured = 0;
    let mut taken = socket.write_all(start).is_ok();
    while taken && poured < HUGE_BYTES && it.goes_on() {
        taken = socket.write_all(&piece).is_ok();
        poured += piece.len();
    }
}
