//! The engine onnxruntime, with the library that BIELD_ONNXRUNTIME names; `cargo xtask test` fetches it and sets the
//! variable. Without it these tests say that they did not run.

#![cfg(feature = "engine-ort")]
#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bield_engine::{
    Engine, EngineError, Engines, Model, OnnxRuntime, OpenError, Rows, Rten, load_checked,
    prove_rows, record_golden,
};
use bield_fixtures::{IMAGE_SHAPE, converted, input_image};
use bield_package::onnx::Signature;
use bield_package::tensor::{ElementType, Tensor};
use bield_package::{ModelFormat, TOLERANCE_PPM};
use support::{mixed_inputs, mixed_of, promised};

/// Runs of one model at a time.
const SESSIONS: usize = 2;

#[test]
fn both_engines_agree_on_a_model_in_every_format() {
    let Some(engine) = engine() else { return };
    let rten = Rten::new(1);
    let onnx = rten
        .load(converted::MIXED_ONNX.to_vec(), ModelFormat::Onnx)
        .unwrap();
    let golden = record_golden(&*onnx, mixed_inputs(), 100).unwrap();
    let signature = Signature::read(converted::MIXED_ONNX).unwrap();
    for (bytes, format) in [
        (converted::MIXED_ONNX, ModelFormat::Onnx),
        (converted::MIXED_ORT, ModelFormat::Ort),
    ] {
        let manifest = promised(format, signature.clone(), vec![golden.clone()]);
        let model = load_checked(engine, bytes.to_vec(), &manifest).unwrap();
        assert_eq!(model.inputs(), onnx.inputs());
        for (batch, length) in [(1, 1), (3, 5)] {
            let inputs = mixed_of(batch, &vec![1 << 40; length]);
            let outputs = model.run(&inputs, &["inverse", "doubled", "y"]).unwrap();
            assert_eq!(outputs[0].name(), "inverse");
            assert_eq!(outputs[1].to_i64(), Some(vec![1 << 41; length]), "64 bits");
            assert_eq!(outputs[2].shape(), [batch as u64, 3]);
        }
        assert!(!model.wipes());
    }
}

#[test]
fn golden_pairs_tell_which_models_keep_rows_apart_on_this_engine_too() {
    let Some(engine) = engine() else { return };
    let proof = |bytes: &[u8], format, input: &str| {
        let model = engine.load(bytes.to_vec(), format).unwrap();
        let input = Tensor::from_f32(input, &[1, 4], &[1.0, 0.0, -1.0, 0.5]).unwrap();
        let golden = record_golden(&*model, vec![input], TOLERANCE_PPM).unwrap();
        prove_rows(&*model, &[golden], 16, &|| true)
    };
    let tiny = bield_fixtures::tiny_model();
    assert_eq!(proof(&tiny, ModelFormat::Onnx, "input"), Rows::Apart(16));
    for (bytes, format) in [
        (converted::QUANTIZED_ONNX, ModelFormat::Onnx),
        (converted::QUANTIZED_ORT, ModelFormat::Ort),
    ] {
        assert_eq!(proof(bytes, format, "x"), Rows::Unproven);
    }
}

#[test]
fn mobilenet_gives_the_same_on_both_engines() {
    let Some(engine) = engine() else { return };
    let bytes = bield_fixtures::mobilenet_v1();
    let image = Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(1)).unwrap();
    let probs = |engine: &dyn Engine| {
        let model = engine.load(bytes.clone(), ModelFormat::Onnx).unwrap();
        let outputs = model.run(std::slice::from_ref(&image), &[]).unwrap();
        outputs[0].to_f32().unwrap()
    };
    let (ours, theirs) = (probs(&Rten::new(2)), probs(engine));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-4));
}

#[test]
fn every_number_type_goes_in_and_comes_out() {
    let Some(engine) = engine() else { return };
    let inputs: Vec<Tensor> = ElementType::ALL
        .into_iter()
        .filter_map(|element| {
            let size = element.size_bytes()?;
            let bytes: Vec<u8> = match element {
                ElementType::Bool => vec![0, 1, 1],
                // Positive in every type, and no number that floating point does not have.
                _ => (0..3 * size).map(|at| at as u8).collect(),
            };
            Some(Tensor::new(element.to_string(), element, vec![3], bytes).unwrap())
        })
        .collect();
    for (bytes, format) in [
        (converted::TYPES_ONNX, ModelFormat::Onnx),
        (converted::TYPES_ORT, ModelFormat::Ort),
    ] {
        let model = engine.load(bytes.to_vec(), format).unwrap();
        let outputs = model.run(&inputs, &[]).unwrap();
        for input in &inputs {
            let name = format!("{}_twice", input.name());
            let twice = outputs.iter().find(|output| output.name() == name).unwrap();
            assert_eq!(twice.element(), input.element());
            assert_eq!(twice.data(), input.data().repeat(2), "{name}");
        }
    }
}

#[test]
fn strings_go_in_and_come_out_and_rten_refuses_them_by_name() {
    let words = ["", "strang", "zwölf \u{1f32c}"];
    let input = Tensor::from_strings("words", &[3], &words).unwrap();
    let bytes = bield_fixtures::strings_model();
    let refused = Rten::new(1)
        .load(bytes.clone(), ModelFormat::Onnx)
        .and_then(|model| model.run(std::slice::from_ref(&input), &[]));
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("string") && refused.contains("rten"),
        "{refused}"
    );

    let Some(engine) = engine() else { return };
    let model = engine.load(bytes, ModelFormat::Onnx).unwrap();
    for input in [
        input,
        Tensor::from_strings("words", &[0], &[""; 0]).unwrap(),
    ] {
        let words = input.to_strings().unwrap();
        let outputs = model.run(std::slice::from_ref(&input), &[]).unwrap();
        assert_eq!(outputs[0].to_strings(), Some(words.repeat(2)));
    }
    let numbers = Tensor::from_i64("words", &[1], &[1]).unwrap();
    assert!(matches!(
        model.run(&[numbers], &[]),
        Err(EngineError::Input(_))
    ));
}

#[test]
fn sessions_are_opened_on_demand_up_to_the_limit_and_used_again() {
    let Some(engine) = engine() else { return };
    for (bytes, format, most) in [
        (converted::MIXED_ORT, ModelFormat::Ort, SESSIONS - 1),
        // Each session would copy the weights: there is one.
        (converted::MIXED_ONNX, ModelFormat::Onnx, 0),
    ] {
        let model = engine.load(bytes.to_vec(), format).unwrap();
        let expected = model.run(&mixed_inputs(), &[]).unwrap();
        let opened = AtomicUsize::new(0);
        let run = || {
            let (outputs, session) = model.run_timed(&mixed_inputs(), &[]).unwrap();
            assert_eq!(outputs, expected);
            opened.fetch_add(usize::from(session.is_some()), Ordering::Relaxed);
        };
        run();
        assert_eq!(opened.load(Ordering::Relaxed), 0, "the first one is open");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| run()));
            }
        });
        assert!(opened.load(Ordering::Relaxed) <= most);
    }
}

#[test]
fn a_failed_run_disturbs_no_other() {
    let Some(engine) = engine() else { return };
    let model = engine
        .load(converted::MIXED_ORT.to_vec(), ModelFormat::Ort)
        .unwrap();
    let expected = model.run(&mixed_inputs(), &[]).unwrap();
    for _ in 0..2 * SESSIONS {
        let mut inputs = mixed_inputs();
        inputs.pop();
        assert!(matches!(
            model.run(&inputs, &[]),
            Err(EngineError::MissingInput { .. })
        ));
        let unknown = model.run(&mixed_inputs(), &["z"]);
        assert!(matches!(unknown, Err(EngineError::UnknownOutput { .. })));
        assert_eq!(model.run(&mixed_inputs(), &[]).unwrap(), expected);
    }
}

#[test]
fn a_padded_integer_convolution_goes_to_the_engine_that_is_right() {
    let Some(_) = engine() else { return };
    let engines = Engines::new(vec![Box::new(Rten::new(1)), Box::new(Shared)]);
    let bytes = bield_fixtures::integer_convolution(1);
    let model = engines.load(bytes, ModelFormat::Onnx).unwrap();
    let image = Tensor::new("image", ElementType::U8, vec![1, 1, 6, 6], vec![9; 36]).unwrap();
    let sums = model
        .run(&[image], &[])
        .unwrap()
        .remove(0)
        .to_i32()
        .unwrap();
    // Kernel 1..=9 over pixels of 9 − 7: all of it inside, its lower right part in the first corner.
    assert_eq!((sums[7], sums[0]), (2 * 45, 2 * (5 + 6 + 8 + 9)));
}

#[test]
fn what_it_cannot_run_is_refused() {
    let Some(engine) = engine() else { return };
    let rten = engine.load(converted::MIXED_RTEN.to_vec(), ModelFormat::Rten);
    assert!(matches!(rten.err(), Some(EngineError::Format { .. })));
    let disguised = engine.load(converted::MIXED_ORT.to_vec(), ModelFormat::Onnx);
    assert!(matches!(disguised.err(), Some(EngineError::Format { .. })));
    for bytes in [vec![], vec![0; 64], b"not a model at all".to_vec()] {
        for format in [ModelFormat::Onnx, ModelFormat::Ort] {
            assert!(engine.load(bytes.clone(), format).is_err());
        }
    }
    let mut wrong = Signature::read(converted::MIXED_ONNX).unwrap();
    wrong.outputs.swap_remove(0);
    let manifest = promised(ModelFormat::Ort, wrong, vec![]);
    let refused = load_checked(engine, converted::MIXED_ORT.to_vec(), &manifest);
    assert!(matches!(refused.err(), Some(EngineError::Specs { .. })));
}

#[test]
fn golden_pairs_of_another_model_are_refused() {
    let Some(engine) = engine() else { return };
    let model = engine
        .load(converted::MIXED_ORT.to_vec(), ModelFormat::Ort)
        .unwrap();
    let mut golden = record_golden(&*model, mixed_inputs(), TOLERANCE_PPM).unwrap();
    golden.outputs[0] = Tensor::from_f32("y", &[2, 3], &[9.0; 6]).unwrap();
    let signature = Signature::read(converted::MIXED_ONNX).unwrap();
    let manifest = promised(ModelFormat::Ort, signature, vec![golden]);
    let refused = load_checked(engine, converted::MIXED_ORT.to_vec(), &manifest);
    assert!(matches!(refused.err(), Some(EngineError::Golden { .. })));
}

#[test]
fn a_process_opens_one_library_once_and_says_which() {
    let Some(engine) = engine() else { return };
    assert!(
        engine.name().starts_with("onnxruntime "),
        "{}",
        engine.name()
    );
    let again = OnnxRuntime::open(&library().unwrap(), 1, 1);
    assert!(matches!(again.err(), Some(OpenError::Start(_))));
}

/// The engine of this process, for [`Engines`].
struct Shared;

impl Engine for Shared {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        engine().unwrap().load(bytes, format)
    }
}

fn library() -> Option<PathBuf> {
    std::env::var_os("BIELD_ONNXRUNTIME").map(PathBuf::from)
}

fn engine() -> Option<&'static OnnxRuntime> {
    static ENGINE: OnceLock<Option<OnnxRuntime>> = OnceLock::new();
    let open = || {
        let Some(path) = library() else {
            eprintln!(
                "NOT RUN: BIELD_ONNXRUNTIME names no library; see cargo xtask fetch-onnxruntime"
            );
            return None;
        };
        Some(OnnxRuntime::open(&path, 1, SESSIONS).unwrap())
    };
    ENGINE.get_or_init(open).as_ref()
}
