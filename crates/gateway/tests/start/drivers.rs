//! `auto` is io_uring where it works and epoll where not, with the reason in the start message and the metrics.

use crate::process::{PORTS, Running, command, get, start_as};
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

fn tidegate(driver: &str) -> Command {
    command(&[&["--dev", "--workers", "2", "--io", driver], &PORTS[..]].concat())
}

/// What the banner and the metrics say of the driver.
fn told(gateway: &mut Running) -> (String, String) {
    let line = gateway.read_until("driver ");
    let metrics = get(&gateway.api, "/metrics");
    let metric = metrics.lines().find(|line| line.starts_with("tidegate_driver_info{")).expect("the metric");
    (line, metric.to_owned())
}

/// Starts the binary under what `restrict` leaves of the machine: with `auto` it runs on epoll and says why, with
/// `uring` it does not start, and says the same.
fn falls_back(reason: &str, restrict: fn() -> io::Result<()>) {
    let mut command = tidegate("auto");
    // SAFETY: `restrict` only makes system calls on memory of its own.
    let mut gateway = start_as(unsafe { restricted(&mut command, restrict) });
    let (banner, metric) = told(&mut gateway);
    assert!(banner.starts_with("driver epoll (io_uring cannot be used: ") && banner.contains(reason), "{banner}");
    assert!(metric.contains("driver=\"epoll\"") && metric.contains(reason), "{metric}");
    assert!(get(&gateway.public, "/readyz").contains("200 OK"), "it serves");

    let mut command = tidegate("uring");
    // SAFETY: as above.
    let ended = unsafe { restricted(&mut command, restrict) }.output().expect("it runs");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{err}");
    assert!(err.contains("workers.io = \"uring\"") && err.contains(reason), "{err}");
}

/// # Safety
/// `restrict` runs between fork and exec: it must not allocate nor take locks.
unsafe fn restricted(command: &mut Command, restrict: fn() -> io::Result<()>) -> Command {
    // SAFETY: by this function's contract.
    unsafe { command.pre_exec(restrict) };
    std::mem::replace(command, Command::new("false"))
}

/// io_uring_setup(2) fails with this from here on.
fn forbid_io_uring(errno: i32) -> io::Result<()> {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the system call's number
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the first takes no pointer; the second's program lives across the call, and the kernel copies it.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn auto_is_io_uring_where_it_works() {
    let mut gateway = start_as(tidegate("auto"));
    let (banner, metric) = told(&mut gateway);
    assert_eq!(banner.trim_end(), "driver uring (io_uring was tried and works)");
    assert!(metric.contains("driver=\"uring\""), "{metric}");
}

#[test]
fn a_seccomp_profile_that_refuses_io_uring_is_named() {
    falls_back("not permitted (EPERM): by a seccomp profile", || forbid_io_uring(libc::EPERM));
}

#[test]
fn a_seccomp_profile_that_hides_io_uring_is_named() {
    falls_back("does not exist (ENOSYS)", || forbid_io_uring(libc::ENOSYS));
}

#[test]
fn a_kernel_that_lends_no_memory_for_the_ring_is_told_with_the_limits_to_look_at() {
    falls_back("RLIMIT_MEMLOCK", || forbid_io_uring(libc::ENOMEM));
}

/// The personality UNAME26 makes every kernel call itself 2.6.
#[test]
fn a_kernel_that_is_too_old_is_told_by_its_number() {
    falls_back("is older than 6.1", || {
        // SAFETY: takes no pointers.
        let result = unsafe { libc::personality(0x002_0000) };
        if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
}

/// The sysctl itself belongs to the whole machine; in a mount namespace of its own the process reads another file in its
/// place, and the refusal that goes with it comes from a filter.
#[test]
fn a_sysctl_that_disables_io_uring_is_named_with_its_value() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "2\n").expect("writable");
    let fake = CString::new(file.path().to_str().expect("UTF-8")).expect("no zero in it");
    let mut command = tidegate("auto");
    // SAFETY: the closure only makes system calls, on strings that it owns.
    unsafe {
        command.pre_exec(move || {
            let sysctl = c"/proc/sys/kernel/io_uring_disabled".as_ptr();
            let null = std::ptr::null();
            let namespaces =
                if libc::geteuid() == 0 { libc::CLONE_NEWNS } else { libc::CLONE_NEWNS | libc::CLONE_NEWUSER };
            if libc::unshare(namespaces) != 0
                || libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()) != 0
                || libc::mount(fake.as_ptr(), sysctl, null, libc::MS_BIND, null.cast()) != 0
            {
                return Err(io::Error::last_os_error());
            }
            forbid_io_uring(libc::EPERM)
        });
    }
    let mut gateway = start_as(command);
    let (banner, metric) = told(&mut gateway);
    let reason = "the sysctl kernel.io_uring_disabled is 2";
    assert!(banner.contains(reason) && metric.contains(reason), "{banner}{metric}");
}
