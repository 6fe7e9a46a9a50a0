//! One request, given to a runtime that dies at some write, and then to the next one.

use bield_ledger::Fault;
use bield_package::{BucketSpec, Consistency, Durability};

use super::*;
use crate::functions::states::tests::{HOLD, Stage};

const NAME: &str = "counters";

fn counters() -> Bucket {
    Bucket {
        name: NAME.to_owned(),
        consistency: bield_table::Consistency::Linearizable,
        durability: bield_state::Durability::LocalSync,
    }
}

fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.function.buckets.push(BucketSpec {
        name: NAME.to_owned(),
        consistency: Consistency::Linearizable,
        durability: Durability::LocalSync,
    });
    stage
}

/// What the same sealed bytes are at every runtime that gets them.
fn once(stage: &Stage) -> Once {
    use crate::clock::Clock as _;
    Once {
        key: once_key(Principal::from_bytes([7; 32]), [1; 16]),
        request: Digest::from_bytes([5; 32]),
        until: stage.clock.host().plus(REQUEST_AGE_MAX + CLOCK_SKEW_MAX),
    }
}

/// Waits until everything so far is in the files, as somebody does who asks at the same time.
fn settled(held: &HeldState) -> Result<(), bield_state::StateError> {
    let mut reads = held.state().request(&[])?;
    reads.get(&counters(), b"k")?;
    reads.finish().map(drop)
}

/// Adds 1, as `run_admitted` has a guest do it; the body of the answer.
fn add(held: &HeldState, once: &Once) -> Result<Vec<u8>, Refusal> {
    let files = |error| functions::states::of_files(&error);
    let state = held.state().request(&[]).map_err(files)?;
    let left = Mutex::new(Left::of(Some(state)));
    let outcome = match once.begin(&left)? {
        Some(done) => done,
        None => {
            let sum = {
                let mut left = lock(&left);
                left.wrote = true;
                let state = left.state.as_mut().unwrap();
                state.increment(&counters(), b"k", 1).map_err(files)?
            };
            // The guest works on, and another's request has the change written before the answer is known.
            settled(held).map_err(files)?;
            let body = Wiped::from(sum.to_string().into_bytes());
            let outcome = Outcome(Ok((String::new(), body)));
            once.note(&left, Some(&outcome))?;
            outcome
        }
    };
    end(Some(held), &left)?;
    let (_, body) = outcome.0.ok().unwrap();
    Ok(body.to_vec())
}

fn count(held: &HeldState) -> Vec<u8> {
    let mut reads = held.state().request(&[]).unwrap();
    let found = reads.get(&counters(), b"k").unwrap();
    reads.finish().unwrap();
    found.map_or_else(Vec::new, |found| found.value.to_vec())
}

/// The writing operations of a request that nothing disturbs: from, to.
fn writes() -> (u64, u64) {
    let stage = stage();
    let runtime = stage.runtime();
    let held = stage.lend(&runtime).unwrap();
    settled(&held).unwrap();
    let from = stage.disk.writes();
    assert_eq!(add(&held, &once(&stage)).unwrap(), b"1");
    (from, stage.disk.writes())
}

#[test]
fn a_request_is_done_once_behind_whichever_write_its_runtime_died() {
    let (from, to) = writes();
    assert!(
        to - from >= 2,
        "the change and the answer are written apart"
    );
    let (mut heard, mut unheard, mut unwritten) = (0, 0, 0);
    for write in from..to {
        for bytes in [0, 1, 100, u64::MAX] {
            let stage = stage();
            let (dead, next) = (stage.runtime(), stage.runtime());
            let once = once(&stage);
            let held = stage.lend(&dead).unwrap();
            settled(&held).unwrap();
            stage.disk.fail(Fault::Crash { write, bytes });
            let _ = add(&held, &once);
            drop((held, dead));
            stage.disk.restart();
            stage.clock.pass(HOLD);
            let held = stage.lend(&next).unwrap();
            let before = count(&held);
            match add(&held, &once) {
                Ok(sum) if before == b"1" => {
                    assert_eq!(sum, b"1", "the answer of the first time");
                    heard += 1;
                }
                Ok(sum) => {
                    assert_eq!((&*before, &*sum), (&b""[..], &b"1"[..]));
                    unwritten += 1;
                }
                Err(refusal) => {
                    assert_eq!((&*refusal.code, &*before), ("done-before", &b"1"[..]));
                    unheard += 1;
                }
            }
            assert_eq!(count(&held), b"1", "write {write}, {bytes} bytes of it");
        }
    }
    // Died before its change was written, between it and the answer, and behind both.
    assert!(
        unwritten > 0 && unheard > 0 && heard > 0,
        "{unwritten} {unheard} {heard}"
    );
}

#[test]
fn what_changed_nothing_is_no_request_that_was_done() {
    let stage = stage();
    let runtime = stage.runtime();
    let held = stage.lend(&runtime).unwrap();
    let once = once(&stage);
    for _ in 0..3 {
        let left = Mutex::new(Left::of(Some(held.state().request(&[]).unwrap())));
        assert!(once.begin(&left).unwrap().is_none());
        once.note(&left, None).unwrap();
        end(Some(&held), &left).unwrap();
    }
    assert_eq!(add(&held, &once).unwrap(), b"1");
    assert_eq!(add(&held, &once).unwrap(), b"1");
}

#[test]
fn an_answer_that_was_kept_is_of_the_same_bytes_and_not_of_the_same_id() {
    let stage = stage();
    let runtime = stage.runtime();
    let held = stage.lend(&runtime).unwrap();
    let once = once(&stage);
    assert_eq!(add(&held, &once).unwrap(), b"1");
    let other = Once {
        request: Digest::from_bytes([6; 32]),
        ..once
    };
    assert_eq!(add(&held, &other).unwrap_err().code, "replayed");
    assert_eq!(count(&held), b"1");
}
