//! The results as one SVG: a panel of bars per figure, readable on a light and on a dark page.

use std::fmt::Write;

use super::measure::Figure;
use super::peer::Kind;
use super::results::Results;
use crate::measure::Spread;

/// Panels beside each other.
const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 460.0;
const MARGIN: f64 = 16.0;
const BAR_HEIGHT: f64 = 14.0;
const BAR_STEP: f64 = 20.0;
/// Of a panel's title, with the space below it.
const TITLE_HEIGHT: f64 = 30.0;
/// Room for names on the left of the bars, and for values on their right.
const NAMES_WIDTH: f64 = 130.0;
const VALUES_WIDTH: f64 = 86.0;
/// From this ratio of the largest to the smallest on bars grow with the logarithm: else the small ones are no longer seen.
const LOGARITHMIC_FROM: f64 = 20.0;
/// Of the room, what the smallest bar of a logarithmic panel gets.
const SMALLEST: f64 = 0.06;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:13px}\
.note{fill:#59636e;font-size:11px}.floor{fill:#8c959f}.ours{fill:#0969da}.ours2{fill:#54aeff}.other{fill:#bf8700}\
.spread{stroke:#1f2328;stroke-width:1}.page{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.floor{fill:#6e7681}.ours{fill:#388bfd}\
.ours2{fill:#79c0ff}.other{fill:#d29922}.spread{stroke:#e6edf3}.page{fill:#0d1117}}";

/// One bar.
struct Bar {
    name: &'static str,
    class: &'static str,
    spread: Spread,
    /// The server could have done more.
    at_least: bool,
}

/// The whole picture.
pub(super) fn svg(results: &Results) -> String {
    let panels: Vec<(Figure, Vec<Bar>)> =
        Figure::ALL.map(|figure| (figure, bars(results, figure))).into_iter().filter(|(_, b)| !b.is_empty()).collect();
    let (mut body, mut top) = (String::new(), 2.0 * MARGIN + 28.0);
    for row in panels.chunks(COLUMNS) {
        for (column, (figure, bars)) in row.iter().enumerate() {
            panel(&mut body, *figure, bars, MARGIN + column as f64 * (PANEL_WIDTH + MARGIN), top);
        }
        let longest = row.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
        top += TITLE_HEIGHT + longest as f64 * BAR_STEP + MARGIN;
    }
    let width = MARGIN + COLUMNS as f64 * (PANEL_WIDTH + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {top:.0}\" width=\"{width:.0}\" \
         height=\"{top:.0}\" role=\"img\" aria-label=\"Tidegate beside other servers\"><style>{STYLE}</style>\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
    );
    text(&mut svg, "title", MARGIN, MARGIN + 12.0, "start", "Tidegate beside other servers, one core each");
    text(&mut svg, "note", MARGIN, MARGIN + 29.0, "start", &results.machine.to_string());
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

fn bars(results: &Results, figure: Figure) -> Vec<Bar> {
    let of = |peer: &super::peer::Peer| {
        let spread = results.spread(peer.key, figure)?;
        let class = match peer.kind {
            Kind::Floor(_) => "floor",
            Kind::Tidegate("uring") => "ours2",
            Kind::Tidegate(_) => "ours",
            _ => "other",
        };
        let at_least = results.is_bounded_by_generator(peer.key, figure);
        Some(Bar { name: peer.name, class, spread, at_least })
    };
    results.peers.iter().filter_map(of).collect()
}

fn panel(svg: &mut String, figure: Figure, bars: &[Bar], left: f64, top: f64) {
    let scale = Scale::of(bars);
    let better = if figure.is_cost() { "less is better" } else { "more is better" };
    let kind = if scale.is_logarithmic { ", logarithmic" } else { "" };
    text(svg, "title", left, top + 12.0, "start", &format!("{}, {}", figure.title(), figure.unit()));
    text(svg, "note", left + PANEL_WIDTH, top + 12.0, "end", &format!("{better}{kind}"));
    let zero = left + NAMES_WIDTH;
    let room = PANEL_WIDTH - NAMES_WIDTH - VALUES_WIDTH;
    for (index, bar) in bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT - 6.0 + index as f64 * BAR_STEP;
        let base = y + BAR_HEIGHT - 3.0;
        let at = |value: f64| zero + room * scale.share(value);
        text(svg, "name", zero - 6.0, base, "end", bar.name);
        let length = at(bar.spread.median) - zero;
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{zero:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
            bar.class
        );
        let (least, most, middle) = (at(bar.spread.least), at(bar.spread.most), y + BAR_HEIGHT / 2.0);
        let _ = writeln!(
            svg,
            "<path class=\"spread\" d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v6M{most:.1} {:.1}v6\"/>",
            middle - 3.0,
            middle - 3.0
        );
        let sign = if bar.at_least { "≥ " } else { "" };
        let value = format!("{sign}{:.*}", figure.decimals(), bar.spread.median);
        text(svg, "value", most.max(zero + length) + 6.0, base, "start", &value);
    }
}

/// How long a bar is for its value.
struct Scale {
    least: f64,
    most: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(bars: &[Bar]) -> Scale {
        let most = bars.iter().map(|bar| bar.spread.most).fold(f64::MIN_POSITIVE, f64::max);
        let positive = bars.iter().map(|bar| bar.spread.least).filter(|least| *least > 0.0);
        let least = positive.fold(most, f64::min);
        Scale { least, most, is_logarithmic: most / least >= LOGARITHMIC_FROM }
    }

    /// Of the room, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        if !self.is_logarithmic {
            return (value / self.most).clamp(0.0, 1.0);
        }
        let decades = (value.max(self.least) / self.least).log10() / (self.most / self.least).log10();
        SMALLEST + (1.0 - SMALLEST) * decades.min(1.0)
    }
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::results;

    fn bar(median: f64) -> Bar {
        let spread = Spread { median, least: median, most: median, rounds: 1 };
        Bar { name: "one", class: "other", spread, at_least: false }
    }

    #[test]
    fn a_panel_is_logarithmic_only_where_small_bars_would_vanish() {
        assert!(!Scale::of(&[bar(1.0), bar(19.0)]).is_logarithmic);
        let scale = Scale::of(&[bar(1.0), bar(100.0)]);
        assert!(scale.is_logarithmic);
        let share = |value| (scale.share(value) * 1e6).round() / 1e6;
        assert_eq!((share(1.0), share(10.0), share(100.0)), (0.06, 0.53, 1.0));
    }

    #[test]
    fn bars_of_nothing_and_of_zero_stay_inside_the_panel() {
        for bars in [vec![], vec![bar(0.0)], vec![bar(-5.0), bar(1.0)]] {
            let scale = Scale::of(&bars);
            for value in [-5.0, 0.0, 1.0, 1e9] {
                assert!((0.0..=1.0).contains(&scale.share(value)), "{value}");
            }
        }
    }

    #[test]
    fn every_measured_peer_has_a_bar_and_a_missing_one_has_none() {
        let svg = svg(&results());
        assert_eq!(svg.matches("rx=\"2\"").count(), 3);
        assert!(svg.contains(">26.50</text>") && svg.contains("prefers-color-scheme:dark"));
        assert!(!svg.contains("absent"));
        assert!(svg.contains("Test &lt;CPU&gt;") && !svg.contains("<CPU>"));
    }
}
