//! A host that alters, exchanges, removes and puts back files of a whole state: refused, or as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_capsule::Head;
use bield_ledger::{Contents, Files, FilesError, MemoryFiles};

use super::cast::{Capsule, Machine, anchor, bucket};
use super::serving::{get, set};
use crate::{PageLimits, StateError};

/// A state with runs, a log behind them and a few starts; what it holds, and its heads.
fn written(machine: &Machine) -> (Contents, BTreeMap<Vec<u8>, Vec<u8>>, Vec<Head>) {
    let files = MemoryFiles::new();
    let (mut model, mut heads) = (BTreeMap::new(), Vec::new());
    for start in 0..3_u8 {
        let state = machine.open(&files, &[]).unwrap();
        for number in 0..6_u8 {
            let (key, value) = (vec![start, number], vec![number; 30]);
            heads = set(&state, &bucket(), &key, &value).unwrap().after;
            model.insert(key, value);
        }
        if start < 2 {
            state.flush().unwrap();
            set(&state, &bucket(), b"old", &[start]).unwrap();
            model.insert(b"old".to_vec(), vec![start]);
        }
    }
    (files.contents(), model, heads)
}

/// A run, by its name.
fn is_run(name: &str) -> bool {
    !name.contains("-log-") && !name.ends_with("-head")
}

/// Everything that is read from these files, or the first refusal.
fn read(
    machine: &Machine,
    contents: &Contents,
    anchored: &[Head],
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StateError> {
    let files = MemoryFiles::with(contents.clone());
    let state = machine.open(&files, anchored)?;
    let limits = PageLimits {
        keys: 1000,
        bytes: 1 << 20,
    };
    let mut request = state.request(&[])?;
    let page = request.list(&bucket(), None, limits)?;
    let entries = page.entries.into_iter();
    Ok(entries
        .map(|(key, found)| (key, found.value.to_vec()))
        .collect())
}

#[test]
fn no_flipped_byte_of_log_or_run_changes_what_is_read() {
    let machine = Machine::new(Capsule::new(1), 1);
    let (whole, model, heads) = written(&machine);
    assert_eq!(read(&machine, &whole, &heads), Ok(model.clone()));
    let (mut refused, mut same, mut runs) = (0, 0, 0);
    for (name, bytes) in &whole {
        runs += usize::from(is_run(name));
        for at in (0..bytes.len()).step_by(13) {
            let mut contents = whole.clone();
            contents.get_mut(name).unwrap()[at] ^= 0x10;
            match read(&machine, &contents, &heads) {
                Err(_) => refused += 1,
                // A filter, or a block that the other one replaces, is not always looked at.
                Ok(found) => {
                    assert_eq!(found, model, "{name} {at}");
                    same += 1;
                }
            }
        }
    }
    assert!(runs > 0 && refused > 4 * same, "{runs} {refused} {same}");
}

#[test]
fn runs_that_are_exchanged_or_gone_are_named() {
    let machine = Machine::new(Capsule::new(1), 1);
    let (whole, _, heads) = written(&machine);
    let runs: Vec<&String> = whole.keys().filter(|name| is_run(name)).collect();
    assert!(runs.len() > 1, "{runs:?}");
    for name in &runs {
        let mut contents = whole.clone();
        contents.remove(*name);
        let gone = read(&machine, &contents, &heads).unwrap_err();
        assert!(gone.to_string().contains("run"), "{gone}");
    }
    let mut contents = whole.clone();
    contents.insert(runs[0].clone(), whole[runs[1]].clone());
    contents.insert(runs[1].clone(), whole[runs[0]].clone());
    assert!(read(&machine, &contents, &heads).is_err());
}

#[test]
fn every_older_copy_of_the_directory_is_refused() {
    let machine = Machine::new(Capsule::new(1), 1);
    let files = MemoryFiles::new();
    let mut copies = Vec::new();
    let state = machine.open(&files, &[]).unwrap();
    for number in 0..8_u8 {
        copies.push(files.contents());
        set(&state, &bucket(), &[number % 3], &[number; 40]).unwrap();
        if number % 3 == 2 {
            copies.push(files.contents());
            state.flush().unwrap();
        }
    }
    let anchored = state.anchoring().unwrap().heads;
    drop(state);
    assert!(read(&machine, &files.contents(), &anchored).is_ok());
    let mut before = u64::MAX;
    for copy in copies {
        match read(&machine, &copy, &anchored) {
            // Copied while the levels' thread was at work: a file may be missing.
            Err(StateError::RolledBack { behind, .. }) => {
                assert!(behind <= before && behind > 0);
                before = behind;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(before < 12, "the last copy is nearly new: {before}");
}

/// Counts the bytes that are read.
struct Counted {
    files: MemoryFiles,
    bytes: Arc<AtomicU64>,
}

impl Files for Counted {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.files.list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        let read = self.files.read(name, offset, length)?;
        self.bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
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
fn a_start_reads_the_end_of_the_log_and_not_what_there_is() {
    let mut machine = Machine::new(Capsule::new(1), 1);
    machine.settings.levels = machine.settings.levels.with_run_bytes(32 << 10);
    let read_at_start = |keys: u16| {
        let files = MemoryFiles::new();
        let state = machine.open(&files, &[]).unwrap();
        for key in 0..keys {
            set(&state, &bucket(), &key.to_be_bytes(), &[1; 200]).unwrap();
        }
        state.flush().unwrap();
        anchor(&state);
        let heads = state.close().unwrap().heads;
        let all: usize = files.contents().values().map(Vec::len).sum();
        let mut opening = machine.opening(&files, &heads);
        let bytes = Arc::new(AtomicU64::new(0));
        opening.reads = Box::new(Counted {
            files: files.clone(),
            bytes: Arc::clone(&bytes),
        });
        let state = crate::State::open(opening).unwrap();
        assert!(get(&state, &bucket(), &[0, 1]).unwrap().is_some());
        (bytes.load(Ordering::Relaxed), all as u64)
    };
    let (few, _) = read_at_start(50);
    let (many, all) = read_at_start(800);
    assert!(
        many < 4 * few && many * 8 < all,
        "{few} of few, {many} of {all}"
    );
}

/// Each key on its own, so that filters are asked; what is altered is refused or right, and never absent.
fn read_each(
    machine: &Machine,
    contents: &Contents,
    model: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), StateError> {
    let files = MemoryFiles::with(contents.clone());
    let state = machine.open(&files, &[])?;
    let mut refused = None;
    for (key, value) in model {
        match get(&state, &bucket(), key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value)),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), Err)
}

#[test]
fn parts_of_another_run_in_the_same_place_are_refused_and_no_key_looks_absent() {
    let machine = Machine::new(Capsule::new(1), 1);
    let (whole, model, _) = written(&machine);
    let runs: Vec<&String> = whole.keys().filter(|name| is_run(name)).collect();
    let (mut refused, mut harmless) = (0, 0);
    for (name, other) in runs.iter().zip(runs.iter().cycle().skip(1)) {
        let (own, other) = (&whole[*name], &whole[*other]);
        let shorter = own.len().min(other.len());
        // Windows from the front are blocks; from the end properties, filter and index.
        let windows = (0..shorter).step_by(32).flat_map(|at| {
            let length = 64.min(shorter - at);
            [
                (at, at, length),
                (own.len() - at - length, other.len() - at - length, length),
            ]
        });
        for (to, from, length) in windows {
            let mut contents = whole.clone();
            let bytes = contents.get_mut(*name).unwrap();
            bytes[to..to + length].copy_from_slice(&other[from..from + length]);
            match read_each(&machine, &contents, &model) {
                Err(error) => {
                    assert!(error.to_string().contains(" run "), "{error}");
                    refused += 1;
                }
                // Properties are not read to answer.
                Ok(()) => harmless += 1,
            }
        }
    }
    assert!(refused > 20 * harmless.max(1), "{refused} {harmless}");
}

/// All that ever was in the directory: what the newest manifest replaced is put back beside, and in place of, the newest.
#[test]
fn older_manifests_and_segments_beside_a_newer_log_change_nothing_or_are_refused() {
    let machine = Machine::new(Capsule::new(1), 1);
    let files = MemoryFiles::new();
    let mut copies = Vec::new();
    let mut model = BTreeMap::new();
    let state = machine.open(&files, &[]).unwrap();
    for round in 0..4_u8 {
        for number in 0..6_u8 {
            set(&state, &bucket(), &[number], &[round; 40]).unwrap();
            model.insert(vec![number], vec![round; 40]);
        }
        // Deleted once: it must not come back.
        let mut request = state.request(&[]).unwrap();
        let deleted = crate::Change::Delete { key: &[round] };
        request.write(&bucket(), &[deleted]).unwrap();
        request.finish().unwrap();
        model.remove(&vec![round]);
        state.flush().unwrap();
        copies.push(files.contents());
    }
    let anchored = state.anchoring().unwrap().heads;
    drop(state);
    let newest = files.contents();
    assert_eq!(read(&machine, &newest, &anchored), Ok(model.clone()));
    for (age, copy) in copies.iter().enumerate() {
        // Everything old beside the newest.
        let mut beside = copy.clone();
        beside.extend(newest.clone());
        let found = read(&machine, &beside, &anchored);
        assert_eq!(found.as_ref(), Ok(&model), "{age}");
        // The old log, with its manifest, over the newest runs, and the other way round.
        let mix = |log: &Contents, runs: &Contents| -> Contents {
            let is_log = |name: &String| name.contains("-log-");
            let log = log.iter().filter(|(name, _)| is_log(name));
            let runs = runs.iter().filter(|(name, _)| !is_log(name));
            let all = log.chain(runs);
            all.map(|(name, bytes)| (name.clone(), bytes.clone()))
                .collect()
        };
        let is_newest = age + 1 == copies.len();
        match read(&machine, &mix(copy, &newest), &anchored) {
            // The newest copy was made before its last record.
            Err(StateError::RolledBack { .. }) => {}
            Ok(found) => assert_eq!(found, model, "{age}"),
            Err(error) => {
                assert!(
                    !is_newest && error.to_string().contains(" run "),
                    "{age}: {error}"
                );
            }
        }
        match read(&machine, &mix(&newest, copy), &anchored) {
            Ok(found) => assert_eq!(found, model, "{age}"),
            Err(error) => {
                assert!(
                    !is_newest && error.to_string().contains(" run "),
                    "{age}: {error}"
                );
            }
        }
    }
}
