//! One thread's closed loop: calls a second, processor time a call, latencies.
//!
//! ```text
//! windows of calls, timed whole ─▶ rate, processor time        every other 25 ms: each call timed ─▶ p50, p99
//! ```
//!
//! Always true: reading the clock is no part of a rate. Processor time is that of all threads of this process: what
//! signing and storing cost counts, what other programs take does not.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::bars::median;

/// What a loop took.
pub(super) struct Took {
    /// Calls a second: the median window's.
    pub(super) rate: f64,
    /// Calls for each second that a core worked for them, whichever thread it was.
    pub(super) per_core: f64,
    /// Half of the calls took at most so many microseconds.
    pub(super) p50: f64,
    /// 99 of 100 did.
    pub(super) p99: f64,
}

impl Took {
    /// For a note.
    pub(super) fn told(&self) -> String {
        format!(
            "{}/s, {} a second of processor time, p50 {:.2} µs, p99 {:.2} µs",
            short(self.rate),
            short(self.per_core),
            self.p50,
            self.p99
        )
    }
}

/// Calls `of` for so long, in windows of `calls`; `rest` ends a window, within its time.
pub(super) fn closed<T>(
    of: &mut T,
    span: Duration,
    calls: usize,
    mut call: impl FnMut(&mut T) -> Result<()>,
    mut rest: impl FnMut(&mut T) -> Result<()>,
) -> Result<Took> {
    let mut rates = Vec::new();
    let (mut done, mut worked) = (0_usize, Duration::ZERO);
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 100_000_000_000, 3)?;
    let begin = Instant::now();
    while begin.elapsed() < span || rates.is_empty() {
        let (phase, busy) = (Instant::now(), processor()?);
        while phase.elapsed() < PHASE {
            let start = Instant::now();
            for _ in 0..calls {
                call(of)?;
            }
            rest(of)?;
            rates.push(calls as f64 / start.elapsed().as_secs_f64());
            done += calls;
        }
        worked += processor()?.saturating_sub(busy);
        let phase = Instant::now();
        while phase.elapsed() < PHASE {
            for _ in 0..calls {
                let start = Instant::now();
                call(of)?;
                latencies.saturating_record(start.elapsed().as_nanos() as u64);
            }
            rest(of)?;
        }
    }
    Ok(Took {
        rate: median(rates),
        per_core: done as f64 / worked.as_secs_f64(),
        p50: latencies.value_at_quantile(0.5) as f64 / 1e3,
        p99: latencies.value_at_quantile(0.99) as f64 / 1e3,
    })
}

/// Calls a second of one slice, for ratios that are taken in turns.
pub(super) fn slice<T>(
    of: &mut T,
    span: Duration,
    calls: usize,
    mut call: impl FnMut(&mut T) -> Result<()>,
    mut rest: impl FnMut(&mut T) -> Result<()>,
) -> Result<f64> {
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < span {
        for _ in 0..calls {
            call(of)?;
        }
        rest(of)?;
        done += calls;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// Processor time of this process's living threads so far.
pub(super) fn processor() -> Result<Duration> {
    // The kernel counts up to the last time that it looked at a thread: this one is looked at now.
    std::thread::yield_now();
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        // A thread that ended meanwhile has no file any more.
        let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
        nanos += first.unwrap_or(0_u64);
    }
    Ok(Duration::from_nanos(nanos))
}

/// A rate in few digits.
pub(super) fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// A window that ends with its last call.
pub(super) fn nothing<T>(_: &mut T) -> Result<()> {
    Ok(())
}

/// How long calls are timed in one way before they are in the other.
const PHASE: Duration = Duration::from_millis(25);
