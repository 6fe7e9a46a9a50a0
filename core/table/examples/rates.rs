//! Prints what a table in memory costs a call: `cargo run --release -p bield-table --example rates`.
//!
//! 100 000 keys of 24 bytes, values of 16 and of 100 bytes; keys drawn evenly; one thread. Each line is the second
//! percentile of 1000 windows of 500 calls, since a machine that others use as well has few quiet moments.

#![expect(clippy::disallowed_methods, reason = "measures; nothing depends on it")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bield_capsule::{Batch, BatchFull, WriterId};
use bield_envelope::{Seeded, Time};
use bield_table::{
    Consistency, Leases, NoCold, Op, Options, PageLimits, Table, TableError, bucket_range, full_key,
};
use rand_core::Rng;

const KEYS: u64 = 100_000;
const CALLS: usize = 500;
const WINDOWS: usize = 1000;

fn main() -> Result<(), TableError> {
    for bytes in [16, 100] {
        println!("values of {bytes} bytes");
        rates(bytes)?;
    }
    Ok(())
}

fn rates(bytes: usize) -> Result<(), TableError> {
    let options = Options {
        memtable_bytes: 1 << 30,
        ..Options::default()
    };
    let writer = WriterId::from_bytes([7; 32]);
    let table = Table::open(writer, options, Arc::new(NoCold), &[], Leases::default())?;
    let (value, now) = (vec![7; bytes], Time::from_millis(1_800_000_000_000));
    let key = |n: u64| full_key("bucket", format!("key-{n:012}").as_bytes());
    let keys = (0..KEYS).map(key).collect::<Result<Vec<_>, _>>()?;
    let mut draw = Seeded::new(1);
    let mut draw = move || {
        let drawn = core::iter::repeat_with(|| (draw.next_u64() % KEYS) as usize);
        drawn.take(CALLS).collect::<Vec<usize>>()
    };

    // As a signer takes it: the record that fills is taken when it is full.
    let mut record = Batch::new();
    let mut hand = |entries: &Batch| match record.append(entries) {
        Err(BatchFull::Full) => {
            record.clear();
            record.append(entries)
        }
        other => other,
    };
    let mut put = |key: &[u8]| {
        let put = Op::Put {
            key,
            value: &value,
            expires: None,
        };
        table.write(&[put], now, &mut hand).map(drop)
    };
    keys.iter().try_for_each(|key| put(key))?;
    line("put over what is there", &mut draw, |drawn| {
        drawn.iter().try_for_each(|n| put(&keys[*n]))
    })?;
    let map: BTreeMap<&[u8], &[u8]> = keys.iter().map(|key| (&**key, &*value)).collect();
    line(
        "for comparison: get from one BTreeMap",
        &mut draw,
        |drawn| {
            drawn
                .iter()
                .for_each(|n| _ = black_box(map.get(&*keys[*n])));
            Ok(())
        },
    )?;
    let how = Consistency::Eventual;
    line("get, a copy", &mut draw, |drawn| {
        drawn.iter().try_for_each(|n| {
            table
                .get(&keys[*n], how, now)
                .map(|found| drop(black_box(found)))
        })
    })?;
    line("read where it lies", &mut draw, |drawn| {
        let length = |n: &usize| table.read(&keys[*n], how, now, |cell| cell.is_some());
        drawn
            .iter()
            .try_for_each(|n| length(n).map(|found| _ = black_box(found)))
    })?;
    let (from, to) = bucket_range("bucket")?;
    let limits = PageLimits {
        keys: 100,
        bytes: 1 << 20,
    };
    line("a key of a page of 100", &mut draw, |drawn| {
        drawn.iter().take(CALLS / 100).try_for_each(|n| {
            let page = table.page((&from, &to), Some(&keys[*n]), limits, how, now)?;
            drop(black_box(page));
            Ok(())
        })
    })?;
    let entry = table.memory_bytes() as f64 / KEYS as f64;
    println!("  {entry:>7.0} bytes of memory a key, as accounted");
    Ok(())
}

fn line(
    what: &str,
    draw: &mut impl FnMut() -> Vec<usize>,
    mut window: impl FnMut(&[usize]) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let mut nanos = Vec::with_capacity(WINDOWS);
    for _ in 0..WINDOWS {
        let drawn = draw();
        let begin = Instant::now();
        window(&drawn)?;
        nanos.push(begin.elapsed().as_nanos() as f64 / CALLS as f64);
    }
    nanos.sort_by(f64::total_cmp);
    let quiet = nanos[WINDOWS / 50];
    println!("  {quiet:>7.0} ns  {what}: {:.2} M/s", 1e3 / quiet);
    Ok(())
}
