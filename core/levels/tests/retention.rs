//! Work that was begun on an older manifest, and what must stay in the store for how long.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod cast;

use std::time::Duration;

use bield_capsule::Clock;
use bield_envelope::Seeded;
use bield_levels::{
    Blobs as _, Changes, Compacted, Compaction, Flush, Flushed, Levels, LevelsError, Manifest,
    ManifestError, OwnedCell, Plan, Progress, RETIRED_KEPT, RangeDelete, RunId,
};
use cast::{CACHE_BYTES, Cast, at, put, range};

/// How long a replaced run stays, as the cast's manifest has it.
const RETENTION_MS: u64 = 60_000;

/// Everything there is: keys and values.
fn all(levels: &Levels) -> Result<Vec<(Vec<u8>, String)>, LevelsError> {
    let cells = cast::all(levels)?;
    let pairs = cells
        .iter()
        .map(|cell| (cell.key.clone(), cast::text(cell)));
    Ok(pairs.collect())
}

fn cells(from: u64, count: u64) -> Vec<OwnedCell> {
    let cell = |n: u64| put(&format!("key {n:03}"), from + n, &format!("{}", from + n));
    (0..count).map(cell).collect()
}

/// A flush, not yet in any manifest.
fn flushed(levels: &Levels, cells: &[OwnedCell], ranges: &[RangeDelete]) -> Flushed {
    let mut entropy = Seeded::new(3);
    let mut flush = Flush::begin(levels, ranges.to_vec(), cast::small()).unwrap();
    for cell in cells {
        flush.push(&cell.as_cell(), &mut entropy).unwrap();
    }
    flush.finish(&mut entropy).unwrap()
}

/// A compaction of everything, not yet in any manifest.
fn compacted(levels: &Levels, horizon: u64) -> Compacted {
    let plan = Plan::all(levels.manifest()).unwrap();
    let horizon = Clock::at(at(horizon));
    let mut compaction = Compaction::begin(levels, &plan, horizon, cast::small()).unwrap();
    let mut entropy = Seeded::new(horizon.bits());
    loop {
        if let Progress::Done(compacted) = compaction.step(500, &mut entropy).unwrap() {
            return compacted;
        }
    }
}

fn of_compaction(compacted: Compacted) -> Changes {
    Changes {
        compacted: Some(compacted),
        ..Changes::default()
    }
}

fn of_flush(flushed: Flushed) -> Changes {
    Changes {
        flushed: Some(flushed),
        ..Changes::default()
    }
}

fn of_removal(removed: Vec<RunId>) -> Changes {
    Changes {
        removed,
        ..Changes::default()
    }
}

fn used(manifest: &Manifest) -> Vec<RunId> {
    manifest.runs().map(|run| run.id).collect()
}

#[test]
fn a_plan_of_an_older_manifest_is_refused_and_changes_nothing() {
    let mut cast = Cast::new();
    cast.flush(&mut cells(1, 40), &[]);
    cast.flush(&mut cells(100, 40), &[]);
    let plan = Plan::all(cast.levels.manifest()).unwrap();
    let late = compacted(&cast.levels, 3);
    cast.compact(3);
    let truth = all(&cast.fresh().unwrap()).unwrap();

    // The plan, and what was made by it while another was quicker.
    let begun = Compaction::begin(&cast.levels, &plan, Clock::at(at(3)), cast::small());
    let stale = LevelsError::Manifest(ManifestError::Stale);
    assert_eq!(begun.err(), Some(stale));
    let before = cast.levels.manifest().clone();
    let refused = before.after(of_compaction(late), cast.now);
    assert_eq!(refused.err(), Some(ManifestError::Stale));
    assert_eq!(*cast.levels.manifest(), before);
    assert_eq!(all(&cast.fresh().unwrap()).unwrap(), truth);
    let outputs = used(&before);
    let kept = cast.blobs.list().unwrap();
    assert!(outputs.iter().all(|run| kept.contains(run)));
}

#[test]
fn a_compaction_takes_nothing_that_was_flushed_while_it_ran() {
    let mut cast = Cast::new();
    cast.flush(&mut cells(1, 40), &[]);
    cast.flush(&mut cells(100, 40), &[]);
    let done = compacted(&cast.levels, 3);
    cast.flush(&mut cells(200, 10), &[range("key 020", "key 030", 300)]);
    cast.change(of_compaction(done));
    let found = all(&cast.fresh().unwrap()).unwrap();
    assert_eq!(found.len(), 30);
    assert_eq!(cast.value("key 000").unwrap(), "200");
    assert_eq!(cast.value("key 025"), None, "deleted while it ran");
    assert_eq!(cast.value("key 039").unwrap(), "139");
}

#[test]
fn a_flush_that_did_not_see_a_range_delete_is_refused() {
    let mut cast = Cast::new();
    let late = flushed(&cast.levels, &cells(1, 40), &[]);
    cast.flush(&mut cells(50, 2), &[range("key 000", "key 010", 100)]);
    let before = cast.levels.manifest().clone();
    let refused = before.after(of_flush(late), cast.now);
    assert_eq!(refused.err(), Some(ManifestError::Stale));
    assert_eq!(*cast.levels.manifest(), before);
    assert_eq!(cast.value("key 000"), None);
}

#[test]
fn nothing_leaves_the_store_that_a_manifest_in_the_window_needs() {
    let mut cast = Cast::new();
    let mut window = Vec::<(Manifest, _)>::new();
    for round in 0..12_u64 {
        let (from, count) = (1 + round * 1000, 20 + round);
        cast.now = at(1000 + round * 10_000);
        cast.flush(&mut cells(from, count), &[]);
        if round % 3 == 2 {
            cast.compact(from);
        }
        let manifest = cast.levels.manifest().clone();
        let truth = all(&cast.fresh().unwrap()).unwrap();
        window.push((manifest, truth));
        let due = cast.levels.removable(cast.now);
        for run in &due {
            cast.blobs.remove(run).unwrap();
        }
        cast.change(of_removal(due));
        for (number, (manifest, truth)) in window.iter().enumerate() {
            let opened = Levels::open(
                manifest.clone(),
                &cast.keys,
                cast.blobs.clone(),
                CACHE_BYTES,
            );
            let found = all(&opened.unwrap());
            // Replaced by the next compaction, of round 3k + 2.
            let replaced = (number as u64 + 1).div_euclid(3) * 3 + 2;
            let young = round < replaced || (round - replaced) * 10_000 < RETENTION_MS;
            match found {
                Ok(found) => assert_eq!(found, *truth, "{number} in {round}"),
                Err(LevelsError::Missing { .. }) if !young => {}
                Err(error) => panic!("{number} in {round}: {error}"),
            }
        }
    }
    let stays = cast.levels.manifest();
    let kept = cast.blobs.list().unwrap();
    assert!(stays.unknown(&kept).is_empty());
    assert!(kept.len() < 12, "{} runs are kept", kept.len());
}

#[test]
fn a_run_in_use_or_within_its_retention_is_not_taken_from_the_list() {
    let mut cast = Cast::new();
    cast.flush(&mut cells(1, 40), &[]);
    let first = used(cast.levels.manifest());
    let reader = cast.levels.clone();
    cast.compact(3);
    let in_use = used(cast.levels.manifest());
    let ends = cast.now.plus(Duration::from_millis(RETENTION_MS));
    let early = at(ends.as_millis() - 1);
    let manifest = cast.levels.manifest().clone();
    for (removed, now) in [(in_use, ends), (first.clone(), early)] {
        let refused = manifest.after(of_removal(removed), now);
        assert!(matches!(refused, Err(ManifestError::Broken { .. })));
    }
    assert_eq!(cast.levels.removable(early), []);
    // Its time is over, and somebody reads it.
    assert_eq!(cast.levels.removable(ends), []);
    assert_eq!(all(&reader).unwrap().len(), 40);
    drop(reader);
    assert_eq!(cast.levels.removable(ends), first);
    // A clock that goes back removes nothing.
    assert_eq!(cast.levels.removable(at(0)), []);
    assert!(manifest.after(of_removal(first), ends).is_ok());
}

/// A manifest names at most 8192 retired runs: a store that is busy would stop to compact once there are as many.
#[test]
fn the_oldest_of_many_retired_runs_go_before_their_time() {
    let mut cast = Cast::new();
    cast.settings = cast.settings.with_run_bytes(256);
    let mut most = 0;
    for round in 0..RETIRED_KEPT as u64 {
        let mut cells = cells(round * 10, 1);
        cast.flush(&mut cells, &[]);
        cast.compact(1);
        let due = cast.levels.removable(cast.now);
        most = most.max(cast.levels.manifest().retired().len());
        if !due.is_empty() {
            let manifest = cast.levels.manifest();
            assert!(manifest.retired().len() > RETIRED_KEPT);
            // The oldest, and no more than need be.
            let names = manifest.retired().iter().map(|retired| retired.run);
            assert!(names.take(due.len()).eq(due.iter().copied()));
            assert_eq!(manifest.retired().len() - due.len(), RETIRED_KEPT);
            cast.change(of_removal(due));
            return;
        }
    }
    panic!("none of {most} is due");
}

/// Whoever erases a generation's key needs all runs sealed under a newer one first.
#[test]
fn runs_of_an_older_generation_are_planned_until_none_is_left() {
    let mut cast = Cast::new();
    cast.flush(&mut cells(1, 20), &[]);
    assert_eq!(cast.levels.generation(), Some(1));
    assert_eq!(Plan::older(cast.levels.manifest(), 1), None);
    let (before, manifest) = (all(&cast.levels).unwrap(), cast.levels.manifest().clone());
    cast.keys = cast::keys(&[1, 2]);
    let levels = Levels::open(manifest, &cast.keys, cast.blobs.clone(), CACHE_BYTES);
    cast.levels = std::sync::Arc::new(levels.unwrap());
    assert_eq!(cast.levels.generation(), Some(2));
    assert!(Plan::older(cast.levels.manifest(), 2).is_some());
    cast.compact(1);
    assert_eq!(Plan::older(cast.levels.manifest(), 2), None);
    let manifest = cast.levels.manifest().clone();
    let erased = Levels::open(manifest, &cast::keys(&[2]), cast.blobs, CACHE_BYTES);
    assert_eq!(all(&erased.unwrap()).unwrap(), before);
}
