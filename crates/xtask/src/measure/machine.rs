//! What the figures were measured on. A figure without it says nothing.

use std::fs;

use serde::Serialize;

/// The machine, as far as it matters here.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// TCP congestion control: on loopback bbr costs a fifth more per send than cubic.
    pub congestion_control: String,
    /// The load average over the last minute before the measurement.
    pub load: f64,
}

impl Machine {
    /// The machine at hand. What `/proc` does not tell is "unknown".
    pub fn probe() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        Machine {
            cpu: or_unknown(field(&read("/proc/cpuinfo"), "model name")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory(&read("/proc/meminfo")),
            kernel: or_unknown(read("/proc/sys/kernel/osrelease").trim()),
            congestion_control: or_unknown(read("/proc/sys/net/ipv4/tcp_congestion_control").trim()),
            load: read("/proc/loadavg").split_ascii_whitespace().next().and_then(|w| w.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next().unwrap_or_default()
}

fn memory(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { cpu, cores, memory_bytes, kernel, congestion_control, load } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{cpu}, {cores} cores, {gib:.0} GiB, Linux {kernel}, loopback, congestion control {congestion_control}, \
             load {load:.2} at the start"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD: EPYC\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), "AMD: EPYC");
        assert_eq!(field(text, "name"), "");
        assert_eq!(memory("MemTotal:       24576 kB\nMemFree: 1 kB\n"), 24 << 20);
        assert_eq!(memory("MemFree: 1 kB\n"), 0);
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_core() {
        let machine = Machine::probe();
        assert!(machine.cores >= 1 && machine.memory_bytes > 0 && machine.kernel != "unknown", "{machine}");
        assert!(machine.to_string().contains(&machine.congestion_control));
    }
}
