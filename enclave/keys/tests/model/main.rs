//! Random life of a service against a model in plain lists: who may open what is always the model's.
//!
//! A case is some [`STEPS`] orders of several principals, with crashes at random writes and bytes, restarts,
//! refused and unanswered writes, messages said again and in another order, and a host that sets its clock
//! forward and back. After each step leases, key configurations and admissions are compared; after each
//! start all of them, with everybody's grants and audit.
//!
//! `BIELD_MODEL_CASES` plays more cases, `BIELD_MODEL_SEED` one of them again.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap in the cast is a failed test; numbers are small here"
)]

#[path = "../cast/mod.rs"]
mod cast;
mod model;
mod play;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use play::{Play, Seen};

const CASES: u64 = 200;
const STEPS: usize = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Plays one case; says how to play it again when it fails.
fn case(seed: u64) -> Seen {
    let mut play = Play::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| play.run(STEPS)));
    if outcome.is_err() {
        let journal = play.journal.join("\n  ");
        panic!("BIELD_MODEL_SEED={seed} plays this again:\n  {journal}");
    }
    play.seen
}

#[test]
fn who_may_open_what_is_always_the_models() {
    if let Some(seed) = number("BIELD_MODEL_SEED") {
        case(seed);
        return;
    }
    let cases = number("BIELD_MODEL_CASES").unwrap_or(CASES);
    let next = AtomicU64::new(0);
    let seen = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= cases {
                        return;
                    }
                    let case = case(seed);
                    seen.lock().unwrap().push(case);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    let all = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let part = |of: fn(&Seen) -> (u64, u64)| {
        let (yes, asked) = seen
            .iter()
            .map(of)
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        println!("{yes} of {asked}");
        20 * yes > asked && 20 * (asked - yes) > asked
    };
    println!(
        "{} starts, {} open answers",
        all(|seen| seen.starts),
        all(|seen| seen.open)
    );
    assert!(part(|seen| seen.ordered), "orders are accepted and refused");
    assert!(part(|seen| seen.leased), "leases are given and refused");
    assert!(part(|seen| seen.served), "requests are served and refused");
    assert!(all(|seen| seen.open) >= cases / 4, "answers are left open");
}
