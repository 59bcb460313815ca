//! Whether io_uring can be used here, found out by using it.
#![allow(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::opcode;

use super::buffers::Buffers;
use super::ring::{Kind, Ring, Tag};

/// The first kernel with all that the driver uses: deferred completions, multishot accept and poll, cancel by descriptor.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// How long the tried operations may take; they take microseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the driver has the kernel do.
const OPERATIONS: [(u8, &str); 6] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Recv::CODE, "RECV"),
];

/// Why io_uring cannot be used here; epoll can.
#[derive(Debug)]
pub enum Unavailable {
    /// The kernel's release is older than 6.1.
    KernelTooOld(String),
    /// The value of the sysctl `kernel.io_uring_disabled`.
    Disabled(u32),
    /// EPERM from a kernel that did not disable it: a seccomp profile, as of most container runtimes, or a security
    /// module.
    Forbidden,
    /// The kernel was built without it, or a seccomp profile pretends that.
    NoSystemCall,
    /// ENOMEM: RLIMIT_MEMLOCK, a memory limit of the cgroup, or really no memory.
    NoMemory,
    /// The ring was refused with another error.
    Setup(io::Error),
    /// The kernel does not know this operation or feature.
    Missing(&'static str),
    /// An operation that was tried did not do what it has to.
    Failed(&'static str, io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_MIN;
        match self {
            Unavailable::KernelTooOld(release) => write!(f, "kernel {release} is older than {major}.{minor}"),
            Unavailable::Disabled(value) => write!(f, "the sysctl kernel.io_uring_disabled is {value}"),
            Unavailable::Forbidden => {
                f.write_str("io_uring_setup is not permitted (EPERM): by a seccomp profile or a security module")
            }
            Unavailable::NoSystemCall => f.write_str(
                "io_uring_setup does not exist (ENOSYS): not in this kernel, or hidden by a seccomp profile",
            ),
            Unavailable::NoMemory => {
                f.write_str("no memory for the ring (ENOMEM): see RLIMIT_MEMLOCK and the memory limit of the cgroup")
            }
            Unavailable::Setup(error) => write!(f, "io_uring_setup failed: {error}"),
            Unavailable::Missing(what) => write!(f, "the kernel's io_uring has no {what}"),
            Unavailable::Failed(what, error) => write!(f, "{what} by io_uring was tried and failed: {error}"),
        }
    }
}

impl std::error::Error for Unavailable {}

/// A ring that was tried out, for [`Uring::new`](super::Uring::new) on the same thread.
pub struct Ready {
    pub(super) ring: Ring,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

/// Makes a ring and tries it out. To be called on the thread that will run the driver, and after that thread took a
/// private table of descriptors, if it does.
///
/// # Errors
/// When io_uring cannot be used here. Nothing is left behind then, and epoll can be used.
pub fn probe() -> Result<Ready, Unavailable> {
    let release = release();
    if is_too_old(&release) {
        return Err(Unavailable::KernelTooOld(release));
    }
    let ring = Ring::open().map_err(|error| refused(error, disabled()))?;
    try_out(ring)
}

/// The kernel's release as it tells this process, "6.1.0-13-amd64"; empty if it does not.
fn release() -> String {
    // SAFETY: utsname is arrays of characters, for which all zeroes is a value.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is a valid utsname to write to.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return String::new();
    }
    let bytes = names.release.iter().map(|&c| c as u8).take_while(|&byte| byte != 0).collect::<Vec<u8>>();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Of a release that is not understood nothing is assumed; the trial tells.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < KERNEL_MIN,
        _ => false,
    }
}

/// `kernel.io_uring_disabled`: 1 without privileges, 2 for all.
fn disabled() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn refused(error: io::Error, disabled: u32) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled > 0 => Unavailable::Disabled(disabled),
        Some(libc::EPERM | libc::EACCES) => Unavailable::Forbidden,
        Some(libc::ENOSYS) => Unavailable::NoSystemCall,
        Some(libc::ENOMEM) => Unavailable::NoMemory,
        _ => Unavailable::Setup(error),
    }
}

/// Does what the driver does, in small: poll, send, receive, and a receive of nothing, which must not wait.
fn try_out(mut ring: Ring) -> Result<Ready, Unavailable> {
    if !ring.has_features() {
        return Err(Unavailable::Missing("completions that are never dropped, or waits with a time limit"));
    }
    let missing = ring.missing(&OPERATIONS).map_err(|error| Unavailable::Failed("IORING_REGISTER_PROBE", error))?;
    if let Some(name) = missing {
        return Err(Unavailable::Missing(name));
    }
    let failed = |what| move |error| Unavailable::Failed(what, error);
    let (near, far) = UnixStream::pair().map_err(failed("a socket to try"))?;
    let tag = Tag::new(Kind::Poll, 0);
    ring.poll_input(far.as_fd(), tag);
    ring.enter(0, None).map_err(failed("POLL_ADD"))?;
    ring.send([(near.as_fd(), &b"tide"[..])].into_iter());
    match ring.result(0).map_err(failed("SEND"))? {
        4 => {}
        _ => return Err(Unavailable::Failed("SEND", io::ErrorKind::WriteZero.into())),
    }
    // Most often it came back with the send.
    if !ring.has_news() {
        ring.enter(1, Some(PATIENCE)).map_err(failed("POLL_ADD"))?;
    }
    match ring.next_news() {
        Some(news) if news.tag == tag && news.result & i32::from(libc::POLLIN) != 0 && !news.last => {}
        Some(news) if news.result < 0 => {
            return Err(Unavailable::Failed("POLL_ADD", io::Error::from_raw_os_error(-news.result)));
        }
        _ => return Err(Unavailable::Failed("POLL_ADD", io::ErrorKind::TimedOut.into())),
    }
    let mut buffers = Buffers::new(64);
    ring.receive([far.as_fd(), far.as_fd()].into_iter(), &mut buffers);
    let received = ring.result(0).map_err(failed("RECV"))?;
    if buffers.at(0)[..received] != *b"tide" {
        return Err(Unavailable::Failed("RECV", io::ErrorKind::InvalidData.into()));
    }
    if ring.result(1).map_err(|error| error.kind()) != Err(io::ErrorKind::WouldBlock) {
        return Err(Unavailable::Failed("RECV of nothing", io::ErrorKind::InvalidData.into()));
    }
    take_off(&mut ring, far, tag)?;
    Ok(Ready { ring })
}

/// Closes the tried socket, which also takes the poll off.
fn take_off(ring: &mut Ring, socket: UnixStream, tag: Tag) -> Result<(), Unavailable> {
    ring.cancel_and_close(socket.into(), &[tag], 0);
    let (mut closed, mut polls) = (false, true);
    while !closed || polls {
        ring.enter(1, Some(PATIENCE)).map_err(|error| Unavailable::Failed("CLOSE", error))?;
        if !ring.has_news() {
            return Err(Unavailable::Failed("CLOSE", io::ErrorKind::TimedOut.into()));
        }
        while let Some(news) = ring.next_news() {
            closed |= news.tag.kind() == Some(Kind::Close) && news.result == 0;
            polls &= !(news.tag.kind() == Some(Kind::Poll) && news.last);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, too_old) in [
            ("5.15.0-91-generic", true),
            ("6.0.19", true),
            ("6.1.0-13-amd64", false),
            ("6.18.44", false),
            ("10.0", false),
        ] {
            assert_eq!(is_too_old(release), too_old, "{release}");
        }
        assert!(!is_too_old("") && !is_too_old("linux"), "then the trial tells");
    }

    #[test]
    fn each_refusal_is_told_in_words() {
        for (errno, disabled, expected) in [
            (libc::EPERM, 2, "io_uring_disabled is 2"),
            (libc::EPERM, 0, "seccomp"),
            (libc::EACCES, 0, "security module"),
            (libc::ENOSYS, 0, "ENOSYS"),
            (libc::ENOMEM, 0, "RLIMIT_MEMLOCK"),
            (libc::EMFILE, 0, "Too many open files"),
        ] {
            let text = refused(io::Error::from_raw_os_error(errno), disabled).to_string();
            assert!(text.contains(expected), "{errno}: {text}");
        }
    }

    #[test]
    fn an_unknown_operation_is_named() {
        let ring = Ring::open().unwrap();
        assert_eq!(ring.missing(&OPERATIONS).unwrap(), None);
        assert_eq!(ring.missing(&[OPERATIONS[0], (254, "TIDE")]).unwrap(), Some("TIDE"));
    }
}
