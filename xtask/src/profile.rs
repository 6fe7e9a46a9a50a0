//! The release profile keeps the checks that something else relies on.
//!
//! In: the workspace's `Cargo.toml`. Always true of one that passes: no package of a release build, nor of a profile made
//! from it, computes on after an overflow. Left to others: what a build's environment sets.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use toml::{Table, Value};

use crate::programs::root;

const KEY: &str = "overflow-checks";

/// Fails when the workspace's release builds would not stop at an overflow.
pub(crate) fn check() -> Result<()> {
    let file = root().join("Cargo.toml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let manifest: Table = text.parse()?;
    ensure!(
        stops_at_overflows(&manifest),
        "Cargo.toml: [profile.release] must say `overflow-checks = true`, and no profile or package in one may say \
         otherwise: rten multiplies the lengths of hostile shapes and indexes unchecked by the product (its issue 1373), \
         so that a wrap would be out of bounds"
    );
    println!("release builds stop at overflows");
    Ok(())
}

fn stops_at_overflows(manifest: &Table) -> bool {
    let profiles = manifest.get("profile").and_then(Value::as_table);
    let release = profiles.and_then(|profiles| profiles.get("release"));
    let says = release.and_then(|release| release.get(KEY));
    let denied = profiles.is_some_and(|profiles| profiles.values().any(denies));
    says.and_then(Value::as_bool) == Some(true) && !denied
}

/// Whether this, or anything in it, turns the checks off.
fn denies(value: &Value) -> bool {
    let Some(table) = value.as_table() else {
        return false;
    };
    table
        .get(KEY)
        .is_some_and(|says| says.as_bool() != Some(true))
        || table.values().any(denies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_profile_that_computes_on_is_found() {
        let stops = |text: &str| stops_at_overflows(&text.parse().unwrap());
        assert!(stops(
            "[profile.release]\noverflow-checks = true\nstrip = true"
        ));
        assert!(stops(
            "[profile.dev]\ndebug = 1\n[profile.release]\noverflow-checks = true"
        ));
        for text in [
            "",
            "[profile.release]\nstrip = true",
            "[profile.release]\noverflow-checks = false",
            "[profile.dev]\noverflow-checks = true",
            "[profile.release]\noverflow-checks = true\n[profile.release.package.rten]\noverflow-checks = false",
            "[profile.release]\noverflow-checks = true\n[profile.fast]\ninherits = \"release\"\noverflow-checks = false",
        ] {
            assert!(!stops(text), "{text}");
        }
    }
}
