//! What the server uses, from `/proc`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Clock ticks per second in `/proc/PID/stat`; Linux shows 100 on every machine, whatever its real tick is.
const TICKS_PER_SECOND: u64 = 100;

/// A process to watch.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
}

/// What it used up to one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// CPU time of all its threads.
    pub(crate) cpu: Duration,
}

impl Server {
    pub(crate) fn new(pid: u32) -> Server {
        Server { folder: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// What it uses now.
    ///
    /// # Errors
    /// When there is no such process, or it is not ours to look at.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Ok(Usage { rss_bytes: self.rss_bytes()?, cpu: self.cpu()? })
    }

    /// About what it uses now, at a price that allows to ask often. Memory may lag by some pages per core; CPU comes in
    /// hundredths of a second, and keeps what threads used that have ended.
    pub(crate) fn glance(&self) -> io::Result<Usage> {
        Ok(Usage { rss_bytes: self.rss_bytes_roughly()?, cpu: self.cpu_roughly()? })
    }

    /// The command line it was started with.
    pub(crate) fn command(&self) -> Option<String> {
        let bytes = fs::read(self.folder.join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Some(text.split('\0').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }

    /// The cores it may run on, as the kernel writes lists of them.
    pub(crate) fn cores(&self) -> Option<String> {
        let status = fs::read_to_string(self.folder.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(line.trim().to_owned())
    }

    fn rss_bytes(&self) -> io::Result<u64> {
        // `status` sums counters that lag by some pages per core; the roll-up walks the page tables and is exact.
        let rolled = fs::read_to_string(self.folder.join("smaps_rollup")).ok();
        if let Some(kib) = rolled.and_then(|text| kib(&text, "Rss:")) {
            return Ok(kib * 1024);
        }
        self.rss_bytes_roughly()
    }

    fn rss_bytes_roughly(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.folder.join("status"))?;
        kib(&status, "VmRSS:").map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS in its status"))
    }

    fn cpu(&self) -> io::Result<Duration> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(self.folder.join("task"))? {
            // A thread may end between the listing and the reading; a kernel may have no schedstat.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
            total += Duration::from_nanos(nanoseconds.unwrap_or(0));
        }
        if total.is_zero() { self.cpu_roughly() } else { Ok(total) }
    }

    fn cpu_roughly(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(self.folder.join("stat"))?;
        cpu_of_stat(&stat).ok_or_else(|| io::Error::other("no CPU time in its stat"))
    }
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// utime and stime. The name of the process, in parentheses, may contain anything; fields are counted behind it.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_used_cpu() {
        let server = Server::new(std::process::id());
        let before = server.usage().unwrap();
        let memory = vec![1_u8; 64 << 20];
        let after = server.usage().unwrap();
        assert!(memory.contains(&1));
        assert!(after.rss_bytes >= before.rss_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.cpu >= before.cpu);
        let glance = server.glance().unwrap();
        assert!(glance.rss_bytes >= 60 << 20 && glance.cpu + Duration::from_millis(50) >= before.cpu, "{glance:?}");
        drop(memory);
    }

    #[test]
    fn what_a_process_is_and_where_it_may_run_is_known() {
        let ourselves = Server::new(std::process::id());
        assert!(ourselves.command().unwrap().contains("tidegate_load"));
        assert!(ourselves.cores().unwrap().starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(Server::new(u32::MAX).command(), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Server::new(u32::MAX).usage().is_err());
        assert!(Server::new(std::process::id()).usage().is_ok());
    }

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_of_stat("7 (a"), None);
    }
}
