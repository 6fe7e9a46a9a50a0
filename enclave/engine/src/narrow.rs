//! i64 and booleans for an engine that computes with 32 bits.
//!
//! ```text
//! caller: i64, bool ──narrow──▶ inner model: i32 ──widen──▶ caller: i64, bool
//! ```
//!
//! Always true: a number that does not fit is refused, never wrapped. On paper: one more copy of each input of a
//! model that has an i64 or boolean one (token ids: kilobytes); other models are not wrapped.

use std::ops::ControlFlow;
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

    fn run_in_parts(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
        each: &mut dyn FnMut(Tensor) -> ControlFlow<()>,
    ) -> Result<Option<Duration>, EngineError> {
        let inputs = self.narrow_all(inputs)?;
        let mut failed = None;
        let opened = self.inner.run_in_parts(&inputs, outputs, &mut |output| {
            self.widen(output).map_or_else(
                |error| {
                    failed = Some(error);
                    ControlFlow::Break(())
                },
                &mut *each,
            )
        })?;
        failed.map_or(Ok(opened), Err)
    }

    fn computes_in_parts(&self) -> bool {
        self.inner.computes_in_parts()
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
        let (computed, opened) = run(&self.narrow_all(inputs)?)?;
        let widened: Result<_, _> = computed.into_iter().map(|t| self.widen(t)).collect();
        Ok((widened?, opened))
    }

    fn narrow_all(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        inputs.iter().map(|tensor| self.narrow(tensor)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its input, then twice its input.
    struct Doubling(Vec<TensorSpec>);

    impl Model for Doubling {
        fn engine(&self) -> &'static str {
            "doubling"
        }

        fn inputs(&self) -> &[TensorSpec] {
            &self.0
        }

        fn outputs(&self) -> &[TensorSpec] {
            &self.0
        }

        fn run_timed(
            &self,
            _: &[Tensor],
            _: &[&str],
        ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
            panic!("asked for all at once")
        }

        fn run_in_parts(
            &self,
            inputs: &[Tensor],
            _: &[&str],
            each: &mut dyn FnMut(Tensor) -> ControlFlow<()>,
        ) -> Result<Option<Duration>, EngineError> {
            let numbers = words(inputs[0].data(), i32::from_le_bytes);
            for factor in [1, 2] {
                let numbers = numbers.iter().map(|number| number * factor);
                let data = bytes(numbers, i32::to_le_bytes);
                if each(Tensor::new("n", ElementType::I32, vec![2], data)?).is_break() {
                    break;
                }
            }
            Ok(None)
        }

        fn computes_in_parts(&self) -> bool {
            true
        }
    }

    #[test]
    fn outputs_are_widened_one_by_one_as_they_are_made() {
        let spec = |element| vec![TensorSpec::new("n", element, vec![Some(2)]).unwrap()];
        let wide = || spec(ElementType::I64);
        let inner = Box::new(Doubling(spec(ElementType::I32)));
        let model = narrowed(inner, wide(), wide(), "doubling");
        assert!(model.computes_in_parts());
        let long = |numbers: [i64; 2]| {
            let data = bytes(numbers, i64::to_le_bytes);
            Tensor::new("n", ElementType::I64, vec![2], data).unwrap()
        };
        let mut came = Vec::new();
        let mut each = |output| {
            came.push(output);
            match came.len() {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        model
            .run_in_parts(&[long([3, -4])], &[], &mut each)
            .unwrap();
        assert_eq!(came, [long([3, -4]), long([6, -8])]);
        let mut first = Vec::new();
        let mut each = |output| {
            first.push(output);
            ControlFlow::Break(())
        };
        model.run_in_parts(&[long([1, 2])], &[], &mut each).unwrap();
        assert_eq!(first, [long([1, 2])], "it breaks off");
        let large = long([i64::MAX, 0]);
        let mut each = |_| panic!("nothing is computed of it");
        assert!(model.run_in_parts(&[large], &[], &mut each).is_err());
    }
}
