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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_protocol::feedback::StartKind;
use bield_protocol::status::Metric;

use crate::leases::LeaseCounts;

/// Counts since start that belong to no cache.
#[derive(Default)]
pub(crate) struct Metrics {
    starts: [AtomicU64; STARTS.len()],
    not_fresh: Arc<AtomicU64>,
}

/// What a sealed answer had to wait for, and the name of its count.
const STARTS: [(StartKind, &str); 5] = [
    (StartKind::Hot, "starts_hot_total"),
    (StartKind::WarmRuntime, "starts_warm_runtime_total"),
    (StartKind::WarmModel, "starts_warm_model_total"),
    (StartKind::WarmKey, "starts_warm_key_total"),
    (StartKind::Cold, "starts_cold_total"),
];

impl Metrics {
    /// `not_fresh` counts on where it is.
    pub(crate) fn new(not_fresh: Arc<AtomicU64>) -> Self {
        Self {
            starts: Default::default(),
            not_fresh,
        }
    }

    pub(crate) fn note_start(&self, start: StartKind) {
        let known = STARTS.iter().position(|(kind, _)| *kind == start);
        if let Some(count) = known.and_then(|kind| self.starts.get(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of it, for the status.
    pub(crate) fn tell(&self, leases: &LeaseCounts) -> Vec<Metric> {
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
        let starts = STARTS.iter().zip(&self.starts);
        all.extend(starts.map(|((_, name), count)| metric(name, read(count))));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_well_named_and_named_once_and_starts_are_told_apart() {
        let metrics = Metrics::default();
        metrics.note_start(StartKind::Cold);
        metrics.note_start(StartKind::Hot);
        metrics.note_start(StartKind::Hot);
        let told = metrics.tell(&LeaseCounts::default());
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
        assert_eq!(value("starts_hot_total"), 2);
        assert_eq!(value("starts_cold_total"), 1);
        assert_eq!(value("starts_warm_key_total"), 0);
    }
}
