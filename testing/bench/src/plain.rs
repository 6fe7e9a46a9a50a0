//! The baseline: the same engine, in this process, on the plaintext file.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bield_engine::{Engine, Model, Rten};
use bield_package::ModelFormat;
use bield_sdk::Tensor;

/// Reads, loads and answers once; returns the model and the milliseconds.
pub(crate) fn cold(file: &Path, threads: usize, input: &Tensor) -> Result<(Box<dyn Model>, f64)> {
    let started = Instant::now();
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let model = Rten::new(threads).load(bytes, ModelFormat::Onnx)?;
    model.run(std::slice::from_ref(input), &[])?;
    Ok((model, milliseconds(started)))
}

/// Answers once; returns the milliseconds.
pub(crate) fn hot(model: &dyn Model, input: &Tensor) -> Result<f64> {
    let started = Instant::now();
    model.run(std::slice::from_ref(input), &[])?;
    Ok(milliseconds(started))
}

/// Milliseconds since `started`.
pub(crate) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
