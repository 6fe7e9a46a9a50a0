//! Appending: rates and latencies from enqueue to acknowledged, through [`bield_sdk::capsule::Appender`].
//!
//! Rows: offered load against latency in every place; the ratio to one signature per put; one core;
//! post-quantum signatures against the default suite.

use anyhow::Result;
use bield_capsule::{QueueLimits, Suite};
use bield_sdk::capsule::AppenderOptions;

use super::Effort;
use super::chain::{KEY_BYTES, Put};
use super::cores;
use super::load::{Flood, Offered, Rest, flood, offer};
use super::place::Place;
use crate::bars::{Bar, median};

/// Bytes of value that a put carries beside its key.
pub(crate) const VALUES: [usize; 3] = [16, 100, 1000];

/// Offered load against latency, and the most within a bound, for every suite and size in `place`.
pub(crate) fn offered(place: &Place, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let memory = matches!(place, Place::Memory);
    for suite in effort.suites() {
        for value in effort.values() {
            if !memory && suite != Suite::Ed25519 && value != 100 {
                continue;
            }
            eprintln!("  {}, suite {}, {value} B", place.name(), suite.number());
            let what = format!("{}, suite {}, {value} B", place.name(), suite.number());
            let saturated = saturate(place, suite, value, effort)?;
            let mut steps = Steps {
                place,
                suite,
                value,
                effort,
                most: saturated.rate,
            };
            bars.push(Bar::told(
                format!("{what}: saturated"),
                saturated.rate,
                "puts/s",
                format!("closed loop, mean batch {:.0}", saturated.batch),
            ));
            for share in [0.1, 0.5] {
                let step = steps.step(share)?;
                bars.push(told(
                    &format!("{what}: p99 at {:.0} % load", share * 100.0),
                    &step,
                ));
            }
            let bounds = if memory { &[1.0][..] } else { &[10.0, 1.0][..] };
            for (bound, found) in bounds.iter().zip(steps.most_within(bounds)?) {
                let note = "no load that was tried kept within it".to_owned();
                bars.push(Bar::told(
                    format!("{what}: most with p99 ≤ {bound:.0} ms"),
                    found.map_or(0.0, |step| step.achieved),
                    "puts/s",
                    found.map_or(note, |step| describe(&step)),
                ));
            }
        }
    }
    Ok(())
}

/// Batches against one signature per put, from enqueue to signed, in memory.
pub(crate) fn against_single(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let place = Place::Memory;
    for suite in effort.suites() {
        for value in effort.values() {
            eprintln!(
                "  one signature per put, suite {}, {value} B",
                suite.number()
            );
            let mut steps = Steps {
                place: &place,
                suite,
                value,
                effort,
                most: saturate(&place, suite, value, effort)?.rate,
            };
            let found = steps.most_within(&[1.0])?;
            let rate = found[0].map_or(steps.most * 0.1, |found| found.rate);
            let (mut ratios, mut p99s, mut singles, mut batched) = (vec![], vec![], vec![], vec![]);
            for _ in 0..effort.rounds() {
                let step = steps.at(rate)?;
                let single = single(suite, value, effort)?;
                ratios.push(step.achieved / single.rate);
                p99s.push(step.p99);
                singles.push(single.rate);
                batched.push(step);
            }
            let p99 = median(p99s);
            let (single, ratio) = (median(singles), median(ratios));
            let records = median(batched.iter().map(|step| step.records).collect());
            let batch = median(batched.iter().map(|step| step.batch).collect());
            let name = format!(
                "batched ÷ one signature per put, suite {}, {value} B",
                suite.number()
            );
            let note = format!(
                "memory, open loop at {}/s with p99 {p99:.3} ms (bound 1 ms), mean batch {batch:.0}, \
                 {records:.0} records/s, entry {} B; one per put saturated {}/s, same path",
                short(rate),
                KEY_BYTES + value,
                short(single)
            );
            let target = if value > 100 { 25.0 } else { 81.0 };
            bars.push(if suite == Suite::Ed25519 {
                Bar::at_least(name, ratio, target, note).provided(p99 <= 1.0)
            } else {
                Bar::told(name, ratio, "ratio", note)
            });
        }
    }
    Ok(())
}

/// Producer, signer and generator on one core.
pub(crate) fn one_core(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let pinned = cores::pin_to_one()?;
    let place = Place::Memory;
    for value in effort.values() {
        let saturated = saturate(&place, Suite::Ed25519, value, effort)?;
        let mut steps = Steps {
            place: &place,
            suite: Suite::Ed25519,
            value,
            effort,
            most: saturated.rate,
        };
        let step = steps.with(0.5 * saturated.rate, Rest::Sleep)?;
        bars.push(Bar::at_least(
            format!("one core, suite 1, {value} B ÷ 1 M puts/s"),
            saturated.rate / 1e6,
            1.0,
            format!(
                "generator and signer pinned to one core, closed loop, mean batch {:.0}; open loop at half \
                 of it: {}",
                saturated.batch,
                describe(&step)
            ),
        ));
    }
    drop(pinned);
    Ok(())
}

/// Suite 3 against suite 1 at saturation, 100 B.
pub(crate) fn post_quantum(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let place = Place::Memory;
    let (mut ratios, mut batches) = (vec![], vec![]);
    for _ in 0..effort.rounds() {
        let first = saturate(&place, Suite::Ed25519, 100, effort)?;
        let third = saturate(&place, Suite::MlDsa44, 100, effort)?;
        ratios.push(third.rate / first.rate);
        batches.push(third.batch);
    }
    bars.push(Bar::at_least(
        "suite 3 ÷ suite 1 at saturation, 100 B".to_owned(),
        median(ratios),
        0.6,
        format!(
            "memory, closed loop, mean batch of suite 3 {:.0}",
            median(batches)
        ),
    ));
    Ok(())
}

/// Loads on fresh appenders of one kind.
struct Steps<'a> {
    place: &'a Place,
    suite: Suite,
    value: usize,
    effort: &'a Effort,
    /// Puts a second of a closed loop.
    most: f64,
}

impl Steps<'_> {
    fn step(&mut self, share: f64) -> Result<Offered> {
        self.at(self.most * share)
    }

    fn at(&mut self, rate: f64) -> Result<Offered> {
        let rest = match self.place {
            Place::Memory => Rest::Spin,
            Place::Disk(_) | Place::Segments(_) | Place::Stores(_) => Rest::Sleep,
        };
        self.with(rate, rest)
    }

    fn with(&mut self, rate: f64, rest: Rest) -> Result<Offered> {
        let started = self.place.start(self.suite, AppenderOptions::default())?;
        let span = self.effort.span(self.place);
        let mut put = Put::of(self.value);
        offer(&started.appender, &mut put, rate, span, started.level, rest)
    }

    /// The highest load of a ladder that keeps within each bound.
    fn most_within(&mut self, bounds_ms: &[f64]) -> Result<Vec<Option<Offered>>> {
        // In memory twice: one stall of the machine must not decide.
        let tries = if matches!(self.place, Place::Memory) {
            2
        } else {
            1
        };
        let mut found = vec![None; bounds_ms.len()];
        for share in [0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.03] {
            for _ in 0..tries {
                let step = self.step(share)?;
                for (bound, found) in bounds_ms.iter().zip(&mut found) {
                    if found.is_none() && step.within(*bound) {
                        *found = Some(step);
                    }
                }
                if found.iter().all(Option::is_some) {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}

/// What a closed loop reaches.
pub(crate) fn saturate(
    place: &Place,
    suite: Suite,
    value: usize,
    effort: &Effort,
) -> Result<Flood> {
    let started = place.start(suite, AppenderOptions::default())?;
    let span = effort.span(place);
    flood(
        &started.appender,
        &mut Put::of(value),
        span,
        started.level,
        false,
    )
}

/// The same path with room for one entry in the queue. The producer tries again at once while there
/// is no room: waking it would cost the signer a system call a put and make this look slower.
fn single(suite: Suite, value: usize, effort: &Effort) -> Result<Flood> {
    let options = AppenderOptions {
        limits: QueueLimits {
            entries: 1,
            ..QueueLimits::default()
        },
        ..AppenderOptions::default()
    };
    let started = Place::Memory.start(suite, options)?;
    let span = effort.span(&Place::Memory);
    flood(
        &started.appender,
        &mut Put::of(value),
        span,
        started.level,
        true,
    )
}

fn told(name: &str, step: &Offered) -> Bar {
    Bar::told(name.to_owned(), step.p99, "ms", describe(step))
}

fn describe(step: &Offered) -> String {
    format!(
        "{}/s offered, p50 {:.3} ms, p99 {:.3} ms, mean batch {:.1}, {} records/s",
        short(step.rate),
        step.p50,
        step.p99,
        step.batch,
        short(step.records)
    )
}

/// A rate in few digits.
pub(crate) fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}
