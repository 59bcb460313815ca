//! CPU time and resident memory of a process and all its descendants, from `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// What a process tree has used up to now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// CPU time of all threads that still live, to the nanosecond.
    pub cpu: Duration,
    /// Resident memory. Pages that processes share count for each of them.
    pub rss_bytes: u64,
}

impl Usage {
    /// What `pid` and its descendants have used.
    ///
    /// # Errors
    /// When there is no such process. A descendant that ends meanwhile is left out.
    pub fn of_tree(pid: u32) -> Result<Usage, String> {
        let mut total = Usage::of(pid)?;
        for descendant in descendants(pid) {
            if let Ok(usage) = Usage::of(descendant) {
                total.cpu += usage.cpu;
                total.rss_bytes += usage.rss_bytes;
            }
        }
        Ok(total)
    }

    fn of(pid: u32) -> Result<Usage, String> {
        let folder = format!("/proc/{pid}");
        let complain = |error: std::io::Error| format!("{folder}: {error}");
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("{folder}/task")).map_err(complain)? {
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(task.map_err(complain)?.path().join("schedstat")).unwrap_or_default();
            cpu += time_on_cpu(&text).unwrap_or_default();
        }
        // `status` lags by some pages per core; the roll-up walks the page tables and is exact.
        let rollup = fs::read_to_string(format!("{folder}/smaps_rollup")).map_err(complain)?;
        let rss_bytes = kib(&rollup, "Rss:").ok_or_else(|| format!("{folder}/smaps_rollup has no Rss"))? * 1024;
        Ok(Usage { cpu, rss_bytes })
    }
}

/// The most memory that `pid` has had resident at one time.
///
/// # Errors
/// When there is no such process.
pub fn peak_rss_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    kib(&status, "VmHWM:").map(|kib| kib * 1024).ok_or_else(|| format!("{path} has no VmHWM"))
}

/// Every process below `pid`, children before grandchildren.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = parent(&entry.path()) {
            pairs.push((parent, child));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        found.extend(pairs.iter().filter(|(parent, _)| *parent == ancestor).map(|(_, child)| *child));
        next += 1;
    }
    found.remove(0);
    found
}

fn parent(folder: &Path) -> Option<u32> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    parent_in_stat(&stat)
}

/// The fourth field. The second, the name in parentheses, may contain anything.
fn parent_in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The first number of a `schedstat`: nanoseconds on a core.
fn time_on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_kernels_files_are_read_as_they_are_written() {
        assert_eq!(time_on_cpu("3250817 412 93\n"), Some(Duration::from_nanos(3_250_817)));
        assert_eq!(time_on_cpu(""), None);
        assert_eq!(parent_in_stat("12 (a) (b c) S 7 12 7 0"), Some(7));
        assert_eq!(parent_in_stat("12 (a"), None);
        assert_eq!(kib("556a-7ffd ---p 0 [rollup]\nRss:      2048 kB\nPss: 1 kB\n", "Rss:"), Some(2048));
        assert_eq!(kib("Pss: 1 kB\n", "Rss:"), None);
    }

    #[test]
    fn a_tree_uses_what_its_children_use() {
        // The shell waits for its child, which waits for the end of our pipe.
        let mut shell =
            Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        // What comes back has been through the child, so it is there.
        std::io::Write::write_all(&mut input, b"x").unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let children = descendants(shell.id());
        let (tree, alone) = (Usage::of_tree(shell.id()).unwrap(), Usage::of(shell.id()).unwrap());
        drop(input);
        shell.wait().unwrap();
        assert_eq!(children.len(), 1);
        assert!(tree.rss_bytes > alone.rss_bytes && tree.cpu > alone.cpu, "{tree:?} {alone:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Usage::of_tree(u32::MAX).unwrap_err().contains("/proc/4294967295"));
        let now = Usage::of_tree(std::process::id()).unwrap();
        assert!(peak_rss_bytes(std::process::id()).unwrap() >= now.rss_bytes / 2);
        assert!(peak_rss_bytes(u32::MAX).unwrap_err().contains("/proc/4294967295"));
    }
}
