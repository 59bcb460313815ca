//! A profile as container runtimes read it (OCI runtime specification, `linux.seccomp`), made into a filter.

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use serde::Deserialize;
use std::io;

const ARCHITECTURE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64

/// What `deploy/seccomp.json` has, and nothing that this could misread.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    default_action: String,
    #[serde(rename = "defaultErrnoRet")]
    pub(super) errno: u32,
    architectures: Vec<String>,
    syscalls: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

/// Of argument `index`, the bits of `value` have to be `value_two`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u32,
    value_two: u32,
    op: String,
}

impl Profile {
    pub(super) fn shipped() -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/seccomp.json");
        let profile: Self = serde_json::from_str(&std::fs::read_to_string(file).expect("readable")).expect("a profile");
        assert_eq!((&*profile.default_action, profile.errno), ("SCMP_ACT_ERRNO", libc::EPERM as u32));
        assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64"]);
        profile
    }

    pub(super) fn without(&self, names: &[&str]) -> Self {
        let mut profile = self.clone();
        for rule in &mut profile.syscalls {
            rule.names.retain(|name| !names.contains(&&**name));
        }
        let count = |profile: &Self| profile.syscalls.iter().map(|rule| rule.names.len()).sum::<usize>();
        assert_eq!(count(&profile) + names.len(), count(self), "each of {names:?} is there once");
        profile
    }

    pub(super) fn beginning_with(&self, prefix: &str) -> Vec<String> {
        let all = self.syscalls.iter().flat_map(|rule| &rule.names);
        all.filter(|name| name.starts_with(prefix)).cloned().collect()
    }
}

/// A program for the kernel.
pub(super) struct Filter(Vec<libc::sock_filter>);

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Loads a field of `seccomp_data`.
fn load(offset: u32) -> libc::sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn give(action: u32) -> libc::sock_filter {
    statement(BPF_RET | BPF_K, 0, 0, action)
}

impl Filter {
    /// `otherwise` is what becomes of calls that are not in the profile.
    pub(super) fn new(profile: &Profile, otherwise: u32) -> Self {
        let equal = |value, then, else_| statement(BPF_JMP | BPF_JEQ | BPF_K, then, else_, value);
        // The machine, then the call's number.
        let mut program = vec![load(4), equal(ARCHITECTURE, 1, 0), give(libc::SECCOMP_RET_KILL_PROCESS), load(0)];
        for rule in &profile.syscalls {
            let action = match (&*rule.action, rule.errno_ret) {
                ("SCMP_ACT_ALLOW", None) => libc::SECCOMP_RET_ALLOW,
                ("SCMP_ACT_ERRNO", Some(errno)) => libc::SECCOMP_RET_ERRNO | errno,
                other => panic!("an action that is not understood: {other:?}"),
            };
            for name in &rule.names {
                match &rule.args[..] {
                    [] => program.extend([equal(number(name), 0, 1), give(action)]),
                    // The lower half of the argument; the other one is not looked at, nor are there flags in it.
                    [Argument { index, value, value_two, op }] if op == "SCMP_CMP_MASKED_EQ" => program.extend([
                        equal(number(name), 0, 5),
                        load(16 + 8 * index),
                        statement(BPF_ALU | BPF_AND | BPF_K, 0, 0, *value),
                        equal(*value_two, 0, 1),
                        give(action),
                        give(otherwise),
                    ]),
                    _ => panic!("arguments of {name} that are not understood"),
                }
            }
        }
        program.push(give(otherwise));
        Self(program)
    }

    /// From here on this thread, and what it becomes, is under the filter.
    pub(super) fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the first takes no pointer; the second's program lives across the call, and the kernel copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn number(name: &str) -> u32 {
    let known = NUMBERS.iter().find(|(known, _)| known.strip_prefix("SYS_") == Some(name));
    known.unwrap_or_else(|| panic!("no system call {name}")).1 as u32
}

macro_rules! numbers {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Those that the profile names.
const NUMBERS: &[(&str, libc::c_long)] = numbers! {
    SYS_accept4 SYS_access SYS_arch_prctl SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chmod SYS_clock_getres
    SYS_clock_gettime SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close SYS_close_range SYS_connect SYS_dup
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_epoll_wait SYS_eventfd2 SYS_execve SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fchdir SYS_fchmodat SYS_fchown SYS_fcntl SYS_fstat SYS_fstatfs SYS_futex
    SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getpeername SYS_getpid SYS_getppid
    SYS_getrandom SYS_getrusage SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid
    SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_ioctl SYS_kill SYS_listen SYS_lseek SYS_lstat
    SYS_madvise SYS_membarrier SYS_mmap SYS_mprotect SYS_mremap SYS_munmap SYS_nanosleep SYS_newfstatat SYS_open
    SYS_openat SYS_pause SYS_pipe2 SYS_poll SYS_ppoll SYS_prctl SYS_pread64 SYS_prlimit64 SYS_read SYS_readlink
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_yield SYS_sendmmsg
    SYS_sendmsg SYS_sendto SYS_set_robust_list SYS_set_tid_address SYS_setgid SYS_setgroups SYS_setresgid
    SYS_setresuid SYS_setsockopt SYS_setuid SYS_shutdown SYS_sigaltstack SYS_socket SYS_socketpair SYS_stat
    SYS_statfs SYS_statx SYS_sysinfo SYS_tgkill SYS_time SYS_umask SYS_uname SYS_unlink SYS_unlinkat SYS_write
    SYS_writev
};
