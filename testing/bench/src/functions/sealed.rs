//! The same function in JavaScript, sealed through gateway, runtime and key service, and plain on workerd.
//!
//! ```text
//! examples/counter/src/function.js ─┬─ QuickJS component ─▶ bield: SDK ─HTTP─▶ gateway ─▶ runtime, a fresh instance
//!                                   └─ ES module ─────────▶ workerd: HTTP ─▶ its one warm isolate
//! ```
//!
//! The work differs, so nothing of this is a bar but the first row: workerd decrypts, signs and proves nothing, keeps its
//! numbers in a JavaScript map that ends with it, compiles as it runs (V8), and gives every request the same instance;
//! bield opens and seals each request (hybrid post-quantum HPKE), starts an instance, signs a receipt that the SDK
//! verifies, and writes what was added to a sealed log, with `local-sync` to the disk.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_end_to_end::Package;
use bield_sdk::{FunctionCall, Randomness};

use super::cast::Cast;
use super::table::Table;
use super::workerd::Workerd;
use super::{Effort, fresh};
use crate::bars::{Bar, median, ratio};
use crate::deployment::{Deployment, Setup};
use crate::runtime::load::{Client, Load, closed};

/// Most of workerd's start that a fresh instance takes, as issue 7 has it.
const SHARE_MAX: f64 = 1.0 / 50.0;
/// Clients at once.
const CLIENTS: [usize; 2] = [1, 4];
/// Windows of load, of which the median counts.
const WINDOWS: usize = 3;

/// The manifest of the example, with the durability that is measured.
fn manifest(durability: &str) -> String {
    format!(
        "[function]\nname = \"counter-{durability}\"\nversion = \"1\"\nsource = \"function.wasm\"\n\n[[bucket]]\n\
         name = \"counters\"\nconsistency = \"linearizable\"\ndurability = \"{durability}\"\n"
    )
}

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let started = starts(cast, effort, bars);
    if let Err(why) = started {
        bars.push(Bar::missing("workerd's start".into(), &format!("{why:#}")));
    }
    let deployment = Deployment::start(&Setup {
        concurrency: 2,
        functions: true,
        ..Setup::default()
    })?;
    let begun = Instant::now();
    let in_memory = publish(&deployment, cast, "memory")?;
    let published = seconds(begun);
    let begun = Instant::now();
    asking(&deployment, &in_memory, "first")?()?;
    let note = format!(
        "the runtime compiles the function, opens its state and answers; packing, sealing and registering took {:.0} ms before",
        published * 1e3
    );
    let first = seconds(begun) * 1e3;
    bars.push(Bar::told(
        "end to end: first call ever".into(),
        first,
        "ms",
        note,
    ));
    let synced = publish(&deployment, cast, "local-sync")?;
    let begun = Instant::now();
    asking(&deployment, &synced, "first")?()?;
    let note = "another package of the same component: its sealed code is there; lease, package, state, answer";
    let again = seconds(begun) * 1e3;
    bars.push(Bar::told(
        "end to end: first call, code there".into(),
        again,
        "ms",
        note.into(),
    ));
    let mut runtimes = Vec::new();
    for _ in 0..effort.compilations() {
        runtimes.push(deployment.start_runtime()?.1);
    }
    let runtime = median(runtimes);
    let note =
        "started, measured, configured, attested to its launcher: the process alone".to_owned();
    bars.push(Bar::told(
        "end to end: a runtime's start".into(),
        runtime,
        "ms",
        note,
    ));

    let workerd = Workerd::start(&cast.folder);
    for clients in CLIENTS {
        let (mut ours, mut durable, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..WINDOWS {
            let span = effort.span();
            let key = |at: usize| format!("clicks-{at}");
            let load = |package| sealed(&deployment, package, clients, span, &key);
            ours.push(load(&in_memory)?);
            durable.push(load(&synced)?);
            if let Ok((workerd, _)) = &workerd {
                theirs.push(closed(clients, span, &|| workerd.client())?);
            }
        }
        let row = |bars: &mut Vec<Bar>, who: &str, loads: &[Load]| {
            let load = Load::medians(loads);
            let name = format!("end to end: {who}, {clients} at once");
            let note = format!("p50 {:.2} ms, p99 {:.2} ms", load.middle, load.p99);
            bars.push(Bar::told(name, load.rate, "/s", note));
        };
        row(bars, "bield, sealed, memory", &ours);
        row(bars, "bield, sealed, local-sync", &durable);
        if let Err(why) = &workerd {
            let name = format!("end to end: workerd, {clients} at once");
            bars.push(Bar::missing(name, &format!("{why:#}")));
            continue;
        }
        row(bars, "workerd, plain", &theirs);
        let middles = |loads: &[Load]| loads.iter().map(|load| load.middle).collect::<Vec<_>>();
        bars.push(Bar::told(
            format!("end to end: bield, memory ÷ workerd, {clients} at once"),
            ratio(&middles(&ours), &middles(&theirs)),
            "ratio",
            "of p50; other work: one warm isolate, no encryption, no receipt, no log".to_owned(),
        ));
    }
    Ok(())
}

/// A fresh instance of the counter against a start of workerd with it.
fn starts(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let table = Table::open(&cast.folder, &["counters"])?;
    let (mut instances, mut processes) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=effort.starts() {
        let calls = (0..effort.calls()).map(|_| fresh::counter(cast, &table));
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let (_, start) = Workerd::start(&cast.folder)?;
        if round > 0 {
            instances.push(median(calls));
            processes.push(start * 1e6);
        }
    }
    let (instance, process) = (median(instances.clone()), median(processes.clone()));
    let note = format!(
        "{instance:.0} µs, against {:.1} ms from workerd's start to its first answer",
        process / 1e3
    );
    bars.push(Bar::at_most(
        "fresh: QuickJS, adds in a bucket ÷ workerd's start".to_owned(),
        ratio(&instances, &processes),
        SHARE_MAX,
        note,
    ));
    bars.push(Bar::told(
        "workerd: start to first answer".to_owned(),
        process / 1e3,
        "ms",
        Workerd::version()?,
    ));
    Ok(())
}

fn publish(deployment: &Deployment, cast: &Cast, durability: &str) -> Result<Package> {
    let owner = &deployment.owner;
    let package = owner.publish_function(&manifest(durability), &cast.counter.wasm, &[])?;
    owner.grant(&package, owner)?;
    Ok(package)
}

fn sealed(
    deployment: &Deployment,
    package: &Package,
    clients: usize,
    span: Duration,
    key: &(dyn Fn(usize) -> String + Sync),
) -> Result<Load> {
    let next = AtomicUsize::new(0);
    closed(clients, span, &|| {
        let at = next.fetch_add(1, Ordering::Relaxed);
        asking(deployment, package, &key(at))
    })
}

/// A client that adds to a counter of its own, remembers what it saw, and checks each sum.
fn asking<'a>(deployment: &'a Deployment, package: &Package, key: &str) -> Result<Client<'a>> {
    let owner = &deployment.owner;
    let target = owner.target(package)?;
    let body = format!("{{\"name\":\"{key}\",\"by\":1}}");
    let seen = RefCell::new(None);
    let last = RefCell::new(None::<u64>);
    Ok(Box::new(move || {
        let call = FunctionCall {
            path: "/add".to_owned(),
            content_type: "application/json".to_owned(),
            body: body.clone().into_bytes().into(),
            seen: seen.borrow().clone(),
        };
        let answered = target.call_function(&owner.key, call, &mut Randomness)?;
        let answer = answered
            .outcome
            .map_err(|failure| anyhow::anyhow!(failure.message))?;
        let sum = sum(&answer.body)?;
        let before = last.borrow_mut().replace(sum);
        ensure!(
            before.is_none_or(|before| sum == before + 1),
            "{sum} after {before:?}"
        );
        *seen.borrow_mut() = answered.state.map(|state| state.heads);
        Ok(())
    }))
}

/// The number in a counter's answer.
pub(super) fn sum(body: &[u8]) -> Result<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body)?;
    answer["value"].as_u64().with_context(|| answer.to_string())
}

fn seconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}
