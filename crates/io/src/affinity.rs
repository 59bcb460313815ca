//! What this process may use of the machine: cores, CPU quota, file descriptors.
#![allow(unsafe_code)]

use std::io;
use std::path::Path;

/// The cores that this thread may run on, ascending.
///
/// # Errors
/// When the kernel has more cores than its own interface can name.
pub fn cores() -> io::Result<Vec<usize>> {
    let mut set = empty_set();
    // SAFETY: `set` is a valid cpu_set_t of the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CPU_ISSET reads within the set for every number below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Pins the calling thread to one core.
///
/// # Errors
/// `InvalidInput` when there is no such core, or this process may not use it.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = empty_set();
    // SAFETY: `core` was checked to lie within the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid cpu_set_t of the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is an array of integers, for which all zeroes is a value: the empty set.
    unsafe { std::mem::zeroed() }
}

/// How many cores' worth of time the cgroup (version 2) of this process may use, the tightest of it and its ancestors;
/// `None` without a quota.
#[must_use]
pub fn cpu_quota() -> Option<f64> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    cpu_quota_below(Path::new("/sys/fs/cgroup"), &memberships)
}

fn cpu_quota_below(root: &Path, memberships: &str) -> Option<f64> {
    // Version 2 has one hierarchy, numbered 0.
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = root.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| parse_cpu_max(&std::fs::read_to_string(group.join("cpu.max")).ok()?)).reduce(f64::min)
}

/// `cpu.max` is "<quota> <period>" in microseconds, or "max <period>".
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace();
    let quota: f64 = words.next()?.parse::<u64>().ok()? as f64;
    let period: f64 = words.next()?.parse::<u64>().ok()? as f64;
    (period > 0.0).then(|| quota / period)
}

/// Has the kernel give this process small pages only, from now on. Tables that are reserved for the most connections there
/// may be cost nothing until used; with huge pages each first touch makes 2 MiB resident. Source: PR_SET_THP_DISABLE(2const).
///
/// # Errors
/// Where a seccomp profile refuses it; then memory is only larger.
pub fn use_small_pages() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The limits on open file descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdLimit {
    /// What holds now.
    pub soft: u64,
    /// As far as this process may raise it.
    pub hard: u64,
}

/// Raises the limit on open files as far as allowed and says what holds now.
///
/// # Errors
/// When the kernel refuses to tell the limit. If it refuses to raise it, the old one is returned.
pub fn raise_fd_limit() -> io::Result<FdLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: `raised` is a valid rlimit to read from.
    if limit.rlim_cur < limit.rlim_max && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(FdLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_pinned_to_a_core_has_only_that_core() {
        std::thread::spawn(|| {
            let core = *cores().unwrap().last().unwrap();
            pin(core).unwrap();
            assert_eq!(cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn after_asking_for_small_pages_the_kernel_gives_no_huge_ones() {
        let is_off = || std::fs::read_to_string("/proc/self/status").unwrap().contains("THP_enabled:\t0");
        assert!(!is_off(), "or this test shows nothing");
        use_small_pages().unwrap();
        assert!(is_off());
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert_eq!(pin(libc::CPU_SETSIZE as usize).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(pin(libc::CPU_SETSIZE as usize - 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn cpu_max_is_a_fraction_of_its_period() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        for bad in ["", "150000", "150000 0", "-1 100000"] {
            assert_eq!(parse_cpu_max(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_tightest_quota_of_a_group_and_its_ancestors_counts() {
        let root = std::env::temp_dir().join(format!("tidegate-cgroup-{}", std::process::id()));
        let leaf = root.join("slice/leaf");
        std::fs::create_dir_all(&leaf).unwrap();
        std::fs::write(root.join("slice/cpu.max"), "200000 100000").unwrap();
        std::fs::write(leaf.join("cpu.max"), "max 100000").unwrap();
        assert_eq!(cpu_quota_below(&root, "1:cpu:/other\n0::/slice/leaf\n"), Some(2.0));
        std::fs::write(leaf.join("cpu.max"), "50000 100000").unwrap();
        assert_eq!(cpu_quota_below(&root, "0::/slice/leaf\n"), Some(0.5));
        assert_eq!(cpu_quota_below(&root, "1:cpu:/slice/leaf\n"), None, "no version 2 hierarchy");
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_raised_fd_limit_is_the_hard_one() {
        let limit = raise_fd_limit().unwrap();
        assert_eq!(limit.soft, limit.hard);
        assert_eq!(raise_fd_limit().unwrap(), limit, "raising it again changes nothing");
    }
}
