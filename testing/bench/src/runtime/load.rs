//! Closed loops: each client has one request at a time.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::bars::median;

/// What came of a load.
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Milliseconds that the middle one took.
    pub(crate) middle: f64,
    /// Milliseconds that the 99th of a hundred took.
    pub(crate) p99: f64,
}

impl Load {
    /// From the milliseconds of all answers.
    pub(crate) fn of(took: Vec<f64>, seconds: f64) -> Self {
        Self {
            rate: took.len() as f64 / seconds,
            middle: median(took.clone()),
            p99: percentile(took, 0.99),
        }
    }

    /// The medians of several.
    pub(crate) fn medians(loads: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(loads.iter().map(value).collect());
        Self {
            rate: of(|load| load.rate),
            middle: of(|load| load.middle),
            p99: of(|load| load.p99),
        }
    }
}

/// The value below which this part of all is.
pub(crate) fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part).ceil() as usize;
    let at = at.saturating_sub(1).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// One client: asks and waits for its answer.
pub(crate) type Client<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// Runs so many clients for so long; a request that was begun in time counts. Making a client is not timed.
pub(crate) fn closed<'a>(
    clients: usize,
    span: Duration,
    client: &(dyn Fn() -> Result<Client<'a>> + Sync),
) -> Result<Load> {
    let together = Barrier::new(clients);
    let took = thread::scope(|scope| {
        let each = || -> Result<(Vec<f64>, f64)> {
            let made = client();
            together.wait();
            let (mut ask, mut took, started) = (made?, Vec::new(), Instant::now());
            while started.elapsed() < span {
                let begun = Instant::now();
                ask()?;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            Ok((took, started.elapsed().as_secs_f64()))
        };
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(each)).collect();
        let (mut took, mut longest) = (Vec::new(), 0.0_f64);
        for one in all {
            let (own, seconds) = one.join().map_err(|_| anyhow!("a client panicked"))??;
            took.extend(own);
            longest = longest.max(seconds);
        }
        anyhow::Ok((took, longest))
    });
    let (took, seconds) = took.context("under load")?;
    Ok(Load::of(took, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(values.clone(), 0.99), 99.0);
        assert_eq!(percentile(values, 1.0), 100.0);
        assert_eq!(percentile(vec![7.0], 0.5), 7.0);
        assert!(percentile(Vec::new(), 0.5).is_nan());
    }
}
