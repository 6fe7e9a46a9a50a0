//! Groups under every fault at once, from a seed; an auditor that knows all disks and memories looks on.
//!
//! ```text
//! seed ─▶ World: places with disks ─▶ processes (a Group, or none yet) ─▶ Network: drop, delay,
//!           │                                                            reorder, duplicate, cut
//!           └─▶ Auditor: one sequence, nothing acknowledged is ever missing
//! ```
//!
//! A failing seed prints itself; `SEED=n cargo test -p bield-group --test simulation one` runs it alone.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod audit;
mod disk;
mod network;
mod random;
mod world;

use world::{Outcome, World};

/// Seeds of one test; four tests, so that they run side by side.
const SEEDS: u64 = 80;

fn run(seeds: impl Iterator<Item = u64>) -> Outcome {
    let mut all = Outcome::default();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        match outcome {
            Ok(outcome) => all.add(&outcome),
            Err(cause) => {
                eprintln!("seed {seed} failed; SEED={seed} runs it alone");
                std::panic::resume_unwind(cause);
            }
        }
    }
    all
}

/// A simulation in which nothing happens proves nothing.
fn was_eventful(outcome: &Outcome) {
    eprintln!("{outcome:?}");
    assert!(outcome.acknowledged > 20 * SEEDS, "{outcome:?}");
    assert!(outcome.formed > SEEDS, "{outcome:?}");
    assert!(outcome.joined > SEEDS, "{outcome:?}");
    assert!(outcome.killed > SEEDS, "{outcome:?}");
    assert!(outcome.deposed > 0, "{outcome:?}");
    assert!(outcome.set_back > 0, "{outcome:?}");
}

#[test]
fn one_sequence_and_nothing_acknowledged_is_lost_1() {
    was_eventful(&run(0..SEEDS));
}

#[test]
fn one_sequence_and_nothing_acknowledged_is_lost_2() {
    was_eventful(&run(SEEDS..2 * SEEDS));
}

#[test]
fn one_sequence_and_nothing_acknowledged_is_lost_3() {
    was_eventful(&run(2 * SEEDS..3 * SEEDS));
}

#[test]
fn one_sequence_and_nothing_acknowledged_is_lost_4() {
    was_eventful(&run(3 * SEEDS..4 * SEEDS));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 42] {
        assert_eq!(
            World::new(seed).run(),
            World::new(seed).run(),
            "seed {seed}"
        );
    }
}

#[test]
fn one() {
    let Ok(seed) = std::env::var("SEED") else {
        return;
    };
    eprintln!("{:?}", run(std::iter::once(seed.parse().unwrap())));
}
