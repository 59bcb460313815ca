//! Listening sockets: addresses, the in-use probe, SO_REUSEPORT.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

/// How many connections the kernel queues before they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The mode of a Unix socket's file: its owner and group may connect. It is the owner of the process; a proxy that runs
/// as another user has to share the group.
pub const UNIX_SOCKET_MODE: u32 = 0o660;

/// The longest path of a Unix socket, in bytes (`sun_path` less its final zero).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where to listen. As text: `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/tidegate.sock`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// IPv4, or IPv6 alone: `[::]:8000` does not take IPv4 connections, so that both can be listed.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A text that is not an [`Address`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// Neither `unix:` nor an IP address with a port.
    NotAnAddress(String),
    /// `unix:` without a path.
    EmptyPath,
    /// A path that does not fit into a socket's address; holds its length.
    PathTooLong(usize),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::NotAnAddress(text) => {
                write!(f, "`{text}` is not an address: write 127.0.0.1:8000, [::1]:8000 or unix:/path")
            }
            AddressError::EmptyPath => f.write_str("`unix:` needs a path behind it"),
            AddressError::PathTooLong(length) => {
                write!(f, "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, this one has {length}")
            }
        }
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(AddressError::EmptyPath),
            Some(path) if path.len() > UNIX_PATH_BYTES_MAX => Err(AddressError::PathTooLong(path.len())),
            Some(path) if path.contains('\0') => Err(AddressError::NotAnAddress(text.escape_debug().to_string())),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Ip).map_err(|_| AddressError::NotAnAddress(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Reachable from this machine only.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Address::Ip(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

/// A socket that listens, not yet given to a driver.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: ListenerSocket,
    local: Address,
    pub(crate) file: Option<Arc<SocketFile>>,
}

#[derive(Debug)]
pub(crate) enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Where it really listens: with the port that the kernel chose, if 0 was asked for.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.local
    }

    /// Its descriptor's number, for [`take_private_table`](crate::descriptors::take_private_table).
    #[must_use]
    pub fn fd(&self) -> RawFd {
        match &self.socket {
            ListenerSocket::Tcp(socket) => socket.as_raw_fd(),
            ListenerSocket::Unix(socket) => socket.as_raw_fd(),
        }
    }

    /// A second handle to the same socket: how several workers listen on one Unix socket, where SO_REUSEPORT does not
    /// exist. Its file goes with the last handle.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Listener> {
        let socket = match &self.socket {
            ListenerSocket::Tcp(socket) => ListenerSocket::Tcp(socket.try_clone()?),
            ListenerSocket::Unix(socket) => ListenerSocket::Unix(socket.try_clone()?),
        };
        Ok(Listener { socket, local: self.local.clone(), file: self.file.clone() })
    }

    /// The bare descriptor, for another event loop. The file of a Unix socket stays behind when that is closed.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        if let Some(file) = self.file {
            file.keep();
        }
        match self.socket {
            ListenerSocket::Tcp(socket) => socket.into(),
            ListenerSocket::Unix(socket) => socket.into(),
        }
    }
}

/// The file of a Unix socket, removed with its last listener.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: if somebody else put another socket there, it is not ours to remove.
    identity: (u64, u64),
    kept: std::sync::atomic::AtomicBool,
}

impl SocketFile {
    fn keep(&self) {
        self.kept.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.kept.load(std::sync::atomic::Ordering::Relaxed) && identity(&self.path).ok() == Some(self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether the address is free. Listeners with SO_REUSEPORT would silently share it with another process of the same
/// user, so ask this before the first of them.
///
/// # Errors
/// `AddrInUse` when something listens there; `PermissionDenied`, `AddrNotAvailable` and the like when we cannot.
pub fn probe(address: &Address) -> io::Result<()> {
    match address {
        Address::Ip(ip) => tcp_socket(*ip, false).map(drop),
        Address::Unix(path) => match unix_state(path)? {
            UnixState::Absent | UnixState::Stale => Ok(()),
            UnixState::Alive => Err(io::ErrorKind::AddrInUse.into()),
        },
    }
}

/// Listens on the address. `reuse_port`: share it with other listeners made so, among which the kernel spreads the
/// connections; ignored for Unix sockets, see [`Listener::try_clone`].
///
/// A Unix socket's file left by a dead process is replaced; anything else at its path is an error.
///
/// # Errors
/// As [`probe`].
pub fn bind(address: &Address, reuse_port: bool) -> io::Result<Listener> {
    match address {
        Address::Ip(ip) => {
            let socket = tcp_socket(*ip, reuse_port)?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from(socket);
            let local = Address::Ip(socket.local_addr()?);
            Ok(Listener { socket: ListenerSocket::Tcp(socket), local, file: None })
        }
        Address::Unix(path) => bind_unix(path),
    }
}

/// `count` listeners on one address, one per worker, after a [`probe`].
///
/// # Errors
/// As [`probe`].
pub fn bind_all(address: &Address, count: usize) -> io::Result<Vec<Listener>> {
    probe(address)?;
    let mut listeners = vec![bind(address, true)?];
    while listeners.len() < count {
        let next = match &listeners[0].local {
            Address::Unix(_) => listeners[0].try_clone()?,
            // Not `address`: with port 0 each would get a port of its own.
            local => bind(local, true)?,
        };
        listeners.push(next);
    }
    listeners.truncate(count);
    Ok(listeners)
}

/// A bound, not yet listening socket. With SO_REUSEADDR, since otherwise connections in TIME_WAIT would keep us from
/// restarting; on Linux it does not let two listeners share a port.
fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

enum UnixState {
    Absent,
    /// A socket that nobody listens on.
    Stale,
    Alive,
}

fn unix_state(path: &Path) -> io::Result<UnixState> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A socket needs its folder; say so here and not at the bind.
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(fs::metadata).transpose()?;
            return Ok(UnixState::Absent);
        }
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(UnixState::Stale),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Taken, or its queue is full; both mean that somebody is there.
        _ => Ok(UnixState::Alive),
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    match unix_state(path)? {
        UnixState::Absent => {}
        UnixState::Stale => fs::remove_file(path)?,
        UnixState::Alive => return Err(io::ErrorKind::AddrInUse.into()),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)?, kept: false.into() };
    // Before `listen`: until then nobody can connect, so there is no moment with a wider mode.
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    let socket = ListenerSocket::Unix(UnixListener::from(OwnedFd::from(socket)));
    Ok(Listener { socket, local: Address::Unix(path.to_owned()), file: Some(Arc::new(file)) })
}
