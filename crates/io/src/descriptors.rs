//! A table of file descriptors per worker.
//!
//! The limit on open files (RLIMIT_NOFILE) counts per table, and all threads that share a table share the lock that
//! every accept and close takes. A worker that takes a table of its own has the whole limit to itself and shares no lock.
//! The price: a descriptor is a number that means something in one table only. What a thread with its own table may
//! touch is what it kept, what it made itself, and 0 to 2.
//!
//! The order at a start, therefore: the main thread makes what workers share (the eventfds of all [`Wake`]s, the
//! listeners), each worker thread first of all calls [`take_private_table`], and when all have, the main thread lets go
//! of the listeners with [`close_copies`], since a socket listens until its last descriptor is closed.
//!
//! [`Wake`]: crate::Wake
#![allow(unsafe_code)]

use crate::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// The descriptors of a thread besides 0 to 2 and what it keeps: none yet.
const FIRST_FREE: RawFd = 3;

/// Gives the calling thread a table of descriptors of its own, with 0 to 2 and `keep` in it and nothing else.
///
/// To be called first thing on a new thread: of what it was given, objects that own a descriptor not in `keep` would
/// name nothing, or later something else. Numbers in `keep` that are not open do no harm. Source: close_range(2).
///
/// # Errors
/// `PermissionDenied` or `Unsupported` where a seccomp profile or the kernel (before 5.9) does not allow it; nothing has
/// changed then.
pub fn take_private_table(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= FIRST_FREE).collect();
    keep.sort_unstable();
    keep.dedup();
    let above = keep.last().map_or(FIRST_FREE, |last| last + 1);
    // This call copies the table below `above` and leaves the rest behind; nothing is closed for other threads.
    close_range(above, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    let mut from = FIRST_FREE;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0)?;
        }
        from = fd + 1;
    }
    Ok(())
}

/// Whether [`take_private_table`] works here, found out on a thread of its own.
///
/// # Errors
/// Why not.
pub fn try_private_table() -> io::Result<()> {
    let trial = std::thread::Builder::new().name("fd-table-trial".into()).spawn(|| take_private_table(&[]))?;
    trial.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}

/// Closes, in the calling thread's table, the copies of descriptors whose owners now live in threads with tables of their
/// own. Nothing in this table owns them any more. Numbers that are not open are passed over.
pub fn close_copies(fds: &[RawFd]) {
    for &fd in fds {
        // Cannot fail but for a number that is not open, which then is as wanted.
        let _ = close_range(fd, fd, 0);
    }
}

/// Makes the calling thread's table large enough for `files` descriptors at once.
///
/// A table that is full is doubled, and where threads share it the kernel first waits until every core has passed through it
/// (`synchronize_rcu` in `expand_fdtable`, fs/file.c): 8 to 24 ms were measured inside one accept. A table never shrinks.
///
/// # Errors
/// When `files` is above RLIMIT_NOFILE, or memory is short; the table is as it was.
pub fn make_room(files: usize) -> io::Result<()> {
    let any = EventFd::new()?;
    let last = RawFd::try_from(files.saturating_sub(1)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes no pointers, and what is copied is open.
    let copy = unsafe { libc::fcntl(any.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number was made just now and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

/// How many files the table of the calling thread has open.
///
/// # Errors
/// When /proc is not there.
pub fn open_files() -> io::Result<usize> {
    // The folder that is being read is open meanwhile.
    std::fs::read_dir("/proc/thread-self/fd").map(|entries| entries.count().saturating_sub(1))
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes no pointers. Which numbers may be closed is the caller's contract: all of them are either in a table
    // that no other thread has, or owned by nothing in this one.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last as libc::c_uint, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn is_open(fd: RawFd) -> bool {
        std::fs::read_link(format!("/proc/thread-self/fd/{fd}")).is_ok()
    }

    #[test]
    fn a_private_table_has_the_standard_streams_and_what_is_kept() {
        let files: Vec<File> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let (kept, left) = ([numbers[1], numbers[3], numbers[3]], [numbers[0], numbers[2], numbers[4]]);
        let (open, kept_open, left_open) = std::thread::spawn(move || {
            take_private_table(&kept).unwrap();
            (open_files().unwrap(), kept.map(is_open), left.map(is_open))
        })
        .join()
        .unwrap();
        assert_eq!((kept_open, left_open), ([true; 3], [false; 3]));
        assert!(open <= 5, "0 to 2 and two more: {open}");
        assert!(numbers.iter().all(|&fd| is_open(fd)), "nothing is closed for the other threads");
    }

    #[test]
    fn a_number_means_different_files_in_different_tables() {
        let path = std::thread::spawn(|| {
            take_private_table(&[]).unwrap();
            let file = File::open("/dev/zero").unwrap();
            let number = file.as_raw_fd();
            // Whatever the others have under this number, and many have something, is not this.
            (number, std::fs::read_link(format!("/proc/thread-self/fd/{number}")).unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(path.1.to_str(), Some("/dev/zero"));
        let here = std::fs::read_link(format!("/proc/thread-self/fd/{}", path.0));
        assert_ne!(here.ok().as_deref(), Some(std::path::Path::new("/dev/zero")));
    }

    #[test]
    fn a_listener_stops_listening_only_when_the_copy_is_closed_too() {
        use crate::listener;
        let listener = listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
        let crate::Address::Ip(address) = *listener.local_address() else { unreachable!() };
        let fd = listener.fd();
        let (moved, wait) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            take_private_table(&[fd]).unwrap();
            moved.send(()).unwrap();
            gone.recv().unwrap();
            drop(listener);
        });
        wait.recv().unwrap();
        close_copies(&[fd]);
        std::net::TcpStream::connect(address).expect("the worker's own still listens");
        go.send(()).unwrap();
        worker.join().unwrap();
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "and that was the last");
    }

    /// How many descriptors the table of the calling thread has room for: `FDSize` in proc_pid_status(5).
    fn room() -> usize {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("the kernel tells");
        line.trim().parse().unwrap()
    }

    #[test]
    fn room_is_made_once_and_for_good() {
        std::thread::spawn(|| {
            take_private_table(&[]).unwrap();
            let (before, open) = (room(), open_files().unwrap());
            make_room(900).unwrap();
            let after = room();
            assert!(before < 900 && after >= 900, "{before} {after}");
            assert_eq!(open_files().unwrap(), open, "nothing stays open");
            make_room(3).unwrap();
            assert_eq!(room(), after);
            let more_than_allowed = make_room(RawFd::MAX as usize).unwrap_err();
            assert_eq!(more_than_allowed.raw_os_error(), Some(libc::EINVAL));
            assert_eq!(room(), after);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_trial_leaves_this_table_alone() {
        let file = File::open("/dev/null").unwrap();
        try_private_table().expect("this kernel has close_range");
        assert!(is_open(file.as_raw_fd()));
    }
}
