//! The baseline: the same engines in this process, on the plaintext file.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bield_engine::{Engine, Model, Rten};
use bield_sdk::{ElementType, Tensor};

use super::caller::milliseconds;
use super::models::EngineKind;
use crate::deployment::ModelFile;

/// The engines, with their threads.
pub(crate) struct Engines {
    rten: Rten,
    onnxruntime: Option<Box<dyn Engine>>,
}

impl Engines {
    /// Opens them; onnxruntime when its library is given and this program was built with it.
    pub(crate) fn open(threads: usize, sessions: usize, library: Option<&Path>) -> Result<Self> {
        Ok(Self {
            rten: Rten::new(threads),
            onnxruntime: library
                .map(|library| onnxruntime(library, threads, sessions))
                .transpose()?,
        })
    }

    pub(crate) fn get(&self, kind: EngineKind) -> Result<&dyn Engine> {
        match kind {
            EngineKind::Rten => Ok(&self.rten),
            EngineKind::Onnxruntime => {
                let engine = self.onnxruntime.as_deref();
                engine.context("BIELD_ONNXRUNTIME names no library")
            }
        }
    }
}

#[cfg(feature = "engine-ort")]
fn onnxruntime(library: &Path, threads: usize, sessions: usize) -> Result<Box<dyn Engine>> {
    let engine = bield_engine::OnnxRuntime::open(library, threads, sessions)?;
    Ok(Box::new(engine))
}

#[cfg(not(feature = "engine-ort"))]
fn onnxruntime(_: &Path, _: usize, _: usize) -> Result<Box<dyn Engine>> {
    anyhow::bail!("this program was built without engine-ort; `cargo xtask bench` builds it with")
}

/// Reads, loads and answers once; returns the model, the answer and the milliseconds.
pub(crate) fn cold(
    engine: &dyn Engine,
    file: &ModelFile,
    inputs: &[Tensor],
) -> Result<(Box<dyn Model>, Vec<Tensor>, f64)> {
    let started = Instant::now();
    let bytes = std::fs::read(&file.path).with_context(|| file.path.display().to_string())?;
    let model = engine.load(bytes, file.format)?;
    let answer = model.run(&taken(&*model, inputs)?, &[])?;
    Ok((model, answer, milliseconds(started)))
}

/// The inputs as the model itself takes them: a `.rten` file has i32 where its ONNX file had i64, and the runtime converts.
pub(crate) fn taken(model: &dyn Model, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let narrow = |input: &Tensor| {
        let mut specs = model.inputs().iter();
        let spec = specs.find(|spec| spec.name() == input.name());
        match (spec.map(|spec| spec.element()), input.to_i64()) {
            (Some(ElementType::I32), Some(numbers)) => {
                let numbers = numbers.into_iter().map(i32::try_from);
                let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
                Ok(Tensor::from_i32(input.name(), input.shape(), &numbers)?)
            }
            _ => Ok(input.clone()),
        }
    };
    inputs.iter().map(narrow).collect()
}

/// The numbers of the first output.
pub(crate) fn numbers(answer: &[Tensor]) -> Vec<f32> {
    let first = answer.first().and_then(Tensor::to_f32);
    first.unwrap_or_default()
}

/// Answers once; returns the milliseconds.
pub(crate) fn hot(model: &dyn Model, inputs: &[Tensor]) -> Result<f64> {
    let started = Instant::now();
    model.run(inputs, &[])?;
    Ok(milliseconds(started))
}
