//! Results: one row a promise.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One measured value and the bar it is held against.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bar {
    /// What was measured.
    pub(crate) name: String,
    /// The measured value; null where nothing could be measured.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) value: f64,
    /// Its unit, and the target's.
    pub(crate) unit: Cow<'static, str>,
    /// The most or the least it may be; `None` for a value that is only told.
    pub(crate) target: Option<f64>,
    /// Whether it holds; `None` without a target.
    pub(crate) holds: Option<bool>,
    /// What it was measured from.
    pub(crate) note: String,
    /// `≤` or `≥`; empty without a target.
    side: Cow<'static, str>,
}

impl Bar {
    /// A ratio that must not exceed `target`.
    pub(crate) fn at_most(name: String, value: f64, target: f64, note: String) -> Self {
        Self {
            name,
            value,
            unit: "ratio".into(),
            target: Some(target),
            holds: Some(value <= target),
            note,
            side: "≤".into(),
        }
    }

    /// A ratio that must reach `target`.
    pub(crate) fn at_least(name: String, value: f64, target: f64, note: String) -> Self {
        Self {
            holds: Some(value >= target),
            side: "≥".into(),
            ..Self::at_most(name, value, target, note)
        }
    }

    /// The same bar in a unit, for what is promised as such.
    pub(crate) fn of(mut self, unit: &'static str) -> Self {
        self.unit = unit.into();
        self
    }

    /// The same bar, which does not hold unless this does too.
    pub(crate) fn provided(mut self, holds: bool) -> Self {
        self.holds = self.holds.map(|own| own && holds);
        self
    }

    /// The same bar, under the name of the bench that measured it.
    pub(crate) fn renamed(mut self, bench: &str) -> Self {
        self.name = format!("{bench}: {}", self.name);
        self
    }

    /// A value that is only told.
    pub(crate) fn told(name: String, value: f64, unit: &'static str, note: String) -> Self {
        Self {
            name,
            value,
            unit: unit.into(),
            target: None,
            holds: None,
            note,
            side: "".into(),
        }
    }

    /// A row that this machine cannot fill, and why.
    pub(crate) fn missing(name: String, why: &str) -> Self {
        Self::told(name, f64::NAN, "", format!("NOT MEASURED: {why}"))
    }
}

/// Prints a table and writes `target/bench/NAME.json` below the folder of the programs.
pub(crate) fn report(name: &str, programs: &Path, bars: &[Bar]) -> Result<()> {
    let width = bars
        .iter()
        .map(|bar| bar.name.chars().count())
        .max()
        .unwrap_or(0);
    println!(
        "\n{:width$}  {:>12}  {:>8}  holds  note",
        name, "value", "target"
    );
    for bar in bars {
        let target = bar.target.map_or_else(
            || "–".to_owned(),
            |target| format!("{}{target:.2}", bar.side),
        );
        let holds = match bar.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "–",
        };
        let unit = if bar.unit == "ratio" { "" } else { &bar.unit };
        println!(
            "{:width$}  {:>12}  {target:>8}  {holds:>5}  {unit} {}",
            bar.name,
            readable(bar.value),
            bar.note
        );
    }
    let folder = folder(programs);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_vec_pretty(bars)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// Writes a picture and says where.
pub(crate) fn picture(file: &Path, svg: &str) -> Result<()> {
    fs::write(file, svg).with_context(|| file.display().to_string())?;
    println!("written to {}", file.display());
    Ok(())
}

/// What another bench reported last.
pub(crate) fn read(name: &str, programs: &Path) -> Result<Vec<Bar>> {
    let file = folder(programs).join(format!("{name}.json"));
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// JSON has no word for what could not be measured but null.
fn or_nan<'de, D: serde::Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// Where results go: beside the folder of the programs.
pub(crate) fn folder(programs: &Path) -> std::path::PathBuf {
    programs.parent().unwrap_or(programs).join("bench")
}

/// Three decimals for small values, whole numbers with spaces for large ones.
fn readable(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    if value.abs() < 10_000.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// The median of the ratios of values that were measured side by side, pair by pair.
pub(crate) fn ratio(these: &[f64], those: &[f64]) -> f64 {
    median(these.iter().zip(those).map(|(a, b)| a / b).collect())
}

/// The middle of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_in_megabytes_says_so_in_the_file() {
        let bar = Bar::at_most("memory".into(), 29.0, 25.0, String::new()).of("MB");
        let told = serde_json::to_value([&bar]).unwrap();
        assert_eq!(told[0]["unit"], "MB");
        assert_eq!(told[0]["target"], 25.0);
        assert_eq!(told[0]["holds"], false);
    }
}
