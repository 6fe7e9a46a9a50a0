//! A host that sets its clock: back, so that nobody would accept what is signed, and ahead, to win every later race.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_envelope::Time;
use bield_ledger::MemoryFiles;

use super::cast::{Capsule, Machine, at, bucket, counters};
use super::serving::{get, set};
use crate::{Clocks, Opening, State};

/// A clock that the host sets at will, in milliseconds since 1970.
struct HostClock(AtomicU64);

impl Clocks for HostClock {
    fn now(&self) -> Time {
        Time::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn running(&self) -> Duration {
        Duration::ZERO
    }
}

fn open(machine: &Machine, files: &MemoryFiles, clock: &Arc<HostClock>) -> State {
    State::open(opening(machine, files, clock)).unwrap()
}

fn opening(machine: &Machine, files: &MemoryFiles, clock: &Arc<HostClock>) -> Opening {
    Opening {
        clocks: Arc::clone(clock) as Arc<dyn Clocks>,
        ..machine.opening(files, &[])
    }
}

#[test]
fn a_state_written_by_a_host_whose_clock_is_behind_opens_again() {
    let (machine, files) = (Machine::new(Capsule::new(1), 1), MemoryFiles::new());
    // Long before the certificate of the writer begins.
    let clock = Arc::new(HostClock(AtomicU64::new(5)));
    for start in 0..3_u8 {
        let state = open(&machine, &files, &clock);
        set(&state, &bucket(), b"key", &[start]).unwrap();
        if start == 1 {
            state.flush().unwrap();
        }
        state.close().unwrap();
    }
    // The clock of the next host is right.
    let state = machine.open(&files, &[]).unwrap();
    assert_eq!(get(&state, &bucket(), b"key").unwrap(), Some(vec![2]));
    set(&state, &bucket(), b"key", b"newer").unwrap();
    drop(state);
    let state = open(&machine, &files, &clock);
    set(&state, &bucket(), b"key", b"newest").unwrap();
    let found = get(&state, &bucket(), b"key").unwrap();
    assert_eq!(found.as_deref(), Some(&b"newest"[..]));
}

#[test]
fn a_clock_of_2099_is_signed_by_nobody() {
    let (machine, files) = (Machine::new(Capsule::new(1), 1), MemoryFiles::new());
    let clock = Arc::new(HostClock(AtomicU64::new(at(0).as_millis())));
    let state = open(&machine, &files, &clock);
    // Ahead while the request asks for its time, right again when its record is signed.
    clock.0.store(4_073_000_000_000, Ordering::Relaxed);
    let mut request = state.request(&[]).unwrap();
    clock.0.store(at(5).as_millis(), Ordering::Relaxed);
    request.increment(&counters(), b"n", 1).unwrap();
    request.finish().unwrap();
    drop(state);
    let parts = opening(&machine, &files, &clock).open().unwrap();
    let clock = parts.table.clock().time();
    // The certificate of the cast's writers lasts a day.
    assert!(clock <= at(86_400_000), "{}", clock.as_millis());
}
