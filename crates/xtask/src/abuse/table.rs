//! The page of what came of it.

use std::fmt::Write as _;

use super::attacks::ATTACKS;
use super::{CALM, Outcome, Sizes};
use crate::measure::{Machine, drivers};

/// As docs/abuse.md.
pub(super) fn page(machine: &Machine, sizes: &Sizes, outcomes: &[Outcome]) -> String {
    let mut page = format!(
        "# Hostile clients\n\nWritten by `cargo xtask abuse{}`: what was tried, how often, and what the honest clients beside it noticed.\n\n\
         {machine}. Gateway, attackers and honest clients share all of it, so that latencies say how much is left for the honest, and are \
         not judged.\n\nThe honest: {} subscribers who get {} publications of 200 B a second for {} s, one client that echoes 100 times a second, and \
         20 a second that come and go; all of them come while the attack goes on. What is judged: each gets every publication once and in \
         order, nobody of them is closed or turned away; afterwards no connection is left, the next one is let in, no panic was \
         counted, the counter that should tell of the attack does, and at most 64 MiB more are resident than before.\n\n",
        if sizes.quick { " --quick" } else { "" },
        sizes.honest,
        sizes.rate,
        sizes.seconds
    );
    page.push_str(
        "| attack | driver | how often | deliveries, all of them right | p99 of a delivery | of an echo | to be let in | resident before, after | faults |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let names = std::iter::once((CALM, "without an attack")).chain(ATTACKS.iter().map(|it| (it.name, it.title)));
    for (name, title) in names {
        for driver in drivers(None) {
            let found = outcomes.iter().find(|outcome| outcome.attack == name && outcome.driver == driver);
            found.into_iter().for_each(|outcome| row(&mut page, title, outcome));
        }
    }
    page.push_str(
        "\nHow often is what the attackers did: connections that they opened, publications that they sent, messages or rounds.\n",
    );
    let faulty = outcomes.iter().filter(|outcome| !outcome.faults.is_empty());
    for Outcome { attack, driver, faults, .. } in faulty {
        let _ = writeln!(page, "\n**{attack}, {driver}**: {}", faults.join("; "));
    }
    page
}

fn row(page: &mut String, title: &str, outcome: &Outcome) {
    let ms = |us: Option<u64>| us.map_or_else(String::new, |us| format!("{:.1} ms", us as f64 / 1e3));
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let faults = if outcome.faults.is_empty() { "none".to_owned() } else { outcome.faults.len().to_string() };
    let _ = writeln!(
        page,
        "| {title} | {} | {} | {} | {} | {} | {} | {}, {} MB | {faults} |",
        outcome.driver,
        outcome.times,
        outcome.run.received,
        ms(outcome.run.latency_us.map(|latency| latency.p99)),
        ms(outcome.echo_p99),
        ms(outcome.accept_p99),
        mb(outcome.rss_bytes.0),
        mb(outcome.rss_bytes.1),
    );
}
