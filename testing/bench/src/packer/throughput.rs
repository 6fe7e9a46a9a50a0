//! Many different models against one, at the same total rate: what all fits is answered as fast.
//!
//! Windows alternate. The requests of a window were sealed before it begins and their answers are opened and verified after
//! it, so that the client, on the same cores, costs as little as it can.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bield_load::Ending;
use bield_protocol::feedback::StartKind;

use super::cast::{Cast, Model};
use crate::bars::{Bar, median, ratio};
use crate::deployment::Setup;

/// What many models' rate must be of one's.
const MANY_TO_ONE: f64 = 0.8;
/// Who asks at once.
const CLIENTS: usize = 4;
const WORKERS: usize = 2;

/// Measures.
pub(super) fn measured(quick: bool, bars: &mut Vec<Bar>) -> Result<()> {
    let (models, requests, rounds) = if quick { (10, 60, 2) } else { (100, 600, 9) };
    let setup = Setup {
        concurrency: 2,
        workers: WORKERS,
        ..Setup::default()
    };
    let cast = Cast::gather(&setup, &Model::Tiny, models)?;
    warm(&cast, models)?;
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("throughput: round {} of {rounds}", round + 1);
        // There and back again, so that neither is always first.
        for is_many in [round % 2 == 0, round % 2 != 0] {
            let models = if is_many { models } else { 1 };
            let rate = window(&cast, models, requests)?;
            if is_many { &mut many } else { &mut one }.push(rate);
        }
    }
    let note = format!(
        "median of {rounds} ratios, {:.0}/s ÷ {:.0}/s; {CLIENTS} clients, {WORKERS} workers, everything resident",
        median(many.clone()),
        median(one.clone())
    );
    bars.push(Bar::at_least(
        format!("answers a second, {models} models ÷ 1 model"),
        ratio(&many, &one),
        MANY_TO_ONE,
        note,
    ));
    Ok(())
}

/// Calls each model until all its calls find it open, wherever they are sent.
fn warm(cast: &Cast, models: usize) -> Result<()> {
    const PASSES_MAX: usize = 120;
    // Runtimes that fetch as many leases as they do at once say so, and to come back.
    const PAUSE: Duration = Duration::from_millis(250);
    let hot = Ending::Answered {
        start: Some(StartKind::Hot),
    };
    let mut seen = Vec::new();
    for _ in 0..PASSES_MAX {
        let (next, others) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let model = next.fetch_add(1, Ordering::Relaxed);
                        if model >= models {
                            return;
                        }
                        let ending = cast.send(model, cast.seal(model));
                        if ending != hot
                            && let Ok(mut others) = others.lock()
                        {
                            others.push(ending);
                        }
                    }
                });
            }
        });
        seen = others.into_inner().ok().context("a client panicked")?;
        if seen.is_empty() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    let (count, first) = (seen.len(), seen.first());
    bail!("{count} of {models} models do not stay open (such as {first:?}): do they all fit?")
}

/// Answers a second of so many requests, over so many models in turn.
fn window(cast: &Cast, models: usize, requests: usize) -> Result<f64> {
    let sealed = (0..requests).map(|at| Ok(Some(cast.seal(at % models)?)));
    let sealed = Mutex::new(sealed.collect::<Result<Vec<_>>>()?);
    let (next, came) = (
        AtomicUsize::new(0),
        Mutex::new(Vec::with_capacity(requests)),
    );
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let taken = sealed
                        .lock()
                        .ok()
                        .and_then(|mut all| all.get_mut(at)?.take());
                    let Some((bytes, awaited)) = taken else {
                        return;
                    };
                    let answer = bield_end_to_end::post(&cast.deployment.url, &bytes);
                    if let Ok(mut came) = came.lock() {
                        came.push((at % models, awaited, answer));
                    }
                }
            });
        }
    });
    let took: Duration = begun.elapsed();
    let came = came.into_inner().ok().context("a client panicked")?;
    ensure!(
        came.len() == requests,
        "{} of {requests} came back",
        came.len()
    );
    for (model, awaited, answer) in came {
        let answer = answer?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.code());
        cast.open(model, awaited, &answer.body)?;
    }
    Ok(requests as f64 / took.as_secs_f64())
}
