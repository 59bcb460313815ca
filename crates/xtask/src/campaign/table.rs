//! The page.

use std::fmt::Write;

use serde_json::Value;

use super::{Outcome, Part, Results};

/// What stands above the tables.
const HEAD: &str = "# Clients that are cut off and come back: the campaign

`cargo xtask campaign` writes this page and the lines of all runs beside it; [performance.md](performance.md) says what it
means. Every client checks the offsets and the numbers in the payloads: `silent` counts what was missing, repeated or out of
order without a word, and has to be 0. *Cut*: connections reset by the client's side at random; *paused*: clients that stopped
reading for up to three seconds. *Gap*: the client was told that something is missing, and how much. Latencies are against the
moment at which a publication was due, and in them is what came late because its client was away or did not read.
";

/// The whole page.
pub(super) fn page(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(
        text,
        "\n**Machine**: {}; server and generators on the same cores. Seed {}.\n",
        results.machine, results.seed
    );
    text.push_str(
        "| case, driver | clients | published | received | cut, paused | ended by the gateway | recovered (publications) | gaps \
         (publications) | silent, lost, doubled | back after p50, p99 | latency p50, p99 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in &results.outcomes {
        for part in &outcome.parts {
            row(&mut text, outcome, part);
        }
    }
    text.push_str("\n| case, driver | seconds | gateway CPU, s | resident at the end, most |\n|---|---|---|---|\n");
    for outcome in &results.outcomes {
        let (cpu, rss) = outcome.server.map_or((0.0, 0), |server| (server.cpu_seconds, server.rss_bytes));
        let _ = writeln!(
            text,
            "| {}, {} | {:.0} | {cpu:.1} | {}, {} |",
            outcome.case,
            outcome.driver,
            outcome.seconds,
            mb(rss),
            mb(outcome.peak_rss_bytes)
        );
    }
    text.push_str("\nThe load generator's command lines, addresses left out:\n\n```\n");
    let first = results.outcomes.first().map(|outcome| outcome.driver);
    for part in results.outcomes.iter().filter(|outcome| Some(outcome.driver) == first).flat_map(|o| &o.parts) {
        let _ = writeln!(text, "tidegate-load {}", part.arguments);
    }
    text.push_str("```\n");
    text
}

fn row(text: &mut String, outcome: &Outcome, part: &Part) {
    let (line, recovery) = (&part.line, &part.line["recovery"]);
    let n = |value: &Value| thousands(value.as_u64().unwrap_or_default());
    let _ = writeln!(
        text,
        "| {}{}, {} | {} | {} | {} | {}, {} | {} | {} ({}) | {} ({}) | {}, {}, {} | {}, {} | {}, {} |",
        part.name,
        if part.is_clean { "" } else { " **(not clean)**" },
        outcome.driver,
        n(&line["connections"]),
        n(&line["sent"]),
        n(&line["received"]),
        n(&recovery["resets"]),
        n(&recovery["pauses"]),
        n(&recovery["ended_by_server"]),
        n(&recovery["recovered"]),
        n(&recovery["recovered_publications"]),
        n(&recovery["gaps"]),
        n(&recovery["announced_missing"]),
        n(&recovery["silent_gaps"]),
        n(&line["lost"]),
        n(&line["duplicated"]),
        ms(&recovery["latency_us"]["p50"]),
        ms(&recovery["latency_us"]["p99"]),
        ms(&line["latency_us"]["p50"]),
        ms(&line["latency_us"]["p99"]),
    );
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn ms(micros: &Value) -> String {
    micros.as_f64().map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros / 1000.0))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Machine;
    use serde_json::json;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 7, 999, 1000, 1_234_567].map(thousands), ["0", "7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_run_that_was_not_clean_is_marked() {
        let line = json!({"connections": 9, "sent": 1, "received": 9000, "lost": 2, "duplicated": 0,
            "latency_us": {"p50": 100, "p99": 2000}, "recovery": {"resets": 3, "silent_gaps": 2}});
        let part = |is_clean| Part { name: "clients", arguments: "recover -n 9".into(), is_clean, line: line.clone() };
        let outcome = |is_clean| Outcome {
            case: "weather",
            driver: "epoll",
            seconds: 1.0,
            server: None,
            peak_rss_bytes: 0,
            parts: vec![part(is_clean)],
        };
        let page = |is_clean| page(&Results { machine: Machine::probe(), seed: 1, outcomes: vec![outcome(is_clean)] });
        assert!(page(false).contains("| clients **(not clean)**, epoll | 9 | 1 | 9,000 | 3, 0 |"));
        assert!(page(false).contains("| 2, 2, 0 | -, - | 0.1 ms, 2.0 ms |"));
        assert!(page(true).contains("| clients, epoll |") && page(true).contains("tidegate-load recover -n 9\n"));
    }
}
