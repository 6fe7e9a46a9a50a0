//! The four policies on one trace: two busy and eight rare models, a pool of five.
//!
//! Costs are the ratios of the knowledge about the original (`hot 1, switch 3, cold 20, idle life 180`), a hot run being
//! [`RUN`]. The baselines get what they publish: FnPacker five endpoints, each of which holds one model per container;
//! one-per-model and all-in-one the same containers; all of them may start as many containers as `bield`. A container
//! of `bield` holds four models, as its runtime keeps several.

use std::fmt;
use std::time::Duration;

use bield_envelope::Digest;
use bield_load::{Latency, OfModel, Rate, Source, Trace, Workload, WorkloadError};
use bield_packer::{KeepAlive, Policy, Settings};
use serde::Serialize;

use crate::run::{Outcome, run};
use crate::world::{Faults, Model, World};

/// One hot run: the unit of all times here.
const RUN: Duration = Duration::from_millis(100);
/// Opening a model where a worker runs already, in runs.
const SWITCH: u32 = 3;
/// From nothing to the first answer, in runs.
const COLD: u32 = 20;
/// How long an idle worker lives, in runs.
const IDLE: u32 = 180;
/// How long the trace lasts, in runs.
const SPAN: u32 = 4000;
/// Requests of a busy model in a run's time.
const BUSY_RATE: f64 = 1.0;
/// Runs between two requests of a rare model, on average.
const RARE_EVERY: f64 = 100.0;
const BUSY: usize = 2;
const RARE: usize = 8;
const POOL: u32 = 5;
const CONCURRENCY: u32 = 4;
const WORKERS_MAX: u32 = 20;
/// Models that a container of `bield` holds; the others' hold one.
const HELD: u64 = 4;
const MODEL_BYTES: u64 = 50_000_000;
const BASE_BYTES: u64 = 100_000_000;

/// One policy's line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Name of the policy.
    pub policy: &'static str,
    /// Latency of the busy models, the worse of them.
    pub busy: Option<Latency>,
    /// Latency of the rare models, the worst of them.
    pub rare: Option<Latency>,
    /// Requests that waited for a worker to start.
    pub cold_starts: u64,
    /// Workers that were started.
    pub workers: u64,
    /// Sum of the workers' lives, in seconds.
    pub container_s: f64,
    /// Sum of their memory over time, in gigabyte-seconds.
    pub gb_s: f64,
    /// Requests.
    pub requests: u64,
    /// Requests without an answer.
    pub failed: u64,
}

/// All policies' lines, in the order of [`Policy::ALL`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Seed of the trace and of the noise.
    pub seed: u64,
    /// The lines.
    pub rows: Vec<Row>,
}

/// Runs all policies on the trace of `seed`.
///
/// # Errors
///
/// The trace cannot be made.
pub fn compare(seed: u64) -> Result<Comparison, WorkloadError> {
    let trace = workload().trace(seed, RUN * SPAN)?;
    let row = |policy| {
        let outcome = run(&trace, &world(policy), settings(policy), seed);
        Row::of(&trace, &outcome)
    };
    Ok(Comparison {
        seed,
        rows: Policy::ALL.into_iter().map(row).collect(),
    })
}

impl Comparison {
    /// The line of `policy`.
    #[must_use]
    pub fn row(&self, policy: Policy) -> Option<&Row> {
        self.rows.iter().find(|row| row.policy == policy.name())
    }
}

impl Row {
    fn of(trace: &Trace, outcome: &Outcome) -> Self {
        let (report, totals) = (&outcome.report, &outcome.view.totals);
        let worst = |models: &[String]| {
            let of = models.iter().filter_map(|name| report.models.get(name));
            let latencies = of.filter_map(|of: &OfModel| of.latency.clone());
            latencies.max_by(|a, b| a.p95_ms.total_cmp(&b.p95_ms))
        };
        let (busy, rare) = trace.models().split_at(BUSY);
        Self {
            policy: outcome.view.policy,
            busy: worst(busy),
            rare: worst(rare),
            cold_starts: totals.cold_starts,
            workers: totals.workers_started,
            container_s: totals.worker_s,
            gb_s: totals.gb_s,
            requests: report.requests,
            failed: report.requests - report.answered,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14}{:>26}{:>28}{:>6}{:>9}{:>12}{:>9}{:>8}",
            "policy",
            "busy p50/p95/p99 ms",
            "rare p50/p95/p99 ms",
            "cold",
            "workers",
            "container s",
            "GB·s",
            "failed"
        )?;
        let latency = |latency: &Option<Latency>| match latency {
            Some(l) => format!("{:.0} / {:.0} / {:.0}", l.p50_ms, l.p95_ms, l.p99_ms),
            None => "-".to_owned(),
        };
        for row in &self.rows {
            writeln!(
                f,
                "{:<14}{:>26}{:>28}{:>6}{:>9}{:>12.0}{:>9.0}{:>7.1}%",
                row.policy,
                latency(&row.busy),
                latency(&row.rare),
                row.cold_starts,
                row.workers,
                row.container_s,
                row.gb_s,
                100.0 * row.failed as f64 / row.requests.max(1) as f64
            )?;
        }
        Ok(())
    }
}

fn workload() -> Workload {
    let per_second = 1.0 / RUN.as_secs_f64();
    let model = |model: usize| Source::Model {
        model,
        rate: Rate::Poisson {
            per_second: per_second
                * if model < BUSY {
                    BUSY_RATE
                } else {
                    1.0 / RARE_EVERY
                },
        },
    };
    let busy = (0..BUSY).map(|model| format!("busy-{model}"));
    let rare = (0..RARE).map(|model| format!("rare-{model}"));
    Workload {
        models: busy.chain(rare).collect(),
        callers: 4,
        sources: (0..BUSY + RARE).map(model).collect(),
    }
}

fn world(policy: Policy) -> World {
    let model = |model: usize| Model {
        package: Digest::of("bield simulated model", &[&model.to_be_bytes()]),
        bytes: MODEL_BYTES,
        open: RUN * SWITCH,
        run: RUN,
    };
    World {
        models: (0..BUSY + RARE).map(model).collect(),
        start: RUN * (COLD - SWITCH - 1),
        budget: budget(policy),
        base: BASE_BYTES,
        noise: 0.1,
        patience: RUN * COLD * 10,
        faults: Faults::default(),
    }
}

fn budget(policy: Policy) -> u64 {
    match policy {
        Policy::Bield => MODEL_BYTES * HELD,
        Policy::FnPacker | Policy::OnePerModel | Policy::AllInOne => MODEL_BYTES,
    }
}

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        workers_max: WORKERS_MAX,
        concurrency: CONCURRENCY,
        queue_max: 1000,
        share: 1000,
        start_guess: RUN * (COLD - SWITCH - 1),
        open_guess: RUN * SWITCH,
        run_guess: RUN,
        keep_alive: KeepAlive {
            floor: RUN * IDLE / 10,
            ceiling: RUN * IDLE * 20,
            fixed: RUN * IDLE,
            bin: RUN * 10,
        },
        worker_bytes: budget(policy),
        interval: RUN * IDLE / 4,
        fnpacker_pool: POOL,
        ..Settings::default()
    }
}
