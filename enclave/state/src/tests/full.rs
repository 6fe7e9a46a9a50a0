//! Disks that are full or lose power in the middle of a flush or a compaction: a typed error, nothing lost, and on when
//! there is room.

use std::collections::BTreeMap;

use super::cast::{Capsule, Machine, anchor, bucket};
use super::serving::{get, set};
use super::torn::{Fault, TornFiles};
use crate::{Change, PageLimits, State, StateError};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A machine whose flushes and compactions happen when a test asks.
fn machine() -> Machine {
    let mut machine = Machine::new(Capsule::new(1), 1);
    machine.settings.memory_bytes = 1 << 20;
    machine
}

/// Everything in the bucket.
fn all(state: &State) -> Result<Model, StateError> {
    let limits = PageLimits {
        keys: 1000,
        bytes: 1 << 20,
    };
    let mut request = state.request(&[])?;
    let page = request.list(&bucket(), None, limits)?;
    assert!(page.after.is_none());
    request.finish()?;
    let entries = page.entries.into_iter();
    Ok(entries
        .map(|(key, found)| (key, found.value.to_vec()))
        .collect())
}

/// So many keys of a round, in one commit.
fn fill(state: &State, model: &mut Model, round: u8, keys: u8) {
    let pairs: Vec<_> = (0..keys)
        .map(|key| (vec![key], vec![round ^ key; 90]))
        .collect();
    let changes: Vec<_> = pairs
        .iter()
        .map(|(key, value)| Change::Set {
            key,
            value,
            expires: None,
        })
        .collect();
    let mut request = state.request(&[]).unwrap();
    request.write(&bucket(), &changes).unwrap();
    request.finish().unwrap();
    model.extend(pairs);
}

fn runs(files: &TornFiles) -> usize {
    let names = files.names();
    let is_run = |name: &&String| !name.contains("-log-") && !name.ends_with("-head");
    names.iter().filter(is_run).count()
}

/// Runs that no manifest names.
fn left_over(machine: &Machine, files: &TornFiles) -> usize {
    let parts = machine.opening(files, &[]).open().unwrap();
    let levels = parts.cold.levels();
    let manifest = levels.manifest();
    runs(files) - manifest.runs().count() - manifest.retired().len()
}

#[test]
fn a_flush_without_room_is_named_loses_nothing_and_succeeds_when_there_is_room() {
    let machine = machine();
    let (mut stopped, mut failed, mut done) = (0, 0, 0);
    for room in (0..16_000).step_by(320) {
        let files = TornFiles::default();
        let mut model = Model::new();
        let mut state = machine.open(&files, &[]).unwrap();
        for round in 0..2 {
            fill(&state, &mut model, round, 40);
            state.flush().unwrap();
        }
        fill(&state, &mut model, 9, 50);
        files.limit(Some(files.bytes() + room));
        match state.flush() {
            Ok(()) => done += 1,
            Err(StateError::Stopped { .. }) => {
                stopped += 1;
                // The log has a torn end: nothing more is told until it was read anew.
                let told = set(&state, &bucket(), b"more", b"1");
                assert!(matches!(told, Err(StateError::Stopped { .. })), "{told:?}");
                state.end();
                files.limit(None);
                state = machine.open(&files, &[]).unwrap();
            }
            Err(StateError::Levels(error)) => {
                failed += 1;
                assert!(error.to_string().contains("refuse"), "{error}");
                assert_eq!(all(&state).unwrap(), model, "room for {room}");
            }
            Err(error) => panic!("room for {room}: {error}"),
        }
        files.limit(None);
        assert_eq!(all(&state).unwrap(), model, "room for {room}");
        state.flush().unwrap();
        fill(&state, &mut model, 10, 20);
        assert_eq!(all(&state).unwrap(), model, "room for {room}");
        anchor(&state);
        let heads = state.close().unwrap().heads;
        assert_eq!(left_over(&machine, &files), 0, "room for {room}");
        let state = machine.open(&files, &heads).unwrap();
        assert_eq!(all(&state).unwrap(), model, "room for {room}");
    }
    assert!(
        stopped > 0 && failed > 0 && done > 0,
        "{stopped} {failed} {done}"
    );
}

/// Each attempt at a flush without room would leave what it wrote: the disk would not get room by itself again.
#[test]
fn attempts_that_fail_leave_nothing() {
    let machine = machine();
    let files = TornFiles::default();
    let mut model = Model::new();
    let state = machine.open(&files, &[]).unwrap();
    fill(&state, &mut model, 1, 90);
    // For the new segment of the log and some runs, not for all.
    files.limit(Some(files.bytes() + 5000));
    let mut most = 0;
    for _ in 0..20 {
        assert!(matches!(state.flush(), Err(StateError::Levels(_))));
        most = most.max(files.names().len());
    }
    assert!(most < 10, "{most} files");
    files.limit(None);
    state.flush().unwrap();
    assert_eq!(all(&state).unwrap(), model);
}

#[test]
fn a_commit_without_room_is_refused_and_reads_of_what_was_told_go_on_after_a_new_start() {
    let machine = machine();
    for room in [0, 1, 40, 200] {
        let files = TornFiles::default();
        let state = machine.open(&files, &[]).unwrap();
        set(&state, &bucket(), b"told", b"1").unwrap();
        files.limit(Some(files.bytes() + room));
        let refused = set(&state, &bucket(), b"not told", &[2; 300]);
        let Err(StateError::Stopped { reason }) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains("refuse"), "{reason}");
        // Still full: no new holder can begin, and it says why.
        drop(state);
        let full = machine.open(&files, &[]).err();
        assert!(matches!(full, Some(StateError::Files(_))), "{full:?}");
        files.limit(None);
        let state = machine.open(&files, &[]).unwrap();
        let told = get(&state, &bucket(), b"told").unwrap();
        assert_eq!(told.as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&state, &bucket(), b"not told").unwrap(), None);
        set(&state, &bucket(), b"not told", b"3").unwrap();
    }
}

#[test]
fn every_write_of_flushes_and_compactions_may_be_the_last_or_be_refused() {
    let machine = machine();
    let (mut reached, mut write) = (true, 0);
    while reached {
        for fault in 0..4 {
            let files = TornFiles::default();
            let mut model = Model::new();
            let mut state = machine.open(&files, &[]).unwrap();
            for round in 0..3 {
                fill(&state, &mut model, round, 12);
                if round < 2 {
                    state.flush().unwrap();
                    anchor(&state);
                }
            }
            let at = files.writes() + write;
            files.fail(match fault {
                0 => Fault::Refuse(at),
                1 => Fault::LoseAnswer(at),
                2 => Fault::Crash(at, 0),
                _ => Fault::Crash(at, 70),
            });
            // The third flush makes a compaction due; closing waits for what it began.
            let flushed = state.flush();
            for _ in 0..100 {
                if let Ok(anchoring) = state.anchoring() {
                    state.anchored(&anchoring.heads);
                }
                if runs(&files) <= 1 || files.writes() > at {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let anchored = state.anchoring();
            state.end();
            reached = files.writes() > at;
            files.restart(|below| below / 2);
            let heads = anchored.map(|anchoring| anchoring.heads);
            let state = machine.open(&files, &heads.unwrap_or_default()).unwrap();
            let found = all(&state).unwrap();
            assert_eq!(found, model, "write {write}, fault {fault}, {flushed:?}");
        }
        write += 1;
    }
    assert!(write > 8, "{write}");
}
