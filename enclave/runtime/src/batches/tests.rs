//! Models of one line, so that what each row gives is known; who waits is looked up, not timed.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::thread;

use bield_engine::{Engine, Rten, run_together};
use bield_package::tensor::{ElementType, TensorSpec};
use bield_package::{GoldenPair, ModelFormat, TOLERANCE_PPM};

use super::joint::{Answer, differ};
use super::*;

mod failing;

/// What a model does with the numbers of all its rows.
#[derive(Clone, Copy)]
enum Does {
    /// Doubles each.
    Doubles,
    /// Subtracts the mean of all of them.
    Centres,
    /// Gives one number, whatever it was given.
    Counts,
    /// Doubles each, of at most so many.
    Takes(usize),
    /// Doubles each, unless one is [`POISON`].
    Refuses,
    /// Panics at more than one row.
    Panics,
    /// Doubles one row, and waits for a word before it doubles [`HELD`].
    Waits,
}

struct Played {
    does: Does,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    runs_max: usize,
    /// The first number of each row, by run.
    runs: Mutex<Vec<Vec<f32>>>,
    word: Mutex<Option<Receiver<()>>>,
}

const POISON: f32 = -1.0;
const HELD: f32 = -2.0;

impl Played {
    fn new(does: Does) -> Self {
        let spec = |name| TensorSpec::new(name, ElementType::F32, vec![None, None]).unwrap();
        Self {
            does,
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            runs_max: usize::MAX,
            runs: Mutex::default(),
            word: Mutex::default(),
        }
    }

    fn runs(&self) -> Vec<Vec<f32>> {
        lock(&self.runs).clone()
    }

    /// Rows of each run since the last time.
    fn rows(&self) -> Vec<usize> {
        let runs = std::mem::take(&mut *lock(&self.runs));
        runs.iter().map(Vec::len).collect()
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

    fn has_rows(&self) -> bool {
        true
    }

    fn runs_max(&self) -> usize {
        self.runs_max
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let (shape, x) = (inputs[0].shape(), inputs[0].to_f32().unwrap());
        let firsts = x.chunks(shape[1] as usize).map(|row| row[0]);
        lock(&self.runs).push(firsts.collect());
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
            Does::Takes(most) if x.len() > most => return fail(),
            Does::Refuses if x.contains(&POISON) => return fail(),
            Does::Panics if shape[0] > 1 => panic!("on purpose"),
            Does::Waits if shape[0] > 1 => return fail(),
            Does::Waits if x.contains(&HELD) => {
                let word = lock(&self.word).take().unwrap();
                word.recv_timeout(SOME_TIME).unwrap();
                doubled
            }
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
/// More than enough for what does not come when it fails.
const SOME_TIME: Duration = Duration::from_secs(60);
/// As good as: two of all numbers.
const NEVER: u32 = u32::MAX;

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
                compared_one_in: NEVER,
            },
            counts: BatchCounts::default(),
        }
    }

    /// The model is known to keep rows apart.
    fn proven(does: Does) -> Self {
        let play = Self::new(does);
        play.lane.settle(Rows::Apart(64));
        play
    }

    /// The same, and every joint run is compared.
    fn compared(does: Does) -> Self {
        let mut play = Self::proven(does);
        play.batching.compared_one_in = 1;
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

    /// Waits until so many are there and in line.
    fn until_waiting(&self, count: usize) {
        while self.waiting() != count || self.turns.waiting() != count {
            thread::yield_now();
        }
    }

    fn is_left_clean(&self) -> bool {
        self.waiting() == 0 && self.turns.waiting() == 0 && self.turns.is_free()
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
    assert_eq!(play.model.rows(), [9]);
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
    assert_eq!(play.model.rows(), [1]);
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
    assert_eq!(play.model.rows(), [2, 2]);
}

#[test]
fn a_group_has_no_more_than_it_may_and_the_next_forms_behind_it() {
    let mut play = Play::proven(Does::Doubles);
    play.batching.requests_max = 2;
    let row: &[f32] = &[1.0];
    play.all(&[(1, row), (1, row), (1, row), (2, row), (1, row)]);
    assert_eq!(play.model.rows(), [2, 2, 1]);
}

#[test]
fn users_run_together_only_where_the_configuration_says_so() {
    let row: &[f32] = &[1.0];
    let requests = [(1, row), (2, row), (1, row), (2, row), (2, row)];
    let mut play = Play::proven(Does::Doubles);
    play.batching.across_users = false;
    play.all(&requests);
    let mut runs = play.model.rows();
    runs.sort_unstable();
    assert_eq!(runs, [2, 3]);
    let play = Play::proven(Does::Doubles);
    play.all(&requests);
    assert_eq!(play.model.rows(), [2, 2, 1]);
}

#[test]
fn one_bad_request_fails_alone() {
    let play = Play::proven(Does::Refuses);
    let requests: [(u8, &[f32]); 3] = [(1, &[1.0]), (2, &[POISON]), (3, &[3.0])];
    let answers = play.all(&requests);
    assert_eq!((&answers[0], &answers[2]), (&twice(&[1.0]), &twice(&[3.0])));
    assert!(answers[1].is_err());
    assert_eq!(play.model.rows(), [3, 1, 1, 1]);
    assert_eq!(play.counts.retried.load(Ordering::Relaxed), 1);
    // It is the request's fault, not the model's.
    play.all(&[(1, &[1.0]), (3, &[3.0])]);
    assert_eq!(play.model.rows(), [2]);
}

#[test]
fn what_users_send_proves_nothing() {
    let play = Play::new(Does::Centres);
    // Other bytes, and the same request: together they get what they get alone.
    let twins: [(u8, &[f32]); 2] = [(1, &[0.0]), (1, &[-0.0])];
    for _ in 0..8 {
        play.all(&twins);
    }
    assert_eq!(play.model.rows(), [1; 16]);
    assert!(!play.lane.joins());
    let play = Play::new(Does::Doubles);
    for _ in 0..8 {
        assert_eq!(play.all(&TWO), TWO.map(|(_, row)| twice(row)));
    }
    assert_eq!(play.model.rows(), [1; 16]);
}

#[test]
fn golden_pairs_decide_whether_a_model_runs_rows_together() {
    let counts = Arc::<BatchCounts>::default();
    let trial = Trial {
        requests_max: 4,
        counts: Arc::clone(&counts),
    };
    let golden = |row: &[f32]| GoldenPair {
        inputs: input(row),
        outputs: Vec::new(),
        tolerance_ppm: TOLERANCE_PPM,
    };
    let tried = |does, golden: &[GoldenPair]| trial.of(&Played::new(does), golden, &|| true);
    let row = [golden(&[1.0, 2.0])];
    let counted = || [&counts.refused, &counts.unproven].map(|n| n.load(Ordering::Relaxed));
    assert_eq!(tried(Does::Doubles, &row), Rows::Apart(4));
    assert_eq!(counted(), [0, 0]);
    for (nth, does) in (1..).zip([Does::Centres, Does::Takes(2)]) {
        assert_eq!(tried(does, &row), Rows::Differ);
        assert_eq!(counted(), [nth, 0]);
    }
    let twins = [golden(&[0.0]), golden(&[-0.0])];
    assert_eq!(tried(Does::Centres, &twins), Rows::Unproven);
    assert_eq!(tried(Does::Counts, &row), Rows::Unproven);
    assert_eq!(tried(Does::Doubles, &[]), Rows::Unproven);
    assert_eq!(counted(), [2, 3]);
}

#[test]
fn a_joint_run_that_is_compared_answers_as_single_ones_do_and_a_difference_ends_them() {
    for does in [Does::Centres, Does::Counts] {
        let play = Play::compared(does);
        assert!(play.lane.joins());
        let answers = play.all(&TWO);
        for ((_, row), answer) in TWO.into_iter().zip(&answers) {
            let alone = play.model.run(&input(row), &[]).unwrap();
            assert_eq!(answer, &Ok(alone[0].to_f32().unwrap()));
        }
        assert!(!play.lane.joins());
        assert_eq!(play.counts.refused.load(Ordering::Relaxed), 1);
        // Those who came before it was known run apart as well.
        play.model.rows();
        play.all(&TWO);
        assert_eq!(play.model.rows(), [1, 1]);
    }
    let play = Play::compared(Does::Doubles);
    for _ in 0..3 {
        assert_eq!(play.all(&TWO), TWO.map(|(_, row)| twice(row)));
        assert_eq!(play.model.rows(), [2, 1, 1]);
    }
}

#[test]
fn an_output_without_a_row_for_each_ends_joint_runs_though_nothing_is_compared() {
    let play = Play::proven(Does::Counts);
    assert_eq!(play.all(&TWO), [Ok(vec![1.0]), Ok(vec![1.0])]);
    assert!(!play.lane.joins());
}

#[test]
fn what_is_no_number_alone_ends_nothing_and_what_it_does_to_others_is_found() {
    let play = Play::compared(Does::Doubles);
    let none: [(u8, &[f32]); 2] = [(1, &[f32::NAN, 1.0]), (1, &[f32::INFINITY, 1.0])];
    play.all(&none);
    assert!(play.lane.joins());
    let play = Play::compared(Does::Centres);
    let answers = play.all(&[(1, &[f32::NAN, 1.0]), (2, &[3.0, 5.0])]);
    assert_eq!(answers[1], Ok(vec![-1.0, 1.0]));
    assert!(!play.lane.joins());
}

#[test]
fn a_joint_run_that_is_too_large_is_not_tried_again_and_smaller_ones_go_on() {
    let play = Play::proven(Does::Takes(4));
    let row: &[f32] = &[1.0, 2.0];
    let three = [(1, row), (2, row), (3, row)];
    assert_eq!(play.all(&three), [twice(row), twice(row), twice(row)]);
    assert_eq!(play.model.rows(), [3, 1, 1, 1]);
    play.all(&three);
    assert_eq!(play.model.rows(), [2, 1]);
    let short: &[f32] = &[1.0];
    play.all(&[(1, short), (2, short), (3, short)]);
    assert_eq!(play.model.rows(), [3]);
    assert_eq!(play.counts.refused.load(Ordering::Relaxed), 0);
}

#[test]
fn a_flood_of_one_user_lengthens_no_run_that_another_is_in() {
    let flood: [(u8, &[f32]); 7] = [
        (1, &[10.0]),
        (1, &[11.0]),
        (1, &[12.0]),
        (2, &[20.0]),
        (1, &[13.0]),
        (3, &[30.0]),
        (1, &[14.0]),
    ];
    let play = Play::proven(Does::Doubles);
    assert_eq!(play.all(&flood), flood.map(|(_, row)| twice(row)));
    let expected: [&[f32]; 2] = [&[10.0, 20.0, 30.0], &[11.0, 12.0, 13.0, 14.0]];
    assert_eq!(play.model.runs(), expected);
    assert!(play.is_left_clean());
}

#[test]
fn who_rides_with_a_flood_waits_for_nobodys_second_turn() {
    let flood: [(u8, &[f32]); 6] = [
        (1, &[10.0]),
        (1, &[11.0]),
        (1, &[12.0]),
        (1, &[13.0]),
        (2, &[20.0]),
        (3, &[30.0]),
    ];
    let mut play = Play::proven(Does::Doubles);
    play.batching.requests_max = 2;
    assert_eq!(play.all(&flood), flood.map(|(_, row)| twice(row)));
    assert_eq!(
        play.model.runs(),
        [[10.0, 20.0], [11.0, 30.0], [12.0, 13.0]]
    );
    assert!(play.is_left_clean());
    let mut play = Play::proven(Does::Doubles);
    play.batching.requests_max = 2;
    play.batching.across_users = false;
    play.all(&flood);
    let expected: [&[f32]; 4] = [&[10.0, 11.0], &[20.0], &[30.0], &[12.0, 13.0]];
    assert_eq!(play.model.runs(), expected);
}

#[test]
fn who_rides_gives_its_place_in_every_line_to_those_behind() {
    let mut play = Play::proven(Does::Doubles);
    play.model.runs_max = 1;
    play.lane = Lane::of(&play.model);
    play.lane.settle(Rows::Apart(64));
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let play = &play;
        let mut runs = Vec::new();
        for (at, row) in [[1.0_f32], [2.0], [3.0]].into_iter().enumerate() {
            let by = at as u8;
            runs.push(scope.spawn(move || play.run(by, &row, LONG, &|| false)));
            while play.waiting() != at + 1 || play.lane.waiting() != at {
                thread::yield_now();
            }
        }
        // One has the place and waits for a turn.
        while play.turns.waiting() != 1 {
            thread::yield_now();
        }
        let behind = scope.spawn(|| play.lane.take(&play.turns, user(9), LONG).is_ok());
        while play.lane.waiting() != 3 {
            thread::yield_now();
        }
        drop(held);
        assert!(behind.join().unwrap());
        for run in runs {
            assert!(run.join().unwrap().is_ok());
        }
    });
    assert_eq!(play.model.rows(), [3]);
    assert!(play.is_left_clean());
}

#[test]
fn who_is_first_in_line_and_cannot_wait_leaves_and_nobody_else_notices() {
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
    assert_eq!(play.model.rows(), [1]);
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
    assert_eq!(play.model.rows(), [1]);
    assert_eq!(play.run(1, &[1.0], LONG, &|| true), Err(NotRun::Gone));
    assert!(play.is_left_clean());
}

#[test]
fn a_panic_takes_no_more_than_its_run_and_says_nothing_of_who_rides() {
    let play = Play::proven(Does::Panics);
    let held = play.turns.take(user(99), LONG).unwrap();
    thread::scope(|scope| {
        let leads = scope.spawn(|| play.run(1, &[1.0], LONG, &|| false));
        play.until_waiting(1);
        let joins = scope.spawn(|| play.run(2, &[2.0], LONG, &|| false));
        play.until_waiting(2);
        drop(held);
        assert!(leads.join().is_err());
        assert_eq!(joins.join().unwrap(), Err(NotRun::Lost));
    });
    assert!(play.is_left_clean());
    assert_eq!(play.run(1, &[1.0], LONG, &|| false), Ok(twice(&[1.0])));
}

#[test]
fn nobody_waits_for_others_longer_than_until_as_many_are_there_as_may_run() {
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
    assert_eq!(play.model.rows(), [3]);
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
        let mut pairs = single.iter().zip(together.unwrap());
        assert!(pairs.all(|(one, row)| !differ(one, &row)), "{count}");
    }
}
