//! The default engine: rten 0.27, pure Rust. It indexes unchecked by products of lengths, so it is memory-safe against
//! hostile models only in builds that stop at an overflow, as all profiles of this workspace do.
//!
//! ```text
//! bytes ─┬─ our reader ──▶ specs, padded integer convolutions
//!        └─ rten ────────▶ graph, weights                     both agree on the names of nodes
//! ```
//!
//! Always true: a model with a padded `ConvInteger` or `QLinearConv` does not load in any format, because
//! rten 0.27 computes their borders wrongly (measured: 5 to 14 % of the elements, silently); bytes that rten
//! would take for another format than was said do not reach it; all models of one [`Rten`] share its threads, and as many
//! runs at once as were said do not wait for each other.
//!
//! On paper: rten keeps the bytes of a `.rten` file and reads the weights in place, 1.0 × the file while loading
//! and afterwards. Of an ONNX file it copies every weight and the bytes are freed when it is done: 2.0 × while
//! loading, 1.0 × afterwards; weights of half precision and booleans become numbers of 4 bytes. What depends on constants
//! only is computed while loading and stays.
//!
//! rten reads the environment variables `RTEN_TIMING` and `RTEN_NUM_THREADS`; a program that hides
//! its timing clears its environment first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_package::ModelFormat;
use bield_package::onnx::{OnnxError, Signature, Weights};
use bield_package::prepared::{PreparedError, RtenFile, in_rten};
use bield_package::tensor::{Tensor, TensorSpec};
use rten::{LoadError, ModelOptions, NodeId, RunError, RunOptions, ThreadPool, ValueOrView};

use rten_onnx::onnx::is_onnx_model;
use rten_onnx::protobuf::ValueReader;

use crate::apart::Apart;
use crate::convert::{from_value, to_value};
use crate::ends::{asked, given};
use crate::narrow::narrowed;
use crate::pools::Pools;
use crate::{Engine, EngineError, Footprint, Model};

/// The engine rten with its threads.
pub struct Rten {
    pools: Arc<Pools>,
    threads: usize,
}

impl Rten {
    /// Starts the engine with `threads` threads, at least one, for one run at a time: more wait for each other.
    ///
    /// All threads start here, those that rten uses while loading included, so that a sandbox may
    /// forbid new ones afterwards.
    pub fn new(threads: usize) -> Self {
        Self::for_runs(threads, 1)
    }

    /// Starts the engine with `threads` threads for each of `runs` runs at once, at least one of both. A run stays on the
    /// threads it began on, so one pool of all threads would let a single run have them all, and one of `threads`
    /// compute one run after the other.
    pub fn for_runs(threads: usize, runs: usize) -> Self {
        rten::thread_pool();
        let threads = threads.max(1);
        Self {
            pools: Pools::start(threads, runs.max(1)),
            threads,
        }
    }
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn takes(&self, format: ModelFormat) -> bool {
        matches!(format, ModelFormat::Onnx | ModelFormat::Rten)
    }

    fn examine(&self, bytes: &[u8], format: ModelFormat) -> Result<(), EngineError> {
        signature(bytes, format).map(drop)
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        self.load_with(&ModelOptions::with_all_ops(), bytes, format)
    }

    /// Without optimisations, of which one computes what depends on constants only: on rten's own threads, which keep
    /// blocks of both factors of a product.
    fn load_apart(
        &self,
        bytes: Vec<u8>,
        format: ModelFormat,
    ) -> Result<Box<dyn Model>, EngineError> {
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(false);
        self.load_with(&options, bytes, format)
    }

    fn footprint(&self, format: ModelFormat, bytes: u64) -> Footprint {
        let copies = if format == ModelFormat::Rten { 1 } else { 2 };
        Footprint {
            loading: bytes.saturating_mul(copies),
            resident: bytes,
        }
    }

    fn footprint_of(&self, bytes: &[u8], format: ModelFormat) -> Footprint {
        let length = bytes.len() as u64;
        let rough = self.footprint(format, length);
        let (weights, _) = weights(bytes, format);
        let resident = rough.resident.max(weights);
        let copied = match format {
            ModelFormat::Rten => 0,
            _ => resident,
        };
        Footprint {
            loading: rough.loading.max(length.saturating_add(copied)),
            resident,
        }
    }
}

impl Rten {
    fn load_with(
        &self,
        options: &ModelOptions,
        bytes: Vec<u8>,
        format: ModelFormat,
    ) -> Result<Box<dyn Model>, EngineError> {
        let signature = signature(&bytes, format)?;
        let (weights, numbers) = weights(&bytes, format);
        let model = caught(|| options.load(bytes))
            .map_err(refuse_load)?
            .map_err(|error| refuse_load(describe_load(&error)))?;
        let find = |spec: &TensorSpec| {
            model
                .node_id(spec.name())
                .map_err(|_| refuse_load(format!("it has no node {}", spec.name())))
        };
        let ids = |specs: &[TensorSpec]| specs.iter().map(find).collect::<Result<_, _>>();
        let loaded = Loaded {
            input_ids: ids(&signature.inputs)?,
            output_ids: ids(&signature.outputs)?,
            inputs: native(&signature.inputs)?,
            outputs: native(&signature.outputs)?,
            has_rows: signature.has_rows(),
            // rten tells numbers, not their types; none is longer than 4 bytes.
            bytes: (model.total_params() as u64)
                .saturating_sub(numbers)
                .saturating_mul(4)
                .saturating_add(weights),
            model,
            pools: Arc::clone(&self.pools),
            threads: self.threads,
        };
        let Signature {
            inputs, outputs, ..
        } = signature;
        Ok(narrowed(Box::new(loaded), inputs, outputs, NAME))
    }
}

/// What the file says, or why rten must not run it.
fn signature(bytes: &[u8], format: ModelFormat) -> Result<Signature, EngineError> {
    let signature = match format {
        ModelFormat::Onnx => {
            // rten guesses the format from the bytes; what is checked here must be what it reads.
            if bytes.starts_with(b"RTEN") || !is_onnx_model(ValueReader::from_buf(bytes)) {
                return Err(OnnxError::NotOnnx.into());
            }
            Signature::read(bytes)?
        }
        ModelFormat::Rten => RtenFile::read(bytes)?.as_said(),
        ModelFormat::Ort | ModelFormat::Component => {
            return Err(EngineError::Format {
                format,
                engines: NAME,
            });
        }
    };
    if let Some(node) = signature.padded_integer_convolutions.first() {
        return Err(EngineError::PaddedIntegerConvolution {
            node: node.clone(),
            engine: NAME,
        });
    }
    native(&signature.inputs)?;
    native(&signature.outputs)?;
    Ok(signature)
}

/// Bytes of a file's weights in the types that rten has, and how many numbers they are at most. Where a `.rten` file's
/// weights lie in it, each of at least a byte, is not looked at.
fn weights(bytes: &[u8], format: ModelFormat) -> (u64, u64) {
    let counted = (format == ModelFormat::Onnx).then(|| Weights::count(bytes));
    let Some(Ok(Weights { numbers, bytes })) = counted else {
        return (bytes.len() as u64, bytes.len() as u64);
    };
    let wide = numbers.saturating_sub(bytes).saturating_mul(4);
    (wide.saturating_add(bytes), numbers)
}

/// The specs in the types that rten has.
fn native(specs: &[TensorSpec]) -> Result<Vec<TensorSpec>, EngineError> {
    let native = |spec: &TensorSpec| {
        let element = in_rten(spec.element()).ok_or_else(|| EngineError::Element {
            name: spec.name().to_owned(),
            element: spec.element(),
            engine: NAME,
        })?;
        let spec = TensorSpec::new(spec.name(), element, spec.shape().to_vec());
        Ok(spec.map_err(PreparedError::from)?)
    };
    specs.iter().map(native).collect()
}

/// A model in rten. `input_ids` and `output_ids` run parallel to `inputs` and `outputs`.
struct Loaded {
    model: rten::Model,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_ids: Vec<NodeId>,
    output_ids: Vec<NodeId>,
    has_rows: bool,
    bytes: u64,
    pools: Arc<Pools>,
    /// Of a pool, which is not asked: its threads may all be at work.
    threads: usize,
}

impl Model for Loaded {
    fn engine(&self) -> &'static str {
        NAME
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
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let place = self.pools.take();
        Ok((self.run_on(place.pool(), inputs, outputs)?, None))
    }

    fn run_apart(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let started = Instant::now();
        let apart = Apart::start(self.threads)
            .ok_or_else(|| refuse_run("the system gives no threads".to_owned()))?;
        let took = started.elapsed();
        let ran = self.run_on(apart.pool(), inputs, outputs);
        apart.end();
        Ok((ran?, Some(took)))
    }

    fn has_rows(&self) -> bool {
        self.has_rows
    }

    fn resident_bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }

    fn wipes(&self) -> bool {
        true
    }
}

impl Loaded {
    fn run_on(
        &self,
        pool: Arc<ThreadPool>,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, EngineError> {
        let asked = asked(&self.outputs, outputs)?;
        let values = given(&self.inputs, inputs)?
            .zip(&self.input_ids)
            .map(|(tensor, id)| Ok((*id, to_value(tensor?, NAME)?.into())))
            .collect::<Result<Vec<(NodeId, ValueOrView<'static>)>, EngineError>>()?;
        let ids: Vec<NodeId> = asked.iter().map(|index| self.output_ids[*index]).collect();
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let results = caught(|| self.model.run(values, &ids, Some(options)))
            .map_err(refuse_run)?
            .map_err(|error| refuse_run(describe_run(&error)))?;
        asked
            .iter()
            .zip(results)
            .map(|(index, value)| from_value(value, &self.outputs[*index]))
            .collect()
    }
}

/// Runs `act`; a panic becomes a reason. rten changes nothing shared before it succeeds.
fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| "it panicked".to_owned())
}

fn refuse_load(reason: String) -> EngineError {
    EngineError::Load {
        engine: NAME,
        reason,
    }
}

fn refuse_run(reason: String) -> EngineError {
    EngineError::Run {
        engine: NAME,
        reason,
    }
}

/// Kind and node only: an engine's own words may quote contents.
fn describe_load(error: &LoadError) -> String {
    match error.node() {
        Some(node) => format!("{:?} at node {}", error.kind(), shortened(node)),
        None => format!("{:?}", error.kind()),
    }
}

/// Kind and node only: an engine's own words may quote contents.
fn describe_run(error: &RunError) -> String {
    match error.node_path().into_iter().flatten().next_back() {
        Some(node) => format!("{:?} at node {}", error.kind(), shortened(node)),
        None => format!("{:?}", error.kind()),
    }
}

fn shortened(node: &str) -> String {
    node.chars().take(64).collect()
}

const NAME: &str = "rten 0.27";

#[cfg(test)]
mod tests;
