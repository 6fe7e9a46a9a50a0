//! When the signer takes what was written: for whoever waits, and for nobody else.

use std::time::{Duration, Instant};

use bield_ledger::MemoryFiles;

use super::cast::{Capsule, Machine, bucket, counters};
use crate::{Bucket, Change, Durability, Request, Settings, State};

const SOON: Duration = Duration::from_secs(20);

fn open() -> State {
    let mut machine = Machine::new(Capsule::new(1), 1);
    // Else a flush has records of its own.
    machine.settings = Settings::default();
    machine.open(&MemoryFiles::new(), &[]).unwrap()
}

fn memory() -> Bucket {
    Bucket {
        durability: Durability::Memory,
        ..bucket()
    }
}

fn records(state: &State) -> u64 {
    state.heads().iter().map(|head| head.seq).sum()
}

fn set(request: &mut Request, bucket: &Bucket, key: &[u8]) {
    let (value, expires) = (&[7; 16][..], None);
    let change = Change::Set {
        key,
        value,
        expires,
    };
    request.write(bucket, &[change]).unwrap();
}

#[test]
fn the_writes_of_a_request_stand_in_one_record_that_is_there_when_it_ends() {
    let state = open();
    for bucket in [memory(), bucket(), counters()] {
        let before = records(&state);
        let mut request = state.request(&[]).unwrap();
        for number in 0..300_u32 {
            set(&mut request, &bucket, &number.to_be_bytes());
        }
        assert_eq!(records(&state), before, "nobody waits yet");
        request.finish().unwrap();
        assert_eq!(records(&state), before + 1);
    }
}

#[test]
fn a_request_with_more_than_a_record_holds_waits_for_nobody() {
    let state = open();
    let before = records(&state);
    let mut request = state.request(&[]).unwrap();
    for number in 0..40_000_u32 {
        set(&mut request, &memory(), &number.to_be_bytes());
    }
    request.finish().unwrap();
    let after = records(&state) - before;
    assert!((3..200).contains(&after), "{after} records");
}

#[test]
fn what_a_request_wrote_that_never_ended_is_in_the_log_soon_and_read_at_once() {
    let state = open();
    let before = records(&state);
    let mut request = state.request(&[]).unwrap();
    set(&mut request, &memory(), b"key");
    drop(request);
    let begun = Instant::now();
    while records(&state) == before {
        assert!(begun.elapsed() < SOON, "nobody signs it");
        std::thread::yield_now();
    }

    // One that is still under way: whoever read of it ends after it stands in the log.
    let before = records(&state);
    let mut under_way = state.request(&[]).unwrap();
    set(&mut under_way, &memory(), b"other");
    let mut reader = state.request(&[]).unwrap();
    assert!(reader.get(&memory(), b"other").unwrap().is_some());
    reader.finish().unwrap();
    assert_eq!(records(&state), before + 1);
    under_way.finish().unwrap();
    assert_eq!(records(&state), before + 1);
}
