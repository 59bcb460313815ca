//! What is measured, and who takes part.

use std::path::Path;

use super::identity;
use crate::measure::Server;

/// What a server runs on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Driver {
    /// epoll.
    Epoll,
    /// io_uring.
    Uring,
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::Uring => "uring",
        }
    }
}

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Contender {
    /// A bare loop; on epoll it is what the others are divided by.
    Floor(Driver),
    /// The gateway with one worker.
    Tidegate(Driver),
    /// The same, and every client has a token of its own, a position, presence, and a personal channel beside the shared one.
    Identified(Driver),
}

/// What everybody is divided by.
pub(super) const BASELINE: Contender = Contender::Floor(Driver::Epoll);

impl Contender {
    /// In tables and names of log files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Floor(Driver::Epoll) => "floor-epoll",
            Contender::Floor(Driver::Uring) => "floor-uring",
            Contender::Tidegate(Driver::Epoll) => "tidegate-epoll",
            Contender::Tidegate(Driver::Uring) => "tidegate-uring",
            Contender::Identified(Driver::Epoll) => "identified-epoll",
            Contender::Identified(Driver::Uring) => "identified-uring",
        }
    }
}

/// What is allowed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Budget {
    /// At most so many times the bare epoll loop: Tidegate on epoll, on io_uring.
    Ratio(f64, f64),
    /// At most so many microseconds per message, on either.
    Microseconds(f64),
}

/// The kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Load {
    /// Clients echo 20 B, so many under way each, which are written at once.
    Echo {
        /// Under way.
        pipeline: u32,
    },
    /// 128 B to all subscribers, so many publications at a time, each by a publisher of its own, at a rate at which those
    /// before have arrived.
    Fanout {
        /// Publications at a time.
        burst: u32,
    },
    /// Clients come, get their 101, and leave.
    Handshake,
}

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// In the table.
    pub(super) title: &'static str,
    pub(super) load: Load,
    /// Clients.
    pub(super) clients: u32,
    pub(super) budget: Budget,
}

/// Deliveries per second with one publication in flight: about a third of what one core does.
const DELIVERIES_PACED: u32 = 30_000;
/// Deliveries per second where several are in flight: less than half of what one core does when it sends them together.
const DELIVERIES_BURST: u32 = 200_000;
/// Clients that come per second.
const HANDSHAKES: u32 = 2_000;
/// Bytes of a publication's data.
const PUBLICATION_BYTES: u32 = 128;
/// Connections opened per second before the measured phase.
const OPEN_RATE: u32 = 4_000;

/// All cases.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "echo-1",
        title: "echo of 20 B, 1 connection, one outstanding",
        load: Load::Echo { pipeline: 1 },
        clients: 1,
        budget: Budget::Ratio(1.10, 1.10),
    },
    Case {
        name: "echo-64",
        title: "echo of 20 B, 64 connections, one outstanding each",
        load: Load::Echo { pipeline: 1 },
        clients: 64,
        budget: Budget::Ratio(1.10, 1.10),
    },
    Case {
        name: "echo-1000",
        title: "echo of 20 B, 1,000 connections, one outstanding each",
        load: Load::Echo { pipeline: 1 },
        clients: 1_000,
        budget: Budget::Ratio(1.10, 0.90),
    },
    Case {
        name: "echo-32-per-write",
        title: "echo of 20 B, 50 connections, 32 per write",
        load: Load::Echo { pipeline: 32 },
        clients: 50,
        budget: Budget::Microseconds(0.35),
    },
    Case {
        name: "fanout-1000-1",
        title: "fan-out of 128 B to 1,000, one in flight",
        load: Load::Fanout { burst: 1 },
        clients: 1_000,
        budget: Budget::Ratio(1.10, 1.10),
    },
    Case {
        name: "fanout-10000-1",
        title: "fan-out of 128 B to 10,000, one in flight",
        load: Load::Fanout { burst: 1 },
        clients: 10_000,
        budget: Budget::Ratio(1.10, 1.10),
    },
    Case {
        name: "fanout-1000-16",
        title: "fan-out of 128 B to 1,000, sixteen in flight",
        load: Load::Fanout { burst: 16 },
        clients: 1_000,
        budget: Budget::Ratio(1.15, 1.15),
    },
    Case {
        name: "fanout-10000-16",
        title: "fan-out of 128 B to 10,000, sixteen in flight",
        load: Load::Fanout { burst: 16 },
        clients: 10_000,
        budget: Budget::Ratio(1.15, 1.15),
    },
    Case {
        name: "handshake",
        title: "handshake, 2,000 per second",
        load: Load::Handshake,
        clients: 200,
        budget: Budget::Ratio(1.15, 1.15),
    },
];

impl Case {
    /// Who takes part, the baseline first. Who the clients are matters where they have a session.
    pub(super) fn contenders(&self) -> Vec<Contender> {
        let drivers = [Driver::Epoll, Driver::Uring];
        let identified = drivers.iter().filter(|_| self.has_api()).map(|driver| Contender::Identified(*driver));
        drivers.map(Contender::Floor).into_iter().chain(drivers.map(Contender::Tidegate)).chain(identified).collect()
    }

    /// How many publish, if anybody does.
    pub(super) fn publishers(&self) -> Option<u32> {
        match self.load {
            Load::Fanout { burst } => Some(burst),
            Load::Echo { .. } | Load::Handshake => None,
        }
    }

    /// Whether something is published.
    pub(super) fn has_api(&self) -> bool {
        self.publishers().is_some()
    }

    /// Time between two publications or bursts of them.
    pub(super) fn period_us(&self) -> Option<f64> {
        let burst = self.publishers()?;
        Some(1e6 * f64::from(burst) * f64::from(self.clients) / f64::from(deliveries(burst)))
    }

    /// What the server is told; `folder` has the files of [`identity::write`].
    pub(super) fn server_arguments(&self, contender: Contender, folder: &Path) -> Vec<String> {
        let config = folder.join(identity::CONFIG).display().to_string();
        let addresses = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
        let words: Vec<&str> = match contender {
            Contender::Tidegate(driver) => {
                [&["--dev", "--workers", "1", "--io", driver.name()], &addresses[..]].concat()
            }
            Contender::Identified(driver) => {
                [&["serve", "--config", &config, "--workers", "1", "--io", driver.name()], &addresses[..]].concat()
            }
            Contender::Floor(driver) => {
                let work: &[&str] = match self.load {
                    Load::Echo { .. } => &["echo"],
                    Load::Fanout { burst: 1 } => &["fanout", "--sends", "single"],
                    Load::Fanout { .. } => &["fanout", "--sends", "pending"],
                    Load::Handshake => &["accept"],
                };
                [work, &["--driver", driver.name()]].concat()
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// What the generator is told; `folder` has the files of [`identity::write`].
    pub(super) fn generator_arguments(
        &self,
        contender: Contender,
        server: &Server,
        seconds: u32,
        folder: &Path,
    ) -> Vec<String> {
        let urls = Urls { public: server.ws("public"), api: self.has_api().then(|| server.url("api").to_owned()) };
        let mut arguments = self.load_arguments(&urls, seconds);
        if matches!(contender, Contender::Identified(_)) {
            arguments.extend(identity::load_arguments(folder));
        }
        arguments.extend(["--server-pid".to_owned(), server.pid().to_string()]);
        arguments
    }

    fn load_arguments(&self, urls: &Urls, seconds: u32) -> Vec<String> {
        let (clients, time) = (self.clients.to_string(), format!("{seconds}s"));
        let open_rate = OPEN_RATE.to_string();
        let fixed: &[&str] = match self.load {
            Load::Echo { .. } => &["echo", "--size", "20", "--for", &time, "--open-rate", &open_rate],
            Load::Fanout { .. } => &["fanout", "--dialect", "centrifugo", "--open-rate", &open_rate],
            Load::Handshake => &["churn", "--dialect", "none", "--for", &time],
        };
        let mut arguments: Vec<String> = fixed.iter().map(|word| (*word).to_owned()).collect();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--connections", clients);
        match self.load {
            Load::Echo { pipeline } => {
                add("--url", format!("{}/echo", urls.public));
                add("--pipeline", pipeline.to_string());
            }
            Load::Fanout { burst } => {
                add("--url", urls.public.clone());
                add("--api", urls.api.clone().unwrap_or_default());
                add("--size", PUBLICATION_BYTES.to_string());
                add("--publishers", burst.to_string());
                add("--burst", burst.to_string());
                add("--rate", (f64::from(deliveries(burst)) / f64::from(self.clients)).to_string());
                // Whole bursts.
                let publications = (deliveries(burst) * seconds).div_ceil(self.clients);
                add("--publications", publications.next_multiple_of(burst).to_string());
            }
            Load::Handshake => {
                add("--url", format!("{}/echo", urls.public));
                add("--rate", HANDSHAKES.to_string());
            }
        }
        arguments
    }

    /// The generator's command line, for people.
    pub(super) fn command(&self, seconds: u32) -> String {
        let urls = Urls { public: "ws://PUBLIC".to_owned(), api: Some("http://API".to_owned()) };
        format!("tidegate-load {}", self.load_arguments(&urls, seconds).join(" "))
    }
}

/// Deliveries per second with so many publications at a time.
fn deliveries(burst: u32) -> u32 {
    if burst == 1 { DELIVERIES_PACED } else { DELIVERIES_BURST }
}

struct Urls {
    public: String,
    api: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_baseline_takes_part_everywhere() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.iter().all(|case| case.contenders()[0] == BASELINE));
    }

    #[test]
    fn sixteen_in_flight_are_whole_bursts_of_sixteen_publishers() {
        let case = CASES.iter().find(|case| case.name == "fanout-10000-16").unwrap();
        let command = case.command(3);
        assert!(command.contains("--publishers 16 --burst 16 --rate 20 --publications 64"), "{command}");
        assert_eq!(case.period_us(), Some(800_000.0));
    }

    #[test]
    fn with_one_in_flight_the_period_fits_the_rate() {
        let case = CASES.iter().find(|case| case.name == "fanout-1000-1").unwrap();
        assert!(case.command(3).contains("--burst 1 --rate 30 --publications 90"), "{}", case.command(3));
        assert!((case.period_us().unwrap() - 33_333.3).abs() < 0.1);
    }

    #[test]
    fn identity_is_measured_where_clients_have_a_session() {
        for case in CASES {
            let is_measured = case.contenders().contains(&Contender::Identified(Driver::Uring));
            assert_eq!(is_measured, case.name.starts_with("fanout"), "{}", case.name);
        }
    }

    #[test]
    fn each_bare_loop_does_the_work_that_it_is_compared_in() {
        for (name, work) in [
            ("echo-1", "echo --driver epoll"),
            ("fanout-1000-1", "fanout --sends single --driver epoll"),
            ("fanout-1000-16", "fanout --sends pending --driver epoll"),
            ("handshake", "accept --driver epoll"),
        ] {
            let case = CASES.iter().find(|case| case.name == name).unwrap();
            assert_eq!(case.server_arguments(BASELINE, Path::new("")).join(" "), work);
        }
    }
}
