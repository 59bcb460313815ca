//! What a connection is told that gets no place here.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;

use socket2::SockRef;

/// Sends `answer` as far as that goes with one send, then FIN.
pub(crate) fn answer(socket: &SockRef<'_>, answer: &[u8]) {
    // Best effort: nothing can be done for a peer that does not even take this.
    let _ = socket.send_with_flags(answer, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    let _ = socket.shutdown(Shutdown::Write);
}

/// The same for a socket that is closed then.
pub(crate) fn refuse(socket: &SockRef<'_>, text: &[u8]) {
    answer(socket, text);
    // Take the request out of the way if it is here already: closing over it would send RST.
    let _ = socket.recv_with_flags(&mut [MaybeUninit::uninit(); 4096], libc::MSG_DONTWAIT);
}

/// A descriptor to give up when there is none left, so that a waiting connection can be told so.
pub(crate) fn spare() -> io::Result<File> {
    File::open("/dev/null")
}
