//! An eventfd: the descriptor that a sleeping loop can be woken by.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A non-blocking eventfd, closed on exec.
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, so nothing else owns it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes the descriptor readable; every write is an edge of its own, so the loop need not read.
    pub(crate) fn write(&self) {
        // Fails only with EAGAIN, when the counter is at its maximum; then the descriptor is readable anyway, but the
        // edge is missing: empty it and write again.
        if (&self.0).write(&1u64.to_ne_bytes()).is_err() {
            self.clear();
            let _ = (&self.0).write(&1u64.to_ne_bytes());
        }
    }

    /// Makes the descriptor unreadable; for those who wait by level.
    pub(crate) fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_makes_it_readable_once() {
        let event = EventFd::new().unwrap();
        let mut buffer = [0; 8];
        assert_eq!((&event.0).read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        event.write();
        event.write();
        assert_eq!((&event.0).read(&mut buffer).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(buffer), 2);
        event.write();
        event.clear();
        assert_eq!((&event.0).read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
