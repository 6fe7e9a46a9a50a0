//! One trace, four policies, real processes.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_load::plot::{Line, groups};
use bield_load::{Done, Rate, Report, Source, Trace, Workload};

use super::cast::{Cast, Model};
use super::{BUSY_LATENCY, CONTAINER_TIME, Options};
use crate::bars::{self, Bar, median};
use crate::deployment::Setup;

/// The policies, ours first.
const POLICIES: [&str; 4] = ["bield", "fnpacker", "one-per-model", "all-in-one"];
/// Models that are asked all the time, and those that are rarely.
const MODELS: usize = 10;
const BUSY: usize = 2;
/// Workers at most. One worker for each model has as many as there are models, as published: its endpoints share nothing.
const POOL: usize = 5;
/// Minutes of published keep-alives (3 in SeSeMI's deployment, 10 in OpenWhisk's) are some seconds here.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Requests a second of each busy model: a third of a core's time each, which is as busy as two cores allow that also have
/// the client to run.
const BUSY_RATE: f64 = 6.0;
/// How often each rare model is asked.
const RARE_EVERY: Duration = Duration::from_secs(12);
/// Requests in one worker at once, as in the simulator.
const CONCURRENCY: u16 = 4;

/// One replay under one policy.
struct Run {
    report: Report,
    container_s: f64,
    gb_s: f64,
    started: f64,
}

/// Measures.
pub(super) fn measured(options: &Options, folder: &Path, bars: &mut Vec<Bar>) -> Result<()> {
    let (span, rounds) = match options.quick {
        true => (Duration::from_secs(12), 1),
        false => (Duration::from_secs(90), 3),
    };
    let rounds = options.rounds.map_or(rounds, usize::from);
    let trace = workload().trace(options.seed, span)?;
    let mut runs: [Vec<Run>; POLICIES.len()] = Default::default();
    for round in 0..rounds {
        for step in 0..POLICIES.len() {
            // Each policy is first once, so that none always has the quiet minutes.
            let at = (round + step) % POLICIES.len();
            eprintln!(
                "policies: round {} of {rounds}, {}",
                round + 1,
                POLICIES[at]
            );
            runs[at].push(run(POLICIES[at], &trace)?);
        }
    }
    for (policy, runs) in POLICIES.into_iter().zip(&runs) {
        told(policy, &trace, runs, bars);
    }
    compared(&runs, rounds, bars);
    let line = |(policy, runs): (&str, &Vec<Run>)| Line {
        name: policy.to_owned(),
        values: vec![
            median(runs.iter().map(|run| run.container_s).collect()),
            median(runs.iter().map(|run| run.gb_s).collect()),
        ],
    };
    let lines: Vec<_> = POLICIES.into_iter().zip(&runs).map(line).collect();
    let names = [
        "container time, s".to_owned(),
        "memory over time, GB·s".to_owned(),
    ];
    let title = format!(
        "2 busy and 8 rare models, {:.0} s, seed {}",
        span.as_secs_f64(),
        options.seed
    );
    bars::picture(
        &folder.join("packer-policies.svg"),
        &groups(&title, &names, &lines, ""),
    )
}

/// Two busy models and the rest rare.
fn workload() -> Workload {
    let rare = 1.0 / RARE_EVERY.as_secs_f64();
    let source = |model| Source::Model {
        model,
        rate: Rate::Poisson {
            per_second: if model < BUSY { BUSY_RATE } else { rare },
        },
    };
    Workload {
        sources: (0..MODELS).map(source).collect(),
        models: (0..MODELS).map(|at| format!("model-{at}")).collect(),
        callers: 1,
    }
}

/// Replays the trace under a policy, from no worker to no worker.
fn run(policy: &str, trace: &Trace) -> Result<Run> {
    let workers = if policy == "one-per-model" {
        MODELS
    } else {
        POOL
    };
    let setup = Setup {
        concurrency: CONCURRENCY.into(),
        workers,
        gateway: [
            ["--policy", policy],
            ["--workers-min", "0"],
            ["--keep-alive-secs", &KEEP_ALIVE.as_secs().to_string()],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect(),
        ..Setup::default()
    };
    let cast = Cast::gather(&setup, &Model::Network, MODELS)?;
    let before = cast.pool()?;
    let done = cast.replay(trace);
    let after = until_idle(&cast)?;
    let grown = |name: &str| {
        let of = |pool: &serde_json::Value| pool["totals"][name].as_f64();
        Some(of(&after)? - of(&before)?)
    };
    let grown = |name: &str| grown(name).with_context(|| format!("no {name} of the pool"));
    ensure!(answered(&done) > 0, "{policy}: nothing was answered");
    Ok(Run {
        report: Report::of(trace, &done),
        container_s: grown("worker_s")?,
        gb_s: grown("gb_s")?,
        started: grown("workers_started")?,
    })
}

/// The pool when it has no worker any more.
fn until_idle(cast: &Cast) -> Result<serde_json::Value> {
    let begun = Instant::now();
    loop {
        let pool = cast.pool()?;
        let none = pool["workers"].as_array().is_some_and(Vec::is_empty);
        // What is left after so long is its cost so far.
        if none || begun.elapsed() > 4 * KEEP_ALIVE {
            return Ok(pool);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn answered(done: &[Done]) -> usize {
    let answered = done
        .iter()
        .filter(|done| matches!(done.ending, bield_load::Ending::Answered { .. }));
    answered.count()
}

/// The rows of one policy.
fn told(policy: &str, trace: &Trace, runs: &[Run], bars: &mut Vec<Bar>) {
    let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let name = |what: &str| format!("{policy}: {what}");
    let count = |number: u64| number as f64;
    let rounds = format!("median of {} rounds", runs.len());
    bars.push(Bar::told(
        name("container time"),
        of(&|run| run.container_s),
        "s",
        rounds.clone(),
    ));
    bars.push(Bar::told(
        name("memory over time"),
        of(&|run| run.gb_s),
        "GB·s",
        rounds.clone(),
    ));
    bars.push(Bar::told(
        name("workers started"),
        of(&|run| run.started),
        "",
        rounds.clone(),
    ));
    let opened = |run: &Run| {
        run.report
            .models
            .values()
            .map(|model| count(model.opened))
            .sum()
    };
    let told =
        format!("{rounds}; answers for which the model was opened (starts cold and warm-key)");
    bars.push(Bar::told(name("cold starts"), of(&opened), "", told));
    let requests = trace.arrivals().len();
    let kinds: Vec<_> = runs.iter().flat_map(|run| &run.report.endings).collect();
    bars.push(Bar::told(
        name("requests without an answer"),
        of(&|run| count(run.report.failed)),
        "",
        format!("of {requests}; {rounds}; by kind and round: {kinds:?}"),
    ));
    for model in trace.models() {
        let all = runs
            .iter()
            .filter_map(|run| run.report.models.get(model)?.latency.as_ref());
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            bars.push(Bar::missing(name(model), "nothing of it was answered"));
            continue;
        }
        let latency = |part: fn(&bield_load::Latency) -> f64| {
            median(all.iter().map(|latency| part(latency)).collect())
        };
        let note = format!(
            "median; p95 {:.1} ms, p99 {:.1} ms; {rounds}",
            latency(|latency| latency.p95_ms),
            latency(|latency| latency.p99_ms)
        );
        bars.push(Bar::told(
            name(model),
            latency(|latency| latency.p50_ms),
            "ms",
            note,
        ));
    }
}

/// The promises, round by round.
fn compared(runs: &[Vec<Run>; POLICIES.len()], rounds: usize, bars: &mut Vec<Bar>) {
    let [bield, fnpacker, one_per_model, _] = runs;
    let ratio = |these: &[Run], those: &[Run], value: &dyn Fn(&Run) -> f64| {
        let values = |runs: &[Run]| runs.iter().map(value).collect::<Vec<_>>();
        bars::ratio(&values(these), &values(those))
    };
    let note = || format!("median of {rounds} ratios, processes");
    bars.push(Bar::at_most(
        "container time, bield ÷ fnpacker".into(),
        ratio(bield, fnpacker, &|run| run.container_s),
        CONTAINER_TIME,
        note(),
    ));
    let lost = |run: &Run| (run.report.failed + run.report.turned_away) as f64;
    bars.push(
        Bar::at_most(
            "requests without an answer, bield".into(),
            bield.iter().map(lost).sum(),
            0.0,
            format!("all of {rounds} rounds"),
        )
        .of("requests"),
    );
    let busy = |run: &Run| {
        let busy = (0..BUSY).filter_map(|at| run.report.models.get(&format!("model-{at}")));
        let middles: Vec<_> = busy
            .filter_map(|model| Some(model.latency.as_ref()?.p50_ms))
            .collect();
        middles.iter().sum::<f64>() / middles.len() as f64
    };
    bars.push(Bar::at_most(
        "busy models' median latency, bield ÷ one-per-model".into(),
        ratio(bield, one_per_model, &busy),
        BUSY_LATENCY,
        note(),
    ));
}
