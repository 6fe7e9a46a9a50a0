//! Counts that the host may see: how much, never who or what.
//!
//! Always true: a metric has no label; none tells of one principal, package, model or key.

use std::sync::atomic::{AtomicU64, Ordering};

use bield_protocol::status::Metric;

/// One number.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $name:literal,)+) => {
        /// All counts of the program.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $($(#[doc = $doc])+ pub(crate) $field: Count,)+
        }

        impl Metrics {
            /// As the status shows them.
            pub(crate) fn list(&self) -> Vec<Metric> {
                vec![$(Metric { name: $name.to_owned(), value: self.$field.get() },)+]
            }
        }
    };
}

metrics! {
    /// Leases that were given.
    leases: "leases_total",
    /// Leases that were refused.
    leases_refused: "leases_refused_total",
    /// Holds, anchors and releases of functions' states that were done.
    states: "states_total",
    /// Holds, anchors and releases that were refused.
    states_refused: "states_refused_total",
    /// Orders that were done.
    orders: "orders_total",
    /// Orders that were refused.
    orders_refused: "orders_refused_total",
    /// Sessions that are open.
    sessions: "sessions",
    /// Sessions that gave way to others.
    sessions_evicted: "sessions_evicted_total",
    /// Sessions for which there was no room.
    sessions_refused: "sessions_refused_total",
    /// Records in the log.
    records: "records",
    /// Attempts to make a record durable that failed.
    commit_failures: "commit_failures_total",
    /// Whether a record waits to become durable now: 0 or 1.
    not_durable: "not_durable",
    /// Rounds in which too few witnesses cosigned.
    witness_failures: "witness_failures_total",
    /// Snapshots that were written.
    snapshots: "snapshots_total",
    /// Checkpoints of callers that were compared with the log.
    checkpoints: "checkpoints_compared_total",
    /// Fresh quotes that were refused to callers.
    quotes_refused: "quotes_refused_total",
    /// Orders that wait.
    waiting: "waiting",
    /// The member's place in its group.
    member: "member",
    /// Whether this instance leads its group, or is alone: 0 or 1.
    leads: "leads",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_that_hosts_show_and_its_own() {
        let metrics = Metrics::default();
        metrics.leases.add(3);
        let list = metrics.list();
        assert!(list.iter().all(Metric::is_well_named));
        let mut names: Vec<_> = list.iter().map(|metric| &metric.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), list.len());
        assert!(
            list.iter()
                .any(|metric| metric.name == "leases_total" && metric.value == 3)
        );
    }
}
