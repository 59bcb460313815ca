//! How the machine is used: workers, cores, descriptors.

use super::StartError;
use crate::config::{Ceiling, Config, Count, Pin, PrivateTables, WORKERS_MAX};
use crate::memory::{self, Memory};

/// Files of a table that all threads share which are not client connections: the log, the API's listeners and
/// connections, /proc readings.
const FILES_RESERVED: u64 = 512;

/// Files of each worker that are not clients it serves: epoll or ring, listeners, and clients that are being refused.
const FILES_PER_WORKER: u64 = 32 + io::REFUSED_MAX as u64;

/// How the machine is used, for the start message and the metrics.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Number of workers.
    pub workers: usize,
    /// The core of each worker; empty: not pinned.
    pub cores: Vec<usize>,
    /// Why they are pinned or not.
    pub pinning: String,
    /// Soft limit of open files, of each table.
    pub files_max: u64,
    /// Whether each worker has a table of descriptors of its own.
    pub private_tables: bool,
    /// Client connections of the whole process.
    pub connections_max: u64,
    /// Client connections of each worker.
    pub connections_per_worker: usize,
    /// Memory that the process takes for its clients; 0: any.
    pub memory_bytes_max: u64,
}

impl Layout {
    /// Decides from the config and what the machine offers.
    ///
    /// # Errors
    /// More connections wanted than the limit of files allows; private tables asked for where they cannot be had.
    pub fn decide(config: &Config, machine: &Machine) -> Result<Self, StartError> {
        let available = machine.cores.len().max(1);
        let by_quota = machine.cpu_quota.map(|quota| (quota.ceil() as usize).clamp(1, available));
        let workers = match config.workers.count {
            Count::Auto if !config.workers.cpus.is_empty() => config.workers.cpus.len(),
            Count::Auto => by_quota.unwrap_or(available),
            Count::Fixed(count) => count as usize,
        };
        let (cores, pinning) = pinning(config, machine, workers, by_quota);
        let wanted = match config.workers.connections_max {
            Count::Auto => None,
            Count::Fixed(wanted) => Some(u64::from(wanted)),
        };
        let files = Files { limit: machine.files_max, workers: workers as u64 };
        let private_tables = files.private_tables(config.workers.private_fd_tables, wanted, machine)?;
        let possible = files.possible(private_tables);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > possible) {
            return Err(StartError::TooFewFiles { wanted, possible, files_max: files.limit, hint: files.hint(wanted) });
        }
        let connections_max = wanted.unwrap_or(possible);
        Ok(Self {
            workers,
            cores,
            pinning,
            files_max: machine.files_max,
            private_tables,
            connections_max,
            connections_per_worker: per_worker(connections_max, possible, workers as u64),
            memory_bytes_max: memory_bytes_max(config, machine),
        })
    }
}

/// The ceiling of memory; none where it is to be found out and the kernel does not say how much there is.
pub(crate) fn memory_bytes_max(config: &Config, machine: &Machine) -> u64 {
    match config.workers.memory_bytes_max {
        Ceiling::Fixed(bytes) => bytes.get() as u64,
        Ceiling::Auto => machine.memory.map_or(0, Memory::ceiling_of),
    }
}

/// The connections of one worker. SO_REUSEPORT spreads by hash: of n connections a worker gets n / workers, give or take
/// the root of that. Four roots of room, as far as its descriptors go, and no worker refuses while the others have room.
fn per_worker(connections_max: u64, possible: u64, workers: u64) -> usize {
    let share = connections_max.div_ceil(workers);
    let room = if workers == 1 { 0 } else { 4 * share.isqrt() };
    (share + room).min(possible / workers).max(1) as usize
}

/// What the limit of open files allows.
struct Files {
    limit: u64,
    workers: u64,
}

impl Files {
    fn shared(&self) -> u64 {
        self.limit.saturating_sub(FILES_RESERVED + FILES_PER_WORKER * self.workers)
    }

    /// Each table also holds the eventfds of all workers and of the control thread.
    fn each_private(&self, workers: u64) -> u64 {
        self.limit.saturating_sub(FILES_PER_WORKER + workers + 1)
    }

    fn possible(&self, private_tables: bool) -> u64 {
        if private_tables { self.each_private(self.workers) * self.workers } else { self.shared() }
    }

    fn private_tables(
        &self,
        choice: PrivateTables,
        wanted: Option<u64>,
        machine: &Machine,
    ) -> Result<bool, StartError> {
        match (choice, &machine.private_tables_refused) {
            (PrivateTables::Off, _) => Ok(false),
            (PrivateTables::On, None) => Ok(true),
            (PrivateTables::On, Some(why)) => Err(StartError::PrivateTables(why.clone())),
            (PrivateTables::Auto, refused) => {
                Ok(refused.is_none() && wanted.is_some_and(|wanted| wanted > self.shared()))
            }
        }
    }

    /// How the wanted connections would fit below the limit as it is, if there is a way.
    fn hint(&self, wanted: u64) -> Option<u64> {
        (self.workers + 1..=u64::from(WORKERS_MAX)).find(|&workers| self.each_private(workers) * workers >= wanted)
    }
}

fn pinning(config: &Config, machine: &Machine, workers: usize, by_quota: Option<usize>) -> (Vec<usize>, String) {
    let listed: Vec<usize> = config.workers.cpus.iter().map(|&core| core as usize).collect();
    let round_robin = |cores: &[usize]| (0..workers).map(|i| cores[i % cores.len()]).collect::<Vec<_>>();
    let cores = &machine.cores;
    match config.workers.pin {
        Pin::Off => (Vec::new(), "not pinned: workers.pin = \"off\"".into()),
        _ if !listed.is_empty() => (round_robin(&listed), "pinned: workers.cpus".into()),
        _ if cores.is_empty() => (Vec::new(), "not pinned: the cores of this process are not known".into()),
        Pin::On => (round_robin(cores), "pinned: workers.pin = \"on\"".into()),
        Pin::Auto if by_quota.is_some() => {
            (Vec::new(), "not pinned: a CPU quota is in force, and its cores are not ours alone".into())
        }
        Pin::Auto if workers < cores.len() => {
            (Vec::new(), format!("not pinned: {workers} of {} cores are used", cores.len()))
        }
        Pin::Auto if workers > cores.len() => (round_robin(cores), format!("pinned: in turn to {} cores", cores.len())),
        Pin::Auto => (round_robin(cores), format!("pinned: one per core of {}", cores.len())),
    }
}

/// What the machine offers this process.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Cores it may run on.
    pub cores: Vec<usize>,
    /// Cores' worth of time its cgroup may use.
    pub cpu_quota: Option<f64>,
    /// Soft limit of open files.
    pub files_max: u64,
    /// Memory that it can have.
    pub memory: Option<u64>,
    /// Why a thread cannot have a table of descriptors of its own, where it cannot.
    pub private_tables_refused: Option<String>,
}

impl Machine {
    /// Reads it, raising the limit of open files as far as allowed, and asks it for small pages.
    ///
    /// # Errors
    /// When the limit of open files cannot be read.
    pub fn probe() -> Result<Self, StartError> {
        // Where it is refused memory is larger, and nothing else is different.
        let _ = io::affinity::use_small_pages();
        let files = io::affinity::raise_fd_limit()
            .map_err(|error| StartError::Kernel { what: "reading the limit of open files", error })?;
        // Unknown cores only mean that nothing is pinned.
        let cores = io::affinity::cores().unwrap_or_default();
        let private_tables_refused = io::descriptors::try_private_table().err().map(|error| error.to_string());
        let (cpu_quota, memory) = (io::affinity::cpu_quota(), memory::available());
        Ok(Self { cores, cpu_quota, files_max: files.soft, memory, private_tables_refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bytes, Workers};

    fn decide(workers: Workers, machine: &Machine) -> Result<Layout, String> {
        let config = Config { workers, ..Config::default() };
        Layout::decide(&config, machine).map_err(|error| error.to_string())
    }

    fn machine(cores: usize, files_max: u64) -> Machine {
        Machine { cores: (0..cores).collect(), files_max, ..Machine::default() }
    }

    fn wanting(connections: u32) -> Workers {
        Workers { count: Count::Fixed(10), connections_max: Count::Fixed(connections), ..Workers::default() }
    }

    #[test]
    fn auto_takes_private_tables_only_where_one_table_is_too_small() {
        let (small, machine) = (20_000 - 512 - 960, machine(2, 20_000));
        let layout = decide(wanting(small), &machine).unwrap();
        assert!(!layout.private_tables);
        let layout = decide(wanting(small + 1), &machine).unwrap();
        assert!(layout.private_tables);
        assert_eq!(layout.connections_max, u64::from(small + 1));
        let off = Workers { private_fd_tables: PrivateTables::Off, ..wanting(small + 1) };
        let error = decide(off, &machine).unwrap_err();
        assert!(error.contains("serves 18528 connections"), "{error}");
        let on = Workers { private_fd_tables: PrivateTables::On, ..wanting(1) };
        assert!(decide(on, &machine).unwrap().private_tables);
    }

    #[test]
    fn where_private_tables_are_refused_auto_does_without_and_on_fails() {
        let machine = Machine { private_tables_refused: Some("not permitted".into()), ..machine(2, 20_000) };
        assert!(!decide(wanting(10_000), &machine).unwrap().private_tables);
        assert!(decide(wanting(100_000), &machine).unwrap_err().contains("needs more open files"));
        let on = Workers { private_fd_tables: PrivateTables::On, ..wanting(1) };
        let error = decide(on, &machine).unwrap_err();
        assert!(error.contains("close_range") && error.contains("not permitted"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_told_the_number_of_workers_that_it_takes() {
        let each = 20_000 - 96 - 11;
        assert_eq!(decide(wanting(each * 10), &machine(2, 20_000)).unwrap().connections_max, u64::from(each * 10));
        let error = decide(wanting(each * 10 + 1), &machine(2, 20_000)).unwrap_err();
        assert!(error.contains("workers.count = 11 and workers.private_fd_tables"), "{error}");
        // More than even 256 workers take.
        let error = decide(wanting(6_000_000), &machine(2, 20_000)).unwrap_err();
        assert!(!error.contains("workers.count"), "{error}");
    }

    #[test]
    fn a_worker_has_room_above_its_even_share_as_far_as_its_descriptors_go() {
        assert_eq!(per_worker(10_000, 1_000_000, 4), 2_500 + 200);
        assert_eq!(per_worker(10_000, 10_400, 4), 2_600);
        assert_eq!(per_worker(10_000, 10_000, 4), 2_500);
        assert_eq!(per_worker(10_000, 1_000_000, 1), 10_000, "alone it knows them all");
        assert_eq!(per_worker(1, 0, 4), 1);
    }

    #[test]
    fn three_quarters_of_the_memory_are_the_ceiling_unless_the_config_says_another() {
        let with_memory = Machine { memory: Some(4 << 30), ..machine(2, 20_000) };
        let ceiling = |bytes, machine: &Machine| {
            let workers = Workers { memory_bytes_max: bytes, ..Workers::default() };
            decide(workers, machine).unwrap().memory_bytes_max
        };
        assert_eq!(ceiling(Ceiling::Auto, &with_memory), 3 << 30);
        assert_eq!(ceiling(Ceiling::Auto, &machine(2, 20_000)), 0);
        assert_eq!(ceiling(Ceiling::Fixed(Bytes::new(0)), &with_memory), 0);
        assert_eq!(ceiling(Ceiling::Fixed(Bytes::mib(100)), &with_memory), 100 << 20);
    }

    #[test]
    fn workers_are_pinned_where_they_fill_the_cores_and_nobody_else_has_a_share() {
        let count = |count| Workers { count: Count::Fixed(count), ..Workers::default() };
        assert_eq!(decide(count(2), &machine(2, 20_000)).unwrap().cores, [0, 1]);
        assert_eq!(decide(count(5), &machine(2, 20_000)).unwrap().cores, [0, 1, 0, 1, 0]);
        assert!(decide(count(1), &machine(2, 20_000)).unwrap().cores.is_empty());
        let quota = Machine { cpu_quota: Some(2.0), ..machine(2, 20_000) };
        assert!(decide(count(2), &quota).unwrap().cores.is_empty());
        let pinned = Workers { pin: Pin::On, ..count(1) };
        assert_eq!(decide(pinned, &quota).unwrap().cores, [0]);
    }
}
