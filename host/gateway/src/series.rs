//! What happened in the last quarter of an hour, point by point, and since the gateway began, in sums.
//!
//! Goes in: each answer with its feedback, each refusal, and once a second what there is. Comes out: at most [`POINTS_MAX`]
//! points of [`POINT`] each, and counts by start kind and phase.
//!
//! Always true: memory is bounded, 30 KB in all; nothing here names a model, a caller or a request. What a worker says of
//! its phases is believed as far as the gateway's own clock allows.
//!
//! On paper: 50 ns for an answer. Percentiles are exact to a sixteenth.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bield_protocol::feedback::{Feedback, StartKind};
use serde_json::{Value, json};

/// What one point covers.
pub(crate) const POINT: Duration = Duration::from_secs(5);
/// Points that are kept: a quarter of an hour.
pub(crate) const POINTS_MAX: usize = 180;

/// How warm starts can be, as labels.
pub(crate) const KINDS: [(StartKind, &str); 5] = [
    (StartKind::Hot, "hot"),
    (StartKind::WarmRuntime, "warm-runtime"),
    (StartKind::WarmModel, "warm-model"),
    (StartKind::WarmKey, "warm-key"),
    (StartKind::Cold, "cold"),
];
/// What takes time in a worker, as labels.
pub(crate) const PHASES: [&str; 5] = ["lease", "open", "load", "run", "queue"];

/// Points and sums.
#[derive(Default)]
pub(crate) struct Series {
    points: VecDeque<Point>,
    now: Point,
    latencies: Latencies,
    sums: Sums,
}

/// Since the gateway began.
#[derive(Default, Clone)]
pub(crate) struct Sums {
    /// Answers by start kind, in the order of [`KINDS`].
    pub(crate) starts: [u64; KINDS.len()],
    /// Answers without a worker's word on them.
    pub(crate) silent: u64,
    /// Microseconds by phase, in the order of [`PHASES`].
    pub(crate) phases_us: [u64; PHASES.len()],
    /// Microseconds from a request's arrival to the first of its answer.
    pub(crate) latency_us: u64,
    /// Refusals by their code.
    pub(crate) refusals: BTreeMap<String, u64>,
}

#[derive(Default, Clone)]
struct Point {
    /// Its number, counted from the gateway's start.
    number: u64,
    starts: [u64; KINDS.len()],
    silent: u64,
    refused: u64,
    p50_us: u64,
    p95_us: u64,
    waiting: usize,
    workers: usize,
    gb_s: f64,
}

impl Series {
    /// An answer whose first byte came so long after its request.
    pub(crate) fn answered(&mut self, feedback: Option<&Feedback>, latency: Duration) {
        let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.add(latency);
        let sums = &mut self.sums;
        sums.latency_us = sums.latency_us.saturating_add(latency);
        let kind = feedback
            .and_then(|feedback| KINDS.iter().position(|(kind, _)| *kind == feedback.start));
        let (Some(feedback), Some(kind)) = (feedback, kind) else {
            sums.silent += 1;
            self.now.silent += 1;
            return;
        };
        sums.starts[kind] += 1;
        self.now.starts[kind] += 1;
        let said = [
            feedback.lease_us,
            feedback.open_us,
            feedback.load_us,
            feedback.run_us,
            feedback.queue_us,
        ];
        for (sum, said) in sums.phases_us.iter_mut().zip(said) {
            // No phase took longer than all of it did.
            *sum = sum.saturating_add(said.min(latency));
        }
    }

    /// A request was refused by this gateway, or failed.
    pub(crate) fn refused(&mut self, code: &str) {
        self.now.refused += 1;
        *self.sums.refusals.entry(code.to_owned()).or_default() += 1;
    }

    /// What there is at `now`, since the gateway began; closes points that are over.
    pub(crate) fn sample(&mut self, now: Duration, waiting: usize, workers: usize, gb_s: f64) {
        let number = now.as_secs() / POINT.as_secs();
        if number != self.now.number {
            self.now.p50_us = self.latencies.at(50);
            self.now.p95_us = self.latencies.at(95);
            self.latencies = Latencies::default();
            let next = Point {
                number,
                ..Point::default()
            };
            self.points
                .push_back(std::mem::replace(&mut self.now, next));
            if self.points.len() > POINTS_MAX {
                self.points.pop_front();
            }
        }
        self.now.waiting = self.now.waiting.max(waiting);
        self.now.workers = self.now.workers.max(workers);
        self.now.gb_s = gb_s;
    }

    pub(crate) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// The points that are over, oldest first: `at_s` is their end since the gateway began; `p50_us` and `p95_us` are 0
    /// where nothing was answered; `waiting` and `workers` are the most there were; `gb_s` is the sum so far.
    pub(crate) fn to_json(&self) -> Value {
        let points = self.points.iter().map(|point| {
            let mut shown = json!({
                "at_s": (point.number + 1) * POINT.as_secs(),
                "refused": point.refused,
                "without_feedback": point.silent,
                "p50_us": point.p50_us,
                "p95_us": point.p95_us,
                "waiting": point.waiting,
                "workers": point.workers,
                "gb_s": point.gb_s,
            });
            for ((_, name), count) in KINDS.iter().zip(point.starts) {
                shown[*name] = count.into();
            }
            shown
        });
        json!({ "every_s": POINT.as_secs(), "points": points.collect::<Vec<_>>() })
    }
}

/// Counts of latencies in bins whose width is a sixteenth of what they hold.
struct Latencies {
    bins: Box<[u32; BINS]>,
    total: u64,
}

/// Sixteen bins for each power of two, of microseconds up to more than an hour.
const BINS: usize = 33 * 16;

impl Default for Latencies {
    fn default() -> Self {
        Self {
            bins: Box::new([0; BINS]),
            total: 0,
        }
    }
}

impl Latencies {
    fn add(&mut self, us: u64) {
        self.bins[Self::bin(us)] += 1;
        self.total += 1;
    }

    /// The value that this many per cent of all are not above; 0 when there is none.
    fn at(&self, per_cent: u64) -> u64 {
        let wanted = (self.total * per_cent).div_ceil(100);
        let mut seen = 0;
        for (bin, count) in self.bins.iter().enumerate() {
            seen += u64::from(*count);
            if wanted > 0 && seen >= wanted {
                return Self::most(bin);
            }
        }
        0
    }

    fn bin(us: u64) -> usize {
        let shift = (u64::BITS - us.leading_zeros()).saturating_sub(5);
        // Below 32 each number has a bin; above, the five highest bits tell it.
        let within = usize::try_from(us >> shift).unwrap_or(0);
        let bin = usize::try_from(shift).unwrap_or(0) * 16 + within;
        bin.min(BINS - 1)
    }

    /// The largest value of a bin.
    fn most(bin: usize) -> u64 {
        let shift = (bin / 16).saturating_sub(1);
        let within = (bin - shift * 16) as u64;
        ((within + 1) << shift) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_a_sixteenth() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(95), 0);
        for us in 1..=100_000 {
            latencies.add(us);
        }
        for (per_cent, exact) in [(50, 50_000), (95, 95_000)] {
            let found = latencies.at(per_cent);
            assert!((exact..=exact + exact / 16).contains(&found), "{found}");
        }
        for us in [0, 1, 31, 32, 33, 63, 64, 1 << 20, 1 << 35] {
            let most = Latencies::most(Latencies::bin(us));
            assert!((us..=us + us / 16).contains(&most), "{us}: {most}");
        }
        latencies.add(u64::MAX);
    }

    #[test]
    fn points_are_bounded_and_hold_what_happened_in_them() {
        let mut series = Series::default();
        series.answered(None, Duration::from_millis(3));
        series.refused("queue-full");
        for second in 0..2000 {
            series.sample(Duration::from_secs(second), 1, 2, 0.5);
        }
        assert_eq!(series.points.len(), POINTS_MAX);
        let mut series = Series::default();
        series.answered(None, Duration::from_millis(3));
        series.refused("queue-full");
        series.sample(Duration::from_secs(4), 7, 2, 0.5);
        series.sample(Duration::from_secs(5), 0, 0, 0.5);
        let shown = series.to_json();
        let point = &shown["points"][0];
        assert_eq!(point["at_s"], 5);
        assert_eq!(
            (&point["without_feedback"], &point["refused"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            (&point["waiting"], &point["workers"]),
            (&json!(7), &json!(2))
        );
        assert!((3000..3200).contains(&point["p95_us"].as_u64().unwrap()));
    }

    #[test]
    fn a_phase_is_not_believed_to_be_longer_than_the_whole() {
        let mut series = Series::default();
        let feedback = Feedback {
            start: StartKind::Cold,
            lease_us: u64::MAX,
            open_us: 1,
            load_us: 2,
            run_us: 3,
            total_us: 4,
            resident: vec![],
            in_flight: 0,
            queue_us: u64::MAX,
            free_bytes: 0,
            engine: None,
            state: None,
        };
        series.answered(Some(&feedback), Duration::from_micros(10));
        assert_eq!(series.sums().phases_us, [10, 1, 2, 3, 10]);
        assert_eq!(series.sums().starts, [0, 0, 0, 0, 1]);
    }
}
