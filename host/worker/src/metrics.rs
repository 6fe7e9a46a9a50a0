//! `GET /metrics` on a port of its own: Prometheus text (format 0.0.4) of this worker.
//!
//! | name | labels |
//! |---|---|
//! | `bield_worker_up`, `_starts_total`, `_in_flight` | |
//! | `bield_worker_requests_total` | `start` |
//! | `bield_worker_phase_seconds_total` | `start`, `phase`: lease, open, load, run, queue |
//! | `bield_worker_request_seconds` (histogram, the runtime's own total) | `start` |
//! | `bield_worker_refusals_total` | `kind` |
//!
//! Always true: labels are from lists that stand here, so that neither a request nor a runtime adds a line; no model, user or
//! key is named. The times are the runtime's word.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use bield_protocol::feedback::{Feedback, StartKind};

use crate::worker::Worker;

const STARTS: [&str; 5] = ["hot", "warm-runtime", "warm-model", "warm-key", "cold"];
const PHASES: [&str; 5] = ["lease", "open", "load", "run", "queue"];
/// Upper bounds in milliseconds: a hot tiny model to a cold large one.
const BUCKETS_MS: [u64; 12] = [
    1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 60_000, 120_000,
];
/// Codes of refusals, the host's and those a runtime makes in public; others count as the last.
const REFUSALS: [&str; 21] = [
    "unsealed",
    "too-long",
    "slow-body",
    "cut-body",
    "memory",
    "draining",
    "starting",
    "busy",
    "too-late",
    "runtime-lost",
    "timed-out",
    "bad-answer",
    "other-version",
    "stopping",
    "malformed",
    "not-opened",
    "no-lease",
    "key-service-unreachable",
    "other-model",
    "no-such-model",
    "other",
];

/// What was counted since the start.
#[derive(Default)]
pub(crate) struct Counts(Mutex<Totals>);

#[derive(Default)]
struct Totals {
    starts: [PerStart; STARTS.len()],
    refusals: [u64; REFUSALS.len()],
}

#[derive(Default, Clone, Copy)]
struct PerStart {
    requests: u64,
    phases_us: [u64; PHASES.len()],
    total_us: u64,
    buckets: [u64; BUCKETS_MS.len()],
}

impl Counts {
    pub(crate) fn answered(&self, feedback: &Feedback) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = &mut totals.starts[place(feedback.start)];
        one.requests += 1;
        let phases = [
            feedback.lease_us,
            feedback.open_us,
            feedback.load_us,
            feedback.run_us,
            feedback.queue_us,
        ];
        for (sum, took) in one.phases_us.iter_mut().zip(phases) {
            *sum = sum.saturating_add(took);
        }
        one.total_us = one.total_us.saturating_add(feedback.total_us);
        for (count, bound) in one.buckets.iter_mut().zip(BUCKETS_MS) {
            *count += u64::from(feedback.total_us <= bound * 1000);
        }
    }

    pub(crate) fn refused(&self, code: &str) {
        let kind = REFUSALS.iter().position(|known| *known == code);
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.refusals[kind.unwrap_or(REFUSALS.len() - 1)] += 1;
    }

    fn write(&self, text: &mut String) {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kind(text, "requests_total", "counter");
        for (start, one) in STARTS.iter().zip(&totals.starts) {
            line(
                text,
                "requests_total",
                &format!("start=\"{start}\""),
                one.requests,
            );
        }
        kind(text, "phase_seconds_total", "counter");
        for (start, one) in STARTS.iter().zip(&totals.starts) {
            for (phase, us) in PHASES.iter().zip(one.phases_us) {
                let labels = format!("start=\"{start}\",phase=\"{phase}\"");
                line(text, "phase_seconds_total", &labels, seconds(us));
            }
        }
        kind(text, "request_seconds", "histogram");
        for (start, one) in STARTS.iter().zip(&totals.starts) {
            let own = format!("start=\"{start}\"");
            for (bound, count) in BUCKETS_MS.iter().zip(one.buckets) {
                let labels = format!("{own},le=\"{}\"", seconds(bound * 1000));
                line(text, "request_seconds_bucket", &labels, count);
            }
            let all = format!("{own},le=\"+Inf\"");
            line(text, "request_seconds_bucket", &all, one.requests);
            line(text, "request_seconds_sum", &own, seconds(one.total_us));
            line(text, "request_seconds_count", &own, one.requests);
        }
        kind(text, "refusals_total", "counter");
        for (refusal, count) in REFUSALS.iter().zip(totals.refusals) {
            line(
                text,
                "refusals_total",
                &format!("kind=\"{refusal}\""),
                count,
            );
        }
    }
}

pub(crate) fn router(worker: &Arc<Worker>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(worker))
}

async fn metrics(State(worker): State<Arc<Worker>>) -> impl IntoResponse {
    let mut text = String::new();
    let (up, starts) = worker.life();
    for (name, shape, value) in [
        ("up", "gauge", u64::from(up)),
        ("starts_total", "counter", starts),
        ("in_flight", "gauge", worker.in_flight()),
    ] {
        kind(&mut text, name, shape);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "bield_worker_{name} {value}");
    }
    worker.counts.write(&mut text);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text)
}

const fn place(start: StartKind) -> usize {
    match start {
        StartKind::Hot => 0,
        StartKind::WarmRuntime => 1,
        StartKind::WarmModel => 2,
        StartKind::WarmKey => 3,
        // A kind that is not known yet is counted as the slowest.
        _ => 4,
    }
}

/// Microseconds as seconds, exact.
fn seconds(us: u64) -> String {
    match us % 1_000_000 {
        0 => (us / 1_000_000).to_string(),
        rest => {
            let text = format!("{}.{rest:06}", us / 1_000_000);
            text.trim_end_matches('0').to_owned()
        }
    }
}

fn kind(text: &mut String, name: &str, kind: &str) {
    let _ = writeln!(text, "# TYPE bield_worker_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "bield_worker_{name}{{{labels}}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(start: StartKind, total_us: u64) -> Feedback {
        Feedback {
            start,
            lease_us: 1_500_000,
            open_us: 0,
            load_us: 0,
            run_us: u64::MAX,
            total_us,
            resident: vec![],
            in_flight: 1,
            queue_us: 0,
            free_bytes: 0,
            engine: Some("evil\"} 1".to_owned()),
            state: None,
        }
    }

    #[test]
    fn answers_and_refusals_are_counted_under_known_labels_alone() {
        let counts = Counts::default();
        counts.answered(&feedback(StartKind::Cold, 2_000_000));
        counts.answered(&feedback(StartKind::Cold, u64::MAX));
        counts.refused("busy");
        counts.refused("evil\"} 1");
        let mut text = String::new();
        counts.write(&mut text);
        for line in [
            "bield_worker_requests_total{start=\"cold\"} 2\n",
            "bield_worker_requests_total{start=\"hot\"} 0\n",
            "bield_worker_phase_seconds_total{start=\"cold\",phase=\"lease\"} 3\n",
            "bield_worker_phase_seconds_total{start=\"cold\",phase=\"run\"} 18446744073709.551615\n",
            "bield_worker_request_seconds_bucket{start=\"cold\",le=\"1\"} 0\n",
            "bield_worker_request_seconds_bucket{start=\"cold\",le=\"3\"} 1\n",
            "bield_worker_request_seconds_bucket{start=\"cold\",le=\"+Inf\"} 2\n",
            "bield_worker_refusals_total{kind=\"busy\"} 1\n",
            "bield_worker_refusals_total{kind=\"other\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("evil"));
        assert_eq!([seconds(30_000), seconds(1)], ["0.03", "0.000001"]);
    }
}
