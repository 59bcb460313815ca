//! `cargo xtask conformance --full`: all cases of the Autobahn suite in all roles, and the page that says how they ended.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::Project;
use crate::measure::Machine;
use crate::run::capture;
use crate::test::{self, CLIENT, Cases, report};

/// What stands above the table.
const HEAD: &str = "# Does Tidegate keep to the letter of RFC 6455 and RFC 7692?

The [Autobahn suite](https://github.com/crossbario/autobahn-testsuite) has 517 cases about it. `cargo xtask conformance --full`
runs all of them, strict, in three roles, and those of groups 1 to 10 in two more, and writes this page:

- **epoll** and **io_uring**: the suite is a client of a release gateway with `deploy/conformance.toml`, whose `/echo` sends every
  message back, with permessage-deflate where the suite offers it.
- **epoll, TLS** and **io_uring, TLS**: the same over wss, groups 1 to 10: compression is done above TLS.
- **client**: the suite is the server of `crates/load/examples/conformance.rs`, which is the client role of `wire` (the load
  generator is built on it); it offers permessage-deflate and sends every message back.

*Informational* are cases to which the RFC has no answer. *Not strict* is what the suite lets pass and we do not: a verdict that is
later than it could be, an echo that is lost, a peer that leaves closing TCP to the other. *Failed* counts wrong behaviour, a wrong
closing handshake, cases that did not end in time or did not run, and errors in the suite. Groups 8 and 11 do not exist.

`cargo xtask test` runs groups 1 to 10 and 24 cases of groups 12 and 13, in the same roles. How the suite is run at all, being
a program for Python 2, is in [its README](../crates/xtask/conformance/README.md).
";

/// What each group is about.
const GROUPS: [(u32, &str); 11] = [
    (1, "framing"),
    (2, "ping, pong"),
    (3, "reserved bits"),
    (4, "opcodes"),
    (5, "fragmentation"),
    (6, "UTF-8"),
    (7, "closing"),
    (9, "limits, performance"),
    (10, "automatic fragmentation"),
    (12, "compression, payloads"),
    (13, "compression, parameters"),
];

/// The runner's names of the roles, and the page's.
const ROLES: [(&str, &str); 5] = [
    ("epoll", "epoll"),
    ("uring", "io_uring"),
    ("epoll-tls", "epoll, TLS"),
    ("uring-tls", "io_uring, TLS"),
    (CLIENT, "client"),
];

/// How some cases ended.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Counts {
    cases: u32,
    informational: u32,
    not_strict: u32,
    failed: u32,
    seconds: f64,
}

/// One case that the suite has something to say about.
#[derive(PartialEq, Debug)]
struct Remark {
    case: String,
    verdict: String,
    text: String,
}

/// What the runner wrote about one role.
struct Role {
    name: &'static str,
    results: Map<String, Value>,
}

/// Runs everything and writes the page; whether nothing failed.
///
/// # Errors
/// When something could not be run at all.
pub fn run(project: &Project, out: &Path) -> Result<bool, String> {
    let machine = Machine::probe();
    let good = test::run(project, &["conformance".to_owned()], Cases::full())?;
    let gateway = capture(Command::new(project.target.join("release/tidegate")).arg("--version"))?;
    let day = capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut roles = Vec::new();
    for (role, name) in ROLES {
        let file = report(&project.target, role).join("summary.json");
        match std::fs::read_to_string(&file) {
            Ok(text) => roles.push(Role::parse(name, &text).map_err(|e| format!("{}: {e}", file.display()))?),
            Err(error) => println!("{name} is missing on the page: {}: {error}", file.display()),
        }
    }
    let page = page(&roles, &format!("{}, {}. {machine}", day.trim(), gateway.trim()));
    std::fs::write(out, page).map_err(|e| format!("{}: {e}", out.display()))?;
    println!("written: {}", project.short(out));
    Ok(good && roles.len() == ROLES.len())
}

impl Role {
    /// Reads `summary.json`, and checks that what is counted here is what the runner counted.
    fn parse(name: &'static str, summary: &str) -> Result<Role, String> {
        let summary: Value = serde_json::from_str(summary).map_err(|e| e.to_string())?;
        let results = summary["results"].as_object().ok_or("it has no results")?.clone();
        let role = Role { name, results };
        let all = role.counts(None);
        let failed = u64::from(all.failed + all.not_strict);
        if summary["strict"] != true || summary["failed"] != failed || summary["cases"] != u64::from(all.cases) {
            return Err(format!("{all:?} is not what the runner says: {} failed", summary["failed"]));
        }
        Ok(role)
    }

    /// How the cases of a group ended, or all.
    fn counts(&self, group: Option<u32>) -> Counts {
        let mut counts = Counts::default();
        let of = |case: &str| case.split('.').next().and_then(|number| number.parse::<u32>().ok());
        for (_, result) in self.results.iter().filter(|(case, _)| group.is_none() || of(case) == group) {
            counts.cases += 1;
            counts.seconds += result["seconds"].as_f64().unwrap_or(0.0);
            match verdict(result) {
                "OK" => {}
                "INFORMATIONAL" => counts.informational += 1,
                "NON-STRICT" | "FAILED BY CLIENT" => counts.not_strict += 1,
                _ => counts.failed += 1,
            }
        }
        counts
    }

    fn remarks(&self) -> Vec<Remark> {
        let all = self.results.iter().filter(|(_, result)| verdict(result) != "OK");
        let remark = |(case, result): (&String, &Value)| Remark {
            case: case.clone(),
            verdict: verdict(result).to_owned(),
            text: result["remark"].as_str().unwrap_or_default().to_owned(),
        };
        let mut remarks: Vec<Remark> = all.map(remark).collect();
        let number = |case: &str| case.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
        remarks.sort_by_key(|remark| number(&remark.case));
        remarks
    }
}

/// The worse of what the suite says about a case and about its closing handshake.
fn verdict(result: &Value) -> &str {
    let word = |key: &str| result[key].as_str().unwrap_or("MISSING");
    let (behaviour, close) = (word("behavior"), word("behaviorClose"));
    let closed_well = matches!(close, "OK" | "INFORMATIONAL");
    match behaviour {
        "OK" | "INFORMATIONAL" if !closed_well => close,
        "NON-STRICT" if !closed_well && close != "FAILED BY CLIENT" => close,
        _ => behaviour,
    }
}

fn page(roles: &[Role], on: &str) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "\n**Run on** {on}.\n");
    text.push_str("Each cell: OK, informational, not strict, failed; seconds.\n\n| group | about | cases |");
    let _ = roles.iter().try_for_each(|role| write!(text, " {} |", role.name));
    text.push_str("\n|---|---|---|");
    text.push_str(&"---|".repeat(roles.len()));
    for (group, about) in GROUPS {
        let cases = roles.iter().map(|role| role.counts(Some(group)).cases).max().unwrap_or(0);
        let _ = write!(text, "\n| {group} | {about} | {cases} |");
        let _ = roles.iter().try_for_each(|role| write!(text, " {} |", role.counts(Some(group))));
    }
    let cases = roles.iter().map(|role| role.counts(None).cases).max().unwrap_or(0);
    let _ = write!(text, "\n| **all** | | **{cases}** |");
    let _ = roles.iter().try_for_each(|role| write!(text, " **{}** |", role.counts(None)));
    text.push_str("\n\nSeconds are mostly the suite's own, in Python; they say how long to wait, and nothing about the gateway.\n");
    text.push_str("\n## What is not OK\n\n| role | case | verdict | what the suite says |\n|---|---|---|---|\n");
    for role in roles {
        for Remark { case, verdict, text: says } in role.remarks() {
            let _ = writeln!(text, "| {} | {case} | {verdict} | {} |", role.name, says.replace('|', "\\|"));
        }
    }
    text
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { cases, informational, not_strict, failed, seconds } = self;
        if *cases == 0 {
            return f.write_str("-");
        }
        let ok = cases - informational - not_strict - failed;
        write!(f, "{ok}, {informational}, {not_strict}, {failed}; {seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(failed: u64) -> Value {
        let case = |behaviour: &str, close: &str| {
            json!({"behavior": behaviour, "behaviorClose": close,
            "remark": "a | b", "seconds": 1.5})
        };
        json!({"strict": true, "cases": 7, "failed": failed, "results": {
            "1.1.1": case("OK", "OK"), "1.1.2": case("OK", "UNCLEAN"), "6.4.10": case("OK", "FAILED BY CLIENT"),
            "6.4.2": case("NON-STRICT", "OK"), "7.1.6": case("INFORMATIONAL", "INFORMATIONAL"),
            "7.13.1": case("INFORMATIONAL", "FAILED BY CLIENT"), "7.13.2": case("NON-STRICT", "WRONG CODE")}})
    }

    #[test]
    fn a_case_counts_as_the_worse_of_its_behaviour_and_its_close() {
        let role = Role::parse("epoll", &summary(5).to_string()).unwrap();
        let counts = |group| role.counts(group).to_string();
        assert_eq!(counts(Some(1)), "1, 0, 0, 1; 3 s");
        assert_eq!(counts(Some(6)), "0, 0, 2, 0; 3 s");
        assert_eq!(counts(None), "1, 1, 3, 2; 10 s");
        assert_eq!(counts(Some(12)), "-", "none of them were run");
        let cases: Vec<String> = role.remarks().into_iter().map(|remark| remark.case).collect();
        assert_eq!(cases, ["1.1.2", "6.4.2", "6.4.10", "7.1.6", "7.13.1", "7.13.2"]);
    }

    #[test]
    fn a_summary_that_counts_otherwise_is_refused() {
        assert!(Role::parse("epoll", &summary(2).to_string()).is_err_and(|why| why.contains("2 failed")));
        let lax = summary(5).to_string().replace("\"strict\":true", "\"strict\":false");
        assert!(Role::parse("epoll", &lax).is_err());
    }

    #[test]
    fn the_page_names_every_case_that_is_not_ok() {
        let role = Role::parse("io_uring", &summary(5).to_string()).unwrap();
        let page = page(&[role], "some day");
        assert!(page.contains("| 1 | framing | 2 | 1, 0, 0, 1; 3 s |"), "{page}");
        assert!(page.contains("| **all** | | **7** | **1, 1, 3, 2; 10 s** |"), "{page}");
        assert!(page.contains("| io_uring | 1.1.2 | UNCLEAN | a \\| b |\n"), "{page}");
        assert!(!page.contains("| 1.1.1 |"), "{page}");
    }
}
