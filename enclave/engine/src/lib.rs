//! Inference engines behind one trait: bytes of a model in, tensors in, tensors out.
//!
//! ```text
//! model bytes ──Engine::load──▶ Box<dyn Model> ──run(&[Tensor], names)──▶ Vec<Tensor>
//!                                    │
//!            Manifest ──load_checked─┴─ specs agree? golden pairs agree? ──▶ may serve
//! ```
//!
//! Always true: a [`Model`] is shared by reference among threads, its weights exist once; inputs
//! are checked against the model's own specs before an engine sees them; a panic inside an engine
//! becomes an error; errors name nodes and tensors, never values.
//!
//! Not here: opening packages, caching and evicting models, deadlines (`enclave/runtime`). An
//! engine does not bound the time a model takes.
//!
//! On paper, engine rten, per run: each input is copied once into the engine's own aligned vector
//! (600 KB image: 0.1 ms) and each output once out of it; weights are not touched by us. While
//! loading ONNX the engine copies every weight once out of the file, and the file's bytes are
//! freed when it is done: peak 2.0 × model, afterwards 1.0 ×.

mod convert;
mod error;
mod golden;
mod rten;

use bield_package::tensor::{Tensor, TensorSpec};
use bield_package::{Manifest, ModelFormat};

pub use crate::rten::Rten;
pub use error::EngineError;
pub use golden::{check_golden, record_golden};

/// Something that can load models.
pub trait Engine: Send + Sync {
    /// Its name and version, for receipts, metrics and errors.
    fn name(&self) -> &'static str;

    /// Loads a model.
    ///
    /// # Errors
    ///
    /// The bytes are no such model, or this engine cannot run it or would run it wrongly.
    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError>;
}

/// A loaded model, ready to run.
pub trait Model: Send + Sync {
    /// What it takes, in the order of the model.
    fn inputs(&self) -> &[TensorSpec];

    /// What it gives, in the order of the model.
    fn outputs(&self) -> &[TensorSpec];

    /// Computes the named outputs in that order, or all of them when `outputs` is empty.
    ///
    /// # Errors
    ///
    /// An input is missing, unknown or does not fit, an output is unknown, a number is outside
    /// what the engine computes with, or the engine fails.
    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError>;
}

/// Loads a model and proves on it what its manifest says: specs, then golden pairs.
///
/// # Errors
///
/// As [`Engine::load`] and [`check_golden`], and [`EngineError::Specs`].
///
/// ```
/// use bield_engine::{Engine, Rten};
/// use bield_package::{ModelFormat, tensor::Tensor};
///
/// let model = Rten::new(1).load(bield_fixtures::tiny_model(), ModelFormat::Onnx)?;
/// let input = Tensor::from_f32("input", &[1, 4], &[1.0, 0.0, -1.0, 0.5])?;
/// let probs = model.run(&[input], &["probs"])?;
/// assert_eq!(probs[0].shape(), [1, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load_checked(
    engine: &dyn Engine,
    bytes: Vec<u8>,
    manifest: &Manifest,
) -> Result<Box<dyn Model>, EngineError> {
    let model = engine.load(bytes, manifest.format)?;
    check_specs(&manifest.inputs, model.inputs())?;
    check_specs(&manifest.outputs, model.outputs())?;
    check_golden(&*model, &manifest.golden)?;
    Ok(model)
}

/// Checks that the owner promised nothing that the model does not take or give. A manifest may fix
/// a dimension that the model leaves free.
fn check_specs(promised: &[TensorSpec], actual: &[TensorSpec]) -> Result<(), EngineError> {
    let agrees = |promised: &TensorSpec| {
        actual.iter().any(|actual| {
            let same_shape = promised.shape().len() == actual.shape().len()
                && promised
                    .shape()
                    .iter()
                    .zip(actual.shape())
                    .all(|(promised, actual)| actual.is_none() || promised == actual);
            promised.name() == actual.name() && promised.element() == actual.element() && same_shape
        })
    };
    match promised.iter().find(|promised| !agrees(promised)) {
        Some(spec) => Err(EngineError::Specs {
            promised: spec.to_string(),
        }),
        None if promised.len() != actual.len() => Err(EngineError::Specs {
            promised: format!("{} tensors", promised.len()),
        }),
        None => Ok(()),
    }
}
