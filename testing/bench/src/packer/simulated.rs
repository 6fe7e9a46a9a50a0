//! The same policies in the simulator: numbers instead of processes, so that nothing but the policy makes a difference.

use anyhow::{Context as _, Result};
use bield_load::Latency;
use bield_packer::Policy;
use bield_simulator::{Case, Comparison, Row, compare};

use super::{BUSY_LATENCY, CONTAINER_TIME};
use crate::bars::{Bar, median};

/// Measures; `seed` is the first of several.
pub(super) fn measured(seed: u64, quick: bool, bars: &mut Vec<Bar>) -> Result<()> {
    let seeds = if quick { 2 } else { 9 };
    let seeds: Vec<u64> = (seed..seed.saturating_add(seeds)).collect();
    for case in [Case::APART, Case::SHARED, Case::UNTOLD] {
        let all = seeds.iter().map(|seed| compare(&case, *seed));
        told(&case, &all.collect::<Result<Vec<_>, _>>()?, bars)?;
    }
    Ok(())
}

/// One case's rows and promises; of a packer that is not told of the cores nothing is promised.
fn told(case: &Case, all: &[Comparison], bars: &mut Vec<Bar>) -> Result<()> {
    let (name, seeds) = (case.name, all.len());
    let note = format!("median of {seeds} seeds");
    let rows = |policy: Policy| -> Result<Vec<&Row>> {
        let rows = all.iter().map(|comparison| comparison.row(policy));
        rows.collect::<Option<_>>()
            .with_context(|| format!("no row of {policy}"))
    };
    for policy in Policy::ALL {
        let rows = rows(policy)?;
        let of = |value: &dyn Fn(&Row) -> f64| median(rows.iter().map(|row| value(row)).collect());
        let mut tell = |what: &str, unit, value: &dyn Fn(&Row) -> f64| {
            let name = format!("{name}, {policy}: {what}");
            bars.push(Bar::told(name, of(value), unit, note.clone()));
        };
        tell("container time", "s", &|row| row.container_s);
        tell("memory over time", "GB·s", &|row| row.gb_s);
        tell("cold starts", "", &|row| row.cold_starts as f64);
        tell("requests without an answer", "%", &|row| {
            100.0 * row.failed as f64 / row.requests as f64
        });
        for (which, of_row) in [
            ("busy", busy_of as fn(&Row) -> Option<&Latency>),
            ("rare", rare_of),
        ] {
            let of = |part: fn(&Latency) -> f64| {
                median(
                    rows.iter()
                        .filter_map(|row| of_row(row))
                        .map(part)
                        .collect(),
                )
            };
            let told = format!(
                "median; p95 {:.0} ms, p99 {:.0} ms; the worst of these models; {note}",
                of(|latency| latency.p95_ms),
                of(|latency| latency.p99_ms)
            );
            let name = format!("{name}, {policy}: {which} models");
            bars.push(Bar::told(name, of(|latency| latency.p50_ms), "ms", told));
        }
    }
    let (bield, fnpacker) = (rows(Policy::Bield)?, rows(Policy::FnPacker)?);
    let alone = rows(Policy::OnePerModel)?;
    let pairs = |those: &[&Row], value: &dyn Fn(&Row) -> f64| {
        let ratios = bield.iter().zip(those).map(|(a, b)| value(a) / value(b));
        median(ratios.collect())
    };
    let mut promised = |what: &str, value, most, unit: Option<&'static str>| {
        let what = format!("{name}: {what}");
        let bar = match *case == Case::UNTOLD {
            true => Bar::told(what, value, unit.unwrap_or("×"), note.clone()),
            false => Bar::at_most(what, value, most, note.clone()),
        };
        bars.push(match unit {
            Some(unit) => bar.of(unit),
            None => bar,
        });
    };
    let time = pairs(&fnpacker, &|row| row.container_s);
    promised(
        "container time, bield ÷ fnpacker",
        time,
        CONTAINER_TIME,
        None,
    );
    let failed = bield.iter().map(|row| row.failed as f64).sum();
    let what = "requests without an answer, bield, all seeds";
    promised(what, failed, 0.0, Some("requests"));
    let busy = |row: &Row| row.busy.as_ref().map_or(f64::NAN, |busy| busy.p50_ms);
    let what = "busy models' median latency, bield ÷ one-per-model";
    promised(what, pairs(&alone, &busy), BUSY_LATENCY, None);
    Ok(())
}

const fn busy_of(row: &Row) -> Option<&Latency> {
    row.busy.as_ref()
}

const fn rare_of(row: &Row) -> Option<&Latency> {
    row.rare.as_ref()
}
