//! Where the time goes: each kind of start, and the baselines, in parts.
//!
//! | row | how it is brought about |
//! |---|---|
//! | hot | called again |
//! | hot, door alone | the same on a runtime that this process started: no HTTP, no gateway |
//! | warm-runtime | rten: a `wiped` user's call, on threads of its own; onnxruntime: the first second run at a time |
//! | warm-model | a user who was granted the package after its lease was fetched |
//! | warm-key | a model that had made room for its twin, in a budget for one |
//! | cold | a package that was never seen |
//! | reuse-enclave-only | the process is kept and nothing else: a `dedicated` user's next call (rten) |
//! | native | a process started for this request, then its first call through the door |

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bield_grant::Isolation;
use bield_load::plot::{self, Stack};

use super::Bench;
use super::caller::{Caller, Parts};
use super::models::EngineKind;
use crate::bars::{Bar, median, picture};
use crate::deployment::Deployment;

/// Between grants that each cost a renewal, of which there is one a second.
const RENEWAL_PAUSE: Duration = Duration::from_millis(1100);
/// Loads of a model, and pairs of calls on each, until one opens a second session.
const SECOND_SESSION_LOADS: usize = 5;
const SECOND_SESSION_PAIRS: usize = 8;

/// One row: samples, and what starting the process took before.
#[derive(Default)]
struct Row {
    name: &'static str,
    samples: Vec<Parts>,
    starts: Vec<f64>,
}

impl Row {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Start of the process, then the parts of a call: the median of each.
    fn parts(&self) -> Vec<f64> {
        let start = match self.starts.is_empty() {
            true => 0.0,
            false => median(self.starts.clone()),
        };
        let part = |at: usize| median(self.samples.iter().map(|one| one.values()[at]).collect());
        [start]
            .into_iter()
            .chain((0..Parts::NAMES.len()).map(part))
            .collect()
    }

    fn total(&self) -> f64 {
        let starts = self.starts.iter().copied().chain(std::iter::repeat(0.0));
        let totals = self
            .samples
            .iter()
            .zip(starts)
            .map(|(one, start)| one.total() + start);
        median(totals.collect())
    }
}

/// Measures every row.
pub(crate) fn measured(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let mut rows = Vec::new();
    rows.extend(open(bench)?);
    rows.push(warm_key(bench)?);
    rows.extend(baselines(bench)?);
    let order = [
        "hot",
        "hot, door alone",
        "warm-runtime",
        "warm-model",
        "warm-key",
        "cold",
        "reuse-enclave-only",
        "native",
    ];
    rows.sort_by_key(|row| order.iter().position(|name| *name == row.name));
    report(bench, &rows, bars)
}

/// What a deployment with room for everything shows.
fn open(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let inputs = &bench.subject.inputs;
    let deployment = Deployment::start(&bench.roomy())?;
    let (direct, _) = deployment.start_runtime()?;
    let package = deployment.publish_own("hot", &bench.file)?;
    let owner = Caller::of(&deployment, &package, &deployment.owner)?;
    for _ in 0..3 {
        owner.call(inputs)?;
        owner.call_door(&direct, inputs)?;
    }
    let mut rows = [Row::of("hot"), Row::of("hot, door alone")];
    for _ in 0..bench.effort.calls() / 2 {
        rows[0].samples.push(expect("hot", owner.call(inputs)?.1)?);
        rows[1]
            .samples
            .push(expect("hot", owner.call_door(&direct, inputs)?.1)?);
    }
    direct.kill();

    let mut warm_model = Row::of("warm-model");
    let mut cold = Row::of("cold");
    let mut warm_runtime = Row::of("warm-runtime");
    for round in 0..bench.effort.rounds() {
        let user = deployment.person(&format!("user-{round}"))?;
        deployment.grant(&package, &user, Isolation::Shared)?;
        let caller = Caller::of(&deployment, &package, &user)?;
        thread::sleep(RENEWAL_PAUSE);
        warm_model
            .samples
            .push(expect("warm-model", caller.call(inputs)?.1)?);

        let fresh = deployment.publish_own(&format!("cold-{round}"), &bench.file)?;
        let caller = Caller::of(&deployment, &fresh, &deployment.owner)?;
        cold.samples.push(expect("cold", caller.call(inputs)?.1)?);
        if bench.kind == EngineKind::Onnxruntime {
            warm_runtime
                .samples
                .push(second_session(bench, &deployment, round)?);
        }
    }
    if bench.kind == EngineKind::Rten {
        let user = deployment.person("wiped")?;
        let package = deployment.publish("wiped", &bench.file)?;
        deployment.grant(&package, &user, Isolation::Wiped)?;
        let caller = Caller::of(&deployment, &package, &user)?;
        caller.call(inputs)?;
        for _ in 0..bench.effort.rounds() {
            warm_runtime
                .samples
                .push(expect("warm-runtime", caller.call(inputs)?.1)?);
        }
    }
    let [hot, door] = rows;
    Ok(vec![hot, door, warm_model, cold, warm_runtime])
}

/// The first time that two run at once on a model whose engine has one session open. There is one such moment for each
/// load, and two calls may miss each other, or need keys just then: so there are several loads.
fn second_session(bench: &Bench<'_>, deployment: &Deployment, round: usize) -> Result<Parts> {
    let inputs = &bench.subject.inputs;
    for attempt in 0..SECOND_SESSION_LOADS {
        let name = format!("second-{round}-{attempt}");
        let package = deployment.publish_own(&name, &bench.file)?;
        let callers = [
            Caller::of(deployment, &package, &deployment.owner)?,
            Caller::of(deployment, &package, &deployment.owner)?,
        ];
        callers[0].call(inputs)?;
        for _ in 0..SECOND_SESSION_PAIRS {
            let pair = thread::scope(|scope| {
                let other = scope.spawn(|| callers[1].call(inputs));
                let one = callers[0].call(inputs);
                [Some(one), other.join().ok()]
            });
            for parts in pair.into_iter().flatten() {
                let (_, parts) = parts?;
                if parts.start == "warm-runtime" {
                    return Ok(parts);
                }
            }
        }
    }
    bail!("no call was seen to open a second session")
}

/// A model that makes room for its twin and back.
fn warm_key(bench: &Bench<'_>) -> Result<Row> {
    let inputs = &bench.subject.inputs;
    let tight = Deployment::start(&bench.tight()?)?;
    let twins = [
        tight.publish_own("one", &bench.file)?,
        tight.publish_own("other", &bench.file)?,
    ];
    let callers = [
        Caller::of(&tight, &twins[0], &tight.owner)?,
        Caller::of(&tight, &twins[1], &tight.owner)?,
    ];
    for caller in &callers {
        caller.call(inputs)?;
    }
    let mut row = Row::of("warm-key");
    for round in 0..bench.effort.rounds() {
        let (_, parts) = callers[round % 2].call(inputs)?;
        row.samples.push(expect("warm-key", parts)?);
    }
    Ok(row)
}

/// What there is to compare with: a process for each request, and one that keeps nothing.
fn baselines(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let inputs = &bench.subject.inputs;
    let deployment = Deployment::start(&bench.roomy())?;
    let package = deployment.publish_own("native", &bench.file)?;
    let caller = Caller::of(&deployment, &package, &deployment.owner)?;
    let mut native = Row::of("native");
    for _ in 0..bench.effort.rounds() {
        let (runtime, start) = deployment.start_runtime()?;
        native
            .samples
            .push(expect("cold", caller.call_door(&runtime, inputs)?.1)?);
        native.starts.push(start);
        runtime.kill();
    }
    if bench.kind == EngineKind::Onnxruntime {
        return Ok(vec![native]);
    }
    let user = deployment.person("alone")?;
    let package = deployment.publish("alone", &bench.file)?;
    deployment.grant(&package, &user, Isolation::Dedicated)?;
    let caller = Caller::of(&deployment, &package, &user)?;
    caller.call(inputs)?;
    let mut reused = Row::of("reuse-enclave-only");
    for _ in 0..bench.effort.rounds() {
        reused.samples.push(expect("cold", caller.call(inputs)?.1)?);
    }
    Ok(vec![native, reused])
}

fn expect(start: &str, parts: Parts) -> Result<Parts> {
    ensure!(
        parts.start == start,
        "{start} was expected, {} came",
        parts.start
    );
    Ok(parts)
}

fn report(bench: &Bench<'_>, rows: &[Row], bars: &mut Vec<Bar>) -> Result<()> {
    let names: Vec<&str> = ["process"].into_iter().chain(Parts::NAMES).collect();
    println!("\n{}: milliseconds, the median of each part", bench.name());
    print!("{:20}{:>9}", "", "total");
    names.iter().for_each(|name| print!("{name:>9}"));
    println!();
    let hot = rows
        .iter()
        .find(|row| row.name == "hot")
        .map_or(f64::NAN, Row::total);
    for row in rows {
        print!("{:20}{:>9.2}", row.name, row.total());
        row.parts().iter().for_each(|part| print!("{part:>9.2}"));
        println!();
        let kind = format!("{}: {}", bench.name(), row.name);
        bars.push(Bar::told(
            format!("{kind} ÷ hot"),
            row.total() / hot,
            "ratio",
            format!("{:.2} ms, median of {}", row.total(), row.samples.len()),
        ));
        for (name, part) in names
            .iter()
            .zip(row.parts())
            .filter(|(_, part)| *part > 0.0)
        {
            bars.push(Bar::told(
                format!("{kind}: {name}"),
                part,
                "ms",
                "median".into(),
            ));
        }
    }
    if bench.kind == EngineKind::Onnxruntime {
        bars.push(Bar::missing(
            format!("{}: reuse-enclave-only", bench.name()),
            "onnxruntime has no `dedicated`; a runtime that is kept and has nothing of the package is the row cold",
        ));
    }
    let stacks: Vec<Stack> = rows
        .iter()
        .map(|row| Stack {
            name: row.name.to_owned(),
            parts: row.parts(),
        })
        .collect();
    let file = bench.folder.join(format!(
        "runtime-kinds-{}-{}.svg",
        bench.subject.which.name(),
        bench.kind.name()
    ));
    let title = format!("{}: where the time goes", bench.name());
    picture(&file, &plot::stacks(&title, &names, "ms", &stacks))
}
