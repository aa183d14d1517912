//! Plots as SVG: bars, and a line over a logarithmic axis.

use crate::measure::readable;
use crate::traffic::short;
use std::fmt::Write;

/// Of a plot of a line.
const WIDTH: f64 = 720.0;
const BAR: f64 = 26.0;
/// Of the longest bar.
const ROOM: f64 = 330.0;
/// Of a value behind its bar.
const VALUE: f64 = 90.0;
/// Of a letter in a label: wide ones are rare.
const LETTER: f64 = 7.0;
const TOP: f64 = 40.0;
const COLOUR: &str = "#2f6f9f";
const PALE: &str = "#c9d8e3";

/// A bar, and behind it the limit it is compared with, if any.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// The length of the pale bar behind it.
    pub limit: Option<f64>,
}

/// Horizontal bars, their values in `unit`.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let most =
        bars.iter().map(|bar| bar.value.max(bar.limit.unwrap_or(0.0))).fold(f64::MIN_POSITIVE, f64::max);
    let longest = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or_default();
    let labels = longest as f64 * LETTER + 20.0;
    let mut svg = begin(title, labels + ROOM + VALUE, TOP + BAR * bars.len() as f64 + 10.0);
    for (index, Bar { label, value, limit }) in bars.iter().enumerate() {
        let y = TOP + BAR * index as f64;
        let length = |value: f64| (value / most * ROOM).max(1.0);
        text(&mut svg, labels - 8.0, y + 17.0, "end", label);
        if let Some(limit) = limit {
            rectangle(&mut svg, (labels, y), length(*limit), PALE);
        }
        rectangle(&mut svg, (labels, y), length(*value), COLOUR);
        let end = labels + length(value.max(limit.unwrap_or(0.0))) + 6.0;
        text(&mut svg, end, y + 17.0, "start", &format!("{} {unit}", readable(*value)));
    }
    svg + "</svg>\n"
}

/// Values over numbers that grow tenfold, joined by a line.
pub fn line(title: &str, unit: &str, points: &[(u64, f64)]) -> String {
    const HEIGHT: f64 = 260.0;
    let most = points.iter().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    let log = |x: u64| (x.max(1) as f64).log10();
    let first = points.first().map_or(0.0, |point| log(point.0));
    let last = points.last().map_or(1.0, |point| log(point.0));
    let place = |&(x, y): &(u64, f64)| {
        let part = if last > first { (log(x) - first) / (last - first) } else { 0.5 };
        (60.0 + part * (WIDTH - 120.0), TOP + 30.0 + (1.0 - y / most) * HEIGHT)
    };
    let mut svg = begin(title, WIDTH, TOP + HEIGHT + 70.0);
    let path: Vec<_> = points.iter().map(place).map(|(x, y)| format!("{x:.0},{y:.0}")).collect();
    let _ = writeln!(
        svg,
        r#"<polyline points="{}" fill="none" stroke="{COLOUR}" stroke-width="2"/>"#,
        path.join(" ")
    );
    for point in points {
        let (x, y) = place(point);
        let _ = writeln!(svg, r#"<circle cx="{x:.0}" cy="{y:.0}" r="4" fill="{COLOUR}"/>"#);
        text(&mut svg, x, y - 10.0, "middle", &format!("{} {unit}", readable(point.1)));
        text(&mut svg, x, TOP + HEIGHT + 55.0, "middle", &short(point.0));
    }
    svg + "</svg>\n"
}

fn begin(title: &str, width: f64, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let _ =
        writeln!(svg, r#"<text x="12" y="24" font-size="16" font-weight="bold">{}</text>"#, escaped(title));
    svg
}

fn rectangle(svg: &mut String, (x, y): (f64, f64), length: f64, colour: &str) {
    let height = BAR - 6.0;
    let _ = writeln!(
        svg,
        r#"<rect x="{x:.0}" y="{y:.0}" width="{length:.1}" height="{height}" fill="{colour}"/>"#
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}">{}</text>"#, escaped(words));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let all = [
            Bar { label: "a <b>".into(), value: 50.0, limit: Some(100.0) },
            Bar { label: "c".into(), value: 0.0, limit: None },
        ];
        let svg = bars("T & U", "Mpps", &all);
        assert!(
            svg.contains("T &amp; U") && svg.contains("a &lt;b&gt;") && svg.contains("50.00 Mpps"),
            "{svg}"
        );
        assert!(svg.contains(r#"width="330.0""#) && svg.contains(r#"width="165.0""#), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_longest_label_has_room() {
        let label = "l4+l7 against nfstream, 64 B, 100k flows, and some more words".to_owned();
        let svg = bars("T", "Mpps", &[Bar { label: label.clone(), value: 1.0, limit: None }]);
        let wide = label.len() as f64 * LETTER + 20.0;
        assert!(svg.contains(&format!(r#"<rect x="{wide:.0}""#)), "{svg}");
        assert!(svg.contains(&format!("0 0 {:.0} ", wide + ROOM + VALUE)), "{svg}");
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let svg = line("flows", "ns", &[(1_000, 50.0), (1_000_000, 100.0)]);
        assert!(svg.contains(r#"points="60,200 660,70""#), "{svg}");
        assert!(svg.contains(">1k<") && svg.contains(">1M<") && svg.contains("100 ns"), "{svg}");
        assert!(line("none", "ns", &[]).ends_with("</svg>\n"));
    }
}
