//! Requests of several users that run as one, through the whole path.

use std::thread;

use bield_grant::UserSelector;

use super::*;
use crate::batches::{Batching, Trial};

/// Users who are granted `isolation`, and a runtime in which all of them wait for one turn.
struct Play {
    stage: Stage,
    runtime: Runtime,
    users: Vec<SigningKey>,
}

impl Play {
    fn new(isolation: Isolation) -> Self {
        Self::with(Shelf::stocked(), isolation)
    }

    fn with(shelf: Shelf, isolation: Isolation) -> Self {
        let stage = Stage::new(shelf);
        let mut runtime = stage.runtime(Rten::new(1), 64 * MIB);
        let users: Vec<_> = (90..94)
            .map(|seed| SigningKey::generate(&mut Seeded::new(seed)))
            .collect();
        let grants = users.iter().zip(1_u8..).map(|(user, number)| {
            stage.cast.granted(stage.package, |grant| {
                grant.id = [number; 16];
                grant.isolation = isolation;
                grant.user = UserSelector::Principal(user.principal());
            })
        });
        stage.service.mind().grants = Some(grants.collect());
        runtime.batching = Some(Batching {
            wait: Duration::ZERO,
            requests_max: 8,
            across_users: true,
            compared_one_in: u32::MAX,
        });
        let trial = Trial {
            requests_max: 8,
            counts: Arc::clone(&runtime.metrics.batches),
        };
        Arc::get_mut(&mut runtime.loader).unwrap().trial = Some(trial);
        Self {
            stage,
            runtime,
            users,
        }
    }

    /// Opens keys and model, so that later requests wait for turns only.
    fn open(&self) {
        let body = inference::Request {
            inputs: crate::testing::inputs(),
            outputs: Vec::new(),
        };
        let first = self
            .stage
            .cast
            .seal(&self.users[0], self.stage.package, 1, &body.encode());
        start_of(&self.runtime, first);
    }

    /// What each user is answered to a request of its own, all of which wait for the same turn.
    fn round(&self, round: u8) -> Vec<Vec<f32>> {
        let body = |at: usize| {
            let row = [1.0, at as f32, -1.0, f32::from(round)];
            inference::Request {
                inputs: vec![Tensor::from_f32("input", &[1, 4], &row).unwrap()],
                outputs: Vec::new(),
            }
        };
        let nobody = crate::testing::Cast::new().owner.principal();
        let held = self.runtime.turns.take(nobody, Duration::ZERO).unwrap();
        thread::scope(|scope| {
            let calls: Vec<_> = (0..self.users.len())
                .map(|at| {
                    let (stage, id) = (&self.stage, 10 * round + at as u8);
                    let sealed =
                        stage
                            .cast
                            .seal(&self.users[at], stage.package, id, &body(at).encode());
                    scope.spawn(|| answered(&self.runtime, sealed).0)
                })
                .collect();
            while self.inside() < self.users.len() {
                thread::yield_now();
            }
            drop(held);
            let numbers = |reply| match reply {
                inference::Reply::Answered(answer) => {
                    answer.output().unwrap().tensors[0].to_f32().unwrap()
                }
                other => panic!("not answered: {other:?}"),
            };
            calls
                .into_iter()
                .map(|call| numbers(call.join().unwrap()))
                .collect()
        })
    }

    /// Requests that wait, in a group or in line.
    fn inside(&self) -> usize {
        match self.runtime.models.resident(self.stage.package) {
            Some(model) => model.lane.members().max(self.runtime.turns.waiting()),
            None => 0,
        }
    }

    /// Joint runs, requests in them, and models that were found to differ.
    fn counted(&self) -> [u64; 3] {
        let counts = &self.runtime.metrics.batches;
        [&counts.batches, &counts.requests, &counts.refused].map(|n| n.load(Ordering::Relaxed))
    }
}

#[test]
fn users_who_share_run_as_one_and_are_answered_what_they_asked() {
    let play = Play::new(Isolation::Shared);
    play.open();
    let alone = Play::new(Isolation::Shared);
    alone.open();
    for round in 1..8_u8 {
        let together = play.round(round);
        for (at, answer) in together.iter().enumerate() {
            let row = [1.0, at as f32, -1.0, f32::from(round)];
            let model = alone.runtime.models.resident(alone.stage.package).unwrap();
            let input = Tensor::from_f32("input", &[1, 4], &row).unwrap();
            let expected = model.run(&[input], &[]).unwrap()[0].to_f32().unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(answer.iter().zip(&expected).all(near), "{round}: {at}");
        }
        assert_eq!(play.counted(), [round.into(), 4 * u64::from(round), 0]);
    }
}

#[test]
fn who_is_kept_apart_never_runs_with_others() {
    let play = Play::new(Isolation::Wiped);
    play.open();
    for round in 1..3 {
        assert_eq!(play.round(round).len(), 4);
    }
    assert_eq!(play.counted(), [0, 0, 0]);
}

#[test]
fn a_package_whose_owner_recorded_nothing_never_runs_requests_together() {
    let shelf = Shelf::packed(bield_fixtures::tiny_model(), Vec::new());
    let play = Play::with(shelf, Isolation::Shared);
    play.open();
    for round in 1..8 {
        assert_eq!(play.round(round).len(), 4);
    }
    assert_eq!(play.counted(), [0, 0, 0]);
    let unproven = &play.runtime.metrics.batches.unproven;
    assert_eq!(unproven.load(Ordering::Relaxed), 1);
}
