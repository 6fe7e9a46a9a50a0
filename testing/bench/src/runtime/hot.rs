//! Calls with everything at hand: latency one at a time, and answers a second by clients.

use anyhow::Result;
use bield_sdk::Randomness;

use super::Bench;
use super::load::{Client, Load, closed, percentile};
use super::models::{EngineKind, Which};
use super::peers::Rival;
use super::plain;
use super::plot::{self, Line};
use crate::bars::{Bar, median};
use crate::deployment::Deployment;

/// What hot calls may cost over plaintext onnxruntime in Python's process.
const TO_PEER: f64 = 1.05;
/// Calls before the measured ones.
const WARM_UP: usize = 5;

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
    let (model, ..) = plain::cold(bench.engine, &bench.file, inputs)?;
    let mut rivals = Rival::start(bench.subject, bench.threads);
    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
    let mut theirs: [Vec<f64>; 3] = Default::default();
    let calls = bench.effort.calls();
    for call in 0..calls + WARM_UP {
        let ours = (
            plain::hot(&*model, inputs)?,
            bench.call(&deployment.owner, &target)?.1,
        );
        if call >= WARM_UP {
            plain.push(ours.0);
            sealed.push(ours.1);
        }
        for (rival, took) in rivals.iter_mut().zip(&mut theirs) {
            let Ok(rival) = rival else { continue };
            let hot = rival.hot()?;
            if call >= WARM_UP {
                took.push(hot);
            }
        }
    }

    let told = |what: &str, value, note: &str| {
        Bar::told(format!("{name}: hot {what}"), value, "ms", note.to_owned())
    };
    let note = format!("of {calls} calls, {} threads each", bench.threads);
    bars.push(told("sealed, median", median(sealed.clone()), &note));
    bars.push(told("sealed, p99", percentile(sealed.clone(), 0.99), &note));
    bars.push(told("in process, median", median(plain.clone()), &note));
    bars.push(told(
        "in process, p99",
        percentile(plain.clone(), 0.99),
        &note,
    ));
    let ratio = |theirs: &[f64]| median(sealed.iter().zip(theirs).map(|(a, b)| a / b).collect());
    let note = |theirs: &[f64]| {
        let (ours, theirs) = (median(sealed.clone()), median(theirs.to_vec()));
        format!("median of {calls} ratios, {ours:.2} ms ÷ {theirs:.2} ms")
    };
    let row = format!("{name}: sealed hot ÷ in process");
    bars.push(match to_engine(bench.subject.which) {
        Some(target) => Bar::at_most(row, ratio(&plain), target, note(&plain)),
        None => Bar::told(row, ratio(&plain), "ratio", note(&plain)),
    });
    for (at, (rival, times)) in rivals.iter().zip(&theirs).enumerate() {
        let row = format!("{name}: sealed hot ÷ {}", Rival::NAMES[at]);
        bars.push(match rival {
            Err(why) => Bar::missing(row, why),
            Ok(_) if at == 0 && bench.kind == EngineKind::Onnxruntime => {
                Bar::at_most(row, ratio(times), TO_PEER, note(times))
            }
            Ok(_) => Bar::told(row, ratio(times), "ratio", note(times)),
        });
    }
    Ok(())
}

/// Answers a second by clients.
pub(crate) fn load(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let (name, inputs) = (bench.name(), &bench.subject.inputs);
    let deployment = Deployment::start(&bench.roomy())?;
    let package = deployment.publish_own("load", &bench.file)?;
    let (model, ..) = plain::cold(bench.engine, &bench.file, inputs)?;
    let mut rivals = Rival::start(bench.subject, bench.threads);
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
            model.run(inputs, &[])?;
            Ok(())
        }))
    };
    let span = bench.effort.span();
    closed(1, span, &sealed)?;
    let ways = ["sealed", "in process"].into_iter().chain(Rival::NAMES);
    let mut lines: Vec<Line> = ways
        .map(|name| Line {
            name: name.to_owned(),
            values: Vec::new(),
        })
        .collect();
    for clients in bench.effort.clients() {
        let mut loads: [Vec<Load>; 5] = Default::default();
        for _ in 0..bench.effort.windows() {
            loads[0].push(closed(*clients, span, &sealed)?);
            loads[1].push(closed(*clients, span, &plain)?);
            for (rival, loads) in rivals.iter_mut().zip(&mut loads[2..]) {
                if let Ok(rival) = rival {
                    loads.push(rival.load(*clients, span)?);
                }
            }
        }
        let loads = loads.map(|loads| Load::medians(&loads));
        for (line, load) in lines.iter_mut().zip(&loads) {
            line.values.push(load.rate);
        }
        let row = format!("{name}: {clients} clients");
        bars.push(Bar::told(
            format!("{row}: sealed"),
            loads[0].rate,
            "answers/s",
            format!("p99 {:.1} ms", loads[0].p99),
        ));
        let lacks = [None]
            .into_iter()
            .chain(rivals.iter().map(|rival| rival.as_ref().err()));
        for ((line, load), lack) in lines[1..].iter().zip(&loads[1..]).zip(lacks) {
            let row = format!("{row}: answers/s, sealed ÷ {}", line.name);
            bars.push(match lack {
                Some(why) => Bar::missing(row, why),
                None => Bar::told(
                    row,
                    loads[0].rate / load.rate,
                    "ratio",
                    format!(
                        "{:.1} ÷ {:.1}, its p99 {:.1} ms",
                        loads[0].rate, load.rate, load.p99
                    ),
                ),
            });
        }
    }
    let groups = bench
        .effort
        .clients()
        .iter()
        .map(|clients| format!("{clients} clients"));
    let file = bench.folder.join(format!(
        "runtime-load-{}-{}.svg",
        bench.subject.which.name(),
        bench.kind.name()
    ));
    let title = format!("{name}: answers a second by clients");
    plot::groups(&file, &title, &groups.collect::<Vec<_>>(), &lines, "/s")
}
