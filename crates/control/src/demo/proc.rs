//! What the kernel tells about this machine: the text of `/proc/stat`, `/proc/meminfo` and `/proc/net/dev`.
//!
//! Parsing is apart from reading, so that tests run on texts of other machines. A line that is not understood is
//! passed over; a figure that is missing stays missing and is never shown as zero.

use std::fs::File;
use std::io::{self, Read as _};

use serde::Serialize;

/// The most bytes of one file that are looked at. `/proc/stat` of a machine with 512 cores is about 200 KB.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most cores that are reported.
pub(super) const CORES_MAX: usize = 512;
/// The most network interfaces that are reported; a host full of containers has one or two for each.
pub(super) const INTERFACES_MAX: usize = 64;

/// Time one core has spent since the machine started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CoreTimes {
    /// The number in `cpu7`; cores that are offline leave holes.
    pub core: u32,
    pub busy: u64,
    pub total: u64,
}

/// How the memory is used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    pub total: u64,
    /// What new programs could have without swapping.
    pub available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

/// What passed one network interface since it came up, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InterfaceBytes {
    pub name: String,
    pub received: u64,
    pub sent: u64,
}

/// Reads a file of the proc file system. Bytes that are not UTF-8 (an interface may be called anything) are replaced.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As much of a list as is reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed<T> {
    pub items: Vec<T>,
    /// How many more there are: a reader shall know that the list is not all.
    pub left_out: usize,
}

impl<T> Listed<T> {
    fn new(mut all: impl Iterator<Item = T>, max: usize) -> Self {
        let items = all.by_ref().take(max).collect();
        Listed { items, left_out: all.count() }
    }
}

/// The lines `cpu0`, `cpu1`, …; the line `cpu` is their sum and is left out.
pub(super) fn cores(stat: &str) -> Listed<CoreTimes> {
    Listed::new(stat.lines().filter_map(core_line), CORES_MAX)
}

/// `cpuN user nice system idle iowait irq softirq steal guest guest_nice`; the last two are already part of user and
/// nice, and a kernel older than 2.6.11 ends before `steal`.
fn core_line(line: &str) -> Option<CoreTimes> {
    let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
    // "cpu 1 2 3" would read as core 1: the number must follow without a space.
    if !line.as_bytes().get(3)?.is_ascii_digit() {
        return None;
    }
    let core = words.next()?.parse().ok()?;
    let mut ticks = [0_u64; 8];
    let mut read = 0;
    for (slot, word) in ticks.iter_mut().zip(words) {
        *slot = word.parse().ok()?;
        read += 1;
    }
    if read < 4 {
        return None;
    }
    let total = ticks.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    let idle = ticks[3].saturating_add(ticks[4]);
    Some(CoreTimes { core, busy: total - idle, total })
}

/// The share of time a core was busy between two readings, 0 to 1. `None` when no tick has passed.
pub(super) fn busy_share(before: &CoreTimes, now: &CoreTimes) -> Option<f64> {
    let total = now.total.checked_sub(before.total).filter(|n| *n > 0)?;
    // The kernel may take back some iowait, so "busy" can exceed the total by a tick.
    let busy = now.busy.saturating_sub(before.busy).min(total);
    Some(busy as f64 / total as f64)
}

/// `None` when the total or everything that says what is available is missing.
pub(super) fn memory(meminfo: &str) -> Option<Memory> {
    let field = |name: &str| {
        meminfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            if key != name {
                return None;
            }
            // The unit is written "kB" and means 1,024 bytes.
            let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
            kib.checked_mul(1024)
        })
    };
    let total = field("MemTotal")?;
    // Kernels before 3.14 have no MemAvailable; free and page cache come close.
    let available = field("MemAvailable").or_else(|| {
        let cached = field("Cached").unwrap_or(0);
        Some(field("MemFree")?.saturating_add(cached))
    })?;
    Some(Memory {
        total,
        available: available.min(total),
        swap_total: field("SwapTotal").unwrap_or(0),
        swap_free: field("SwapFree").unwrap_or(0),
    })
}

/// Every interface, loopback included, in the kernel's order.
pub(super) fn interfaces(net_dev: &str) -> Listed<InterfaceBytes> {
    Listed::new(net_dev.lines().filter_map(interface_line), INTERFACES_MAX)
}

/// `  eth0: bytes packets errs drop fifo frame compressed multicast bytes …`: eight columns received, eight sent.
/// The two title lines have no colon. An alias is called `eth0:1`, so the last colon is the one that ends the name.
fn interface_line(line: &str) -> Option<InterfaceBytes> {
    let (name, counts) = line.rsplit_once(':')?;
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    let mut columns = counts.split_ascii_whitespace();
    let received = columns.next()?.parse().ok()?;
    let sent = columns.nth(7)?.parse().ok()?;
    Some(InterfaceBytes { name: name.to_owned(), received, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  300 10 90 1500 60 0 20 20 50 0
cpu0 100 10 40 800 50 0 10 10 50 0
cpu3 200 0 50 700 10 0 10 10 0 0
intr 265668 0 0 1
ctxt 336146
procs_running 2
";

    const MEMINFO: &str = "\
MemTotal:       24683764 kB
MemFree:        20000000 kB
MemAvailable:   24000000 kB
Cached:           500000 kB
SwapTotal:       1000000 kB
SwapFree:         750000 kB
HugePages_Total:       0
";

    const NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3194      29    0    0    0     0       0          0
  eth0:561084748   37812    0    0    0     0          0         0  2421844   25981    0    0    0     0       0          0
eth0:1: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0
";

    #[test]
    fn cores_are_read_with_their_numbers_and_the_sum_is_left_out() {
        assert_eq!(
            cores(STAT).items,
            [CoreTimes { core: 0, busy: 170, total: 1020 }, CoreTimes { core: 3, busy: 270, total: 980 },]
        );
    }

    #[test]
    fn a_kernel_without_steal_and_guest_columns_is_understood() {
        assert_eq!(cores("cpu0 1 2 3 4\n").items, [CoreTimes { core: 0, busy: 6, total: 10 }]);
        assert_eq!(cores("cpu0 1 2 3\n").items, []);
    }

    #[test]
    fn lines_that_are_no_core_are_passed_over() {
        for line in [
            "",
            "cpu",
            "cpu0",
            "cpu 1 2 3 4",
            "cpu 1 2 3 4 5",
            "cpux 1 2 3 4",
            "cpu0 1 2 x 4",
            "cpu0 -1 2 3 4",
            "cpu99999999999 1 2 3 4",
            "intr 1 2 3 4",
        ] {
            assert_eq!(cores(line).items, [], "{line:?}");
        }
    }

    #[test]
    fn counts_that_do_not_fit_saturate_instead_of_overflowing() {
        let max = u64::MAX;
        let read = cores(&format!("cpu0 {max} {max} 0 {max} {max} 0 0 0")).items;
        assert_eq!((read[0].busy, read[0].total), (0, max));
    }

    #[test]
    fn no_more_cores_and_interfaces_than_the_limits_are_kept_and_the_others_are_counted() {
        let stat: String = (0..CORES_MAX + 9).map(|n| format!("cpu{n} 1 2 3 4\n")).collect();
        let read = cores(&stat);
        assert_eq!((read.items.len(), read.left_out), (CORES_MAX, 9));
        let net: String =
            (0..INTERFACES_MAX + 9).map(|n| format!("veth{n}: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n")).collect();
        let read = interfaces(&net);
        assert_eq!((read.items.len(), read.left_out), (INTERFACES_MAX, 9));
    }

    #[test]
    fn busy_share_is_of_the_time_between_the_readings() {
        let before = CoreTimes { core: 0, busy: 100, total: 1000 };
        let at = |busy, total| CoreTimes { core: 0, busy, total };
        assert_eq!(busy_share(&before, &at(105, 1020)), Some(0.25));
        assert_eq!(busy_share(&before, &at(100, 1000)), None, "no tick has passed");
        assert_eq!(busy_share(&before, &at(50, 500)), None, "the core was offline in between");
        assert_eq!(busy_share(&before, &at(125, 1020)), Some(1.0), "iowait was taken back");
        assert_eq!(busy_share(&before, &at(99, 1020)), Some(0.0));
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(
            memory(MEMINFO),
            Some(Memory {
                total: 24_683_764 * 1024,
                available: 24_000_000 * 1024,
                swap_total: 1_000_000 * 1024,
                swap_free: 750_000 * 1024,
            })
        );
    }

    #[test]
    fn without_mem_available_free_and_cached_stand_in() {
        let old = MEMINFO.replace("MemAvailable", "MemSomethingElse");
        assert_eq!(memory(&old).map(|m| m.available), Some(20_500_000 * 1024));
        let nothing = old.replace("MemFree", "MemOther");
        assert_eq!(memory(&nothing), None);
    }

    #[test]
    fn memory_without_a_total_or_with_another_unit_is_missing_not_zero() {
        assert_eq!(memory(""), None);
        assert_eq!(memory(&MEMINFO.replace("MemTotal", "MemFatal")), None);
        assert_eq!(memory(&MEMINFO.replace("24683764 kB", "24683764 MB")), None);
        assert_eq!(memory(&MEMINFO.replace("24683764", "99999999999999999999")), None);
        assert_eq!(memory(&MEMINFO.replace("24683764", "18446744073709551615")), None);
    }

    #[test]
    fn available_never_exceeds_the_total() {
        let read = memory("MemTotal: 10 kB\nMemAvailable: 11 kB\n").expect("both lines are there");
        assert_eq!(read.available, read.total);
    }

    #[test]
    fn interfaces_are_read_with_and_without_a_space_after_the_colon() {
        let named = |name: &str, received, sent| InterfaceBytes { name: name.to_owned(), received, sent };
        assert_eq!(
            interfaces(NET_DEV).items,
            [named("lo", 3193, 3194), named("eth0", 561_084_748, 2_421_844), named("eth0:1", 7, 8)]
        );
    }

    #[test]
    fn interface_lines_cut_short_are_passed_over() {
        for line in ["", ":", "lo", "lo:", "lo: 1 2 3 4 5 6 7 8", ": 1 0 0 0 0 0 0 0 2 0", "lo: x 0 0 0 0 0 0 0 2"] {
            assert_eq!(interfaces(line).items, [], "{line:?}");
        }
        assert_eq!(interfaces("lo: 1 0 0 0 0 0 0 0 2").items.len(), 1);
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(!cores(&read("/proc/stat").expect("Linux has it")).items.is_empty());
        assert!(memory(&read("/proc/meminfo").expect("Linux has it")).is_some());
        assert!(read("/proc/there/is/no/such/file").is_err());
    }
}
