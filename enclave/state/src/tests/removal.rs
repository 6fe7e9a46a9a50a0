//! What holders leave alone that were followed without knowing it, and what goes once the key service took their word.

use bield_ledger::MemoryFiles;

use super::cast::{Capsule, Machine, anchor, bucket};
use super::serving::{get, set};
use super::torn::TornFiles;
use crate::{Opening, State, StateError};

/// A machine whose flushes happen when a test asks.
fn machine() -> Machine {
    let mut machine = Machine::new(Capsule::new(1), 1);
    machine.settings.memory_bytes = 1 << 20;
    machine
}

fn fill(state: &State, from: u8) {
    for key in from..from + 10 {
        set(state, &bucket(), &[key], &[key; 50]).unwrap();
    }
}

fn find(state: &State, from: u8) {
    for key in from..from + 10 {
        let found = get(state, &bucket(), &[key]).unwrap();
        assert_eq!(found, Some(vec![key; 50]), "{key}");
    }
}

fn segments(files: &MemoryFiles) -> usize {
    let contents = files.contents();
    contents
        .keys()
        .filter(|name| name.contains("-log-"))
        .count()
}

#[test]
fn a_holder_that_was_followed_drops_no_log_that_its_follower_builds_on() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let former = machine.open(&files, &[]).unwrap();
    fill(&former, 0);
    let anchored = anchor(&former);
    let follower = machine.open(&files, &anchored).unwrap();
    // It counts for nobody, and the key service would not take its head.
    former.flush().unwrap();
    drop(former);
    find(&follower, 0);
    fill(&follower, 10);
    // It dies before its first flush.
    drop(follower);
    let state = machine.open(&files, &anchored).unwrap();
    find(&state, 0);
    find(&state, 10);
}

#[test]
fn a_holder_that_was_followed_removes_no_run_of_its_follower() {
    let mut tidied = 0;
    for room in (400..4000).step_by(300) {
        let (machine, files) = (machine(), TornFiles::default());
        let former = machine.open(&files, &[]).unwrap();
        fill(&former, 0);
        let follower = machine.open(&files, &[]).unwrap();
        follower.flush().unwrap();
        let anchored = anchor(&follower);
        // What that lets go is gone when this returns: it makes room.
        follower.flush().unwrap();
        // Its own flush fails, and it tidies up after itself.
        files.limit(Some(files.bytes() + room));
        tidied += u8::from(matches!(former.flush(), Err(StateError::Levels(_))));
        files.limit(None);
        drop(former);
        find(&follower, 0);
        drop(follower);
        find(&machine.open(&files, &anchored).unwrap(), 0);
    }
    assert!(tidied > 0);
}

#[test]
fn a_late_start_removes_nothing_of_its_follower() {
    let (machine, files) = (machine(), MemoryFiles::new());
    for start in 0..9 {
        let state = machine.open(&files, &[]).unwrap();
        fill(&state, start * 10);
        state.close().unwrap();
    }
    // It got its token, and its files are slow.
    let late = Opening {
        // A linearizable bucket it would not get any more.
        buckets: vec![bucket()],
        ..machine.opening(&files, &[])
    };
    let follower = machine.open(&files, &[]).unwrap();
    fill(&follower, 90);
    follower.flush().unwrap();
    fill(&follower, 100);
    let anchored = anchor(&follower);
    let late = State::open(late).unwrap();
    late.flush().unwrap();
    late.close().unwrap();
    fill(&follower, 110);
    drop(follower);
    let state = machine.open(&files, &anchored).unwrap();
    for from in 0..12 {
        find(&state, from * 10);
    }
}

#[test]
fn what_is_covered_goes_once_the_checkpoint_is_anchored() {
    let (mut machine, files) = (machine(), MemoryFiles::new());
    machine.settings.retention = std::time::Duration::ZERO;
    let state = machine.open(&files, &[]).unwrap();
    fill(&state, 0);
    anchor(&state);
    state.flush().unwrap();
    assert_eq!(segments(&files), 2);
    anchor(&state);
    state.flush().unwrap();
    // The one behind the checkpoint before went, the next waits for this one's anchor.
    assert_eq!(segments(&files), 2);
    anchor(&state);
    state.close().unwrap();
    assert_eq!(segments(&files), 1);
    find(&machine.open(&files, &[]).unwrap(), 0);
}

#[test]
fn a_changed_retention_counts_from_the_next_checkpoint_on() {
    let (mut machine, files) = (machine(), MemoryFiles::new());
    for hours in [1, 2] {
        machine.settings.retention = std::time::Duration::from_secs(3600 * hours);
        let state = machine.open(&files, &[]).unwrap();
        fill(&state, 0);
        state.flush().unwrap();
        state.close().unwrap();
    }
    let parts: Opening = machine.opening(&files, &[]);
    let levels = parts.open().unwrap().cold.levels();
    let retention = levels.manifest().retention();
    assert_eq!(retention, std::time::Duration::from_secs(7200));
}
