//! What the service manager is told: that we are ready, reload, stop, and live.
//!
//! The protocol is that of sd_notify(3): datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET names. Without
//! that variable nothing is sent.
//!
//! ```text
//! start    READY=1 STATUS=..               once each worker has answered a letter
//!          WATCHDOG=1                      every half of WATCHDOG_USEC in which each worker has answered
//! SIGHUP   RELOADING=1 MONOTONIC_USEC=..   then READY=1 with STATUS= in force, or refused and why
//! SIGTERM  STOPPING=1 EXTEND_TIMEOUT_USEC= the longest that the drain may take
//! ```

use crate::backend::Gateway;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// How often, and after what pause each, a datagram is tried again for which the manager's queue has no room.
const SENDS_MAX: u32 = 50;
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Bytes of a status line; the manager refuses datagrams that are too long, and people do not read them.
const STATUS_BYTES_MAX: usize = 400;

/// Shortest time between two signs of life, whatever is asked for: each wakes all workers.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// The service manager that started us, if one did.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    /// Made once, so that a process without a free descriptor can still say that it lives.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Time in which it wants a sign of life.
    watchdog: Option<Duration>,
}

impl Manager {
    /// From the variables that the manager sets. What cannot be used is logged and costs no start.
    pub(crate) fn from_env() -> Self {
        Self::named(|name| std::env::var_os(name), std::process::id()).unwrap_or_else(|why| {
            tracing::warn!("the service manager will not be told anything: {why}");
            Self::default()
        })
    }

    fn named(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Result<Self, String> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(Self::default()) };
        let complain = |what: &dyn std::fmt::Display| format!("NOTIFY_SOCKET={}: {what}", name.display());
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(Path::new(&name)),
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
            _ => return Err(complain(&"neither a path nor @ and a name")),
        };
        let address = address.map_err(|error| complain(&error))?;
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        let socket = socket.map_err(|error| complain(&error))?;
        Ok(Self { socket: Some((socket, address)), watchdog: watchdog(variable, process)? })
    }

    /// Says that we serve as soon as each worker has answered a letter; then that we live, for as long as they answer.
    pub(crate) async fn attend(&self, gateway: &Gateway) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        gateway.all_answer(&mut 0).await;
        self.ready(&format!("serving; {}", describe(gateway))).await;
        let Some(within) = self.watchdog else { return std::future::pending().await };
        let half = (within / 2).max(BEAT_MIN);
        let mut beat = tokio::time::interval(half);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let mut worker = 0;
            if tokio::time::timeout(half, gateway.all_answer(&mut worker)).await.is_ok() {
                self.tell(&format!("WATCHDOG=1\nSTATUS=serving {} clients\n", gateway.connections())).await;
            } else {
                tracing::error!(worker, "has not answered for {half:?}: the service manager is given no sign of life");
            }
        }
    }

    async fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}\n", one_line(status))).await;
    }

    /// A reload begins.
    pub(crate) async fn reloading(&self) {
        // The manager tells by the time whether this is the reload that it asked for.
        let now = ::io::clock::monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration\n")).await;
    }

    /// The reload is over; whichever way, we serve.
    pub(crate) async fn reloaded(&self, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => self.ready("serving; the new configuration is in force").await,
            Err(why) => self.ready(&format!("serving; the old configuration stays in force: {why}")).await,
        }
    }

    /// A drain begins, which takes at most `bound`.
    pub(crate) async fn stopping(&self, bound: Duration, clients: u64) {
        let (us, s) = (bound.as_micros(), bound.as_secs_f64());
        self.tell(&format!(
            "STOPPING=1\nSTATUS=draining {clients} clients, for at most {s:.1} s\nEXTEND_TIMEOUT_USEC={us}\n"
        ))
        .await;
    }

    /// Sends one datagram. A manager that is gone or deaf costs a log line, and never more than a second.
    async fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        for _ in 0..SENDS_MAX {
            match socket.send_to_addr(message.as_bytes(), address) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(SEND_AGAIN_AFTER).await,
                Err(error) => return tracing::warn!("cannot tell the service manager: {error}"),
            }
        }
        tracing::warn!("cannot tell the service manager: it does not read what it is sent");
    }
}

fn describe(gateway: &Gateway) -> String {
    let identity = gateway.identity();
    let drivers: Vec<&str> = identity.drivers.iter().map(|on| on.driver).collect();
    let (workers, room) = (gateway.workers(), identity.connections_max);
    format!("{workers} workers on {}, room for {room} clients", drivers.join(" and "))
}

/// The time within which a sign of life is wanted of this process.
fn watchdog(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Result<Option<Duration>, String> {
    let number = |name: &str| match variable(name).map(|text| text.into_string()) {
        None => Ok(None),
        Some(Ok(text)) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text} is not a number")),
        Some(Err(text)) => Err(format!("{name} is not a number: {}", String::from_utf8_lossy(&text.into_vec()))),
    };
    // It is left over from our parent when it names another process.
    if number("WATCHDOG_PID")?.is_some_and(|wanted| wanted != u64::from(process)) {
        return Ok(None);
    }
    Ok(number("WATCHDOG_USEC")?.filter(|us| *us > 0).map(Duration::from_micros))
}

/// A new line would begin another assignment.
fn one_line(status: &str) -> String {
    let line: Vec<&str> = status.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut line = line.join(" ");
    let end =
        line.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= STATUS_BYTES_MAX).last();
    line.truncate(end.unwrap_or(0));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(variables: &[(&str, &str)]) -> Result<Manager, String> {
        let of = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Manager::named(of, 7)
    }

    #[test]
    fn without_a_socket_there_is_nobody_to_tell_and_no_watchdog() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("WATCHDOG_USEC", "1000")]] {
            let manager = named(variables).unwrap();
            assert!(manager.socket.is_none() && manager.watchdog.is_none());
        }
    }

    #[test]
    fn a_path_and_an_abstract_name_are_sockets_and_others_are_named_in_the_refusal() {
        let long = format!("/{}", "a".repeat(107));
        for (good, bad) in [("/run/notify", "run/notify"), ("@notify", "vsock:2:1"), (&long[..107], &long)] {
            assert!(named(&[("NOTIFY_SOCKET", good)]).unwrap().socket.is_some(), "{good}");
            let why = named(&[("NOTIFY_SOCKET", bad)]).unwrap_err();
            assert!(why.contains(bad), "{why}");
        }
    }

    #[test]
    fn the_watchdog_is_ours_only_when_its_process_is_ours_or_not_named() {
        let of = |variables: &[(&str, &str)]| {
            named(&[&[("NOTIFY_SOCKET", "@x")], variables].concat()).map(|manager| manager.watchdog)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(of(&[("WATCHDOG_USEC", "1000000")]), Ok(second));
        assert_eq!(of(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")]), Ok(second));
        assert_eq!(of(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")]), Ok(None));
        assert_eq!(of(&[("WATCHDOG_USEC", "0")]), Ok(None));
        assert!(of(&[("WATCHDOG_USEC", "1s")]).unwrap_err().contains("WATCHDOG_USEC=1s"));
    }

    #[test]
    fn a_status_is_one_line_however_many_it_came_in() {
        assert_eq!(one_line("a: no\n  hint: b\n\nREADY=1"), "a: no hint: b READY=1");
        assert_eq!(one_line(&"ü".repeat(STATUS_BYTES_MAX)).len(), STATUS_BYTES_MAX);
    }
}
