//! Checks and tensors in words.

use std::fmt::{self, Write as _};

use bield_evidence::{Check, Outcome};
use bield_sdk::{ElementType, Tensor};
use serde_json::{Value, json};

use crate::tensors;

/// Every check on two lines: its outcome, then what was found and what was wanted.
pub(crate) struct Checks<'a>(pub(crate) &'a [Check]);

impl fmt::Display for Checks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .0
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        for check in self.0 {
            let outcome = match check.outcome {
                Outcome::Passed => "passed     ",
                Outcome::Failed => "FAILED     ",
                _ => "NOT CHECKED",
            };
            writeln!(f, "{outcome}  {:width$}  {}", check.name, check.have)?;
            if check.outcome != Outcome::Passed {
                let mover = check.mover;
                writeln!(f, "{:13}{:width$}  need: {} ({mover})", "", "", check.need)?;
            }
        }
        write!(f, "{}", self.summary())
    }
}

impl Checks<'_> {
    fn count(&self, outcome: Outcome) -> usize {
        self.0
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    }

    fn summary(&self) -> String {
        format!(
            "{} passed, {} FAILED, {} NOT CHECKED",
            self.count(Outcome::Passed),
            self.count(Outcome::Failed),
            self.count(Outcome::NotChecked)
        )
    }

    /// The checks as JSON, with counts.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "checks": self.0,
            "counts": {
                "passed": self.count(Outcome::Passed),
                "failed": self.count(Outcome::Failed),
                "not_checked": self.count(Outcome::NotChecked),
            },
        })
    }
}

/// One line a tensor: what it is, and its first values.
pub(crate) struct Tensors<'a>(pub(crate) &'a [Tensor]);

impl fmt::Display for Tensors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tensor) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            write!(
                f,
                "{} = [{}",
                tensor.spec(),
                first_values(tensor).join(", ")
            )?;
            let more = tensor.len().saturating_sub(VALUES_SHOWN);
            if more > 0 {
                write!(f, ", … {more} more; --json shows all")?;
            }
            f.write_char(']')?;
        }
        Ok(())
    }
}

fn first_values(tensor: &Tensor) -> Vec<String> {
    let is_text = tensor.element() == ElementType::String;
    let values = tensors::values(tensor, VALUES_SHOWN).into_iter();
    let shown = values.map(|value| match value {
        Value::String(text) if is_text => shown_text(&text),
        // Numbers that JSON cannot write.
        Value::String(number) => number,
        value => value.to_string(),
    });
    shown.collect()
}

/// A model's text, which may be anything: short, and with nothing in it that a terminal obeys or that turns letters round.
fn shown_text(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Characters of one text in a line for people.
const TEXT_CHARS_SHOWN: usize = 64;
/// Values of one tensor in a line for people.
const VALUES_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(texts: &[&str]) -> String {
        let tensor = Tensor::from_strings("said", &[texts.len() as u64], texts).unwrap();
        Tensors(&[tensor]).to_string()
    }

    #[test]
    fn text_is_shown_short_and_without_anything_that_a_terminal_obeys() {
        for (text, wanted) in [
            ("plain", "\"plain\""),
            ("größer, 大きい", "\"größer, 大きい\""),
            ("a \"b\"\n\\", r#""a \"b\"\n\\""#),
            ("\u{1b}[31m", r#""\u{1b}[31m""#),
            ("\u{7f}\u{9b}2J", r#""\u{7f}\u{9b}2J""#),
            (
                "\u{202e}cod\u{2066}\u{200f}",
                r#""\u{202e}cod\u{2066}\u{200f}""#,
            ),
        ] {
            let line = shown(&[text]);
            assert!(line.ends_with(&format!(" = [{wanted}]")), "{line}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        let long = "ü".repeat(TEXT_CHARS_SHOWN + 1);
        let line = shown(&["ü", &long]);
        let cut = "ü".repeat(TEXT_CHARS_SHOWN);
        assert!(line.ends_with(&format!("[\"ü\", \"{cut}\"…]")), "{line}");
    }

    #[test]
    fn json_has_the_whole_text() {
        let long = "\u{202e}".repeat(TEXT_CHARS_SHOWN + 1);
        let tensor = Tensor::from_strings("said", &[1], &[&long]).unwrap();
        assert_eq!(tensors::to_json(&[tensor])["said"]["data"][0], long);
    }
}
