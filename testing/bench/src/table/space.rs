//! What levels cost beside calls: bytes written, held and read, starts, and puts while runs are merged.
//!
//! ```text
//! puts ─▶ log ─▶ flush ─▶ runs ─▶ compaction ─▶ runs        written ÷ put     held ÷ live     blocks read ÷ get
//! files alone ─▶ State::open ─▶ first get                   records a second; after a flush
//! ```
//!
//! Bytes written are what this process handed to the system (`wchar` of `/proc/self/io`), the same for every store.
//! Live bytes are keys and newest values. Stores have settled when nothing is written any more.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_state::{Settings, State};
use hdrhistogram::Histogram;

use super::Effort;
use super::calls::Calls;
use super::draw::{Draw, KEY_BYTES, key};
use super::files::Folder;
use super::place::{Disk, Place, roomy, things};
use super::stores::{Client, Lsm};
use super::timed::short;
use crate::bars::Bar;

/// Write, space and read amplification, ours and fjall's.
pub(super) fn amplification(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let keys = effort.records(1_000_000) as u64;
    let (value, mut draw) = (vec![b'v'; VALUE], Draw::new(23));
    let put = 2 * keys * (KEY_BYTES + VALUE) as u64;
    let live = keys * (KEY_BYTES + VALUE) as u64;
    let what = format!(
        "{} keys × {VALUE} B, each put, then as many evenly drawn",
        short(keys as f64)
    );
    eprintln!("  amplification, {} keys", short(keys as f64));

    let disk = Folder::new(folder)?;
    let settings = Settings {
        // What was replaced stays this long; else it would count as held.
        retention: Duration::ZERO,
        ..Settings::default()
    };
    let place = Place::on(Disk::Folder(disk.clone()), settings)?;
    let state = place.open(&[])?;
    let before = written()?;
    let mut calls = Calls::new(&state, things(), VALUE)?;
    calls.fill(keys)?;
    calls.fill_drawn(keys, keys)?;
    state.flush()?;
    settle()?;
    let ours = (written()? - before) as f64 / put as f64;
    let held = disk.bytes()? as f64 / live as f64;
    let reads = disk.reads();
    for _ in 0..READS {
        calls.get_key(draw.below(keys))?;
    }
    let reads = disk.reads().since(&reads);
    drop(calls);
    state.close()?;

    let mut lsm = Lsm::new(folder)?;
    let before = written()?;
    lsm.fill(keys, &value)?;
    for _ in 0..keys {
        lsm.update(&key(draw.below(keys)), &value)?;
    }
    let lsm_held = lsm.settled_bytes()? as f64 / live as f64;
    settle()?;
    let theirs = (written()? - before) as f64 / put as f64;
    let note = format!("{what}; fjall {theirs:.2}; log, runs and merged runs");
    bars.push(Bar::told(
        "bytes written ÷ bytes put".to_owned(),
        ours,
        "ratio",
        note,
    ));
    let note = format!(
        "{what}; fjall {lsm_held:.2} with its journal, allocated ahead; nothing retained or compressed"
    );
    bars.push(Bar::told(
        "bytes held ÷ live bytes".to_owned(),
        held,
        "ratio",
        note,
    ));
    let note = format!(
        "evenly drawn gets, cache of 32 MiB over {} MB; {:.0} B a read",
        live / 1_000_000,
        reads.bytes / reads.count.max(1.0)
    );
    bars.push(Bar::told(
        "blocks read ÷ gets".to_owned(),
        reads.count / READS as f64,
        "ratio",
        note,
    ));
    Ok(())
}

/// From files alone to the first answer.
pub(super) fn recovery(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let mut after_flush = Vec::new();
    for keys in [10_000, effort.records(1_000_000) as u64] {
        eprintln!("  recovery, {} keys", short(keys as f64));
        let disk = Folder::new(folder)?;
        let place = Place::on(Disk::Folder(disk.clone()), roomy())?;
        let state = place.open(&[])?;
        let heads = filled(&state, keys)?;
        let records: u64 = heads.iter().map(|head| head.seq).sum();
        let log = disk.bytes()?;
        drop(state);
        let (seconds, state) = opened(&place, keys)?;
        bars.push(Bar::told(
            format!("start from the log alone, {} puts", short(keys as f64)),
            records as f64 / seconds,
            "records/s",
            format!(
                "{seconds:.3} s to the first answer, {} puts/s, {} MB: read, verified, opened, applied",
                short(keys as f64 / seconds),
                log / 1_000_000
            ),
        ));
        state.flush()?;
        drop(state);
        let (seconds, _) = opened(&place, keys)?;
        after_flush.push(seconds);
    }
    let [small, large] = after_flush[..] else {
        unreachable!("two sizes were measured");
    };
    bars.push(Bar::told(
        "start after a flush, most keys ÷ 10 000 keys".to_owned(),
        large / small,
        "ratio",
        format!(
            "{:.1} and {:.1} ms to the first answer",
            large * 1e3,
            small * 1e3
        ),
    ));
    Ok(())
}

/// Latencies of puts while runs are written and merged, next to none.
pub(super) fn merging(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    eprintln!("  puts while runs are merged");
    let puts = effort.records(2_000_000) as u64;
    let quiet = latencies(folder, roomy(), puts)?;
    let busy = latencies(folder, Settings::default(), puts)?;
    let millis = |found: &Histogram<u64>, quantile| found.value_at_quantile(quantile) as f64 / 1e6;
    let told = |found: &Histogram<u64>| {
        format!(
            "p50 {:.4}, p99 {:.4}, p99.9 {:.3}, longest {:.1} ms",
            millis(found, 0.5),
            millis(found, 0.99),
            millis(found, 0.999),
            found.max() as f64 / 1e6
        )
    };
    bars.push(Bar::told(
        format!("put p99 while flushing and merging, {VALUE} B"),
        millis(&busy, 0.99),
        "ms",
        format!(
            "{} puts one after the other over {} keys, 16 MiB of memory: {}; nothing flushed: {}",
            short(puts as f64),
            short(MERGED_KEYS as f64),
            told(&busy),
            told(&quiet)
        ),
    ));
    Ok(())
}

fn latencies(folder: &Path, settings: Settings, puts: u64) -> Result<Histogram<u64>> {
    let place = Place::on(Disk::Folder(Folder::new(folder)?), settings)?;
    let state = place.open(&[])?;
    let (mut calls, mut draw) = (Calls::new(&state, things(), VALUE)?, Draw::new(29));
    let mut found = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
    for number in 0..puts {
        let drawn = draw.below(MERGED_KEYS);
        let begin = Instant::now();
        calls.put_key(drawn)?;
        found.saturating_record(begin.elapsed().as_nanos() as u64);
        if number % 1000 == 999 {
            calls.end()?;
        }
    }
    Ok(found)
}

fn filled(state: &State, keys: u64) -> Result<Vec<bield_capsule::Head>> {
    let mut calls = Calls::new(state, things(), VALUE)?;
    calls.fill(keys)?;
    Ok(state.anchoring()?.heads)
}

/// Seconds until a state that is opened has answered.
fn opened(place: &Place, keys: u64) -> Result<(f64, State)> {
    let begin = Instant::now();
    let state = place.open(&[])?;
    let mut request = state.request(&[])?;
    let found = request.get(&things(), &key(keys / 2))?;
    ensure!(found.is_some(), "a key is missing after the start");
    request.finish()?;
    Ok((begin.elapsed().as_secs_f64(), state))
}

/// Waits until nothing is written any more.
fn settle() -> Result<()> {
    let begin = Instant::now();
    let mut before = written()?;
    loop {
        sleep(QUIET);
        let now = written()?;
        if now == before {
            return Ok(());
        }
        ensure!(begin.elapsed() < SETTLE_MAX, "it is still writing");
        before = now;
    }
}

/// Bytes that this process handed to the system so far.
fn written() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(bytes.context("no wchar")?.parse()?)
}

const VALUE: usize = 100;
const READS: u64 = 50_000;
/// Keys that are written again and again while runs are merged.
const MERGED_KEYS: u64 = 500_000;
const QUIET: Duration = Duration::from_millis(1500);
const SETTLE_MAX: Duration = Duration::from_secs(120);
