//! The default engine: rten 0.27, pure Rust, memory-safe against hostile models.
//!
//! ```text
//! bytes ─┬─ our ONNX reader ──▶ specs (with i64 and boolean), padded integer convolutions
//!        └─ rten ─────────────▶ graph, weights          both agree on the names of nodes
//! ```
//!
//! Always true: a model with a padded `ConvInteger` or `QLinearConv` does not load, because rten
//! 0.27 computes their borders wrongly (measured: 5 to 14 % of the elements, silently); all models
//! of one [`Rten`] share its threads.
//!
//! rten reads the environment variables `RTEN_TIMING` and `RTEN_NUM_THREADS`; a program that hides
//! its timing clears its environment first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::tensor::{Tensor, TensorSpec};
use rten::{LoadError, ModelOptions, NodeId, RunError, RunOptions, ThreadPool, ValueOrView};

use crate::convert::{from_value, to_value};
use crate::{Engine, EngineError, Model};

/// The engine rten with its threads.
pub struct Rten {
    pool: Arc<ThreadPool>,
}

impl Rten {
    /// Starts the engine with `threads` threads per run, at least one.
    ///
    /// All threads start here, those that rten uses while loading included, so that a sandbox may
    /// forbid new ones afterwards.
    pub fn new(threads: usize) -> Self {
        rten::thread_pool();
        Self {
            pool: Arc::new(ThreadPool::with_num_threads(threads.max(1))),
        }
    }
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        match format {
            ModelFormat::Onnx => {}
        }
        let signature = Signature::read(&bytes)?;
        if let Some(node) = signature.padded_integer_convolutions.first() {
            return Err(EngineError::PaddedIntegerConvolution {
                node: node.clone(),
                engine: NAME,
            });
        }
        let model = caught(|| ModelOptions::with_all_ops().load(bytes))
            .map_err(refuse_load)?
            .map_err(|error| refuse_load(describe_load(&error)))?;
        let find = |spec: &TensorSpec| {
            model
                .node_id(spec.name())
                .map_err(|_| refuse_load(format!("it has no node {}", spec.name())))
        };
        let input_ids = signature
            .inputs
            .iter()
            .map(find)
            .collect::<Result<_, _>>()?;
        let output_ids = signature
            .outputs
            .iter()
            .map(find)
            .collect::<Result<_, _>>()?;
        Ok(Box::new(Loaded {
            model,
            inputs: signature.inputs,
            outputs: signature.outputs,
            input_ids,
            output_ids,
            pool: Arc::clone(&self.pool),
        }))
    }
}

/// A model in rten. `input_ids` and `output_ids` run parallel to `inputs` and `outputs`.
struct Loaded {
    model: rten::Model,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_ids: Vec<NodeId>,
    output_ids: Vec<NodeId>,
    pool: Arc<ThreadPool>,
}

impl Model for Loaded {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let asked = self.asked(outputs)?;
        let values = self.values(inputs)?;
        let ids: Vec<NodeId> = asked.iter().map(|index| self.output_ids[*index]).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
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

impl Loaded {
    /// Indices of the outputs asked for.
    fn asked(&self, names: &[&str]) -> Result<Vec<usize>, EngineError> {
        if names.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let found = self.outputs.iter().position(|spec| spec.name() == *name);
                found
                    .filter(|_| !names[..at].contains(name))
                    .ok_or_else(|| EngineError::UnknownOutput {
                        name: (*name).to_owned(),
                    })
            })
            .collect()
    }

    /// The inputs as values, each checked and each exactly once.
    fn values(
        &self,
        inputs: &[Tensor],
    ) -> Result<Vec<(NodeId, ValueOrView<'static>)>, EngineError> {
        for (at, tensor) in inputs.iter().enumerate() {
            let known = self.inputs.iter().any(|spec| spec.name() == tensor.name());
            let before = inputs[..at]
                .iter()
                .any(|other| other.name() == tensor.name());
            if !known || before {
                return Err(EngineError::UnknownInput {
                    name: tensor.name().to_owned(),
                });
            }
        }
        self.inputs
            .iter()
            .zip(&self.input_ids)
            .map(|(spec, id)| {
                let tensor = inputs
                    .iter()
                    .find(|tensor| tensor.name() == spec.name())
                    .ok_or_else(|| EngineError::MissingInput {
                        name: spec.name().to_owned(),
                    })?;
                spec.accepts(tensor)?;
                Ok((*id, to_value(tensor, NAME)?.into()))
            })
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
