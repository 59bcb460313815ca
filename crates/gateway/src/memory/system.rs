//! What the system says about memory: how much there is, and what this process takes of it.

use std::fs;
use std::path::{Path, PathBuf};

/// Where cgroups of version 2 are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the kernel holds for an idle TCP connection, where no cgroup tells it: its share of the 8 KiB of a loopback pair.
const KERNEL_BYTES_PER_CONNECTION: u64 = 4096;

/// Memory that this process can have: that of the machine, or the tightest limit of its cgroup (version 2) and those above it.
/// Above `memory.high` a process is made to wait, so that counts as well. `None`: the kernel does not say.
pub fn available() -> Option<u64> {
    let total = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(limit_below(Path::new(CGROUPS), &memberships).map_or(total, |limit| limit.min(total)))
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The process's group in the hierarchy of version 2, which is numbered 0.
fn group_below(root: &Path, memberships: &str) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(root.join(path.trim_start_matches('/')))
}

fn limit_below(root: &Path, memberships: &str) -> Option<u64> {
    let group = group_below(root, memberships)?;
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    let limits = groups.flat_map(|group| ["memory.max", "memory.high"].map(|file| group.join(file)));
    // "max" is no number.
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Where the readings come from.
#[derive(Debug)]
pub(super) struct System {
    /// `memory.stat` of the process's cgroup, unless that is the root, whose figures are those of the machine.
    stat: Option<PathBuf>,
    page_bytes: u64,
}

impl System {
    pub(super) fn find() -> Self {
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = group_below(Path::new(CGROUPS), &memberships);
        let stat = group.filter(|group| group.join("memory.current").exists()).map(|group| group.join("memory.stat"));
        // The only size on x86-64; elsewhere the binary would have to ask.
        Self { stat, page_bytes: 4096 }
    }

    /// Resident bytes of this process.
    pub(super) fn resident(&self) -> Option<u64> {
        resident_pages(&fs::read_to_string("/proc/self/statm").ok()?).map(|pages| pages * self.page_bytes)
    }

    /// Bytes that the kernel holds for so many connections: what its cgroup is charged for sockets and what belongs to them, or
    /// an estimate without what waits in them.
    pub(super) fn kernel(&self, connections: u64) -> u64 {
        let stat = self.stat.as_ref().and_then(|file| fs::read_to_string(file).ok());
        stat.and_then(|stat| kernel_bytes(&stat)).unwrap_or(connections * KERNEL_BYTES_PER_CONNECTION)
    }
}

/// The second field of `/proc/self/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Buffers of sockets, and slabs that cannot be reclaimed, of a `memory.stat`.
fn kernel_bytes(stat: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
    };
    Some(field("sock")? + field("slab_unreclaimable")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_of_a_group_and_those_above_it_counts() {
        let root = std::env::temp_dir().join(format!("tidegate-memory-{}", std::process::id()));
        let leaf = root.join("slice/leaf");
        fs::create_dir_all(&leaf).unwrap();
        let limit = || limit_below(&root, "1:memory:/other\n0::/slice/leaf\n");
        assert_eq!(limit(), None);
        fs::write(leaf.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        fs::write(root.join("slice/memory.max"), "2000\n").unwrap();
        assert_eq!(limit(), Some(2000));
        fs::write(leaf.join("memory.high"), "1000\n").unwrap();
        assert_eq!(limit(), Some(1000));
        assert_eq!(limit_below(&root, "1:memory:/slice/leaf\n"), None, "no version 2 hierarchy");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn files_of_the_kernel_are_read_and_others_are_not() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(total("MemTotal:       16384\n"), None);
        assert_eq!(resident_pages("900 70 30 4 0 5 0\n"), Some(70));
        assert_eq!(resident_pages("900"), None);
        let stat = "anon 9\nsock 100\nsock_other 7\nslab_reclaimable 5\nslab_unreclaimable 20\n";
        assert_eq!(kernel_bytes(stat), Some(120));
        assert_eq!(kernel_bytes("anon 9\nsock 100\n"), None);
    }

    #[test]
    fn this_machine_and_this_process_have_memory() {
        let (available, resident) = (available().unwrap(), System::find().resident().unwrap());
        assert!(resident > 1 << 20 && resident < available, "{resident} of {available}");
        let estimated = System { stat: None, page_bytes: 4096 };
        assert_eq!(estimated.kernel(10), 10 * 4096);
    }
}
