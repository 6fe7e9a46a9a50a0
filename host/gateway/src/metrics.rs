//! `GET /metrics`: counts of the programs and of this gateway, as Prometheus text (format 0.0.4).
//!
//! Goes in: reports of programs, which this host does not trust and which must not be able to write a line
//! of their own here. Comes out: `bield_keys_…`, `bield_runtime_…{worker="N"}` and `bield_gateway_…`.
//! Always true: a name from a program has only `[a-z0-9_]`; no name comes twice; at most
//! [`PROGRAM_METRICS_MAX`] of a program are shown. None names a principal, model, package or key, as the
//! programs promise (`core/protocol` `status`).

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use bield_packer::{View, WorkerState};
use bield_protocol::status::{STATES, Status};

use crate::keys_port::SessionCounts;
use crate::series::{KINDS, PHASES, Sums};

/// Metrics of its own that one program may show.
const PROGRAM_METRICS_MAX: usize = 256;

/// One program as the host sees it.
pub(crate) struct Program {
    pub(crate) running: bool,
    pub(crate) starts: u64,
    /// Its own word, if it has given it.
    pub(crate) report: Option<Status>,
}

/// Prometheus text under construction.
#[derive(Default)]
pub(crate) struct Text {
    /// Lines by name: those of one name must stand together.
    lines: BTreeMap<String, String>,
}

impl Text {
    /// Adds the key service's metrics.
    pub(crate) fn keys(&mut self, program: &Program) {
        self.program("bield_keys_", "", program);
        let word = program.report.as_ref().map(|report| report.state.as_str());
        for state in STATES {
            let labels = format!("{{state=\"{state}\"}}");
            self.line("bield_keys_state", &labels, u64::from(word == Some(state)));
        }
        let Some(report) = &program.report else {
            return;
        };
        for metric in report.metrics.iter().take(PROGRAM_METRICS_MAX) {
            let name = format!("bield_keys_{}", metric.name);
            if metric.is_well_named() && !self.lines.contains_key(&name) {
                self.line(&name, "", metric.value);
            }
        }
    }

    /// Adds a runtime's metrics.
    pub(crate) fn runtime(&mut self, worker: u32, program: &Program) {
        let labels = format!("{{worker=\"{worker}\"}}");
        self.program("bield_runtime_", &labels, program);
        if let Some(report) = &program.report {
            self.line("bield_runtime_resident", &labels, report.resident);
        }
    }

    /// Adds what the gateway knows of the sessions with its key service.
    pub(crate) fn sessions(&mut self, port: &str, counts: &SessionCounts) {
        let labels = format!("{{port=\"{port}\"}}");
        let open = u64::try_from(counts.open).unwrap_or(u64::MAX);
        self.line("bield_gateway_sessions", &labels, open);
        self.line("bield_gateway_sessions_begun_total", &labels, counts.begun);
        let name = "bield_gateway_sessions_gave_way_total";
        self.line(name, &labels, counts.gave_way);
        for (why, count) in [
            ("full", counts.refused_full),
            ("share", counts.refused_share),
        ] {
            let labels = format!("{{port=\"{port}\",why=\"{why}\"}}");
            self.line("bield_gateway_sessions_refused_total", &labels, count);
        }
    }

    /// Adds what the packer sees of the pool.
    pub(crate) fn pool(&mut self, view: &View) {
        let name = "bield_gateway_workers";
        for state in [
            WorkerState::Starting,
            WorkerState::Empty,
            WorkerState::Serving,
            WorkerState::Avoided,
            WorkerState::Retiring,
            WorkerState::Stopping,
        ] {
            let count = view
                .workers
                .iter()
                .filter(|worker| worker.state == state)
                .count();
            let word = serde_json::to_value(state).unwrap_or_default();
            let labels = format!("{{state={word}}}");
            self.line(name, &labels, u64::try_from(count).unwrap_or(u64::MAX));
        }
        let waiting = u64::try_from(view.waiting).unwrap_or(u64::MAX);
        self.line("bield_gateway_waiting", "", waiting);
        let totals = &view.totals;
        for (name, value) in [
            ("bield_gateway_calls_total", totals.arrived),
            ("bield_gateway_calls_retried_total", totals.retried),
            ("bield_gateway_calls_left_total", totals.left),
            (
                "bield_gateway_workers_started_total",
                totals.workers_started,
            ),
            (
                "bield_gateway_workers_stopped_total",
                totals.workers_stopped,
            ),
            ("bield_gateway_cold_starts_total", totals.cold_starts),
        ] {
            self.line(name, "", value);
        }
        self.real("bield_gateway_gb_seconds_total", "", totals.gb_s);
    }

    /// Adds what became of calls: answers by start kind, seconds by phase, refusals by code.
    pub(crate) fn calls(&mut self, sums: &Sums) {
        let name = "bield_gateway_answers_total";
        let kinds = KINDS.iter().map(|(_, kind)| *kind).zip(sums.starts);
        for (kind, count) in kinds.chain([("unknown", sums.silent)]) {
            self.line(name, &format!("{{start=\"{kind}\"}}"), count);
        }
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        for (phase, us) in PHASES.iter().zip(sums.phases_us) {
            let labels = format!("{{phase=\"{phase}\"}}");
            self.real("bield_gateway_phase_seconds_total", &labels, seconds(us));
        }
        self.real(
            "bield_gateway_latency_seconds_total",
            "",
            seconds(sums.latency_us),
        );
        for (code, count) in &sums.refusals {
            let labels = format!("{{code=\"{code}\"}}");
            self.line("bield_gateway_refusals_total", &labels, *count);
        }
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.lines.into_values().collect()
    }

    fn program(&mut self, prefix: &str, labels: &str, program: &Program) {
        let mut line = |name: &str, value| self.line(&format!("{prefix}{name}"), labels, value);
        line("up", u64::from(program.running));
        line("starts_total", program.starts);
        let Some(report) = &program.report else {
            return;
        };
        line("in_flight", report.in_flight);
        line("served_total", report.served);
        line("refused_total", report.refused);
    }

    /// Adds one line, and its type before the first of this name. What grows ends in `_total`.
    fn line(&mut self, name: &str, labels: &str, value: u64) {
        self.any(name, labels, &value);
    }

    /// As [`line`](Self::line), of what is no whole number.
    fn real(&mut self, name: &str, labels: &str, value: f64) {
        self.any(name, labels, &value);
    }

    fn any(&mut self, name: &str, labels: &str, value: &dyn Display) {
        let lines = self.lines.entry(name.to_owned()).or_insert_with(|| {
            let counts = name.ends_with("_total");
            let kind = if counts { "counter" } else { "gauge" };
            format!("# TYPE {name} {kind}\n")
        });
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use bield_protocol::status::Metric;

    use super::*;

    fn reporting(state: &str, metrics: &[(&str, u64)]) -> Program {
        let metrics = metrics.iter().map(|(name, value)| Metric {
            name: (*name).to_owned(),
            value: *value,
        });
        Program {
            running: true,
            starts: 1,
            report: Some(Status {
                program: "bield-keys".to_owned(),
                version: String::new(),
                measurement: String::new(),
                simulated: true,
                hardening: vec![],
                missing: vec![],
                in_flight: 2,
                served: 3,
                refused: 4,
                resident: 0,
                state: state.to_owned(),
                metrics: metrics.collect(),
            }),
        }
    }

    #[test]
    fn a_program_cannot_write_lines_of_its_own() {
        let mut text = Text::default();
        text.keys(&reporting(
            "evil\"} 1\nx 2",
            &[
                ("leases_total", 5),
                ("leases_total", 6),
                ("up", 0),
                ("a{model=\"m\"}", 7),
                ("b 1\nbield_keys_c", 8),
            ],
        ));
        assert_eq!(
            text.finish(),
            "# TYPE bield_keys_in_flight gauge\nbield_keys_in_flight 2\n\
             # TYPE bield_keys_leases_total counter\nbield_keys_leases_total 5\n\
             # TYPE bield_keys_refused_total counter\nbield_keys_refused_total 4\n\
             # TYPE bield_keys_served_total counter\nbield_keys_served_total 3\n\
             # TYPE bield_keys_starts_total counter\nbield_keys_starts_total 1\n\
             # TYPE bield_keys_state gauge\n\
             bield_keys_state{state=\"serving\"} 0\nbield_keys_state{state=\"following\"} 0\n\
             bield_keys_state{state=\"forming\"} 0\nbield_keys_state{state=\"recovering\"} 0\n\
             bield_keys_state{state=\"stopped\"} 0\n\
             # TYPE bield_keys_up gauge\nbield_keys_up 1\n"
        );
    }

    #[test]
    fn a_flood_of_metrics_is_bounded_and_two_runtimes_share_a_type_line() {
        let names: Vec<String> = (0..1000).map(|n| format!("m{n}")).collect();
        let metrics: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let mut text = Text::default();
        text.keys(&reporting("serving", &metrics));
        assert_eq!(
            text.finish().matches("bield_keys_m").count(),
            2 * PROGRAM_METRICS_MAX
        );

        let mut text = Text::default();
        for worker in 0..2 {
            text.runtime(worker, &reporting("", &[("own", 1)]));
        }
        let text = text.finish();
        assert_eq!(text.matches("# TYPE bield_runtime_up gauge\n").count(), 1);
        let together = "bield_runtime_up{worker=\"0\"} 1\nbield_runtime_up{worker=\"1\"} 1\n";
        assert!(text.contains(together), "{text}");
        assert!(!text.contains("own"), "{text}");
    }
}
