//! Callers that write faster than what they write is put in order: memory, log and levels stay within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bield_ledger::{Files, FilesError, MemoryFiles};
use bield_levels::RANGE_DELETES_MAX;

use super::cast::{Capsule, Machine, bucket};
use super::serving::{get, set};
use crate::{Bucket, Change, Durability, Settings, State, StateError};

fn machine(memory_bytes: usize) -> Machine {
    let mut machine = Machine::new(Capsule::new(1), 1);
    machine.settings = Settings {
        memory_bytes,
        ..machine.settings
    };
    machine
}

/// Nobody waits for it.
fn memory() -> Bucket {
    Bucket {
        durability: Durability::Memory,
        ..bucket()
    }
}

#[test]
fn a_key_that_is_overwritten_again_and_again_leaves_a_short_log() {
    let (machine, files) = (machine(8 << 10), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    for value in 0..400_u16 {
        set(&state, &bucket(), b"key", &value.to_be_bytes()).unwrap();
    }
    drop(state);
    let parts = machine.opening(&files, &[]).open().unwrap();
    let logged = parts.writing.logged();
    assert!(logged < 80 << 10, "{logged} bytes to read at a start");
}

#[test]
fn compaction_keeps_up_with_callers_who_do_not_wait() {
    let (machine, files) = (machine(4 << 10), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..4_u8 {
            let state = &state;
            scope.spawn(move || {
                for number in 0..250_u8 {
                    let mut request = state.request(&[]).unwrap();
                    let change = Change::Set {
                        key: &[caller, number],
                        value: &[number; 200],
                        expires: None,
                    };
                    request.write(&memory(), &[change]).unwrap();
                }
            });
        }
    });
    drop(state);
    let parts = machine.opening(&files, &[]).open().unwrap();
    let levels = parts.cold.levels();
    let sorted: usize = levels.manifest().upper().iter().map(Vec::len).sum();
    // Three are a tier, and commits wait at four times as many; the flush under way then adds one.
    assert!(sorted <= 13, "{sorted} sorted runs");
}

/// A host that keeps no run for a while.
#[derive(Clone)]
struct NoRuns {
    files: MemoryFiles,
    refuses: Arc<AtomicBool>,
}

impl Files for NoRuns {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.files.list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.files.read(name, offset, length)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        if self.refuses.load(Ordering::Relaxed) && !name.contains("-log-") {
            return Err(FilesError::Refused);
        }
        self.files.append(name, offset, bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.files.replace(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.files.remove(name)
    }
}

#[test]
fn range_deletes_wait_before_there_are_more_than_a_manifest_takes() {
    let machine = machine(1 << 20);
    let files = NoRuns {
        files: MemoryFiles::new(),
        refuses: Arc::default(),
    };
    let state = machine.open(&files, &[]).unwrap();
    set(&state, &bucket(), b"kept", b"1").unwrap();
    files.refuses.store(true, Ordering::Relaxed);
    let delete = |state: &State, number: u16| {
        let mut request = state.request(&[])?;
        let from = number.to_be_bytes();
        request.delete_range(&memory(), &from, &[&from[..], &[0]].concat())?;
        request.finish()
    };
    let mut refused = 0;
    for number in 0..RANGE_DELETES_MAX as u16 + 100 {
        match delete(&state, number) {
            Ok(_) => {}
            // Each waits for an attempt to flush.
            Err(StateError::Levels(_)) if refused == 2 => break,
            Err(StateError::Levels(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    files.refuses.store(false, Ordering::Relaxed);
    state.flush().unwrap();
    let kept = get(&state, &bucket(), b"kept").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"1"[..]));
    // And on, past what one manifest names.
    for number in 0..RANGE_DELETES_MAX as u16 + 300 {
        delete(&state, number).unwrap();
    }
    state.flush().unwrap();
}
