//! What a store counts, in Prometheus' text form.
//!
//! Always true: names of metrics are constants and labels come from fixed lists (kinds of refusal)
//! or from the operator's own flags (peers, witnesses), never from a request, so their number is
//! bounded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counters and gauges of one store.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Capsules held.
    pub capsules: AtomicU64,
    /// Records taken in since the start.
    pub records: AtomicU64,
    /// Their bytes.
    pub record_bytes: AtomicU64,
    /// Records that were here already.
    pub repeated: AtomicU64,
    /// Rounds that ended with a sync, over all journals.
    pub syncs: AtomicU64,
    /// Append requests whose records those syncs covered: divide for the group's size.
    pub grouped: AtomicU64,
    /// Records those syncs covered.
    pub synced_records: AtomicU64,
    /// Microseconds spent in syncs.
    pub sync_micros: AtomicU64,
    /// Writers frozen by a fork proof.
    pub forks: AtomicU64,
    /// Replicas that stopped accepting after an error of their disk.
    pub stopped: AtomicU64,
    /// Open subscriptions.
    pub subscribers: AtomicU64,
    /// Subscribers cut off because they read too slowly.
    pub dropped: AtomicU64,
    /// 1 when a witness has seen a longer log than one of a capsule here: the disk was set back.
    pub set_back: AtomicU64,
    /// Connections closed because they were silent, or took too little.
    pub connections_cut: AtomicU64,
    /// Bytes sent to readers and subscribers.
    pub sent_bytes: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    peers: Mutex<BTreeMap<String, PeerCount>>,
    witnesses: Mutex<BTreeMap<String, WitnessCount>>,
}

/// What anti-entropy with one peer did.
#[derive(Debug, Clone, Default)]
pub struct PeerCount {
    /// Rounds that reached the peer.
    pub rounds: u64,
    /// Rounds that did not.
    pub failures: u64,
    /// Records fetched and taken in.
    pub records: u64,
    /// Bytes fetched.
    pub bytes: u64,
    /// Things the peer served that were refused.
    pub refused: u64,
    /// Records it had and this store had not, when last compared.
    pub lag: u64,
}

/// What one witness answered.
#[derive(Debug, Clone, Default)]
pub struct WitnessCount {
    /// Cosignatures received.
    pub cosigned: u64,
    /// Requests it refused, or that did not reach it.
    pub failures: u64,
}

impl Metrics {
    /// Counts a refusal of one kind.
    pub fn refuse(&self, kind: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(kind).or_default() += 1;
    }

    /// How many refusals of this kind there were.
    #[must_use]
    pub fn refused(&self, kind: &str) -> u64 {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(kind).copied().unwrap_or_default()
    }

    /// Changes the counts of one configured peer.
    pub fn peer(&self, peer: &str, change: impl FnOnce(&mut PeerCount)) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        change(peers.entry(peer.to_owned()).or_default());
    }

    /// The counts of one peer.
    #[must_use]
    pub fn peer_count(&self, peer: &str) -> PeerCount {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(peer).cloned().unwrap_or_default()
    }

    /// Changes the counts of one configured witness.
    pub fn witness(&self, witness: &str, change: impl FnOnce(&mut WitnessCount)) {
        let mut witnesses = self
            .witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(witnesses.entry(witness.to_owned()).or_default());
    }

    /// All of it, as `GET /metrics` shows it.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Text(String::with_capacity(4096));
        text.plain("capsules", "gauge", "Capsules held.", &self.capsules);
        text.plain(
            "records_total",
            "counter",
            "Records taken in.",
            &self.records,
        );
        text.plain(
            "record_bytes_total",
            "counter",
            "Bytes of records taken in.",
            &self.record_bytes,
        );
        text.plain(
            "repeated_records_total",
            "counter",
            "Records that were here already.",
            &self.repeated,
        );
        text.plain("syncs_total", "counter", "Syncs of journals.", &self.syncs);
        text.plain(
            "grouped_appends_total",
            "counter",
            "Append requests covered by syncs.",
            &self.grouped,
        );
        text.plain(
            "synced_records_total",
            "counter",
            "Records covered by syncs.",
            &self.synced_records,
        );
        text.plain(
            "sync_microseconds_total",
            "counter",
            "Time spent in syncs.",
            &self.sync_micros,
        );
        text.plain(
            "forks_total",
            "counter",
            "Writers frozen by a fork proof.",
            &self.forks,
        );
        text.plain(
            "stopped_replicas",
            "gauge",
            "Replicas that stopped accepting.",
            &self.stopped,
        );
        text.plain(
            "subscribers",
            "gauge",
            "Open subscriptions.",
            &self.subscribers,
        );
        text.plain(
            "subscribers_dropped_total",
            "counter",
            "Subscribers that read too slowly.",
            &self.dropped,
        );
        text.plain(
            "set_back",
            "gauge",
            "1 when a witness has seen a longer log than there is here.",
            &self.set_back,
        );
        text.plain(
            "connections_cut_total",
            "counter",
            "Connections closed for silence or slow reading.",
            &self.connections_cut,
        );
        text.plain(
            "sent_bytes_total",
            "counter",
            "Bytes sent to readers.",
            &self.sent_bytes,
        );

        text.head("refusals_total", "counter", "Refusals by kind.");
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in &*refusals {
            text.labelled("refusals_total", "kind", kind, *count);
        }
        drop(refusals);
        let peers = self
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        type Peer = (
            &'static str,
            &'static str,
            &'static str,
            fn(&PeerCount) -> u64,
        );
        let columns: [Peer; 6] = [
            (
                "peer_rounds_total",
                "counter",
                "Anti-entropy rounds.",
                |p| p.rounds,
            ),
            (
                "peer_failures_total",
                "counter",
                "Rounds that failed.",
                |p| p.failures,
            ),
            ("peer_records_total", "counter", "Records fetched.", |p| {
                p.records
            }),
            ("peer_bytes_total", "counter", "Bytes fetched.", |p| p.bytes),
            (
                "peer_refused_total",
                "counter",
                "What a peer served and was refused.",
                |p| p.refused,
            ),
            (
                "peer_lag_records",
                "gauge",
                "Records a peer has and this store has not.",
                |p| p.lag,
            ),
        ];
        for (name, kind, help, of) in columns {
            text.head(name, kind, help);
            for (peer, count) in &peers {
                text.labelled(name, "peer", peer, of(count));
            }
        }
        let witnesses = self
            .witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        text.head("cosignatures_total", "counter", "Cosignatures received.");
        for (witness, count) in &*witnesses {
            text.labelled("cosignatures_total", "witness", witness, count.cosigned);
        }
        text.head(
            "witness_failures_total",
            "counter",
            "Checkpoints a witness did not cosign.",
        );
        for (witness, count) in &*witnesses {
            text.labelled("witness_failures_total", "witness", witness, count.failures);
        }
        text.0
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"
        );
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: &AtomicU64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{PREFIX}{name} {}", value.load(Relaxed));
    }

    fn labelled(&mut self, name: &str, label: &str, value: &str, count: u64) {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = writeln!(self.0, "{PREFIX}{name}{{{label}=\"{value}\"}} {count}");
    }
}

const PREFIX: &str = "bield_store_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.records.fetch_add(7, Relaxed);
        metrics.refuse("gap");
        metrics.refuse("gap");
        metrics.peer("http://a\"b", |peer| peer.lag = 3);
        let text = metrics.render();
        assert!(text.contains("\nbield_store_records_total 7\n"));
        assert!(text.contains("bield_store_refusals_total{kind=\"gap\"} 2\n"));
        assert!(text.contains("bield_store_peer_lag_records{peer=\"http://a\\\"b\"} 3\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
