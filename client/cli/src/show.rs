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
        // Numbers that JSON cannot write.
        Value::String(number) if !is_text => number,
        value => value.to_string(),
    });
    shown.collect()
}

/// Values of one tensor in a line for people.
const VALUES_SHOWN: usize = 8;
