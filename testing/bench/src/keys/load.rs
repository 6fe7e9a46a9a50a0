//! A closed loop: so many callers, each with one question at a time.
//!
//! Always true: a caller's latency runs from its question to its answer; the rate counts all answers
//! until the first caller has nothing left to ask or the span is over.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

/// What became of a loop.
#[derive(Clone, Copy)]
pub(super) struct Done {
    /// Answers a second.
    pub(super) rate: f64,
    /// All answers.
    pub(super) count: u64,
    /// Half of the answers came this soon, in milliseconds.
    pub(super) p50: f64,
    /// 99 of 100 did.
    pub(super) p99: f64,
}

/// Runs each of `callers` on a thread; one asks once for each call of its closure, which says whether it had
/// something to ask.
pub(super) fn closed<C: FnMut() -> Result<bool> + Send>(
    callers: Vec<C>,
    span: Duration,
) -> Result<Done> {
    let over = AtomicBool::new(false);
    let begin = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let over = &over;
        let started: Vec<_> = callers
            .into_iter()
            .map(|mut ask| {
                scope.spawn(move || {
                    let outcome = caller(&mut ask, over, begin, span);
                    over.store(true, Relaxed);
                    outcome
                })
            })
            .collect();
        let mut all = new_histogram()?;
        for thread in started {
            match thread.join() {
                Ok(latencies) => all.add(latencies?)?,
                Err(_) => bail!("a caller panicked"),
            }
        }
        Ok(all)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Done {
        rate: latencies.len() as f64 / seconds,
        count: latencies.len(),
        p50: latencies.value_at_quantile(0.5) as f64 / 1e6,
        p99: latencies.value_at_quantile(0.99) as f64 / 1e6,
    })
}

fn caller(
    ask: &mut impl FnMut() -> Result<bool>,
    over: &AtomicBool,
    begin: Instant,
    span: Duration,
) -> Result<Histogram<u64>> {
    let mut latencies = new_histogram()?;
    while begin.elapsed() < span && !over.load(Relaxed) {
        let asked = Instant::now();
        if !ask()? {
            break;
        }
        latencies.saturating_record(asked.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

fn new_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 100_000_000_000, 3)?)
}
