//! What is said and written at the end.

use std::fmt;
use std::path::{Path, PathBuf};

use bield_load::plot::{latency_by_start, over_time};
use bield_load::{Done, Report, Trace};
use bield_sdk::write_atomically;
use serde_json::{Value, json};

use super::observed::Observed;
use crate::failure::Failure;

/// Everything about one replay.
pub(super) struct Outcome<'a> {
    pub(super) title: String,
    pub(super) settings: Value,
    pub(super) trace: &'a Trace,
    pub(super) done: Vec<Done>,
    pub(super) report: Report,
    pub(super) observed: Observed,
}

impl Outcome<'_> {
    /// The report as JSON.
    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({ "settings": self.settings, "measured": self.report });
        let told = self.observed.to_json();
        if !told.is_null() {
            // Separate, so that nobody takes it for measured.
            value["host_says"] = told;
        }
        value
    }

    /// Writes report, plots and trace; returns their paths.
    pub(super) fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let at = |error| Failure::local(format_args!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(at)?;
        let report = serde_json::to_vec_pretty(&self.to_json()).map_err(Failure::local)?;
        let latency = latency_by_start(&format!("Latency: {}", self.title), &self.done);
        let title = format!("Requests and starts: {}", self.title);
        let over = over_time(&title, &self.done, self.observed.panels());
        let files = [
            ("report.json", report),
            ("latency.svg", latency.into_bytes()),
            ("load.svg", over.into_bytes()),
            ("trace.csv", self.trace.to_csv().into_bytes()),
        ];
        let write = |(name, bytes): (&str, Vec<u8>)| {
            let path = folder.join(name);
            write_atomically(&path, &bytes)?;
            Ok(path)
        };
        files.into_iter().map(write).collect()
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        writeln!(
            f,
            "{} requests in {:.1} s: {} answered and verified ({:.1} a second), {} turned away, {} failed",
            report.requests,
            report.seconds,
            report.answered,
            report.answers_per_second,
            report.turned_away,
            report.failed
        )?;
        for (kind, count) in &report.endings {
            writeln!(f, "  {count:>7}  {kind}")?;
        }
        writeln!(
            f,
            "\n{:<24} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "latency, ms", "answers", "p50", "p95", "p99", "max"
        )?;
        let mut row = |name: &str, latency: &bield_load::Latency| {
            writeln!(
                f,
                "{name:<24} {:>8} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                latency.count, latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms
            )
        };
        if let Some(all) = &report.latency {
            row("all", all)?;
        }
        for (name, latency) in &report.latency_by_start {
            row(&format!("  {name}"), latency)?;
        }
        for (name, model) in &report.models {
            if let Some(latency) = &model.latency {
                row(name, latency)?;
            }
        }
        if let Some(late) = &report.client_late {
            write!(
                f,
                "\nsent late by this client: p50 {:.1} ms, p99 {:.1} ms (part of the latencies above)",
                late.p50_ms, late.p99_ms
            )?;
        }
        let told = self.observed.to_json();
        if let Some(told) = told.as_object() {
            let listed = told.iter().map(|(name, value)| match value.as_f64() {
                Some(number) => format!("{name} {number:.1}"),
                None => format!("{name} {}", value.as_str().unwrap_or_default()),
            });
            let listed: Vec<_> = listed.collect();
            write!(f, "\nthe host says, unproven: {}", listed.join(", "))?;
        }
        Ok(())
    }
}
