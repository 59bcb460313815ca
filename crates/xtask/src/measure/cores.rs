//! Which core the server gets and which ones the generator.

use std::process::Command;

/// One core for the server, so that its CPU time is not spread; the others for the generator. Or all for both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cores {
    /// The server's: one, unless nothing is pinned.
    pub server: Vec<usize>,
    /// The generator's: all others, or the same one where there is only one.
    pub generator: Vec<usize>,
}

impl Cores {
    /// Of those that this process may run on, the first is the server's.
    pub fn choose() -> Result<Cores, String> {
        Cores::allowed(Cores::from_list)
    }

    /// All cores that this process may run on, for both: where it matters what the machine can do and not what each costs.
    pub fn all() -> Result<Cores, String> {
        Cores::allowed(|list| {
            let cores = numbers(list)?;
            Some(Cores { server: cores.clone(), generator: cores })
        })
    }

    fn allowed(choice: impl FnOnce(&str) -> Option<Cores>) -> Result<Cores, String> {
        let status = std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        choice(list.trim()).ok_or_else(|| format!("cannot read the list of cores `{}`", list.trim()))
    }

    fn from_list(list: &str) -> Option<Cores> {
        let cores = numbers(list)?;
        let (&server, others) = cores.split_first()?;
        let generator = if others.is_empty() { vec![server] } else { others.to_vec() };
        Some(Cores { server: vec![server], generator })
    }

    /// Whether server and generator have to share the only core.
    pub fn are_shared(&self) -> bool {
        self.generator == self.server
    }

    /// `command` on the server's core.
    pub fn for_server(&self, command: &Command) -> Command {
        pinned(&self.server, command)
    }

    /// `command` on the generator's cores.
    pub fn for_generator(&self, command: &Command) -> Command {
        pinned(&self.generator, command)
    }
}

/// `0-1,4` as numbers.
fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// The same command below `taskset`, which becomes the command: its process id is the command's. `setpriv` lets the
/// kernel end it when this process ends, however that happens.
fn pinned(cores: &[usize], command: &Command) -> Command {
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut pinned = Command::new("setpriv");
    pinned.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &list.join(",")]);
    pinned.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        pinned.current_dir(folder);
    }
    pinned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_core_is_the_servers_and_the_others_are_the_generators() {
        let cores = |list| Cores::from_list(list).unwrap();
        assert_eq!(cores("0-3"), Cores { server: vec![0], generator: vec![1, 2, 3] });
        assert_eq!(cores("2,4-5,9"), Cores { server: vec![2], generator: vec![4, 5, 9] });
        assert!(!cores("0-1").are_shared());
        assert!(cores("7").are_shared());
        assert_eq!(Cores::from_list(""), None);
        let all = Cores::all().unwrap();
        assert_eq!(all.server, all.generator);
        assert_eq!(Cores::from_list("0-x"), None);
    }

    #[test]
    fn a_pinned_command_runs_on_its_core_with_its_own_environment() {
        let cores = Cores::choose().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "grep Cpus_allowed_list /proc/self/status; echo $COLOUR; pwd"]);
        command.env("COLOUR", "blue").current_dir("/");
        let output = crate::run::capture(&mut cores.for_server(&command)).unwrap();
        assert_eq!(output, format!("Cpus_allowed_list:\t{}\nblue\n/\n", cores.server[0]));
    }
}
