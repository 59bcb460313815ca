//! Addresses, the in-use probe, and the files of Unix sockets.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use io::listener::{AddressError, UNIX_PATH_BYTES_MAX, UNIX_SOCKET_MODE, bind, bind_all, probe};
use io::{Address, Listener};

fn loopback() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

fn ip(listener: &Listener) -> std::net::SocketAddr {
    match listener.local_address() {
        Address::Ip(ip) => *ip,
        Address::Unix(path) => panic!("{path:?}"),
    }
}

/// A path of its own for each test, with nothing there.
fn path(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidegate-{test}-{}.sock", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

#[test]
fn an_address_is_an_ip_with_port_or_a_unix_path() {
    for text in ["127.0.0.1:8000", "[::1]:8000", "0.0.0.0:0", "unix:/run/tidegate.sock", "unix:relative"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in ["", "8000", ":8000", "127.0.0.1", "127.0.0.1:80000", "::1:8000", "localhost:8000", "/run/x.sock"] {
        assert_eq!(text.parse::<Address>(), Err(AddressError::NotAnAddress(text.to_owned())));
    }
    assert_eq!("unix:".parse::<Address>(), Err(AddressError::EmptyPath));
    let fits = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1));
    assert!(fits.parse::<Address>().is_ok());
    assert_eq!(format!("{fits}x").parse::<Address>(), Err(AddressError::PathTooLong(UNIX_PATH_BYTES_MAX + 1)));
}

#[test]
fn loopback_is_recognised() {
    for (text, loopback) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("unix:/x", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().is_loopback(), loopback, "{text}");
    }
}

#[test]
fn the_probe_sees_a_listener_that_would_share_its_port() {
    let listener = bind(&loopback(), true).unwrap();
    let address = listener.local_address().clone();
    assert_eq!(probe(&address).unwrap_err().kind(), ErrorKind::AddrInUse);
    bind(&address, true).expect("SO_REUSEPORT alone shares silently, which is why there is a probe");
    drop(listener);
    probe(&address).expect("free again");
}

#[test]
fn connections_in_time_wait_do_not_keep_the_port() {
    let listener = bind(&loopback(), false).unwrap();
    let address = listener.local_address().clone();
    let client = TcpStream::connect(ip(&listener)).unwrap();
    let accepted = std::net::TcpListener::from(listener.into_fd());
    accepted.set_nonblocking(false).unwrap();
    drop(accepted.accept().unwrap()); // our side closes first, so TIME_WAIT is ours
    drop((client, accepted));
    probe(&address).unwrap();
    bind(&address, false).unwrap();
}

#[test]
fn all_listeners_of_one_address_share_the_port_that_the_kernel_chose() {
    let listeners = bind_all(&loopback(), 4).unwrap();
    assert_eq!(listeners.len(), 4);
    assert!(listeners.iter().all(|listener| listener.local_address() == listeners[0].local_address()));
    assert_ne!(ip(&listeners[0]).port(), 0);
    let again = bind_all(listeners[0].local_address(), 4);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn both_loopback_addresses_can_have_the_same_port() {
    let four = bind(&"0.0.0.0:0".parse().unwrap(), false).unwrap();
    let six: Address = format!("[::]:{}", ip(&four).port()).parse().unwrap();
    match bind(&six, false) {
        Ok(six) => {
            TcpStream::connect(("127.0.0.1", ip(&four).port())).unwrap();
            TcpStream::connect(("::1", ip(&six).port())).unwrap();
        }
        // A machine without IPv6 says this, and never "in use".
        Err(error) => assert!(
            matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)),
            "an IPv6 listener must not claim the IPv4 port: {error}"
        ),
    }
}

#[test]
fn the_file_of_a_dead_process_is_replaced_and_a_living_one_is_not() {
    let path = path("stale");
    let address = Address::Unix(path.clone());
    drop(UnixListener::bind(&path).unwrap()); // leaves its file behind
    probe(&address).expect("nobody listens");
    let listener = bind(&address, false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, UNIX_SOCKET_MODE);
    assert_eq!(probe(&address).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(bind(&address, false).unwrap_err().kind(), ErrorKind::AddrInUse);
    UnixStream::connect(&path).expect("the refused bind did no harm");
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let path = path("file");
    fs::write(&path, "precious").unwrap();
    let address = Address::Unix(path.clone());
    assert_eq!(probe(&address).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(bind(&address, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
}

#[test]
fn the_file_goes_with_the_last_handle_unless_it_is_another_ones_by_then() {
    let path = path("last");
    let address = Address::Unix(path.clone());
    let mut listeners = bind_all(&address, 3).unwrap();
    listeners.truncate(1);
    UnixStream::connect(&path).expect("one handle is left");
    fs::remove_file(&path).unwrap();
    let successor = UnixListener::bind(&path).unwrap();
    drop(listeners);
    UnixStream::connect(&path).expect("the successor's file was not removed");
    drop(successor);
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_missing_folder_is_told_by_the_probe() {
    let address = Address::Unix("/nonexistent/folder/x.sock".into());
    assert_eq!(probe(&address).unwrap_err().kind(), ErrorKind::NotFound);
}
