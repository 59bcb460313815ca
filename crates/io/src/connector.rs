//! Outbound connections: a non-blocking connect, optionally from a chosen source address.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::handler::{PeerAddress, Target};

/// What is set on every socket of a driver. Accepted sockets inherit all of it from their listener, which saves these
/// calls per connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) send_buffer_max: Option<usize>,
    pub(crate) user_timeout: Option<Duration>,
}

impl SocketOptions {
    pub(crate) fn apply(&self, socket: &Socket, tcp: bool) -> io::Result<()> {
        if let Some(bytes) = self.send_buffer_max {
            socket.set_send_buffer_size(bytes)?;
        }
        if tcp {
            socket.set_tcp_nodelay(true)?;
            if self.user_timeout.is_some() {
                socket.set_tcp_user_timeout(self.user_timeout)?;
            }
        }
        Ok(())
    }
}

/// Starts to connect. The second value is false while the handshake is under way.
pub(crate) fn start(target: &Target, options: &SocketOptions) -> io::Result<(OwnedFd, bool)> {
    let (socket, address) = match target {
        Target::Ip { to, from } => {
            let socket = Socket::new(Domain::for_address(*to), Type::STREAM.nonblocking(), None)?;
            if let Some(from) = from {
                bind_address_no_port(&socket)?;
                socket.bind(&(*from).into())?;
            }
            (socket, SockAddr::from(*to))
        }
        Target::Unix(path) => (Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?, SockAddr::unix(path)?),
    };
    options.apply(&socket, matches!(target, Target::Ip { .. }))?;
    let done = match socket.connect(&address) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        // A Unix socket whose queue is full says EAGAIN and announces nothing later: a failure.
        Err(error) => return Err(error),
    };
    Ok((socket.into(), done))
}

/// The peer of a connected socket.
pub(crate) fn peer_address(socket: &Socket) -> io::Result<PeerAddress> {
    Ok(socket.peer_addr()?.as_socket().map_or(PeerAddress::Unix, PeerAddress::Ip))
}

/// Leaves the choice of the port to `connect`, which needs it unique per destination only; `bind` would need a port
/// that is free altogether, and a source address would be used up after some 28,000 connections to all destinations.
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which lives across the call; the descriptor is open, since
    // `socket` owns it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
