//! Calls with everything at hand: latency of one at a time, and latency and answers a second by clients.

use std::time::Instant;

use anyhow::Result;
use bield_load::plot::{self, Line};
use bield_sdk::Randomness;

use super::Bench;
use super::load::{Client, Load, closed, percentile};
use super::models::{EngineKind, Which};
use super::peers::Rival;
use super::plain;
use crate::bars::{Bar, median, picture, ratio};
use crate::deployment::Deployment;

/// What hot calls may cost over plaintext onnxruntime in Python's process.
const TO_PEER: f64 = 1.05;
/// Rounds before the measured ones.
const WARM_UP: usize = 5;
/// Names of what is compared; sealed is compared with each other one.
const WAYS: [&str; 5] = [
    "sealed",
    "in process",
    Rival::NAMES[0],
    Rival::NAMES[1],
    Rival::NAMES[2],
];

/// What hot calls may cost over the same engine in process: the smaller the model, the more the envelope shows.
const fn to_engine(which: Which) -> Option<f64> {
    match which {
        Which::Resnet101V2 => Some(1.05),
        Which::MobilenetV1 | Which::Densenet121 => Some(1.15),
        Which::Magika | Which::Minilm => None,
    }
}

/// Latency of one call at a time.
pub(crate) fn latency(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let (name, inputs) = (bench.name(), &bench.subject.inputs);
    let deployment = Deployment::start(&bench.roomy())?;
    let package = deployment.publish_own("hot", &bench.file)?;
    let target = deployment.owner.target(&package)?;
    let (model, answer, _) = plain::cold(bench.engine, &bench.file, inputs)?;
    let (answer, taken) = (plain::numbers(&answer), plain::taken(&*model, inputs)?);
    let mut rivals = Rival::start(bench.subject, bench.threads, &answer)?;
    let sealed = bench.call(&deployment.owner, &target)?.0;
    bench
        .subject
        .agree(&plain::numbers(&sealed.tensors), &answer)?;

    let mut once = |way: usize| -> Result<Option<f64>> {
        Ok(Some(match way {
            0 => bench.call(&deployment.owner, &target)?.1,
            1 => plain::hot(&*model, &taken)?,
            _ => match &mut rivals[way - 2] {
                Ok(rival) => rival.hot()?,
                Err(_) => return Ok(None),
            },
        }))
    };
    let mut took: [Vec<f64>; 5] = Default::default();
    let begin = Instant::now();
    for round in 0..bench.effort.calls() + WARM_UP {
        for step in 0..WAYS.len() {
            // There and back again, so that none is always measured after the same other one.
            let way = if round % 2 == 0 {
                step
            } else {
                WAYS.len() - 1 - step
            };
            if let Some(milliseconds) = once(way)?.filter(|_| round >= WARM_UP) {
                took[way].push(milliseconds);
            }
        }
        if bench.effort.is_enough(took[0].len(), begin.elapsed()) {
            break;
        }
    }

    let calls = took[0].len();
    let note = format!(
        "of {calls} calls, {} threads each, package of {}",
        bench.threads, bench.file.format
    );
    for way in 0..2 {
        for (what, part) in [("median", 0.5), ("p95", 0.95)] {
            let row = format!("{name}: hot {}, {what}", WAYS[way]);
            let value = percentile(took[way].clone(), part);
            bars.push(Bar::told(row, value, "ms", note.clone()));
        }
    }
    for (way, other) in WAYS.into_iter().enumerate().skip(1) {
        let row = format!("{name}: sealed hot ÷ {other}");
        if let Some(Err(why)) = way.checked_sub(2).map(|at| &rivals[at]) {
            bars.push(Bar::missing(row, why));
            continue;
        }
        let target = match (way, bench.kind) {
            (1, _) => to_engine(bench.subject.which),
            (2, EngineKind::Onnxruntime) => Some(TO_PEER),
            _ => None,
        };
        let value = ratio(&took[0], &took[way]);
        let (ours, theirs) = (median(took[0].clone()), median(took[way].clone()));
        let note = format!(
            "median of {calls} ratios, {ours:.2} ms ÷ {theirs:.2} ms, {} threads each",
            bench.threads
        );
        bars.push(match target {
            Some(target) => Bar::at_most(row, value, target, note),
            None => Bar::told(row, value, "ratio", note),
        });
    }
    Ok(())
}

/// Latency and answers a second by clients.
pub(crate) fn load(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let (name, inputs) = (bench.name(), &bench.subject.inputs);
    let deployment = Deployment::start(&bench.roomy())?;
    let package = deployment.publish_own("load", &bench.file)?;
    let (model, answer, _) = plain::cold(bench.engine, &bench.file, inputs)?;
    let (answer, taken) = (plain::numbers(&answer), plain::taken(&*model, inputs)?);
    let mut rivals = Rival::start(bench.subject, bench.threads, &answer)?;
    let target = deployment.owner.target(&package)?;
    let sealed = bench.call(&deployment.owner, &target)?.0;
    bench
        .subject
        .agree(&plain::numbers(&sealed.tensors), &answer)?;
    let sealed = || -> Result<Client<'_>> {
        let target = deployment.owner.target(&package)?;
        let key = &deployment.owner.key;
        Ok(Box::new(move || {
            target.call(key, inputs.clone(), Vec::new(), &mut Randomness)?;
            Ok(())
        }))
    };
    let plain = || -> Result<Client<'_>> {
        Ok(Box::new(|| {
            model.run(&taken, &[])?;
            Ok(())
        }))
    };
    let span = bench.effort.span();
    let mut window = |way: usize, clients| -> Result<Option<Load>> {
        Ok(Some(match way {
            0 => closed(clients, span, &sealed)?,
            1 => closed(clients, span, &plain)?,
            _ => match &mut rivals[way - 2] {
                Ok(rival) => rival.load(clients, span)?,
                Err(_) => return Ok(None),
            },
        }))
    };
    for way in 0..WAYS.len() {
        window(way, super::CONCURRENCY)?;
    }
    let mut all = Vec::new();
    for clients in bench.effort.clients() {
        let mut loads: [Vec<Load>; 5] = Default::default();
        for _ in 0..bench.effort.windows() {
            for (way, loads) in loads.iter_mut().enumerate() {
                loads.extend(window(way, *clients)?);
            }
        }
        all.push((*clients, loads.map(|loads| Load::medians(&loads))));
    }
    for (clients, loads) in &all {
        report(&format!("{name}: {clients} clients"), loads, &rivals, bars);
    }

    let lines = WAYS.into_iter().enumerate().map(|(way, name)| Line {
        name: name.to_owned(),
        values: all.iter().map(|(_, loads)| loads[way].rate).collect(),
    });
    let groups = all.iter().map(|(clients, _)| format!("{clients} clients"));
    let file = bench.folder.join(format!(
        "runtime-load-{}-{}.svg",
        bench.subject.which.name(),
        bench.kind.name()
    ));
    let svg = plot::groups(
        &format!("{name}: answers a second by clients"),
        &groups.collect::<Vec<_>>(),
        &lines.collect::<Vec<_>>(),
        "/s",
    );
    picture(&file, &svg)
}

/// The rows of so many clients.
fn report(row: &str, loads: &[Load; 5], rivals: &[Result<Rival, String>; 3], bars: &mut Vec<Bar>) {
    let sealed = &loads[0];
    let note = format!(
        "median {:.1} ms, p99 {:.1} ms; at most {} of them run at once",
        sealed.middle,
        sealed.p99,
        super::CONCURRENCY
    );
    bars.push(Bar::told(
        format!("{row}: sealed"),
        sealed.rate,
        "answers/s",
        note,
    ));
    for (way, other) in WAYS.into_iter().enumerate().skip(1) {
        let theirs = &loads[way];
        let rows = [
            (
                "answers/s",
                sealed.rate / theirs.rate,
                format!("{:.1} ÷ {:.1}", sealed.rate, theirs.rate),
            ),
            (
                "latency",
                sealed.middle / theirs.middle,
                format!(
                    "{:.1} ms ÷ {:.1} ms, its p99 {:.1} ms",
                    sealed.middle, theirs.middle, theirs.p99
                ),
            ),
        ];
        for (what, value, note) in rows {
            let row = format!("{row}: {what}, sealed ÷ {other}");
            bars.push(match way.checked_sub(2).map(|at| &rivals[at]) {
                Some(Err(why)) => Bar::missing(row, why),
                _ => Bar::told(row, value, "ratio", note),
            });
        }
    }
}
