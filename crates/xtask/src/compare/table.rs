//! The results as Markdown, between two marks of a page.

use std::fmt::Write;

use super::measure::Figure;
use super::results::Results;
use crate::Project;

/// What is written anew stands between these lines.
const BEGIN: &str = "<!-- compare: from here to the end mark, `cargo xtask compare` writes this anew -->";
const END: &str = "<!-- compare: end -->";
/// What the others are divided by, if it was measured.
const FLOOR: &str = "floor-epoll";
/// What an empty page begins with.
const TITLE: &str = "# Comparison\n";

/// `page` with what stands between the marks replaced; the marks are added at the end of a page that has none.
pub(super) fn replace(page: &str, section: &str) -> Result<String, String> {
    let marked = format!("{BEGIN}\n\n{section}\n{END}");
    match (page.find(BEGIN), page.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            Ok(format!("{}{marked}{}", &page[..begin], &page[end + END.len()..]))
        }
        (None, None) => {
            let before = if page.trim().is_empty() { TITLE } else { page };
            Ok(format!("{}\n\n{marked}\n", before.trim_end()))
        }
        _ => Err("the page has only one of the two marks, or they are the wrong way round".to_owned()),
    }
}

/// What stands between the marks.
pub(super) fn section(results: &Results, project: &Project) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "**Machine**: {}.\n", results.machine);
    let of_rounds = match results.rounds {
        1 => "One round".to_owned(),
        rounds => format!("Medians over {rounds} rounds, least and most in parentheses"),
    };
    let _ = writeln!(
        text,
        "{of_rounds}. {} idle clients; CPU of the server only. \"x\" is over the bare epoll loop in the same round.\n",
        results.sizes.hold_clients
    );
    figures(&mut text, results);
    text.push_str("\n![The same figures as bars](comparison.svg)\n");
    notes(&mut text, results, project);
    if !results.missing.is_empty() {
        text.push_str("\n**Missing:**\n\n");
        results.missing.iter().for_each(|one| {
            let _ = writeln!(text, "- {}: {}.", one.name, project.without_paths(&one.why));
        });
    }
    versions(&mut text, results, project);
    text
}

fn figures(text: &mut String, results: &Results) {
    let row = |text: &mut String, cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let mut head = vec![String::new()];
    head.extend(Figure::ALL.map(|figure| format!("{}, {}", figure.title(), figure.unit())));
    row(text, &head);
    row(text, &vec!["---".to_owned(); head.len()]);
    for peer in &results.peers {
        let mut cells = vec![peer.name.to_owned()];
        cells.extend(Figure::ALL.map(|figure| {
            let mut cell = match results.spread(peer.key, figure) {
                None if peer.can(figure.measure()) => "failed".to_owned(),
                None => "-".to_owned(),
                Some(spread) if spread.rounds == 1 => format!("{:.*}", figure.decimals(), spread.median),
                Some(spread) => format!("{spread:.*}", figure.decimals()),
            };
            if results.is_bounded_by_generator(peer.key, figure) {
                cell.insert_str(0, "≥ ");
            }
            if figure == Figure::Memory && !peer.subscribes() {
                cell.push_str(" *");
            }
            if figure.is_cpu()
                && peer.key != FLOOR
                && let Some(ratio) = results.ratio(peer.key, FLOOR, figure)
            {
                let _ = write!(cell, "<br>{:.2} x", ratio.median);
            }
            cell
        }));
        row(text, &cells);
    }
    for missing in &results.missing {
        let mut cells = vec![missing.name.to_owned(), "missing".to_owned()];
        cells.resize(head.len(), String::new());
        row(text, &cells);
    }
}

fn notes(text: &mut String, results: &Results, project: &Project) {
    let mut notes = Vec::new();
    if results.peers.iter().any(|peer| !peer.subscribes()) {
        notes.push("\\* connected, but not subscribed: it has no channels.".to_owned());
    }
    if Figure::ALL.iter().any(|figure| results.peers.iter().any(|p| results.is_bounded_by_generator(p.key, *figure))) {
        notes.push(
            "≥ in at least one round the generator had no time left: the server could have done more.".to_owned(),
        );
    }
    let failures = results.failures().into_iter().map(|failure| project.without_paths(&failure));
    notes.extend(failures.map(|failure| format!("Failed: {failure}.")));
    for note in notes {
        let _ = write!(text, "\n{note}\n");
    }
}

fn versions(text: &mut String, results: &Results, project: &Project) {
    text.push_str("\n| server | version | command | config or source |\n| --- | --- | --- | --- |\n");
    for peer in &results.peers {
        let (name, version, source) = (peer.name, &peer.version, peer.source());
        let _ = writeln!(text, "| {name} | {version} | `{}` | [{source}](../{source}) |", peer.shown(project));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measure::Measure;
    use crate::compare::results::tests::{project, results, sample};

    #[test]
    fn a_row_has_median_spread_and_ratio_and_what_a_server_lacks_is_a_dash() {
        let text = section(&results(), &project());
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
            line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row("bare epoll loop")[3], "11.00 (10.00-12.00)");
        assert_eq!(row("Tidegate, epoll")[3], "12.60 (11.00-13.20)<br>1.10 x");
        assert_eq!(row("other")[3], "26.50 (20.00-33.00)<br>2.50 x");
        assert_eq!(row("other")[5], "-", "it has no channels");
        assert_eq!(row("Tidegate, epoll")[5], "failed", "it has, and nothing came");
    }

    #[test]
    fn a_rate_that_the_generator_bounded_says_so_and_one_that_it_did_not_does_not() {
        let rate = |busy: f64| {
            let mut results = results();
            let mut sample = sample(0, "other", Measure::Churn, 50.0);
            sample.run.as_mut().unwrap().generator_busy = busy;
            results.samples.push(sample);
            section(&results, &project())
        };
        assert!(rate(0.99).contains("| ≥ 500 |") && rate(0.99).contains("could have done more"));
        assert!(rate(0.5).contains("| 500 |") && !rate(0.5).contains("could have done more"));
    }

    #[test]
    fn a_missing_peer_is_a_row_without_a_figure_and_a_reason() {
        let text = section(&results(), &project());
        assert!(text.contains("| absent | missing |  |"), "{text}");
        assert!(text.contains("- absent: it is not to be had."), "{text}");
        assert!(!text.contains("/checkout"), "{text}");
    }

    #[test]
    fn all_rows_have_as_many_cells_as_the_head() {
        let text = section(&results(), &project());
        let cells: Vec<usize> = text
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, vec![Figure::ALL.len() + 2; 2 + 3 + 1]);
    }

    #[test]
    fn the_machine_and_its_congestion_control_are_stated() {
        assert!(section(&results(), &project()).contains("congestion control bbr"));
    }

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let first = replace("# Mine\n\nText.\n", "one").unwrap();
        assert!(first.starts_with("# Mine\n\nText.\n") && first.contains("\none\n"), "{first}");
        let second = replace(&format!("{first}after\n"), "two").unwrap();
        assert!(second.contains("\ntwo\n") && !second.contains("one") && second.ends_with("after\n"), "{second}");
        assert!(replace("", "one").unwrap().starts_with(TITLE));
    }

    #[test]
    fn a_page_with_half_of_the_marks_is_refused_and_its_whole_twin_is_not() {
        assert!(replace(&format!("{BEGIN}\n"), "x").is_err());
        assert!(replace(&format!("{END}\n{BEGIN}\n"), "x").is_err());
        assert!(replace(&format!("{BEGIN}\n{END}\n"), "x").is_ok());
    }
}
