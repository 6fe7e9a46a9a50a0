//! The engine on the fixture models.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

mod support;

use std::thread;

use bield_engine::{
    Engine, EngineError, Engines, Model, Rten, Shape, agree, check_golden, load_checked,
    load_checked_while, record_golden, run_together,
};
use bield_fixtures::{IMAGE_SHAPE, Network, converted, input_image};
use bield_package::onnx::Signature;
use bield_package::tensor::{ElementType, Tensor, TensorSpec};
use bield_package::{ModelFormat, TOLERANCE_PPM};
use support::{mixed_inputs, mixed_of, promised};

#[test]
fn a_tiny_model_gives_probabilities() {
    let model = load(bield_fixtures::tiny_model());
    assert_eq!(model.inputs()[0].to_string(), "input: f32[?, 4]");
    let input = Tensor::from_f32("input", &[2, 4], &[0.5; 8]).unwrap();
    let outputs = model.run(&[input], &[]).unwrap();
    let probs = outputs[0].to_f32().unwrap();
    assert_eq!(outputs[0].shape(), [2, 3]);
    assert!((probs[..3].iter().sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(probs[..3], probs[3..]);
}

#[test]
fn inputs_and_outputs_are_checked_by_name_type_and_shape() {
    let model = load(bield_fixtures::tiny_model());
    let good = || Tensor::from_f32("input", &[1, 4], &[0.0; 4]).unwrap();
    assert!(model.run(&[good()], &["probs"]).is_ok());
    let refuse = |inputs: &[Tensor], outputs: &[&str]| model.run(inputs, outputs).unwrap_err();
    assert!(matches!(refuse(&[], &[]), EngineError::MissingInput { .. }));
    let twice = [good(), good()];
    assert!(matches!(
        refuse(&twice, &[]),
        EngineError::UnknownInput { .. }
    ));
    let other = [good().renamed("other").unwrap()];
    assert!(matches!(
        refuse(&other, &[]),
        EngineError::UnknownInput { .. }
    ));
    let wide = [Tensor::from_f32("input", &[1, 5], &[0.0; 5]).unwrap()];
    assert!(matches!(refuse(&wide, &[]), EngineError::Input(_)));
    let whole = [Tensor::from_i32("input", &[1, 4], &[0; 4]).unwrap()];
    assert!(matches!(refuse(&whole, &[]), EngineError::Input(_)));
    for outputs in [&["logits"][..], &["probs", "probs"]] {
        let refused = refuse(&[good()], outputs);
        assert!(matches!(refused, EngineError::UnknownOutput { .. }));
    }
    assert!(
        model.run(&[good()], &["probs"]).is_ok(),
        "the next one works"
    );
}

#[test]
fn wide_integers_and_booleans_pass_and_numbers_outside_are_refused() {
    let model = load(bield_fixtures::integer_model());
    let mask = Tensor::new("mask", ElementType::Bool, vec![2], vec![0, 1]).unwrap();
    let numbers = |v: &[i64]| Tensor::from_i64("numbers", &[2], v).unwrap();
    let outputs = model
        .run(
            &[mask.clone(), numbers(&[-3, 1 << 20])],
            &["inverse", "doubled"],
        )
        .unwrap();
    assert_eq!(outputs[0].data(), [1, 0]);
    assert_eq!(outputs[1].to_i64().unwrap(), [-6, 1 << 21]);
    assert_eq!(
        model.run(&[mask, numbers(&[0, 1 << 31])], &[]),
        Err(EngineError::Range {
            name: "numbers".into(),
            engine: "rten 0.27"
        })
    );
}

#[test]
fn a_converted_file_computes_what_its_onnx_does() {
    let onnx = load(converted::MIXED_ONNX.to_vec());
    let golden = record_golden(&*onnx, mixed_inputs(), TOLERANCE_PPM).unwrap();
    assert_eq!(golden.outputs[1].to_i64(), Some(vec![-6, 1 << 21, 0]));
    assert_eq!(golden.outputs[2].data(), [1, 0, 1]);

    let manifest = promised(
        ModelFormat::Rten,
        Signature::read(converted::MIXED_ONNX).unwrap(),
        vec![golden],
    );
    let rten = load_checked(&Rten::new(1), converted::MIXED_RTEN.to_vec(), &manifest).unwrap();
    assert_eq!(rten.inputs(), onnx.inputs());
    assert_eq!(rten.outputs(), onnx.outputs());
    let only = rten.run(&mixed_inputs(), &["inverse"]).unwrap();
    assert_eq!((only.len(), only[0].data()), (1, &[1, 0, 1][..]));
    let whole = Tensor::from_i32("numbers", &[3], &[0; 3]).unwrap();
    let mut inputs = mixed_inputs();
    inputs[1] = whole;
    assert!(matches!(rten.run(&inputs, &[]), Err(EngineError::Input(_))));
}

#[test]
fn a_load_that_is_not_wanted_any_more_ends_between_golden_pairs() {
    let onnx = load(converted::MIXED_ONNX.to_vec());
    let good = record_golden(&*onnx, mixed_inputs(), TOLERANCE_PPM).unwrap();
    let mut wrong = good.clone();
    wrong.inputs = mixed_of(2, &[1, 2, 3]);
    let signature = Signature::read(converted::MIXED_ONNX).unwrap();
    let manifest = promised(ModelFormat::Onnx, signature, vec![good, wrong]);
    let load_for = |answers: usize| {
        let asked = std::cell::Cell::new(0);
        let goes_on = || asked.replace(asked.get() + 1) < answers;
        let (engine, bytes) = (Rten::new(1), converted::MIXED_ONNX.to_vec());
        let loaded = load_checked_while(&engine, bytes, &manifest, &goes_on);
        loaded.map(|model| model.is_some())
    };
    // The second pair is not even run.
    assert_eq!(load_for(1), Ok(false));
    assert!(matches!(
        load_for(2),
        Err(EngineError::Golden { pair: 1, .. })
    ));
    let manifest = promised(
        ModelFormat::Onnx,
        Signature::read(converted::MIXED_ONNX).unwrap(),
        vec![],
    );
    let bytes = converted::MIXED_ONNX.to_vec();
    let loaded = load_checked_while(&Rten::new(1), bytes, &manifest, &|| false);
    assert!(loaded.unwrap().is_none());
}

#[test]
fn free_dimensions_take_any_length_on_every_run() {
    let model = load(converted::MIXED_ONNX.to_vec());
    for (batch, length) in [(1, 1), (3, 5), (2, 0)] {
        let outputs = model.run(&mixed_of(batch, &vec![7; length]), &["y", "doubled"]);
        let outputs = outputs.unwrap();
        assert_eq!(outputs[0].shape(), [batch as u64, 3]);
        assert_eq!(outputs[1].to_i64(), Some(vec![14; length]));
    }
}

#[test]
fn a_manifest_that_promises_what_a_rten_file_cannot_hold_is_refused() {
    let mut signature = Signature::read(converted::MIXED_ONNX).unwrap();
    let load = |signature: &Signature| {
        let manifest = promised(ModelFormat::Rten, signature.clone(), vec![]);
        load_checked(&Rten::new(1), converted::MIXED_RTEN.to_vec(), &manifest)
    };
    assert!(load(&signature).is_ok());
    for element in [ElementType::F32, ElementType::F16, ElementType::I16] {
        signature.inputs[1] = TensorSpec::new("numbers", element, vec![None]).unwrap();
        assert!(matches!(
            load(&signature).err(),
            Some(EngineError::Specs { .. })
        ));
    }
}

#[test]
fn types_that_rten_does_not_compute_with_are_refused_at_load() {
    let refused = Rten::new(1).load(converted::TYPES_ONNX.to_vec(), ModelFormat::Onnx);
    let refused = refused.err().unwrap();
    assert!(matches!(
        &refused,
        EngineError::Element {
            element: ElementType::F16,
            ..
        }
    ));
    assert_eq!(
        refused.to_string(),
        "f16 is f16, which rten 0.27 does not compute with; it takes f32, i32, i64, i8, u8 and bool"
    );
}

#[test]
fn what_rten_would_take_for_another_format_does_not_reach_it() {
    let engine = Rten::new(1);
    for (bytes, format) in [
        (bield_fixtures::tiny_rten(), ModelFormat::Onnx),
        (bield_fixtures::tiny_model(), ModelFormat::Rten),
        (converted::MIXED_ORT.to_vec(), ModelFormat::Ort),
        (converted::MIXED_ORT.to_vec(), ModelFormat::Rten),
    ] {
        assert!(engine.examine(&bytes, format).is_err());
        assert!(engine.load(bytes, format).is_err(), "{format}");
    }
}

#[test]
fn the_first_engine_that_has_nothing_against_a_model_runs_it() {
    let engines = Engines::new(vec![Box::new(Rten::new(1)), Box::new(Anything)]);
    assert_eq!(engines.name(), "rten 0.27, anything");
    let tiny = engines.load(bield_fixtures::tiny_model(), ModelFormat::Onnx);
    assert!(tiny.is_ok());
    // Not rten, which would compute its borders wrongly.
    let padded = engines.load(bield_fixtures::integer_convolution(1), ModelFormat::Onnx);
    assert_eq!(padded.err(), Some(anything()));
    let ort = engines.load(converted::MIXED_ORT.to_vec(), ModelFormat::Ort);
    assert_eq!(ort.err(), Some(anything()));
    // A .rten file runs on rten only.
    let padded = engines.load(converted::PADDED_RTEN.to_vec(), ModelFormat::Rten);
    assert!(matches!(
        padded.err(),
        Some(EngineError::PaddedIntegerConvolution { .. })
    ));
    let alone = Engines::new(vec![Box::new(Rten::new(1))]);
    let refused = alone.load(converted::MIXED_ORT.to_vec(), ModelFormat::Ort);
    assert_eq!(
        refused.err().unwrap().to_string(),
        ".ort files do not run on rten 0.27; pack the ONNX, or choose a runtime with the engine for them"
    );
}

/// Takes all but `.rten` files, and says so.
struct Anything;

fn anything() -> EngineError {
    EngineError::Load {
        engine: "anything",
        reason: "it came here".into(),
    }
}

impl Engine for Anything {
    fn name(&self) -> &'static str {
        "anything"
    }

    fn takes(&self, format: ModelFormat) -> bool {
        format != ModelFormat::Rten
    }

    fn load(&self, _: Vec<u8>, _: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        Err(anything())
    }
}

#[test]
fn the_last_engine_answers_first_only_where_another_is_chosen_and_engines_are_tiered() {
    let engines = || Engines::new(vec![Box::new(Anything), Box::new(Rten::new(1))]);
    let onnx = bield_fixtures::tiny_model();
    let first = |engines: &Engines, bytes: &[u8], format| {
        engines.first(bytes, format).map(|engine| engine.name())
    };
    assert_eq!(first(&engines(), &onnx, ModelFormat::Onnx), None);
    let tiered = engines().tiered();
    assert_eq!(first(&tiered, &onnx, ModelFormat::Onnx), Some("rten 0.27"));
    // It is the only one for such files.
    let rten = bield_fixtures::tiny_rten();
    assert_eq!(first(&tiered, &rten, ModelFormat::Rten), None);
    assert_eq!(first(&tiered, &rten, ModelFormat::Ort), None);
    // What it would compute wrongly it does not even begin.
    let padded = bield_fixtures::integer_convolution(1);
    assert_eq!(first(&tiered, &padded, ModelFormat::Onnx), None);
    let other_order = Engines::new(vec![Box::new(Rten::new(1)), Box::new(Anything)]).tiered();
    assert_eq!(
        first(&other_order, &onnx, ModelFormat::Onnx),
        Some("anything")
    );
}

#[test]
fn requests_run_together_and_each_row_is_what_it_gives_alone() {
    let model = load(bield_fixtures::integer_model());
    let requests: Vec<Vec<Tensor>> = (0..5_i64)
        .map(|n| {
            let mut inputs = mixed_of(1, &[n - 2])[1..].to_vec();
            // The order is the model's, not the caller's.
            inputs.rotate_left(n as usize % 2);
            inputs
        })
        .collect();
    for outputs in [&[][..], &["inverse", "doubled"], &["inverse"]] {
        let shape = Shape::of(&*model, &requests[0], outputs).unwrap();
        for request in &requests {
            assert_eq!(Shape::of(&*model, request, outputs).as_ref(), Some(&shape));
        }
        let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        let (together, _) = run_together(&*model, &shape, &borrowed).unwrap();
        for (request, together) in requests.iter().zip(together.unwrap()) {
            let alone = model.run(request, outputs).unwrap();
            assert_eq!(alone.len(), together.len());
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.name(), together.name());
                assert!(agree(alone, together, 10), "{}", alone.name());
            }
        }
    }
}

#[test]
fn what_has_no_rows_to_join_or_does_not_fit_has_no_shape() {
    let model = load(bield_fixtures::integer_model());
    let of = |inputs: &[Tensor]| Shape::of(&*model, inputs, &[]);
    let one = &mixed_of(1, &[7])[1..];
    assert_eq!(of(one).unwrap().row_bytes(), 9);
    assert_eq!(of(&mixed_of(2, &[7, 8])[1..]), None, "two rows");
    assert_eq!(of(&one[1..]), None, "an input is missing");
    let twice = [one[0].clone(), one[0].clone()];
    assert_eq!(of(&twice), None, "one is there twice");
    let tiny = load(bield_fixtures::tiny_model());
    let of_length = |length: u64| {
        let zeros = vec![0.0; length as usize];
        Tensor::from_f32("input", &[1, length], &zeros).unwrap()
    };
    assert!(Shape::of(&*tiny, &[of_length(4)], &[]).is_some());
    let wide = Shape::of(&*tiny, &[of_length(5)], &[]);
    assert_eq!(wide, None, "another length than the model takes");
    let mixed = load(converted::MIXED_ONNX.to_vec());
    let axes = Shape::of(&*mixed, &mixed_of(1, &[7]), &["y"]);
    assert_eq!(axes, None, "first axes of other names");
    let fixed = load(bield_fixtures::lifting_model());
    let image = Tensor::from_f32("image", &[1, 4, 32, 32], &[0.0; 4096]).unwrap();
    assert_eq!(
        Shape::of(&*fixed, &[image], &[]),
        None,
        "a fixed first axis"
    );
}

#[test]
fn a_padded_integer_convolution_does_not_load() {
    let engine = Rten::new(1);
    let padded = engine.load(bield_fixtures::integer_convolution(1), ModelFormat::Onnx);
    assert!(matches!(
        padded.err(),
        Some(EngineError::PaddedIntegerConvolution { .. })
    ));

    for bytes in [
        bield_fixtures::integer_convolution_rten(1),
        converted::PADDED_RTEN.to_vec(),
        converted::BRANCHES_RTEN.to_vec(),
    ] {
        let padded = engine.load(bytes, ModelFormat::Rten);
        assert!(matches!(
            padded.err(),
            Some(EngineError::PaddedIntegerConvolution { .. })
        ));
    }

    // Without padding it is right: sum of weight × (pixel − 7), both in reach of a hand count.
    let model = load(bield_fixtures::integer_convolution(0));
    let image = Tensor::new("image", ElementType::U8, vec![1, 1, 6, 6], vec![9; 36]).unwrap();
    let sums = model.run(&[image], &[]).unwrap().remove(0);
    assert_eq!(sums.to_i32().unwrap(), vec![2 * 45; 16]);
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let engine = Rten::new(1);
    let tiny = bield_fixtures::tiny_model();
    let rten = bield_fixtures::tiny_rten();
    for n in (0..rten.len() - 1).step_by(17) {
        assert!(engine.load(rten[..n].to_vec(), ModelFormat::Rten).is_err());
    }
    let mut attempts = vec![vec![], vec![0; 64], b"not a model at all".to_vec()];
    attempts.extend((1..tiny.len()).step_by(17).map(|n| tiny[..n].to_vec()));
    for bytes in attempts {
        assert!(engine.load(bytes, ModelFormat::Onnx).is_err());
    }
}

#[test]
fn an_altered_model_never_brings_the_engine_down() {
    let engine = Rten::new(1);
    let input = [Tensor::from_f32("input", &[1, 4], &[0.5; 4]).unwrap()];
    for (model, format) in [
        (bield_fixtures::tiny_model(), ModelFormat::Onnx),
        (bield_fixtures::tiny_rten(), ModelFormat::Rten),
    ] {
        for at in 0..model.len() {
            let mut bytes = model.clone();
            bytes[at] ^= 0x11;
            if let Ok(model) = engine.load(bytes, format) {
                let _ = model.run(&input, &[]);
            }
        }
    }
}

#[test]
fn mobilenet_agrees_with_itself_on_any_number_of_threads() {
    let bytes = bield_fixtures::mobilenet_v1();
    let image = |seed| Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(seed)).unwrap();
    let one = Rten::new(1).load(bytes.clone(), ModelFormat::Onnx).unwrap();
    let golden = record_golden(&*one, vec![image(1)], TOLERANCE_PPM).unwrap();
    assert_eq!(golden.outputs[0].shape(), [1, 1000]);

    let two = Rten::new(2).load(bytes, ModelFormat::Onnx).unwrap();
    check_golden(&*two, std::slice::from_ref(&golden)).unwrap();

    let rten = bield_fixtures::rten(Network::MobilenetV1);
    let rten = Rten::new(2).load(rten, ModelFormat::Rten).unwrap();
    check_golden(&*rten, std::slice::from_ref(&golden)).unwrap();

    let mut other = golden.clone();
    other.inputs = vec![image(2)];
    assert_eq!(
        check_golden(&*two, &[golden, other]),
        Err(EngineError::Golden {
            pair: 1,
            output: "probs".into()
        })
    );
}

#[test]
fn one_model_serves_several_threads() {
    let model = load(bield_fixtures::tiny_model());
    let input = Tensor::from_f32("input", &[1, 4], &[0.25; 4]).unwrap();
    let expected = model.run(std::slice::from_ref(&input), &[]).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let outputs = model.run(std::slice::from_ref(&input), &[]).unwrap();
                    assert_eq!(outputs, expected);
                }
            });
        }
    });
}

fn load(bytes: Vec<u8>) -> Box<dyn Model> {
    Rten::new(1).load(bytes, ModelFormat::Onnx).unwrap()
}
