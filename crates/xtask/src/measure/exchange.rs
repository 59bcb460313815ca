//! One HTTP request over a plain socket, answered in time or not at all.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// For an answer, and for what is written to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket on which reads and writes give up after a while.
///
/// # Errors
/// When nobody listens there.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The answer to `request`, which asks the server to close.
///
/// # Errors
/// When there is none in time.
pub fn exchange(address: &str, request: &str) -> io::Result<String> {
    let mut socket = connect(address)?;
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
