//! Models of one line, so that what each row gives is known; who waits is looked up, not timed.

use std::sync::atomic::AtomicBool;

use bield_engine::{Engine, Rten};
use bield_package::ModelFormat;
use bield_package::tensor::{ElementType, TensorSpec};

use super::*;

/// What a model does with the numbers of all its rows.
#[derive(Clone, Copy)]
enum Does {
    /// Doubles each.
    Doubles,
    /// Subtracts the mean of all of them.
    Centres,
    /// Gives one number, whatever it was given.
    Counts,
    /// Doubles each, but only one row at a time.
    TakesOne,
    /// Doubles each, unless one is [`POISON`].
    Refuses,
    /// Panics at more than one row.
    Panics,
}

struct Played {
    does: Does,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Rows of each run.
    runs: Mutex<Vec<u64>>,
}

const POISON: f32 = -1.0;

impl Played {
    fn new(does: Does) -> Self {
        let spec = |name| TensorSpec::new(name, ElementType::F32, vec![None, None]).unwrap();
        Self {
            does,
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            runs: Mutex::default(),
        }
    }

    fn runs(&self) -> Vec<u64> {
        lock(&self.runs).clone()
    }
}

impl Model for Played {
    fn engine(&self) -> &'static str {
        "played"
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let (shape, x) = (inputs[0].shape(), inputs[0].to_f32().unwrap());
        lock(&self.runs).push(shape[0]);
        let fail = || {
            let reason = "on purpose".to_owned();
            let engine = "played";
            Err(EngineError::Run { engine, reason })
        };
        let doubled: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        let y = match self.does {
            Does::Doubles => doubled,
            Does::Centres => {
                let mean = x.iter().sum::<f32>() / x.len() as f32;
                x.iter().map(|x| x - mean).collect()
            }
            Does::Counts => {
                let count = Tensor::from_f32("y", &[1, 1], &[1.0]).unwrap();
                return Ok((vec![count], None));
            }
            Does::TakesOne if shape[0] > 1 => return fail(),
            Does::Refuses if x.contains(&POISON) => return fail(),
            Does::Panics if shape[0] > 1 => panic!("on purpose"),
            _ => doubled,
        };
        Ok((vec![Tensor::from_f32("y", shape, &y).unwrap()], None))
    }
}

fn user(number: u8) -> Principal {
    Principal::from_bytes([number; 32])
}

fn input(row: &[f32]) -> Vec<Tensor> {
    vec![Tensor::from_f32("x", &[1, row.len() as u64], row).unwrap()]
}

/// A lane before one model, and turns that the test holds back until all are there.
struct Play {
    lane: Lane,
    model: Played,
    turns: Turns,
    batching: Batching,
    counts: BatchCounts,
}

const LONG: Duration = Duration::from_secs(600);

impl Play {
    fn new(does: Does) -> Self {
        Self {
            lane: Lane::default(),
            model: Played::new(does),
            turns: Turns::new(1),
            batching: Batching {
                wait: Duration::ZERO,
                requests_max: 16,
                across_users: true,
            },
            counts: BatchCounts::default(),
        }
    }

    /// The model is known to keep rows apart.
    fn proven(does: Does) -> Self {
        let play = Self::new(does);
        lock(&play.lane.0).verdict = Verdict::Same;
        play
    }

    fn run(
        &self,
        by: u8,
        row: &[f32],
        wait: Duration,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<Result<Vec<f32>, EngineError>, NotRun> {
        let inputs = input(row);
        let joins = Joins {
            user: user(by),
            shape: Shape::of(&self.model, &inputs, &[]).unwrap(),
            inputs,
            wait,
            is_alone: false,
            is_gone,
        };
        let with = (&self.batching, &self.counts);
        let ran = self.lane.run(&self.model, joins, &self.turns, with)?;
        Ok(ran.answer.map(|answer| answer[0].to_f32().unwrap()))
    }

    /// Runs requests that all wait before the first begins.
    fn all(&self, requests: &[(u8, &[f32])]) -> Vec<Result<Vec<f32>, EngineError>> {
        let held = self.turns.take(user(99), LONG).unwrap();
        thread::scope(|scope| {
            let mut runs = Vec::new();
            for (at, (by, row)) in requests.iter().enumerate() {
                runs.push(scope.spawn(move || self.run(*by, row, LONG, &|| false).unwrap()));
                self.until_waiting(at + 1);
            }
            drop(held);
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        })
    }

    fn waiting(&self) -> usize {
        self.lane.members()
    }

    /// Waits until so many have joined a group, and every group's leader is in line.
    fn until_waiting(&self, count: usize) {
        let groups = || lock(&self.lane.0).groups.len();
        while self.waiting() != count || self.turns.waiting() != groups() {
            thread::yield_now();
        }
    }

    fn is_left_clean(&self) -> bool {
        self.waiting() == 0 && lock(&self.lane.0).groups.is_empty()
    }
}

const TWO: [(u8, &[f32]); 2] = [(1, &[1.0, 2.0]), (2, &[3.0, 5.0])];

fn twice(row: &[f32]) -> Result<Vec<f32>, EngineError> {
    Ok(row.iter().map(|x| 2.0 * x).collect())
}

#[test]
fn what_waits_together_runs_together_and_each_gets_its_own_answer() {
    let play = Play::proven(Does::Doubles);
    let rows: Vec<Vec<f32>> = (0_u8..9).map(|n| vec![n.into(), 0.5]).collect();
    let requests: Vec<(u8, &[f32])> = (1..).zip(rows.iter().map(Vec::as_slice)).collect();
    let answers = play.all(&requests);
    assert_eq!(
        answers,
        rows.iter().map(|row| twice(row)).collect::<Vec<_>>()
    );
    assert_eq!(play.model.runs(), [9]);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(count(&play.counts.batches), 1);
    assert_eq!(
        (count(&play.counts.requests), count(&play.counts.largest)),
        (9, 9)
    );
    assert!(play.is_left_clean());
}

#[test]
fn one_request_alone_is_a_run_of_its_own() {
    let play = Play::new(Does::Doubles);
    assert_eq!(play.run(1, &[4.0], LONG, &|| false), Ok(twice(&[4.0])));
    assert_eq!(play.model.runs(), [1]);
    assert_eq!(play.counts.batches.load(Ordering::Relaxed), 0);
    assert!(play.is_left_clean());
}

#[test]
fn other_shapes_run_apart() {
    let play = Play::proven(Does::Doubles);
    let requests: [(u8, &[f32]); 4] =
        [(1, &[1.0]), (1, &[1.0, 2.0]), (1, &[3.0]), (2, &[4.0, 5.0])];
    let answers = play.all(&requests);
    assert_eq!(answers, requests.map(|(_, row)| twice(row)));
    assert_eq!(play.model.runs(), [2, 2]);
}

#[test]
fn a_group_has_no_more_than_it_may_and_the_next_forms_behind_it() {
    let mut play = Play::proven(Does::Doubles);
    play.batching.requests_max = 2;
    let row: &[f32] = &[1.0];
    play.all(&[(1, row), (1, row), (1, row), (2, row), (1, row)]);
    assert_eq!(play.model.runs(), [2, 2, 1]);
}

#[test]
fn users_run_together_only_where_the_configuration_says_so() {
    let row: &[f32] = &[1.0];
    let requests = [(1, row), (2, row), (1, row), (2, row), (2, row)];
    let mut play = Play::proven(Does::Doubles);
    play.batching.across_users = false;
    play.all(&requests);
    let mut runs = play.model.runs();
    runs.sort_unstable();
    assert_eq!(runs, [2, 3]);
    let play = Play::proven(Does::Doubles);
    play.all(&requests);
    assert_eq!(play.model.runs(), [5]);
}

#[test]
fn one_bad_request_fails_alone() {
    let play = Play::proven(Does::Refuses);
    let requests: [(u8, &[f32]); 3] = [(1, &[1.0]), (2, &[POISON]), (3, &[3.0])];
    let answers = play.all(&requests);
    assert_eq!((&answers[0], &answers[2]), (&twice(&[1.0]), &twice(&[3.0])));
    assert!(answers[1].is_err());
    assert_eq!(play.model.runs(), [3, 1, 1, 1]);
    assert_eq!(play.counts.retried.load(Ordering::Relaxed), 1);
    // It is the request's fault, not the model's.
    play.all(&TWO);
    assert_eq!(play.model.runs()[4..], [2]);
}

#[test]
fn a_model_whose_answers_depend_on_the_others_never_answers_so() {
    for does in [Does::Centres, Does::Counts, Does::TakesOne] {
        let play = Play::new(does);
        assert!(play.lane.joins());
        let answers = play.all(&TWO);
        for ((_, row), answer) in TWO.into_iter().zip(&answers) {
            let alone = play.model.run(&input(row), &[]).unwrap();
            assert_eq!(answer, &Ok(alone[0].to_f32().unwrap()));
        }
        assert!(!play.lane.joins());
        assert_eq!(play.counts.refused.load(Ordering::Relaxed), 1);
        // Those who had joined before it was known run apart as well.
        play.all(&TWO);
        assert_eq!(play.model.runs()[5..], [1, 1]);
    }
}

#[test]
fn a_model_is_believed_after_several_joint_runs_of_requests_that_differ() {
    let play = Play::new(Does::Centres);
    // Of equal rows, everything is the same.
    for _ in 0..2 * PROOFS {
        play.all(&[(1, &[7.0]), (2, &[7.0])]);
    }
    assert!(lock(&play.lane.0).verdict == Verdict::Unproven(0));
    let play = Play::new(Does::Doubles);
    for _ in 0..PROOFS {
        assert_eq!(play.all(&TWO), TWO.map(|(_, row)| twice(row)));
    }
    assert_eq!(play.model.runs(), [2, 1, 1].repeat(PROOFS as usize));
    play.all(&TWO);
    assert_eq!(play.model.runs()[3 * PROOFS as usize..], [2]);
}

#[test]
fn a_leader_that_cannot_wait_hands_over_and_nobody_else_notices() {
    let play = Play::proven(Does::Doubles);
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let leads = scope.spawn(|| play.run(1, &[1.0], Duration::from_millis(200), &|| false));
        while play.waiting() == 0 && !leads.is_finished() {
            thread::yield_now();
        }
        let second = scope.spawn(|| play.run(2, &[2.0], LONG, &|| false));
        let third = scope.spawn(|| play.run(3, &[3.0], LONG, &|| false));
        assert_eq!(leads.join().unwrap(), Err(NotRun::Late));
        play.until_waiting(2);
        drop(held);
        assert_eq!(second.join().unwrap(), Ok(twice(&[2.0])));
        assert_eq!(third.join().unwrap(), Ok(twice(&[3.0])));
    });
    assert!(play.is_left_clean());
}

#[test]
fn who_joined_and_cannot_wait_leaves_alone() {
    let play = Play::proven(Does::Doubles);
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let leads = scope.spawn(|| play.run(1, &[1.0], LONG, &|| false));
        play.until_waiting(1);
        let late = play.run(2, &[2.0], Duration::from_millis(5), &|| false);
        assert_eq!(late, Err(NotRun::Late));
        drop(held);
        assert_eq!(leads.join().unwrap(), Ok(twice(&[1.0])));
    });
    assert_eq!(play.model.runs(), [1]);
    assert!(play.is_left_clean());
}

#[test]
fn a_leader_for_whom_nobody_waits_runs_the_others_only() {
    let play = Play::proven(Does::Doubles);
    let held = play.turns.take(user(99), LONG).unwrap();
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let leads = scope.spawn(|| play.run(1, &[1.0], LONG, &|| gone.load(Ordering::SeqCst)));
        play.until_waiting(1);
        let joins = scope.spawn(|| play.run(2, &[2.0], LONG, &|| false));
        play.until_waiting(2);
        gone.store(true, Ordering::SeqCst);
        drop(held);
        assert_eq!(leads.join().unwrap(), Err(NotRun::Gone));
        assert_eq!(joins.join().unwrap(), Ok(twice(&[2.0])));
    });
    assert_eq!(play.model.runs(), [1]);
    assert_eq!(play.run(1, &[1.0], LONG, &|| true), Err(NotRun::Gone));
    assert!(play.is_left_clean());
}

#[test]
fn a_panic_takes_no_more_than_its_run() {
    let play = Play::proven(Does::Panics);
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let leads = scope.spawn(|| play.run(1, &[1.0], LONG, &|| false));
        play.until_waiting(1);
        let joins = scope.spawn(|| play.run(2, &[2.0], LONG, &|| false));
        play.until_waiting(2);
        drop(held);
        assert!(leads.join().is_err());
        assert!(matches!(
            joins.join().unwrap(),
            Ok(Err(EngineError::Run { .. }))
        ));
    });
    assert!(play.is_left_clean());
    assert_eq!(play.run(1, &[1.0], LONG, &|| false), Ok(twice(&[1.0])));
}

#[test]
fn a_leader_waits_for_others_no_longer_than_until_its_group_is_full() {
    let mut play = Play::proven(Does::Doubles);
    play.batching.wait = LONG;
    play.batching.requests_max = 3;
    thread::scope(|scope| {
        let play = &play;
        for by in 1..4_u8 {
            scope.spawn(move || {
                assert_eq!(play.run(by, &[1.0], LONG, &|| false), Ok(twice(&[1.0])));
            });
        }
    });
    assert_eq!(play.model.runs(), [3]);
    // Nor longer than its own time, after which its turn is there.
    let alone = play.run(1, &[1.0], Duration::from_millis(5), &|| false);
    assert_eq!(alone, Ok(twice(&[1.0])));
}

/// The oracle is the engine, asked for each request by itself.
#[test]
fn answers_of_a_real_model_are_those_of_single_runs() {
    let model = Rten::new(1)
        .load(bield_fixtures::tiny_model(), ModelFormat::Onnx)
        .unwrap();
    let mut random = 11_u64;
    let mut number = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    for count in [1, 2, 3, 7, 16, 64] {
        let requests: Vec<Vec<Tensor>> = (0..count)
            .map(|_| {
                let row: Vec<f32> = (0..4).map(|_| number()).collect();
                vec![Tensor::from_f32("input", &[1, 4], &row).unwrap()]
            })
            .collect();
        let shape = Shape::of(&*model, &requests[0], &[]).unwrap();
        let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        let (together, _) = run_together(&*model, &shape, &borrowed).unwrap();
        let single: Vec<Answer> = requests.iter().map(|one| model.run(one, &[])).collect();
        assert!(all_agree(&single, &together.unwrap()), "{count}");
    }
}
