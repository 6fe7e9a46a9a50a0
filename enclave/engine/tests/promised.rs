//! Inputs against the manifest, which may say more than the model's file.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

mod support;

use bield_engine::{
    EngineError, Model, Rten, load_checked, load_checked_apart, load_checked_while,
};
use bield_fixtures::converted;
use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::tensor::{Tensor, TensorMismatch, TensorSpec};
use support::{mixed_inputs, mixed_of, promised};

/// The model of mixed types in each format that rten takes, with inputs fixed by the manifest.
fn mixed(fixed: &[(&str, u64)]) -> Vec<Box<dyn Model>> {
    let mut signature = Signature::read(converted::MIXED_ONNX).unwrap();
    for spec in &mut signature.inputs {
        if let Some((_, length)) = fixed.iter().find(|(name, _)| *name == spec.name()) {
            let mut shape = spec.shape().to_vec();
            shape[0] = Some(*length);
            *spec = TensorSpec::new(spec.name(), spec.element(), shape).unwrap();
        }
    }
    let rten = Rten::new(1);
    let files = [
        (ModelFormat::Onnx, converted::MIXED_ONNX),
        (ModelFormat::Rten, converted::MIXED_RTEN),
    ];
    let models = files.into_iter().flat_map(|(format, bytes)| {
        let manifest = promised(format, signature.clone(), vec![]);
        [
            load_checked(&rten, bytes.to_vec(), &manifest).unwrap(),
            load_checked_apart(&rten, bytes.to_vec(), &manifest).unwrap(),
            load_checked_while(&rten, bytes.to_vec(), &manifest, &|| true)
                .unwrap()
                .unwrap(),
        ]
    });
    models.collect()
}

fn runs(model: &dyn Model, inputs: &[Tensor]) -> [Result<(), EngineError>; 3] {
    [
        model.run(inputs, &[]).map(drop),
        model.run_apart(inputs, &[]).map(drop),
        model
            .run_in_parts(inputs, &[], &mut |_| std::ops::ControlFlow::Continue(()))
            .map(drop),
    ]
}

#[test]
fn a_length_that_the_manifest_fixes_binds_requests_although_the_file_leaves_it_free() {
    for model in mixed(&[("x", 2)]) {
        assert_eq!(model.inputs()[0].shape()[0], Some(2));
        for run in runs(&*model, &mixed_inputs()) {
            run.unwrap();
        }
        for run in runs(&*model, &mixed_of(3, &[1])) {
            let need = EngineError::Input(TensorMismatch::Dimension {
                name: "x".to_owned(),
                axis: 0,
                have: 3,
                need: 2,
            });
            assert_eq!(run, Err(need));
        }
    }
}

#[test]
fn an_input_without_elements_is_refused_unless_the_manifest_fixes_a_length_of_none() {
    for model in mixed(&[]) {
        for (inputs, name) in [(mixed_of(0, &[1]), "x"), (mixed_of(2, &[]), "numbers")] {
            for run in runs(&*model, &inputs) {
                let name = name.to_owned();
                assert_eq!(run, Err(EngineError::EmptyInput { name }));
            }
        }
    }
    for model in mixed(&[("numbers", 0), ("mask", 0)]) {
        for run in runs(&*model, &mixed_of(2, &[])) {
            run.unwrap();
        }
    }
}
