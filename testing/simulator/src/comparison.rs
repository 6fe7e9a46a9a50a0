//! The four policies on one trace: two busy and eight rare models, a pool of five.
//!
//! [`Case::APART`]: every request has a core of its own, and costs are the ratios of the knowledge about the original
//! (`hot 1, switch 3, cold 20, idle life 180`), a hot run being [`RUN`]. The baselines get what they publish: FnPacker five
//! endpoints, each of which holds one model per container; one-per-model and all-in-one the same containers; all of them
//! may start as many containers as `bield`. A container of `bield` holds four models, as its runtime keeps several.
//!
//! [`Case::SHARED`]: as `cargo xtask bench packer --only policies` has it on processes of one machine: two cores that all
//! workers share, starts and openings that take little, workers that hold all models under every policy, five of them
//! and one for each model. The packer is told of the cores or, in [`Case::UNTOLD`], is not.

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
const BUSY: usize = 2;
const RARE: usize = 8;
const POOL: u32 = 5;
const CONCURRENCY: u32 = 4;
const MODEL_BYTES: u64 = 50_000_000;
const BASE_BYTES: u64 = 100_000_000;

/// What things cost and how often they are asked for, in the time of one hot run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// What people call it.
    pub name: &'static str,
    /// Cores that all workers share; 0 where each request has its own.
    cores: u32,
    /// Cores that the packer knows of.
    told: u32,
    /// Opening a model where a worker runs already.
    switch: u32,
    /// From nothing to the first answer.
    cold: u32,
    /// How long an idle worker lives.
    idle: u32,
    /// Whether that holds for policy `bield` as well, which otherwise goes by what it sees of each model.
    fixed: bool,
    /// How long the trace lasts.
    span: u32,
    /// Requests of a busy model.
    busy_rate: f64,
    /// Time between two requests of a rare model, on average.
    rare_every: f64,
    /// Workers at most, of one-per-model and of the others.
    workers_max: [u32; 2],
    /// Models that a worker holds, of `bield` and of the others.
    held: [u64; 2],
}

impl Case {
    /// As published.
    pub const APART: Self = Self {
        name: "simulated",
        cores: 0,
        told: 0,
        switch: 3,
        cold: 20,
        idle: 180,
        fixed: false,
        span: 4000,
        busy_rate: 1.0,
        rare_every: 100.0,
        workers_max: [20, 20],
        held: [4, 1],
    };
    /// As on processes of one machine.
    pub const SHARED: Self = Self {
        name: "simulated, two cores",
        cores: 2,
        told: 2,
        switch: 1,
        cold: 3,
        idle: 90,
        fixed: true,
        span: 4000,
        busy_rate: 0.5,
        rare_every: 200.0,
        workers_max: [(BUSY + RARE) as u32, POOL],
        held: [(BUSY + RARE) as u64; 2],
    };
    /// The same with a packer that does not know of the cores.
    pub const UNTOLD: Self = Self {
        name: "simulated, two cores, untold",
        told: 0,
        ..Self::SHARED
    };
}

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

/// Runs all policies on the case's trace of `seed`.
///
/// # Errors
///
/// The trace cannot be made.
pub fn compare(case: &Case, seed: u64) -> Result<Comparison, WorkloadError> {
    let trace = case.workload().trace(seed, RUN * case.span)?;
    let row = |policy| {
        let outcome = run(&trace, &case.world(policy), case.settings(policy), seed);
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

impl Case {
    fn workload(&self) -> Workload {
        let per_second = 1.0 / RUN.as_secs_f64();
        let model = |model: usize| Source::Model {
            model,
            rate: Rate::Poisson {
                per_second: per_second
                    * if model < BUSY {
                        self.busy_rate
                    } else {
                        1.0 / self.rare_every
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

    fn world(&self, policy: Policy) -> World {
        let model = |model: usize| Model {
            package: Digest::of("bield simulated model", &[&model.to_be_bytes()]),
            bytes: MODEL_BYTES,
            open: RUN * self.switch,
            run: RUN,
        };
        World {
            models: (0..BUSY + RARE).map(model).collect(),
            start: self.start(),
            budget: self.budget(policy),
            base: BASE_BYTES,
            cores: self.cores,
            noise: 0.1,
            patience: RUN * 200,
            faults: Faults::default(),
        }
    }

    fn start(&self) -> Duration {
        RUN * (self.cold - self.switch - 1)
    }

    fn budget(&self, policy: Policy) -> u64 {
        let [ours, others] = self.held;
        MODEL_BYTES
            * match policy {
                Policy::Bield => ours,
                Policy::FnPacker | Policy::OnePerModel | Policy::AllInOne => others,
            }
    }

    fn settings(&self, policy: Policy) -> Settings {
        let [one_per_model, others] = self.workers_max;
        let idle = RUN * self.idle;
        let keep_alive = KeepAlive {
            floor: if self.fixed { idle } else { idle / 10 },
            ceiling: if self.fixed { idle } else { idle * 20 },
            fixed: idle,
            bin: RUN * 10,
        };
        Settings {
            policy,
            workers_max: match policy {
                Policy::OnePerModel => one_per_model,
                Policy::Bield | Policy::FnPacker | Policy::AllInOne => others,
            },
            concurrency: CONCURRENCY,
            queue_max: 1000,
            share: 1000,
            start_guess: self.start(),
            open_guess: RUN * self.switch,
            run_guess: RUN,
            interval: if self.fixed { idle } else { idle / 4 },
            keep_alive,
            worker_bytes: self.budget(policy),
            fnpacker_pool: POOL,
            cores: self.told,
            ..Settings::default()
        }
    }
}
