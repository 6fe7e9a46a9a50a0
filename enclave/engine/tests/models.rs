//! The engine on the fixture models.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::thread;

use bield_engine::{Engine, EngineError, Model, Rten, check_golden, record_golden};
use bield_fixtures::{IMAGE_SHAPE, input_image};
use bield_package::tensor::{ElementType, Tensor};
use bield_package::{ModelFormat, TOLERANCE_PPM};

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
fn a_padded_integer_convolution_does_not_load() {
    let engine = Rten::new(1);
    let padded = engine.load(bield_fixtures::integer_convolution(1), ModelFormat::Onnx);
    assert!(matches!(
        padded.err(),
        Some(EngineError::PaddedIntegerConvolution { .. })
    ));

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
    let mut attempts = vec![vec![], vec![0; 64], b"not a model at all".to_vec()];
    attempts.extend((1..tiny.len()).step_by(17).map(|n| tiny[..n].to_vec()));
    for bytes in attempts {
        assert!(engine.load(bytes, ModelFormat::Onnx).is_err());
    }
}

#[test]
fn an_altered_model_never_brings_the_engine_down() {
    let engine = Rten::new(1);
    let tiny = bield_fixtures::tiny_model();
    let input = [Tensor::from_f32("input", &[1, 4], &[0.5; 4]).unwrap()];
    for at in 0..tiny.len() {
        let mut bytes = tiny.clone();
        bytes[at] ^= 0x11;
        if let Ok(model) = engine.load(bytes, ModelFormat::Onnx) {
            let _ = model.run(&input, &[]);
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
