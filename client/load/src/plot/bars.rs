//! Horizontal bars: made of parts, or in groups that are compared.

use super::{Svg, WIDTH, readable};

const LABEL: f64 = 250.0;
const BAR: f64 = 18.0;

/// A bar: its name, and its parts in the order of the legend.
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Lengths of its parts.
    pub parts: Vec<f64>,
}

/// Bars of parts, in the order given.
#[must_use]
pub fn stacks(title: &str, legend: &[&str], unit: &str, bars: &[Stack]) -> String {
    let longest = bars.iter().map(|bar| bar.parts.iter().sum::<f64>());
    let scale = (WIDTH - LABEL - 90.0) / longest.fold(1e-9, f64::max);
    let height = 80.0 + bars.len() as f64 * (BAR + 6.0);
    let told = format!(
        "Horizontal bars in {unit}, each made of: {}.",
        legend.join(", ")
    );
    let mut svg = Svg::begin(title, &told, height);
    svg.legend(legend.iter().copied().zip(0..), 36.0);
    for (row, bar) in bars.iter().enumerate() {
        let y = 66.0 + row as f64 * (BAR + 6.0);
        svg.text((LABEL - 6.0, y + 13.0), "end", "ink", &bar.name);
        let mut x = LABEL;
        for (colour, part) in bar.parts.iter().enumerate() {
            let width = part.max(0.0) * scale;
            svg.rect((x, y), (width, BAR), colour);
            x += width;
        }
        let total: f64 = bar.parts.iter().sum();
        let total = format!("{} {unit}", readable(total));
        svg.text((x + 4.0, y + 13.0), "start", "soft", &total);
    }
    svg.end()
}

/// One of the things that groups compare: its name, and a value for each group.
pub struct Line {
    /// Its name.
    pub name: String,
    /// A value for each group; what is not finite is left out.
    pub values: Vec<f64>,
}

/// Groups of bars: for each of `groups`, one of every line.
#[must_use]
pub fn groups(title: &str, groups: &[String], lines: &[Line], unit: &str) -> String {
    let values = lines.iter().flat_map(|line| line.values.iter().copied());
    let most = values
        .filter(|value| value.is_finite())
        .fold(1e-9, f64::max);
    let scale = (WIDTH - LABEL - 90.0) / most;
    let group = lines.len() as f64 * BAR + 12.0;
    let told = format!(
        "Groups of horizontal bars in {unit}: {}.",
        groups.join(", ")
    );
    let mut svg = Svg::begin(title, &told, 80.0 + groups.len() as f64 * group);
    svg.legend(lines.iter().map(|line| line.name.as_str()).zip(0..), 36.0);
    for (at, name) in groups.iter().enumerate() {
        let top = 66.0 + at as f64 * group;
        svg.text((LABEL - 6.0, top + 13.0), "end", "ink", name);
        for (row, line) in lines.iter().enumerate() {
            let Some(value) = line.values.get(at).filter(|value| value.is_finite()) else {
                continue;
            };
            let (y, width) = (top + row as f64 * BAR, value.max(0.0) * scale);
            svg.rect((LABEL, y), (width, BAR - 2.0), row);
            let told = format!("{} {unit}", readable(*value));
            svg.text((LABEL + width + 4.0, y + 12.0), "start", "soft", &told);
        }
    }
    svg.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let line = |name: &str, value| Line {
            name: name.into(),
            values: vec![value],
        };
        let svg = groups("t", &["g".into()], &[line("a", 2.0), line("b", 1.0)], "ms");
        assert!(
            svg.contains(r#"width="560.0" height="16.0" class="f0""#),
            "{svg}"
        );
        assert!(
            svg.contains(r#"width="280.0" height="16.0" class="f1""#),
            "{svg}"
        );
        let none = groups("t", &["g".into()], &[line("a", f64::NAN)], "ms");
        assert!(!none.contains("NaN"), "{none}");
    }
}
