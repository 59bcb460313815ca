//! Reads how many tests passed and failed from what the runners print.

/// Results of single tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, or were cancelled before they could tell.
    pub failed: u64,
}

impl Tally {
    /// No test at all.
    pub fn is_empty(self) -> bool {
        self == Tally::default()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Who printed the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// `cargo test`: one `test result:` line per test binary; they are summed.
    Cargo,
    /// pytest: its last line, as in `== 1 failed, 4 passed in 2.10s ==`.
    Pytest,
    /// `node --test` with the spec or the TAP reporter: the block of counts at the end.
    Node,
    /// The conformance runner: its last line, `301 passed, 0 failed`.
    Conformance,
}

impl Runner {
    /// Counts the results in a runner's output.
    pub fn count(self, lines: &[String]) -> Tally {
        let mut tally = Tally::default();
        match self {
            Runner::Cargo => {
                for line in lines {
                    if let Some(rest) = line.trim_start().strip_prefix("test result: ") {
                        tally += words(rest.split_once(". ").map_or(rest, |(_, counts)| counts));
                    }
                }
            }
            Runner::Pytest => {
                let closing = lines.iter().rev().map(|line| line.trim_matches(['=', ' ']));
                if let Some((counts, _)) = closing.filter_map(|line| line.rsplit_once(" in ")).next() {
                    tally = words(counts);
                }
            }
            Runner::Node => {
                for line in lines {
                    let mut parts = line.split_whitespace();
                    if !matches!(parts.next(), Some("ℹ" | "#")) {
                        continue;
                    }
                    let name = parts.next();
                    let Some(count) = parts.next().and_then(|number| number.parse::<u64>().ok()) else {
                        continue;
                    };
                    match name {
                        Some("pass") => tally.passed += count,
                        Some("fail" | "cancelled") => tally.failed += count,
                        _ => {}
                    }
                }
            }
            Runner::Conformance => {
                if let Some(line) = lines.iter().rev().find(|line| !line.trim().is_empty()) {
                    tally = words(line);
                }
            }
        }
        tally
    }
}

/// Counts in `4 passed; 1 failed; 0 ignored` and `1 failed, 4 passed, 2 errors`.
fn words(text: &str) -> Tally {
    let mut tally = Tally::default();
    for part in text.split([',', ';']) {
        let mut parts = part.split_whitespace();
        let Some(count) = parts.next().and_then(|number| number.parse::<u64>().ok()) else {
            continue;
        };
        match parts.next() {
            Some("passed") => tally.passed += count,
            Some("failed" | "error" | "errors") => tally.failed += count,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(runner: Runner, text: &str) -> (u64, u64) {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tally = runner.count(&lines);
        (tally.passed, tally.failed)
    }

    #[test]
    fn every_test_binary_of_cargo_is_summed() {
        let text = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(count(Runner::Cargo, text), (5, 1));
    }

    #[test]
    fn pytest_counts_failures_and_errors_from_its_closing_line() {
        let text = "FAILED test_a.py::test_x - AssertionError: 9 passed in review\n\
            ==== 1 failed, 4 passed, 2 errors in 2.10s (0:00:02) ====";
        assert_eq!(count(Runner::Pytest, text), (4, 3));
        assert_eq!(count(Runner::Pytest, "12 passed in 0.40s"), (12, 0));
        assert_eq!(count(Runner::Pytest, "no tests ran in 0.01s"), (0, 0));
    }

    #[test]
    fn node_counts_cancelled_tests_as_failed() {
        let spec = "✔ a (1ms)\nℹ tests 4\nℹ pass 2\nℹ fail 1\nℹ cancelled 1\nℹ skipped 0";
        assert_eq!(count(Runner::Node, spec), (2, 2));
        assert_eq!(count(Runner::Node, "# tests 3\n# pass 3\n# fail 0\n"), (3, 0));
    }

    #[test]
    fn only_the_last_line_of_the_conformance_runner_counts() {
        assert_eq!(count(Runner::Conformance, "5 passed, 9 failed\n300 passed, 1 failed\n"), (300, 1));
        assert_eq!(count(Runner::Conformance, "cannot connect"), (0, 0));
    }
}
