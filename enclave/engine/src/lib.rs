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
//! On paper, per run: each input is copied once into the engine's own aligned vector (600 KB image: 0.1 ms) and
//! each output once out of it; weights are not touched by us. What loading takes says [`Engine::footprint`].
//!
//! Features: `engine-ort` adds `OnnxRuntime`, whose library is C++ and given at run time.

mod apart;
mod convert;
mod ends;
mod engines;
mod error;
mod golden;
mod narrow;
#[cfg(feature = "engine-ort")]
mod onnxruntime;
mod pools;
mod promised;
mod rows;
mod rten;

use std::ops::ControlFlow;
use std::time::Duration;

use bield_package::prepared::in_rten;
use bield_package::tensor::{Tensor, TensorSpec};
use bield_package::{Manifest, ModelFormat};

#[cfg(feature = "engine-ort")]
pub use crate::onnxruntime::{OnnxRuntime, OpenError};
pub use crate::rten::Rten;
pub use engines::Engines;
pub use error::EngineError;
pub use golden::{agree, check_golden, record_golden};
pub use rows::{ROW_BYTES_MAX, Rows, Shape, prove_rows, run_together, same_answers};

/// What the environment of a program must say before an engine's library is opened: it asks for this where nobody can give
/// an argument. onnxruntime, as its maker publishes it (1.31.1), keeps a file of what it loaded and turns to its maker's
/// collector ten seconds after start, unless this is set; `DisableTelemetryEvents` does not end that (decision 0013).
pub const ENVIRONMENT: [(&str, &str); 1] = [("ORT_DISABLE_TELEMETRY", "1")];

/// Something that can load models.
pub trait Engine: Send + Sync {
    /// Its name and version, for receipts, metrics and errors.
    fn name(&self) -> &'static str;

    /// Whether it runs such files at all.
    fn takes(&self, format: ModelFormat) -> bool {
        format == ModelFormat::Onnx
    }

    /// Says, without loading, why it would not run a model, as far as that can be told: so that another engine
    /// may.
    ///
    /// # Errors
    ///
    /// As [`Engine::load`].
    fn examine(&self, bytes: &[u8], format: ModelFormat) -> Result<(), EngineError> {
        let _ = (bytes, format);
        Ok(())
    }

    /// Loads a model.
    ///
    /// # Errors
    ///
    /// The bytes are no such model, or this engine cannot run it or would run it wrongly.
    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError>;

    /// Like [`Engine::load`], computing nothing on threads of the engine, so that none of them keeps any of the model's
    /// weights. The model may run slower.
    ///
    /// # Errors
    ///
    /// As [`Engine::load`].
    fn load_apart(
        &self,
        bytes: Vec<u8>,
        format: ModelFormat,
    ) -> Result<Box<dyn Model>, EngineError> {
        self.load(bytes, format)
    }

    /// What a model of `bytes` takes, those bytes included.
    fn footprint(&self, format: ModelFormat, bytes: u64) -> Footprint {
        let _ = format;
        Footprint {
            loading: bytes.saturating_mul(2),
            resident: bytes,
        }
    }

    /// What this very model takes while it is loaded, those bytes included, as far as they tell.
    fn footprint_of(&self, bytes: &[u8], format: ModelFormat) -> Footprint {
        self.footprint(format, bytes.len() as u64)
    }

    /// Another engine that opens this very model sooner than the one that runs it in the end, to answer meanwhile.
    fn first(&self, bytes: &[u8], format: ModelFormat) -> Option<&dyn Engine> {
        let _ = (bytes, format);
        None
    }
}

/// Memory of a model, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// While it is being loaded.
    pub loading: u64,
    /// Afterwards, as long as it is loaded.
    pub resident: u64,
}

/// A loaded model, ready to run.
pub trait Model: Send + Sync {
    /// The engine that runs it: its [`Engine::name`].
    fn engine(&self) -> &'static str;

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
    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        Ok(self.run_timed(inputs, outputs)?.0)
    }

    /// Like [`Model::run`]; also says how long opening one more session of the engine took, when none was free.
    ///
    /// # Errors
    ///
    /// As [`Model::run`].
    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError>;

    /// Like [`Model::run_timed`], on threads that end with it, so that none of the engine's keeps anything of it. The
    /// time is what those threads took to start. Where it [`wipes`](Self::wipes), nothing of the run is left then.
    ///
    /// # Errors
    ///
    /// As [`Model::run`].
    fn run_apart(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.run_timed(inputs, outputs)
    }

    /// Like [`Model::run_timed`], handing over each output, in the order asked for, as soon as it is there, until `each`
    /// breaks off. Engines that compute all outputs together, as those here do, hand them over at the end.
    ///
    /// # Errors
    ///
    /// As [`Model::run`]; outputs that were handed over before are then not an answer.
    fn run_in_parts(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
        each: &mut dyn FnMut(Tensor) -> ControlFlow<()>,
    ) -> Result<Option<Duration>, EngineError> {
        let (computed, opened) = self.run_timed(inputs, outputs)?;
        let _ = computed.into_iter().try_for_each(each);
        Ok(opened)
    }

    /// Whether [`Model::run_in_parts`] computes on after it handed an output over. If not, all is computed before the first
    /// one leaves.
    fn computes_in_parts(&self) -> bool {
        false
    }

    /// Whether its file names the first axis of every input and output alike, so that it may be what counts requests.
    fn has_rows(&self) -> bool {
        false
    }

    /// Most runs at once; one more waits for another to end.
    fn runs_max(&self) -> usize {
        usize::MAX
    }

    /// Bytes that it takes, with what was computed while it was loaded; `None` when the engine does not tell.
    fn resident_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether no run can succeed any more, so that it has to be loaded again.
    fn is_broken(&self) -> bool {
        false
    }

    /// Whether all memory in which it computes comes from this program's allocator, so that what a run leaves
    /// behind can be wiped.
    fn wipes(&self) -> bool {
        false
    }
}

/// Loads a model and proves on it what its manifest says: specs, then golden pairs. It takes inputs such as the manifest
/// promises, which may fix what the file leaves free, and none that is empty where the manifest does not say so.
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
    let model = specified(engine, engine.load(bytes, manifest.format)?, manifest)?;
    check_golden(&*model, &manifest.golden)?;
    Ok(promised::promised(model, &manifest.inputs))
}

/// Like [`load_checked`]. Where the model [wipes](Model::wipes), neither loading nor the golden pairs leave anything of it
/// in threads of the engine.
///
/// # Errors
///
/// As [`load_checked`].
pub fn load_checked_apart(
    engine: &dyn Engine,
    bytes: Vec<u8>,
    manifest: &Manifest,
) -> Result<Box<dyn Model>, EngineError> {
    let model = specified(engine, engine.load_apart(bytes, manifest.format)?, manifest)?;
    golden::check_golden_apart(&*model, &manifest.golden)?;
    Ok(promised::promised(model, &manifest.inputs))
}

/// Like [`load_checked`], asking `goes_on` before and after each golden pair; `None` when it said no. One load and one
/// run are not broken off.
///
/// # Errors
///
/// As [`load_checked`].
pub fn load_checked_while(
    engine: &dyn Engine,
    bytes: Vec<u8>,
    manifest: &Manifest,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Box<dyn Model>>, EngineError> {
    let model = specified(engine, engine.load(bytes, manifest.format)?, manifest)?;
    let agrees = golden::check_golden_while(&*model, &manifest.golden, goes_on)?;
    Ok(agrees.then(|| promised::promised(model, &manifest.inputs)))
}

/// The model with the types that its manifest promises, once they are compared.
fn specified(
    engine: &dyn Engine,
    model: Box<dyn Model>,
    manifest: &Manifest,
) -> Result<Box<dyn Model>, EngineError> {
    check_specs(&manifest.inputs, model.inputs(), manifest.format)?;
    check_specs(&manifest.outputs, model.outputs(), manifest.format)?;
    Ok(match manifest.format {
        // Such a file has one integer type of 32 bits; the manifest knows what the owner's ONNX had.
        ModelFormat::Rten => narrow::narrowed(
            model,
            manifest.inputs.clone(),
            manifest.outputs.clone(),
            engine.name(),
        ),
        _ => model,
    })
}

/// Checks that the owner promised nothing that the model does not take or give. A manifest may fix
/// a dimension that the model leaves free.
fn check_specs(
    promised: &[TensorSpec],
    actual: &[TensorSpec],
    format: ModelFormat,
) -> Result<(), EngineError> {
    let element = |promised: &TensorSpec| match format {
        ModelFormat::Rten => in_rten(promised.element()),
        _ => Some(promised.element()),
    };
    let agrees = |promised: &TensorSpec| {
        actual.iter().any(|actual| {
            let same_shape = promised.shape().len() == actual.shape().len()
                && promised
                    .shape()
                    .iter()
                    .zip(actual.shape())
                    .all(|(promised, actual)| actual.is_none() || promised == actual);
            promised.name() == actual.name()
                && element(promised) == Some(actual.element())
                && same_shape
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

fn words<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|word| read(*word))
        .collect()
}

fn bytes<const N: usize, T>(
    data: impl IntoIterator<Item = T>,
    write: impl Fn(T) -> [u8; N],
) -> Vec<u8> {
    data.into_iter().flat_map(write).collect()
}
