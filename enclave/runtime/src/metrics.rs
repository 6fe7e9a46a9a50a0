//! What this program counts for its host: nothing that names anybody.
//!
//! | name | counts |
//! |---|---|
//! | `leases` | packages whose keys are here |
//! | `leases_total`, `renewals_total` | leases got, and those of them that were got in the background |
//! | `lease_failures_total` | questions to the key service without an answer |
//! | `lease_refusals_total` | questions that it answered with no |
//! | `not_fresh_total` | sessions ended because its state was not the newest |
//! | `starts_hot_total`, … | sealed answers by what they had to wait for |
//! | `starts_hot_us_total`, … | how long those took, from a request's last byte to the answer's first |
//! | `lease_us_total`, `open_us_total`, `load_us_total`, `queue_us_total`, `run_us_total` | the same by phase |
//! | `models`, `models_bytes`, `models_free_bytes` | models that are loaded, and memory for models |
//! | `evictions_total` | models that made room for others |
//! | `waiting` | requests that wait for a turn |
//! | `batches_total`, `batched_requests_total`, `batch_largest` | runs of several requests, those in them, the most in one |
//! | `batches_retried_total` | such runs that failed, after which each request ran by itself |
//! | `batching_refused_total` | models that answer differently so, and do not run so |
//! | `batching_unproven_total` | models that nothing shows not to (no golden pair that tells, first axes of other names), nor run so |
//! | `tiers_swapped_total`, `tiers_failed_total` | models that went on to the engine preferred for them, and that did not |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::status::Metric;

use crate::batches::BatchCounts;
use crate::leases::LeaseCounts;
use crate::models::ModelCounts;
use crate::tiers::TierCounts;

/// Counts since start that belong to no cache.
#[derive(Default)]
pub(crate) struct Metrics {
    starts: [AtomicU64; STARTS.len()],
    /// Microseconds, parallel to `starts`.
    took: [AtomicU64; STARTS.len()],
    /// Microseconds, parallel to `PHASES`.
    phases: [AtomicU64; PHASES.len()],
    not_fresh: Arc<AtomicU64>,
    pub(crate) tiers: Arc<TierCounts>,
    pub(crate) batches: Arc<BatchCounts>,
}

/// What a sealed answer had to wait for, and its name.
const STARTS: [(StartKind, &str); 5] = [
    (StartKind::Hot, "hot"),
    (StartKind::WarmRuntime, "warm_runtime"),
    (StartKind::WarmModel, "warm_model"),
    (StartKind::WarmKey, "warm_key"),
    (StartKind::Cold, "cold"),
];

/// A phase in a feedback, and the name of its sum.
type Phase = (fn(&Feedback) -> u64, &'static str);
const PHASES: [Phase; 5] = [
    (|told| told.lease_us, "lease_us_total"),
    (|told| told.open_us, "open_us_total"),
    (|told| told.load_us, "load_us_total"),
    (|told| told.queue_us, "queue_us_total"),
    (|told| told.run_us, "run_us_total"),
];

impl Metrics {
    /// `not_fresh` counts on where it is.
    pub(crate) fn new(not_fresh: Arc<AtomicU64>) -> Self {
        Self {
            not_fresh,
            ..Self::default()
        }
    }

    /// Notes a sealed answer.
    pub(crate) fn note_answer(&self, told: &Feedback) {
        let known = STARTS.iter().position(|(kind, _)| *kind == told.start);
        let counts = known.and_then(|kind| Some((self.starts.get(kind)?, self.took.get(kind)?)));
        if let Some((starts, took)) = counts {
            starts.fetch_add(1, Ordering::Relaxed);
            took.fetch_add(told.total_us, Ordering::Relaxed);
        }
        for ((read, _), sum) in PHASES.iter().zip(&self.phases) {
            sum.fetch_add(read(told), Ordering::Relaxed);
        }
    }

    /// All of it, for the status.
    pub(crate) fn tell(
        &self,
        leases: &LeaseCounts,
        models: &ModelCounts,
        waiting: usize,
    ) -> Vec<Metric> {
        let metric = |name: &str, value| Metric {
            name: name.to_owned(),
            value,
        };
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut all = vec![
            metric("leases", leases.held),
            metric("leases_total", leases.fetched),
            metric("renewals_total", leases.renewed),
            metric("lease_failures_total", leases.failed),
            metric("lease_refusals_total", leases.refused),
            metric("not_fresh_total", read(&self.not_fresh)),
        ];
        for (((_, name), starts), took) in STARTS.iter().zip(&self.starts).zip(&self.took) {
            all.push(metric(&format!("starts_{name}_total"), read(starts)));
            all.push(metric(&format!("starts_{name}_us_total"), read(took)));
        }
        let phases = PHASES.iter().zip(&self.phases);
        all.extend(phases.map(|((_, name), sum)| metric(name, read(sum))));
        all.extend([
            metric("models", models.resident),
            metric("models_bytes", models.used_bytes),
            metric("models_free_bytes", models.free_bytes),
            metric("evictions_total", models.evicted),
            metric("waiting", waiting as u64),
            metric("tiers_swapped_total", read(&self.tiers.swapped)),
            metric("tiers_failed_total", read(&self.tiers.failed)),
            metric("batches_total", read(&self.batches.batches)),
            metric("batched_requests_total", read(&self.batches.requests)),
            metric("batch_largest", read(&self.batches.largest)),
            metric("batches_retried_total", read(&self.batches.retried)),
            metric("batching_refused_total", read(&self.batches.refused)),
            metric("batching_unproven_total", read(&self.batches.unproven)),
        ]);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(start: StartKind, total_us: u64) -> Feedback {
        Feedback {
            start,
            lease_us: 1,
            open_us: 2,
            load_us: 3,
            run_us: 4,
            queue_us: 5,
            total_us,
            resident: Vec::new(),
            in_flight: 1,
            free_bytes: 0,
            engine: None,
            state: None,
        }
    }

    #[test]
    fn every_metric_is_well_named_and_named_once_and_starts_and_phases_are_told_apart() {
        let metrics = Metrics::default();
        metrics.note_answer(&told(StartKind::Cold, 1000));
        metrics.note_answer(&told(StartKind::Hot, 20));
        metrics.note_answer(&told(StartKind::Hot, 30));
        let told = metrics.tell(&LeaseCounts::default(), &ModelCounts::default(), 7);
        assert!(told.iter().all(Metric::is_well_named));
        let mut names: Vec<_> = told.iter().map(|metric| &metric.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), told.len());
        let value = |name: &str| {
            told.iter()
                .find(|metric| metric.name == name)
                .unwrap()
                .value
        };
        let expected = [
            ("starts_hot_total", 2),
            ("starts_hot_us_total", 50),
            ("starts_cold_total", 1),
            ("starts_cold_us_total", 1000),
            ("starts_warm_key_total", 0),
            ("lease_us_total", 3),
            ("open_us_total", 6),
            ("load_us_total", 9),
            ("run_us_total", 12),
            ("queue_us_total", 15),
            ("waiting", 7),
        ];
        for (name, expected) in expected {
            assert_eq!(value(name), expected, "{name}");
        }
    }
}
