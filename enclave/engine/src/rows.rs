//! Several requests as one run: inputs joined along the first axis, outputs cut along it.
//!
//! ```text
//! [1, 4] ┐                         ┌ [1, 3]
//! [1, 4] ┼▶ [3, 4] ─run─▶ [3, 3] ──┼ [1, 3]
//! [1, 4] ┘                         └ [1, 3]
//! ```
//!
//! Always true: only requests of one row each are joined, of one [`Shape`], for models that call the first axis of every
//! input and output by one name; outputs that do not have a row for each request are given to nobody. Not here: whether
//! each row of the answer depends on its own row alone, which no shape shows (`proof`, and `enclave/runtime` compares), and
//! who may be joined with whom.
//!
//! On paper: one more copy of each input and output, of at most [`ROW_BYTES_MAX`] per input.

mod proof;

use std::time::Duration;

use bield_package::TOLERANCE_PPM;
use bield_package::tensor::{ElementType, Tensor, TensorSpec};

use crate::{EngineError, Model, agree};

pub use proof::{Rows, prove_rows};

/// Longest input that is joined with others, in bytes: longer ones keep all threads busy by themselves, and what is joined
/// is held twice.
pub const ROW_BYTES_MAX: usize = 4 << 20;

/// What requests have in common that can run together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// In the order of the model, without the first axis.
    inputs: Vec<(ElementType, Vec<u64>)>,
    outputs: Vec<String>,
}

impl Shape {
    /// The shape of a request that can run together with others: the model [has rows](Model::has_rows), all its outputs are of
    /// numbers, every input is there once, fits it, is of numbers, and has one row of at most [`ROW_BYTES_MAX`].
    pub fn of(model: &dyn Model, inputs: &[Tensor], outputs: &[&str]) -> Option<Self> {
        // A manifest may fix what the file leaves free.
        let is_free = |spec: &TensorSpec| spec.shape().first() == Some(&None);
        let specs = model.inputs();
        if !model.has_rows() || inputs.len() != specs.len() || !specs.iter().all(is_free) {
            return None;
        }
        // Rows of strings have lengths of their own, and cannot be cut by bytes.
        let mut outputs_given = model.outputs().iter();
        if outputs_given.any(|spec| spec.element() == ElementType::String) {
            return None;
        }
        let inputs = specs.iter().map(|spec| {
            let tensor = named(inputs, spec.name())?;
            let (rows, row) = tensor.shape().split_first()?;
            let is_joined = *rows == 1
                && tensor.data().len() <= ROW_BYTES_MAX
                && tensor.element() != ElementType::String;
            let fits = is_joined && spec.accepts(tensor).is_ok();
            fits.then(|| (tensor.element(), row.to_vec()))
        });
        Some(Self {
            inputs: inputs.collect::<Option<_>>()?,
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// The outputs that are asked for; all of them when empty.
    pub fn outputs(&self) -> Vec<&str> {
        self.outputs.iter().map(String::as_str).collect()
    }

    /// Bytes of one row of all inputs.
    pub fn row_bytes(&self) -> u64 {
        let bytes = |(element, row): &(ElementType, Vec<u64>)| {
            row.iter().product::<u64>() * element.size_bytes().unwrap_or(0) as u64
        };
        self.inputs.iter().map(bytes).sum()
    }
}

/// Answers, one for each request, and how long one more session of the engine took to open.
type Together = (Option<Vec<Vec<Tensor>>>, Option<Duration>);

/// Runs requests of one shape as one; `None` when the outputs do not have a row for each.
///
/// # Errors
///
/// As [`Model::run`]: one of the requests, or all of them together, are more than the model takes.
pub fn run_together(
    model: &dyn Model,
    shape: &Shape,
    requests: &[&[Tensor]],
) -> Result<Together, EngineError> {
    let specs = model.inputs().iter();
    let inputs = specs
        .map(|spec| joined(spec, requests))
        .collect::<Result<Vec<_>, _>>()?;
    let (outputs, session) = model.run_timed(&inputs, &shape.outputs())?;
    let mut answers: Vec<_> = requests
        .iter()
        .map(|_| Vec::with_capacity(outputs.len()))
        .collect();
    for output in outputs {
        let Some(row) = row_shape(&output, requests.len() as u64) else {
            return Ok((None, session));
        };
        let (name, element) = (output.name().to_owned(), output.element());
        let data = output.into_data();
        let row_bytes = data.len() / requests.len();
        for (at, answer) in answers.iter_mut().enumerate() {
            let row_data = data[at * row_bytes..][..row_bytes].to_vec();
            answer.push(Tensor::new(name.as_str(), element, row.clone(), row_data)?);
        }
    }
    Ok((Some(answers), session))
}

/// Whether a request's answer from a joint run is the one that it gets alone, within the usual tolerance. `None` when that
/// cannot be told, because what it gets alone has numbers that are not finite and the rest is the same.
pub fn same_answers(single: &[Tensor], together: &[Tensor]) -> Option<bool> {
    if single.len() != together.len() {
        return Some(false);
    }
    let mut tells = true;
    for (single, together) in single.iter().zip(together) {
        let numbers = single.to_f64().unwrap_or_default();
        if numbers.iter().all(|number| number.is_finite()) {
            if !agree(single, together, TOLERANCE_PPM) {
                return Some(false);
            }
        } else {
            tells = false;
        }
    }
    tells.then_some(true)
}

/// One input of all requests.
fn joined(spec: &TensorSpec, requests: &[&[Tensor]]) -> Result<Tensor, EngineError> {
    let (mut data, mut shape) = (Vec::new(), Vec::new());
    for request in requests {
        let tensor = named(request, spec.name()).ok_or_else(|| EngineError::MissingInput {
            name: spec.name().to_owned(),
        })?;
        if data.is_empty() {
            data.reserve_exact(tensor.data().len() * requests.len());
        }
        data.extend_from_slice(tensor.data());
        shape = tensor.shape().to_vec();
    }
    if let Some(rows) = shape.first_mut() {
        *rows = requests.len() as u64;
    }
    Ok(Tensor::new(spec.name(), spec.element(), shape, data)?)
}

/// The shape of one row of an output that has `rows`.
fn row_shape(output: &Tensor, rows: u64) -> Option<Vec<u64>> {
    let mut shape = output.shape().to_vec();
    let first = shape.first_mut().filter(|first| **first == rows)?;
    *first = 1;
    Some(shape)
}

fn named<'t>(tensors: &'t [Tensor], name: &str) -> Option<&'t Tensor> {
    tensors.iter().find(|tensor| tensor.name() == name)
}
