//! Receiving: decode, signature, link, rules, open; one record at a time and in runs.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bield_capsule::{Applied, KeyRing, Received, Suite};

use super::Effort;
use super::append::short;
use super::chain::{Chain, Put, batch};
use crate::bars::{Bar, median};

/// Puts a second of a receiver, records of 128 against records of 1.
pub(crate) fn received(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for suite in effort.suites() {
        for value in effort.values() {
            eprintln!("  receiving, suite {}, {value} B", suite.number());
            let single = Chained::new(suite, value, 1, effort.records(1_000))?;
            let batched = Chained::new(suite, value, 128, effort.records(400))?;
            let (mut ratios, mut singles, mut batches) = (vec![], vec![], vec![]);
            let (mut single_runs, mut batched_runs) = (vec![], vec![]);
            for _ in 0..effort.rounds() {
                let (one, many) = (single.each()?, batched.each()?);
                ratios.push(many / one);
                singles.push(one);
                batches.push(many);
                single_runs.push(single.in_runs()?);
                batched_runs.push(batched.in_runs()?);
            }
            let what = format!("suite {}, {value} B", suite.number());
            let note = format!(
                "decode, signature, link, rules, open on one core: {}/s in records of 128, {}/s in records \
                 of 1",
                short(median(batches.clone())),
                short(median(singles.clone()))
            );
            let name = format!("receiving batch 128 ÷ batch 1, {what}");
            let (ratio, many, one) = (median(ratios), median(batches), median(singles));
            bars.push(if suite == Suite::Ed25519 && value <= 100 {
                Bar::at_least(name, ratio, 60.0, note)
            } else {
                Bar::told(name, ratio, "ratio", note)
            });
            let (many_run, one_run) = (median(batched_runs), median(single_runs));
            bars.push(Bar::told(
                format!("receiving in runs, batch 128, {what}"),
                many_run,
                "puts/s",
                format!(
                    "verify_run of {RUN} records, newest signature only, opened; {:.2}× one by one; batch \
                     1: {}/s, {:.1}× one by one",
                    many_run / many,
                    short(one_run),
                    one_run / one
                ),
            ));
        }
    }
    Ok(())
}

/// Data records of one chain, as bytes.
struct Chained {
    chain: Chain,
    records: Vec<Vec<u8>>,
    puts: usize,
}

impl Chained {
    fn new(suite: Suite, value: usize, puts: usize, count: usize) -> Result<Self> {
        let mut chain = Chain::new(suite)?;
        let mut put = Put::of(value);
        let records = (0..count).map(|_| {
            let batch = batch(puts, &mut put)?;
            Ok(chain.seal(&batch)?.into_bytes())
        });
        Ok(Self {
            records: records.collect::<Result<_>>()?,
            puts: puts * count,
            chain,
        })
    }

    /// Puts a second, one record after the other.
    fn each(&self) -> Result<f64> {
        let mut verifier = self.chain.verifier()?;
        let records = self.records.clone();
        let mut opened = 0;
        let begin = Instant::now();
        for bytes in records {
            let verified = verifier.verify(Received::decode(bytes)?)?;
            opened += entries(&verifier.apply(verified)?, &self.chain.ring)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(opened == self.puts, "puts are missing");
        Ok(opened as f64 / seconds)
    }

    /// Puts a second, a run after the other.
    fn in_runs(&self) -> Result<f64> {
        let mut verifier = self.chain.verifier()?;
        let records = self.records.clone();
        let mut opened = 0;
        let begin = Instant::now();
        let mut records = records.into_iter();
        loop {
            let run = records.by_ref().take(RUN).map(Received::decode);
            let run = run.collect::<Result<Vec<_>, _>>()?;
            if run.is_empty() {
                break;
            }
            let verified = verifier.verify_run(run).map_err(|(_, refused)| refused)?;
            for record in verified {
                opened += entries(&verifier.apply(record)?, &self.chain.ring)?;
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(opened == self.puts, "puts are missing");
        Ok(opened as f64 / seconds)
    }
}

/// Opens a record and looks at each of its entries.
pub(crate) fn entries(record: &Applied, ring: &KeyRing) -> Result<usize> {
    let entries = record.open(ring)?;
    let mut seen = 0;
    for entry in entries.iter() {
        black_box(entry.plain().context("puts are plain")?);
        seen += 1;
    }
    Ok(seen)
}

/// Records in a run: what a reader finds when it asks a few times a second.
const RUN: usize = 100;
