//! Pictures for reports, as SVG by hand: axes with units, no scripts, no fonts or files from elsewhere.
//!
//! Goes in: numbers and words, foreign ones too, which are escaped. Comes out: one SVG document that reads on light and dark
//! paper (`prefers-color-scheme`) and says what it shows to who cannot see it (`title`, `desc`).

mod bars;
mod chart;
mod of_load;

use std::fmt::Write as _;

pub use bars::{Line, Stack, groups, stacks};
pub use chart::{Chart, Form, Panel, Scale, Series};
pub use of_load::{latency_by_start, over_time};

/// Units of a picture's width.
const WIDTH: f64 = 900.0;

/// Colours that people who see few of them tell apart (Okabe and Ito), on light paper and on dark.
const COLOURS: [(&str, &str); 10] = [
    ("#0072b2", "#56b4e9"),
    ("#e69f00", "#f0b83c"),
    ("#009e73", "#35c79b"),
    ("#cc79a7", "#e19cc3"),
    ("#d55e00", "#ff8a3d"),
    ("#6c757d", "#adb5bd"),
    ("#56b4e9", "#1f8fd1"),
    ("#8c6d1f", "#d9c26a"),
    ("#7a4fa3", "#b795dc"),
    ("#3d9970", "#7fd0a8"),
];

/// An SVG document under construction.
struct Svg(String);

impl Svg {
    fn begin(title: &str, description: &str, height: f64) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title description\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <title id=\"title\">{}</title>\n<desc id=\"description\">{}</desc>\n",
            escaped(title),
            escaped(description)
        ));
        svg.style();
        svg.line(r#"<rect class="paper" width="100%" height="100%"/>"#);
        svg.text((16.0, 24.0), "start", "ink title", title);
        svg
    }

    fn style(&mut self) {
        let (mut light, mut dark) = (String::new(), String::new());
        for (at, (on_light, on_dark)) in COLOURS.into_iter().enumerate() {
            for (css, colour) in [(&mut light, on_light), (&mut dark, on_dark)] {
                // Writing to a string cannot fail.
                let _ = write!(css, ".f{at}{{fill:{colour}}}.s{at}{{stroke:{colour}}}");
            }
        }
        self.line(&format!(
            "<style>.paper{{fill:#fff}}.ink{{fill:#1f2328}}.soft{{fill:#59636e}}.grid{{stroke:#d8dee4}}\
             .axis{{stroke:#59636e}}.title{{font-size:15px;font-weight:600}}\
             .curve{{fill:none;stroke-width:2;stroke-linejoin:round}}{light}\
             @media (prefers-color-scheme:dark){{.paper{{fill:#0d1117}}.ink{{fill:#f0f6fc}}\
             .soft{{fill:#9198a1}}.grid{{stroke:#2b3138}}.axis{{stroke:#9198a1}}{dark}}}</style>"
        ));
    }

    fn line(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, words: &str) {
        let words = escaped(words);
        self.line(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{words}</text>"#
        ));
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: usize) {
        let colour = colour % COLOURS.len();
        self.line(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" class="f{colour}"/>"#
        ));
    }

    fn stroke(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.line(&format!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        ));
    }

    /// Names with their colours, in rows; returns the height they took.
    fn legend<'a>(&mut self, names: impl Iterator<Item = (&'a str, usize)>, top: f64) -> f64 {
        let (mut x, mut y) = (16.0, top);
        for (name, colour) in names {
            let width = 32.0 + 6.6 * name.chars().count() as f64;
            if x + width > WIDTH - 16.0 && x > 16.0 {
                (x, y) = (16.0, y + 18.0);
            }
            self.rect((x, y), (10.0, 10.0), colour);
            self.text((x + 15.0, y + 9.5), "start", "ink", name);
            x += width;
        }
        y - top + 18.0
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no word for them.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number with as many digits as one reads: 1200, 35, 0.25.
fn readable(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 0.095 => 3,
        small if small < 0.95 => 2,
        middle if middle < 9.5 && middle.fract().abs() > 1e-9 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_elsewhere_stay_words() {
        let svg = stacks("<script>", &["a\"b"], "ms", &[]);
        assert!(!svg.contains("<script>"), "{svg}");
        assert!(svg.contains("a&quot;b"), "{svg}");
        assert_eq!(escaped("a\u{0}b"), "a\u{fffd}b");
    }

    #[test]
    fn numbers_are_as_long_as_one_reads() {
        let found = [0.0, 0.002, 0.25, 1.5, 2.0, 35.0, 1200.0].map(readable);
        assert_eq!(found, ["0", "0.002", "0.25", "1.5", "2", "35", "1200"]);
    }
}
