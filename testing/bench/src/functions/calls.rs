//! Calls out of a guest, to its bucket: what one costs is what a request with many takes longer than one with none.

use std::time::Instant;

use anyhow::{Result, ensure};
use bield_function::{KvError, World};

use super::cast::Cast;
use super::table::{RECORDS, Table, key};
use super::{Effort, micros};
use crate::bars::{Bar, median, ratio};
use crate::world::TableWorld;

/// Calls in one request.
const CALLS: u32 = 1000;
/// Most microseconds of one, as issue 7 has it.
const MICROS_MAX: f64 = 2.0;
/// The bucket of the guest in `calls.wat`.
const BUCKET: &str = "things";

/// One call on a world.
type Call = fn(&mut TableWorld, bield_function::BucketId, u32) -> Result<(), KvError>;

/// What is called: its name, which the guest knows as a path, and the same without a guest.
const KINDS: [(&str, Call); 4] = [
    ("get", |world, bucket, at| {
        world.get(bucket, &key(at)).map(drop)
    }),
    ("set", |world, bucket, at| {
        world.set(bucket, &key(at), vec![7; 16])
    }),
    ("exists", |world, bucket, at| {
        world.exists(bucket, &key(at)).map(drop)
    }),
    ("increment", |world, bucket, at| {
        let key = format!("n{}", &key(at)[1..]);
        world.increment(bucket, &key, 1).map(drop)
    }),
];

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let table = Table::open(&cast.folder, &[BUCKET])?;
    for (name, call) in KINDS {
        let (mut called, mut alone, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=effort.rounds() {
            let with = (0..effort.starts()).map(|_| guest(cast, &table, name, CALLS));
            let with = with.collect::<Result<Vec<_>>>()?;
            let without = (0..effort.starts()).map(|_| guest(cast, &table, name, 0));
            let without = without.collect::<Result<Vec<_>>>()?;
            let bare = (0..effort.starts()).map(|_| bare(&table, call));
            let bare = bare.collect::<Result<Vec<_>>>()?;
            if round == 0 {
                continue;
            }
            let middle = |all: &[(f64, f64)]| median(all.iter().map(|(took, _)| *took).collect());
            called.push((middle(&with) - middle(&without)) / f64::from(CALLS));
            alone.push(median(bare) / f64::from(CALLS));
            ends.extend(with.iter().map(|(_, end)| *end));
        }
        let note = format!(
            "{CALLS} of them in one request less none, keys of 4 bytes and values of 16 among {RECORDS} in memory; the \
             same without a guest {:.2} µs, so the way out of it and back is {:.2} µs; the request's end then {:.0} µs",
            median(alone.clone()),
            median(called.clone()) - median(alone.clone()),
            median(ends),
        );
        let bar = Bar::at_most(
            format!("call out: {name}"),
            median(called.clone()),
            MICROS_MAX,
            note,
        );
        bars.push(bar.of("µs"));
        bars.push(Bar::told(
            format!("call out: {name} ÷ without a guest"),
            ratio(&called, &alone),
            "ratio",
            "the table's own work is the divisor".to_owned(),
        ));
    }
    Ok(())
}

/// A request with so many calls: its microseconds, and those of its end.
fn guest(cast: &Cast, table: &Table, path: &str, calls: u32) -> Result<(f64, f64)> {
    let (world, left) = table.begin()?;
    let (answer, took) = cast.calls.ask(path, &calls.to_le_bytes(), world)?;
    ensure!(answer == calls.to_le_bytes(), "it made other calls");
    let begun = Instant::now();
    left.finish()?;
    Ok((took, micros(begun)))
}

/// The microseconds of the same calls on a world, without a guest.
fn bare(table: &Table, call: Call) -> Result<f64> {
    let (mut world, left) = table.begin()?;
    let bucket = world.open(BUCKET)?;
    let begun = Instant::now();
    for at in 0..CALLS {
        call(&mut world, bucket, at)?;
    }
    let took = micros(begun);
    left.finish()?;
    Ok(took)
}
