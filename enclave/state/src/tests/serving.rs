//! What a state promises while it serves: durability, atomics, cuts, tokens, holds, memory.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_ledger::{Fault, MemoryFiles};
use bield_levels::OwnedContent;

use super::cast::{Capsule, HELD, Machine, anchor, bucket, counters};
use super::torn::TornFiles;
use crate::{
    Bucket, Change, Cut, Durability, Handle, Opening, State, StateError, SwapOutcome, TableError,
};

fn machine() -> Machine {
    Machine::new(Capsule::new(1), 1)
}

pub(super) fn set(
    state: &State,
    bucket: &Bucket,
    key: &[u8],
    value: &[u8],
) -> Result<Cut, StateError> {
    let mut request = state.request(&[])?;
    let expires = None;
    let change = Change::Set {
        key,
        value,
        expires,
    };
    request.write(bucket, &[change])?;
    request.finish()
}

pub(super) fn get(
    state: &State,
    bucket: &Bucket,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StateError> {
    let mut request = state.request(&[])?;
    let found = request.get(bucket, key)?;
    request.finish()?;
    Ok(found.map(|found| found.value.to_vec()))
}

/// The authors lost everything with the process, and their index at each start (B24, B25).
#[test]
fn what_was_told_is_there_after_the_process_is_gone() {
    let (machine, files) = (machine(), MemoryFiles::new());
    for start in 0..12_u8 {
        let state = machine.open(&files, &[]).unwrap();
        for before in 0..start {
            let value = get(&state, &bucket(), &[before]).unwrap();
            assert_eq!(value.as_deref(), Some(&[before; 100][..]), "{start}");
        }
        set(&state, &bucket(), &[start], &[start; 100]).unwrap();
        if start % 5 == 4 {
            state.flush().unwrap();
        }
    }
    for bytes in files.contents().values() {
        assert!(
            !bytes.windows(8).any(|window| window == [7; 8]),
            "plaintext on the disk"
        );
    }
}

#[test]
fn many_starts_leave_few_files() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let mut most = 0;
    let mut anchored = Vec::new();
    for start in 0..40_u8 {
        let state = machine.open(&files, &anchored).unwrap();
        set(&state, &bucket(), b"key", &[start]).unwrap();
        most = most.max(files.contents().len());
        anchor(&state);
        // The flush that many starts ask for may be under way.
        anchored = state.close().unwrap().heads;
    }
    assert!(most < 30, "{most} files");
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(get(&state, &bucket(), b"key").unwrap(), Some(vec![39]));
    assert!(state.heads().len() < 10, "tokens are short");
}

/// What starts and requests leave in the levels goes: leases of holders that ended, marks whose time is over.
#[test]
fn starts_and_marks_leave_nothing_that_grows() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let mut sizes = Vec::new();
    for start in 0..90_u64 {
        let state = machine.open(&files, &[]).unwrap();
        for number in 0..6_u64 {
            let mut request = state.request(&[]).unwrap();
            let key = [start.to_be_bytes(), number.to_be_bytes()].concat();
            let expires = super::cast::at(start * 1000 + 1500);
            request.mark("marks", &key, expires).unwrap();
            request.increment(&counters(), b"visits", 1).unwrap();
            request.finish().unwrap();
        }
        machine.clocks.pass(1000);
        state.flush().unwrap();
        anchor(&state);
        state.close().unwrap();
        // The least of each thirty starts: what a compaction replaced may wait for the next one's anchor.
        let size = files.contents().values().map(Vec::len).sum::<usize>();
        match sizes.last_mut() {
            Some(least) if start % 30 > 0 => *least = size.min(*least),
            _ => sizes.push(size),
        }
    }
    let levels = machine.opening(&files, &[]).open().unwrap().cold.levels();
    let (from, to) = bield_table::LEASE_RANGE;
    let scan = levels.scan(Bound::Included(from), Bound::Excluded(to));
    let leases = scan.unwrap().map(Result::unwrap);
    let leases = leases.filter(|cell| matches!(cell.content, OwnedContent::Value { .. }));
    assert_eq!(leases.count(), 1, "the newest holder's");
    // Each start is a head in each checkpoint that the log has, of which the newest 256 are kept.
    let grown = sizes[2].saturating_sub(sizes[1]);
    assert!(grown < 30 * 300, "{sizes:?}");
    let state = machine.open(&files, &[]).unwrap();
    let visits = get(&state, &counters(), b"visits").unwrap();
    assert_eq!(visits.as_deref(), Some(&b"540"[..]));
}

#[test]
fn a_mark_is_there_exactly_when_the_first_change_is() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let marks = Bucket {
        name: "marks".to_owned(),
        ..bucket()
    };
    let never = super::cast::at(1 << 40);
    let state = machine.open(&files, &[]).unwrap();
    let mut reads = state.request(&[]).unwrap();
    reads.mark("marks", b"reads", never).unwrap();
    reads.get(&counters(), b"n").unwrap();
    // A swap that does not win is no change.
    let stale = Handle::decode(&[&[1][..], &[9; 40]].concat()).unwrap();
    let delete = Change::Delete { key: b"n" };
    let swapped = reads.swap(&counters(), delete, stale).unwrap();
    assert!(matches!(swapped, SwapOutcome::Changed(None)));
    reads.finish().unwrap();
    for (key, changes) in [(b"one", 1), (b"two", 2)] {
        let mut request = state.request(&[]).unwrap();
        request.mark("marks", key, never).unwrap();
        for _ in 0..changes {
            request.increment(&counters(), b"n", 1).unwrap();
        }
        request.finish().unwrap();
    }
    drop(state);
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(get(&state, &marks, b"reads").unwrap(), None);
    for key in [b"one", b"two"] {
        assert_eq!(get(&state, &marks, key).unwrap(), Some(Vec::new()));
    }
    assert_eq!(get(&state, &counters(), b"n").unwrap(), Some(b"3".to_vec()));
}

/// A holder that ended without a loss of power left records in the machine's memory; the next one builds on them, and then
/// power is lost.
#[test]
fn what_a_new_holder_builds_on_outlasts_it() {
    let machine = machine();
    let files = TornFiles::default();
    let local = Bucket {
        durability: Durability::Local,
        ..bucket()
    };
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &local, b"a", b"1").unwrap();
    drop(state);
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &bucket(), b"b", b"2").unwrap();
    files.crash();
    drop(state);
    files.restart(|_| 0);
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(get(&state, &bucket(), b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(get(&state, &bucket(), b"b").unwrap(), Some(b"2".to_vec()));
}

#[test]
fn many_callers_make_few_records() {
    const CALLERS: u8 = 8;
    const WRITES: u8 = 40;
    let (mut machine, files) = (machine(), MemoryFiles::new());
    machine.settings.memory_bytes = 64 << 20;
    let memory = Bucket {
        durability: Durability::Memory,
        ..bucket()
    };
    let state = machine.open(&files, &[]).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (state, memory) = (&state, &memory);
            scope.spawn(move || {
                for write in 0..WRITES {
                    let mut request = state.request(&[]).unwrap();
                    let (key, value) = (&[caller, write][..], &[write][..]);
                    let expires = None;
                    let change = Change::Set {
                        key,
                        value,
                        expires,
                    };
                    request.write(memory, &[change]).unwrap();
                    // It is not waited for: gone with the process, and read at once.
                    assert!(request.get(memory, key).unwrap().is_some());
                }
            });
        }
    });
    let after = set(&state, &bucket(), b"last", b"").unwrap().after;
    let records = after.iter().map(|head| head.seq).max().unwrap();
    let writes = u64::from(CALLERS) * u64::from(WRITES);
    assert!(
        records <= writes + 8,
        "{records} records of {writes} writes"
    );
    drop(state);
    let state = machine.open(&files, &after).unwrap();
    for (caller, write) in
        (0..CALLERS).flat_map(|caller| (0..WRITES).map(move |write| (caller, write)))
    {
        assert_eq!(
            get(&state, &memory, &[caller, write]).unwrap(),
            Some(vec![write])
        );
    }
}

#[test]
fn increments_of_many_threads_add_up_and_outlive_the_process() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let sum = AtomicU64::new(0);
    for _ in 0..2 {
        let state = machine.open(&files, &[]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let mut request = state.request(&[]).unwrap();
                        let now = request.increment(&counters(), b"visits", 1).unwrap();
                        request.finish().unwrap();
                        sum.fetch_max(now as u64, Ordering::Relaxed);
                    }
                });
            }
        });
    }
    assert_eq!(sum.into_inner(), 200);
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(
        get(&state, &counters(), b"visits").unwrap(),
        Some(b"200".to_vec())
    );
}

#[test]
fn a_swap_wins_once_and_an_eventual_bucket_offers_none() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &counters(), b"stock", b"1").unwrap();
    let sell = |request: &mut crate::Request, seen| {
        let change = Change::Set {
            key: b"stock",
            value: b"0",
            expires: None,
        };
        request.swap(&counters(), change, seen).unwrap()
    };
    let (mut one, mut two) = (state.request(&[]).unwrap(), state.request(&[]).unwrap());
    let seen = Handle::of(one.get(&counters(), b"stock").unwrap().as_ref());
    assert!(matches!(sell(&mut one, seen), SwapOutcome::Done));
    let SwapOutcome::Changed(Some(found)) = sell(&mut two, seen) else {
        panic!("sold twice");
    };
    assert_eq!(*found.value, *b"0");
    let refused = two.increment(&bucket(), b"stock", 1);
    assert!(matches!(
        refused,
        Err(StateError::Table(TableError::NotHeld))
    ));
}

#[test]
fn every_linearizable_bucket_is_the_holders_at_every_start() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let named = |name: &str| Bucket {
        name: name.to_owned(),
        ..counters()
    };
    let buckets = ["shop", "stock", "a"].map(named);
    for start in 1..=3 {
        let opening = Opening {
            buckets: buckets.to_vec(),
            ..machine.opening(&files, &[])
        };
        let state = State::open(opening).unwrap();
        for bucket in &buckets {
            let mut request = state.request(&[]).unwrap();
            assert_eq!(request.increment(bucket, b"key", 1).unwrap(), start);
            let seen = Handle::of(request.get(bucket, b"other").unwrap().as_ref());
            let change = Change::Set {
                key: b"other",
                value: b"x",
                expires: None,
            };
            let swapped = request.swap(bucket, change, seen).unwrap();
            assert!(matches!(swapped, SwapOutcome::Done));
            request.finish().unwrap();
        }
        if start == 2 {
            state.flush().unwrap();
        }
    }
}

#[test]
fn a_bucket_that_was_linearizable_in_an_earlier_version_is_written_like_others() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &counters(), b"key", b"1").unwrap();
    drop(state);
    let eventual = Bucket {
        consistency: crate::Consistency::Eventual,
        ..counters()
    };
    for value in [b"2", b"3"] {
        let opening = Opening {
            buckets: vec![eventual.clone()],
            ..machine.opening(&files, &[])
        };
        let state = State::open(opening).unwrap();
        set(&state, &eventual, b"key", value).unwrap();
        assert_eq!(
            get(&state, &eventual, b"key").unwrap(),
            Some(value.to_vec())
        );
    }
    let state = machine.open(&files, &[]).unwrap();
    let mut request = state.request(&[]).unwrap();
    assert_eq!(request.increment(&counters(), b"key", 1).unwrap(), 4);
}

#[test]
fn cuts_grow_by_what_was_written_and_hold_what_was_read() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    let one = set(&state, &bucket(), b"a", b"1").unwrap();
    let two = set(&state, &bucket(), b"a", b"2").unwrap();
    assert!(one.before != one.after && one.after == two.before && two.before != two.after);
    let read = state.request(&[]).unwrap().finish().unwrap();
    assert_eq!((&read.before, &read.after), (&two.after, &two.after));
    assert!(two.after.is_sorted_by(|a, b| a.writer < b.writer));
}

#[test]
fn a_caller_who_has_seen_more_is_told_how_much() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &bucket(), b"a", b"1").unwrap();
    drop(state);
    let yesterday = files.contents();
    let mut seen = Vec::new();
    let state = machine.open(&files, &[]).unwrap();
    for value in 0..3 {
        seen = set(&state, &bucket(), b"a", &[value]).unwrap().after;
    }
    assert!(state.request(&seen).is_ok());
    drop(state);
    // Nothing of today was anchored: the key service does not know better, the caller does.
    let old = machine
        .open(&MemoryFiles::with(yesterday.clone()), &[])
        .unwrap();
    let behind = old.request(&seen).err().unwrap();
    let StateError::Behind { behind, writers } = behind else {
        panic!("{behind}");
    };
    let newest = seen.iter().map(|head| head.seq).max().unwrap();
    assert_eq!((behind, writers.len()), (newest + 1, 1));
    drop(old);
    // With the anchor nothing is served at all.
    let files = MemoryFiles::with(yesterday);
    let refused = machine.open(&files, &seen).err().unwrap();
    assert!(matches!(refused, StateError::RolledBack { behind, .. } if behind == newest + 1));
    let text = refused.to_string();
    assert!(text.contains(&format!("{} records", newest + 1)), "{text}");
}

#[test]
fn nothing_is_told_once_the_hold_is_over() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &bucket(), b"a", b"1").unwrap();
    let mut late = state.request(&[]).unwrap();
    assert!(late.get(&bucket(), b"a").unwrap().is_some());
    machine
        .clocks
        .pass(u64::try_from(HELD.as_millis()).unwrap());
    assert_eq!(late.finish(), Err(StateError::HoldEnded));
    assert_eq!(
        set(&state, &bucket(), b"a", b"2"),
        Err(StateError::HoldEnded)
    );
    assert!(matches!(state.request(&[]), Err(StateError::HoldEnded)));
    state.hold(HELD * 2 + Duration::from_secs(1));
    assert_eq!(get(&state, &bucket(), b"a").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn a_disk_that_fails_ends_writing_and_loses_nothing_that_was_told() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &bucket(), b"a", b"1").unwrap();
    files.fail(Fault::Crash {
        write: files.writes(),
        bytes: 40,
    });
    let stopped = set(&state, &bucket(), b"a", b"2");
    assert!(
        matches!(stopped, Err(StateError::Stopped { .. })),
        "{stopped:?}"
    );
    files.restart();
    let still = set(&state, &bucket(), b"b", b"3");
    assert!(matches!(still, Err(StateError::Stopped { .. })));
    drop(state);
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(get(&state, &bucket(), b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(get(&state, &bucket(), b"b").unwrap(), None);
}

#[test]
fn values_end_at_their_time_also_in_runs() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    let mut request = state.request(&[]).unwrap();
    let change = Change::Set {
        key: b"session",
        value: b"1",
        expires: Some(super::cast::at(500)),
    };
    request.write(&bucket(), &[change]).unwrap();
    request.finish().unwrap();
    state.flush().unwrap();
    assert!(get(&state, &bucket(), b"session").unwrap().is_some());
    machine.clocks.pass(500);
    assert_eq!(get(&state, &bucket(), b"session").unwrap(), None);
}

#[test]
fn two_functions_share_a_directory() {
    let files = MemoryFiles::new();
    let machines = [
        Machine::new(Capsule::new(1), 1),
        Machine::new(Capsule::new(2), 2),
    ];
    for round in 0..3_u8 {
        for (index, machine) in machines.iter().enumerate() {
            let state = machine.open(&files, &[]).unwrap();
            if round > 0 {
                let before = get(&state, &bucket(), b"key").unwrap();
                assert_eq!(before, Some(vec![round - 1, index as u8]));
            }
            set(&state, &bucket(), b"key", &[round, index as u8]).unwrap();
            state.flush().unwrap();
        }
    }
}
