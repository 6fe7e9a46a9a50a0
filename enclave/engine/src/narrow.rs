//! i64 and booleans for an engine that computes with 32 bits.
//!
//! ```text
//! caller: i64, bool ──narrow──▶ inner model: i32 ──widen──▶ caller: i64, bool
//! ```
//!
//! Always true: a number that does not fit is refused, never wrapped. On paper: one more copy of each input of a
//! model that has an i64 or boolean one (token ids: kilobytes); other models are not wrapped.

use std::time::Duration;

use bield_package::tensor::{ElementType, Tensor, TensorSpec};

use crate::{EngineError, Model, bytes, words};

/// Gives `inner`, whose integers have 32 bits, the promised inputs and outputs.
pub(crate) fn narrowed(
    inner: Box<dyn Model>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    engine: &'static str,
) -> Box<dyn Model> {
    let wide = |specs: &[TensorSpec]| specs.iter().any(|spec| is_wide(spec.element()));
    if !wide(&inputs) && !wide(&outputs) {
        return inner;
    }
    Box::new(Narrowed {
        inner,
        inputs,
        outputs,
        engine,
    })
}

struct Narrowed {
    inner: Box<dyn Model>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    engine: &'static str,
}

impl Model for Narrowed {
    fn engine(&self) -> &'static str {
        self.inner.engine()
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
        self.wide(inputs, |inputs| self.inner.run_timed(inputs, outputs))
    }

    fn run_apart(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.wide(inputs, |inputs| self.inner.run_apart(inputs, outputs))
    }

    fn has_rows(&self) -> bool {
        self.inner.has_rows()
    }

    fn runs_max(&self) -> usize {
        self.inner.runs_max()
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.inner.resident_bytes()
    }

    fn is_broken(&self) -> bool {
        self.inner.is_broken()
    }

    fn wipes(&self) -> bool {
        self.inner.wipes()
    }
}

impl Narrowed {
    /// Runs the inner model on narrowed inputs and widens what it computes.
    fn wide(
        &self,
        inputs: &[Tensor],
        run: impl FnOnce(&[Tensor]) -> Result<(Vec<Tensor>, Option<Duration>), EngineError>,
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let inputs = inputs
            .iter()
            .map(|tensor| self.narrow(tensor))
            .collect::<Result<Vec<_>, _>>()?;
        let (computed, opened) = run(&inputs)?;
        let widened: Result<_, _> = computed.into_iter().map(|t| self.widen(t)).collect();
        Ok((widened?, opened))
    }

    /// The input as the inner model takes it; one that nobody knows goes through, to be refused there.
    fn narrow(&self, tensor: &Tensor) -> Result<Tensor, EngineError> {
        if let Some(spec) = self.inputs.iter().find(|spec| spec.name() == tensor.name()) {
            spec.accepts(tensor)?;
        }
        let data = match tensor.element() {
            ElementType::Bool => bytes(tensor.data().iter().copied(), |bit| {
                i32::from(bit).to_le_bytes()
            }),
            ElementType::I64 => {
                let narrow = |word| i32::try_from(i64::from_le_bytes(word));
                let numbers = words(tensor.data(), narrow);
                let numbers: Result<Vec<i32>, _> = numbers.into_iter().collect();
                let numbers = numbers.map_err(|_| EngineError::Range {
                    name: tensor.name().to_owned(),
                    engine: self.engine,
                })?;
                bytes(numbers, i32::to_le_bytes)
            }
            _ => return Ok(tensor.clone()),
        };
        Ok(Tensor::new(
            tensor.name(),
            ElementType::I32,
            tensor.shape().to_vec(),
            data,
        )?)
    }

    fn widen(&self, tensor: Tensor) -> Result<Tensor, EngineError> {
        let spec = self
            .outputs
            .iter()
            .find(|spec| spec.name() == tensor.name());
        let element = spec.map_or(tensor.element(), TensorSpec::element);
        if !is_wide(element) || tensor.element() != ElementType::I32 {
            return Ok(tensor);
        }
        let numbers = words(tensor.data(), i32::from_le_bytes);
        let data = match element {
            ElementType::Bool => numbers.into_iter().map(|n| u8::from(n != 0)).collect(),
            _ => bytes(numbers, |number| i64::from(number).to_le_bytes()),
        };
        Ok(Tensor::new(
            tensor.name(),
            element,
            tensor.shape().to_vec(),
            data,
        )?)
    }
}

const fn is_wide(element: ElementType) -> bool {
    matches!(element, ElementType::I64 | ElementType::Bool)
}
