//! Two kinds of picture, as SVG by hand: bars made of parts, and lines over clients.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

const WIDTH: f64 = 900.0;
const LABEL: f64 = 250.0;
const BAR: f64 = 18.0;
const COLOURS: [&str; 10] = [
    "#4c78a8", "#9ecae9", "#f58518", "#ffbf79", "#54a24b", "#bab0ac", "#e45756", "#b279a2",
    "#72b7b2", "#eeca3b",
];

/// A bar: its name, and its parts in the order of the legend.
pub(crate) struct Stack {
    pub(crate) name: String,
    pub(crate) parts: Vec<f64>,
}

/// Writes horizontal bars of parts, in milliseconds, longest first as given.
pub(crate) fn stacks(path: &Path, title: &str, legend: &[&str], bars: &[Stack]) -> Result<()> {
    let longest = bars.iter().map(|bar| bar.parts.iter().sum::<f64>());
    let scale = (WIDTH - LABEL - 90.0) / longest.fold(1e-9, f64::max);
    let height = 70.0 + bars.len() as f64 * (BAR + 6.0);
    let mut svg = begin(title, height);
    legend_line(&mut svg, legend);
    for (row, bar) in bars.iter().enumerate() {
        let y = 60.0 + row as f64 * (BAR + 6.0);
        text(&mut svg, LABEL - 6.0, y + 13.0, "end", &bar.name);
        let mut x = LABEL;
        for (part, colour) in bar.parts.iter().zip(COLOURS) {
            let width = part.max(0.0) * scale;
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
            );
            x += width;
        }
        let total = format!("{:.1} ms", bar.parts.iter().sum::<f64>());
        text(&mut svg, x + 4.0, y + 13.0, "start", &total);
    }
    end(path, svg)
}

/// A line: its name, and a value for each number of clients.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

/// Writes groups of bars: for each of `groups`, one of every line.
pub(crate) fn groups(
    path: &Path,
    title: &str,
    groups: &[String],
    lines: &[Line],
    unit: &str,
) -> Result<()> {
    let most = lines.iter().flat_map(|line| line.values.iter().copied());
    let scale = (WIDTH - LABEL - 90.0) / most.fold(1e-9, f64::max);
    let group = lines.len() as f64 * BAR + 12.0;
    let mut svg = begin(title, 70.0 + groups.len() as f64 * group);
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    legend_line(&mut svg, &names);
    for (at, name) in groups.iter().enumerate() {
        let top = 60.0 + at as f64 * group;
        text(&mut svg, LABEL - 6.0, top + 13.0, "end", name);
        for (row, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
            let Some(value) = line.values.get(at).filter(|value| value.is_finite()) else {
                continue;
            };
            let (y, width) = (top + row as f64 * BAR, value * scale);
            let _ = writeln!(
                svg,
                r#"<rect x="{LABEL}" y="{y:.1}" width="{width:.1}" height="{}" fill="{colour}"/>"#,
                BAR - 2.0
            );
            let told = format!("{value:.1} {unit}");
            text(&mut svg, LABEL + width + 4.0, y + 12.0, "start", &told);
        }
    }
    end(path, svg)
}

fn begin(title: &str, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, 10.0, 20.0, "start", title);
    svg
}

fn legend_line(svg: &mut String, legend: &[&str]) {
    let mut x = 10.0;
    for (name, colour) in legend.iter().zip(COLOURS) {
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.0}" y="32" width="10" height="10" fill="{colour}"/>"#
        );
        text(svg, x + 14.0, 41.0, "start", name);
        x += 30.0 + 7.0 * name.len() as f64;
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#
    );
}

fn end(path: &Path, mut svg: String) -> Result<()> {
    svg.push_str("</svg>\n");
    fs::write(path, svg)?;
    println!("written to {}", path.display());
    Ok(())
}
