//! What came of a replay, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use bield_protocol::feedback::StartKind;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Trace;

/// Kinds of failures that are told apart; more count as `other`.
const KINDS_MAX: usize = 64;

/// One request that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// When it should have been sent, since the beginning.
    pub at: Duration,
    /// Index into [`Trace::models`].
    pub model: usize,
    /// From when it should have been sent to its end.
    pub latency: Duration,
    /// From when it should have been sent to when it was: the client's own part of the latency.
    pub late: Duration,
    /// How it ended.
    pub ending: Ending,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an answer that was verified.
    Answered {
        /// What the host said of its start; `None` when it said nothing that is known.
        start: Option<StartKind>,
    },
    /// Told to come back later: what a service that is full is for.
    TurnedAway {
        /// A stable short name.
        kind: String,
    },
    /// In any other way.
    Failed {
        /// A stable short name.
        kind: String,
    },
}

/// The kind of start that this word of a feedback names.
#[must_use]
pub fn start_kind(word: &str) -> Option<StartKind> {
    START_KINDS
        .into_iter()
        .find(|kind| start_name(*kind) == word)
}

/// The word for a kind of start.
#[must_use]
pub const fn start_name(kind: StartKind) -> &'static str {
    match kind {
        StartKind::Hot => "hot",
        StartKind::WarmRuntime => "warm-runtime",
        StartKind::WarmModel => "warm-model",
        StartKind::WarmKey => "warm-key",
        StartKind::Cold => "cold",
        _ => "unknown",
    }
}

/// All kinds of start, warmest first.
pub const START_KINDS: [StartKind; 5] = [
    StartKind::Hot,
    StartKind::WarmRuntime,
    StartKind::WarmModel,
    StartKind::WarmKey,
    StartKind::Cold,
];

/// Percentiles of latencies in milliseconds, to three digits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Answers.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90 % took at most this.
    pub p90_ms: f64,
    /// 95 %.
    pub p95_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One model's part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfModel {
    /// Requests.
    pub requests: u64,
    /// Answers.
    pub answered: u64,
    /// Answers for which the model was opened: starts `cold` and `warm-key`.
    pub opened: u64,
    /// Latencies of answers; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// What came of all requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requests.
    pub requests: u64,
    /// Answers, each verified.
    pub answered: u64,
    /// Told to come back later.
    pub turned_away: u64,
    /// Ended in any other way.
    pub failed: u64,
    /// Seconds from the first intended time to the last end.
    pub seconds: f64,
    /// Answers a second.
    pub answers_per_second: f64,
    /// Starts `cold`: the first use of a package in a runtime.
    pub cold_starts: u64,
    /// Answers by kind of start; `unknown` where the host said nothing.
    pub starts: BTreeMap<&'static str, u64>,
    /// Latencies of answers; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// By kind of start.
    pub latency_by_start: BTreeMap<&'static str, Latency>,
    /// By model.
    pub models: BTreeMap<String, OfModel>,
    /// Those that were turned away and those that failed, by kind.
    pub endings: BTreeMap<String, u64>,
    /// How late the client itself sent, over all requests: what the load's maker adds to latencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_late: Option<Latency>,
}

impl Report {
    /// Counts.
    #[must_use]
    pub fn of(trace: &Trace, done: &[Done]) -> Self {
        let (mut all, mut late) = (Times::new(), Times::new());
        let mut by_start: BTreeMap<&'static str, Times> = BTreeMap::new();
        let mut models: Vec<(OfModel, Times)> = Vec::new();
        models.resize_with(trace.models().len(), || {
            let none = OfModel {
                requests: 0,
                answered: 0,
                opened: 0,
                latency: None,
            };
            (none, Times::new())
        });
        let mut endings: BTreeMap<String, u64> = BTreeMap::new();
        let (mut turned_away, mut failed) = (0, 0);
        let first = done.iter().map(|done| done.at).min().unwrap_or_default();
        let last = done.iter().map(|done| done.at + done.latency).max();
        for one in done {
            late.add(one.late);
            let Some((model, times)) = models.get_mut(one.model) else {
                continue;
            };
            model.requests += 1;
            match &one.ending {
                Ending::Answered { start } => {
                    model.answered += 1;
                    if matches!(start, Some(StartKind::Cold | StartKind::WarmKey)) {
                        model.opened += 1;
                    }
                    all.add(one.latency);
                    times.add(one.latency);
                    let name = start.map_or("unknown", start_name);
                    by_start
                        .entry(name)
                        .or_insert_with(Times::new)
                        .add(one.latency);
                }
                Ending::TurnedAway { kind } => {
                    turned_away += 1;
                    count(&mut endings, kind);
                }
                Ending::Failed { kind } => {
                    failed += 1;
                    count(&mut endings, kind);
                }
            }
        }
        let seconds = last.map_or(0.0, |last| (last - first).as_secs_f64());
        let starts: BTreeMap<_, _> = by_start
            .iter()
            .map(|(name, times)| (*name, times.0.len()))
            .collect();
        let answered = all.0.len();
        let named = trace.models().iter().cloned().zip(models);
        Self {
            requests: late.0.len(),
            answered,
            turned_away,
            failed,
            seconds,
            answers_per_second: if seconds > 0.0 {
                count_f64(answered) / seconds
            } else {
                0.0
            },
            cold_starts: starts.get("cold").copied().unwrap_or(0),
            starts,
            latency: all.latency(),
            latency_by_start: by_start
                .iter()
                .filter_map(|(name, times)| Some((*name, times.latency()?)))
                .collect(),
            models: named
                .map(|(name, (model, times))| {
                    let latency = times.latency();
                    (name, OfModel { latency, ..model })
                })
                .collect(),
            endings,
            client_late: late.latency(),
        }
    }
}

fn count(endings: &mut BTreeMap<String, u64>, kind: &str) {
    // Kinds come from a host that might make one up for each request.
    let known = endings.contains_key(kind) || endings.len() < KINDS_MAX;
    let kind = if known { kind } else { "other" };
    *endings.entry(kind.to_owned()).or_default() += 1;
}

/// Latencies in microseconds, up to an hour.
struct Times(Histogram<u64>);

impl Times {
    #[expect(clippy::expect_used, reason = "the bounds are constants that it takes")]
    fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, HOUR_US, 3);
        Self(bounds.expect("1 is less than an hour"))
    }

    fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(HOUR_US);
        self.0.saturating_record(micros);
    }

    fn latency(&self) -> Option<Latency> {
        let ms = |micros: u64| count_f64(micros) / 1e3;
        let at = |part: f64| ms(self.0.value_at_quantile(part));
        (!self.0.is_empty()).then(|| Latency {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1e3,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.0.max()),
        })
    }
}

const HOUR_US: u64 = 3_600_000_000;

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of requests or microseconds of an hour"
)]
const fn count_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(at_ms: u64, latency_ms: u64, ending: Ending) -> Done {
        Done {
            at: Duration::from_millis(at_ms),
            model: 0,
            latency: Duration::from_millis(latency_ms),
            late: Duration::ZERO,
            ending,
        }
    }

    fn trace() -> Trace {
        Trace::new(vec!["a".into(), "b".into()], Duration::from_secs(9), vec![])
    }

    #[test]
    fn endings_are_counted_by_what_they_are() {
        let answered = |start| Ending::Answered { start };
        let kind = "queue-full".to_owned();
        let report = Report::of(
            &trace(),
            &[
                done(0, 100, answered(Some(StartKind::Cold))),
                done(10, 10, answered(Some(StartKind::Hot))),
                done(20, 10, answered(None)),
                done(30, 1, Ending::TurnedAway { kind: kind.clone() }),
                done(1000, 1000, Ending::Failed { kind }),
            ],
        );
        assert_eq!((report.requests, report.answered), (5, 3));
        assert_eq!((report.turned_away, report.failed), (1, 1));
        assert_eq!(report.cold_starts, 1);
        assert_eq!(report.endings["queue-full"], 2);
        let starts: Vec<_> = report.starts.into_iter().collect();
        assert_eq!(starts, [("cold", 1), ("hot", 1), ("unknown", 1)]);
        assert_eq!(report.seconds, 2.0);
        assert_eq!(report.answers_per_second, 1.5);
        assert_eq!(
            (report.models["a"].requests, report.models["a"].opened),
            (5, 1)
        );
        assert_eq!(report.models["b"].latency, None);
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let all: Vec<_> = (1..=1000)
            .map(|ms| done(0, ms, Ending::Answered { start: None }))
            .collect();
        let latency = Report::of(&trace(), &all).latency.unwrap();
        for (found, exact) in [
            (latency.p50_ms, 500.0),
            (latency.p95_ms, 950.0),
            (latency.p99_ms, 990.0),
            (latency.max_ms, 1000.0),
        ] {
            assert!((found / exact - 1.0).abs() < 2e-3, "{found} for {exact}");
        }
    }

    #[test]
    fn a_host_that_makes_up_kinds_fills_no_memory() {
        let all: Vec<_> = (0..1000)
            .map(|n| {
                let kind = format!("k{n}");
                done(0, 1, Ending::Failed { kind })
            })
            .collect();
        let report = Report::of(&trace(), &all);
        assert_eq!(report.endings.len(), KINDS_MAX + 1);
        assert_eq!(report.endings["other"], 1000 - KINDS_MAX as u64);
    }

    #[test]
    fn every_kind_of_start_has_its_word() {
        for kind in START_KINDS {
            assert_eq!(start_kind(start_name(kind)), Some(kind));
        }
        assert_eq!(start_kind("HOT"), None);
    }
}
