//! Results: one row a promise.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One measured value and the bar it is held against.
#[derive(Serialize)]
pub(crate) struct Bar {
    /// What was measured.
    pub(crate) name: String,
    /// The measured value; a ratio where there is a target.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The most it may be; `None` for a value that is only told.
    pub(crate) target: Option<f64>,
    /// Whether it holds; `None` without a target.
    pub(crate) holds: Option<bool>,
    /// What it was measured from.
    pub(crate) note: String,
}

impl Bar {
    /// A ratio that must not exceed `target`.
    pub(crate) fn at_most(name: String, value: f64, target: f64, note: String) -> Self {
        Self {
            name,
            value,
            unit: "ratio",
            target: Some(target),
            holds: Some(value <= target),
            note,
        }
    }

    /// A value that is only told.
    pub(crate) fn told(name: String, value: f64, unit: &'static str, note: String) -> Self {
        Self {
            name,
            value,
            unit,
            target: None,
            holds: None,
            note,
        }
    }
}

/// Prints a table and writes `target/bench/NAME.json` below the folder of the programs.
pub(crate) fn report(name: &str, programs: &Path, bars: &[Bar]) -> Result<()> {
    let width = bars.iter().map(|bar| bar.name.len()).max().unwrap_or(0);
    println!(
        "\n{:width$}  {:>8}  {:>8}  holds  note",
        name, "value", "target"
    );
    for bar in bars {
        let target = bar
            .target
            .map_or_else(|| "–".to_owned(), |target| format!("{target:.2}"));
        let holds = match bar.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "–",
        };
        let unit = if bar.unit == "ratio" { "" } else { bar.unit };
        println!(
            "{:width$}  {:>8.3}  {target:>8}  {holds:>5}  {unit} {}",
            bar.name, bar.value, bar.note
        );
    }
    let folder = programs.parent().unwrap_or(programs).join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_vec_pretty(bars)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// The middle of some durations, in milliseconds.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least of some durations, in milliseconds: what the machine can do when nobody disturbs it.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
