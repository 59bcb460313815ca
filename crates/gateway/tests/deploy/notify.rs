//! What the real binary tells a service manager, of which this is the socket.

use crate::process::{PATIENCE, PORTS, Running, command, config, get, path, start_as};
use gateway::config::Config;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

/// A service manager's end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn bound(abstract_name: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("notify");
        let path = file.to_str().expect("UTF-8");
        // The path is as unique in the abstract names as it is among the files.
        let (socket, name) = if abstract_name {
            let address = SocketAddr::from_abstract_name(path).expect("short");
            (UnixDatagram::bind_addr(&address), format!("@{path}"))
        } else {
            (UnixDatagram::bind(&file), path.to_owned())
        };
        let socket = socket.expect("nobody else is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("settable");
        Self { socket, name, _folder: folder }
    }

    /// The binary with these arguments, started as this manager's service.
    fn starts(&self, args: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command: Command = command(&[args, &PORTS, &["--workers", "2"]].concat());
        command.env("NOTIFY_SOCKET", &self.name).envs(variables.iter().copied());
        start_as(command)
    }

    /// The next datagram as assignments.
    fn told(&self) -> Told {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).expect("a datagram in time");
        let text = String::from_utf8(bytes[..len].to_vec()).expect("text");
        Told(text.lines().map(|line| line.split_once('=').expect("NAME=value")).map(owned).collect())
    }

    /// The next datagram that is no sign of life.
    fn told_beside_life(&self) -> Told {
        loop {
            let told = self.told();
            if told.of("WATCHDOG").is_none() {
                return told;
            }
        }
    }

    /// Datagrams that are here already.
    fn waiting(&self) -> Vec<Told> {
        self.socket.set_nonblocking(true).expect("settable");
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            all.push(Told(text.lines().filter_map(|line| line.split_once('=')).map(owned).collect()));
        }
        self.socket.set_nonblocking(false).expect("settable");
        all
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[derive(Debug)]
struct Told(Vec<(String, String)>);

impl Told {
    fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn number(&self, name: &str) -> u128 {
        self.of(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {self:?}"))
    }
}

#[test]
fn it_says_ready_once_when_both_listeners_answer_so() {
    for abstract_name in [false, true] {
        let manager = Manager::bound(abstract_name);
        let gateway = manager.starts(&["--dev"], &[]);
        let told = manager.told();
        assert_eq!(told.of("READY"), Some("1"));
        let status = told.of("STATUS").expect("a status");
        assert!(status.starts_with("serving; 2 workers on ") && status.contains("room for "), "{status}");
        assert!(get(&gateway.public, "/readyz").contains("200 OK"));
        assert!(get(&gateway.api, "/readyz").contains("200 OK"));
        assert!(manager.waiting().is_empty(), "there is no watchdog to be told more");
    }
}

#[test]
fn a_socket_that_is_no_socket_costs_a_log_line_and_no_start() {
    for (name, complaint) in [("run/notify", "neither a path nor @"), ("/nowhere/notify", "cannot tell")] {
        let mut command = command(&[&["--dev"], &PORTS[..]].concat());
        let mut gateway = start_as({
            command.env("NOTIFY_SOCKET", name);
            command
        });
        if !gateway.banner.iter().any(|line| line.contains(complaint)) {
            gateway.read_until(complaint);
        }
        assert!(get(&gateway.public, "/readyz").contains("200 OK"));
    }
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end_and_a_refused_one_with_its_reason() {
    let file = config("[api]\nkeys = ['one']\n");
    let manager = Manager::bound(false);
    let gateway = manager.starts(&["serve", "--config", path(&file)], &[]);
    assert_eq!(manager.told().of("READY"), Some("1"));

    for (text, status) in [
        ("[api]\nkeys = ['two']\n", "serving; the new configuration is in force"),
        ("[api]\nkeyz = ['two']\n", "serving; the old configuration stays in force: "),
    ] {
        fs::write(file.path(), text).expect("writable");
        let asked = io::clock::monotonic().as_micros();
        gateway.signal("HUP");
        let begun = manager.told();
        assert_eq!((begun.of("RELOADING"), begun.of("READY")), (Some("1"), None));
        let (at, now) = (begun.number("MONOTONIC_USEC"), io::clock::monotonic().as_micros());
        assert!(asked <= at && at <= now, "{asked} {at} {now}: later than asked for, by the manager's clock");
        let over = manager.told();
        assert_eq!((over.of("READY"), over.of("RELOADING")), (Some("1"), None));
        let told = over.of("STATUS").expect("a status");
        assert!(told.starts_with(status), "{told}");
        assert_eq!(told.contains("api.keyz: unknown key hint: did you mean `keys`?"), text.contains("keyz"), "{told}");
    }
}

#[test]
fn a_drain_is_told_before_it_begins_with_the_time_it_may_take() {
    let file = config("[drain]\nnotice = '200ms'\ntime = '300ms'\n[outbox]\nclose_timeout = '700ms'\n");
    let manager = Manager::bound(false);
    let mut gateway = manager.starts(&["--dev", "--config", path(&file)], &[("WATCHDOG_USEC", "100000")]);
    assert_eq!(manager.told().of("READY"), Some("1"));
    gateway.signal("TERM");
    let told = manager.told_beside_life();
    assert_eq!(told.of("STOPPING"), Some("1"));
    assert!(told.of("STATUS").expect("a status").starts_with("draining 0 clients"));
    let mut config = Config::default();
    let time = |text: &str| text.parse().expect("a time");
    (config.drain.notice, config.drain.time) = (time("200ms"), time("300ms"));
    config.outbox.close_timeout = time("700ms");
    let bound = gateway::lifecycle::stop_bound(&config);
    assert_eq!(told.number("EXTEND_TIMEOUT_USEC"), bound.as_micros());
    assert!(bound > Duration::from_millis(200 + 300 + 700), "{bound:?}");
    let stopping = std::time::Instant::now();
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(stopping.elapsed() < bound, "it kept its word");
    assert!(manager.waiting().is_empty(), "workers that have ended give no sign of life, and none is pretended");
}

/// One thread of a process, stopped until dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn thread(process: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it lives");
        let is_named =
            |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let task = tasks.map(|task| task.expect("readable").path()).find(is_named).expect("a thread of that name");
        let id: libc::pid_t = task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
        let null = std::ptr::null_mut::<libc::c_void>();
        let mut status = 0;
        // SAFETY: neither request reads or writes memory by its two null arguments; `status` is ours to write.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, id, null, null), 0, "{}", std::io::Error::last_os_error());
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, id, null, null), 0);
            assert_eq!(libc::waitpid(id, &raw mut status, libc::__WALL), id);
        }
        assert!(libc::WIFSTOPPED(status));
        Self(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: PTRACE_DETACH with a null signal takes no memory.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null, null) };
    }
}

#[test]
fn signs_of_life_come_only_while_every_worker_answers() {
    let manager = Manager::bound(false);
    let mut gateway = manager.starts(&["--dev"], &[("WATCHDOG_USEC", "400000")]);
    assert_eq!(manager.told().of("READY"), Some("1"));
    for _ in 0..3 {
        assert_eq!(manager.told().of("WATCHDOG"), Some("1"));
    }
    let stopped = Stopped::thread(gateway.process(), "worker-1");
    // The question that was under way when the thread stopped may have been answered; none after this line was.
    gateway.read_until("has not answered");
    manager.waiting();
    for _ in 0..2 {
        let line = gateway.read_until("has not answered");
        assert!(line.contains("worker=1"), "{line}");
    }
    // The control thread lives and reloads all the same; that alone is no sign of life.
    gateway.signal("HUP");
    assert_eq!(manager.told().of("RELOADING"), Some("1"));
    assert_eq!(manager.told().of("READY"), Some("1"));
    drop(stopped);
    assert_eq!(manager.told().of("WATCHDOG"), Some("1"), "it has woken up");
}

#[test]
fn the_watchdog_of_another_process_gets_nothing_from_us() {
    let manager = Manager::bound(false);
    let other = std::process::id().to_string();
    let gateway = manager.starts(&["--dev"], &[("WATCHDOG_USEC", "400000"), ("WATCHDOG_PID", &other)]);
    assert_eq!(manager.told().of("READY"), Some("1"));
    // A first sign of life would follow READY at once.
    gateway.signal("HUP");
    assert_eq!(manager.told().of("RELOADING"), Some("1"));
    assert_eq!(manager.told().of("READY"), Some("1"));
    assert!(manager.waiting().is_empty());
}
