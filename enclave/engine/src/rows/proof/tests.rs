//! Models of one line, so that what each row gives is known.

use std::sync::Mutex;
use std::time::Duration;

use bield_fixtures::converted;
use bield_package::ModelFormat;
use bield_package::tensor::TensorSpec;

use super::*;
use crate::{Engine, EngineError, Rten, record_golden};

/// What a model does with the numbers of all its rows.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Does {
    Doubles,
    /// Subtracts the mean of all of them.
    Centres,
    /// Rounds them to steps of a 255th of the largest of all.
    Quantizes,
    /// Gives each row what the one before it is to get.
    Shifts,
    /// Gives a row for each positive first number.
    Detects,
    /// Doubles each; a second output is always 1.
    Labels,
    /// Their inverses: no number for zero.
    Inverts,
    /// Doubles each, of so many rows at most.
    Takes(usize),
}

struct Played {
    does: Does,
    has_rows: bool,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// All numbers that it was given.
    given: Mutex<Vec<Vec<f64>>>,
    /// Rows of each run.
    sizes: Mutex<Vec<usize>>,
}

impl Played {
    fn new(does: Does) -> Self {
        Self::of(does, ElementType::F32)
    }

    fn of(does: Does, element: ElementType) -> Self {
        let spec = |name| TensorSpec::new(name, element, vec![None, None]).unwrap();
        let names: &[&str] = match does {
            Does::Labels => &["y", "label"],
            _ => &["y"],
        };
        Self {
            does,
            has_rows: true,
            inputs: vec![spec("x")],
            outputs: names.iter().map(|name| spec(*name)).collect(),
            given: Mutex::default(),
            sizes: Mutex::default(),
        }
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let integers = || Some(tensor.to_i64()?.into_iter().map(|n| n as f64).collect());
    tensor.to_f64().or_else(integers).unwrap()
}

fn tensor(name: &str, element: ElementType, rows: &[Vec<f64>]) -> Tensor {
    let shape = [rows.len() as u64, rows.first().map_or(0, Vec::len) as u64];
    let all = rows.concat();
    let made = match element {
        ElementType::I64 => {
            let all: Vec<i64> = all.iter().map(|n| *n as i64).collect();
            Tensor::from_i64(name, &shape, &all)
        }
        _ => {
            let all: Vec<f32> = all.iter().map(|n| *n as f32).collect();
            Tensor::from_f32(name, &shape, &all)
        }
    };
    made.unwrap()
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
        self.has_rows
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        _: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let (element, all) = (inputs[0].element(), numbers(&inputs[0]));
        let rows: Vec<Vec<f64>> = all
            .chunks(inputs[0].shape()[1] as usize)
            .map(<[f64]>::to_vec)
            .collect();
        self.given.lock().unwrap().extend(rows.clone());
        self.sizes.lock().unwrap().push(rows.len());
        let each = |what: &dyn Fn(f64) -> f64| -> Vec<Vec<f64>> {
            let row = |row: &Vec<f64>| row.iter().map(|n| what(*n)).collect();
            rows.iter().map(row).collect()
        };
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let step = all.iter().fold(0.0_f64, |most, n| most.max(n.abs())) / 255.0;
        let y = match self.does {
            Does::Takes(most) if rows.len() > most => {
                let (engine, reason) = ("played", "on purpose".to_owned());
                return Err(EngineError::Run { engine, reason });
            }
            Does::Doubles | Does::Labels | Does::Takes(_) => each(&|n| 2.0 * n),
            Does::Centres => each(&|n| n - mean),
            Does::Quantizes if step > 0.0 => each(&|n| (n / step).round() * step),
            Does::Quantizes => rows.clone(),
            Does::Shifts => {
                let mut rows = rows.clone();
                rows.rotate_left(1);
                rows
            }
            Does::Detects => {
                let found = rows.iter().filter(|row| row[0] > 0.0);
                found.cloned().collect()
            }
            Does::Inverts => each(&|n| 1.0 / n),
        };
        let mut answer = vec![tensor("y", element, &y)];
        if self.does == Does::Labels {
            answer.push(tensor("label", element, &vec![vec![1.0]; rows.len()]));
        }
        Ok((answer, None))
    }
}

fn pair(element: ElementType, rows: &[&[f64]]) -> GoldenPair {
    let rows: Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
    GoldenPair {
        inputs: vec![tensor("x", element, &rows)],
        outputs: Vec::new(),
        tolerance_ppm: TOLERANCE_PPM,
    }
}

fn floats(rows: &[&[f64]]) -> Vec<GoldenPair> {
    rows.iter()
        .map(|row| pair(ElementType::F32, &[row]))
        .collect()
}

fn proof(does: Does, golden: &[GoldenPair]) -> Rows {
    prove_rows(&Played::new(does), golden, 8, &|| true)
}

#[test]
fn a_model_that_answers_each_row_by_itself_is_proven_by_one_golden_pair() {
    for rows_max in [2, 3, 4, 64] {
        let golden = floats(&[&[1.0, 2.0]]);
        let proof = prove_rows(&Played::new(Does::Doubles), &golden, rows_max, &|| true);
        assert_eq!(proof, Rows::Apart(rows_max));
    }
}

#[test]
fn what_one_row_does_to_another_is_found() {
    for does in [Does::Centres, Does::Quantizes, Does::Shifts] {
        assert_eq!(
            proof(does, &floats(&[&[1.0, 2.0]])),
            Rows::Differ,
            "{does:?}"
        );
    }
    assert_eq!(
        proof(Does::Takes(1), &floats(&[&[1.0, 2.0]])),
        Rows::Differ,
        "nothing is joined that takes one row"
    );
}

#[test]
fn rows_whose_single_answers_are_the_same_prove_nothing() {
    // What remains of one number after its mean is taken off is zero, whatever the number is.
    let twins = floats(&[&[0.0], &[-0.0]]);
    assert_eq!(proof(Does::Centres, &twins), Rows::Unproven);
    assert_eq!(proof(Does::Centres, &floats(&[&[7.0]])), Rows::Unproven);
    // Nor do rows of which each has the same in one output.
    let golden = floats(&[&[1.0, 2.0]]);
    assert_eq!(proof(Does::Labels, &golden), Rows::Unproven);
    assert_eq!(proof(Does::Doubles, &[]), Rows::Unproven);
}

#[test]
fn an_output_with_a_row_for_each_thing_found_is_not_joined() {
    let golden = floats(&[&[1.0, 2.0]]);
    assert_eq!(proof(Does::Detects, &golden), Rows::Differ);
    let told = Played {
        has_rows: false,
        ..Played::new(Does::Doubles)
    };
    let proof = prove_rows(&told, &golden, 8, &|| true);
    assert_eq!(proof, Rows::Unproven, "its file names the axes apart");
    assert!(told.given.into_inner().unwrap().is_empty());
}

/// The same happens in a real engine; its file tells, so that nobody needs to look.
#[test]
fn one_scale_for_all_rows_is_refused_by_the_file_and_found_without_it() {
    struct Tried(Box<dyn Model>);
    impl Model for Tried {
        fn engine(&self) -> &'static str {
            self.0.engine()
        }
        fn inputs(&self) -> &[TensorSpec] {
            self.0.inputs()
        }
        fn outputs(&self) -> &[TensorSpec] {
            self.0.outputs()
        }
        fn run_timed(
            &self,
            inputs: &[Tensor],
            outputs: &[&str],
        ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
            self.0.run_timed(inputs, outputs)
        }
        fn has_rows(&self) -> bool {
            true
        }
    }
    let onnx = converted::QUANTIZED_ONNX.to_vec();
    let model = Rten::new(1).load(onnx, ModelFormat::Onnx).unwrap();
    assert!(!model.has_rows());
    let golden = floats(&[&[1.0, 2.0, 3.0, 0.5]]);
    assert_eq!(prove_rows(&*model, &golden, 8, &|| true), Rows::Unproven);
    let proof = prove_rows(&Tried(model), &golden, 8, &|| true);
    assert_eq!(proof, Rows::Differ);
}

#[test]
fn rows_that_give_no_numbers_tell_nothing_and_hide_nothing() {
    assert_eq!(
        proof(Does::Inverts, &floats(&[&[1.0, 2.0]])),
        Rows::Apart(8)
    );
    assert_eq!(
        proof(Does::Inverts, &floats(&[&[0.0, 0.0]])),
        Rows::Unproven
    );
    let of = |numbers: &[f32]| vec![Tensor::from_f32("y", &[1, 2], numbers).unwrap()];
    let nan = of(&[f32::NAN, 1.0]);
    assert_eq!(same_answers(&nan, &nan), None);
    assert_eq!(same_answers(&of(&[1.0, 1.0]), &nan), Some(false));
    assert_eq!(same_answers(&nan, &of(&[1.0, 1.0])), None);
    let with = |mut first: Vec<Tensor>, second: f32| {
        first.extend(of(&[second, 0.0]));
        first
    };
    assert_eq!(
        same_answers(&with(nan.clone(), 1.0), &with(nan, 2.0)),
        Some(false),
        "another output tells"
    );
}

#[test]
fn a_model_that_takes_fewer_rows_is_proven_for_those() {
    let golden = floats(&[&[1.0, 2.0]]);
    assert_eq!(proof(Does::Takes(8), &golden), Rows::Apart(8));
    assert_eq!(proof(Does::Takes(7), &golden), Rows::Apart(4));
    assert_eq!(proof(Does::Takes(2), &golden), Rows::Apart(2));
}

#[test]
fn integers_are_only_moved() {
    let played = Played::of(Does::Doubles, ElementType::I64);
    let golden = [pair(ElementType::I64, &[&[101.0, 7.0, 12.0, 102.0]])];
    assert_eq!(prove_rows(&played, &golden, 4, &|| true), Rows::Apart(4));
    let given = played.given.into_inner().unwrap();
    let owners = golden[0].inputs[0].to_i64().unwrap();
    let mut numbers = given.iter().flatten();
    assert!(numbers.all(|n| owners.contains(&(*n as i64))));
}

#[test]
fn each_row_of_a_golden_pair_is_one() {
    // Of one number there is nothing to move.
    let golden = [pair(ElementType::I64, &[&[1.0], &[5.0], &[9.0]])];
    let prove = |does, golden: &[GoldenPair]| {
        prove_rows(&Played::of(does, ElementType::I64), golden, 8, &|| true)
    };
    assert_eq!(prove(Does::Doubles, &golden), Rows::Apart(8));
    assert_eq!(prove(Does::Shifts, &golden), Rows::Differ);
    assert_eq!(prove(Does::Doubles, &golden[..0]), Rows::Unproven);
    let alone = [pair(ElementType::I64, &[&[1.0]])];
    assert_eq!(prove(Does::Doubles, &alone), Rows::Unproven);
}

#[test]
fn what_was_stopped_proves_nothing() {
    let golden = floats(&[&[1.0, 2.0]]);
    let played = Played::new(Does::Doubles);
    let proof = prove_rows(&played, &golden, 8, &|| {
        played.given.lock().unwrap().len() < 9
    });
    assert_eq!(proof, Rows::Unproven);
    assert!(played.given.into_inner().unwrap().len() < 12);
}

#[test]
fn rows_are_doubled_and_what_is_too_slow_is_not_tried_at_once() {
    let golden = floats(&[&[1.0, 2.0]]);
    let sizes = |rows_max, rows_end| {
        let played = Played::new(Does::Doubles);
        let is_in_time = || played.given.lock().unwrap().len() < rows_end;
        let proof = prove_rows(&played, &golden, rows_max, &is_in_time);
        let sizes = played.sizes.into_inner().unwrap();
        let several: Vec<usize> = sizes.into_iter().filter(|size| *size > 2).collect();
        (proof, several)
    };
    let all = |rows_max| sizes(rows_max, usize::MAX);
    assert_eq!(all(64), (Rows::Apart(64), vec![3, 4, 8, 16, 32, 64]));
    assert_eq!(all(9), (Rows::Apart(9), vec![3, 4, 8, 9]));
    assert_eq!(all(4), (Rows::Apart(4), vec![3, 4]));
    assert_eq!(all(3), (Rows::Apart(3), vec![3]));
    assert_eq!(all(2), (Rows::Apart(2), vec![]));
    // 6 rows alone, 4 pairs, 3, 4 and 8 are 29.
    assert_eq!(sizes(64, 25), (Rows::Apart(8), vec![3, 4, 8]));
}

#[test]
fn rows_of_strings_are_not_cut_by_bytes() {
    let words = TensorSpec::new("y", ElementType::String, vec![None, None]).unwrap();
    let played = Played {
        outputs: vec![words],
        ..Played::new(Does::Doubles)
    };
    let golden = floats(&[&[1.0, 2.0]]);
    assert_eq!(Shape::of(&played, &golden[0].inputs, &[]), None);
    assert_eq!(prove_rows(&played, &golden, 8, &|| true), Rows::Unproven);
    assert!(Shape::of(&Played::new(Does::Doubles), &golden[0].inputs, &[]).is_some());
}

#[test]
fn a_real_model_is_proven_by_what_its_owner_recorded() {
    let engine = Rten::new(1);
    for (bytes, format) in [
        (bield_fixtures::tiny_model(), ModelFormat::Onnx),
        (bield_fixtures::tiny_rten(), ModelFormat::Rten),
    ] {
        let model = engine.load(bytes, format).unwrap();
        let input = Tensor::from_f32("input", &[1, 4], &[1.0, 0.0, -1.0, 0.5]).unwrap();
        let golden = record_golden(&*model, vec![input], TOLERANCE_PPM).unwrap();
        let proof = prove_rows(&*model, &[golden], 16, &|| true);
        assert_eq!(proof, Rows::Apart(16), "{format}");
    }
}
