//! Verified puts: records of another writer taken in, and own ones sealed.
//!
//! ```text
//! bytes ─▶ decode ─▶ signature, chain, rules ─▶ open ─▶ entries checked ─▶ memtable, visible        one thread
//! put ─▶ memtable, queue ─▶ seal, hash, sign ─▶ file                                    two threads, one core
//! ```
//!
//! Always true: nothing is applied before its record was verified; a latency is that of the last put of a record,
//! from the record's bytes to when a reader sees it. Rates are of processor time, of threads that share one core.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bield_capsule::{Batch, Received, Suite};
use bield_envelope::Time;
use bield_sdk::now;
use bield_table::{Consistency, Leases, NoCold, Op, Options, Table, full_key};
use hdrhistogram::Histogram;

use super::Effort;
use super::calls::{Calls, KEYS};
use super::draw::{Draw, key};
use super::files::Folder;
use super::place::{Disk, Place, roomy, things};
use super::timed::{processor, short};
use crate::bars::{Bar, median};
use crate::capsule::chain::Chain;
use crate::capsule::cores;

/// All of it, for two sizes of value.
pub(super) fn verified(
    folder: &std::path::Path,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    for value in [16, 100] {
        eprintln!("  verified puts, {value} B");
        // What a receiver finds at once when records come faster than it looks: one signature checked a run.
        for (puts, run, holds) in [
            (256, 1, true),
            (64, 1, false),
            (64, 8, false),
            (1024, 1, false),
        ] {
            let (mut rates, mut p50s, mut p99s) = (vec![], vec![], vec![]);
            for _ in 0..effort.rounds() {
                let took =
                    Receiving::new(value, puts, effort.records(600_000) / puts)?.took(run)?;
                rates.push(took.0);
                p50s.push(took.1);
                p99s.push(took.2);
            }
            let (rate, p50, p99) = (median(rates), median(p50s), median(p99s));
            let name = format!(
                "verified put, received, records of {puts}, runs of {run}, {value} B ÷ 1 M/s per core"
            );
            let note = format!(
                "{}/s of one core: decode, verify, open, apply over {KEYS} keys; from bytes to visible p50 {p50:.3} ms, \
                 p99 {p99:.3} ms (bound 1 ms)",
                short(rate)
            );
            bars.push(if holds {
                Bar::at_least(name, rate / 1e6, 1.0, note).provided(p99 <= 1.0)
            } else {
                Bar::told(name, rate / 1e6, "ratio", note)
            });
        }
        sealed(folder, value, effort, bars)?;
    }
    Ok(())
}

/// Own puts, with what sealing and storing them costs.
fn sealed(
    folder: &std::path::Path,
    value: usize,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    // The signer's thread starts on the same core.
    let pinned = cores::pin_to_one()?;
    let place = Place::on(Disk::Folder(Folder::new(folder)?), roomy())?;
    let state = place.open(&[])?;
    let mut calls = Calls::new(&state, things(), value)?;
    calls.fill(KEYS)?;
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 100_000_000_000, 3)?;
    let (mut puts, mut worked, mut walls) = (0_u64, Duration::ZERO, vec![]);
    for _ in 0..2 * effort.turns() {
        // Rate and latency in turns: reading the clock is no part of the rate.
        let (busy, begin) = (processor()?, Instant::now());
        let before = puts;
        while begin.elapsed() < effort.slice() {
            puts += calls.put_many(BURST)?;
            calls.end()?;
        }
        walls.push((puts - before) as f64 / begin.elapsed().as_secs_f64());
        worked += processor()?.saturating_sub(busy);
        let begin = Instant::now();
        while begin.elapsed() < effort.slice() {
            for _ in 0..BURST {
                let start = Instant::now();
                calls.put_many(1)?;
                latencies.saturating_record(start.elapsed().as_nanos() as u64);
            }
            calls.end()?;
        }
    }
    let rate = puts as f64 / worked.as_secs_f64();
    let p99 = latencies.value_at_quantile(0.99) as f64 / 1e6;
    let p50 = latencies.value_at_quantile(0.5) as f64 / 1e6;
    bars.push(
        Bar::at_least(
            format!("verified put, own, {value} B ÷ 1 M/s per core"),
            rate / 1e6,
            1.0,
            format!(
                "{}/s of processor time, {}/s on the clock, caller and signer on one core: applied, sealed, \
                 signed, written to a file, not synced; requests of {BURST} puts, awaited; p50 {p50:.4} ms, p99 \
                 {p99:.4} ms (bound 1 ms)",
                short(rate),
                short(median(walls))
            ),
        )
        .provided(p99 <= 1.0),
    );
    drop(pinned);
    Ok(())
}

/// A chain of records of puts, and who receives it.
struct Receiving {
    chain: Chain,
    records: Vec<Vec<u8>>,
    puts: usize,
}

impl Receiving {
    fn new(value: usize, puts: usize, count: usize) -> Result<Self> {
        let mut chain = Chain::new(Suite::Ed25519)?;
        let writer = chain.writer.id();
        let table = Table::open(
            writer,
            large(),
            std::sync::Arc::new(NoCold),
            &[],
            Leases::default(),
        )?;
        let (value, mut draw) = (vec![b'v'; value], Draw::new(5));
        // First every key once, so that what is measured is a table of that many.
        let fills = (KEYS as usize).div_ceil(puts) * puts;
        let mut numbers = (0..fills as u64).map(|number| number % KEYS);
        let mut records = Vec::new();
        let mut batch = Batch::new();
        let wanted = fills / puts + count.max(RECORDS_MIN);
        while records.len() < wanted {
            batch.clear();
            for _ in 0..puts {
                let number = numbers.next().unwrap_or_else(|| draw.below(KEYS));
                let key = full_key("things", &key(number))?;
                let put = Op::Put {
                    key: &key,
                    value: &value,
                    expires: None,
                };
                table.write(&[put], now(), |entries| batch.append(entries))?;
            }
            let record = chain.seal(&batch)?;
            table.sealed(record.header());
            records.push(record.into_bytes());
        }
        Ok(Self {
            chain,
            records,
            puts,
        })
    }

    /// Puts a second of processor time; p50 and p99 of the latency in milliseconds.
    fn took(self, run: usize) -> Result<(f64, f64, f64)> {
        let mut verifier = self.chain.verifier()?;
        let own = bield_capsule::WriterId::from_bytes([9; 32]);
        let table = Table::open(
            own,
            large(),
            std::sync::Arc::new(NoCold),
            &[],
            Leases::default(),
        )?;
        let fills = (KEYS as usize).div_ceil(self.puts);
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 100_000_000_000, 3)?;
        let (mut puts, mut busy) = (0, Duration::ZERO);
        let (mut done, mut records) = (0, self.records.into_iter());
        let present = now();
        loop {
            let bytes: Vec<Vec<u8>> = records.by_ref().take(run).collect();
            if bytes.is_empty() {
                break;
            }
            if busy.is_zero() && done >= fills {
                busy = processor()?;
            }
            let (count, begin) = (bytes.len(), Instant::now());
            let received = bytes.into_iter().map(Received::decode);
            let received = received.collect::<Result<Vec<_>, _>>()?;
            let verified = if count == 1 {
                received
                    .into_iter()
                    .map(|record| verifier.verify(record))
                    .collect::<Result<Vec<_>, _>>()?
            } else {
                verifier
                    .verify_run(received)
                    .map_err(|(_, refused)| refused)?
            };
            let mut changes = 0;
            for record in verified {
                let applied = verifier.apply(record)?;
                changes += table.apply(&applied, &self.chain.ring, present)?.changes;
            }
            let took = begin.elapsed();
            ensure!(changes == count * self.puts, "a put is missing");
            done += count;
            if !busy.is_zero() {
                latencies.saturating_record(took.as_nanos() as u64);
                puts += changes;
            }
        }
        let worked = processor()?.saturating_sub(busy);
        ensure!(seen(&table, present)? == Some(()), "nothing is visible");
        let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
        Ok((
            puts as f64 / worked.as_secs_f64(),
            millis(0.5),
            millis(0.99),
        ))
    }
}

/// Whether the table shows what it took in.
fn seen(table: &Table, now: Time) -> Result<Option<()>> {
    let found = table.get(
        &full_key("things", &key(KEYS - 1))?,
        Consistency::Eventual,
        now,
    )?;
    Ok(found.map(drop))
}

fn large() -> Options {
    Options {
        memtable_bytes: 1 << 30,
        ..Options::default()
    }
}

/// Enough for a 99th percentile.
const RECORDS_MIN: usize = 300;
/// Puts of a request.
const BURST: u64 = 1000;
