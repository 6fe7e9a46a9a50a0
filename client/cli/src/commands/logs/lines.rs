//! Lines of a function's log, as the runtime gives them and as they are shown.
//!
//! In: text, `MILLISECONDS LEVEL WORDS` a line, what goes on indented by two spaces. Out: [`Line`]. Always true: what is
//! shown holds no control characters but the ends of lines: a function may write anything.

use std::fmt;

use bield_envelope::Time;
use serde_json::{Value, json};

/// One line of a log; its text may have several lines itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Line {
    at: Time,
    level: String,
    text: String,
}

impl Line {
    /// Reads all lines of a log; what is none goes to the line before.
    pub(super) fn all(text: &str) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for line in text.lines() {
            let first = Some(line).filter(|line| !line.starts_with(' '));
            if let Some(first) = first.and_then(Self::first) {
                lines.push(first);
            } else if let Some(last) = lines.last_mut() {
                last.text.push('\n');
                last.text.push_str(line.strip_prefix("  ").unwrap_or(line));
            }
        }
        lines
    }

    fn first(line: &str) -> Option<Self> {
        let (at, rest) = line.split_once(' ')?;
        let (level, text) = rest.split_once(' ')?;
        Some(Self {
            at: Time::from_millis(at.parse().ok()?),
            level: level.to_owned(),
            text: text.to_owned(),
        })
    }

    /// How many of `now` were among `before`: a log loses its oldest lines and gets new ones at its end.
    pub(super) fn known(before: &[Self], now: &[Self]) -> usize {
        let most = before.len().min(now.len());
        let same = |count: &usize| before[before.len() - count..] == now[..*count];
        (0..=most).rev().find(same).unwrap_or(0)
    }

    fn when(&self) -> String {
        let time = self.at.to_string();
        let millis = self.at.as_millis() % 1000;
        format!("{}.{millis:03}Z", time.trim_end_matches('Z'))
    }

    /// The line for programs.
    pub(in crate::commands) fn to_json(&self) -> Value {
        json!({"at": self.when(), "level": self.level, "text": self.text})
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        };
        let text: String = self.text.trim_end().chars().map(plain).collect();
        let level: String = self.level.chars().map(plain).collect();
        write!(
            f,
            "{}  {level:<5}  {}",
            self.when(),
            text.replace('\n', "\n    ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_line_by_line_and_shown_without_control_characters() {
        let lines = Line::all(
            "1763880000123 info one\n1763880001000 error Error: no\n      at kv.js:1\n  \u{1b}[2J\n",
        );
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].to_string(), "2025-11-23T06:40:00.123Z  info   one");
        assert_eq!(
            lines[1].to_string(),
            "2025-11-23T06:40:01.000Z  error  Error: no\n        at kv.js:1\n    \u{fffd}[2J"
        );
        assert_eq!(
            lines[1].to_json()["text"],
            "Error: no\n    at kv.js:1\n\u{1b}[2J"
        );
        for text in ["", "\n", "no line", "12", "12 info"] {
            assert_eq!(Line::all(text), [], "{text:?}");
        }
    }

    #[test]
    fn only_what_is_new_of_a_log_counts_as_new() {
        let log = |from: u64, to: u64| -> Vec<Line> {
            (from..to)
                .flat_map(|n| Line::all(&format!("{n} info {n}")))
                .collect()
        };
        assert_eq!(Line::known(&[], &log(0, 3)), 0);
        assert_eq!(Line::known(&log(0, 3), &log(0, 3)), 3);
        assert_eq!(Line::known(&log(0, 3), &log(0, 5)), 3);
        assert_eq!(Line::known(&log(0, 5), &log(2, 9)), 3, "the oldest went");
        assert_eq!(Line::known(&log(0, 5), &log(7, 9)), 0, "another runtime");
        assert_eq!(Line::known(&log(0, 5), &[]), 0);
    }
}
