//! How many event loops a fleet runs on, and which clients each of them drives.
//!
//! The limit on open files counts per table of descriptors. A loop with a table of its own ([`io::descriptors`]) has the
//! whole limit for its clients, so a fleet needs as many loops as its clients are too many for one table.

use std::fmt;
use std::str::FromStr;

/// Files of one loop that are no clients: the standard streams, its wake, its event loop, a spare, and some air.
const FILES_OF_LOOP: u64 = 16;

/// Files of the main thread and all that share its table: standard streams, `/proc`, a report.
const FILES_OF_MAIN: u64 = 32;

/// Each loop is two threads and some 900 KB.
pub(crate) const LOOPS_MAX: u32 = 1_024;

/// What was asked for on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// As few as the limit on open files allows.
    Auto,
    /// So many.
    Loops(u32),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        match text.parse::<u32>() {
            _ if text == "auto" => Ok(Wanted::Auto),
            Ok(loops @ 1..=LOOPS_MAX) => Ok(Wanted::Loops(loops)),
            _ => Err(format!("`auto`, or a number from 1 to {LOOPS_MAX}")),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Auto => f.write_str("auto"),
            Wanted::Loops(loops) => loops.fmt(f),
        }
    }
}

/// The loops of one fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loops {
    /// At least one, and none without a client.
    pub(crate) count: u32,
    /// Each has a table of descriptors of its own.
    pub(crate) private: bool,
}

/// Of one fleet: the files it needs, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    pub(crate) clients: u32,
    /// Publishers, probes and whatever else the main thread's table holds.
    pub(crate) others: u64,
    /// Per table.
    pub(crate) limit: u64,
}

impl Loops {
    /// One loop that shares the main thread's table.
    pub(crate) const ONE: Loops = Loops { count: 1, private: false };

    /// As many as are wanted or needed. `try_private` tells whether tables of one's own are to be had.
    ///
    /// # Errors
    /// With what is missing.
    pub(crate) fn fit(
        wanted: Wanted,
        files: Files,
        try_private: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Loops, String> {
        let clients = u64::from(files.clients);
        let room = files.limit.saturating_sub(FILES_OF_LOOP).max(1);
        let count = match wanted {
            Wanted::Auto if files.shared(1) <= files.limit => 1,
            Wanted::Auto => clients.div_ceil(room),
            Wanted::Loops(loops) => u64::from(loops).min(clients),
        };
        if count == 1 && files.shared(1) <= files.limit {
            return Ok(Loops::ONE);
        }
        if count > u64::from(LOOPS_MAX) {
            return Err(format!(
                "{} open files are needed, {LOOPS_MAX} loops with {} each are allowed: raise `ulimit -n` or lower --connections",
                files.shared(count),
                files.limit
            ));
        }
        let needed = (clients.div_ceil(count) + FILES_OF_LOOP).max(count + files.others + FILES_OF_MAIN);
        if needed > files.limit {
            return Err(format!(
                "{needed} open files are needed by one loop, {} are allowed: raise `ulimit -n`, lower --connections or use more --loops",
                files.limit
            ));
        }
        let count = count as u32;
        match try_private() {
            Ok(()) => Ok(Loops { count, private: true }),
            Err(_) if files.shared(u64::from(count)) <= files.limit => Ok(Loops { count, private: false }),
            Err(error) => Err(format!(
                "{} open files are needed, {} are allowed, and loops cannot have tables of their own here: {error}",
                files.shared(u64::from(count)),
                files.limit
            )),
        }
    }

    /// The shares of all loops.
    pub(crate) fn shares(self) -> impl Iterator<Item = Share> {
        (0..self.count).map(move |number| Share { number, of: self.count })
    }
}

impl Files {
    /// The files needed where all loops share one table.
    fn shared(self, loops: u64) -> u64 {
        u64::from(self.clients) + self.others + FILES_OF_MAIN + (loops - 1) * FILES_OF_LOOP
    }
}

/// One loop's part of a fleet: every `of`-th client, from `number` on. Dealt out like cards, so that a schedule over all
/// clients ("one every millisecond") is kept by loops that know nothing of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

impl Share {
    /// How many of so many.
    pub(crate) fn len(self, all: u32) -> u32 {
        all.saturating_sub(self.number).div_ceil(self.of)
    }

    /// The number in the whole fleet of this share's client `index`.
    pub(crate) fn global(self, index: u32) -> u32 {
        index * self.of + self.number
    }

    /// The same of items that have no end, such as messages.
    pub(crate) fn nth(self, index: u64) -> u64 {
        index * u64::from(self.of) + u64::from(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(wanted: Wanted, clients: u32, limit: u64) -> Result<Loops, String> {
        Loops::fit(wanted, Files { clients, others: 10, limit }, || Ok(()))
    }

    fn private(count: u32) -> Result<Loops, String> {
        Ok(Loops { count, private: true })
    }

    #[test]
    fn one_loop_is_enough_until_the_files_of_one_table_are_not() {
        assert_eq!(fit(Wanted::Auto, 958, 1_000), Ok(Loops::ONE));
        assert_eq!(fit(Wanted::Auto, 959, 1_000), private(1), "alone in a table there is more room");
        assert_eq!(fit(Wanted::Auto, 984, 1_000), private(1));
        assert_eq!(fit(Wanted::Auto, 985, 1_000), private(2));
        assert_eq!(fit(Wanted::Auto, 1_000_000, 20_000), private(51));
    }

    #[test]
    fn a_number_of_loops_is_taken_unless_the_files_of_each_do_not_suffice() {
        assert_eq!(fit(Wanted::Loops(4), 100, 1_000), private(4));
        assert_eq!(fit(Wanted::Loops(4), 3, 1_000), private(3), "none without a client");
        assert_eq!(fit(Wanted::Loops(2), 1_968, 1_000), private(2));
        assert!(fit(Wanted::Loops(2), 1_969, 1_000).unwrap_err().contains("open files are needed"));
        assert!(fit(Wanted::Loops(1_000), 5_000, 1_000).unwrap_err().contains("open files are needed"), "their wakes");
        assert!(fit(Wanted::Auto, u32::MAX, 1_000).unwrap_err().contains("open files are needed"));
    }

    #[test]
    fn without_tables_of_their_own_loops_share_one_as_far_as_it_goes() {
        let fit = |clients| {
            let none = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
            Loops::fit(Wanted::Loops(2), Files { clients, others: 10, limit: 1_000 }, none)
        };
        assert_eq!(fit(942), Ok(Loops { count: 2, private: false }));
        assert!(fit(943).unwrap_err().contains("tables of their own"));
    }

    #[test]
    fn every_client_belongs_to_exactly_one_share() {
        for (all, count) in [(1, 1), (7, 3), (9, 3), (10, 4)] {
            let shares = Loops { count, private: true }.shares();
            let mut dealt: Vec<u32> = shares.flat_map(|s| (0..s.len(all)).map(move |index| s.global(index))).collect();
            dealt.sort_unstable();
            assert_eq!(dealt, (0..all).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_number_of_loops_is_auto_or_within_bounds() {
        assert_eq!("auto".parse(), Ok(Wanted::Auto));
        assert_eq!("1024".parse(), Ok(Wanted::Loops(1_024)));
        for text in ["0", "1025", "-1", "many", ""] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
