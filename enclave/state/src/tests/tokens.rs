//! Session tokens: short, understood however many starts ago they were given, and durable where what they came from is.

use bield_capsule::{Head, WriterId};
use bield_envelope::Digest;
use bield_ledger::{Fault, MemoryFiles};

use super::cast::{Capsule, Machine, anchor, bucket};
use super::serving::{get, set};
use super::torn::TornFiles;
use crate::{Bucket, Durability, StateError};

fn machine() -> Machine {
    Machine::new(Capsule::new(1), 1)
}

fn with(durability: Durability) -> Bucket {
    Bucket {
        name: format!("{durability:?}"),
        durability,
        ..bucket()
    }
}

#[test]
fn a_token_of_any_start_is_understood_and_one_of_no_start_is_refused() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let (mut tokens, mut anchored) = (Vec::new(), Vec::new());
    for start in 0..270_u16 {
        let state = machine.open(&files, &anchored).unwrap();
        tokens.push(
            set(&state, &bucket(), b"key", &start.to_be_bytes())
                .unwrap()
                .after,
        );
        state.flush().unwrap();
        anchor(&state);
        anchored = state.close().unwrap().heads;
    }
    let state = machine.open(&files, &anchored).unwrap();
    for (start, token) in tokens.iter().enumerate() {
        assert!(token.len() <= 8, "{} heads", token.len());
        assert!(state.request(token).is_ok(), "start {start}");
    }
    // Further than that chain got, another record where it ended, and a chain that never was.
    let first = tokens[0][0];
    let head = Head {
        seq: first.seq + 50,
        ..first
    };
    let Err(StateError::Behind { behind, writers }) = state.request(&[head]).map(drop) else {
        panic!("that much was never written");
    };
    assert!(behind < 60 && writers[0].have.is_some(), "{behind}");
    let never = Head {
        writer: WriterId::from_bytes([9; 32]),
        seq: 3,
        hash: Digest::from_bytes([1; 32]),
    };
    let refused = state.request(&[never]).map(drop);
    assert!(matches!(refused, Err(StateError::Behind { behind: 4, .. })));
}

#[test]
fn a_caller_who_used_what_is_durable_is_not_behind_after_a_loss_of_power() {
    let (machine, files) = (machine(), TornFiles::default());
    let state = machine.open(&files, &[]).unwrap();
    let (durable, local) = (with(Durability::LocalSync), with(Durability::Local));
    let written = set(&state, &durable, b"a", b"1").unwrap();
    let mut request = state.request(&[]).unwrap();
    assert!(request.get(&durable, b"a").unwrap().is_some());
    // Another caller's record lies in the machine's memory when this request ends.
    let other = set(&state, &local, b"b", b"2").unwrap();
    let cut = request.finish().unwrap();
    assert_ne!(cut.after, other.after);
    assert_eq!(cut.after, written.after);
    // One who began later, too.
    let mut request = state.request(&[]).unwrap();
    assert!(request.get(&durable, b"a").unwrap().is_some());
    let read = request.finish().unwrap();
    assert_eq!((&read.before, &read.after), (&cut.after, &cut.after));
    // Who read the other's is shown its record.
    let mut request = state.request(&[]).unwrap();
    assert!(request.get(&local, b"b").unwrap().is_some());
    let seen = request.finish().unwrap();
    assert_eq!(seen.after, other.after);
    files.crash();
    drop(state);
    files.restart(|_| 0);
    let state = machine.open(&files, &[]).unwrap();
    assert!(state.request(&cut.after).is_ok());
    assert!(matches!(
        state.request(&other.after),
        Err(StateError::Behind { .. })
    ));
    assert_eq!(get(&state, &durable, b"a").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn nothing_is_told_any_more_once_a_record_was_not_stored() {
    let (machine, files) = (machine(), MemoryFiles::new());
    let state = machine.open(&files, &[]).unwrap();
    files.fail(Fault::Crash {
        write: files.writes(),
        bytes: 40,
    });
    let memory = with(Durability::Memory);
    // Its record is signed, and may be known to be lost when the request ends or not.
    let _ = set(&state, &memory, b"a", b"1");
    assert!(set(&state, &bucket(), b"b", b"1").is_err());
    let read = get(&state, &memory, b"a");
    assert!(matches!(read, Err(StateError::Stopped { .. })), "{read:?}");
}
