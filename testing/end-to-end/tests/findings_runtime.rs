//! A published fault of an earlier system's runtime that only a whole program shows. The others, by number:
//! `enclave/runtime/src/call/tests/findings.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bield_end_to_end::{Stack, numbers};

/// Long beside the 10 ms in which the kernel counts, and beside the pauses of what wakes now and then.
const WATCHED: Duration = Duration::from_secs(3);
/// The kernel counts processor time in hundredths of a second here, whatever its clock (`man 5 proc`, `USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time of all threads of a process so far.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let times = after_name.split_whitespace().skip(11).take(2);
    let ticks: u32 = times.map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

#[test]
fn r2_a_runtime_that_waits_for_requests_takes_no_processor_time() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("idle").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    let runtime = stack.gateway.process.child("bield-runtime").unwrap();
    let (started, before) = (Instant::now(), processor_time(runtime));
    thread::sleep(WATCHED);
    let (burnt, watched) = (processor_time(runtime) - before, started.elapsed());
    println!("{} ms of {} ms", burnt.as_millis(), watched.as_millis());
    assert!(burnt < watched / 20, "{burnt:?} of {watched:?}");
}
