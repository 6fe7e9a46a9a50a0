//! Models that are to go: idle ones, those at work, those on their way, and broken ones.

use std::sync::atomic::{AtomicBool, Ordering};

use bield_engine::EngineError;
use bield_package::tensor::{Tensor, TensorSpec};

use super::*;
use crate::testing::package;

const MIB: u64 = 1 << 20;

/// A model that does nothing, and breaks when it is told to.
struct Brittle(Arc<AtomicBool>);

impl Model for Brittle {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn engine(&self) -> &'static str {
        "brittle"
    }

    fn run_timed(
        &self,
        _: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        Ok((Vec::new(), None))
    }

    fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Play {
    models: Arc<Models>,
    broken: Arc<AtomicBool>,
}

impl Play {
    fn new() -> Self {
        Self {
            models: Arc::new(Models::new(4 * MIB)),
            broken: Arc::default(),
        }
    }

    fn loaded(&self) -> Result<Loaded, Refusal> {
        Ok(Loaded {
            space: self.models.reserve(MIB, MIB, Duration::ZERO)?,
            model: Opened::new(Box::new(Brittle(Arc::clone(&self.broken))), 0),
            bytes: MIB,
            took: Duration::from_millis(1),
        })
    }

    fn load(&self) -> Lent {
        let lent = self
            .models
            .get(package(1), Duration::ZERO, || self.loaded());
        lent.unwrap()
    }

    fn is_here(&self) -> bool {
        self.models.resident(package(1)).is_some()
    }

    fn used(&self) -> u64 {
        self.models.counts().used_bytes
    }
}

#[test]
fn a_model_at_work_takes_no_new_runs_once_it_is_forgotten_and_goes_with_its_last() {
    let play = Play::new();
    let (first, second) = (play.load(), play.load());
    play.models.forget(package(1));
    assert!(!play.is_here());
    drop(first);
    assert_eq!(play.used(), MIB, "it is still at work");
    drop(second);
    assert_eq!(play.used(), 0);
    // An idle one goes at once.
    drop(play.load());
    play.models.forget(package(1));
    assert_eq!(play.used(), 0);
}

#[test]
fn a_model_that_is_forgotten_while_it_is_opened_stays_for_nobody() {
    let play = Play::new();
    let lent = play.models.get(package(1), Duration::ZERO, || {
        play.models.forget(package(1));
        play.loaded()
    });
    let lent = lent.unwrap();
    assert!(!play.is_here());
    drop(lent);
    assert_eq!(play.used(), 0);
    // The next one stays again.
    drop(play.load());
    assert!(play.is_here());
}

#[test]
fn a_model_that_broke_goes_with_its_last_run_and_is_opened_anew() {
    let play = Play::new();
    let (first, second) = (play.load(), play.load());
    play.broken.store(true, Ordering::SeqCst);
    drop(first);
    assert!(!play.is_here());
    drop(second);
    assert_eq!(play.used(), 0);
    play.broken.store(false, Ordering::SeqCst);
    drop(play.load());
    assert!(play.is_here());
}

#[test]
fn a_late_request_that_was_the_last_to_hold_a_model_lets_its_memory_go() {
    let play = Play::new();
    let lent = play.load();
    // As a late request holds it with the outcome that it did not wait for.
    let held = lent.model.clone();
    play.models.forget(package(1));
    drop(lent);
    assert_eq!(play.used(), MIB);
    drop(held);
    let opened = play.models.get(package(2), Duration::MAX, || {
        let late = play
            .models
            .get(package(2), Duration::ZERO, || play.loaded());
        assert_eq!(late.err().unwrap().code, "queue-full");
        assert_eq!(play.used(), 0);
        play.loaded()
    });
    assert!(opened.is_ok());
}
